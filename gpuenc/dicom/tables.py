"""Lookup tables of the Modality LUT and the VOI LUT (PS3.3 C.11.1.1, C.11.2.1.1): read strictly, kept small.

Not pydicom's: its `apply_voi` counts entries in the type of their values, so a table of 8-bit entries wraps behind the
256th, neither of its functions reads entries of 8 bits that share words, and `apply_voi` cuts rescaled values where the
nearest entry is meant.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataelem import RawDataElement

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataelem import DataElement

    from gpuenc.frames import FrameFormat

DESCRIPTOR, DATA = 0x00283002, 0x00283006
_MOST_ENTRIES = 1 << 16
# 8 and 16 (C.11.1.1.1); of DX, MG and IO images 10 to 16 (C.8.11.3.1.5), of presentation states 8 to 16.
_BITS = range(8, 17)


@dataclass(frozen=True, slots=True)
class Table:
    """One lookup table.

    Parameters
    ----------
    first : int
        The value that maps to the first entry; lower ones map to it too, and those behind the last entry to the last.
    bits : int
        Entries are 0 to 2**bits - 1.
    packed : bytes
        The entries, deflated; see `entries`. Tables are long and smooth, and an index holds many.
    wrong : str
        Why it cannot be used; empty where it can.
    """

    first: int
    bits: int
    packed: bytes
    wrong: str = ""

    @classmethod
    def of(cls, first: int, bits: int, entries: NDArray[np.uint16]) -> Table:
        """Return the table of `entries`, shape (entries,)."""
        steps = np.diff(entries, prepend=entries.dtype.type(0)).astype("<u2")
        # High bytes apart from low ones: nearly all of them are zero.
        return cls(first, bits, zlib.compress(steps.view(np.uint8).reshape(-1, 2).T.tobytes()))

    def entries(self) -> NDArray[np.uint16]:
        """Return the entries, shape (entries,).

        Raises
        ------
        ValueError
            They were damaged where they were kept.
        """
        try:
            planes = zlib.decompressobj().decompress(self.packed, 2 * _MOST_ENTRIES)
        except zlib.error as error:
            raise ValueError(f"a lookup table is damaged: {error}") from None
        steps = np.frombuffer(planes, np.uint8).reshape(2, -1).T
        return np.cumsum(np.ascontiguousarray(steps).view("<u2")[:, 0], dtype=np.uint16)


def voi_signed(fmt: FrameFormat, slope: float, intercept: float, *, modality: bool) -> bool:
    """Return whether the first value of a VOI LUT's descriptor is signed (C.11.2.1.1).

    Parameters
    ----------
    fmt : FrameFormat
        Of the stored values.
    slope, intercept : float
        Rescale Slope and Intercept; 1 and 0 where there are none.
    modality : bool
        A Modality LUT Sequence takes their place, whose output is never negative.
    """
    if modality:
        return False
    least = -(1 << fmt.bits_stored - 1) if fmt.signed else 0
    greatest = least + (1 << fmt.bits_stored) - 1
    return min(least * slope, greatest * slope) + intercept < 0


def table_in(item: Any, *, signed: bool) -> Table:
    """Return the table of an item of a Modality or VOI LUT Sequence, or what is wrong with it.

    Parameters
    ----------
    item : pydicom.dataset.Dataset
        Of which nothing has been converted yet.
    signed : bool
        The first value mapped is signed as the standard has it; it is also where its VR is SS.
    """
    try:
        descriptor, data = item.get_item(DESCRIPTOR), item.get_item(DATA)
        if descriptor is None or data is None:
            return _unusable("it has no LUT Descriptor or no LUT Data")
        return _table(_words(descriptor), _words(data), signed=signed or descriptor.VR == "SS")
    except Exception as error:  # noqa: BLE001 - pydicom's converters raise whatever they like, and quote the value
        return _unusable(f"it cannot be read ({type(error).__name__})")


def _table(descriptor: NDArray[np.uint16], words: NDArray[np.uint16], *, signed: bool) -> Table:
    if descriptor.size != 3:
        return _unusable(f"its LUT Descriptor has {descriptor.size} values")
    # The first and the third are unsigned, whatever the VR (C.11.1.1.1, note 1).
    count, first, bits = (int(value) for value in descriptor)
    count = count or _MOST_ENTRIES
    if signed and first >= 1 << 15:
        first -= 1 << 16
    if bits not in _BITS:
        return _unusable(f"its entries have {bits} bits")
    if words.size >= count:
        entries = words[:count]
    elif bits == 8 and words.size * 2 >= count:
        # Two share a word, the first in its low byte (PS3.5 8.1.1, annex D).
        entries = words.view(np.uint8)[:count].astype("<u2")
    else:
        return _unusable(f"it should have {count} entries and has {words.size * 2} bytes")
    if int(entries.max()) >> bits:
        return _unusable(f"it has entries of more than {bits} bits")
    return Table.of(first, bits, entries)


def _words(element: RawDataElement | DataElement) -> NDArray[np.uint16]:
    """Return the 16-bit words of an element, little endian."""
    if not isinstance(element, RawDataElement):
        raise TypeError("already converted")
    value = element.value or b""
    if element.VR == "UN" and not element.is_little_endian:
        raise ValueError("nobody knows the byte order")
    # Bytes are bytes in any order.
    order = "<" if element.is_little_endian or element.VR == "OB" else ">"
    return np.frombuffer(value[: len(value) & ~1], f"{order}u2").astype("<u2")


def _unusable(why: str) -> Table:
    return Table(0, 0, b"", why)
