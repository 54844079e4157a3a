"""What goes wrong between memory and file is noticed before the file has its name."""

import itertools
import os
from struct import pack

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuenc.coding import coding
from gpuenc.dicom import readback
from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.copies import copy_file
from gpuenc.dicom.digests import PIECE_BYTES, file_digest
from gpuenc.dicom.fragments import Encapsulated
from gpuenc.dicom.header import Header
from gpuenc.dicom.writer import OutputFile
from gpuenc.errors import DestinationError
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made

CELLS = FrameFormat(5, 7, 1, 16, 16, False, "MONOCHROME2")
STREAMS = [b"\xff\xd8abc\xff\xd9", b"\xff\xd8de\xff\xd9", b"\xff\xd8fg\xff\xd9", b"\xff\xd8\xff\xd9"]
NATIVE = [each.tobytes() for each in made.noise((3, 5, 7), "u2")]
TARGETS = {
    "basic": ("jpeg2000-lossless", STREAMS, {}),
    "extended": ("jpeg2000-lossless", STREAMS, {"extended_offsets": True}),
    "jpeg-ls": ("jpeg-ls-lossless", STREAMS, {"extended_offsets": True}),
    "single": ("htj2k-lossless", STREAMS[:1], {}),
    "native": ("native", NATIVE, {}),
    "deflated": ("deflated", NATIVE, {}),
}


def write(path, kind="basic", *, image=None, header=None, trailer=made.PADDING, cells=CELLS, **options):
    name, frames, more = TARGETS[kind]
    syntax = find(name)
    image = image or made.Image(rows=5, columns=7, frames=len(frames), syntax=syntax.uid)
    header = header or Header(image.prefix(), b"".join(made.encoded(each) for each in image.header()))
    with OutputFile(path, header, syntax, len(frames), cells=cells, fsync=False, **more, **options) as output:
        for frame in frames:
            output.put(frame)
        return output.finish(trailer=[made.encoded(each) for each in trailer])


@pytest.fixture
def damage(monkeypatch):
    """Let what is in the temporary file be changed after it was flushed."""

    def plant(change):
        flushed = AtomicFile.flushed

        def damaged(self):
            path = flushed(self)
            with open(path, "rb") as file:
                data = file.read()
            changed = change(data)
            assert changed != data
            with open(path, "wb") as file:
                file.write(changed)
            return path

        monkeypatch.setattr(AtomicFile, "flushed", damaged)

    return plant


def refused(folder, call):
    with pytest.raises(DestinationError) as caught:
        call()
    assert caught.value.code == "read-back-mismatch"
    assert "SECRET" not in str(caught.value)
    assert list(folder.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("kind", TARGETS)
def test_a_good_file_has_the_digest_of_its_bytes(tmp_path, kind):
    summary = write(tmp_path / "x.dcm", kind)
    data = (tmp_path / "x.dcm").read_bytes()
    assert summary.digest == xxhash.xxh3_128_hexdigest(data) == file_digest(tmp_path / "x.dcm")
    assert len(summary.digest) == 32
    assert summary.bytes_written == len(data)


def test_large_frames_and_trailers_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(readback, "PIECE_BYTES", 3)
    for kind in TARGETS:
        digest = write(tmp_path / f"{kind}.dcm", kind).digest
        assert digest == xxhash.xxh3_128_hexdigest((tmp_path / f"{kind}.dcm").read_bytes())


def test_it_can_be_left_out(tmp_path):
    assert write(tmp_path / "x.dcm", read_back=False).digest == ""


@pytest.mark.parametrize("kind", TARGETS)
def test_no_byte_can_be_flipped(tmp_path, kind, damage):
    write(tmp_path / "good.dcm", kind)
    size = (tmp_path / "good.dcm").stat().st_size
    (tmp_path / "good.dcm").unlink()
    position = 0

    def flip(data):
        return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]

    damage(flip)
    for position in range(size):
        with pytest.raises(DestinationError) as caught:
            write(tmp_path / "x.dcm", kind)
        assert caught.value.code == "read-back-mismatch", position
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", TARGETS)
def test_no_byte_can_be_missing_or_too_much(tmp_path, kind, damage):
    write(tmp_path / "good.dcm", kind)
    size = (tmp_path / "good.dcm").stat().st_size
    (tmp_path / "good.dcm").unlink()
    cut = 0
    damage(lambda data: data + b"\0\0" if cut < 0 else data[:cut] + data[cut + 1 :] if keep_rest else data[:cut])
    for keep_rest in (True, False):
        for cut in [*range(size - 1), -1]:
            with pytest.raises(DestinationError) as caught:
                write(tmp_path / "x.dcm", kind)
            assert caught.value.code == "read-back-mismatch", (cut, keep_rest)
    assert list(tmp_path.iterdir()) == []


def test_frames_cannot_be_swapped(tmp_path, damage):
    one, two = made.fragment(STREAMS[1]), made.fragment(STREAMS[2])
    damage(lambda data: data.replace(one + two, two + one))
    assert "frame 1 is not" in refused(tmp_path, lambda: write(tmp_path / "x.dcm"))


def test_native_frames_cannot_be_swapped(tmp_path, damage):
    damage(lambda data: data.replace(NATIVE[0] + NATIVE[1], NATIVE[1] + NATIVE[0]))
    assert "Pixel Data" in refused(tmp_path, lambda: write(tmp_path / "x.dcm", "native"))


@pytest.mark.parametrize("entry", range(4))
@pytest.mark.parametrize("by", [2, -2, 8])
def test_a_wrong_offset_is_noticed(tmp_path, monkeypatch, entry, by):
    real = Encapsulated.tables

    def wrong(self):
        self._offsets[entry] = max(0, self._offsets[entry] + by)
        return real(self)

    if entry or by > 0:
        monkeypatch.setattr(Encapsulated, "tables", wrong)
        assert "offset table" in refused(tmp_path, lambda: write(tmp_path / "x.dcm")).lower()


def test_an_offset_table_left_empty_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(Encapsulated, "tables", lambda self: self._begin(bytes(self._table_bytes)))
    refused(tmp_path, lambda: write(tmp_path / "x.dcm"))
    refused(tmp_path, lambda: write(tmp_path / "x.dcm", "extended"))


def test_a_wrong_extended_length_is_noticed(tmp_path, monkeypatch):
    real = Encapsulated.extended_tables

    def wrong(self):
        offsets, lengths = real(self)
        return offsets, pack("<Q", 8) + lengths[8:]  # of a codestream of 7 bytes and its padding

    monkeypatch.setattr(Encapsulated, "extended_tables", wrong)
    assert "lengths" in refused(tmp_path, lambda: write(tmp_path / "x.dcm", "extended"))


def test_a_fragment_of_the_wrong_length_is_noticed(tmp_path, monkeypatch):
    real = Encapsulated.put

    def wrong(self, codestream):
        head, value = real(self, codestream)
        return head[:4] + pack("<I", len(value) + 2), value

    monkeypatch.setattr(Encapsulated, "put", wrong)
    refused(tmp_path, lambda: write(tmp_path / "x.dcm", "single"))


def test_a_table_that_was_not_asked_for_is_noticed(tmp_path, damage):
    table = made.encoded(made.Element(0x7FE00001, "OV", [0]))
    damage(lambda data: data.replace(b"\xe0\x7f\x10\0OB", table + b"\xe0\x7f\x10\0OB"))
    assert "(7FE0,0001)" in refused(tmp_path, lambda: write(tmp_path / "x.dcm", "single"))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("basic", {"rows": 6}),
        ("basic", {"columns": 4}),
        ("basic", {"frames": 3}),
        ("basic", {"frames": 5}),
        ("basic", {"syntax": find("htj2k-lossless").uid}),
        ("native", {"signed": True}),
        ("native", {"stored": 12}),
        ("native", {"photometric": "MONOCHROME1"}),
        ("native", {"allocated": 8}),
        ("native", {"frames": 2}),
    ],
)
def test_a_header_that_describes_something_else_is_noticed(tmp_path, kind, wrong):
    name, frames, _ = TARGETS[kind]
    image = made.Image(**{"rows": 5, "columns": 7, "frames": len(frames), "syntax": find(name).uid, **wrong})
    refused(tmp_path, lambda: write(tmp_path / "x.dcm", kind, image=image))


@pytest.mark.parametrize("wrong", [{"photometric": "MONOCHROME1"}, {"signed": True}, {"allocated": 32, "stored": 16}])
def test_a_header_that_describes_another_coding_is_noticed(tmp_path, wrong):
    wanted = coding(target(find("htj2k-lossless")), CELLS)
    image = made.Image(**{"rows": 5, "columns": 7, "syntax": find("htj2k-lossless").uid, **wrong})
    write(tmp_path / "x.dcm", "single", coding=wanted)
    (tmp_path / "x.dcm").unlink()
    assert "its header says" in refused(
        tmp_path, lambda: write(tmp_path / "x.dcm", "single", image=image, coding=wanted)
    )


def test_colours_are_those_of_the_codestream(tmp_path):
    cells = FrameFormat(5, 7, 3, 8, 8, False, "RGB")
    wanted = coding(target(find("htj2k-lossless")), cells)
    for photometric, good in (("YBR_RCT", True), ("RGB", False)):
        image = made.Image(5, 7, 3, 8, photometric=photometric, syntax=find("htj2k-lossless").uid)
        options = {"image": image, "cells": cells, "coding": wanted}
        if good:
            write(tmp_path / "x.dcm", "single", **options)
            (tmp_path / "x.dcm").unlink()
        else:
            refused(tmp_path, lambda: write(tmp_path / "x.dcm", "single", **options))  # noqa: B023


def test_a_file_that_cannot_be_opened_again_gets_no_name(tmp_path, monkeypatch):
    def gone(self):
        self.file.flush()
        os.unlink(self._temporary)
        return self._temporary

    monkeypatch.setattr(AtomicFile, "flushed", gone)
    with pytest.raises(DestinationError) as caught:
        write(tmp_path / "x.dcm")
    assert caught.value.code == "destination-unwritable"
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_was_there_stays_when_the_new_one_is_wrong(tmp_path, damage):
    write(tmp_path / "x.dcm")
    before = (tmp_path / "x.dcm").read_bytes()
    damage(lambda data: data.replace(b"abc", b"abd"))
    with pytest.raises(DestinationError, match="frame 0"):
        write(tmp_path / "x.dcm", overwrite=True)
    assert (tmp_path / "x.dcm").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 11), st.integers(1, 5), st.sampled_from(["native", "deflated"]), st.booleans())
def test_one_bit_frames_that_begin_within_bytes(tmp_path_factory, rows, columns, frames, name, trailing):
    bits = made.noise((frames, rows, columns), "u1", 1)
    image = made.segmentation(bits, syntax=find(name).uid)
    cells = FrameFormat(rows, columns, 1, 1, 1, False, "MONOCHROME2")
    header = Header(image.prefix(), b"".join(made.encoded(each) for each in image.header()))
    path = tmp_path_factory.mktemp("bits") / "x.dcm"
    with OutputFile(path, header, find(name), frames, cells=cells, fsync=False) as output:
        for frame in bits:
            output.put(np.packbits(frame.reshape(-1), bitorder="little").tobytes())
        digest = output.finish(trailer=[made.encoded(made.PADDING[0])] if trailing else []).digest
    assert digest == xxhash.xxh3_128_hexdigest(path.read_bytes())


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_copies_are_read_back(tmp_path, size):
    source = tmp_path / "a"
    source.write_bytes(np.random.default_rng(1).bytes(size))
    copy = copy_file(source, tmp_path / "b", fsync=False)
    assert copy.digest == xxhash.xxh3_128_hexdigest(source.read_bytes())
    assert copy.bytes_written == size
    assert (tmp_path / "b").read_bytes() == source.read_bytes()


def test_a_copy_that_differs_gets_no_name(tmp_path, damage):
    source = tmp_path / "in" / "a"
    source.parent.mkdir()
    source.write_bytes(b"a patient's only mammogram")
    folder = tmp_path / "out"
    folder.mkdir()
    damage(lambda data: data.replace(b"only", b"0nly"))
    refused(folder, lambda: copy_file(source, folder / "a"))
    assert source.read_bytes() == b"a patient's only mammogram"


def test_damage_is_found_wherever_frames_are_many(tmp_path, damage, monkeypatch):
    streams = [bytes([255, 216, *number.to_bytes(2, "big"), 255, 217]) for number in range(300)]
    monkeypatch.setitem(TARGETS, "many", ("jpeg2000-lossless", streams, {}))
    for one, other in itertools.pairwise((0, 7, 255, 299)):
        with monkeypatch.context():
            damage(
                lambda data, a=streams[one], b=streams[other]: data.replace(a, b"x").replace(b, a).replace(b"x", b, 1)
            )
            refused(tmp_path, lambda: write(tmp_path / "x.dcm", "many", trailer=()))
        monkeypatch.undo()
        monkeypatch.setitem(TARGETS, "many", ("jpeg2000-lossless", streams, {}))
