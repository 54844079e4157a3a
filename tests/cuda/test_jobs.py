"""Steps, grids and jobs: what is launched for which format, and where groups begin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuenc.coding import Coding
from gpuenc.cuda import jobs
from gpuenc.errors import InvalidPixels
from gpuenc.frames import FrameFormat, Palette

BIT = FrameFormat(6, 4, 1, 1, 1, False, "MONOCHROME2")
COLOUR_BIT = FrameFormat(6, 4, 3, 1, 1, False, "YBR_FULL")
GRAY = FrameFormat(6, 4, 1, 16, 12, False, "MONOCHROME2")
COLOUR = FrameFormat(6, 4, 3, 8, 8, False, "YBR_FULL")
SUBSAMPLED = replace(COLOUR, photometric="YBR_FULL_422")
PALETTE = FrameFormat(6, 4, 1, 8, 8, False, "PALETTE COLOR", palette=Palette(0, b"1", b"2", b"3"))


def coding(fmt: FrameFormat, cell_bits: int = 8, **changes: object) -> Coding:
    kept = Coding(fmt.rows, fmt.columns, fmt.samples, fmt.bits_stored, fmt.signed, cell_bits, fmt.photometric)
    return replace(kept, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fmt", "how", "kernels"),
    [
        (GRAY, coding(GRAY, 16), ["prepare_16_16"]),
        (replace(GRAY, bits_allocated=32, bits_stored=7), coding(GRAY), ["prepare_32_8"]),
        (COLOUR, coding(COLOUR), ["prepare_8_8"]),
        (replace(COLOUR, planar=1), coding(COLOUR), ["prepare_planar_8_8"]),
        (replace(COLOUR, planar=1, bits_allocated=32), coding(COLOUR), ["prepare_32_8", "prepare_planar_8_8"]),
        (COLOUR, coding(COLOUR, to_rgb=True), ["prepare_8_8", "ybr_to_rgb"]),
        (replace(COLOUR, planar=1), coding(COLOUR, to_rgb=True), ["prepare_planar_8_8"]),
        (SUBSAMPLED, coding(SUBSAMPLED, upsample=True), ["upsample_422_8"]),
        (SUBSAMPLED, coding(SUBSAMPLED, upsample=True, to_rgb=True), ["upsample_422_8"]),
        (replace(SUBSAMPLED, bits_allocated=16), coding(SUBSAMPLED, upsample=True), ["prepare_16_8", "upsample_422_8"]),
        (PALETTE, coding(PALETTE, expand=True), ["expand_palette_8"]),
        (BIT, coding(BIT), ["prepare_bits"]),
        (COLOUR_BIT, coding(COLOUR_BIT), ["prepare_bits"]),
        (replace(COLOUR_BIT, planar=1), coding(COLOUR_BIT), ["prepare_bits", "prepare_planar_8_8"]),
        (replace(BIT, palette=PALETTE.palette), coding(PALETTE, expand=True), ["prepare_bits", "expand_palette_8"]),
        (BIT, coding(BIT, raw=True), ["align_bits"]),
        (GRAY, coding(GRAY, raw=True), ["prepare_8_8"]),
        (replace(GRAY, big_endian=True), coding(GRAY, raw=True), ["prepare_16_16"]),
    ],
)  # fmt: skip
def test_launches_of_a_format(fmt: FrameFormat, how: Coding, kernels: list[str]) -> None:
    steps = jobs.prepare_steps(fmt, how)
    assert [step.kernel for step in steps] == kernels
    wanted = (
        fmt.frame_bytes if how.raw else fmt.rows * fmt.columns * (3 if how.expand else fmt.samples) * how.cell_bits // 8
    )
    assert steps[-1].target_bytes == wanted
    flagged = how.to_rgb and "ybr_to_rgb" not in kernels
    assert bool(steps[-1].cells.flags & jobs.TO_RGB) == flagged


@pytest.mark.parametrize(
    ("fmt", "how", "error", "words"),
    [
        (GRAY, coding(GRAY, 32), InvalidPixels, "cannot make samples of 32 bits"),
        (SUBSAMPLED, coding(SUBSAMPLED), InvalidPixels, "cannot make samples"),
        (
            replace(SUBSAMPLED, planar=1),
            coding(SUBSAMPLED, upsample=True),
            InvalidPixels,
            "'Planar Configuration' of 0",
        ),
        (replace(SUBSAMPLED, columns=3), coding(SUBSAMPLED, upsample=True), InvalidPixels, "even number of columns"),
        (replace(PALETTE, palette=None), coding(PALETTE, expand=True), InvalidPixels, "without Palette"),
        (replace(PALETTE, signed=True), coding(PALETTE, expand=True), InvalidPixels, "must be unsigned"),
        (replace(COLOUR, bits_allocated=16), coding(COLOUR, 16, to_rgb=True), ValueError, "uint8 samples"),
    ],
)
def test_what_cannot_be_done_is_refused(fmt: FrameFormat, how: Coding, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        jobs.prepare_steps(fmt, how)


@settings(deadline=None)
@given(
    st.integers(0, 1 << 48),
    st.sampled_from([(16, 1), (8, 2), (4, 4), (16, 3), (8, 6), (4, 12), (8, 1), (4, 1), (4, 6)]),
)
def test_after_a_skip_groups_lie_aligned(address: int, shape: tuple[int, int]) -> None:
    group, item = shape
    skip = int(jobs.skips(np.array([address], np.uint64), group, item)[0])
    assert 0 <= skip < group
    align = next(size for size in (16, 8, 4, 2, 1) if group * item % size == 0)
    possible = any((address - each * item) % align == 0 for each in range(group))
    assert ((address - skip * item) % align == 0) == possible
    if item % 2 or (address % 2 == 0 and item % 4):
        assert possible  # the size of an item reaches every address that its samples can have
    if not possible:
        assert skip == 0


@pytest.mark.parametrize(
    ("items", "frames", "grid"),
    [(1, 1, (1, 1)), (16 * 1023, 3, (1, 3)), (16 * 1024, 3, (2, 3)), (1 << 40, 70000, ((1 << 26) + 1, 65535))],
)
def test_grid(items: int, frames: int, grid: tuple[int, int]) -> None:
    assert jobs.grid_of(jobs.flat_step(8, 8, items, jobs.whole(8)), frames) == grid
    assert jobs.flat_step(8, 8, 1 << 60, jobs.whole(8)).grid == (1 << 31) - 1


def test_jobs_of_a_batch() -> None:
    step = jobs.flat_step(16, 8, 100, jobs.Cells(5, 1, 2, 3, 4))
    places = [np.array(values, np.uint64) for values in ([1000, 3000], [200, 201], [5008, 7003])]
    batch = jobs.fill_jobs(step, *places, np.array([0, 3], np.uint32))
    assert batch.dtype == jobs.JOB
    first, second = ({name: int(job[name]) for name in batch.dtype.names or ()} for job in batch)
    common = {
        "target_bytes": 100, "items": 100, "flags": 5, "left": 1, "right": 2, "outside": 3, "above": 4,
        "entries": 0, "first": 0, "unused": 0, "palette": 0,
    }  # fmt: skip
    assert first == {"source": 1000, "source_bytes": 200, "target": 5008, "skip": 0, "bit_offset": 0, **common}
    assert second == {"source": 3000, "source_bytes": 201, "target": 7003, "skip": 3, "bit_offset": 3, **common}
