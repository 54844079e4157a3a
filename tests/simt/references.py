"""Encoders written from the standards, one sample after the other where that is clearest: what the kernels must equal.

They share nothing with the kernels but the choices that T.81 and PS3.5 Annex G leave to an encoder.
"""

from __future__ import annotations

import struct
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

# JPEG Lossless, selection value 1 (T.81 Annex H).


def jpeg_lossless(samples: NDArray[Any]) -> bytes:
    """Return one frame: uint8 or uint16, or the same bits signed, (rows, columns[, components])."""
    precision = 8 * samples.itemsize
    cells = samples.view(f"u{samples.itemsize}").astype(np.int64)
    cells = cells if cells.ndim == 3 else cells[..., np.newaxis]
    rows, columns, components = cells.shape
    differences = _differences(cells, precision).reshape(-1)
    sizes = np.array([int(value).bit_length() for value in range(32769)])
    categories = sizes[np.abs(differences)]
    lengths = optimal_lengths(np.bincount(categories, minlength=17).tolist())
    bits = [sum(length == wanted for length in lengths.values()) for wanted in range(1, 17)]
    values = list(lengths)
    codes, code, before = {}, 0, 0
    for category in values:  # C.2
        code <<= lengths[category] - before
        before = lengths[category]
        codes[category] = code
        code += 1
    head = struct.pack(">HHHBHHB", 0xFFD8, 0xFFC3, 8 + 3 * components, precision, rows, columns, components)
    head += b"".join(bytes((component + 1, 0x11, 0)) for component in range(components))
    head += struct.pack(">HHB", 0xFFC4, 19 + len(values), 0) + bytes(bits) + bytes(values)
    head += struct.pack(">HHB", 0xFFDA, 6 + 2 * components, components)
    head += b"".join(bytes((component + 1, 0)) for component in range(components)) + b"\x01\x00\x00"
    data = _entropy_coded(differences, categories, codes, lengths)
    return head + data.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"


def _differences(cells: NDArray[np.int64], precision: int) -> NDArray[np.int64]:
    """Return -32767 to 32768 (H.1.2.1)."""
    predictions = np.empty_like(cells)
    predictions[:, 1:] = cells[:, :-1]
    predictions[1:, 0] = cells[:-1, 0]
    predictions[0, 0] = 1 << precision - 1
    differences = (cells - predictions) & 0xFFFF
    return np.where(differences > 32768, differences - 65536, differences)


def optimal_lengths(histogram: list[int]) -> dict[int, int]:
    """Return the length of each category's code (K.2), none above 16 and none of all ones, in the order of HUFFVAL.

    That is by the length before it was limited, then by value (figure K.4).
    """
    trees = [(count, [category]) for category, count in enumerate(histogram) if count]
    trees.append((1, [17]))  # its code will be the one of all ones
    depth = dict.fromkeys(range(18), 0)
    # A tree stands where its last merged leaf's partner stood; of equal counts the one that stands last goes first.
    standing = {leaves[0]: (count, leaves) for count, leaves in trees}
    while len(standing) > 1:
        first, second = sorted(standing, key=lambda place: (standing[place][0], -place))[:2]
        merged = standing[first][1] + standing[second][1]
        for leaf in merged:
            depth[leaf] += 1
        standing[first] = (standing[first][0] + standing[second][0], merged)
        del standing[second]
    counts = [0] * 40
    for leaves in depth.values():
        counts[leaves] += leaves > 0
    for length in range(39, 16, -1):  # K.3
        while counts[length]:
            shorter = next(shorter for shorter in range(length - 2, 0, -1) if counts[shorter])
            counts[length] -= 2
            counts[length - 1] += 1
            counts[shorter + 1] += 2
            counts[shorter] -= 1
    longest = max(length for length in range(1, 17) if counts[length])
    counts[longest] -= 1
    order = sorted((leaf for leaf in depth if depth[leaf] and leaf < 17), key=lambda leaf: (depth[leaf], leaf))
    lengths = [length for length in range(1, 17) for _ in range(counts[length])]
    return dict(zip(order, lengths, strict=True))


def _entropy_coded(
    differences: NDArray[np.int64], categories: NDArray[np.int64], codes: dict[int, int], lengths: dict[int, int]
) -> bytes:
    """Return the codes and the bits that follow them (H.1.2.2), filled with ones, without stuffed bytes."""
    code, length = np.zeros(17, np.int64), np.zeros(17, np.int64)
    for category in codes:
        code[category], length[category] = codes[category], lengths[category]
    more = np.where(categories == 16, 0, categories)
    low = np.where(differences < 0, differences - 1, differences) & (1 << more) - 1
    words, sizes = code[categories] << more | low, length[categories] + more
    starts = np.concatenate([[0], np.cumsum(sizes)])
    bits = np.ones(-(-int(starts[-1]) // 8) * 8, np.uint8)
    for bit in range(int(sizes.max())):  # of every sample that has so many, the bit before the last `bit` ones
        some = sizes > bit
        bits[starts[1:][some] - 1 - bit] = words[some] >> bit & 1
    return np.packbits(bits).tobytes()


# RLE Lossless (PS3.5 Annex G).


def rle(samples: NDArray[Any]) -> bytes:
    """Return one frame: integers of 1, 2 or 4 bytes, (rows, columns[, components])."""
    cells = samples if samples.ndim == 3 else samples[..., np.newaxis]
    planes = np.ascontiguousarray(cells).view(np.uint8).reshape(*cells.shape, samples.itemsize)
    segments = []
    for component in range(cells.shape[2]):
        for byte in reversed(range(samples.itemsize)):  # little-endian
            segment = b"".join(pack_row(bytes(row)) for row in planes[:, :, component, byte])
            segments.append(segment + bytes(len(segment) % 2))
    offsets = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    header = struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


def pack_row(row: bytes) -> bytes:
    """Return PackBits (G.3.1): runs of three or more are replicated, pairs if no open Literal Run has room."""
    packed, literal = bytearray(), bytearray()

    def end_literal() -> None:
        if literal:
            packed.append(len(literal) - 1)
            packed.extend(literal)
            literal.clear()

    for value, run in groupby(row):
        left = len(list(run))
        while left:
            count = min(left, 128)
            if count >= 3 or (count == 2 and (not literal or len(literal) > 126)):
                end_literal()
                packed.extend((257 - count, value))
            else:
                if len(literal) == 128:
                    end_literal()
                literal.extend([value] * count)
            left -= count
    end_literal()
    return bytes(packed)
