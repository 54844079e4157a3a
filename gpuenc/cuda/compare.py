"""Whether samples that lie anywhere on a device are equal, frame by frame: only counts and checksums come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuenc.cuda import jobs
from gpuenc.cuda.jobs import Step, whole
from gpuenc.cuda.samples import _CRC_CHUNK_BYTES, _described, _launch, _place, _read_status
from gpuenc.errors import InvalidPixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gpuenc.cuda.kernels import Array, Device


def count_differing(device: Device, ones: Sequence[Array], others: Sequence[Array]) -> list[int]:
    """Return for each pair of frames how many samples differ in value; the dtypes of the two sides may.

    Parameters
    ----------
    device : Device
        Where they are.
    ones, others : sequence of Array
        Integers, C-contiguous; all of a side are of one shape and dtype, and both sides of as many samples.

    Raises
    ------
    InvalidPixels
        They are not.
    """
    if not ones:
        return []
    (count, first), (other_count, second) = _of_one_kind(ones), _of_one_kind(others)
    if count != other_count or len(ones) != len(others):
        raise InvalidPixels(
            f"{len(ones)} frames of {count} samples cannot be compared with {len(others)} of {other_count}"
        )
    if first.itemsize > second.itemsize:
        ones, others, first, second = others, ones, second, first
    flags = jobs.SIGNED_SAMPLES * (first.kind == "i") | jobs.SIGNED_TARGET * (second.kind == "i")
    kernel = f"count_differing_{8 * first.itemsize}_{8 * second.itemsize}"
    size = count * second.itemsize
    step = Step("compare", kernel, count, 16 // second.itemsize, second.itemsize, size, whole(8, flags=flags))
    counts, _ = _read_status(device, kernel, _launch(device, step, _jobs(step, ones, others, count * first.itemsize)))
    return [int(number) for number in counts]


def checksums(device: Device, frames: Sequence[Array], tables: Array) -> list[int]:
    """Return the CRC-32 of each frame's samples, as `gpuenc.cpu.samples.checksum`.

    Parameters
    ----------
    device : Device
        Where they are.
    frames : sequence of Array
        Little-endian integers, C-contiguous, all of one shape and dtype.
    tables : Array
        What `gpuenc.cuda.samples.checksum_tables` returned.
    """
    if not frames:
        return []
    count, dtype = _of_one_kind(frames)
    size = count * dtype.itemsize
    step = Step("compare", "crc32", size, 1, 1, 0, whole(8))
    sums = device.zeros((len(frames),), "u4")
    grid = min(max(1, -(-size // _CRC_CHUNK_BYTES)), 1 << 16)
    status = _launch(device, step, _jobs(step, frames, frames, size), grid, sums, tables)
    _read_status(device, step.kernel, status)
    return [int(number) for number in device.download(sums)]


def _of_one_kind(frames: Sequence[Array]) -> tuple[int, np.dtype[np.generic]]:
    kinds = {_described(frame) for frame in frames}
    if len(kinds) != 1:
        raise InvalidPixels(f"Frames of {len(kinds)} shapes or types cannot be compared at once")
    shape, dtype = kinds.pop()
    return int(np.prod(shape)), dtype


def _jobs(step: Step, sources: Sequence[Array], targets: Sequence[Array], source_bytes: int) -> NDArray[np.void]:
    starts, ends = (np.array([_place(frame)[0] for frame in side], np.uint64) for side in (sources, targets))
    return jobs.fill_jobs(step, starts, np.full(len(starts), source_bytes, np.uint64), ends)
