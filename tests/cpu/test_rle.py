import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.pixels.encoders import RLELosslessEncoder

from gpuenc.cpu import rle
from gpuenc.errors import CodecError, DecodeFailed


def unpack(data):
    """PackBits by the letter of PS3.5 G.3.2: the bytes given, and for each packet where it ends in input and output."""
    out, ends, position = bytearray(), [], 0
    while position < len(data):
        code = data[position]
        assert code != 128
        if code < 128:
            out += data[position + 1 : position + 2 + code]
            position += 2 + code
        else:
            out += data[position + 1 : position + 2] * (257 - code)
            position += 2
        assert position <= len(data)
        ends.append((position, len(out)))
    return bytes(out), ends


def segments_of(frame):
    count, *offsets = struct.unpack_from("<16I", frame)
    assert not any(offsets[count:])
    bounds = [*offsets[:count], len(frame)]
    return [frame[start:end] for start, end in pairwise(bounds)]


def frame_of(*segments, count=None):
    offsets, position = [], 64
    for segment in segments:
        offsets.append(position)
        position += len(segment)
    header = struct.pack("<16I", len(segments) if count is None else count, *offsets, *[0] * (15 - len(offsets)))
    return header + b"".join(segments)


def noise(shape, dtype, seed=0):
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)


def content(kind, shape, dtype):
    if kind == "noise":
        return noise(shape, dtype)
    if kind == "flat":
        return np.full(shape, np.iinfo(dtype).min, dtype)
    runs = np.repeat(np.arange(10_000) % 251, np.arange(10_000) % 5 + 1)  # runs of 1 to 5
    return np.resize(runs, shape).astype(dtype)


SHAPES = [(1, 1), (1, 7), (7, 1), (3, 5), (17, 33), (4, 128), (4, 129), (64, 64), (5, 3, 3)]


class TestEncode:
    @pytest.mark.parametrize("kind", ["noise", "flat", "runs"])
    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [
            *((shape, dtype) for shape in SHAPES for dtype in ("u1", "i1", "u2", "i2", "u4", "i4")),
            ((1, 65535), "u1"),
            ((65535, 1), "u1"),
        ],
        ids=str,
    )
    def test_is_what_annex_g_says(self, shape, dtype, kind):
        samples = content(kind, shape, dtype)
        rows, columns, count = shape if len(shape) == 3 else (*shape, 1)
        size = samples.dtype.itemsize
        frame = rle.encode(samples)
        segments = segments_of(frame)
        assert len(segments) == count * size
        assert all(len(segment) % 2 == 0 for segment in segments)
        big_endian = samples.astype(samples.dtype.newbyteorder(">")).reshape(rows, columns, count)
        for number, segment in enumerate(segments):
            sample, byte = divmod(number, size)
            plane = big_endian[:, :, sample].tobytes()[byte::size]
            # A pad byte is a packet that is cut off: without it all packets must be whole.
            try:
                given, ends = unpack(segment)
            except AssertionError:
                given, ends = unpack(segment[:-1])
            assert given == plane
            row_ends = {position for _, position in ends}
            assert row_ends >= set(range(columns, rows * columns + 1, columns)), "a packet spans two rows (G.3.1)"

    def test_known_bytes(self):
        # Two rows of 16 bits: planes 01 01 01 / 02 03 04 and AA AA BB / 00 00 00.
        samples = np.array([[0x01AA, 0x01AA, 0x01BB], [0x0200, 0x0300, 0x0400]], np.uint16)
        high = bytes.fromhex("FE 01 02 02 03 04")
        low = unpack(segments_of(rle.encode(samples))[1])[0]
        frame = rle.encode(samples)
        assert frame[:12] == struct.pack("<3I", 2, 64, 70)
        assert frame[64:70] == high
        assert low == bytes.fromhex("AA AA BB 00 00 00")

    def test_of_a_view(self):
        samples = noise((40, 60), "u2")
        assert rle.encode(samples[::2, 1::3]) == rle.encode(samples[::2, 1::3].copy())
        assert rle.encode(samples.astype(">u2")) == rle.encode(samples)

    def test_refuses_more_than_15_segments(self):
        rle.encode(np.zeros((2, 2, 3), np.uint32))
        with pytest.raises(CodecError, match="15 segments and 16"):
            rle.encode(np.zeros((2, 2, 4), np.uint32))

    @pytest.mark.parametrize("dtype", ["u1", "i2", "u4"])
    @pytest.mark.parametrize("samples", [1, 3])
    def test_pydicom_reads_it(self, samples, dtype):
        pixels = noise((19, 23) if samples == 1 else (19, 23, 3), dtype)
        decoder = get_decoder(RLELosslessEncoder.UID)
        bits = pixels.dtype.itemsize * 8
        array, _ = decoder.as_array(
            encapsulate([rle.encode(pixels)]),
            raw=True,
            decoding_plugin="pydicom",
            rows=19,
            columns=23,
            number_of_frames=1,
            samples_per_pixel=samples,
            photometric_interpretation="RGB" if samples == 3 else "MONOCHROME2",
            bits_allocated=bits,
            bits_stored=bits,
            pixel_representation=int(pixels.dtype.kind == "i"),
            pixel_keyword="PixelData",
            **({"planar_configuration": 0} if samples == 3 else {}),
        )
        np.testing.assert_array_equal(array, pixels)


class TestDecode:
    @settings(max_examples=150, deadline=None)
    @given(
        st.integers(1, 40),
        st.integers(1, 40),
        st.sampled_from([1, 3]),
        st.sampled_from(["u1", "i1", "u2", "i2", "u4"]),
        st.integers(1, 4),
        st.integers(0, 2**32),
    )
    def test_gives_back_what_was_encoded(self, rows, columns, count, dtype, values, seed):
        shape = (rows, columns) if count == 1 else (rows, columns, count)
        choice = noise(values, dtype, seed)
        samples = choice[np.random.default_rng(seed).integers(0, values, shape)]
        decoded = rle.decode(rle.encode(samples), shape, dtype)
        assert decoded.dtype == samples.dtype
        np.testing.assert_array_equal(decoded, samples)

    @pytest.mark.parametrize("plugin", ["pydicom", "pylibjpeg", "gdcm"])
    def test_reads_what_others_write(self, plugin):
        samples = content("runs", (37, 41), "u2")
        frame = RLELosslessEncoder.encode(
            samples,
            encoding_plugin=plugin,
            rows=37,
            columns=41,
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=16,
            bits_stored=16,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
        )
        np.testing.assert_array_equal(rle.decode(bytes(frame), (37, 41), "u2"), samples)

    @pytest.mark.parametrize(
        "segment",
        [
            "05 01 02 03 04 05 06",  # odd length
            "05 01 02 03 04 05 06 00",
            "05 01 02 03 04 05 06 00 00 00 00",  # more padding: literals of one 00
            "05 01 02 03 04 05 06 00 00 00 00 00 00 00 00",
            "05 01 02 03 04 05 06 80",  # padding that does nothing
            "05 01 02 03 04 05 06 FF",  # padding that looks like a run without its byte
            "05 01 02 03 04 05 06 7F 00",  # … like a literal that is cut off
            "02 01 02 03 80 02 04 05 06",  # byte 128 between packets
            "00 01 00 02 01 03 04 01 05 06",
            "08 01 02 03 04 05 06 07 08 09",  # three bytes too many
        ],
    )
    def test_takes_what_real_files_hold(self, segment):
        # Rows of three: packets may span them.
        decoded = rle.decode(frame_of(bytes.fromhex(segment)), (2, 3), "u1")
        np.testing.assert_array_equal(decoded, [[1, 2, 3], [4, 5, 6]])

    @pytest.mark.parametrize(
        ("frame", "says"),
        [
            (b"", "shorter than its header"),
            (frame_of(b"\x05123456")[:63], "shorter than its header"),
            (frame_of(b"\x05123456", b"\x05123456"), "2 segments, not 1"),
            (frame_of(b"\x05123456", count=0), "0 segments"),
            (frame_of(b"\x05123456", count=0xFFFFFFFF), "segments, not 1"),
            (frame_of(b""), "do not ascend"),
            (struct.pack("<16I", 1, 60, *[0] * 14) + b"\x05123456", "do not ascend"),
            (struct.pack("<16I", 1, 2**32 - 2, *[0] * 14) + b"\x05123456", "do not ascend"),
            (frame_of(b"\x0412345"), "gives 5 bytes, not 6"),
            (frame_of(b"\x0412345\x05"), "is cut off|gives 5 bytes"),
            (frame_of(b"\x0612345"), "cut off"),
            (frame_of(b"\xfb"), "cut off"),
            (frame_of(b"\x05123456" + b"\x81a" * 100), "goes on for 200 bytes"),
        ],
    )
    def test_refuses(self, frame, says):
        with pytest.raises(DecodeFailed, match=says) as caught:
            rle.decode(frame, (2, 3), "u1")
        assert "\n" not in str(caught.value)

    def test_two_segments_that_overlap(self):
        frame = struct.pack("<16I", 2, 66, 64, *[0] * 13) + b"\x05123456" * 2
        with pytest.raises(DecodeFailed, match="ascend"):
            rle.decode(frame, (2, 3), "u2")
