"""Arrays as frames: which dimension is which, and cells of the size that is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cuda.arrays import DeviceArray, adopted, is_foreign
from gpuenc.errors import ValuesOutsideBitsStored
from gpuenc.frames import Frame, FrameFormat, FrameRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray


def stacked_shape(shape: tuple[int, ...], options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return an array's shape as (frames, rows, columns, samples).

    Three dimensions are (rows, columns, samples) or (frames, rows, columns): the first of them that agrees with what
    `options` state. Where neither does, validation refuses the one returned.

    Raises
    ------
    ValueError
        It has fewer than 2 or more than 4 dimensions.
    """
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"Unable to encode {len(shape)}D ndarrays")
    if len(shape) == 4:
        return shape
    if len(shape) == 2:
        return (1, *shape, 1)
    names = ("number_of_frames", "rows", "columns", "samples_per_pixel")
    one_frame, one_sample = (1, *shape), (*shape, 1)
    for candidate in (one_frame, one_sample):
        stated = [(options.get(name), value) for name, value in zip(names, candidate, strict=True)]
        if candidate[3] in (1, 3) and all(told is None or str(told) == str(value) for told, value in stated):
            return candidate
    samples, frames = options.get("samples_per_pixel"), options.get("number_of_frames")
    colour = samples == 3 or (samples is None and frames in (None, 1) and shape[-1] == 3)
    return one_frame if colour else one_sample


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
    arr: NDArray[Any] | DeviceArray, fmt: FrameFormat, options: Mapping[str, Any]
) -> ArrayFrames | DeviceFrames:
    """Return the frames of an array, wherever it is."""
    shape = stacked_shape(arr.shape, options)
    if isinstance(arr, DeviceArray):
        return DeviceFrames(arr.reshape(shape), fmt)
    return ArrayFrames(arr.reshape(shape) if arr.ndim < 4 else arr, fmt)


class ArrayFrames:
    """Frames of an array, converted one at a time, and only where its dtype asks for it.

    Parameters
    ----------
    arr : numpy.ndarray
        Shape (frames, rows, columns, samples), of integers.
    fmt : FrameFormat
        What its frames become.
    """

    def __init__(self, arr: NDArray[Any], fmt: FrameFormat) -> None:
        self.number_of_frames = len(arr)
        self._arr = arr
        self._format = fmt
        self._cell = _cell(fmt)

    def frame(self, index: int) -> Frame:
        """Return frame `index`, from 0."""
        cells = self._arr[index]
        if cells.dtype != self._cell:
            narrowed = cells.astype(self._cell)
            if cells.dtype.itemsize > self._cell.itemsize and not np.array_equal(narrowed, cells):
                raise ValuesOutsideBitsStored(outside_message(self._format))
            cells = narrowed
        if self._format.bits_allocated == 1:
            if cells.size and cells.max() > 1:
                raise ValuesOutsideBitsStored(outside_message(self._format))
            packed = np.packbits(cells.reshape(-1), bitorder="little")
            return Frame(FrameRef("array", index), self._format, packed)
        flat = np.ascontiguousarray(cells).reshape(-1).view(np.uint8)
        return Frame(FrameRef("array", index), self._format, flat)


class DeviceFrames:
    """Frames of an array on a device, as views where its dtype is that of the cells, and converted there where not.

    Parameters
    ----------
    arr : DeviceArray
        Shape (frames, rows, columns, samples), of integers.
    fmt : FrameFormat
        What its frames become.
    """

    def __init__(self, arr: DeviceArray, fmt: FrameFormat) -> None:
        self.number_of_frames = len(arr)
        self.device = arr.device
        self._arr = arr
        self._format = fmt

    def frame(self, index: int) -> Frame:
        """Return frame `index`, from 0."""
        cells: DeviceArray | None = self._arr[index]
        if cells is not None and cells.dtype != _cell(self._format):
            cells = cells.converted(_cell(self._format))
        if cells is not None and self._format.bits_allocated == 1:
            cells = cells.packed()
        if cells is None:
            raise ValuesOutsideBitsStored(outside_message(self._format))
        return Frame(FrameRef("array", index), self._format, cells.cells())

    def frames(self, fmt: FrameFormat) -> Iterator[Frame]:
        """Yield all frames, described as `fmt`, whose cells are of the same size."""
        return (replace(self.frame(index), format=fmt) for index in range(self.number_of_frames))

    @property
    def native_size(self) -> int:
        """Bytes of all frames in Pixel Data."""
        return (self.number_of_frames * self._format.frame_bits + 7) // 8


def _cell(fmt: FrameFormat) -> np.dtype[Any]:
    """Return the dtype of one cell on its own."""
    return np.dtype(f"<{'i' if fmt.signed else 'u'}{max(1, fmt.bits_allocated // 8)}")


def outside_message(fmt: FrameFormat) -> str:
    """Return pydicom's words for samples that do not fit Bits Stored."""
    bits = fmt.bits_stored
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if fmt.signed else (0, 2**bits - 1)
    return (
        f"The ndarray contains values that are outside the allowable range of ({low}, {high}) for a (0028,0101) "
        f"'Bits Stored' value of '{bits}'"
    )
