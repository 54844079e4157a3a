"""`memory.CupyWorkspace` over a stand-in for CuPy whose device memory is the host's: what is copied, and when."""

from __future__ import annotations

import sys
import types
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from gpuenc.cuda import memory
from gpuenc.errors import InvalidPixels


class DeviceArray(np.ndarray):
    """An array that calls its address as CuPy does, and takes copies as CuPy does."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, values, stream):
        self.log.append(("copy", values.size, stream))
        np.copyto(self.view(np.ndarray), values)

    log: list = []  # noqa: RUF012 - replaced for each test


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in; its `log` has what was asked of the device."""
    log = []
    monkeypatch.setattr(DeviceArray, "log", log)

    class Stream:
        ptr = 4711

        def __init__(self, non_blocking):
            assert non_blocking

        def synchronize(self):
            log.append("synchronize")

        def __enter__(self):
            log.append("enter")

        def __exit__(self, *_):
            log.append("exit")

    @contextmanager
    def device(index):
        log.append(f"device {index}")
        yield

    runtime = SimpleNamespace(
        pointerGetAttributes=lambda pointer: SimpleNamespace(device=pointer >> 40),
        eventRecord=lambda event, stream: log.append(("record", event, stream)),
        streamWaitEvent=lambda stream, event: log.append(("wait", stream, event)),
    )
    made = types.ModuleType("cupy")
    made.log = log
    made.empty = lambda size, dtype: np.full(size, 255, dtype).view(DeviceArray)
    made.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: log.append("free"))
    made.cuda = SimpleNamespace(
        Device=lambda index: device(index) if log is not None else nullcontext(),
        Stream=Stream,
        PinnedMemory=lambda size: log.append(("pin", size)) or np.empty(size, np.uint8),
        PinnedMemoryPointer=lambda buffer, offset: buffer,
        Event=lambda disable_timing: SimpleNamespace(ptr=99),
        runtime=runtime,
    )
    monkeypatch.setitem(sys.modules, "cupy", made)
    monkeypatch.setattr(memory, "CupyDevice", lambda index: SimpleNamespace(index=index))
    return made


def read(view):
    """Return what is at a view's address."""
    import ctypes

    return bytes((ctypes.c_uint8 * view.shape[0]).from_address(view.address))


def test_a_batch_is_one_copy_from_pinned_memory(cupy):
    place = memory.open_workspace(1)
    cells = [np.full(size, number, np.uint8) for number, size in enumerate((300, 256, 7), 1)]
    views = place.stage(cells)
    assert [read(view) for view in views] == [bytes(cell) for cell in cells]
    assert [view.address % 256 for view in views] == [views[0].address % 256] * 3
    assert [entry for entry in cupy.log if entry[0] == "copy"] == [("copy", 1024, place._own)]
    assert all(view.__cuda_array_interface__["stream"] == 4711 for view in views)
    assert "device 1" in cupy.log


def test_buffers_are_kept_and_the_copy_before_is_waited_for(cupy):
    place = memory.open_workspace(0)
    place.stage([np.zeros(1000, np.uint8)])
    cupy.log.clear()
    place.stage([np.ones(500, np.uint8)])
    assert not [entry for entry in cupy.log if entry[0] == "pin"]
    assert cupy.log.index("synchronize") < cupy.log.index(("copy", 512, place._own))
    place.stage([np.ones(5000, np.uint8)])
    assert [entry for entry in cupy.log if entry[0] == "pin"] == [("pin", 5120)]
    place.close()
    assert place._host is None
    assert place._room is None


def test_a_callers_array_is_waited_for_on_the_device_and_not_on_the_host(cupy):
    place = memory.open_workspace(2)
    array = memory.View(2 << 40, (10,), "|u1", 555)
    assert place.adopt(array) is array
    assert cupy.log[-2:] == [("record", 99, 555), ("wait", 4711, 99)]
    assert "synchronize" not in cupy.log
    cupy.log.clear()
    place.adopt(memory.View(2 << 40, (10,), "|u1"))
    assert not cupy.log


def test_what_cannot_be_adopted(cupy):
    place = memory.open_workspace(0)
    with pytest.raises(InvalidPixels, match="on GPU 3, and the encoder is on GPU 0") as caught:
        place.adopt(memory.View(3 << 40, (10,), "|u1"))
    assert caught.value.code == "other-device"
    strided = SimpleNamespace(__cuda_array_interface__={"data": (0, False), "shape": (2, 2), "strides": (8, 1)})
    with pytest.raises(InvalidPixels, match="contiguous"):
        place.adopt(strided)


def test_without_cupy_there_is_no_workspace(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert memory.open_workspace(0) is None
    assert memory.free_device_bytes(0) == 4 << 30


def test_trimming_gives_back_what_is_cached(cupy):
    place = memory.open_workspace(0)
    place.trim()
    assert cupy.log[-1] == "free"
