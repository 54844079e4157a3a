"""Run a job: every file of the sources to one outcome, several at a time, and stop cleanly when asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from gpuenc.archive.report import Record, Summary
from gpuenc.archive.scan import Item, scan
from gpuenc.archive.transcode import Interrupted, Job, transcode_file

if TYPE_CHECKING:
    from collections.abc import Iterator


class Watcher(Protocol):
    """Is told what happens, from the thread that runs the job."""

    def start(self, files: int, bytes_total: int) -> None:
        """The sources have been walked: so many files of so many bytes."""

    def done(self, record: Record) -> None:
        """One file has an outcome."""

    def finish(self, summary: Summary) -> None:
        """The job is over."""


def run(job: Job, watcher: Watcher) -> Summary:
    """Give every file of the job's sources exactly one outcome.

    The first Ctrl-C stops the job: files in work are given up without a trace in the destination, the rest is not
    begun, and the summary says `interrupted`.

    Raises
    ------
    RuntimeError
        The outcomes do not add up to the files found; nothing else is raised for what a file holds.
    """
    started = time.perf_counter()
    summary = Summary()
    items = list(scan(job.sources, job.destination))
    summary.planned = len(items)
    watcher.start(len(items), sum(_size(item) for item in items))
    stop = threading.Event()
    try:
        for record in _records(items, job, stop):
            summary.add(record)
            watcher.done(record)
    except KeyboardInterrupt:
        summary.interrupted = True
    finally:
        summary.seconds = time.perf_counter() - started
        watcher.finish(summary)
    if not summary.interrupted and summary.done != summary.planned:
        raise RuntimeError(f"{summary.planned} files were found, but {summary.done} have an outcome")
    return summary


def _records(items: list[Item], job: Job, stop: threading.Event) -> Iterator[Record]:
    """Yield one record per item, as they are finished, with `job.jobs` files in work."""
    waiting = iter(_without_collisions(items))
    with ThreadPoolExecutor(job.jobs, thread_name_prefix="gpuenc-file") as pool:
        # Two files more than workers keep them busy; the rest of a million is not queued.
        window: deque[Future[Record]] = deque()
        try:
            for item, clash in waiting:
                if clash:
                    yield clash
                    continue
                window.append(pool.submit(transcode_file, item, job, stop))
                if len(window) >= job.jobs + 2:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        except (KeyboardInterrupt, GeneratorExit, Interrupted):
            stop.set()
            raise
        finally:
            for future in window:
                future.cancel()


def _without_collisions(items: list[Item]) -> Iterator[tuple[Item, Record | None]]:
    """Refuse the second of two sources whose outputs would have one name."""
    taken: set[str] = set()
    for item in items:
        name = str(item.destination)
        if name in taken:
            message = "another source has the same place in the destination"
            yield item, Record(str(item.source), "failed", reason="destination-collision", message=message)
        else:
            taken.add(name)
            yield item, None


def _size(item: Item) -> int:
    try:
        return item.source.stat().st_size
    except OSError:
        return 0
