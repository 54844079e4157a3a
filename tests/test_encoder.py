"""`Encoder` as code written for pydicom's class uses it, in both generations of the API."""

import gc
import multiprocessing
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.encoders import base
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

import gpuenc
from gpuenc.codestream import parse
from gpuenc.cpu import decoders
from gpuenc.syntaxes import TABLE
from tests import made

OURS = ("gpuenc.cpu.codecs", "encode_frame")
RNG = np.random.default_rng(20)


def read(name):
    return dcmread(get_testdata_file(name, download=False))


def decode(uid, codestream, like, *, signed=None, bits_stored=None):
    """Decode with imagecodecs to an array like the one encoded."""
    return decoders.decode(
        str(uid),
        codestream,
        rows=like.shape[0],
        columns=like.shape[1],
        samples=like.shape[2] if like.ndim == 3 else 1,
        bits_allocated=like.dtype.itemsize * 8,
        bits_stored=bits_stored or like.dtype.itemsize * 8,
        signed=like.dtype.kind == "i" if signed is None else signed,
        photometric="RGB" if like.ndim == 3 else "MONOCHROME2",
    )


def described(arr, **changes):
    """The keywords that pydicom demands for an array of one frame."""
    return {
        "rows": arr.shape[0],
        "columns": arr.shape[1],
        "samples_per_pixel": 1 if arr.ndim == 2 else arr.shape[2],
        "number_of_frames": 1,
        "bits_allocated": arr.dtype.itemsize * 8,
        "bits_stored": arr.dtype.itemsize * 8,
        "pixel_representation": int(arr.dtype.kind == "i"),
        "photometric_interpretation": "MONOCHROME2" if arr.ndim == 2 else "RGB",
        **({"planar_configuration": 0} if arr.ndim == 3 else {}),
        **changes,
    }


class TestIsPydicoms:
    def test_type(self):
        assert isinstance(gpuenc.get_encoder(RLELossless), base.Encoder)

    def test_names(self):
        encoder = gpuenc.Encoder(RLELossless)
        assert encoder.name == "RLELosslessEncoder"
        assert RLELossless == encoder.UID
        assert isinstance(encoder.UID, UID)
        assert encoder.is_encapsulated
        assert not encoder.is_native

    def test_a_new_encoder_has_no_plugins(self):
        encoder = gpuenc.Encoder(RLELossless)
        assert encoder.available_plugins == ()
        assert not encoder.is_available
        with pytest.raises(RuntimeError, match=r"all plugins are missing dependencies"):
            encoder.encode(np.zeros((2, 2), np.uint8))

    def test_plugins_come_and_go(self):
        encoder = gpuenc.Encoder(RLELossless)
        encoder.add_plugin("ours", OURS)
        encoder.add_plugins([("native", ("pydicom.pixels.encoders.native", "_encode_frame"))])
        assert encoder.available_plugins == ("native", "ours")
        assert encoder.labels == ("ours", "native")
        with pytest.raises(ValueError, match=r"already has a plugin named 'ours'"):
            encoder.add_plugin("ours", OURS)
        encoder.remove_plugin("ours")
        assert encoder.available_plugins == ("native",)
        with pytest.raises(ValueError, match=r"Unable to remove 'ours'"):
            encoder.remove_plugin("ours")

    def test_bad_plugins(self):
        encoder = gpuenc.Encoder(RLELossless)
        with pytest.raises(ModuleNotFoundError, match=r"No module named 'nowhere'"):
            encoder.add_plugin("x", ("nowhere", "f"))
        with pytest.raises(AttributeError, match=r"nothing_here"):
            encoder.add_plugin("x", ("gpuenc.cpu.codecs", "nothing_here"))
        with pytest.raises(AttributeError, match=r"is_available"):
            encoder.add_plugin("x", ("json", "loads"))
        assert encoder.available_plugins == ()

    def test_unknown_label(self):
        with pytest.raises(ValueError, match=r"No plugin named 'nope' has been added to 'RLELosslessEncoder'"):
            gpuenc.get_encoder(RLELossless).encode(np.zeros((2, 2), np.uint8), encoding_plugin="nope")

    def test_missing_dependencies_name_the_extra(self, monkeypatch):
        import pydicom.pixels.encoders.pyjpegls as module

        monkeypatch.setattr(module, "is_available", lambda uid: False)
        encoder = gpuenc.Encoder(JPEGLSLossless)
        encoder.add_plugin("pyjpegls", ("pydicom.pixels.encoders.pyjpegls", "_encode_frame"))
        (line,) = encoder.missing_dependencies
        assert "numpy and pyjpegls>=1.3" in line
        assert "pip install 'gpuenc[pyjpegls]'" in line
        with pytest.raises(RuntimeError, match=r"missing dependencies"):
            encoder.encode(np.zeros((2, 2), np.uint8), encoding_plugin="pyjpegls")

    def test_every_syntax_has_an_encoder(self):
        for syntax in TABLE:
            if syntax.encapsulated:
                assert gpuenc.get_encoder(syntax.uid).is_available
                assert gpuenc.get_encoder(syntax.name) is gpuenc.get_encoder(syntax.uid)

    @pytest.mark.parametrize("uid", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, "1.2.3"])
    def test_no_encoder_for_what_is_not_compressed(self, uid):
        with pytest.raises(NotImplementedError, match=r"No pixel data encoders have been implemented for"):
            gpuenc.get_encoder(uid)

    def test_kwargs_from_ds(self):
        ds = read("CT_small.dcm")
        assert gpuenc.Encoder.kwargs_from_ds(ds) == {
            "rows": 128,
            "columns": 128,
            "samples_per_pixel": 1,
            "number_of_frames": 1,
            "bits_allocated": 16,
            "bits_stored": 16,
            "pixel_representation": 1,
            "photometric_interpretation": "MONOCHROME2",
        }
        del ds.Rows
        with pytest.raises(AttributeError, match=r"missing from the dataset: 'Rows'"):
            gpuenc.Encoder.kwargs_from_ds(ds)
        ds.Rows = None
        with pytest.raises(ValueError, match=r"VM of 0: 'Rows'"):
            gpuenc.Encoder.kwargs_from_ds(ds)


class TestBothCallStyles:
    arr = RNG.integers(0, 4096, (3, 20, 30)).astype(np.uint16)

    @pytest.mark.parametrize(
        "call",
        [
            lambda e, a: e.encode(a, 1),
            lambda e, a: e.encode(a, 1, "imagecodecs"),
            lambda e, a: e.encode(a, 1, "imagecodecs", ""),
            lambda e, a: e.encode(a, idx=1, encoding_plugin="imagecodecs", decoding_plugin=""),
            lambda e, a: e.encode(a, index=1),
            lambda e, a: e.encode(a, index=1, validate=False, encoding_plugin="imagecodecs"),
            lambda e, a: list(e.iter_encode(a))[1],
            lambda e, a: list(e.iter_encode(a, "imagecodecs", ""))[1],
            lambda e, a: list(e.iter_encode(a, validate=True, encoding_plugin="imagecodecs"))[1],
        ],
    )
    def test_call(self, call):
        codestream = call(gpuenc.get_encoder(HTJ2KLossless), self.arr)
        assert isinstance(codestream, bytes)
        assert np.array_equal(decode(HTJ2KLossless, codestream, self.arr[1]), self.arr[1])

    def test_the_index_is_required(self):
        with pytest.raises(ValueError, match=r"The 'index' of the frame to be encoded is required for multi-frame"):
            gpuenc.get_encoder(RLELossless).encode(self.arr)

    def test_the_index_is_checked(self):
        encoder = gpuenc.get_encoder(RLELossless)
        with pytest.raises(ValueError, match=r"'index' must be greater than or equal to 0"):
            encoder.encode(self.arr, index=-1)
        with pytest.raises(RuntimeError, match=r"no frame 3"):
            encoder.encode(self.arr, index=3)


class TestArrays:
    @pytest.mark.parametrize(
        ("dtype", "shape"),
        [
            (dtype, shape)
            for dtype in ("u1", "i1", "<u2", "<i2", ">u2", ">i2", "<u4", "<i4", ">i4")
            for shape in ((9, 7), (9, 7, 3), (2, 9, 7), (2, 9, 7, 3), (1, 9, 7, 1))
            if "u" in dtype or shape[-1] != 3  # signed colour is in no table
        ],
    )
    def test_what_shape_and_dtype_tell_may_be_left_out(self, dtype, shape):
        dtype = np.dtype(dtype)
        bits = min(dtype.itemsize * 8, 31)
        low, high = (-(1 << bits - 1), 1 << bits - 1) if dtype.kind == "i" else (0, 1 << bits)
        arr = RNG.integers(low, high, shape).astype(dtype)
        options = {"bits_stored": 31} if dtype.itemsize == 4 else {}
        uid = HTJ2KLossless
        frames = list(gpuenc.get_encoder(uid).iter_encode(arr, **options))
        stacked = arr.reshape((-1, 9, 7, 3) if shape[-1] == 3 else (-1, 9, 7))
        assert len(frames) == len(stacked)
        for codestream, frame in zip(frames, stacked, strict=True):
            assert parse(codestream, "htj2k").precision == (options.get("bits_stored") or dtype.itemsize * 8)
            native = frame.astype(dtype.newbyteorder("<"))
            assert np.array_equal(decode(uid, codestream, native, bits_stored=options.get("bits_stored")), native)

    @pytest.mark.parametrize("shape", [(1, 16, 12), (16, 12, 1), (1, 16, 12, 1), (16, 12)])
    @pytest.mark.parametrize("told", ["everything", "frames and samples", "samples", "nothing"])
    def test_one_grey_frame_in_every_shape(self, shape, told):
        arr = RNG.integers(0, 65536, (16, 12)).astype(np.uint16)
        names = {"frames and samples": ("number_of_frames", "samples_per_pixel"), "samples": ("samples_per_pixel",)}
        all_of_it = described(arr)
        options = all_of_it if told == "everything" else {name: all_of_it[name] for name in names.get(told, ())}
        (codestream,) = gpuenc.get_encoder(RLELossless).iter_encode(arr.reshape(shape), **options)
        assert np.array_equal(decode(RLELossless, codestream, arr), arr)

    @pytest.mark.parametrize("options", [{"number_of_frames": 5}, {"samples_per_pixel": 1}, {"columns": 3}])
    def test_frames_of_three_columns_are_no_colour(self, options):
        arr = RNG.integers(0, 256, (5, 9, 3)).astype(np.uint8)
        frames = list(gpuenc.get_encoder(RLELossless).iter_encode(arr, **options))
        assert len(frames) == 5
        assert all(np.array_equal(decode(RLELossless, f, a), a) for f, a in zip(frames, arr, strict=True))

    def test_what_is_stated_decides_between_frames_and_samples(self):
        arr = RNG.integers(0, 256, (5, 9, 1)).astype(np.uint8)
        options = {"rows": 9, "columns": 1, "number_of_frames": 5}
        assert len(list(gpuenc.get_encoder(RLELossless).iter_encode(arr, **options))) == 5

    @pytest.mark.parametrize(
        ("shape", "options", "expected"),
        [
            ((1, 64, 65), {"rows": 64, "columns": 64}, r"\(1, 64, 64\) and the actual shape \(1, 64, 65\)"),
            ((64, 65, 3), {"rows": 64, "columns": 64}, r"\(64, 64, 3\) and the actual shape \(64, 65, 3\)"),
            ((2, 64, 64), {"number_of_frames": 3}, r"\(3, 64, 64\) and the actual shape \(2, 64, 64\)"),
        ],
    )
    def test_other_shapes_are_refused(self, shape, options, expected):
        with pytest.raises(ValueError, match=f"Mismatch between the expected ndarray shape {expected}"):
            gpuenc.get_encoder(RLELossless).encode(np.zeros(shape, np.uint8), index=0, **options)

    def test_lossy_jpeg_xl_of_colour_nobody_named(self):
        arr = RNG.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        encoder = gpuenc.get_encoder("jpegxl")
        assert encoder.encode(arr, quality=90).startswith(b"\xff\x0a")
        with pytest.raises(ValueError, match=r"it would be XYB.*gpuenc\.compress"):
            encoder.encode(arr, quality=90, photometric_interpretation="RGB")

    def test_not_contiguous(self):
        arr = RNG.integers(0, 256, (40, 60)).astype(np.uint8)[::2, ::-3]
        codestream = gpuenc.get_encoder(RLELossless).encode(arr)
        assert np.array_equal(decode(RLELossless, codestream, arr), arr)

    def test_bits_stored_is_the_precision(self):
        arr = RNG.integers(0, 4096, (16, 16)).astype(np.uint16)
        assert parse(gpuenc.get_encoder(JPEG2000Lossless).encode(arr, bits_stored=12), "jpeg2000").precision == 12

    @pytest.mark.parametrize("validate", [True, False])
    @pytest.mark.parametrize(
        "uid",
        [s.uid for s in TABLE if s.loss == "never" and s.family != "native" and not s.recompresses_jpeg],
    )
    def test_values_outside_bits_stored_are_never_cut(self, uid, validate):
        arr = np.zeros((8, 8), np.uint16)
        arr[3, 3] = 4096
        with pytest.raises(ValueError, match=r"outside the allowable range of \(0, 4095\).*'12'"):
            gpuenc.get_encoder(uid).encode(arr, bits_stored=12, validate=validate)
        arr[3, 3] = 2048  # -2048 without sign extension, in cells that are not an array's
        with pytest.raises(ValueError, match=r"outside the allowable range of \(-2048, 2047\).*'12'"):
            gpuenc.get_encoder(uid).encode(arr.astype(np.int16), bits_stored=12, validate=validate)

    def test_a_larger_container_is_narrowed_only_if_the_values_fit(self):
        arr = RNG.integers(0, 256, (8, 8)).astype(np.uint32)
        encoder = gpuenc.get_encoder(RLELossless)
        codestream = encoder.encode(arr, bits_allocated=8, bits_stored=8)
        assert np.array_equal(decode(RLELossless, codestream, arr.astype(np.uint8)), arr)
        arr[0, 0] = 256
        with pytest.raises(ValueError, match=r"outside the allowable range"):
            encoder.encode(arr, bits_allocated=8, bits_stored=8)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"rows": 9}, r"Mismatch between the expected ndarray shape \(9, 8\) and the actual shape \(8, 8\)"),
            ({"number_of_frames": 2}, "Mismatch between the expected ndarray shape"),
            ({"pixel_representation": 1}, "not consistent with a .0028,0103. 'Pixel Representation' of '1'"),
            ({"bits_allocated": 32}, "not consistent with a .0028,0100. 'Bits Allocated' value of '32'"),
            ({"bits_stored": 17}, "'Bits Stored' value of '17' is invalid"),
            ({"bits_allocated": 12}, "'Bits Allocated' value of '12' is invalid"),
            ({"samples_per_pixel": 2}, "'Samples per Pixel' value of '2' is invalid"),
            ({"photometric_interpretation": "NOPE"}, "Unknown .0028,0004. 'Photometric Interpretation' value 'NOPE'"),
        ],
    )
    def test_keywords_given_are_checked(self, changes, message):
        arr = np.zeros((8, 8), np.uint16)
        with pytest.raises(ValueError, match=message):
            gpuenc.get_encoder(RLELossless).encode(arr, **described(arr, **changes))

    @pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "?"])
    def test_dtypes_that_are_no_integers(self, dtype):
        with pytest.raises(ValueError, match=r"is not supported, must be a signed or unsigned integer type"):
            gpuenc.get_encoder(RLELossless).encode(np.zeros((4, 4), dtype))

    @pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 4, 3)])
    def test_shapes_that_are_no_images(self, shape):
        with pytest.raises(ValueError, match=r"D ndarrays"):
            gpuenc.get_encoder(RLELossless).encode(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("src", ["text", 3, None, [1, 2]])
    def test_other_types(self, src):
        with pytest.raises(TypeError, match=r"'src' must be bytes, numpy.ndarray or pydicom.dataset.Dataset, not"):
            gpuenc.get_encoder(RLELossless).encode(src)


class TestBuffers:
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_kinds(self, kind):
        arr = RNG.integers(0, 65536, (2, 8, 10)).astype("<u2")
        options = described(arr[0], number_of_frames=2)
        frames = list(gpuenc.get_encoder(RLELossless).iter_encode(kind(arr.tobytes() + b"\0\0"), **options))
        for codestream, frame in zip(frames, arr, strict=True):
            assert np.array_equal(decode(RLELossless, codestream, frame), frame)

    def test_a_description_is_required(self):
        with pytest.raises(AttributeError, match=r"Missing required element"):
            gpuenc.get_encoder(RLELossless).encode(b"\0" * 4)

    def test_too_short(self):
        arr = np.zeros((4, 4), np.uint8)
        with pytest.raises(ValueError, match=r"15 bytes actual vs. 16 expected"):
            gpuenc.get_encoder(RLELossless).encode(b"\0" * 15, **described(arr))
        with pytest.raises(ValueError, match=r"15 bytes actual vs. 16 expected"):
            gpuenc.get_encoder(RLELossless).encode(b"\0" * 15, validate=False, **described(arr))


class TestDatasets:
    @pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb.dcm", "SC_rgb_small_odd_big_endian.dcm"])
    @pytest.mark.parametrize("uid", [RLELossless, HTJ2KLossless, JPEGLSLossless])
    def test_native(self, name, uid):
        ds = read(name)
        codestream = gpuenc.get_encoder(uid).encode(ds)
        expected = ds.pixel_array
        got = decode(uid, codestream, expected, bits_stored=ds.BitsStored)
        assert np.array_equal(got, expected)

    @pytest.mark.parametrize(
        "name", ["MR_small_RLE.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jpeg_gdcm.dcm"]
    )
    def test_compressed_sources_are_decoded_first(self, name):
        ds = read(name)
        codestream = gpuenc.get_encoder(HTJ2KLossless).encode(ds)
        from pydicom.pixels import get_decoder

        expected, _ = get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, raw=True)
        assert np.array_equal(decode(HTJ2KLossless, codestream, expected, bits_stored=ds.BitsStored), expected)

    def test_the_decoding_plugin_is_used(self):
        ds = read("MR_small_RLE.dcm")
        encoder = gpuenc.get_encoder(HTJ2KLossless)
        assert encoder.encode(ds, decoding_plugin="pylibjpeg") == encoder.encode(ds)
        with pytest.raises(RuntimeError, match=r"No plugin named 'nope'"):
            encoder.encode(ds, decoding_plugin="nope")

    def test_a_missing_element(self):
        ds = read("CT_small.dcm")
        del ds.BitsAllocated
        with pytest.raises((AttributeError, ValueError), match=r"Bits ?Allocated"):
            gpuenc.get_encoder(RLELossless).encode(ds)

    @pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "JPEG2000.dcm"])
    def test_keywords_must_agree_with_a_compressed_dataset(self, name):
        ds = read(name)
        encoder = gpuenc.get_encoder(HTJ2KLossless)
        expected = encoder.encode(ds)
        right = {"number_of_frames": 1, "rows": ds.Rows, "bits_stored": ds.BitsStored, "byteorder": "<"}
        assert encoder.encode(ds, **right) == expected
        for keyword, wrong in {"rows": ds.Rows + 1, "number_of_frames": 2, "bits_stored": 3, "byteorder": ">"}.items():
            with pytest.raises(ValueError, match=f"{keyword}=.* contradicts the compressed dataset"):
                encoder.encode(ds, index=0, **{keyword: wrong})

    def test_keywords_override_a_native_dataset(self):
        ds = read("MR_small.dcm")
        expected = ds.pixel_array
        ds.Rows = ds.Rows // 2
        codestream = gpuenc.get_encoder(RLELossless).encode(ds, rows=64)
        assert ds.Rows == 32
        assert np.array_equal(decode(RLELossless, codestream, expected), expected)

    def test_what_is_not_overridden_stays_the_datasets_own(self):
        big = read("MR_small_bigendian.dcm")
        codestream = gpuenc.get_encoder(RLELossless).encode(big, number_of_frames=1)
        assert np.array_equal(decode(RLELossless, codestream, big.pixel_array), big.pixel_array)
        samples = made.noise((1, 8, 8), "u2", 12)
        high = dcmread(BytesIO(made.shifted(samples, 15).file()))
        codestream = gpuenc.get_encoder(HTJ2KLossless).encode(high, number_of_frames=1)
        assert np.array_equal(decode(HTJ2KLossless, codestream, samples[0], bits_stored=12), samples[0])

    @pytest.mark.parametrize("uid", [RLELossless, HTJ2KLossless, "1.2.840.10008.1.2.4.70"])
    def test_colours_that_the_dataset_would_not_go_on_to_say(self, uid):
        ds = dcmread(BytesIO(made.ybr_422(made.noise((1, 8, 4, 4), "u1")).file()))
        encoder = gpuenc.get_encoder(uid)
        with pytest.raises(ValueError, match=r"it would be YBR_FULL, .*gpuenc\.compress"):
            encoder.encode(ds)
        assert encoder.encode(ds, photometric_interpretation="YBR_FULL")

    def test_embedded_overlays_are_not_stripped_silently(self):
        samples, plane = made.noise((1, 8, 8), "u2", 12), made.noise((1, 8, 8), "u1", 1)
        ds = dcmread(BytesIO(made.embedded_overlays(samples, {14: plane}).file()))
        for uid in (RLELossless, HTJ2KLossless):
            for options in ({}, {"number_of_frames": 1}, {"validate": False}):
                with pytest.raises(ValueError, match=r"overlays embedded.*gpuenc\.compress"):
                    gpuenc.get_encoder(uid).encode(ds, **options)
        assert gpuenc.get_encoder("deflated-image-frame").encode(ds)
        assert gpuenc.get_encoder(RLELossless).encode(ds, whole_cells=True)

    def test_the_dataset_says_what_the_codestream_is_to_be(self):
        ds = read("SC_rgb.dcm")
        encoder = gpuenc.get_encoder(JPEG2000Lossless)
        assert parse(encoder.encode(ds), "jpeg2000").mct is False
        ds.PhotometricInterpretation = "YBR_RCT"
        assert parse(encoder.encode(ds), "jpeg2000").mct is True


class TestOptions:
    arr = RNG.integers(0, 4096, (32, 32)).astype(np.uint16)

    @pytest.mark.parametrize(
        ("uid", "options", "message"),
        [
            ("1.2.840.10008.1.2.4.90", {"j2k_cr": [5]}, "did you mean to use 'JPEG 2000' instead"),
            ("1.2.840.10008.1.2.4.80", {"jls_error": 2}, "did you mean to use 'JPEG-LS Near Lossless' instead"),
            ("1.2.840.10008.1.2.4.91", {}, "requires a lossy configuration option such as 'j2k_cr' or 'j2k_psnr'"),
            ("1.2.840.10008.1.2.4.91", {"j2k_cr": [5], "j2k_psnr": [50]}, "please specify only one"),
            ("1.2.840.10008.1.2.4.203", {}, "give psnr or ratio, or ask for lossless"),
        ],
    )
    def test_contradictions(self, uid, options, message):
        with pytest.raises(RuntimeError, match=message):
            gpuenc.get_encoder(uid).encode(self.arr, bits_stored=12, **options)

    def test_near_lossless_keeps_its_promise(self):
        codestream = gpuenc.get_encoder(JPEGLSNearLossless).encode(self.arr, bits_stored=12, jls_error=3)
        back = decode(JPEGLSNearLossless, codestream, self.arr, bits_stored=12)
        worst = np.abs(back.astype(int) - self.arr).max()
        assert 0 < worst <= 3

    def test_verify(self):
        codestream = gpuenc.get_encoder(HTJ2KLossless).encode(self.arr, bits_stored=12, verify=True)
        assert np.array_equal(decode(HTJ2KLossless, codestream, self.arr), self.arr)

    @pytest.mark.parametrize(
        ("uid", "label"),
        [
            (RLELossless, "pylibjpeg"),
            (RLELossless, "gdcm"),
            (RLELossless, "pydicom"),
            (JPEGLSLossless, "pyjpegls"),
            (JPEG2000Lossless, "pylibjpeg"),
        ],
    )
    def test_pydicoms_plugins_work_by_label(self, uid, label):
        codestream = gpuenc.get_encoder(uid).encode(self.arr, bits_stored=12, encoding_plugin=label, verify=True)
        assert np.array_equal(decode(uid, codestream, self.arr, bits_stored=12), self.arr)

    def test_a_plugin_that_is_not_thread_safe_is_never_in_two_threads(self):
        # pylibjpeg-openjpeg 2.6 crashes the interpreter under threads, so this runs in one of its own.
        code = (
            "import numpy as np, gpuenc\n"
            "a = np.random.default_rng(1).integers(0, 4096, (40, 128, 128)).astype('u2')\n"
            "e = gpuenc.get_encoder('jpeg2000-lossless')\n"
            "r = list(e.iter_encode(a, encoding_plugin='pylibjpeg', threads=4, verify=True))\n"
            "print(len(r))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout.strip()) == (0, "40"), done.stderr


class TestIterEncode:
    def test_a_memory_mapped_source_is_not_held(self, tmp_path):
        import tracemalloc

        path = tmp_path / "frames.bin"
        arr = np.memmap(path, np.uint16, "w+", shape=(2000, 64, 64))
        arr[:] = RNG.integers(0, 4096, (64, 64), np.uint16)
        tracemalloc.start()
        encoder = gpuenc.get_encoder(RLELossless)
        budget = 2 << 20
        number = sum(1 for _ in encoder.iter_encode(arr, bits_stored=12, threads=2, memory_bytes=budget))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert number == 2000
        assert peak < budget + (1 << 20)

    def test_nothing_runs_before_the_first_frame_is_asked_for(self):
        before = threading.active_count()
        frames = gpuenc.get_encoder(RLELossless).iter_encode(np.zeros((50, 64, 64), np.uint16))
        assert threading.active_count() == before
        del frames

    def test_threads_are_gone_when_the_consumer_stops(self):
        frames = gpuenc.get_encoder(HTJ2KLossless).iter_encode(
            RNG.integers(0, 4096, (200, 64, 64)).astype(np.uint16), threads=3
        )
        list(islice(frames, 5))
        del frames
        gc.collect()
        assert not [t for t in threading.enumerate() if t.name.startswith("gpuenc")]

    def test_one_encoder_in_many_threads(self):
        arr = RNG.integers(0, 4096, (8, 50, 60)).astype(np.uint16)
        encoder = gpuenc.get_encoder(HTJ2KLossless)
        expected = list(encoder.iter_encode(arr, threads=1))
        with ThreadPoolExecutor(8) as pool:
            for got in pool.map(lambda _: list(encoder.iter_encode(arr, threads=2)), range(24)):
                assert got == expected

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_in_other_processes(self, method):
        arr = RNG.integers(0, 4096, (4, 50, 60)).astype(np.uint16)
        encoder = gpuenc.get_encoder(HTJ2KLossless)
        expected = list(encoder.iter_encode(arr))
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.starmap(_encode_all, [(encoder, arr)] * 3) == [expected] * 3

    def test_pickle(self):
        encoder = gpuenc.Encoder(RLELossless)
        encoder.add_plugin("mine", OURS)
        again = pickle.loads(pickle.dumps(encoder))
        assert again.labels == ("mine",)
        assert str(again.UID) == str(RLELossless)


def _encode_all(encoder, arr):
    return list(encoder.iter_encode(arr))


class TestInsidePydicom:
    """Our plug-in module in pydicom's own encoder, and theirs unchanged."""

    @pytest.mark.parametrize("uid", [RLELossless, JPEG2000Lossless, JPEGLSLossless, HTJ2KLossless])
    @pytest.mark.parametrize("bits", [(8, 8), (16, 12), (16, 8), (16, 16)])
    def test_as_a_plugin(self, uid, bits):
        allocated, stored = bits
        encoder = base.Encoder(uid)
        encoder.add_plugin("gpuenc", OURS)
        arr = RNG.integers(0, 1 << stored, (2, 17, 19)).astype(f"u{allocated // 8}")
        options = described(arr[0], number_of_frames=2, bits_stored=stored)
        for codestream, frame in zip(encoder.iter_encode(arr, **options), arr, strict=True):
            assert np.array_equal(decode(uid, codestream, frame, bits_stored=stored), frame)

    def test_encapsulated_by_pydicom(self):
        arr = RNG.integers(0, 256, (3, 9, 9)).astype(np.uint8)
        frames = list(gpuenc.get_encoder(JPEGLSLossless).iter_encode(arr, layout="NHW"))
        again = list(generate_frames(encapsulate(frames), number_of_frames=3))
        for codestream, frame in zip(again, arr, strict=True):
            assert np.array_equal(decode(JPEGLSLossless, codestream, frame), frame)


def test_dataset_without_pixel_data():
    with pytest.raises((AttributeError, ValueError)):
        gpuenc.get_encoder(RLELossless).encode(Dataset())


def test_gdcms_odd_segments_are_put_on_even_offsets():
    # Two runs and a literal make a plane of 7 bytes.
    arr = np.array([[0x0101, 0x0101], [0x0203, 0x0402], [0x0505, 0x0505]], np.uint16)
    plain = base.get_encoder(RLELossless).encode(arr, encoding_plugin="gdcm", **described(arr))
    assert np.frombuffer(plain[8:12], "<u4") % 2, "gdcm got better: this test shows nothing any more"
    codestream = gpuenc.get_encoder(RLELossless).encode(arr, encoding_plugin="gdcm", verify=True)
    offsets = np.frombuffer(codestream[4:12], "<u4")
    assert not (offsets % 2).any()
    assert np.array_equal(decode(RLELossless, codestream, arr), arr)
