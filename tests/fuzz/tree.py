"""DICOM files as trees of elements that can be changed one by one and written again, without gpuenc and pydicom.

Only well-formed files are read, and only if they come back byte for byte. What is written need not be well formed: a
length, a VR or a delimiter can be anything.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from struct import pack, unpack_from

from tests.made import BIG, DEFLATED, IMPLICIT, LONG

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXELS = 0x7FE00010
LONG_VRS = {vr.encode() for vr in LONG}


class Unparsed(Exception):
    """Not a file that can be changed element by element."""


@dataclass
class Node:
    """An element, or an item, whose `vr` is then None.

    `value` is bytes, or a list: of items in a sequence and in encapsulated Pixel Data, of elements in an item.
    `length` overrides the true one; `delimited` is whether what has undefined length gets its delimiter.
    """

    tag: int
    vr: bytes | None
    value: bytes | list[Node]
    undefined: bool = False
    length: int | None = None
    delimited: bool = True

    @property
    def is_item(self) -> bool:
        return self.vr is None

    def copy(self) -> Node:
        value = self.value if isinstance(self.value, bytes) else [node.copy() for node in self.value]
        return Node(self.tag, self.vr, value, self.undefined, self.length, self.delimited)


@dataclass
class File:
    """A file: `start` is preamble and ``DICM``, `end` whatever follows the data set, `cut` its size if it is cut off.

    `edits` are made in the bytes in the end: (position as a fraction, bytes to remove, bytes to put there).
    """

    start: bytes
    meta: list[Node]
    elements: list[Node]
    implicit: bool = False
    big: bool = False
    deflated: bool = False
    end: bytes = b""
    edits: list[tuple[float, int, bytes]] = field(default_factory=list)

    def bytes(self) -> bytes:
        """Return the file."""
        body = b"".join(encoded(node, self.implicit, self.big) for node in self.elements)
        if self.deflated:
            squeeze = zlib.compressobj(wbits=-15)
            body = squeeze.compress(body) + squeeze.flush()
            body += b"\0" * (len(body) % 2)
        data = self.start + b"".join(encoded(node, False, False) for node in self.meta) + body + self.end
        for place, remove, put in self.edits:
            at = int(len(data) * place)
            data = data[:at] + put + data[at + remove :]
        return data

    def all(self) -> list[Node]:
        """Return every element and item of the data set, nested ones too."""
        return [node for element in self.elements for node in _flat(element)]

    def find(self, tag: int) -> Node | None:
        """Return the element at the top level."""
        return next((node for node in self.elements if node.tag == tag), None)

    def put(self, node: Node) -> None:
        """Put an element in its place at the top level; one with its tag is replaced."""
        self.elements = [other for other in self.elements if other.tag != node.tag]
        at = next((at for at, other in enumerate(self.elements) if other.tag > node.tag), len(self.elements))
        self.elements.insert(at, node)

    @property
    def syntax(self) -> str:
        """Transfer Syntax UID."""
        node = next((node for node in self.meta if node.tag == 0x00020010), None)
        return node.value.decode("latin-1").strip(" \0") if node and isinstance(node.value, bytes) else ""

    @property
    def fragments(self) -> list[Node]:
        """The items of Pixel Data, the offset table first; none in native files."""
        pixels = self.find(PIXELS)
        return pixels.value if pixels is not None and isinstance(pixels.value, list) else []


def _flat(node: Node) -> list[Node]:
    if isinstance(node.value, bytes):
        return [node]
    return [node, *(inner for each in node.value for inner in _flat(each))]


def encoded(node: Node, implicit: bool, big: bool) -> bytes:
    """Return an element or item as bytes."""
    order = ">" if big else "<"
    if isinstance(node.value, bytes):
        value = node.value
    else:
        value = b"".join(encoded(each, implicit, big) for each in node.value)
    end = b""
    if node.undefined and node.delimited:
        end = pack(f"{order}HHI", 0xFFFE, (ITEM_END if node.is_item else SEQUENCE_END) & 0xFFFF, 0)
    length = node.length if node.length is not None else UNDEFINED if node.undefined else len(value)
    length &= UNDEFINED
    tag = pack(f"{order}HH", node.tag >> 16, node.tag & 0xFFFF)
    if node.is_item or implicit or not node.vr:
        return tag + pack(f"{order}I", length) + value + end
    if node.vr in LONG_VRS:
        return tag + node.vr + b"\0\0" + pack(f"{order}I", length) + value + end
    return tag + node.vr + pack(f"{order}H", length & 0xFFFF) + value + end


def parsed(data: bytes) -> File:
    """Return a well-formed file as a tree.

    Raises
    ------
    Unparsed
        It is not one, or the tree does not give its bytes back.
    """
    try:
        file = _parsed(data)
    except (ValueError, IndexError, zlib.error, OverflowError) as error:
        raise Unparsed(str(error)) from None
    except Exception as error:
        if type(error).__name__ == "error":  # struct.error has no better name
            raise Unparsed(str(error)) from None
        raise
    if file.bytes() != data and not file.deflated:
        raise Unparsed("the tree does not give the file back")
    return file


def _parsed(data: bytes) -> File:
    if data[128:132] != b"DICM":
        raise Unparsed("no prefix")
    at, meta = 132, []
    while at < len(data) and data[at : at + 2] == b"\x02\x00":
        node, at = _element(data, at, len(data), False, False)
        meta.append(node)
    file = File(data[:132], meta, [])
    file.implicit, file.big, file.deflated = file.syntax == IMPLICIT, file.syntax == BIG, file.syntax == DEFLATED
    if file.deflated:
        data, at = zlib.decompressobj(-15).decompress(data[at:]), 0
    while at < len(data):
        node, at = _element(data, at, len(data), file.implicit, file.big)
        file.elements.append(node)
    return file


def _element(data: bytes, at: int, stop: int, implicit: bool, big: bool) -> tuple[Node, int]:
    order = ">" if big else "<"
    group, number = unpack_from(f"{order}HH", data, at)
    tag = group << 16 | number
    vr = b"" if implicit else data[at + 4 : at + 6]
    if implicit:
        (length,), value = unpack_from(f"{order}I", data, at + 4), at + 8
    elif vr in LONG_VRS:
        (length,), value = unpack_from(f"{order}I", data, at + 8), at + 12
    else:
        if not (vr.isalpha() and vr.isupper()):
            raise Unparsed(f"VR {vr!r}")
        (length,), value = unpack_from(f"{order}H", data, at + 6), at + 8
    undefined = length == UNDEFINED
    end = stop if undefined else value + length
    if end > stop:
        raise Unparsed("an element is cut off")
    if undefined or vr == b"SQ" or (implicit and data[value : value + 4] == pack(f"{order}HH", 0xFFFE, 0xE000)):
        items, end = _items(data, value, end, implicit, big, undefined, tag == PIXELS)
        return Node(tag, vr, items, undefined), end
    return Node(tag, vr, data[value:end]), end


def _items(
    data: bytes, at: int, stop: int, implicit: bool, big: bool, undefined: bool, fragments: bool
) -> tuple[list[Node], int]:
    order, items = ">" if big else "<", []
    while at < stop:
        group, number, length = unpack_from(f"{order}HHI", data, at)
        tag, at = group << 16 | number, at + 8
        if tag == SEQUENCE_END and undefined:
            return items, at
        if tag != ITEM:
            raise Unparsed("no item")
        if length == UNDEFINED:
            inner, at = _inner(data, at, stop, implicit, big)
            items.append(Node(ITEM, None, inner, True))
            continue
        if at + length > stop:
            raise Unparsed("an item is cut off")
        value: bytes | list[Node] = data[at : at + length]
        if not fragments:
            value, position = [], at
            while position < at + length:
                node, position = _element(data, position, at + length, implicit, big)
                value.append(node)
        items.append(Node(ITEM, None, value))
        at += length
    if undefined:
        raise Unparsed("no delimiter")
    return items, at


def _inner(data: bytes, at: int, stop: int, implicit: bool, big: bool) -> tuple[list[Node], int]:
    found, end = [], pack(">HH" if big else "<HH", 0xFFFE, 0xE00D)
    while data[at : at + 4] != end:
        node, at = _element(data, at, stop, implicit, big)
        found.append(node)
    return found, at + 8
