"""Every syntax and format comes back exactly; each codec writes what its syntax and the colours ask for."""

from dataclasses import replace

import numpy as np
import openjpeg
import pytest

from gpuenc.codestream import pad_even, parse
from gpuenc.coding import coding
from gpuenc.cpu import codecs, decoders, encoders, lossy, samples
from gpuenc.frames import Coded, Encoded, Failure, Frame, FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.cpu.images import LOSSLESS, REF, content, encode, frame_of, mono, picture, rgb

SIZES = [(1, 1), (1, 7), (7, 1), (3, 5), (17, 33), (64, 64), (65, 63)]
# These are made by the same calls as others of their family.
SAME_CALLS = ["jpeg2000", "htj2k", "jpeg-ls", "jpeg-lossless", "jpegxl", "deflated-explicit-vr-little-endian"]
KINDS = ["noise", "lowest", "highest", "extremes"]


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

    @pytest.mark.parametrize(
        ("syntax", "size"),
        [
            (syntax, size)
            for syntax in LOSSLESS
            for size in (SIZES if syntax.name not in SAME_CALLS else [(1, 7), (17, 33)])
        ],
        ids=lambda value: getattr(value, "name", str(value)),
    )
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
        for fmt in (mono(512, 512, 16), mono(1024, 1024, 8), rgb(256, 256)):
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
    @pytest.mark.parametrize(("photometric", "jfif", "adobe"), [("RGB", False, 0), ("YBR_FULL", False, None)])
    def test_markers_say_the_colours(self, photometric, jfif, adobe):
        fmt = rgb(17, 33, photometric=photometric)
        info = parse(encode(find("jpeg-lossless-sv1"), frame_of(content("noise", fmt), fmt)), "jpeg-lossless")
        assert (info.jfif, info.adobe_transform, info.predictor) == (jfif, adobe, 1)


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
        if fmt.samples == 3 and not options.get("photometric"):
            fmt = replace(fmt, photometric="YBR_FULL_422")  # what the JPEG holds
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
