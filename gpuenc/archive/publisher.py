"""Outputs that get their names in groups: flushed together, then named, then counted as done.

Until its group is on the disk, an output lies under its temporary name, and the journal says that it was begun. So a
power cut leaves none of them under its name, or all that it has named whole; a resumed job makes the others again.
"""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpuenc.archive.folders import demand_same, identity
from gpuenc.archive.inplace import kept
from gpuenc.archive.manifest import SHARD_BYTES, SHARD_FILES
from gpuenc.archive.scan import Item
from gpuenc.archive.stamp import Stamp
from gpuenc.dicom.atomic import errors
from gpuenc.dicom.flushing import Flusher, unflushed
from gpuenc.errors import DestinationError, GpuencError, SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.archive.report import Record
    from gpuenc.archive.request import Job
    from gpuenc.dicom.atomic import Unnamed

# What a killed job loses at most, where files take long.
_MOST_S = 30.0


class Complete(NamedTuple):
    """An output that is complete: its file's number in the job, its outcome once it has its name, and where it lies."""

    number: int
    record: Record
    unnamed: Unnamed


@dataclass(frozen=True, slots=True)
class Limits:
    """What closes a group: so many files, bytes, or seconds after the first."""

    files: int = SHARD_FILES
    bytes_total: int = SHARD_BYTES
    seconds: float = _MOST_S


class Folder:
    """A job's destination, which keeps what belongs to the job out of another folder of that name.

    Parameters
    ----------
    path : Path
        It must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._identity, self._handle = path, identity(path), -1
        if hasattr(os, "O_DIRECTORY") and os.unlink in os.supports_dir_fd:
            with contextlib.suppress(OSError):
                self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def demand_same(self) -> None:
        """Check that it is where it was.

        Raises
        ------
        DestinationError
            ``destination-lost``.
        """
        demand_same(self._path, self._identity)

    def remove(self, unnamed: Unnamed) -> None:
        """Leave nothing of an output that has no name, although the folder may have another one by now."""
        unnamed.remove()
        below = os.path.relpath(unnamed.temporary, self._path)
        if self._handle >= 0 and not below.startswith(os.pardir + os.sep) and identity(self._path) != self._identity:
            unnamed.remove(below, self._handle)

    def close(self) -> None:
        """Give back the folder."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Publisher:
    """Names outputs in groups, in a thread of its own. Used by one thread.

    Parameters
    ----------
    job : Job
        Whose outputs these are; none of them has been written yet.
    limits : Limits
        Of a group.
    """

    def __init__(self, job: Job, limits: Limits = Limits()) -> None:
        self._job, self._limits = job, limits
        self._flusher = Flusher(os.fspath(job.destination))
        self._folder = Folder(job.destination)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="gpuenc-names")
        self._group: list[Complete] = []
        self._in_work: list[Complete] = []
        self._group_bytes, self._since_s = 0, 0.0
        self._flushing: Future[list[tuple[int, Record]]] | None = None

    @property
    def outstanding(self) -> bool:
        """Whether outputs wait for their names, or outcomes for `take`."""
        return bool(self._group or self._flushing)

    def add(self, complete: Complete) -> None:
        """Take one more output."""
        if not self._group:
            self._group_bytes, self._since_s = 0, time.monotonic()
        self._group.append(complete)
        self._group_bytes += complete.record.bytes_out

    def take(self, *, all_of_it: bool = False) -> list[tuple[int, Record]]:
        """Return the outcomes of a group that has its names, if there is one; begin with the next when it is closed.

        With `all_of_it`, nothing more is waited for to close it.
        """
        outcomes: list[tuple[int, Record]] = []
        # While one group is flushed, the next is gathered: when that is full too, it has to be waited for.
        if self._flushing and (self._flushing.done() or all_of_it or self._is_full()):
            outcomes, self._flushing = self._flushing.result(), None
        late = time.monotonic() - self._since_s > self._limits.seconds
        if self._group and not self._flushing and (all_of_it or late or self._is_full()):
            self._in_work, self._group = self._group, []
            self._flushing = self._executor.submit(self._named, self._in_work)
        return outcomes

    def close(self) -> None:
        """Remove what has no name yet; once more does nothing."""
        self._executor.shutdown(wait=True)
        for complete in (*self._in_work, *self._group):
            self._folder.remove(complete.unnamed)  # of those that have their name, nothing is there
        self._in_work, self._group = [], []
        self._flusher.close()
        self._folder.close()

    def _is_full(self) -> bool:
        return len(self._group) >= self._limits.files or self._group_bytes >= self._limits.bytes_total

    def _named(self, group: Sequence[Complete]) -> list[tuple[int, Record]]:
        lost = self._flusher.files([complete.unnamed.temporary for complete in group])
        outcomes = []
        for complete in group:
            try:
                self._folder.demand_same()
                with errors():
                    if error := lost.get(complete.unnamed.temporary):
                        raise error
                record = _with_its_name(complete, self._job)
            except (GpuencError, OSError) as error:
                self._folder.remove(complete.unnamed)
                record = _failed(complete.record, error)
            outcomes.append((complete.number, record))
        wrong = self._flusher.folders({os.path.dirname(complete.unnamed.path) for complete in group})
        folders = {complete.number: os.path.dirname(complete.unnamed.path) for complete in group}
        return [(number, _noted(record, wrong.get(folders[number]))) for number, record in outcomes]


def _with_its_name(complete: Complete, job: Job) -> Record:
    record, unnamed = complete.record, complete.unnamed
    source = Path(record.source)
    with kept(Item(source, unnamed.path), job):
        # What is replaced must still be what was read; another source may have become anything since.
        if job.in_place and Stamp.of_any(source) != Stamp(record.bytes_in, record.source_mtime_ns):
            raise SourceError("the source changed after it was read", code="source-changed")
        unnamed.name()
    stamp = Stamp.of_any(unnamed.path)
    return record.but(output_mtime_ns=stamp.mtime_ns if stamp else 0)


def _noted(record: Record, error: OSError | None) -> Record:
    """Return an outcome that says of an output's name that it may not be on the disk; the output is there."""
    if error is None or record.status == "failed":
        return record
    return record.but(message="; ".join(filter(None, (record.message, unflushed(error)))))


def _failed(record: Record, error: GpuencError | OSError) -> Record:
    """Return the outcome of a file whose output did not get its name."""
    if not isinstance(error, GpuencError):
        error = DestinationError(f"the backup cannot be written: {error.strerror}")
    return record.but(
        status="failed",
        destination="",
        reason=error.code,
        message=" ".join(str(error).split()),
        plugins={},
        fallbacks={},
        frames=0,
        bytes_out=0,
        pixel_bytes=0,
        verified=False,
        unverified="",
        crc32=(),
        source_digest="",
        output_digest="",
        output_mtime_ns=0,
        stage_seconds={},
    )
