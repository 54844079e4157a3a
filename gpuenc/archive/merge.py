"""The reports of several runs, such as the shards of one job, as one: each source once, and nothing missing.

What was seen of each source is kept in a temporary database, so memory does not grow with the number of files.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from gpuenc.archive.dicomdir_outcome import completed
from gpuenc.archive.outcomes import Span
from gpuenc.archive.report import ReportFile, Summary, read_lines
from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.regular import regular
from gpuenc.errors import DestinationError, InvalidOption, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from gpuenc.archive.report import Record

# Most sources that are named for each kind of trouble.
_NAMED = 20
_CACHE_KB = 65536

# One row per source: the outcome that counts, and the line that holds it.
_SCHEMA = """
CREATE TABLE outcome (
    source BLOB PRIMARY KEY, rank INTEGER, finished_s REAL, run TEXT, outcome BLOB, report INTEGER, place INTEGER
) WITHOUT ROWID;
CREATE TABLE conflict (source BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE expected (source BLOB PRIMARY KEY) WITHOUT ROWID;
"""
# Of an outcome: there is one; only that something was there already; none.
_DONE, _THERE, _FAILED = 2, 1, 0


@dataclass(slots=True)
class Merge:
    """What came of joining reports.

    Parameters
    ----------
    summary : Summary
        Totals over all sources, each counted once; `planned` counts the missing ones too.
    superseded : int
        Failures that a later success has replaced, and files found done by a later run.
    repeated : int
        Lines that say again what another line said.
    conflicts : int
        Sources with outcomes that contradict each other.
    missing, unexpected : int
        Sources that were expected and have no outcome, and the other way round.
    named_conflicts, named_missing : list of str
        The first of them.
    notes : list of str
        What was left out of the reports, a line each.
    """

    summary: Summary = field(default_factory=Summary)
    superseded: int = 0
    repeated: int = 0
    conflicts: int = 0
    missing: int = 0
    unexpected: int = 0
    named_conflicts: list[str] = field(default_factory=list)
    named_missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def merge_reports(
    reports: Sequence[Path], output: Path, expected: Iterable[str] | None = None, *, outputs: Path | None = None
) -> Merge:
    """Join reports into one, in which every source has one line, as it was written.

    Of two outcomes of one source, a success counts, unless a failure came after it; beside a success, "something is
    there already" does not count; of other outcomes the last does. Two different successes, or a failure after a
    success, contradict each other: then nothing is written, since no line of it would be the truth.

    Parameters
    ----------
    reports : sequence of Path
        What `--report` wrote; what came later is told by the runs of one job, then by the times in the lines, or else
        by this order.
    output : Path
        Name of the joined report, in the order of `reports`; another report is replaced, anything else is not.
    expected : iterable of str, optional
        Every source that must have an outcome, such as a manifest names it.
    outputs : Path, optional
        Folder of the job's outputs: where every expected source has its outcome, the DICOMDIRs that shards had to
        leave as they were are brought up to date there.

    Raises
    ------
    SourceError
        One of them cannot be read, or is no report.
    InvalidOption
        `output` is one of the reports, or something else than a report.
    DestinationError
        It cannot be written.
    """
    _demand_output(output, reports)
    merge = Merge()
    try:
        with closing(sqlite3.connect("")) as database:  # a temporary file, which is gone afterwards
            _merge(database, reports, output, expected, outputs, merge)
    except sqlite3.Error as error:
        raise DestinationError(f"the folder for temporary files: {error}", code="disk-full") from None
    merge.summary.planned = merge.summary.done + merge.missing
    return merge


def _merge(
    database: sqlite3.Connection,
    reports: Sequence[Path],
    output: Path,
    expected: Iterable[str] | None,
    outputs: Path | None,
    merge: Merge,
) -> None:
    database.executescript(f"PRAGMA cache_size = -{_CACHE_KB}; PRAGMA journal_mode = OFF; {_SCHEMA}")
    for number, report in enumerate(reports):
        for line in read_lines(report, merge.notes):
            _take(database, line.record, number, line.offset, merge)
    _tell_conflicts(database, merge)
    if expected is not None:
        _reconcile(database, expected, merge)
    if not merge.conflicts:
        complete = expected is not None and not merge.missing
        _write(database, reports, output, outputs if complete else None, merge)


def _take(database: sqlite3.Connection, record: Record, report: int, place: int, merge: Merge) -> None:
    source = _key(record.source)
    new = (_rank(record), record.finished_s, record.run, _outcome(record), report, place)
    row = database.execute("SELECT rank, finished_s, run, outcome FROM outcome WHERE source = ?", (source,)).fetchone()
    if row is None:
        database.execute("INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?)", (source, *new))
        return
    rank, finished_s, run, outcome = row
    if outcome == new[3]:
        merge.repeated += 1
        return
    later = _is_later(record, finished_s, run)
    first, last = (rank, new[0]) if later else (new[0], rank)
    counts = _which_counts(first, last)
    if counts == "neither":
        database.execute("INSERT OR IGNORE INTO conflict VALUES (?)", (source,))
        return
    merge.superseded += 1
    if (counts == "last") == later:
        database.execute("REPLACE INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?)", (source, *new))


def _is_later(record: Record, finished_s: float, run: str) -> bool:
    """Whether an outcome came after one that was finished then, in that run."""
    job, _, number = record.run.partition("-")
    other_job, _, other_number = run.partition("-")
    if job == other_job and number != other_number and number.isdecimal() and other_number.isdecimal():
        return int(number) > int(other_number)  # a clock may have been set back between them
    # Without both times, a line is later than those before it.
    return not (record.finished_s and finished_s) or record.finished_s >= finished_s


def _which_counts(first: int, last: int) -> Literal["first", "last", "neither"]:
    """Return which of two different outcomes of one source is the truth, the earlier or the later."""
    if _DONE not in (first, last):
        return "last"
    if first == last or last == _FAILED:
        return "neither"
    return "last" if last == _DONE else "first"


def _rank(record: Record) -> int:
    if record.status == "failed":
        return _FAILED
    # A DICOMDIR that was left as it was may be brought up to date by another run.
    return _THERE if record.reason in ("destination-exists", "dicomdir-stale") else _DONE


def _outcome(record: Record) -> bytes:
    """Return what two lines about the same outcome have in common: everything but times, workers and words."""
    parts = (
        record.status,
        record.reason,
        record.destination,
        record.source_syntax,
        record.target_syntax,
        record.frames,
        record.bytes_in,
        record.bytes_out,
        record.crc32,
        record.source_digest,
        record.output_digest,
    )
    return blake2b(repr(parts).encode(), digest_size=16).digest()


def _tell_conflicts(database: sqlite3.Connection, merge: Merge) -> None:
    merge.conflicts = database.execute("SELECT count(*) FROM conflict").fetchone()[0]
    rows = database.execute("SELECT source FROM conflict ORDER BY source LIMIT ?", (_NAMED,))
    merge.named_conflicts = [_name(source) for (source,) in rows]


def _reconcile(database: sqlite3.Connection, expected: Iterable[str], merge: Merge) -> None:
    database.executemany("INSERT OR IGNORE INTO expected VALUES (?)", ((_key(source),) for source in expected))
    absent = "FROM expected WHERE source NOT IN (SELECT source FROM outcome)"
    merge.missing = database.execute(f"SELECT count(*) {absent}").fetchone()[0]
    rows = database.execute(f"SELECT source {absent} ORDER BY source LIMIT ?", (_NAMED,))
    merge.named_missing = [_name(source) for (source,) in rows]
    found = database.execute("SELECT count(*) FROM outcome WHERE source NOT IN (SELECT source FROM expected)")
    merge.unexpected = found.fetchone()[0]


def _write(
    database: sqlite3.Connection, reports: Sequence[Path], output: Path, outputs: Path | None, merge: Merge
) -> None:
    span = Span()
    with AtomicFile(output, overwrite=True) as new:
        for number, report in enumerate(reports):
            chosen = _places(database, number)
            place = next(chosen, None)
            for line in read_lines(report):
                if line.offset != place:
                    continue
                place = next(chosen, None)
                record, data = line.record, line.data
                if outputs and (done := completed(record, outputs)) != record:
                    record, data = done, done.as_json().encode()
                with new.errors():
                    new.file.write(data + b"\n")
                merge.summary.add(record)
                span.add(record)
        if merge.summary.done != database.execute("SELECT count(*) FROM outcome").fetchone()[0]:
            raise SourceError("a report was changed while it was read; merge when the jobs are over")
        new.publish()
    merge.summary.seconds = span.seconds


def _places(database: sqlite3.Connection, report: int) -> Iterator[int]:
    rows = database.execute("SELECT place FROM outcome WHERE report = ? ORDER BY place", (report,))
    return (place for (place,) in rows)


def _demand_output(output: Path, reports: Sequence[Path]) -> None:
    try:
        with open(output, "rb", opener=regular) as before:
            begins = before.read(len(ReportFile.BEGINNING))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidOption(f"{output} cannot be replaced: {error.strerror}") from None
    if begins not in (b"", ReportFile.BEGINNING):
        raise InvalidOption(f"{output} exists and is no report; it is left as it is")
    if any(report.exists() and report.samefile(output) for report in reports):
        raise InvalidOption(f"{output} is one of the reports to be merged; choose another name")


def _key(source: str) -> bytes:
    return source.encode("utf-8", "surrogatepass")


def _name(source: bytes) -> str:
    return source.decode("utf-8", "surrogatepass")
