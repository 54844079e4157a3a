import struct

import numpy as np
import pytest
from pydicom.pixels.encoders import RLELosslessEncoder

from gpuenc.codestream import even_segments, parse
from gpuenc.errors import WrongCodestream


def header(count, *offsets):
    return struct.pack("<16I", count, *offsets, *[0] * (15 - len(offsets)))


@pytest.mark.parametrize(("samples", "bits"), [(1, 8), (1, 16), (1, 32), (3, 8), (3, 16), (3, 32)])
def test_frames_of_another_encoder(noise, samples, bits):
    image = noise(7, 9, samples, bits=bits)
    encoded = RLELosslessEncoder.encode(
        np.ascontiguousarray(image).tobytes(), rows=7, columns=9, samples_per_pixel=samples, bits_allocated=bits,
        bits_stored=bits, pixel_representation=0, number_of_frames=1, encoding_plugin="pydicom", validate=False,
        photometric_interpretation="MONOCHROME2" if samples == 1 else "RGB",
        **({} if samples == 1 else {"planar_configuration": 0}),
    )  # fmt: skip
    info = parse(encoded, "rle")
    assert (info.segments, info.ends_properly, info.lossless) == (samples * bits // 8, True, True)
    assert (info.rows, info.columns, info.samples, info.precision) == (0, 0, 0, 0)
    assert info.length_bytes == len(encoded)


def test_odd_length():
    assert parse(header(1, 64) + b"\0\0\0", "rle").ends_properly is False


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (b"", "0 bytes"),
        (header(1, 64)[:-1], "63 bytes"),
        (header(0) + b"\0\0", "0 segments"),
        (header(16, *range(64, 94, 2)) + bytes(64), "16 segments"),
        (header(1, 66) + bytes(8), "begins at byte 66"),
        (header(1, 0) + bytes(8), "begins at byte 0"),
        (header(1, 64), "segment 0 begins at byte 64 and ends at 64"),
        (header(2, 64, 64) + bytes(8), "segment 0 begins at byte 64 and ends at 64"),
        (header(3, 64, 68, 66) + bytes(8), "segment 1 begins at byte 68 and ends at 66"),
        (header(2, 64, 67) + bytes(8), "odd byte 67"),
        (header(2, 64, 72) + bytes(8), "segment 1 begins at byte 72 and ends at 72"),
        (header(2, 64, 1 << 31) + bytes(8), "segment 1"),
        (header(1, 64, 66) + bytes(8), "does not count"),
    ],
)
def test_refused(frame, match):
    with pytest.raises(WrongCodestream, match=match):
        parse(frame, "rle")


def test_all_fifteen_segments():
    assert parse(header(15, *range(64, 94, 2)) + bytes(30), "rle").segments == 15


class TestEvenSegments:
    def test_odd_ones_are_filled_up(self):
        odd = header(3, 64, 67, 69) + b"\x02ab" + b"\x00d" + b"\x00e\x80"
        even = even_segments(odd)
        assert even == header(3, 64, 68, 70) + b"\x02ab\0" + b"\x00d" + b"\x00e\x80\0"
        info = parse(even, "rle")
        assert (info.segments, info.ends_properly) == (3, True)

    def test_only_the_last_is_odd(self):
        assert even_segments(header(2, 64, 66) + b"abc") == header(2, 64, 66) + b"abc\0"

    @pytest.mark.parametrize(
        "frame",
        [
            header(2, 64, 66) + b"abcd",
            header(1, 64)[:-1],
            header(0) + b"abc",
            header(16, *range(64, 79)) + bytes(63),
            header(2, 67, 64) + b"abcde",
            header(2, 64, 1 << 31) + b"abc",
            header(1, 63) + b"abc",
        ],
    )
    def test_others_are_left_alone(self, frame):
        assert even_segments(frame) is frame
