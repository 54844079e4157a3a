"""RLE Lossless (PS3.5 Annex G): byte planes, PackBits row by row, behind a 64-byte header."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import imagecodecs
import numpy as np

from gpuenc.errors import CodecError, DecodeFailed

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

HEADER = struct.Struct("<16I")
MOST_SEGMENTS = 15
# Encoders pad a segment to whole words, or by a zero too many. More than that is another image size.
_MOST_EXCESS_BYTES = 8


def encode(samples: NDArray[Any]) -> bytes:
    """Return one frame as RLE Lossless.

    Parameters
    ----------
    samples : numpy.ndarray
        (rows, columns) or (rows, columns, samples), integers of 1, 2 or 4 bytes.

    Returns
    -------
    bytes
        Header and segments: for each sample its byte planes, the most significant first (PS3.5 G.2), each row coded
        by itself (G.3.1), each segment of even length.

    Raises
    ------
    CodecError
        More than 15 segments would be needed (PS3.5 G.5).
    """
    cells = samples if samples.ndim == 3 else samples[..., np.newaxis]
    size = samples.dtype.itemsize
    count = cells.shape[2] * size
    if count > MOST_SEGMENTS:
        raise CodecError(f"RLE Lossless has room for {MOST_SEGMENTS} segments and {count} are needed (PS3.5 G.5)")
    unsigned = cells.view(f"{samples.dtype.byteorder}u{size}")
    segments: list[bytes] = []
    for sample in range(cells.shape[2]):
        for byte in reversed(range(size)):
            # A shift and a cast are three times as fast as a strided copy of bytes.
            shifted = unsigned[:, :, sample] >> 8 * byte if byte else unsigned[:, :, sample]
            # As an array, and not as bytes, each row gets its own packets. What comes out has no byte 128 where a
            # packet begins: the encoder makes literals of 1 to 128 bytes and runs of 2 to 128.
            segment = cast("bytes", imagecodecs.packbits_encode(shifted.astype(np.uint8, order="C"), axis=-1))
            segments.append(segment + b"\0" if len(segment) % 2 else segment)
    offsets, position = [0] * MOST_SEGMENTS, HEADER.size
    for index, segment in enumerate(segments):
        offsets[index] = position
        position += len(segment)
    return b"".join((HEADER.pack(count, *offsets), *segments))


def decode(codestream: bytes, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return the samples of one RLE Lossless frame.

    Takes what real encoders write: segments of odd length, more padding than one byte, packets that span rows,
    padding after the frame. What follows the last byte that a segment must give is ignored.

    Parameters
    ----------
    codestream : bytes
        All of one frame.
    shape : tuple of int
        (rows, columns) or (rows, columns, samples).
    dtype : dtype
        Integers of 1, 2 or 4 bytes.

    Returns
    -------
    numpy.ndarray
        Of `shape` and `dtype`, C-contiguous.

    Raises
    ------
    DecodeFailed
        The header does not fit `shape` and `dtype` or the codestream's length, or a segment gives too few bytes, or
        so many that the image must be another.
    """
    kind = np.dtype(dtype)
    rows, columns, count = shape if len(shape) == 3 else (*shape, 1)
    spans = _spans(codestream, count * kind.itemsize)
    planes = np.empty((rows, columns, count, kind.itemsize), np.uint8)
    source = memoryview(codestream)
    for index, (start, end) in enumerate(spans):
        sample, byte = divmod(index, kind.itemsize)
        plane = _segment(source[start:end], rows * columns, index)
        planes[:, :, sample, kind.itemsize - 1 - byte] = plane.reshape(rows, columns)
    little = planes.reshape(-1).view(kind.newbyteorder("<"))
    return little.reshape(shape).astype(kind, copy=False)


def check_lengths(codestream: bytes, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Refuse a frame whose segments do not give what `shape` and `dtype` need, by the lengths in its packets alone.

    Raises
    ------
    DecodeFailed
        As `decode`.
    """
    rows, columns, count = shape if len(shape) == 3 else (*shape, 1)
    source = memoryview(codestream)
    for index, (start, end) in enumerate(_spans(codestream, count * np.dtype(dtype).itemsize)):
        _end_of_plane(source[start:end], rows * columns, index)


def _spans(codestream: bytes, wanted: int) -> list[tuple[int, int]]:
    """Return where each of `wanted` segments begins and ends (PS3.5 G.5)."""
    if len(codestream) < HEADER.size:
        raise DecodeFailed(f"an RLE frame of {len(codestream)} bytes is shorter than its header")
    count, *offsets = HEADER.unpack_from(codestream)
    if count != wanted:
        raise DecodeFailed(f"an RLE frame has {count} segments, not {wanted}")
    bounds = [*offsets[:count], len(codestream)]
    if bounds[0] < HEADER.size or any(start >= end for start, end in pairwise(bounds)):
        raise DecodeFailed(f"the offsets of RLE segments do not ascend within the frame: {bounds}")
    return list(pairwise(bounds))


def _segment(segment: memoryview, size: int, index: int) -> NDArray[np.uint8]:
    """Return the `size` bytes of one byte plane."""
    plane = np.empty(size + _MOST_EXCESS_BYTES, np.uint8)
    try:
        got = len(imagecodecs.packbits_decode(segment, out=memoryview(plane)))
    except RuntimeError:
        # A packet is cut off, or there is more than fits: that may lie behind the last byte wanted.
        plane = np.empty(size + 128, np.uint8)
        end = _end_of_plane(segment, size, index)
        try:
            got = len(imagecodecs.packbits_decode(segment[:end], out=memoryview(plane)))
        except RuntimeError as error:
            raise DecodeFailed(f"RLE segment {index}: {error}") from None
    if got < size:
        raise DecodeFailed(f"RLE segment {index} gives {got} bytes, not {size}")
    return plane[:size]


def _end_of_plane(segment: memoryview, size: int, index: int) -> int:
    """Return where the packet ends that completes `size` bytes (PS3.5 G.3.2)."""
    position = given = 0
    while given < size:
        if position >= len(segment):
            raise DecodeFailed(f"RLE segment {index} gives {given} bytes, not {size}")
        code = segment[position]
        given += code + 1 if code < 128 else 257 - code if code > 128 else 0
        position += 1 + (code + 1 if code < 128 else code > 128)
    if position > len(segment):
        raise DecodeFailed(f"RLE segment {index} is cut off")
    if len(segment) - position > _MOST_EXCESS_BYTES:
        raise DecodeFailed(f"RLE segment {index} goes on for {len(segment) - position} bytes after {size} bytes")
    return position
