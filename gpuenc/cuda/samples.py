"""The kernels' side of `gpuenc.cpu.samples`: the same names, for batches of frames on a device.

Arguments are those of the twins, with a first axis of frames and the device in front; results are equal bit for bit.
Nothing waits for the device but what returns numbers: `Prepared.found`, `count_differing`, `checksum`, and the
transforms that can overflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cuda import jobs
from gpuenc.cuda.jobs import Step, whole
from gpuenc.cuda.kernels import raise_for_fault
from gpuenc.errors import InvalidPixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.cuda.kernels import Array, Device
    from gpuenc.frames import FrameFormat, Palette

_CRC_TABLES = 2336
_CRC_CHUNK_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class Outside:
    """Cells of a frame with bits set that are neither the sample's nor an overlay's: how many, and the bits."""

    cells: int
    bits: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch of prepared frames, and what the kernels found in them.

    Parameters
    ----------
    samples : Array
        Shape (frames, *coding.shape), or (frames, bytes) for `coding.raw`. A frame whose cells have bits outside
        the sample holds samples without them: `found` says so, and it must not be used.
    """

    samples: Array
    _device: Device
    _statuses: tuple[tuple[str, Array], ...]

    def found(self) -> list[Outside | None]:
        """Wait for the device, and return for each frame the bits that do not belong there, None if there are none.

        Raises
        ------
        CodecError
            A kernel refused its job.
        """
        found: list[Outside | None] = []
        for kernel, status in self._statuses:
            cells, bits = _read_status(self._device, kernel, status)
            here = [Outside(int(count), int(mask)) if count else None for count, mask in zip(cells, bits, strict=True)]
            found = [one or other for one, other in zip(found, here, strict=True)] if found else here
        return found


def prepare(
    device: Device,
    pixels: Sequence[Array],
    fmt: FrameFormat,
    coding: Coding,
    *,
    bit_offsets: Sequence[int] | None = None,
) -> Prepared:
    """Return the samples of a batch as `coding` wants them, or its cells where `coding.raw`.

    Parameters
    ----------
    device : Device
        Where `pixels` are.
    pixels : sequence of Array
        Native cells of each frame, uint8, shape (bytes,), at any address; bytes beyond the frame are not looked at.
    fmt : FrameFormat
        Format of the cells.
    coding : Coding
        What `gpuenc.coding.coding` made of `fmt` for a target.
    bit_offsets : sequence of int, optional
        Where each 1-bit frame begins, as `Frame.bit_offset`.

    Raises
    ------
    InvalidPixels
        A frame is too short (code ``"truncated"``), or a step of `coding` cannot be done on this format.
    """
    steps = jobs.prepare_steps(fmt, coding)
    offsets = np.zeros(len(pixels), np.uint32) if bit_offsets is None else np.array(bit_offsets, np.uint32)
    places, sizes = np.array([_place(array) for array in pixels], np.uint64).reshape(-1, 2).T
    for offset, size in zip(offsets, sizes, strict=True):
        if not 0 <= offset < (8 if fmt.bits_allocated == 1 else 1):
            raise ValueError(f"cells of {fmt.bits_allocated} bits cannot begin at bit {offset} of a byte")
        needed = (int(offset) + fmt.frame_bits + 7) // 8
        if size < needed:
            raise InvalidPixels(f"The frame needs {needed} bytes of pixel data, there are {size}", code="truncated")
    palette = _upload_palette(device, fmt.palette) if coding.expand and fmt.palette else None
    statuses, result = [], None
    for number, step in enumerate(steps):
        dtype = np.dtype("u1" if coding.raw else f"{'i' if coding.signed else 'u'}{coding.cell_bits // 8}")
        between = coding.raw or step is not steps[-1]
        shape = (step.target_bytes // dtype.itemsize,) if between else coding.shape
        result = device.empty((len(pixels), *shape), dtype)
        batch = jobs.fill_jobs(step, places, sizes, _places(result, step.target_bytes), offsets if not number else 0)
        if palette and step.kernel.startswith("expand_palette_"):
            _name_palette(batch, *palette)
        statuses.append((step.kernel, _launch(device, step, batch)))
        places, sizes = _places(result, step.target_bytes), np.full(len(pixels), step.target_bytes, np.uint64)
    assert result is not None
    return Prepared(result, device, tuple(statuses))


def interleave(device: Device, planes: Array) -> Array:
    """Return (frames, 3, rows, columns) as (frames, rows, columns, 3)."""
    shape, dtype = _described(planes)
    frames, _, rows, columns = _require(shape, 1, 3)
    step = jobs.planar_step(8 * dtype.itemsize, 8 * dtype.itemsize, rows * columns, whole(8 * dtype.itemsize))
    return _apply(device, step, planes, (frames, rows, columns, 3), dtype)


def planar(device: Device, pixels: Array) -> Array:
    """Return (frames, rows, columns, 3) as (frames, 3, rows, columns)."""
    shape, dtype = _described(pixels)
    frames, rows, columns, _ = _require(shape, 3, 3)
    size = dtype.itemsize
    step = Step("samples", f"planar_{8 * size}", rows * columns, 16 // size, size, 3 * rows * columns * size, whole(8))
    return _apply(device, step, pixels, (frames, 3, rows, columns), dtype)


def upsample_422(device: Device, cells: Array, rows: int, columns: int) -> Array:
    """Return YBR_FULL, (frames, rows, columns, 3), from YBR_FULL_422, (frames, rows * columns * 2)."""
    if columns % 2:
        raise InvalidPixels(f"YBR_FULL_422 needs an even number of columns, not {columns}")
    shape, dtype = _described(cells)
    step = jobs.upsample_step(8 * dtype.itemsize, rows * columns // 2, whole(8 * dtype.itemsize))
    return _apply(device, step, cells, (shape[0], rows, columns, 3), dtype)


def downsample_422(device: Device, samples: Array) -> Array:
    """Return YBR_FULL_422, (frames, rows * columns * 2), from YBR_FULL, (frames, rows, columns, 3); uint8. Lossy."""
    frames, rows, columns, _ = _require_8_bit(samples)
    if columns % 2:
        raise InvalidPixels(f"YBR_FULL_422 needs an even number of columns, not {columns}")
    step = Step("colour", "downsample_422", rows * columns // 2, 4, 4, rows * columns * 2, whole(8))
    return _apply(device, step, samples, (frames, rows * columns * 2), np.dtype("u1"))


def rgb_to_ybr(device: Device, samples: Array) -> Array:
    """Return YBR_FULL from RGB, uint8, (frames, rows, columns, 3). Lossy."""
    return _pixels(device, "rgb_to_ybr", samples)


def ybr_to_rgb(device: Device, samples: Array) -> Array:
    """Return RGB from YBR_FULL, uint8, (frames, rows, columns, 3). Lossy."""
    return _pixels(device, "ybr_to_rgb", samples)


def expand_palette(device: Device, samples: Array, palette: Palette) -> Array:
    """Return RGB, uint8, (frames, ..., 3), from PALETTE COLOR samples, unsigned, (frames, ...)."""
    shape, dtype = _described(samples)
    bits, count = 8 * dtype.itemsize, int(np.prod(shape[1:]))
    step = jobs.palette_step(bits, count, whole(bits, signed=dtype.kind != "u"))
    table = _upload_palette(device, palette)
    return _apply(device, step, samples, (*shape, 3), np.dtype("u1"), palette=table)


def rct_forward(device: Device, samples: Array) -> Array:
    """Return Y0 Y1 Y2 of the reversible component transform, int32, from integers, (frames, rows, columns, 3).

    Raises
    ------
    InvalidPixels
        A result needs more than 32 bits.
    """
    return _transformed(device, "rct_forward", samples)


def rct_inverse(device: Device, transformed: Array) -> Array:
    """Return R G B of Y0 Y1 Y2, both int32, (frames, rows, columns, 3).

    Raises
    ------
    InvalidPixels
        A result needs more than 32 bits.
    """
    return _restored(device, "rct_inverse", transformed)


def ict_forward(device: Device, samples: Array) -> Array:
    """Return Y0 Y1 Y2 of the irreversible component transform in units of 1/4096, int32, from integers. Lossy.

    Raises
    ------
    InvalidPixels
        A result needs more than 32 bits.
    """
    return _transformed(device, "ict_forward", samples)


def ict_inverse(device: Device, transformed: Array) -> Array:
    """Return R G B of Y0 Y1 Y2 in units of 1/4096, both int32, (frames, rows, columns, 3). Lossy."""
    return _restored(device, "ict_inverse", transformed)


def count_differing(device: Device, one: Array, other: Array) -> list[int]:
    """Return for each frame how many samples differ in value; the dtypes may.

    Raises
    ------
    InvalidPixels
        The shapes differ.
    """
    (shape, first), (other_shape, second) = _described(one), _described(other)
    if shape != other_shape:
        raise InvalidPixels(f"Samples of shape {shape} cannot be compared with samples of shape {other_shape}")
    if first.itemsize > second.itemsize:
        one, other, first, second = other, one, second, first
    count = int(np.prod(shape[1:]))
    flags = jobs.SIGNED_SAMPLES * (first.kind == "i") | jobs.SIGNED_TARGET * (second.kind == "i")
    group, kernel = 16 // second.itemsize, f"count_differing_{8 * first.itemsize}_{8 * second.itemsize}"
    cells = whole(8, flags=flags)
    step = Step("compare", kernel, count, group, second.itemsize, count * second.itemsize, cells)
    batch = _jobs_between(step, one, other, count * first.itemsize)
    cells_, _ = _read_status(device, kernel, _launch(device, step, batch))
    return [int(number) for number in cells_]


def checksum_tables(device: Device) -> Array:
    """Return the constants that `checksum` wants: made once for each device."""
    tables = device.empty((_CRC_TABLES,), "u4")
    device.launch("compare", "crc32_tables", (1, 1), jobs.THREADS, (tables,))
    return tables


def checksum(device: Device, samples: Array, tables: Array) -> list[int]:
    """Return the CRC-32 of each frame's samples in C order, each least significant byte first.

    Parameters
    ----------
    device : Device
        Where `samples` are.
    samples : Array
        Little-endian integers, shape (frames, ...).
    tables : Array
        What `checksum_tables` returned.
    """
    shape, dtype = _described(samples)
    size = int(np.prod(shape[1:])) * dtype.itemsize
    step = Step("compare", "crc32", size, 1, 1, 0, whole(8))
    sums = device.zeros((shape[0],), "u4")
    grid = min(max(1, -(-size // _CRC_CHUNK_BYTES)), 1 << 16)
    batch = _jobs_between(step, samples, samples, size)
    status = _launch(device, step, batch, grid, sums, tables)
    _read_status(device, step.kernel, status)
    return [int(number) for number in device.download(sums)]


def _apply(
    device: Device,
    step: Step,
    source: Array,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    check: bool = False,
    palette: tuple[Array, Palette] | None = None,
) -> Array:
    source_shape, source_dtype = _described(source)
    result = device.empty(shape, dtype)
    batch = _jobs_between(step, source, result, int(np.prod(source_shape[1:])) * source_dtype.itemsize)
    if palette:
        _name_palette(batch, *palette)
    status = _launch(device, step, batch)
    if check:
        _read_status(device, step.kernel, status)
    return result


def _transformed(device: Device, kernel: str, samples: Array) -> Array:
    shape, dtype = _described(samples)
    _require(shape, -1, 3)
    bits = 8 * dtype.itemsize
    pixels = int(np.prod(shape[1:-1]))
    cells = whole(bits, signed=dtype.kind == "i")
    step = Step("colour", f"{kernel}_{bits}", pixels, 4, 12, 12 * pixels, cells)
    return _apply(device, step, samples, shape, np.dtype("i4"), check=bits == 32)


def _restored(device: Device, kernel: str, transformed: Array) -> Array:
    shape, dtype = _described(transformed)
    _require(shape, -1, 3)
    if dtype != np.dtype("i4"):
        raise ValueError(f"needs int32, not {dtype}")
    pixels = int(np.prod(shape[1:-1]))
    step = Step("colour", kernel, pixels, 4, 12, 12 * pixels, whole(32, signed=True))
    return _apply(device, step, transformed, shape, dtype, check=True)


def _pixels(device: Device, kernel: str, samples: Array) -> Array:
    shape = _require_8_bit(samples)
    step = jobs.pixel_step(kernel, int(np.prod(shape[1:-1])))
    return _apply(device, step, samples, shape, np.dtype("u1"))


def _jobs_between(step: Step, source: Array, target: Array, source_bytes: int) -> NDArray[np.void]:
    places = _places(source, source_bytes)
    return jobs.fill_jobs(
        step, places, np.full(len(places), source_bytes, np.uint64), _places(target, step.target_bytes)
    )


def _launch(device: Device, step: Step, batch: NDArray[np.void], grid: int | None = None, *more: Array) -> Array:
    status = device.zeros((len(batch), jobs.STATUS_WORDS), "u8")
    if len(batch):
        blocks, frames = jobs.grid_of(step, len(batch))
        arguments: tuple[Array | np.uint32, ...] = (device.upload(batch), np.uint32(len(batch)), status, *more)
        device.launch(step.source, step.kernel, (grid or blocks, frames), jobs.THREADS, arguments)
    return status


def _read_status(device: Device, kernel: str, status: Array) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = device.download(status)
    for frame in np.flatnonzero(words[:, 1] >> np.uint64(32)):
        raise_for_fault(kernel, int(frame), int(words[frame, 1]) >> 32)
    return words[:, 0], words[:, 1] & np.uint64(0xFFFFFFFF)


def _upload_palette(device: Device, palette: Palette) -> tuple[Array, Palette]:
    entries = len(palette.red)
    if not entries or not entries == len(palette.green) == len(palette.blue):
        raise InvalidPixels("The Palette Color Lookup Tables (0028,1201) to (0028,1203) are empty or differ in length")
    table = np.zeros((entries, 4), np.uint8)
    for column, values in enumerate((palette.red, palette.green, palette.blue)):
        table[:, column] = np.frombuffer(values, np.uint8)
    return device.upload(table.view("<u4").reshape(-1)), palette


def _name_palette(batch: NDArray[np.void], table: Array, palette: Palette) -> None:
    batch["palette"], batch["entries"], batch["first"] = _place(table)[0], len(palette.red), palette.first


def _place(array: Array) -> tuple[int, int]:
    shape, dtype = _described(array)
    return int(array.__cuda_array_interface__["data"][0]), int(np.prod(shape)) * dtype.itemsize


def _places(array: Array, frame_bytes: int) -> NDArray[np.uint64]:
    frames = np.arange(_described(array)[0][0], dtype=np.uint64)
    return np.uint64(_place(array)[0]) + frames * np.uint64(frame_bytes)


def _described(array: Array) -> tuple[tuple[int, ...], np.dtype[Any]]:
    interface = array.__cuda_array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    if interface.get("strides") is not None:
        raise ValueError("arrays on a device must be C-contiguous")
    if dtype.kind not in "iu" or dtype.itemsize > 4 or (dtype.byteorder == ">"):
        raise ValueError(f"samples on a device must be little-endian integers of 8, 16 or 32 bits, not {dtype}")
    return shape, dtype


def _require(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    if len(shape) != 4 or shape[axis] != size:
        raise ValueError(f"needs 4 axes, of which axis {axis} has a size of {size}, not {shape}")
    return shape


def _require_8_bit(samples: Array) -> tuple[int, ...]:
    shape, dtype = _described(samples)
    if dtype != np.uint8 or shape[-1] != 3:
        raise ValueError(f"needs uint8 samples of shape (..., 3), not {dtype} of shape {shape}")
    return _require(shape, -1, 3)
