"""The `gpuenc` command as people run it: trees, options, reports, exit codes, signals, and what terminals show."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from gpuenc.cli import app
from tests import made
from tests.archive import damaged, oracle
from tests.archive.watcher import PEAK
from tests.dicom import files

COMMAND = (sys.executable, "-m", "gpuenc")
ROOT = Path(__file__).resolve().parents[1]
SAMPLES = made.noise((2, 64, 64), "u2", 12)
IMAGE = made.of(SAMPLES, stored=12)
FIELDS = {
    "source", "status", "destination", "reason", "message", "source_syntax", "target_syntax", "plugins", "fallbacks",
    "frames", "bytes_in", "bytes_out", "pixel_bytes", "seconds", "verified", "modality", "finished_s", "worker",
    "stage_seconds", "crc32", "source_digest", "output_digest", "source_mtime_ns", "output_mtime_ns", "run",
    "source_etag", "output_etag", "unverified",
}  # fmt: skip


def gpuenc(*args):
    """Run the command in this process; return its exit code, standard output and standard error."""
    done = CliRunner().invoke(app, [os.fspath(arg) for arg in args])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def transcode(*args, to="htj2k-lossless"):
    """Run it with threads of this process, where tests reach them."""
    return gpuenc("transcode", *args, "--to", to, "--workers", "0")


def process(*args, **options):
    """Run the command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(os.fspath, args)], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT, **options
    )


def report_of(path):
    """Return the records of a report in the order of their sources: they are written as files are finished."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(records, key=lambda record: record["source"])


def tree(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir() and path.parent.name != ".gpuenc"
    }


@pytest.fixture
def study(tmp_path):
    """Return a folder with two folders of images, and one of another kind."""
    for name in ("a/1.dcm", "a/2.dcm", "b/deep/1.dcm"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        IMAGE.write(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("nothing", encoding="utf-8")
    return tmp_path / "in"


def test_tree_is_mirrored_and_reported(study, tmp_path):
    code, out, err = transcode(study, "-o", tmp_path / "out", "--report", tmp_path / "r.jsonl")
    assert (code, err) == (0, "")
    assert tree(tmp_path / "out") == {"a/1.dcm", "a/2.dcm", "b/deep/1.dcm"}
    for path in (tmp_path / "out").rglob("*.dcm"):
        ds = dcmread(path)
        np.testing.assert_array_equal(oracle.samples(ds).reshape(SAMPLES.shape), SAMPLES)
    records = report_of(tmp_path / "r.jsonl")
    assert all(set(record) == FIELDS for record in records)
    assert [record["source"] for record in records] == sorted(str(path) for path in study.rglob("*.*"))
    for record in records[:3]:
        destination = Path(record["destination"])
        assert record["status"] == "encoded"
        assert record["source_syntax"] == made.EXPLICIT
        assert record["target_syntax"] == made.HTJ2K
        assert record["plugins"] == {"imagecodecs": 2}
        assert (record["frames"], record["pixel_bytes"], record["verified"]) == (2, SAMPLES.nbytes, True)
        assert (record["bytes_in"], record["bytes_out"]) == (len(IMAGE.file()), destination.stat().st_size)
        assert record["seconds"] > 0
    assert (records[3]["status"], records[3]["reason"]) == ("skipped", "not-dicom")
    assert "4: 3 encoded, 0 copied, 1 skipped, 0 failed" in out
    assert "3 of 3 files, every sample compared" in out


def test_several_sources_go_below_their_names(study, tmp_path):
    single = IMAGE.write(tmp_path / "single.dcm")
    code, _, _ = transcode(study / "a", study / "b", single, single, "-o", tmp_path / "out")
    assert code == 0
    assert tree(tmp_path / "out") == {"a/1.dcm", "a/2.dcm", "b/deep/1.dcm", "single.dcm"}


def test_equal_names_do_not_replace_each_other(study, tmp_path):
    args = (study / "a" / "1.dcm", study / "b" / "deep" / "1.dcm", "-o", tmp_path / "out", "--overwrite")
    code, out, err = transcode(*args, "--report", tmp_path / "r.jsonl")
    assert code == 1
    assert [record["reason"] for record in report_of(tmp_path / "r.jsonl")] == ["", "destination-collision"]
    assert err.count("\n") == 1
    assert "1 encoded, 0 copied, 0 skipped, 1 failed" in out


def test_dry_run_writes_nothing(study, tmp_path):
    (study / "cut.dcm").write_bytes(IMAGE.file()[:-9])
    code, out, err = transcode(study, "-o", tmp_path / "out", "--dry-run", "--report", tmp_path / "r.jsonl")
    assert code == 1
    assert not (tmp_path / "out").exists()
    assert "nothing was written" in out
    assert err.count("truncated") == 1
    records = report_of(tmp_path / "r.jsonl")
    assert [record["status"] for record in records] == ["encoded", "encoded", "encoded", "failed", "skipped"]
    assert [record["frames"] for record in records] == [2, 2, 2, 0, 0]
    assert not any(record["verified"] or record["bytes_out"] for record in records)


def test_outputs_that_exist_are_kept_unless_told_otherwise(study, tmp_path):
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "1.dcm").write_bytes(b"precious")
    code, shown, _ = transcode(study, "-o", out)
    assert code == 0
    assert (out / "a" / "1.dcm").read_bytes() == b"precious"
    assert "1 × destination-exists" in shown
    code, shown, _ = transcode(study, "-o", out, "--overwrite")
    assert code == 0
    assert "3 encoded" in shown
    assert dcmread(out / "a" / "1.dcm").file_meta.TransferSyntaxUID == made.HTJ2K


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_sources_are_never_replaced(study, tmp_path, monkeypatch, overwrite):
    before = {name: (study / name).read_bytes() for name in tree(study)}
    code, _, err = transcode(study, "-o", study, *overwrite)
    assert code == 2
    assert "sources are never changed" in err
    code, _, err = transcode(study / "a", study / "b", "-o", study, *overwrite)
    assert code == (1 if overwrite else 0)
    code, _, err = transcode(study / "a" / "1.dcm", "-o", study / "a", *overwrite)
    assert code == (1 if overwrite else 0)
    (tmp_path / "out").symlink_to(study / "a")
    code, _, err = transcode(study / "a" / "1.dcm", study / "a" / "2.dcm", "-o", tmp_path / "out", *overwrite)
    assert code == (1 if overwrite else 0)
    if overwrite:
        assert err.count("[destination-is-source]") == 2
    assert {name: (study / name).read_bytes() for name in tree(study)} == before


def test_destination_inside_the_source(study):
    for expected in ("3 encoded, 0 copied, 1 skipped", "0 encoded, 0 copied, 4 skipped"):
        code, out, _ = transcode(study, "-o", study / "out")
        assert code == 0
        assert expected in out
    assert tree(study / "out") == {"a/1.dcm", "a/2.dcm", "b/deep/1.dcm"}


ODD_NAMES = ("with space", "größe 心电图", "two\nlines", "[red]x", "\x1b[31mred", "-o", "x" * 250, b"\xff\xfe")


def test_odd_names(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "cut").mkdir()
    sources = [IMAGE.write(tmp_path / "in" / os.fsdecode(name)) for name in ODD_NAMES]
    cut = [tmp_path / "cut" / path.name for path in sources]
    for path in cut:
        path.write_bytes(IMAGE.file()[:-9])
    done = process(
        "transcode", tmp_path / "in", *cut, "-o", tmp_path / "out", "--to", "rle", "--report", tmp_path / "r.jsonl"
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == len(cut)
    assert "\x1b" not in done.stderr
    for path in cut:
        assert f"{path}: " in done.stderr or not path.name.isprintable()
    records = report_of(tmp_path / "r.jsonl")
    assert {Path(record["source"]): record["status"] for record in records} == dict.fromkeys(
        sources, "encoded"
    ) | dict.fromkeys(cut, "failed")
    assert len(records) == 2 * len(cut)
    for path in sources:
        assert dcmread(tmp_path / "out" / "in" / path.name).file_meta.TransferSyntaxUID == made.RLE


def test_verify_none_and_plugins(study, tmp_path):
    for number, (args, to, verified, plugin) in enumerate(
        (
            (("--verify", "none"), "rle", False, "imagecodecs"),
            (("--plugin", "pydicom"), "rle", True, "pydicom"),
            (("--plugin", "pylibjpeg", "--jobs", "3"), "jpeg2000-lossless", True, "pylibjpeg"),
            (("--plugin", "pyjpegls", "--verify", "none"), "jpeg-ls-lossless", False, "pyjpegls"),
        )
    ):
        out, report = tmp_path / f"out{number}", tmp_path / f"{number}.jsonl"
        code, _, _ = transcode(study, "-o", out, "--report", report, *args, to=to)
        assert code == 0
        for record in report_of(report)[:3]:
            assert (record["verified"], record["plugins"]) == (verified, {plugin: 2})
            got = oracle.samples(oracle.read(Path(record["destination"])))
            np.testing.assert_array_equal(got.reshape(SAMPLES.shape), SAMPLES)


def test_a_plugin_that_lies_is_found_out(study, tmp_path, monkeypatch):
    from gpuenc.cpu import encoders

    right = encoders.encode_samples

    def wrong(samples, *rest):
        changed = samples.copy()
        changed.flat[-1] ^= 1
        return right(changed, *rest)

    monkeypatch.setattr(encoders, "encode_samples", wrong)
    code, _, err = transcode(study, "-o", tmp_path / "out")
    assert code == 1
    assert err.count("[verify-mismatch]") == 3
    assert tree(tmp_path / "out") == set()
    # The next plug-in is asked, and right.
    code, out, _ = transcode(study, "-o", tmp_path / "out", to="jpeg2000-lossless")
    assert code == 0
    assert "pylibjpeg: 6 frames" in out
    assert "imagecodecs: verify-mismatch: 6 frames" in out


def test_lossy_sources_and_samples_out_of_range(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "lossy.dcm").write_bytes(Path(files.named("SC_rgb_jpeg_dcmtk.dcm")).read_bytes())
    made.of(made.noise((1, 4, 4), "u2"), stored=12).write(tmp_path / "in" / "outside.dcm")
    for number, (args, statuses) in enumerate(
        (
            ((), {"copied": {"lossy-source", "values-outside-bits-stored"}}),
            (("--lossy-sources", "encode"), {"encoded": {""}, "copied": {"values-outside-bits-stored"}}),
            (("--out-of-range", "whole-cells"), {"encoded": {""}, "copied": {"lossy-source"}}),
        )
    ):
        report = tmp_path / f"{number}.jsonl"
        code, _, _ = transcode(tmp_path / "in", "-o", tmp_path / str(number), "--report", report, *args)
        assert code == 0
        got = {}
        for record in report_of(report):
            got.setdefault(record["status"], set()).add(record["reason"])
        assert got == statuses


def test_extended_offsets(study, tmp_path):
    code, _, _ = transcode(study / "a", "-o", tmp_path / "out", "--extended-offsets")
    assert code == 0
    ds = dcmread(tmp_path / "out" / "1.dcm")
    assert struct.unpack("<2Q", ds.ExtendedOffsetTableLengths) == tuple(
        len(each.rstrip(b"\0")) for each in oracle.fragments(ds)
    )
    np.testing.assert_array_equal(oracle.samples(ds).reshape(SAMPLES.shape), SAMPLES)


def test_lossy_targets(tmp_path):
    path = made.of(made.noise((1, 32, 32), "u1")).write(tmp_path / "in.dcm")
    for to, args, method in (
        ("jpeg-baseline", ("--quality", "90"), "ISO_10918_1"),
        ("jpeg2000", ("--ratio", "4"), "ISO_15444_1"),
        ("htj2k", ("--psnr", "40"), "ISO_15444_15"),
        ("jpeg-ls", ("--near", "3"), "ISO_14495_1"),
    ):
        code, _, err = transcode(path, "-o", tmp_path / to, *args, to=to)
        assert (code, err) == (0, "")
        ds = dcmread(tmp_path / to / "in.dcm")
        assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", method)
        assert ds.ImageType[0] == "DERIVED"
        assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID != made.INSTANCE
        assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == made.INSTANCE
        size = sum(len(each) for each in oracle.fragments(ds))
        assert float(ds.LossyImageCompressionRatio) == pytest.approx(32 * 32 / size, rel=0.01)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--to", "nonsense"), 2, "not a transfer syntax"),
        (("--to", "1.2.840.10008.1.2.4.100"), 2, "not a transfer syntax"),
        (("--to", "jpeg2000"), 2, "lossless or lossy"),
        (("--to", "rle", "--quality", "80"), 2, "takes no lossy option"),
        (("--to", "jpeg-baseline", "--lossless"), 2, "always lossy"),
        (("--to", "jpeg-baseline", "--quality", "101"), 2, "from 1 to 100"),
        (("--to", "jpeg-baseline", "--quality", "nan"), 2, "from 1 to 100"),
        (("--to", "jpeg-ls", "--near", "-1"), 2, "from 0 to 255"),
        (("--to", "htj2k", "--ratio", "0.5"), 2, "at least 1"),
        (("--to", "htj2k", "--ratio", "5", "--psnr", "50"), 2, "choose one"),
        (("--to", "rle", "--plugin", "nothing"), 2, "nothing"),
        (("--to", "uncompressed", "--plugin", "gdcm"), 2, "leave out --plugin"),
        (("--to", "rle", "--device", "gpu"), 4, "GPU"),
        (("--to", "rle", "--device", "tpu"), 2, "tpu"),
        (("--to", "rle", "--device", "0"), 4, "GPU"),
        (("--to", "rle", "--device", "-1"), 2, "index of a GPU"),
        (("--to", "rle", "--device-memory", "-1"), 2, "--device-memory"),
        (("--to", "rle", "--jobs", "-1"), 2, "--jobs"),
        (("--to", "rle", "--cluster", "local:0"), 2, "local:N"),
        (("--to", "rle", "--cluster", "tcp://host:0"), 2, "host:port"),
        (("--to", "rle", "--report", "s3://bucket/r"), 2, "not an address"),
        (("--nonsense",), 2, "--nonsense"),
    ],
)
def test_usage(study, tmp_path, args, code, said):
    got, out, err = gpuenc("transcode", study, "-o", tmp_path / "out", *args)
    assert got == code
    assert said in err
    assert out == ""
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "args",
    [
        ("verify", "s3://key:hush@b/in", "out"),
        ("verify", "out", "--record", "gs://key:hush@b/r"),
        ("report", "s3://key:hush@b/out"),
        ("report", "out", "-o", "s3://key:hush@b/page.html"),
        ("merge-reports", "az://key:hush@c/r", "-o", "all"),
        ("shards", "in", "-o", "s3://key:hush@b/out", "--to", "rle"),
        ("shards", "https://key:hush@host/in", "-o", "out", "--to", "rle"),
    ],
)
def test_an_address_where_only_paths_of_this_machine_will_do(args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = gpuenc(*args)
    assert (code, out) == (2, "")
    assert "not an address" in " ".join(err.replace("│", " ").split())
    assert "hush" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_names_what_would_fail(study, tmp_path):
    (study / "bad").mkdir()
    for number in range(23):
        (study / "bad" / f"{number:02}.dcm").write_bytes(IMAGE.file()[:-100])
    code, _, err = gpuenc("plan", study, "-o", tmp_path / "out", "--to", "htj2k-lossless", "--workers", "0")
    done = transcode(study, "-o", tmp_path / "out")
    assert code == done[0] == 1
    *named, last = err.splitlines()
    assert len(set(named)) == 20
    assert set(named) < set(done[2].splitlines())
    assert all("[truncated]" in line for line in named)
    assert "and 3 more" in last


def test_outputs_of_another_transfer_syntax_are_not_taken_for_those_that_were_asked_for(study, tmp_path):
    out, report = tmp_path / "out", tmp_path / "r"
    assert transcode(study, "-o", out, to="rle")[0] == 0
    before = sum(dcmread(path).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5" for path in out.rglob("*.dcm"))
    code, _, err = transcode(study, "-o", out, "--report", report)
    found = [json.loads(line) for line in report.read_bytes().splitlines()]
    others = [each for each in found if each["message"].endswith("in another transfer syntax than asked for: rle")]
    assert (code, len(others)) == (0, before)
    assert {each["reason"] for each in others} == {"destination-exists"}
    assert f"{before} outputs there already, in another transfer syntax than asked for" in " ".join(err.split())
    code, _, err = transcode(study, "-o", out, to="rle")
    assert (code, err) == (0, "")


def test_no_input(tmp_path):
    code, _, err = transcode(tmp_path / "absent", tmp_path / ("y" * 300), "-o", tmp_path / "out")
    assert code == 3
    assert err.count("no such file or folder") == 2
    (tmp_path / "empty").mkdir()
    code, _, err = transcode(tmp_path / "empty", "-o", tmp_path / "out")
    assert code == 3
    assert "hold no files" in err


@pytest.mark.parametrize("special", ["a file", "below a file", "no write access", "read only"])
def test_destinations_that_cannot_be(special, study, tmp_path, monkeypatch):
    out = tmp_path / "out"
    if special == "a file":
        out.write_bytes(b"precious")
    elif special == "below a file":
        out.write_bytes(b"precious")
        out /= "below"
    elif special == "no write access":  # as root nothing is forbidden
        monkeypatch.setattr("os.access", lambda path, mode: path != out)
    else:
        monkeypatch.setattr("pathlib.Path.mkdir", failing(errno.EROFS))
    code, _, err = transcode(study, "-o", out)
    assert code == (2 if special == "a file" else 4)
    assert err.count("\n") == 1
    if special.endswith("file"):
        assert (tmp_path / "out").read_bytes() == b"precious"


def failing(number):
    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    return fail


def test_nothing_is_replaced_by_what_may_not_be_on_the_disk(study, tmp_path):
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    code, _, err = transcode(study, "--in-place", "--no-backup", "--durability", "none")
    assert code == 2
    assert "leave out --durability none" in err
    assert before == {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}


def test_a_file_in_place_of_a_folder_costs_only_what_goes_there(study, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_bytes(b"precious")
    code, out, err = transcode(study, "-o", tmp_path / "out")
    assert code == 1
    assert err.count("[destination-unwritable]") == 2
    assert tree(tmp_path / "out") == {"a", "b/deep/1.dcm"}
    assert (tmp_path / "out" / "a").read_bytes() == b"precious"
    assert "1 encoded, 0 copied, 1 skipped, 2 failed" in out


def test_a_folder_in_place_of_a_file(study, tmp_path):
    (tmp_path / "out" / "a" / "1.dcm").mkdir(parents=True)
    code, out, _ = transcode(study / "a", "-o", tmp_path / "out" / "a")
    assert (code, "1 × destination-exists" in out) == (0, True)
    code, _, err = transcode(study / "a", "-o", tmp_path / "out" / "a", "--overwrite")
    assert code == 1
    assert "[destination-unwritable]" in err
    assert tree(tmp_path / "out") == {"a/2.dcm"}


def test_a_full_disk_costs_only_what_does_not_fit(tmp_path):
    """The limit on the size of files is a disk that is full for large files and not for small ones."""
    (tmp_path / "in").mkdir()
    made.of(made.noise((1, 512, 512), "u2")).write(tmp_path / "in" / "1 large.dcm")
    (tmp_path / "in" / "2 copied.dcm").write_bytes(made.float_pixels().file() + bytes(600_000))
    IMAGE.write(tmp_path / "in" / "3 small.dcm")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    args = ("-o", tmp_path / "out", "--to", "rle", "--report", tmp_path / "r.jsonl")
    done = process("transcode", tmp_path / "in", *args, preexec_fn=limit)
    assert done.returncode == 1
    assert [record["reason"] for record in report_of(tmp_path / "r.jsonl")] == ["destination-unwritable"] * 2 + [""]
    assert done.stderr.count("\n") == 2
    assert tree(tmp_path / "out") == {"3 small.dcm"}


def test_no_space_left(study, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", failing(errno.ENOSPC))
    code, _, err = transcode(study, "-o", tmp_path / "out", "--jobs", "1")
    assert code == 4
    assert "[disk-full]" in err  # of one file, or of all that were done before the job knew of it
    assert "go on with --resume" in err
    assert tree(tmp_path / "out") == set()
    # Once there is some, what failed is done, and what was not begun.
    monkeypatch.undo()
    code, out, _ = transcode(study, "-o", tmp_path / "out", "--resume")
    assert (code, "4: 3 encoded" in out) == (0, True)


def test_no_space_left_for_the_last_file(study, tmp_path, monkeypatch):
    """There is nothing left to begin, and still it is room that was missing, not a file that is wrong."""
    monkeypatch.setattr("os.fsync", failing(errno.ENOSPC))
    (one,) = list(study.rglob("*.dcm"))[:1]
    code, _, err = transcode(one, "-o", tmp_path / "out")
    assert (code, "[disk-full]" in err, "go on with --resume" in err) == (4, True, True)
    monkeypatch.undo()
    code, out, _ = transcode(one, "-o", tmp_path / "out", "--resume")
    assert (code, "1: 1 encoded" in out) == (0, True)


def test_no_room_for_the_first_file(study, tmp_path):
    """Nothing was begun, so there is nothing to go on with, and nobody is told to."""
    code, _, err = transcode(study, "-o", tmp_path / "out", "--reserve", str(10**9))
    assert code == 4
    assert "there is no room left: 4 of 4 files have no outcome; make some, then begin again" in err
    assert "--resume" not in err
    assert transcode(study, "-o", tmp_path / "out", "--resume")[0] == 2
    assert transcode(study, "-o", tmp_path / "out", "--reserve", "0")[0] == 0


def test_report_that_cannot_be_written(study, tmp_path):
    code, _, err = transcode(study, "-o", tmp_path / "out", "--report", tmp_path / "no" / "r.jsonl")
    assert code == 4
    assert tree(tmp_path / "out") == set()
    code, _, err = transcode(study, "-o", tmp_path / "out", "--report", tmp_path)
    assert (code, err.count("\n")) == (4, 1)
    # Files are not given up for the sake of a report.
    code, out, err = transcode(study, "-o", tmp_path / "out", "--report", "/dev/full")
    assert code == 4
    assert "not complete" in err
    assert "3 encoded" in out


def test_report_does_not_replace_what_is_no_report(study, tmp_path):
    before = (study / "a" / "1.dcm").read_bytes()
    code, _, err = transcode(study, "-o", tmp_path / "out", "--report", study / "a" / "1.dcm")
    assert code == 2
    assert "is no report" in err
    assert (study / "a" / "1.dcm").read_bytes() == before
    for more in ((), ("--overwrite",)):  # a report below the sources is no source, and replaced with its outputs
        assert transcode(study, "-o", tmp_path / "out", "--report", study / "r.jsonl", *more)[0] == 0
        assert len(report_of(study / "r.jsonl")) == 4


def test_the_report_of_a_finished_job_is_not_replaced(study, tmp_path):
    """It has the only checksums of the outputs, and the same command again would skip them all."""
    report, args = tmp_path / "r.jsonl", (study, "-o", tmp_path / "out")
    assert transcode(*args, "--report", report)[0] == 0
    before, outputs = report.read_bytes(), tree(tmp_path / "out")
    code, _, err = transcode(*args, "--report", report)
    assert code == 2
    assert err == (
        f"gpuenc: {report} is the report of a finished job in {tmp_path / 'out'}: name another --report, --resume to "
        "add what is new, or --overwrite to do all again\n"
    )
    assert (report.read_bytes(), tree(tmp_path / "out")) == (before, outputs)
    # Neither was the journal replaced, so the job can be gone on with.
    made.of(made.noise((1, 8, 8), "u2")).write(study / "new.dcm")
    assert transcode(*args, "--report", report, "--resume")[0] == 0
    done = {record["source"]: record for record in report_of(report)}
    assert len(done) == len(before.splitlines()) + 1
    assert all(record["crc32"] for record in done.values() if record["status"] == "encoded")
    assert transcode(*args, "--report", report)[0] == 2  # also after a second run
    other = tmp_path / "other.jsonl"
    assert transcode(*args, "--report", other)[0] == 0
    assert {record["status"] for record in report_of(other)} == {"skipped"}
    assert len(report_of(report)) == len(done)
    # Of outputs that are gone, nobody needs the report.
    shutil.rmtree(tmp_path / "out")
    assert transcode(*args, "--report", report)[0] == 0


def test_damaged_files_from_the_command_line(tmp_path):
    """One line each, no traceback, nobody's name, memory within bounds, and every other file done."""
    (tmp_path / "in").mkdir()
    expected = damaged.write_all(tmp_path / "in")
    args = ("-o", tmp_path / "out", "--to", "jpegxl-lossless", "--report", tmp_path / "r.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "transcode", tmp_path / "in", *args],
        capture_output=True, text=True, check=False, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1
    records = report_of(tmp_path / "r.jsonl")
    failed = [record for record in records if record["status"] == "failed"]
    lines = sorted(done.stderr.splitlines(), key=lambda line: line.partition(": ")[2])
    assert [line.rpartition("[")[2] for line in lines] == [f"{record['reason']}]" for record in failed]
    assert all(record["source"] in line for record, line in zip(failed, lines, strict=True))
    for name in ("garbage", "nothing"):
        expected[f"{name} in .4.110.dcm"] = ("copied", "already-encoded")
    got = {Path(record["source"]).name: (record["status"], record["reason"]) for record in records}
    assert got == expected
    everything = done.stdout + done.stderr + (tmp_path / "r.jsonl").read_text(encoding="utf-8")
    assert "SECRET" not in everything
    assert "Traceback" not in everything
    assert int(done.stdout.splitlines()[-1]) < 600 * 1024


SLOW_FILES = 80


def slow_study(folder, count=SLOW_FILES):
    """Write files that take long enough for a signal to come in their midst."""
    folder.mkdir()
    image = made.of(made.noise((4, 256, 256), "u2"))
    first = image.write(folder / "0000.dcm")
    for number in range(1, count):
        os.link(first, folder / f"{number:04}.dcm")


def test_what_libraries_say_is_not_shown(study, tmp_path):
    """pydicom warns, and logs, with the values that it finds odd."""
    code = (
        "import logging, pydicom, warnings; from gpuenc.archive import job; right = job.run\n"
        "def run(*args):\n"
        "    warnings.warn('SECRET'); logging.getLogger('pydicom').warning('SECRET')\n"
        "    return right(*args)\n"
        "job.run = run; from gpuenc.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "transcode", study, "-o", tmp_path / "out", "--to", "rle"],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 encoded" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path, number):
    slow_study(tmp_path / "in")
    report = tmp_path / "r.jsonl"
    args = ("transcode", tmp_path / "in", "-o", tmp_path / "out", "--to", "jpeg2000-lossless", "--report", report)
    with subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as running:
        until(lambda: report.exists() and report.read_bytes().count(b"\n") >= 2)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    records = report_of(report)
    assert 2 <= len(records) < SLOW_FILES
    # What is there is complete and reported; what is reported is there; nothing else is.
    assert tree(tmp_path / "out") == {Path(record["destination"]).name for record in records}
    for record in records[-2:]:
        assert record["status"] == "encoded"
        assert len(oracle.fragments(dcmread(record["destination"]))) == 4
    left = SLOW_FILES - len(records)
    assert err == f"interrupted: {left} of {SLOW_FILES} files have no outcome; go on with --resume\n"
    assert f"{SLOW_FILES}: {len(records)} encoded" in out


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def test_interrupted_before_it_began(tmp_path):
    slow_study(tmp_path / "in", 3)
    code = (
        "import os, signal; from gpuenc.archive import planner; right = planner.scan\n"
        "def scan(*a, **b): os.kill(os.getpid(), signal.SIGINT); return right(*a, **b)\n"
        "planner.scan = scan; from gpuenc.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "transcode", tmp_path / "in", "-o", tmp_path / "out", "--to", "rle"],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert tree(tmp_path / "out") == set()


def test_a_reader_that_is_gone_does_not_stop_the_job(study, tmp_path):
    with subprocess.Popen(
        [*COMMAND, "transcode", study, "-o", tmp_path / "out", "--to", "rle"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as running:  # fmt: skip
        running.stdout.close()
        err = running.stderr.read()
    assert (running.returncode, err) == (0, b"")
    assert tree(tmp_path / "out") == {"a/1.dcm", "a/2.dcm", "b/deep/1.dcm"}


def on_terminal(*args, columns=80):
    """Run the command on a terminal of its own; return what it showed, without colours, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        environment.pop(name, None)
    with subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=theirs, stderr=theirs, stdin=theirs, cwd=ROOT, env=environment
    ) as running:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):
            while select.select([ours], [], [], 60)[0] and (piece := os.read(ours, 65536)):
                shown += piece
        os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return text.replace("\r\n", "\n"), running.returncode


@pytest.mark.parametrize(
    "args", [("syntaxes",), ("doctor",), ("--help",), ("transcode", "--help"), ("--version",)], ids=" ".join
)
def test_eighty_columns_are_enough(args):
    shown, code = on_terminal(*args)
    assert code == 0
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "…" not in shown
    if args == ("syntaxes",):
        for uid in (made.JPEG2000, made.HTJ2K, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1"):
            assert f" {uid} " in shown
    if args[0] == "doctor":
        assert "transfer syntaxes" in shown


def test_progress_on_a_terminal(study, tmp_path):
    (study / "cut.dcm").write_bytes(IMAGE.file()[:-9])
    shown, code = on_terminal("transcode", study, "-o", tmp_path / "out", "--to", "rle")
    assert code == 1
    assert "5/5" in shown
    assert "ETA" in shown
    assert "MB/s" in shown
    failure = next(line for line in shown.replace("\n", "").split("failed: ")[1:])
    assert "truncated" in failure
    assert "3 encoded, 0 copied, 1 skipped, 1 failed" in shown


def test_tables_through_a_pipe_are_not_broken():
    code, out, _ = gpuenc("syntaxes")
    assert code == 0
    rle = next(line for line in out.splitlines() if " 1.2.840.10008.1.2.5 " in line)
    assert rle.split() == ["rle", "1.2.840.10008.1.2.5", "never", "imagecodecs,", "pylibjpeg,", "gdcm,", "pydicom"]
    assert gpuenc("doctor")[0] == 0


def test_what_could_be_installed_is_told_in_full(monkeypatch):
    from gpuenc.encoder import Encoder

    lacking = ["pylibjpeg - requires pylibjpeg>=2.0: pip install 'gpuenc[pylibjpeg]'"]
    monkeypatch.setattr(Encoder, "missing_dependencies", property(lambda self: lacking))
    _, out, _ = gpuenc("syntaxes")
    assert "pip install 'gpuenc[pylibjpeg]'" in out
    monkeypatch.setattr("gpuenc.doctor.version", failing_version)
    _, out, _ = gpuenc("doctor")
    assert "pip install 'gpuenc[gdcm]'" in out
    assert "missing: reinstall gpuenc" in out


def failing_version(package):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(package)


def test_a_gpu_that_was_not_used_is_said_once(study, tmp_path, monkeypatch):
    from gpuenc import registry
    from gpuenc.cuda import nvcodec

    monkeypatch.setattr(registry, "_ENCODERS", {})
    monkeypatch.setattr(nvcodec, "is_available", lambda uid: False)
    monkeypatch.setattr(nvcodec, "why_unavailable", lambda uid, device=0: "GPU 0 was given up: it hangs")
    _, out, err = transcode(study, "-o", tmp_path / "auto")
    assert (" ".join(out.split()).count("GPU not used │ GPU 0 was given up: it hangs"), err) == (1, "")
    for number, options in enumerate((("--device", "cpu"), ("--plugin", "imagecodecs"))):
        assert "GPU not used" not in transcode(study, "-o", tmp_path / str(number), *options)[1]
    assert "GPU not used" not in transcode(study, "-o", tmp_path / "rle", to="jpeg-ls-lossless")[1]


def test_device_memory_and_index_reach_the_encoder(study, tmp_path, monkeypatch):
    from gpuenc.registry import chain

    asked = []

    def remembered(syntax, label, **options):
        asked.append(options)
        return chain(syntax, label)

    monkeypatch.setattr("gpuenc.registry.chain", remembered)
    transcode(study, "-o", tmp_path / "out", "--device", "1", "--device-memory", "500")
    assert asked == [{"device": "1", "device_memory_bytes": 500_000_000}]
