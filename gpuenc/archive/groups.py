"""Locks that any number of one group hold together, and nobody else beside them: shares of one job, and not of two.

A lock of a file is either everybody's or one's. So a group is a number, and what it locks, for reading, is the byte of
a folder at that position: bytes that are not there can be locked, folders too, and who locks other bytes can be seen.
These are Linux's locks of an open file (`F_OFD_SETLK`), which end with the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

# Positions of groups that replace what is in the folder, and behind them of those at work somewhere below it.
_POSITIONS = 1 << 61
# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("hhqqi4x")
_CAN = hasattr(fcntl, "F_OFD_SETLK") and struct.calcsize("P") == 8


def number_of(group: str) -> int:
    """Return the number of a group; one without a name is alone, and has a number of its own each time."""
    digest = hashlib.blake2b(os.fsencode(group)).digest() if group else os.urandom(8)
    return 1 + int.from_bytes(digest[:7], "little")


@contextlib.contextmanager
def in_group(folder: str, number: int, *, whole: bool) -> Iterator[bool]:
    """Be at work in a folder with one's group.

    Parameters
    ----------
    folder : str
        The folder; who may not read it cannot lock it.
    number : int
        `number_of` the group.
    whole : bool
        At work on all of it, so that nobody of another group may be at work below it; otherwise only below it, where
        others may be too.

    Yields
    ------
    bool
        False where another group is at work there.

    Raises
    ------
    OSError
        The folder cannot be opened, or its file system has no such locks.
    """
    if not _CAN:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first = 0 if whole else _POSITIONS
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, first + number, 1, 0))
        # Whoever comes second of two sees the other's lock, since each has its own before it looks.
        yield not (_others(handle, 0, number) or (whole and _others(handle, _POSITIONS, number)))
    finally:
        os.close(handle)


def _others(handle: int, first: int, number: int) -> bool:
    """Whether others hold a position of other groups than this one."""
    for start, count in ((first, number), (first + number + 1, _POSITIONS - number - 1)):
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, count, 0)
        if _FLOCK.unpack(fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK:
            return True
    return False
