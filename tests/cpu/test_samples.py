"""`gpuenc.cpu.samples` against a model that reads and writes cells bit by bit, and against pydicom."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.overlays.numpy_handler import get_overlay_array
from pydicom.pixels import get_decoder

from gpuenc import coding as codings
from gpuenc import syntaxes, targets
from gpuenc.coding import Coding
from gpuenc.cpu import samples
from gpuenc.errors import InvalidPixels, ValuesOutsideBitsStored
from gpuenc.frames import FrameFormat, Palette

PROFILE = settings(deadline=None, max_examples=100)


# The model: Python integers, one bit at a time.


def bits_of_stream(pixels: bytes) -> list[int]:
    """Every bit in the order of PS3.5 8.1.1: bytes in order, least significant bit first."""
    return [byte >> bit & 1 for byte in pixels for bit in range(8)]


def model_cells(pixels: bytes, fmt: FrameFormat, bit_offset: int = 0) -> list[list[int]]:
    """Each cell as the list of its bits, bit 0 first."""
    count = fmt.rows * fmt.columns * (2 if fmt.subsampled else fmt.samples)
    size = fmt.bits_allocated
    if fmt.big_endian and size > 8:
        step = size // 8
        pixels = b"".join(pixels[at : at + step][::-1] for at in range(0, count * step, step))
    stream = bits_of_stream(pixels)[bit_offset:]
    return [stream[at : at + size] for at in range(0, count * size, size)]


def model_sample(cell: list[int], fmt: FrameFormat) -> int:
    bits = cell[fmt.high_bit - fmt.bits_stored + 1 : fmt.high_bit + 1]
    value = sum(bit << position for position, bit in enumerate(bits))
    return value - (1 << fmt.bits_stored) if fmt.signed and bits[-1] else value


def model_stray(cell: list[int], fmt: FrameFormat) -> set[int]:
    """Positions of the bits that must not be set."""
    own = range(fmt.high_bit - fmt.bits_stored + 1, fmt.high_bit + 1)
    checked = {bit for bit in range(fmt.bits_allocated) if bit not in own and not fmt.overlay_bits >> bit & 1}
    stray = {bit for bit in checked if cell[bit]}
    above = {bit for bit in checked if bit > fmt.high_bit}
    if fmt.signed and cell[fmt.high_bit] and above <= stray:
        stray -= above
    return stray


def model_image(values: list[int], fmt: FrameFormat) -> list[int]:
    """Samples in interleaved order."""
    area = fmt.rows * fmt.columns
    if fmt.samples == 3 and fmt.planar:
        return [values[plane * area + pixel] for pixel in range(area) for plane in range(3)]
    return values


def model_bytes(cells: list[list[int]], fmt: FrameFormat, before: list[int], after: int) -> bytes:
    """Cells back to bytes, behind the bits `before`; bits of the last byte that are left over are `after`."""
    stream = before + [bit for cell in cells for bit in cell]
    stream += [after] * (-len(stream) % 8)
    packed = bytes(sum(stream[at + bit] << bit for bit in range(8)) for at in range(0, len(stream), 8))
    step = max(1, fmt.bits_allocated // 8) if fmt.big_endian else 1
    return b"".join(packed[at : at + step][::-1] for at in range(0, len(packed), step))


# Frames.

ALLOCATED = (1, 8, 16, 32)


@dataclass(frozen=True)
class Case:
    fmt: FrameFormat
    cells: list[list[int]]
    bit_offset: int
    pixels: bytes

    @property
    def array(self) -> np.ndarray:
        return np.frombuffer(self.pixels, np.uint8)  # read-only: a step that writes to its input raises


@st.composite
def formats(draw: st.DrawFn, allocated: tuple[int, ...] = ALLOCATED, **fixed: object) -> FrameFormat:
    bits_allocated = draw(st.sampled_from(allocated))
    random = Random(draw(st.integers(0, 1 << 32)))
    stored = random.choice((bits_allocated, *(random.randint(1, bits_allocated) for _ in range(3))))
    high = random.choice((stored - 1, random.randint(stored - 1, bits_allocated - 1)))
    own = ((1 << stored) - 1) << (high + 1 - stored)
    overlays = random.choice((0, random.getrandbits(bits_allocated))) & ~own
    colour = draw(st.booleans())
    fmt = FrameFormat(
        rows=draw(st.integers(1, 4)),
        columns=draw(st.integers(1, 5)),
        samples=3 if colour else 1,
        bits_allocated=bits_allocated,
        bits_stored=stored,
        signed=draw(st.booleans()),
        photometric="RGB" if colour else "MONOCHROME2",
        planar=draw(st.integers(0, 1)) if colour else 0,
        high_bit=high,
        big_endian=draw(st.booleans()),
        overlay_bits=overlays,
    )
    if fixed.get("samples") == 1:
        fixed |= {"photometric": "MONOCHROME2", "planar": 0}
    return replace(fmt, **fixed)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn, legal: bool = True, allocated: tuple[int, ...] = ALLOCATED, **fixed: object) -> Case:
    """Frames of random bits; if `legal`, bits outside the samples are zero, sign extension or overlay."""
    fmt = draw(formats(allocated, **fixed))
    random = Random(draw(st.integers(0, 1 << 32)))
    # Few bits set, half of them, most: values near zero, anywhere, near -1 and the maximum.
    mix = draw(st.sampled_from((lambda a, b, c: a & b & c, lambda a, b, c: a, lambda a, b, c: a | b | c)))
    extends = draw(st.sampled_from((0.0, 0.5, 1.0)))
    cells = []
    for _ in range(fmt.rows * fmt.columns * fmt.samples):
        cell = mix(*(random.getrandbits(fmt.bits_allocated) for _ in range(3)))
        cells.append([cell >> bit & 1 for bit in range(fmt.bits_allocated)])
    for cell in cells if legal else ():
        extension = int(fmt.signed and cell[fmt.high_bit] and random.random() < extends)
        for bit in range(fmt.bits_allocated):
            if fmt.overlay_bits >> bit & 1 or fmt.high_bit - fmt.bits_stored < bit <= fmt.high_bit:
                continue
            cell[bit] = extension if bit > fmt.high_bit else 0
    bit_offset = draw(st.integers(0, 7)) if fmt.bits_allocated == 1 else 0
    before = [random.getrandbits(1) for _ in range(bit_offset)]
    pixels = model_bytes(cells, fmt, before, random.getrandbits(1)) + random.randbytes(draw(st.integers(0, 3)))
    return Case(fmt, cells, bit_offset, pixels)


def coding_of(fmt: FrameFormat, cell_bits: int = 0, **changes: object) -> Coding:
    least = next(bits for bits in (8, 16, 32) if bits >= fmt.bits_stored)
    kept = Coding(
        rows=fmt.rows,
        columns=fmt.columns,
        samples=fmt.samples,
        precision=fmt.bits_stored,
        signed=fmt.signed,
        cell_bits=max(cell_bits, least),
        photometric=fmt.photometric,
    )
    return replace(kept, **changes)  # type: ignore[arg-type]


def chosen_coding(fmt: FrameFormat, syntax: str, **options: object) -> Coding:
    target = targets.target(syntaxes.find(syntax), strict=False, **options)  # type: ignore[arg-type]
    return codings.coding(target, fmt)


# prepare


@settings(PROFILE, max_examples=400)
@given(cases(), st.sampled_from((8, 16, 32)))
def test_prepare_returns_the_bits_of_each_sample(case: Case, cell_bits: int) -> None:
    coding = coding_of(case.fmt, cell_bits)

    got = samples.prepare(case.array, case.fmt, coding, bit_offset=case.bit_offset)

    assert got.dtype == np.dtype(f"{'i' if case.fmt.signed else 'u'}{coding.cell_bits // 8}")
    assert got.shape == case.fmt.shape
    assert got.flags.c_contiguous
    assert got.flags.aligned
    expected = model_image([model_sample(cell, case.fmt) for cell in case.cells], case.fmt)
    assert got.reshape(-1).tolist() == expected


@settings(PROFILE, max_examples=400)
@given(cases(legal=False))
def test_prepare_refuses_exactly_the_values_outside_bits_stored(case: Case) -> None:
    stray = [model_stray(cell, case.fmt) for cell in case.cells]
    cells = samples.native_cells(case.array, case.fmt, bit_offset=case.bit_offset)
    coding = coding_of(case.fmt)

    found = samples.outside_bits(cells, case.fmt)

    assert found.cells == sum(bool(bits) for bits in stray)
    assert found.bits == sum(1 << bit for bit in set().union(*stray))
    if any(stray):
        with pytest.raises(ValuesOutsideBitsStored) as caught:
            samples.prepare(case.array, case.fmt, coding, bit_offset=case.bit_offset)
        named = f"{found.cells} of {len(case.cells)} samples do not fit a (0028,0101) 'Bits Stored' of "
        assert str(caught.value).startswith(f"{named}{case.fmt.bits_stored} with")
        assert str(caught.value).endswith(f"({', '.join(map(str, sorted(set().union(*stray))))})")
    else:
        got = samples.prepare(case.array, case.fmt, coding, bit_offset=case.bit_offset)
        expected = model_image([model_sample(cell, case.fmt) for cell in case.cells], case.fmt)
        assert got.reshape(-1).tolist() == expected


@pytest.mark.parametrize(
    ("signed", "cell", "legal"),
    [
        (False, 0x0FFF, True),
        (False, 0x1000, False),
        (False, 0x8000, False),
        (False, 0xFFFF, False),
        (True, 0x07FF, True),
        (True, 0xF800, True),  # -2048, extended
        (True, 0xFFFF, True),
        (True, 0x0FFF, True),  # -1, not extended
        (True, 0x0800, True),
        (True, 0xF7FF, False),  # -2049
        (True, 0xF000, False),  # extension of a sample that is not negative
        (True, 0x7FFF, False),  # three of the four bits of an extension
        (True, 0x1FFF, False),
        (True, 0x1000, False),
    ],
)
@pytest.mark.parametrize("at", [0, 17, 4095])
def test_one_cell_in_4096_is_found(signed: bool, cell: int, legal: bool, at: int) -> None:
    fmt = FrameFormat(64, 64, 1, 16, 12, signed, "MONOCHROME2")
    cells = np.zeros(4096, "<u2")
    cells[at] = cell
    if legal:
        got = samples.prepare(cells.view(np.uint8), fmt, coding_of(fmt)).reshape(-1)
        assert got[at] == ((cell & 0xFFF) ^ 0x800) - 0x800 if signed else cell
        assert np.count_nonzero(got) == 1
    else:
        with pytest.raises(ValuesOutsideBitsStored, match="1 of 4096 samples"):
            samples.prepare(cells.view(np.uint8), fmt, coding_of(fmt))


@settings(PROFILE)
@given(cases(legal=False, allocated=(8, 16, 32)))
def test_whole_cells_are_all_bits_of_the_cell(case: Case) -> None:
    coding = chosen_coding(case.fmt, "htj2k-lossless", whole_cells=True)
    assert coding.whole_cells

    got = samples.prepare(case.array, case.fmt, coding)

    whole = replace(case.fmt, bits_stored=case.fmt.bits_allocated, high_bit=case.fmt.bits_allocated - 1)
    expected = model_image([model_sample(cell, whole) for cell in case.cells], case.fmt)
    assert got.dtype.itemsize * 8 == case.fmt.bits_allocated
    assert got.reshape(-1).tolist() == expected


@pytest.mark.parametrize("signed", [False, True])
def test_small_numbers_below_a_shifted_high_bit_are_shifted(signed: bool) -> None:
    # As numbers these cells are in range of the samples; they are not the samples.
    fmt = FrameFormat(1, 3, 1, 16, 12, signed, "MONOCHROME2", high_bit=13)
    cells = np.array([4, 8, 0x7F0], "<u2")
    assert samples.prepare(cells.view(np.uint8), fmt, coding_of(fmt)).tolist() == [[1, 2, 0x1FC]]
    cells[1] = 5
    with pytest.raises(ValuesOutsideBitsStored, match=r"1 of 3 .*\(0\)"):
        samples.prepare(cells.view(np.uint8), fmt, coding_of(fmt))


def test_codings_at_bits_allocated_still_take_samples_of_bits_stored() -> None:
    fmt = FrameFormat(1, 3, 1, 16, 12, True, "MONOCHROME2")
    coding = chosen_coding(fmt, "jpeg-lossless-sv1")
    assert (coding.precision, coding.whole_cells) == (16, False)
    cells = np.array([0x0FFF, 0xFFFF, 0x0001], "<u2")
    assert samples.prepare(cells.view(np.uint8), fmt, coding).tolist() == [[-1, -1, 1]]
    cells[2] = 0x1001
    with pytest.raises(ValuesOutsideBitsStored):
        samples.prepare(cells.view(np.uint8), fmt, coding)


@settings(PROFILE)
@given(cases(legal=False, allocated=(8, 16, 32), planar=0, big_endian=False))
def test_whole_cells_come_back_bit_for_bit(case: Case) -> None:
    coding = chosen_coding(case.fmt, "htj2k-lossless", whole_cells=True)
    cells = samples.to_cells(samples.prepare(case.array, case.fmt, coding), case.fmt)
    assert cells.tobytes() == case.pixels[: case.fmt.frame_bytes]


@settings(PROFILE)
@given(cases(legal=False))
def test_raw_cells_keep_every_bit(case: Case) -> None:
    coding = chosen_coding(case.fmt, "explicit-vr-little-endian")
    assert coding.raw

    got = samples.prepare(case.array, case.fmt, coding, bit_offset=case.bit_offset)

    little = replace(case.fmt, big_endian=False)
    assert got.dtype == np.uint8
    assert got.shape == (case.fmt.frame_bytes,)
    assert got.tobytes() == model_bytes(case.cells, little, [], 0)


@settings(PROFILE)
@given(cases())
def test_pixels_that_are_too_short_are_truncated_not_padded(case: Case) -> None:
    needed = (case.bit_offset + case.fmt.frame_bits + 7) // 8
    for coding in (coding_of(case.fmt), coding_of(case.fmt, raw=True)):
        samples.prepare(case.array[:needed], case.fmt, coding, bit_offset=case.bit_offset)
        with pytest.raises(InvalidPixels, match=f"needs {needed} bytes.*there are {needed - 1}") as caught:
            samples.prepare(case.array[: needed - 1], case.fmt, coding, bit_offset=case.bit_offset)
        assert caught.value.code == "truncated"


@pytest.mark.parametrize(("allocated", "bit_offset"), [(1, 8), (1, -1), (8, 1), (16, 3)])
def test_impossible_bit_offsets_are_refused(allocated: int, bit_offset: int) -> None:
    fmt = FrameFormat(2, 2, 1, allocated, allocated, False, "MONOCHROME2")
    with pytest.raises(ValueError, match="cannot begin at bit"):
        samples.prepare(np.zeros(64, np.uint8), fmt, coding_of(fmt), bit_offset=bit_offset)


@pytest.mark.parametrize(
    ("allocated", "stored", "signed", "count"),
    [(8, 8, False, 1), (8, 7, False, 3), (16, 12, False, 1), (16, 16, True, 1), (16, 12, True, 1), (32, 20, False, 1)],
)
def test_frames_that_need_no_change_are_not_copied(allocated: int, stored: int, signed: bool, count: int) -> None:
    fmt = FrameFormat(8, 8, count, allocated, stored, signed, "RGB" if count == 3 else "MONOCHROME2")
    low = -(1 << stored - 1) if signed else 0
    values = np.linspace(low, low + (1 << stored) - 1, 64 * count).astype(f"<{'i' if signed else 'u'}{allocated // 8}")
    pixels = values.view(np.uint8)
    got = samples.prepare(pixels, fmt, coding_of(fmt, allocated))
    assert np.shares_memory(got, pixels)
    assert got.reshape(-1).tolist() == values.tolist()
    assert np.shares_memory(samples.prepare(pixels, fmt, coding_of(fmt, raw=True)), pixels)


def test_pixels_at_an_odd_address_come_out_aligned() -> None:
    fmt = FrameFormat(2, 2, 1, 16, 16, False, "MONOCHROME2")
    pixels = np.frombuffer(b"\x00" + struct.pack("<4H", 1, 2, 3, 0xFFFE), np.uint8)[1:]
    got = samples.prepare(pixels, fmt, coding_of(fmt))
    assert got.flags.aligned
    assert got.tolist() == [[1, 2], [3, 0xFFFE]]


def test_ybr_full_422_is_upsampled() -> None:
    fmt = FrameFormat(2, 2, 3, 8, 8, False, "YBR_FULL_422")
    coding = chosen_coding(fmt, "htj2k-lossless")
    assert coding.upsample
    pixels = np.array([1, 2, 3, 4, 5, 6, 7, 8], np.uint8)
    expected = [[[1, 3, 4], [2, 3, 4]], [[5, 7, 8], [6, 7, 8]]]
    assert samples.prepare(pixels, fmt, coding).tolist() == expected
    with pytest.raises(InvalidPixels, match="Planar Configuration"):
        samples.prepare(pixels, replace(fmt, planar=1), coding)
    with pytest.raises(InvalidPixels, match="8 bytes") as caught:
        samples.prepare(pixels[:7], fmt, coding)
    assert caught.value.code == "truncated"


def test_lossy_targets_get_rgb() -> None:
    ybr = FrameFormat(1, 2, 3, 8, 8, False, "YBR_FULL_422")
    coding = chosen_coding(ybr, "jpegxl", quality=90)
    assert coding.to_rgb
    grey_then_red = np.array([77, 76, 85, 255], np.uint8)
    assert samples.prepare(grey_then_red, ybr, coding).tolist() == [[[255, 1, 1], [254, 0, 0]]]

    fmt = FrameFormat(
        1, 3, 1, 16, 10, False, "PALETTE COLOR", palette=Palette(5, b"\x01\x02", b"\x03\x04", b"\x05\x06")
    )
    coding = chosen_coding(fmt, "jpeg-baseline")
    assert coding.expand
    pixels = np.array([5, 6, 1023], "<u2").view(np.uint8)
    expected = [[[1, 3, 5], [2, 4, 6], [2, 4, 6]]]
    assert samples.prepare(pixels, fmt, coding).tolist() == expected
    with pytest.raises(ValuesOutsideBitsStored):
        samples.prepare(np.array([5, 6, 1024], "<u2").view(np.uint8), fmt, coding)
    with pytest.raises(InvalidPixels, match="Palette Color Lookup Tables"):
        samples.prepare(pixels, replace(fmt, palette=None), coding)


# to_cells


@settings(PROFILE, max_examples=300)
@given(cases(), st.data())
def test_to_cells_is_undone_by_prepare_and_by_the_model(case: Case, data: st.DataObject) -> None:
    fmt = replace(case.fmt, planar=0, high_bit=case.fmt.bits_stored - 1, big_endian=False, overlay_bits=0)
    values = model_image([model_sample(cell, case.fmt) for cell in case.cells], case.fmt)
    kinds = [kind for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "i8", ">i4", ">u2") if _holds(kind, values)]
    image = np.array(values, data.draw(st.sampled_from(kinds))).reshape(fmt.shape)

    cells = samples.to_cells(image, fmt)

    assert cells.dtype == np.uint8
    assert cells.shape == (fmt.frame_bytes,)
    # Sign extension fills the cell: read as a sample of all its bits it is the same number.
    whole = replace(fmt, bits_stored=fmt.bits_allocated, high_bit=fmt.bits_allocated - 1)
    assert [model_sample(cell, whole) for cell in model_cells(cells.tobytes(), fmt)] == values
    assert samples.prepare(cells, fmt, coding_of(fmt)).reshape(-1).tolist() == values


def _holds(kind: str, values: list[int]) -> bool:
    limits = np.iinfo(kind)
    return limits.min <= min(values) and max(values) <= limits.max


@settings(PROFILE)
@given(cases(allocated=(8, 16, 32), signed=True))
def test_to_cells_takes_twos_complement_from_codecs_without_sign(case: Case) -> None:
    fmt = replace(case.fmt, planar=0, high_bit=case.fmt.bits_stored - 1, big_endian=False, overlay_bits=0)
    values = [model_sample(cell, case.fmt) for cell in case.cells]
    for precision in (fmt.bits_stored, fmt.bits_allocated):
        unsigned = np.array([value % (1 << precision) for value in values], np.uint32).reshape(fmt.shape)
        cells = samples.to_cells(unsigned, fmt)
        assert samples.prepare(cells, fmt, coding_of(fmt)).reshape(-1).tolist() == values
        assert (cells == samples.to_cells(np.array(values, np.int64).reshape(fmt.shape), fmt)).all()


def test_to_cells_leaves_values_beyond_bits_stored_to_prepare() -> None:
    fmt = FrameFormat(1, 2, 1, 16, 12, False, "MONOCHROME2")
    cells = samples.to_cells(np.array([[4095, 4096]], np.uint16), fmt)
    assert cells.tolist() == [0xFF, 0x0F, 0x00, 0x10]
    with pytest.raises(ValuesOutsideBitsStored):
        samples.prepare(cells, fmt, coding_of(fmt))
    signed = replace(fmt, signed=True)
    cells = samples.to_cells(np.array([[0x0800, 0x1800]], np.uint16), signed)
    assert cells.view("<u2").tolist() == [0xF800, 0x1800]
    with pytest.raises(ValuesOutsideBitsStored, match=r"1 of 2 .*\(12\)"):
        samples.prepare(cells, signed, coding_of(signed))


@pytest.mark.parametrize(
    ("allocated", "signed", "values"),
    [
        (8, False, np.array([256], np.uint16)),
        (8, False, np.array([-1], np.int8)),
        (8, True, np.array([128], np.int16)),
        (8, True, np.array([-129], np.int16)),
        (8, True, np.array([256], np.uint16)),
        (16, False, np.array([-1], np.int32)),
        (16, True, np.array([-32769], np.int32)),
        (32, False, np.array([1 << 32], np.int64)),
        (1, False, np.array([2], np.uint8)),
    ],
)
def test_to_cells_refuses_what_the_cell_cannot_hold(allocated: int, signed: bool, values: np.ndarray) -> None:
    fmt = FrameFormat(1, 1, 1, allocated, allocated, signed, "MONOCHROME2")
    with pytest.raises(ValuesOutsideBitsStored):
        samples.to_cells(values.reshape(1, 1), fmt)


def test_to_cells_refuses_other_shapes_and_kinds() -> None:
    fmt = FrameFormat(2, 4, 3, 8, 8, False, "RGB")
    for shape in ((3, 2, 4), (4, 2, 3), (2, 4), (24,)):
        with pytest.raises(InvalidPixels, match="Samples of shape"):
            samples.to_cells(np.zeros(shape, np.uint8), fmt)
    with pytest.raises(InvalidPixels, match="YBR_FULL_422"):
        samples.to_cells(np.zeros((2, 4, 3), np.uint8), replace(fmt, photometric="YBR_FULL_422"))
    with pytest.raises(ValueError, match="integers"):
        samples.to_cells(np.zeros((2, 4, 3)), fmt)


FULL_CELLS = [cases(allocated=(bits,), bits_stored=bits, high_bit=bits - 1, overlay_bits=0) for bits in (8, 16, 32)]


@settings(PROFILE)
@given(st.one_of(*FULL_CELLS, cases(allocated=(1,), samples=1, signed=False)))
def test_pydicom_reads_the_same_samples(case: Case) -> None:
    assume(not case.bit_offset)
    # pydicom takes big-endian 8-bit cells for swapped OW words; frames of gpuenc have them in order.
    big = case.fmt.big_endian and case.fmt.bits_allocated > 8
    decoder = get_decoder("1.2.840.10008.1.2.2" if big else "1.2.840.10008.1.2.1")
    length = case.fmt.frame_bytes
    theirs, _ = decoder.as_array(
        case.pixels[:length] + b"\0" * (length % 2),
        raw=True,
        rows=case.fmt.rows,
        columns=case.fmt.columns,
        samples_per_pixel=case.fmt.samples,
        planar_configuration=case.fmt.planar,
        photometric_interpretation=case.fmt.photometric,
        bits_allocated=case.fmt.bits_allocated,
        bits_stored=case.fmt.bits_stored,
        pixel_representation=int(case.fmt.signed),
        number_of_frames=1,
        pixel_keyword="PixelData",
        pixel_vr="OW",
    )
    ours = samples.prepare(case.array, case.fmt, coding_of(case.fmt))
    assert samples.count_differing(ours, theirs) == 0


# Planes and overlays


@settings(PROFILE)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_planar_and_interleave_undo_each_other(count: int, rows: int, columns: int) -> None:
    image = np.arange(rows * columns * count, dtype=np.uint16).reshape(rows, columns, count)
    planes = samples.planar(image)
    assert planes.flags.c_contiguous
    assert planes.tolist() == [
        [[int(image[row, column, plane]) for column in range(columns)] for row in range(rows)] for plane in range(count)
    ]
    back = samples.interleave(planes)
    assert back.flags.c_contiguous
    assert (back == image).all()


@settings(PROFILE)
@given(cases(allocated=(8, 16, 32), samples=1), st.data())
def test_overlays_are_the_bits_at_their_position(case: Case, data: st.DataObject) -> None:
    fmt = case.fmt
    own = range(fmt.high_bit - fmt.bits_stored + 1, fmt.high_bit + 1)
    position = data.draw(st.integers(0, fmt.bits_allocated - 1))
    if position in own:
        with pytest.raises(InvalidPixels, match="Overlay Bit Position"):
            samples.extract_overlay(case.array, fmt, position)
        return
    expected = [cell[position] for cell in case.cells]
    assert samples.overlay_plane(case.array, fmt, position).reshape(-1).tolist() == expected

    packed = samples.extract_overlay(case.array, fmt, position)

    stream = bits_of_stream(packed.tobytes())
    assert stream == expected + [0] * (-len(expected) % 8)
    ds = Dataset()
    ds.add_new((0x6000, 0x0010), "US", fmt.rows)
    ds.add_new((0x6000, 0x0011), "US", fmt.columns)
    ds.add_new((0x6000, 0x0100), "US", 1)
    ds.add_new((0x6000, 0x3000), "OW", packed.tobytes() + b"\0" * (packed.size % 2))
    theirs = get_overlay_array(ds, 0x6000)
    assert theirs.reshape(-1).tolist() == expected


def test_overlays_need_one_sample_in_cells_of_8_bits_or_more() -> None:
    for fmt in (
        FrameFormat(2, 2, 3, 16, 8, False, "RGB"),
        FrameFormat(2, 2, 1, 1, 1, False, "MONOCHROME2"),
        FrameFormat(2, 2, 1, 16, 12, False, "MONOCHROME2"),
    ):
        with pytest.raises(InvalidPixels, match=r"verlay"):
            samples.extract_overlay(np.zeros(24, np.uint8), fmt, 16)
