"""The plug-in: every syntax and format comes back exactly, and lossy ones within what was asked for."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openjpeg
import pytest
from pydicom.pixels.encoders.base import Encoder as PydicomEncoder
from pydicom.uid import UID

from gpuenc.codestream import check, pad_even, parse
from gpuenc.coding import coding
from gpuenc.cpu import codecs, decoders, encoders, lossy, samples
from gpuenc.errors import CodecError, FormatNotAllowed, InvalidOption, InvalidPixels, ValuesOutsideBitsStored
from gpuenc.frames import Coded, Encoded, Failure, Frame, FrameFormat, FrameRef
from gpuenc.syntaxes import BY_UID, TABLE, find
from gpuenc.targets import target

REF = FrameRef("test", 3)
LOSSLESS = [syntax for syntax in TABLE if syntax.loss != "always" and not syntax.recompresses_jpeg]
SIZES = [(1, 1), (1, 7), (7, 1), (3, 5), (17, 33), (64, 64), (65, 63)]
KINDS = ["noise", "lowest", "highest", "extremes"]


def limits(fmt):
    if fmt.signed:
        return -(1 << (fmt.bits_stored - 1)), (1 << (fmt.bits_stored - 1)) - 1
    return 0, (1 << fmt.bits_stored) - 1


def content(kind, fmt, seed=0):
    """Samples of shape `fmt.shape`, in the dtype of the cells."""
    low, high = limits(fmt)
    rng = np.random.default_rng(seed)
    values = {
        "noise": lambda: rng.integers(low, high, fmt.shape, endpoint=True),
        "lowest": lambda: np.full(fmt.shape, low),
        "highest": lambda: np.full(fmt.shape, high),
        "extremes": lambda: np.where(rng.integers(0, 2, fmt.shape) > 0, high, low),
    }[kind]()
    return values.astype(f"{'i' if fmt.signed else 'u'}{max(1, fmt.bits_allocated // 8)}")


def frame_of(pixels, fmt):
    return Frame(REF, fmt, samples.to_cells(pixels, fmt))


def encode(syntax, frame, **options):
    chosen = target(syntax, **options)
    encoder = codecs.BatchEncoder(chosen)
    [result] = encoder.encode([frame])
    encoder.close()
    assert isinstance(result, Encoded), result
    assert (result.ref, result.plugin) == (frame.ref, "imagecodecs")
    check(result.codestream, syntax, coding(chosen, frame.format))
    return result.codestream


def mono(rows, columns, bits, *, signed=False, allocated=None, photometric="MONOCHROME2"):
    container = allocated or next(size for size in (8, 16, 32) if bits <= size)
    return FrameFormat(rows, columns, 1, container, bits, signed, photometric)


def rgb(rows, columns, bits=8, photometric="RGB"):
    return FrameFormat(rows, columns, 3, next(size for size in (8, 16, 32) if bits <= size), bits, False, photometric)


def formats(syntax):
    """Every format that the table allows, less those that differ in a name only."""
    seen = set()
    for row in syntax.rows:
        if row.lossy_only:
            continue
        for photometric in row.photometric:
            colour = "ybr" if photometric.startswith("YBR_FULL") else "rgb" if row.samples == 3 else photometric[:3]
            if photometric == "YBR_FULL_422":
                continue  # a matter of preparation; see test_samples
            for allocated in row.allocated:
                for stored in row.stored:
                    for signed in row.signed:
                        if stored <= allocated and (colour, allocated, stored, signed) not in seen:
                            seen.add((colour, allocated, stored, signed))
                            yield FrameFormat(8, 8, row.samples, allocated, stored, signed, photometric)


class TestLossless:
    """Every format of the table, every size, four contents: decoded, the cells are the same bytes."""

    @pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
    @pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
    def test_comes_back(self, syntax, size):
        options = {"lossless": True} if syntax.loss == "option" else {}
        failures, tried = [], 0
        for of in formats(syntax):
            fmt = FrameFormat(*size, of.samples, of.bits_allocated, of.bits_stored, of.signed, of.photometric)
            if syntax.family == "jpeg2000" and fmt.bits_stored == 26:
                continue  # exact or refused: TestJpeg2000
            wanted = coding(target(syntax, **options), fmt)
            for kind in KINDS:
                frame = frame_of(content(kind, fmt, tried), fmt)
                codestream = pad_even(encode(syntax, frame, **options), syntax.family)
                expected = samples.prepare(frame.pixels, fmt, wanted)
                if syntax.family == "native":
                    codestream = codestream[: expected.size]
                decoded = decoders.decode_samples(codestream, syntax, wanted)
                same = decoded.dtype == expected.dtype and np.array_equal(decoded, expected)
                if same and syntax.encapsulated:
                    back = decoders.decode_frame(Frame(REF, fmt, Coded(syntax.uid, codestream)))
                    same = back.pixels.tobytes() == frame.pixels.tobytes()
                tried += 1
                if not same:
                    failures.append((kind, fmt))
        assert not failures
        assert tried > 100

    @pytest.mark.parametrize("size", [(1, 65535), (65535, 1), (3, 40000), (2000, 70)], ids=str)
    @pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
    def test_long_and_thin(self, syntax, size):
        fmt = mono(*size, 12)
        frame = frame_of(content("noise", fmt), fmt)
        options = {"lossless": True} if syntax.loss == "option" else {}
        if syntax.name == "htj2k-lossless-rpcl" and min(size) < 64 and max(size) > 64 << 5:
            with pytest.raises(AssertionError, match="decomposition levels"):
                encode(syntax, frame, **options)
            return
        codestream = encode(syntax, frame, **options)
        wanted = coding(target(syntax, **options), fmt)
        expected = samples.prepare(frame.pixels, fmt, wanted)
        np.testing.assert_array_equal(decoders.decode_samples(codestream, syntax, wanted), expected)

    @pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
    def test_large_noise_does_not_fit_estimates_of_its_size(self, syntax):
        for fmt in (mono(512, 512, 16), mono(512, 512, 8), rgb(256, 256)):
            options = {"lossless": True} if syntax.loss == "option" else {}
            frame = frame_of(content("noise", fmt), fmt)
            codestream = encode(syntax, frame, **options)
            wanted = coding(target(syntax, **options), fmt)
            expected = samples.prepare(frame.pixels, fmt, wanted)
            np.testing.assert_array_equal(decoders.decode_samples(codestream, syntax, wanted), expected)


class TestJpeg2000:
    def test_random_samples_of_one_bit(self):
        fmt = mono(512, 512, 1, allocated=1)
        frame = frame_of(content("noise", fmt), fmt)
        codestream = encode(find("jpeg2000-lossless"), frame)
        assert decoders.decode_frame(Frame(REF, fmt, Coded(find("jpeg2000-lossless").uid, codestream))) is not None
        decoded = decoders.decode_samples(
            codestream, find("jpeg2000-lossless"), coding(target(find("jpeg2000-lossless")), fmt)
        )
        np.testing.assert_array_equal(decoded, content("noise", fmt))

    @pytest.mark.parametrize("signed", [False, True])
    def test_26_bits_are_exact_or_refused(self, signed):
        fmt = mono(33, 47, 26, signed=signed)
        syntax = find("jpeg2000-lossless")
        for kind in KINDS:
            pixels = content(kind, fmt)
            chosen = target(syntax, strict=False)
            [result] = codecs.BatchEncoder(chosen).encode([frame_of(pixels, fmt)])
            if isinstance(result, Encoded):
                decoded = decoders.decode_samples(result.codestream, syntax, coding(chosen, fmt))
                np.testing.assert_array_equal(decoded, pixels)
            else:
                assert result.code == "codec-error"
                assert "OpenJPEG" in result.reason

    def test_colour_edges_that_overflow_openjpeg(self):
        """The signs of a wavelet at saturated chroma: with RCT, OpenJPEG alone would lose coefficients' top bits."""
        line = np.ones(1)
        for step in (1, 2, 4):  # the low-pass filter of three decompositions (T.800 F.3.8.2)
            spread = np.zeros(4 * step + 1)
            spread[::step] = np.array([-1, 2, 6, 2, -1])
            line = np.convolve(line, spread)
        signs = np.outer(line, line) > 0
        bad = 0
        for shift in range(8):
            field = np.zeros((64, 64), bool)
            field[16 + shift : 45 + shift, 16 + shift : 45 + shift] = signs
            pixels = np.stack([~field, field, field], -1).astype(np.uint8) * 255
            fmt = rgb(64, 64)
            syntax = find("jpeg2000-lossless")
            wanted = coding(target(syntax), fmt)
            assert wanted.mct
            unguarded = encoders.imagecodecs.jpeg2k_encode(
                pixels, codecformat="J2K", reversible=True, bitspersample=8, mct=True, resolutions=6
            )
            bad += not np.array_equal(np.asarray(openjpeg.decode(bytes(unguarded))), pixels)
            codestream = encode(syntax, frame_of(pixels, fmt))
            np.testing.assert_array_equal(np.asarray(openjpeg.decode(codestream)), pixels)
        assert bad, "this picture no longer tempts OpenJPEG: the guard is not tested"

    @pytest.mark.parametrize("bits", [27, 32])
    def test_more_bits_are_refused(self, bits):
        fmt = mono(8, 8, bits)
        chosen = target(find("jpeg2000-lossless"), strict=False)
        [result] = codecs.BatchEncoder(chosen).encode([frame_of(content("noise", fmt), fmt)])
        assert isinstance(result, Failure)
        assert result.code == "codec-error"

    def test_several_layers_are_left_to_another_plugin(self):
        fmt = mono(32, 32, 12)
        [result] = codecs.BatchEncoder(target(find("jpeg2000"), ratios=(20.0, 5.0))).encode(
            [frame_of(content("noise", fmt), fmt)]
        )
        assert isinstance(result, Failure)
        assert "one quality layer" in result.reason


class TestHtj2k:
    @pytest.mark.parametrize(
        ("size", "levels"),
        [((512, 512), 3), ((2000, 1500), 5), ((64, 64), 1), ((3, 5), 1), ((1, 1), 5), ((1, 300), 5), ((2, 2000), 5)],
        ids=str,
    )
    def test_rpcl_levels(self, size, levels):
        fmt = mono(*size, 8)
        info = parse(encode(find("htj2k-lossless-rpcl"), frame_of(content("noise", fmt), fmt)), "htj2k")
        assert (info.levels, info.progression, info.tlm_matches) == (levels, "RPCL", True)

    @pytest.mark.parametrize("photometric", ["", "RGB"])
    def test_component_transform(self, photometric):
        fmt = rgb(40, 50)
        codestream = encode(find("htj2k-lossless"), frame_of(content("noise", fmt), fmt), photometric=photometric)
        assert parse(codestream, "htj2k").mct is (photometric == "")


class TestJpegLossless:
    @pytest.mark.parametrize(("photometric", "jfif", "adobe"), [("RGB", False, 0), ("YBR_FULL", True, None)])
    def test_markers_say_the_colours(self, photometric, jfif, adobe):
        fmt = rgb(17, 33, photometric=photometric)
        info = parse(encode(find("jpeg-lossless-sv1"), frame_of(content("noise", fmt), fmt)), "jpeg-lossless")
        assert (info.jfif, info.adobe_transform, info.predictor) == (jfif, adobe, 1)

    def test_scan_header_names_the_tables_used(self):
        """Smooth luma and noisy chroma have different Huffman tables; libjpeg-turbo names the first for all."""
        fmt = rgb(64, 64, photometric="YBR_FULL")
        pixels = content("noise", fmt)
        pixels[..., 0] = np.arange(64)
        codestream = encode(find("jpeg-lossless"), frame_of(pixels, fmt))
        assert codestream.count(b"\xff\xc4\x00") == 2
        assert b"\xff\xda\x00\x0c\x03\x01\x00\x02\x10\x03\x10\x01\x00\x00" in codestream


class TestNearLossless:
    @pytest.mark.parametrize("near", [1, 3, 10])
    @pytest.mark.parametrize(
        "fmt",
        [mono(33, 21, 8), mono(33, 21, 12), mono(33, 21, 12, signed=True), mono(33, 21, 8, signed=True), rgb(33, 21)],
    )
    def test_error_is_at_most_near(self, fmt, near):
        low, high = limits(fmt)
        pixels = content("noise", fmt).clip(low + near, high - near)
        codestream = encode(find("jpeg-ls"), frame_of(pixels, fmt), near=near)
        assert parse(codestream, "jpeg-ls").near == near
        decoded = decoders.decode_samples(codestream, find("jpeg-ls"), coding(target(find("jpeg-ls"), near=near), fmt))
        error = np.abs(decoded.astype(int) - pixels)
        assert 0 < error.max() <= near
        assert low <= decoded.min()
        assert decoded.max() <= high

    def test_signed_samples_close_to_their_limits_are_refused(self):
        fmt = mono(1, 4, 12, signed=True)
        for edge in (-2048 + 2, 2047 - 2):
            frame = frame_of(np.array([[0, 1, edge, 2]], np.int16), fmt)
            encode(find("jpeg-ls"), frame, near=2)
            [result] = codecs.BatchEncoder(target(find("jpeg-ls"), near=3)).encode([frame])
            assert isinstance(result, Failure)
            assert result.code == InvalidPixels.code
            assert "'jls_error' of '3' is (-2045, 2044)" in result.reason

    def test_unsigned_samples_may_have_any_value(self):
        fmt = mono(16, 16, 12)
        pixels = content("extremes", fmt)
        codestream = encode(find("jpeg-ls"), frame_of(pixels, fmt), near=5)
        decoded = decoders.decode_samples(codestream, find("jpeg-ls"), coding(target(find("jpeg-ls"), near=5), fmt))
        assert np.abs(decoded.astype(int) - pixels).max() <= 5


def picture(fmt):
    """A picture with edges and noise over the whole range, saturated in places."""
    low, high = limits(fmt)
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: fmt.rows, : fmt.columns]
    value = 0.5 + 0.35 * np.sin(x / 23) * np.cos(y / 31) + rng.normal(0, 0.003, y.shape)
    value[(x - fmt.columns / 2) ** 2 + (y - fmt.rows / 2) ** 2 > (0.45 * fmt.rows) ** 2] = 0
    value[fmt.rows // 3 : fmt.rows // 2, : fmt.columns // 4] = 1.1
    if fmt.samples == 3:
        value = np.stack([value, 0.8 * value + 0.1, 1 - value], -1)
    pixels = (low + value * (high - low)).round().clip(low, high)
    return pixels.astype(f"{'i' if fmt.signed else 'u'}{fmt.bits_allocated // 8}")


PICTURES = {
    "12bit": mono(192, 160, 12),
    "signed": mono(192, 160, 13, signed=True),
    "16bit": mono(192, 160, 16),
    "rgb": rgb(192, 160),
    "ybr": rgb(192, 160, photometric="YBR_FULL"),
}


@pytest.mark.parametrize("fmt", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("name", ["htj2k", "jpeg2000"])
class TestLossyJpeg2000:
    def measured(self, name, fmt, **options):
        pixels = picture(fmt)
        chosen = target(find(name), **options)
        codestream = encode(find(name), frame_of(pixels, fmt), **options)
        info = parse(codestream, find(name).family)
        assert not info.lossless
        # OpenJPEG, which reads both and clips, behind another binding.
        decoded = np.asarray(openjpeg.decode(codestream), np.int64)
        squares = float(np.mean((decoded - pixels) ** 2))
        wanted = coding(chosen, fmt)
        psnr = 10 * np.log10((2**wanted.precision - 1) ** 2 / squares)
        return psnr, pixels.size * wanted.precision / 8 / len(codestream)

    @pytest.mark.parametrize("psnr", [35.0, 45.0])
    def test_psnr(self, name, fmt, psnr):
        measured, ratio = self.measured(name, fmt, psnrs=(psnr,))
        assert psnr <= measured < psnr + 2
        assert ratio > 4

    @pytest.mark.parametrize("ratio", [5.0, 25.0])
    def test_ratio(self, name, fmt, ratio):
        psnr, measured = self.measured(name, fmt, ratios=(ratio,))
        assert ratio <= measured
        assert psnr > 25
        # OpenJPEG stops at a step of 1, where 8 bits of this picture take less than was asked for.
        assert measured < 1.1 * ratio or psnr > 50

    def test_without_component_transform(self, name, fmt):
        if fmt.photometric != "RGB":
            pytest.skip("only RGB has a choice")
        codestream = encode(find(name), frame_of(picture(fmt), fmt), psnrs=(40.0,), photometric="RGB")
        assert parse(codestream, find(name).family).mct is False

    def test_what_cannot_be_reached_is_refused(self, name, fmt):
        for options in ({"ratios": (1e6,)}, {"psnrs": (200.0,)}):
            [result] = codecs.BatchEncoder(target(find(name), **options)).encode([frame_of(picture(fmt), fmt)])
            if isinstance(result, Encoded):  # rounding may leave no error at all
                wanted = coding(target(find(name), **options), fmt)
                decoded = decoders.decode_samples(result.codestream, find(name), wanted)
                assert "psnrs" in options
                np.testing.assert_array_equal(decoded, picture(fmt))
            else:
                assert "cannot be reached" in result.reason


class TestSearch:
    def search(self, excess, **options):
        tried = []

        def encode(setting):
            tried.append(setting)
            return repr(setting).encode()

        settings = {"low": 0.0, "high": 100.0, "start": 50.0, "slope": 1.0, "tolerance": 0.5} | options
        found = float(lossy.least(encode, lambda codestream: excess(float(codestream)), **settings))
        assert all(settings["low"] <= setting <= settings["high"] for setting in tried)
        return found, len(tried)

    @pytest.mark.parametrize("goal", [0.3, 7.0, 50.0, 93.0, 99.8])
    @pytest.mark.parametrize("slope", [0.05, 1.0, 30.0])
    def test_finds_the_least_that_suffices(self, goal, slope):
        found, encodes = self.search(lambda x: (x - goal) * 2, slope=slope)
        assert 0 <= (found - goal) * 2 <= 0.5
        assert encodes <= 12

    def test_a_curve(self):
        found, _ = self.search(lambda x: (x / 100) ** 8 * 100 - 40)
        assert 0 <= (found / 100) ** 8 * 100 - 40 <= 0.5

    def test_a_step(self):
        found, encodes = self.search(lambda x: 9.0 if x > 61.8 else -9.0)
        assert 61.8 < found < 62.5
        assert encodes <= 12

    def test_everything_suffices(self):
        assert self.search(lambda x: x + 1)[0] == 0.0

    def test_infinite_quality_is_no_slope(self):
        found, _ = self.search(lambda x: float("inf") if x > 20 else x - 15)
        assert 15 <= found <= 20.2

    def test_nothing_suffices(self):
        with pytest.raises(CodecError, match="cannot be reached"):
            self.search(lambda x: x - 200)

    def test_psnr(self):
        one = np.array([[0, 100], [200, 255]], np.uint8)
        assert lossy.psnr_db(one, one, 8) == float("inf")
        # Errors 3 and -1 in 4 samples: a mean square of 2.5.
        other = np.array([[3, 100], [200, 254]], np.uint8)
        assert lossy.psnr_db(one, other, 8) == pytest.approx(10 * np.log10(255**2 / 2.5))
        many = np.zeros(200_000, np.uint16)
        assert lossy.psnr_db(many, many + 1, 12) == pytest.approx(20 * np.log10(4095))


class TestJpeg:
    @pytest.mark.parametrize(
        ("source", "wanted", "markers"),
        [
            ("RGB", "", ("YBR_FULL_422", (2, 1), None)),
            ("YBR_FULL", "", ("YBR_FULL_422", (2, 1), None)),
            ("RGB", "RGB", ("RGB", (1, 1), 0)),
            ("YBR_FULL", "YBR_FULL", ("YBR_FULL", (1, 1), None)),
        ],
    )
    def test_colours(self, source, wanted, markers):
        fmt = rgb(64, 48, photometric=source)
        y, x = np.mgrid[:64, :48]
        pixels = np.stack([x * 5, y * 3, 255 - x * 2 - y * 2], -1).astype(np.uint8)
        chosen = target(find("jpeg-baseline"), quality=97, photometric=wanted)
        codestream = encode(find("jpeg-baseline"), frame_of(pixels, fmt), quality=97, photometric=wanted)
        info = parse(codestream, "jpeg")
        assert (coding(chosen, fmt).photometric, info.subsampling[0], info.adobe_transform) == markers
        assert (info.sof, info.precision) == (0, 8)
        decoded = decoders.decode_samples(codestream, find("jpeg-baseline"), coding(chosen, fmt))
        if source == "RGB" and wanted == "":
            decoded = samples.ybr_to_rgb(decoded)
        assert np.abs(decoded.astype(int) - pixels).mean() < 3

    @pytest.mark.parametrize(("fmt", "sof"), [(mono(40, 56, 8), 0), (mono(40, 56, 12), 1)], ids=["8bit", "12bit"])
    def test_extended(self, fmt, sof):
        codestream = encode(find("jpeg-extended"), frame_of(picture(fmt), fmt))
        info = parse(codestream, "jpeg")
        assert (info.sof, info.precision) == (sof, fmt.bits_stored)
        decoded = decoders.decode_samples(codestream, find("jpeg-extended"), coding(target(find("jpeg-extended")), fmt))
        assert lossy.psnr_db(decoded, picture(fmt), fmt.bits_stored) > 40

    def test_quality(self):
        fmt = mono(64, 64, 8)
        sizes = [
            len(encode(find("jpeg-baseline"), frame_of(picture(fmt), fmt), quality=quality))
            for quality in (1, 50, None, 95, 100)
        ]
        assert sizes == sorted(sizes)
        assert sizes[2] == len(encode(find("jpeg-baseline"), frame_of(picture(fmt), fmt), quality=90))


class TestJpegXl:
    @pytest.mark.parametrize("fmt", [mono(96, 80, 8), mono(96, 80, 12), mono(96, 80, 16), rgb(96, 80)])
    @pytest.mark.parametrize("quality", [50, None, 100])
    def test_lossy(self, fmt, quality):
        codestream = encode(find("jpegxl"), frame_of(picture(fmt), fmt), quality=quality, lossless=False)
        decoded = decoders.decode_samples(
            codestream, find("jpegxl"), coding(target(find("jpegxl"), lossless=False), fmt)
        )
        psnr = lossy.psnr_db(decoded, picture(fmt), fmt.bits_stored)
        assert 28 < psnr < 80

    def test_quality(self):
        fmt = rgb(96, 80)
        sizes = [
            len(encode(find("jpegxl"), frame_of(picture(fmt), fmt), quality=quality)) for quality in (30, 70, 90, 100)
        ]
        assert sizes == sorted(set(sizes))
        default = encode(find("jpegxl"), frame_of(picture(fmt), fmt), lossless=False)
        assert len(default) == sizes[2]

    @pytest.mark.parametrize("bits", [8, 12, 13, 16])
    def test_no_container(self, bits):
        fmt = mono(20, 30, bits)
        assert encode(find("jpegxl-lossless"), frame_of(content("noise", fmt), fmt)).startswith(b"\xff\x0a")


class TestRecompression:
    """JPEG to JPEG XL and back, bit for bit, whatever pads it."""

    def jpeg(self, fmt, **options):
        return encode(find("jpeg-baseline"), frame_of(picture(fmt), fmt), **options)

    def recompressed(self, jpeg, fmt):
        return encode(find("jpegxl-jpeg"), Frame(REF, fmt, Coded(find("jpeg-baseline").uid, jpeg)))

    @pytest.mark.parametrize("padding", [b"", b"\0", b"\0\0\0"])
    @pytest.mark.parametrize(
        ("fmt", "options"),
        [
            (mono(40, 56, 8), {}),
            (rgb(40, 56), {}),
            (rgb(40, 56), {"photometric": "RGB"}),
            (rgb(41, 55), {"quality": 30}),
        ],
    )
    def test_comes_back(self, fmt, options, padding):
        jpeg = self.jpeg(fmt, **options) + padding
        codestream = self.recompressed(jpeg, fmt)
        wanted = coding(target(find("jpegxl-jpeg")), fmt)
        assert decoders.decode_samples(codestream, find("jpegxl-jpeg"), wanted).tobytes() == jpeg
        back = Frame(REF, fmt, Coded(find("jpegxl-jpeg").uid, codestream))
        [restored] = codecs.BatchEncoder(target(find("jpeg-baseline"))).encode([back])
        assert restored.codestream == jpeg
        same = decoders.decode_frame(Frame(REF, fmt, Coded(find("jpeg-baseline").uid, jpeg)))
        assert decoders.decode_frame(back).pixels.tobytes() == same.pixels.tobytes()

    def refused(self, frame, chosen):
        [result] = codecs.BatchEncoder(chosen).encode([frame])
        assert isinstance(result, Failure)
        return result

    def test_refuses_what_is_no_jpeg(self):
        fmt = mono(40, 56, 8)
        chosen = target(find("jpegxl-jpeg"))
        assert "takes JPEG codestreams" in self.refused(frame_of(picture(fmt), fmt), chosen).reason
        lossless = encode(find("jpeg-lossless"), frame_of(picture(fmt), fmt))
        for uid, codestream in (
            (find("jpeg-lossless").uid, lossless),
            (find("jpeg-baseline").uid, lossless),
            (find("jpeg-baseline").uid, self.jpeg(fmt)[:100]),
            (find("jpeg-baseline").uid, b""),
        ):
            assert self.refused(Frame(REF, fmt, Coded(uid, codestream)), chosen).code == "codec-error"

    def test_other_targets_want_samples(self):
        fmt = mono(40, 56, 8)
        coded = Frame(REF, fmt, Coded(find("jpeg-baseline").uid, self.jpeg(fmt)))
        assert "must be decoded" in self.refused(coded, target(find("rle"))).reason


class TestBatches:
    def test_one_result_per_frame_in_order(self):
        fmt = mono(16, 16, 12)
        good = content("noise", fmt)
        bad = good.copy()
        bad[3, 3] = 5000
        frames = [
            Frame(FrameRef("a", index), fmt, samples.to_cells(bad if index == 2 else good + index % 2 * 0, fmt))
            for index in range(5)
        ]
        results = codecs.BatchEncoder(target(find("rle"))).encode(frames)
        assert [result.ref.index for result in results] == list(range(5))
        assert [isinstance(result, Encoded) for result in results] == [True, True, False, True, True]
        assert results[2].code == ValuesOutsideBitsStored.code
        assert "\n" not in results[2].reason

    def test_whole_cells(self):
        fmt = mono(16, 16, 12)
        pixels = content("noise", mono(16, 16, 16))
        for name in ("rle", "jpeg-ls-lossless", "htj2k-lossless"):
            codestream = encode(find(name), Frame(REF, fmt, pixels.view(np.uint8).reshape(-1)), whole_cells=True)
            wanted = coding(target(find(name), whole_cells=True), fmt)
            np.testing.assert_array_equal(decoders.decode_samples(codestream, find(name), wanted), pixels)

    def test_a_bug_is_not_a_failure(self, monkeypatch):
        def broken(*_args):
            raise TypeError("a bug")

        monkeypatch.setitem(encoders._ENCODERS, "rle", broken)
        fmt = mono(4, 4, 8)
        with pytest.raises(TypeError, match="a bug"):
            codecs.BatchEncoder(target(find("rle"))).encode([frame_of(content("noise", fmt), fmt)])

    def test_limits(self):
        for syntax in TABLE:
            lossless = {"option": True, "never": None, "always": None}[syntax.loss]
            limits_ = codecs.BatchEncoder(target(syntax, lossless=lossless)).limits
            assert limits_.peak_factor >= 2
            assert limits_.lanes >= 1
            assert 1 << 20 <= limits_.bytes <= 4 << 20


class TestThreads:
    @pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
    def test_eight_at_once(self, syntax):
        options = {"lossless": True} if syntax.loss == "option" else {}
        chosen = target(syntax, **options)
        fmt = mono(96, 128, 12)
        frames = [frame_of(content("noise", fmt, seed), fmt) for seed in range(16)]
        alone = [codecs.BatchEncoder(chosen).encode([frame])[0].codestream for frame in frames]
        start = threading.Barrier(8)

        def lane(number):
            encoder = codecs.BatchEncoder(chosen)
            start.wait(30)
            order = frames[number:] + frames[:number]
            results = [result.codestream for result in encoder.encode(order)]
            back = [decoders.decode_samples(one, syntax, coding(chosen, fmt)).tobytes() for one in results]
            return results[16 - number :] + results[: 16 - number], back[16 - number :] + back[: 16 - number]

        with ThreadPoolExecutor(8) as pool:
            lanes = list(pool.map(lane, range(8)))
        expected = [samples.prepare(frame.pixels, fmt, coding(chosen, fmt)).tobytes() for frame in frames]
        for codestreams, decoded in lanes:
            assert codestreams == alone
            assert decoded == expected

    @pytest.mark.parametrize(
        "name",
        [
            "rle",
            "jpeg-lossless-sv1",
            "jpeg-ls-lossless",
            "jpeg2000-lossless",
            "htj2k-lossless",
            "jpegxl-lossless",
            "deflated-image-frame",
        ],
    )
    def test_gil_is_released(self, name):
        """With a switch interval of minutes, another thread runs during a call only if the call lets go of the GIL."""
        syntax = find(name)
        fmt = mono(1500, 1500, 16)
        wanted = coding(target(syntax), fmt)
        pixels = content("noise", fmt)
        calling, returned = threading.Event(), threading.Event()

        def call():
            calling.set()
            encoders.encode_samples(pixels, target(syntax), wanted, fmt)
            returned.set()

        interval = sys.getswitchinterval()
        seen = False
        for _ in range(5):  # a busy machine may wake this thread too late
            calling.clear()
            returned.clear()
            sys.setswitchinterval(300)
            try:
                worker = threading.Thread(target=call)
                worker.start()
                calling.wait()
                seen = not returned.is_set()
            finally:
                sys.setswitchinterval(interval)
                worker.join()
            if seen:
                break
        assert seen


class TestPlugin:
    def test_names(self):
        assert codecs.THREAD_SAFE is True
        assert set(codecs.ENCODER_DEPENDENCIES) == {syntax.uid for syntax in TABLE if syntax.encapsulated}
        assert set(codecs.ENCODER_DEPENDENCIES.values()) == {("imagecodecs>=2026.10.10",)}

    def test_is_available(self):
        assert all(codecs.is_available(uid) for uid in codecs.ENCODER_DEPENDENCIES)
        assert codecs.is_available(UID("1.2.840.10008.1.2.5"))
        assert not codecs.is_available("1.2.840.10008.1.2.1")
        assert not codecs.is_available("")

    @pytest.mark.parametrize("version", ["2026.3.6", "unknown", None])
    def test_another_imagecodecs_is_not_available(self, monkeypatch, version):
        codecs._has_codec.cache_clear()
        try:
            if version is None:
                monkeypatch.delattr(codecs.imagecodecs, "__version__")
            else:
                monkeypatch.setattr(codecs.imagecodecs, "__version__", version)
            assert not codecs.is_available("1.2.840.10008.1.2.5")
        finally:
            codecs._has_codec.cache_clear()


def pydicom_encoder(uid):
    encoder = PydicomEncoder(UID(uid))
    encoder.add_plugin("imagecodecs", ("gpuenc.cpu.codecs", "encode_frame"))
    return encoder


def attributes(fmt, **options):
    return {
        "rows": fmt.rows,
        "columns": fmt.columns,
        "samples_per_pixel": fmt.samples,
        "number_of_frames": 1,
        "bits_allocated": fmt.bits_allocated,
        "bits_stored": fmt.bits_stored,
        "pixel_representation": int(fmt.signed),
        "photometric_interpretation": fmt.photometric,
        **({"planar_configuration": 0} if fmt.samples > 1 else {}),
        **options,
    }


class TestInsidePydicom:
    """The function as pydicom's own Encoder calls it."""

    @pytest.mark.parametrize("uid", codecs.ENCODER_DEPENDENCIES, ids=lambda uid: BY_UID[uid].name)
    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("allocated", [8, 16])
    @pytest.mark.parametrize("as_bytes", [False, True])
    def test_gray(self, uid, signed, allocated, as_bytes):
        syntax = BY_UID[uid]
        fmt = mono(19, 23, 8, signed=signed, allocated=allocated)
        if syntax.loss == "always" or syntax.recompresses_jpeg or (uid.endswith(".4.112") and signed):
            pytest.skip("not lossless for this")
        pixels = content("noise", fmt)
        options = {"lossless": True} if syntax.loss == "option" else {}
        src = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() if as_bytes else pixels
        # pydicom 3.0 has no lossless .91, and wants jls_error for .81.
        codestream = pydicom_encoder(uid).encode(src, **attributes(fmt, **options))
        chosen = target(syntax, **options)
        check(codestream, syntax, coding(chosen, fmt))
        decoded = decoders.decode_frame(Frame(REF, fmt, Coded(uid, codestream)))
        assert decoded.pixels.tobytes() == samples.to_cells(pixels, fmt).tobytes()

    @pytest.mark.parametrize(
        ("name", "intended", "mct"),
        [
            ("jpeg2000-lossless", "RGB", False),
            ("jpeg2000-lossless", "YBR_RCT", True),
            ("htj2k-lossless", "RGB", False),
            ("htj2k-lossless", "YBR_RCT", True),
        ],
    )
    def test_intended_photometric(self, name, intended, mct):
        fmt = rgb(19, 23)
        pixels = content("noise", fmt)
        options = attributes(fmt, photometric_interpretation=intended)
        codestream = pydicom_encoder(find(name).uid).encode(pixels, **options)
        assert parse(codestream, find(name).family).mct is mct
        np.testing.assert_array_equal(np.asarray(openjpeg.decode(codestream)), pixels)

    def test_planes_for_jpeg_ls(self):
        fmt = rgb(19, 23)
        pixels = content("noise", fmt)
        options = attributes(fmt, planar_configuration=1)
        codestream = pydicom_encoder(find("jpeg-ls-lossless").uid).encode(pixels, **options)
        decoded = decoders.decode_frame(Frame(REF, fmt, Coded(find("jpeg-ls-lossless").uid, codestream)))
        assert decoded.pixels.tobytes() == pixels.tobytes()

    @pytest.mark.parametrize("bits", [12, 20])
    def test_narrowed_cells_of_32_bits(self, bits):
        fmt = mono(19, 23, bits, signed=True, allocated=32)
        pixels = content("noise", fmt)
        for name in ("htj2k-lossless", "deflated-image-frame"):
            codestream = pydicom_encoder(find(name).uid).encode(pixels, **attributes(fmt))
            decoded = decoders.decode_frame(Frame(REF, fmt, Coded(find(name).uid, codestream)))
            assert decoded.pixels.tobytes() == pixels.tobytes()

    @pytest.mark.parametrize("packed", [True, False])
    @pytest.mark.parametrize("name", ["rle", "jpeg2000-lossless", "htj2k-lossless", "deflated-image-frame"])
    def test_one_bit(self, name, packed):
        fmt = mono(5, 7, 1, allocated=1)
        pixels = content("noise", fmt)
        src = samples.pack_bits(pixels).tobytes() if packed else pixels.tobytes()

        class Runner:
            options = attributes(fmt, transfer_syntax_uid=find(name).uid)

        codestream = codecs.encode_frame(src, Runner())
        decoded = decoders.decode_frame(Frame(REF, fmt, Coded(find(name).uid, codestream)))
        assert decoded.pixels.tobytes() == samples.pack_bits(pixels).tobytes()

    @pytest.mark.parametrize("full", [True, False])
    def test_chroma_of_every_or_every_other_pixel(self, full):
        cells = np.random.default_rng(0).integers(0, 256, 10 * 8 * 2, np.uint8)
        fmt = rgb(10, 8, photometric="YBR_FULL_422")
        ybr = samples.upsample_422(cells, 10, 8)

        class Runner:
            options = attributes(fmt, transfer_syntax_uid=find("jpeg-baseline").uid, quality=100)

        codestream = codecs.encode_frame(ybr.tobytes() if full else cells.tobytes(), Runner())
        decoded = decoders.decode_frame(Frame(REF, fmt, Coded(find("jpeg-baseline").uid, codestream)))
        luma = decoded.pixels.reshape(10, 8, 3)[..., 0]
        assert np.abs(luma.astype(int) - ybr.reshape(10, 8, 3)[..., 0]).max() <= 2

    def test_jpeg_ls_is_padded_before_eoi(self):
        for columns in range(8, 16):
            fmt = mono(9, columns, 8)
            codestream = pydicom_encoder(find("jpeg-ls-lossless").uid).encode(content("noise", fmt), **attributes(fmt))
            assert len(codestream) % 2 == 0
            assert codestream.endswith(b"\xff\xd9")

    @pytest.mark.parametrize(
        ("name", "options", "error"),
        [
            ("jpeg2000-lossless", {"j2k_cr": 5}, InvalidOption),
            ("jpeg-ls-lossless", {"jls_error": 2}, InvalidOption),
            ("jpeg2000", {}, InvalidOption),
            ("rle", {"byteorder": ">"}, InvalidOption),
            ("jpeg-baseline", {"photometric_interpretation": "PALETTE COLOR"}, InvalidPixels),
            ("jpeg-ls-lossless", {"bits_stored": 1}, FormatNotAllowed),
        ],
    )
    def test_refused(self, name, options, error):
        class Runner:
            pass

        Runner.options = attributes(mono(4, 4, 8), transfer_syntax_uid=find(name).uid) | options
        with pytest.raises(error):
            codecs.encode_frame(bytes(16), Runner())

    def test_a_codestream_that_is_known_to_go_wrong_is_decoded_first(self, monkeypatch):
        fmt = mono(4, 4, 1, allocated=1)

        class Runner:
            options = attributes(fmt, transfer_syntax_uid=find("htj2k-lossless").uid)

        monkeypatch.setattr(decoders, "decode_samples", lambda *_: np.ones((4, 4), np.uint8))
        with pytest.raises(CodecError, match="do not come back"):
            codecs.encode_frame(bytes(2), Runner())
