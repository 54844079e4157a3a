"""The kernels' per-element functions, compiled as plain C++, against their twins in numpy."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuenc.cpu import samples as cpu
from gpuenc.cpu.colour import ICT_FRACTION_BITS
from gpuenc.cuda import jobs
from gpuenc.cuda.kernels import read_source, sources_root
from gpuenc.frames import FrameFormat, Palette
from tests.simt.shim import HERE, compiled

# Signed arithmetic that overflows ends the process.
FLAGS = ("-std=c++17", "-O1", "-ftrapv", "-fPIC", "-shared", "-Wall", "-Wno-unknown-pragmas", "-Wno-unused-variable")
HEADERS = ("samples.cuh", "colour.cuh", "compare.cuh", "job.cuh")


@pytest.fixture(scope="module")
def functions() -> ctypes.CDLL:
    text = read_source(*HEADERS) + "#line 1\n" + (HERE / "elements.cpp").read_text(encoding="utf-8")
    library = ctypes.CDLL(str(compiled(text, FLAGS)))
    for function in (library.product, library.x_to, library.x_to_2_to):
        function.restype = ctypes.c_uint32
    return library


def at(values: NDArray[np.generic]) -> ctypes.c_void_p:
    return values.ctypes.data_as(ctypes.c_void_p)


RANDOM = np.random.default_rng(5)
COUNT = ctypes.c_uint64(4096)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("big_endian", [False, True])
def test_native_cell(functions: ctypes.CDLL, size: int, big_endian: bool) -> None:
    cells = RANDOM.integers(0, 1 << 8 * size, 4096, np.uint32)
    fmt = FrameFormat(64, 64, 1, 8 * size, 8 * size, False, "MONOCHROME2", big_endian=big_endian)
    got = np.empty_like(cells)
    functions.native_cells(at(cells), COUNT, size, int(big_endian), at(got))
    expected = cpu.native_cells(cells.astype(f"<u{size}").view(np.uint8), fmt)
    np.testing.assert_array_equal(got, expected)


def formats() -> list[FrameFormat]:
    every = []
    for allocated in (8, 16, 32):
        for stored in {1, 2, 5, 8, 12, 16, 31, allocated} & set(range(1, allocated + 1)):
            for high in {stored - 1, (stored + allocated) // 2 - 1, allocated - 1}:
                fmt = FrameFormat(64, 64, 1, allocated, stored, False, "MONOCHROME2", high_bit=high)
                own = (1 << stored) - 1 << high + 1 - stored
                for overlays in (0, 0x90A5_5AA5 & ~own & (1 << allocated) - 1):
                    every += [replace(fmt, signed=signed, overlay_bits=overlays) for signed in (False, True)]
    return every


def test_sample_and_stray_bits(functions: ctypes.CDLL) -> None:
    from gpuenc.coding import Coding

    for fmt in formats():
        noise = [RANDOM.integers(0, 1 << fmt.bits_allocated, 4096, np.uint64) for _ in range(3)]
        value = np.stack([noise[0], noise[0] & noise[1] & noise[2], noise[0] | noise[1] | noise[2]])
        value = value.reshape(-1)[::3][:4096].astype(np.uint32)
        cells = value.astype(f"u{fmt.bits_allocated // 8}")
        coding = Coding(64, 64, 1, fmt.bits_stored, fmt.signed, fmt.bits_allocated, "MONOCHROME2")
        how = jobs.cells_of(fmt, coding)
        got, stray = np.empty_like(value), np.empty_like(value)
        functions.samples(
            at(value), COUNT, how.left, how.right, how.outside, how.above, int(fmt.signed), at(got), at(stray)
        )
        outside = cpu.outside_bits(cells, fmt)
        assert np.count_nonzero(stray) == outside.cells, fmt
        assert np.bitwise_or.reduce(stray) == outside.bits, fmt
        expected = cpu.extract_samples(cells, fmt)
        np.testing.assert_array_equal(got.view(np.int32 if fmt.signed else np.uint32), expected, err_msg=str(fmt))


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_number(functions: ctypes.CDLL, dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    cells = RANDOM.integers(0, 1 << 8 * size, 4096, np.uint32)
    got = np.empty(4096, np.int64)
    functions.numbers(at(cells), COUNT, size, int(dtype[0] == "i"), at(got))
    np.testing.assert_array_equal(got, cells.astype(f"u{size}").view(dtype))


@pytest.mark.parametrize("shift", range(8))
def test_aligned_byte(functions: ctypes.CDLL, shift: int) -> None:
    packed, got = RANDOM.integers(0, 256, 4096, np.uint8), np.empty(4095, np.uint8)
    functions.aligned(at(packed), COUNT, shift, at(got))
    np.testing.assert_array_equal(got, cpu.align_bits(packed, 4095 * 8, shift))


@pytest.mark.parametrize("function", ["rgb_to_ybr", "ybr_to_rgb"])
def test_every_one_of_the_16_million_pixels(functions: ctypes.CDLL, function: str) -> None:
    got = np.empty((256, 1 << 16, 3), np.uint8)
    functions.all_pixels(int(function == "rgb_to_ybr"), at(got))
    pixels = np.empty((1 << 16, 3), np.uint8)
    pixels[:, 1], pixels[:, 2] = np.divmod(np.arange(1 << 16), 256)
    for first in range(256):
        pixels[:, 0] = first
        assert np.array_equal(getattr(cpu, function)(pixels), got[first]), first


def test_mean_of_every_pair(functions: ctypes.CDLL) -> None:
    got = np.empty(1 << 16, np.uint8)
    functions.means(at(got))
    one, other = np.divmod(np.arange(1 << 16), 256)
    full = np.zeros((1 << 16, 2, 3), np.uint8)
    full[:, 0, 1], full[:, 1, 1] = one, other
    np.testing.assert_array_equal(got, cpu.downsample_422(full).reshape(-1, 4)[:, 2])


@pytest.mark.parametrize(("first", "entries"), [(0, 256), (-3, 2), (100, 1), (65535, 70000), (-(1 << 31), 5)])
def test_palette_index(functions: ctypes.CDLL, first: int, entries: int) -> None:
    samples = RANDOM.integers(0, 1 << 32, 4096, np.uint32)
    samples[:1000] = RANDOM.integers(max(0, first - 5), max(0, first) + entries + 5, 1000)
    samples[:4] = (0, 1, 0xFFFFFFFF, 0x80000000)
    got = np.empty_like(samples)
    functions.palette_indices(at(samples), COUNT, first, entries, at(got))
    marks = np.arange(entries, dtype=np.uint32)
    parts = [(marks >> by & 255).astype(np.uint8).tobytes() for by in (0, 8, 16)]
    expected = cpu.expand_palette(samples, Palette(first, *parts)).astype(np.uint32) @ np.array(
        [1, 256, 65536], np.uint32
    )
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("forward", [True, False])
def test_reversible_transform(functions: ctypes.CDLL, forward: bool) -> None:
    pixels = RANDOM.integers(-(1 << 29), 1 << 29, (4096, 3), np.int64)
    pixels[:2000] >>= 21
    pixels[-1] = ((1 << 31) - 1, -(1 << 31), -(1 << 31)) if forward else ((1 << 31) - 1, -8, -8)
    got, fits = np.empty_like(pixels), np.empty(4096, np.uint8)
    functions.transforms(at(pixels), COUNT, int(forward), 1, at(got), at(fits))
    twin = cpu.rct_forward if forward else cpu.rct_inverse
    np.testing.assert_array_equal(got[:-1], twin(pixels[:-1].astype(np.int32)))
    assert fits[:-1].all()
    assert not fits[-1]


def test_irreversible_transform(functions: ctypes.CDLL) -> None:
    # Every size of number, both signs, and the corners of what results have room for.
    pixels = RANDOM.integers(-(1 << 18), 1 << 18, (4096, 3), np.int64)
    pixels >>= RANDOM.integers(0, 18, (4096, 1))
    pixels[:8] = np.stack(np.meshgrid(*[[-(1 << 18), (1 << 18) - 1]] * 3), axis=-1).reshape(8, 3)
    pixels[8:12] = [[(1 << 19) - 1] * 3, [0, 0, (1 << 19) - 1], [(1 << 19) - 1, 0, 0], [0, (1 << 19) - 1, 0]]
    got, fits = np.empty_like(pixels), np.empty(4096, np.uint8)
    functions.transforms(at(pixels), COUNT, 1, 0, at(got), at(fits))
    np.testing.assert_array_equal(got, cpu.ict_forward(pixels.astype(np.int32)))
    assert fits.all()
    back = np.empty_like(pixels)
    functions.transforms(at(got), COUNT, 0, 0, at(back), at(fits))
    np.testing.assert_array_equal(back, cpu.ict_inverse(got.astype(np.int32)))
    assert fits.all()


def test_irreversible_transform_of_all_numbers_of_32_bits(functions: ctypes.CDLL) -> None:
    """Numerators have room, and what does not fit 32 bits is told."""
    corners = [-(1 << 31), -1, 0, 1, (1 << 31) - 1, (1 << 32) - 1]
    pixels = RANDOM.integers(-(1 << 31), 1 << 32, (4096, 3), np.int64)
    pixels[: 6**3] = np.stack(np.meshgrid(corners, corners, corners), axis=-1).reshape(-1, 3)
    got, fits = np.empty_like(pixels), np.empty(4096, np.uint8)
    functions.transforms(at(pixels), COUNT, 1, 0, at(got), at(fits))
    weights = ((29900, 58700, 11400), (-16875, -33126, 50000), (50000, -41869, -8131))
    for pixel, result, fit in zip(pixels.tolist(), got.tolist(), fits, strict=True):
        exact = [Fraction(sum(a * b for a, b in zip(row, pixel, strict=True)) << 12, 100_000) for row in weights]
        assert result == [math.floor(value + Fraction(1, 2)) for value in exact]
        assert fit == all(-(1 << 31) <= value < 1 << 31 for value in result)
    inside = np.clip(pixels, -(1 << 31), (1 << 31) - 1)
    inside[-500:, 0], inside[-500:, 1:] = np.arange(-250, 250) * 2048, 0  # gray: every other one is a tie
    functions.transforms(at(inside), COUNT, 0, 0, at(got), at(fits))
    np.testing.assert_array_equal(got, cpu.ict_inverse(inside.astype(np.int32)))
    assert fits.all()


# CRC-32: polynomials over GF(2) as Python integers, the coefficient of x^31 in bit 31.

POLYNOMIAL = 0x1_04C1_1DB7


def reversed_bits(value: int) -> int:
    return int(f"{value:032b}"[::-1], 2)


def product_modulo(a: int, b: int) -> int:
    total = 0
    for power in range(32):
        if a >> power & 1:
            total ^= b << power
    for power in range(63, 31, -1):
        if total >> power & 1:
            total ^= POLYNOMIAL << power - 32
    return total


def test_products_of_polynomials(functions: ctypes.CDLL) -> None:
    for a, b in RANDOM.integers(0, 1 << 32, (200, 2)).tolist():
        expected = reversed_bits(product_modulo(reversed_bits(a), reversed_bits(b)))
        assert functions.product(ctypes.c_uint32(a), ctypes.c_uint32(b)) == expected


def test_powers_of_x(functions: ctypes.CDLL) -> None:
    power, powers = 1, []
    for _ in range(70):
        powers.append(reversed_bits(power))
        power = product_modulo(power, 2)
    assert [functions.x_to(ctypes.c_uint64(exponent)) for exponent in range(70)] == powers
    for squarings in range(40):
        expected = functions.x_to(ctypes.c_uint64(1 << squarings))
        assert functions.x_to_2_to(squarings) == expected
    assert functions.x_to(ctypes.c_uint64((1 << 32) - 1)) == powers[0]


def test_structures_and_constants_are_those_of_the_python_side(functions: ctypes.CDLL) -> None:
    layout = np.empty(17, np.uint64)
    functions.job_layout(at(layout))
    assert jobs.JOB.fields is not None
    assert [field[1] for field in jobs.JOB.fields.values()] == layout[:16].tolist()
    assert jobs.JOB.itemsize == layout[16]
    constants = np.empty(9, np.uint32)
    functions.constants(at(constants))
    assert constants.tolist() == [
        jobs.BIG_ENDIAN_CELLS, jobs.SIGNED_SAMPLES, jobs.SIGNED_TARGET, jobs.TO_RGB,
        jobs.FAULT_TRUNCATED, jobs.FAULT_JOB, jobs.FAULT_OVERFLOW, jobs.STATUS_WORDS, ICT_FRACTION_BITS,
    ]  # fmt: skip


def test_the_names_of_the_structure_are_those_of_the_python_side() -> None:
    text = (sources_root() / "job.cuh").read_text(encoding="utf-8").split("struct FrameJob {")[1].split("};")[0]
    declared = [line.split("//")[0].split() for line in text.splitlines()]
    fields = [(name.rstrip(";"), kind) for kind, name in (words for words in declared if len(words) == 2)]
    kinds = {"u8": "u64", "u4": "u32", "i4": "i32"}
    assert fields == [(name, kinds[jobs.JOB[name].str[1:]]) for name in jobs.JOB.names or ()]
    assert "struct FrameJob" in read_source("samples.cu")
