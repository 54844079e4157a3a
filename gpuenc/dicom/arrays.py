"""Arrays as frames: views wherever they lie, and cells of the size that is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cuda.arrays import DeviceArray, adopted, is_foreign
from gpuenc.errors import ValuesOutsideBitsStored
from gpuenc.frames import Frame, FrameFormat, FrameRef

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gpuenc.dicom.layouts import Layout


def taken(src: Any) -> Any:
    """Return arrays of other libraries than numpy as numpy's or as `DeviceArray`; anything else as it is.

    Raises
    ------
    GpuencError
        As `gpuenc.cuda.arrays.adopted`.
    """
    return adopted(src) if not isinstance(src, np.ndarray) and is_foreign(src) else src


def on_host(arr: Any) -> NDArray[Any]:
    """Return an array of numpy that is like `arr` in shape and dtype: of one on a device, without its values."""
    if isinstance(arr, DeviceArray):
        return np.broadcast_to(np.zeros((), arr.dtype), arr.shape)
    host: NDArray[Any] = arr
    return host


def frames_of_array(
    arr: NDArray[Any] | DeviceArray,
    fmt: FrameFormat,
    layout: Layout,
    *,
    interleaved: bool = False,
    raw: bool = False,
    whole_cells: bool = False,
) -> ArrayFrames | DeviceFrames:
    """Return the frames of an array, wherever it is.

    Parameters
    ----------
    arr : numpy.ndarray or DeviceArray
        Of integers.
    fmt : FrameFormat
        What its frames become, interleaved; the frames' own says so where they stay by planes.
    layout : Layout
        Of `arr`.
    interleaved : bool
        Whether they must not stay by planes: for cells that go out as they are, with nobody to say how they lie.
    raw : bool
        Whether the target is `Coding.raw`: no codec looks at the cells.
    whole_cells : bool
        Whether values may be beyond Bits Stored, as `Target.whole_cells` has it; never in the cells of a raw target,
        of which readers take the bits that are stored.
    """
    free = whole_cells and not raw
    planar = replace(fmt, planar=1) if layout.planar else fmt
    if isinstance(arr, DeviceArray):
        there = arr.reshape(layout.stacked)
        # Kernels refuse other values, but take what a signed sample without sign extension would be for one.
        looks = not free and (raw or fmt.signed)
        if interleaved and layout.planar:
            return DeviceFrames(there.interleaved(), fmt, looks=looks)
        return DeviceFrames(there, planar, looks=looks)
    stacked = arr.reshape(layout.stacked)
    if layout.planar and (interleaved or not (len(stacked) and stacked[0].flags.c_contiguous)):
        # torch's channels_last is interleaved in memory; what is neither is copied once, frame by frame, either way.
        return ArrayFrames(np.moveaxis(stacked, 1, 3), fmt, looks=not free)
    return ArrayFrames(stacked, planar, looks=not free)


class ArrayFrames:
    """Frames of an array, converted one at a time, and only where its dtype asks for it.

    Parameters
    ----------
    arr : numpy.ndarray
        Shape (frames, rows, columns, samples) or, by planes, (frames, samples, rows, columns), of integers.
    fmt : FrameFormat
        What its frames become.
    looks : bool
        Whether values are held against Bits Stored where their cells hold more.
    """

    def __init__(self, arr: NDArray[Any], fmt: FrameFormat, *, looks: bool = True) -> None:
        self.number_of_frames = len(arr)
        self._arr = arr
        self.format = fmt
        self._cell = _cell(fmt)
        self._looks = looks and 1 < fmt.bits_allocated != fmt.bits_stored

    def frame(self, index: int) -> Frame:
        """Return frame `index`, from 0; `ValuesOutsideBitsStored` where a value does not fit."""
        cells = self._arr[index]
        if cells.dtype != self._cell:
            narrowed = cells.astype(self._cell)
            if cells.dtype.itemsize > self._cell.itemsize and not np.array_equal(narrowed, cells):
                raise ValuesOutsideBitsStored(outside_message(self.format))
            cells = narrowed
        if self._looks and not _fits(int(cells.min()), int(cells.max()), self.format):
            raise ValuesOutsideBitsStored(outside_message(self.format))
        if self.format.bits_allocated == 1:
            if cells.size and cells.max() > 1:
                raise ValuesOutsideBitsStored(outside_message(self.format))
            packed = np.packbits(cells.reshape(-1), bitorder="little")
            return Frame(FrameRef("array", index), self.format, packed)
        flat = np.ascontiguousarray(cells).reshape(-1).view(np.uint8)
        return Frame(FrameRef("array", index), self.format, flat)

    def frames(self, fmt: FrameFormat) -> Iterator[Frame]:
        """Yield all frames, described as `fmt`, whose cells are of the same size and order."""
        return (replace(self.frame(index), format=fmt) for index in range(self.number_of_frames))


class DeviceFrames:
    """Frames of an array on a device, as views where its dtype is that of the cells, and converted there where not.

    Parameters
    ----------
    arr : DeviceArray
        Shape (frames, rows, columns, samples) or, by planes, (frames, samples, rows, columns), of integers.
    fmt : FrameFormat
        What its frames become.
    looks : bool
        Whether values are held against Bits Stored where their cells hold more.
    """

    def __init__(self, arr: DeviceArray, fmt: FrameFormat, *, looks: bool = True) -> None:
        self.number_of_frames = len(arr)
        self.device = arr.device
        self._arr = arr
        self.format = fmt
        self._looks = looks and 1 < fmt.bits_allocated != fmt.bits_stored

    def frame(self, index: int) -> Frame:
        """Return frame `index`, from 0; errors are those of `ArrayFrames.frame`."""
        cells: DeviceArray | None = self._arr[index]
        if cells is not None and cells.dtype != _cell(self.format):
            cells = cells.converted(_cell(self.format))
        if cells is not None and self._looks and not _fits(*cells.extremes(), self.format):
            cells = None
        if cells is not None and self.format.bits_allocated == 1:
            cells = cells.packed()
        if cells is None:
            raise ValuesOutsideBitsStored(outside_message(self.format))
        return Frame(FrameRef("array", index), self.format, cells.cells())

    def frames(self, fmt: FrameFormat) -> Iterator[Frame]:
        """Yield all frames, described as `fmt`, whose cells are of the same size and order."""
        return (replace(self.frame(index), format=fmt) for index in range(self.number_of_frames))


def _cell(fmt: FrameFormat) -> np.dtype[Any]:
    """Return the dtype of one cell on its own."""
    return np.dtype(f"<{'i' if fmt.signed else 'u'}{max(1, fmt.bits_allocated // 8)}")


def _fits(least: float, greatest: float, fmt: FrameFormat) -> bool:
    low, high = _limits(fmt)
    return low <= least and greatest <= high


def _limits(fmt: FrameFormat) -> tuple[int, int]:
    bits = fmt.bits_stored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if fmt.signed else (0, 2**bits - 1)


def outside_message(fmt: FrameFormat) -> str:
    """Return pydicom's words for samples that do not fit Bits Stored."""
    bits = fmt.bits_stored
    low, high = _limits(fmt)
    return (
        f"The ndarray contains values that are outside the allowable range of ({low}, {high}) for a (0028,0101) "
        f"'Bits Stored' value of '{bits}'"
    )
