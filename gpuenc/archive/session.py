"""What runs in a worker of a cluster: the processes of one machine (`archive/workers.py`), and who hands them shards.

A worker's own process touches no file and no codec, so that nothing of a job ends or blocks it. A session lives as long
as the one that runs the job holds on to it. Knows of no cluster.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_remote
from gpuenc.archive.budget import FILES_BEYOND_CORES, ByteBudget
from gpuenc.archive.elsewhere import demand_elsewhere, demand_reached, scratch_folder
from gpuenc.archive.folders import identity
from gpuenc.archive.workers import Workers
from gpuenc.errors import GpuencError, JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuenc.archive.pool import Task
    from gpuenc.archive.report import Record
    from gpuenc.archive.request import Job

_CORES_PER_PROCESS = 4
# A worker's memory is also that of its processes' libraries, and of what the files' pages take.
_MEMORY_SHARE = 4
_LEAST_BYTES = 512 << 20
_LOOK_EVERY_S = 1.0
_TAKE_S = 0.05
# How long another machine may take to see a file that was just made.
_SEEN_S = 5.0


class SessionLost(RuntimeError):
    """The session that a shard was meant for is not there any more: the shard was not begun, or was given up."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a worker has for a job: cores; memory in bytes, 0 where that is not known; a folder for scratch files."""

    cores: int
    memory_bytes: int = 0
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a worker says when it joins: its session's name, files at once, and why no GPU is used where one is.

    `has_gpu`: the cluster counts a GPU as its. Or, in `refused`, why it cannot do the job, with a code.
    """

    name: str = ""
    files_at_once: int = 1
    gpu_unused: str = ""
    host: str = ""
    has_gpu: bool = False
    refused: str = ""
    code: str = ""


@dataclass(slots=True)
class _Attempt:
    """A shard in work: which files it still waits for, and what became of the others."""

    missing: set[int]
    outcomes: list[tuple[int, Record]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


class Session:
    """One job in one worker of a cluster.

    Parameters
    ----------
    job : Job
        What to do; `Job.cluster` says what was asked for of each worker. This machine sees its destination: from now
        on, another folder of that name is not written to.
    means : Means
        What this worker has.
    held : callable
        Whether the one that runs the job still holds on to this session; asked every second.
    tell : callable
        Is told every second how many files are done, and how many shards in work.
    has_gpu : bool
        The cluster counts a GPU as this worker's.
    """

    def __init__(
        self,
        job: Job,
        means: Means,
        held: Callable[[], bool],
        tell: Callable[[int, int], None],
        *,
        has_gpu: bool = False,
    ) -> None:
        self._has_gpu = has_gpu
        self.name = os.urandom(8).hex()
        self._job, self._held, self._tell = fitted(job, means), held, tell
        # It was seen to be the job's; how other machines number their disks says nothing here.
        self._place = None if job.dry_run or is_remote(job.destination) else identity(job.destination)
        self._given: queue.SimpleQueue[tuple[int, Sequence[Task]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._attempts: dict[int, _Attempt] = {}
        self._made: set[int] = set()
        self._where: dict[int, int] = {}
        self._done, self._looked_s = 0, 0.0
        self._stop, self._end = threading.Event(), threading.Event()
        self._admission: queue.SimpleQueue[Admission] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="gpuenc-session", daemon=True)

    @property
    def over(self) -> bool:
        """Whether nothing is done here any more."""
        return self._end.is_set()

    def begin(self) -> Admission:
        """Start the processes, and return what they say."""
        self._thread.start()
        return self._admission.get()

    def do(self, number: int, tasks: Sequence[Task]) -> list[tuple[int, Record]]:
        """Do a shard; return the outcome of each file, after a stop of those that were begun.

        Raises
        ------
        SessionLost
            The session is over, or the attempt `number` was made before: a cluster may run its task again.
        JobError
            ``workers-failed``.
        """
        attempt = _Attempt({task.number for task in tasks})
        with self._lock:
            if self._end.is_set() or number in self._made:
                raise SessionLost(self.name)
            self._made.add(number)
            self._attempts[number] = attempt
        self._given.put((number, tasks))
        attempt.over.wait()
        if attempt.error:
            raise attempt.error
        return attempt.outcomes

    def stop(self) -> None:
        """Begin nothing more; shards come back with what is done."""
        self._stop.set()
        self._given.put(None)

    def close(self) -> None:
        """Give up what is in work, and end the processes."""
        with self._lock:
            self._end.set()
        self._given.put(None)
        self._thread.join()

    def _run(self) -> None:
        host = socket.gethostname()
        error: Exception = SessionLost(self.name)
        pool: Workers | None = None
        try:
            with scratch_folder(self._job):
                try:
                    pool = Workers(self._job)
                    pool.demand_ready()
                    self._admission.put(Admission(self.name, self._job.jobs, pool.gpu_unused, host, self._has_gpu))
                    self._serve(pool)
                finally:
                    if pool:
                        pool.close()
        except GpuencError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001 - whoever waits must hear of it, and it has no other way out
            error = JobError(f"a worker's session ended: {type(problem).__name__}", code="workers-failed")
        finally:
            code = error.code if isinstance(error, GpuencError) else JobError.code
            self._admission.put(Admission(host=host, refused=str(error), code=code))
            with self._lock:
                self._end.set()
                for attempt in self._attempts.values():
                    attempt.error = error
                    attempt.over.set()

    def _serve(self, pool: Workers) -> None:
        stopped = False
        while not self._end.is_set():
            now = time.monotonic()
            if now - self._looked_s > _LOOK_EVERY_S:
                self._looked_s = now
                if not self._held():
                    return
                self._tell(self._done, len(self._attempts))
            with contextlib.suppress(queue.Empty):
                self._take_in(pool, self._given.get(timeout=0 if self._where else _LOOK_EVERY_S))
            if self._stop.is_set() and not stopped:
                stopped = True
                pool.stop()
            for number, record in pool.take(_TAKE_S) if self._where else ():
                self._arrived(number, record)
            if stopped and not pool.outstanding:
                self._where.clear()
                for shard in list(self._attempts):
                    self._over(shard)

    def _take_in(self, pool: Workers, given: tuple[int, Sequence[Task]] | None) -> None:
        if given and not self._stop.is_set():
            shard, tasks = given
            self._where.update((task.number, shard) for task in tasks)
            pool.give([replace(task, destination=self._place) for task in tasks])

    def _arrived(self, number: int, record: Record) -> None:
        shard = self._where.pop(number)
        attempt = self._attempts[shard]
        attempt.outcomes.append((number, record))
        attempt.missing.discard(number)
        self._done += 1
        if not attempt.missing:
            self._over(shard)

    def _over(self, shard: int) -> None:
        with self._lock:
            self._attempts.pop(shard).over.set()


def fitted(job: Job, means: Means) -> Job:
    """Return the job with what one worker of the cluster gives it, where nothing else was asked for.

    Scratch files lie in the worker's own folder, which Dask removes after a worker that was killed.
    """
    asked = job.cluster
    if asked is None:
        return job
    at_once = asked.jobs or means.cores + FILES_BEYOND_CORES
    memory_bytes = asked.memory_bytes or max(_LEAST_BYTES, means.memory_bytes // _MEMORY_SHARE)
    return replace(
        job,
        jobs=at_once,
        lanes=asked.jobs or None,
        workers=min(asked.workers or max(1, means.cores // _CORES_PER_PROCESS), at_once),
        budget=ByteBudget(memory_bytes),
        report=None,
        scratch=Path(means.folder or gettempdir()) / f"gpuenc-{os.urandom(8).hex()}" if job.is_elsewhere else None,
    )


def why_unreachable(job: Job, mark: Path | None) -> str:
    """Return why a worker cannot do the job's files, or nothing; `mark` was just made in a folder of outputs."""
    for source in (source for source in job.sources if not is_remote(source)):
        needs = os.R_OK | (os.X_OK if source.is_dir() else 0) | (os.W_OK if job.in_place else 0)
        if not os.access(source, needs):
            there = os.path.lexists(source)
            return f"it has no access to the source {source}" if there else f"it does not see the source {source}"
    if job.is_elsewhere:
        try:
            demand_elsewhere(job)
            demand_reached(job)
        except JobError as error:
            return str(error)
    if mark is None:
        return ""
    until = time.monotonic() + _SEEN_S
    while not mark.exists():
        if time.monotonic() > until:
            return f"it does not see the destination {job.destination}, or another folder of that name"
        time.sleep(_SEEN_S / 20)
    for folder in (mark.parent, job.destination):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            return f"it cannot write to the destination {job.destination}"
    return ""
