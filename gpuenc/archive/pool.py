"""Who does a job's files: several threads of this process here, worker processes in `archive/workers.py`."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from gpuenc.archive.transcode import Interrupted, transcode_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.archive.report import Record
    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item

# Files handed out at once, for each that can be in work: enough that nobody waits for the next.
QUEUED_PER_FILE = 4


@dataclass(frozen=True, slots=True)
class Task:
    """One file to do: its number in the job, what it is, and the size of its source in bytes."""

    number: int
    item: Item
    size_bytes: int = 0


class Pool(Protocol):
    """Does tasks, several at a time. Used by one thread."""

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""

    @property
    def outstanding(self) -> int:
        """Tasks that were given and have no outcome yet."""

    def give(self, tasks: Sequence[Task]) -> None:
        """Have tasks done; each comes back from `take` once."""

    def take(self, timeout_s: float) -> list[tuple[int, Record]]:
        """Return the outcomes there are, by the number of their task; wait so long for the first.

        Raises
        ------
        WorkersFailed
            Nothing can be done any more.
        """

    def stop(self) -> None:
        """Begin nothing more; what is in work still gets its outcome."""

    def close(self) -> None:
        """Give up what is in work without a trace in the destination, and end. Called once, in any case."""

    def states(self) -> list[str]:
        """Return a line on each worker, for people."""


class Threads:
    """A `Pool` of threads in this process.

    Parameters
    ----------
    job : Job
        What to do with each file, and how many at once.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._abort = threading.Event()
        self._executor = ThreadPoolExecutor(job.jobs, thread_name_prefix="gpuenc-file")
        self._done: queue.SimpleQueue[tuple[int, Future[Record]]] = queue.SimpleQueue()
        self._futures: dict[int, Future[Record]] = {}

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""
        return self._job.jobs * QUEUED_PER_FILE - len(self._futures)

    @property
    def outstanding(self) -> int:
        """Tasks that were given and have no outcome yet."""
        return len(self._futures)

    def give(self, tasks: Sequence[Task]) -> None:
        """Have tasks done."""
        for task in tasks:
            future = self._executor.submit(transcode_file, task.item, self._job, self._abort)
            self._futures[task.number] = future
            future.add_done_callback(partial(self._put, task.number))

    def take(self, timeout_s: float) -> list[tuple[int, Record]]:
        """Return the outcomes there are; wait so long for the first."""
        found: list[tuple[int, Record]] = []
        try:
            while True:
                number, future = self._done.get(timeout=0 if found else timeout_s)
                del self._futures[number]
                if not future.cancelled() and not isinstance(future.exception(), Interrupted):
                    found.append((number, future.result()))
        except queue.Empty:
            return found

    def _put(self, number: int, future: Future[Record]) -> None:
        self._done.put((number, future))

    def stop(self) -> None:
        """Begin nothing more."""
        for future in list(self._futures.values()):
            future.cancel()

    def close(self) -> None:
        """Give up what is in work."""
        self._abort.set()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def states(self) -> list[str]:
        """Return a line on each worker."""
        return []
