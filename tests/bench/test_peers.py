"""What peers write is read again: lost samples, wrong labels and other precisions are said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import peers
from gpuenc.bench import files, phantoms, stages
from gpuenc.bench.cases import Case, frames_of
from gpuenc.bench.measure import Contender

CASE = Case("slices", "synthetic", frames_of(phantoms.ct(2, 64), 12, "slices"), "CT", True)


@pytest.fixture
def written(tmp_path):
    """Return what `gpuenc transcode` makes of the case."""
    native, out = tmp_path / "in", tmp_path / "out"
    native.mkdir()
    peers.transcode("jpeg-ls-lossless", "all")(files.write(CASE, native), out)
    return out


def test_right_output(written):
    seen = peers.verdict(CASE, CASE.frames, written, "jpeg-ls-lossless")
    assert (seen["lossless"], seen["label"], seen["precision"], seen["wrong"]) == (True, True, 12, "")
    assert seen["codestream_bytes"] > 1000


def test_one_lost_sample_and_a_missing_frame_are_found(written):
    cells = CASE.frames[1].pixels.copy()
    cells[100] ^= 1
    other = (CASE.frames[0], replace(CASE.frames[1], pixels=cells))
    assert peers.verdict(CASE, other, written, "jpeg-ls-lossless")["wrong"] == "frame 1: samples differ"
    more = peers.verdict(CASE, (*CASE.frames, CASE.frames[0]), written, "jpeg-ls-lossless")
    assert (more["lossless"], more["wrong"]) == (False, "frames are missing")


def test_wrong_label_is_found(written):
    assert not peers.verdict(CASE, CASE.frames, written, "rle")["label"]


def test_every_peer_is_measured_or_says_why(monkeypatch):
    monkeypatch.setitem(peers.PROGRAMS, "gone", (("no-such-program",), "jpeg-ls-lossless"))
    found = {row["peer"]: row for row in peers.measure(CASE, "jpeg-ls-lossless", 5)}
    assert found["gone"]["why"] == "no-such-program is not installed"
    for row in found.values():
        assert row["status"] == "absent" or (row["lossless"] and row["mb_s"]["rounds"] == 5)
    assert found["bare codec, all cores"]["precision_kept"]


def test_files_of_a_case_hold_its_frames(tmp_path):
    multi = replace(CASE, series=False)
    [path] = files.write(multi, tmp_path)
    with peers.DicomFile(path) as file:
        assert file.number_of_frames == 2
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(file.frames(), CASE.frames, strict=True))


def test_stages_are_differences_of_what_was_timed_up_to_them():
    def timed(name, ms):
        return Contender(name, lambda: None, lambda _: None, seconds=[ms / 1e3] * 5)

    up_to = [timed("upload", 2), timed("prepared", 5), timed("encoded", 15), timed("download", 1), timed("check", 4)]
    found = stages._split(up_to, 32)
    names = ("upload_ms", "kernels_ms", "compress_ms", "download_ms", "check_ms")
    assert [found[name] for name in names] == pytest.approx([2, 3, 9, 1, 4])
    up_to[2].why_void = "out of order"
    assert stages._split(up_to, 32) == {"status": "void", "why": "encoded: out of order"}
