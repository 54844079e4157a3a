"""What a journal says of its job, read without changing it, also while the job is at work."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from gpuenc.archive.journal import demand_file
from gpuenc.archive.kept_lines import line_of
from gpuenc.archive.report import LINE_BYTES, Record, record_of
from gpuenc.dicom.regular import regular
from gpuenc.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Of a source that was not found again, what was told of it is not of this job any more.
_TOLD = "SELECT record FROM files WHERE record IS NOT NULL AND number NOT IN (SELECT number FROM gone) ORDER BY number"


class Progress(NamedTuple):
    """How far a job is: files found, whether these are all, whether all have outcomes, and why not where it said so."""

    planned: int
    all_found: bool
    finished: bool
    stopped: str


def progress(path: Path) -> Progress:
    """Return how far the job of a journal is; see `records`."""
    with _read_only(path) as db:
        about = dict(db.execute("SELECT name, value FROM about"))
        finished = "finished" in about
        (planned,) = db.execute("SELECT (SELECT count(*) FROM files) - (SELECT count(*) FROM gone)").fetchone()
    return Progress(planned, finished or "found-all" in about, finished, about.get("stopped", ""))


def records(path: Path) -> Iterator[Record]:
    """Yield the outcomes that a journal holds, in the order of the files; it is only read.

    Raises
    ------
    JobError
        ``journal-unusable``: it is no journal.
    """
    with _read_only(path) as db:
        for (record,) in db.execute(_TOLD):
            found = record_of(line_of(record))
            if found:
                yield found


def recorded(path: Path, destination: str) -> Record | None:
    """Return the outcome that a journal holds of the output at `destination`; see `records`."""
    with _read_only(path) as db:
        row = db.execute("SELECT record FROM files WHERE place = ?", (os.fsencode(destination),)).fetchone()
    return record_of(line_of(row[0])) if row and row[0] else None


def is_report_of_finished(report: Path, journal: Path) -> bool:
    """Whether a report holds outcomes of the job in a journal, in whichever of its runs, and that job is finished.

    Raises
    ------
    JobError
        ``journal-unusable``: it is no journal.
    """
    if not (report.is_file() and journal.is_file()):
        return False
    with _read_only(journal) as db:
        if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'about'").fetchone()[0]:
            return False  # of a job that was killed before it was written down
        about = dict(db.execute("SELECT name, value FROM about WHERE name IN ('finished', 'run')"))
    job, numbered, _ = str(about.get("run", "")).partition("-")
    if not numbered or "finished" not in about:
        return False
    # No path of a file holds this: quotes in a text of JSON are escaped.
    wanted = f'"run": "{job}-'.encode()
    try:
        with open(report, "rb", opener=regular) as stream:
            return any(wanted in line for line in iter(lambda: stream.readline(LINE_BYTES), b""))
    except OSError:
        return False  # whoever opens it to write says why


@contextlib.contextmanager
def _read_only(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        demand_file(path)
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            yield db
    except (sqlite3.Error, OSError) as error:
        raise JobError(f"{path} cannot be read: {error}", code="journal-unusable") from None
