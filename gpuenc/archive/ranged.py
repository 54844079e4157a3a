"""An object in a store, read as a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from gpuenc.archive.stores import piece_of

if TYPE_CHECKING:
    from pathlib import Path

    from gpuenc.archive.stamp import Stamp

# The least that one request asks for, a header with most of its sequences, and the most that one read gives.
_RANGE_BYTES = 64 << 10
_MOST_BYTES = 4 << 20


class Ranged(io.RawIOBase):
    """An object as a file to read, of which only what is asked for is fetched. For one thread.

    Parameters
    ----------
    path : Path
        The object.
    stamp : Stamp
        As it was when the work began; an object that is replaced meanwhile is an error.
    """

    def __init__(self, path: Path, stamp: Stamp) -> None:
        self._path, self._stamp = path, stamp
        self._at = self._base = 0
        self._bytes = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position."""
        self._at = offset + (0, self._at, self._stamp.size_bytes)[whence]
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Read from the position on; return how many bytes."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._stamp.size_bytes - self._at, _MOST_BYTES))
        if not count:
            return 0
        inside = self._at - self._base
        if not 0 <= inside < len(self._bytes):
            end = min(self._stamp.size_bytes, self._at + max(count, _RANGE_BYTES))
            self._bytes, self._base, inside = piece_of(self._path, self._stamp, self._at, end), self._at, 0
        piece = self._bytes[inside : inside + count]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
