"""Changes in files, and mutants: each is told by its campaign's seed and its number alone."""

from __future__ import annotations

import random
from copy import copy
from dataclasses import dataclass
from struct import pack
from typing import TYPE_CHECKING

from tests.fuzz import codestreams, seeds
from tests.fuzz.tree import ITEM, ITEM_END, PIXELS, SEQUENCE_END, UNDEFINED, File, Node
from tests.made import BIG, DEFLATED, EXPLICIT, IMPLICIT

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_MUTATIONS = 5
VRS = (
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"OB", b"OF", b"OW", b"PN",
    b"SH", b"SL", b"SQ", b"SS", b"ST", b"TM", b"UI", b"UL", b"UN", b"US", b"UT",
)  # fmt: skip
SYNTAXES = (IMPLICIT, EXPLICIT, BIG, DEFLATED, *(seeds.ROOT + suffix for suffix in seeds.CODECS), "1.2.3", "")
LENGTHS = (0, 1, 2, 3, 7, 255, 65534, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
TAGS = (
    0x00020010, 0x00080005, 0x00080018, 0x00280002, 0x00280008, 0x00280010, 0x00280100, 0x00090010, 0x60000102,
    0x60003000, 0x7FDF0010, 0x7FE00000, 0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, PIXELS, 0x7FE10010,
    0xFFFCFFFC, ITEM, ITEM_END, SEQUENCE_END, 0, 0xFFFFFFFF,
)  # fmt: skip
# Of each Image Pixel attribute, values that matter.
NUMBERS = {
    0x00280002: (0, 1, 2, 3, 4, 255, 65535),
    0x00280006: (0, 1, 2),
    0x00280010: (0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 16, 64, 1000, 65535),
    0x00280011: (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 64, 1000, 65535),
    0x00280100: (0, 1, 7, 8, 12, 16, 24, 32, 64),
    0x00280101: (0, 1, 2, 7, 8, 10, 11, 12, 13, 15, 16, 17, 24, 32, 33),
    0x00280102: (0, 1, 7, 8, 11, 12, 15, 16, 31, 65535),
    0x00280103: (0, 1, 2),
}
FRAMES = ("0", "1", "2", "3", "4", "-1", "+2", " 2 ", "2\\3", "2.0", "1e1", "1000000", "2147483648", "", "x", "00002")
COLOURS = (
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT",
    "YBR_PARTIAL_420", "ARGB", "HSV", "CMYK", "XYB", "monochrome2", "RGB\\RGB", "",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One damaged file: its bytes, the seed it was made from, and what was done, in order."""

    data: bytes
    source: str
    steps: tuple[str, ...]


def _elements(file: File, rng: random.Random) -> Node:
    """Return any element, those that describe pixels more often."""
    important = [node for node in file.elements if node.tag >> 16 in (0x0028, 0x7FE0, 0x6000)]
    return rng.choice(important if important and rng.random() < 0.4 else file.all())


# Structure.


def length(file: File, rng: random.Random) -> None:
    node = _elements(file, rng)
    true = len(node.value) if isinstance(node.value, bytes) else 8
    node.length = rng.choice((true + 1, true - 1, true + 2, true - 2, true * 2, true + 8, *LENGTHS)) & UNDEFINED


def vr(file: File, rng: random.Random) -> None:
    node = _elements(file, rng)
    if node.vr:
        node.vr = rng.choice((*VRS, b"ob", b"  ", b"\0\0", b"ZZ", b"O\xff", rng.randbytes(2)))


def tag(file: File, rng: random.Random) -> None:
    node = _elements(file, rng)
    node.tag = rng.choice((*TAGS, node.tag + 1, node.tag ^ 0x10000, rng.getrandbits(32))) & 0xFFFFFFFF


def swap(file: File, rng: random.Random) -> None:
    if len(file.elements) > 1:
        a, b = rng.sample(range(len(file.elements)), 2)
        file.elements[a], file.elements[b] = file.elements[b], file.elements[a]


def move(file: File, rng: random.Random) -> None:
    """Put an element elsewhere: to the end, behind Pixel Data, as well."""
    node = file.elements.pop(rng.randrange(len(file.elements)))
    file.elements.insert(rng.choice((0, len(file.elements), rng.randrange(len(file.elements) + 1))), node)


def duplicate(file: File, rng: random.Random) -> None:
    node = _elements(file, rng).copy()
    if node.is_item:
        return
    if isinstance(node.value, bytes) and node.value and rng.random() < 0.5:
        value = bytearray(node.value)
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        node.value = bytes(value)
    file.elements.insert(rng.randrange(len(file.elements) + 1), node)


def delete(file: File, rng: random.Random) -> None:
    del file.elements[rng.randrange(len(file.elements))]


def empty(file: File, rng: random.Random) -> None:
    node = _elements(file, rng)
    node.value = b"" if isinstance(node.value, bytes) else []


def value(file: File, rng: random.Random) -> None:
    node = _elements(file, rng)
    if isinstance(node.value, bytes) and node.value:
        old, at = node.value, rng.randrange(len(node.value))
        node.value = rng.choice((
            old[:at], old + rng.randbytes(rng.choice((1, 2, 8))), rng.randbytes(len(old)),
            old[:at] + bytes((rng.randrange(256),)) + old[at + 1 :], old * 2,
        ))  # fmt: skip


def undefined(file: File, rng: random.Random) -> None:
    """Undefined length where it was defined, and the other way."""
    lists = [node for node in file.all() if not isinstance(node.value, bytes)]
    node = rng.choice(lists) if lists and rng.random() < 0.8 else _elements(file, rng)
    node.undefined = not node.undefined


def delimiter(file: File, rng: random.Random) -> None:
    """Leave a delimiter out, or put one where it does not belong."""
    lists = [node for node in file.all() if node.undefined]
    if lists and rng.random() < 0.6:
        rng.choice(lists).delimited = False
        return
    stray = Node(rng.choice((ITEM_END, SEQUENCE_END, ITEM)), None, b"")
    inside = [node.value for node in file.all() if isinstance(node.value, list)]
    where = rng.choice([file.elements, *inside])
    where.insert(rng.randrange(len(where) + 1), stray)


def nest(file: File, rng: random.Random) -> None:
    """Wrap an element into sequences."""
    node = _elements(file, rng).copy()
    if node.is_item:
        return
    deep = len(node.value) == 1 and node.tag == 0x00081140
    for _ in range(1 if deep else rng.choice((1, 1, 2, 5, 47, 48, 60, 90))):
        item = Node(ITEM, None, [node], rng.random() < 0.5)
        # UN of a big-endian data set keeps its bytes, which are then read in another order.
        vr = b"" if file.implicit else b"SQ" if file.big else rng.choice((b"SQ", b"SQ", b"UN"))
        node = Node(0x00081140, vr, [item], rng.random() < 0.5)
    node.tag = rng.choice((0x00081140, 0x00880200, 0x00091010))
    file.put(node)


def group_length(file: File, rng: random.Random) -> None:
    group = rng.choice((0x0002, 0x0008, 0x0010, 0x0028, 0x7FE0))
    node = Node(group << 16, b"" if file.implicit else b"UL", pack("<I", rng.choice((0, 4, 100, 0xFFFFFFFF))))
    file.put(node)


def private(file: File, rng: random.Random) -> None:
    tag = rng.choice((0x0009, 0x0029, 0x7FE1, 0x0001, 0x6001)) << 16 | rng.choice((0x10, 0x1001, 0x0102))
    vr = b"" if file.implicit else rng.choice((b"LO", b"UN", b"OB", b"SQ", b"US"))
    delimiters = b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    file.put(Node(tag, vr, rng.choice((b"", b"VENDOR", rng.randbytes(20), *delimiters))))


# File Meta Information.


def syntax(file: File, rng: random.Random) -> None:
    text = rng.choice(SYNTAXES).encode()
    for node in file.meta:
        if node.tag == 0x00020010:
            node.value = text + b"\0" * (len(text) % 2)


def preamble(file: File, rng: random.Random) -> None:
    file.start = rng.choice(
        (b"", b"\0" * 128, rng.randbytes(128) + b"DICM", b"\0" * 128 + b"DICX", b"DICM", b"II*\0" * 33)
    )
    if rng.random() < 0.3:
        file.meta = []


def meta(file: File, rng: random.Random) -> None:
    if not file.meta:
        return
    node, what = rng.choice(file.meta), rng.randrange(6)
    if what == 0:
        file.meta.remove(node)
    elif what == 1:
        node.length = rng.choice(LENGTHS)
    elif what == 2:
        node.vr = rng.choice(VRS)
    elif what == 3:
        rng.shuffle(file.meta)
    elif what == 4:
        text = rng.choice(SYNTAXES).encode()
        file.meta.append(Node(0x00020010, b"UI", text + b"\0" * (len(text) % 2)))
    else:
        node.value = b"" if rng.random() < 0.3 else rng.randbytes(rng.choice((1, 4, 30)))


# What describes pixels.


def attribute(file: File, rng: random.Random) -> None:
    tag = rng.choice(tuple(NUMBERS))
    order = "big" if file.big else "little"
    node = Node(tag, b"" if file.implicit else b"US", rng.choice(NUMBERS[tag]).to_bytes(2, order))
    if rng.random() < 0.15:
        node.vr, node.value = b"" if file.implicit else rng.choice((b"UL", b"IS", b"SS", b"OB", b"UN")), rng.choice(
            (node.value * 2, node.value + b"\0\0", b"8 ", node.value[:1], b"")
        )  # fmt: skip
    file.put(node)


def near(file: File, rng: random.Random) -> None:
    """One more or one less of what is there."""
    node = file.find(rng.choice(tuple(NUMBERS)))
    if node is not None and isinstance(node.value, bytes) and len(node.value) == 2:
        order = "big" if file.big else "little"
        number = int.from_bytes(node.value, order) + rng.choice((-1, 1))
        node.value = (number & 0xFFFF).to_bytes(2, order)


def frames(file: File, rng: random.Random) -> None:
    text = rng.choice(FRAMES).encode()
    file.put(Node(0x00280008, b"" if file.implicit else b"IS", text + b" " * (len(text) % 2)))


def colour(file: File, rng: random.Random) -> None:
    text = rng.choice(COLOURS).encode()
    file.put(Node(0x00280004, b"" if file.implicit else b"CS", text + b" " * (len(text) % 2)))


def turned(file: File, rng: random.Random) -> None:
    """Rows for columns, planes for pixels, signed for unsigned: as many bytes as before."""
    rows, columns = file.find(0x00280010), file.find(0x00280011)
    if rng.random() < 0.4 and rows is not None and columns is not None:
        rows.value, columns.value = columns.value, rows.value
        return
    node = file.find(rng.choice((0x00280006, 0x00280103)))
    if node is not None and isinstance(node.value, bytes):
        node.value = bytes(each ^ 1 if at == (1 if file.big else 0) else each for at, each in enumerate(node.value))


def overlay(file: File, rng: random.Random) -> None:
    base = rng.choice((0x60000000, 0x60020000, 0x601E0000))
    order = "big" if file.big else "little"
    for number, bit in ((0x0100, 16), (0x0102, rng.choice((0, 1, 7, 8, 11, 12, 13, 15, 16, 40000)))):
        file.put(Node(base | number, b"" if file.implicit else b"US", bit.to_bytes(2, order)))
    if rng.random() < 0.2:
        file.put(Node(base | 0x3000, b"" if file.implicit else b"OW", rng.randbytes(6)))


def palette(file: File, rng: random.Random) -> None:
    node = file.find(rng.choice((0x00281101, 0x00281102, 0x00281103, 0x00281201, 0x00281202, 0x00281203)))
    if node is None or not isinstance(node.value, bytes):
        node = Node(0x00281101, b"" if file.implicit else b"US", b"\0\1\0\0\x10\0")
        file.put(node)
    what = rng.randrange(3)
    if what == 0:
        node.value = node.value[: rng.randrange(len(node.value) + 1)]
    elif what == 1:
        node.value = rng.randbytes(len(node.value))
    else:
        entries, first, bits = rng.choice((0, 1, 255, 256, 65535)), rng.choice((0, 1, 65535)), rng.choice((8, 16, 9))
        node.value = pack("<HHH", entries, first, bits)


# Pixel Data.


def pixel_element(file: File, rng: random.Random) -> None:
    node = file.find(PIXELS)
    if node is None:
        return
    what = rng.randrange(6)
    if what == 0:
        node.vr = rng.choice((b"OB", b"OW", b"UN", b"OF", b"SQ", b"US", b"ZZ")) if node.vr else node.vr
    elif what == 1:
        node.tag = rng.choice((0x7FE00008, 0x7FE00009, 0x7FE00011, 0x7FE00010))
    elif what == 2:
        node.undefined, node.delimited = not node.undefined, rng.random() < 0.5
    elif isinstance(node.value, bytes):
        old, count = node.value, rng.choice((1, 2, 3, 7, 16, 100))
        node.value = rng.choice((old[:-count], old + bytes(count), old + old, old[count:], old[: len(old) // 2], b""))
    elif what == 3:
        file.elements.insert(file.elements.index(node), node.copy())
    else:
        node.length = rng.choice((0, 8, 100, 0xFFFFFFFE))


def offset_table(file: File, rng: random.Random) -> None:
    """Change the Basic Offset Table, or put one where there was none."""
    items = file.fragments
    if not items or not isinstance(items[0].value, bytes):
        return
    table = [int.from_bytes(items[0].value[at : at + 4], "little") for at in range(0, len(items[0].value), 4)]
    what = rng.randrange(8)
    if what == 0 or not table:
        at, table = 0, []
        for item in items[1:]:
            table.append(at)
            at += 8 + len(item.value)
        if rng.random() < 0.5:
            table = table[: rng.randrange(len(table) + 1)]
    elif what == 1:
        table = []
    elif what == 2:
        at = rng.randrange(len(table))
        table[at] = rng.choice((table[at] + 1, table[at] + 2, table[at] - 2, table[at] + 8, 0, 0xFFFFFFFF)) & UNDEFINED
    elif what == 3:
        table.pop(rng.randrange(len(table)))
    elif what == 4:
        table.append(rng.choice((0, table[-1], table[-1] + 8)))
    elif what == 5:
        rng.shuffle(table)
    elif what == 6:
        table = [each + 8 for each in table]
    else:
        items.pop(0)
        return
    items[0].value = b"".join(pack("<I", each & UNDEFINED) for each in table)


def extended_table(file: File, rng: random.Random) -> None:
    """Change the Extended Offset Table, or put one there, right or wrong."""
    items = file.fragments
    if not items:
        return
    offsets, lengths, at = [], [], 0
    for item in items[1:]:
        offsets.append(at)
        lengths.append(len(item.value))
        at += 8 + len(item.value)
    if lengths and rng.random() < 0.7:
        which, place = rng.choice((offsets, lengths)), rng.randrange(len(lengths))
        which[place] += rng.choice((-2, -1, 1, 2, 8, 1 << 32, -which[place]))
        if rng.random() < 0.3:
            which.pop()
        if rng.random() < 0.3:
            rng.shuffle(which)
    for tag, table in ((0x7FE00001, offsets), (0x7FE00002, lengths)):
        file.put(Node(tag, b"OV", b"".join(pack("<Q", each & (1 << 64) - 1) for each in table)))
    if rng.random() < 0.7 and isinstance(items[0].value, bytes):
        items[0].value = b""


def fragments(file: File, rng: random.Random) -> None:
    """Split, join, drop, double, swap or empty fragments, or change their items."""
    items = file.fragments
    if len(items) < 2:
        return
    at = rng.randrange(1, len(items))
    item, what = items[at], rng.randrange(9)
    if not isinstance(item.value, bytes):
        return
    if what == 0:
        cut = rng.randrange(len(item.value) + 1)
        cut -= cut % 2 if rng.random() < 0.7 else 0
        items[at : at + 1] = [Node(ITEM, None, item.value[:cut]), Node(ITEM, None, item.value[cut:])]
    elif what == 1 and at + 1 < len(items) and isinstance(items[at + 1].value, bytes):
        items[at : at + 2] = [Node(ITEM, None, item.value + items[at + 1].value)]
    elif what == 2:
        items.pop(at)
    elif what == 3:
        items.insert(at, item.copy())
    elif what == 4:
        other = rng.randrange(1, len(items))
        items[at], items[other] = items[other], items[at]
    elif what == 5:
        items.insert(at, Node(ITEM, None, b""))
    elif what == 6:
        item.tag = rng.choice((ITEM_END, SEQUENCE_END, 0x00080005, 0xE000FFFE))
    elif what == 7:
        item.length = rng.choice((len(item.value) + 1, len(item.value) - 1, len(item.value) + 8, *LENGTHS)) & UNDEFINED
    else:
        item.value = item.value[:-1] if rng.random() < 0.5 else item.value + b"\0"


def codestream(file: File, rng: random.Random) -> str:
    """Change one codestream; one that was cut into fragments, in one of them."""
    items = [item for item in file.fragments[1:] if isinstance(item.value, bytes) and item.value]
    if not items:
        return cells(file, rng)
    item = rng.choice(items)
    data = item.value
    # What pads it is no part of it.
    change = rng.choice(codestreams.changes(data))
    changed = change(data, rng)
    if len(changed) % 2 and rng.random() < 0.95:
        changed += b"\0"
    item.value = changed
    return f"codestream {change.__name__}"


def cells(file: File, rng: random.Random) -> str:
    """Change some native cells."""
    node = file.find(PIXELS)
    if node is not None and isinstance(node.value, bytes) and node.value:
        changed = bytearray(node.value)
        for _ in range(rng.choice((1, 5))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        node.value = bytes(changed)
    return "cells"


# Bytes.


def end(file: File, rng: random.Random) -> None:
    """Something behind the data set."""
    stray = encoded_element(0x00280010, b"US", b"\x02\0"), encoded_element(0xFFFCFFFC, b"OB", b"\0" * 6)
    file.end += rng.choice((b"\0", b"\0" * 7, b"\0" * 300, b"rubbish", rng.randbytes(40), b"\xff" * 9, *stray))


def truncate(file: File, rng: random.Random) -> None:
    file.edits.append((rng.random() if rng.random() < 0.7 else 1 - rng.random() / 20, 1 << 40, b""))


def flip(file: File, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 10))):
        file.edits.append((rng.random() * rng.choice((1, 0.2)), 1, rng.randbytes(1)))


def zeros(file: File, rng: random.Random) -> None:
    """A block that was never written to."""
    count = rng.choice((16, 512, 4096))
    file.edits.append((rng.random(), count, bytes(count)))


def shift(file: File, rng: random.Random) -> None:
    """Bytes lost or doubled on the way."""
    count = rng.choice((1, 2, 4, 512))
    file.edits.append((rng.random(), *rng.choice(((count, b""), (0, rng.randbytes(count)), (0, b"\r")))))


def encoded_element(tag: int, vr: bytes, content: bytes) -> bytes:
    head = pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (b"\0\0" + pack("<I", len(content)) if vr in (b"OB", b"OW") else pack("<H", len(content))) + content


STRUCTURE = (
    length, vr, tag, swap, move, duplicate, delete, empty, value, undefined, delimiter, nest, group_length, private,
)  # fmt: skip
META = (syntax, preamble, meta)
DESCRIPTION = (attribute, attribute, near, near, frames, colour, turned, overlay, palette)
PIXEL_DATA = (pixel_element, offset_table, extended_table, fragments, fragments)
BYTES = (end, truncate, flip, zeros, shift)
KINDS: tuple[tuple[int, tuple[Callable[[File, random.Random], str | None], ...]], ...] = (
    (5, STRUCTURE), (1, META), (6, DESCRIPTION), (4, PIXEL_DATA), (7, (codestream,)), (3, BYTES),
)  # fmt: skip


def mutant(seed: int, index: int) -> Mutant:
    """Return mutant `index` of the campaign `seed`."""
    rng = random.Random(f"{seed}:{index}")
    names = tuple(seeds.trees())
    name = rng.choice(names)
    tree, steps = seeds.trees()[name], []
    if tree is None:
        file, kinds = File(seeds.every()[name], [], []), ((1, BYTES),)
    else:
        file, kinds = _copy(tree), KINDS
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4, MOST_MUTATIONS))):
        change = rng.choice(rng.choices([each for _, each in kinds], [weight for weight, _ in kinds])[0])
        if not file.elements and change not in BYTES:
            continue
        steps.append(change(file, rng) or change.__name__)
    return Mutant(file.bytes(), name, tuple(steps))


def _copy(tree: File) -> File:
    file = copy(tree)
    file.meta = [node.copy() for node in tree.meta]
    file.elements = [node.copy() for node in tree.elements]
    file.edits = []
    return file
