import struct

import imagecodecs
import numpy as np
import pytest

from gpuenc.codestream import parse, unbox
from gpuenc.codestream.jpegxl import begins
from gpuenc.errors import WrongCodestream

SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
SQUARE_8 = [(1, 1), (0, 5), (1, 3)]  # small, 8 rows, ratio 1:1


def pack(*fields):
    """Write (value, bits) fields least significant bit first behind the signature, and some zeros."""
    number = position = 0
    for value, bits in fields:
        assert value < 1 << bits
        number |= value << position
        position += bits
    return b"\xff\x0a" + number.to_bytes(position // 8 + 12, "little")


def box(kind, content):
    return struct.pack(">I", 8 + len(content)) + kind + content


@pytest.mark.parametrize(
    "shape",
    # small and not, each ratio of the standard, sizes at the borders of their fields
    [
        (1, 1), (8, 8), (256, 256), (264, 264), (8, 40), (40, 8), (7, 13), (10, 12), (9, 12), (2, 3), (9, 16), (40, 50),
        (8, 16), (1, 512), (513, 3), (512, 1), (2, 8193), (8192, 2),
    ],
)  # fmt: skip
def test_size(noise, shape):
    info = parse(imagecodecs.jpegxl_encode(noise(*shape), lossless=True, effort=1, usecontainer=False), "jpegxl")
    assert (info.rows, info.columns, info.samples, info.precision) == (*shape, 1, 8)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("samples", [1, 3])
def test_lossless(noise, bits, samples):
    image = noise(20, 30, samples, bits=bits)
    encoded = imagecodecs.jpegxl_encode(image, lossless=True, effort=1, bitspersample=bits, usecontainer=False)
    info = parse(encoded, "jpegxl")
    assert (info.rows, info.columns, info.samples, info.precision) == (20, 30, samples, bits)
    assert (info.xyb, info.lossless, info.orientation, info.float_samples, info.jpeg_data) == (
        False, None, 1, False, False,
    )  # fmt: skip
    # libjxl wants to say level 10, and only a container can.
    assert (info.container, info.ends_properly) == ((True, True) if bits > 12 else (False, None))


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_lossy_is_xyb(noise, samples, bits):
    info = parse(imagecodecs.jpegxl_encode(noise(20, 30, samples, bits=bits), level=90, usecontainer=False), "jpegxl")
    assert (info.samples, info.precision, info.xyb, info.lossless) == (samples, bits, True, False)


@pytest.mark.parametrize("samples", [1, 3])
def test_recompressed_jpeg(noise, samples):
    jpeg = imagecodecs.jpeg8_encode(noise(24, 40, samples), level=90)
    recompressed = imagecodecs.jpegxl_encode_jpeg(jpeg)
    info = parse(recompressed, "jpegxl")
    assert (info.rows, info.columns, info.samples, info.precision) == (24, 40, samples, 8)
    assert (info.container, info.jpeg_data, info.xyb, info.ends_properly) == (True, True, False, True)


def test_float_samples():
    image = np.linspace(0, 1, 600, dtype="f4").reshape(20, 30)
    info = parse(imagecodecs.jpegxl_encode(image, lossless=True, usecontainer=False), "jpegxl")
    assert (info.precision, info.float_samples, info.samples, info.xyb) == (32, True, 1, False)


class TestHeaderFields:
    """Headers that no encoder here writes, put together by hand."""

    def test_all_default(self):
        info = parse(pack(*SQUARE_8, (1, 1)), "jpegxl")
        assert (info.rows, info.columns, info.samples, info.precision) == (8, 8, 3, 8)
        assert (info.xyb, info.orientation, info.container, info.ends_properly) == (True, 1, False, None)

    @pytest.mark.parametrize("orientation", [1, 3, 8])
    def test_orientation_and_intrinsic_size(self, orientation):
        extra = [(0, 1), (1, 1), (orientation - 1, 3), (1, 1), *SQUARE_8, (0, 1), (0, 1)]
        # 10 bits, 16-bit buffers, no extra channels, XYB, colours gray
        rest = [(0, 1), (1, 2), (1, 1), (0, 2), (1, 1), (0, 1), (0, 1), (1, 2)]
        info = parse(pack(*SQUARE_8, *extra, *rest), "jpegxl")
        assert (info.orientation, info.precision, info.samples, info.xyb) == (orientation, 10, 1, True)

    @pytest.mark.parametrize(
        ("depth", "floating", "precision"),
        [
            ([(0, 1), (0, 2)], False, 8), ([(0, 1), (1, 2)], False, 10), ([(0, 1), (2, 2)], False, 12),
            ([(0, 1), (3, 2), (30, 6)], False, 31), ([(1, 1), (0, 2), (7, 4)], True, 32),
            ([(1, 1), (1, 2), (4, 4)], True, 16), ([(1, 1), (2, 2), (7, 4)], True, 24),
            ([(1, 1), (3, 2), (18, 6), (5, 4)], True, 19),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize(
        ("space", "samples"), [([(0, 2)], 3), ([(1, 2)], 1), ([(2, 2), (0, 4)], 3), ([(3, 2), (1, 6)], 3)]
    )
    def test_bit_depth_and_colour_space(self, depth, floating, precision, space, samples):
        """The space is RGB, gray, XYB, or a number that stands for nothing yet."""
        rest = [(1, 1), (0, 2), (0, 1), (0, 1), (1, 1), *space]  # buffers, channels, XYB, all_default, want_icc
        info = parse(pack(*SQUARE_8, (0, 1), (0, 1), *depth, *rest), "jpegxl")
        assert (info.precision, info.float_samples, info.samples) == (precision, floating, samples)

    def test_header_that_fills_its_last_byte(self):
        fields = [
            *SQUARE_8,
            (0, 1),
            (0, 1),
            (0, 1),
            (3, 2),
            (12, 6),
            (1, 1),
            (0, 2),
            (0, 1),
            (0, 1),
            (0, 1),
            (2, 2),
            (0, 4),
        ]
        assert sum(bits for _, bits in fields) == 32
        assert parse(pack(*fields)[:6], "jpegxl").precision == 13
        with pytest.raises(WrongCodestream, match="cut off"):
            parse(pack(*fields)[:5], "jpegxl")
        with pytest.raises(WrongCodestream, match="cut off"):
            parse(pack(*fields[:-2], (3, 2), (0, 6))[:6], "jpegxl")

    @pytest.mark.parametrize(("preview", "animation"), [(1, 0), (0, 1)])
    def test_preview_or_animation(self, preview, animation):
        fields = [*SQUARE_8, (0, 1), (1, 1), (0, 3), (0, 1), (preview, 1), (animation, 1)]
        with pytest.raises(WrongCodestream, match="preview or an animation"):
            parse(pack(*fields), "jpegxl")

    @pytest.mark.parametrize("usecontainer", [False, True])
    def test_animation_of_an_encoder(self, noise, usecontainer):
        frames = np.stack([noise(20, 30), noise(20, 30)[::-1]])
        encoded = imagecodecs.jpegxl_encode(frames, lossless=True, usecontainer=usecontainer)
        assert len(imagecodecs.jpegxl_decode(encoded)) == 2
        with pytest.raises(WrongCodestream, match="preview or an animation"):
            parse(encoded, "jpegxl")

    @pytest.mark.parametrize("selector", [1, 2, 3])
    def test_extra_channels(self, selector):
        fields = [*SQUARE_8, (0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (selector, 2)]
        with pytest.raises(WrongCodestream, match="channels besides"):
            parse(pack(*fields), "jpegxl")

    def test_alpha_of_an_encoder(self, noise):
        with pytest.raises(WrongCodestream, match="channels besides"):
            parse(imagecodecs.jpegxl_encode(noise(20, 30, 4), lossless=True, usecontainer=False), "jpegxl")

    def test_large_sizes(self):
        info = parse(pack((0, 1), (2, 2), (65534, 18), (0, 3), (3, 2), (70000 - 1, 30), (1, 1)), "jpegxl")
        assert (info.rows, info.columns) == (65535, 70000)

    def test_cut_off(self):
        for length in range(1, 6):
            with pytest.raises(WrongCodestream):
                parse(pack((0, 1), (3, 2), (1, 30), (0, 3), (3, 2), (1, 30))[:length], "jpegxl")


class TestContainer:
    @pytest.fixture
    def image(self, noise):
        return noise(20, 30, bits=16)

    @pytest.fixture
    def boxed(self, image):
        return imagecodecs.jpegxl_encode(image, lossless=True, effort=1, usecontainer=True)

    def test_unbox(self, image, boxed):
        bare = unbox(boxed)
        info = parse(bare, "jpegxl")
        assert (info.container, info.precision) == (False, 16)
        assert unbox(bare) is bare
        np.testing.assert_array_equal(imagecodecs.jpegxl_decode(bare), image)
        np.testing.assert_array_equal(imagecodecs.jpegxl_decode(bare + b"\0"), image)

    @pytest.mark.parametrize("sizes", [(2, 3), (1, 1, 5), (200,)])
    def test_parts(self, image, boxed, sizes):
        bare, parts, at = unbox(boxed), [], 0
        for size in sizes:
            parts.append(bare[at : at + size])
            at += size
        parts.append(bare[at:])
        split = SIGNATURE + b"".join(
            box(b"jxlp", struct.pack(">I", number | (len(parts) - 1 == number) << 31) + part)
            for number, part in enumerate(parts)
        )
        np.testing.assert_array_equal(imagecodecs.jpegxl_decode(split), image)
        info = parse(split, "jpegxl")
        assert (info.rows, info.columns, info.precision, info.ends_properly) == (20, 30, 16, True)
        assert unbox(split) == bare

    def test_long_and_open_lengths(self, image, boxed):
        bare = unbox(boxed)
        long = SIGNATURE + b"\0\0\0\x01jxlc" + struct.pack(">Q", 16 + len(bare)) + bare
        open_ended = SIGNATURE + b"\0\0\0\0jxlc" + bare
        for form in (long, open_ended):
            np.testing.assert_array_equal(imagecodecs.jpegxl_decode(form), image)
            assert unbox(form) == bare
            assert parse(form, "jpegxl").ends_properly is True

    @pytest.mark.parametrize("padding", [b"\0", b"\0\0\0"])
    def test_padding(self, boxed, padding):
        info = parse(boxed + padding, "jpegxl")
        assert (info.ends_properly, info.length_bytes) == (True, len(boxed))
        assert unbox(boxed + padding) == unbox(boxed)

    @pytest.mark.parametrize("garbage", [b"\x01", b"\0\0\0\x04free", b"\0\0\x10\0free", b"\0\0\0\x01free"])
    def test_garbage_after_the_boxes(self, boxed, garbage):
        assert parse(boxed + garbage, "jpegxl").ends_properly is False
        with pytest.raises(WrongCodestream, match="cut off"):
            unbox(boxed + garbage)

    def test_a_second_codestream_that_decoders_pass_over(self, image, boxed):
        bare = unbox(boxed)
        second = struct.pack(">I", 8 + len(bare)) + b"jxlc" + bare
        recompressed = imagecodecs.jpegxl_encode_jpeg(imagecodecs.jpeg8_encode(image.astype("u1")), usecontainer=True)
        for several in (boxed + boxed, boxed + second, recompressed + recompressed):
            imagecodecs.jpegxl_decode(several)
            for read in (lambda codestream: parse(codestream, "jpegxl"), unbox):
                with pytest.raises(WrongCodestream, match="a second codestream"):
                    read(several)

    def test_how_a_codestream_begins(self, boxed):
        bare = unbox(boxed)
        assert begins(boxed[:12], 20, 30)
        assert begins(bare[:12], 20, 30)
        assert not begins(bare[:12], 30, 20)
        assert not begins(bare[2:], 20, 30)
        assert not begins(bare[:2], 20, 30)

    def test_cut_off(self, boxed):
        with pytest.raises(WrongCodestream, match="holds no codestream"):
            parse(boxed[:-1], "jpegxl")

    def test_no_codestream(self):
        with pytest.raises(WrongCodestream, match="holds no codestream"):
            unbox(SIGNATURE)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87"])
def test_not_jpeg_xl(data):
    with pytest.raises(WrongCodestream, match="begins with ff0a"):
        parse(data, "jpegxl")
