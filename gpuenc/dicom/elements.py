"""Where each element of a data set lies in its bytes (PS3.5 section 7), without reading the values.

A header is only ever copied in pieces, so positions are all that is needed; values are converted by pydicom, and
only those that are asked for. Reads go through one small window, so memory depends neither on the file nor on what
its length fields claim.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Container

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = 0xFFFE  # their group; other readers end a data set where one of them stands in it
PIXEL_DATA = 0x7FE00010
# Float Pixel Data, Double Float Pixel Data, Pixel Data (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25).
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})

# PS3.5 7.1.2: VRs whose length field has 16 bits, and those with two reserved bytes and 32 bits.
SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)  # fmt: skip
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
# More than any object of the standard nests, and few enough for a recursive reader.
MAX_DEPTH = 48
# Of one data set or item; zeros that a file is filled with look like elements of eight bytes.
MAX_ELEMENTS = 1 << 18

_WINDOW_BYTES = 1 << 15
_EXPLICIT = {False: Struct("<HH2sH").unpack_from, True: Struct(">HH2sH").unpack_from}
_IMPLICIT = {False: Struct("<HHI").unpack_from, True: Struct(">HHI").unpack_from}
_LENGTH = {False: Struct("<I").unpack_from, True: Struct(">I").unpack_from}


class RandomAccess(Protocol):
    """A binary file or buffer that can be read anywhere."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to `offset`."""

    def read(self, size: int = -1, /) -> bytes | None:
        """Return up to `size` bytes."""


class Element(NamedTuple):
    """One element by position, in bytes from the beginning of the file.

    Parameters
    ----------
    tag : int
        Group and element number, as ``0xGGGGEEEE``.
    vr : bytes
        Two letters, or empty where the element has no VR of its own.
    start, value, end : int
        Of its tag; of its value; behind its value and, for undefined length, behind its delimiter.
    undefined : bool
        Its length is undefined.
    """

    tag: int
    vr: bytes
    start: int
    value: int
    end: int
    undefined: bool


class Window:
    """A file of `size` bytes, seen through the part of it that was read last."""

    def __init__(self, file: RandomAccess, size: int) -> None:
        self.size = size
        self.base = 0
        self.bytes = b""
        self._file = file

    def load(self, at: int) -> None:
        """Read the window at `at`."""
        self.bytes = self._from_file(at, _WINDOW_BYTES)
        self.base = at

    def load_all(self) -> bytes:
        """Read the whole file as the window; return it."""
        self.bytes = self._from_file(0, self.size)
        self.base = 0
        return self.bytes

    def read(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at`, fewer only at the end of the file."""
        inside = at - self.base
        if inside >= 0 and inside + count <= len(self.bytes):
            return self.bytes[inside : inside + count]
        return self._from_file(at, count)

    def _from_file(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        count = max(0, min(count, self.size - at))
        read = self._file.read(count) or b""
        while len(read) < count and (more := self._file.read(count - len(read))):
            read += more
        return read


def name(tag: int) -> str:
    """Return ``(gggg,eeee)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def walk(
    window: Window,
    at: int,
    stop: int,
    *,
    implicit: bool = False,
    big_endian: bool = False,
    last: Callable[[int], bool] = PIXEL_TAGS.__contains__,
    last_from: int = min(PIXEL_TAGS),
    groups: Container[int] | None = None,
) -> tuple[list[Element], Element | None, int]:
    """Return the elements from `at`, the element at which reading ended, and where that one begins.

    Parameters
    ----------
    window : Window
        The file.
    at, stop : int
        First byte, and the byte behind the last.
    implicit, big_endian : bool
        Encoding of the data set (PS3.5 annex A). Explicit elements without a valid VR are read as implicit ones,
        as every toolkit does.
    last : callable
        Tags that end reading; asked only for tags from `last_from` on. By default the pixel elements. The
        element itself is returned without looking at its value.
    groups : container of int, optional
        Only elements of these groups are returned; all are read. By default of any.

    Raises
    ------
    SourceError
        ``truncated``: an element reaches beyond `stop`. ``corrupt-header``: items or delimiters are not where they
        have to be, or there are more than `MAX_ELEMENTS`.
    """
    found: list[Element] = []
    ended, at = _walk(window, at, stop, implicit, big_endian, last, last_from, found, 0, groups)
    return found, ended, at


def _walk(
    window: Window,
    at: int,
    stop: int,
    implicit: bool,
    big_endian: bool,
    last: Callable[[int], bool],
    last_from: int,
    into: list[Element],
    depth: int,
    groups: Container[int] | None = None,
) -> tuple[Element | None, int]:
    explicit_header, implicit_header, long_length = _EXPLICIT[big_endian], _IMPLICIT[big_endian], _LENGTH[big_endian]
    count = 0
    while at + 8 <= stop:
        offset = at - window.base
        if offset < 0 or offset + 12 > len(window.bytes):
            window.load(at)
            offset = 0
            if len(window.bytes) < 8:
                break
        if not implicit and last_from:
            behind, count = _ordinary(window, at, stop, big_endian, last_from >> 16, into, count, groups)
            if behind != at:
                at = behind
                continue
        seen = window.bytes
        value, vr = at + 8, b""
        if not implicit:
            group, number, vr, length = explicit_header(seen, offset)
            if vr in LONG_VRS:
                if offset + 12 > len(seen):
                    raise SourceError(f"the file ends inside element {name(group << 16 | number)}", code="truncated")
                (length,) = long_length(seen, offset + 8)
                value = at + 12
            elif vr not in SHORT_VRS and not (vr.isalpha() and vr.isupper()):
                vr = b""
        if not vr:
            group, number, length = implicit_header(seen, offset)
        tag = group << 16 | number
        undefined = length == UNDEFINED
        if tag >= last_from and last(tag):
            end = value if undefined else value + length
            return Element(tag, vr, at, value, end, undefined), at
        if group == _DELIMITERS:
            raise SourceError(f"{name(tag)} is found outside of any sequence", code="corrupt-header")
        end = _end_of_items(window, value, stop, not vr, big_endian, depth) if undefined else value + length
        if end > stop:
            raise SourceError(f"the file ends inside element {name(tag)}", code="truncated")
        if count == MAX_ELEMENTS:
            raise SourceError(f"there are more than {MAX_ELEMENTS} elements", code="corrupt-header")
        count += 1
        if groups is None or group in groups:
            # Element(…) takes three times as long.
            into.append(tuple.__new__(Element, (tag, vr, at, value, end, undefined)))
        at = end
    return None, at


def _ordinary(
    window: Window,
    at: int,
    stop: int,
    big_endian: bool,
    last_group: int,
    into: list[Element],
    count: int,
    groups: Container[int] | None,
) -> tuple[int, int]:
    """Pass over elements as nearly all are: with a VR of PS3.5 and a length, whole, and below `last_group`.

    Returns
    -------
    (int, int)
        Where the first is that is something else or reaches out of the window, and `count` with those before it.
    """
    header, long_length, new = _EXPLICIT[big_endian], _LENGTH[big_endian], tuple.__new__
    seen, base = window.bytes, window.base
    most = base + len(seen) - 12
    for here in range(count, MAX_ELEMENTS):
        if at > most:
            return at, here
        group, number, vr, length = header(seen, at - base)
        if vr in SHORT_VRS:
            value = at + 8
        elif vr in LONG_VRS:
            (length,) = long_length(seen, at - base + 8)
            value = at + 12
            if length == UNDEFINED:
                return at, here
        else:
            return at, here
        end = value + length
        if end > stop or group >= last_group:
            return at, here
        if groups is None or group in groups:
            into.append(new(Element, (group << 16 | number, vr, at, value, end, False)))
        at = end
    return at, MAX_ELEMENTS


def item_header(window: Window, at: int, stop: int, *, big_endian: bool) -> tuple[int, int]:
    """Return tag and length of the item or delimiter at `at` (PS3.5 7.5).

    Raises
    ------
    SourceError
        ``truncated``.
    """
    offset = at - window.base
    if offset < 0 or offset + 8 > len(window.bytes):
        window.load(at)
        offset = 0
    if at + 8 > stop or offset + 8 > len(window.bytes):
        raise SourceError("the file ends inside a sequence", code="truncated")
    group, number, length = _IMPLICIT[big_endian](window.bytes, offset)
    return group << 16 | number, length


def item_is_implicit(window: Window, at: int) -> bool:
    """Return whether the elements of the item at `at` carry no VRs, in a data set that otherwise has them.

    Sequences of VR UN do so by PS3.5 6.2.2 note 2; some writers do it elsewhere.
    """
    vr = window.read(at + 4, 2)
    return not (vr.isalpha() and vr.isupper())


def _end_of_items(window: Window, at: int, stop: int, implicit: bool, big_endian: bool, depth: int) -> int:
    """Return the position behind the delimiter of a sequence, or of fragments, of undefined length."""
    if depth >= MAX_DEPTH:
        raise SourceError(f"sequences are nested more than {MAX_DEPTH} deep", code="corrupt-header")
    while True:
        tag, length = item_header(window, at, stop, big_endian=big_endian)
        at += 8
        if tag == SEQUENCE_END:
            return at
        if tag != ITEM:
            raise SourceError(f"an item was expected and {name(tag)} was found", code="corrupt-header")
        if length == UNDEFINED:
            no_vrs = implicit or item_is_implicit(window, at)
            ended, at = _walk(window, at, stop, no_vrs, big_endian, ITEM_END.__eq__, ITEM_END, [], depth + 1, ())
            if ended is None:
                raise SourceError("the file ends inside a sequence", code="truncated")
            at += 8
        else:
            at += length
        if at > stop:
            raise SourceError("the file ends inside a sequence", code="truncated")
