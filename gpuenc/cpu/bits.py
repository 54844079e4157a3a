"""1-bit samples: eight to a byte, least significant bit first, frame after frame without padding (PS3.5 8.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.errors import ValuesOutsideBitsStored

if TYPE_CHECKING:
    from numpy.typing import NDArray


def unpack_bits(packed: NDArray[np.uint8], count: int, bit_offset: int = 0) -> NDArray[np.uint8]:
    """Return `count` bits of `packed` as samples of 0 and 1 (PS3.5 8.1.1).

    Parameters
    ----------
    packed : numpy.ndarray
        uint8, shape (bytes,), at least ``(bit_offset + count + 7) // 8`` bytes.
    count : int
        Samples wanted.
    bit_offset : int
        Bit of ``packed[0]`` that holds the first sample, 0 to 7, counted from the least significant.

    Returns
    -------
    numpy.ndarray
        uint8, shape (count,).
    """
    touched = packed[: (bit_offset + count + 7) // 8]
    return np.unpackbits(touched, bitorder="little")[bit_offset : bit_offset + count]


def pack_bits(samples: NDArray[Any], *, bit_offset: int = 0) -> NDArray[np.uint8]:
    """Return samples as bits, least significant first; unused bits of the first and last byte are zero (PS3.5 8.1.1).

    Parameters
    ----------
    samples : numpy.ndarray
        Integers or bool, any shape, taken in C order: 0, and 1 or -1 for a set bit (-1 is the 1-bit two's complement).
    bit_offset : int
        Bit of the first byte that gets the first sample, 0 to 7.

    Returns
    -------
    numpy.ndarray
        uint8, shape ((bit_offset + samples.size + 7) // 8,).

    Raises
    ------
    ValuesOutsideBitsStored
        A sample needs more than one bit.
    """
    flat = samples.reshape(-1)
    if flat.dtype != np.bool_ and flat.size and (flat.max() > 1 or flat.min() < -1):
        raise ValuesOutsideBitsStored("The samples do not fit a (0028,0100) 'Bits Allocated' of 1")
    return _shift_up(np.packbits(flat, bitorder="little"), flat.size, bit_offset)


def align_bits(packed: NDArray[np.uint8], count: int, bit_offset: int = 0) -> NDArray[np.uint8]:
    """Return `count` bits of `packed` moved to begin at bit 0 of byte 0, followed by zero bits.

    Parameters
    ----------
    packed, count, bit_offset
        As for `unpack_bits`.

    Returns
    -------
    numpy.ndarray
        uint8, shape ((count + 7) // 8,); a view of `packed` where nothing has to change.
    """
    aligned = packed[: (count + 7) // 8]
    if bit_offset:
        touched = packed[: (bit_offset + count + 7) // 8]
        pairs = touched.astype(np.uint16)
        pairs[:-1] |= pairs[1:] << 8
        aligned = (pairs >> bit_offset).astype(np.uint8)[: aligned.size]
    used = count % 8
    if used and aligned[-1] >> used:
        aligned = aligned.copy()
        aligned[-1] &= (1 << used) - 1
    return aligned


def _shift_up(packed: NDArray[np.uint8], count: int, bit_offset: int) -> NDArray[np.uint8]:
    if not bit_offset:
        return packed
    pairs = packed.astype(np.uint16) << bit_offset
    shifted = np.zeros(packed.size + 1, np.uint8)
    shifted[:-1] = pairs & 0xFF
    shifted[1:] |= (pairs >> 8).astype(np.uint8)
    return shifted[: (bit_offset + count + 7) // 8]


class BitPacker:
    """Joins 1-bit frames into one stream of bytes, each frame beginning on the bit where the last ended (PS3.5 8.1.1).

    Examples
    --------
    >>> packer = BitPacker()
    >>> chunks = [packer.add(frame) for frame in frames]
    >>> pixel_data = b"".join(chunk.tobytes() for chunk in [*chunks, packer.finish()])
    """

    __slots__ = ("_carry", "_carry_bits")

    def __init__(self) -> None:
        self._carry = 0
        self._carry_bits = 0

    def add(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Append samples as `pack_bits` takes them; return the bytes that are now complete, uint8, shape (bytes,)."""
        return self.add_packed(pack_bits(samples), samples.size)

    def add_packed(self, packed: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
        """Append the first `count` bits of `packed`, uint8, shape (bytes,); return the bytes that are now complete."""
        total = self._carry_bits + count
        joined = _shift_up(align_bits(packed, count), count, self._carry_bits)
        if self._carry_bits:
            joined[0] |= self._carry
        whole, self._carry_bits = divmod(total, 8)
        self._carry = int(joined[whole]) if self._carry_bits else 0
        return joined[:whole]

    def finish(self) -> NDArray[np.uint8]:
        """Return the last, incomplete byte, filled up with zero bits: uint8, shape (1,) or (0,). Starts anew."""
        rest = np.full(1 if self._carry_bits else 0, self._carry, np.uint8)
        self._carry = self._carry_bits = 0
        return rest
