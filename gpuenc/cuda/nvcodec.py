"""nvImageCodec as a plug-in: JPEG 2000, HTJ2K and JPEG Baseline on a GPU.

What the device cannot do, will not do, or did not do in time becomes a `Failure` that says so, and the next plug-in
takes the frame from its own cells. Nothing of CUDA is imported before it is asked for.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.codestream import check
from gpuenc.coding import coding
from gpuenc.cpu import codecs, decoders, samples
from gpuenc.cuda import health, memory, nvrules, probe
from gpuenc.cuda.session import Session
from gpuenc.errors import CodecError, EncodeFailed, GpuencError, ValuesOutsideBitsStored
from gpuenc.frames import Coded, Encoded, Failure, Frame, FrameRef
from gpuenc.syntaxes import BY_UID
from gpuenc.targets import from_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.frames import FrameFormat
    from gpuenc.targets import Target

LOGGER = logging.getLogger(__name__)
LABEL = "nvimgcodec"
THREAD_SAFE = True
ENCODER_DEPENDENCIES = dict.fromkeys(nvrules.UIDS, ("gpuenc[cuda13] or gpuenc[cuda12]", "an NVIDIA GPU"))

# Far more than any frame takes on any GPU that was measured: only a call that will never return is given up.
_CALL_S, _BYTES_PER_S = 60.0, 4 << 20


DEVICE = "gpu"


def is_available(uid: str) -> bool:
    """Return whether the first visible GPU encodes transfer syntax `uid`; see `gpuenc.cuda.probe`."""
    return uid in ENCODER_DEPENDENCIES and not why_unavailable(uid)


def why_unavailable(uid: str, device: int = 0) -> str:
    """Return in a sentence why transfer syntax `uid` cannot be encoded on `device`, or nothing."""
    return probe.probe(device, "jpeg2k" if BY_UID[uid].jpeg2000 else "jpeg").reason


class BatchEncoder:
    """Encodes batches on one GPU; see `gpuenc.plugins.BatchEncoder`.

    All calls into the device's libraries are made by one thread of its own, since an encoder of nvImageCodec must not
    be shared among threads and may fail to return (nvImageCodec issue 32): then the device is given up, and the
    caller goes on without it.

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

    def __init__(
        self,
        target: Target,
        *,
        device: int | None = None,
        memory_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._target, self._device, self._timeout_s = target, device or 0, timeout_s
        self._codec = nvrules.codec_of(target)
        self._process = os.getpid()
        usable = probe.probe(self._device, self._codec).usable
        free = partial(memory.free_device_bytes, self._device) if usable else None
        budget_bytes = memory.device_budget(memory_bytes, free)
        self.limits = memory.limits(budget_bytes)
        self._largest_bytes = memory.largest_frame(budget_bytes, self.limits.lanes)
        self._worker: health.Worker | None = None
        self._session: Session | None = None
        self._at_once = self.limits.frames

    def encode(self, frames: Sequence[Frame]) -> list[Encoded | Failure]:
        """Return one result per frame, in order."""
        if not frames:
            return []
        try:
            wanted = coding(self._target, frames[0].format)
        except GpuencError as error:
            return _all(frames, error.code, str(error))
        refused = self._refusal(frames, wanted)
        if refused:
            return _all(frames, *refused)
        size = sum(memory.device_bytes(frame.format, wanted) for frame in frames)
        timeout_s = self._timeout_s if self._timeout_s is not None else _CALL_S + size / _BYTES_PER_S
        if self._worker is None:
            self._worker = health.Worker(f"gpuenc-gpu{self._device}")
        try:
            return self._worker.call(partial(self._encode, list(frames), wanted), timeout_s)
        except health.Hung as error:
            self._give_up(f"{error.code}: {error}")
            return _all(frames, error.code, f"GPU {self._device}: {error}")

    def close(self) -> None:
        """Release the encoder and its memory; what hangs is left behind."""
        worker, session = self._worker, self._session
        self._worker = self._session = None
        if worker is None or self._process != os.getpid():
            return
        if session is not None:
            try:
                worker.call(session.close, _CALL_S)
            except Exception as error:  # noqa: BLE001 - of a device that fails there is nothing more to release
                LOGGER.debug("GPU %d: %s", self._device, error)
        worker.close()

    def _refusal(self, frames: Sequence[Frame], wanted: Coding) -> tuple[str, str] | None:
        """Return code and reason where nothing need be tried."""
        fmt = frames[0].format
        if any(isinstance(frame.pixels, Coded) for frame in frames):
            return "device-refused", "a compressed frame must be decoded before it is encoded"
        reason = nvrules.refusal(self._target, fmt, wanted)
        if reason:
            return "device-refused", reason
        need = memory.device_bytes(fmt, wanted)
        if need > self._largest_bytes:
            return "device-refused", f"the frame needs {need} bytes of the device, more than {self._largest_bytes}"
        if self._process != os.getpid():
            return "device-unavailable", "this encoder was opened before the process was forked"
        given_up = health.lost(self._device)
        if given_up:
            return "device-lost", f"GPU {self._device} was given up: {given_up}"
        answer = probe.probe(self._device, self._codec)
        return None if answer.usable else ("device-unavailable", answer.reason)

    def _encode(self, frames: list[Frame], wanted: Coding) -> list[Encoded | Failure]:
        """On the device's own thread."""
        results: list[Encoded | Failure] = []
        for start in range(0, len(frames), self._at_once):
            results += self._attempt(frames[start : start + self._at_once], wanted, may_halve=True)
        return results

    def _attempt(self, frames: list[Frame], wanted: Coding, *, may_halve: bool) -> list[Encoded | Failure]:
        given_up = health.lost(self._device)
        if given_up:
            return _all(frames, "device-lost", f"GPU {self._device} was given up: {given_up}")
        try:
            if self._session is None:
                self._session = Session(self._target, self._device, memory.PINNED_BYTES // self.limits.lanes)
            made = self._session.encode(frames, wanted)
            if not any(isinstance(one, bytes | GpuencError) for one in made):
                self._check_health("it encoded none of a batch")
        except Exception as error:
            fault = health.classify(error)
            LOGGER.exception("GPU %d: %s", self._device, fault.code)
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
            return _all(frames, fault.code, f"GPU {self._device}: {fault.reason}")
        return [_result(frame, one) for frame, one in zip(frames, made, strict=True)]

    def _check_health(self, reason: str) -> None:
        """Give the device up if it no longer encodes what it has encoded before."""
        try:
            wrong = self._session.wrong() if self._session is not None else reason
        except Exception as error:  # noqa: BLE001 - that is the answer
            wrong = health.classify(error).reason
        if wrong:
            self._give_up(f"{reason}; then {wrong}")

    def _give_up(self, reason: str) -> None:
        LOGGER.warning("GPU %d is given up: %s", self._device, reason)
        health.give_up(self._device, reason)


def _all(frames: Sequence[Frame], code: str, reason: str) -> list[Encoded | Failure]:
    return [Failure(frame.ref, code, LABEL, reason) for frame in frames]


def _result(frame: Frame, made: bytes | GpuencError | None) -> Encoded | Failure:
    if made is None:
        return Failure(
            frame.ref, "device-failed", LABEL, "nvImageCodec did not encode this frame, and does not say why"
        )
    if isinstance(made, GpuencError):
        return Failure(frame.ref, made.code, LABEL, str(made))
    return Encoded(frame.ref, made, LABEL)


def encode_frame(src: bytes, runner: codecs.Runner) -> bytes:
    """Return one encoded frame: the function that pydicom's encoders call.

    Takes and raises what `gpuenc.cpu.codecs.encode_frame` does; one encoder serves all threads, one at a time.
    """
    options = runner.options
    syntax = BY_UID[str(options["transfer_syntax_uid"])]
    target = from_options(syntax, options)
    fmt, pixels = codecs.native_cells_of(src, options, syntax)
    with _SINGLE.lock:
        [result] = _SINGLE.encoder(target).encode([Frame(FrameRef("", 0), fmt, pixels)])
    if isinstance(result, Failure):
        kind: Callable[..., GpuencError] = CodecError
        if result.code == ValuesOutsideBitsStored.code:
            kind = ValuesOutsideBitsStored
        raise kind(result.reason, code=result.code)
    _confirm(result.codestream, target, fmt, pixels)
    return result.codestream


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


class _Single:
    """The encoder of `encode_frame`: kept for as long as the target stays the same."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._of: tuple[int, Target] | None = None
        self._encoder: Any = None

    def encoder(self, target: Target) -> BatchEncoder:
        """Return the encoder for `target`, in this process."""
        if self._of != (os.getpid(), target):
            if self._encoder is not None:
                self._encoder.close()
            self._encoder, self._of = BatchEncoder(target), (os.getpid(), target)
        encoder: BatchEncoder = self._encoder
        return encoder


_SINGLE = _Single()


# What a forked child must not release: it belongs to the parent's context.
_PARENTS: list[_Single] = []


def _after_fork() -> None:
    global _SINGLE
    _PARENTS.append(_SINGLE)
    _SINGLE = _Single()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
