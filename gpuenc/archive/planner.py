"""What a job is going to do: the files of its sources, some at a time, written into its journal."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.dicomdir_outcome import NAME as DICOMDIR
from gpuenc.archive.report import Record
from gpuenc.archive.scan import LeftOut, scan
from gpuenc.archive.stamp import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gpuenc.archive.journal import Earlier, Journal
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
        earlier: Callable[[Record], None],
        items: Iterable[Item] | None = None,
    ) -> None:
        self._job, self._journal, self._settled, self._earlier = job, journal, settled, earlier
        self._items: Iterator[Item] = iter(found(job) if items is None else items)
        self._own, self._inside = _Own(job.sources, job.destination), _Inside(job)
        self.files = self.bytes_total = self.waiting = 0
        self.complete = False

    def some(self) -> None:
        """Find the next files."""
        items = list(islice(self._items, _AT_ONCE))
        self.complete = len(items) < _AT_ONCE
        self.files += len(items)
        known = self._journal.earlier([os.fspath(item.destination) for item in items if not item.left_out])
        planned: list[tuple[Item, int]] = []
        kept: list[tuple[int, Record]] = []
        for item in items:
            stamp = None if item.left_out else Stamp.of_any(item.source)
            size_bytes = min(stamp.size_bytes, stamp.allocated_bytes) if stamp else 0
            self.bytes_total += size_bytes
            before = known.get(os.fspath(item.destination)) if known else None
            if before and before.record and self._unchanged(item, before, stamp):
                kept.append((before.number, before.record))
            elif refused := self._refused(item, before):
                self._journal.settle(item, refused)
                self._settled(refused)
            else:
                planned.append((item, size_bytes))
        self._journal.keep(number for number, _ in kept)
        for _, record in kept:
            self._earlier(record)
        taken = self._journal.plan(planned)
        self.waiting += len(planned) - len(taken)
        for item in taken:
            message = "another source has the same place in the destination"
            record = Record(str(item.source), "failed", reason="destination-collision", message=message)
            self._journal.settle(item, record)
            self._settled(record)
        if self.complete:
            self._journal.found_all()

    def _refused(self, item: Item, before: Earlier | None) -> Record | None:
        """Return the outcome of what needs no work."""
        source = str(item.source)
        if item.left_out:
            left = item.left_out
            return Record(source, left.status, reason=left.code, message=left.message)
        if self._job.in_place:
            return None
        if item.destination not in self._inside:
            message = "its place is that of the journal, or a symbolic link leads from there out of the destination"
            return Record(source, "failed", reason="destination-unwritable", message=message)
        if os.path.lexists(item.destination):
            if self._job.overwrite and item.destination in self._own:
                message = "its place in the destination is that of a source, and sources are never changed"
                return Record(source, "failed", reason="destination-is-source", message=message)
            if not self._job.overwrite and not (before and before.ours):
                return Record(source, "skipped", reason="destination-exists", message="the destination exists")
        return None

    def _unchanged(self, item: Item, before: Earlier, stamp: Stamp | None) -> bool:
        """Whether an earlier run has done a file, and neither it nor its output has changed since."""
        record = before.record
        if record is None or record.status == "failed" or record.reason == "destination-exists":
            return False
        if before.source != os.fspath(item.source):
            return False  # another one had the same place
        if os.path.basename(before.source).upper() == DICOMDIR:
            return False  # files that it names may be done now
        output = Stamp(record.bytes_out, record.output_mtime_ns)
        replaced = self._job.in_place and record.status == "encoded"
        source = output if replaced else Stamp(record.bytes_in, record.source_mtime_ns)
        if stamp != source:
            return False
        return not record.destination or Stamp.of_any(item.destination) == output


def found(job: Job) -> Iterator[Item]:
    """Yield what the sources hold."""
    journal = job.journal and job.journal.parent
    for item in scan(job.sources, job.destination, without=job.report, journal=journal):
        if not job.in_place:
            yield item
        elif item.source.is_symlink() and not item.left_out:
            # The file that it leads to is replaced under its own name.
            yield replace(item, left_out=LeftOut("skipped", "symbolic-link", "links are not replaced"))
        else:
            yield replace(item, destination=item.source)


class _Own:
    """Whether a path is that of a source, whatever links lead there; only the outputs among the sources are not."""

    def __init__(self, sources: Iterable[Path], destination: Path) -> None:
        self._roots = [os.path.realpath(source) for source in sources]
        output = os.path.realpath(destination)
        self._output = output
        self._folder = self._real_folder = ""

    def __contains__(self, path: Path) -> bool:
        folder, name = os.path.split(path)
        if folder != self._folder:
            self._folder, self._real_folder = folder, os.path.realpath(folder)
        # Not the file itself, which may be a link that is replaced, and what it points to stays.
        real = os.path.join(self._real_folder, name)
        for root in self._roots:
            # What lies in the output is no source of a folder around it; of one within it, it is.
            is_output = _inside(self._output, root) and _inside(real, self._output)
            if (real == root or _inside(real, root)) and not is_output:
                return True
        return False


class _Inside:
    """Whether an output lands inside the destination, whatever links are there, and not among the journal's files."""

    def __init__(self, job: Job) -> None:
        self._root = os.path.realpath(job.destination)
        self._journal = os.path.realpath(job.journal.parent) if job.journal else ""
        self._folder, self._answer = "", True

    def __contains__(self, path: Path) -> bool:
        folder, _ = os.path.split(path)
        if folder != self._folder:
            real = os.path.realpath(folder)
            inside = real == self._root or _inside(real, self._root)
            outside_journal = real != self._journal and not (self._journal and _inside(real, self._journal))
            self._folder, self._answer = folder, inside and outside_journal
        return self._answer


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
