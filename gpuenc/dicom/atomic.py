"""A file that appears under its name only when it is complete, or never.

It is written to a temporary file in the destination's folder. `publish` flushes that to disk and gives it the name;
until then, and after any failure, the destination is as it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Self

from gpuenc.dicom.flushing import sync_folder, unflushed
from gpuenc.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import BinaryIO

TEMPORARY_SUFFIX = ".gpuenc-tmp"
# Small pieces are gathered; a codestream of this size or more goes to the system as it is.
_BUFFER_BYTES = 1 << 15
DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
# What file systems without hard links answer.
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV))
# Where a system says under which name an open file is known now.
_HANDLES = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else ""
_UMASK_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Unnamed:
    """A complete file that has not got its name yet, and of which nothing need be on the disk.

    Parameters
    ----------
    temporary, path : str
        Where it is, and its name to be.
    overwrite : bool
        Replace a file that has that name.
    inode : tuple of int
        Device and inode of what was written.
    """

    temporary: str
    path: str
    overwrite: bool
    inode: tuple[int, int]

    def name(self) -> None:
        """Give it its name.

        Raises
        ------
        DestinationError
            ``destination-exists``, ``destination-unwritable`` or ``disk-full``; it is as before.
        """
        with errors():
            if _inode_of(os.lstat(self.temporary)) != self.inode:
                raise DestinationError(
                    "another file took the place of its temporary one", code="destination-unwritable"
                )
            if self.overwrite:
                os.replace(self.temporary, self.path)
            else:
                _rename_to_new(self.temporary, self.path)

    def remove(self, path: str = "", folder: int | None = None) -> None:
        """Leave nothing of it; of another file all. It may lie elsewhere by now, at a path in an open folder."""
        path = path or self.temporary
        with contextlib.suppress(OSError):
            if _inode_of(os.lstat(path, dir_fd=folder)) == self.inode:
                os.unlink(path, dir_fd=folder)


class AtomicFile:
    """A file being written; a context manager that leaves nothing behind unless `publish` was called.

    Parameters
    ----------
    destination : path-like
        Its name to be. The folder must exist.
    overwrite : bool
        Replace a file that has the destination's name.
    fsync : bool
        Have the file, and where the file system lets a folder be flushed its name, on the disk before `publish`
        returns.
    defer : callable, optional
        Is handed the complete file by `publish` instead, and flushes and names it.
    token : str
        Twelve hexadecimal digits that the temporary file's name has; by default random ones.

    Attributes
    ----------
    file : binary file
        What to write to; use it within `errors`.
    note : str
        Why its name may not be on the disk although `publish` was to see to that, or nothing.

    Raises
    ------
    DestinationError
        ``destination-exists``, ``destination-unwritable``, ``name-too-long`` or ``disk-full``.
    """

    def __init__(
        self,
        destination: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        fsync: bool = True,
        defer: Callable[[Unnamed], None] | None = None,
        token: str = "",
    ) -> None:
        self._path = os.fspath(destination)
        self._folder, name = os.path.split(self._path)
        self._overwrite, self._fsync, self._defer, self._token = overwrite, fsync, defer, token
        self._open, self.note = False, ""
        self._handle: int | None = None
        with self.errors():
            if not overwrite and os.path.lexists(self._path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._stem = os.path.join(self._folder, f"{_stem_of(name)}{token or os.urandom(6).hex()}")
            self.file, self._temporary = self._new("")
            self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def errors(self) -> AbstractContextManager[None]:
        """Turn what the operating system says into `DestinationError`."""
        return _ERRORS

    @contextlib.contextmanager
    def rewritten(self) -> Iterator[BinaryIO]:
        """Go on with a new temporary file, while the old one can still be read; it is gone afterwards.

        Yields
        ------
        binary file
            The old file, flushed.
        """
        old, old_name = self.file, self._temporary
        old.flush()
        try:
            self.file, self._temporary = self._new("-2")
            yield old
        finally:
            if self._temporary != old_name:
                old.close()
                os.unlink(old_name)

    def skip(self, count: int) -> None:
        """Go on behind so many zeros without writing them: the file has a hole there, or its end."""
        self.file.seek(count, os.SEEK_CUR)
        self.file.truncate()

    def flushed(self) -> str:
        """Hand everything to the system; return the temporary file's name, for it to be read again."""
        with self.errors():
            self.file.flush()
        return self._temporary

    def publish(self, *, like: str | os.PathLike[str] | None = None, check: Callable[[], None] | None = None) -> int:
        """Give the file its name, with the mode that the umask asks for; return its size in bytes.

        Parameters
        ----------
        like : path-like, optional
            A file whose mode, and owner where that is allowed, it gets instead.
        check : callable, optional
            Called right before it has its name; what it raises leaves the destination as it was.
        """
        with self.errors():
            self.file.flush()
            written = os.fstat(self.file.fileno())
            size = written.st_size
            if hasattr(os, "fchmod"):
                os.fchmod(self.file.fileno(), 0o666 & ~_umask())
                if like is not None:
                    _make_alike(self.file.fileno(), like)
            if self._fsync and not self._defer:
                os.fsync(self.file.fileno())
            if _HANDLES:
                self._handle = os.dup(self.file.fileno())
            self.file.close()
        if check:
            check()
        whole = Unnamed(self._temporary, self._path, self._overwrite, _inode_of(written))
        if self._defer:
            self._open = False
            self._forget()
            self._defer(whole)
            return size
        whole.name()
        self._open = False
        self._forget()
        # The file is there: what goes wrong from here on must not have anyone believe it failed.
        if self._fsync:
            try:
                sync_folder(self._folder or ".")
            except OSError as error:
                self.note = unflushed(error)
        return size

    def abort(self) -> None:
        """Remove what was written; does nothing after `publish`."""
        if self._open:
            self._open = False
            if _HANDLES and self._handle is None and not self.file.closed:
                self._handle = os.dup(self.file.fileno())
            with contextlib.suppress(OSError):
                self.file.close()
            with contextlib.suppress(OSError):
                self._unlink()
            self._forget()

    def _unlink(self) -> None:
        try:
            os.unlink(self._temporary)
        except FileNotFoundError:
            # Its folder may have another name now.
            moved = "" if self._handle is None else os.readlink(f"{_HANDLES}/{self._handle}")
            if os.path.basename(moved) == os.path.basename(self._temporary):
                os.unlink(moved)

    def _forget(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _new(self, tail: str) -> tuple[BinaryIO, str]:
        name = f"{self._stem}{tail}{TEMPORARY_SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            file = os.open(name, flags, 0o600)
        except FileExistsError:
            if not self._token:
                raise
            # Of whoever has the same token, and may still need it: two paths may lead to the same place.
            name = f"{self._stem}-{_digits_of(self._path)}{tail}{TEMPORARY_SUFFIX}"
            file = os.open(name, flags, 0o600)
        return os.fdopen(file, "wb", buffering=_BUFFER_BYTES), name


class _Errors:
    """What `errors` returns: it is entered a dozen times a file, and a generator would cost five times as much."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DestinationError) or not isinstance(error, OSError):
            return
        if isinstance(error, FileExistsError):
            raise DestinationError("the destination exists", code="destination-exists") from None
        code = "disk-full" if error.errno in DISK_FULL else "destination-unwritable"
        code = "name-too-long" if error.errno == errno.ENAMETOOLONG else code
        reason = os.strerror(error.errno or 0)
        if folder := _missing_folder(error):
            reason = f"there is no folder '{folder}'"
        raise DestinationError(f"the destination cannot be written: {reason}", code=code) from None


def _missing_folder(error: OSError) -> str:
    """Return the folder of an output that is not there, if that is why it cannot be written."""
    if error.errno != errno.ENOENT:
        return ""
    for path in (error.filename, error.filename2):
        folder = os.path.dirname(os.path.abspath(os.fsdecode(path))) if isinstance(path, str | bytes) else ""
        if folder and not os.path.isdir(folder):
            return folder
    return ""


_ERRORS = _Errors()


def errors() -> AbstractContextManager[None]:
    """Turn what the operating system says of an output into `DestinationError`."""
    return _ERRORS


def temporaries_of(destination: str, token: str) -> list[str]:
    """Return the paths that temporary files of this destination have where they are made with this token."""
    folder, name = os.path.split(destination)
    stem = os.path.join(folder, f"{_stem_of(name)}{token}")
    others = ("", f"-{_digits_of(destination)}")
    return [f"{stem}{other}{tail}{TEMPORARY_SUFFIX}" for other in others for tail in ("", "-2")]


def _digits_of(path: str) -> str:
    """Return eight hexadecimal digits that tell a path from others that lead to the same place."""
    return hashlib.sha256(os.fsencode(os.path.normpath(path))).hexdigest()[:8]


def _inode_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _stem_of(name: str) -> str:
    whole = os.fsencode(name)
    # 255 bytes are the most a name can have.
    short = whole if len(whole) <= 200 else whole[:180] + hashlib.sha256(whole).hexdigest()[:16].encode()
    return f".{os.fsdecode(short)}."


def _make_alike(file: int, like: str | os.PathLike[str]) -> None:
    found = os.stat(like)
    with contextlib.suppress(OSError):  # only root gives files away; and a mode without its owner opens no more
        os.fchown(file, found.st_uid, found.st_gid)
    os.fchmod(file, found.st_mode & 0o777)


def _rename_to_new(temporary: str, path: str) -> None:
    """Give a file its name, unless something has it: a link, unlike a rename, never replaces."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here, and nothing else that is both portable and atomic.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(temporary, path)
    else:
        # It has its name; that it has another one too is no failure.
        with contextlib.suppress(OSError):
            os.unlink(temporary)


@cache
def _umask() -> int:
    with (
        contextlib.suppress(OSError, ValueError, StopIteration),
        open("/proc/self/status", encoding="latin-1") as status,
    ):
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)
    # Elsewhere it can only be read by setting it; 077 in the meantime lets nobody in.
    with _UMASK_LOCK:
        umask = os.umask(0o077)
        os.umask(umask)
        return umask
