"""Each rule with a codestream that keeps it and one that breaks it and no other; JPEG and JPEG 2000 beside this."""

import dataclasses
import struct

import imagecodecs
import numpy as np
import pytest

from gpuenc.codestream import check
from tests.codestream.asked import COLUMNS, NAMELESS, ROWS, SOF, asked, refused

# One good codestream per row of the table that matters, by the name of its syntax.
GOOD = {
    "htj2k-lossless": (lambda e: e.htj2k(bits=12), {"bits": 12}),
    "htj2k-lossless signed": (lambda e: e.htj2k(bits=13, signed=True), {"bits": 13, "signed": True}),
    "htj2k-lossless colour": (lambda e: e.htj2k(3), {"photometric": "RGB"}),
    "htj2k-lossless-rpcl": (lambda e: e.htj2k(bits=12), {"bits": 12}),
    "htj2k": (lambda e: e.htj2k(level=0.01), {"ratios": (10,)}),
    "htj2k colour": (lambda e: e.htj2k(3, level=0.01), {"ratios": (10,), "photometric": "RGB"}),
    "htj2k reversible": (lambda e: e.htj2k(3), {"lossless": True, "photometric": "RGB"}),
    "jpeg2000-lossless": (lambda e: e.jpeg2000(bits=16, signed=True), {"bits": 16, "signed": True}),
    "jpeg2000-lossless colour": (lambda e: e.jpeg2000(3), {"photometric": "RGB"}),
    "jpeg2000-lossless YBR": (lambda e: e.jpeg2000(3, mct=False), {"photometric": "YBR_FULL"}),
    "jpeg2000": (lambda e: e.jpeg2000(3, level=40), {"psnrs": (40,), "photometric": "RGB"}),
    "jpeg2000 gray": (lambda e: e.jpeg2000(level=40), {"psnrs": (40,)}),
    "jpeg-baseline": (lambda e: e.jpeg(level=90), {}),
    "jpeg-baseline colour": (lambda e: e.jpeg(3, level=90, subsampling="422"), {"photometric": "RGB"}),
    "jpeg-extended": (lambda e: e.jpeg(bits=12, level=90), {"bits": 12}),
    "jpeg-extended 8 bit": (lambda e: e.jpeg(level=90), {}),
    "jpeg-extended SOF1": (lambda e: e.jpeg(level=90).replace(SOF[0], SOF[1], 1), {}),
    "jpeg-lossless": (lambda e: e.lossless(bits=16, predictor=4), {"bits": 12}),
    "jpeg-lossless colour": (lambda e: e.lossless(3, predictor=7), {"photometric": "RGB"}),
    "jpeg-lossless-sv1": (lambda e: e.lossless(bits=16), {"bits": 16, "signed": True}),
    "jpeg-lossless-sv1 colour": (lambda e: e.lossless(3), {"photometric": "RGB"}),
    "jpeg-lossless-sv1 YBR": (lambda e: e.lossless(3, **NAMELESS), {"photometric": "YBR_FULL"}),
    "jpeg-ls-lossless": (lambda e: e.jpeg_ls(bits=12), {"bits": 12}),
    "jpeg-ls-lossless colour": (lambda e: e.jpeg_ls(3), {"photometric": "RGB"}),
    "jpeg-ls": (lambda e: e.jpeg_ls(near=3), {"near": 3}),
    "jpeg-ls lossless": (lambda e: e.jpeg_ls(), {}),
    "jpegxl-lossless": (lambda e: e.jpegxl(bits=12, lossless=True), {"bits": 12}),
    "jpegxl-lossless colour": (lambda e: e.jpegxl(3, lossless=True), {"photometric": "RGB"}),
    "jpegxl": (lambda e: e.jpegxl(3, level=90), {"quality": 90, "photometric": "RGB"}),
    "jpegxl gray": (lambda e: e.jpegxl(level=90), {"quality": 90}),
    "jpegxl lossless": (lambda e: e.jpegxl(3, lossless=True), {"lossless": True, "photometric": "RGB"}),
    "jpegxl-jpeg": (
        lambda e: imagecodecs.jpegxl_encode_jpeg(e.jpeg(3, level=90, subsampling="422")),
        {"photometric": "YBR_FULL_422"},
    ),
}


@pytest.fixture(scope="module", params=GOOD)
def case(request, encoders):
    make, options = GOOD[request.param]
    return make(encoders), asked(request.param.split()[0], **options)


class TestEveryFamily:
    def test_right(self, case):
        check(case[0], *case[1])

    @pytest.mark.parametrize("field", ["rows", "columns", "samples", "precision"])
    def test_wrong_size(self, case, field):
        encoded, (syntax, wanted) = case
        other = dataclasses.replace(wanted, **{field: getattr(wanted, field) + 1})
        what = {"samples": "components", "precision": "bits per sample"}.get(field, field)
        refused(encoded, (syntax, other), f"{what}: {getattr(wanted, field)}, not {getattr(wanted, field) + 1}")

    def test_padded(self, case):
        check(case[0] + b"\0", *case[1])

    # Nothing marks the end of a bare JPEG XL codestream.
    @pytest.mark.parametrize("case", [name for name in GOOD if not name.startswith("jpegxl")], indirect=True)
    def test_cut_off(self, case):
        encoded, wanted = case
        refused(encoded[:-2], wanted, "cut off")
        refused(encoded + b"\x01\x02", wanted, "cut off")

    def test_something_else(self, case):
        refused(b"\x01\x02" * 100, case[1], "begins with")
        refused(b"", case[1], "begins with")


class TestJpegXl:
    def test_lossy_where_lossless_was_asked_for(self, encoders):
        for samples, photometric in ((1, "MONOCHROME2"), (3, "RGB")):
            encoded = encoders.jpegxl(samples, level=90)
            refused(encoded, asked("jpegxl-lossless", photometric), "XYB: True, not False")
            refused(encoded, asked("jpegxl", photometric, lossless=True), "XYB: True, not False")

    def test_colour_that_is_not_xyb(self, encoders):
        syntax, wanted = asked("jpegxl", "RGB", quality=90)
        assert wanted.photometric == "XYB"
        refused(encoders.jpegxl(3, lossless=True), (syntax, wanted), "XYB: False, not True")
        kept = dataclasses.replace(wanted, photometric="RGB")
        refused(encoders.jpegxl(3, level=90), (syntax, kept), "XYB: True, not False")

    def test_container(self, encoders):
        for name, options in (("jpegxl-lossless", {}), ("jpegxl", {"lossless": True})):
            refused(encoders.jpegxl(lossless=True, usecontainer=True), asked(name, **options), "a container")

    def test_recompression_needs_its_data(self, encoders):
        jpeg = encoders.jpeg(level=90)
        wanted = asked("jpegxl-jpeg")
        recompressed = imagecodecs.jpegxl_encode_jpeg(jpeg)
        check(recompressed, *wanted)
        refused(recompressed.replace(b"jbrd", b"free"), wanted, "reconstruction data: False, not True")
        refused(encoders.jpegxl(lossless=True), wanted, "a container: False, not True")
        refused(recompressed, asked("jpegxl-lossless"), "a container: True, not False")

    def test_orientation(self):
        # small, 8 x 8; extra fields: orientation 6, no size, preview or animation; 8 bits; gray; not XYB
        fields = [
            (1, 1), (0, 5), (1, 3), (0, 1), (1, 1), (5, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (0, 2),
            (0, 1), (0, 1), (0, 1), (1, 2),
        ]  # fmt: skip
        refused(_bits(fields), asked("jpegxl-lossless", rows=8, columns=8), "orientation: 6, not 1")
        fields[5] = (0, 3)
        check(_bits(fields), *asked("jpegxl-lossless", rows=8, columns=8))

    def test_float_samples(self):
        image = np.zeros((ROWS, COLUMNS), "f2")
        encoded = imagecodecs.jpegxl_encode(image, lossless=True, usecontainer=False)
        refused(encoded, asked("jpegxl-lossless", bits=16), "floating point samples: True")


def _bits(fields):
    number = position = 0
    for value, bits in fields:
        number |= value << position
        position += bits
    return b"\xff\x0a" + number.to_bytes(position // 8 + 8, "little")


class TestRle:
    def rle(self, *offsets):
        return struct.pack("<16I", len(offsets), *offsets, *[0] * (15 - len(offsets))) + bytes(40)

    @pytest.mark.parametrize(
        ("options", "segments"),
        [({"bits": 8}, 1), ({"bits": 12}, 2), ({"photometric": "RGB"}, 3), ({"photometric": "RGB", "bits": 16}, 6)],
    )
    def test_segments(self, options, segments):
        offsets = range(64, 64 + 2 * segments, 2)
        check(self.rle(*offsets), *asked("rle", **options))
        refused(
            self.rle(*offsets, offsets[-1] + 2), asked("rle", **options), f"segments: {segments + 1}, not {segments}"
        )

    def test_odd_length(self):
        refused(self.rle(64) + b"\0", asked("rle"), "cut off")

    def test_header(self):
        refused(self.rle(66), asked("rle"), "begins at byte 66")


def test_native_and_deflated_frames_have_nothing_to_check():
    refused(b"", asked("explicit-vr-little-endian"), "empty")
    check(b"\0", *asked("explicit-vr-little-endian"))
    check(b"", *asked("deflated-image-frame"))
