"""A file that is held in memory gives what the same file gives that is read piece by piece."""

import random

import numpy as np
import pytest
import xxhash

from gpuenc.dicom.digests import file_digest
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import GpuencError, SourceError
from gpuenc.frames import Coded
from tests import made
from tests.dicom import files
from tests.dicom.mutate import fuzz_corpus, mutated

MUCH = 1 << 30


def everything(path, hold_bytes):
    """Return all that a file gives, up to the error at which it ends."""
    found = []
    try:
        with DicomFile(path, hold_bytes=hold_bytes) as source:
            found += [source.syntax, source.format, source.number_of_frames, source.prefix, source.head]
            found += [source.meta, source.elements, source.described_again(), b"".join(source.trailer())]
            for frame in source.frames():
                cells = frame.pixels
                found += [frame.bit_offset, cells.codestream if isinstance(cells, Coded) else cells.tobytes()]
            found.append(source.notes)
    except GpuencError as error:
        found += [error.code, str(error)]
    return found


def test_real_files_give_the_same_either_way():
    for path in files.every():
        if path.stat().st_size < 8 << 20:
            assert everything(path, MUCH) == everything(path, 0)


def test_damaged_files_give_the_same_either_way(tmp_path):
    rng, path = random.Random(11), tmp_path / "x.dcm"
    opened = 0
    for data in fuzz_corpus():
        for changed in (data, *(mutated(data, rng) for _ in range(8))):
            path.write_bytes(changed)
            held = everything(path, MUCH)
            assert held == everything(path, 0)
            opened += len(held) > 2
    assert opened > 100


@pytest.mark.parametrize("deflated", [False, True])
def test_what_is_held_is_the_file(tmp_path, deflated):
    path = tmp_path / "x.dcm"
    path.write_bytes(made.of(made.noise((2, 5, 7)), **({"syntax": made.DEFLATED} if deflated else {})).file())
    size = path.stat().st_size
    with DicomFile(path, hold_bytes=size) as source:
        assert xxhash.xxh3_128_hexdigest(source.held) == file_digest(path)
    with DicomFile(path, hold_bytes=size - 1) as source:
        assert source.held is None


def test_frames_of_a_held_file_outlive_it_and_cannot_be_written_to(tmp_path):
    samples = made.noise((2, 5, 7))
    path = tmp_path / "x.dcm"
    path.write_bytes(made.of(samples).file())
    with DicomFile(path, hold_bytes=MUCH) as source:
        frames = [frame.pixels for frame in source.frames()]
    path.unlink()
    assert np.array_equal(np.concatenate(frames).view("<u2"), samples.reshape(-1))
    with pytest.raises(ValueError, match="read-only"):
        frames[0][0] = 1


@pytest.mark.parametrize("hold_bytes", [0, MUCH])
def test_a_file_that_becomes_shorter_while_it_is_read_is_truncated(tmp_path, monkeypatch, hold_bytes):
    path = tmp_path / "x.dcm"
    whole = made.of(made.noise((2, 5, 7))).file()
    path.write_bytes(whole)
    size = path.stat()
    path.write_bytes(whole[:-10])
    monkeypatch.setattr("gpuenc.dicom.source.os.fstat", lambda handle: size)
    with DicomFile(path, hold_bytes=hold_bytes) as source:
        assert source.frame(0).pixels.size == 70
        with pytest.raises(SourceError, match="ends inside Pixel Data") as caught:
            source.frame(1)
    assert caught.value.code == "truncated"
