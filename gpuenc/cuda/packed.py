"""Encoders of our own: a batch of samples to codestreams in one buffer, all of them by kernels.

A codec brings the launches that end in an *outcome* for each frame (how many bytes, or why not) and the launch that
writes codestreams at their places; the rest is here. Nothing waits for the device before the codestreams are written,
and what comes back are a table of places and the one buffer. The layouts are those of kernels/packed.cuh.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gpuenc.codestream import check
from gpuenc.coding import coding
from gpuenc.cpu import decoders
from gpuenc.cuda import lane, memory, probe, staging
from gpuenc.cuda.jobs import THREADS
from gpuenc.cuda.kernels import raise_for_fault
from gpuenc.errors import CodecError, GpuencError
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import BY_UID
from gpuenc.targets import target as target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.cuda.kernels import Array, Device
    from gpuenc.frames import Frame
    from gpuenc.targets import Target

FAULT_BUFFER = 8
_PLACE_WORDS, _ROOM_UNIT_BYTES = 2, 256
MOST_GRID_Y = 65535
# Beyond this, kernels could not say how long a codestream is.
MOST_BYTES = (1 << 32) - 1
_SIDE = 40


@dataclass(frozen=True, slots=True)
class Measured:
    """A batch whose codestreams have been measured and not yet written.

    Parameters
    ----------
    kernel : str
        Which kernel has measured them, for messages.
    outcomes : Array
        uint64, shape (frames,): bytes of each codestream, and in the high half its fault.
    room_bytes : int
        What all codestreams are expected to take; if it is too little, they are written once more.
    write : callable
        Queues the launch that writes them, given their places and the buffer.
    """

    kernel: str
    outcomes: Array
    room_bytes: int
    write: Callable[[Array, Array], None]


def collect(device: Device, measured: Measured) -> list[bytes | GpuencError]:
    """Return the codestreams of a batch, or what a kernel says of a frame that it cannot encode."""
    [frames] = measured.outcomes.__cuda_array_interface__["shape"]
    places, packed = _write(device, measured, frames, measured.room_bytes)
    sizes = places[:, 1] & np.uint64(MOST_BYTES)
    if ((places[:, 1] >> np.uint64(32)) & np.uint64(FAULT_BUFFER)).any():
        del packed  # before the larger one, not beside it
        places, packed = _write(device, measured, frames, int(sizes.sum()))
    faults = places[:, 1] >> np.uint64(32)
    used = int(sizes.sum())
    content = _download(device, packed, used) if used else np.empty(0, np.uint8)
    results: list[bytes | GpuencError] = []
    for frame, (begin, size, fault) in enumerate(zip(places[:, 0], sizes, faults, strict=True)):
        if fault:
            results.append(_refusal(measured.kernel, frame, int(fault)))
        else:
            results.append(content[int(begin) : int(begin) + int(size)].tobytes())
    return results


def _write(device: Device, measured: Measured, frames: int, room_bytes: int) -> tuple[NDArray[np.uint64], Array]:
    units = max(1, -(-room_bytes // _ROOM_UNIT_BYTES))
    packed = device.empty((units * _ROOM_UNIT_BYTES,), np.uint8)
    places = device.empty((frames, _PLACE_WORDS), np.uint64)
    arguments = (measured.outcomes, places, np.uint32(frames), np.uint32(units))
    device.launch("packed", "place_streams", (1, 1), THREADS, arguments)
    measured.write(places, packed)
    return device.download(places), packed


def _download(device: Device, packed: Array, size: int) -> NDArray[np.uint8]:
    """Return the first `size` bytes of the buffer: what has not been written does not travel."""
    address = int(packed.__cuda_array_interface__["data"][0])
    content: NDArray[np.uint8] = device.download(memory.View(address, (size,), "|u1", 0, packed))
    return content


def _refusal(kernel: str, frame: int, fault: int) -> GpuencError:
    try:
        raise_for_fault(kernel, frame, fault)
    except GpuencError as error:
        return error
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Codec:
    """What a codec brings.

    Parameters
    ----------
    refusal : callable
        Returns why frames that become a `Coding` are not for the kernels, or nothing.
    scratch_bytes : callable
        Returns the memory on the device that a frame takes beside its cells and samples.
    measure : callable
        Queues what measures the codestreams of samples on a device, shape (frames, *coding.shape).
    """

    refusal: Callable[[Coding], str]
    scratch_bytes: Callable[[Coding], int]
    measure: Callable[[Device, Array, Coding], Measured]


def works(device: Device, codec: Codec, target: Target) -> str:
    """Return what is wrong with a codec's kernels on this device now, or nothing: a small image has to come back."""
    wanted = coding(target, FrameFormat(_SIDE, _SIDE, 1, 16, 16, False, "MONOCHROME2"))
    ramp = np.arange(_SIDE * _SIDE, dtype=np.uint16).reshape(1, _SIDE, _SIDE) * np.uint16(37)
    [made] = collect(device, codec.measure(device, device.upload(ramp), wanted))
    try:
        if isinstance(made, GpuencError):
            raise made
        check(made, target.syntax, wanted)
        back = decoders.decode_samples(made, target.syntax, wanted)
    except GpuencError as error:
        return f"what it writes is not what was asked for: {error}"
    differ = np.count_nonzero(back != ramp[0])
    return f"{differ} of {ramp.size} samples do not come back" if differ else ""


class Session:
    """A codec's kernels with a workspace on a device; see `gpuenc.cuda.lane.Session`.

    Parameters
    ----------
    codec : Codec
        Whose kernels.
    target : Target
        What frames become.
    device : int
        Which of the visible GPUs.

    Raises
    ------
    CodecError
        There is no CuPy.
    Exception
        Whatever CuPy raises.
    """

    def __init__(self, codec: Codec, target: Target, device: int) -> None:
        workspace = memory.open_workspace(device)
        if workspace is None:
            raise CodecError("our own kernels need CuPy: install 'gpuenc[cuda13]'", code="device-unavailable")
        self._codec, self._target, self._workspace = codec, target, workspace

    def encode(self, frames: Sequence[Frame], wanted: Coding) -> list[bytes | GpuencError | None]:
        """Return for each frame its codestream, or what is wrong with the frame.

        Raises
        ------
        Exception
            Whatever CuPy raises: of the batch as a whole nothing is known then.
        """
        refused = self._codec.refusal(wanted)
        if refused:
            return [CodecError(refused, code="device-refused") for _ in frames]
        results: list[bytes | GpuencError | None] = [None] * len(frames)
        with self._workspace.current():
            staged = staging.on_device(self._workspace, frames, wanted)
            if staged.samples is not None:
                kernels = self._workspace.kernels
                made = collect(kernels, self._codec.measure(kernels, staged.samples, wanted))
                for place, one in zip(staged.places, made, strict=True):
                    results[place] = one
        for place, error in staged.wrong.items():
            results[place] = error
        return results

    def wrong(self) -> str:
        """Return what is wrong with the kernels now, or nothing."""
        with self._workspace.current():
            return works(self._workspace.kernels, self._codec, self._target)

    def trim(self) -> None:
        """Give back what is only cached."""
        self._workspace.trim()

    def close(self) -> None:
        """Give back everything."""
        self._workspace.close()


class BatchEncoder(lane.BatchEncoder):
    """Encodes batches with a codec's kernels; see `gpuenc.cuda.lane.BatchEncoder`."""

    codec: ClassVar[Codec]
    # Cells, samples, code before and after it is stuffed or placed, and that once more where room was too little.
    device_factor = 6

    def answer(self) -> probe.Answer:
        """Return whether CuPy is there and the kernels' codestream of a small image is right."""
        return answer(self.codec, self.label, self.target, self.device)

    def unfit(self, fmt: FrameFormat, wanted: Coding) -> str:
        """Return why frames of `fmt` are not for the kernels, or nothing."""
        if fmt.bits_allocated == 1:
            return "single bits are not for the device"
        return self.codec.refusal(wanted)

    def device_bytes(self, fmt: FrameFormat, wanted: Coding) -> int:
        """Return the bytes of the device's memory that one frame takes at its peak."""
        return memory.device_bytes(fmt, wanted) + self.codec.scratch_bytes(wanted)

    def open_session(self) -> Session:
        """Return the kernels with a workspace."""
        return Session(self.codec, self.target, self.device)


def answer(codec: Codec, label: str, target: Target, device: int = 0) -> probe.Answer:
    """Return whether `codec` works on `device`; see `gpuenc.cuda.probe.kernels`."""
    return probe.kernels(device, label, partial(works, codec=codec, target=target))


def why_unavailable(codec: Codec, label: str, uid: str, device: int = 0) -> str:
    """Return in a sentence why `codec` cannot encode transfer syntax `uid` on `device`, or nothing."""
    return answer(codec, label, target_of(BY_UID[uid]), device).reason
