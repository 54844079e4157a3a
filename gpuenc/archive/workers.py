"""Worker processes: a crash or a hang costs the one file that caused it, and nobody else.

Each process is told of files and says when it begins and when it has done one. When it dies, the files it had begun
are suspects: each is given, alone, to a process of its own, and one that ends that process too is given up. A process
that stays with one file for too long is ended, and the same is done with its files.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from gpuenc.archive.budget import ByteBudget
from gpuenc.archive.leftovers import remove_leftovers
from gpuenc.archive.pool import QUEUED_PER_FILE
from gpuenc.archive.processes import how_it_ended, started
from gpuenc.archive.report import Record
from gpuenc.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gpuenc.archive.pool import Task
    from gpuenc.archive.request import Job
    from gpuenc.dicom.atomic import Unnamed

# Far more than any file takes that comes to an end.
_FILE_S, _BYTES_PER_S = 300.0, 128 << 10
# A GPU and its libraries may take a minute.
_START_S = 300.0
# How often a file may end a process that does nothing else before it is given up.
_TRIES_ALONE = 2
# Deaths in a row without a file done between them: before any process was ready, before any file was done, and later,
# when a folder full of such files is likelier than a machine that can do nothing any more.
_MOST_DEATHS_UNREADY, _MOST_DEATHS_AT_FIRST, _MOST_DEATHS = 3, 20, 300
_CLOSE_S = 10.0
# Longer than it takes to come back here; more, and this process was stopped, and its workers with it.
_PAUSE_S = 30.0


@dataclass(slots=True)
class _Worker:
    """One process, what it was given, what of that it has begun, and when; and when it was last heard of."""

    number: int
    process: subprocess.Popen[bytes]
    pipe: connection.Connection
    files_at_once: int
    alone: bool = False
    tasks: dict[int, Task] = field(default_factory=dict)
    begun_s: dict[int, float] = field(default_factory=dict)
    done: int = 0
    ready: bool = False
    heard_s: float = field(default_factory=time.monotonic)


class Workers:
    """A `Pool` of processes.

    Parameters
    ----------
    job : Job
        What to do with each file; `Job.workers` processes, with `Job.jobs` files at once among them.
    file_s : float
        For how long a process may be busy with one file, besides the time that its size needs.

    Raises
    ------
    JobError
        ``workers-failed``: a process cannot be started.
    """

    def __init__(self, job: Job, *, file_s: float = _FILE_S) -> None:
        self._file_s = file_s
        self._count = job.workers
        self._files_at_once = each = max(1, -(-job.jobs // job.workers))
        budget = ByteBudget(max(1, job.budget.total_bytes // job.workers))
        device_bytes = job.device_memory_bytes and max(1, job.device_memory_bytes // job.workers)
        self._job = replace(job, jobs=each, workers=0, budget=budget, device_memory_bytes=device_bytes)
        self._workers: list[_Worker] = []
        # Kept, since `multiprocessing.connection.wait` makes one for each message.
        self._pipes = selectors.DefaultSelector()
        self._waiting: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._tries: dict[int, int] = {}
        self._outcomes: list[tuple[int, Record]] = []
        self._deaths = self._started = 0
        self._ever_ready = self._ever_done = False
        self._looked_s, self._stopped = time.monotonic(), False
        self.unnamed: dict[int, Unnamed] = {}
        self.dropped: set[int] = set()
        self.gpu_unused = ""
        self._start()

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""
        at_once = max([self._files_at_once, *(worker.files_at_once for worker in self._workers)])
        return self._count * at_once * QUEUED_PER_FILE - self.outstanding

    @property
    def outstanding(self) -> int:
        """Tasks that were given and have no outcome yet."""
        return (
            len(self._waiting)
            + len(self._suspects)
            + len(self._outcomes)
            + sum(len(worker.tasks) for worker in self._workers)
        )

    def demand_ready(self) -> None:
        """Wait until the first process has said whether it can do anything.

        Raises
        ------
        JobError
            ``invalid-option``: there is no such plug-in; ``device-unavailable``, ``encode-failed``: nothing here can
            encode; ``workers-failed``.
        """
        while not any(worker.ready for worker in self._workers):
            if not self._workers:
                self._start()
            self._listen(1.0)
            self._end_the_hung()

    def give(self, tasks: Sequence[Task]) -> None:
        """Have tasks done."""
        self._waiting.extend(tasks)
        self._hand_out()

    def take(self, timeout_s: float) -> list[tuple[int, Record]]:
        """Return the outcomes there are; wait so long for the first.

        Raises
        ------
        JobError
            ``workers-failed``: processes die without having done anything.
        """
        self._listen(0.0 if self._outcomes else timeout_s)
        self._end_the_hung()
        self._hand_out()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def stop(self) -> None:
        """Begin nothing more; what is in work still gets its outcome."""
        self._stopped = True
        # One that may be replaced may have been begun, by a process that has died.
        self.dropped.update(task.number for task in self._waiting if not task.item.replaces)
        self._waiting.clear()
        self._suspects.clear()
        for worker in self._workers:
            self._send(worker, ("stop",))

    def close(self) -> None:
        """Give up what is in work, and end the processes."""
        self._pipes.close()
        for worker in self._workers:
            worker.pipe.close()  # a worker whose pipe ends gives up what it does
        deadline = time.monotonic() + _CLOSE_S
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        # What they had complete, or had no time to remove.
        given = (task.item for worker in self._workers for task in worker.tasks.values())
        remove_leftovers(given, self._job, self._job.token)
        self._workers.clear()
        for output in self.unnamed.values():
            output.remove()
        self.unnamed.clear()

    def states(self) -> list[str]:
        """Return a line on each worker."""
        return [
            f"worker {worker.number}{' (alone with one file)' if worker.alone else ''}: {worker.done} done, "
            f"{len(worker.begun_s)} in work"
            for worker in self._workers
        ]

    def _start(self, *, alone: bool = False) -> _Worker:
        self._started += 1
        about = {"GPUENC_WORKER": str(self._started), "GPUENC_WORKERS": str(self._count)}
        try:
            process, pipe = started("gpuenc.archive.worker", about)
        except OSError as error:
            raise JobError(f"a worker cannot be started: {error.strerror}", code="workers-failed") from None
        files_at_once = 1 if alone else self._files_at_once
        worker = _Worker(self._started, process, pipe, files_at_once, alone)
        self._workers.append(worker)
        self._pipes.register(worker.pipe, selectors.EVENT_READ, worker)
        self._send(worker, replace(self._job, jobs=files_at_once))
        return worker

    def _send(self, worker: _Worker, message: Any) -> None:
        # If it is dead, its end of the pipe will tell; one that does not listen any more is as good as dead.
        try:
            worker.pipe.send(message)
        except OSError:
            worker.process.kill()

    def _hand_out(self) -> None:
        """Give what waits to whoever has least, and suspects to processes of their own."""
        if self._stopped:
            return
        if self._suspects and not any(worker.alone for worker in self._workers):
            self._give(self._start(alone=True), [self._suspects.popleft()])
        while self._waiting:
            regular = [worker for worker in self._workers if not worker.alone]
            if not regular:
                self._start()
                continue
            worker = min(regular, key=lambda one: len(one.tasks))
            full = worker.files_at_once * QUEUED_PER_FILE
            # Another process is worth its start when those there are have their hands full.
            if len(worker.tasks) >= worker.files_at_once and len(regular) < self._count:
                worker = self._start()
            elif len(worker.tasks) >= full:
                return
            room = min(len(self._waiting), worker.files_at_once, max(1, full - len(worker.tasks)))
            self._give(worker, [self._waiting.popleft() for _ in range(room)])

    def _give(self, worker: _Worker, tasks: list[Task]) -> None:
        if not worker.tasks:
            worker.heard_s = time.monotonic()
        worker.tasks.update((task.number, task) for task in tasks)
        self._send(worker, ("tasks", tasks))

    def _listen(self, timeout_s: float) -> None:
        """Take what the processes have said; wait so long for the first word."""
        ready = self._pipes.select(timeout_s)
        while ready:
            for worker in [key.data for key, _ in ready if key.data in self._workers]:
                try:
                    self._heard(worker, *worker.pipe.recv())
                except (EOFError, OSError):
                    if worker in self._workers:
                        self._buried(worker)
            ready = self._pipes.select(0.0)

    def _heard(self, worker: _Worker, kind: str, number: Any, *rest: Any) -> None:
        worker.heard_s = time.monotonic()
        if kind == "ready":
            worker.ready, worker.files_at_once = True, number
            self._ever_ready, self.gpu_unused = True, rest[0]
        elif kind == "refused":
            raise JobError(rest[0], code=number)
        elif kind == "begin":
            worker.begun_s[number] = time.monotonic()
        elif kind == "waits":
            worker.begun_s[number] = math.inf  # for memory, as long as others take
        elif kind == "done":
            self.unnamed.update((number, output) for output in rest[1:])
            self._finished(worker, number, rest[0])
        else:  # "dropped", after a stop
            task = worker.tasks.pop(number, None)
            if worker.begun_s.pop(number, None) is None and task and not task.item.replaces:
                self.dropped.add(number)

    def _finished(self, worker: _Worker, number: int, record: Record) -> None:
        worker.tasks.pop(number, None)
        worker.begun_s.pop(number, None)
        self._tries.pop(number, None)
        worker.done += 1
        self._deaths, self._ever_done = 0, True
        self._outcomes.append((number, record.but(worker=worker.number)))
        if worker.alone:
            self._dismiss(worker)

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._pipes.unregister(worker.pipe)
        worker.pipe.close()
        try:
            worker.process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()

    def _buried(self, worker: _Worker, *, suspected: Collection[int] | None = None) -> None:
        """Find out which of a dead process's files may have killed it; the others go back to those that wait.

        `suspected` are those that a process was busy with for too long; by default all that it had begun.
        """
        self._dismiss(worker)
        self._deaths += 1
        remove_leftovers((worker.tasks[number].item for number in worker.begun_s), self._job, self._job.token)
        if self._stopped:
            return
        self._demand_life(worker)
        suspects = worker.begun_s if suspected is None else suspected
        innocent: list[Task] = []
        for number, task in worker.tasks.items():
            # Its output may be there already: the process may have ended before it could say so.
            again = _replacing(task) if number in worker.begun_s else task
            if number not in suspects:
                innocent.append(again)
                continue
            if worker.alone:
                self._tries[number] = self._tries.get(number, 0) + 1
            if worker.alone and (suspected or self._tries[number] >= _TRIES_ALONE):
                self._give_up(task, worker, hung=bool(suspected))
            else:
                self._suspects.append(again)
        (self._suspects if worker.alone else self._waiting).extendleft(reversed(innocent))

    def _demand_life(self, worker: _Worker) -> None:
        most = _MOST_DEATHS if self._ever_done else _MOST_DEATHS_AT_FIRST if self._ever_ready else _MOST_DEATHS_UNREADY
        if self._deaths >= most:
            raise JobError(
                f"{self._deaths} worker processes died in a row; "
                f"the last one {how_it_ended(worker.process.returncode)}",
                code="workers-failed",
            )

    def _give_up(self, task: Task, worker: _Worker, *, hung: bool) -> None:
        code = "worker-hung" if hung else "worker-crashed"
        message = (
            "it kept the process that worked on it busy for too long"
            if hung
            else f"it ended each process that worked on it; the last one {how_it_ended(worker.process.returncode)}"
        )
        record = Record(
            task.item.name,
            "failed",
            reason=code,
            message=message,
            target_syntax=self._job.target.syntax.uid,
            bytes_in=task.size_bytes,
            finished_s=max(0.0, time.time()),
            worker=worker.number,
        )
        self._outcomes.append((task.number, record))

    def _end_the_hung(self) -> None:
        now = time.monotonic()
        paused_s, self._looked_s = now - self._looked_s, now
        for worker in list(self._workers):
            if paused_s > _PAUSE_S:
                worker.heard_s += paused_s
                worker.begun_s = {number: begun_s + paused_s for number, begun_s in worker.begun_s.items()}
            late = self._late(worker, now)
            silent_s = 0.0 if worker.begun_s else now - worker.heard_s
            silent = silent_s > self._file_s and worker.tasks if worker.ready else silent_s > _START_S
            if not (late or silent):
                continue
            worker.process.kill()
            worker.process.wait()
            # What it said before counts.
            with contextlib.suppress(EOFError, OSError):
                while worker.pipe.poll():
                    self._heard(worker, *worker.pipe.recv())
            if worker in self._workers:
                # Only the late ones are under suspicion; the others are begun again.
                self._buried(worker, suspected=late & worker.begun_s.keys())

    def _late(self, worker: _Worker, now: float) -> set[int]:
        """Return the files that a process has been busy with for too long."""
        return {
            number
            for number, begun_s in worker.begun_s.items()
            if now - begun_s > self._file_s + worker.tasks[number].size_bytes / _BYTES_PER_S
        }


def _replacing(task: Task) -> Task:
    return replace(task, item=replace(task.item, replaces=True))
