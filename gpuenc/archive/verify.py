"""Is the output what the source was? Both are decoded again, and every sample and every element compared.

Nothing that a job said of itself is believed: only the two trees count. What was copied has to be equal byte for byte.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.budget import ByteBudget, default_bytes
from gpuenc.archive.descriptors import files_at_once
from gpuenc.archive.findings import Finding, Stopped, Verified
from gpuenc.archive.pairs import compare_pair
from gpuenc.archive.scan import JOURNALS, Item, scan
from gpuenc.plugins import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from gpuenc.archive.findings import VerdictWatcher

_QUEUED_PER_THREAD = 8


def verify(
    source: Path,
    output: Path,
    watcher: VerdictWatcher,
    *,
    independent: bool = False,
    jobs: int = 0,
    budget: ByteBudget | None = None,
    report: Path | None = None,
    stop: threading.Event | None = None,
) -> Verified:
    """Compare two trees, the second as `gpuenc transcode` mirrors the first, or two files.

    Parameters
    ----------
    source, output : Path
        That exist.
    watcher : VerdictWatcher
        Whom to tell, in the order in which the files were found; what is only in the output comes last.
    independent : bool
        Decode the output with decoders of another code base than encoded it, where there are such.
    jobs : int
        Files in work at once; 0 for one per usable core.
    budget : ByteBudget, optional
        Memory for frames in work; by default as for a job.
    report : Path, optional
        A file that is being written, and is part of neither tree.
    stop : threading.Event, optional
        Set from elsewhere to end early.
    """
    tree = output.is_dir()
    items = list(scan([source], output, without=report)) if tree else [Item(source, output)]
    expected = {item.destination for item in items}
    extras = list(only_in_output(expected, output, (report,))) if tree and source.is_dir() else []
    budget = budget or ByteBudget(default_bytes())

    def work(item: Item, stopped: threading.Event) -> Finding:
        return compare_pair(item, budget, independent=independent, stop=stopped)

    return check_all(items, work, watcher, extras=extras, jobs=jobs, stop=stop)


def _own_output(paths: Sequence[Path]) -> Path:
    """Return where the first of several sources has its output, if the last of the paths is that of all."""
    return paths[-1] / paths[0].name


def unfit(paths: Sequence[Path], record: Path | None = None) -> str:
    """Return why these cannot be verified, in one line that begins with "no such" where something is not there.

    Parameters
    ----------
    paths : sequence of Path
        Source and output; with a record, the output alone.
    record : Path, optional
        A job's report.
    """
    wanted = 1 if record else 2
    if len(paths) != wanted:
        if record:
            return f"{len(paths)} paths were given: with --record, name the output alone"
        if len(paths) == 1:
            return "one path was given: name the source, then its output; or the output with --record REPORT"
        return (
            f"{len(paths)} paths were given: name one source and its output. A job of several sources has a folder of "
            f"its own for each: `gpuenc verify {paths[0]} {_own_output(paths)}`, then the next"
        )
    if record and record.is_dir():
        return f"{record} is a folder and no report"
    for path in (*paths, *([record] if record else [])):
        if not path.exists():
            return f"no such file or folder: {path}"
        if not (path.is_dir() or path.is_file()):
            return f"{path} is neither a file nor a folder"
    if record:
        return "" if paths[0].is_dir() else f"{paths[0]} is not a folder"
    source, output = paths
    if os.path.samefile(source, output):
        return "source and output are the same"
    if source.is_dir() and not output.is_dir():
        return f"{source} is a folder, and {output} is not"
    return ""


def check_all[Given](
    items: list[Given],
    work: Callable[[Given, threading.Event], Finding],
    watcher: VerdictWatcher,
    *,
    extras: Iterable[Finding] = (),
    jobs: int = 0,
    stop: threading.Event | None = None,
) -> Verified:
    """Give every item its finding, several at a time, and tell them in order.

    Parameters
    ----------
    items : list
        What there is to do.
    work : callable
        Returns an item's finding; raises `Stopped` once the event is set.
    extras : iterable of Finding
        Told at the end.
    watcher, jobs, stop
        As for `verify`.
    """
    started = time.perf_counter()
    stop = stop or threading.Event()
    verified = Verified(planned=len(items))
    watcher.start(len(items))

    def tell(finding: Finding) -> None:
        verified.add(finding)
        watcher.done(finding)

    def timed(item: Given) -> Finding:
        begun = time.perf_counter()
        if stop.is_set():
            raise Stopped
        return replace(work(item, stop), seconds=time.perf_counter() - begun)

    waiting: deque[Future[Finding]] = deque()
    jobs = files_at_once(jobs or usable_cores())
    with ThreadPoolExecutor(jobs, thread_name_prefix="gpuenc-verify") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(timed, item))
                if len(waiting) >= jobs * _QUEUED_PER_THREAD:
                    tell(waiting.popleft().result())
            while waiting:
                tell(waiting.popleft().result())
            for extra in extras:
                tell(extra)
        except (Stopped, KeyboardInterrupt):
            verified.interrupted = True
        finally:
            if waiting:
                stop.set()
            for future in waiting:
                future.cancel()
    verified.seconds = time.perf_counter() - started
    watcher.finish(verified)
    return verified


def only_in_output(
    expected: Collection[Path], output: Path, without: Sequence[Path | None] = (), why: str = "only in the output"
) -> Iterator[Finding]:
    """Yield what is in the output's tree and not expected there; folders that cannot be read too.

    Parameters
    ----------
    expected : collection of Path
        Below `output`, as that is written.
    output : Path
        A folder.
    without : sequence of Path or None
        Files that may be in it and are part of no tree, such as reports.
    why : str
        What is said of each.
    """
    beside = [path for path in without if path and os.path.lexists(path)]
    problems: list[OSError] = []
    for folder, folders, names in os.walk(output, onerror=problems.append):
        folders[:] = sorted(set(folders) - {JOURNALS})  # the journal of the job
        for name in sorted(names):
            path = os.path.join(folder, name)
            if Path(path) not in expected and not any(_same(path, other) for other in beside):
                yield Finding("", path, "extra", message=why)
    for problem in problems:
        message = f"the folder cannot be read: {problem.strerror}"
        yield Finding("", os.fsdecode(problem.filename or ""), "unreadable", "unreadable-source", message)


def _same(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
