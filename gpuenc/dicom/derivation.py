"""What is said of new pixels: as it was asked for, and checked before anything is read or written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from gpuenc.errors import InvalidOption

if TYPE_CHECKING:
    from gpuenc.dicom.scale import Scale
    from gpuenc.frames import FrameFormat

_UID, _MOST_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+"), 64
# Characters of PS3.5 6.2, by VR; ST may have lines and backslashes.
_MOST = {"SH": 16, "LO": 64, "ST": 1024}
_CONTROL, _CONTROL_IN_LINES = re.compile(r"[\x00-\x1f\x7f-\x9f\\]"), re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_DS_CHARACTERS = 16
_CODE_PARTS = (("value", "SH"), ("scheme", "SH"), ("meaning", "LO"))


@dataclass(frozen=True, slots=True)
class Derivation:
    """What is said of new pixels.

    Parameters
    ----------
    format : FrameFormat
        Of their cells.
    number_of_frames : int
        How many.
    scale : Scale or None
        What stored values mean; None where they mean nothing in particular.
    keeps_scale : bool
        They mean what the template's do.
    units : str
        Rescale Type; empty for unspecified.
    window : tuple of float or None
        Window Center and Width.
    resized : bool
        They show the template's field of view in another number of rows and columns.
    description, code : str, tuple of str or None
        Derivation Description, and a code for it: value, scheme, meaning.
    series_instance_uid, series_description : str
        Of the new series; empty for a new UID, and for the template's words.
    series_number : int or None
        Of the new series.
    """

    format: FrameFormat
    number_of_frames: int
    scale: Scale | None = None
    keeps_scale: bool = False
    units: str = ""
    window: tuple[float, float] | None = None
    resized: bool = False
    description: str = ""
    code: tuple[str, str, str] | None = None
    series_instance_uid: str = ""
    series_description: str = ""
    series_number: int | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All text that a person chose."""
        return (self.units, self.description, self.series_description, *(self.code or ()))


def text_of(name: str, given: Any, vr: str) -> str:
    """Return a text option as it may be written.

    Parameters
    ----------
    name : str
        Of the option.
    given : str
        What was given; empty, or None, for nothing.
    vr : {'SH', 'LO', 'ST'}
        What becomes of it (PS3.5 6.2).

    Raises
    ------
    InvalidOption
        It is no text, too long, or has characters that its VR does not allow.
    """
    if given is None or (isinstance(given, str) and not given):
        return ""
    if not isinstance(given, str):
        raise InvalidOption(f"{name} is text, not {type(given).__name__}")
    if len(given) > _MOST[vr]:
        raise InvalidOption(f"{name} has {len(given)} characters, and VR {vr} takes {_MOST[vr]}")
    if (_CONTROL_IN_LINES if vr == "ST" else _CONTROL).search(given):
        raise InvalidOption(f"{name} has a control character{'' if vr == 'ST' else ' or a backslash'} in it")
    return given


def uid_of(name: str, given: Any) -> str:
    """Return a UID that was given (PS3.5 9.1), empty for none; raises `InvalidOption`."""
    if given is None or (isinstance(given, str) and not given):
        return ""
    if not isinstance(given, str) or len(given) > _MOST_UID or not _UID.fullmatch(given):
        raise InvalidOption(f"{name} is a UID: up to {_MOST_UID} digits and points, such as 1.2.840.1, not {given!r}")
    return str(given)


def integer_of(name: str, given: Any, least: int, greatest: int) -> int | None:
    """Return an integer that was given, or None; raises `InvalidOption`."""
    if given is None:
        return None
    if not isinstance(given, Integral) or isinstance(given, bool) or not least <= int(given) <= greatest:
        raise InvalidOption(f"{name} is an integer from {least} to {greatest}, not {given!r}")
    return int(given)


def window_of(given: Any) -> tuple[float, float] | None:
    """Return Window Center and Width that were given, or None.

    Raises
    ------
    InvalidOption
        They are not two finite numbers, the width is less than 1 (PS3.3 C.11.2.1.2.1), or one does not fit a DS.
    """
    if given is None:
        return None
    center, width = pair_of("window", "(center, width)", given)
    if not (math.isfinite(center) and width >= 1 and math.isfinite(width)):
        raise InvalidOption(f"no window has center {center} and width {width}: numbers, and a width of at least 1")
    if any(len(f"{number:.10g}") > _DS_CHARACTERS for number in (center, width)):
        raise InvalidOption(f"window=({center}, {width}) cannot be written in {_DS_CHARACTERS} characters each (VR DS)")
    return center, width


def pair_of(name: str, what: str, given: Any) -> tuple[float, float]:
    """Return two numbers that were given; raises `InvalidOption`."""
    try:
        if isinstance(given, str | bytes | dict):
            raise TypeError
        first, second = (float(each) for each in given)
    except (TypeError, ValueError, OverflowError):
        raise InvalidOption(f"{name} is {what}, two numbers, not {given!r}") from None
    return first, second


def code_of(given: Any) -> tuple[str, str, str] | None:
    """Return the three parts of a code (PS3.3 8.1, 8.2, 8.3), or None; raises `InvalidOption`."""
    if given is None:
        return None
    if not isinstance(given, tuple | list) or len(given) != len(_CODE_PARTS) or not all(given):
        raise InvalidOption(f"derivation_code is (value, scheme, meaning), not {given!r}")
    value, scheme, meaning = (
        text_of(f"the {name} of derivation_code", each, vr) for each, (name, vr) in zip(given, _CODE_PARTS, strict=True)
    )
    return value, scheme, meaning
