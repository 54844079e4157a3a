"""A pool of threads in this process."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gpuenc.archive.carried import carry
from gpuenc.archive.descriptors import files_at_once
from gpuenc.archive.pool import QUEUED_PER_FILE, demand_plugins
from gpuenc.archive.transcode import Interrupted
from gpuenc.errors import JobError
from gpuenc.gathering import Gathering
from gpuenc.registry import why_on_cpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.archive.pool import Task
    from gpuenc.archive.report import Record
    from gpuenc.archive.request import Job
    from gpuenc.dicom.atomic import Unnamed
    from gpuenc.plugins import Plugin


class Threads:
    """A `Pool` of threads in this process.

    Parameters
    ----------
    job : Job
        What to do with each file, and how many at once.
    """

    def __init__(self, job: Job) -> None:
        plugins: Sequence[Plugin] = ()
        self._problem: JobError | None = None
        try:
            plugins = () if job.plugins else demand_plugins(job)
        except JobError as error:
            self._problem = error
        self._gathering = Gathering(plugins)
        self._job = job = replace(job, plugins=job.plugins or self._gathering.plugins, jobs=files_at_once(job.jobs))
        self._abort = threading.Event()
        self._executor = ThreadPoolExecutor(job.jobs, thread_name_prefix="gpuenc-file")
        self._done: queue.SimpleQueue[tuple[int, Future[Record]]] = queue.SimpleQueue()
        self._futures: dict[int, Future[Record]] = {}
        self.unnamed: dict[int, Unnamed] = {}
        self.dropped: set[int] = set()

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""
        return self._job.jobs * QUEUED_PER_FILE - len(self._futures)

    @property
    def outstanding(self) -> int:
        """Tasks that were given and have no outcome yet."""
        return len(self._futures)

    @property
    def gpu_unused(self) -> str:
        """Why no GPU is used although one could be."""
        return why_on_cpu(self._job.target.syntax, self._job.device, self._job.plugin)

    def demand_ready(self) -> None:
        """Raise what keeps everything from being encoded; there is nothing to wait for."""
        if self._problem:
            raise self._problem

    def give(self, tasks: Sequence[Task]) -> None:
        """Have tasks done."""
        for task in tasks:
            defer = partial(self.unnamed.__setitem__, task.number) if self._job.durability == "shard" else None
            future = self._executor.submit(
                carry, task.item, self._job, self._abort, defer=defer, destination=task.destination
            )
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
        self.dropped.update(number for number, future in list(self._futures.items()) if future.cancel())

    def close(self) -> None:
        """Give up what is in work."""
        self._abort.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
        for unnamed in self.unnamed.values():
            unnamed.remove()
        self.unnamed.clear()
        self._gathering.close()

    def states(self) -> list[str]:
        """Return a line on each worker."""
        return []
