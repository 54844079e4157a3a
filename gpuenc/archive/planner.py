"""What a job is going to do: the files of its sources, some at a time, written into its journal."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_remote
from gpuenc.archive.elsewhere import outputs_of, refused_elsewhere, stands_elsewhere
from gpuenc.archive.landing import Landing, inside
from gpuenc.archive.report import Record
from gpuenc.archive.scan import COLLISION, LeftOut, scan
from gpuenc.archive.there import why_skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from gpuenc.archive.earlier import Earlier
    from gpuenc.archive.journal import Journal
    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item

_AT_ONCE = 256


class Planner:
    """Walks the sources as far as it is asked to. Memory does not grow with the number of files.

    Parameters
    ----------
    job : Job
        Whose sources are walked.
    journal : Journal
        What is to be done is written there.
    settled, earlier : callable
        Are told of each file that has its outcome without any work, or from an earlier run.
    items : iterable of Item, optional
        The files; by default, those below the sources.

    Attributes
    ----------
    files, bytes_total : int
        Found so far.
    waiting : int
        Of these, planned and not yet taken from the journal; the caller counts down.
    complete : bool
        There are no more.
    """

    def __init__(
        self,
        job: Job,
        journal: Journal,
        settled: Callable[[Record], None],
        earlier: Callable[[Earlier], None],
        items: Iterable[Item] | None = None,
    ) -> None:
        self._job, self._journal, self._settled, self._earlier = job, journal, settled, earlier
        self._items: Iterator[Item] = iter(found(job) if items is None else items)
        self._elsewhere = job.is_elsewhere
        self._own = _Own(job.sources, job.destination)
        # Sources that are replaced, and objects, are where their names say.
        self._landing = None if job.in_place or is_remote(job.destination) else Landing(job)
        self.files = self.bytes_total = self.waiting = 0
        self.complete = False

    def some(self) -> None:
        """Find the next files."""
        items = list(islice(self._items, _AT_ONCE))
        self.complete = len(items) < _AT_ONCE
        self.files += len(items)
        known = self._journal.earlier([item.place for item in items if not item.left_out])
        elsewhere = outputs_of(items, known) if self._elsewhere else None
        landings = self._landings(items)
        planned: list[tuple[Item, int]] = []
        kept: list[Earlier] = []
        kept_items: list[Item] = []
        for item in items:
            stamp = None if item.left_out or item.stamp else _stat(item.source_path)
            size_bytes = _taken_bytes(stamp) if stamp else item.stamp.size_bytes if item.stamp else 0
            self.bytes_total += size_bytes
            before = known.get(item.place) if known else None
            if before and (
                _unchanged(item, before, stamp) if elsewhere is None else stands_elsewhere(item, before, elsewhere)
            ):
                kept.append(before)
                kept_items.append(item)
            elif refused := self._refused(item, before, elsewhere_too=item.place in landings):
                self._journal.settle(item, refused)
                self._settled(refused)
            else:
                planned.append((item, size_bytes))
        self._journal.keep(
            (before.number for before in kept), ((item.place, landings.get(item.place)) for item in kept_items)
        )
        for before in kept:
            self._earlier(before)
        taken = self._journal.plan(planned, landings)
        self.waiting += len(planned) - len(taken)
        for item in taken:
            record = Record(
                item.name, "failed", reason=COLLISION.code, message=COLLISION.message, run=self._journal.run
            )
            self._journal.settle(item, record)
            self._settled(record)
        if self.complete:
            self._journal.found_all()

    def _landings(self, items: Iterable[Item]) -> dict[str, str]:
        """Return where outputs land that other paths lead to as well."""
        if not self._landing:
            return {}
        of = {item.place: self._landing.of(item.place) for item in items if not item.left_out}
        return {place: landing for place, landing in of.items() if place != landing}

    def _refused(self, item: Item, before: Earlier | None, *, elsewhere_too: bool) -> Record | None:
        """Return the outcome of what needs no work; `elsewhere_too`: other paths lead to its place as well."""
        source, run = item.name, self._journal.run
        if item.left_out:
            left = item.left_out
            return Record(source, left.status, reason=left.code, message=left.message, run=run)
        if self._job.in_place:
            return None
        if self._elsewhere and (refused := refused_elsewhere(item, self._job)):
            return refused.but(run=run)
        if is_remote(item.place):
            return None  # whoever writes it asks whether something is there
        if self._landing and item.place not in self._landing:
            message = "its place is that of the journal, or a symbolic link leads from there out of the destination"
            return Record(source, "failed", reason="destination-unwritable", message=message, run=run)
        if os.path.lexists(item.place):
            if self._job.overwrite and item.place in self._own:
                message = "its place in the destination is that of a source, and sources are never changed"
                return Record(source, "failed", reason="destination-is-source", message=message, run=run)
            # What is there may be the output of another source, which is told when all of them are known.
            perhaps_taken = elsewhere_too or self._journal.aliases.some
            if not (self._job.overwrite or perhaps_taken or (before and before.ours)):
                message = why_skipped(item.place, self._job)
                return Record(source, "skipped", reason="destination-exists", message=message, run=run)
        return None


def _unchanged(item: Item, before: Earlier, source: os.stat_result | None) -> bool:
    """Whether an earlier run has done a file, and neither it nor its output has changed since."""
    if not before.kept or before.source != item.source_path:
        return False  # it has no outcome, or another one had the same place
    # There is an outcome that stands, and the file is what it was.
    if not source or source.st_size != before.source_bytes or source.st_mtime_ns != before.source_mtime_ns:
        return False
    if before.output_bytes is None:
        return True
    # Where a source was replaced, its output is what has just been looked at.
    output = source if item.place == item.source_path else _stat(item.place)
    return output is not None and (output.st_size, output.st_mtime_ns) == (before.output_bytes, before.output_mtime_ns)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _taken_bytes(found: os.stat_result) -> int:
    """Return what there is to read of a file, which for one with holes is less than its size."""
    return min(found.st_size, found.st_blocks * 512) if hasattr(found, "st_blocks") else found.st_size


def found(job: Job) -> Iterator[Item]:
    """Yield what the sources hold."""
    journal = job.journal and job.journal.parent
    for item in scan(job.sources, job.destination, without=job.report, journal=journal):
        if not job.in_place:
            yield item
        elif not item.left_out and os.path.islink(item.source_path):
            # The file that it leads to is replaced under its own name.
            yield replace(item, left_out=LeftOut("skipped", "symbolic-link", "links are not replaced"))
        else:
            yield replace(item, place=item.source_path)


class _Own:
    """Whether a path is that of a source, whatever links lead there; only the outputs among the sources are not."""

    def __init__(self, sources: Iterable[Path], destination: Path) -> None:
        self._roots = [os.path.realpath(source) for source in sources]
        output = os.path.realpath(destination)
        self._output = output
        self._folder = self._real_folder = ""

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder != self._folder:
            self._folder, self._real_folder = folder, os.path.realpath(folder)
        # Not the file itself, which may be a link that is replaced, and what it points to stays.
        real = os.path.join(self._real_folder, name)
        for root in self._roots:
            # What lies in the output is no source of a folder around it; of one within it, it is.
            is_output = inside(self._output, root) and inside(real, self._output)
            if (real == root or inside(real, root)) and not is_output:
                return True
        return False
