"""Arrays on a GPU, at the door and all the way: encoded where they are, copied to the host if need be."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

import gpuenc
from gpuenc import engine, registry
from gpuenc.cuda import arrays, health, memory, nvcodec, probe
from gpuenc.dicom.arrays import ArrayFrames, DeviceFrames, frames_of_array
from gpuenc.dicom.layouts import Layout, layout_of
from gpuenc.errors import DeviceUnavailable, InvalidPixels, ValuesOutsideBitsStored
from gpuenc.frames import FrameFormat
from gpuenc.plugins import Plugin
from tests.cuda.fake_cupy import Cupy
from tests.cuda.test_nvcodec import CPU, HT, lossless

RLE = "1.2.840.10008.1.2.5"
RNG = np.random.default_rng(8)


@pytest.fixture
def cupy(monkeypatch):
    return Cupy(monkeypatch)


@pytest.fixture
def machine(cupy, simt_gpu, monkeypatch):
    """A machine with CuPy and a GPU whose codestreams are known to be exact; encoders that have not been asked yet."""
    monkeypatch.setattr(registry, "_ENCODERS", {})
    monkeypatch.setattr(nvcodec, "PROVEN", True)
    simt_gpu.cupy = cupy
    return simt_gpu


class Foreign:
    """An array of a library of its own, by DLPack alone."""

    def __init__(self, kind, values=None, on_device=None):
        self.kind, self.values, self.on_device = kind, values, on_device

    def __dlpack_device__(self):
        return (self.kind, 0)

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)


def noise(shape, dtype="u2", bits=12):
    return RNG.integers(0, 1 << bits, shape).astype(dtype)


def test_an_array_is_taken_as_it_lies(cupy):
    values = noise((3, 5, 7))
    there = cupy.put(values, device=1, stream=77)
    taken = arrays.adopted(there)
    assert (taken.address, taken.shape, taken.dtype, taken.device) == (there.values.ctypes.data, (3, 5, 7), "<u2", 1)
    assert taken.owner is there
    assert [entry for entry in cupy.log if entry[0] == "record"] == [("record", taken.ready.ptr, 77)]
    second = taken[1].cells()
    assert (second.address, second.size) == (there.values[1].ctypes.data, 70)
    assert second.__cuda_array_interface__["stream"] == 77
    assert np.array_equal(second.host(), values[1].reshape(-1).view("u1"))
    assert second.host() is second.host()
    assert cupy.host_copies == 1
    assert ("wait", 500, taken.ready.ptr) in cupy.log
    assert cupy.log.index(("wait", 500, taken.ready.ptr)) < cupy.log.index("host copy")


def test_nobody_waits_for_an_array_without_a_stream(cupy):
    taken = arrays.adopted(cupy.put(noise((4, 4))))
    assert taken.ready is None
    assert "stream" not in taken.cells().__cuda_array_interface__
    assert not [entry for entry in cupy.log if entry[0] in ("record", "wait")]


@pytest.mark.parametrize(
    "cut",
    [
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: a.transpose(0, 2, 1),
        lambda a: a[..., 3:6],
        lambda a: a[1:2, ::-1, ::-2],
    ],
    ids=["step", "backwards", "transposed", "cut", "all"],
)
def test_what_is_not_contiguous_is_copied_on_the_device(cupy, cut):
    whole = cupy.put(noise((3, 6, 8)), stream=9)
    part = whole._like(cut(whole.values))
    taken = arrays.adopted(part)
    assert cupy.log.count("device copy") == 1
    assert taken.shape == part.values.shape
    assert np.array_equal(taken.cells().host(), np.ascontiguousarray(part.values).reshape(-1).view("u1"))
    waits = [n for n, entry in enumerate(cupy.log) if entry[0] == "wait"]
    assert waits[0] < cupy.log.index("device copy")


def test_strides_of_axes_of_one_do_not_matter(cupy):
    there = cupy.put(noise((1, 6, 8)))
    interface = there.__cuda_array_interface__ | {"strides": (12345, 16, 2)}
    taken = arrays.adopted(SimpleNamespace(__cuda_array_interface__=interface))
    assert taken.address == there.values.ctypes.data
    assert "device copy" not in cupy.log


def test_dlpack_on_the_host_is_numpys(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    values = noise((4, 4))
    taken = arrays.adopted(Foreign(1, values))
    assert isinstance(taken, np.ndarray)
    assert taken.ctypes.data == values.ctypes.data


def test_dlpack_that_does_not_give_its_array_is_an_error_of_ours():
    class Refuses(Foreign):
        def __dlpack__(self, **options):
            raise BufferError("not exportable")

    with pytest.raises(InvalidPixels, match="not exportable"):
        arrays.adopted(Refuses(1))


@pytest.mark.parametrize("kind", [2, 13])
def test_dlpack_on_a_gpu_is_taken_by_cupy(cupy, kind):
    there = cupy.put(noise((4, 4)), device=2)
    taken = arrays.adopted(Foreign(kind, on_device=there))
    assert (taken.address, taken.device) == (there.values.ctypes.data, 2)
    assert not cupy.host_copies


@pytest.mark.parametrize("kind", [10, 8])
def test_other_devices_than_cudas_are_named(cupy, kind):
    with pytest.raises(InvalidPixels, match=f"type {kind}"):
        arrays.adopted(Foreign(kind))


def test_what_cannot_be_read(cupy):
    there = cupy.put(noise((4, 4), ">u2"))
    with pytest.raises(InvalidPixels, match="little endian"):
        arrays.adopted(there)
    masked = SimpleNamespace(
        __cuda_array_interface__=cupy.put(noise((4, 4))).__cuda_array_interface__ | {"mask": there}
    )
    with pytest.raises(InvalidPixels, match="mask"):
        arrays.adopted(masked)
    nowhere = cupy.put(noise((4, 4))).__cuda_array_interface__ | {"data": (64, False)}
    with pytest.raises(DeviceUnavailable, match="cannot be read"):
        arrays.adopted(SimpleNamespace(__cuda_array_interface__=nowhere))


def test_without_cupy_the_extra_is_named(cupy, monkeypatch):
    there = cupy.put(noise((4, 4)))
    monkeypatch.setitem(sys.modules, "cupy", None)
    encoder = gpuenc.get_encoder(RLE)
    with pytest.raises(RuntimeError, match=r"gpuenc\[cuda13\]"):
        encoder.encode(there)


def test_frames_of_a_device_are_those_of_the_host(cupy):
    cases = [
        (noise((3, 4, 5)), FrameFormat(4, 5, 1, 16, 12, False, "MONOCHROME2"), 0),
        (noise((2, 4, 5, 3), "u1", 8), FrameFormat(4, 5, 3, 8, 8, False, "RGB"), 0),
        (noise((3, 4, 5), "u4", 8), FrameFormat(4, 5, 1, 8, 8, False, "MONOCHROME2"), 3),
        (noise((3, 4, 5), "u1", 8), FrameFormat(4, 5, 1, 16, 8, False, "MONOCHROME2"), 3),
        (noise((2, 4, 5), "u1", 1), FrameFormat(4, 5, 1, 1, 1, False, "MONOCHROME2"), 2),
    ]
    for values, fmt, conversions in cases:
        shape = {"samples_per_pixel": fmt.samples, "number_of_frames": len(values)}
        layout = layout_of(values.shape, values.dtype, shape)
        host, there = (frames_of_array(arr, fmt, layout) for arr in (values, arrays.adopted(cupy.put(values))))
        assert isinstance(host, ArrayFrames)
        assert isinstance(there, DeviceFrames)
        cupy.log.clear()
        frames = [there.frame(n) for n in range(there.number_of_frames)]
        assert not cupy.host_copies
        assert len({id(frame.pixels.owner) for frame in frames}) == (conversions or 1)
        for n, frame in enumerate(frames):
            assert frame.format == fmt
            assert np.array_equal(frame.host_cells(), host.frame(n).pixels), (fmt, n)


@pytest.mark.parametrize(("dtype", "allocated"), [("u2", 8), ("i4", 16), ("u1", 1)])
def test_values_that_do_not_fit_are_refused_on_the_device_too(cupy, dtype, allocated):
    values = (
        np.full((1, 4, 4), 200, dtype) if allocated == 1 else np.full((1, 4, 4), 70000 % (1 << 31), "i8").astype(dtype)
    )
    fmt = FrameFormat(4, 4, 1, allocated, allocated, dtype[0] == "i", "MONOCHROME2")
    for arr in (values, arrays.adopted(cupy.put(values))):
        with pytest.raises(ValuesOutsideBitsStored):
            frames_of_array(arr, fmt, Layout("NHW", (1, 4, 4, 1))).frame(0)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(("dtype", "least", "greatest"), [("u2", 0, 4095), ("i2", -2048, 2047)])
def test_values_are_held_against_bits_stored_where_no_codec_does(cupy, dtype, least, greatest, raw):
    """No codec sees cells that go out raw, and 2048 in 12 signed bits looks like -2048 without sign extension."""
    fmt = FrameFormat(1, 2, 1, 16, 12, dtype == "i2", "MONOCHROME2")
    layout = Layout("NHW", (3, 1, 2, 1))
    values = np.array([[[least, greatest]], [[0, greatest + 1]], [[least - 1, 0] if least else [0, 65535]]], dtype)
    for arr in (values, arrays.adopted(cupy.put(values))):
        frames = frames_of_array(arr, fmt, layout, raw=raw)
        assert np.array_equal(frames.frame(0).host_cells().view(dtype), [least, greatest])
        for index in (1, 2):
            if arr is not values and not raw and dtype == "u2":
                continue  # the kernels refuse them
            with pytest.raises(ValuesOutsideBitsStored, match=rf"\({least}, {greatest}\)"):
                frames.frame(index)
        whole = frames_of_array(arr, fmt, layout, whole_cells=True)
        assert np.array_equal(whole.frame(1).host_cells().view(dtype), values[1, 0])


CASES = {
    "u12": (noise((3, 40, 48)), {"bits_stored": 12}),
    "u8": (noise((2, 40, 48), "u1", 8), {}),
    "s16": (noise((2, 40, 48), "i2", 15), {}),
    "rgb": (noise((2, 40, 48, 3), "u1", 8), {}),
    "planes": (noise((2, 3, 40, 48), "u1", 8), {}),
    "one frame": (noise((40, 48)), {"bits_stored": 12}),
    "narrowed": (noise((2, 40, 48), "u4", 12), {"bits_allocated": 16, "bits_stored": 12}),
}


@pytest.mark.parametrize(("values", "options"), CASES.values(), ids=CASES)
def test_codestreams_are_the_same_and_nothing_is_copied_to_the_host(machine, values, options):
    encoder = gpuenc.get_encoder(HT)
    expected = list(encoder.iter_encode(values, threads=1, **options))
    there = machine.cupy.put(values, stream=3)
    machine.cupy.log.clear()
    assert list(encoder.iter_encode(there, threads=1, **options)) == expected
    assert encoder.encode(there, index=0, **options) == expected[0]
    assert machine.cupy.host_copies == 0
    count = len(expected)
    assert sum(len(place.adopted) for place in machine.workspaces) == count + 1
    assert all(image.on_device for call in machine.calls for image in call)


def test_planes_go_to_the_encoder_as_they_lie_and_are_interleaved_on_the_device_where_they_must_be(machine):
    values = noise((2, 3, 40, 48), "u1", 8)
    there = machine.cupy.put(values)
    list(gpuenc.get_encoder(HT).iter_encode(there, threads=1))
    assert "device copy" not in machine.cupy.log
    encoder = gpuenc.get_encoder("deflated-image-frame")
    expected = list(encoder.iter_encode(np.ascontiguousarray(np.moveaxis(values, 1, 3))))
    assert list(encoder.iter_encode(there, threads=1)) == expected
    assert machine.cupy.log.count("device copy") == 1


def test_verified_on_the_device_they_stay_there(machine):
    values = noise((3, 40, 48))
    encoder = gpuenc.get_encoder(HT)
    expected = list(encoder.iter_encode(values, threads=1, bits_stored=12))
    there = machine.cupy.put(values)
    assert list(encoder.iter_encode(there, threads=1, verify=True, bits_stored=12)) == expected
    assert machine.cupy.host_copies == 0
    assert machine.decoded == [3]
    machine.fault = lambda number: "wrong sample" if number == values[1, 0, 0] else ""
    for codestream, frame in zip(
        encoder.iter_encode(there, threads=1, verify="all", bits_stored=12), values, strict=True
    ):
        assert np.array_equal(decoded(codestream, frame), frame)
    assert machine.cupy.host_copies == 1  # of the frame that the CPU encoded and compared


def test_dlpack_arrays_go_the_same_way(machine):
    values = noise((2, 40, 48))
    encoder = gpuenc.get_encoder(HT)
    expected = list(encoder.iter_encode(values, threads=1))
    assert list(encoder.iter_encode(Foreign(2, on_device=machine.cupy.put(values)), threads=1)) == expected
    assert list(encoder.iter_encode(Foreign(1, values), threads=1)) == expected
    assert machine.cupy.host_copies == 0


def test_what_the_cpu_needs_is_copied_once(machine, monkeypatch):
    monkeypatch.setattr(nvcodec, "PROVEN", False)
    values = noise((4, 40, 48))
    values[:, 0, 0] = range(4)
    machine.fault = lambda number: ("", "wrong sample", "none", "")[number]  # compared, compared and encoded, encoded
    encoder = gpuenc.get_encoder(HT)
    made = list(encoder.iter_encode(machine.cupy.put(values), threads=1, bits_stored=12))
    assert machine.cupy.host_copies == 4
    for codestream, frame in zip(made, values, strict=True):
        assert np.array_equal(decoded(codestream, frame), frame)


def decoded(codestream, like):
    from gpuenc.cpu import decoders

    return decoders.decode(
        HT, codestream, rows=like.shape[0], columns=like.shape[1], samples=1, bits_allocated=16, bits_stored=12,
        signed=False, photometric="MONOCHROME2",
    )  # fmt: skip


@pytest.mark.parametrize("uid", [HT, RLE])
def test_on_the_cpu_they_are_copied(machine, uid):
    values = noise((2, 40, 48))
    encoder = gpuenc.get_encoder(uid)
    there = machine.cupy.put(values)
    assert list(encoder.iter_encode(there, device="cpu")) == list(encoder.iter_encode(values, device="cpu"))
    assert machine.cupy.host_copies == 2
    assert not machine.calls


def test_single_bits_on_a_device(machine):
    values = noise((3, 8, 16), "u1", 1)
    encoder = gpuenc.get_encoder(RLE)
    options = {"bits_allocated": 1}
    there = machine.cupy.put(values)
    assert list(encoder.iter_encode(there, **options)) == list(encoder.iter_encode(values, **options))


def test_an_array_on_another_device_than_the_encoders_is_refused(machine):
    there = machine.cupy.put(noise((2, 40, 48)), device=1)
    encoder = gpuenc.get_encoder(HT)
    for call in (
        lambda: encoder.encode(there, index=0, device=0),
        lambda: list(encoder.iter_encode(there, device="0")),
    ):
        with pytest.raises(ValueError, match="on GPU 1, and the encoder is asked for on GPU 0") as caught:
            call()
        assert caught.value.code == "other-device"
    assert machine.cupy.host_copies == 0
    assert not machine.calls


def test_an_array_is_encoded_by_the_gpu_on_which_it_is(machine, monkeypatch):
    monkeypatch.setattr(probe, "_counted", 2)
    there = machine.cupy.put(noise((2, 40, 48)), device=1)
    assert list(gpuenc.get_encoder(HT).iter_encode(there, threads=1))
    assert {encoder.device_id for encoder in machine.encoders[1:]} == {1}


def test_no_plugin_is_asked_behind_one_that_is_on_another_device(machine, monkeypatch):
    def adopt(self, array):
        raise InvalidPixels("The pixels are on GPU 3, and the encoder is on GPU 0", code="other-device")

    opened = memory.open_workspace

    def elsewhere(device):
        place = opened(device)
        place.adopt = adopt.__get__(place)
        return place

    monkeypatch.setattr(memory, "open_workspace", elsewhere)
    frame = frames_of_array(
        arrays.adopted(machine.cupy.put(noise((1, 40, 48)))), FrameFormat(40, 48, 1, 16, 12, False, "MONOCHROME2"),
        Layout("NHW", (1, 40, 48, 1)),
    ).frame(0)  # fmt: skip
    plugins = [Plugin("nvimgcodec", nvcodec.BatchEncoder, "gpu"), CPU]
    [result] = engine.encode_frames([frame], lossless(HT), plugins, threads=1)
    assert result.code == "other-device"
    assert machine.cupy.host_copies == 0


def test_pixels_on_a_device_that_was_given_up_are_lost_and_the_run_is_not(machine):
    there = machine.cupy.put(noise((2, 40, 48)))

    def batch(images):
        raise RuntimeError("CUDA Runtime failure: '#700' at x.cpp:1")

    machine.batch = batch
    with pytest.raises(RuntimeError, match="was given up") as caught:
        list(gpuenc.get_encoder(HT).iter_encode(there, threads=1))
    assert caught.value.code == "encode-failed"
    assert machine.cupy.host_copies == 0


def test_a_copy_that_fails_has_the_devices_reason(cupy, clean, monkeypatch):
    def get(self, stream=None):
        raise RuntimeError("CUDA Runtime failure: '#2' at x.cpp:1")

    monkeypatch.setattr("tests.cuda.fake_cupy._Array.get", get)
    cells = arrays.adopted(cupy.put(noise((4, 4)))).cells()
    with pytest.raises(RuntimeError) as caught:
        cells.host()
    assert caught.value.code == "device-out-of-memory"
    health.give_up(0, "it hangs")
    with pytest.raises(RuntimeError, match="it hangs") as caught:
        cells.host()
    assert caught.value.code == "device-lost"


def test_a_lane_waits_for_the_event_and_not_for_a_stream_that_may_be_gone(cupy, monkeypatch):
    taken = arrays.adopted(cupy.put(noise((4, 4)), stream=88))
    place = object.__new__(memory.CupyWorkspace)
    place.index, place.stream, place._cupy = 0, 4711, cupy
    cupy.log.clear()
    assert place.adopt(taken.cells())
    assert cupy.log == [("wait", 4711, taken.ready.ptr)]
    with pytest.raises(InvalidPixels, match="on GPU 2") as caught:
        place.adopt(arrays.adopted(cupy.put(noise((4, 4)), device=2)).cells())
    assert caught.value.code == "other-device"


def test_compress_takes_an_array_on_a_device(machine):
    ds = dcmread(get_testdata_file("CT_small.dcm", download=False))
    values = ds.pixel_array + 1
    expected = gpuenc.compress(dcmread(get_testdata_file("CT_small.dcm", download=False)), HT, values, verify=False)
    machine.cupy.log.clear()
    gpuenc.compress(ds, HT, machine.cupy.put(values), verify=False)
    assert ds == expected
    assert machine.cupy.host_copies == 0


def test_compress_refuses_arrays_that_are_not_what_the_dataset_describes(machine):
    ds = dcmread(get_testdata_file("CT_small.dcm", download=False))
    before = ds.PixelData
    for wrong in (noise((3, 3), "i2"), noise((128, 128), "u2")):
        with pytest.raises(ValueError, match="ndarray"):
            gpuenc.compress(ds, HT, machine.cupy.put(wrong))
    assert ds.PixelData == before
