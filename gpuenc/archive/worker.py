"""What runs in a worker process: files as they are handed over, several at a time; see `archive/workers.py`."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpuenc.archive.budget import FILES_BEYOND_CORES, file_threads
from gpuenc.archive.carried import carry
from gpuenc.archive.descriptors import files_at_once
from gpuenc.archive.locks import worker_of
from gpuenc.archive.pool import demand_plugins
from gpuenc.archive.processes import begun
from gpuenc.archive.transcode import Interrupted
from gpuenc.errors import JobError
from gpuenc.gathering import Gathering
from gpuenc.registry import why_on_cpu

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from gpuenc.archive.pool import Task
    from gpuenc.archive.request import Job
    from gpuenc.dicom.atomic import Unnamed

# How long files in work have to give up and remove what they wrote, once nobody waits for them.
_GIVE_UP_S = 5.0


def main(file: int) -> None:
    """Do what is asked for through the pipe `file`, until it ends."""
    pipe = begun(file)
    with contextlib.suppress(EOFError, OSError):
        _Worker(pipe, pipe.recv()).run()
    # Not through Python's own end, which would wait for threads that hang.
    os._exit(0)


class _Worker:
    def __init__(self, pipe: Connection, job: Job) -> None:
        self._pipe, self._job = pipe, job
        self._sending = threading.Lock()
        self._stop, self._abort = threading.Event(), threading.Event()
        self._idle = threading.Condition()
        self._in_work = 0

    def run(self) -> None:
        job = self._job
        try:
            plugins = demand_plugins(job)
        except JobError as error:
            return self._say("refused", error.code, str(error))
        # Not closed: this process ends without waiting for anyone.
        shared = Gathering(plugins).plugins
        at_once = job.jobs
        if job.lanes is None and at_once > 1:
            at_once = file_threads(shared, job.target, job.budget.total_bytes, at_once - FILES_BEYOND_CORES)
        at_once = files_at_once(at_once)
        self._job = replace(job, plugins=shared, jobs=at_once)
        no_gpu = why_on_cpu(job.target.syntax, job.device, job.plugin)
        self._say("ready", at_once, no_gpu)
        return self._obey()

    def _obey(self) -> None:
        pool = ThreadPoolExecutor(self._job.jobs, thread_name_prefix="gpuenc-file")
        message = self._pipe.recv()
        # From the first file on: while this process starts, the job takes its own lock.
        with worker_of(self._job.journal):
            self._follow(pool, message)

    def _follow(self, pool: ThreadPoolExecutor, message: tuple[Any, ...]) -> None:
        try:
            while True:
                kind, *rest = message
                if kind == "stop":
                    self._stop.set()
                else:
                    for task in rest[0]:
                        pool.submit(self._do, task)
                message = self._pipe.recv()
        finally:
            # The job is over, or whoever ran it is gone: nothing that is not finished may stay behind.
            self._stop.set()
            self._abort.set()
            pool.shutdown(wait=False, cancel_futures=True)
            with self._idle:
                self._idle.wait_for(lambda: not self._in_work, _GIVE_UP_S)

    def _do(self, task: Task) -> None:
        if self._stop.is_set():
            self._say("dropped", task.number)
            return
        with self._idle:
            self._in_work += 1
        try:
            self._say("begin", task.number)

            def waits(waiting: bool) -> None:
                self._say("waits" if waiting else "begin", task.number)

            outputs: list[Unnamed] = []
            defer = outputs.append if self._job.durability == "shard" else None
            record = carry(task.item, self._job, self._abort, waits, defer, task.destination)
            self._say("done", task.number, record, *outputs)
        except Interrupted:
            self._say("dropped", task.number)
        finally:
            with self._idle:
                self._in_work -= 1
                self._idle.notify_all()

    def _say(self, *message: object) -> None:
        with self._sending:
            try:
                self._pipe.send(message)
            except OSError:
                self._abort.set()
