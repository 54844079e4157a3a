"""A machine with a GPU, as far as gpuenc can see."""

from __future__ import annotations

import ctypes
import sys
import types
from contextlib import nullcontext
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from gpuenc.cuda import health, memory, probe
from gpuenc.frames import DeviceCells
from tests.cuda import fake_nvimgcodec as fake


@pytest.fixture
def clean(monkeypatch):
    """No answer and no lost device is left from or for other tests."""
    monkeypatch.setattr(probe, "_ANSWERS", {})
    monkeypatch.setattr(probe, "_counted", None)
    monkeypatch.setattr(health, "_LOST", {})
    monkeypatch.setattr(probe, "_cuda_was_used", False)
    monkeypatch.delenv(memory.DEVICE_MEMORY, raising=False)


def pretend(patch, script):
    """Make gpuenc see a driver, a device and the fake nvImageCodec."""
    parent = types.ModuleType("nvidia")
    parent.__path__ = []
    parent.__spec__ = ModuleSpec("nvidia", None, is_package=True)
    patch.setitem(sys.modules, "nvidia", parent)
    patch.setitem(sys.modules, "nvidia.nvimgcodec", fake.module(script))
    patch.setattr(probe, "_ANSWERS", {})
    patch.setattr(probe, "_counted", None)
    patch.setattr(health, "_LOST", {})
    patch.setattr(probe, "_driver_version", lambda: 13000)
    patch.setattr(probe, "_initialise", lambda device: "")
    patch.setattr(probe, "_count", lambda: 1)
    patch.setattr(probe, "_version", lambda name: "0.9.0.20" if name.endswith("cu13") else "")
    patch.setattr(memory, "free_device_bytes", lambda device: 4 << 30)


@pytest.fixture
def gpu(clean, monkeypatch):
    """The script of a fake nvImageCodec on a fake GPU without CuPy."""
    script = fake.Script()
    pretend(monkeypatch, script)
    monkeypatch.setattr(memory, "open_workspace", lambda device: None)
    yield script
    script.hang.set()


class SimtWorkspace:
    """A lane's place on the device that the kernels' tests use: every access of every kernel is checked."""

    stream = 77

    def __init__(self):
        from tests.simt.shim import SimtDevice

        self.kernels = SimtDevice()
        self.adopted, self.trimmed, self.closed = [], 0, False

    def current(self):
        return nullcontext()

    def stage(self, cells):
        return [self.kernels.put(cell) for cell in cells]

    def adopt(self, array):
        self.adopted.append(array)
        if isinstance(array, DeviceCells):  # the fake CuPy's memory is unknown to the shim
            there = (ctypes.c_uint8 * array.size).from_address(array.address)
            return self.kernels.put(np.frombuffer(there, np.uint8))
        return array

    def trim(self):
        self.trimmed += 1

    def close(self):
        self.closed = True


@pytest.fixture
def simt_gpu(gpu, monkeypatch):
    """The same with CuPy: kernels run, under the shim."""
    made = []

    def opened(device):
        made.append(SimtWorkspace())
        gpu.put = made[-1].kernels.put
        return made[-1]

    monkeypatch.setattr(memory, "open_workspace", opened)
    gpu.workspaces = made
    return gpu
