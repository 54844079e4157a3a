"""Whether the entropy-coded data of a JPEG are those of its samples: no fewer, no more, and not interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.codestream.jpeg import EOI, has_stray_marker
from gpuenc.errors import DecodeFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Begins with a 1 bit and holds no FF. Anything will do behind it, as long as it is not regular.
_FILLER = bytes.fromhex("a63c91d2e4785b0dc9176ab3f05e824d") * 4
# So many bytes behind the last sample are put up with.
_MOST_SPARE_BYTES = 3
# Other bytes, none of them FF; of several kinds, since codes that are in no table are read as if they were right.
_OTHERS = tuple(
    bytes(byte ^ (bits ^ 0x10 if byte ^ bits == 0xFF else bits) for byte in range(256))
    for bits in (0x80, 0x40, 0x2A, 0xD5)
)


def check_data(jpeg: bytes, decoded: NDArray[Any], decode: Callable[[bytes], NDArray[Any]]) -> None:
    """Refuse a JPEG whose entropy-coded data end before its last sample, or go on behind it, although EOI is there.

    libjpeg makes up missing bits as 0, leaves out what is too much, and says so only in a warning, which does not come
    through. With other bits before EOI, what was made up comes out differently; where all data are there, nothing reads
    these bits. In place of the last data they must come out differently, unless nothing reads the last data: then the
    decoder was led astray on its way. Where not even half of the data makes a difference, as in an image of one value,
    nothing can be said.

    Parameters
    ----------
    jpeg : bytes
        A codestream of sequential Huffman coding, with EOI.
    decoded : numpy.ndarray
        What it decodes to.
    decode : callable
        Decodes others like it; raises `DecodeFailed`.

    Raises
    ------
    DecodeFailed
    """
    if has_stray_marker(jpeg):
        raise DecodeFailed("a marker stands among the JPEG's entropy-coded data")

    def same(data: bytes) -> bool:
        return np.array_equal(decode(data + EOI), decoded)

    def same_with(start: int, other: bytes) -> bool:
        try:
            return same(data[:start] + data[start:].translate(other))
        except DecodeFailed:
            return False  # so little data that this is the header

    data = jpeg[: -len(EOI)]
    stuffed = b"\0" if data.endswith(b"\xff") else b""  # or FF and the filler would be a marker
    if not same(data + stuffed + _FILLER):
        raise DecodeFailed("the JPEG's entropy-coded data end before its last sample")
    last = len(data) - _MOST_SPARE_BYTES - 1
    last -= data[last - 1] == 0xFF  # 00 belongs to it
    if all(same_with(last, other) for other in _OTHERS):
        half = len(data) // 2
        if not all(same_with(half, other) for other in _OTHERS):
            raise DecodeFailed("the JPEG's entropy-coded data go on behind its last sample")
