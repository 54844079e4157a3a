"""Every kernel, run thread by thread on the CPU under five schedules, equals its twin bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from gpuenc.cuda import jobs
from gpuenc.cuda import samples as cuda
from gpuenc.errors import CodecError, InvalidPixels
from tests.simt import cases
from tests.simt.shim import SCHEDULES, SimtDevice


def device(rng: np.random.Generator, schedule: str) -> SimtDevice:
    """Return a device whose results lie anywhere, and whose grids are sometimes too small."""
    most = (int(rng.integers(1, 4)), int(rng.integers(1, 4))) if rng.random() < 0.5 else (1 << 31, 1 << 16)
    return SimtDevice(schedule, seed=int(rng.integers(1, 1 << 32)), misalign=int(rng.integers(0, 16)), most_blocks=most)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kernel", cases.COMPARISONS)
def test_kernel_equals_its_twin(kernel: str, schedule: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng([seed, SCHEDULES.index(schedule)])
        on = device(rng, schedule)
        cases.COMPARISONS[kernel](rng, on, (5, 40, 40)[seed])
        assert kernel in on.launched


@pytest.mark.parametrize("kernel", cases.COMPARISONS)
def test_kernel_equals_its_twin_over_several_blocks(kernel: str) -> None:
    on = SimtDevice("random")
    cases.COMPARISONS[kernel](np.random.default_rng(7), on, 190)
    assert kernel in on.launched


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_any_format_is_prepared_as_the_twin_does(schedule: str) -> None:
    rng = np.random.default_rng(SCHEDULES.index(schedule))
    kernels: set[str] = set()
    for _ in range(60):
        allocated = int(rng.choice([1, 8, 16, 32]))
        layout = str(rng.choice(["", "", "422"])) if allocated > 1 else ""
        raw = bool(rng.random() < 0.1) and layout != "422"
        batch = cases.native(rng, allocated, layout=layout, raw=raw, most=int(rng.choice([4, 20])))
        on = device(rng, schedule)
        batch.check(on, rng.integers(0, 16, 3))
        kernels |= set(on.launched)
    assert len(kernels) > 9


@pytest.mark.parametrize("layout", ["interleaved", "planar", "422"])
def test_colours_become_rgb_as_in_the_twin(layout: str) -> None:
    rng = np.random.default_rng(3)
    for allocated in (8, 16):
        on = SimtDevice()
        cases.native(rng, allocated, 8, layout=layout, rgb=True).check(on, [0, 5, 2])
        assert ("ybr_to_rgb" in on.launched) == (layout == "interleaved")


@pytest.mark.parametrize("skip", range(16))
def test_a_first_group_of_any_size_is_right(monkeypatch: pytest.MonkeyPatch, skip: int) -> None:
    """Where groups begin is a matter of speed alone."""
    monkeypatch.setattr(jobs, "skips", lambda addresses, group, _: np.full(len(addresses), skip % group, np.uint32))
    for kernel in (
        "prepare_8_8",
        "prepare_planar_8_8",
        "prepare_bits",
        "align_bits",
        "rgb_to_ybr",
        "count_differing_8_8",
    ):
        cases.COMPARISONS[kernel](np.random.default_rng(skip), SimtDevice(misalign=skip), 20)


def test_a_frame_with_stray_bits_does_not_touch_the_others() -> None:
    rng = np.random.default_rng(0)
    batch = cases.native(rng, 16, 16, layout="one", frames=40, most=9)
    while len({None if found is None else 1 for found in outcome(batch)}) < 2:
        batch = cases.native(rng, 16, 16, layout="one", frames=40, most=9)
    batch.check(SimtDevice("random", most_blocks=(1, 7)), [0] * 40)


def outcome(batch: cases.Native) -> list[cuda.Outside | None]:
    on = SimtDevice()
    return cuda.prepare(on, [on.put(frame) for frame in batch.pixels], batch.fmt, batch.coding).found()


# What a kernel is told wrong, or cannot do, is a status and never an access.


@pytest.mark.parametrize(
    ("field", "value", "error", "code"),
    [
        ("source_bytes", 7, InvalidPixels, "truncated"),
        ("target_bytes", 7, InvalidPixels, "truncated"),
        ("items", 1 << 60, CodecError, "kernel-refused"),
        ("skip", 16, CodecError, "kernel-refused"),
        ("left", 32, CodecError, "kernel-refused"),
        ("right", 32, CodecError, "kernel-refused"),
        ("bit_offset", 8, CodecError, "kernel-refused"),
    ],
)
@pytest.mark.parametrize("kernel", ["prepare_16_16", "prepare_bits", "align_bits"])
def test_a_wrong_job_is_refused(kernel: str, field: str, value: int, error: type[Exception], code: str) -> None:
    on = SimtDevice()
    source, target = on.put(np.zeros((2, 200), np.uint8)), on.empty((2, 200), np.uint8)
    step = jobs.Step("samples", kernel, 100, 8, 2, 200, jobs.whole(16))
    batch = cuda._jobs_between(step, source, target, 200)
    batch[field][1] = value
    status = cuda._launch(on, step, batch)
    with pytest.raises(error, match=f"'{kernel}'.* frame 1 of the batch") as caught:
        cuda._read_status(on, kernel, status)
    assert caught.value.code == code
    assert on.read(target)[1] in (200, 300, 387)  # of the other frame, the result's bytes are there, of this one none


@pytest.mark.parametrize("misalign", [1, 2, 3])
def test_a_target_may_lie_anywhere(misalign: int) -> None:
    values = np.arange(1, 46, dtype=np.uint32).reshape(1, 45) * 0x01030507
    for bits in (16, 32):
        on = SimtDevice()
        source, target = on.put(values.view(np.uint8)), on.buffer((1, 180), np.uint8, "odd", misalign=misalign)
        step = jobs.flat_step(bits, bits, 1440 // bits, jobs.whole(bits))
        cuda._read_status(on, step.kernel, cuda._launch(on, step, cuda._jobs_between(step, source, target, 180)))
        np.testing.assert_array_equal(on.download(target), values.view(np.uint8))


@pytest.mark.parametrize(("flags", "entries"), [(0, 0), (jobs.SIGNED_SAMPLES, 3)])
def test_a_palette_that_cannot_be_is_refused(flags: int, entries: int) -> None:
    on = SimtDevice()
    source, target = on.put(np.zeros((1, 64), np.uint8)), on.empty((1, 64, 3), np.uint8)
    step = jobs.palette_step(8, 64, jobs.whole(8))
    batch = cuda._jobs_between(step, source, target, 64)
    batch["flags"], batch["entries"] = flags, entries
    with pytest.raises(CodecError, match="refused"):
        cuda._read_status(on, step.kernel, cuda._launch(on, step, batch))


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (cuda.rct_forward, np.array([[[[0xFFFFFFFF] * 3]]], np.uint32)),
        (cuda.rct_forward, np.array([[[[-(1 << 31), (1 << 31) - 1, 0]]]], np.int32)),
        (cuda.rct_inverse, np.array([[[[(1 << 31) - 1, -8, 8]]]], np.int32)),
        (cuda.ict_forward, np.array([[[[1 << 19] * 3]]], np.uint32)),
        (cuda.ict_forward, np.array([[[[-(1 << 19), -(1 << 19), (1 << 19) - 1]]]], np.int32)),
    ],
)
def test_what_needs_more_than_32_bits_is_an_error_as_in_the_twin(function: object, values: np.ndarray) -> None:
    on = SimtDevice()
    with pytest.raises(InvalidPixels):
        getattr(cases.cpu, function.__name__)(values)  # type: ignore[attr-defined]
    with pytest.raises(InvalidPixels, match="32 bits"):
        function(on, on.put(values))  # type: ignore[operator]
