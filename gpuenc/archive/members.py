"""A pool of a cluster's workers: shards of files to whoever has none, one job on as many machines as there are.

Each shard goes to one worker, and to another one only once that worker is gone or silent. What comes back late from
such a worker is ignored, and its session gives up what it does once nobody holds on to it (`archive/session.py`). So it
is with all workers where the scheduler is lost and comes back.
"""

from __future__ import annotations

import contextlib
import queue
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from gpuenc._version import __version__
from gpuenc.archive.cluster import BACK_S, Dask, WorkerGone, do, join
from gpuenc.archive.leftovers import remove_leftovers, token_of_worker
from gpuenc.archive.marks import Mark
from gpuenc.archive.progress import counted
from gpuenc.archive.session import Admission
from gpuenc.archive.shards import AFTER_S, SHARDS_PER_WORKER, Shard, Shards, packed, unpacked_outcomes, window_files
from gpuenc.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuenc.archive.pool import Task
    from gpuenc.archive.report import Record
    from gpuenc.archive.request import Job
    from gpuenc.dicom.atomic import Unnamed

# For the first worker, and for any after all were lost: a queue of a batch system may hold them up.
_WORKERS_S = 300.0
# A worker tells every second what it does; one that says nothing for so long has no power over its files any more.
_SILENT_S = 300.0
# Longer than processes and libraries take to start; and after which silence is spoken of.
_JOIN_S, _TELL_S = 600.0, 30.0
_WAIT_S = 0.25
# Workers lost in a row, without a shard done between them.
_MOST_LOST = 50
_VERSION = "__import__('gpuenc').__version__"


@dataclass(slots=True)
class _Member:
    """One worker of the cluster: what it said when it joined, why it is no use, and the shards it has."""

    number: int
    address: str
    # While Dask keeps this result, the worker is part of the job.
    joining: Any = None
    admission: Admission | None = None
    unfit: str = ""
    code: str = ""
    work: dict[int, tuple[Shard, Any]] = field(default_factory=dict)
    heard_s: float = 0.0
    told: bool = False
    done: int = 0


class Members:
    """A `Pool` of the workers of a Dask cluster.

    Parameters
    ----------
    job : Job
        What to do with each file; `Job.cluster` says where the cluster is and what is asked for of each worker.
    tell : callable
        Is told, in one line, what people should know.
    silent_s, workers_s, after_s : float
        How long a worker with work may say nothing; how long there may be no worker; how long the files of a lost one
        wait, until its processes have given up.

    Raises
    ------
    JobError
        ``cluster-unavailable``: there is no scheduler.
    """

    def __init__(
        self,
        job: Job,
        tell: Callable[[str], None] = lambda text: None,
        *,
        silent_s: float = _SILENT_S,
        workers_s: float = _WORKERS_S,
        after_s: float = AFTER_S,
    ) -> None:
        if job.durability == "shard":
            raise JobError(
                "--durability shard is for one machine: a cluster's workers flush each file", code="invalid-option"
            )
        self._job, self._tell = job, tell
        self._silent_s, self._workers_s, self._after_s = silent_s, workers_s, after_s
        self._shards = Shards(job.target.syntax.uid, after_s=after_s)
        self._members: dict[str, _Member] = {}
        self._joined = self._lost = self._lost_in_a_row = 0
        # What to do once a task has come to its end; nothing, where nobody waits for it any more.
        self._then: dict[str, Callable[[], None]] = {}
        self._happened: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._outcomes: list[tuple[int, Record]] = []
        self._stopped = False
        self._mark = Mark(job)
        self.gpu_unused = ""
        self.unnamed: dict[int, Unnamed] = {}
        self.dropped: set[int] = set()
        # With which worker which files were lost.
        self._left: list[tuple[Shard, int]] = []
        self._dask = Dask(job, self._happened, self._heard)
        self._alone_s = time.monotonic()
        # Since when there is no scheduler, and until when nothing is handed out that others may have had.
        self._away_s: float | None = None
        self._rest_until_s = 0.0

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""
        return window_files(len(self._ready)) - self.outstanding

    @property
    def outstanding(self) -> int:
        """Tasks that were given and have no outcome yet."""
        return self._shards.files + len(self._outcomes) + sum(map(_files, self._members.values()))

    def demand_ready(self) -> None:
        """Wait until every worker that is there has said whether it can do the job.

        Raises
        ------
        JobError
            ``cluster-unavailable``: there are no workers; ``worker-unfit``: one has no gpuenc, or another version of
            it, or no access to a source or the destination; ``invalid-option``, ``device-unavailable``,
            ``encode-failed``: it cannot do what was asked for; ``destination-unwritable``; ``workers-failed``.
        """
        while True:
            self._step(_WAIT_S)
            members = self._members.values()
            for member in members:
                if member.unfit:
                    raise JobError(f"the cluster's worker {member.address}: {member.unfit}", code=member.code)
            if members and len(self._ready) == len(members):
                break
        said = [member.admission for member in self._ready if member.admission]
        self.gpu_unused = next((one.gpu_unused for one in said if one.gpu_unused), "")
        at_once = sum(one.files_at_once for one in said)
        self._tell(f"cluster {self._dask}; {counted(len(said), 'worker')}, {counted(at_once, 'file')} at once")

    def give(self, tasks: Sequence[Task]) -> None:
        """Have tasks done."""
        self._shards.give(tasks)

    def take(self, timeout_s: float) -> list[tuple[int, Record]]:
        """Return the outcomes there are; wait so long for the first.

        Raises
        ------
        JobError
            ``cluster-lost``: the scheduler is gone and has not come back; ``workers-failed``: the workers are, or one
            after the other.
        """
        self._step(0.0 if self._outcomes else min(timeout_s, _WAIT_S))
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def stop(self) -> None:
        """Begin nothing more; what is in work still gets its outcome."""
        self._stopped = True
        self.dropped |= self._shards.clear()
        self._dask.stop()

    def close(self) -> None:
        """Give up what is in work, and leave the cluster as it was; a local one ends."""
        self._mark.remove()
        self._then.clear()
        self._dask.close()
        while self._left:
            shard, number = self._left.pop()
            token = token_of_worker(self._job.token, number)
            remove_leftovers((task.item for task in shard.tasks), self._job, token)

    def states(self) -> list[str]:
        """Return a line on the cluster, and one on each worker."""
        if self._away_s is not None:
            return [
                f"cluster: no scheduler for {time.monotonic() - self._away_s:.0f} s; {self._shards.files} files wait"
            ]
        ready = self._ready
        unfit = sum(bool(member.unfit) for member in self._members.values())
        others = {"joining": len(self._members) - len(ready) - unfit, "no use": unfit, "lost": self._lost}
        more = "".join(f", {count} {what}" for what, count in others.items() if count)
        in_work = sum(len(member.work) for member in ready)
        lines = [f"cluster: {len(ready)} workers{more}; {in_work} shards in work, {self._shards.files} files wait"]
        for member in ready:
            host = member.admission.host if member.admission else ""
            silent = f", silent for {time.monotonic() - member.heard_s:.0f} s" if member.work and member.told else ""
            lines.append(f"worker {member.number} on {host}: {member.done} done, {_files(member)} handed out{silent}")
        return lines

    @property
    def _ready(self) -> list[_Member]:
        return [member for member in self._members.values() if member.admission and not member.unfit]

    def _step(self, timeout_s: float) -> None:
        """Do what there is to do, or wait for so long; while the scheduler is away, for it to come back."""
        if self._away_s is not None and not self._is_back(timeout_s):
            return
        try:
            self._go_on(timeout_s)
        except JobError as error:
            if error.code != "cluster-lost" or self._stopped or not self._dask.awaited():
                raise
            self._scheduler_lost()

    def _scheduler_lost(self) -> None:
        """Take back everything that was handed out: what comes of it, nobody will hear."""
        self._away_s = time.monotonic()
        self._then.clear()
        for member in self._members.values():
            for shard, _ in member.work.values():
                self._left.append((shard, member.number))
                self._shards.again(shard)
        self._members.clear()
        self._tell(f"the cluster's scheduler was lost; it is waited for, at most {BACK_S:.0f} s")

    def _is_back(self, timeout_s: float) -> bool:
        if not self._dask.is_back(timeout_s):
            return False
        assert self._away_s is not None
        # As after the loss of a worker: processes of those that were there may still give up what they do.
        self._rest_until_s = self._away_s + self._after_s
        self._away_s, self._alone_s = None, time.monotonic()
        self._tell("the cluster's scheduler is back; its workers begin anew with what was in work")
        return True

    def _go_on(self, timeout_s: float) -> None:
        """Hand out, hear for so long what happened, look who is there, and hand out again."""
        self._hand_out()
        with contextlib.suppress(queue.Empty):
            key = self._happened.get(timeout=timeout_s) if timeout_s else self._happened.get_nowait()
            while True:
                self._then.pop(key, lambda: None)()
                key = self._happened.get_nowait()
        self._look()
        self._hand_out()

    def _heard(self, said: dict[str, int]) -> None:
        """Take note of what a worker says of itself; from a thread of Dask's."""
        for member in list(self._members.values()):
            if member.number == said["worker"]:
                member.heard_s, member.done = time.monotonic(), said["done"]

    def _submit(self, then: Callable[[], None], key: str, member: _Member, what: Callable[..., Any], *args: Any) -> Any:
        self._then[key] = then
        gpu = what is do and member.admission is not None and member.admission.has_gpu
        return self._dask.submit(key, member.address, what, *args, gpu=gpu)

    def _look(self) -> None:
        """Have new workers join, and take back what those have that are gone."""
        there, now = self._dask.workers(), time.monotonic()
        for address in there - self._members.keys():
            self._joined += 1
            member = self._members[address] = _Member(self._joined, address, heard_s=now)
            # Before anything of ours is unpickled there, it is asked whether it is the same here and there.
            then, key = partial(self._version_known, member), f"version-{member.number}"
            member.joining = self._submit(then, key, member, eval, _VERSION)
        for member in list(self._members.values()):
            if member.address not in there:
                self._bury(member, "is gone")
            elif member.work or not (member.admission or member.unfit):
                self._wait_for(member, now - member.heard_s)
        if any(not member.unfit for member in self._members.values()) or self._stopped:
            self._alone_s = now
        elif now - self._alone_s > self._workers_s:
            raise JobError(
                f"for {self._workers_s:.0f} s the cluster had no worker that is of use",
                code="workers-failed" if self._joined else "cluster-unavailable",
            )
        if all(member.admission or member.unfit for member in self._members.values()):
            self._mark.remove()

    def _wait_for(self, member: _Member, silent_s: float) -> None:
        """Give up a worker that has said nothing for too long, such as one that is frozen, and speak of it before."""
        most_s = self._silent_s if member.work else _JOIN_S
        if silent_s > most_s and member.work:
            member.unfit = "it does not answer"
            self._bury(member, "does not answer", stays=True)
        elif silent_s > most_s:
            self._refuse(member, "it does not answer", "worker-unfit")
        elif silent_s > _TELL_S and not member.told:
            what = "its files are given to others" if member.work else "it is left out"
            said = f"has said nothing for {silent_s:.0f} s; after {most_s:.0f} s {what}"
            self._tell(f"worker {member.number} ({member.address}) {said}")
        member.told = silent_s > _TELL_S

    def _version_known(self, member: _Member) -> None:
        try:
            version = self._dask.result(member.joining)
        except WorkerGone:
            return  # as `_look` finds out
        except ImportError:
            self._refuse(member, f"gpuenc is not installed there; this is gpuenc {__version__}", "worker-unfit")
            return
        if version != __version__:
            self._refuse(member, f"gpuenc {version} is there, and {__version__} here", "worker-unfit")
            return
        then, key = partial(self._joined_or_not, member), f"join-{member.number}"
        # What it writes has names of its own: what is given up for lost may still be at work.
        job = replace(self._job, token=token_of_worker(self._job.token, member.number))
        args = (self._dask.topic, member.number, job, self._mark.path)
        member.joining = self._submit(then, key, member, join, *args)

    def _joined_or_not(self, member: _Member) -> None:
        try:
            admission: Admission = self._dask.result(member.joining)
        except WorkerGone:
            return  # as above
        except JobError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is not installed there, or is another version
            self._refuse(member, f"{type(error).__name__} when it joined: {error}", "worker-unfit")
            return
        if admission.refused:
            self._refuse(member, admission.refused, admission.code)
        else:
            member.admission = admission

    def _refuse(self, member: _Member, why: str, code: str) -> None:
        member.unfit, member.code = why, code
        self._forget_joining(member)
        self._dask.release(member.joining)
        self._tell(f"worker {member.number} ({member.address}) is no use: {why}")

    def _forget_joining(self, member: _Member) -> None:
        for kind in ("version", "join"):
            self._then.pop(f"{kind}-{member.number}", None)

    def _returned(self, member: _Member, shard: Shard) -> None:
        """Take what came of a shard."""
        try:
            found = unpacked_outcomes(self._dask.result(member.work[shard.number][1]))
        except WorkerGone:
            self._bury(member, "was lost with a shard")
        except JobError as error:
            if error.code == "cluster-lost":
                raise
            member.unfit = str(error)
            self._bury(member, f"is no use any more: {error}", stays=True)
        except Exception as error:  # noqa: BLE001 - such as no memory for what it should return
            member.unfit = type(error).__name__
            self._bury(member, f"is no use any more: {member.unfit}", stays=True)
        else:
            del member.work[shard.number]
            self._lost_in_a_row = 0
            self._outcomes.extend((number, record.but(worker=member.number)) for number, record in found)

    def _bury(self, member: _Member, how: str, *, stays: bool = False) -> None:
        """Take back what a worker has that will not do it; one that is not there any more may come again."""
        if not stays:
            del self._members[member.address]
        work = list(member.work.values())
        member.work.clear()
        self._forget_joining(member)
        for shard, _ in work:
            self._then.pop(f"shard-{shard.number}", None)
            self._left.append((shard, member.number))
            if not self._stopped:
                self._outcomes.extend(self._shards.lost(shard))
        # Whatever it still does, it gives up, as nobody holds on to it; and what it says is not heard.
        self._dask.release(member.joining, *(future for _, future in work))
        if not member.admission:
            return
        self._lost += 1
        self._lost_in_a_row += 1
        self._tell(f"worker {member.number} ({member.address}) {how}")
        if self._lost_in_a_row > _MOST_LOST:
            raise JobError(f"{self._lost_in_a_row} workers of the cluster were lost in a row", code="workers-failed")

    def _hand_out(self) -> None:
        """Give each worker a shard, and then each one that it can go on with."""
        ready = self._ready
        resting = self._stopped or time.monotonic() < self._rest_until_s
        for depth in range(0 if resting else SHARDS_PER_WORKER):
            for member in ready:
                if len(member.work) > depth or any(shard.alone for shard, _ in member.work.values()):
                    continue
                shard = self._shards.next(len(ready), idle=not member.work)
                if shard is None or member.admission is None:
                    continue
                if not member.work:
                    member.heard_s = time.monotonic()
                then, key = partial(self._returned, member, shard), f"shard-{shard.number}"
                args = (member.admission.name, shard.number, packed(shard.tasks))
                member.work[shard.number] = shard, None  # also where the scheduler is lost just now
                member.work[shard.number] = shard, self._submit(then, key, member, do, *args)


def _files(member: _Member) -> int:
    return sum(len(shard.tasks) for shard, _ in member.work.values())
