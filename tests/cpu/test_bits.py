"""1-bit samples against Python integers and pydicom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels import utils

from gpuenc.cpu import bits
from gpuenc.errors import ValuesOutsideBitsStored

streams = st.lists(st.integers(0, 1), max_size=70)


def as_number(stream: list[int]) -> int:
    return sum(bit << position for position, bit in enumerate(stream))


@settings(deadline=None)
@given(st.binary(max_size=12), st.data())
def test_unpack_and_align_take_the_bits_asked_for(packed: bytes, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, min(7, len(packed) * 8)))
    count = data.draw(st.integers(0, len(packed) * 8 - offset))
    array = np.frombuffer(packed, np.uint8)
    wanted = int.from_bytes(packed, "little") >> offset & ((1 << count) - 1)

    assert as_number(bits.unpack_bits(array, count, offset).tolist()) == wanted
    assert bits.unpack_bits(array, count, offset).shape == (count,)
    aligned = bits.align_bits(array, count, offset)
    assert aligned.tobytes() == wanted.to_bytes((count + 7) // 8, "little")
    assert bits.unpack_bits(array, len(packed) * 8).tobytes() == utils.unpack_bits(packed).tobytes()


@settings(deadline=None)
@given(streams, st.integers(0, 7), st.sampled_from(("u1", "i1", "u2", "i4", "?")))
def test_pack_puts_the_first_sample_at_the_offset(stream: list[int], offset: int, kind: str) -> None:
    packed = bits.pack_bits(np.array(stream, kind), bit_offset=offset)

    length = (offset + len(stream) + 7) // 8
    assert packed.dtype == np.uint8
    assert packed.tobytes() == (as_number(stream) << offset).to_bytes(length, "little")
    if not offset:
        assert packed.tobytes() == utils.pack_bits(np.array(stream, np.uint8), pad=False)


def test_minus_one_is_a_set_bit_and_anything_else_is_refused() -> None:
    assert bits.pack_bits(np.array([[0, -1], [-1, 0]], np.int8)).tolist() == [0b0110]
    for value in (2, 255, -2):
        with pytest.raises(ValuesOutsideBitsStored):
            bits.pack_bits(np.array([0, value, 1], np.int16))


@settings(deadline=None)
@given(st.lists(st.tuples(streams, st.booleans()), max_size=8))
def test_frames_follow_one_another_without_padding(frames: list[tuple[list[int], bool]]) -> None:
    packer = bits.BitPacker()
    for _ in range(2):  # `finish` leaves it as new
        out = b""
        for frame, as_packed in frames:
            if as_packed:
                # Bits beyond the frame must not leak into the next.
                noisy = np.array([*frame, 1, 1, 1, 1, 1, 1, 1, 1], np.uint8)
                out += packer.add_packed(bits.pack_bits(noisy), len(frame)).tobytes()
            else:
                out += packer.add(np.array(frame, np.uint8)).tobytes()
        out += packer.finish().tobytes()
        joined = [bit for frame, _ in frames for bit in frame]
        assert out == as_number(joined).to_bytes((len(joined) + 7) // 8, "little")


def test_the_packer_keeps_back_less_than_a_byte() -> None:
    packer = bits.BitPacker()
    assert packer.add(np.ones(7, np.uint8)).size == 0
    assert packer.add(np.ones((3, 3), np.uint8)).tolist() == [255, 255]
    assert packer.finish().size == 0
