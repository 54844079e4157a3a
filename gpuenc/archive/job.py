"""Run a job: every file of the sources to one outcome, several at a time, and stop cleanly when asked."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from gpuenc.archive.report import Record, Summary
from gpuenc.archive.scan import Item, scan
from gpuenc.archive.transcode import Interrupted, Job, transcode_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# Files handed to the workers at once, for each of them: enough that none waits for the one whose turn it is to be
# reported, and not a million.
_QUEUED_PER_WORKER = 16


class Watcher(Protocol):
    """Is told what happens, from the thread that runs the job."""

    def start(self, files: int, bytes_total: int) -> None:
        """The sources have been walked: so many files of so many bytes."""

    def done(self, record: Record) -> None:
        """One file has an outcome."""

    def finish(self, summary: Summary) -> None:
        """The job is over."""


def run(job: Job, watcher: Watcher, stop: threading.Event | None = None) -> Summary:
    """Give every file of the job's sources exactly one outcome, in the order in which they were found.

    Once `stop` is set, or Ctrl-C raises `KeyboardInterrupt` here, files in work are given up without a trace in the
    destination, the rest is not begun, and the summary says `interrupted`. Files that were finished by then have
    their outcome.

    Parameters
    ----------
    job : Job
        What to do.
    watcher : Watcher
        Whom to tell.
    stop : threading.Event, optional
        Set from elsewhere, such as a signal's handler, to end the job early.

    Raises
    ------
    RuntimeError
        The outcomes do not add up to the files found; nothing else is raised for what a file holds.
    """
    started = time.perf_counter()
    stop = stop or threading.Event()
    summary = Summary()
    items = list(scan(job.sources, job.destination, without=job.report))
    summary.planned = len(items)
    watcher.start(len(items), sum(_size(item) for item in items))

    def finished(record: Record) -> None:
        summary.add(record)
        watcher.done(record)

    try:
        _work(items, job, stop, finished)
        summary.interrupted = summary.done < summary.planned and stop.is_set()
    finally:
        summary.seconds = time.perf_counter() - started
        watcher.finish(summary)
    if not summary.interrupted and summary.done != summary.planned:
        raise RuntimeError(f"{summary.planned} files were found, but {summary.done} have an outcome")
    return summary


def _work(items: Sequence[Item], job: Job, stop: threading.Event, finished: Callable[[Record], None]) -> None:
    """Tell `finished` of one record per item, in order, with `job.jobs` files in work."""
    queue: deque[Future[Record] | Record] = deque()

    def take() -> None:
        first = queue[0]
        record = first if isinstance(first, Record) else first.result()
        queue.popleft()
        finished(record)

    with ThreadPoolExecutor(job.jobs, thread_name_prefix="gpuenc-file") as pool:
        try:
            for item, known in _refusals(items, job):
                if stop.is_set():
                    break
                queue.append(known or pool.submit(transcode_file, item, job, stop))
                if len(queue) >= job.jobs * _QUEUED_PER_WORKER:
                    take()
            while queue:
                take()
        except (KeyboardInterrupt, Interrupted):
            pass
        finally:
            if queue:
                stop.set()
            for waiting in queue:
                if isinstance(waiting, Future):
                    waiting.cancel()
        # What was finished before the stop is in the destination, so it is told; the rest never happened.
        for waiting in queue:
            try:
                record = waiting if isinstance(waiting, Record) else waiting.result()
            except (CancelledError, Interrupted):
                continue
            finished(record)


def _refusals(items: Sequence[Item], job: Job) -> Iterator[tuple[Item, Record | None]]:
    """Yield each item, and its outcome where it is known before any work."""
    taken: set[str] = set()
    own = _Own(items) if job.overwrite else None
    for item in items:
        name, source = str(item.destination), str(item.source)
        if item.left_out:
            left = item.left_out
            yield item, Record(source, left.status, reason=left.code, message=left.message)
        elif name in taken:
            message = "another source has the same place in the destination"
            yield item, Record(source, "failed", reason="destination-collision", message=message)
        elif own and item.destination in own:
            message = "its place in the destination is that of a source, and sources are never changed"
            yield item, Record(source, "failed", reason="destination-is-source", message=message)
        else:
            taken.add(name)
            yield item, None


class _Own:
    """The places of all sources, whatever the paths that lead there."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._folders: dict[Path, tuple[int, int] | None] = {}
        self._places = {self._place(item.source) for item in items}
        links = [item.source for item in items if item.source.is_symlink()]
        self._places |= {self._place(link.resolve()) for link in links}

    def __contains__(self, path: Path) -> bool:
        place = self._place(path)
        return place[0] is not None and place in self._places

    def _place(self, path: Path) -> tuple[tuple[int, int] | None, str]:
        folder = path.parent
        if folder not in self._folders:
            try:
                found = os.stat(folder)
                self._folders[folder] = (found.st_dev, found.st_ino)
            except OSError:
                self._folders[folder] = None
        return self._folders[folder], path.name


def _size(item: Item) -> int:
    try:
        return 0 if item.left_out else item.source.stat().st_size
    except OSError:
        return 0
