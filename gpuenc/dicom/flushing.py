"""Have many files on the disk at once, for less than it costs to flush each of them.

`fsync` of a file is correct everywhere, and costs a round trip to the disk each time. `syncfs` flushes a whole file
system in one, but only where it is known to wait for the disk and to tell of what could not be written: there, for the
folder that was opened before anything was written, it is used; anywhere else, and where it says that something went
wrong, each file is flushed and asked for itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# Their syncfs writes everything, and has the disk empty its cache. Network and FUSE file systems may only hand things
# on, and that of overlayfs does not tell of errors.
_WHOLE_AT_ONCE = frozenset({"ext4", "xfs"})
# Since then, syncfs tells of errors.
_TELLS_SINCE = (5, 8)
# Several at a time: file systems write one entry into their log for all that wait.
_AT_ONCE = 8
# Some file systems refuse to flush a folder, and a folder may be writable but not readable.
_NOT_HERE = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EBADF))


def sync_folder(folder: str) -> None:
    """Flush a folder, where that can be done.

    Raises
    ------
    OSError
        It can be, and went wrong: what was named in it may not be on the disk.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise


def unflushed(error: OSError) -> str:
    """Return what to say of a file that has its name, and whose folder could not be flushed."""
    return f"it is there, but its folder could not be flushed to the disk: {os.strerror(error.errno or 0)}"


class Flusher:
    """Flushes files that lie below a folder.

    Parameters
    ----------
    folder : str
        It must exist, and nothing that is going to be flushed may have been written yet.
    """

    def __init__(self, folder: str) -> None:
        self._folder, self._handle = folder, -1
        with contextlib.suppress(OSError):
            device = os.stat(folder).st_dev
            if hasattr(os, "O_DIRECTORY") and _syncfs() and _is_known(device):
                self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._device = device

    def files(self, paths: Sequence[str]) -> dict[str, OSError]:
        """Have the contents of files on the disk.

        Returns
        -------
        dict of str to OSError
            Those that are not there, and why.
        """
        here = set(paths) if not self._all_at_once() else {path for path in paths if not self._covers(path)}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="gpuenc-fsync") as pool:
            each = [path for path in paths if path in here]
            return {path: error for path, error in zip(each, pool.map(_flushed, each), strict=True) if error}

    def folders(self, paths: Iterable[str]) -> dict[str, OSError]:
        """Have what files are called on the disk: the entries of their folders, and of those above them.

        As anywhere else, a folder that refuses to be flushed is left as it is.

        Returns
        -------
        dict of str to OSError
            Those of `paths` for which it went wrong, there or above, and how.
        """
        above = {path: list(self._up_from(path)) for path in paths}
        done = self._all_at_once()
        wrong: dict[str, OSError] = {}
        for path in sorted({part for parts in above.values() for part in parts}, key=len, reverse=True):
            try:
                if not (done and self._covers(path)):
                    sync_folder(path)
            except OSError as error:
                wrong[path] = error
        return {path: wrong[part] for path, parts in above.items() for part in parts if part in wrong}

    def close(self) -> None:
        """Give back the folder."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _all_at_once(self) -> bool:
        flush = _syncfs()
        return self._handle >= 0 and flush is not None and flush(self._handle) == 0

    def _covers(self, path: str) -> bool:
        try:
            return os.lstat(path).st_dev == self._device
        except OSError:
            return False

    def _up_from(self, path: str) -> Iterable[str]:
        """Yield a folder and those above it, up to the one that was there before; only itself where that is not above.

        They may be new as well.
        """
        yield path
        while path != self._folder and path.startswith(self._folder.rstrip(os.sep) + os.sep):
            path = os.path.dirname(path)
            yield path


def _flushed(path: str) -> OSError | None:
    """Flush one file; return what went wrong."""
    try:
        # Some systems flush only what is open for writing; elsewhere, the file's mode may not allow that.
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        return error
    return None


@cache
def _syncfs() -> Callable[[int], int] | None:
    """Return the system's function, where it is there and tells of errors."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.system() != "Linux" or not found or (int(found[1]), int(found[2])) < _TELLS_SINCE:
        return None
    with contextlib.suppress(OSError, AttributeError):
        function: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).syncfs
        return function
    return None


def _is_known(device: int) -> bool:
    """Whether a device holds a file system that can be flushed as a whole (proc_pid_mountinfo(5))."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if before.split()[2:3] == [number]:
                return after.split()[:1] != [] and after.split()[0] in _WHOLE_AT_ONCE
    return False
