"""Frames decoded on a device: a fake nvImageCodec, and a CuPy whose arrays are numpy's and say where they are."""

from __future__ import annotations

import ctypes
import sys
import types
from contextlib import contextmanager

import numpy as np
import pytest

import gpuenc
from gpuenc.cuda import health, probe
from gpuenc.errors import DecodeFailed, DeviceUnavailable
from tests import made
from tests.cuda import fake_nvimgcodec as fake
from tests.cuda.conftest import pretend
from tests.dicom.files import named
from tests.pipelines.test_dataset import cine


class OnDevice(np.ndarray):
    """An array of the device; `get` copies it to the host."""

    def get(self):
        return np.array(self)

    @property
    def __cuda_array_interface__(self):
        return {"data": (self.ctypes.data, False), "shape": self.shape, "typestr": self.dtype.str, "version": 3}


class Numpy(types.ModuleType):
    """numpy under CuPy's name, with a device and a stream."""

    def __init__(self):
        super().__init__("cupy")
        self.synchronized, self.inside = 0, False
        own = self

        class Stream:
            ptr = 700

            def __init__(self, non_blocking=False):
                assert non_blocking

            def __enter__(self):
                own.inside = True

            def __exit__(self, *_):
                own.inside = False

            def synchronize(self):
                own.synchronized += 1

        @contextmanager
        def device(index):
            yield

        self.cuda = types.SimpleNamespace(Device=device, Stream=Stream)

    def __getattr__(self, name):
        return getattr(np, name)

    def ascontiguousarray(self, array):
        assert isinstance(array, OnDevice)
        return np.ascontiguousarray(array).view(OnDevice)

    def zeros(self, *asked):
        return np.zeros(*asked).view(OnDevice)

    def asarray(self, source):
        assert self.inside, "on another stream than the one that is waited for"
        if isinstance(source, np.ndarray):
            return np.array(source).view(OnDevice)
        interface = source.__cuda_array_interface__
        shape, dtype = interface["shape"], np.dtype(interface["typestr"])
        memory = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(interface["data"][0])
        return np.frombuffer(memory, dtype).reshape(shape).view(OnDevice)


@pytest.fixture
def gpu(monkeypatch):
    """The script of a fake device with CuPy."""
    script = fake.Script()
    script.put = lambda samples: np.array(samples).view(OnDevice)
    pretend(monkeypatch, script)
    monkeypatch.setitem(sys.modules, "cupy", Numpy())
    monkeypatch.setattr(probe, "kernels", lambda device: probe.Answer())
    yield script
    script.hang.set()


def both(path, numbers, **options):
    """Return what the device makes of some frames and what the CPU makes of them."""
    with gpuenc.FrameDataset(path, device="gpu", **options) as there, gpuenc.FrameDataset(path, **options) as here:
        return there.__getitems__(numbers), here.__getitems__(numbers)


def equal(pair):
    theirs, ours = pair
    return all(
        isinstance(one["image"], OnDevice)
        and np.array_equal(one["image"], two["image"])
        and one["index"] == two["index"]
        for one, two in zip(theirs, ours, strict=True)
    )


def test_a_batch_is_decoded_in_one_call(tmp_path, gpu):
    cine(tmp_path / "a.dcm")
    assert equal(both(tmp_path, [3, 1, 4]))
    assert gpu.decoded[-1] == 3
    assert gpu.decoders[-1].closed
    assert sys.modules["cupy"].synchronized == 1


REAL = ("693_J2KR.dcm", "MR_small_jp2klossless.dcm", "RG3_J2KR.dcm", "GDCMJ2K_TextGBR.dcm", "CT_small.dcm",
        "JPEG2000.dcm", "SC_rgb_gdcm_KY.dcm", "examples_ybr_color.dcm")  # fmt: skip


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("options", [{}, {"size": (20, 30)}])
def test_real_frames_are_those_of_the_cpu(gpu, name, options):
    assert equal(both(named(name), [0], **options))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_what_is_shown_is_what_the_cpu_shows(gpu, function):
    assert equal(both(named("693_J2KR.dcm"), [0], window=(40, 400, function), size=(64, 64), invert=True))


@pytest.mark.parametrize("fault", ["none", "zeros", "cut"])
def test_what_the_device_gets_wrong_the_cpu_does(tmp_path, gpu, fault):
    samples = cine(tmp_path / "a.dcm")
    gpu.decode_fault = lambda number: fault
    with gpuenc.FrameDataset(tmp_path, device="gpu") as frames:
        if fault == "zeros":
            with pytest.warns(UserWarning, match="decodes htj2k-lossless of 12 bits wrongly"):
                batch = frames.__getitems__(range(5))
        else:
            batch = frames.__getitems__(range(5))
        for one in batch:
            assert np.array_equal(one["image"], samples[one["index"]])
        calls = len(gpu.decoded)
        assert np.array_equal(frames[2]["image"], samples[2])
        assert len(gpu.decoded) - calls == (0 if fault == "zeros" else 1)  # not asked again for what it gets wrong


def test_one_frame_that_is_not_decoded_costs_no_other(tmp_path, gpu):
    samples = cine(tmp_path / "a.dcm")
    second = int(samples[1].reshape(-1)[0])
    gpu.decode_fault = lambda number: "none" if number == second else ""
    assert equal(both(tmp_path, range(5)))


def test_a_corrupt_frame_is_named(tmp_path, gpu):
    cine(tmp_path / "a.dcm")
    at, count = gpuenc.FrameDataset(tmp_path)._index.find(0)[0].pieces_of(2)[0]
    data = bytearray((tmp_path / "a.dcm").read_bytes())
    data[at + 60 : at + count - 2] = bytes(count - 62)
    (tmp_path / "a.dcm").write_bytes(data)
    with gpuenc.FrameDataset(tmp_path, device="gpu") as frames, pytest.raises(DecodeFailed, match="frame 2"):
        frames.__getitems__([0, 2])


def test_memory_that_does_not_suffice_is_the_cpus_turn(tmp_path, gpu):
    def full(streams):
        raise MemoryError

    cine(tmp_path / "a.dcm")
    gpu.decode_batch = full
    assert equal(both(tmp_path, [0, 1]))
    assert not health.lost(0)


def test_a_lost_device_is_a_named_error(tmp_path, gpu):
    def dead(streams):
        raise RuntimeError("CUDA Runtime failure: '#700' at device.cpp:1")

    cine(tmp_path / "a.dcm")
    gpu.decode_batch = dead
    with gpuenc.FrameDataset(tmp_path, device=0) as frames, pytest.raises(DeviceUnavailable) as caught:
        frames[0]
    assert caught.value.code == "device-lost"
    assert health.lost(0)


def test_without_nvimagecodec_the_cpu_decodes_for_the_device(tmp_path, gpu, monkeypatch):
    cine(tmp_path / "a.dcm")
    monkeypatch.setattr(probe, "probe", lambda device, codec: probe.Answer("not installed"))
    assert equal(both(tmp_path, [0, 1], window=(2000, 4000)))
    assert not gpu.decoded


def test_lossy_frames_are_not_for_the_device(gpu):
    theirs, ours = both(named("JPEG2000.dcm"), [0])
    assert np.array_equal(theirs[0]["image"], ours[0]["image"])
    assert not gpu.decoded


def test_single_bits_and_native_cells_are_copied_there(tmp_path, gpu):
    made.segmentation(made.noise((3, 5, 7), "u1", 1)).write(tmp_path / "a.dcm")
    made.of(made.noise((2, 5, 7), "i2", 12), stored=12).write(tmp_path / "b.dcm")
    assert equal(both(tmp_path, range(5)))
