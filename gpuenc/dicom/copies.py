"""A file copied byte for byte: under its name only when it is complete and was read again. Holes stay holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.digests import PIECE_BYTES, file_digest, xxh3_128
from gpuenc.dicom.holes import Hole, has_holes, hole_or
from gpuenc.dicom.regular import regular
from gpuenc.errors import DestinationError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from gpuenc.dicom.atomic import Unnamed


@dataclass(frozen=True, slots=True)
class Copy:
    """What was copied: the file's size, its XXH3-128 as 32 hexadecimal digits, the same for both files, and a note.

    The note is that of `AtomicFile`.
    """

    bytes_written: int
    digest: str
    note: str = ""


def copy_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    fsync: bool = True,
    defer: Callable[[Unnamed], None] | None = None,
    token: str = "",
    check: Callable[[], None] | None = None,
) -> Copy:
    """Copy a file byte for byte, as atomically as any output, and read the copy back before it gets its name.
    Parameters
    ----------
    source, destination, overwrite, fsync, defer, token
        As for `AtomicFile`.
    check : callable, optional
        Called after each piece is read, and once at the end of the source; what it raises ends the copy, and nothing
        is left of it.

    Raises
    ------
    DestinationError
        ``destination-exists``, ``destination-unwritable`` or ``disk-full``; ``read-back-mismatch``: what lies in the
        copy is not what was read from the source.
    OSError
        The source cannot be read.
    """
    digest = xxh3_128()
    with (
        open(source, "rb", buffering=0, opener=regular) as reader,
        AtomicFile(destination, overwrite=overwrite, fsync=fsync, defer=defer, token=token) as out,
    ):
        piece, sparse = b"-", has_holes(reader)
        while piece:
            piece = reader.read(PIECE_BYTES)
            if check:
                check()
            digest.update(piece)
            with out.errors():
                if sparse and isinstance(hole_or(piece), Hole):
                    out.skip(len(piece))
                else:
                    out.file.write(piece)
        written = out.flushed()
        with out.errors():
            copied = file_digest(written, check=check)
        if copied != digest.hexdigest():
            raise DestinationError("the copy is not what was read from the source", code="read-back-mismatch")
        return Copy(out.publish(), copied, out.note)
