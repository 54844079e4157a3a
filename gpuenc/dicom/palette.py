"""Palette Color Lookup Tables, 8 bits per entry (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6, C.7.9.2).

Not pydicom's: its `apply_color_lut` indexes with the type of the entries, so a table of 8-bit entries for 12-bit
samples wraps, its segmented tables take byte offsets for word offsets, and neither bounds what a table expands to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuenc.errors import InvalidPixels
from gpuenc.frames import Palette

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    Table = NDArray[np.uint8] | NDArray[np.uint16]

_DESCRIPTOR = 0x00281101
_TABLES = (0x00281201, 0x00281202, 0x00281203)
_SEGMENTED = (0x00281221, 0x00281222, 0x00281223)


def palette(dataset: Dataset, *, big_endian: bool) -> Palette:
    """Return the tables of `dataset`.

    Tables of 16 bits are reduced to their high byte; those whose high bytes are all zero hold 8-bit values in
    16-bit cells, which several vendors write, and keep their low byte.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        With the Palette Color Lookup Table module.
    big_endian : bool
        Byte order of the words in the tables.

    Raises
    ------
    InvalidPixels
        Tables are missing or contradict their descriptor.
    """
    try:
        entries, first, bits = (int(value) for value in dataset[_DESCRIPTOR].value)
        segmented = _TABLES[0] not in dataset
        values = [bytes(dataset[tag].value) for tag in (_SEGMENTED if segmented else _TABLES)]
    except (KeyError, TypeError, ValueError):
        raise InvalidPixels("the Palette Color Lookup Tables are missing or cannot be read") from None
    entries = entries or 1 << 16
    if not 0 < entries <= 1 << 16 or bits not in (8, 16):
        raise InvalidPixels(f"the Palette Color Lookup Tables cannot have {entries} entries of {bits} bits")
    channels = []
    for value in values:
        words = np.frombuffer(value[: len(value) & ~1], ">u2" if big_endian else "<u2").astype("<u2")
        if segmented:
            channels.append(_expanded(words if bits == 16 else words.view(np.uint8), entries))
        else:
            channels.append(_plain(words, entries, bits))
    if any(channel.dtype.itemsize == 2 for channel in channels):
        shift = 0 if max(int(channel.max()) for channel in channels) < 256 else 8
        channels = [(channel >> shift).astype(np.uint8) for channel in channels]
    red, green, blue = (channel.tobytes() for channel in channels)
    return Palette(first, red, green, blue)


def _plain(words: NDArray[np.uint16], entries: int, bits: int) -> Table:
    # With 8 bits per entry, two entries share a word (C.7.6.3.1.6), unless the vendor gave each its own.
    if words.size >= entries:
        return words[:entries]
    if bits == 8 and words.size * 2 >= entries:
        return words.view(np.uint8)[:entries]
    raise InvalidPixels(f"a Palette Color Lookup Table of {entries} entries has {words.size * 2} bytes")


def _expanded(data: Table, entries: int) -> Table:
    """Return the entries of a segmented table (C.7.9.2)."""
    out: list[int] = []
    _expand(data.tolist(), 0, len(data), len(data), data.dtype.itemsize, out, entries, indirect=True)
    if len(out) != entries:
        raise InvalidPixels("a segmented Palette Color Lookup Table does not fit its descriptor")
    return np.array(out, np.uint8) if data.dtype.itemsize == 1 else np.array(out, np.uint16)


def _expand(
    data: list[int], at: int, stop: int, segments: int, cell_bytes: int, out: list[int], most: int, *, indirect: bool
) -> None:
    """Append up to `segments` segments from ``data[at]`` on to `out`, which may grow to `most` entries."""
    while segments and at + 2 < stop:
        opcode, length = data[at : at + 2]
        at += 2
        segments -= 1
        if opcode == 0 and at + length <= stop:
            out += data[at : at + length]
            at += length
        elif opcode == 1 and out:
            first, last = out[-1], data[at]
            steps = np.arange(1, length + 1) * (last - first)
            out += np.rint(first + steps / max(1, length)).astype(int).tolist()
            at += 1
        elif opcode == 2 and indirect and at + 4 // cell_bytes <= stop:
            offset = sum(data[at + i] << 8 * cell_bytes * i for i in range(4 // cell_bytes))
            _expand(data, offset // cell_bytes, stop, length, cell_bytes, out, most, indirect=False)
            at += 4 // cell_bytes
        else:
            raise InvalidPixels("a segmented Palette Color Lookup Table has an invalid segment")
        if len(out) > most:
            raise InvalidPixels("a segmented Palette Color Lookup Table has more entries than its descriptor says")
