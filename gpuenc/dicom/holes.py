"""Holes in files: zeros that take no room on a disk, and that a copy need not write either.

What is read decides: a piece is a hole only if all its bytes are zero, and the file it comes from has holes. A file
system is not asked where they are (SEEK_HOLE): some have been wrong about what had just been written.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_PIECE_BYTES = 1 << 20
# Less than a block of a file system is no hole.
_LEAST_BYTES = 4096


class Hole(bytes):
    """Zeros that need not be written where the file has its end moved instead."""

    __slots__ = ()


_HOLE = Hole(_PIECE_BYTES)


def has_holes(file: BinaryIO) -> bool:
    """Whether a file takes less room than its bytes would; not known, and False, of what is no file of this machine."""
    try:
        found = os.fstat(file.fileno())
    except (OSError, io.UnsupportedOperation):
        return False
    return hasattr(found, "st_blocks") and found.st_blocks * 512 < found.st_size


def pieces(file: BinaryIO, at: int, stop: int) -> Iterator[bytes]:
    """Yield what a file holds between two positions, as far as it goes: zeros of one that has holes as `Hole`."""
    sparse = at < stop and has_holes(file)
    while at < stop:
        file.seek(at)
        piece = file.read(min(_PIECE_BYTES, stop - at))
        if not piece:
            return
        at += len(piece)
        yield hole_or(piece) if sparse else piece


def hole_or(piece: bytes) -> bytes:
    """Return a piece of a file that has holes: as a `Hole` where it is nothing but zeros."""
    if len(piece) == _PIECE_BYTES:
        return _HOLE if piece == _HOLE else piece
    return Hole(piece) if len(piece) >= _LEAST_BYTES and not any(piece) else piece
