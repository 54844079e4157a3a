"""What peers write is read again: lost samples, wrong labels and other precisions are said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import bare, contest, peers
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
    seen = contest.verdict(CASE, CASE.frames, written, "jpeg-ls-lossless")
    assert (seen["lossless"], seen["label"], seen["precision"], seen["wrong"]) == (True, True, 12, "")
    assert seen["codestream_bytes"] > 1000


def test_one_lost_sample_and_a_missing_frame_are_found(written):
    cells = CASE.frames[1].pixels.copy()
    cells[100] ^= 1
    other = (CASE.frames[0], replace(CASE.frames[1], pixels=cells))
    assert contest.verdict(CASE, other, written, "jpeg-ls-lossless")["wrong"] == "frame 1: samples differ"
    more = contest.verdict(CASE, (*CASE.frames, CASE.frames[0]), written, "jpeg-ls-lossless")
    assert (more["lossless"], more["wrong"]) == (False, "frames are missing")


def test_wrong_label_is_found(written):
    assert not contest.verdict(CASE, CASE.frames, written, "rle")["label"]


def test_a_codestream_that_was_right_is_not_decoded_again(written, monkeypatch, tmp_path):
    known = set()
    first = contest.verdict(CASE, CASE.frames, written, "jpeg-ls-lossless", known)
    assert len(known) == 2
    monkeypatch.setattr(contest, "_compare", None)
    again = contest.verdict(CASE, CASE.frames, written, "jpeg-ls-lossless", known)
    assert (again["lossless"], again["codestream_bytes"]) == (True, first["codestream_bytes"])
    monkeypatch.undo()
    # The same codestreams, each in the other's place.
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    first, second = sorted(written.glob("*.dcm"))
    first.rename(swapped / second.name)
    second.rename(swapped / first.name)
    assert not contest.verdict(CASE, CASE.frames, swapped, "jpeg-ls-lossless", known)["lossless"]
    assert len(known) == 2


def test_more_frames_than_there_were_are_wrong(written):
    assert not contest.verdict(CASE, CASE.frames[:1], written, "jpeg-ls-lossless")["lossless"]


@pytest.fixture(scope="module")
def pool():
    with contest.processes(2) as processes:
        yield processes


def test_every_peer_is_measured_or_says_why(monkeypatch, pool):
    monkeypatch.setitem(peers.PROGRAMS, "gone", (("no-such-program",), "jpeg-ls-lossless"))
    monkeypatch.setitem(peers._APT, "no-such-program", "no-such-package")
    found = {row["peer"]: row for row in contest.measure(CASE, "jpeg-ls-lossless", 5, pool)}
    assert found["gone"]["why"] == "no-such-program is not installed: apt-get install no-such-package"
    for row in found.values():
        assert row["status"] == "absent" or (row["lossless"] and row["mb_s"]["rounds"] == 5 and row["version"])
    pydicom = found["pydicom compress, pyjpegls"]
    assert "process" in pydicom["on"]
    assert pydicom["version"].startswith("pyjpegls 1.")
    assert found[contest.BARE]["precision_kept"]


def test_a_peer_that_loses_samples_keeps_its_figures_and_ours_would_be_void(monkeypatch, pool):
    """A loop that writes another slice, under a name of its own and under gpuenc's."""

    def loses(paths, out):
        shifted = Case("x", "synthetic", (CASE.frames[1], CASE.frames[1]), "CT", True)
        (out / "in").mkdir()
        peers.transcode("rle", "all")(files.write(shifted, out / "in"), out / "made")
        for path in (out / "in").iterdir():
            path.unlink()

    monkeypatch.setattr(contest, "peers_of", lambda name, pool: [
        peers.Peer("gpuenc, wrong", loses, version="0", on="x"), peers.Peer("other", loses, version="1", on="y"),
    ])  # fmt: skip
    ours, other, *_ = contest.measure(CASE, "rle", 5, pool)
    assert (ours["status"], ours["why"]) == ("void", "frame 0: samples differ")
    assert (other["status"], other["lossless"], other["wrong"]) == ("measured", False, "frame 0: samples differ")
    assert "gpuenc_times" not in other


def test_too_little_time_is_said(pool):
    rows = contest.measure(CASE, "rle", 5, pool, left_s=0.0)
    assert {row["status"] for row in rows} == {"absent"}
    assert "no time was left" in {row["why"] for row in rows}


@pytest.mark.parametrize("name", contest.SYNTAXES)
def test_the_bare_codec_makes_what_is_asked_for(name):
    from gpuenc.bench.referee import Referee
    from gpuenc.frames import Encoded
    from gpuenc.syntaxes import find
    from gpuenc.targets import target

    made = bare.on_cores(name, CASE.frames)()
    referee = Referee(CASE.frames, target(find(name)))
    referee.judge([Encoded(frame.ref, one, "") for frame, one in zip(CASE.frames, made, strict=True)])


def test_nvidias_tools_are_absent_with_a_reason_without_a_gpu(monkeypatch):
    monkeypatch.setattr(peers.probe, "device_count", lambda: 0)
    [one] = [peer for peer in peers.peers_of("htj2k-lossless") if peer.name.startswith("NVIDIA")]
    assert (one.work, one.why) == (None, "no NVIDIA GPU on this machine")


def test_nvidias_converter_is_called_as_its_package_has_it():
    """No GPU is needed to see that the function is there, and takes what it is given."""
    convert = pytest.importorskip(peers.NVIDIA)
    import inspect

    names = inspect.signature(convert.transcode_datasets_to_htj2k).parameters
    assert {"datasets", "progression_order"} <= set(names)
    for name, order in peers._ORDERS.items():
        assert convert._setup_htj2k_encode_params(progression_order=order)[1] == peers.find(name).uid


def test_files_of_a_case_hold_its_frames(tmp_path):
    multi = replace(CASE, series=False)
    [path] = files.write(multi, tmp_path)
    with contest.DicomFile(path) as file:
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
