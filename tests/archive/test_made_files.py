"""Files that no package has: what comes out of them holds the samples that were put in, and everything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from gpuenc.dicom.source import DicomFile
from gpuenc.syntaxes import find
from tests import made
from tests.archive import oracle
from tests.archive.watcher import transcode
from tests.dicom import files

TARGETS = [
    "rle",
    "htj2k-lossless",
    "jpeg2000-lossless",
    "deflated-image-frame",
    "explicit-vr-little-endian",
    "deflated-explicit-vr-little-endian",
]
GREY = made.noise((3, 5, 7), "u2", 12)
SIGNED = made.noise((3, 5, 7), "i2", 12, seed=1)
RGB = made.noise((2, 4, 6, 3), "u1", seed=2)
BITS = made.noise((3, 5, 7), "u1", 1, seed=3)
PLANES = {12: made.noise((3, 5, 7), "u1", 1, seed=4), 15: made.noise((3, 5, 7), "u1", 1, seed=5)}
PAIRS = made.noise((2, 4, 3, 4), "u1", seed=6)
HTJ2K_FRAMES = [bytes(imagecodecs.htj2k_encode(each, reversible=True, bitspersample=12)) for each in GREY]


def even(codestream):
    return codestream + b"\0" * (len(codestream) % 2)


def cut(codestream):
    """Return a codestream as three fragments of even length."""
    codestream = even(codestream)
    third = len(codestream) // 6 * 2
    return [codestream[:third], codestream[third : 2 * third], codestream[2 * third :]]


def upsampled(pairs):
    luma = pairs[..., :2].reshape(2, 4, 6)
    return np.stack([luma, *(np.repeat(pairs[..., channel], 2, axis=2) for channel in (2, 3))], axis=-1)


def ht(frames, table="basic", **options):
    return made.compressed(frames, table, rows=5, columns=7, allocated=16, stored=12, syntax=made.HTJ2K, **options)


SIX_OVERLAYS = made.embedded_overlays(GREY, PLANES)
CASES = {
    "implicit": (made.of(SIGNED, stored=12, syntax=made.IMPLICIT, elements=made.odd_private()[:1]), SIGNED),
    "big endian": (made.of(SIGNED, stored=12, syntax=made.BIG, elements=(made.icon(),)), SIGNED),
    "big endian bytes in words": (
        replace(
            made.of(made.noise((3, 5, 7), "u1"), syntax=made.BIG, pixel_vr="OW"),
            pixels=np.append(made.noise((3, 5, 7), "u1"), np.uint8(0)).reshape(-1, 2)[:, ::-1].tobytes(),
        ),
        made.noise((3, 5, 7), "u1"),
    ),
    "deflated": (made.of(GREY, stored=12, syntax=made.DEFLATED), GREY),
    "high bit": (made.shifted(GREY, 15), GREY),
    "high bit, signed": (made.shifted(SIGNED, 13), SIGNED),
    "overlays in the cells": (SIX_OVERLAYS, GREY),
    "segmentation across bytes": (made.segmentation(BITS), BITS),
    "one pixel": (made.of(made.noise((1, 1, 1), "u2")), made.noise((1, 1, 1), "u2")),
    "colour by plane": (made.of(RGB, planar=1), RGB),
    "YBR_FULL_422": (made.ybr_422(PAIRS), upsampled(PAIRS)),
    "private tags, an icon, group lengths": (
        made.of(
            GREY, stored=12, elements=(*made.odd_private(), made.icon(), *made.wrong_group_lengths()),
        ),
        GREY,
    ),
    "elements behind the pixels": (made.of(GREY, stored=12, trailer=made.PADDING), GREY),
    "no preamble": (made.of(GREY, stored=12, preamble=None), GREY),
    "no meta": (made.of(GREY, stored=12, preamble=None, meta=False, syntax=made.IMPLICIT), GREY),
    "several fragments": (ht([cut(each) for each in HTJ2K_FRAMES]), GREY),
    "several fragments, no table": (ht([cut(each) for each in HTJ2K_FRAMES], "empty"), GREY),
    "extended offset table": (ht([[even(each)] for each in HTJ2K_FRAMES], "extended"), GREY),
}  # fmt: skip


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_samples_and_everything_else(case, to, tmp_path):
    image, samples = CASES[case]
    path = image.write(tmp_path / "in.dcm")
    before = path.read_bytes()
    (record,) = transcode(path, tmp_path / "out", to)
    assert path.read_bytes() == before
    output = tmp_path / "out" / "in.dcm"
    if image.syntax == find(to).uid and image.meta:
        assert (record.status, record.reason) == ("copied", "already-encoded")
        assert output.read_bytes() == before
        return
    assert (record.status, record.reason, record.message) == ("encoded", "", record.message)
    assert record.verified
    ds = oracle.read(output)
    if to.startswith(("deflated", "explicit")) and ds.HighBit >= ds.BitsStored:
        # Whole cells are kept; pydicom takes their lowest bits, whatever High Bit says.
        assert oracle.cells(ds) == image.pixels
    else:
        np.testing.assert_array_equal(oracle.samples(ds).reshape(samples.shape), samples)
    _, meta, elements = oracle.split(output)
    kept = dict(elements)
    for element in (*image.elements, *image.trailer):
        if element.tag & 0xFFFF and element.tag >> 16 not in (0x6000, 0x6002, 0x7FE0):
            assert kept[element.tag] == made.encoded(element)
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == made.INSTANCE
    assert 0x00020010 in dict(meta)


@pytest.mark.parametrize("to", ["rle", "htj2k-lossless", "jpeg-ls-lossless"])
def test_overlays_in_the_cells_are_moved(to, tmp_path):
    path = SIX_OVERLAYS.write(tmp_path / "in.dcm")
    (record,) = transcode(path, tmp_path / "out", to)
    assert record.status == "encoded"
    ds = oracle.read(tmp_path / "out" / "in.dcm")
    for group, plane in zip((0x6000, 0x6002), PLANES.values(), strict=True):
        packed = ds[group, 0x3000].value
        assert (ds[group, 0x0100].value, ds[group, 0x0102].value) == (1, 0)
        got = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little", count=plane.size)
        np.testing.assert_array_equal(got.reshape(plane.shape), plane)
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), GREY)


@pytest.mark.parametrize("to", ["jpegxl-lossless", "jpeg-lossless-sv1", "jpeg-ls-lossless"])
@pytest.mark.parametrize("case", ["high bit, signed", "implicit", "several fragments", "colour by plane"])
def test_other_codecs(case, to, tmp_path):
    image, samples = CASES[case]
    (record,) = transcode(image.write(tmp_path / "in.dcm"), tmp_path / "out", to)
    assert record.status == "encoded"
    got = oracle.samples(oracle.read(tmp_path / "out" / "in.dcm"))
    np.testing.assert_array_equal(got.reshape(samples.shape), samples)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (made.float_pixels(), "float-pixel-data"),
        (made.float_pixels(double=True), "float-pixel-data"),
        (made.of(GREY, without=frozenset({0x7FE00010}), pixel_tag=0x7FDF0010), "no-pixel-data"),
        *(
            (made.compressed([[b"\0\0\1\xb3"]], syntax=f"1.2.840.10008.1.2.4.{number}"), "video")
            for number in ("100", "100.1", "101", "102.1", "103", "105", "106.1", "107", "108")
        ),
        (made.compressed([[b"\xff\xd8ab\xff\xd9"]], syntax="1.2.840.10008.1.2.4.50"), "lossy-source"),
        (made.compressed([[b"\xff\x4fab\xff\xd9"]], syntax="1.2.840.10008.1.2.4.91"), "lossy-source"),
        (made.of(made.noise((1, 4, 4), "u2"), stored=12), "values-outside-bits-stored"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_copied_byte_for_byte(image, code, tmp_path):
    path = image.write(tmp_path / "in.dcm")
    (record,) = transcode(path, tmp_path / "out")
    assert (record.status, record.reason) == ("copied", code)
    assert record.message
    assert (tmp_path / "out" / "in.dcm").read_bytes() == path.read_bytes()
    assert record.bytes_out == record.bytes_in == path.stat().st_size


def test_samples_outside_bits_stored_as_whole_cells(tmp_path):
    samples = made.noise((2, 4, 4), "u2")
    path = made.of(samples, stored=12).write(tmp_path / "in.dcm")
    (record,) = transcode(path, tmp_path / "out", whole_cells=True)
    assert (record.status, record.verified) == ("encoded", True)
    ds = oracle.read(tmp_path / "out" / "in.dcm")
    codestreams = oracle.fragments(ds)
    np.testing.assert_array_equal([imagecodecs.jpeg2k_decode(each) for each in codestreams], samples)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)  # as the file says of itself


def test_lossy_sources_are_encoded_on_request(tmp_path):
    path = tmp_path / "in.dcm"
    path.write_bytes(Path(files.named("SC_rgb_jpeg_dcmtk.dcm")).read_bytes())
    (record,) = transcode(path, tmp_path / "out", keep_lossy=False)
    assert (record.status, record.verified) == ("encoded", True)
    ds = oracle.read(tmp_path / "out" / "in.dcm")
    assert ds.LossyImageCompression == "01"  # never reset: PS3.3 C.7.6.1.1.5
    assert ds.PhotometricInterpretation == "YBR_FULL"  # no conversion of colours
    with DicomFile(path) as source:
        uid = source.dataset.SOPInstanceUID
    assert ds.SOPInstanceUID == uid
    # Another JPEG decoder may round otherwise, by one.
    back = oracle.samples(ds).astype(int)
    before = oracle.samples(oracle.read(path)).astype(int)
    assert np.abs(back - before).max() <= 1
    assert back.std() > 10


def test_lossy_target_for_a_source_that_has_its_syntax(tmp_path):
    path = tmp_path / "in.dcm"
    path.write_bytes(Path(files.named("JPEG2000.dcm")).read_bytes())
    (kept,) = transcode(path, tmp_path / "kept", "jpeg2000", ratio=20)
    assert (kept.status, kept.reason) == ("copied", "already-encoded")
    (again,) = transcode(path, tmp_path / "again", "jpeg2000", ratio=20, keep_lossy=False)
    assert again.status == "encoded"
    ds = oracle.read(tmp_path / "again" / "in.dcm")
    assert ds.SOPInstanceUID != oracle.read(path).SOPInstanceUID
    assert ds.ImageType[0] == "DERIVED"
