"""Which axis is which, from the first question to the codestream; nothing on the host is copied for it."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from importlib.util import find_spec

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

import gpuenc
from gpuenc.cpu import decoders
from gpuenc.dicom.arrays import frames_of_array
from gpuenc.dicom.layouts import layout_of
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import TABLE

RNG = np.random.default_rng(11)
HT, RLE = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5"
U1, U2 = np.dtype("u1"), np.dtype("u2")
LOSSLESS = [s.uid for s in TABLE if s.loss == "never" and s.encapsulated and not s.recompresses_jpeg]


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "axes", "expected"),
    [
        ((20, 30), U1, {}, "HW", (1, 20, 30, 1)),
        ((5, 20, 30), U1, {}, "NHW", (5, 20, 30, 1)),
        ((20, 30, 3), U1, {}, "HWC", (1, 20, 30, 3)),
        ((20, 30, 1), U1, {}, "HWC", (1, 20, 30, 1)),
        ((1, 20, 30), U1, {}, "CHW", (1, 20, 30, 1)),
        ((3, 20, 30), U2, {}, "NHW", (3, 20, 30, 1)),
        ((3, 20, 30), U1, {"samples_per_pixel": 3}, "CHW", (1, 20, 30, 3)),
        ((3, 20, 30), U2, {"samples_per_pixel": 3}, "CHW", (1, 20, 30, 3)),
        ((3, 20, 30), U1, {"number_of_frames": 3}, "NHW", (3, 20, 30, 1)),
        ((3, 20, 30), U1, {"bits_allocated": 1}, "NHW", (3, 20, 30, 1)),
        ((4, 20, 30, 3), U1, {}, "NHWC", (4, 20, 30, 3)),
        ((4, 3, 20, 30), U1, {}, "NCHW", (4, 20, 30, 3)),
        ((4, 1, 20, 30), U1, {}, "NCHW", (4, 20, 30, 1)),
        ((4, 20, 30, 1), U1, {}, "NHWC", (4, 20, 30, 1)),
        ((4, 3, 5, 3), U1, {"rows": 5}, "NCHW", (4, 5, 3, 3)),
        ((9, 20, 3), U1, {"rows": 20, "columns": 3}, "NHW", (9, 20, 3, 1)),
        ((4, 9, 3), U1, {}, "HWC", (1, 4, 9, 3)),
        ((3, 9, 1), U1, {}, "HWC", (1, 3, 9, 1)),
        ((3, 9, 3), U1, {"rows": 3}, "HWC", (1, 3, 9, 3)),
        ((3, 9, 3), U1, {"rows": 9, "samples_per_pixel": 3}, "CHW", (1, 9, 3, 3)),
        ((3, 9, 3), U2, {"samples_per_pixel": 1}, "NHW", (3, 9, 3, 1)),
        ((3, 3, 3), U1, {"rows": 3, "columns": 3, "samples_per_pixel": 3}, "HWC", (1, 3, 3, 3)),
        ((3, 3, 3), U1, {"rows": 3, "columns": 3, "samples_per_pixel": 1}, "NHW", (3, 3, 3, 1)),
    ],
)
def test_what_shape_dtype_and_keywords_tell(shape, dtype, options, axes, expected):
    found = layout_of(shape, dtype, options)
    assert found.shape == expected
    assert found.axes == axes


@pytest.mark.parametrize(
    ("shape", "can"),
    [
        ((3, 20, 30), ("CHW", "NHW")),
        ((4, 3, 5, 3), ("NHWC", "NCHW")),
        ((4, 3, 3, 3), ("NHWC", "NCHW")),
        ((3, 3, 3), ("HWC", "CHW", "NHW")),
        ((3, 9, 3), ("HWC", "CHW", "NHW")),
    ],
)
def test_what_is_ambiguous_is_refused_until_the_layout_is_said(shape, can):
    arr = RNG.integers(0, 256, shape).astype(np.uint8)
    encoder = gpuenc.get_encoder(RLE)
    with pytest.raises(ValueError, match="more than one way: say which") as caught:
        list(encoder.iter_encode(arr))
    assert caught.value.code == "ambiguous-layout"
    for axes in can:
        assert f"layout='{axes}'" in str(caught.value)
        assert list(encoder.iter_encode(arr, layout=axes))


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((3, 20, 30), "NWH", "layout is one of HW, HWC"),
        ((3, 20, 30), "NCHW", "has 4 axes, and the array's shape is"),
        ((5, 20, 30), "CHW", "makes 5 samples per pixel"),
    ],
)
def test_layouts_that_cannot_be(shape, axes, message):
    with pytest.raises(ValueError, match=message):
        gpuenc.get_encoder(RLE).encode(np.zeros(shape, np.uint8), index=0, layout=axes)


@pytest.mark.parametrize("axes", ["nchw", "NWH"])
def test_a_layout_that_is_none_is_no_matter_of_plugins(axes):
    """As it would be said with the words for what each of them raised."""
    with pytest.raises(ValueError, match=rf"^layout is one of HW, HWC, .*NCHW, not '{axes}'$") as caught:
        gpuenc.get_encoder(RLE).encode(np.zeros((1, 3, 8, 8), np.uint8), layout=axes)
    assert caught.value.code == "invalid-option"


@pytest.mark.parametrize("src", [bytes(64), Dataset()])
def test_a_layout_without_an_array_is_refused(src):
    with pytest.raises(ValueError, match="names the axes of an array"):
        gpuenc.get_encoder(RLE).encode(src, layout="HW", rows=8, columns=8)


@pytest.mark.parametrize("uid", LOSSLESS)
def test_planes_and_pixels_make_the_same_codestreams(uid):
    """Which the same decoder, that never heard of layouts, gives back."""
    arr = RNG.integers(0, 256, (2, 3, 24, 40)).astype(np.uint8)
    interleaved = np.ascontiguousarray(np.moveaxis(arr, 1, 3))
    last = np.moveaxis(interleaved, 3, 1)  # channels_last, as torch has it
    encoder = gpuenc.get_encoder(uid)
    expected = list(encoder.iter_encode(interleaved))
    for src in (arr, last, arr[:, :, ::-1][:, :, ::-1], RNG.integers(0, 2, arr.shape) * 0 + arr):
        assert list(encoder.iter_encode(src.astype(np.uint8, copy=False))) == expected
    if uid not in ("1.2.840.10008.1.2.8.1",):
        got = decoders.decode(
            uid, expected[1], rows=24, columns=40, samples=3, bits_allocated=8, bits_stored=8, signed=False,
            photometric="YBR_RCT" if "4.9" in uid or "4.20" in uid else "RGB",
        )  # fmt: skip
        assert np.array_equal(got, interleaved[1])


FORMATS = {
    "NHW": ((4, 20, 30), FrameFormat(20, 30, 1, 16, 16, False, "MONOCHROME2")),
    "NHWC": ((4, 20, 30, 3), FrameFormat(20, 30, 3, 16, 16, False, "RGB")),
    "NCHW": ((4, 3, 20, 30), FrameFormat(20, 30, 3, 16, 16, False, "RGB")),
}


@pytest.mark.parametrize(("shape", "fmt"), FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("cut", ["whole", "every other frame", "backwards", "channels last"])
def test_frames_on_the_host_are_views(shape, fmt, cut):
    arr = RNG.integers(0, 4096, shape).astype(np.uint16)
    if cut == "every other frame":
        arr = arr[::2]
    elif cut == "backwards":
        arr = arr[::-1]
    elif cut == "channels last":
        arr = np.moveaxis(np.ascontiguousarray(np.moveaxis(arr, 1, -1)), -1, 1) if shape[1] == 3 else arr
    frames = frames_of_array(arr, fmt, layout_of(arr.shape, arr.dtype, {}))
    for index in range(len(arr)):
        frame = frames.frame(index)
        assert np.shares_memory(frame.pixels, arr)
        samples = frame.pixels.view(np.uint16)
        if frame.format.planar:
            assert np.array_equal(samples.reshape(3, 20, 30), arr[index])
        else:
            expected = np.moveaxis(arr[index], 0, -1) if shape[1] == 3 else arr[index]
            assert np.array_equal(samples, expected.reshape(-1))


@pytest.mark.parametrize("call", ["iter_encode", "compress"])
def test_a_large_array_is_not_copied_once_more(call):
    """Read-only zeros of 64 MB cost what a few frames cost; numpy's memory is seen by tracemalloc."""
    arr = np.broadcast_to(np.zeros((), np.uint16), (128, 512, 512))
    ds = described(arr)
    tracemalloc.start()
    try:
        if call == "compress":
            gpuenc.compress(ds, HT, arr, verify=False, threads=1)
        else:
            assert sum(1 for _ in gpuenc.get_encoder(HT).iter_encode(arr, threads=1, memory_bytes=8 << 20)) == 128
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The length of Pixel Data that compress states is address space without pages, and tracemalloc counts it.
    stated = arr.size * 2 if call == "compress" else 0
    assert peak - stated < arr.size * 2 // 3


def described(arr):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.NumberOfFrames, ds.Rows, ds.Columns = arr.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    return ds


@pytest.mark.parametrize("syntax", ["htj2k-lossless", "rle", "explicit-vr-little-endian"])
def test_compress_takes_planes(syntax):
    arr = RNG.integers(0, 256, (2, 3, 24, 40)).astype(np.uint8)
    ds = described(np.zeros((2, 24, 40), np.uint8))
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    gpuenc.compress(ds, syntax, arr)
    codestreams_say = ds.PhotometricInterpretation in ("RGB", "YBR_RCT")
    assert codestreams_say
    native = gpuenc.compress(ds, "explicit-vr-little-endian")
    shape = (2, 3, 24, 40) if native.PlanarConfiguration else (2, 24, 40, 3)
    got = np.frombuffer(native.PixelData, np.uint8).reshape(shape)
    assert np.array_equal(got if native.PlanarConfiguration else np.moveaxis(got, 3, 1), arr)


JAX = """
import jax, numpy as np, gpuenc
from gpuenc.dicom.arrays import taken
jax.config.update("jax_platforms", "cpu")
values = np.random.default_rng(0).integers(0, 4096, (4, 3, 20, 30)).astype(np.uint16)
arr = jax.device_put(values)
assert taken(arr).ctypes.data == arr.unsafe_buffer_pointer()
encoder = gpuenc.get_encoder("htj2k-lossless")
assert list(encoder.iter_encode(arr, bits_stored=12)) == list(encoder.iter_encode(values, bits_stored=12))
try:
    encoder.encode(arr[0, 0].astype("float32"))
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(not find_spec("jax"), reason="JAX is not installed")
def test_arrays_of_jax():
    # In a process of its own: JAX starts threads, and other tests fork.
    run = subprocess.run([sys.executable, "-c", JAX], capture_output=True, text=True, check=True)
    assert "float32" in run.stdout
    assert "rescale='range'" in run.stdout


def test_tensors_of_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from gpuenc.dicom.arrays import taken

    values = RNG.integers(0, 4096, (4, 3, 20, 30)).astype(np.int16)
    tensor = torch.from_numpy(values)
    assert np.shares_memory(taken(tensor), values)
    encoder = gpuenc.get_encoder(HT)
    expected = list(encoder.iter_encode(values))
    assert list(encoder.iter_encode(tensor)) == expected
    assert list(encoder.iter_encode(tensor.contiguous(memory_format=torch.channels_last))) == expected
