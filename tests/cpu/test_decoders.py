"""Decoding of sources: what is refused, what is left as it is, and what contradicting attributes mean."""

import tracemalloc
import zlib
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from gpuenc.coding import coding
from gpuenc.cpu import codecs, decoders, samples
from gpuenc.errors import DecodeFailed
from gpuenc.frames import Coded, Encoded, Frame, FrameFormat, FrameRef
from gpuenc.syntaxes import TABLE, find
from gpuenc.targets import target

REF = FrameRef("test", 0)
DECODED = [syntax for syntax in TABLE if syntax.encapsulated]


def smooth(rows, columns, bits, count=1, seed=0):
    """A picture with edges and a little noise, uint16, over the full range of `bits`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    planes = [0.5 + 0.3 * np.sin((x + 7 * k) / 9) + 0.2 * np.cos(y / (5 + k)) for k in range(count)]
    values = np.stack(planes, -1) if count > 1 else planes[0]
    values = np.where(((x // 8 + y // 8) % 5 == 0)[..., None] if count > 1 else (x // 8 + y // 8) % 5 == 0, 1.0, values)
    noisy = values * (2**bits - 1) + rng.normal(0, 2 ** (bits - 7), values.shape)
    return noisy.round().clip(0, 2**bits - 1).astype(np.uint16)


def format_for(syntax):
    """A format that the syntax allows, with samples of it."""
    if syntax.family == "jpeg" or syntax.recompresses_jpeg:
        fmt = FrameFormat(40, 36, 1, 8, 8, False, "MONOCHROME2")
    else:
        fmt = FrameFormat(40, 36, 1, 16, 12, False, "MONOCHROME2")
    return fmt, smooth(40, 36, fmt.bits_stored)


def encoded(syntax, fmt, pixels, **options):
    if syntax.recompresses_jpeg:
        jpeg = encoded(find("jpeg-baseline"), fmt, pixels)
        frame = Frame(REF, fmt, Coded(find("jpeg-baseline").uid, jpeg))
    else:
        frame = Frame(REF, fmt, samples.to_cells(pixels, fmt))
    if syntax.loss == "option" and not options:
        options["lossless"] = True
    [result] = codecs.BatchEncoder(target(syntax, **options)).encode([frame])
    assert isinstance(result, Encoded), result
    return result.codestream


def decode(uid, codestream, fmt):
    return decoders.decode(
        uid,
        codestream,
        rows=fmt.rows,
        columns=fmt.columns,
        samples=fmt.samples,
        bits_allocated=fmt.bits_allocated,
        bits_stored=fmt.bits_stored,
        signed=fmt.signed,
        photometric=fmt.photometric,
    )


@pytest.fixture(params=DECODED, ids=lambda syntax: syntax.name)
def case(request):
    syntax = request.param
    fmt, pixels = format_for(syntax)
    return syntax, fmt, encoded(syntax, fmt, pixels)


class TestRefused:
    def test_cut_off_anywhere(self, case):
        syntax, fmt, codestream = case
        size = len(codestream.rstrip(b"\0"))
        for length in {0, 1, 2, 3, 10, 63, 64, 65, size // 4, size // 2, size - size // 5, size - 2, size - 1}:
            with pytest.raises(DecodeFailed) as caught:
                decode(syntax.uid, codestream[:length], fmt)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("wrong", [{"rows": 41}, {"columns": 35}, {"rows": 36, "columns": 40}, {"samples": 3}])
    def test_another_size(self, case, wrong):
        syntax, fmt, codestream = case
        values = {name: getattr(fmt, name) for name in ("rows", "columns", "samples")} | wrong
        if syntax.family in ("rle", "deflate") and values["rows"] == 36:
            return  # they hold bytes, not rows and columns
        other = FrameFormat(
            values["rows"],
            values["columns"],
            values["samples"],
            fmt.bits_allocated,
            fmt.bits_stored,
            False,
            "RGB" if values["samples"] == 3 else "MONOCHROME2",
        )
        with pytest.raises(DecodeFailed):
            decode(syntax.uid, codestream, other)

    @pytest.mark.parametrize(
        "syntax",
        [syntax for syntax in DECODED if format_for(syntax)[0].bits_stored > 8],
        ids=lambda syntax: syntax.name,
    )
    def test_more_bits_than_allocated(self, syntax):
        fmt, pixels = format_for(syntax)
        with pytest.raises(DecodeFailed):
            decode(syntax.uid, encoded(syntax, fmt, pixels), FrameFormat(40, 36, 1, 8, 8, False, "MONOCHROME2"))

    def test_garbage(self, case):
        syntax, fmt, codestream = case
        for junk in (b"\0" * 500, b"\xff" * 500, np.random.default_rng(0).bytes(500), codestream[::-1]):
            with pytest.raises(DecodeFailed):
                decode(syntax.uid, junk, fmt)

    def test_another_family(self):
        fmt, pixels = format_for(find("htj2k-lossless"))
        with pytest.raises(DecodeFailed):
            decode(find("jpeg-ls-lossless").uid, encoded(find("htj2k-lossless"), fmt, pixels), fmt)

    @pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.100", "1.2.3"])
    def test_other_syntaxes(self, uid):
        with pytest.raises(DecodeFailed, match=uid):
            decode(uid, b"\0" * 100, FrameFormat(5, 5, 1, 8, 8, False, "MONOCHROME2"))

    def test_a_header_that_lies_costs_no_memory(self):
        # 65535 x 65535 pixels in 200 bytes: the size is read, and refused, before anything is allocated.
        fmt, pixels = format_for(find("jpeg2000-lossless"))
        codestream = bytearray(encoded(find("jpeg2000-lossless"), fmt, pixels))
        codestream[8:16] = codestream[24:32] = b"\0\0\xff\xff\0\0\xff\xff"
        with pytest.raises(DecodeFailed, match="65535 rows"):
            decode(find("jpeg2000-lossless").uid, bytes(codestream), fmt)

    def test_deflate_of_more_than_the_image(self):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = packer.compress(bytes(50_000_000)) + packer.flush()
        fmt = FrameFormat(10, 10, 1, 8, 8, False, "MONOCHROME2")
        tracemalloc.start()
        try:
            with pytest.raises(DecodeFailed, match="100 bytes"):
                decode(find("deflated-image-frame").uid, bomb, fmt)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


JPEGS = {
    "jpeg-lossless-sv1": (12, 1, {"lossless": True, "predictor": 1}),
    "jpeg-lossless": (8, 3, {"lossless": True, "predictor": 4, "colorspace": "RGB", "outcolorspace": "RGB"}),
    "jpeg-baseline": (8, 3, {"level": 90, "colorspace": "YCBCR", "outcolorspace": "YCBCR", "subsampling": "422"}),
    "jpeg-extended": (12, 1, {"level": 90}),
}


class TestJpegWithTooFewData:
    """libjpeg makes up what is missing: a JPEG that was cut off and given an EOI must not pass for whole."""

    @pytest.fixture(params=JPEGS)
    def jpeg(self, request):
        bits, count, options = JPEGS[request.param]
        image = smooth(64, 80, bits, count).astype(np.uint8 if bits == 8 else np.uint16)
        photometric = "MONOCHROME2" if count == 1 else options["outcolorspace"].replace("YCBCR", "YBR_FULL_422")
        codestream = bytes(imagecodecs.jpeg8_encode(image, bitspersample=bits, **options))
        fmt = FrameFormat(64, 80, count, image.itemsize * 8, bits, False, photometric)
        return find(request.param).uid, codestream, fmt

    def test_cut_off_anywhere_but_with_eoi(self, jpeg):
        uid, codestream, fmt = jpeg
        size, header = len(codestream), codestream.index(b"\xff\xda") + 20
        cuts = {size * part // 100 for part in (30, 60, 90)} | set(range(size - 40, size - 2))
        cuts |= {at + 1 for at in range(header, size - 2) if codestream[at] == 0xFF}  # FF and its 00 torn apart
        for length in cuts:
            with pytest.raises(DecodeFailed, match="end before its last sample"):
                decode(uid, codestream[:length] + b"\xff\xd9", fmt)

    def test_whole(self, jpeg):
        uid, codestream, fmt = jpeg
        expected = decode(uid, codestream, fmt)
        for padded in (codestream + b"\0", codestream[:-2] + b"\xff\xff\xd9"):
            np.testing.assert_array_equal(decode(uid, padded, fmt), expected)

    def test_frames_of_a_source_too(self, jpeg):
        uid, codestream, fmt = jpeg
        cut = codestream[: len(codestream) * 6 // 10] + b"\xff\xd9"
        with pytest.raises(DecodeFailed, match="end before its last sample"):
            decoders.decode_frame(Frame(REF, fmt, Coded(uid, cut)))


class TestPadding:
    @pytest.mark.parametrize("padding", [b"\0", b"\0\0", b"\0" * 5])
    def test_is_ignored(self, case, padding):
        syntax, fmt, codestream = case
        np.testing.assert_array_equal(
            decode(syntax.uid, codestream + padding, fmt), decode(syntax.uid, codestream, fmt)
        )

    def test_fill_bytes_before_eoi(self):
        syntax = find("jpeg-ls-lossless")
        fmt, pixels = format_for(syntax)
        codestream = encoded(syntax, fmt, pixels)
        np.testing.assert_array_equal(decode(syntax.uid, codestream[:-2] + b"\xff\xff\xd9", fmt), pixels)


class TestSigns:
    """Codestream and attributes contradict each other, or the codec knows no sign: bits are read with the image's."""

    PIXELS = np.array([[-2048, -1, 0], [1, 2047, -1000]], np.int16)
    SIGNED = FrameFormat(2, 3, 1, 16, 12, True, "MONOCHROME2")
    UNSIGNED = FrameFormat(2, 3, 1, 16, 12, False, "MONOCHROME2")

    @pytest.mark.parametrize(
        ("name", "codestream"),
        [
            ("jpeg-ls-lossless", imagecodecs.jpegls_encode(PIXELS.view(np.uint16) & 0xFFF, bitspersample=12)),
            ("jpeg-ls-lossless", imagecodecs.jpegls_encode(PIXELS.view(np.uint16), bitspersample=16)),
            (
                "jpeg-lossless",
                imagecodecs.jpeg8_encode(PIXELS.view(np.uint16) & 0xFFF, lossless=True, bitspersample=12),
            ),
            ("jpeg-lossless", imagecodecs.jpeg8_encode(PIXELS.view(np.uint16), lossless=True, bitspersample=16)),
            (
                "jpeg2000-lossless",
                imagecodecs.jpeg2k_encode(
                    PIXELS.view(np.uint16) & 0xFFF, codecformat="J2K", reversible=True, bitspersample=12
                ),
            ),
            (
                "htj2k-lossless",
                imagecodecs.htj2k_encode(PIXELS.view(np.uint16) & 0xFFF, reversible=True, bitspersample=12),
            ),
        ],
    )
    def test_an_unsigned_codestream_of_a_signed_image(self, name, codestream):
        decoded = decode(find(name).uid, bytes(codestream), self.SIGNED)
        assert decoded.dtype == np.int16
        np.testing.assert_array_equal(decoded, self.PIXELS)

    @pytest.mark.parametrize("name", ["jpeg2000-lossless", "htj2k-lossless"])
    def test_a_signed_codestream_of_an_unsigned_image(self, name):
        codestream = encoded(find(name), self.SIGNED, self.PIXELS)
        decoded = decode(find(name).uid, codestream, self.UNSIGNED)
        assert decoded.dtype == np.uint16
        np.testing.assert_array_equal(decoded, self.PIXELS.view(np.uint16) & 0xFFF)

    def test_wider_cells_than_the_codestream_needs(self):
        pixels = self.PIXELS.clip(-100, 100).astype(np.int8)
        codestream = imagecodecs.jpeg2k_encode(pixels, codecformat="J2K", reversible=True)
        decoded = decode(find("jpeg2000-lossless").uid, bytes(codestream), self.SIGNED)
        assert decoded.dtype == np.int16
        np.testing.assert_array_equal(decoded, pixels)


class TestColour:
    def jpeg(self, **options):
        return bytes(imagecodecs.jpeg8_encode(smooth(48, 64, 8, 3).astype(np.uint8), 95, **options))

    @pytest.mark.parametrize("subsampling", ["444", "422", "420"])
    def test_ycbcr_stays(self, subsampling):
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[:] = (90, 30, 200)  # converted as YCbCr this would be another colour altogether
        codestream = imagecodecs.jpeg8_encode(
            pixels, 95, colorspace="YCBCR", outcolorspace="YCBCR", subsampling=subsampling
        )
        fmt = FrameFormat(48, 64, 3, 8, 8, False, "YBR_FULL_422")
        decoded = decode(find("jpeg-baseline").uid, bytes(codestream), fmt)
        assert np.abs(decoded.astype(int) - pixels).max() <= 2

    def test_adobe_rgb_stays(self):
        pixels = smooth(48, 64, 8, 3).astype(np.uint8)
        codestream = self.jpeg(colorspace="RGB", outcolorspace="RGB")
        assert b"Adobe" in codestream
        decoded = decode(find("jpeg-baseline").uid, codestream, FrameFormat(48, 64, 3, 8, 8, False, "RGB"))
        assert np.abs(decoded.astype(int) - pixels).mean() < 2

    @pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
    @pytest.mark.parametrize("name", ["jpeg-baseline", "jpeg-extended"])
    def test_markers_that_say_rgb_of_ycbcr_samples(self, name, photometric):
        rgb = self.jpeg(colorspace="RGB", outcolorspace="RGB")
        at = rgb.index(b"\xff\xee")
        fmt = FrameFormat(48, 64, 3, 8, 8, False, photometric)
        for codestream in (rgb, rgb[:at] + rgb[at + 16 :]):  # Adobe's transform 0, and only the identifiers R, G, B
            with pytest.raises(DecodeFailed, match=f"say RGB, and .* says {photometric}"):
                decode(find(name).uid, codestream, fmt)

    def test_markers_that_say_ycbcr_or_nothing_of_ycbcr_samples(self):
        rgb = self.jpeg(colorspace="RGB", outcolorspace="RGB")
        adobe = b"Adobe\0\x64\0\0\0\0"
        jfif = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
        fmt = FrameFormat(48, 64, 3, 8, 8, False, "YBR_FULL")
        for codestream in (
            rgb.replace(adobe + b"\0", adobe + b"\1"),
            rgb[:2] + jfif + rgb[2:],  # JFIF counts more than what follows it
            self.jpeg(subsampling="444"),
            self.jpeg(colorspace="UNKNOWN", outcolorspace="UNKNOWN"),
        ):
            assert decode(find("jpeg-baseline").uid, codestream, fmt).shape == (48, 64, 3)

    def test_lossless_jpeg_stays_whatever_its_markers_say(self):
        pixels = smooth(48, 64, 8, 3).astype(np.uint8)
        codestream = bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, colorspace="RGB", outcolorspace="RGB"))
        assert b"Adobe" in codestream
        for photometric in ("RGB", "YBR_FULL"):
            fmt = FrameFormat(48, 64, 3, 8, 8, False, photometric)
            np.testing.assert_array_equal(decode(find("jpeg-lossless-sv1").uid, codestream, fmt), pixels)

    @pytest.mark.parametrize("transform", [0, 1, 2, 3])
    def test_hp_transforms_belong_to_the_codec(self, transform):
        pixels = smooth(20, 30, 8, 3).astype(np.uint8)
        codestream = bytes(imagecodecs.jpegls_encode(pixels, transformation=transform, spiff=False))
        fmt = FrameFormat(20, 30, 3, 8, 8, False, "RGB")
        np.testing.assert_array_equal(decode(find("jpeg-ls-lossless").uid, codestream, fmt), pixels)

    def test_lossy_htj2k_is_clipped_and_does_not_wrap(self):
        # Black and white edges: the wavelet overshoots both ends of the range.
        pixels = (smooth(64, 64, 8) > 128).astype(np.uint8) * 255
        for count in (1, 3):
            image = pixels if count == 1 else np.stack([pixels, 255 - pixels, pixels], -1)
            codestream = bytes(imagecodecs.htj2k_encode(image, 0.02, reversible=False, rgb=count == 3))
            fmt = FrameFormat(64, 64, count, 8, 8, False, "MONOCHROME2" if count == 1 else "YBR_ICT")
            decoded = decode(find("htj2k").uid, codestream, fmt)
            assert np.abs(decoded.astype(int) - image).max() < 64

    def test_htj2k_components_without_transform_are_interleaved(self):
        pixels = smooth(20, 30, 8, 3).astype(np.uint8)
        codestream = bytes(imagecodecs.htj2k_encode(pixels, reversible=True, rgb=False))
        fmt = FrameFormat(20, 30, 3, 8, 8, False, "RGB")
        np.testing.assert_array_equal(decode(find("htj2k-lossless").uid, codestream, fmt), pixels)


class TestDecodedFormat:
    SOURCE = FrameFormat(4, 6, 3, 16, 12, False, "RGB", planar=1, high_bit=15, big_endian=True, overlay_bits=1)

    def test_cells_are_interleaved_and_little_endian(self):
        fmt = decoders.decoded_format(find("jpeg2000").uid, self.SOURCE)
        assert (fmt.planar, fmt.big_endian, fmt.high_bit, fmt.overlay_bits) == (0, False, 11, 0)

    def test_rle_holds_whole_cells(self):
        fmt = decoders.decoded_format(find("rle").uid, self.SOURCE)
        assert (fmt.planar, fmt.big_endian, fmt.high_bit, fmt.overlay_bits) == (0, False, 15, 1)

    def test_a_deflated_frame_is_the_native_frame(self):
        fmt = decoders.decoded_format(find("deflated-image-frame").uid, self.SOURCE)
        assert (fmt.planar, fmt.big_endian, fmt.high_bit, fmt.overlay_bits) == (1, False, 15, 1)

    @pytest.mark.parametrize(
        ("coded", "native"),
        [
            ("YBR_RCT", "RGB"),
            ("YBR_ICT", "RGB"),
            ("XYB", "RGB"),
            ("YBR_FULL_422", "YBR_FULL"),
            ("RGB", "RGB"),
            ("YBR_FULL", "YBR_FULL"),
            ("MONOCHROME1", "MONOCHROME1"),
            ("PALETTE COLOR", "PALETTE COLOR"),
        ],
    )
    def test_photometric(self, coded, native):
        fmt = FrameFormat(4, 6, 3, 8, 8, False, coded)
        assert decoders.decoded_format(find("jpeg2000").uid, fmt).photometric == native


class TestDecodeFrame:
    @pytest.mark.parametrize("name", ["rle", "jpeg-lossless", "jpeg-ls-lossless", "deflated-image-frame"])
    def test_keeps_samples_where_high_bit_says(self, name):
        """Whole cells were encoded, samples of 12 bits in bits 4 to 15 of them, with an overlay in bit 0."""
        cells = (smooth(8, 6, 12) << 4 | np.arange(6, dtype=np.uint16) % 2).astype("<u2")
        whole = FrameFormat(8, 6, 1, 16, 16, False, "MONOCHROME2")
        fmt = FrameFormat(8, 6, 1, 16, 12, False, "MONOCHROME2", high_bit=15, overlay_bits=1)
        frame = decoders.decode_frame(Frame(REF, fmt, Coded(find(name).uid, encoded(find(name), whole, cells))))
        assert (frame.format.high_bit, frame.format.overlay_bits) == (15, 1)
        assert frame.pixels.tobytes() == cells.tobytes()

    def test_moves_samples_that_the_codec_was_given_alone(self):
        pixels = smooth(8, 6, 12)
        fmt = FrameFormat(8, 6, 1, 16, 12, False, "MONOCHROME2", high_bit=15)
        plain = FrameFormat(8, 6, 1, 16, 12, False, "MONOCHROME2")
        syntax = find("jpeg2000-lossless")
        frame = decoders.decode_frame(Frame(REF, fmt, Coded(syntax.uid, encoded(syntax, plain, pixels))))
        assert frame.format == plain
        assert frame.pixels.tobytes() == pixels.astype("<u2").tobytes()

    @pytest.mark.parametrize(
        "fmt",
        [
            FrameFormat(5, 7, 1, 1, 1, False, "MONOCHROME2"),
            FrameFormat(4, 6, 3, 8, 8, False, "YBR_FULL_422"),
            FrameFormat(4, 6, 3, 16, 10, False, "RGB", planar=1),
            FrameFormat(3, 5, 1, 32, 20, True, "MONOCHROME2"),
        ],
        ids=lambda fmt: fmt.photometric,
    )
    def test_a_deflated_frame_comes_back_byte_for_byte(self, fmt):
        cells = np.random.default_rng(1).integers(0, 256, fmt.frame_bytes, np.uint8)
        if fmt.bits_allocated == 1:
            cells[-1] &= 7  # 35 bits: the rest is padding
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        codestream = packer.compress(cells.tobytes()) + packer.flush()
        frame = decoders.decode_frame(Frame(REF, fmt, Coded(find("deflated-image-frame").uid, codestream)))
        assert frame.format == fmt
        assert frame.pixels.tobytes() == cells.tobytes()


class TestForeignFiles:
    """Codestreams of other encoders, against pydicom's decoders for the same frames."""

    @pytest.mark.parametrize(
        "name",
        [
            "SC_rgb_rle.dcm",
            "SC_rgb_rle_16bit.dcm",
            "emri_small_RLE.dcm",
            "emri_small_jpeg_ls_lossless.dcm",
            "emri_small_jpeg_2k_lossless.dcm",
            "JPEG-LL.dcm",
            "JPGLosslessP14SV1_1s_1f_8b.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
            "MR_small_jp2klossless.dcm",
            "693_J2KI.dcm",
            "JPEG2000.dcm",
            "SC_rgb_jpeg_dcmtk.dcm",
            "JPGExtended.dcm",
        ],
    )
    def test_equals_pydicom(self, name):
        ds = dcmread(get_testdata_file(name))
        uid = ds.file_meta.TransferSyntaxUID
        fmt = FrameFormat(
            ds.Rows,
            ds.Columns,
            ds.SamplesPerPixel,
            ds.BitsAllocated,
            ds.BitsStored,
            bool(ds.PixelRepresentation),
            ds.PhotometricInterpretation,
        )
        frames = int(ds.get("NumberOfFrames", 1))
        decoded = decode(str(uid), get_frame(ds.PixelData, 0, number_of_frames=frames), fmt)
        ds.pixel_array_options(index=0, raw=True)
        expected = ds.pixel_array
        if uid in ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"):
            assert np.abs(decoded.astype(int) - expected).max() <= 1  # inverse DCTs round differently
        else:
            assert decoded.dtype.kind == ("i" if fmt.signed else "u")
            np.testing.assert_array_equal(decoded, expected)


def test_decode_samples_of_raw_cells_checks_their_size():
    fmt = FrameFormat(4, 6, 3, 8, 8, False, "YBR_FULL_422")
    for name in ("native", "deflated-image-frame"):
        wanted = coding(target(find(name)), fmt)
        cells = np.arange(48, dtype=np.uint8)
        [result] = codecs.BatchEncoder(target(find(name))).encode([Frame(REF, fmt, cells)])
        np.testing.assert_array_equal(decoders.decode_samples(result.codestream, find(name), wanted), cells)
        with pytest.raises(DecodeFailed):
            decoders.decode_samples(result.codestream[:-1], find(name), wanted)


class TestOddSources:
    ARR = np.random.default_rng(4).integers(0, 4096, (40, 50)).astype(np.uint16)

    def _decode(self, uid, codestream, photometric="MONOCHROME2", samples=1, bits=(16, 12)):
        return decoders.decode(
            uid,
            codestream,
            rows=40,
            columns=50,
            samples=samples,
            bits_allocated=bits[0],
            bits_stored=bits[1],
            signed=False,
            photometric=photometric,
        )

    def test_jp2_boxes_around_a_codestream(self):
        boxed = imagecodecs.jpeg2k_encode(self.ARR, codecformat="JP2", reversible=True, bitspersample=12)
        assert boxed[4:8] == b"jP  "
        assert np.array_equal(self._decode("1.2.840.10008.1.2.4.90", boxed), self.ARR)

    @pytest.mark.parametrize("cut", [13, 40, 80])
    def test_jp2_boxes_without_a_codestream(self, cut):
        boxed = imagecodecs.jpeg2k_encode(self.ARR, codecformat="JP2", reversible=True, bitspersample=12)
        with pytest.raises(DecodeFailed):
            self._decode("1.2.840.10008.1.2.4.90", boxed[:cut])

    def test_a_jpeg_whose_markers_contradict_the_attribute(self):
        rgb = np.random.default_rng(5).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        ycc = imagecodecs.jpeg8_encode(rgb, 90, colorspace="RGB", outcolorspace="YCBCR")
        with pytest.raises(DecodeFailed, match=r"markers say YCbCr, and Photometric Interpretation says RGB"):
            self._decode("1.2.840.10008.1.2.4.50", ycc, "RGB", 3, (8, 8))
        assert self._decode("1.2.840.10008.1.2.4.50", ycc, "YBR_FULL_422", 3, (8, 8)).shape == (40, 50, 3)


DAMAGED = {
    ".4.50": (FrameFormat(40, 36, 1, 8, 8, False, "MONOCHROME2"), {}),
    ".4.70": (FrameFormat(40, 36, 1, 16, 16, False, "MONOCHROME2"), {"lossless": True, "predictor": 1}),
}


@pytest.mark.parametrize("syntax", DAMAGED)
class TestDamagedJpegData:
    """libjpeg makes samples up and goes on; found by tests.fuzz."""

    def jpeg(self, syntax):
        fmt, options = DAMAGED[syntax]
        pixels = smooth(40, 36, fmt.bits_stored).astype(f"u{fmt.bits_allocated // 8}")
        return "1.2.840.10008.1.2" + syntax, fmt, bytes(imagecodecs.jpeg8_encode(pixels, **options))

    def scan(self, codestream):
        at = codestream.index(b"\xff\xda")
        return at + 2 + int.from_bytes(codestream[at + 2 : at + 4])

    @pytest.mark.parametrize("marker", [b"\xff\xd0", b"\xff\xdc"])
    def test_a_marker_among_the_data(self, syntax, marker):
        uid, fmt, codestream = self.jpeg(syntax)
        at = (self.scan(codestream) + len(codestream)) // 2
        at += codestream[at - 1] == 0xFF
        with pytest.raises(DecodeFailed, match="marker"):
            decode(uid, codestream[:at] + marker + codestream[at:], fmt)

    def test_data_twice(self, syntax):
        """Where a decoder is led astray, it seldom ends exactly where the data do."""
        uid, fmt, codestream = self.jpeg(syntax)
        start, refused = self.scan(codestream), 0
        places = range(start + 40, len(codestream) - 40, (len(codestream) - start - 80) // 10)
        for at in places:
            damaged = codestream[:at] + codestream[at : at + 8] * 2 + codestream[at + 8 :]
            try:
                decode(uid, damaged, fmt)
            except DecodeFailed:
                refused += 1
        assert refused > len(places) / 2

    @pytest.mark.parametrize("more", [4, 5, 40])
    def test_data_behind_the_last_sample(self, syntax, more):
        uid, fmt, codestream = self.jpeg(syntax)
        with pytest.raises(DecodeFailed, match="go on behind"):
            decode(uid, codestream[:-2] + b"\x55" * more + codestream[-2:], fmt)

    def test_few_bytes_too_many_are_put_up_with(self, syntax):
        uid, fmt, codestream = self.jpeg(syntax)
        np.testing.assert_array_equal(
            decode(uid, codestream[:-2] + b"\0\0" + codestream[-2:], fmt), decode(uid, codestream, fmt)
        )

    def test_restart_markers_are_none_of_that(self, syntax):
        """The same rows twice, as two restart intervals (T.81 B.2.4.4): of a block, or of eight lines."""
        fmt, options = DAMAGED[syntax]
        one = np.full((8, 8), 77, f"u{fmt.bits_allocated // 8}")
        codestream = bytes(imagecodecs.jpeg8_encode(one, **options))
        sof, sos = codestream.index(b"\xff\xc3" if options else b"\xff\xc0"), codestream.index(b"\xff\xda")
        interval = b"\xff\xdd\0\4" + (64 if options else 1).to_bytes(2)
        data, header = codestream[self.scan(codestream) : -2], codestream[sos : self.scan(codestream)]
        tall = codestream[: sof + 5] + b"\0\x10" + codestream[sof + 7 : sos] + interval + header
        twice = tall + data + b"\xff\xd0" + data + b"\xff\xd9"
        fmt = replace(fmt, rows=16, columns=8)
        decoded = decode("1.2.840.10008.1.2" + syntax, twice, fmt)
        np.testing.assert_array_equal(decoded, np.concatenate([one, one]))
        with pytest.raises(DecodeFailed, match="marker"):
            decode("1.2.840.10008.1.2" + syntax, twice.replace(interval, b""), fmt)


def test_fewer_bits_of_another_sign_have_no_meaning():
    """SIZ of 1 signed bit (T.800 A.5.1) for an image of 12 unsigned ones: found by tests.fuzz."""
    fmt = FrameFormat(8, 8, 1, 16, 12, False, "MONOCHROME2")
    pixels = smooth(8, 8, 12)
    codestream = bytearray(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=12))
    uid = "1.2.840.10008.1.2.4.90"
    np.testing.assert_array_equal(decode(uid, bytes(codestream), fmt), pixels)
    assert codestream[42] == 11
    codestream[42] = 0x80
    with pytest.raises(DecodeFailed, match="another sign"):
        decode(uid, bytes(codestream), fmt)


@pytest.mark.parametrize("syntax", [".4.57", ".4.70"])
def test_dct_is_not_taken_for_lossless(syntax):
    """What was lossy would pass for lossless from then on: found by tests.fuzz."""
    codestream = bytes(imagecodecs.jpeg8_encode(smooth(8, 8, 8).astype(np.uint8)))
    fmt = FrameFormat(8, 8, 1, 8, 8, False, "MONOCHROME2")
    assert decode("1.2.840.10008.1.2.4.50", codestream, fmt).shape == (8, 8)
    with pytest.raises(DecodeFailed, match="SOF0"):
        decode("1.2.840.10008.1.2" + syntax, codestream, fmt)
