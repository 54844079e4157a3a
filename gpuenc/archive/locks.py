"""One job at a time in a place, and none while processes of an earlier one are still at work there."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from gpuenc.errors import JobError

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing keeps jobs apart there
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# How long processes whose job was killed may take to notice.
_PATIENCE_S = 30.0


@contextlib.contextmanager
def only_job(journal: Path) -> Iterator[None]:
    """Be the only job that writes `journal`, and wait until no process of an earlier one is left.

    Raises
    ------
    JobError
        ``journal-in-use``: another one is at work; ``journal-unusable``: that cannot be known.
    """
    if fcntl is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            # Shards of one job may be at work side by side, and nothing else beside them.
            how = fcntl.LOCK_SH if "-of-" in journal.name else fcntl.LOCK_EX
            for lock, mode in ((_job_lock(journal), fcntl.LOCK_EX), (journal.parent / "place.lock", how)):
                if not stack.enter_context(_locked(lock, mode | fcntl.LOCK_NB)):
                    raise JobError(f"another gpuenc is at work on {journal}", code="journal-in-use")
            _await_workers(journal)
        except OSError as error:
            raise JobError(f"{journal.parent} cannot be used: {error.strerror}", code="journal-unusable") from None
        yield


def is_at_work(journal: Path) -> bool:
    """Whether a job is at work on `journal` now, as far as that can be seen from here."""
    if fcntl is None:
        return False
    try:
        handle = os.open(_job_lock(journal), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, and for no longer than this takes: two that look do not see each other.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)
    return False


def _await_workers(journal: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with _locked(_workers_lock(journal), fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
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
            stack.enter_context(_locked(_workers_lock(journal), fcntl.LOCK_SH))
        yield


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[bool]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
