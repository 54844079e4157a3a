"""Which frame is where: built once, kept in one SQLite file, looked up row by row.

The file is written aside and renamed when it is complete, and never changed afterwards, so any number of processes can
read it without locks, and a build that was killed leaves nothing in its place. A connection belongs to the process that
opened it: after a fork the child opens its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from bisect import bisect_right
from collections import OrderedDict
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.regular import regular
from gpuenc.errors import IndexMismatch
from gpuenc.pipelines import records
from gpuenc.pipelines.records import LeftOut, Record, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_KIND, _VERSION = "gpuenc index of frames", 2
_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    first INTEGER PRIMARY KEY, path TEXT, size INTEGER, mtime_ns INTEGER, frames INTEGER, syntax TEXT, format TEXT,
    native_at INTEGER, pieces BLOB, firsts BLOB, through INTEGER, transforms TEXT, columns TEXT
);
CREATE TABLE left_out (path TEXT, size INTEGER, mtime_ns INTEGER, code TEXT, message TEXT);
"""
_FIELDS = "path, size, mtime_ns, frames, syntax, format, native_at, pieces, firsts, through, transforms, columns"
_KEPT_RECORDS = 64
_MAGIC = b"SQLite format 3\0"


class Index(Protocol):
    """Files and their frames, numbered through."""

    frames: int
    files: int

    def find(self, frame: int) -> tuple[Record, int]:
        """Return the file of `frame`, from 0, and the number of the file's first frame."""

    def records(self) -> Iterator[Record]:
        """Yield every file, in order."""

    def left_out(self) -> Iterator[LeftOut]:
        """Yield every file that has no frame in the index."""

    def close(self) -> None:
        """Give back what is open; it opens again when it is needed."""

    def forked(self) -> None:
        """Forget, in a forked child, what belongs to the parent."""


class MemoryIndex:
    """An index that lives, and travels to other processes, with whoever has it."""

    def __init__(self, found: Iterable[Record | LeftOut]) -> None:
        self._records: list[Record] = []
        self._firsts: list[int] = []
        self._left_out: list[LeftOut] = []
        self.frames = 0
        for one in found:
            if isinstance(one, LeftOut):
                self._left_out.append(one)
            else:
                self._records.append(one)
                self._firsts.append(self.frames)
                self.frames += one.frames
        self.files = len(self._records)

    def find(self, frame: int) -> tuple[Record, int]:
        """Return the file of `frame`, and the number of the file's first frame."""
        place = bisect_right(self._firsts, frame) - 1
        return self._records[place], self._firsts[place]

    def records(self) -> Iterator[Record]:
        """Yield every file, in order."""
        return iter(self._records)

    def left_out(self) -> Iterator[LeftOut]:
        """Yield every file that has no frame in the index."""
        return iter(self._left_out)

    def close(self) -> None:
        """Do nothing."""

    def forked(self) -> None:
        """Do nothing."""


class FileIndex:
    """An index in a file that is complete and does not change.

    Parameters
    ----------
    path : str
        The file. Another one in its place later is an error.

    Attributes
    ----------
    sources, columns : tuple of str
        For which it was built.

    Raises
    ------
    IndexMismatch
        ``index-unusable``: it is no such index, or a damaged one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._open: _Connection | None = None
        self._lock = threading.Lock()
        about = self._about()
        self._identity = about["identity"]
        self.frames, self.files = int(about["frames"]), int(about["files"])
        self.sources = tuple(json.loads(about["sources"]))
        self.columns = tuple(json.loads(about["columns"]))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": None, "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def find(self, frame: int) -> tuple[Record, int]:
        """Return the file of `frame`, and the number of the file's first frame.

        Raises
        ------
        IndexMismatch
            ``index-unusable``; ``index-stale``: another index has its place since.
        """
        with self._reading() as connection:
            kept = connection.kept
            last = next(reversed(kept), None)
            if last is not None and last <= frame < last + kept[last].frames:
                return kept[last], last
            asked = "SELECT first FROM files WHERE first <= ? ORDER BY first DESC LIMIT 1"
            (first,) = connection.sqlite.execute(asked, (frame,)).fetchone()
            if first not in kept:
                row = connection.sqlite.execute(f"SELECT {_FIELDS} FROM files WHERE first = ?", (first,)).fetchone()
                kept[first] = records.from_row(row)
                if len(kept) > _KEPT_RECORDS:
                    kept.popitem(last=False)
            kept.move_to_end(first)
            return kept[first], first

    def records(self) -> Iterator[Record]:
        """Yield every file, in order, on a connection of its own."""
        with _errors(self.path), closing(_connect(self.path)) as sqlite:
            for row in sqlite.execute(f"SELECT {_FIELDS} FROM files ORDER BY first"):
                yield records.from_row(row)

    def left_out(self) -> Iterator[LeftOut]:
        """Yield every file that has no frame in the index, on a connection of its own."""
        with _errors(self.path), closing(_connect(self.path)) as sqlite:
            for path, size, mtime_ns, code, message in sqlite.execute("SELECT * FROM left_out"):
                yield LeftOut(Seen(path, size, mtime_ns), code, message)

    def close(self) -> None:
        """Close the connection of this process; the next look-up opens another."""
        with self._lock:
            if self._open is not None:
                self._open.sqlite.close()
            self._open = None

    def forked(self) -> None:
        """Leave the parent's connection alone: it is neither used nor closed here."""
        if self._open is not None:
            _PARENTS.append(self._open)
        self._open, self._lock = None, threading.Lock()

    @contextmanager
    def _reading(self) -> Iterator[_Connection]:
        with self._lock, _errors(self.path):
            if self._open is None:
                opened = _Connection(_connect(self.path))
                if opened.about()["identity"] != self._identity:
                    opened.sqlite.close()
                    raise IndexMismatch(f"{self.path} is another index than the one that was opened")
                self._open = opened
            yield self._open

    def _about(self) -> dict[str, str]:
        with _errors(self.path):
            connection = _Connection(_connect(self.path))
            with closing(connection.sqlite):
                return connection.about()


class _Connection:
    """An open index, and the files that were found last; closed when it is collected."""

    def __init__(self, sqlite: sqlite3.Connection) -> None:
        self.sqlite = sqlite
        self.kept: OrderedDict[int, Record] = OrderedDict()

    def __del__(self) -> None:
        self.sqlite.close()

    def about(self) -> dict[str, str]:
        """Return what the index says of itself, once it is one."""
        about: dict[str, str] = dict(self.sqlite.execute("SELECT key, value FROM about").fetchall())
        if about.get("kind") != _KIND:
            raise sqlite3.DatabaseError("it is of another kind")
        if about.get("version") != str(_VERSION):
            raise sqlite3.DatabaseError(f"another version of gpuenc wrote it; this one's have version {_VERSION}")
        return about


# Connections that a fork left in this process; see `FileIndex.forked`.
_PARENTS: list[_Connection] = []


def _connect(path: str) -> sqlite3.Connection:
    # Immutable, which it is: SQLite then takes no locks and looks for no journal, on read-only file systems too.
    with open(path, "rb", opener=regular) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise sqlite3.DatabaseError("it is no SQLite file")
    return sqlite3.connect(f"{Path(path).as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


@contextmanager
def _errors(path: str) -> Iterator[None]:
    """Turn what SQLite says into `IndexMismatch`."""
    try:
        yield
    except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
        raise IndexMismatch(
            f"{path} cannot be used as an index of frames ({error}): remove it to have it built anew",
            code="index-unusable",
        ) from None
    except FileNotFoundError:
        raise IndexMismatch(f"{path} is gone") from None
    except IsADirectoryError:
        raise IndexMismatch(
            f"{path} is a folder: index= is a file, such as {os.path.join(path, 'frames.index')}",
            code="index-unusable",
        ) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise IndexMismatch(f"{path} cannot be used as an index of frames: {why}", code="index-unusable") from None


def write(path: str, found: Iterable[Record | LeftOut], sources: Sequence[str], columns: Sequence[str]) -> FileIndex:
    """Write an index and open it.

    Parameters
    ----------
    path : str
        Where; what is there is replaced once the new one is complete.
    found : iterable of Record or LeftOut
        Every file, in the order in which their frames are numbered.
    sources, columns : sequence of str
        For which it is built.

    Raises
    ------
    DestinationError
        It cannot be written.
    """
    frames = files = 0
    with AtomicFile(Path(path), overwrite=True) as out, out.errors():
        try:
            with closing(sqlite3.connect(out.flushed(), isolation_level=None)) as sqlite:
                # Nothing is to be saved of a build that does not come to its end.
                sqlite.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
                sqlite.execute("BEGIN")
                for one in found:
                    if isinstance(one, LeftOut):
                        seen = one.seen
                        left = (seen.path, seen.size, seen.mtime_ns, one.code, one.message)
                        sqlite.execute("INSERT INTO left_out VALUES (?, ?, ?, ?, ?)", left)
                        continue
                    marks = ", ".join("?" * 13)
                    sqlite.execute(f"INSERT INTO files VALUES ({marks})", (frames, *records.to_row(one)))
                    files, frames = files + 1, frames + one.frames
                about = {
                    "kind": _KIND, "version": str(_VERSION), "identity": os.urandom(16).hex(), "frames": str(frames),
                    "files": str(files), "sources": json.dumps(sources), "columns": json.dumps(columns),
                }  # fmt: skip
                sqlite.executemany("INSERT INTO about VALUES (?, ?)", about.items())
                sqlite.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OSError(f"{error}") from error
        out.publish()
    return FileIndex(path)
