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
# Another byte whose first bit differs, and which is not FF.
_OTHER = bytes(byte ^ (0xC0 if byte == 0x7F else 0x80) for byte in range(256))


def check_data(jpeg: bytes, decoded: NDArray[Any], decode: Callable[[bytes], NDArray[Any]]) -> None:
    """Refuse a JPEG whose entropy-coded data end before its last sample, or go on behind it, although EOI is there.

    libjpeg makes up missing bits as 0, leaves out what is too much, and says so only in a warning, which does not come
    through. With other bits before EOI, what was made up comes out differently; where all data are there, nothing reads
    these bits. In place of the last data they must come out differently, unless nothing reads the last data: then the
    decoder was led astray on its way.

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

    data = jpeg[: -len(EOI)]
    stuffed = b"\0" if data.endswith(b"\xff") else b""  # or FF and the filler would be a marker
    if not same(data + stuffed + _FILLER):
        raise DecodeFailed("the JPEG's entropy-coded data end before its last sample")
    last = len(data) - _MOST_SPARE_BYTES - 1
    last -= data[last - 1] == 0xFF  # 00 belongs to it
    try:
        spare = same(data[:last] + data[last:].translate(_OTHER))
    except DecodeFailed:
        return  # so little data that this is the header
    if spare:
        raise DecodeFailed("the JPEG's entropy-coded data go on behind its last sample")
