"""Frames through plug-ins, on lanes: in order, bounded in bytes, and with exactly one result per frame.

A lane is a thread with a `Chain` of plug-ins of its own. How many there are, and how large batches are, is what the
first plug-in wants that can still encode: it changes where a GPU is lost and the CPU goes on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING

from gpuenc.batching import bounded_batches
from gpuenc.chain import Chain, Run
from gpuenc.cpu import decoders
from gpuenc.errors import EncodeFailed
from gpuenc.plugins import in_order, usable_cores
from gpuenc.verification import verify_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from gpuenc.frames import Encoded, Failure, Frame
    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target
    from gpuenc.verification import Verify

# What a plug-in raised is in its frames' failures; the traceback is for those who set up logging.
logging.getLogger("gpuenc").addHandler(logging.NullHandler())

DEFAULT_MEMORY_BYTES = 512 << 20


def encode_frames(
    frames: Iterable[Frame],
    target: Target,
    plugins: Sequence[Plugin],
    *,
    threads: int | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    verify: bool | Verify = "none",
    decode: Callable[[Frame], Frame] = decoders.decode_frame,
    seconds: dict[str, float] | None = None,
) -> Generator[Encoded | Failure]:
    """Yield one result per frame, in order.

    Frames are taken from `frames` in the consumer's thread, only as lanes become free. Closing the iterator, or
    letting go of it, stops the lanes and waits for them.

    Parameters
    ----------
    frames : iterable of Frame
        Of any formats and any number.
    target : Target
        What they become.
    plugins : sequence of Plugin
        In the order in which they are tried.
    threads : int, optional
        Most lanes; by default one per usable core, and on GPUs as many as these want. One lane runs in the caller's
        thread.
    memory_bytes : int
        Bound on the peak memory of all batches between `frames` and the consumer. One batch is always let
        through, and it holds at least one frame.
    verify : bool or {'none', 'all', 'independent'}
        Decode each codestream and compare every sample, with a decoder of another code base if ``'independent'``; a
        difference is that plug-in's failure. See `gpuenc.verification.judge` for who does it.
    decode : callable
        Turns a frame with `Coded` pixels into one with native cells; raises `DecodeFailed`.
    seconds : dict of str to float, optional
        Where to add the time that lanes spend on ``"decode"``, of frames that come compressed, on ``"encode"`` and on
        ``"verify"``.

    Raises
    ------
    EncodeFailed, InvalidOption
        There is no plug-in, or `verify` is none of these.
    Exception
        Whatever `frames` raises. Nothing that a plug-in does is raised: it becomes a `Failure`.
    """
    if not plugins:
        raise EncodeFailed(f"No plug-in for '{target.syntax.keyword}' is available")
    if any(plugin.from_pixels for plugin in plugins):
        frames, plugins = _measured_order(frames, plugins)
    run = Run(tuple(plugins), target, verify_of(verify), decode, {} if seconds is None else seconds)
    first = Chain(run)
    first.open_first()

    def bounds() -> tuple[int, int]:
        limits = run.limits
        share = int(memory_bytes / (_lanes(run, threads) * limits.peak_factor))
        return limits.frames, max(1, min(limits.bytes, share))

    source = bounded_batches(frames, bounds)
    # What has one lane on a GPU may have more on the CPU, later.
    if threads == 1 or (_lanes(run, threads) == 1 and not run.on_gpu):
        yield from _inline(source, first)
    else:
        yield from _parallel(source, first, run, threads, memory_bytes)


def _measured_order(frames: Iterable[Frame], plugins: Sequence[Plugin]) -> tuple[Iterable[Frame], tuple[Plugin, ...]]:
    """Return the frames, of which the first is taken, and the plug-ins in the order for frames of its size."""
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        return (), tuple(plugins)
    return chain([first], rest), in_order(plugins, first.format.rows * first.format.columns)


def _lanes(run: Run, threads: int | None) -> int:
    """Return how many lanes there should be now."""
    wanted = run.limits.lanes
    most = threads or (wanted if run.on_gpu else usable_cores())
    return max(1, min(most, wanted))


def _inline(source: Iterator[tuple[Frame, ...]], lane: Chain) -> Iterator[Encoded | Failure]:
    try:
        for batch in source:
            yield from lane.encode(batch)
    finally:
        lane.close()


def _parallel(
    source: Iterator[tuple[Frame, ...]], first: Chain, run: Run, threads: int | None, memory_bytes: int
) -> Iterator[Encoded | Failure]:
    lanes_open = _Lanes(first)
    # Threads come with batches, and no more of them work than lanes are open.
    most = threads or max(usable_cores(), run.limits.lanes)
    pool = ThreadPoolExecutor(most, thread_name_prefix="gpuenc-lane")
    pending: deque[tuple[Future[list[Encoded | Failure]], int]] = deque()
    in_flight = taken = 0
    try:
        for batch in source:
            need, lanes = run.peak_bytes(batch), _lanes(run, threads)
            # Two batches more than lanes keep every lane busy while the consumer holds one.
            while pending and (len(pending) >= lanes + 2 or in_flight + need > memory_bytes):
                future, done_bytes = pending.popleft()
                yield from future.result()
                in_flight -= done_bytes
            # One more, as long as every open one has a batch.
            if lanes_open.count < lanes and len(pending) >= lanes_open.count:
                lanes_open.add(Chain(run))
            pending.append((pool.submit(lanes_open.encode, batch, taken), need))
            taken += 1
            in_flight += need
            del batch
            while pending and pending[0][0].done():
                future, done_bytes = pending.popleft()
                yield from future.result()
                in_flight -= done_bytes
        while pending:
            yield from pending.popleft()[0].result()
    finally:
        lanes_open.close()
        # The garbage collector may close this generator in a lane's own thread, which cannot wait for itself, or in a
        # device's, for which the lane waits.
        ours = threading.current_thread().name.startswith(
            ("gpuenc-lane", "gpuenc-gather", "gpuenc-gpu", "gpuenc-probe")
        )
        pool.shutdown(wait=not ours, cancel_futures=True)


class _Lanes:
    """The lanes of one run, idle or in use; safe to use from all of its threads."""

    def __init__(self, first: Chain) -> None:
        self.count = 1
        self._idle = [first]
        self._closed = False
        self._turn = 0
        # Reentrant: the collector may close the run in a thread that holds it.
        self._lock = threading.Condition(threading.RLock())

    def add(self, lane: Chain) -> None:
        self.count += 1
        with self._lock:
            self._idle.append(lane)
            self._lock.notify_all()

    def encode(self, batch: Sequence[Frame], turn: int) -> list[Encoded | Failure]:
        """Encode `batch` on a lane, once one is idle and it is its turn; of a closed run, nobody waits for the results.

        Turns count from 0. Threads are more than lanes, since lanes may become more.
        """
        with self._lock:
            while not self._closed and (turn != self._turn or not self._idle):
                self._lock.wait()
            if self._closed:
                return []
            lane = self._idle.pop()
            self._turn += 1
            self._lock.notify_all()
        try:
            return lane.encode(batch)
        finally:
            with self._lock:
                self._idle.append(lane)
                self._lock.notify_all()
                if self._closed:
                    self.close()

    def close(self) -> None:
        """Close the idle lanes now, and each of the others when it becomes idle."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            while self._idle:
                self._idle.pop().close()
