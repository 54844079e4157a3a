"""The header of a JPEG XL codestream (18181-1) and the boxes it may lie in (18181-2)."""

from __future__ import annotations

from dataclasses import dataclass

from gpuenc.codestream.info import StreamInfo
from gpuenc.errors import WrongCodestream

_SIGNATURE = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
HEADER_BYTES = 256  # far more than the bundles read here can take
# Distributions of a U32: (bits, offset) for each value of the selector.
_SIZE = ((9, 1), (13, 1), (18, 1), (30, 1))
_ENUM = ((0, 0), (0, 1), (4, 2), (6, 18))
_INTEGER_BITS = ((0, 8), (0, 10), (0, 12), (6, 1))
_FLOAT_BITS = ((0, 32), (0, 16), (0, 24), (6, 1))
_RATIOS = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_GRAY = 1


class _Bits:
    """Reads fields least significant bit first, as 18181-1 writes them."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def u(self, bits: int) -> int:
        """Read a field of `bits` bits."""
        start, end = self._position, self._position + bits
        if end > 8 * len(self._data):
            raise WrongCodestream("a JPEG XL header is cut off")
        self._position = end
        return int.from_bytes(self._data[start // 8 : (end + 7) // 8], "little") >> start % 8 & (1 << bits) - 1

    def u32(self, distributions: tuple[tuple[int, int], ...]) -> int:
        """Read a 2-bit selector and the field it selects."""
        bits, offset = distributions[self.u(2)]
        return self.u(bits) + offset


@dataclass(slots=True)
class _Boxes:
    """Where a container keeps its codestream: pairs of (begin, end), in order."""

    pieces: list[tuple[int, int]]
    jpeg_data: bool
    end: int | None


def parse(codestream: bytes) -> StreamInfo:
    """Return what SizeHeader and ImageMetadata say, of a bare codestream or of one in a container.

    Raises
    ------
    WrongCodestream
        Not JPEG XL, cut off in its header, or with what no DICOM frame has: further channels, a preview, animation, a
        second codestream in the container or behind it.
    """
    if codestream.startswith(_CONTAINER):
        boxes = _boxes(codestream)
        data = b"".join(codestream[start : min(end, start + HEADER_BYTES)] for start, end in boxes.pieces[:8])
        ends_properly, length = boxes.end is not None, boxes.end or len(codestream)
    else:
        boxes, data, ends_properly, length = None, codestream[:HEADER_BYTES], None, len(codestream)
    if not data.startswith(_SIGNATURE):
        raise WrongCodestream(f"a JPEG XL codestream begins with ff0a, not with {data[:2].hex() or 'nothing'}")
    bits = _Bits(data[2:])
    rows, columns = _size(bits)
    orientation, precision, floating, xyb, samples = 1, 8, False, True, 3
    if not bits.u(1):  # not all_default
        if bits.u(1):  # extra_fields
            orientation = bits.u(3) + 1
            if bits.u(1):
                _size(bits)  # the intrinsic size, which only advises a viewer
            if bits.u(1) or bits.u(1):
                raise WrongCodestream("a JPEG XL codestream has a preview or an animation")
        floating = bool(bits.u(1))
        precision = bits.u32(_FLOAT_BITS if floating else _INTEGER_BITS)
        if floating:
            bits.u(4)  # exponent_bits_per_sample
        bits.u(1)  # modular_16bit_buffers
        if bits.u(2):  # the selector of num_extra_channels: only 0 stands for none
            raise WrongCodestream("a JPEG XL codestream has channels besides its colours")
        xyb = bool(bits.u(1))
        if not bits.u(1):  # ColourEncoding is not all_default, which is RGB
            bits.u(1)  # want_icc
            samples = 1 if bits.u32(_ENUM) == _GRAY else 3
    return StreamInfo(
        family="jpegxl",
        ends_properly=ends_properly,
        length_bytes=length,
        rows=rows,
        columns=columns,
        samples=samples,
        precision=precision,
        lossless=False if xyb else None,
        xyb=xyb,
        container=boxes is not None,
        jpeg_data=boxes is not None and boxes.jpeg_data,
        orientation=orientation,
        float_samples=floating,
    )


def begins(head: bytes, rows: int, columns: int) -> bool:
    """Return whether the first bytes of a fragment are those of a codestream of this size, or of a container.

    Nothing marks the end of a bare codestream, and decoders stop there without a word: what lies behind is seen only by
    how it begins. The signature alone, two bytes, may be there by chance; with the image's own size behind it, hardly.
    """
    if head.startswith(_CONTAINER):
        return True
    try:
        info = parse(head)
    except WrongCodestream:
        return False
    return (info.rows, info.columns) == (rows, columns)


def unbox(codestream: bytes) -> bytes:
    """Return the bare codestream of a JPEG XL container; the same object if it is bare already.

    libjxl puts samples of more than 12 bits into a container even when told not to, only to note their level
    (18181-2); decoders read the bare codestream just as well. What a ``jbrd`` box holds is lost.

    Raises
    ------
    WrongCodestream
        The boxes are cut off, or hold no codestream or several.
    """
    if not codestream.startswith(_CONTAINER):
        return codestream
    boxes = _boxes(codestream)
    if boxes.end is None:
        raise WrongCodestream("the boxes of a JPEG XL container are cut off")
    return b"".join(codestream[start:end] for start, end in boxes.pieces)


def _size(bits: _Bits) -> tuple[int, int]:
    """Read SizeHeader: rows and columns."""
    small = bits.u(1)
    rows = (bits.u(5) + 1) * 8 if small else bits.u32(_SIZE)
    numerator, denominator = _RATIOS[bits.u(3)]
    if numerator:
        return rows, rows * numerator // denominator
    return rows, (bits.u(5) + 1) * 8 if small else bits.u32(_SIZE)


def _boxes(codestream: bytes) -> _Boxes:
    """Find the ``jxlc`` box, or the ``jxlp`` boxes, whose content begins with 4 bytes that number them (18181-2)."""
    position, size = 0, len(codestream)
    pieces: list[tuple[int, int]] = []
    jpeg_data = False
    while position + 8 <= size:
        length, kind, start = (
            int.from_bytes(codestream[position : position + 4]),
            codestream[position + 4 : position + 8],
            8,
        )
        if length == 1:
            length, start = int.from_bytes(codestream[position + 8 : position + 16]), 16
        elif length == 0:  # up to the end of the file
            length = size - position
        if length < start or position + length > size:
            break
        if (kind == b"JXL " and position) or (kind == b"jxlc" and pieces):
            raise WrongCodestream("a JPEG XL container holds, or is followed by, a second codestream")
        if kind == b"jxlc":
            pieces.append((position + start, position + length))
        elif kind == b"jxlp":
            pieces.append((min(position + start + 4, position + length), position + length))
        elif kind == b"jbrd":
            jpeg_data = True
        position += length
    padding = codestream[position:]
    if not pieces:
        raise WrongCodestream("a JPEG XL container holds no codestream")
    return _Boxes(pieces, jpeg_data, position if len(padding) < 8 and not any(padding) else None)
