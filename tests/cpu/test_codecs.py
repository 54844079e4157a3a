"""The plug-in: batches, threads, and the function that pydicom calls."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import openjpeg
import pytest
from pydicom.pixels.encoders.base import Encoder as PydicomEncoder
from pydicom.uid import UID

from gpuenc.codestream import check, parse
from gpuenc.coding import check_format, coding
from gpuenc.cpu import codecs, decoders, encoders, samples
from gpuenc.errors import CodecError, FormatNotAllowed, InvalidOption, InvalidPixels, ValuesOutsideBitsStored
from gpuenc.frames import Coded, Encoded, Frame, FrameFormat, FrameRef
from gpuenc.syntaxes import TABLE, find
from gpuenc.targets import target
from tests.cpu.images import LOSSLESS, REF, content, encode, frame_of, mono, rgb


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
            assert (
                256 << 10 <= limits_.bytes <= 4 << 20
            )  # far less than a lane's share, far more than a hand-over costs


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

    @pytest.mark.parametrize(
        ("syntax", "signed"),
        [
            (syntax, signed)
            for syntax in LOSSLESS
            for signed in (False, True)
            if syntax.encapsulated and not (signed and syntax.name == "jpegxl")
        ],
        ids=lambda value: getattr(value, "name", str(value)),
    )
    @pytest.mark.parametrize("allocated", [8, 16])
    @pytest.mark.parametrize("as_bytes", [False, True])
    def test_gray(self, syntax, signed, allocated, as_bytes):
        uid = syntax.uid
        fmt = mono(19, 23, 8, signed=signed, allocated=allocated)
        pixels = content("noise", fmt)
        options = {"lossless": True} if syntax.loss == "option" else {}
        src = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() if as_bytes else pixels
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


class TestKeptJpeg:
    """A JPEG into JPEG XL and out again (PS3.5 A.4.12) keeps its bits and what the dataset says of it."""

    SUBSAMPLINGS = ("444", "422", "420")
    FORMATS = (
        FrameFormat(40, 37, 1, 8, 8, False, "MONOCHROME1"),
        FrameFormat(40, 37, 3, 8, 8, False, "RGB"),
        FrameFormat(40, 37, 3, 8, 8, False, "YBR_FULL"),
        FrameFormat(40, 37, 3, 8, 8, False, "YBR_FULL_422"),
    )

    def jpeg(self, fmt, subsampling):
        rng = np.random.default_rng(0)
        space = "RGB" if fmt.photometric == "RGB" else "YCBCR"
        colour = {"colorspace": space, "outcolorspace": space} if fmt.samples == 3 else {}
        if space == "YCBCR" and fmt.samples == 3:
            colour["subsampling"] = subsampling
        return bytes(imagecodecs.jpeg8_encode(rng.integers(0, 256, fmt.shape, "u1"), 90, **colour))

    @pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.photometric)
    @pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
    def test_round_trip(self, fmt, subsampling):
        there, back = target(find("jpegxl-jpeg")), target(find("jpeg-baseline"), quality=90)
        jpeg = self.jpeg(fmt, subsampling)
        [packed] = codecs.BatchEncoder(there).encode([Frame(REF, fmt, Coded(back.syntax.uid, jpeg))])
        check(packed.codestream, there.syntax, coding(there, fmt))
        [restored] = codecs.BatchEncoder(back).encode([Frame(REF, fmt, Coded(there.syntax.uid, packed.codestream))])
        assert restored.codestream == jpeg
        check(restored.codestream, back.syntax, coding(back, fmt, keeps_jpeg=True))

    @pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.photometric)
    def test_keeps_its_label_and_is_no_new_loss(self, fmt):
        chosen = target(find("jpeg-baseline"), quality=90)
        for wanted in (coding(chosen, fmt, keeps_jpeg=True), coding(target(find("jpegxl-jpeg")), fmt)):
            assert (wanted.photometric, wanted.lossless, wanted.precision) == (fmt.photometric, True, 8)
            assert (wanted.upsample, wanted.mct, wanted.to_rgb, wanted.expand) == (False, False, False, False)
            assert wanted.shape == fmt.shape
            assert wanted.keeps_jpeg

    def test_samples_are_still_encoded_anew(self):
        chosen = target(find("jpeg-baseline"), quality=90)
        wanted = coding(chosen, FrameFormat(40, 36, 3, 8, 8, False, "RGB"))
        assert (wanted.photometric, wanted.lossless, wanted.keeps_jpeg) == ("YBR_FULL_422", False, False)

    def test_only_8_bits(self):
        for chosen in (target(find("jpegxl-jpeg")), target(find("jpeg-extended"), quality=90)):
            with pytest.raises(FormatNotAllowed, match="Bits Stored 12"):
                coding(chosen, FrameFormat(40, 36, 1, 16, 12, False, "MONOCHROME2"), keeps_jpeg=True)


class TestOddColumnsOf422:
    ODD = FrameFormat(4, 5, 3, 8, 8, False, "YBR_FULL_422")

    @pytest.mark.parametrize("syntax", [s for s in TABLE if not s.recompresses_jpeg], ids=lambda syntax: syntax.name)
    def test_native_cells_are_refused(self, syntax):
        options = {"lossless": True} if syntax.loss == "option" else {}
        with pytest.raises(InvalidPixels, match="even number of columns"):
            coding(target(syntax, **options), self.ODD)

    def test_a_jpeg_is_not(self):
        check_format(self.ODD)
        image = np.random.default_rng(0).integers(0, 256, self.ODD.shape, "u1")
        jpeg = imagecodecs.jpeg8_encode(image, 90, colorspace="YCBCR", outcolorspace="YCBCR", subsampling="422")
        frame = decoders.decode_frame(Frame(REF, self.ODD, Coded(find("jpeg-baseline").uid, bytes(jpeg))))
        assert (frame.format.photometric, frame.format.columns) == ("YBR_FULL", 5)
        [result] = codecs.BatchEncoder(target(find("jpeg-lossless-sv1"))).encode([frame])
        assert isinstance(result, Encoded), result


def test_near_is_what_the_codestream_must_say():
    fmt = FrameFormat(40, 36, 1, 16, 12, False, "MONOCHROME2")
    assert coding(target(find("jpeg-ls"), near=9), fmt).near == 9
    assert coding(target(find("jpeg-ls")), fmt).near == 0
