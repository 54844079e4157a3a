"""The lanes for one target: threads with a real encoder each, and the calls that wait for them."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from gpuenc.errors import CodecError
from gpuenc.frames import Encoded, Failure
from gpuenc.gathering.calls import Call, Outcome, Queue
from gpuenc.plugins import GONE_CODES, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.frames import Frame
    from gpuenc.gathering.calls import Kind
    from gpuenc.plugins import BatchEncoder, DeviceVerifier, Plugin, Verdict
    from gpuenc.targets import Target

LOGGER = logging.getLogger(__name__)


class Pool:
    """The real encoders of one plug-in for one target; safe to use from any number of threads.

    Parameters
    ----------
    plugin : Plugin
        Opens the encoders, each in the lane that uses it.
    target : Target
        What frames become.
    linger_s : float
        See `gpuenc.gathering.Gathered`.
    """

    def __init__(self, plugin: Plugin, target: Target, linger_s: float) -> None:
        self._plugin, self._target, self._linger_s = plugin, target, linger_s
        self._changed = threading.Condition(threading.RLock())
        self._waiting: dict[Kind, Queue] = {}
        # Whether the real encoders can verify; known with their limits.
        self.verifies = False
        self._limits: Limits | None = None
        self._first: Outcome[Limits] | None = None
        self._threads: list[threading.Thread] = []
        self._lanes, self._most_lanes = 0, 1
        # Lanes that will look at what waits before they do anything else; those that are being opened count.
        self._idle = 0
        # Callers that have an encoder and have not called it yet.
        self._expected = 0
        self._stopped = False

    def limits(self) -> Limits:
        """Return the limits of the real encoders, of which the first is opened if there is none.

        Raises
        ------
        BaseException
            Whatever opening it raised: all who waited for it get that, and the next who comes tries again.
        """
        with self._changed:
            if self._stopped:
                raise closed(self._plugin)
            if self._limits is not None:
                return self._limits
            if self._first is None:
                first: Outcome[Limits] = Outcome()
                self._start(first)
                self._first = first
            first = self._first
        return first.result()

    def expect(self, more: int) -> None:
        """Note that `more` callers are on their way; less than none if they left."""
        with self._changed:
            self._expected += more
            if self._waiting:
                self._changed.notify()

    def put(self, call: Call, *, expected: bool) -> None:
        """Let `call` wait for a lane, of which one more is opened where all are busy; `expected` if it was counted.

        Raises
        ------
        CodecError
            There are none any more.
        """
        with self._changed:
            self._expected -= expected
            if self._stopped or not self._lanes:
                raise closed(self._plugin)
            self._waiting.setdefault(call.kind, Queue()).put(call)
            if not self._idle and self._lanes < self._most_lanes:
                try:
                    self._start(None)
                except RuntimeError as error:  # the system has no thread left
                    self._do_with_what_there_is(error)
            self._changed.notify()

    def withdraw(self, call: Call) -> None:
        """Forget `call` if no lane has taken it."""
        with self._changed:
            queue = self._waiting.get(call.kind)
            if queue is not None and call in queue:
                queue.remove(call)
                if not queue:
                    del self._waiting[call.kind]

    def stop(self) -> None:
        """Let each lane end after what it is doing, and fail what no lane has taken."""
        with self._changed:
            self._stopped = True
            self._fail_waiting()
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until the lanes have closed their encoders and ended."""
        with self._changed:
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in threads:
            thread.join()

    def _start(self, first: Outcome[Limits] | None) -> None:
        # A daemon: who never calls `stop` must not keep the interpreter from ending.
        name = f"gpuenc-gather-{self._plugin.label}"
        thread = threading.Thread(target=self._run, args=(first,), name=name, daemon=True)
        thread.start()
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        self._lanes += 1
        self._idle += 1

    def _run(self, first: Outcome[Limits] | None) -> None:
        """Be one lane: open an encoder, feed it as long as there is work, close it."""
        encoder = self._opened(first)
        if encoder is None:
            return
        try:
            while calls := self._next():
                if _serve(encoder, calls) and self._plugin.alive():
                    encoder = self._reopened(encoder)
                del calls  # an idle lane holds no frames
                with self._changed:
                    self._idle += 1
        finally:
            _close(encoder, self._plugin)
            with self._changed:
                self._lanes -= 1
                if not self._lanes:  # nobody is left to take them
                    self._fail_waiting()

    def _opened(self, first: Outcome[Limits] | None) -> BatchEncoder | None:
        """Return a real encoder; None where it cannot be opened, which those who wait for the first are told."""
        encoder = None
        try:
            encoder = self._plugin.open(self._target)
            limits: object = encoder.limits
            if not isinstance(limits, Limits):
                raise TypeError(f"its limits are {type(limits).__name__}, not Limits")
        except BaseException as error:  # noqa: BLE001 - callers get it, whatever it is
            if encoder is not None:
                _close(encoder, self._plugin)
            with self._changed:
                self._lanes -= 1
                self._idle -= 1
                if first is None:
                    self._do_with_what_there_is(error)
                else:
                    self._first = None
                    first.fail(error)
            return None
        if first is not None:
            with self._changed:
                self._limits, self._most_lanes, self._first = limits, limits.lanes, None
                self.verifies = hasattr(encoder, "verify")
            first.finish(limits)
        return encoder

    def _reopened(self, encoder: BatchEncoder) -> BatchEncoder:
        """Return an encoder on another device instead of one whose device is lost, or the same where there is none."""
        try:
            other = self._plugin.open(self._target)
        except Exception as error:  # noqa: BLE001 - then its frames go to the next plug-in, as they did
            LOGGER.warning("plug-in '%s' cannot be opened again: %s", self._plugin.label, error)
            return encoder
        _close(encoder, self._plugin)
        return other

    def _do_with_what_there_is(self, error: BaseException) -> None:
        self._most_lanes = self._lanes
        LOGGER.warning("plug-in '%s' goes on with %d lanes: %s", self._plugin.label, self._lanes, error)
        self._changed.notify()

    def _next(self) -> list[Call]:
        """Return the calls of the next batch as soon as it should be encoded; none when this lane should end."""
        with self._changed:
            while not self._stopped:
                patience_s = None
                if self._waiting:
                    kind = min(self._waiting, key=lambda kind: self._waiting[kind].since_s)
                    patience_s = self._patience_s(self._waiting[kind])
                    if patience_s <= 0:
                        self._idle -= 1
                        return self._take(kind)
                self._changed.wait(patience_s)
            self._idle -= 1
            return []

    def _patience_s(self, queue: Queue) -> float:
        """Return how long a batch should still gather although a lane is idle."""
        if not self._expected or queue.fills(self._bounds()):
            return 0
        return queue.since_s + self._linger_s - time.monotonic()

    def _take(self, kind: Kind) -> list[Call]:
        calls = self._waiting[kind].take(self._bounds())
        if not self._waiting[kind]:
            del self._waiting[kind]
        if self._waiting:  # for another lane, if one is idle
            self._changed.notify()
        return calls

    def _bounds(self) -> Limits:
        assert self._limits is not None  # known before there is a caller
        return self._limits

    def _fail_waiting(self) -> None:
        while self._waiting:
            _, queue = self._waiting.popitem()
            for call in queue:
                call.outcome.fail(closed(self._plugin))


def closed(plugin: Plugin) -> CodecError:
    """Return what callers get who come too late."""
    return CodecError(f"the encoders of plug-in '{plugin.label}' are closed", code="plugin-error")


def _serve(encoder: BatchEncoder, calls: Sequence[Call]) -> bool:
    """Encode or verify what `calls` hold as one batch, and give each its own results in order.

    Returns
    -------
    bool
        Whether the device is lost.
    """
    lost = False
    frames = [frame for call in calls for frame in call.frames]
    try:
        results: Sequence[Encoded | Failure | Verdict]
        if calls[0].codestreams:
            results = _verified(encoder, frames, [codestream for call in calls for codestream in call.codestreams])
        else:
            results = _encoded(encoder, frames)
    except BaseException as error:  # noqa: BLE001 - a third party's code: whatever it raises, nobody may wait for ever
        _fail(calls, error)
    else:
        lost = all(isinstance(one, Failure) and one.code in GONE_CODES for one in results)
        start = 0
        for call in calls:
            call.outcome.finish(list(results[start : start + len(call.frames)]))
            start += len(call.frames)
    finally:
        del calls, frames  # which the error's traceback would keep
    return lost


def _encoded(encoder: BatchEncoder, frames: list[Frame]) -> list[Encoded | Failure]:
    return _one_each(encoder.encode(frames), frames)


def _verified(encoder: BatchEncoder, frames: list[Frame], codestreams: list[bytes]) -> list[Verdict | Failure]:
    return _one_each(cast("DeviceVerifier", encoder).verify(frames, codestreams), frames)


def _one_each(results: object, frames: list[Frame]) -> list[Any]:
    if not isinstance(results, list | tuple):
        raise CodecError(f"returned {type(results).__name__}, not a list of results", code="plugin-error")
    if len(results) != len(frames):
        raise CodecError(f"returned {len(results)} results for {len(frames)} frames", code="plugin-error")
    return list(results)


def _fail(calls: Sequence[Call], error: BaseException) -> None:
    for call in calls:
        call.outcome.fail(error)


def _close(encoder: BatchEncoder, plugin: Plugin) -> None:
    try:
        encoder.close()
    except Exception:
        LOGGER.exception("plug-in '%s' failed to close", plugin.label)
