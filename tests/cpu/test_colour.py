"""Colour steps against exact fractions, the equations in floating point, and pydicom."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.pixels.utils import expand_ybr422

from gpuenc.cpu import colour
from gpuenc.errors import InvalidPixels
from gpuenc.frames import Palette


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    """1.4 million colours, all combinations of 112 levels with the extremes and the middle among them."""
    levels = np.unique(np.r_[np.linspace(0, 255, 108), 1, 127, 128, 129, 254].astype(np.uint8))
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, len(levels), 3)


def nearest(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


# ITU-R BT.601: Y from its three weights, Cb and Cr as scaled differences B - Y and R - Y; and solved for R, G, B.
RED, GREEN, BLUE = Fraction("0.299"), Fraction("0.587"), Fraction("0.114")
CB, CR = 2 * (1 - BLUE), 2 * (1 - RED)
TO_YBR = [
    [RED, GREEN, BLUE],
    [-RED / CB, -GREEN / CB, (1 - BLUE) / CB],
    [(1 - RED) / CR, -GREEN / CR, -BLUE / CR],
]
TO_RGB = [
    [Fraction(1), Fraction(0), CR],
    [Fraction(1), -BLUE * CB / GREEN, -RED * CR / GREEN],
    [Fraction(1), CB, Fraction(0)],
]


def exactly(colours: np.ndarray, matrix: list[list[Fraction]], before: list[int], after: list[int]) -> np.ndarray:
    """The equations in whole numbers over their common denominator: nothing is rounded but the result, halves up."""
    scale = math.lcm(*(weight.denominator for row in matrix for weight in row))
    whole = np.array([[int(weight * scale) for weight in row] for row in matrix])
    scaled = (colours.astype(np.int64) + before) @ whole.T + np.array(after) * scale
    return np.clip((2 * scaled + scale) // (2 * scale), 0, 255)


def test_rgb_to_ybr_is_exact(cube: np.ndarray) -> None:
    assert (colour.rgb_to_ybr(cube) == exactly(cube, TO_YBR, [0, 0, 0], [0, 128, 128])).all()


def test_ybr_to_rgb_is_exact_for_every_chroma() -> None:
    luma = np.array([0, 1, 60, 128, 200, 255], np.uint8)
    levels = np.arange(256, dtype=np.uint8)
    colours = np.stack(np.meshgrid(luma, levels, levels, indexing="ij"), axis=-1)
    assert (colour.ybr_to_rgb(colours) == exactly(colours, TO_RGB, [0, -128, -128], [0, 0, 0])).all()


def test_rgb_to_ybr_rounds_the_equations_of_the_standard(cube: np.ndarray) -> None:
    weights = [[0.2990, 0.5870, 0.1140], [-0.1687, -0.3313, 0.5000], [0.5000, -0.4187, -0.0813]]  # PS3.3 C.7.6.3.1.2
    exact = np.clip(cube @ np.array(weights).T + [0, 128, 128], 0, 255)
    error = np.abs(colour.rgb_to_ybr(cube) - exact).max()
    assert 0.49 < error < 0.52  # half a level, and what four decimals leave out of the coefficients


def test_colours_are_pydicom_s(cube: np.ndarray) -> None:
    for ours, names in ((colour.rgb_to_ybr, ("RGB", "YBR_FULL")), (colour.ybr_to_rgb, ("YBR_FULL", "RGB"))):
        mine = ours(cube)
        theirs = convert_color_space(cube, *names)
        # pydicom computes in 32-bit floating point, which can fall on the other side of a half.
        assert np.abs(mine.astype(int) - theirs).max() <= 1
        assert np.count_nonzero(mine != theirs) < 1e-3 * cube.size


def test_rgb_comes_back_within_a_level_or_two(cube: np.ndarray) -> None:
    there_and_back = colour.ybr_to_rgb(colour.rgb_to_ybr(cube))
    assert np.abs(there_and_back.astype(int) - cube).max() <= 2


def test_colour_steps_work_across_blocks_and_on_nothing() -> None:
    image = np.random.default_rng(2).integers(0, 256, (3, 0x4000 // 2, 3)).astype(np.uint8)
    for step in (colour.rgb_to_ybr, colour.ybr_to_rgb):
        rows = np.stack([step(row[:100]) for row in image])
        assert step(image).shape == image.shape
        assert (step(image)[:, :100] == rows).all()
        assert (step(image[:, ::-1]) == step(image)[:, ::-1]).all()
        assert step(image[:0]).shape == (0, 0x4000 // 2, 3)
        for wrong in (image.astype(np.int16), image[..., :2]):
            with pytest.raises(ValueError, match="uint8"):
                step(wrong)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
def test_upsampling_gives_both_pixels_of_a_pair_one_chroma(rows: int, pairs: int, random) -> None:
    cells = random.randbytes(rows * pairs * 4)
    expected = []
    for at in range(0, len(cells), 4):
        first, second, blue, red = cells[at : at + 4]
        expected += [first, blue, red, second, blue, red]

    full = colour.upsample_422(np.frombuffer(cells, np.uint8), rows, pairs * 2)

    assert full.shape == (rows, pairs * 2, 3)
    assert full.tobytes() == bytes(expected) == bytes(expand_ybr422(cells, 8))
    assert colour.downsample_422(full).tobytes() == cells


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
def test_downsampling_averages_chroma_halves_up(rows: int, pairs: int, random) -> None:
    pixels = random.randbytes(rows * pairs * 6)
    expected = []
    for at in range(0, len(pixels), 6):
        (y0, b0, r0), (y1, b1, r1) = pixels[at : at + 3], pixels[at + 3 : at + 6]
        expected += [y0, y1, nearest(Fraction(b0 + b1, 2)), nearest(Fraction(r0 + r1, 2))]
    full = np.frombuffer(pixels, np.uint8).reshape(rows, pairs * 2, 3)
    assert colour.downsample_422(full).tolist() == expected


def test_odd_columns_have_no_422() -> None:
    with pytest.raises(InvalidPixels, match="even number of columns"):
        colour.upsample_422(np.zeros(12, np.uint8), 2, 3)
    with pytest.raises(InvalidPixels, match="even number of columns"):
        colour.downsample_422(np.zeros((2, 3, 3), np.uint8))


palettes = st.integers(1, 9).flatmap(
    lambda entries: st.tuples(*[st.binary(min_size=entries, max_size=entries) for _ in range(3)])
)


@settings(deadline=None)
@given(palettes, st.integers(-3, 12) | st.integers(65530, 65535), st.data())
def test_palettes_clamp_at_both_ends(tables: tuple[bytes, bytes, bytes], first: int, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from((np.uint8, np.uint16, np.uint32)))
    near = st.integers(max(0, first - 3), first + 12) | st.integers(0, np.iinfo(dtype).max)
    values = data.draw(arrays.arrays(dtype, (2, 3), elements=near.filter(lambda value: value <= np.iinfo(dtype).max)))
    last = len(tables[0]) - 1

    got = colour.expand_palette(values, Palette(first, *tables))

    assert got.shape == (2, 3, 3)
    assert got.dtype == np.uint8
    for value, pixel in zip(values.reshape(-1).tolist(), got.reshape(-1, 3).tolist(), strict=True):
        entry = min(max(value - first, 0), last)
        assert pixel == [table[entry] for table in tables]


@pytest.mark.parametrize(("first", "entries"), [(0, 256), (10, 100), (0, 2), (200, 56)])
def test_palettes_are_pydicom_s(first: int, entries: int) -> None:
    rng = np.random.default_rng(entries)
    tables = [rng.integers(0, 256, entries).astype(np.uint8).tobytes() for _ in range(3)]
    ds = Dataset()
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [entries, first, 8])
        setattr(ds, f"{name}PaletteColorLookupTableData", table)
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    theirs = apply_color_lut(values, ds)
    assert (colour.expand_palette(values, Palette(first, *tables)) == theirs).all()


def test_palettes_refuse_what_has_no_meaning() -> None:
    grey = Palette(0, b"\x01\x02", b"\x01\x02", b"\x01\x02")
    with pytest.raises(InvalidPixels, match="unsigned"):
        colour.expand_palette(np.zeros((1, 1), np.int16), grey)
    for tables in ((b"", b"", b""), (b"\x01", b"\x01\x02", b"\x01"), (b"\x01", b"\x01", b"")):
        with pytest.raises(InvalidPixels, match="empty or differ"):
            colour.expand_palette(np.zeros((1, 1), np.uint8), Palette(0, *tables))


@settings(deadline=None)
@given(st.sampled_from(("u1", "i1", "u2", "i2", "u4", "i4")), st.data())
def test_the_reversible_transform_is_reversible_and_t_800_s(kind: str, data: st.DataObject) -> None:
    limits = np.iinfo(kind)
    low, high = max(limits.min, -(1 << 30)), min(limits.max, (1 << 31) - 1)
    high = min(high, (1 << 30) - 1) if kind == "i4" else high
    value = st.integers(low, high) | st.sampled_from((low, high))
    image = data.draw(arrays.arrays(kind, (2, 2, 3), elements=value))

    transformed = colour.rct_forward(image)

    assert transformed.dtype == np.int32
    for (red, green, blue), got in zip(image.reshape(-1, 3).tolist(), transformed.reshape(-1, 3).tolist(), strict=True):
        assert got == [math.floor(Fraction(red + 2 * green + blue, 4)), blue - green, red - green]
    assert colour.rct_inverse(transformed).tolist() == image.tolist()


def test_the_reversible_transform_refuses_to_wrap() -> None:
    with pytest.raises(InvalidPixels, match="31 bits"):
        colour.rct_forward(np.array([[0, 0xFFFFFFFF, 0]], np.uint32))
    with pytest.raises(InvalidPixels, match="31 bits"):
        colour.rct_inverse(np.array([[0x7FFFFFFF, -4, -4]], np.int32))


# The decimals of T.800 G.3.1 and G.3.2.
ICT_FORWARD = [["0.299", "0.587", "0.114"], ["-0.16875", "-0.33126", "0.5"], ["0.5", "-0.41869", "-0.08131"]]
ICT_INVERSE = [["1", "0", "1.402"], ["1", "-0.34413", "-0.71414"], ["1", "1.772", "0"]]


def times(matrix: list[list[str]], pixel: list[int]) -> list[Fraction]:
    return [sum(Fraction(weight) * value for weight, value in zip(row, pixel, strict=True)) for row in matrix]


@settings(deadline=None)
@given(st.sampled_from(("u1", "i1", "u2", "i2", "u4", "i4")), st.data())
def test_the_irreversible_transform_rounds_t_800_s_equations(kind: str, data: st.DataObject) -> None:
    limits = np.iinfo(kind)
    low, high = max(limits.min, -(1 << 18)), min(limits.max, (1 << (18 if limits.min else 19)) - 1)
    value = st.integers(low, high) | st.sampled_from((low, high))
    image = data.draw(arrays.arrays(kind, (2, 2, 3), elements=value))

    transformed = colour.ict_forward(image)
    restored = colour.ict_inverse(transformed)

    assert transformed.dtype == restored.dtype == np.int32
    pixels = zip(*(values.reshape(-1, 3).tolist() for values in (image, transformed, restored)), strict=True)
    for before, between, after in pixels:
        assert between == [nearest(4096 * exact) for exact in times(ICT_FORWARD, before)]
        assert after == [nearest(exact / 4096) for exact in times(ICT_INVERSE, between)]


def test_ties_of_the_inverse_irreversible_transform_go_up() -> None:
    grays = [-6144, -6143, -2049, -2048, 2047, 2048, 6143, 6144]
    restored = colour.ict_inverse(np.array([[gray, 0, 0] for gray in grays], np.int32))
    assert restored.tolist() == [[value] * 3 for value in (-1, -1, -1, 0, 0, 1, 1, 2)]


def test_the_irreversible_transform_is_that_of_floating_point(cube: np.ndarray) -> None:
    """Within half a unit of rounding, for samples as they are after the level shift (T.800 G.1)."""
    forward, inverse = np.array(ICT_FORWARD, float), np.array(ICT_INVERSE, float)
    for image in (cube, cube.astype(np.int16) - 128, cube.astype(np.uint16) * 257):
        transformed = colour.ict_forward(image)
        assert 0.499 < np.abs(transformed - 4096 * (image @ forward.T)).max() < 0.5001
        restored = transformed / 4096 @ inverse.T
        assert np.abs(colour.ict_inverse(transformed) - restored).max() < 0.5001


def test_up_to_14_bits_come_back_from_the_irreversible_transform() -> None:
    rng = np.random.default_rng(4)
    for bits in (8, 12, 14):
        for low, high in ((0, (1 << bits) - 1), (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)):
            image = rng.integers(low, high, (300, 300, 3), endpoint=True)
            image[:2] = rng.choice([low, high], (2, 300, 3))
            image = image.astype(np.int16 if low else np.uint16)
            assert (colour.ict_inverse(colour.ict_forward(image)) == image).all()
    white = np.array([[0, 0, 65535], [65535, 65535, 0]], np.uint16)
    assert 0 < np.abs(colour.ict_inverse(colour.ict_forward(white)) - white).max() <= 2


def test_the_irreversible_transform_refuses_to_wrap_and_works_across_blocks() -> None:
    for wrong in (np.array([[1 << 19] * 3], np.uint32), np.array([[-(1 << 19), -(1 << 19), (1 << 19) - 1]], np.int32)):
        with pytest.raises(InvalidPixels, match="irreversible component transform takes samples of at most 19 bits"):
            colour.ict_forward(wrong)
    # Beyond 19 bits, where the results fit. The weights of Y1 leave -0.00001: 2^31 / 10^5 of 1/4096 are 21475.
    assert colour.ict_forward(np.array([[-(1 << 19)] * 3], np.int32)).tolist() == [[-(1 << 31), 21475, 0]]
    image = np.random.default_rng(2).integers(0, 1 << 16, (3, 0x4000 // 2, 3)).astype(np.uint16)
    for step in (colour.ict_forward, lambda pixels: colour.ict_inverse(pixels.astype(np.int32) << 12)):
        assert (step(image)[:, :100] == np.stack([step(row[:100]) for row in image])).all()
        assert (step(image[:, ::-1]) == step(image)[:, ::-1]).all()
        assert step(image[:0]).shape == (0, 0x4000 // 2, 3)
