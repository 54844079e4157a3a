"""What a job has planned, begun and done: a database beside the outputs, so that a job survives any interruption.

A file is written down as begun before anything is written under its name, and as done after its output is there. What
a killed job left is then known: an output that was begun is made again, one that was never begun is not the job's.
"""

from __future__ import annotations

import errno
import math
import os
import re
import sqlite3
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from gpuenc.archive.earlier import (
    COLUMNS,
    NO_OUTCOME_YET,
    PERHAPS,
    SET_OUTCOME,
    Earlier,
    columns_of,
    demand_columns,
    made_before,
    whose,
)
from gpuenc.archive.kept_lines import kept
from gpuenc.archive.landing import Aliases
from gpuenc.archive.pool import Task
from gpuenc.archive.report import Record
from gpuenc.archive.request import asked_otherwise
from gpuenc.archive.scan import JOURNALS, Item
from gpuenc.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def place_of(destination: Path, name: str = "journal") -> Path:
    """Return where the journal of a job lies whose outputs go to `destination`."""
    return destination / JOURNALS / f"{name}.sqlite"


# Of the one before, lines are kept as they are: it can be gone on with.
_FORMAT, _READ = 4, ("3", "4")
_PLANNED, _BEGUN, _DONE, _UNSEEN = range(4)
_OUTCOME = ", ".join(COLUMNS)
_SCHEMA = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"""
CREATE TABLE files (
    number INTEGER PRIMARY KEY,
    place BLOB UNIQUE,              -- the output's path; none for what has no place of its own
    source BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    state INTEGER NOT NULL,         -- 0 planned, 1 begun, 2 done, 3 planned by an earlier run and not found again
    ours INTEGER NOT NULL,          -- what has the output's name: 0 not this job's, 1 may be, 2 was made by it
    {", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())}
)""",
    # Files of an earlier run whose sources were not found again.
    "CREATE TABLE gone (number INTEGER PRIMARY KEY)",
    # Found at once, however many are done.
    "CREATE INDEX planned ON files (number) WHERE state = 0",
    "CREATE INDEX begun ON files (number) WHERE state = 1",
)
# What this run has found again of the files of earlier ones. To write that into their rows would be to write every page
# of the journal of a finished job once more.
_FOUND = "CREATE TEMP TABLE found (number INTEGER PRIMARY KEY)"
_FIND = "INSERT OR IGNORE INTO found VALUES (?)"


class Journal:
    """The record of a job; a context manager. Used by one thread of one process.

    Attributes
    ----------
    resumed : bool
        It goes on with an earlier run.
    earlier_token : str
        The token of that run.
    run : str
        Which run of which job this is: see `Record.run`.
    aliases : Aliases
        Places to which several paths lead.
    interrupted : list of tuple of str
        Source and output of the files that that run had in work, which may have left temporary files.

    Parameters
    ----------
    path : Path or None
        The database; without one the record lasts as long as the job.
    about : mapping of str to str
        What must be the same when the job is resumed.
    resume : bool
        Go on with the job that is there; otherwise a finished one is replaced.
    token : str
        Of this run: see `Job.token`.

    Raises
    ------
    JobError
        ``journal-unusable``: it cannot be read or written; ``journal-differs``: the job that is there was asked for
        something else; ``journal-unfinished``: a job that was not finished is there, and it is not resumed;
        ``journal-missing``: there is nothing to resume.
    """

    def __init__(self, path: Path | None, about: Mapping[str, str], *, resume: bool = False, token: str = "") -> None:
        self._path, self._token, self.earlier_token = path, token, ""
        self.run = f"{os.urandom(6).hex()}-1"
        self._last_earlier = 0
        self.resumed, self.interrupted, self.aliases = False, list[tuple[str, str]](), Aliases()
        try:
            if path is None:
                self._db = _open("")
                self._begin(about)
                return
            there = _is_begun(path)
            if resume and not there:
                raise JobError(f"there is no job to resume: {path} is missing", code="journal-missing")
            if not resume:
                if there:
                    self.run = _run_after(_demand_finished(path)) or self.run
                _remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _open(os.fspath(path))
        except (sqlite3.Error, OSError) as error:
            raise _unusable(path, error) from None
        try:
            if resume:
                self._compare(about)
                self._forget()
                self.resumed = True
            else:
                self._begin(about)
        except sqlite3.Error as error:
            self._db.close()
            raise _unusable(path, error) from None
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def earlier(self, places: Sequence[str]) -> dict[str, Earlier]:
        """Return what an earlier run knows of these places."""
        if not self.resumed:
            return {}
        marks = ",".join("?" * len(places))
        rows = self._db.execute(
            f"SELECT place, number, source, ours, {_OUTCOME} FROM files WHERE place IN ({marks})",
            [os.fsencode(place) for place in places],
        )
        found = {}
        for place, number, source, ours, *outcome in rows:
            demand_columns(outcome)
            found[_path(place)] = Earlier(number, _path(source), ours, *outcome)
        return found

    def plan(self, items: Iterable[tuple[Item, int]], landings: Mapping[str, str] = MappingProxyType({})) -> list[Item]:
        """Write files down as planned, with the sizes of their sources; return those whose place is taken already.

        `landings` says of places to which other paths lead too which one name they have (`archive/landing.py`).
        """
        taken = []
        for item, size_bytes in items:
            if self.aliases.are_taken(self._db, item.place, landings.get(item.place)):
                taken.append(item)
                continue
            values = (os.fsencode(item.place), os.fsencode(item.source_path), size_bytes, _PLANNED)
            if self._db.execute(
                "INSERT OR IGNORE INTO files (place, source, size_bytes, state, ours) VALUES (?, ?, ?, ?, 0)", values
            ).rowcount:
                continue
            place, *rest = values
            (number,) = self._db.execute("SELECT number FROM files WHERE place = ?", (place,)).fetchone()
            # Twice in this run, or in an earlier one?
            if number > self._last_earlier or not self._db.execute(_FIND, (number,)).rowcount:
                taken.append(item)
                continue
            again = f"UPDATE files SET source = ?, size_bytes = ?, state = ?, {NO_OUTCOME_YET} WHERE number = ?"
            self._db.execute(again, (*rest, number))
        return taken

    def keep(self, numbers: Iterable[int], places: Iterable[tuple[str, str | None]] = ()) -> None:
        """Take the outcomes of an earlier run as this one's; `places` with their landings, as for `plan`."""
        self._db.executemany(_FIND, ((number,) for number in numbers))
        for place, landing in places:
            self.aliases.are_taken(self._db, place, landing)

    def settle(self, item: Item, record: Record) -> None:
        """Write down the outcome of what needs no work."""
        self._db.execute(
            f"INSERT INTO files (source, size_bytes, state, ours, record) VALUES (?, 0, {_DONE}, 0, ?)",
            (os.fsencode(item.source_path), kept(record.as_json())),
        )

    def next(self, count: int, most_bytes: float = math.inf) -> list[Task]:
        """Return up to `count` planned files, of at most so many bytes, and write them down, durably, as begun."""
        rows = self._db.execute(
            "SELECT number, place, source, ours, output_etag, size_bytes FROM files "
            f"WHERE state = {_PLANNED} ORDER BY number LIMIT ?",
            (count,),
        ).fetchall()
        sizes = accumulate(_size(size_bytes) for *_, size_bytes in rows)
        rows = [row for row, size_bytes in zip(rows, sizes, strict=True) if size_bytes <= most_bytes]
        self._db.executemany(f"UPDATE files SET state = {_BEGUN} WHERE number = ?", ((row[0],) for row in rows))
        if rows:
            self.commit()
        return [
            Task(
                number,
                Item(_path(source), _path(place), replaces=bool(ours), made_before=made_before(ours, etag)),
                size_bytes,
            )
            for number, place, source, ours, etag, size_bytes in rows
        ]

    def put_back(self, numbers: Iterable[int]) -> None:
        """Write files down as planned again that were handed out and never begun: what has their names is not ours."""
        self._db.executemany(
            f"UPDATE files SET state = {_PLANNED} WHERE number = ? AND state = {_BEGUN}",
            ((number,) for number in numbers),
        )

    def done(self, number: int, record: Record) -> None:
        """Write down an outcome; durable with the next `commit`."""
        self._db.execute(
            # Where it failed, what was there before it is there still.
            f"UPDATE files SET state = {_DONE}, ours = max(ours, ?), {SET_OUTCOME} WHERE number = ?",
            (whose(record), *columns_of(record), number),
        )

    @property
    def begun(self) -> bool:
        """Whether anything was ever begun, so that there is something to go on with."""
        return bool(self._db.execute(f"SELECT 1 FROM files WHERE state != {_PLANNED} LIMIT 1").fetchone())

    @property
    def finished(self) -> bool:
        """Whether every file has its outcome."""
        return bool(self._db.execute("SELECT 1 FROM about WHERE name = 'finished'").fetchone())

    def without_outcome(self, count: int) -> list[str]:
        """Return up to `count` sources that were planned and have no outcome."""
        rows = self._db.execute(
            f"SELECT source FROM files WHERE state IN ({_PLANNED}, {_BEGUN}) ORDER BY number LIMIT ?", (count,)
        )
        return [_path(source) for (source,) in rows]

    def found_all(self) -> None:
        """Write down that there are no more files than those planned, and which of an earlier run are gone."""
        self._note("found-all", "yes")
        # Without a look at the rows, of which those of a finished job are many.
        self._db.execute(
            "INSERT INTO gone SELECT number FROM files INDEXED BY sqlite_autoindex_files_1 "
            "WHERE place IS NOT NULL AND number <= ? AND number NOT IN (SELECT number FROM found)",
            (self._last_earlier,),
        )

    def finish(self) -> None:
        """Write down that every file has its outcome."""
        self._note("finished", "yes")
        self.commit()

    def stop(self, why: str) -> None:
        """Write down why the job ends before that."""
        self._note("stopped", why)

    def commit(self) -> None:
        """Have everything so far on the disk."""
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Write down what there is, and close; a journal in which nothing was ever begun is no journal."""
        begun = True
        try:
            begun = self.begun or self.finished
            self._db.execute("COMMIT")
        except sqlite3.Error:
            pass  # it stays as it was; a job that goes on with it does again what was not written down
        finally:
            self._db.close()
        if self._path and not begun:
            _remove(self._path)

    def _note(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def _begin(self, about: Mapping[str, str]) -> None:
        # With what it is about in one transaction: there is a whole journal or none.
        for statement in _SCHEMA:
            self._db.execute(statement)
        known = [("format", str(_FORMAT)), ("token", self._token), ("run", self.run), *about.items()]
        self._db.executemany("INSERT INTO about VALUES (?, ?)", known)
        self.commit()

    def _forget(self) -> None:
        """Begin nothing of what an earlier run has planned until the sources have been walked again."""
        rows = self._db.execute(f"SELECT source, place FROM files WHERE state = {_BEGUN}")
        self.interrupted = [(_path(source), _path(place)) for source, place in rows]
        self._db.execute(f"UPDATE files SET ours = max(ours, {PERHAPS}) WHERE state = {_BEGUN}")
        self._db.execute(f"UPDATE files SET state = {_UNSEEN} WHERE state = {_PLANNED}")
        self._db.execute(f"UPDATE files SET state = {_UNSEEN} WHERE state = {_BEGUN}")
        self._db.execute("DELETE FROM files WHERE place IS NULL")
        self._last_earlier = self._db.execute("SELECT coalesce(max(number), 0) FROM files").fetchone()[0]

    def _compare(self, about: Mapping[str, str]) -> None:
        before = {str(name): str(value) for name, value in self._db.execute("SELECT name, value FROM about")}
        if before.get("format") not in _READ:
            raise JobError("the journal was written by another version of gpuenc", code="journal-differs")
        if difference := asked_otherwise(before, about):
            raise JobError(difference, code="journal-differs")
        token = before.get("token", "")
        self.earlier_token = token if re.fullmatch("[0-9a-f]{12}", token) else ""
        self.run = _run_after(before.get("run", "")) or self.run
        known = (("format", str(_FORMAT)), ("token", self._token), ("run", self.run))
        self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", known)
        self._db.execute("DELETE FROM about WHERE name IN ('finished', 'found-all', 'stopped')")
        self._db.execute("DELETE FROM gone")


def _open(name: str) -> sqlite3.Connection:
    db = sqlite3.connect(name, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(_FOUND)
    db.execute("BEGIN")
    return db


def demand_file(path: Path) -> None:
    """Refuse a pipe, which SQLite would wait for, and whatever else is no file."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")


def _path(value: object) -> str:
    # SQLite keeps anything in any column.
    path = os.fsdecode(value) if isinstance(value, bytes | str) else ""
    if not path or "\0" in path:
        raise sqlite3.DataError("a path in it is damaged")
    return path


def _size(value: object) -> int:
    if not isinstance(value, int):
        raise sqlite3.DataError("a size in it is damaged")
    return value


def _unusable(path: Path | None, error: Exception) -> JobError:
    return JobError(f"the journal {path} cannot be used: {error}", code="journal-unusable")


def _is_begun(path: Path) -> bool:
    """Whether there is a job, or at most the database of one that was killed before it was written down."""
    if not path.exists():
        return False
    demand_file(path)
    db = sqlite3.connect(path)
    try:
        return bool(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    finally:
        db.close()


def _run_after(run: str) -> str:
    """Return the name of the run that follows one; nothing where that has none."""
    job, _, number = run.partition("-")
    return f"{job}-{int(number) + 1}" if number.isdecimal() and len(number) < 10 else ""


def _demand_finished(path: Path) -> str:
    """Check that a job is finished; return its last run."""
    db = sqlite3.connect(path)
    try:
        about = dict(db.execute("SELECT name, value FROM about WHERE name IN ('finished', 'run')"))
    finally:
        db.close()
    if "finished" not in about:
        raise JobError(
            f"an unfinished job is in {path.parent.parent}: go on with --resume, or remove {path.parent} to forget it",
            code="journal-unfinished",
        )
    return str(about.get("run", ""))


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
