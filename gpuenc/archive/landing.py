"""Where outputs land, whatever paths lead there: links between folders, and names that a file system takes for one."""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from gpuenc.archive.request import Job


class Landing:
    """Where a job's outputs land; of folders that follow each other, each is looked up once.

    Parameters
    ----------
    job : Job
        Its destination is a folder of this machine.
    """

    def __init__(self, job: Job) -> None:
        self._destination = os.fspath(job.destination)
        self._root = os.path.realpath(job.destination)
        self._journal = os.path.realpath(job.journal.parent) if job.journal else ""
        self._folds = folds_case(self._root)
        self._folder, self._inside, self._lands = "", True, ""

    def __contains__(self, path: str) -> bool:
        """Whether an output lands inside the destination, and not among the journal's files."""
        self._look(os.path.dirname(path))
        return self._inside

    def of(self, path: str) -> str:
        """Return the one name of all paths that lead to the same output; mostly the path itself."""
        folder, name = os.path.split(path)
        self._look(folder)
        if not self._inside:
            return path
        if not self._folds:
            return path if self._lands == folder else os.path.join(self._lands, name)
        below = os.path.relpath(os.path.join(self._lands, name), self._destination)
        return os.path.join(self._destination, unicodedata.normalize("NFC", below).casefold())

    def _look(self, folder: str) -> None:
        if folder == self._folder:
            return
        real = os.path.realpath(folder)
        in_root = real == self._root or inside(real, self._root)
        in_journal = real == self._journal or bool(self._journal and inside(real, self._journal))
        self._folder, self._inside = folder, in_root and not in_journal
        below = real[len(self._root) :].lstrip(os.sep)
        self._lands = os.path.join(self._destination, below) if below else self._destination


class Aliases:
    """Places of a job to which several paths lead, in a temporary table of its journal.

    Attributes
    ----------
    some : bool
        There are any.
    """

    def __init__(self) -> None:
        self.some = False

    def are_taken(self, db: sqlite3.Connection, place: str, landing: str | None) -> bool:
        """Whether the same place is planned by another path already; if not, it is by this one from now on.

        Parameters
        ----------
        db : Connection
            The journal's, with its table of files.
        place : str
            The path of an output.
        landing : str or None
            `Landing.of` of it, where that is another path.
        """
        if landing is None and not self.some:
            return False
        name, path = os.fsencode(landing or place), os.fsencode(place)
        if self.some and (row := db.execute("SELECT place FROM aliases WHERE landing = ?", (name,)).fetchone()):
            return bool(row[0] != path)
        if landing is None:
            return False
        if db.execute("SELECT 1 FROM files WHERE place = ?", (name,)).fetchone():
            return True
        if not self.some:
            db.execute("CREATE TEMP TABLE aliases (landing BLOB PRIMARY KEY, place BLOB NOT NULL) WITHOUT ROWID")
            self.some = True
        db.execute("INSERT INTO aliases VALUES (?, ?)", (name, path))
        return False


def folds_case(folder: str | Path) -> bool:
    """Whether names in a folder are the same in capitals and in small letters, as far as one that is there shows it.

    Nothing is written to find out; of an empty folder it is not known, and taken for no.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            other = entry.name.swapcase()
            if other == entry.name:
                continue
            one = entry.stat(follow_symlinks=False)
            # A file may have both names by links; a folder, and a file of one name, have not.
            single = stat.S_ISDIR(one.st_mode) or one.st_nlink == 1
            return single and os.path.samestat(one, os.lstat(os.path.join(folder, other)))
    return False


def inside(path: str, folder: str) -> bool:
    """Whether a path lies below a folder, both absolute and real."""
    return path.startswith(folder.rstrip(os.sep) + os.sep)
