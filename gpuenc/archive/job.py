"""Run a job: every file of the sources to one outcome, several at a time, and stop cleanly when asked."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import threading
import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_remote
from gpuenc.archive.dicomdir_outcome import brought_up_to_date, is_held
from gpuenc.archive.elsewhere import (
    demand_elsewhere,
    demand_reached,
    fills_up_here,
    room_of,
    scratch_folder,
    with_scratch,
)
from gpuenc.archive.folders import identity, make_folders
from gpuenc.archive.journal import Journal
from gpuenc.archive.leftovers import new_token, remove_leftovers
from gpuenc.archive.locks import only_in_place, only_job
from gpuenc.archive.outage import Outage
from gpuenc.archive.planner import Planner
from gpuenc.archive.pool import QUEUED_PER_FILE
from gpuenc.archive.publisher import Complete, Publisher
from gpuenc.archive.report import Record, Summary
from gpuenc.archive.scan import Item
from gpuenc.archive.shares import is_share
from gpuenc.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpuenc.archive.earlier import Earlier
    from gpuenc.archive.pool import Pool
    from gpuenc.archive.request import Job
    from gpuenc.archive.watcher import Watcher

# Found and not yet begun: enough to know soon how much there is, without holding up what is done meanwhile.
_PLAN_FIRST_S = 0.2
_COMMIT_EVERY_S = 0.5
_WAIT_S = 0.2
_MOST_AT_ONCE = 1024
# An output whose header changes at the end is there twice for a moment.
_PEAK_OUTPUT = 2
_LOST, _OUTAGE = "destination-lost", "store-lost"


def run(
    job: Job, watcher: Watcher, stop: threading.Event | None = None, items: Iterable[Item] | None = None
) -> Summary:
    """Give every file of the job's sources exactly one outcome.

    Once `stop` is set, or Ctrl-C raises `KeyboardInterrupt` here, nothing more is begun, files in work are finished,
    and the summary says `interrupted`. A second `KeyboardInterrupt` gives up the files in work, without a trace in the
    destination.

    Parameters
    ----------
    job : Job
        What to do.
    watcher : Watcher
        Whom to tell.
    stop : threading.Event, optional
        Set from elsewhere, such as a signal's handler, to end the job early.
    items : iterable of Item, optional
        The files, where they are not to be found by walking the sources.

    Raises
    ------
    JobError
        Nothing here can encode, or no worker can be started (``workers-failed``); the destination is
        ``destination-unwritable``; the journal cannot be used (codes that begin with ``journal-``); the outcomes do
        not add up to the files found (``unreconciled``); a store or server cannot be used
        (`gpuenc.archive.elsewhere.demand_reached`). Nothing is raised for what a file holds.
    """
    started = time.perf_counter()
    job = replace(with_scratch(job.absolute()), token=job.token or new_token(cluster=job.cluster is not None))
    if job.is_elsewhere:
        demand_elsewhere(job)
        demand_reached(job, with_input=items is None)
    summary = Summary()
    if job.target.lossless and job.verify != "none" and job.verify_share < 1:
        summary.verify_sample = f"sample={job.verify_share * 100:g}%"
    pool = _pool(job, watcher)
    with contextlib.ExitStack() as stack:
        stack.callback(pool.close)
        # Nothing is made before it is known whether anything can be done.
        pool.demand_ready()
        summary.gpu_unused = pool.gpu_unused
        if job.resume and job.journal is not None and not job.journal.exists():
            raise JobError(f"there is no job to resume: {job.journal} is missing", code="journal-missing")
        _demand_destination(job)
        if job.journal is not None:
            stack.enter_context(only_job(job.journal, job.manifest))
        if job.in_place and not job.dry_run:
            shared = job.journal is not None and is_share(job.journal)
            share_of = f"{job.manifest} {job.journal and job.journal.parent}" if shared else ""
            stack.enter_context(only_in_place(job.sources, share_of=share_of))
        stack.enter_context(scratch_folder(job))
        stack.callback(pool.close)  # before its files are gone
        try:
            journal = stack.enter_context(Journal(job.journal, job.about(), resume=job.resume, token=job.token))
            remove_leftovers((Item(source, place) for source, place in journal.interrupted), job, journal.earlier_token)
            work = _Run(job, watcher, stop or threading.Event(), journal, pool, summary, items)
            try:
                work.begin()
                work.through()
            finally:
                pool.close()
                work.close()
                with contextlib.suppress(sqlite3.Error):
                    journal.put_back(pool.dropped)
                summary.all_found = work.planner.complete
                summary.seconds = time.perf_counter() - started
                with contextlib.suppress(sqlite3.Error):
                    summary.resumable = job.journal is not None and journal.begun
                watcher.finish(summary)
            if summary.stopped:
                journal.stop(summary.stopped)
            else:
                journal.finish()
        except sqlite3.Error as error:
            raise JobError(f"the journal cannot be written: {error}", code="journal-unusable") from None
    return summary


def _demand_destination(job: Job) -> None:
    if job.dry_run:
        return
    try:
        for folder in (job.destination, job.journal.parent if job.journal else job.destination):
            if not is_remote(folder):
                make_folders(folder)
    except OSError as error:
        raise JobError(f"cannot make {folder}: {error.strerror}", code="destination-unwritable") from None
    if is_remote(job.destination):
        return
    if not os.access(job.destination, os.W_OK | os.X_OK):
        raise JobError(f"cannot write to {job.destination}", code="destination-unwritable")


def _pool(job: Job, watcher: Watcher) -> Pool:
    if job.cluster:
        from gpuenc.archive.members import Members

        if not job.cluster.address.startswith("local"):
            watcher.note(f"asking for the Dask scheduler at {job.cluster.address}")
        return Members(job, watcher.note)
    # What does files takes long to import, and the process that only hands them out does not need it.
    if job.workers:
        from gpuenc.archive.workers import Workers

        return Workers(job)
    from gpuenc.archive.threads import Threads

    return Threads(job)


class _Run:
    """One run of a job: finds, hands out, collects."""

    def __init__(
        self,
        job: Job,
        watcher: Watcher,
        stop: threading.Event,
        journal: Journal,
        pool: Pool,
        summary: Summary,
        items: Iterable[Item] | None,
    ) -> None:
        self._job, self._watcher, self._stop = job, watcher, stop
        self._journal, self._pool, self._summary = journal, pool, summary
        self.planner = Planner(job, journal, self._settled, self._earlier, items)
        self._outage = Outage(job)
        self._begun = False
        self._before: list[Callable[[], None]] = []
        self._in_work_bytes: dict[int, int] = {}
        # Before the first output is written: what goes wrong from then on, it is told.
        self._publisher = Publisher(job) if job.durability == "shard" and not job.dry_run else None
        self._outcomes: deque[tuple[int, Record]] = deque()
        # They say what other files are, so they have their outcome last.
        self._dicomdirs: list[tuple[int, Record]] = []
        self._committed_s = time.monotonic()
        # A folder on each disk that is written to: of outputs, and of the sources that they replace.
        self._disks: dict[int, str | os.PathLike[str]] = {}
        self._on_disk(room_of(job))
        for source in job.sources if job.in_place else ():
            self._on_disk(source if source.is_dir() else source.parent)
        self._places = {} if job.dry_run else {path: identity(path) for path in (job.destination, job.journal) if path}

    def through(self) -> None:
        """Run to the end, or to where it is stopped."""
        while True:
            try:
                if self._step():
                    break
            except KeyboardInterrupt:
                if self._stop.is_set():
                    raise
                self._stop.set()
        self._look_at_places()
        if (
            self._summary.stopped in ("", "interrupted")
            and self.planner.complete
            and self._summary.done + len(self._dicomdirs) == self.planner.files
        ):
            self._summary.stopped = ""  # it was told to stop when there was nothing left to begin
            self._end_dicomdirs()
        summary = self._summary
        if not summary.stopped and summary.done != summary.planned:
            missing = ", ".join(self._journal.without_outcome(3))
            raise JobError(
                f"{summary.planned} files were found, but {summary.done} have an outcome: {missing or 'none missing'}",
                code="unreconciled",
            )

    def close(self) -> None:
        """Leave nothing of outputs that have no name."""
        if self._publisher:
            self._publisher.close()

    def begin(self) -> None:
        """Find the first files, of a small job all, and tell of them."""
        until = time.monotonic() + _PLAN_FIRST_S
        while not self.planner.complete and time.monotonic() < until and not self._stop.is_set():
            self.planner.some()
        self._summary.planned = self.planner.files
        self._watcher.start(self.planner.files, self.planner.bytes_total)
        self._begun = True
        for tell in self._before:
            tell()
        self._before.clear()

    def _step(self) -> bool:
        """Find some files, hand some out, collect what is done; return whether it is over."""
        if self._stop.is_set() and not self._summary.stopped:
            self._end_early("interrupted")
        if not self._summary.stopped:
            if not self.planner.complete:
                self.planner.some()
                self._summary.planned = self.planner.files
                self._watcher.planned(self.planner.files, self.planner.bytes_total)
            self._hand_out()
        over = bool(self._summary.stopped or (self.planner.complete and not self.planner.waiting))
        over = over and not self._pool.outstanding
        if over and not self._outcomes and not (self._publisher and self._publisher.outstanding):
            return True
        idle = (self.planner.complete or self._summary.stopped) and not over
        self._outcomes.extend(self._pool.take(_WAIT_S if idle else 0.0))
        while self._outcomes:
            self._made(*self._outcomes.popleft())
        if self._publisher:
            for number, record in self._publisher.take(all_of_it=over and not self._pool.outstanding):
                self._done(number, record)
        if time.monotonic() - self._committed_s > _COMMIT_EVERY_S:
            self._committed_s = time.monotonic()
            self._journal.commit()
            self._watcher.workers(self._pool.states())
            self._look_at_places()
        return False

    def _hand_out(self) -> None:
        room = self._pool.room
        # What is handed out is first written down, durably: for several files at once, while the others have enough.
        if room * QUEUED_PER_FILE < room + self._pool.outstanding:
            return
        room = min(room, self.planner.waiting)
        while room > 0:
            tasks = self._journal.next(min(room, _MOST_AT_ONCE), self._space_bytes())
            if not tasks:
                if not self._pool.outstanding:
                    self._end_early("disk-full")  # waiting is no use
                return
            if self._job.in_place:  # there may be other disks below the sources
                for folder in {os.path.dirname(task.item.source_path) for task in tasks}:
                    self._on_disk(folder)
            self.planner.waiting -= len(tasks)
            room -= len(tasks)
            # Other machines of a cluster number their disks in other ways.
            where = None if self._job.cluster else self._places.get(self._job.destination)
            tasks = [replace(task, destination=where) for task in tasks]
            self._in_work_bytes.update((task.number, task.size_bytes) for task in tasks)
            self._pool.give(tasks)

    def _on_disk(self, folder: str | os.PathLike[str]) -> None:
        """Remember a folder that is written to."""
        device = (identity(folder) or (0, 0))[0]
        self._disks.setdefault(device, folder)

    def _space_bytes(self) -> float:
        """How large sources may be whose outputs leave the reserve alone, beside those in work, on each disk."""
        if not self._job.reserve_bytes or self._job.dry_run:
            return math.inf
        free_bytes = min(map(_free_bytes, self._disks.values())) - self._job.reserve_bytes
        if not fills_up_here(self._job):
            return math.inf if free_bytes > 0 else -1  # its journal alone
        # A copy of its source is there too while it is in work.
        return free_bytes / (_PEAK_OUTPUT + bool(self._job.scratch)) - sum(self._in_work_bytes.values())

    def _look_at_places(self) -> None:
        """End early where the destination or the journal is not where it was: what was done may be gone as well."""
        if self._summary.stopped != _LOST and any(identity(path) != was for path, was in self._places.items()):
            self._end_early(_LOST)

    def _end_early(self, why: str) -> None:
        self._summary.stopped = why
        self._pool.stop()

    def _made(self, number: int, record: Record) -> None:
        """Take an outcome from the pool, and have its output named, where that is not done yet."""
        self._in_work_bytes.pop(number, None)
        unnamed = self._pool.unnamed.pop(number, None) if self._publisher else None
        if not unnamed or not self._publisher:
            self._done(number, record)
        elif record.status == "failed":
            unnamed.remove()
            self._done(number, record)
        else:
            self._publisher.add(Complete(number, record, unnamed))

    def _done(self, number: int, record: Record) -> None:
        if is_held(record):
            self._dicomdirs.append((number, record))
            return
        record = record.but(run=self._journal.run)
        self._journal.done(number, record)
        self._settled(record)
        if record.reason in ("disk-full", _LOST) and not self._summary.stopped:
            self._end_early(record.reason)
        elif not self._summary.stopped and (why := self._outage.why(record)):
            self._summary.outage = why
            self._end_early(_OUTAGE)

    def _end_dicomdirs(self) -> None:
        """Bring each DICOMDIR up to what became of its files."""
        while self._dicomdirs:
            number, held = self._dicomdirs.pop()
            record = brought_up_to_date(held, self._job).but(run=self._journal.run)
            self._journal.done(number, record)
            self._settled(record)

    def _settled(self, record: Record) -> None:
        self._summary.add(record)
        self._tell(self._watcher.done, record)

    def _earlier(self, outcome: Earlier) -> None:
        self._summary.add(outcome)
        self._summary.earlier_files += 1
        self._tell(self._watcher.earlier, outcome)

    def _tell[T](self, tell: Callable[[T], None], outcome: T) -> None:
        """Tell of an outcome, but of none before the watcher knows that the job begins."""
        if self._begun:
            tell(outcome)
        else:
            self._before.append(partial(tell, outcome))


def _free_bytes(folder: str | os.PathLike[str]) -> int:
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):
        return 1 << 62
    return found.f_bavail * found.f_frsize
