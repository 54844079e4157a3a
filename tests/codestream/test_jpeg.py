import dataclasses
import struct

import imagecodecs
import jpeg_ls
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from gpuenc import syntaxes
from gpuenc.codestream import parse
from gpuenc.errors import WrongCodestream

SOI, EOI, SOF3, SOF55, SOS = b"\xff\xd8", b"\xff\xd9", b"\xff\xc3", b"\xff\xf7", b"\xff\xda"
JFIF = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0"


def segment(codestream, code):
    """Return where the segment of a marker of the header begins and ends, by walking from SOI."""
    at = 2
    while codestream[at : at + 2] != code:
        assert codestream[at : at + 2] != SOS, "no such marker"
        at += 2 + int.from_bytes(codestream[at + 2 : at + 4])
    return at, at + 2 + int.from_bytes(codestream[at + 2 : at + 4])


def after_soi(codestream, *segments):
    return SOI + b"".join(segments) + codestream[2:]


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (300, 258)])
@pytest.mark.parametrize("predictor", [1, 2, 7])
@pytest.mark.parametrize(("bits", "samples"), [(2, 1), (8, 1), (13, 1), (16, 1), (8, 3), (16, 3)])
def test_lossless_says_what_the_encoder_was_asked_for(noise, shape, predictor, bits, samples):
    image = noise(*shape, samples, bits=bits)
    encoded = imagecodecs.jpeg8_encode(image, lossless=True, predictor=predictor, bitspersample=bits)
    info = parse(encoded, "jpeg-lossless")
    assert (info.rows, info.columns, info.samples, info.precision) == (*shape, samples, bits)
    assert (info.sof, info.predictor, info.point_transform, info.lossless) == (3, predictor, 0, True)
    assert (info.signed, info.near, info.mct) == (None, None, None)
    assert (info.ends_properly, info.length_bytes) == (True, len(encoded))


@pytest.mark.parametrize(
    ("subsampling", "luma"), [("444", (1, 1)), ("422", (2, 1)), ("420", (2, 2)), ("411", (4, 1)), ("440", (1, 2))]
)
def test_baseline_subsampling(noise, subsampling, luma):
    info = parse(imagecodecs.jpeg8_encode(noise(30, 40, 3), level=80, subsampling=subsampling), "jpeg")
    assert (info.rows, info.columns, info.samples, info.precision, info.sof) == (30, 40, 3, 8, 0)
    assert info.subsampling == (luma, (1, 1), (1, 1))
    assert (info.lossless, info.predictor, info.point_transform) == (False, None, None)
    assert info.ends_properly


def test_extended_12_bit(noise):
    info = parse(imagecodecs.jpeg8_encode(noise(30, 40, bits=12), level=80, bitspersample=12), "jpeg")
    assert (info.sof, info.precision, info.lossless) == (1, 12, False)


@pytest.mark.parametrize(
    ("colour", "jfif", "adobe", "components"), [("YCBCR", True, None, (1, 2, 3)), ("RGB", False, 0, tuple(b"RGB"))]
)
@pytest.mark.parametrize("lossless", [False, True])
def test_what_is_said_of_colour(noise, colour, jfif, adobe, components, lossless):
    options = {"lossless": True, "predictor": 1} if lossless else {"level": 90}
    encoded = imagecodecs.jpeg8_encode(noise(20, 30, 3), colorspace=colour, outcolorspace=colour, **options)
    info = parse(encoded, "jpeg")
    assert (info.jfif, info.adobe_transform, info.components) == (jfif, adobe, components)


@pytest.mark.parametrize("transform", [0, 1, 2])
def test_adobe_transform(noise, transform):
    encoded = imagecodecs.jpeg8_encode(noise(20, 30, 3), level=90)
    assert parse(after_soi(encoded, ADOBE + bytes((transform,))), "jpeg").adobe_transform == transform


@pytest.mark.parametrize("near", [0, 1, 3, 17])
@pytest.mark.parametrize(("bits", "samples"), [(2, 1), (8, 1), (12, 1), (16, 1), (8, 3), (16, 3)])
def test_jpeg_ls_says_what_the_encoder_was_asked_for(noise, near, bits, samples):
    image = noise(33, 70, samples, bits=bits)
    near = min(near, (1 << bits) // 2 - 1)
    info = parse(imagecodecs.jpegls_encode(image, level=near, bitspersample=bits, spiff=False), "jpeg-ls")
    assert (info.rows, info.columns, info.samples, info.precision, info.sof) == (33, 70, samples, bits, 55)
    assert (info.near, info.lossless, info.point_transform, info.predictor) == (near, near == 0, 0, None)
    assert (info.hp_transform, info.ends_properly) == (0, True)


def test_jpeg_ls_hp_transform(noise):
    info = parse(imagecodecs.jpegls_encode(noise(20, 30, 3), transformation=2), "jpeg-ls")
    assert info.hp_transform == 2


class TestSeveralScans:
    """Every scan has its own parameters, and only the markers between scans tell them."""

    @pytest.fixture
    def by_component(self, noise):
        image = noise(40, 50, 3)
        encoded = bytes(jpeg_ls.encode_array(np.ascontiguousarray(image.transpose(2, 0, 1)), interleave_mode=0))
        np.testing.assert_array_equal(imagecodecs.jpegls_decode(encoded), image)
        return encoded

    @pytest.fixture
    def lossless(self, noise):
        """Three scans of lossless JPEG, each with its own Huffman table, assembled from three codestreams."""
        image = noise(40, 50, 3)
        planes = [
            imagecodecs.jpeg8_encode(np.ascontiguousarray(image[:, :, plane]), lossless=True, predictor=1 + plane % 2)
            for plane in range(3)
        ]
        frame = SOF3 + struct.pack(">HBHHB", 17, 8, 40, 50, 3) + b"".join(bytes((n, 0x11, 0)) for n in (1, 2, 3))
        pieces = [SOI, frame]
        for identifier, plane in enumerate(planes, 1):
            rest = plane[segment(plane, b"\xff\xc4")[0] : -2]
            at = rest.index(SOS)
            pieces += [rest[: at + 5], bytes((identifier,)), rest[at + 6 :]]
        encoded = b"".join((*pieces, EOI))
        np.testing.assert_array_equal(imagecodecs.jpeg8_decode(encoded, outcolorspace="RGB"), image)
        return encoded

    def test_jpeg_ls(self, by_component):
        info = parse(by_component, "jpeg-ls")
        assert (info.samples, info.near, info.lossless, info.ends_properly) == (3, 0, True, True)

    @pytest.mark.parametrize("scan", [0, 1, 2])
    def test_any_scan_may_be_lossy(self, by_component, scan):
        at = -1
        for _ in range(scan + 1):
            at = by_component.index(SOS, at + 1)
        lossy = bytearray(by_component)
        lossy[at + 7] = 3
        info = parse(bytes(lossy), "jpeg-ls")
        assert (info.near, info.lossless) == (3, False)

    def test_lossless_predictors_differ(self, lossless):
        info = parse(lossless, "jpeg-lossless")
        assert (info.samples, info.predictor, info.lossless, info.ends_properly) == (3, 0, True, True)

    def test_lossless_point_transform_of_the_last(self, lossless):
        last = bytearray(lossless)
        last[lossless.rindex(SOS) + 9] = 1
        info = parse(bytes(last), "jpeg-lossless")
        assert (info.point_transform, info.lossless) == (1, False)

    def test_scan_missing(self, by_component, lossless):
        assert parse(by_component[: by_component.rindex(SOS)] + EOI, "jpeg-ls").ends_properly is False
        assert parse(lossless[: lossless.rindex(b"\xff\xc4")] + EOI, "jpeg-lossless").ends_properly is False

    def test_cut_off_in_a_scan(self, by_component):
        assert parse(by_component[: by_component.rindex(SOS) - 40], "jpeg-ls").ends_properly is False


def test_segments_too_short_to_say_anything(noise):
    encoded = imagecodecs.jpegls_encode(noise(20, 30))
    segments = b"\xff\xfe\0\2", b"\xff\xe0\0\2", b"\xff\xee\0\x0dAdobe\0\x64\0\0\0\0", b"\xff\xe8\0\6mrfx"
    info = parse(after_soi(encoded, *segments), "jpeg-ls")
    assert (info.jfif, info.adobe_transform, info.hp_transform, info.ends_properly) == (False, None, 0, True)


def test_one_scan_is_not_looked_into(noise):
    """Its data would take longer to search than to leave alone."""
    encoded = imagecodecs.jpegls_encode(noise(20, 30))
    with_a_second_frame = encoded[:-40] + b"\xff\xf7\0\x0b\x08\0\x14\0\x1e\1\1\x11\0" + encoded[-40:]
    assert parse(with_a_second_frame, "jpeg-ls").ends_properly is True


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0\0\0", b"\xff", bytes(50)])
def test_padding_after_eoi(noise, padding):
    encoded = imagecodecs.jpegls_encode(noise(20, 30))
    info = parse(encoded + padding, "jpeg-ls")
    assert (info.ends_properly, info.length_bytes) == (True, len(encoded))


@pytest.mark.parametrize("end", [lambda good: good[:-1], lambda good: good[:-2], lambda good: good + b"\0\x01"])
def test_wrong_end(noise, end):
    info = parse(end(imagecodecs.jpegls_encode(noise(20, 30))), "jpeg-ls")
    assert info.ends_properly is False


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15])
def test_every_frame_header(noise, n):
    """T.81 table B.1; 3, 7, 11 and 15 are lossless."""
    encoded = imagecodecs.jpeg8_encode(noise(20, 30), lossless=True, predictor=1)
    info = parse(encoded.replace(SOF3, bytes((0xFF, 0xC0 + n)), 1), "jpeg")
    assert (info.sof, info.lossless, info.predictor is None) == (n, n % 4 == 3, n % 4 != 3)


@pytest.mark.parametrize("code", [b"\xff\xc4", b"\xff\xc8", b"\xff\xcc"])
def test_no_frame_header(noise, code):
    """DHT, JPG and DAC lie between them."""
    encoded = imagecodecs.jpeg8_encode(noise(20, 30), lossless=True, predictor=1)
    with pytest.raises(WrongCodestream, match="before any frame header"):
        parse(encoded.replace(SOF3, code, 1), "jpeg")


def test_fill_bytes_before_markers(noise):
    encoded = imagecodecs.jpegls_encode(noise(20, 30))
    at, _ = segment(encoded, SOF55)
    filled = encoded[:at] + b"\xff" * 5 + encoded[at:]
    assert parse(filled, "jpeg-ls") == dataclasses.replace(parse(encoded, "jpeg-ls"), length_bytes=len(filled))


class TestRefused:
    @pytest.fixture
    def plain(self, noise):
        return imagecodecs.jpegls_encode(noise(20, 30))

    def test_not_a_jpeg(self, plain):
        with pytest.raises(WrongCodestream, match="not with ff4f"):
            parse(b"\xff\x4f" + plain[2:], "jpeg-ls")

    def test_cut_off_header(self, plain):
        for length in range(segment(plain + SOS, SOF55)[1] + 9):
            with pytest.raises(WrongCodestream):
                parse(plain[:length], "jpeg-ls")

    def test_scan_before_frame(self, plain):
        start, end = segment(plain, SOF55)
        with pytest.raises(WrongCodestream, match="before any frame"):
            parse(plain[:start] + plain[end:], "jpeg-ls")

    def test_two_frames(self, plain):
        start, end = segment(plain, SOF55)
        with pytest.raises(WrongCodestream, match="more than one frame"):
            parse(plain[:end] + plain[start:], "jpeg-ls")

    @pytest.mark.parametrize("components", [0, 2, 255])
    def test_frame_with_no_room_for_its_components(self, plain, components):
        at = segment(plain, SOF55)[0] + 9
        with pytest.raises(WrongCodestream, match="does not hold"):
            parse(plain[:at] + bytes((components,)) + plain[at + 1 :], "jpeg-ls")

    @pytest.mark.parametrize("components", [0, 2, 255])
    def test_scan_with_no_room_for_its_components(self, plain, components):
        at = plain.index(SOS) + 4
        with pytest.raises(WrongCodestream, match="does not hold"):
            parse(plain[:at] + bytes((components,)) + plain[at + 1 :], "jpeg-ls")

    @pytest.mark.parametrize("code", [0x00, 0x01, 0xD0, 0xD7, 0xD8])
    def test_marker_without_length_in_the_header(self, plain, code):
        with pytest.raises(WrongCodestream, match=f"FF{code:02X} at byte 2"):
            parse(after_soi(plain, bytes((0xFF, code, 0, 4, 0, 0))), "jpeg-ls")

    @pytest.mark.parametrize("length", [0, 1, 0xFFFF])
    def test_segment_that_lies_about_its_length(self, plain, length):
        with pytest.raises(WrongCodestream, match="FFFE at byte 2"):
            parse(after_soi(plain, b"\xff\xfe" + struct.pack(">H", length)), "jpeg-ls")

    def test_end_before_scan(self, plain):
        with pytest.raises(WrongCodestream, match="no frame header and scan"):
            parse(plain[: segment(plain, SOF55)[1]] + EOI + bytes(10), "jpeg-ls")


# Every compressed file of pydicom's that is small; what its header says is in the dataset too.
FILES = [
    "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "SC_jpeg_no_color_transform.dcm", "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_small_odd_jpeg.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_encoders(name):
    dataset = pydicom.dcmread(get_testdata_file(name, download=False))
    family = syntaxes.find(dataset.file_meta.TransferSyntaxUID).family
    info = parse(next(generate_frames(dataset.PixelData, number_of_frames=1)), family)
    assert info.ends_properly
    if family == "rle":
        assert info.segments == dataset.SamplesPerPixel * dataset.BitsAllocated // 8
        return
    assert (info.rows, info.columns, info.samples) == (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    assert info.precision == dataset.BitsStored
    if family == "jpeg2000":
        assert info.signed == bool(dataset.PixelRepresentation)


def test_pydicom_file_cut_by_a_padding_of_ff():
    dataset = pydicom.dcmread(get_testdata_file("JPEG-lossy.dcm", download=False))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    assert frame.endswith(EOI + b"\xff")
    info = parse(frame, "jpeg")
    assert (info.ends_properly, info.length_bytes) == (True, len(frame) - 1)
    assert (info.sof, info.precision, info.rows, info.columns) == (1, 12, dataset.Rows, dataset.Columns)
