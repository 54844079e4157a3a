"""Gigabytes of nothing behind the pixels, and in what is copied: holes stay holes, and no other byte is one."""

from __future__ import annotations

import hashlib
import os

import pytest

from gpuenc.dicom import header as header_module
from gpuenc.dicom.copies import copy_file
from gpuenc.dicom.holes import Hole, hole_or
from tests import made
from tests.archive.watcher import transcode

MIB = 1 << 20
HOLE = 192 * MIB


def _takes_holes(folder):
    with (folder / "probe").open("wb") as file:
        file.truncate(8 * MIB)
    return (folder / "probe").stat().st_blocks == 0


@pytest.fixture(autouse=True)
def _with_holes(tmp_path):
    if not _takes_holes(tmp_path):
        pytest.skip("the temporary folder's file system has no holes")


def sparse(path, begin, *, ends=b"", middle=b"", size=HOLE):
    """Write a file that begins like this, and has data in the middle and at the end of a hole."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(begin)
        file.truncate(len(begin) + size + len(ends))
        for at, data in ((len(begin) + size // 2, middle), (len(begin) + size, ends)):
            file.seek(at)
            file.write(data)
    return path


def taken(path):
    return path.stat().st_blocks * 512


def digest_behind(path, at):
    """SHA-256 of what a file holds from there on."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(at)
        while piece := file.read(MIB):
            digest.update(piece)
    return digest.hexdigest()


IMAGE = made.of(made.noise((2, 32, 32), "u2"))
# An odd private element behind the pixels, so that what follows is a trailer in which something lies.
MIDDLE = bytes(range(1, 256)) * 300


@pytest.mark.parametrize("to", ["rle", "explicit-vr-little-endian", "htj2k-lossless"])
@pytest.mark.parametrize("in_place", [False, True])
def test_holes_behind_pixels_stay_holes(tmp_path, to, in_place):
    begin = IMAGE.file() if to != "explicit-vr-little-endian" else _rle(tmp_path)
    source = sparse(tmp_path / "in" / "a.dcm", begin, middle=MIDDLE, ends=b"\1" * 5)
    behind = digest_behind(source, len(begin))
    options = {"in_place": True, "backup": tmp_path / "kept"} if in_place else {}
    [record] = transcode(tmp_path / "in", tmp_path / "out", to, **options)
    assert record.status == "encoded", record.message
    output = source if in_place else tmp_path / "out" / "a.dcm"
    size = output.stat().st_size
    assert size == record.bytes_out > HOLE
    # Every byte behind the pixels is there, and where it was nothing takes room.
    assert digest_behind(output, size - HOLE - 5) == behind
    assert taken(output) < 4 * MIB
    if in_place:
        (kept,) = (tmp_path / "kept").rglob("a.dcm")
        assert digest_behind(kept, len(begin)) == behind


def _rle(folder):
    (folder / "plain").mkdir()
    IMAGE.write(folder / "plain" / "a.dcm")
    [record] = transcode(folder / "plain", folder / "rle", "rle")
    assert record.status == "encoded"
    return (folder / "rle" / "a.dcm").read_bytes()


@pytest.mark.parametrize("ends", [b"", b"end"])
def test_copies_have_the_same_holes(tmp_path, ends):
    source = sparse(tmp_path / "in" / "a.dcm", made.float_pixels().file(), middle=MIDDLE, ends=ends)
    [record] = transcode(tmp_path / "in", tmp_path / "out", "rle")
    assert (record.status, record.source_digest) == ("copied", record.output_digest)
    output = tmp_path / "out" / "a.dcm"
    assert output.stat().st_size == source.stat().st_size
    assert digest_behind(output, 0) == digest_behind(source, 0)
    assert taken(output) < 4 * MIB


def test_zeros_that_were_written_are_written(tmp_path):
    """A file without holes gets a copy without holes: what has its room keeps it."""
    (tmp_path / "a").write_bytes(IMAGE.file() + bytes(8 * MIB))
    os.sync()
    copy_file(tmp_path / "a", tmp_path / "b")
    assert taken(tmp_path / "b") >= 8 * MIB


def test_what_is_a_hole():
    for piece in (bytes(MIB - 1) + b"\1", b"\1" + bytes(MIB - 1), bytes(5000) + b"\1", bytes(100), b"", b"\0"):
        assert not isinstance(hole_or(piece), Hole)
        assert hole_or(piece) == piece
    for size in (MIB, 4096, 5000):
        assert isinstance(hole_or(bytes(size)), Hole)
        assert hole_or(bytes(size)) == bytes(size)


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT])
def test_more_than_can_be_read_is_refused_with_a_name(tmp_path, syntax, monkeypatch):
    """Sixteen tebibytes are claimed in no time, and read in hours."""
    monkeypatch.setattr(header_module, "MAX_COPIED_TRAILER_BYTES", 32 * MIB)
    sparse(tmp_path / "in" / "a.dcm", made.of(made.noise((1, 8, 8), "u1"), syntax=syntax).file(), size=65 * MIB)
    [record] = transcode(tmp_path / "in", tmp_path / "out", "rle")
    assert (record.status, record.reason) == ("failed", "too-large")
    assert not (tmp_path / "out" / "a.dcm").exists()
