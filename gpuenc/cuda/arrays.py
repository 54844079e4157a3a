"""Callers' arrays on a device: found by the interfaces that libraries share, described, and never copied to the host.

``__cuda_array_interface__`` (CuPy, PyTorch, Numba) and DLPack (these, JAX and TensorFlow). What is still being written
to an array is waited for on the device, by an event that is recorded when the array is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cuda import health
from gpuenc.errors import CodecError, DeviceUnavailable, InvalidPixels
from gpuenc.frames import DeviceCells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuenc.frames import Event

# DLDeviceType of DLPack.
_DL_HOST = frozenset({1, 3})  # kDLCPU, kDLCUDAHost
_DL_CUDA = frozenset({2, 13})  # kDLCUDA, kDLCUDAManaged


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """An array in the memory of a GPU, C-contiguous, little endian.

    Parameters
    ----------
    address : int
        Where it begins.
    shape, dtype
        As numpy's.
    device : int
        Which of the visible GPUs.
    stream, ready, owner
        As of `gpuenc.frames.DeviceCells`.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int
    stream: int
    ready: Event | None
    owner: object

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        stream = {"stream": self.stream} if self.stream else {}
        data = {"data": (self.address, True), "shape": self.shape, "typestr": self.dtype.str, "strides": None}
        return data | {"version": 3} | stream

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        """Return the same memory as an array of another shape."""
        if math.prod(shape) != math.prod(self.shape):
            raise InvalidPixels(f"an array of shape {self.shape} has no shape {shape}")
        return replace(self, shape=shape)

    def __getitem__(self, index: int) -> DeviceArray:
        """Return what is at `index`, from 0, of the first axis: a view."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        return replace(self, address=self.address + index * size, shape=self.shape[1:])

    def converted(self, dtype: np.dtype[Any]) -> DeviceArray | None:
        """Return a copy on the device of another type of integers, or None where a value does not fit it."""
        cupy, values = _waited_for(self)
        with cupy.cuda.Device(self.device):
            cast = values.astype(dtype)
            if dtype.itemsize < self.dtype.itemsize and not bool((cast == values).all()):
                return None
            return _described(cupy, cast)

    def interleaved(self) -> DeviceArray:
        """Return a copy on the device of (frames, samples, rows, columns) as (frames, rows, columns, samples)."""
        cupy, values = _waited_for(self)
        with cupy.cuda.Device(self.device):
            return _described(cupy, cupy.ascontiguousarray(cupy.moveaxis(values, 1, 3)))

    def extremes(self) -> tuple[float, float]:
        """Return its least and greatest value; NaN where one is."""
        cupy, values = _waited_for(self)
        with cupy.cuda.Device(self.device):
            return float(values.min()), float(values.max())

    def quantised(self, slope: float, intercept: float, dtype: np.dtype[Any]) -> DeviceArray | None:
        """Return on the device the integers nearest to (value - `intercept`) / `slope`; None where one does not fit."""
        cupy, values = _waited_for(self)
        limits = np.iinfo(dtype)
        with cupy.cuda.Device(self.device):
            stored = cupy.empty(self.shape, dtype)
            shape = (1, *self.shape) if len(self.shape) == 2 else self.shape
            frames, out = values.reshape(shape), stored.reshape(shape)
            for index in range(len(frames)):
                nearest = cupy.rint((frames[index].astype(np.dtype(np.float64)) - intercept) / slope)
                if not (float(nearest.min()) >= limits.min and float(nearest.max()) <= limits.max):
                    return None
                out[index] = nearest.astype(dtype)
            return _described(cupy, stored)

    def packed(self) -> DeviceArray | None:
        """Return samples of 1 bit on the device, eight to a byte, the first least significant; None if one is not."""
        cupy, values = _waited_for(self)
        with cupy.cuda.Device(self.device):
            if values.size and int(values.max()) > 1:
                return None
            return _described(cupy, cupy.packbits(values.reshape(-1), bitorder="little"))

    def cells(self) -> DeviceCells:
        """Return it as the native cells of a frame."""
        size = math.prod(self.shape) * self.dtype.itemsize
        return DeviceCells(self.address, size, self.device, self.stream, self.ready, self.owner, fetched)


def is_foreign(src: object) -> bool:
    """Whether `src` is an array of another library than numpy, by its interface."""
    return hasattr(src, "__cuda_array_interface__") or (
        hasattr(src, "__dlpack__") and hasattr(src, "__dlpack_device__")
    )


def adopted(src: Any) -> NDArray[Any] | DeviceArray:
    """Return an array of any library as numpy's, if it is on the host, or as a `DeviceArray`.

    Nothing is copied, but for arrays on a device that are not C-contiguous, which are copied there.

    Parameters
    ----------
    src : object
        With ``__cuda_array_interface__`` or DLPack.

    Raises
    ------
    DeviceUnavailable
        It is on a device, and CuPy is not there or has no device.
    InvalidPixels
        It is on a device that is no CUDA GPU, has a mask, or numbers that are not little endian.
    """
    if not hasattr(src, "__cuda_array_interface__"):
        kind = int(src.__dlpack_device__()[0])
        if kind in _DL_HOST:
            try:
                there: NDArray[Any] = np.from_dlpack(src)
            except (BufferError, RuntimeError, TypeError, ValueError) as error:
                raise InvalidPixels(f"The array cannot be read by DLPack: {error}") from error
            return there
        if kind not in _DL_CUDA:
            raise InvalidPixels(
                f"Arrays on devices of DLPack's type {kind} are not read: only the host's and CUDA's are"
            )
    cupy = _cupy()
    try:
        if not hasattr(src, "__cuda_array_interface__"):
            src = cupy.from_dlpack(src)
        return _described(cupy, src)
    except (InvalidPixels, TypeError):
        raise
    except Exception as error:
        fault = health.classify(error)
        raise DeviceUnavailable(f"The array on the GPU cannot be read: {fault.reason}") from error


def fetched(cells: DeviceCells) -> NDArray[np.uint8]:
    """Return a copy of `cells` on the host, once they are written.

    Raises
    ------
    CodecError
        The device does not give them.
    """
    lost = health.lost(cells.device)
    if lost:
        raise CodecError(f"the pixels are on GPU {cells.device}, which was given up: {lost}", code="device-lost")
    cupy = _cupy()
    try:
        with cupy.cuda.Device(cells.device):
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                _wait(cupy, stream.ptr, cells.ready)
                copy: NDArray[np.uint8] = _as_cupy(cupy, cells, (cells.size,), np.dtype("u1")).get(stream=stream)
                stream.synchronize()
        return copy
    except Exception as error:
        fault = health.classify(error)
        raise CodecError(
            f"the pixels on GPU {cells.device} cannot be copied to the host: {fault.reason}", code=fault.code
        ) from error


def _described(cupy: Any, src: Any) -> DeviceArray:
    interface = src.__cuda_array_interface__
    dtype, shape = np.dtype(interface["typestr"]), tuple(int(size) for size in interface["shape"])
    if dtype.byteorder == ">":
        raise InvalidPixels("Arrays on a device must be little endian")
    if interface.get("mask") is not None:
        raise InvalidPixels("Arrays with a mask are not encoded")
    address = int(interface["data"][0])
    device = int(cupy.cuda.runtime.pointerGetAttributes(address).device) if math.prod(shape) else 0
    stream = int(interface.get("stream") or 0)
    with cupy.cuda.Device(device):
        if not is_contiguous(interface.get("strides"), shape, dtype.itemsize):
            made = DeviceArray(address, shape, dtype, device, stream, _event(cupy, stream), src)
            current = cupy.cuda.get_current_stream()
            _wait(cupy, current.ptr, made.ready)
            return _described(cupy, cupy.ascontiguousarray(_strided(cupy, made, interface["strides"])))
        return DeviceArray(address, shape, dtype, device, stream, _event(cupy, stream), src)


def is_contiguous(strides: tuple[int, ...] | None, shape: tuple[int, ...], itemsize: int) -> bool:
    """Whether an array of these strides, as ``__cuda_array_interface__`` has them, is C-contiguous."""
    if strides is None:
        return True
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _event(cupy: Any, stream: int) -> Event | None:
    """Return an event after what `stream` holds now; the stream itself may be gone when the pixels are read."""
    if not stream:
        return None
    event: Event = cupy.cuda.Event(disable_timing=True)
    cupy.cuda.runtime.eventRecord(event.ptr, stream)
    return event


def _wait(cupy: Any, stream: int, event: Event | None) -> None:
    if event is not None:
        cupy.cuda.runtime.streamWaitEvent(stream, event.ptr)


def _waited_for(array: DeviceArray) -> tuple[Any, Any]:
    """Return CuPy, and `array` as CuPy's, to be read on the current stream."""
    cupy = _cupy()
    with cupy.cuda.Device(array.device):
        _wait(cupy, cupy.cuda.get_current_stream().ptr, array.ready)
        return cupy, _as_cupy(cupy, array, array.shape, array.dtype)


def _as_cupy(cupy: Any, array: DeviceArray | DeviceCells, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    size = math.prod(shape) * dtype.itemsize
    memory = cupy.cuda.UnownedMemory(array.address, size, array.owner, array.device)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))


def _strided(cupy: Any, array: DeviceArray, strides: tuple[int, ...]) -> Any:
    """Return CuPy's array over memory with strides, which may be negative: the address is that of the first element."""
    steps = [(size - 1) * stride for size, stride in zip(array.shape, strides, strict=True)]
    low, high = sum(min(0, step) for step in steps), sum(max(0, step) for step in steps) + array.dtype.itemsize
    memory = cupy.cuda.UnownedMemory(array.address + low, high - low, array.owner, array.device)
    return cupy.ndarray(array.shape, array.dtype, cupy.cuda.MemoryPointer(memory, -low), strides)


def _cupy() -> Any:
    try:
        return import_module("cupy")
    except ImportError as error:
        raise DeviceUnavailable(
            "Arrays on a GPU need CuPy: install 'gpuenc[cuda13]', or 'gpuenc[cuda12]' for CUDA 12, or copy them to the "
            "host"
        ) from error
