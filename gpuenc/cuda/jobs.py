"""What kernels are told of frames: steps, structures, launch sizes. Pure; the layouts are those of kernels/job.cuh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuenc.errors import InvalidPixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.frames import FrameFormat

BIG_ENDIAN_CELLS, SIGNED_SAMPLES, SIGNED_TARGET, TO_RGB = 1, 2, 4, 8
FAULT_TRUNCATED, FAULT_JOB, FAULT_OVERFLOW = 1, 2, 4

JOB = np.dtype(
    [
        ("source", "u8"),
        ("source_bytes", "u8"),
        ("target", "u8"),
        ("target_bytes", "u8"),
        ("items", "u8"),
        ("skip", "u4"),
        ("bit_offset", "u4"),
        ("flags", "u4"),
        ("left", "u4"),
        ("right", "u4"),
        ("outside", "u4"),
        ("above", "u4"),
        ("entries", "u4"),
        ("first", "i4"),
        ("unused", "u4"),
        ("palette", "u8"),
    ]
)
STATUS_WORDS = 2

THREADS = 256
_GROUPS_PER_THREAD = 4
_MAX_GRID_X, _MAX_GRID_Y = (1 << 31) - 1, 65535
_VECTOR_BYTES = 16

# Cells of a planar frame become pixels in the same pass for these sizes; others take a second one.
_PLANAR = ((8, 8), (16, 8), (16, 16), (32, 32))


@dataclass(frozen=True, slots=True)
class Cells:
    """How a kernel takes samples out of cells; the fields are those of FrameJob."""

    flags: int
    left: int
    right: int
    outside: int = 0
    above: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One launch over a batch.

    Parameters
    ----------
    source, kernel : str
        ``kernels/<source>.cu`` and the kernel's name in it.
    items : int
        What the kernel counts in a frame.
    group : int
        Items that a thread takes at a time.
    item_bytes : int
        Bytes of an item in the array whose alignment counts.
    target_bytes : int
        Bytes of a frame's result.
    cells : Cells
        How cells are read.
    """

    source: str
    kernel: str
    items: int
    group: int
    item_bytes: int
    target_bytes: int
    cells: Cells

    @property
    def grid(self) -> int:
        """Blocks that one frame gets: some groups for each thread, so that its job is read once for all of them."""
        groups = -(-self.items // self.group) + 1
        return max(1, min(-(-groups // (THREADS * _GROUPS_PER_THREAD)), _MAX_GRID_X))


def grid_of(step: Step, frames: int) -> tuple[int, int]:
    """Return the grid of a launch of `step` over `frames` frames."""
    return step.grid, max(1, min(frames, _MAX_GRID_Y))


def whole(bits: int, *, signed: bool = False, flags: int = 0) -> Cells:
    """Return `Cells` whose samples are all bits of cells of `bits` bits."""
    return Cells(flags | SIGNED_SAMPLES * signed, 32 - bits, 32 - bits)


def cells_of(fmt: FrameFormat, coding: Coding) -> Cells:
    """Return how samples lie in the cells of `fmt`, of 8 bits or more (PS3.5 8.1.1, 8.1.2)."""
    order = BIG_ENDIAN_CELLS * fmt.big_endian
    if coding.whole_cells:
        return whole(fmt.bits_allocated, signed=fmt.signed, flags=order)
    sample = ((1 << fmt.bits_stored) - 1) << (fmt.high_bit + 1 - fmt.bits_stored)
    outside = ((1 << fmt.bits_allocated) - 1) & ~sample & ~fmt.overlay_bits
    above = outside >> (fmt.high_bit + 1) << (fmt.high_bit + 1)
    return Cells(order | SIGNED_SAMPLES * fmt.signed, 31 - fmt.high_bit, 32 - fmt.bits_stored, outside, above)


def prepare_steps(fmt: FrameFormat, coding: Coding) -> tuple[Step, ...]:
    """Return the launches that do what `gpuenc.cpu.samples.prepare` does: one, for unusual formats two or three.

    Raises
    ------
    InvalidPixels
        A step of `coding` cannot be done on this format, as in the twin; or not by these kernels (code
        ``"not-on-device"``).
    """
    count = fmt.rows * fmt.columns * (2 if fmt.subsampled else fmt.samples)
    if coding.raw:
        return (_raw_step(fmt, count),)
    size, wanted = max(8, fmt.bits_allocated), coding.cell_bits
    if wanted < 8 or wanted > size or (fmt.subsampled and not coding.upsample):
        raise InvalidPixels(
            f"Kernels cannot make samples of {wanted} bits of cells of {fmt.bits_allocated} bits", code="not-on-device"
        )
    if fmt.bits_allocated == 1:
        first = [bits_step(count, signed=fmt.signed)]
        cells = whole(8, signed=fmt.signed)
    else:
        first, cells = [], cells_of(fmt, coding)
    if coding.expand:
        if fmt.palette is None:
            raise InvalidPixels("PALETTE COLOR samples cannot be expanded without Palette Color Lookup Tables")
        return (*first, palette_step(size, count, cells))
    last = _layout_steps(fmt, coding, size, count, cells)
    if first and [step.kernel for step in last] == ["prepare_8_8"]:
        last = []  # single bits have become samples already
    return _with_rgb(coding, [*first, *last]) if coding.to_rgb else (*first, *last)


def bits_step(count: int, *, signed: bool) -> Step:
    """Return the step from bits to samples of 8 bits."""
    return Step("samples", "prepare_bits", count, 16, 1, count, Cells(SIGNED_SAMPLES * signed, 31, 31))


def flat_step(source: int, target: int, count: int, cells: Cells) -> Step:
    """Return the step from `count` cells of `source` bits to samples of `target` bits in the same order."""
    size = target // 8
    return Step("samples", f"prepare_{source}_{target}", count, 128 // source, size, count * size, cells)


def planar_step(source: int, target: int, pixels: int, cells: Cells) -> Step:
    """Return the step from three planes of cells to interleaved samples."""
    size = 3 * target // 8
    return Step("samples", f"prepare_planar_{source}_{target}", pixels, 128 // source, size, pixels * size, cells)


def upsample_step(bits: int, pairs: int, cells: Cells) -> Step:
    """Return the step from Y0 Y1 Cb Cr to two pixels, for each of `pairs`."""
    size = 6 * bits // 8
    return Step("colour", f"upsample_422_{bits}", pairs, 32 // bits, size, pairs * size, cells)


def palette_step(bits: int, pixels: int, cells: Cells) -> Step:
    """Return the step from cells of `bits` bits to RGB.

    Raises
    ------
    InvalidPixels
        The samples are signed.
    """
    if cells.flags & SIGNED_SAMPLES:
        raise InvalidPixels("PALETTE COLOR samples must be unsigned: (0028,0103) 'Pixel Representation' must be 0")
    return Step("colour", f"expand_palette_{bits}", pixels, 128 // bits, 3, 3 * pixels, cells)


def pixel_step(kernel: str, pixels: int) -> Step:
    """Return a step over interleaved pixels of 8 bits: ``rgb_to_ybr`` or ``ybr_to_rgb``."""
    return Step("colour", kernel, pixels, 16, 3, 3 * pixels, whole(8))


def _raw_step(fmt: FrameFormat, count: int) -> Step:
    if fmt.bits_allocated == 1:
        size = (count + 7) // 8
        return Step("samples", "align_bits", count, 16, 1, size, whole(8))
    bits = fmt.bits_allocated if fmt.big_endian else 8
    order = whole(bits, flags=BIG_ENDIAN_CELLS * fmt.big_endian)
    return flat_step(bits, bits, fmt.frame_bytes * 8 // bits, order)


def _layout_steps(fmt: FrameFormat, coding: Coding, size: int, count: int, cells: Cells) -> list[Step]:
    wanted, pixels = coding.cell_bits, fmt.rows * fmt.columns
    narrowed = [flat_step(size, wanted, count, cells)]
    rest = whole(wanted)
    if coding.upsample:
        if fmt.planar:
            raise InvalidPixels("YBR_FULL_422 needs a (0028,0006) 'Planar Configuration' of 0 (PS3.3 C.7.6.3.1.2)")
        if fmt.columns % 2:
            raise InvalidPixels(f"YBR_FULL_422 needs an even number of columns, not {fmt.columns}")
        if size == wanted:
            return [upsample_step(size, pixels // 2, cells)]
        return [*narrowed, upsample_step(wanted, pixels // 2, rest)]
    if fmt.samples > 1 and fmt.planar:
        if (size, wanted) in _PLANAR:
            return [planar_step(size, wanted, pixels, cells)]
        return [*narrowed, planar_step(wanted, wanted, pixels, rest)]
    return narrowed


def _with_rgb(coding: Coding, steps: list[Step]) -> tuple[Step, ...]:
    if coding.cell_bits != 8 or coding.samples != 3 or coding.signed:
        raise ValueError(f"needs uint8 samples of shape (..., 3), not {coding.samples} of {coding.cell_bits} bits")
    last = steps[-1]
    if last.kernel.startswith(("prepare_planar_", "upsample_422_")):
        cells = replace(last.cells, flags=last.cells.flags | TO_RGB)
        return (*steps[:-1], replace(last, cells=cells))
    return (*steps, pixel_step("ybr_to_rgb", coding.rows * coding.columns))


def fill_jobs(
    step: Step,
    sources: NDArray[np.uint64],
    source_bytes: NDArray[np.uint64],
    targets: NDArray[np.uint64],
    bit_offsets: NDArray[np.uint32] | int = 0,
) -> NDArray[np.void]:
    """Return the jobs of a batch, dtype `JOB`, shape (frames,).

    Parameters
    ----------
    step : Step
        What is to be done.
    sources, source_bytes, targets : numpy.ndarray
        uint64, shape (frames,): addresses of the frames, their bytes, addresses of the results.
    bit_offsets : numpy.ndarray or int
        As `Frame.bit_offset`.
    """
    jobs = np.zeros(len(sources), JOB)
    jobs["source"], jobs["source_bytes"] = sources, source_bytes
    jobs["target"], jobs["target_bytes"] = targets, step.target_bytes
    jobs["items"], jobs["bit_offset"] = step.items, bit_offsets
    jobs["skip"] = skips(targets, step.group, step.item_bytes)
    for name in Cells.__dataclass_fields__:
        jobs[name] = getattr(step.cells, name)
    return jobs


def skips(addresses: NDArray[np.uint64], group: int, item_bytes: int) -> NDArray[np.uint32]:
    """Return by how many items each frame's first group is cut short so that the next ones lie aligned.

    Parameters
    ----------
    addresses : numpy.ndarray
        uint64, shape (frames,): where the frames begin.
    group, item_bytes : int
        Items of a group and bytes of an item.

    Returns
    -------
    numpy.ndarray
        uint32, shape (frames,), below `group`; 0 where nothing helps.
    """
    group_bytes = group * item_bytes
    align = min(_VECTOR_BYTES, group_bytes & -group_bytes)
    starts = addresses[:, None] - np.arange(group, dtype=np.uint64)[None, :] * np.uint64(item_bytes)
    return np.argmax(starts % np.uint64(align) == 0, axis=1).astype(np.uint32)
