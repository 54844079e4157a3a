"""Damaged and lying files: the error that each kind of damage gets, and no more memory."""

import random
import resource
import tracemalloc
import zlib
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread

from gpuenc.dicom import description
from gpuenc.dicom import source as module
from gpuenc.dicom.source import DicomFile, frames_of
from gpuenc.errors import GpuencError, InvalidPixels, SourceError
from gpuenc.frames import Coded
from tests import made
from tests.dicom.mutate import fuzz_corpus, mutated
from tests.dicom.opening import FRAGMENTS, FRAMES, WHOLE, both, cells

US = made.Element


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("not-dicom", b""),
        ("not-dicom", b"\x08\0"),
        ("not-dicom", random.Random(1).randbytes(4096)),
        ("not-dicom", b"\x08\0" + random.Random(2).randbytes(4096)),
        ("not-dicom", b"\x02\0" + random.Random(3).randbytes(4096)),
        ("no-pixel-data", bytes(128) + b"DICM"),
        ("no-pixel-data", made.of(FRAMES, meta=True).prefix()),
        ("float-pixel-data", made.float_pixels().file()),
        ("float-pixel-data", made.float_pixels(double=True).file()),
        ("unknown-syntax", made.of(FRAMES, syntax="1.2.840.113619.5.2").file()),
        ("video", made.compressed(FRAGMENTS, syntax="1.2.840.10008.1.2.4.102").file()),
        ("unknown-syntax", made.of(FRAMES, syntax="SECRET^NAME").file()),
        ("truncated", made.of(FRAMES).file()[:-1]),
        ("truncated", made.of(FRAMES, pixel_length=1 << 31).file()[:-2]),
        ("truncated", replace(made.of(FRAMES), frames=4).file()),
        ("truncated", replace(made.of(FRAMES), frames=2**31 - 1).file()),
        ("truncated", replace(made.of(FRAMES), rows=65535, columns=65535).file()),
        ("truncated", made.of(FRAMES).file()[:300]),
        ("truncated", made.of(FRAMES, elements=(US(0x00090010, "LO", "X"), US(0x00091001, "OB", b"12"))).file()[:250]),
        ("truncated", made.of(FRAMES, syntax=made.DEFLATED).file()[:-40]),
        ("corrupt-deflate", made.of(FRAMES, syntax=made.DEFLATED).prefix() + b"\xff" * 99),
        ("truncated", replace(made.segmentation(made.noise((5, 3, 7), "u1", 1)), frames=6).file()),
        ("truncated", made.compressed(FRAGMENTS).file()[:-20]),
        ("truncated", replace(made.compressed(FRAGMENTS, "empty"), frames=6).file()),
        ("wrong-length", replace(made.compressed(FRAGMENTS, "empty"), frames=2).file()),
        ("wrong-length", replace(made.compressed(FRAGMENTS), frames=2).file()),
        ("wrong-length", made.compressed(FRAGMENTS, "empty", syntax=made.RLE).file()),
        ("wrong-length", made.compressed(FRAGMENTS, pixel_length=20).file()),
        ("wrong-length", made.of(FRAMES, pixel_length=made.UNDEFINED).file()),
        ("wrong-length", made.ybr_422(made.noise((2, 4, 3, 6), "u1")).file().replace(b"\x06\0", b"\x06\0")),
        ("wrong-length", made.compressed([[b"ab"], [b"cd" * (1 << 20)]]).file()),
        ("invalid-pixels", replace(made.of(FRAMES), rows=0).file()),
        ("invalid-pixels", replace(made.of(FRAMES), stored=17).file()),
        ("invalid-pixels", replace(made.of(FRAMES), allocated=12).file()),
        ("invalid-pixels", replace(made.of(FRAMES), samples=2).file()),
        ("invalid-pixels", replace(made.of(FRAMES), photometric="secret^name").file()),
        ("invalid-pixels", made.of(FRAMES, elements=(US(0x00280008, "IS", "many"),)).file()),
        ("invalid-pixels", made.of(FRAMES, elements=(US(0x00280103, "US", 2),)).file()),
        ("invalid-pixels", made.of(FRAMES, elements=(US(0x00280010, "US", (5, 5)), US(0x00280011, "FD", 7.0))).file()),
    ],
)  # fmt: skip
def test_damage_has_its_code(tmp_path, code, data):
    path = tmp_path / "x.dcm"
    path.write_bytes(data)
    with pytest.raises(GpuencError) as caught, DicomFile(path) as source:
        list(source.frames())
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value).lower()


def test_missing_native_data_is_noticed_before_any_frame_is_read(tmp_path):
    for image in (made.of(FRAMES), made.of(made.noise((3, 5, 7), "u1"), syntax=made.BIG, pixel_vr="OW")):
        path = tmp_path / "x.dcm"
        path.write_bytes(image.file()[:-1])
        with pytest.raises(SourceError) as caught:
            DicomFile(path)
        assert caught.value.code == "truncated"


def test_422_without_subsampling_is_not_guessed_at(opened):
    image = replace(made.ybr_422(made.noise((2, 4, 3, 4), "u1")), pixels=bytes(2 * 4 * 6 * 3))
    with pytest.raises(SourceError, match="subsampling"):
        opened(image)


@pytest.mark.parametrize("tag", [0x00280002, 0x00280004, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103])
def test_missing_attributes_are_named(opened, tag):
    with pytest.raises(InvalidPixels, match=f"{tag >> 16:04X},{tag & 0xFFFF:04X}"):
        opened(made.of(FRAMES, without=frozenset({tag})))
    with pytest.raises(InvalidPixels, match="0028,0006"):
        opened(made.of(made.noise((1, 4, 6, 3), "u1"), without=frozenset({0x00280006})))


def test_more_data_than_frames_is_noted(opened):
    size = FRAMES[0].nbytes
    for source in both(opened(replace(made.of(FRAMES), frames=2, pixels=FRAMES.tobytes()[: 3 * size - 2]))):
        assert len(cells(source)) == 2
        assert any("behind the last frame" in note for note in source.notes)
    assert opened(made.of(made.noise((1, 3, 3), "u1"))).notes == []


@pytest.mark.parametrize("frames", [None, 1, 2])
@pytest.mark.parametrize("samples", [FRAMES, made.noise((3, 3, 3), "u1"), made.noise((3, 4, 6, 3), "u1")])
def test_whole_frames_behind_the_last_are_not_left_out(opened, frames, samples):
    image = replace(made.of(samples), frames=frames)
    path = opened(made.of(samples)).path
    wanted = f"holds 3 frames where Number of Frames says {frames or 1}"
    with pytest.raises(SourceError, match=wanted) as caught:
        opened(image)
    assert caught.value.code == "wrong-length"
    with pytest.raises(SourceError, match=wanted):
        frames_of(dcmread(BytesIO(image.file())))
    # Unless the caller says how many to read.
    assert len(cells(frames_of(dcmread(path), 2))) == 2


def test_whole_one_bit_frames_behind_the_last_are_not_left_out(opened):
    bits = made.noise((5, 3, 7), "u1", 1)
    with pytest.raises(SourceError, match="holds 5 frames where Number of Frames says 1"):
        opened(replace(made.segmentation(bits), frames=None))
    tiny = made.segmentation(made.noise((1, 1, 3), "u1", 1))
    assert opened(tiny).notes == []  # the bits up to the next word are padding, however many frames they could be


@pytest.mark.parametrize("syntax", [made.RLE, made.JPEG2000])
def test_a_byte_for_each_bit_is_not_too_much(opened, syntax):
    stream = bytes(3 << 20)
    image = made.compressed([[stream]], syntax=syntax, rows=1600, columns=1600, allocated=1)
    assert opened(image).frame(0).pixels.codestream == stream
    with pytest.raises(SourceError, match="far more than its 2560000 without compression"):
        opened(made.compressed([[stream * 4]], syntax=syntax, rows=1600, columns=1600, allocated=1)).frame(0)


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.DEFLATED])
def test_native_422_has_pairs_of_pixels(opened, monkeypatch, syntax):
    monkeypatch.setattr(description, "check_format", lambda fmt: None)
    image = replace(made.ybr_422(made.noise((2, 4, 3, 4), "u1"), syntax=syntax), columns=5)
    with pytest.raises(InvalidPixels, match=r"0028,0011.*'5'.*even for native YBR_FULL_422"):
        opened(image)
    with pytest.raises(InvalidPixels, match="even for native"):
        frames_of(dcmread(BytesIO(image.file())))
    odd = made.compressed([[WHOLE[0]]], columns=5, samples=3, photometric="YBR_FULL_422")
    assert opened(odd).format.columns == 5


def test_wrong_offset_tables_are_refused(opened):
    good = made.compressed(FRAGMENTS)
    value = bytearray(good.pixels)
    for entry, offset in ((0, 2), (1, 30), (2, 4)):
        changed = value[:]
        changed[8 + 4 * entry : 12 + 4 * entry] = offset.to_bytes(4, "little")
        with pytest.raises(SourceError, match="Offset Table") as caught:
            list(opened(replace(good, pixels=bytes(changed))).frames())
        assert caught.value.code == "wrong-length"
    extended = made.compressed([[WHOLE[1]], [WHOLE[2]]], "extended")
    for tag, numbers in ((0x7FE00001, (0, 15)), (0x7FE00002, (6, 9)), (0x7FE00002, (6, 4)), (0x7FE00001, (0,))):
        elements = tuple(US(e.tag, "OV", numbers) if e.tag == tag else e for e in extended.elements)
        with pytest.raises(SourceError, match="Extended Offset Table"):
            list(opened(replace(extended, elements=elements)).frames())


def test_a_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_INFLATED_BYTES", 1 << 22)
    bomb = made.of(FRAMES, syntax=made.DEFLATED).prefix() + zlib.compress(bytes(1 << 26), wbits=-15)
    path = tmp_path / "bomb.dcm"
    path.write_bytes(bomb)
    with pytest.raises(SourceError) as caught:
        DicomFile(path)
    assert caught.value.code == "too-large"


def test_a_header_that_claims_gigabytes_costs_nothing(tmp_path):
    image = made.of(FRAMES, elements=(US(0x00091001, "OB", b"12"),))
    data = image.file()
    at = data.index(b"\x09\0\x01\x10OB") + 8
    path = tmp_path / "x.dcm"
    path.write_bytes(data[:at] + b"\xf0\xff\xff\xff" + data[at + 4 :])
    tracemalloc.start()
    try:
        with pytest.raises(SourceError):
            DicomFile(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_4_gib_object_streams(tmp_path):
    path = made.huge(tmp_path / "huge.dcm")
    tracemalloc.start()
    try:
        with DicomFile(path) as source:
            assert source.number_of_frames == 8191
            assert not source.frame(8190).pixels.any()
            for _, frame in zip(range(50), source.frames(), strict=False):
                assert frame.pixels.size == 512 * 512 * 2
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_deep_nesting_is_refused_not_followed(tmp_path):
    inner = made.Element(0x00081140, "SQ", [], True)
    for _ in range(90):
        inner = made.Element(0x00081140, "SQ", [[inner]], True)
    path = made.of(FRAMES, elements=(inner,)).write(tmp_path / "deep.dcm")
    with pytest.raises(SourceError, match="nested"):
        DicomFile(path)


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_gets_anything_but_a_reason(tmp_path, seed):
    rng = random.Random(seed)
    corpus = fuzz_corpus()
    path = tmp_path / "x.dcm"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(400):
        path.write_bytes(mutated(rng.choice(corpus), rng))
        try:
            with DicomFile(path) as source:
                for frame in source.frames(expand=True):
                    assert isinstance(frame.pixels, Coded) or len(frame.pixels) * 8 >= frame.format.frame_bits
                b"".join(source.trailer())
        except GpuencError:
            continue
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 << 10
