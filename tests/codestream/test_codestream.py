import tracemalloc
from functools import cache
from typing import get_args

import imagecodecs
import jpeg_ls
import libjpeg
import numpy as np
import openjpeg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuenc import codestream, coding, syntaxes, targets
from gpuenc.codestream import pad_even, parse
from gpuenc.errors import WrongCodestream
from gpuenc.frames import FrameFormat

FAMILIES = get_args(syntaxes.Family)


def odd(encode, image):
    """Encode ever less of an image until the codestream has an odd length."""
    for rows in range(len(image), 0, -1):
        encoded = encode(np.ascontiguousarray(image[:rows]))
        if len(encoded) % 2:
            return encoded, image[:rows]
    raise AssertionError("no odd codestream")


ENCODERS = {
    "jpeg": lambda image: imagecodecs.jpeg8_encode(image, level=90),
    "jpeg-lossless": lambda image: imagecodecs.jpeg8_encode(image, lossless=True, predictor=1),
    "jpeg-ls": lambda image: imagecodecs.jpegls_encode(image),
    "jpeg2000": lambda image: imagecodecs.jpeg2k_encode(image, codecformat="J2K", reversible=True),
    "htj2k": lambda image: imagecodecs.htj2k_encode(image, reversible=True),
    "jpegxl": lambda image: imagecodecs.jpegxl_encode(image, lossless=True, effort=1, usecontainer=True),
}


class TestPadEven:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_leaves_even_lengths(self, family):
        even = b"\x01\x02" * 10
        assert pad_even(even, family) is even

    @pytest.mark.parametrize("family", [family for family in FAMILIES if family != "jpeg-ls"])
    def test_adds_one_zero(self, family):
        assert pad_even(b"\x01\x02\x03", family) == b"\x01\x02\x03\0"

    def test_jpeg_ls_gets_a_fill_byte_that_decoders_skip(self, noise):
        encoded, image = odd(ENCODERS["jpeg-ls"], noise(30, 17))
        padded = pad_even(encoded, "jpeg-ls")
        assert padded == encoded[:-2] + b"\xff\xff\xd9"
        assert parse(padded, "jpeg-ls").ends_properly
        np.testing.assert_array_equal(imagecodecs.jpegls_decode(padded), image)
        np.testing.assert_array_equal(jpeg_ls.decode(np.frombuffer(padded, "u1")), image)
        np.testing.assert_array_equal(libjpeg.decode(padded), image)

    def test_jpeg_ls_that_is_cut_off(self):
        with pytest.raises(WrongCodestream, match="EOI"):
            pad_even(b"\xff\xd8\x00", "jpeg-ls")

    @pytest.mark.parametrize("family", ["jpeg2000", "htj2k"])
    def test_decoders_read_padded_jpeg_2000(self, noise, family):
        encoded, image = odd(ENCODERS[family], noise(40, 17))
        np.testing.assert_array_equal(openjpeg.decode(pad_even(encoded, family)), image)


class TestLength:
    @pytest.mark.parametrize("family", ENCODERS)
    @pytest.mark.parametrize("padding", [b"", b"\0", bytes(15), bytes(16), bytes(1000)])
    def test_without_padding(self, noise, family, padding):
        encoded = ENCODERS[family](noise(20, 30))
        if family == "jpegxl":
            padding = padding[:7]  # what is longer could begin with another box
        assert parse(encoded + padding, family).length_bytes == len(encoded)

    @pytest.mark.parametrize("family", ENCODERS)
    def test_undoes_pad_even(self, noise, family):
        encoded, _ = odd(ENCODERS[family], noise(60, 17))
        padded = pad_even(encoded, family)
        # A fill byte is part of the codestream, a byte after its end is not.
        assert parse(padded, family).length_bytes == (len(padded) if family == "jpeg-ls" else len(encoded))


@pytest.mark.parametrize("family", ["native", "deflate"])
def test_families_without_markers(family):
    with pytest.raises(WrongCodestream, match=family):
        parse(b"\xff\xd8\xff\xd9", family)


# --- bytes that nobody should send ------------------------------------------------------------------------------


@cache
def good():
    """Codestreams to spoil, of every family, with all that the parsers follow: tiles, tile-parts, scans, boxes."""
    random = np.random.default_rng(5)
    gray, colour = random.integers(0, 256, (20, 24), "u1"), random.integers(0, 256, (20, 24, 3), "u1")
    planes = np.ascontiguousarray(colour.transpose(2, 0, 1))
    rle = np.array([2, 64, 70] + [0] * 13, "<u4").tobytes() + bytes(12)
    return [
        *((family, bytes(encode(gray))) for family, encode in ENCODERS.items()),
        ("htj2k", bytes(imagecodecs.htj2k_encode(colour, reversible=True, tlm=True, tile=(16, 16), tilepart=3))),
        ("jpeg-ls", bytes(jpeg_ls.encode_array(planes, interleave_mode=0))),
        ("jpeg", bytes(imagecodecs.jpeg8_encode(colour, lossless=True, predictor=1))),
        ("jpegxl", bytes(imagecodecs.jpegxl_encode(colour, lossless=True, effort=1, usecontainer=False))),
        ("jpegxl", bytes(imagecodecs.jpegxl_encode_jpeg(imagecodecs.jpeg8_encode(colour, level=90)))),
        ("rle", rle),
    ]


@st.composite
def spoiled(draw):
    """Return a family and a codestream with some bytes of its first few hundred or of all changed, cut or doubled."""
    family, data = draw(st.sampled_from(good()))
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, min(300, len(data)) - 1), st.integers(0, len(data) - 1)))
        value = draw(st.one_of(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xD9, 0xDA, 0xFE, 0xFF]), st.integers(0, 255)))
        kind = draw(st.sampled_from(["change", "change", "change", "remove", "insert", "cut"]))
        if kind == "change":
            data[at] = value
        elif kind == "insert":
            data.insert(at, value)
        elif kind == "remove" and len(data) > 1:
            del data[at]
        elif at:
            del data[at:]
    return family, bytes(data)


def all_functions(family, data):
    """Call everything that takes bytes: each reads them, or refuses them in one line."""
    asked = coding.coding(targets.target(syntaxes.find("rle")), FrameFormat(20, 24, 1, 8, 8, False, "MONOCHROME2"))
    rows = [syntax for syntax in syntaxes.TABLE if syntax.family == family]
    calls = [
        lambda: parse(data, family),
        lambda: codestream.insert_tlm(data),
        lambda: codestream.unbox(data),
        lambda: codestream.even_segments(data),
        lambda: codestream.jpeg2000.unboxed(data),
        lambda: pad_even(data, family),
        *(lambda syntax=syntax: codestream.check(data, syntax, asked) for syntax in rows),
    ]
    refusals = []
    for call in calls:
        try:
            call()
        except WrongCodestream as problem:
            refusals.append(problem)
    assert all(str(problem) and "\n" not in str(problem) for problem in refusals)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FAMILIES), st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(family, data):
    all_functions(family, data)


@settings(max_examples=1500, deadline=None)
@given(spoiled())
def test_spoiled_codestreams_are_refused_or_read(spoilt):
    all_functions(*spoilt)


def test_every_byte_of_every_header_at_its_extremes():
    for family, data in good():
        for at in range(min(len(data), 220)):
            for value in (0, 1, 0xFF):
                all_functions(family, data[:at] + bytes((value,)) + data[at + 1 :])


@pytest.mark.parametrize(
    ("family", "data"),
    [
        ("htj2k", b"\xff\x4f\xff\x51\0\x29\x40\0" + b"\xff" * 8 + bytes(8) + b"\0\0\0\1" * 2 + bytes(8) + b"\0\1\7\1\1"
         + b"\xff\x52\0\x0c\0\0\0\1\0\1\4\4\x40\1\xff\x5c\0\4\x20\x40\xff\x90\0\x0a\0\0\0\0\0\0\0\1\xff\x93\xff\xd9"),
        ("jpeg-ls", b"\xff\xd8\xff\xf7\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\xff\xda\0\x08\1\1\0\0\0\0\xff\xd9"),
        ("jpegxl", b"\xff\x0a" + b"\xff" * 30),
        ("jpegxl", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\1jxlc\x7f" + b"\xff" * 7 + b"\xff\x0a"),
        ("rle", np.full(20, 0xFFFFFFFF, "<u4").tobytes()),
    ],
)  # fmt: skip
def test_headers_that_promise_the_world_cost_no_memory(family, data):
    all_functions(family, data)  # what is built once is not counted
    tracemalloc.start()
    try:
        all_functions(family, data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


@pytest.mark.parametrize(
    ("family", "start", "filler"),
    [
        ("jpeg", b"\xff\xd8", b"\xff"),
        ("jpeg", b"\xff\xd8", b"\0"),
        ("jpeg", b"\xff\xd8", b"\xff\xfe\0\2"),
        ("jpeg2000", b"\xff\x4f\xff\x51", b"\xff\x64\0\2"),
        ("jpegxl", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x08free"),
    ],
)
def test_a_megabyte_of_one_thing(family, start, filler):
    """Nothing is looked at twice: a quadratic walk would not come back."""
    with pytest.raises(WrongCodestream):
        parse(start + filler * (1_000_000 // len(filler)), family)
