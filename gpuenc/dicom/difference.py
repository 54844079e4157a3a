"""Which elements of two files differ: byte for byte where both are Explicit VR Little Endian, and else value by value.

Written apart from `transcribe`, which it judges: here nothing is written in another encoding, and values are compared
as they lie in the two files.
"""

from __future__ import annotations

from io import BytesIO
from itertools import zip_longest
from typing import TYPE_CHECKING

from gpuenc.dicom.digests import xxh3_128
from gpuenc.dicom.elements import (
    ITEM,
    ITEM_END,
    MAX_DEPTH,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Window,
    item_header,
    item_is_implicit,
    walk,
)
from gpuenc.dicom.header import MAX_TRAILER_BYTES, META_LENGTH, TRANSFER_SYNTAX
from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuenc.dicom.source import DicomFile

# Stands for what follows Pixel Data, where that is too long to be told apart; no element can have this tag.
TRAILER = 0xFFFFFFFF
_WORD_BYTES = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}


def differing_tags(source: DicomFile, output: DicomFile) -> list[int]:
    """Return the tags, in order, of all elements that the two files do not share; Pixel Data is not looked at.

    Elements at the top level, with whatever is in them, those behind Pixel Data and the File Meta Information, of
    which its length and the Transfer Syntax UID may differ, if they are right. Where the source has no File Meta
    Information, none of it is compared.

    Parameters
    ----------
    source : DicomFile
        Open, in any encoding.
    output : DicomFile
        Open.

    Raises
    ------
    SourceError
        What follows Pixel Data cannot be read.
    """
    found = set(_differing(_head(source), _head(output)))
    if source.meta:
        ours, theirs = (_Run(file.prefix, file.meta, 0, implicit=False, big_endian=False) for file in (source, output))
        found |= set(_differing(ours, theirs)) - {META_LENGTH, TRANSFER_SYNTAX}
        found |= set(_meta_faults(output))
    return sorted(found | set(_trailers(source, output)))


class _Run:
    """Elements and the bytes they lie in."""

    def __init__(self, data: bytes, elements: list[Element], origin: int, *, implicit: bool, big_endian: bool) -> None:
        self.data, self.elements, self.origin = data, elements, origin
        self.implicit, self.big_endian = implicit, big_endian

    @property
    def plain(self) -> bool:
        """Whether it is Explicit VR Little Endian."""
        return not (self.implicit or self.big_endian)

    def whole(self, element: Element) -> bytes:
        return self.data[element.start - self.origin : element.end - self.origin]

    def value(self, element: Element, vr: bytes) -> bytes:
        """Return a value little endian, if it has the VR given."""
        value = self.data[element.value - self.origin : element.end - self.origin]
        size = _WORD_BYTES.get(vr, 1) if self.big_endian else 1
        if size == 1:
            return value
        whole = len(value) // size * size
        words = (value[at : at + size][::-1] for at in range(0, whole, size))
        return b"".join(words) + value[whole:]

    def items(self, element: Element) -> list[_Run]:
        """Return the items of a sequence.

        Raises
        ------
        SourceError
            It is not made of items.
        """
        found, at, stop = [], element.value - self.origin, element.end - self.origin
        window = Window(BytesIO(self.data), len(self.data))
        while at < stop:
            tag, length = item_header(window, at, stop, big_endian=self.big_endian)
            at += 8
            if tag == SEQUENCE_END:
                break
            end = stop if length == UNDEFINED else at + length
            if tag != ITEM or end > stop:
                raise SourceError("a sequence is not made of items", code="corrupt-header")
            implicit = self.implicit or element.vr == b"UN" or item_is_implicit(window, at)
            elements, ended, after = walk(
                window, at, end, implicit=implicit, big_endian=self.big_endian, last=ITEM_END.__eq__, last_from=ITEM_END
            )
            if (ended is None) == (length == UNDEFINED):
                raise SourceError("an item does not end where it has to", code="corrupt-header")
            found.append(_Run(self.data, elements, 0, implicit=implicit, big_endian=self.big_endian))
            at = after + 8 if length == UNDEFINED else end
        return found


def _head(file: DicomFile) -> _Run:
    return _Run(file.head, file.elements, file.origin, implicit=file.implicit, big_endian=file.big_endian)


def _meta_faults(output: DicomFile) -> Iterable[int]:
    """Yield the tags of what may differ in the File Meta Information (PS3.10 7.1) and is wrong."""
    for element in output.meta:
        value = output.prefix[element.value : element.end]
        if element.tag == META_LENGTH:
            rest = len(output.prefix) - element.end
            if element.vr != b"UL" or value != rest.to_bytes(4, "little"):
                yield META_LENGTH
        elif element.tag == TRANSFER_SYNTAX and element.vr != b"UI":
            yield TRANSFER_SYNTAX


def _differing(ours: _Run, theirs: _Run, depth: int = 0) -> Iterable[int]:
    """Yield the tags of elements that differ, in value or in number."""
    one, other = _by_tag(ours), _by_tag(theirs)
    for tag in one.keys() | other.keys():
        pairs = zip_longest(one.get(tag, ()), other.get(tag, ()))
        if not all(a and b and _same(a, b, ours, theirs, depth) for a, b in pairs):
            yield tag


def _by_tag(run: _Run) -> dict[int, list[Element]]:
    found: dict[int, list[Element]] = {}
    for element in run.elements:
        found.setdefault(element.tag, []).append(element)
    return found


def _same(a: Element, b: Element, ours: _Run, theirs: _Run, depth: int) -> bool:
    if ours.whole(a) == theirs.whole(b):
        return True
    if ours.plain and theirs.plain:
        return False
    if a.vr and b.vr and a.vr != b.vr:
        return False
    if (b.vr == b"SQ" or a.undefined or b.undefined) and depth < MAX_DEPTH:
        try:
            pairs = list(zip_longest(ours.items(a), theirs.items(b)))
        except SourceError:
            return False
        return all(x and y and not any(_differing(x, y, depth + 1)) for x, y in pairs)
    vr = a.vr or b.vr
    return ours.value(a, vr) == theirs.value(b, vr)


def _trailers(source: DicomFile, output: DicomFile) -> Iterable[int]:
    runs = []
    for file in (source, output):
        if file.trailer_bytes > MAX_TRAILER_BYTES:
            return [] if _digest(source) == _digest(output) else [TRAILER]
        data = b"".join(file.trailer())
        elements, _, end = walk(
            Window(BytesIO(data), len(data)), 0, len(data), implicit=file.implicit, big_endian=file.big_endian,
            last=lambda _: False,
        )  # fmt: skip
        # Zeros behind the last element are padding, and others nothing that could be told by a tag.
        if any(data[end:]):
            return [] if _digest(source) == _digest(output) else [TRAILER]
        runs.append(_Run(data, elements, 0, implicit=file.implicit, big_endian=file.big_endian))
    ours, theirs = runs
    return _differing(ours, theirs)


def _digest(file: DicomFile) -> bytes:
    digest = xxh3_128()
    for piece in file.trailer():
        digest.update(piece)
    return digest.digest()
