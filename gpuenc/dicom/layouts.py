"""Which axis of an array is which: frames (N), rows (H), columns (W), samples (C), in the orders that people have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuenc.errors import InvalidOption, InvalidPixels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

# In the order in which they are preferred where only the sizes of axes tell.
LAYOUTS = ("HW", "HWC", "CHW", "NHW", "NHWC", "NCHW")
_SAMPLES = (1, 3)
_NAMES = ("number_of_frames", "rows", "columns", "samples_per_pixel")


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array's axes are ordered, and how long they are.

    Parameters
    ----------
    axes : str
        One of `LAYOUTS`.
    shape : tuple of int
        (frames, rows, columns, samples).
    """

    axes: str
    shape: tuple[int, int, int, int]

    @property
    def planar(self) -> bool:
        """Whether samples come plane by plane."""
        return "CHW" in self.axes and self.shape[3] > 1

    @property
    def stacked(self) -> tuple[int, int, int, int]:
        """Shape with all four axes, in the array's own order: (frames, rows, columns, samples), or by planes."""
        frames, rows, columns, samples = self.shape
        return (frames, samples, rows, columns) if self.planar else self.shape


def check_name(axes: str) -> None:
    """Refuse a name that is none of `LAYOUTS`; raises `InvalidOption`."""
    if axes and axes not in LAYOUTS:
        raise InvalidOption(f"layout is one of {', '.join(LAYOUTS)}, not '{axes}'")


def layout_of(shape: tuple[int, ...], dtype: np.dtype[Any], options: Mapping[str, Any], axes: str = "") -> Layout:
    """Return the layout of an array: the one that is named, or the only one that fits.

    An axis of 1 or 3 at the end is the samples'. Where there is none, one of 3 before rows and columns may be. Of four
    axes it is; of three it can be three frames as well, which only samples of other than 8 bits are taken for unasked.
    With 3 at both ends nobody can tell.

    Parameters
    ----------
    shape, dtype : tuple of int, numpy.dtype
        The array's.
    options : mapping
        ``number_of_frames``, ``rows``, ``columns`` and ``samples_per_pixel``, as far as they are stated.
    axes : str
        One of `LAYOUTS`, if the caller names it.

    Raises
    ------
    InvalidOption
        `axes` is none of them.
    InvalidPixels
        The array has fewer than 2 or more than 4 axes, it is not the layout of this array, or ``ambiguous-layout``:
        more than one fits.
    """
    if axes:
        return _named(shape, axes)
    if len(shape) not in (2, 3, 4):
        raise InvalidPixels(f"Unable to encode {len(shape)}D ndarrays")
    possible = [_layout(shape, name) for name in LAYOUTS if len(name) == len(shape)]
    fitting = [found for found in possible if found.shape[3] in _SAMPLES and _agrees(found, options)]
    if not fitting:
        return _closest(shape, options)
    if len(shape) == 3 and shape[0] == shape[-1] == 3:
        # Each axis may be the samples'. Who states all that pydicom demands has an array such as pydicom's.
        if all(options.get(name) is not None for name in _NAMES[1:]):
            fitting = [found for found in fitting if found.axes == "HWC"] or fitting
    # Images one or three pixels wide are none, unless somebody says so.
    elif len(shape) == 3:
        wide = [found for found in fitting if found.axes == "HWC" or shape[-1] not in _SAMPLES]
        fitting = wide or fitting
        if dtype != "u1" or str(options.get("bits_allocated", 8)) != "8":
            fitting = [found for found in fitting if found.axes != "CHW"] or fitting
    # One sample lies alike wherever its axis is, and makes the same image.
    distinct = {(found.shape, found.planar): found for found in reversed(fitting)}
    if len(distinct) > 1:
        raise InvalidPixels(_ambiguous(shape, list(reversed(distinct.values()))), code="ambiguous-layout")
    return fitting[0]


def _named(shape: tuple[int, ...], axes: str) -> Layout:
    check_name(axes)
    if len(axes) != len(shape):
        raise InvalidPixels(f"layout='{axes}' has {len(axes)} axes, and the array's shape is {shape}")
    found = _layout(shape, axes)
    if found.shape[3] not in _SAMPLES:
        raise InvalidPixels(f"layout='{axes}' makes {found.shape[3]} samples per pixel of shape {shape}: 1 or 3 can be")
    return found


def _layout(shape: tuple[int, ...], axes: str) -> Layout:
    sizes = dict(zip(axes, shape, strict=True))
    return Layout(axes, (sizes.get("N", 1), sizes["H"], sizes["W"], sizes.get("C", 1)))


def _agrees(found: Layout, options: Mapping[str, Any]) -> bool:
    stated = ((options.get(name), size) for name, size in zip(_NAMES, found.shape, strict=True))
    return all(told is None or str(told) == str(size) for told, size in stated)


def _closest(shape: tuple[int, ...], options: Mapping[str, Any]) -> Layout:
    """Return what the array was probably meant to be, for validation to say what is wrong with it."""
    if len(shape) != 3:
        return _layout(shape, "HW" if len(shape) == 2 else "NHWC")
    samples, frames = options.get("samples_per_pixel"), options.get("number_of_frames")
    colour = samples == 3 or (samples is None and frames in (None, 1) and shape[-1] == 3)
    return _layout(shape, "HWC" if colour else "NHW")


def _ambiguous(shape: tuple[int, ...], fitting: list[Layout]) -> str:
    can = "; ".join(
        f"layout='{found.axes}' for {_count(found.shape[0], 'frame')} of {found.shape[1]} × {found.shape[2]} with "
        f"{_count(found.shape[3], 'sample')}"
        for found in fitting
    )
    return (
        f"An array of shape {shape} can be read in more than one way: say which, {can}; or state rows, columns, "
        "samples_per_pixel and number_of_frames"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
