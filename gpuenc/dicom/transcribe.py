"""Implicit VR and big-endian elements as Explicit VR Little Endian ones, value bytes kept (PS3.5 7.1, annex A).

pydicom would decode every value and encode it again, which changes what is not quite right, and does not swap the
words of OW. Here a value keeps its bytes, or has them swapped as its VR demands.
"""

from __future__ import annotations

from io import BytesIO
from struct import pack
from typing import TYPE_CHECKING

import numpy as np
from pydicom.datadict import dictionary_VR

from gpuenc.dicom.elements import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    MAX_DEPTH,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    Window,
    item_header,
    item_is_implicit,
    name,
    walk,
)
from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.dicom.elements import Element

_SWAPPED_BYTES = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
_END_OF_ITEM = b"\xfe\xff\x0d\xe0\0\0\0\0"
_END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0\0\0\0\0"
_PIXEL_REPRESENTATION = 0x00280103


def explicit_little(data: bytes, *, implicit: bool, big_endian: bool) -> bytes:
    """Return the elements in `data` as Explicit VR Little Endian.

    Private elements of implicit data sets become UN, which keeps them as they are (PS3.5 6.2.2).

    Parameters
    ----------
    data : bytes
        A run of whole elements.
    implicit, big_endian : bool
        Its encoding.

    Raises
    ------
    SourceError
        ``truncated`` or ``corrupt-header``: `data` is no such run.
    """
    window = Window(BytesIO(data), len(data))
    found, ended, end = walk(
        window, 0, len(data), implicit=implicit, big_endian=big_endian, last=ITEM_END.__eq__, last_from=ITEM_END
    )
    if ended is not None or any(data[end:]):
        raise SourceError("there are bytes that are no element", code="corrupt-header")
    return _Transcriber(data, window, big_endian).elements(found, (), 0)


class _Transcriber:
    def __init__(self, data: bytes, window: Window, big_endian: bool) -> None:
        self._data = data
        self._window = window
        self._big = big_endian

    def elements(self, found: list[Element], signs: tuple[int, ...], depth: int) -> bytes:
        """Return the elements of one data set or item; `signs` are the Pixel Representations around it."""
        if depth > MAX_DEPTH:
            raise SourceError(f"sequences are nested more than {MAX_DEPTH} deep", code="corrupt-header")
        for element in found:
            if element.tag == _PIXEL_REPRESENTATION and element.end - element.value == 2:
                value = self._data[element.value : element.end]
                signs = (int.from_bytes(value, "big" if self._big else "little"), *signs)
        return b"".join(self._element(element, signs, depth) for element in found)

    def _element(self, element: Element, signs: tuple[int, ...], depth: int) -> bytes:
        tag, vr, _, at, end, undefined = element
        is_implicit = not vr
        if is_implicit:
            vr = vr_of(tag, end - at, signs)
        if vr == b"UN" and undefined and not self._big:
            return _header(tag, vr, UNDEFINED) + self._data[at:end]  # its items carry no VRs there either
        if vr == b"SQ" or (vr == b"UN" and undefined):
            return self._sequence(element, is_implicit, signs, depth)
        if undefined:
            # Fragments, which are bytes, behind item headers.
            return _header(tag, vr, UNDEFINED) + self._fragments(at, end) + _END_OF_SEQUENCE
        value = _swapped(self._data[at:end], vr) if self._big else self._data[at:end]
        return _header(tag, vr, len(value)) + value

    def _sequence(self, element: Element, is_implicit: bool, signs: tuple[int, ...], depth: int) -> bytes:
        tag, _, _, at, end, undefined = element
        try:
            items = b"".join(self._items(at, end, is_implicit, signs, depth))
        except SourceError:
            if self._big or undefined or not is_implicit:
                raise
            # Not items after all: kept as it is, which for UN is exactly what implicit VR is (PS3.5 6.2.2).
            return _header(tag, b"UN", end - at) + self._data[at:end]
        if undefined:
            return _header(tag, b"SQ", UNDEFINED) + items + _END_OF_SEQUENCE
        return _header(tag, b"SQ", len(items)) + items

    def _items(self, at: int, end: int, is_implicit: bool, signs: tuple[int, ...], depth: int) -> Iterator[bytes]:
        while at < end:
            tag, length = item_header(self._window, at, end, big_endian=self._big)
            at += 8
            if tag == SEQUENCE_END:
                return
            stop = end if length == UNDEFINED else at + length
            if tag != ITEM or stop > end:
                raise SourceError(f"an item was expected and {name(tag)} was found", code="corrupt-header")
            no_vrs = is_implicit or item_is_implicit(self._window, at)
            found, ended, after = walk(
                self._window, at, stop, implicit=no_vrs, big_endian=self._big, last=ITEM_END.__eq__, last_from=ITEM_END
            )
            if (ended is None) == (length == UNDEFINED) or (ended is None and after != stop):
                raise SourceError("an item does not end where it has to", code="corrupt-header")
            content = self.elements(found, signs, depth + 1)
            if length == UNDEFINED:
                yield _item(UNDEFINED) + content + _END_OF_ITEM
                at = after + 8
            else:
                yield _item(len(content)) + content
                at = stop

    def _fragments(self, at: int, end: int) -> bytes:
        pieces = []
        while at < end:
            tag, length = item_header(self._window, at, end, big_endian=self._big)
            at += 8
            if tag == SEQUENCE_END:
                break
            pieces += [_item(length), self._data[at : at + length]]
            at += length
        return b"".join(pieces)


def _header(tag: int, vr: bytes, length: int) -> bytes:
    if vr in LONG_VRS:
        return pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, length)
    if length > 0xFFFF:
        return pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"UN", 0, length)  # PS3.5 6.2.2 note 6
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length)


def _item(length: int) -> bytes:
    return pack("<HHI", ITEM >> 16, ITEM & 0xFFFF, length)


def vr_of(tag: int, length: int, signs: tuple[int, ...]) -> bytes:
    """Return the VR of an element that has none of its own, by the dictionary of PS3.6.

    Parameters
    ----------
    tag, length : int
        The element's, and how many bytes its value has.
    signs : tuple of int
        Pixel Representations of the data sets around it, the innermost first.
    """
    group, number = tag >> 16, tag & 0xFFFF
    if number == 0:
        return b"UL"
    if group & 1:
        return b"LO" if 0x10 <= number <= 0xFF else b"UN"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    if " or " not in vr:
        known = vr.encode()
        return known if known in SHORT_VRS or known in LONG_VRS else b"UN"
    # Which of two, PS3.5 annex A.1 and PS3.6 tell: words for bulk data, the sign of the pixels for numbers of pixels.
    if "OW" in vr:
        return b"US" if "US" in vr and length == 2 else b"OW"
    return b"SS" if signs[:1] == (1,) else b"US"


def _swapped(value: bytes, vr: bytes) -> bytes:
    size = _SWAPPED_BYTES.get(vr)
    if size is None:
        return value
    whole = len(value) // size * size
    return np.frombuffer(value[:whole], f">u{size}").byteswap().tobytes() + value[whole:]
