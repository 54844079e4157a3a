"""Any frame by its number: what it holds, what is read for it, and what bad files get."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import pixel_array

import gpuenc
from gpuenc.cuda import probe
from gpuenc.errors import CODES, DecodeFailed, DeviceUnavailable, IndexMismatch, InvalidOption, SourceError
from gpuenc.pipelines import reading, records
from tests import made
from tests.dicom.files import named, readable

pytestmark = pytest.mark.filterwarnings("ignore:.*have no frame in the dataset")

# Lossy: another inverse DCT. The reference has none for the other.
LOSSY = {"JPGExtended.dcm"}
NOT_DECODED_BY_PYDICOM = {"JPEG-lossy.dcm", "SC_rgb_jpeg.dcm", "image_dfl.dcm", "OT-PAL-8-face.dcm"}
CORRUPT = {"JPEG2000-embedded-sequence-delimiter.dcm"}


def htj2k(samples, *, parts=1):
    """Return one codestream, cut into so many fragments of even length."""
    codestream = imagecodecs.htj2k_encode(samples, reversible=True, bitspersample=12)
    codestream += b"\0" * (len(codestream) % 2)
    step = len(codestream) // parts & ~1
    cuts = [*(step * part for part in range(parts)), len(codestream)]
    return [codestream[a:b] for a, b in pairwise(cuts)]


def cine(path, count=5, table="basic", parts=1, **options):
    """Write `count` frames of HTJ2K and return them."""
    samples = made.noise((count, 24, 32), "u2", 12)
    frames = [htj2k(one, parts=parts) for one in samples]
    shape = {"rows": 24, "columns": 32, "allocated": 16, "stored": 12, "syntax": made.HTJ2K}
    made.compressed(frames, table, **shape, **options).write(path)
    return samples


@pytest.mark.parametrize("path", readable(), ids=lambda path: path.name)
def test_real_frames_are_those_of_pydicom(path):
    if path.name in CORRUPT:
        with gpuenc.FrameDataset(path) as frames, pytest.raises(DecodeFailed):
            frames[0]
        return
    with gpuenc.FrameDataset(path) as frames:
        for number in {0, len(frames) // 2, len(frames) - 1}:
            image = frames[number]["image"]
            if path.name in NOT_DECODED_BY_PYDICOM:
                assert image.size
                continue
            expected = pixel_array(path, index=number, raw=True)
            bits = frames.describe(number)["bits_stored"]
            if image.dtype.kind == "u" and bits < 8 * image.dtype.itemsize:
                expected = expected & ((1 << bits) - 1)
            assert image.shape == expected.shape
            if path.name in LOSSY:
                assert np.abs(image.astype(int) - expected).max() <= 1
            else:
                assert np.array_equal(image, expected)


RGB = made.noise((3, 6, 4, 3), "u1")
WIDE = made.noise((3, 5, 7), "u2")
SIGNED = made.noise((3, 5, 7), "i2", 12)
TWELVE = made.noise((3, 5, 7), "u2", 12)
BITS = made.noise((5, 3, 7), "u1", 1)
BYTES = made.noise((3, 5, 7), "u1")
OVERLAY = made.noise((3, 5, 7), "u1", 1)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (made.of(WIDE), WIDE),
        (made.of(WIDE, syntax=made.BIG), WIDE),
        (made.of(WIDE, syntax=made.IMPLICIT), WIDE),
        (made.of(WIDE, syntax=made.DEFLATED), WIDE),
        (made.of(SIGNED, stored=12), SIGNED),
        (made.shifted(SIGNED, 15), SIGNED),
        (made.shifted(TWELVE, 13), TWELVE),
        (made.embedded_overlays(TWELVE, {14: OVERLAY}), TWELVE),
        (made.of(RGB), RGB),
        (made.of(RGB, planar=1), RGB),
        (made.segmentation(BITS), BITS),  # 21 bits a frame: none but the first begins on a byte
        (made.segmentation(BITS, syntax=made.BIG, pixel_vr="OW"), BITS),
        (made.of(made.noise((3, 5, 7), "u4"), photometric="MONOCHROME2"), made.noise((3, 5, 7), "u4")),
    ],
)  # fmt: skip
def test_known_samples_come_back(tmp_path, image, expected):
    with gpuenc.FrameDataset(image.write(tmp_path / "a.dcm")) as frames:
        assert len(frames) == len(expected)
        for number in reversed(range(len(expected))):
            assert np.array_equal(frames[number]["image"], expected[number])


def test_swapped_words_are_put_right(tmp_path):
    cells = BYTES.reshape(-1)
    words = np.append(cells, np.zeros(cells.size % 2, "u1")).view("u2").byteswap().tobytes()
    image = replace(made.of(BYTES, syntax=made.BIG), pixel_vr="OW", pixels=words)
    # `made` swaps OW values of elements, not Pixel Data, so the bytes are those given here.
    with gpuenc.FrameDataset(image.write(tmp_path / "a.dcm")) as frames:
        assert np.array_equal(np.stack([one["image"] for one in frames]), BYTES)


def test_subsampled_chroma_is_given_to_both_pixels(tmp_path):
    pairs = made.noise((2, 4, 3, 4), "u1")
    with gpuenc.FrameDataset(made.ybr_422(pairs).write(tmp_path / "a.dcm")) as frames:
        image = frames[1]["image"]
    assert np.array_equal(image[..., 0], pairs[1][..., :2].reshape(4, 6))
    assert np.array_equal(image[:, ::2, 1:], pairs[1][..., 2:])
    assert np.array_equal(image[:, 1::2, 1:], pairs[1][..., 2:])


@pytest.mark.parametrize(("table", "parts"), [("basic", 1), ("basic", 3), ("empty", 1), ("empty", 2), ("extended", 1)])
def test_every_kind_of_offset_table_finds_frames(tmp_path, table, parts):
    samples = cine(tmp_path / "a.dcm", table=table, parts=parts)
    with gpuenc.FrameDataset(tmp_path / "a.dcm") as frames:
        for number in (4, 0, 2):
            assert np.array_equal(frames[number]["image"], samples[number])


@pytest.mark.parametrize("compressed", [False, True])
def test_only_the_frames_own_bytes_are_read(tmp_path, monkeypatch, compressed):
    if compressed:
        samples = cine(tmp_path / "a.dcm", parts=2)
        size = sum(map(len, htj2k(samples[3], parts=2)))
    else:
        samples, size = WIDE, WIDE[0].nbytes
        made.of(WIDE).write(tmp_path / "a.dcm")
    number = len(samples) - 2
    with gpuenc.FrameDataset(tmp_path / "a.dcm") as frames:
        seen = []
        real = os.pread
        monkeypatch.setattr(os, "pread", lambda *asked: seen.append(asked[1]) or real(*asked))
        monkeypatch.setattr(reading, "DicomFile", None)
        assert np.array_equal(frames[number]["image"], samples[number])
    assert sum(seen) == size


def test_batches_are_in_the_order_asked_for(tmp_path):
    samples = cine(tmp_path / "a.dcm")
    for threads in (1, 3):
        with gpuenc.FrameDataset(tmp_path, threads=threads) as frames:
            batch = frames.__getitems__([3, -1, 0, 3])
            assert [one["index"] for one in batch] == [3, 4, 0, 3]
            for one, number in zip(batch, (3, 4, 0, 3), strict=True):
                assert np.array_equal(one["image"], samples[number])
            for number in (5, -6):
                with pytest.raises(IndexError):
                    frames[number]
            assert len(list(frames)) == 5


def test_arrays_are_handed_over_without_a_copy(tmp_path):
    cine(tmp_path / "a.dcm")
    made.of(WIDE).write(tmp_path / "b.dcm")
    made.of(WIDE, syntax=made.DEFLATED).write(tmp_path / "c.dcm")
    deflated = [[imagecodecs.deflate_encode(BYTES[0].tobytes(), raw=True)]]
    deflated[0][0] += b"\0" * (len(deflated[0][0]) % 2)
    made.compressed(deflated, rows=5, columns=7, syntax=made.DEFLATED_FRAME).write(tmp_path / "d.dcm")
    with gpuenc.FrameDataset(tmp_path) as frames:
        for sample in frames:
            there = np.from_dlpack(sample["image"])
            there[0, 0] ^= 1  # as a framework may write to it
            assert there[0, 0] == sample["image"][0, 0]


def test_samples_say_where_they_are_from(tmp_path):
    samples = made.noise((2, 4, 4), "u2", 12)
    elements = (made.Element(0x00080060, "CS", "MR"), made.Element(0x00180050, "DS", "2.5"),
                made.Element(0x00280030, "DS", "0.5\\0.25"), made.Element(0x00200013, "IS", "7"))  # fmt: skip
    image = made.of(samples, stored=12)
    replace(image, elements=elements).write(tmp_path / "a.dcm")
    replace(image, without=frozenset([0x00100010])).write(tmp_path / "b.dcm")
    keywords = ("Modality", "SliceThickness", "PixelSpacing", "InstanceNumber", "PatientName")
    with gpuenc.FrameDataset(tmp_path, columns=keywords) as frames:
        told = frames[1]
        assert {key: told[key] for key in ("index", "source", "frame")} == {
            "index": 1, "source": str(tmp_path / "a.dcm"), "frame": 1,
        }  # fmt: skip
        assert [told[key] for key in keywords] == ["MR", 2.5, [0.5, 0.25], 7, "SECRET^PATIENT"]
        assert [frames[3][key] for key in keywords] == ["OT", None, None, None, None]
        about = frames.describe(2)
        assert (about["source"], about["frame"], about["rows"], about["photometric"]) == (
            str(tmp_path / "b.dcm"), 0, 4, "MONOCHROME2",
        )  # fmt: skip
        assert "image" not in about


@pytest.mark.parametrize("columns", [("NoSuchKeyword",), ("PixelData",), ("ReferencedImageSequence",)])
def test_what_can_be_no_column_is_refused(tmp_path, columns):
    made.of(WIDE).write(tmp_path / "a.dcm")
    with pytest.raises(InvalidOption):
        gpuenc.FrameDataset(tmp_path, columns=columns)


def test_bad_files_are_named_and_the_rest_is_read(tmp_path):
    cine(tmp_path / "good.dcm")
    whole = (tmp_path / "good.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-300])
    (tmp_path / "notes.txt").write_text("no image")
    replace(made.of(WIDE), syntax="1.2.3.4.5").write(tmp_path / "private.dcm")
    with pytest.warns(
        UserWarning, match=r"2 files have no frame in the dataset: truncated \(1\), unknown-syntax \(1\)"
    ):
        frames = gpuenc.FrameDataset(tmp_path)
    assert len(frames) == 5
    codes = {os.path.basename(path): code for path, code, _ in frames.left_out}
    assert codes == {"cut.dcm": "truncated", "notes.txt": "not-dicom", "private.dcm": "unknown-syntax"}
    assert set(codes.values()) <= set(CODES)
    frames.close()


def test_a_corrupt_frame_is_named_and_costs_no_other(tmp_path):
    samples = cine(tmp_path / "a.dcm")
    frames = gpuenc.FrameDataset(tmp_path / "a.dcm")
    record, _ = frames._index.find(0)
    at, count = record.pieces_of(2)[0]
    data = bytearray((tmp_path / "a.dcm").read_bytes())
    data[at + 60 : at + count - 2] = bytes(count - 62)
    (tmp_path / "a.dcm").write_bytes(data)
    with gpuenc.FrameDataset(tmp_path / "a.dcm") as frames:
        with pytest.raises(DecodeFailed, match=r"a\.dcm, frame 2: ") as caught:
            frames.__getitems__([1, 2, 3])
        assert caught.value.code == "decode-failed"
        assert "SECRET" not in str(caught.value)
        assert np.array_equal(frames[3]["image"], samples[3])


def test_a_file_that_ends_inside_a_frame_is_truncated(tmp_path):
    """As on a file system that tells neither size nor time truly."""
    cine(tmp_path / "a.dcm")
    record = records.look(str(tmp_path / "a.dcm"), {})
    at, _ = record.pieces_of(4)[0]
    os.truncate(tmp_path / "a.dcm", at + 10)
    now = records.stat(record.seen.path)
    files = reading.Files()
    with pytest.raises(SourceError) as caught:
        files.frame(replace(record, seen=now), 4)
    assert caught.value.code == "truncated"
    with pytest.raises(IndexMismatch):
        reading.Files().frame(record, 4)
    files.close()


def test_sources_without_a_frame_are_an_error(tmp_path):
    for sources in (tmp_path, tmp_path / "gone", []):
        with pytest.raises(SourceError):
            gpuenc.FrameDataset(sources)


@pytest.mark.parametrize("number", [1.5, np.float64(1.7), "1", None, slice(0, 2), [0, 1], (0, 1), np.array([0, 1])])
def test_numbers_of_frames_are_integers(tmp_path, number):
    with gpuenc.FrameDataset(made.of(WIDE).write(tmp_path / "a.dcm")) as frames:
        for ask in (frames.__getitem__, frames.describe, lambda one: frames.__getitems__([0, one])):
            with pytest.raises(TypeError, match=r"__getitems__\(\[0, 1\]\) returns several"):
                ask(number)
        for each in (np.int64(1), np.uint8(1), np.array(1), -2):
            assert frames[each]["index"] == 1
            assert type(frames[each]["index"]) is int


@pytest.mark.parametrize(
    ("sources", "options", "match"),
    [
        (b"x", {}, "sources are one or several paths, not bytes"),
        (None, {}, "sources are one or several paths, not NoneType"),
        ([3], {}, "a source is a path, not int"),
        ([b"x"], {}, "a source is a path, not bytes"),
        ("a\0b", {}, "zero byte"),
        (".", {"index": 3}, "index is a path, not int"),
        (".", {"size": [25, 26, 27]}, "size must be"),
        (".", {"columns": "Modalities"}, "'Modalities' is no keyword"),
    ],
)
def test_arguments_that_are_none(tmp_path, monkeypatch, sources, options, match):
    made.of(WIDE).write(tmp_path / "a.dcm")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption, match=match):
        gpuenc.FrameDataset(sources, **options)


def test_an_index_that_is_a_folder(tmp_path):
    made.of(WIDE).write(tmp_path / "a.dcm")
    (tmp_path / "folder").mkdir()
    for on_stale in ("error", "rebuild"):
        with pytest.raises(IndexMismatch, match="is a folder") as caught:
            gpuenc.FrameDataset(tmp_path / "a.dcm", index=tmp_path / "folder", on_stale=on_stale)
        assert caught.value.code == "index-unusable"


def test_arguments_in_other_words(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    made.of(WIDE).write(tmp_path / "in" / "a.dcm")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with gpuenc.FrameDataset("~/in", index="~/frames.index", columns="Modality", size=[25, 26]) as frames:
        assert frames.sources == (str(tmp_path / "in"),)
        assert frames.columns == ("Modality",)
        assert frames[0]["image"].shape == (25, 26)
        assert "Modality" in frames[0]
    assert (tmp_path / "frames.index").is_file()
    given = [tmp_path / "in" / "a.dcm", tmp_path / "in", os.path.relpath(tmp_path / "in" / "a.dcm")]
    with gpuenc.FrameDataset(given) as frames:
        assert [one["frame"] for one in frames] == [0, 1, 2]


def test_more_files_than_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_MOST_OPEN", 3)
    paths = made.series(tmp_path, 12)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with gpuenc.FrameDataset(tmp_path, threads=4) as frames:
        batch = frames.__getitems__(list(range(12)) * 3)
        for one in batch:
            assert np.array_equal(one["image"], dcmread(paths[one["index"]]).pixel_array)
        if before:
            assert len(os.listdir("/proc/self/fd")) <= before + 3
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_gpu_that_is_demanded_and_not_there(tmp_path):
    if probe.device_count():
        pytest.skip("there is a GPU")
    made.of(WIDE).write(tmp_path / "a.dcm")
    frames = gpuenc.FrameDataset(tmp_path, device="gpu")
    with pytest.raises(DeviceUnavailable):
        frames[0]
    with gpuenc.FrameDataset(tmp_path, device="auto") as frames:
        assert np.array_equal(frames[0]["image"], WIDE[0])
    with pytest.raises(InvalidOption):
        gpuenc.FrameDataset(tmp_path, device="tpu")


def test_neither_torch_nor_a_gpus_libraries_are_imported():
    code = (
        "import sys, gpuenc; print('gpuenc.pipelines' in sys.modules);"
        f"gpuenc.FrameDataset({named('CT_small.dcm')!r})[0];"
        "print([name for name in ('torch', 'cupy', 'nvidia') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "[]"]


@pytest.mark.parametrize("behind", [made.Element(0x7FE00010, "OW", bytes(48)), made.Element(0x00280103, "US", 1)])
def test_pixels_or_what_they_are_said_twice_leave_a_file_out(tmp_path, behind):
    """Who takes the last of two sees others; `transcode` refuses such a file too."""
    made.of(made.noise((1, 4, 6)), trailer=(behind,)).write(tmp_path / "a")
    left = records.look(str(tmp_path / "a"), {})
    assert (left.code, "behind Pixel Data" in left.message) == ("corrupt-header", True)
