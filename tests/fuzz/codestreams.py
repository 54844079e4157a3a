"""Changes in codestreams: marker segments and their fields, entropy-coded data, ends; all without gpuenc."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 38, 63, 64, 127, 128, 129, 255)
WORDS = (0, 1, 2, 7, 8, 9, 10, 11, 12, 14, 16, 64, 255, 256, 1024, 32767, 32768, 65534, 65535)
LONGS = (0, 1, 2, 8, 9, 14, 255, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1)
MARKERS = (b"\xff\xd8", b"\xff\xd9", b"\xff\xda\0\x08\1\1\0\0\x3f\0", b"\xff\xd0", b"\xff\xdd\0\4\0\1", b"\xff\xff")
APPLICATIONS = (
    b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
    b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0",
    b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1",
    b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\2",
    b"\xff\xe8\0\7mrfx\1",
    b"\xff\xfe\0\4ab",
    b"\xff\xdd\0\4\0\5",
)
J2K_SEGMENTS = (
    b"\xff\x64\0\6\0\1ab",  # COM
    b"\xff\x5f\0\x09\0\0\0\1\2\1\2",  # POC
    b"\xff\x60\0\7\0\0\0\0\2",  # PPM
    b"\xff\x5e\0\5\0\0\3",  # RGN
    b"\xff\x53\0\x09\0\0\1\4\4\0\1",  # COC
    b"\xff\x5d\0\5\0\x20\x40",  # QCC
    b"\xff\x50\0\x08\0\2\0\0\0\0",  # CAP
    b"\xff\x55\0\x08\0\x60\0\0\0\0",  # TLM
)
CUTS = (1, 2, 3, 4, 7, 16, 64, 300)


def segments(data: bytes, *, main: bool = False) -> list[tuple[int, int, int]]:
    """Return (marker, where its length field is, where it ends) of the marker segments up to the first scan.

    With `main`, of a JPEG 2000 codestream up to its first SOD.
    """
    found, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        (length,) = struct.unpack_from(">H", data, at + 2)
        found.append((data[at + 1], at + 2, min(at + 2 + length, len(data))))
        if data[at + 1] == 0xDA and not main:
            break
        at += 2 + length
        if data[at : at + 2] == b"\xff\x93":
            break
    return found


def _edit(data: bytes, at: int, put: bytes, remove: int | None = None) -> bytes:
    return data[:at] + put + data[at + (len(put) if remove is None else remove) :]


def bits(data: bytes, rng: random.Random) -> bytes:
    """Flip a few bits, most of them in the second half, where the samples are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed)) if rng.random() < 0.3 else rng.randrange(len(changed) // 2, len(changed))
        changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(min(len(data), rng.choice((16, 64, 200, 1 << 30))))
    return _edit(data, at, bytes((rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))),)))


def cut(data: bytes, rng: random.Random) -> bytes:
    """End early, with or without the end marker."""
    at = rng.randrange(len(data))
    return data[:at] + (b"\xff\xd9" if rng.random() < 0.4 else b"")


def hole(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return _edit(data, at, b"", rng.choice(CUTS))


def double(data: bytes, rng: random.Random) -> bytes:
    at, count = rng.randrange(len(data)), rng.choice(CUTS)
    return _edit(data, at, data[at : at + count], 0)


def blank(data: bytes, rng: random.Random) -> bytes:
    at, count = rng.randrange(len(data)), rng.choice(CUTS)
    return _edit(data, at, rng.choice((b"\0", b"\xff", b"\xaa")) * min(count, len(data) - at))


def noise(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return _edit(data, at, rng.randbytes(min(rng.choice(CUTS), len(data) - at)))


def tail(data: bytes, rng: random.Random) -> bytes:
    """Something behind the end."""
    more = (b"\0", b"\0\0", b"\xff\xff", b"\0" * 40, b"\xff\xd9", b"rubbish!", data[: rng.randrange(1, 40)], data)
    return data + rng.choice(more)


def markers(data: bytes, rng: random.Random) -> bytes:
    """Put a marker anywhere."""
    return _edit(data, rng.randrange(len(data)), rng.choice(MARKERS), rng.choice((0, 2)))


def field_of_segment(data: bytes, rng: random.Random) -> bytes:
    """Change one byte or word of a marker segment."""
    found = segments(data, main=data[:2] == b"\xff\x4f")
    if not found:
        return byte(data, rng)
    _, at, end = rng.choice(found)
    if end - at < 3:
        return byte(data, rng)
    at = rng.randrange(at, min(end, at + 24))
    kind = rng.randrange(3)
    if kind == 0:
        return _edit(data, at, bytes((rng.choice(NUMBERS),)))
    if kind == 1:
        return _edit(data, at, struct.pack(">H", rng.choice(WORDS)))
    return _edit(data, at, bytes((data[at] + rng.choice((-1, 1)) & 255,)))


def segment(data: bytes, rng: random.Random) -> bytes:
    """Drop, double, move, rename or insert a marker segment."""
    found = segments(data, main=data[:2] == b"\xff\x4f")
    if not found:
        return hole(data, rng)
    marker, at, end = rng.choice(found)
    whole = data[at - 2 : end]
    what = rng.randrange(5)
    if what == 0:
        return _edit(data, at - 2, b"", len(whole))
    if what == 1:
        return _edit(data, end, whole, 0)
    if what == 2:
        _, other, _ = rng.choice(found)
        return _edit(data, other - 2, whole, 0) if other > at else _edit(data, 2, whole, 0)
    if what == 3:
        others = (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xF7, 0xC4, 0xDB, 0xDA, 0x51, 0x52, 0x5C, 0x90, marker ^ 1)
        return _edit(data, at - 1, bytes((rng.choice(others),)))
    new = rng.choice(J2K_SEGMENTS if data[:2] == b"\xff\x4f" else APPLICATIONS)
    return _edit(data, at - 2 if rng.random() < 0.7 else end, new, 0)


def frame_header(data: bytes, rng: random.Random) -> bytes:
    """Change SOF (T.81 B.2.2), SOS (B.2.3) or SIZ and COD (T.800 A.5.1, A.6.1), field by field."""
    if data[:2] == b"\xff\x4f":
        return _jpeg2000(data, rng)
    found = [(marker, at) for marker, at, _ in segments(data) if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8)]
    found += [(marker, at) for marker, at, _ in segments(data) if marker in (0xF7, 0xDA, 0xF8)]
    if not found:
        return byte(data, rng)
    marker, at = rng.choice(found)
    if marker == 0xDA:
        count = data[at + 2]
        end = at + 3 + 2 * count
        place = rng.choice((at + 2, at + 3, at + 4, end, end + 1, end + 2))
        return _edit(data, place, bytes((rng.choice(NUMBERS),)))
    what = rng.randrange(6)
    if what == 0:
        return _edit(data, at + 2, bytes((rng.choice(NUMBERS),)))
    if what in (1, 2):
        old = struct.unpack_from(">H", data, at + 1 + 2 * what)[0]
        new = rng.choice((old + 1, old - 1, old * 2, old // 2, *WORDS)) & 0xFFFF
        return _edit(data, at + 1 + 2 * what, struct.pack(">H", new))
    if what == 3:
        return _edit(data, at + 7, bytes((rng.choice((0, 1, 2, 3, 4, 255)),)))
    place = at + 8 + rng.randrange(max(1, 3 * data[at + 7]))
    return _edit(data, place, bytes((rng.choice((0, 1, 2, 3, 0x11, 0x12, 0x21, 0x22, 0x41, 0x44, 0xFF, 82, 71, 66)),)))


def _jpeg2000(data: bytes, rng: random.Random) -> bytes:
    what = rng.randrange(8)
    if what < 3:  # sizes, offsets, tiles
        at = 8 + 4 * rng.randrange(8)
        if at + 4 > len(data):
            return byte(data, rng)
        (old,) = struct.unpack_from(">I", data, at)
        new = rng.choice((old + 1, old - 1, old * 2, old // 2, *LONGS)) & 0xFFFFFFFF
        return _edit(data, at, struct.pack(">I", new))
    if what == 3:  # components, Ssiz, separations
        return _edit(data, rng.choice((40, 41, 42, 43, 44, 45, 46)), bytes((rng.choice((*NUMBERS, 0x87, 0x8B, 0x8F)),)))
    marker, span = rng.choice(((b"\xff\x52", 10), (b"\xff\x52", 10), (b"\xff\x5c", 8), (b"\xff\x50", 6)))
    if what == 7:
        marker, span = b"\xff\x90", 8  # SOT: Isot, Psot, TPsot, TNsot
    at = data.find(marker)
    if at < 0:
        return byte(data, rng)
    if marker == b"\xff\x90" and rng.random() < 0.5:
        return _edit(data, at + 6, struct.pack(">I", rng.choice(LONGS)))
    return _edit(data, at + 4 + rng.randrange(span), bytes((rng.choice(NUMBERS),)))


def boxes(data: bytes, rng: random.Random) -> bytes:
    """Put JPEG 2000 into JP2 boxes, or change the boxes of JPEG XL."""
    if data[:2] == b"\xff\x4f":
        lie = rng.choice((0, 0, 1, 7, 8 + len(data), 8 + len(data), 9 + len(data), 0xFFFFFFFF))
        return b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 " + struct.pack(">I", lie) + b"jp2c" + data
    if data[4:8] != b"JXL ":
        if data[:2] == b"\xff\x0a":
            return (
                b"\0\0\0\x0cJXL \r\n\x87\n"
                + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
                + struct.pack(">I", rng.choice((0, 8 + len(data), 8, 0xFFFFFFFF)))
                + rng.choice((b"jxlc", b"jxlp", b"xxxx"))
                + data
            )
        return byte(data, rng)
    starts, at = [], 0
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        starts.append(at)
        if length < 8:
            break
        at += length
    at = rng.choice(starts)
    if rng.random() < 0.5:
        return _edit(data, at, struct.pack(">I", rng.choice((*LONGS, len(data)))))
    return _edit(data, at + 4, rng.choice((b"jxlc", b"jxlp", b"jbrd", b"Exif", b"brob", b"jxll")))


def rle_header(data: bytes, rng: random.Random) -> bytes:
    """Change the number of segments or an offset (PS3.5 G.5)."""
    at = 4 * rng.randrange(rng.choice((1, 4, 16)))
    if len(data) < at + 4:
        return byte(data, rng)
    (old,) = struct.unpack_from("<I", data, at)
    new = rng.choice((old + 1, old - 1, old + 2, 0, 1, 2, 3, 15, 16, 64, 65, len(data), 0xFFFFFFFF, 0x7FFFFFFF))
    return _edit(data, at, struct.pack("<I", new & 0xFFFFFFFF))


_ANY = (bits, byte, cut, hole, double, blank, noise, tail, markers)
_MARKED = (field_of_segment, segment, frame_header, frame_header)


def changes(data: bytes) -> tuple[Callable[[bytes, random.Random], bytes], ...]:
    """Return what can be done to this codestream."""
    if len(data) < 4:
        return (tail,)
    if data[:2] == b"\xff\x4f":
        return (*_ANY, *_MARKED, boxes)
    if data[:2] == b"\xff\xd8":
        return (*_ANY, *_MARKED)
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        return (*_ANY, byte, boxes)
    return (*_ANY, rle_header)
