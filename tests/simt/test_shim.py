"""The shim itself: what is right passes, every kind of planted error is found."""

from __future__ import annotations

import ctypes
from functools import lru_cache

import numpy as np
import pytest

from gpuenc.cuda.kernels import read_source
from tests.simt import cases
from tests.simt.shim import FLAGS, HERE, SCHEDULES, KernelMisbehaved, Library, SimtDevice

VALUES = np.arange(128, dtype=np.uint32) * 2654435761 >> 20


def planted_source() -> str:
    device = read_source("device.cuh")
    return device + (HERE / "planted.cu").read_text(encoding="utf-8").replace('#include "device.cuh"', "")


@lru_cache
def planted(switch: str = "") -> Library:
    return Library(planted_source(), (*FLAGS, switch) if switch else FLAGS)


def launch(
    kernel: str, schedule: str, *, blocks: int = 1, words: int = 1, library: Library | None = None
) -> np.ndarray:
    on = SimtDevice(schedule, library=library or planted())
    out = on.empty((128 * words,), np.uint32)
    on.run(kernel, (blocks, 1, 1), (128, 1, 1), (on.put(VALUES), out), shared_bytes=512)
    return on.download(out)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_right_passes_and_gives_the_right_values(schedule: str) -> None:
    np.testing.assert_array_equal(launch("reverse_right", schedule), VALUES[::-1])
    np.testing.assert_array_equal(launch("warps_right", schedule), VALUES[np.arange(128) ^ 31])
    np.testing.assert_array_equal(launch("rounds_right", schedule), 2 * np.roll(VALUES, 64) + 1)
    np.testing.assert_array_equal(launch("counts_atomically", schedule), VALUES.sum())


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("reverse_without_barrier", "race"),
        ("warps_without_barrier", "race"),
        ("warps_with_shuffle_for_barrier", "race"),
        ("rounds_without_barrier", "race"),
        ("reads_one_too_many", "out of bounds"),
        ("writes_one_too_many", "out of bounds"),
        ("writes_shared_one_too_many", "out of bounds"),
        ("reads_misaligned", "misaligned"),
        ("writes_its_input", "read-only"),
        ("reads_what_nobody_wrote", "uninitialised"),
        ("reads_shared_nobody_wrote", "uninitialised"),
        ("counts_plainly", "conflict"),
        ("meets_at_two_barriers", "divergent barrier"),
        ("leaves_before_the_barrier", "divergent barrier"),
        ("waits_for_ever", "deadlock"),
        ("shuffles_with_the_dead", "warp operation"),
        ("names_others_only", "warp operation"),
    ],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_planted_error_is_found_under_every_schedule(kernel: str, kind: str, schedule: str) -> None:
    with pytest.raises(KernelMisbehaved) as caught:
        launch(kernel, schedule)
    assert kind in caught.value.counts
    assert "block (" in str(caught.value)
    launch("reverse_right", schedule)  # and nothing of it is left


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_blocks_that_write_the_same_place_are_found(schedule: str) -> None:
    launch("blocks_collide", schedule)
    with pytest.raises(KernelMisbehaved) as caught:
        launch("blocks_collide", schedule, blocks=2)
    assert caught.value.counts == {"conflict": 128}


def test_schedules_differ_in_what_a_missing_barrier_shows() -> None:
    """Without the watch on races: at least one schedule gives the wrong values, and another the right ones."""
    values = {schedule: without_watch("reverse_without_barrier", schedule) for schedule in SCHEDULES}
    wrong = {schedule for schedule, got in values.items() if not np.array_equal(got, VALUES[::-1])}
    assert wrong == set(SCHEDULES)
    values = {schedule: without_watch("rounds_without_barrier", schedule) for schedule in SCHEDULES}
    wrong = {schedule for schedule, got in values.items() if not np.array_equal(got, 2 * np.roll(VALUES, 64) + 1)}
    assert wrong >= {"warp-greedy", "warp-greedy reverse"}


def without_watch(kernel: str, schedule: str) -> np.ndarray:
    on = SimtDevice(schedule, library=planted())
    out = on.empty((128,), np.uint32)
    with pytest.raises(KernelMisbehaved):
        on.run(kernel, (1, 1, 1), (128, 1, 1), (on.put(VALUES), out))
    return on.read(out)[0]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("switch", ["", "-DSIMT_UCONTEXT"])
def test_operations_of_a_warp(schedule: str, switch: str) -> None:
    got = launch("warp_operations", schedule, words=10, library=planted(switch)).reshape(4, 32, 10)
    lane = np.arange(32)
    for values, results in zip(VALUES.reshape(4, 32), got, strict=True):
        ballot = sum(int(value & 1) << at for at, value in enumerate(values))
        upper = sum(int(value >> 1 & 1) << at for at, value in enumerate(values) if at >= 16)
        expected = [
            values[lane * 7 % 32], np.where(lane >= 3, values[lane - 3], values),
            values[np.where(lane < 27, lane + 5, lane)], values[lane ^ 9], ballot,
            int((values == 7).any()), int((values < 1000).all()), values.sum(),
            np.bitwise_xor.reduce(values) ^ np.bitwise_or.reduce(values), np.where(lane < 16, 0, upper),
        ]  # fmt: skip
        for column, each in enumerate(expected):
            np.testing.assert_array_equal(results[:, column], each, err_msg=f"operation {column}")


def test_arguments_by_value() -> None:
    on = SimtDevice(library=planted())
    out, scale = on.empty((128,), np.uint32), on.put(np.array([3, 5], np.uint32))
    on.run("takes_a_struct", (4, 1, 1), (32, 1, 1), (on.put(VALUES), out, scale, 7))
    np.testing.assert_array_equal(on.download(out), 3 * VALUES + 12)
    with pytest.raises(TypeError, match="another number"):
        on.run("takes_a_struct", (4, 1, 1), (32, 1, 1), (out, scale))
    with pytest.raises(TypeError, match="no kernel"):
        on.run("takes_nothing", (4, 1, 1), (32, 1, 1), (out, scale))


def test_a_result_that_nobody_wrote_is_found() -> None:
    on = SimtDevice()
    with pytest.raises(KernelMisbehaved, match="nobody has written"):
        on.download(on.empty((3,), np.uint8))


# The kernels of the repository, with one error planted at a time: after which text, what is replaced by what, in which
# comparison it must show, and as what. All are built at once and chosen by a number at run time; 0 plants nothing.

WRONG = "wrong values"
BARRIER = "__syncthreads();"
MUTANTS = [
    ("parts[warp] = part;\n            ", BARRIER, "", "crc32", "race"),
    ("crc_product(power, sum));\n            }\n            ", BARRIER, "", "crc32", "race"),
    ("(CRC_TO_END + threadIdx.x));\n    ", BARRIER, "", "crc32", "race"),
    ("sums[i] = ", "crc_advance(by + CRC_BY_ROW, sums[i])", "sums[i]", "crc32", WRONG),
    ("crc_warp_power(tables, ", "chunks - 1 - chunk", "chunks - chunk", "crc32", WRONG),
    ("if (", "end >= missing + 16", "end >= missing", "crc32", "out of bounds"),
    ("floor >= begin && ", "floor + 4 * (WORDS + 1) <= end", "true", "prepare_8_8", "out of bounds"),
    ("bytes == 4 * WORDS && ", "floor >= begin", "true", "prepare_8_8", "out of bounds"),
    ("body(first, u32((", "end < items", "true", "prepare_16_16", "out of bounds"),
    ("- over;\n    if (bytes == 4 * WORDS && ", "address % VECTOR == 0", "over == 0", "prepare_8_8", "misaligned"),
    ("if (", "shift + count > 16", "shift + count >= 16", "prepare_bits", "out of bounds"),
    ("const u32 next = ", "end < touched", "true", "align_bits", "out of bounds"),
    ("if (", "first + i + 1 == bytes && job.items % 8", "false", "align_bits", WRONG),
    ("negative && ", "(stray & above) == above", "(stray & above) != 0", "prepare_16_16", WRONG),
    ("const u64 plane = ", "job.items * SOURCE", "(job.items + 1) * SOURCE", "prepare_planar_8_8", "out of bounds"),
    ("index < 0 ? 0 : ", "index >= entries", "index > entries", "expand_palette_8", "out of bounds"),
    ("114 * blue + ", "500", "499", "rgb_to_ybr", WRONG),
    ("return {(", "rgb.a + 2 * rgb.b + rgb.c", "rgb.a + 2 * rgb.b + rgb.c + 1", "rct_forward_8", WRONG),
    ("numerator / denominator - ", "(numerator % denominator < 0)", "0", "ict_forward_16", WRONG),
    ("luma = ICT_UNIT * ybr.a + ", "unit / 2", "0", "ict_inverse", WRONG),
    ("luma - 34413 * ybr.b - ", "71414 * ybr.c", "71413 * ybr.c", "ict_inverse", WRONG),
    ("atomicAdd(status + ", "u64(STATUS_WORDS) * frame", "u64(frame)", "count_differing_8_8", WRONG),
]  # fmt: skip


@lru_cache
def mutants() -> Library:
    text = read_source("samples.cu", "colour.cu", "compare.cu")
    for number, (before, old, new, _, _) in enumerate(MUTANTS, 1):
        assert text.count(before + old) == 1, f"{before}{old} is there {text.count(before + old)} times"
        chosen = (
            f"if (simt_mutant != {number}) {old}" if old == BARRIER else f"(simt_mutant == {number} ? {new} : {old})"
        )
        text = text.replace(before + old, before + chosen)
    return Library(f'extern "C" {{ int simt_mutant; }}\n{text}')


def run_mutant(number: int, kernel: str) -> set[str]:
    """Return as what the mutant was found, nothing if it was not."""
    library = mutants()
    ctypes.c_int.in_dll(library.functions, "simt_mutant").value = number
    for seed in range(40):
        rng = np.random.default_rng(seed)
        few = (1, 2) if seed % 2 else (1 << 31, 1 << 16)
        on = SimtDevice(SCHEDULES[seed % 5], misalign=int(rng.integers(0, 16)), most_blocks=few, library=library)
        most = 300 if kernel == "crc32" and seed % 4 == 3 else 40
        try:
            cases.COMPARISONS[kernel](rng, on, most)
        except KernelMisbehaved as wrong:
            return set(wrong.counts)
        except AssertionError:
            return {WRONG}
    return set()


@pytest.mark.parametrize("number", range(1, len(MUTANTS) + 1))
def test_an_error_planted_in_our_kernels_is_found(number: int) -> None:
    *_, kernel, found_as = MUTANTS[number - 1]
    assert found_as in run_mutant(number, kernel)


@pytest.mark.parametrize("kernel", sorted({mutant[3] for mutant in MUTANTS}))
def test_without_a_planted_error_nothing_is_found(kernel: str) -> None:
    assert run_mutant(0, kernel) == set()
