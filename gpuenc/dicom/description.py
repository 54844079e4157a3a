"""From Image Pixel attributes to a `FrameFormat`, read strictly: what is missing or absurd is named, never guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from gpuenc.coding import check_format
from gpuenc.dicom.elements import name
from gpuenc.errors import InvalidPixels
from gpuenc.frames import FrameFormat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom.dataset import Dataset

    from gpuenc.dicom.elements import Element

_NAMES = {
    0x00280002: "Samples per Pixel",
    0x00280004: "Photometric Interpretation",
    0x00280006: "Planar Configuration",
    0x00280008: "Number of Frames",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280100: "Bits Allocated",
    0x00280101: "Bits Stored",
    0x00280102: "High Bit",
    0x00280103: "Pixel Representation",
}
NUMBER_OF_FRAMES = 0x00280008
_MODALITY = 0x00080060
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
# (0028,0008) Number of Frames, (60xx,0015) Number of Frames in Overlay.
_FRAME_COUNTS = frozenset((NUMBER_OF_FRAMES, *range(0x60000015, 0x60200015, 0x20000)))
_NUMBER_BYTES = {b"": 2, b"UN": 2, b"US": 2, b"SS": 2, b"UL": 4, b"SL": 4}
# Of those that pydicom, too, reads as text.
_TEXT_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT UN".split()) | {b""}
_TEXT_NUMBERS = frozenset((b"IS", b"DS", b"LO", b"SH"))


class Attributes(Protocol):
    """Top-level elements by tag."""

    def tags(self) -> Iterable[int]:
        """Return every tag."""

    def number(self, tag: int) -> int | None:
        """Return the one number of an element; None where it is absent or empty. Raises `InvalidPixels`."""

    def text(self, tag: int) -> str | None:
        """Return an element's text without padding; None where it is absent or empty."""

    def with_text(self, tag: int, vr: str, text: str) -> DataElement | RawDataElement:
        """Return an element of `text`, whose characters are those of `text()` or ASCII."""


@dataclass(frozen=True, slots=True)
class RawAttributes:
    """`Attributes` of a header that nothing has converted yet.

    Parameters
    ----------
    head : bytes
        The header.
    origin : int
        Position of ``head[0]`` in the file.
    elements : dict
        By tag.
    big_endian : bool
        Byte order of binary values.
    """

    head: bytes
    origin: int
    elements: dict[int, Element]
    big_endian: bool

    def tags(self) -> Iterable[int]:
        """Return every tag."""
        return self.elements

    def value(self, tag: int) -> bytes | None:
        """Return the bytes of a value; None where the element is absent."""
        element = self.elements.get(tag)
        return None if element is None else self.head[element.value - self.origin : element.end - self.origin]

    def number(self, tag: int) -> int | None:
        """Return the one number of an element; None where it is absent or empty."""
        value = self.value(tag)
        if not value:
            return None
        # An element's own VR tells; of those without one, and of UN, PS3.6: US, or IS for numbers of frames.
        vr = self.elements[tag].vr
        if vr in _TEXT_NUMBERS or (tag in _FRAME_COUNTS and vr in (b"", b"UN")):
            return parse_number(tag, value.decode("ascii", "replace"))
        unknown = vr == b"UN" and self.big_endian  # whose byte order nobody knows
        if unknown or len(value) != _NUMBER_BYTES.get(vr, 0):
            raise InvalidPixels(f"A {name(tag)} '{_NAMES.get(tag, '')}' value is not one number")
        return int.from_bytes(value, "big" if self.big_endian else "little")

    def text(self, tag: int) -> str | None:
        """Return an element's text without padding; None where it is absent or empty."""
        element = self.elements.get(tag)
        value = None if element is None or element.vr not in _TEXT_VRS else self.value(tag)
        # One character for each byte: the character set matters to nobody here, and `with_text` goes the same way back.
        return None if value is None else value.decode("latin-1").strip(" \0") or None

    def with_text(self, tag: int, vr: str, text: str) -> RawDataElement:
        """Return an element of `text`, whose characters are those of `text()` or ASCII."""
        return raw_text(tag, vr, text)


@dataclass(frozen=True, slots=True)
class DatasetAttributes:
    """`Attributes` of a pydicom dataset."""

    dataset: Dataset

    def tags(self) -> Iterable[int]:
        """Return every tag."""
        return self.dataset.keys()

    def number(self, tag: int) -> int | None:
        """Return the one number of an element; None where it is absent or empty."""
        value = self.dataset[tag].value if tag in self.dataset else None
        if value is None or value == "":
            return None
        if isinstance(value, int):
            return int(value)
        return parse_number(tag, str(value))

    def text(self, tag: int) -> str | None:
        """Return an element's text without padding; None where it is absent or empty."""
        value = self.dataset[tag].value if tag in self.dataset else None
        if value is None:
            return None
        joined = "\\".join(str(item) for item in value) if isinstance(value, MultiValue) else str(value)
        return joined.strip(" \0") or None

    def with_text(self, tag: int, vr: str, text: str) -> DataElement:
        """Return an element of `text`, whose characters are those of `text()` or ASCII."""
        return DataElement(tag, vr, text, validation_mode=IGNORE)


def raw_text(tag: int, vr: str, text: str) -> RawDataElement:
    """Return text that pydicom leaves as it is, trailing spaces included."""
    value = text.encode("latin-1")
    value += b" " * (len(value) % 2)
    return RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)


def parse_number(tag: int, text: str) -> int | None:
    """Return the integer in `text` (VR IS, PS3.5 6.2), or None where it is blank."""
    text = text.strip(" \0")
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,12}", text):
        raise InvalidPixels(f"A {name(tag)} '{_NAMES.get(tag, '')}' value is not one number")
    return int(text)


def _required(attributes: Attributes, tag: int) -> int:
    value = attributes.number(tag)
    if value is None:
        raise InvalidPixels(f"{name(tag)} '{_NAMES[tag]}' is missing")
    return value


def frame_format(attributes: Attributes, *, big_endian: bool, compressed: bool) -> tuple[FrameFormat, list[str]]:
    """Return the format of the cells, or of what the codestreams are said to hold, and what was odd about it.

    Parameters
    ----------
    attributes : Attributes
        The data set.
    big_endian, compressed : bool
        How Pixel Data is encoded.

    Raises
    ------
    InvalidPixels
        An attribute that is required (PS3.3 C.7.6.3) is missing or contradicts another.
    """
    notes: list[str] = []
    photometric = attributes.text(0x00280004)
    if photometric is None:
        raise InvalidPixels("(0028,0004) 'Photometric Interpretation' is missing")
    if not _CODE_STRING.fullmatch(photometric):
        raise InvalidPixels("(0028,0004) 'Photometric Interpretation' is not a code string")
    samples = _required(attributes, 0x00280002)
    allocated = _required(attributes, 0x00280100)
    stored = _required(attributes, 0x00280101)
    high_bit = attributes.number(0x00280102)
    planar = attributes.number(0x00280006)
    if samples == 1:
        planar = 0
    elif planar is None and compressed:
        planar = 0  # the codestream has its own order
    elif planar is None:
        raise InvalidPixels("(0028,0006) 'Planar Configuration' is missing")
    sign = _required(attributes, 0x00280103)
    if sign not in (0, 1):
        raise InvalidPixels(f"A (0028,0103) 'Pixel Representation' value of '{sign}' is invalid, it must be 0 or 1")
    fmt = FrameFormat(
        rows=_required(attributes, 0x00280010),
        columns=_required(attributes, 0x00280011),
        samples=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=sign == 1,
        photometric=photometric,
        planar=planar,
        high_bit=stored - 1 if high_bit is None or high_bit < 0 else high_bit,
        big_endian=big_endian and allocated > 8,
        overlay_bits=_overlay_bits(attributes, allocated),
    )
    check_format(fmt)
    if fmt.overlay_bits & _sample_bits(fmt):
        notes.append("an overlay's bit position lies inside the samples; those bits were left to the samples")
        fmt = replace(fmt, overlay_bits=fmt.overlay_bits & ~_sample_bits(fmt))
    return fmt, notes


def _sample_bits(fmt: FrameFormat) -> int:
    return ((1 << fmt.bits_stored) - 1) << (fmt.high_bit + 1 - fmt.bits_stored)


def modality_of(attributes: Attributes) -> str:
    """Return Modality (0008,0060) if it is a Code String (PS3.5 6.2), else nothing: it may hold a name."""
    text = attributes.text(_MODALITY) or ""
    return text if _CODE_STRING.fullmatch(text) else ""


def overlay_positions(attributes: Attributes) -> dict[int, int]:
    """Return {group: bit} of the overlays that lie in the cells of Pixel Data (PS3.5 8.1.2, retired since 2004)."""
    return {
        tag >> 16: bit
        for tag in attributes.tags()
        if 0x60000000 <= tag < 0x60FF0000
        and tag & 0x1FFFF == 0x0102
        and (tag & 0xFFFF0000 | 0x3000) not in attributes.tags()
        and (bit := attributes.number(tag))
    }


def _overlay_bits(attributes: Attributes, bits_allocated: int) -> int:
    mask = 0
    for bit in overlay_positions(attributes).values():
        if 0 < bit < bits_allocated:
            mask |= 1 << bit
    return mask


def number_of_frames(attributes: Attributes) -> tuple[int, list[str]]:
    """Return (0028,0008) Number of Frames, 1 where it is absent, and what was odd about it.

    Raises
    ------
    InvalidPixels
        It is not a number.
    """
    stated = attributes.number(NUMBER_OF_FRAMES)
    if stated is None:
        return 1, []
    if stated < 1:
        # Taken for 1 by pydicom, dcmtk and gdcm alike.
        return 1, [f"Number of Frames is {stated} and was taken for 1"]
    return stated, []


def pixel_options(dataset: Dataset) -> dict[str, Any]:
    """Return what a dataset says of its pixels as the options that pydicom's encoders take.

    Raises
    ------
    AttributeError
        Required elements are missing.
    ValueError
        Required elements are empty.
    """
    required = (
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
        "PhotometricInterpretation",
    )
    missing = [f"'{keyword}'" for keyword in required if keyword not in dataset]
    if missing:
        raise AttributeError(f"The following required elements are missing from the dataset: {', '.join(missing)}")
    empty = [f"'{keyword}'" for keyword in required if dataset[keyword].VM == 0]
    if empty:
        raise ValueError(f"The following required dataset elements have a VM of 0: {', '.join(empty)}")
    return {
        "rows": dataset.Rows,
        "columns": dataset.Columns,
        "samples_per_pixel": dataset.SamplesPerPixel,
        "number_of_frames": int(dataset.get("NumberOfFrames") or 1),
        "bits_allocated": dataset.BitsAllocated,
        "bits_stored": dataset.BitsStored,
        "pixel_representation": dataset.PixelRepresentation,
        "photometric_interpretation": dataset.PhotometricInterpretation,
    }
