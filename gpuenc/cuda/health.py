"""What goes wrong on a device, sorted; a thread whose calls may never return; the devices that were given up.

A device is given up for the rest of the process after an error that leaves its context unusable, after a call that did
not return, or when it no longer encodes what it has encoded before. Nothing here imports CUDA.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import weakref
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gpuenc.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")

# Numbers of cudaError_t (CUDA Runtime API, "Data types used by CUDA Runtime").
_OUT_OF_MEMORY = frozenset({2})
_NOT_USABLE = {
    3: "CUDA could not be initialised",
    35: "the NVIDIA driver is too old for this build of nvImageCodec: update the driver",
    46: "the device is busy or unavailable: another process may have it for itself",
    100: "no CUDA device is visible: see CUDA_VISIBLE_DEVICES",
    101: "there is no CUDA device of this index",
}
# After these every further call in the process fails too.
_STICKY = frozenset({4, 201, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999, *_NOT_USABLE})
# nvimgcodecStatus_t has two: ALLOCATOR_FAILURE, of the framework and of its extensions.
_NVIMGCODEC_OUT_OF_MEMORY = frozenset({5, 15})

_CUDA_NUMBER = re.compile(r"CUDA \w+ failure:? '?#(\d+)")
_NVIMGCODEC_NUMBER = re.compile(r"(?:nvImageCodec failure:? '?#|Could not create \w+\. Code: )(\d+)")
_CLOSE_S = 10.0


class Hung(CodecError):
    """A call into the device's libraries did not return in time."""

    code = "device-hung"


class Stopped(CodecError):
    """A thread was asked for a call after it had been told to end."""

    code = "device-error"


@dataclass(frozen=True, slots=True)
class Fault:
    """One exception, sorted.

    Parameters
    ----------
    kind : {'memory', 'lost', 'error'}
        Too little memory; the device cannot be used any more by this process; anything else.
    reason : str
        One line for people.
    """

    kind: Literal["memory", "lost", "error"]
    reason: str

    @property
    def code(self) -> str:
        """The `Failure.code` of frames that met this."""
        return {"memory": "device-out-of-memory", "lost": "device-lost", "error": "device-error"}[self.kind]


def classify(error: BaseException) -> Fault:
    """Return what an exception of nvImageCodec or CuPy means.

    nvImageCodec raises plain `RuntimeError`s that name a number of cudaError_t or of its own status; CuPy's carry
    theirs in ``status``.
    """
    text = " ".join(str(error).split())
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    number = _cuda_number(error, text)
    if number in _NOT_USABLE:
        return Fault("lost", f"{_NOT_USABLE[number]} ({reason})")
    if isinstance(error, Hung) or number in _STICKY:
        return Fault("lost", reason)
    own = _NVIMGCODEC_NUMBER.search(text)
    if (
        isinstance(error, MemoryError)
        or number in _OUT_OF_MEMORY
        or (own and int(own[1]) in _NVIMGCODEC_OUT_OF_MEMORY)
        or (number is None and "out of memory" in text.lower())
    ):
        return Fault("memory", reason)
    return Fault("error", reason)


def _cuda_number(error: BaseException, text: str) -> int | None:
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status
    found = _CUDA_NUMBER.search(text)
    return int(found[1]) if found else None


# Which devices this process has given up, and why. A forked child starts anew.
_LOST: dict[int, str] = {}


def give_up(device: int, reason: str) -> None:
    """Use `device` no more in this process. The first reason stays."""
    _LOST.setdefault(device, reason)


def lost(device: int) -> str:
    """Return why `device` was given up, or nothing."""
    return _LOST.get(device, "")


class Worker:
    """One thread that makes calls for another, which stops waiting after a time.

    All calls of one worker are made by the same thread, one at a time, so the device's context and current stream are
    its own. A call that never returns costs this thread and what it holds; being a daemon, it does not keep the
    process from ending.

    Parameters
    ----------
    name : str
        Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=_serve, args=(self._calls,), name=name, daemon=True)
        self._thread.start()
        self._hung = False
        # Where nobody closes it. The collector comes here before it ends the generators that are garbage with it, and
        # whose `finally` may call once more.
        self._stopped = threading.Event()
        weakref.finalize(self, _stop, self._calls, self._stopped)

    def call(self, function: Callable[[], _T], timeout_s: float) -> _T:
        """Return what `function` returns, or raise what it raises.

        Raises
        ------
        Hung
            It did not return within `timeout_s`, or an earlier call did not. What it does later is not looked at.
        Stopped
            The thread has been told to end.
        """
        if self._stopped.is_set():
            raise Stopped("the device's thread has ended")
        if self._hung:
            raise Hung("an earlier call has not returned")
        future: Future[_T] = Future()
        self._calls.put((function, future))
        wait([future], timeout_s)
        if not future.done():
            self._hung = True
            raise Hung(f"no answer within {timeout_s:g} s")
        return future.result()

    def close(self) -> None:
        """Stop the thread; one that hangs is left behind."""
        _stop(self._calls, self._stopped)
        if not self._hung and threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_S)


def _stop(calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None], stopped: threading.Event) -> None:
    stopped.set()
    calls.put(None)


def _serve(calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]) -> None:
    while True:
        call = calls.get()
        if call is None:
            return
        function, future = call
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)
        del call, function, future  # let go of the arrays before the next call comes


_SILENCING = threading.Lock()


@dataclass(slots=True)
class Silence:
    """What was written to file descriptor 2 meanwhile: complete once the silence is over."""

    text: str = ""


@contextmanager
def silenced() -> Iterator[Silence]:
    """Keep file descriptor 2 quiet, as C libraries write there past ``sys.stderr``.

    It belongs to the whole process: what other threads write meanwhile is swallowed with the rest, so this is for
    short things done once.
    """
    said = Silence()
    with _SILENCING, tempfile.TemporaryFile() as sink:
        try:
            kept = os.dup(2)
        except OSError:  # a service without standard error
            yield said
            return
        os.dup2(sink.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            with suppress(OSError):
                sink.seek(0)
                said.text = sink.read().decode(errors="replace")


def _after_fork() -> None:
    global _SILENCING
    _SILENCING = threading.Lock()
    _LOST.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
