"""The markers of JPEG (T.81), lossless JPEG (T.81 Annex H) and JPEG-LS (T.87)."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from gpuenc.codestream.info import StreamInfo, marked_end
from gpuenc.errors import WrongCodestream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.syntaxes import Family

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_SOF55, _EOI, _SOS, _DRI, _APP0, _APP8, _APP14 = 0xF7, 0xD9, 0xDA, 0xDD, 0xE0, 0xE8, 0xEE
# C4, C8 and CC are DHT, JPG and DAC (T.81 table B.1).
_SOFS = {code: code - 0xC0 for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC)} | {_SOF55: 55}
_LOSSLESS_SOFS = (3, 7, 11, 15)
_JPEG_LS = 55
_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
_FRAME = struct.Struct(">BHHB")
_FILL = re.compile(rb"\xff+")
# Without a restart interval, RSTn belongs nowhere in the data either.
_ANY_MARKER = re.compile(rb"\xff[\x01-\xfe]")
# In entropy-coded data, FF is followed by 00 (T.81 B.1.1.5), or for JPEG-LS by a byte below 80 (T.87 stuffs a 0 bit).
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_NEXT_MARKER_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")


def parse(codestream: bytes, family: Family) -> StreamInfo:
    """Return what the markers up to the scan say.

    Entropy-coded data is looked through only where components come in several scans, since each scan has its own
    NEAR, predictor and point transform.

    Raises
    ------
    WrongCodestream
        Not such a codestream, cut off in its header, or with a header that contradicts itself.
    """
    if codestream[:2] != SOI:
        raise WrongCodestream(f"a {family} codestream begins with SOI, not with {codestream[:2].hex() or 'nothing'}")
    frame: tuple[int, int, int, int, int] | None = None  # sof, precision, rows, columns, components
    identifiers: tuple[int, ...] = ()
    factors: tuple[tuple[int, int], ...] = ()
    scans: list[tuple[int, int]] = []  # (NEAR or predictor, point transform)
    scanned, jfif, adobe, hp = 0, False, None, 0
    for marker, start, end in _segments(codestream):
        if marker == _SOS:
            if frame is None:
                raise WrongCodestream("a scan begins before any frame header")
            components, parameters = _scan(codestream, start, end)
            scans.append(parameters)
            scanned += components
            if scanned >= frame[4]:
                break
        elif marker in _SOFS:
            if frame is not None:
                raise WrongCodestream("there is more than one frame header")
            content = codestream[start:end]
            if len(content) < _FRAME.size or not content[5] or len(content) < _FRAME.size + 3 * content[5]:
                raise WrongCodestream(f"a frame header of {len(content)} bytes does not hold its components")
            precision, rows, columns, count = _FRAME.unpack_from(content)
            frame = _SOFS[marker], precision, rows, columns, count
            described = content[_FRAME.size : _FRAME.size + 3 * count]
            identifiers = tuple(described[::3])
            factors = tuple((both >> 4, both & 15) for both in described[1::3])
        elif marker == _APP0:
            jfif = jfif or codestream.startswith(b"JFIF\0", start, end)
        elif marker == _APP14 and codestream.startswith(b"Adobe", start, end) and end - start >= 12:
            adobe = codestream[start + 11]
        elif marker == _APP8 and codestream.startswith(b"mrfx", start, end) and end - start >= 5:
            hp = codestream[start + 4]
    if frame is None or not scans:
        raise WrongCodestream("there is no frame header and scan")
    sof, precision, rows, columns, count = frame
    length = marked_end(codestream, EOI)
    by_prediction = sof in _LOSSLESS_SOFS
    first = [parameter for parameter, _ in scans]
    shift = max(point for _, point in scans)
    near = max(first) if sof == _JPEG_LS else None
    return StreamInfo(
        family=family,
        # All scans must be there: the end of the last is where EOI is.
        ends_properly=length is not None and scanned >= count,
        length_bytes=len(codestream) if length is None else length,
        rows=rows,
        columns=columns,
        samples=count,
        precision=precision,
        lossless=shift == 0 and (by_prediction or near == 0),
        subsampling=factors,
        sof=sof,
        components=identifiers,
        near=near,
        predictor=(first[0] if len(set(first)) == 1 else 0) if by_prediction else None,
        point_transform=shift if by_prediction or near is not None else None,
        jfif=jfif,
        adobe_transform=adobe,
        hp_transform=hp,
    )


def has_stray_marker(jpeg: bytes) -> bool:
    """Return whether a marker stands among the data of the scan that completes the components, or comes behind it.

    Decoders make up what they miss behind it. Only for sequential Huffman coding, where that scan is the last.

    Parameters
    ----------
    jpeg : bytes
        One whose markers `parse` has read, up to and with its EOI.
    """
    components = scanned = position = 0
    marker = _ANY_MARKER
    for code, start, end in _segments(jpeg):
        if code in _SOFS:
            components = jpeg[start + 5]
        elif code == _DRI:
            marker = _NEXT_MARKER if any(jpeg[start:end]) else _ANY_MARKER
        elif code == _SOS:
            scanned, position = scanned + jpeg[start], end
            if scanned >= components:
                break
    found = marker.search(jpeg, position)
    return found is None or found.start() != len(jpeg) - len(EOI)


def _scan(codestream: bytes, start: int, end: int) -> tuple[int, tuple[int, int]]:
    """Return the number of components of a scan, and its first parameter (Ss or NEAR) and its point transform."""
    content = codestream[start:end]
    if not content or not content[0] or len(content) < 4 + 2 * content[0]:
        raise WrongCodestream(f"a scan header of {len(content)} bytes does not hold its components")
    parameters = 1 + 2 * content[0]
    return content[0], (content[parameters], content[parameters + 2] & 15)


def _segments(codestream: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each marker segment after SOI: its code, and where its content begins and ends.

    Asked for more after a scan, looks for the next marker; ends with EOI, or where the data of a scan does.
    """
    position, size, after_scan = 2, len(codestream), _NEXT_MARKER
    while True:
        if position + 4 > size:
            if codestream[position : position + 2] == EOI:
                return
            raise WrongCodestream("the header is cut off")
        if codestream[position] != 0xFF:
            raise WrongCodestream(f"there is no marker at byte {position}")
        code = codestream[position + 1]
        if code == 0xFF:  # fill bytes before a marker (T.81 B.1.1.2)
            fill = _FILL.match(codestream, position)
            assert fill is not None
            position = fill.end() - 1
            continue
        if code == _EOI:
            return
        start, end = position + 4, position + 2 + int.from_bytes(codestream[position + 2 : position + 4])
        if code in _WITHOUT_LENGTH or end < start or end > size:
            raise WrongCodestream(f"marker FF{code:02X} at byte {position} does not belong there or is cut off")
        yield code, start, end
        position = end
        if code == _SOF55:
            after_scan = _NEXT_MARKER_LS
        elif code == _SOS:
            following = after_scan.search(codestream, end)
            if following is None:
                return
            position = following.start()
