"""Digests of files: XXH3, which finds what disks, memory and programs get wrong, at the speed of memory.

It proves nothing against someone who changes files on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest, xxh3_128

from gpuenc.dicom.regular import regular

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

PIECE_BYTES = 1 << 20

__all__ = ["PIECE_BYTES", "file_digest", "xxh3_64_intdigest", "xxh3_128"]


def file_digest(path: str | os.PathLike[str], *, check: Callable[[], None] | None = None) -> str:
    """Return XXH3-128 of a file's bytes: 32 hexadecimal digits, most significant first.

    Parameters
    ----------
    path : path-like
        The file.
    check : callable, optional
        Called before each piece is read; what it raises ends the reading.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    digest = xxh3_128()
    with open(path, "rb", buffering=0, opener=regular) as file:
        while piece := file.read(PIECE_BYTES):
            if check:
                check()
            digest.update(piece)
    return digest.hexdigest()
