"""What runs in a worker process: files as they are handed over, several at a time; see `archive/workers.py`."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from gpuenc.archive.locks import worker_of
from gpuenc.archive.transcode import Interrupted, transcode_file

if TYPE_CHECKING:
    from gpuenc.archive.pool import Task
    from gpuenc.archive.request import Job

# How long files in work have to give up and remove what they wrote, once nobody waits for them.
_GIVE_UP_S = 5.0


def main(file: int) -> None:
    """Do what is asked for through the pipe `file`, until it ends."""
    # The terminal sends its signals to all processes of a job; this one obeys the process that started it.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    faulthandler.enable()
    pipe = Connection(file)
    try:
        job = pipe.recv()
        with worker_of(job.journal):
            _Worker(pipe, job).run()
    except (EOFError, OSError):
        pass
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
        pool = ThreadPoolExecutor(self._job.jobs, thread_name_prefix="gpuenc-file")
        try:
            while True:
                kind, *rest = self._pipe.recv()
                if kind == "stop":
                    self._stop.set()
                else:
                    for task in rest[0]:
                        pool.submit(self._do, task)
        except (EOFError, OSError):
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
            self._say("done", task.number, transcode_file(task.item, self._job, self._abort))
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
