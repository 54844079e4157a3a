"""Shares of one job in one place: those of another division, or of another manifest, hold other files."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING

from gpuenc.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NAME = re.compile(r"shard-([0-9]{1,9})-of-([0-9]{1,9})")


def share_of(journal: Path) -> tuple[int, int] | None:
    """Return which share of how many a journal is of, or None for that of a whole job."""
    found = _NAME.fullmatch(journal.stem)
    return (int(found[1]), int(found[2])) if found else None


def is_share(journal: Path) -> bool:
    """Whether a journal is that of one share of several."""
    return share_of(journal) is not None


def demand_one_division(journal: Path, manifest: str, is_held: Callable[[Path], bool]) -> None:
    """Check that nothing at work, and nothing unfinished, in the folder of a journal divides the files differently.

    Parameters
    ----------
    journal : Path
        Of a job that is about to begin, whose lock file may be there already.
    manifest : str
        Which manifest it follows; empty without one.
    is_held : callable
        Whether a lock file is that of a job at work.

    Raises
    ------
    JobError
        ``journal-in-use``: others are at work; ``journal-unfinished``: others have begun.
    """
    mine = _division(journal.stem)
    for other in _others(journal):
        theirs, lock = _division(other.stem), other.with_suffix(".lock")
        if theirs == mine and (mine == 1 or _said(lock) in ("", manifest)):
            continue
        how = f"by a job of {_shares(theirs)}" if theirs != mine else "by shares of another manifest"
        if is_held(lock):
            raise JobError(f"{journal.parent.parent} is being written {how}", code="journal-in-use")
        if _is_unfinished(other):
            raise JobError(
                f"{journal.parent.parent} was begun {how}, and this is one of {_shares(mine)}: go on with that one, or "
                f"remove {other.with_suffix('')}.* to forget it",
                code="journal-unfinished",
            )


def _division(name: str) -> int:
    found = _NAME.fullmatch(name)
    return int(found[2]) if found else 1


def _shares(count: int) -> str:
    return "one share" if count == 1 else f"{count} shares"


def _others(journal: Path) -> Iterator[Path]:
    names = sorted(path.stem for path in journal.parent.glob("*.lock"))
    for name in names:
        if name != journal.stem and (name == "journal" or _NAME.fullmatch(name)):
            yield journal.with_name(f"{name}.sqlite")


def _said(lock: Path) -> str:
    with contextlib.suppress(OSError):
        return lock.read_text(encoding="ascii", errors="replace")
    return ""


def _is_unfinished(journal: Path) -> bool:
    if not journal.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return not db.execute("SELECT 1 FROM about WHERE name = 'finished'").fetchone()
    except sqlite3.Error:
        return False  # whoever goes on with it is told that it is none
