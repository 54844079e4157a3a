"""What callers ask of a pool: calls, those that may share a batch, and what comes of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from gpuenc.frames import Coded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from gpuenc.frames import Encoded, Failure, Frame, FrameFormat
    from gpuenc.plugins import Limits, Verdict


# What the calls of one batch have in common: the format, whether frames are codestreams, whether they are verified.
type Kind = tuple[FrameFormat, bool, bool]


class Outcome[T]:
    """A value that some thread will have, or the error that it met instead; any number of threads may wait for it."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None

    @property
    def known(self) -> bool:
        """Whether there is a result."""
        return self._done.is_set()

    def finish(self, value: T) -> None:
        """Hand over the value."""
        self._value = [value]
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """Hand over the error."""
        self._error, self._traceback = error, error.__traceback__
        self._done.set()

    def result(self) -> T:
        """Wait, and return the value or raise the error."""
        self._done.wait()
        try:
            if self._error is not None:
                # Raised in many threads: without their own part it would collect the frames of all of them.
                raise self._error.with_traceback(self._traceback)
            return self._value[0]
        finally:
            del self  # or the error would keep itself alive


class Call:
    """Frames of one format that one caller hands over, to be encoded, or with their codestreams to be verified."""

    def __init__(self, frames: Sequence[Frame], codestreams: Sequence[bytes] = ()) -> None:
        self.frames, self.codestreams = tuple(frames), tuple(codestreams)
        self.size_bytes = sum(frame.format.frame_bytes for frame in self.frames)
        # What may share a batch: see `gpuenc.plugins.BatchEncoder.encode`.
        self.kind: Kind = (self.frames[0].format, isinstance(self.frames[0].pixels, Coded), bool(self.codestreams))
        self.arrived_s = time.monotonic()
        self.outcome: Outcome[list[Encoded | Failure | Verdict]] = Outcome()


class Queue:
    """The calls that may share a batch, in the order in which they came."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._frames = self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls)

    @property
    def since_s(self) -> float:
        """When the oldest call came, by `time.monotonic`."""
        return self._calls[0].arrived_s

    def put(self, call: Call) -> None:
        """Add `call` at the end."""
        self._calls.append(call)
        self._count(call, 1)

    def remove(self, call: Call) -> None:
        """Take `call` out, wherever it is."""
        self._calls.remove(call)
        self._count(call, -1)

    def fills(self, limits: Limits) -> bool:
        """Whether there is a batch's worth."""
        return self._frames >= limits.frames or self._size_bytes >= limits.bytes

    def take(self, limits: Limits) -> list[Call]:
        """Remove and return the oldest call, and those after it as long as all together keep the limits."""
        taken: list[Call] = []
        frames = size_bytes = 0
        while self._calls:
            call = self._calls[0]
            frames, size_bytes = frames + len(call.frames), size_bytes + call.size_bytes
            if taken and (frames > limits.frames or size_bytes > limits.bytes):
                break
            taken.append(self._calls.popleft())
            self._count(call, -1)
        return taken

    def _count(self, call: Call, sign: int) -> None:
        self._frames += sign * len(call.frames)
        self._size_bytes += sign * call.size_bytes
