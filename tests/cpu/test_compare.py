"""Comparison of samples: every difference is counted, and the checksum is the known one."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from gpuenc.cpu import compare
from gpuenc.errors import InvalidPixels


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_count_differing_counts_every_one(size: int) -> None:
    one = np.random.default_rng(size).integers(0, 4096, size).astype(np.uint16)
    other = one.copy()
    assert compare.count_differing(one, other) == 0
    places = sorted({0, size // 2, size - 1}) if size else []
    other[places] ^= 1
    assert compare.count_differing(one, other) == len(places)


def test_count_differing_compares_values_not_bits_and_never_broadcasts() -> None:
    assert compare.count_differing(np.array([-1, 5], np.int8), np.array([255, 5], np.uint8)) == 1
    assert compare.count_differing(np.array([-1, 5], np.int32), np.array([0xFFFFFFFF, 5], np.uint32)) == 1
    assert compare.count_differing(np.array([7], ">u2"), np.array([7], np.int32)) == 0
    with pytest.raises(InvalidPixels, match="cannot be compared"):
        compare.count_differing(np.zeros((2, 2), np.uint8), np.zeros((1, 2), np.uint8))
    with pytest.raises(InvalidPixels, match="cannot be compared"):
        compare.count_differing(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


def test_checksum_is_the_crc_32_of_little_endian_samples() -> None:
    assert compare.checksum(np.frombuffer(b"123456789", np.uint8)) == 0xCBF43926  # the check value of CRC-32
    image = np.random.default_rng(1).integers(-32768, 32767, (5, 7)).astype(np.int16)
    expected = zlib.crc32(struct.pack("<35h", *image.reshape(-1).tolist()))
    assert compare.checksum(image) == expected
    assert compare.checksum(image.astype(">i2")) == expected
    assert compare.checksum(np.asfortranarray(image)) == expected
