"""The markers of JPEG 2000 (T.800 Annex A) and HTJ2K (T.814 Annex A)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuenc.codestream.info import StreamInfo, marked_end
from gpuenc.errors import WrongCodestream

if TYPE_CHECKING:
    from gpuenc.syntaxes import Family

EOC = b"\xff\xd9"
_SOC_SIZ, _SOT_CODE, _SOD_CODE = b"\xff\x4f\xff\x51", b"\xff\x90", b"\xff\x93"
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
_SIZ, _CAP, _COD, _COC, _TLM, _QCD, _QCC, _POC, _SOT = (
    0xFF51, 0xFF50, 0xFF52, 0xFF53, 0xFF55, 0xFF5C, 0xFF5D, 0xFF5F, 0xFF90,
)  # fmt: skip
_MARKER = struct.Struct(">HH")
_SIZ_BODY = struct.Struct(">HIIIIIIIIH")
_SOT_SEGMENT = struct.Struct(">HHHIBB")
_MAIN_HEADER_ONLY = (_CAP, _TLM)
_PROGRESSIONS = ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")
_PART_15 = 0x00020000  # bit 15 of Pcap, counted from the most significant as 1 (T.814 A.3)
_HT = 0x40  # of the code-block style (T.814 A.4)
_REVERSIBLE_5_3 = 1  # T.800 table A.20
_TLM_ENTRY = struct.Struct(">HI")
_MOST_TLM_ENTRIES = (0xFFFF - 4) // _TLM_ENTRY.size
_MOST_TLM_SEGMENTS = 256


@dataclass(slots=True)
class _Header:
    """What marker segments have said so far, in the main header and in those of tile-parts."""

    size: tuple[int, ...] = ()  # SIZ up to Csiz
    components: tuple[tuple[int, int, int], ...] = ()  # Ssiz, XRsiz, YRsiz
    styles: set[tuple[int, int, int]] = field(default_factory=set)  # levels, code-block style, wavelet
    progressions: set[tuple[int, int]] = field(default_factory=set)  # progression, MCT
    quantisations: set[int] = field(default_factory=set)
    order_changes: bool = False
    cap: bool = False
    lengths: dict[int, list[tuple[int | None, int]]] = field(default_factory=dict)  # of TLM, by Ztlm
    broken_tlm: bool = False

    def take(self, marker: int, content: bytes) -> None:
        """Note one marker segment."""
        if marker == _COD:
            # Scod, progression, layers (2), MCT, levels, xcb, ycb, style, wavelet (T.800 A.6.1).
            self.progressions.add((content[1], content[4]))
            self.styles.add((content[5], content[8], content[9]))
        elif marker == _COC:
            style = content[self._index_bytes + 1 :]
            self.styles.add((style[0], style[3], style[4]))
        elif marker == _QCD:
            self.quantisations.add(content[0] & 31)
        elif marker == _QCC:
            self.quantisations.add(content[self._index_bytes] & 31)
        elif marker == _POC:
            self.order_changes = True
        elif marker == _CAP:
            self.cap = bool(int.from_bytes(content[:4]) & _PART_15)
        elif marker == _TLM:
            self._take_lengths(content)

    def take_size(self, content: bytes) -> None:
        """Note SIZ (T.800 A.5.1)."""
        if len(content) < _SIZ_BODY.size:
            raise WrongCodestream("SIZ is too short")
        self.size = _SIZ_BODY.unpack_from(content)
        body = content[_SIZ_BODY.size :]
        if not self.size[9] or len(body) != 3 * self.size[9]:
            raise WrongCodestream(f"SIZ gives {self.size[9]} components and has room for {len(body) // 3}")
        self.components = tuple(zip(body[::3], body[1::3], body[2::3], strict=True))
        _, width, height, left, top, tile_width, tile_height, tile_left, tile_top, _ = self.size
        inside = tile_left <= left < width and tile_top <= top < height  # T.800 B.2, B.3
        if not inside or not tile_width or not tile_height or any(0 in component[1:] for component in self.components):
            raise WrongCodestream("SIZ gives an empty image, an empty tile or a sample separation of 0")

    @property
    def _index_bytes(self) -> int:
        """Bytes of a component index (T.800 A.6.2)."""
        return 1 if len(self.components) < 257 else 2

    def _take_lengths(self, content: bytes) -> None:
        """Note TLM: Ztlm, Stlm, then per tile-part its tile's index (0 to 2 bytes) and its length (T.800 A.7.1)."""
        index_bytes, length_bytes = content[1] >> 4 & 3, 4 if content[1] & 0x40 else 2
        step = index_bytes + length_bytes
        if index_bytes == 3 or (len(content) - 2) % step or content[0] in self.lengths:
            self.broken_tlm = True
            return
        self.lengths[content[0]] = [
            (
                int.from_bytes(content[at : at + index_bytes]) if index_bytes else None,
                int.from_bytes(content[at + index_bytes : at + step]),
            )
            for at in range(2, len(content), step)
        ]


@dataclass(slots=True)
class _Stream:
    """A codestream walked from SOC to EOC."""

    header: _Header
    first_sot: int
    parts: list[tuple[int, int]]  # tile index and length in bytes of each tile-part
    end: int | None  # length with EOC, or None if the chain of tile-parts does not lead there


def parse(codestream: bytes, family: Family) -> StreamInfo:
    """Return what the main header, the tile-part headers and the chain of tile-part lengths say.

    Packet data is never looked at.

    Raises
    ------
    WrongCodestream
        Not a bare codestream (PS3.5 A.4.4), cut off in a header, or with a header that contradicts itself.
    """
    stream = _walk(codestream)
    header = stream.header
    if not header.styles or not header.progressions or not header.quantisations:
        raise WrongCodestream("the header lacks COD or QCD")
    depths = {component[0] for component in header.components}
    depth = depths.pop() if len(depths) == 1 else None
    (_, columns, rows, x0, y0, _, _, _, _, count), (_, dx, dy) = header.size, header.components[0]
    orders = {progression for progression, _ in header.progressions}
    transforms = {mct for _, mct in header.progressions}
    one_order = len(orders) == 1 and not header.order_changes and max(orders) < len(_PROGRESSIONS)
    return StreamInfo(
        family=family,
        ends_properly=stream.end is not None,
        length_bytes=len(codestream) if stream.end is None else stream.end,
        rows=-(-rows // dy) + (-y0 // dy),
        columns=-(-columns // dx) + (-x0 // dx),
        samples=count,
        precision=0 if depth is None else (depth & 0x7F) + 1,
        signed=None if depth is None else bool(depth & 0x80),
        # T.800 E.1: reversible paths have no quantisation.
        lossless={style[2] for style in header.styles} == {_REVERSIBLE_5_3} and header.quantisations == {0},
        subsampling=tuple((dx, dy) for _, dx, dy in header.components),
        mct=bool(transforms.pop()) if len(transforms) == 1 else None,
        levels=min(style[0] for style in header.styles),
        progression=_PROGRESSIONS[orders.pop()] if one_order else "",
        cap=header.cap,
        ht=any(style[1] & _HT for style in header.styles),
        tlm=bool(header.lengths) or header.broken_tlm,
        tlm_matches=_tlm_matches(stream),
    )


def unboxed(data: bytes) -> bytes:
    """Return the codestream of a JP2 file (T.800 Annex I); what is no JP2 file is returned as it is.

    Some encoders put JP2 boxes into fragments, which PS3.5 A.4.4 does not allow.
    """
    if not data.startswith(_JP2):
        return data
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        if length == 0:
            length = len(data) - position
        if data[position + 4 : position + 8] == b"jp2c":
            return data[position + head : position + length]
        if length < head:
            break
        position += length
    raise WrongCodestream("a JP2 file without a codestream")


def insert_tlm(codestream: bytes) -> bytes:
    """Return a codestream with the lengths of its tile-parts in the main header (T.800 A.7.1).

    PS3.5 10.18.1 demands them for .202. They go right before the first tile-part, with 16-bit tile indices and
    32-bit lengths. A codestream that has TLM already comes back as it is.

    Raises
    ------
    WrongCodestream
        The tile-parts do not lead to EOC, so their lengths are not known; or they are more than TLM can list.
    """
    stream = _walk(codestream)
    if stream.header.lengths or stream.header.broken_tlm:
        return codestream
    if stream.end is None:
        raise WrongCodestream("the tile-parts do not lead to EOC, so their lengths are not known")
    if len(stream.parts) > _MOST_TLM_ENTRIES * _MOST_TLM_SEGMENTS:
        raise WrongCodestream(f"{len(stream.parts)} tile-parts are more than TLM can list")
    pieces = [codestream[: stream.first_sot]]
    for number, at in enumerate(range(0, len(stream.parts), _MOST_TLM_ENTRIES)):
        parts = stream.parts[at : at + _MOST_TLM_ENTRIES]
        entries = b"".join(_TLM_ENTRY.pack(*part) for part in parts)
        pieces.append(_MARKER.pack(_TLM, 4 + len(entries)) + bytes((number, 0x60)) + entries)
    pieces.append(codestream[stream.first_sot :])
    return b"".join(pieces)


def _walk(codestream: bytes) -> _Stream:
    if codestream[:4] != _SOC_SIZ:
        what = "the JP2 file format" if codestream.startswith(_JP2) else codestream[:4].hex() or "nothing"
        raise WrongCodestream(f"a JPEG 2000 codestream begins with SOC and SIZ, not with {what}")
    header = _Header()
    siz = 4 + int.from_bytes(codestream[4:6])
    header.take_size(codestream[6:siz])
    first_sot = _take_segments(codestream, siz, len(codestream), header, _SOT_CODE)
    parts: list[tuple[int, int]] = []
    end = _take_tile_parts(codestream, first_sot, header, parts)
    (_, width, height, _, _, tile_width, tile_height, x0, y0, _) = header.size
    tiles = -(-(width - x0) // tile_width) * -(-(height - y0) // tile_height)
    if {tile for tile, _ in parts} != set(range(min(tiles, len(parts) + 1))):
        end = None  # a tile is missing, or there are more than the image has
    return _Stream(header, first_sot, parts, end)


def _take_segments(codestream: bytes, position: int, limit: int, header: _Header, until: bytes) -> int:
    """Hand marker segments from `position` on to `header`; return where the marker `until` is.

    Raises
    ------
    WrongCodestream
        `limit` comes first, or a segment is too short for what it must hold.
    """
    while codestream[position : position + 2] != until:
        if position + 4 > limit:
            raise WrongCodestream("a header is cut off")
        marker, length = _MARKER.unpack_from(codestream, position)
        end = position + 2 + length
        if marker < 0xFF4F or length < 2 or end > limit:
            raise WrongCodestream(f"there is no marker segment at byte {position}, or it is cut off")
        if marker == _SIZ or (until == _SOD_CODE and marker in _MAIN_HEADER_ONLY):
            raise WrongCodestream(f"marker segment {marker:04X} at byte {position} does not belong there")
        try:
            header.take(marker, codestream[position + 4 : end])
        except IndexError:
            raise WrongCodestream(f"marker segment {marker:04X} at byte {position} is too short") from None
        position = end
    return position


def _take_tile_parts(codestream: bytes, position: int, header: _Header, parts: list[tuple[int, int]]) -> int | None:
    """Follow Psot from tile-part to tile-part (T.800 A.4.2); return the length with EOC if they lead there."""
    end = marked_end(codestream, EOC)
    if end is None:
        return None
    last = end - len(EOC)
    while position < last:
        if position + _SOT_SEGMENT.size + 2 > last:
            return None
        marker, lsot, tile, length, _, _ = _SOT_SEGMENT.unpack_from(codestream, position)
        if length == 0:  # the last tile-part: up to EOC
            length = last - position
        if marker != _SOT or lsot != 10 or length < _SOT_SEGMENT.size + 2 or position + length > last:
            return None
        if codestream[position + 12 : position + 14] != _SOD_CODE:
            _take_segments(codestream, position + 12, position + length, header, _SOD_CODE)
        parts.append((tile, length))
        position += length
    return end


def _tlm_matches(stream: _Stream) -> bool | None:
    """Return whether TLM lists the actual tile-parts in order; None without TLM."""
    header = stream.header
    if header.broken_tlm:
        return False
    if not header.lengths:
        return None
    listed = [entry for number in sorted(header.lengths) for entry in header.lengths[number]]
    # Without indices, tile-parts come one per tile in order (T.800 A.7.1).
    named = [(at if tile is None else tile, length) for at, (tile, length) in enumerate(listed)]
    return stream.end is not None and named == stream.parts
