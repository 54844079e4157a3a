"""What a DICOMweb server gives back: its part of an answer in a file, compared with what was sent."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from gpuenc.dicom.difference import differing_tags
from gpuenc.dicom.digests import file_digest
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import DestinationError, SourceError
from gpuenc.frames import Coded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_HEAD_BYTES = 64 << 10
# The last boundary, and whatever an epilogue may say.
_TAIL_BYTES = 4 << 10


def first_part(
    pieces: Iterable[bytes], content_type: str, target: Path, most_bytes: int, check: Callable[[], None]
) -> None:
    """Write the first part of a multipart/related body (RFC 2046 5.1) into a file.

    Parameters
    ----------
    pieces : iterable of bytes
        The body.
    content_type : str
        Of the answer; one that is not multipart is the file itself.
    target : Path
        A file to be made.
    most_bytes : int
        More than that is none of ours.
    check : callable
        Called after each piece.

    Raises
    ------
    DestinationError
        ``read-back-mismatch``: there is no such part, or it does not end.
    """
    found = re.search(r'boundary="?([^";,\s]{1,70})', content_type, re.IGNORECASE)
    multipart = content_type.lower().startswith("multipart/")
    if multipart and not found:
        raise _unreadable()
    head, begun = b"", not multipart
    with open(target, "xb") as file:
        for piece in pieces:
            check()
            if not begun:
                head += piece
                end = head.find(b"\r\n\r\n")
                if end < 0:
                    if len(head) > _HEAD_BYTES:
                        raise _unreadable()
                    continue
                piece, begun = head[end + 4 :], True
            file.write(piece)
            if file.tell() > most_bytes:
                raise _unreadable()
    if not begun:
        raise _unreadable()
    if found and multipart:
        _cut(target, b"\r\n--" + found[1].encode())


def _cut(target: Path, delimiter: bytes) -> None:
    with open(target, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _TAIL_BYTES))
        at = file.read().rfind(delimiter)
        if at < 0:
            raise _unreadable()
        file.truncate(start + at)


def _unreadable() -> DestinationError:
    return DestinationError("what the server gives back cannot be read", code="read-back-mismatch")


def reads_the_same(sent: Path, back: Path) -> str:
    """Compare an instance with what a server gives back; return what it has changed, in words, if anything.

    A server may coerce attributes (PS3.18 10.5). Pixel Data is the same, fragment for fragment, in the same transfer
    syntax, or this is not what was sent.

    Raises
    ------
    DestinationError
        ``read-back-mismatch``.
    """
    if os.stat(sent).st_size == os.stat(back).st_size and file_digest(sent) == file_digest(back):
        return ""
    try:
        with DicomFile(sent) as ours, DicomFile(back) as theirs:
            if ours.syntax != theirs.syntax:
                raise DestinationError(
                    f"the server gives it back in transfer syntax {theirs.syntax}", code="read-back-mismatch"
                )
            if ours.number_of_frames != theirs.number_of_frames:
                raise DestinationError("the server gives back other frames", code="read-back-mismatch")
            for index in range(ours.number_of_frames):
                if _bytes_of(ours, index) != _bytes_of(theirs, index):
                    raise DestinationError(
                        f"the server gives back other Pixel Data: frame {index + 1} differs", code="read-back-mismatch"
                    )
            tags = differing_tags(ours, theirs)
    except SourceError:
        raise DestinationError("what the server gives back is not what was sent", code="read-back-mismatch") from None
    if not tags:
        return ""
    shown = ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags[:5])
    return f"the server has changed {len(tags)} elements: {shown}{' …' if len(tags) > 5 else ''}"


def _bytes_of(file: DicomFile, index: int) -> bytes:
    frame = file.frame(index)
    return frame.pixels.codestream if isinstance(frame.pixels, Coded) else frame.host_cells().tobytes()
