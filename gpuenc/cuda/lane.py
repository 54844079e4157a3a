"""What every plug-in on a GPU has in common: a device's own thread, time-outs, refusals, and a device that is given up.

A plug-in is a subclass of `BatchEncoder` that says what it takes and opens a `Session`, which does the work. What the
device cannot do, will not do, or did not do in time becomes a `Failure` that says so, and the next plug-in takes the
frame from its own cells.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from gpuenc.codestream import check
from gpuenc.coding import coding
from gpuenc.cpu import codecs, decoders, samples
from gpuenc.cuda import health, memory
from gpuenc.errors import CodecError, EncodeFailed, GpuencError, ValuesOutsideBitsStored
from gpuenc.frames import Coded, Encoded, Failure, Frame, FrameRef
from gpuenc.plugins import Verdict
from gpuenc.syntaxes import BY_UID
from gpuenc.targets import from_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.cuda.probe import Answer
    from gpuenc.frames import FrameFormat
    from gpuenc.targets import Target

LOGGER = logging.getLogger(__name__)

# Far more than any frame takes on any GPU that was measured: only a call that will never return is given up.
_CALL_S, _BYTES_PER_S = 60.0, 4 << 20


class Session(Protocol):
    """What encodes on a device. All calls come from one thread, which also made it; an exception is the batch's."""

    def encode(self, frames: Sequence[Frame], wanted: Coding) -> list[bytes | GpuencError | None]:
        """Return for each frame, in order, its codestream, what is wrong with it, or None where nothing was done.

        Raises
        ------
        Exception
            Whatever the device's libraries raise: of the batch as a whole nothing is known then.
        """

    def wrong(self) -> str:
        """Return what is wrong with the device now, or nothing: it encodes something small, which has to come back."""

    def trim(self) -> None:
        """Give back what is only cached: called where memory did not suffice, before half of the batch is tried."""

    def close(self) -> None:
        """Give back everything."""


@runtime_checkable
class VerifyingSession(Session, Protocol):
    """A session that can also decode and compare where its samples are."""

    def verify(
        self, frames: Sequence[Frame], wanted: Coding, codestreams: Sequence[bytes]
    ) -> list[Verdict | GpuencError]:
        """Return for each frame what differs between it and its codestream, or why that is not known."""


class BatchEncoder(ABC):
    """Encodes batches on one GPU; see `gpuenc.plugins.BatchEncoder`.

    All calls into the device's libraries are made by one thread of its own, since they may fail to return (nvImageCodec
    issue 32) and encoders must not be shared among threads: then the device is given up, and the caller goes on without
    it.

    Parameters
    ----------
    target : Target
        What frames become.
    device : int, optional
        Which of the visible GPUs; the first by default.
    memory_bytes : int, optional
        Memory of that GPU for all lanes together; see `gpuenc.cuda.memory.device_budget`.
    timeout_s : float, optional
        After how long a call counts as hanging; by default a minute and a second for every 4 MiB.
    """

    # The plug-in's label, what a frame is told that the session returned None for, and the device memory that a batch
    # takes at its peak as a multiple of its native bytes.
    label: ClassVar[str]
    undone: ClassVar[str] = "the GPU did not encode this frame"
    device_factor: ClassVar[int] = memory.DEVICE_FACTOR

    def __init__(
        self,
        target: Target,
        *,
        device: int | None = None,
        memory_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.target, self.device, self._timeout_s = target, device or 0, timeout_s
        self._process = os.getpid()
        free = partial(memory.free_device_bytes, self.device) if self.answer().usable else None
        budget_bytes = memory.device_budget(memory_bytes, free)
        self.limits = memory.limits(budget_bytes, self.device_factor)
        self._lane_bytes = budget_bytes // self.limits.lanes
        self._worker: health.Worker | None = None
        self._session: Session | None = None
        self._at_once = self.limits.frames

    @abstractmethod
    def answer(self) -> Answer:
        """Return whether the device can be used: the answer of a probe, which is asked once per process."""

    @abstractmethod
    def unfit(self, fmt: FrameFormat, wanted: Coding) -> str:
        """Return why frames of `fmt` are not for the device, or nothing; nothing is copied before that."""

    @abstractmethod
    def open_session(self) -> Session:
        """Return what encodes; called by the device's thread, when the first batch comes."""

    def device_bytes(self, fmt: FrameFormat, wanted: Coding) -> int:
        """Return the bytes of the device's memory that one frame takes at its peak."""
        return 2 * memory.device_bytes(fmt, wanted)  # half is left to the codec

    @property
    def pinned_bytes(self) -> int:
        """Most pinned memory of the host for this lane."""
        return memory.PINNED_BYTES // self.limits.lanes

    def encode(self, frames: Sequence[Frame]) -> list[Encoded | Failure]:
        """Return one result per frame, in order."""
        if not frames:
            return []
        try:
            wanted = coding(self.target, frames[0].format)
        except GpuencError as error:
            return self._all(frames, error.code, str(error))
        refused = self._refusal(frames, wanted)
        if refused:
            return self._all(frames, *refused)
        return self._call(frames, partial(self._encode, list(frames), wanted), wanted)

    def verify(self, frames: Sequence[Frame], codestreams: Sequence[bytes]) -> list[Verdict | Failure]:
        """Decode and compare on the device, where the session can: a verdict for each frame, or why there is none."""
        if not frames:
            return []
        wanted = coding(self.target, frames[0].format)
        unknown = "the plug-in cannot verify" if not isinstance(self._session, VerifyingSession) else ""
        given_up = health.lost(self.device) if not unknown else ""
        if unknown or given_up or self._process != os.getpid():
            return [
                Failure(frame.ref, "device-refused", self.label, unknown or given_up or "forked") for frame in frames
            ]
        return self._call(frames, partial(self._verify, list(frames), wanted, list(codestreams)), wanted)

    def close(self) -> None:
        """Release the session and its memory; what hangs is left behind."""
        worker, session = self._worker, self._session
        self._worker = self._session = None
        if worker is None or self._process != os.getpid():
            return
        if session is not None:
            try:
                worker.call(session.close, _CALL_S)
            except Exception as error:  # noqa: BLE001 - of a device that fails there is nothing more to release
                LOGGER.debug("GPU %d: %s", self.device, error)
        worker.close()

    def _call(self, frames: Sequence[Frame], work: Callable[[], list[Any]], wanted: Coding) -> list[Any]:
        """Let the device's thread do `work` on `frames`, and give the device up if that does not return."""
        size = sum(memory.device_bytes(frame.format, wanted) for frame in frames)
        timeout_s = self._timeout_s if self._timeout_s is not None else _CALL_S + size / _BYTES_PER_S
        if self._worker is None:
            self._worker = health.Worker(f"gpuenc-gpu{self.device}")
        try:
            return self._worker.call(work, timeout_s)
        except health.Hung as error:
            self._give_up(f"{error.code}: {error}")
            return self._all(frames, error.code, f"GPU {self.device}: {error}")

    def _verify(self, frames: list[Frame], wanted: Coding, codestreams: list[bytes]) -> list[Verdict | Failure]:
        """On the device's own thread."""
        session = self._session
        assert isinstance(session, VerifyingSession)
        said: list[Verdict | GpuencError] = []
        try:
            for start in range(0, len(frames), self._at_once):
                part = slice(start, start + self._at_once)
                said += session.verify(frames[part], wanted, codestreams[part])
        except Exception as error:
            fault = health.classify(error)
            LOGGER.exception("GPU %d: %s", self.device, fault.code)
            if fault.kind == "memory":
                session.trim()
            elif fault.kind == "lost":
                self._give_up(fault.reason)
            return [Failure(frame.ref, fault.code, self.label, fault.reason) for frame in frames]
        return [
            one if isinstance(one, Verdict) else Failure(frame.ref, one.code, self.label, str(one))
            for frame, one in zip(frames, said, strict=True)
        ]

    def _refusal(self, frames: Sequence[Frame], wanted: Coding) -> tuple[str, str] | None:
        """Return code and reason where nothing need be tried."""
        fmt = frames[0].format
        if any(isinstance(frame.pixels, Coded) for frame in frames):
            return "device-refused", "a compressed frame must be decoded before it is encoded"
        reason = self.unfit(fmt, wanted)
        if reason:
            return "device-refused", reason
        need = self.device_bytes(fmt, wanted)
        if need > self._lane_bytes:
            return "device-refused", f"the frame needs {need} bytes of the device, more than {self._lane_bytes}"
        if self._process != os.getpid():
            return "device-unavailable", "this encoder was opened before the process was forked"
        given_up = health.lost(self.device)
        if given_up:
            return "device-lost", f"GPU {self.device} was given up: {given_up}"
        answer = self.answer()
        return None if answer.usable else ("device-unavailable", answer.reason)

    def _encode(self, frames: list[Frame], wanted: Coding) -> list[Encoded | Failure]:
        """On the device's own thread."""
        results: list[Encoded | Failure] = []
        for start in range(0, len(frames), self._at_once):
            results += self._attempt(frames[start : start + self._at_once], wanted, may_halve=True)
        return results

    def _attempt(self, frames: list[Frame], wanted: Coding, *, may_halve: bool) -> list[Encoded | Failure]:
        given_up = health.lost(self.device)
        if given_up:
            return self._all(frames, "device-lost", f"GPU {self.device} was given up: {given_up}")
        try:
            if self._session is None:
                self._session = self.open_session()
            made = self._session.encode(frames, wanted)
            if not any(isinstance(one, bytes | GpuencError) for one in made):
                self._check_health("it encoded none of a batch")
        except Exception as error:
            fault = health.classify(error)
            LOGGER.exception("GPU %d: %s", self.device, fault.code)
            if fault.kind == "memory" and self._session is not None:
                self._session.trim()
                if may_halve and len(frames) > 1:
                    self._at_once = half = (len(frames) + 1) // 2  # the next batches come in halves at once
                    return [
                        *self._attempt(frames[:half], wanted, may_halve=False),
                        *self._attempt(frames[half:], wanted, may_halve=False),
                    ]
            elif fault.kind == "lost":
                self._give_up(fault.reason)
            elif fault.kind == "error":
                self._check_health(fault.reason)
            return self._all(frames, fault.code, f"GPU {self.device}: {fault.reason}")
        return [self._result(frame, one) for frame, one in zip(frames, made, strict=True)]

    def _check_health(self, reason: str) -> None:
        """Give the device up if it no longer encodes what it has encoded before."""
        try:
            wrong = self._session.wrong() if self._session is not None else reason
        except Exception as error:  # noqa: BLE001 - that is the answer
            wrong = health.classify(error).reason
        if wrong:
            self._give_up(f"{reason}; then {wrong}")

    def _give_up(self, reason: str) -> None:
        LOGGER.warning("GPU %d is given up: %s", self.device, reason)
        health.give_up(self.device, reason)

    def _all(self, frames: Sequence[Frame], code: str, reason: str) -> list[Encoded | Failure]:
        return [Failure(frame.ref, code, self.label, reason) for frame in frames]

    def _result(self, frame: Frame, made: bytes | GpuencError | None) -> Encoded | Failure:
        if made is None:
            return Failure(frame.ref, "device-failed", self.label, self.undone)
        if isinstance(made, GpuencError):
            return Failure(frame.ref, made.code, self.label, str(made))
        return Encoded(frame.ref, made, self.label)


class Single:
    """A plug-in's ``encode_frame``, the function that pydicom's encoders call: one encoder serves all threads.

    The encoder is kept for as long as the target stays the same. Made once, by the plug-in's module.

    Parameters
    ----------
    encoder : callable
        Returns a `BatchEncoder` for a target, on the first GPU.
    """

    def __init__(self, encoder: Callable[[Target], BatchEncoder]) -> None:
        self._make = encoder
        self._lock = threading.Lock()
        self._of: Target | None = None
        self._encoder: BatchEncoder | None = None
        # What a forked child must not release: it belongs to the parent's context.
        self._parents: list[BatchEncoder | None] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def encode_frame(self, src: bytes, runner: codecs.Runner) -> bytes:
        """Return one encoded frame; takes and raises what `gpuenc.cpu.codecs.encode_frame` does."""
        options = runner.options
        syntax = BY_UID[str(options["transfer_syntax_uid"])]
        target = from_options(syntax, options)
        fmt, pixels = codecs.native_cells_of(src, options, syntax)
        with self._lock:
            [result] = self._for(target).encode([Frame(FrameRef("", 0), fmt, pixels)])
        if isinstance(result, Failure):
            kind: Callable[..., GpuencError] = CodecError
            if result.code == ValuesOutsideBitsStored.code:
                kind = ValuesOutsideBitsStored
            raise kind(result.reason, code=result.code)
        _confirm(result.codestream, target, fmt, pixels)
        return result.codestream

    def close(self) -> None:
        """Release the encoder that is kept."""
        with self._lock:
            if self._encoder is not None:
                self._encoder.close()
            self._encoder = self._of = None

    def _for(self, target: Target) -> BatchEncoder:
        if self._encoder is None or self._of != target:
            if self._encoder is not None:
                self._encoder.close()
            self._encoder, self._of = self._make(target), target
        return self._encoder

    def _after_fork(self) -> None:
        self._parents.append(self._encoder)
        self._lock = threading.Lock()
        self._encoder = self._of = None


def _confirm(codestream: bytes, target: Target, fmt: FrameFormat, pixels: NDArray[Any]) -> None:
    """Do what the engine does for batches: believe nothing before it was read, and lossless ones compared.

    Raises
    ------
    CodecError
        The codestream is not what was asked for.
    """
    wanted = coding(target, fmt)
    check(codestream, target.syntax, wanted)
    if wanted.lossless:
        back = decoders.decode_samples(codestream, target.syntax, wanted)
        if not np.array_equal(back, samples.prepare(pixels, fmt, wanted)):
            raise EncodeFailed("the samples do not come back", code="verify-mismatch")
