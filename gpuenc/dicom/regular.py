"""Files opened for what they are now: whatever took a file's place since it was found keeps nobody waiting.

A pipe without a writer would have `open` wait for one, and a device may do anything.
"""

from __future__ import annotations

import errno
import os
import stat

# Nothing of it concerns regular files; a file that is brought back from tape, or leased to someone, may refuse it.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def regular(path: str, flags: int) -> int:
    """Open a regular file, and nothing else, for ``open(path, mode, opener=regular)``.

    Raises
    ------
    OSError
        It cannot be opened, or is no regular file (`errno.EINVAL`).
    """
    try:
        handle = os.open(path, flags | _AT_ONCE)
    except BlockingIOError:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise
        handle = os.open(path, flags)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        if _AT_ONCE:
            os.set_blocking(handle, True)
    except BaseException:
        os.close(handle)
        raise
    return handle


def waiting_for_nobody(path: str, flags: int) -> int:
    """Open what is written to in pieces, for ``open(path, mode, opener=waiting_for_nobody)``.

    Pipes and devices are as good as files, but for a pipe that nobody reads.

    Raises
    ------
    OSError
        It cannot be opened; of a pipe without a reader, `errno.ENXIO`.
    """
    handle = os.open(path, flags | _AT_ONCE, 0o666)
    try:
        if _AT_ONCE:
            os.set_blocking(handle, True)
    except BaseException:
        os.close(handle)
        raise
    return handle
