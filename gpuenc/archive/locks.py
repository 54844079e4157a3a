"""One job at a time in a place, and none while processes of an earlier one are still at work there."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from gpuenc.archive.groups import in_group, number_of
from gpuenc.archive.shares import demand_one_division, is_share
from gpuenc.errors import JobError

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing keeps jobs apart there
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# How long processes whose job was killed may take to notice.
_PATIENCE_S = 30.0


@contextlib.contextmanager
def only_job(journal: Path, manifest: str = "") -> Iterator[None]:
    """Be the only job that writes `journal`, and wait until no process of an earlier one is left.

    Shares of one manifest may be at work side by side, and nothing else beside them.

    Raises
    ------
    JobError
        ``journal-in-use``: another one is at work; ``journal-unfinished``: shares of another division have begun;
        ``journal-unusable``: that cannot be known.
    """
    if fcntl is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            # One after the other: whoever begins sees all who have begun.
            with locked(journal.parent / "begin.lock", fcntl.LOCK_EX):
                how = fcntl.LOCK_SH if is_share(journal) else fcntl.LOCK_EX
                for lock, mode in ((_job_lock(journal), fcntl.LOCK_EX), (journal.parent / "place.lock", how)):
                    if not stack.enter_context(locked(lock, mode | fcntl.LOCK_NB)):
                        raise JobError(f"another gpuenc is at work on {journal}", code="journal-in-use")
                demand_one_division(journal, manifest, _is_held)
                _job_lock(journal).write_text(manifest, encoding="ascii")
            _await_workers(journal)
        except OSError as error:
            raise JobError(f"{journal.parent} cannot be used: {error.strerror}", code="journal-unusable") from None
        yield


def is_at_work(journal: Path) -> bool:
    """Whether a job is at work on `journal` now, as far as that can be seen from here."""
    if fcntl is None:
        return False
    try:
        # Shared, and for no longer than this takes: two that look do not see each other.
        return _is_held(_job_lock(journal))
    except OSError:
        return False


@contextlib.contextmanager
def only_in_place(sources: Iterable[Path], *, share_of: str = "") -> Iterator[None]:
    """Be the only job that replaces files of these sources, wherever it keeps its journal and its backups.

    What is locked are the folders themselves, so it does not matter by which path they are reached; and those above
    them, so a job over a part of a tree and one over the whole of it exclude each other. Where a file system does not
    lock folders, such as NFS, nothing is excluded; where it does not lock ranges (macOS), shares are kept from jobs
    that are not shared out, and not from each other.

    Parameters
    ----------
    sources : iterable of Path
        Files and folders.
    share_of : str
        What only the shares of one job have in common, which may be at work side by side; empty for a whole job.

    Raises
    ------
    JobError
        ``journal-in-use``: another one is at work there.
    """
    if fcntl is None:
        yield
        return
    own: dict[tuple[int, int], str] = {}
    above: dict[tuple[int, int], str] = {}
    for source in sources:
        path = os.path.realpath(source)
        # A file that is replaced is another one, so it is not the file that can be locked.
        path, places = path if os.path.isdir(path) else os.path.dirname(path), own
        while True:
            with contextlib.suppress(OSError):
                found = os.stat(path)
                places[found.st_dev, found.st_ino] = path
            if path == (path := os.path.dirname(path)):
                break
            places = above
    number = number_of(share_of)
    with contextlib.ExitStack() as stack:
        for identity in own.keys() | above.keys():
            mode = fcntl.LOCK_EX if identity in own and not share_of else fcntl.LOCK_SH
            path = own.get(identity) or above[identity]
            # Who may not read a folder cannot lock it.
            with contextlib.suppress(OSError):
                alone = stack.enter_context(locked(path, mode | fcntl.LOCK_NB, os.O_RDONLY))
                if not (alone and stack.enter_context(in_group(path, number, whole=identity in own))):
                    raise JobError(f"another gpuenc is replacing files in {path}", code="journal-in-use")
        yield


def _await_workers(journal: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with locked(_workers_lock(journal), fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            if alone:
                return
        if time.monotonic() > deadline:
            raise JobError(f"processes of an earlier job are still at work on {journal}", code="journal-in-use")
        time.sleep(0.05)


@contextlib.contextmanager
def worker_of(journal: Path | None) -> Iterator[None]:
    """Be a process at work on `journal`, of which there may be several."""
    if fcntl is None or journal is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        # Where the journal's folder is gone, there is nothing to go on with that could disturb this process.
        with contextlib.suppress(OSError):
            stack.enter_context(locked(_workers_lock(journal), fcntl.LOCK_SH))
        yield


def _is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with locked(lock, fcntl.LOCK_SH | fcntl.LOCK_NB, os.O_RDONLY) as free:
        return not free


@contextlib.contextmanager
def locked(path: str | Path, how: int, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[bool]:
    """Have a lock of a file or folder, as `fcntl.flock` takes it; False where somebody else has it.

    Where a file system has no locks, such as NFS for folders, everybody has it.
    """
    handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, how)
        except BlockingIOError:
            yield False
        except OSError:
            yield True  # a file system without locks
        else:
            yield True
    finally:
        os.close(handle)


def _job_lock(journal: Path) -> Path:
    return journal.with_suffix(".lock")


def _workers_lock(journal: Path) -> Path:
    return journal.with_suffix(".workers.lock")
