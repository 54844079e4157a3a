"""The header of an RLE frame (PS3.5 Annex G)."""

from __future__ import annotations

import struct
from itertools import pairwise

from gpuenc.codestream.info import StreamInfo
from gpuenc.errors import WrongCodestream

_HEADER = struct.Struct("<16I")
_MOST_SEGMENTS = 15


def parse(codestream: bytes) -> StreamInfo:
    """Return the number of segments, once the header is consistent with the frame's length (PS3.5 G.5).

    Raises
    ------
    WrongCodestream
        No segment or more than 15, an offset that is odd, not ascending, or beyond the frame, or an unused one
        that is not 0.
    """
    if len(codestream) < _HEADER.size:
        raise WrongCodestream(f"an RLE frame of {len(codestream)} bytes is shorter than its header")
    segments, *offsets = _HEADER.unpack_from(codestream)
    if not 1 <= segments <= _MOST_SEGMENTS:
        raise WrongCodestream(f"an RLE header gives {segments} segments, not 1 to {_MOST_SEGMENTS}")
    if any(offsets[segments:]):
        raise WrongCodestream("an RLE header gives offsets of segments that it does not count")
    if offsets[0] != _HEADER.size:
        raise WrongCodestream(f"the first RLE segment begins at byte {offsets[0]}, not {_HEADER.size}")
    ends = [*offsets[1:segments], len(codestream)]
    for number, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        if start >= end:
            raise WrongCodestream(f"RLE segment {number} begins at byte {start} and ends at {end}")
        if start % 2:
            raise WrongCodestream(f"RLE segment {number} begins at the odd byte {start}")
    even = len(codestream) % 2 == 0
    return StreamInfo(family="rle", ends_properly=even, length_bytes=len(codestream), lossless=True, segments=segments)


def even_segments(codestream: bytes) -> bytes:
    """Return an RLE frame whose segments all begin at even offsets, as PS3.5 G.5 demands.

    Some encoders, gdcm among them, write segments of odd length one after the other. What cannot be such a frame is
    returned as it is.
    """
    if len(codestream) < _HEADER.size:
        return codestream
    segments, *offsets = _HEADER.unpack_from(codestream)
    bounds = [*offsets[:segments], len(codestream)]
    if not 1 <= segments <= _MOST_SEGMENTS or bounds != sorted(bounds) or bounds[0] < _HEADER.size:
        return codestream
    if not any(bound % 2 for bound in bounds):
        return codestream
    pieces, position = [], _HEADER.size
    for number, (start, end) in enumerate(pairwise(bounds)):
        piece = codestream[start:end] + bytes((end - start) % 2)
        offsets[number] = position
        position += len(piece)
        pieces.append(piece)
    return b"".join((_HEADER.pack(segments, *offsets), *pieces))
