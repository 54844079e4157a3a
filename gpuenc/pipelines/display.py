"""From stored values to those a network or a person is shown: Modality LUT, window, inversion, size.

The executable specification is what these functions do with numpy; on a GPU the same functions work on CuPy's arrays.
Numbers are 32-bit floats on both, and results differ by no more than `TOLERANCE` of the largest magnitude in the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpuenc.errors import InvalidOption, InvalidPixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuenc.dicom.tables import Table
    from gpuenc.dicom.transforms import Transform
    from gpuenc.frames import FrameFormat

TOLERANCE = 1e-5
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_MOST_PX = 65535


@dataclass(frozen=True, slots=True)
class Window:
    """A window of the VOI LUT (PS3.3 C.11.2).

    Parameters
    ----------
    center, width : float
        Window Center and Window Width, in units after the Modality LUT.
    function : {'LINEAR', 'LINEAR_EXACT', 'SIGMOID'}
        VOI LUT Function.

    Raises
    ------
    InvalidOption
        The function is unknown, or the width too small for it: at least 1 for LINEAR (C.11.2.1.2.1), more than 0 else.
    """

    center: float
    width: float
    function: str = "LINEAR"

    def __post_init__(self) -> None:
        for name in ("center", "width"):
            try:
                object.__setattr__(self, name, float(getattr(self, name)))
            except (TypeError, ValueError, OverflowError):
                raise InvalidOption(f"{name} of a window is a number, not {getattr(self, name)!r}") from None
        if self.function not in _FUNCTIONS:
            raise InvalidOption(f"a VOI LUT Function is one of {', '.join(_FUNCTIONS)}, not {self.function!r}")
        least = self.width >= 1 if self.function == "LINEAR" else self.width > 0
        if not least or not math.isfinite(self.width) or not math.isfinite(self.center):
            raise InvalidOption(f"no {self.function} window has center {self.center} and width {self.width}")


@dataclass(frozen=True, slots=True)
class Display:
    """What is done to each frame; by default nothing.

    Parameters
    ----------
    rescale : bool
        The Modality LUT is applied (PS3.3 C.11.1): Rescale Slope and Intercept, or the table that takes their place.
    window : Window, 'file' or 'lut', optional
        This window, or that of the file, is applied after it; 0 to 1 comes out. Of a file that has both a window and a
        VOI LUT Sequence, which are alternatives (C.11.2), ``'file'`` takes the window and ``'lut'`` the table; of one
        that has only one of them, both take that. Of several windows, or tables, it is the first.
    invert : bool
        MONOCHROME1 becomes MONOCHROME2, so that larger is brighter in all frames.
    size : (int, int), optional
        Rows and columns that frames are resized to.
    """

    rescale: bool = False
    window: Window | Literal["file", "lut"] | None = None
    invert: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.invert and self.rescale and self.window is None:
            raise InvalidOption(
                "rescaled values are measurements, which are not inverted: give a window, or no rescale"
            )
        if self.size is not None and not (
            isinstance(self.size, tuple)
            and len(self.size) == 2
            and all(isinstance(side, int) and 1 <= side <= _MOST_PX for side in self.size)
        ):
            raise InvalidOption(f"size must be (rows, columns), each 1 to {_MOST_PX}, not {self.size!r}")


def shown(stored: Any, fmt: FrameFormat, transform: Transform, display: Display, xp: Any = np) -> Any:
    """Return one frame as `display` asks for it.

    Parameters
    ----------
    stored : array
        Stored values, integers, shape (rows, columns) or (rows, columns, samples).
    fmt : FrameFormat
        Their format.
    transform : Transform
        What the file says of them.
    display : Display
        What to do.
    xp : module
        numpy, or CuPy for its arrays.

    Returns
    -------
    array
        float32 where anything was computed; `stored` itself, or its inverse of the same type, where not.

    Raises
    ------
    InvalidPixels
        ``not-monochrome``, ``no-modality`` or ``no-window``: the frame, or what its file says of it, allows no such
        thing.
    """
    values = stored
    if display.rescale or display.window is not None:
        plain = (transform.slope, transform.intercept, transform.modality) == (1, 0, None)
        if fmt.photometric not in _MONOCHROME and (display.window is not None or not plain):
            raise InvalidPixels(
                f"rescaling and windows are for MONOCHROME1 and MONOCHROME2, and this is {fmt.photometric}",
                code="not-monochrome",
            )
        values = _through_tables(values, transform, display.window, xp, plain=plain)
    if display.invert and fmt.photometric == "MONOCHROME1":
        values = 1 - values if display.window is not None else inverted(values, fmt)
    return values if display.size is None else resized(values, display.size, xp)


def _through_tables(
    stored: Any, transform: Transform, window: Window | Literal["file", "lut"] | None, xp: Any, *, plain: bool
) -> Any:
    """Return values after the Modality LUT, and after the VOI LUT where one is wanted."""
    table = None if isinstance(window, Window) else _table_of(transform, window)
    if table is not None:
        # Entries are found in 64 bits: a value next to the middle of two must not move to the other.
        values = stored if plain else rescaled(stored, transform, xp, xp.float64)
        return looked_up(values, table, xp, whole=True)
    values = rescaled(stored, transform, xp)
    if window is None:
        return values
    return windowed(values, window if isinstance(window, Window) else _window_of(transform), xp)


def rescaled(stored: Any, transform: Transform, xp: Any = np, kind: Any = np.float32) -> Any:
    """Return the output of the Modality LUT: an entry of its table, or Rescale Slope * stored + Rescale Intercept.

    PS3.3 C.11.1.1. Stored values of more than 24 bits are rounded to what a float32 holds. A table counts where there
    are both, against the standard, as other readers have it.

    Parameters
    ----------
    stored : array
        Stored values, integers.
    transform : Transform
        What the file says of them.
    xp : module
        numpy, or CuPy.
    kind : dtype
        Of the numbers where they are computed; entries are float32.

    Raises
    ------
    InvalidPixels
        ``no-modality``: a table that cannot be used, or no numbers, or not one for each frame.
    """
    if transform.modality is not None:
        if transform.modality.wrong:
            raise InvalidPixels(
                f"the Modality LUT Sequence cannot be used: {transform.modality.wrong}", code="no-modality"
            )
        return looked_up(stored, transform.modality, xp)
    if not (math.isfinite(transform.slope) and math.isfinite(transform.intercept)):
        raise InvalidPixels(
            "Rescale Slope and Rescale Intercept are no numbers, or not stated once for each frame", code="no-modality"
        )
    values = stored.astype(kind)
    if transform.slope != 1:
        values *= values.dtype.type(transform.slope)
    if transform.intercept:
        values += values.dtype.type(transform.intercept)
    return values


def looked_up(values: Any, table: Table, xp: Any = np, *, whole: bool = False) -> Any:
    """Return the entry of each value, float32 (PS3.3 C.11.1.1.1, C.11.2.1.1).

    Parameters
    ----------
    values : array
        Integers, or floats, which take the entry of the nearest integer.
    table : Table
        The table.
    xp : module
        numpy, or CuPy.
    whole : bool
        Entries are divided by the greatest that their bits can say, so that 0 to 1 comes out.
    """
    entries = _entries(table, whole)
    if values.dtype.kind == "f":
        places = xp.rint(values)
    else:
        places = values.astype(xp.int32 if values.dtype.itemsize < 4 else xp.int64)
    places -= places.dtype.type(table.first)
    places = xp.clip(places, places.dtype.type(0), places.dtype.type(entries.size - 1), out=places)
    return xp.take(xp.asarray(entries), places.astype(xp.int32, copy=False))


@lru_cache(maxsize=64)
def _entries(table: Table, whole: bool) -> NDArray[np.float32]:
    entries = table.entries().astype(np.float32)
    return entries / np.float32((1 << table.bits) - 1) if whole else entries


def windowed(values: Any, window: Window, xp: Any = np) -> Any:
    """Return values after the VOI LUT, from 0 to 1, float32 (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Parameters
    ----------
    values : array
        float32, which is written over.
    window : Window
        The window.
    """
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        values -= xp.float32(center)
        values *= xp.float32(-4 / width)
        # Beyond, exp overflows; the result is 0 in a float32 long before.
        values = xp.exp(xp.minimum(values, xp.float32(80), out=values), out=values)
        values += xp.float32(1)
        return xp.divide(xp.float32(1), values, out=values)
    if window.function == "LINEAR":
        # C.11.2.1.2.1: c - 0.5 and w - 1 take the place of c and w.
        center, width = center - 0.5, width - 1
        if width == 0:
            return (values > xp.float32(center)).astype(xp.float32)
    values -= xp.float32(center)
    values *= xp.float32(1 / width)
    values += xp.float32(0.5)
    return xp.clip(values, xp.float32(0), xp.float32(1), out=values)


def inverted(stored: Any, fmt: FrameFormat) -> Any:
    """Return stored values mirrored in their range of Bits Stored, of the same type (PS3.3 C.7.6.3.1.2)."""
    if fmt.signed:
        return ~stored  # -1 - x: the least becomes the greatest
    return stored ^ ((1 << fmt.bits_stored) - 1)


def resized(values: Any, size: tuple[int, int], xp: Any = np) -> Any:
    """Return an image of another size, float32: linear interpolation, and where it shrinks a triangle as wide.

    Pixels are areas, so that edges stay edges; each result is the mean of the values below a triangle of twice the
    scale's width around its own centre, cut off at the edges: what Pillow calls BILINEAR, and PyTorch ``antialias``.

    Parameters
    ----------
    values : array
        (rows, columns) or (rows, columns, samples).
    size : (int, int)
        Rows and columns of the result.
    """
    values = values.astype(xp.float32, copy=False)
    for axis, wanted in enumerate(size):
        if values.shape[axis] != wanted:
            values = _along_first(values.swapaxes(0, axis), wanted, xp).swapaxes(0, axis)
    return xp.ascontiguousarray(values)


def _along_first(values: Any, wanted: int, xp: Any) -> Any:
    places, weights = _taps(values.shape[0], wanted)
    # Rows that lie together are gathered several times as fast.
    values = xp.ascontiguousarray(values)
    out = xp.zeros((wanted, *values.shape[1:]), xp.float32)
    across = (wanted,) + (1,) * (values.ndim - 1)
    for place, weight in zip(places, weights, strict=True):
        out += values[xp.asarray(place)] * xp.asarray(weight).reshape(across)
    return out


@lru_cache(maxsize=32)
def _taps(have: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return from where each result is, and with what weight, both of shape (taps, wanted)."""
    scale = have / wanted
    reach = max(scale, 1.0)
    centers = (np.arange(wanted) + 0.5) * scale
    first = np.maximum(np.floor(centers - reach + 0.5), 0).astype(np.intp)
    stop = np.minimum(np.floor(centers + reach + 0.5), have).astype(np.intp)
    places = first + np.arange((stop - first).max())[:, None]
    weights = np.clip(1 - np.abs(places + 0.5 - centers) / reach, 0, None)
    weights[places >= stop] = 0
    weights /= weights.sum(axis=0)
    return np.minimum(places, have - 1), weights.astype(np.float32)


def _table_of(transform: Transform, wanted: Literal["file", "lut"] | None) -> Table | None:
    """Return the VOI LUT of a file's own that is to be shown, None where it is its window, or none is wanted."""
    table = transform.voi
    if wanted is None or table is None or (wanted == "file" and transform.center is not None):
        return None
    if table.wrong:
        raise InvalidPixels(f"the VOI LUT Sequence cannot be used: {table.wrong}", code="no-window")
    return table


def _window_of(transform: Transform) -> Window:
    if transform.center is None or transform.width is None:
        raise InvalidPixels(
            "the file has no Window Center and Window Width, and no VOI LUT Sequence: give a window", code="no-window"
        )
    try:
        return Window(transform.center, transform.width, transform.function)
    except InvalidOption as error:
        raise InvalidPixels(f"the file's window cannot be used: {error}", code="no-window") from None
