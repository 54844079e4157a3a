"""The HTJ2K reference encoder is what two other code bases decode, and the kernels are what the reference is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file

from gpuenc.coding import Coding
from gpuenc.cuda import htj2k_plan
from gpuenc.cuda.htj2k import Pipeline
from gpuenc.cuda.kernels import read_source
from gpuenc.errors import CodecError
from tests.simt import htj2k
from tests.simt.shim import FLAGS, SCHEDULES, Library, SimtDevice, compiled, own_kernels

SIZES = ((1, 1), (1, 7), (7, 1), (5, 5), (33, 65), (64, 64), (1, 200), (131, 1))
DECODERS: dict[str, Callable[[bytes], NDArray[Any]]] = {
    "OpenJPH": imagecodecs.htj2k_decode,
    "OpenJPEG": imagecodecs.jpeg2k_decode,
}


def require_exact(samples: NDArray[Any], codestream: bytes, what: object) -> None:
    """Decode with both decoders and compare."""
    for name, decode in DECODERS.items():
        back = np.asarray(decode(codestream))
        if name == "OpenJPH" and samples.ndim == 3 and back.shape != samples.shape:
            back = np.moveaxis(back, 0, -1)  # components without a transform come as planes
        back = back.reshape(samples.shape)
        # A precision of 1 comes back as bool or unsigned: what counts are the values.
        assert np.array_equal(back.astype(samples.dtype), samples), (name, what)


def ct() -> NDArray[np.int16]:
    path = get_testdata_file("693_UNCR.dcm", download=False)
    pixels: NDArray[np.int16] = dcmread(str(path)).pixel_array
    return pixels


# The reference encoder.


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("precision", range(1, 17))
def test_the_reference_comes_back_exactly(precision: int, signed: bool) -> None:
    rng = np.random.default_rng([precision, signed])
    for number, shape in enumerate(SIZES):
        for content in htj2k.CONTENTS:
            levels = (number + precision) % 7
            samples = htj2k.image(rng, content, shape, precision, signed)
            codestream = htj2k.encoded(samples, htj2k.coding(shape, precision, signed=signed, levels=levels))
            require_exact(samples, codestream, (shape, content, levels))


@pytest.mark.parametrize("levels", range(7))
def test_the_reference_comes_back_exactly_at_every_level(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for shape in ((97, 130), (97, 130, 3), (20, 70, 3)):
        for precision in (1, 8, 12, 16):
            for content in htj2k.CONTENTS:
                samples = htj2k.image(rng, content, shape, precision, False)
                codestream = htj2k.encoded(samples, htj2k.coding(shape, precision, levels=levels))
                require_exact(samples, codestream, (shape, precision, content))


def test_components_without_a_transform_come_back_exactly() -> None:
    rng = np.random.default_rng(0)
    for levels in (0, 2, 5):
        samples = htj2k.image(rng, "smooth", (40, 50, 3), 10, True)
        wanted = htj2k.coding(samples.shape, 10, signed=True, levels=levels, mct=False)
        require_exact(samples, htj2k.encoded(samples, wanted), levels)


@pytest.mark.parametrize("levels", range(7))
def test_a_real_image_comes_back_exactly(levels: int) -> None:
    for precision in (14, 16):
        require_exact(
            ct(), htj2k.encoded(ct(), htj2k.coding((512, 512), precision, signed=True, levels=levels)), levels
        )


def test_a_mammogram_comes_back_exactly() -> None:
    samples = htj2k.image(np.random.default_rng(1), "smooth", (2500, 2048), 12, False)
    require_exact(samples, htj2k.encoded(samples, htj2k.coding(samples.shape, 12)), "2500 x 2048")


def test_every_codeword_has_been_decoded() -> None:
    """Blocks of every exponent next to every other, until all of both tables was used and came back."""
    rng = np.random.default_rng(2)
    for _ in range(1500):
        shape = (4, 2 * int(rng.integers(50, 320)))
        most, density = int(rng.choice([1, 2, 3, 15])), rng.choice([0.1, 0.3, 0.6, 0.9])
        lone_quads = np.kron(rng.random((2, shape[1] // 2)) < rng.choice([0.2, 1.0]), np.ones((2, 2)))
        exponents = rng.integers(1, most + 1, shape) * (rng.random(shape) < density) * lone_quads.astype(int)
        samples = ((1 << exponents) // 2 * rng.choice([-1, 1], shape)).astype(np.int16)
        require_exact(samples, htj2k.encoded(samples, htj2k.coding(shape, 16, signed=True, levels=0)), exponents)
    used, values_of = np.empty(4096, np.uint8), np.empty(4096, np.uint16)
    htj2k.reference().reference_codewords(htj2k.at(used), htj2k.at(values_of))
    unused = np.flatnonzero((values_of != 0) & (used == 0))
    assert not unused.size, [(int(at) >> 8, int(at) >> 4 & 15, int(at) & 15) for at in unused]


# The kernels.


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_blocks_are_the_reference_s(schedule: str) -> None:
    rng = np.random.default_rng(SCHEDULES.index(schedule))
    for _ in range(2):
        blocks = [htj2k.random_block(rng) for _ in range(32)]
        device = SimtDevice(schedule, seed=int(rng.integers(1, 1 << 32)), misalign=8)
        assert htj2k.kernel_blocks(device, blocks) == [htj2k.coded_block(block) for block in blocks]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_whole_batches_are_the_reference_s(schedule: str) -> None:
    rng = np.random.default_rng(SCHEDULES.index(schedule))
    for number, (shape, precision, signed, levels) in enumerate(
        [
            ((1, 1), 8, False, 0), ((130, 67), 12, False, 5), ((66, 70, 3), 8, False, 3), ((5, 140), 16, True, 2),
            ((140, 3), 7, True, 6), ((30, 31, 3), 16, True, 1), ((65, 65), 1, False, 4),
        ]
    ):  # fmt: skip
        frames = [
            htj2k.image(rng, content, shape, precision, signed) for content in rng.permutation(htj2k.CONTENTS)[:4]
        ]
        most = (int(rng.integers(1, 4)), int(rng.integers(1, 4))) if number % 2 else (1 << 31, 1 << 16)
        device = SimtDevice(schedule, seed=number + 1, misalign=8 * (number % 2), most_blocks=most)
        htj2k.check_batch(device, frames, htj2k.coding(shape, precision, signed=signed, levels=levels), 2 * number)
        assert len(device.launched) == max(1, levels) + 4


def test_a_real_image_and_its_reversal() -> None:
    image = ct()
    made = htj2k.check_batch(SimtDevice(), [image, image[::-1]], htj2k.coding((512, 512), 14, signed=True))
    require_exact(image, made[0], "CT")


def test_more_than_a_warp_of_frames_and_of_blocks() -> None:
    """place_frames takes 32 frames at a time, packet_headers 32 blocks."""
    rng = np.random.default_rng(0)
    frames = [htj2k.image(rng, str(rng.choice(htj2k.CONTENTS)), (9, 5), 10, False) for _ in range(70)]
    htj2k.check_batch(SimtDevice("random"), frames, htj2k.coding((9, 5), 10, levels=1))
    sparse = [htj2k.image(rng, content, (2, 2900), 12, False) for content in ("sparse", "zero", "noise")]
    htj2k.check_batch(SimtDevice(), sparse, htj2k.coding((2, 2900), 12, levels=1))
    sparse = [htj2k.image(rng, "sparse", (400, 500), 8, False)]
    htj2k.check_batch(SimtDevice(), sparse, htj2k.coding((400, 500), 8, levels=0))


def test_many_small_blocks() -> None:
    """Streams that end at every bit of a byte and of a word, MEL in 0xFF among them."""
    rng = np.random.default_rng(0)
    for precision in (3, 9):
        frames = []
        for _ in range(300):
            few = rng.random((11, 14)) < rng.choice([0.01, 0.05, 0.2, 0.8])
            values = np.where(few, rng.integers(0, 1 << precision, (11, 14)), 1 << precision - 1)
            frames.append(values.astype(np.uint8 if precision <= 8 else np.uint16))
        wanted = htj2k.coding((11, 14), precision, levels=0)
        for frame, codestream in zip(frames, htj2k.check_batch(SimtDevice(), frames, wanted), strict=True):
            require_exact(frame, codestream, "small")


def blocks_of_four_samples() -> list[NDArray[np.int8]]:
    """Return all images of 2 x 2 samples from -2 to 2, and a few larger values in each place."""
    values = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 4), -1).reshape(-1, 2, 2)
    large = np.random.default_rng(0).integers(-128, 128, (200, 2, 2))
    return list(np.concatenate([values, large]).astype(np.int8))


def test_every_block_of_four_small_samples() -> None:
    """The shortest segments: MEL and VLC end in the same byte or not, VLC in its first two."""
    frames = blocks_of_four_samples()
    wanted = htj2k.coding((2, 2), 8, signed=True, levels=0)
    for frame, codestream in zip(frames, htj2k.check_batch(SimtDevice(), frames, wanted), strict=True):
        require_exact(frame, codestream, frame)


def frames_that_would_share_0xff() -> list[NDArray[np.int8]]:
    """Return images in whose segments MEL and VLC could end in one byte, were it not 0xFF."""
    first, second = np.zeros((6, 14), np.int8), np.zeros((6, 11), np.int8)
    first[[0, 0, 1, 2], [2, 13, 0, 0]] = -1, -1, 2, -2
    second[[1, 3, 4, 4, 5], [0, 2, 0, 2, 0]] = 1, -1, -2, 2, -1
    return [first[:3], second]


def test_mel_and_vlc_do_not_share_0xff() -> None:
    for frame in frames_that_would_share_0xff():
        wanted = htj2k.coding(frame.shape, 8, signed=True, levels=0)
        [codestream] = htj2k.check_batch(SimtDevice(), [frame], wanted)
        require_exact(frame, codestream, frame)


def frame_of_a_segment_of(size: int) -> NDArray[np.uint8]:
    """Return a frame of 6 bits whose one code block has a segment of `size` bytes."""
    rng = np.random.default_rng(size)
    for _ in range(2000):
        frame = rng.integers(0, int(rng.integers(2, 65)), (18, int(rng.integers(10, 40)))).astype(np.uint8)
        if len(htj2k.coded_block(frame.astype(np.int32) - 32)) == size:
            return frame
    raise AssertionError(f"no segment of {size} bytes")


def test_a_packet_header_that_ends_in_0xff() -> None:
    """One more byte follows it (T.800 B.10.1). Its bits: 1, 1, six zeros and 1, 0, Lblock, and 255 in 8 bits."""
    frame = frame_of_a_segment_of(255)
    [codestream] = htj2k.check_batch(SimtDevice(), [frame], htj2k.coding(frame.shape, 6, levels=0))
    packet = codestream.index(b"\xff\x93") + 2
    assert codestream[packet : packet + 4] == bytes((0b11000000, 0b10111110, 0xFF, 0))
    require_exact(frame, codestream, "header")


def test_a_batch_beyond_the_scratch_memory_goes_in_parts() -> None:
    rng = np.random.default_rng(0)
    wanted = htj2k.coding((20, 30), 9, levels=2)
    frames = [htj2k.image(rng, "noise", (20, 30), 9, False) for _ in range(7)]
    frame_bytes = htj2k_plan.plan(wanted).frame_bytes
    for scratch_bytes, sets in ((1, 7), (3 * frame_bytes, 3), (7 * frame_bytes, 1)):
        device = SimtDevice()
        made = Pipeline(device, scratch_bytes).encode(device.put(np.stack(frames)), wanted)
        assert made == [htj2k.encoded(frame, wanted) for frame in frames]
        assert len(device.launched) == 6 * sets


# What the kernels cannot do is a fault of its frame, and no other's.


@pytest.mark.parametrize("levels", [0, 1, 3])
@pytest.mark.parametrize(("signed", "value"), [(False, 1024), (True, 512), (True, -513)])
def test_a_sample_outside_the_precision_is_refused(levels: int, signed: bool, value: int) -> None:
    rng = np.random.default_rng(0)
    wanted = htj2k.coding((70, 130), 10, signed=signed, levels=levels)
    frames = [htj2k.image(rng, "noise", (70, 130), 10, signed) for _ in range(3)]
    frames[1][69, 129] = value
    device = SimtDevice()
    made = Pipeline(device, 1 << 30).encode(device.put(np.stack(frames)), wanted)
    assert [made[0], made[2]] == [htj2k.encoded(frame, wanted) for frame in (frames[0], frames[2])]
    assert isinstance(made[1], CodecError)
    assert made[1].code == "kernel-refused"
    assert "outside its precision" in str(made[1])


def test_a_batch_of_refused_frames_alone() -> None:
    wanted = htj2k.coding((4, 4), 9, levels=1)
    device = SimtDevice()
    made = Pipeline(device, 1 << 30).encode(device.put(np.full((2, 4, 4), 512, np.uint16)), wanted)
    assert [getattr(one, "code", one) for one in made] == ["kernel-refused"] * 2


@pytest.mark.parametrize("bits", [1, 7, 19])
def test_a_coefficient_beyond_its_bit_planes_is_refused(bits: int) -> None:
    block = np.zeros((64, 64), np.int32)
    block[63, 63] = -(1 << bits) + 1
    assert htj2k.kernel_blocks(SimtDevice(), [block], kmax=bits) == [htj2k.coded_block(block)]
    block[63, 63] -= 1
    with pytest.raises(OverflowError):
        htj2k.kernel_blocks(SimtDevice(), [block], kmax=bits)


def check_what_a_refused_block_leaves_behind(library: Library) -> None:
    """Blocks with long MEL that end in rows without significance and then a fault, and the next one of their warp."""
    rng = np.random.default_rng(0)
    for rows in range(12, 36, 2):
        block = np.zeros((64, 64), np.int32)
        block[:rows] = (rng.random((rows, 64)) < 0.01) * 3
        block[63, 63] = 1 << 9
        device = SimtDevice(most_blocks=(1, 1), library=library)
        with pytest.raises(OverflowError):
            htj2k.kernel_blocks(device, [block] * 8, kmax=9)


def test_a_refused_block_leaves_nothing_behind() -> None:
    check_what_a_refused_block_leaves_behind(own_kernels())


def test_a_codestream_beyond_its_room_is_refused() -> None:
    rng = np.random.default_rng(0)
    wanted = htj2k.coding((50, 50), 8, levels=1)
    frames = [htj2k.image(rng, content, (50, 50), 8, False) for content in ("middle", "noise", "middle")]
    plan = htj2k_plan.plan(wanted)
    layout = plan.layout.copy()
    plan.layout["frame_output_bytes"] = 512
    try:
        device = SimtDevice()
        made = Pipeline(device, 1 << 30).encode(device.put(np.stack(frames)), wanted)
    finally:
        plan.layout[:] = layout
    assert [made[0], made[2]] == [htj2k.encoded(frames[0], wanted)] * 2
    assert "more bytes" in str(made[1])


# The bounds that slots are made of, and the structures.


def worst_mel_bits(events: int) -> int:
    """Return the most bits of MEL for so many events, by trying both outcomes in every state."""
    exponents = (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5)
    best = {(0, 0): 0}
    for _ in range(events):
        after: dict[tuple[int, int], int] = {}
        for (state, run), bits in best.items():
            one = (max(0, state - 1), 0), bits + 1 + exponents[state]
            full = run + 1 == 1 << exponents[state]
            zero = ((min(12, state + 1), 0), bits + 1) if full else ((state, run + 1), bits)
            for key, total in (one, zero):
                after[key] = max(after.get(key, 0), total)
        best = after
    return max(bits + (run > 0) for (_, run), bits in best.items())


def test_mel_has_room_for_the_worst() -> None:
    for across, down in ((32, 32), (1, 1), (32, 1), (3, 7)):
        events = across * down + (across + 1) // 2
        worst = -(-worst_mel_bits(events) * 16 // 15 // 8) + 1
        vlc = -(-(12 + 15 * across * down + 15) * 16 // 15 // 8) + 1
        bound = int(htj2k_plan._mel_and_vlc_bytes(np.array([across * down]))[0])
        assert worst <= htj2k_plan.MEL_BYTES - 4
        assert vlc <= htj2k_plan.VLC_BYTES - 4
        assert worst + vlc <= bound, (across, down, worst, vlc, bound)


def test_segments_of_extremes_fit_their_bounds() -> None:
    rng = np.random.default_rng(0)
    for columns, rows in ((64, 64), (1, 1), (2, 64), (63, 5), (17, 33)):
        quads = np.array([-(-columns // 2) * -(-rows // 2)])
        for kmax in (3, 9, 20):
            high = (1 << kmax) - 1
            magsgn = int(htj2k_plan._magsgn_bytes(quads, np.array([kmax]))[0])
            rest = int(htj2k_plan._mel_and_vlc_bytes(quads)[0])
            for values in (rng.choice([high, -high], (rows, columns)), np.full((rows, columns), -high)):
                segment = htj2k.coded_block(values.astype(np.int32))
                scup = segment[-1] << 4 | segment[-2] & 15
                assert len(segment) - scup <= magsgn - 4
                assert scup <= rest


def worst_coefficients(bits: int, levels: int) -> Iterable[tuple[int, int]]:
    """Yield the largest magnitude that any image of `bits` bits gives in LL, HL and HH of `levels` levels, and Kmax."""
    size = 32 << levels if levels < 6 else 6 << levels
    place = size >> levels + 1
    # The response of the place to every sample is the transpose of what one analysis does, sample by sample.
    impulses = np.eye(size, dtype=np.int64) << 24
    for _ in range(levels):
        low, high = _analysed(impulses)
        impulses = low
    high_bits = bits + htj2k_plan.guard_bits(bits) - 1
    for one, other, kmax in ((low, low, high_bits), (low, high, high_bits + 1), (high, high, high_bits + 2)):
        gain = np.abs(one[:, place]).sum() / (1 << 24) * (np.abs(other[:, place]).sum() / (1 << 24))
        # Each lifting step rounds by less than 1, which later steps may add up.
        yield int(np.ceil(gain * (1 << bits - 1))) + 2, kmax


def _analysed(lines: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return low- and high-pass of periodic lines, so that borders do not matter."""
    even, odd = lines[:, ::2], lines[:, 1::2]
    high = odd - (even + np.roll(even, -1, 1)) / 2
    low = even + (high + np.roll(high, 1, 1)) / 4
    return low, high


@pytest.mark.parametrize("bits", range(1, 18))
def test_guard_bits_suffice_for_the_worst_image(bits: int) -> None:
    for levels in range(1, 9):
        for magnitude, kmax in worst_coefficients(bits, levels):
            assert magnitude < 1 << kmax, (levels, magnitude, kmax)


def test_few_bits_need_the_third_guard_bit() -> None:
    """Noise of one bit: with two guard bits LL would overflow (31 of 900 such images did), with three it is far off."""
    rng = np.random.default_rng(4)
    most = 0
    for _ in range(300):
        plane = rng.integers(-1, 1, (97, 130)).astype(np.int32)
        most = max(most, int(np.abs(htj2k.wavelet(plane, 6)).max()))
    assert 4 <= most < 1 << 1 + 3 - 1


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("Layout", htj2k_plan.LAYOUT), ("Level", htj2k_plan.LEVEL), ("CodeBlock", htj2k_plan.CODE_BLOCK),
        ("Packet", htj2k_plan.PACKET), ("Band", htj2k_plan.BAND), ("BlockBytes", htj2k_plan.BLOCK_BYTES),
        ("PacketBytes", htj2k_plan.PACKET_BYTES), ("FramePlace", htj2k_plan.FRAME_PLACE),
    ],
)  # fmt: skip
def test_structures_are_those_of_the_kernels(name: str, dtype: np.dtype[Any]) -> None:
    assert dtype.names is not None
    assert dtype.fields is not None
    offsets = ", ".join(f"offsetof({name}, {field})" for field in dtype.names)
    constants = "FAULT_VALUES, FAULT_MAGNITUDE, FAULT_ROOM, MEL_BYTES, VLC_BYTES"
    text = (
        f'#include <cstddef>\n{read_source("htj2k.cuh")}\nextern "C" void layout(u64* out) {{ const u64 all[] = '
        f"{{{offsets}, sizeof({name}), {constants}}}; for (u64 each : all) *out++ = each; }}\n"
    )
    found = np.empty(len(dtype.names) + 6, np.uint64)
    ctypes.CDLL(str(compiled(text, (*FLAGS, "-Wno-unused-variable")))).layout(htj2k.at(found))
    expected = [offset for _, offset in (dtype.fields[field][:2] for field in dtype.names)]
    assert found.tolist() == [*expected, dtype.itemsize, 1, 2, 4, htj2k_plan.MEL_BYTES, htj2k_plan.VLC_BYTES]


def test_the_markers_are_what_was_asked_for() -> None:
    """What the parser of gpuenc finds, which is not the writer."""
    from gpuenc.codestream import check, parse
    from gpuenc.coding import coding
    from gpuenc.frames import FrameFormat
    from gpuenc.syntaxes import find
    from gpuenc.targets import target

    for name, rows, columns, samples, stored, signed in (
        ("htj2k-lossless", 70, 50, 1, 12, False), ("htj2k-lossless", 3, 9, 3, 8, False),
        ("htj2k-lossless-rpcl", 64, 65, 1, 16, True), ("htj2k-lossless-rpcl", 1, 300, 1, 9, True),
        ("htj2k-lossless-rpcl", 129, 20, 3, 8, False), ("htj2k-lossless-rpcl", 64, 64, 1, 1, False),
    ):  # fmt: skip
        chosen = target(find(name))
        fmt = FrameFormat(
            rows, columns, samples, 8 if stored <= 8 else 16, stored, signed, "RGB" if samples == 3 else "MONOCHROME2"
        )
        wanted: Coding = coding(chosen, fmt)
        frame = htj2k.image(np.random.default_rng(0), "noise", wanted.shape, stored, signed)
        device = SimtDevice()
        [codestream] = Pipeline(device, 1 << 30).encode(device.put(frame[None]), wanted)
        assert isinstance(codestream, bytes)
        check(codestream, chosen.syntax, wanted)
        info = parse(codestream, chosen.syntax.family)
        assert (info.precision, info.signed, info.levels) == (stored, signed, wanted.levels)
        assert (info.progression, info.ht, info.cap, info.tlm, info.tlm_matches) == ("RPCL", True, True, True, True)
        assert b"\xff\x64" not in codestream[: codestream.index(b"\xff\x93")]  # no COM
        require_exact(frame, codestream, name)
