"""Memory of the GPU engine: how much it may have, and where cells, samples and codestreams lie.

Sizes are known before the first byte is copied: `limits` makes a plug-in's `Limits` of a budget, and what a batch needs
follows from its format. Buffers are kept between batches and grow to the largest; nothing is allocated per frame.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpuenc.cuda.kernels import CupyDevice
from gpuenc.errors import InvalidOption, InvalidPixels
from gpuenc.frames import DeviceCells
from gpuenc.plugins import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.cuda.kernels import Array, Device
    from gpuenc.frames import FrameFormat

DEVICE_MEMORY = "GPUENC_DEVICE_MEMORY"
PINNED_BYTES = 1 << 30
# Where free memory cannot be asked for, since CuPy is not there.
_UNKNOWN_DEVICE_BYTES = 1 << 30
_SHARE_OF_FREE = 4

# Defaults, to be tuned by what a GPU shows: benchmarks/gpu-evidence.md.
_MOST_LANES = 4
_LANE_BYTES = 128 << 20
_BATCH_FRAMES = 256
_BATCH_BYTES = 64 << 20
# Half of a lane's memory holds a batch's cells and samples; the other is left to nvJPEG2000, which cannot be told how
# much it may have, and whose use per frame in flight is not known.
DEVICE_FACTOR = 4
# Host memory of one call over the native bytes: the cells, their pinned copy, pinned codestreams, codestreams.
_PEAK_FACTOR = 4.5

_ALIGN = 256
_STREAM_HEAD = 4
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


def device_budget(asked: int | None = None, free: Callable[[], int] | None = None) -> int:
    """Return how many bytes of a device's memory all lanes together may use.

    Parameters
    ----------
    asked : int, optional
        What the caller asks for; it comes first, then the environment variable ``GPUENC_DEVICE_MEMORY`` (bytes, or
        with K, M, G for powers of 1024: ``"2G"``), then a quarter of what is free.
    free : callable, optional
        Returns the device's free bytes.

    Raises
    ------
    InvalidOption
        The environment variable is no size.
    """
    if asked is not None:
        return asked
    text = os.environ.get(DEVICE_MEMORY, "").strip()
    if text:
        found = _SIZE.fullmatch(text)
        if not found:
            raise InvalidOption(f"{DEVICE_MEMORY} must be a size such as 2G or 512M, not '{text}'")
        return int(float(found[1]) * 1024 ** ("kmgt".index(found[2].lower()) + 1 if found[2] else 0))
    # Processes of one job share the devices (`gpuenc.archive.workers`).
    processes = max(1, int(os.environ.get("GPUENC_WORKERS", "1")))
    return (free() // _SHARE_OF_FREE if free else _UNKNOWN_DEVICE_BYTES) // processes


def free_device_bytes(device: int) -> int:
    """Return the bytes that are free on `device`, by CuPy; without it a quarter of them is taken to be 1 GiB."""
    try:
        cupy = import_module("cupy")
        with cupy.cuda.Device(device):
            return int(cupy.cuda.runtime.memGetInfo()[0])
    except Exception:  # noqa: BLE001 - no CuPy or no answer: the first batch will tell what is wrong
        return _UNKNOWN_DEVICE_BYTES * _SHARE_OF_FREE


def limits(budget_bytes: int, device_factor: int = DEVICE_FACTOR) -> Limits:
    """Return the limits of a plug-in whose lanes together may use `budget_bytes` of a device.

    Parameters
    ----------
    budget_bytes : int
        What `device_budget` returned.
    device_factor : int
        Device memory that a batch takes at its peak, as a multiple of its native bytes.
    """
    lanes = max(1, min(_MOST_LANES, budget_bytes // _LANE_BYTES))
    pinned = int(PINNED_BYTES / lanes / 2.5)  # cells, and codestreams a quarter larger
    size = min(_BATCH_BYTES, pinned, budget_bytes // (lanes * device_factor))
    return Limits(frames=_BATCH_FRAMES, bytes=max(1, size), lanes=lanes, peak_factor=_PEAK_FACTOR)


def device_bytes(fmt: FrameFormat, coding: Coding) -> int:
    """Return the bytes of one frame's cells and samples on a device."""
    return fmt.frame_bytes + coding.rows * coding.columns * coding.samples * coding.cell_bits // 8


def codestream_bytes(coding: Coding) -> int:
    """Return the room that a codestream gets: a quarter more than its samples' bits. A larger one makes room."""
    return coding.rows * coding.columns * coding.samples * coding.precision // 8 * 5 // 4 + 4096


@dataclass(frozen=True, slots=True)
class View:
    """A part of an array on a device, with the interface that libraries understand.

    Parameters
    ----------
    address, shape, dtype
        Where and what it is, C-contiguous.
    stream : int
        The stream on which it is being written, as ``__cuda_array_interface__`` names streams; 0 for none.
    owner : object
        What keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    stream: int = 0
    owner: object = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        stream = {"stream": self.stream} if self.stream else {}  # 0 is forbidden, absence means no need to wait
        return {
            "data": (self.address, False),
            "shape": self.shape,
            "typestr": self.dtype,
            "strides": None,
            "version": 3,
        } | stream


def split(samples: Array, stream: int = 0) -> list[View]:
    """Return the frames of an array of shape (frames, ...)."""
    interface = samples.__cuda_array_interface__
    count, *shape = interface["shape"]
    size = int(np.prod(shape)) * np.dtype(interface["typestr"]).itemsize
    start = int(interface["data"][0])
    return [View(start + n * size, tuple(shape), interface["typestr"], stream, samples) for n in range(count)]


class Workspace(Protocol):
    """A lane's place on a device: a stream, room for cells, and the kernels. Used by one thread."""

    kernels: Device
    stream: int

    def current(self) -> AbstractContextManager[Any]:
        """Return a context in which kernels are queued on this lane's stream."""

    def stage(self, cells: Sequence[NDArray[np.uint8]]) -> list[Array]:
        """Copy frames to the device in one transfer."""

    def adopt(self, array: Array) -> Array:
        """Return a caller's array on this device, to be read once what its own stream holds now is done.

        Raises
        ------
        InvalidPixels
            It is on another device, or not contiguous.
        """

    def trim(self) -> None:
        """Give back what is only cached."""

    def close(self) -> None:
        """Give back everything."""


@dataclass(slots=True)
class CupyWorkspace:
    """A `Workspace` on a GPU, by CuPy: pinned and device buffers of the same size, and a non-blocking stream.

    Parameters
    ----------
    index : int
        Which of the visible GPUs.
    """

    index: int
    kernels: Device = field(init=False)
    stream: int = field(init=False)
    _cupy: Any = field(init=False)
    _own: Any = field(init=False)
    _host: NDArray[np.uint8] | None = None
    _room: Any = None

    def __post_init__(self) -> None:
        self._cupy = import_module("cupy")
        self.kernels = CupyDevice(self.index)
        with self._cupy.cuda.Device(self.index):
            self._own = self._cupy.cuda.Stream(non_blocking=True)
        self.stream = int(self._own.ptr)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Return a context in which kernels are queued on this lane's stream."""
        with self._cupy.cuda.Device(self.index), self._own:
            yield

    def stage(self, cells: Sequence[NDArray[np.uint8]]) -> list[Array]:
        """Copy frames to the device in one transfer, from pinned memory; each begins at a multiple of 256 bytes."""
        starts, total = offsets([cell.size for cell in cells])
        with self.current():
            self._own.synchronize()  # the transfer before may still read the pinned buffer, after a failure
            host = self._reserve(total)
            for start, cell in zip(starts, cells, strict=True):
                host[start : start + cell.size] = cell
            self._room[:total].set(host[:total], stream=self._own)
            address = int(self._room.data.ptr)
        return [
            View(address + start, (cell.size,), "|u1", self.stream, self._room)
            for start, cell in zip(starts, cells, strict=True)
        ]

    def adopt(self, array: Array) -> Array:
        """Return a caller's array, to be read once what its own stream holds now is done."""
        interface = array.__cuda_array_interface__
        runtime = self._cupy.cuda.runtime
        if isinstance(array, DeviceCells):
            device = array.device
        else:
            device = int(runtime.pointerGetAttributes(interface["data"][0]).device)
        if device != self.index:
            raise InvalidPixels(
                f"The pixels are on GPU {device}, and the encoder is on GPU {self.index}", code="other-device"
            )
        if interface.get("strides") is not None:
            raise InvalidPixels("Pixels on a device must be C-contiguous", code="device-refused")
        if isinstance(array, DeviceCells):
            if array.ready is not None:  # the stream itself may be gone by now
                runtime.streamWaitEvent(self.stream, array.ready.ptr)
        elif interface.get("stream"):
            with self._cupy.cuda.Device(self.index):
                event = self._cupy.cuda.Event(disable_timing=True)
                runtime.eventRecord(event.ptr, interface["stream"])
                runtime.streamWaitEvent(self.stream, event.ptr)
        return array

    def trim(self) -> None:
        """Give back what CuPy's pool caches."""
        with suppress(Exception):
            self._cupy.get_default_memory_pool().free_all_blocks()

    def close(self) -> None:
        """Give back the buffers."""
        self._host = self._room = None

    def _reserve(self, size: int) -> NDArray[np.uint8]:
        if self._host is None or self._host.size < size:
            self._host = self._room = None  # before the larger ones, not beside them
            self._room = self._cupy.empty(size, np.uint8)
            # Not from CuPy's pinned pool, which keeps what it was given back.
            pinned = self._cupy.cuda.PinnedMemoryPointer(self._cupy.cuda.PinnedMemory(size), 0)
            self._host = np.frombuffer(pinned, np.uint8, size)
        return self._host


def offsets(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where frames of these sizes begin in one buffer, and its size."""
    starts, total = [], 0
    for size in sizes:
        starts.append(total)
        total += -(-size // _ALIGN) * _ALIGN
    return starts, total


def open_workspace(index: int) -> Workspace | None:
    """Return a lane's place on GPU `index`, or None without CuPy: samples are then prepared on the CPU."""
    try:
        return CupyWorkspace(index)
    except ImportError:
        return None


class Slots:
    """Output streams of nvImageCodec, made once and used again: a fresh pinned one costs an allocation per frame.

    Parameters
    ----------
    nv : module
        nvImageCodec.
    pinned_bytes : int
        Most pinned memory; streams beyond it are ordinary memory.
    """

    def __init__(self, nv: Any, pinned_bytes: int) -> None:
        self._nv, self._pinned_bytes = nv, pinned_bytes
        self._slots: list[Any] = []

    def take(self, count: int, size: int) -> list[Any]:
        """Return `count` streams with room for `size` bytes each, with their old contents spoiled.

        Whatever is in a stream that the encoder did not write then begins with zeros and passes for no codestream.
        """
        for place in range(count):
            if place == len(self._slots):
                self._slots.append(self._new(size))
            elif self._slots[place].capacity < size:
                self._slots[place] = None
                self._slots[place] = self._new(size)
        taken = self._slots[:count]
        for slot in taken:
            with memoryview(slot) as content:
                content[:_STREAM_HEAD] = bytes(min(_STREAM_HEAD, content.nbytes))
        return taken

    def _new(self, size: int) -> Any:
        held = sum(slot.capacity for slot in self._slots if slot is not None and slot.pin_memory)
        if held + size <= self._pinned_bytes:
            with suppress(RuntimeError):  # the host has no more memory to pin
                return self._nv.CodeStream(size, True)
        return self._nv.CodeStream(size, False)

    def clear(self) -> None:
        """Let go of all streams."""
        self._slots.clear()


def copied(stream: Any) -> bytes:
    """Return a copy of a stream's bytes: a view of it would show the next frame's once the stream is used again."""
    with memoryview(stream) as content:
        return bytes(content)
