"""Palette Color Lookup Tables, against pydicom's where pydicom is right, and against tables written by hand."""

import tracemalloc
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut

from gpuenc.dicom.source import DicomFile, frames_of
from gpuenc.errors import InvalidPixels
from tests import made
from tests.dicom import files

SAMPLES = made.noise((1, 4, 4), "u1")


def tables(image):
    palette = frames_of(dcmread(BytesIO(image.file()))).palette
    return np.array([np.frombuffer(table, np.uint8) for table in (palette.red, palette.green, palette.blue)]), palette


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG])
@pytest.mark.parametrize(("dtype", "entries"), [("u1", 256), ("u1", 255), ("u2", 256), ("u2", 1000), ("u2", 65536)])
def test_entries_are_8_bits(tmp_path, syntax, dtype, entries):
    given = made.noise((3, entries), dtype)
    wanted = given if dtype == "u1" else (given >> 8).astype("u1")
    image = made.palette(SAMPLES, given, first=5, syntax=syntax)
    got, palette = tables(image)
    np.testing.assert_array_equal(got, wanted)
    assert palette.first == 5
    with DicomFile(image.write(tmp_path / "x.dcm")) as source:
        assert source.palette == palette
        assert source.format.palette is None
        assert next(source.frames(expand=True)).format.palette == palette


def test_signed_samples_may_begin_below_zero():
    assert tables(made.palette(made.noise((1, 4, 4), "i2"), made.noise((3, 16), "u2"), first=-8))[1].first == -8


def test_8_bit_values_in_16_bit_cells_keep_their_low_byte():
    given = made.noise((3, 256), "u1")
    np.testing.assert_array_equal(tables(made.palette(SAMPLES, given.astype("u2")))[0], given)


def test_more_than_256_entries_of_8_bits():
    given = made.noise((3, 4096), "u1")
    np.testing.assert_array_equal(tables(made.palette(made.noise((1, 4, 4), "u2", 12), given))[0], given)


@pytest.mark.parametrize("name", ["examples_palette.dcm", "OT-PAL-8-face.dcm", "gdcm-US-ALOKA-16.dcm"])
def test_files_agree_with_pydicom(name):
    ds = dcmread(files.named(name), force=True)
    with DicomFile(files.named(name)) as source:
        palette = source.palette
    index = np.arange(len(palette.red))
    wanted = apply_color_lut(palette.first + index, ds)
    wanted = wanted if wanted.dtype == np.uint8 or wanted.max() < 256 else wanted >> 8
    got = np.stack([np.frombuffer(table, np.uint8) for table in (palette.red, palette.green, palette.blue)], axis=-1)
    np.testing.assert_array_equal(got, wanted)


def segmented(bits, entries, *channels):
    image = made.of(SAMPLES, photometric="PALETTE COLOR")
    elements = []
    for number, data in enumerate(channels):
        value = np.array(data, f"<u{bits // 8}").tobytes()
        elements += [
            made.Element(0x00281101 + number, "US", (entries, 0, bits)),
            made.Element(0x00281221 + number, "OW", value + b"\0" * (len(value) % 2)),
        ]
    return replace(image, elements=tuple(elements))


def test_segments_are_expanded():
    # Discrete 0 10; linear to 40 in 3 steps; discrete 7 (PS3.3 C.7.9.2).
    plain = [0, 2, 0, 10, 1, 3, 40, 0, 1, 7]
    got, _ = tables(segmented(8, 6, plain, plain, plain))
    assert got.tolist() == [[0, 10, 20, 30, 40, 7]] * 3
    words = [0, 2, 0, 0x1000, 1, 3, 0x4000, 0, 1, 0x700]
    got, _ = tables(segmented(16, 6, words, words, words))
    assert got.tolist() == [[0, 0x10, 0x20, 0x30, 0x40, 7]] * 3


def test_indirect_segments_point_at_bytes():
    # One segment more, copied from byte 4, which is the linear one.
    data = [0, 2, 0, 10, 1, 3, 40, 2, 1, 4, 0, 0, 0]
    assert tables(segmented(8, 8, data, data, data))[0].tolist() == [[0, 10, 20, 30, 40, 40, 40, 40]] * 3
    words = [0, 2, 0, 0x1000, 1, 3, 0x4000, 2, 1, 8, 0]
    assert tables(segmented(16, 8, words, words, words))[0].tolist() == [[0, 16, 32, 48, 64, 64, 64, 64]] * 3


@pytest.mark.parametrize(
    "data",
    [
        [0, 3, 1, 2], [1, 3, 4], [3, 1, 1], [0, 1, 1], [0, 1, 1, 1, 255, 9, 1, 255, 9], [2, 1, 0, 0, 0, 0],
        [0, 1, 5, 2, 1, 3, 0, 0, 0],
    ],
)  # fmt: skip
def test_broken_segments_are_refused(data):
    with pytest.raises(InvalidPixels, match="segmented"):
        tables(segmented(8, 6, data, data, data))


def test_what_a_segmented_table_expands_to_is_bounded():
    data = [0, 1, 1, *(1, 255, 9) * 20_000]  # 5 million entries
    image = segmented(8, 6, data, data, data)
    source = frames_of(dcmread(BytesIO(image.file())))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidPixels):
            _ = source.palette
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_missing_or_short_tables_are_refused():
    with pytest.raises(InvalidPixels, match="missing"):
        tables(made.of(SAMPLES, photometric="PALETTE COLOR"))
    image = made.palette(SAMPLES, made.noise((3, 256), "u1"))
    short = tuple(replace(e, value=e.value[:100]) if e.tag >> 8 == 0x002812 else e for e in image.elements)
    with pytest.raises(InvalidPixels, match="100 bytes"):
        tables(replace(image, elements=short))
