"""A stand-in for CuPy whose device memory is the host's: what is copied, where, and after what, is in its `log`.

Memory that `put` made belongs to a device, by its address, and nothing may read it but by this module: what goes to the
host goes through `ndarray.get`, and is logged as ``"host copy"``.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import types
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np


class Cupy(types.ModuleType):
    """The module, to be put into ``sys.modules``."""

    def __init__(self, monkeypatch):
        super().__init__("cupy")
        self.log = []
        self._devices = {}
        self._events = itertools.count(9000)
        self._stream = SimpleNamespace(ptr=0)
        own = self

        class Array(_Array):
            cupy = own

        class Stream:
            def __init__(self, non_blocking=False):
                self.ptr = 500

            def __enter__(self):
                own._stream = self

            def __exit__(self, *_):
                own._stream = SimpleNamespace(ptr=0)

            def synchronize(self):
                own.log.append("synchronize")

        def attributes(address):
            for (start, stop), (device, _) in own._devices.items():
                if start <= address < stop:
                    return SimpleNamespace(device=device)
            raise RuntimeError("cudaErrorInvalidValue: invalid argument")

        def event(disable_timing):
            assert disable_timing
            return SimpleNamespace(ptr=next(own._events))

        @contextmanager
        def current(index):
            own.log.append(f"device {index}")
            yield

        self.ndarray = Array
        self.cuda = SimpleNamespace(
            Device=current,
            Stream=Stream,
            Event=event,
            get_current_stream=lambda: own._stream,
            UnownedMemory=lambda address, size, owner, device: SimpleNamespace(ptr=address, size=size, owner=owner),
            MemoryPointer=lambda memory, offset: SimpleNamespace(ptr=memory.ptr + offset, memory=memory),
            runtime=SimpleNamespace(
                pointerGetAttributes=attributes,
                eventRecord=lambda event, stream: own.log.append(("record", event, stream)),
                streamWaitEvent=lambda stream, event: own.log.append(("wait", stream, event)),
            ),
        )
        monkeypatch.setitem(sys.modules, "cupy", self)

    def put(self, values, device=0, stream=0):
        """Return an array of `values` on a device, being written on `stream`."""
        return self._own(np.array(values), device, stream)

    def _own(self, values, device=0, stream=0):
        array = self.ndarray.__new__(self.ndarray)
        array.values, array.stream = values, stream
        base = values if values.base is None else values.base
        start = base.ctypes.data
        self._devices[start, start + max(1, base.nbytes)] = device, base
        return array

    def ascontiguousarray(self, array):
        self.log.append("device copy")
        return self._own(np.array(array.values, order="C"), stream=1)

    def moveaxis(self, array, source, destination):
        return array._like(np.moveaxis(array.values, source, destination))

    def empty(self, shape, dtype):
        return self._own(np.empty(shape, dtype))

    def rint(self, array):
        return array._like(np.rint(array.values))

    def packbits(self, array, bitorder):
        return self._own(np.packbits(array.values, bitorder=bitorder), stream=1)

    def from_dlpack(self, src):
        self.log.append("from_dlpack")
        return src.on_device

    @property
    def host_copies(self):
        return self.log.count("host copy")


class _Array:
    """As CuPy's ndarray, as far as gpuenc uses it."""

    def __init__(self, shape, dtype, pointer, strides=None):
        dtype = np.dtype(dtype)
        memory = pointer.memory
        raw = np.frombuffer((ctypes.c_uint8 * memory.size).from_address(memory.ptr), np.uint8)
        self.values = np.ndarray(shape, dtype, raw, pointer.ptr - memory.ptr, strides)
        self.stream = 0

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    @property
    def __cuda_array_interface__(self):
        contiguous = self.values.flags.c_contiguous
        return {
            "data": (self.values.ctypes.data, False), "shape": self.values.shape, "typestr": self.values.dtype.str,
            "strides": None if contiguous else self.values.strides, "version": 3,
        } | ({"stream": self.stream} if self.stream else {})  # fmt: skip

    size = property(lambda self: self.values.size)

    def reshape(self, *shape):
        return self._like(self.values.reshape(*shape))

    def astype(self, dtype):
        return self._like(self.values.astype(dtype), 1)

    def __sub__(self, number):
        return self._like(self.values - number)

    def __truediv__(self, number):
        return self._like(self.values / number)

    def __len__(self):
        return len(self.values)

    def __setitem__(self, key, array):
        self.values[key] = array.values

    def min(self):
        return self.values.min()

    def max(self):
        return self.values.max()

    def all(self):
        return self.values.all()

    def __eq__(self, other):
        return self._like(self.values == other.values)

    __hash__ = None

    def __getitem__(self, key):
        return self._like(self.values[key])

    def get(self, stream=None):
        self.cupy.log.append("host copy")
        return self.values.copy()

    def _like(self, values, stream=0):
        return self.cupy._own(values, stream=stream or self.stream)
