"""Encapsulated Pixel Data (PS3.5 A.4) in a file: which bytes are which frame, found without reading the frames.

pydicom.encaps does this for pixel data in memory and follows an offset table wherever it points; here a table that
disagrees with the fragments is an error, since it would give wrong pixels.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from gpuenc.dicom.elements import ITEM, SEQUENCE_END, name
from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuenc.dicom.elements import RandomAccess

# How far from its end a fragment may carry the end-of-image marker; pydicom looks as far.
_TAIL_BYTES = 10


@dataclass(frozen=True, slots=True)
class Fragments:
    """The fragments of one Pixel Data element.

    Parameters
    ----------
    first : int
        Position of the first fragment's item tag, from which offset tables count.
    starts, lengths : array of int
        Position and length in bytes of each fragment's value.
    offsets : array of int
        The Basic Offset Table; empty where it is.
    end : int
        Position behind the element.
    """

    first: int
    starts: array[int]
    lengths: array[int]
    offsets: array[int]
    end: int

    def read(self, file: RandomAccess, index: int, *, tail_bytes: int | None = None) -> bytes:
        """Return fragment `index`, or its last `tail_bytes`."""
        start, length = self.starts[index], self.lengths[index]
        if tail_bytes is not None and tail_bytes < length:
            start, length = start + length - tail_bytes, tail_bytes
        return read(file, start, length)


def read(file: RandomAccess, at: int, count: int) -> bytes:
    """Return `count` bytes from `at`; raises `SourceError` (``truncated``) where there are fewer."""
    file.seek(at)
    read = file.read(count) or b""
    while len(read) < count:
        # One read returns at most 2 GiB on Linux.
        more = file.read(count - len(read))
        if not more:
            raise SourceError("the file ends inside a fragment", code="truncated")
        read += more
    return read


def find_fragments(file: RandomAccess, at: int, size: int, *, delimited: bool) -> Fragments:
    """Return the fragments of the element whose value begins at `at`, in a file of `size` bytes.

    Parameters
    ----------
    file : file-like
        Where they are.
    at, size : int
        Begin of the value, end of the file.
    delimited : bool
        The element has to end with its delimiter; values in memory, as pydicom has them, do not.

    Raises
    ------
    SourceError
        ``truncated``: the file ends before the Sequence Delimitation Item, so nobody can tell whether the last frame
        is complete. ``wrong-length``: something other than a fragment.
    """
    offsets, first = _offset_table(file, at, size)
    starts, lengths = array("Q"), array("Q")
    at = first
    while at + 8 <= size:
        header = read(file, at, 8)
        tag = int.from_bytes(header[:2], "little") << 16 | int.from_bytes(header[2:4], "little")
        length = int.from_bytes(header[4:], "little")
        at += 8
        if tag == SEQUENCE_END:
            return Fragments(first, starts, lengths, offsets, at)
        if tag != ITEM:
            raise SourceError(f"a fragment of Pixel Data was expected and {name(tag)} was found", code="wrong-length")
        if length > size - at:
            raise SourceError(
                f"a fragment of Pixel Data is {length} bytes long and the file has {size - at} more", code="truncated"
            )
        starts.append(at)
        lengths.append(length)
        at += length
    if delimited or at != size:
        raise SourceError("the file ends before its last fragment does", code="truncated")
    return Fragments(first, starts, lengths, offsets, at)


def _offset_table(file: RandomAccess, at: int, size: int) -> tuple[array[int], int]:
    """Return the Basic Offset Table and the position behind it."""
    if size - at < 8:
        raise SourceError("the file ends where Pixel Data begins", code="truncated")
    header = read(file, at, 8)
    if header[:4] != b"\xfe\xff\x00\xe0":
        raise SourceError("Pixel Data does not begin with an offset table", code="wrong-length")
    length = int.from_bytes(header[4:], "little")
    if length > size - at - 8:
        raise SourceError("the Basic Offset Table is longer than the file", code="truncated")
    if length % 4:
        raise SourceError(f"the Basic Offset Table is {length} bytes long, not a multiple of 4", code="wrong-length")
    table = array("I", read(file, at + 8, length))
    if sys.byteorder == "big":
        table.byteswap()
    return table, at + 8 + length


def frame_spans(
    fragments: Fragments,
    number_of_frames: int,
    *,
    ends_frame: Callable[[int], bool] | None,
    begins_frame: Callable[[int], bool] | None = None,
) -> list[tuple[int, int]]:
    """Return for each frame its first fragment and the one behind its last.

    Parameters
    ----------
    fragments : Fragments
        What was found.
    number_of_frames : int
        Number of Frames.
    ends_frame : callable or None
        Whether a fragment ends a codestream. Asked, as pydicom does, only where the offset table is empty and there
        are more fragments than frames, or one frame alone; None for codecs whose codestreams have no end marker.
    begins_frame : callable, optional
        Whether a fragment begins a codestream. Asked only of one frame's fragments: an end with a begin behind it is
        one frame more than the attributes say, and a decoder would stop at that end without a word.

    Raises
    ------
    SourceError
        ``truncated``: fewer fragments than frames. ``wrong-length``: fragments and frames cannot be matched, or the
        offset table contradicts them.
    """
    count = len(fragments.starts)
    if count < number_of_frames:
        raise SourceError(f"{count} fragments for {number_of_frames} frames", code="truncated")
    if number_of_frames == 1 and ends_frame is not None and begins_frame is not None:
        found = 1 + sum(ends_frame(index) and begins_frame(index + 1) for index in range(count - 1))
        if found > 1:
            raise SourceError(
                f"{count} fragments hold {found} codestreams where Number of Frames says 1", code="wrong-length"
            )
    if len(fragments.offsets):
        return _by_offsets(fragments, number_of_frames)
    if count == number_of_frames:
        return [(index, index + 1) for index in range(count)]
    if number_of_frames == 1:
        return [(0, count)]
    stops = [index + 1 for index in range(count) if ends_frame(index)] if ends_frame is not None else []
    if len(stops) != number_of_frames or stops[-1] != count:
        raise SourceError(
            f"{count} fragments cannot be divided among {number_of_frames} frames without an offset table",
            code="wrong-length",
        )
    return list(zip([0, *stops[:-1]], stops, strict=True))


def _by_offsets(fragments: Fragments, number_of_frames: int) -> list[tuple[int, int]]:
    offsets = fragments.offsets
    if len(offsets) != number_of_frames:
        raise SourceError(
            f"the Basic Offset Table has {len(offsets)} entries for {number_of_frames} frames", code="wrong-length"
        )
    number_of = {start - 8 - fragments.first: index for index, start in enumerate(fragments.starts)}
    begins = [number_of.get(offset, -1) for offset in offsets]
    if begins[0] != 0 or any(a >= b for a, b in pairwise(begins)):
        raise SourceError("the Basic Offset Table does not point at fragments, in order", code="wrong-length")
    return list(zip(begins, [*begins[1:], len(fragments.starts)], strict=True))


def extended_lengths(fragments: Fragments, offsets: bytes, lengths: bytes, number_of_frames: int) -> Sequence[int]:
    """Return the length in bytes of each frame's codestream, by the Extended Offset Table (PS3.3 C.7.6.3.1.8).

    Parameters
    ----------
    fragments : Fragments
        What was found; each frame must be exactly one fragment.
    offsets, lengths : bytes
        (7FE0,0001) and (7FE0,0002), little endian.
    number_of_frames : int
        Number of Frames.

    Raises
    ------
    SourceError
        ``wrong-length``: the table contradicts the fragments.
    """
    if not len(offsets) == len(lengths) == 8 * number_of_frames:
        raise SourceError(f"the Extended Offset Table is not for {number_of_frames} frames", code="wrong-length")
    begins, sizes = array("Q", offsets), array("Q", lengths)
    if sys.byteorder == "big":
        begins.byteswap()
        sizes.byteswap()
    if len(fragments.starts) != number_of_frames:
        raise SourceError(
            f"{len(fragments.starts)} fragments for {number_of_frames} frames with an Extended Offset Table",
            code="wrong-length",
        )
    for begin, size, start, length in zip(begins, sizes, fragments.starts, fragments.lengths, strict=True):
        # A fragment is its codestream, padded to even length.
        if begin != start - 8 - fragments.first or not 0 <= length - size <= 1:
            raise SourceError("the Extended Offset Table does not point at the fragments", code="wrong-length")
    return sizes


def ends_with_marker(tail: bytes) -> bool:
    """Return whether the end of a fragment is the end of a JPEG, JPEG-LS or JPEG 2000 codestream (FFD9)."""
    return b"\xff\xd9" in tail[-_TAIL_BYTES:]


def begins_with_marker(head: bytes) -> bool:
    """Return whether the first bytes of a fragment begin a JPEG or JPEG-LS (FFD8) or JPEG 2000 codestream (FF4F)."""
    return head[:2] in (b"\xff\xd8", b"\xff\x4f")


def head_of(fragments: Fragments, file: RandomAccess, index: int, head_bytes: int = 2) -> bytes:
    """Return the first bytes of a fragment, by default those that `begins_with_marker` looks at."""
    return read(file, fragments.starts[index], min(head_bytes, fragments.lengths[index]))


def tail_of(fragments: Fragments, file: RandomAccess, index: int) -> bytes:
    """Return the bytes of a fragment that `ends_with_marker` looks at."""
    return fragments.read(file, index, tail_bytes=_TAIL_BYTES)
