"""Pixel Data as it is written: one fragment per frame with its offset tables, or native cells (PS3.5 A.4, 8.1.1)."""

from __future__ import annotations

import sys
from array import array
from struct import pack
from typing import TYPE_CHECKING

import numpy as np

from gpuenc.codestream import pad_even
from gpuenc.cpu.bits import BitPacker
from gpuenc.errors import DestinationError

if TYPE_CHECKING:
    from gpuenc.syntaxes import Family

MAX_NATIVE_BYTES = 2**32 - 2  # the largest even length; 2**32 - 1 means undefined (PS3.5 7.1)
MAX_BASIC_OFFSET = 2**32 - 1
ITEM_TAG = b"\xfe\xff\x00\xe0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


class Encapsulated:
    """The encapsulated Pixel Data element, in pieces.

    Parameters
    ----------
    number_of_frames : int
        Frames to come.
    family : str
        Codec, whose rule pads odd codestreams.
    extended : bool
        Write an Extended Offset Table, which goes with an empty basic one (PS3.3 C.7.6.3.1.8).
    """

    def __init__(self, number_of_frames: int, family: Family, *, extended: bool) -> None:
        self.number_of_frames = number_of_frames
        self.extended = extended
        self._family = family
        self._offsets, self._lengths = array("Q"), array("Q")
        self._next = 0

    @property
    def overflows(self) -> bool:
        """Whether a Basic Offset Table cannot hold the offsets so far."""
        return bool(self._offsets) and self._offsets[-1] > MAX_BASIC_OFFSET

    def begin(self) -> bytes:
        """Return what precedes the first fragment; the tables are zeros; see `tables`."""
        return self._begin(bytes(self._table_bytes))

    def tables(self) -> bytes:
        """Return what `begin` returned, with the offsets filled in."""
        if self.extended:
            return self._begin(b"".join(self.extended_tables()))
        return self._begin(_little(array("I", self._offsets)))

    def extended_tables(self) -> tuple[bytes, bytes]:
        """Return (7FE0,0001) Extended Offset Table and (7FE0,0002) Extended Offset Table Lengths."""
        return _little(self._offsets), _little(self._lengths)

    def put(self, codestream: bytes) -> tuple[bytes, bytes]:
        """Return the item header and the value of the next fragment."""
        value = pad_even(codestream, self._family)
        if len(value) > MAX_NATIVE_BYTES:
            raise DestinationError(f"a frame of {len(value)} bytes does not fit one fragment", code="too-large")
        self._offsets.append(self._next)
        # Lengths are those of the codestreams; JPEG-LS is padded inside, before its end marker.
        self._lengths.append(len(value) if self._family == "jpeg-ls" else len(codestream))
        self._next += 8 + len(value)
        return ITEM_TAG + pack("<I", len(value)), value

    def end(self) -> bytes:
        """Return what follows the last fragment."""
        return SEQUENCE_END

    @property
    def _table_bytes(self) -> int:
        return self.number_of_frames * (16 if self.extended else 4)

    def _begin(self, table: bytes) -> bytes:
        pixels = pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        if not self.extended:
            return pixels + ITEM_TAG + pack("<I", len(table)) + table
        half = len(table) // 2
        offsets = pack("<HH2sHI", 0x7FE0, 0x0001, b"OV", 0, half) + table[:half]
        lengths = pack("<HH2sHI", 0x7FE0, 0x0002, b"OV", 0, half) + table[half:]
        return offsets + lengths + pixels + ITEM_TAG + pack("<I", 0)


class Native:
    """The native Pixel Data element, in pieces.

    Parameters
    ----------
    number_of_frames : int
        Frames to come.
    bits_allocated, frame_bits : int
        Of a cell; of a frame.

    Raises
    ------
    DestinationError
        ``too-large``: no length field can hold it.
    """

    overflows = False
    extended = False

    def __init__(self, number_of_frames: int, bits_allocated: int, frame_bits: int) -> None:
        self.number_of_frames = number_of_frames
        self._frame_bits = frame_bits
        self._length = (number_of_frames * frame_bits + 15) // 16 * 2
        if self._length > MAX_NATIVE_BYTES:
            raise DestinationError(
                f"Pixel Data of {self._length} bytes cannot be written without compression (PS3.5 7.1)",
                code="too-large",
            )
        # PS3.5 A.2: OW for cells of more than 8 bits.
        self._vr = b"OW" if bits_allocated > 8 else b"OB"
        self._packer = BitPacker() if frame_bits % 8 else None

    def begin(self) -> bytes:
        """Return what precedes the first frame."""
        return pack("<HH2sHI", 0x7FE0, 0x0010, self._vr, 0, self._length)

    def tables(self) -> bytes:
        """Return what `begin` returned."""
        return self.begin()

    def put(self, cells: bytes) -> tuple[bytes, bytes]:
        """Return what the next frame adds, the second of two pieces.

        Raises
        ------
        ValueError
            Not the cells of one frame.
        """
        if len(cells) != (self._frame_bits + 7) // 8:
            raise ValueError(f"{len(cells)} bytes are not one frame of {self._frame_bits} bits")
        if self._packer is None:
            return b"", cells
        # Frames of 1-bit cells follow each other without padding (PS3.5 8.1.1).
        return b"", self._packer.add_packed(np.frombuffer(cells, np.uint8), self._frame_bits).tobytes()

    def end(self) -> bytes:
        """Return what follows the last frame."""
        rest = b"" if self._packer is None else self._packer.finish().tobytes()
        written = self.number_of_frames * self._frame_bits // 8
        return rest.ljust(self._length - written, b"\0")


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()
