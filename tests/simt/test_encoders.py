"""The kernels that encode, thread by thread on the CPU: the bytes of references, under every schedule, and refusals."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from gpuenc.cpu import rle as cpu_rle
from gpuenc.cuda import jpeg_lossless, packed, rle
from gpuenc.errors import CodecError
from tests.simt import encoders, references
from tests.simt.encoders import CONTENTS, SHAPES, encoded, wanted
from tests.simt.shim import SCHEDULES, SimtDevice

U1, U2, U4 = np.dtype("u1"), np.dtype("u2"), np.dtype("u4")


def device(seed: int) -> SimtDevice:
    """Return a device of one of the schedules, on which every second grid is too small."""
    return SimtDevice(
        SCHEDULES[seed % 5],
        seed=seed + 1,
        misalign=seed % 16,
        most_blocks=(1 + seed % 3, 2) if seed % 2 else (1 << 31, 1 << 16),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_content_is_encoded_as_the_reference_does(shape: tuple[int, ...]) -> None:
    number = SHAPES.index(shape)
    rng = np.random.default_rng(number)
    kind = (U1, U2)[number % 2]
    encoders.check_jpeg_lossless(device(number), np.stack([content(rng, shape, kind) for content in CONTENTS]))
    # A warp for each row of each plane: of tall images, two contents are enough.
    some, kind = (CONTENTS, (U1, U2, U4)[number % 3]) if shape[0] < 300 else (CONTENTS[number % 8 :][:2], U1)
    encoders.check_rle(device(number), np.stack([content(rng, shape, kind) for content in some]))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_many_chunks_and_many_rows_under_every_schedule(schedule: str) -> None:
    """More chunks, and rows, than a block has threads: the running sums go on from one round to the next."""
    rng = np.random.default_rng(1)
    on = SimtDevice(schedule)
    encoders.check_jpeg_lossless(
        on, encoders.ones(rng, (1, 9, 65500), U2) if schedule == "warp-greedy" else encoders.ones(rng, (1, 3, 2300), U2)
    )
    encoders.check_rle(on, rng.integers(0, 3, (2, 530, 7)).astype(np.uint8))


def test_rows_of_any_width() -> None:
    """Up to 8192 columns a block has eight rows, at 65535 one."""
    rng = np.random.default_rng(2)
    for columns in (8191, 8192, 8193, 16385, 32769, 65535):
        batch = np.stack([content(rng, (2, columns), U1) for content in (encoders.runs, encoders.smooth)])
        encoders.check_rle(device(columns), batch)


def test_literals_that_begin_with_a_word_and_pairs_where_a_packet_is_full() -> None:
    rng = np.random.default_rng(4)
    for content in (encoders.word_edges, encoders.literals):
        encoders.check_rle(device(4), content(rng, (1, 40, 420), U1))


@pytest.mark.parametrize("dtype", [U1, U2, U4], ids=str)
def test_planes_are_read_where_they_lie(dtype: np.dtype) -> None:
    rng = np.random.default_rng(3)
    encoders.check_rle(SimtDevice(), encoders.batch_of(rng, (5, 70, 3), dtype), planar=True)


def test_negative_samples_are_whole_cells() -> None:
    batch = np.arange(-600, 600, dtype=np.int16).reshape(1, 30, 40)
    assert encoded(jpeg_lossless.measure, SimtDevice(), batch) == [references.jpeg_lossless(batch[0])]
    assert encoded(rle.measure, SimtDevice(), batch) == [references.rle(batch[0])]


# Against other people's encoders.


def real_images() -> list[np.ndarray]:
    """Return images of pydicom's own test data, as whole cells: a CT, signed; a grey scale of 8 bits; colours."""
    ct = dcmread(get_testdata_file("693_UNCR.dcm", download=False))
    small = dcmread(get_testdata_file("CT_small.dcm", download=False))
    colour = dcmread(get_testdata_file("SC_rgb_small_odd.dcm", download=False))
    grey = dcmread(get_testdata_file("693_UNCR.dcm", download=False)).pixel_array
    cells = np.frombuffer(ct.PixelData, "<u2").reshape(512, 512)
    return [
        cells[150:360, 120:400].copy(),
        np.frombuffer(small.PixelData, "<u2").reshape(128, 128),
        (grey[200:300, 100:350] >> 4).astype(np.uint8),
        colour.pixel_array,
    ]


def entropy_coded(codestream: bytes) -> bytes:
    """Return what follows the scan header."""
    start = codestream.index(b"\xff\xda")
    return codestream[start + 2 + struct.unpack_from(">H", codestream, start + 2)[0] :]


def by_libjpeg_turbo(samples: np.ndarray) -> bytes:
    colour = {"colorspace": "RGB", "outcolorspace": "RGB"} if samples.ndim == 3 else {}
    bits = 8 * samples.itemsize
    return bytes(imagecodecs.jpeg8_encode(samples, lossless=True, predictor=1, bitspersample=bits, **colour))


@pytest.mark.parametrize("number", range(4))
def test_real_images(number: int) -> None:
    image = real_images()[number]
    [made] = encoded(jpeg_lossless.measure, SimtDevice("random"), image[None])
    assert made == references.jpeg_lossless(image)
    assert entropy_coded(made) == entropy_coded(by_libjpeg_turbo(image))
    encoders.check_rle(SimtDevice("warp-greedy reverse"), image[None])


@pytest.mark.parametrize("dtype", [U1, U2], ids=str)
def test_the_references_entropy_coded_data_is_that_of_libjpeg_turbo(dtype: np.dtype) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shape = SHAPES[seed % len(SHAPES)]
        samples = CONTENTS[seed % len(CONTENTS)](rng, shape, dtype)
        codestream = references.jpeg_lossless(samples)
        assert entropy_coded(codestream) == entropy_coded(by_libjpeg_turbo(samples)), (shape, seed)
        np.testing.assert_array_equal(imagecodecs.jpeg8_decode(codestream).reshape(shape), samples)
        np.testing.assert_array_equal(imagecodecs.jpegsof3_decode(codestream).reshape(shape), samples)


def test_codes_that_would_have_17_bits() -> None:
    """The whole tree of T.81 K.2 in one line, 17 deep: K.3 has to shorten it, as libjpeg-turbo does."""
    for seed in range(3):
        samples = encoders.fibonacci(np.random.default_rng(seed), (70, 100), U2)
        codestream = references.jpeg_lossless(samples)
        assert list(codestream[codestream.index(b"\xff\xc4") + 5 :][:16]) == [1] * 14 + [0, 3]
        assert entropy_coded(codestream) == entropy_coded(by_libjpeg_turbo(samples))
        encoders.check_jpeg_lossless(device(seed), samples[None])


@pytest.mark.parametrize("dtype", [U1, U2, U4], ids=str)
def test_the_reference_writes_no_more_than_imagecodecs_and_comes_back(dtype: np.dtype) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = SHAPES[seed % len(SHAPES)]
        samples = CONTENTS[seed % len(CONTENTS)](rng, shape, dtype)
        frame = references.rle(samples)
        assert len(frame) <= len(cpu_rle.encode(samples)), (shape, seed)
        np.testing.assert_array_equal(cpu_rle.decode(frame, shape, dtype), samples)


BY_GDCM = """
import sys
import numpy as np
from pydicom.pixels.encoders import RLELosslessEncoder
image = np.load(sys.argv[1])
bits = 8 * image.itemsize
print(len(RLELosslessEncoder.encode(
    image, encoding_plugin="gdcm", rows=image.shape[0], columns=image.shape[1], samples_per_pixel=1,
    bits_allocated=bits, bits_stored=bits, pixel_representation=0, photometric_interpretation="MONOCHROME2",
    number_of_frames=1,
)))
"""


@pytest.mark.parametrize("number", range(3))
def test_the_reference_writes_no_more_than_gdcm(tmp_path: Path, number: int) -> None:
    """gdcm runs in a process of its own, which it sometimes ends."""
    if importlib.util.find_spec("gdcm") is None:
        pytest.skip("python-gdcm is not installed")
    image = real_images()[number]
    np.save(tmp_path / "image.npy", image)
    command = [sys.executable, "-c", BY_GDCM, str(tmp_path / "image.npy")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not run.returncode, run.stderr
    assert len(references.rle(image)) <= int(run.stdout)


def shortest_row(row: bytes) -> int:
    """Return the bytes of the shortest PackBits of `row`, by trying all."""
    least = [0] * (len(row) + 1)
    for start in reversed(range(len(row))):
        run = next((end for end in range(start, len(row)) if row[end] != row[start]), len(row)) - start
        literal = (1 + count + least[start + count] for count in range(1, min(128, len(row) - start) + 1))
        repeated = (2 + least[start + count] for count in range(2, min(128, run) + 1))
        least[start] = min(*literal, *repeated, 1 << 30)
    return least[0]


def test_rows_are_as_short_as_they_can_be_but_for_ties_of_long_runs() -> None:
    rng = np.random.default_rng(5)
    more = total = 0
    for _ in range(150):
        row = bytes(encoders.runs(rng, (1, int(rng.integers(2, 330))), U1)[0])
        more += len(references.pack_row(row)) - shortest_row(row)
        total += len(row)
    assert more < total / 1000


# Bounds that are known before a launch, and what happens where they do not hold.


def test_no_frame_exceeds_what_is_reserved_for_it() -> None:
    for seed in range(90):
        rng = np.random.default_rng(seed)
        shape = SHAPES[seed % len(SHAPES)]
        for kind in (U1, U2):
            samples = CONTENTS[seed % len(CONTENTS)](rng, shape, kind)
            assert len(references.rle(samples)) <= rle.most_bytes(wanted(shape, kind))
            code = entropy_coded(references.jpeg_lossless(samples))[:-2].replace(b"\xff\x00", b"\xff")
            assert len(code) <= 4 * jpeg_lossless._scratch_words(samples.size, 8 * kind.itemsize)


def test_the_longest_row_of_packbits_is_what_is_reserved() -> None:
    for columns in (1, 127, 128, 129, 256, 257):
        row = (np.arange(columns) % 251).astype(np.uint8)[None]
        assert len(references.rle(row)) == rle.most_bytes(wanted(row.shape, U1))


@pytest.mark.parametrize("room", [0.0, 0.5])
def test_codestreams_that_need_more_room_are_written_once_more(monkeypatch: pytest.MonkeyPatch, room: float) -> None:
    monkeypatch.setattr(jpeg_lossless, "_ROOM", room)
    batch = encoders.noise(np.random.default_rng(6), (5, 40, 50), U2)
    on = SimtDevice()
    encoders.check_jpeg_lossless(on, batch)
    assert on.launched.count("jpeg_lossless_stuff") == 2
    assert on.launched.count("jpeg_lossless_count_16") == 1


def test_code_that_does_not_fit_its_scratch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_lossless, "_scratch_words", lambda samples, bits: 800)
    rng = np.random.default_rng(7)
    batch = np.stack([content(rng, (40, 50), U2) for content in (encoders.flat, encoders.noise, encoders.flat)])
    one, two, three = encoded(jpeg_lossless.measure, SimtDevice(), batch)
    assert isinstance(two, CodecError)
    assert two.code == "kernel-refused"
    assert "frame 1 " in str(two)
    assert [one, three] == [references.jpeg_lossless(batch[0]), references.jpeg_lossless(batch[2])]


@pytest.mark.parametrize(
    ("codec", "lie"),
    [
        *((jpeg_lossless, lie) for lie in ({"rows": 0}, {"columns": 0}, {"rows": 65536}, {"columns": 65536})),
        (jpeg_lossless, {"samples": 5}),
        *((rle, lie) for lie in ({"rows": 0}, {"rows": 65536}, {"columns": 65536}, {"samples": 8}, {"samples": 0})),
    ],
)
def test_a_size_that_cannot_be_is_refused_by_the_kernels_themselves(codec: ModuleType, lie: dict[str, int]) -> None:
    """Nothing is read or written beyond the frames that are there."""
    on = SimtDevice()
    samples = on.put(np.zeros((2, 2, 3), np.uint16))
    results = packed.collect(on, codec.measure(on, samples, replace(wanted((2, 3), U2), **lie)))
    assert [result.code for result in results] == ["kernel-refused"] * 2


@pytest.mark.parametrize(
    ("module", "change", "words"),
    [
        (jpeg_lossless, {"precision": 12}, "whole cells"),
        (jpeg_lossless, {"cell_bits": 32, "precision": 32}, "whole cells"),
        (jpeg_lossless, {"raw": True}, "whole cells"),
        (jpeg_lossless, {"samples": 2}, "1 or 3"),
        (jpeg_lossless, {"rows": 65536}, "JPEG has no images"),
        (jpeg_lossless, {"rows": 0}, "JPEG has no images"),
        (jpeg_lossless, {"rows": 65535, "columns": 65535}, "no frames of"),
        (jpeg_lossless, {"rows": 65535, "columns": 32000}, "no frames of"),
        (rle, {"samples": 5, "cell_bits": 32}, "15 segments"),
        (rle, {"cell_bits": 64}, "8, 16 or 32"),
        (rle, {"columns": 65536}, "no images"),
        (rle, {"rows": 65535, "columns": 65535}, "32 bits"),
    ],
)
def test_what_the_kernels_cannot_is_refused_before(module: ModuleType, change: dict[str, int], words: str) -> None:
    base = wanted((40, 50), U2)
    assert module.refusal(base) == ""
    assert words in module.refusal(replace(base, **change))


def test_places_beyond_the_first_round_of_threads() -> None:
    """More frames than a block has threads, some refused, one that does not fit."""
    on = SimtDevice("random")
    sizes = np.random.default_rng(8).integers(0, 90, 600).astype(np.uint64)
    sizes[[5, 300]] = np.uint64(2 << 32)
    places = on.empty((600, 2), np.uint64)
    room = 100
    on.launch("packed", "place_streams", (1, 1), 256, (on.put(sizes), places, np.uint32(600), np.uint32(room)))
    got = on.download(places)
    bytes_ = sizes & np.uint64(0xFFFFFFFF)
    ends = np.cumsum(bytes_)
    np.testing.assert_array_equal(got[:, 0], ends - bytes_)
    late = (ends > room * 256).astype(np.uint64) * np.uint64(packed.FAULT_BUFFER)
    np.testing.assert_array_equal(got[:, 1], sizes | late << np.uint64(32))
    assert late.any()
    assert not late[:300].any()
