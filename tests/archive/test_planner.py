"""What a resumed job does again, what it leaves alone, and what never gets an output."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.request import Job
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records

IMAGE = made.of(made.noise((1, 8, 8), "u2"))
OTHER = made.of(made.noise((1, 8, 8), "u2", seed=1))


@pytest.fixture
def job(tmp_path):
    """Return a finished job: two images, a copy, and what failed and what was skipped."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        IMAGE.write(tmp_path / "in" / name)
    (tmp_path / "in" / "copied").write_bytes(made.float_pixels().file())
    (tmp_path / "in" / "failed").write_bytes(IMAGE.file()[:-20])
    (tmp_path / "in" / "skipped").write_text("nothing", encoding="utf-8")
    out = tmp_path / "out"
    job = Job((tmp_path / "in",), out, target(find("rle")), journal=place_of(out))
    again(job, resume=False)
    return job


class Both(Records):
    """Keeps apart what was done now and what was done before."""

    def __init__(self):
        super().__init__()
        self.before = {}

    def earlier(self, outcome):
        assert outcome.source == outcome.record.source
        self.before[Path(outcome.source).name] = outcome.status

    def done(self, record):
        super().done(record)


def again(job, *, resume=True, **options):
    """Run it once more; return what had its outcome before, what has it now, and the totals."""
    watcher = Both()
    summary = run(replace(job, resume=resume, **options), watcher)
    now = {Path(record.source).name: record.reason or record.status for record in watcher.records}
    assert summary.done == summary.planned == len(now) + len(watcher.before)
    return watcher.before, now, summary


KEPT = {"a": "encoded", "b": "encoded", "copied": "copied", "skipped": "skipped"}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def without(name):
    return {key: value for key, value in KEPT.items() if key != name}


def test_only_what_failed_is_tried_again(job):
    before = content(job.destination)
    stamps = {path: path.stat().st_mtime_ns for path in job.destination.iterdir() if path.is_file()}
    kept, now, summary = again(job)
    assert kept == KEPT
    assert now.keys() == {"failed"}
    assert summary.earlier_files == 4
    assert content(job.destination) == before
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_what_failed_and_was_mended_is_done(job):
    IMAGE.write(job.sources[0] / "failed")
    assert again(job)[1] == {"failed": "encoded"}
    assert again(job)[1] == {}


@pytest.mark.parametrize("how", ["content", "time"])
def test_a_source_that_changed_is_done_again(job, how):
    before = (job.destination / "a").read_bytes()
    if how == "content":
        OTHER.write(job.sources[0] / "a")
    os.utime(job.sources[0] / "a", ns=(1, 1))
    kept, now, _ = again(job)
    assert kept == without("a")
    assert now["a"] == "encoded"
    assert ((job.destination / "a").read_bytes() == before) == (how == "time")


@pytest.mark.parametrize("name", ["a", "copied"])
@pytest.mark.parametrize("how", ["gone", "shorter", "touched"])
def test_an_output_that_changed_is_made_again(job, name, how):
    output = job.destination / name
    before = output.read_bytes()
    if how == "gone":
        output.unlink()
    elif how == "shorter":
        output.write_bytes(before[:9])
    else:
        os.utime(output, ns=(1, 1))
    kept, now, _ = again(job)
    assert kept == without(name)
    assert now.keys() == {name, "failed"}
    assert output.read_bytes() == before
    assert again(job)[0] == KEPT


def test_a_whole_folder_of_outputs_that_is_gone(job):
    before = content(job.destination)
    for path in job.destination.iterdir():
        if path.is_file():
            path.unlink()
    again(job)
    assert content(job.destination) == before


def test_new_files_and_vanished_ones(job):
    IMAGE.write(job.sources[0] / "new")
    (job.sources[0] / "b").unlink()
    kept, now, summary = again(job)
    assert kept == without("b")
    assert now.keys() == {"new", "failed"}
    assert summary.planned == 5
    assert (job.destination / "b").exists()  # what was made is never taken away


def test_a_file_that_fails_after_it_was_done_is_not_skipped_later(job):
    """Its old output is this job's: a source that is mended replaces it."""
    (job.sources[0] / "a").write_bytes(IMAGE.file()[:-20])
    assert "a" not in again(job)[0]
    assert again(job)[1].keys() == {"a", "failed"}
    OTHER.write(job.sources[0] / "a")
    assert again(job)[1]["a"] == "encoded"


def test_another_source_in_the_place_of_one_that_was_done(tmp_path):
    """Of the same size and time; it still is another file."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (IMAGE if folder == "x" else OTHER).write(tmp_path / folder / "a")
        os.utime(tmp_path / folder / "a", ns=(1, 1))
    out = tmp_path / "out"
    both = (tmp_path / "x" / "a", tmp_path / "y" / "a")
    job = Job(both, out, target(find("rle")), journal=place_of(out))
    for resume in (False, True, True):
        watcher = Records()
        run(replace(job, resume=resume), watcher)
        assert {record.source: record.reason for record in watcher.records} == {
            str(both[0]): "",
            str(both[1]): "destination-collision",
        }


def test_other_options_are_another_job(job):
    with pytest.raises(JobError, match="--lossy-sources keep, not encode") as caught:
        again(job, keep_lossy=False)
    assert caught.value.code == "journal-differs"
    with pytest.raises(JobError) as caught:
        again(job, target=target(find("jpeg-ls-lossless")))
    assert caught.value.code == "journal-differs"


def test_resumed_from_another_folder(job, tmp_path, monkeypatch):
    """Paths mean the same wherever the command is called."""
    shutil.rmtree(job.destination)
    monkeypatch.chdir(tmp_path)
    here = replace(job, sources=(Path("in"),), destination=Path("out"), journal=place_of(Path("out")))
    again(here, resume=False)
    (tmp_path / "in" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "in" / "deep")
    (tmp_path / "out" / "a").unlink()
    there = replace(job, sources=(Path(".."),), destination=Path("../../out"), journal=place_of(Path("../../out")))
    kept, now, _ = again(there)
    assert kept == without("a")
    assert now["a"] == "encoded"
    assert not (tmp_path / "in" / "out").exists()


def test_what_was_there_before_stays(job):
    theirs = job.destination / "theirs"
    theirs.write_bytes(b"not ours")
    IMAGE.write(job.sources[0] / "theirs")
    for _ in range(2):
        assert "theirs" in again(job)[1] | again(job)[0]
        assert theirs.read_bytes() == b"not ours"


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_output_through_a_link_out_of_the_destination(tmp_path, overwrite):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    IMAGE.write(tmp_path / "in" / "sub" / "a")
    IMAGE.write(tmp_path / "in" / "b")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    job = Job((tmp_path / "in",), tmp_path / "out", target(find("rle")), overwrite=overwrite)
    assert again(job, resume=False)[1] == {"a": "destination-unwritable", "b": "encoded"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_destination_that_is_a_link_is_fine(tmp_path):
    (tmp_path / "in").mkdir()
    IMAGE.write(tmp_path / "in" / "a")
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    assert again(Job((tmp_path / "in",), tmp_path / "out", target(find("rle"))), resume=False)[1] == {"a": "encoded"}
    assert (tmp_path / "real" / "a").exists()


def test_nothing_replaces_the_journal(tmp_path):
    """Not even an image that lies where the journal will be, and overwriting is asked for."""
    (tmp_path / "in" / ".gpuenc").mkdir(parents=True)
    IMAGE.write(tmp_path / "in" / ".gpuenc" / "journal.sqlite")
    IMAGE.write(tmp_path / "in" / "a")
    out = tmp_path / "out"
    job = Job((tmp_path / "in",), out, target(find("rle")), journal=place_of(out), overwrite=True)
    assert again(job, resume=False)[1] == {"journal.sqlite": "destination-unwritable", "a": "encoded"}
    assert again(job)[0] == {"a": "encoded"}


def test_the_clock_may_go_backwards(job, monkeypatch):
    monkeypatch.setattr("time.time", lambda: -1e9)
    OTHER.write(job.sources[0] / "a")
    assert again(job)[1]["a"] == "encoded"
    assert again(job)[0] == KEPT


def test_what_was_in_the_way_and_is_gone(job):
    """Skipped because of it by a worker, after the planner had not seen it."""
    IMAGE.write(job.sources[0] / "late")

    class InTheWay(Both):
        def start(self, files, bytes_total):
            super().start(files, bytes_total)
            (job.destination / "late").write_bytes(b"somebody else's")

    watcher = InTheWay()
    run(replace(job, resume=True), watcher)
    assert {Path(record.source).name: record.reason for record in watcher.records}["late"] == "destination-exists"
    assert again(job)[1]["late"] == "destination-exists"
    (job.destination / "late").unlink()
    assert again(job)[1]["late"] == "encoded"


def test_runs_of_a_job_are_counted(job, monkeypatch):
    """What came later is known whatever the clock says; a new job in the same place goes on counting."""

    def runs(**options):
        watcher = Records()
        run(replace(job, **options), watcher)
        name, numbers = {}, set()
        for record in watcher.records:
            name, _, number = record.run.partition("-")
            numbers.add((name, int(number), Path(record.source).name))
        return numbers

    first = runs(resume=True)  # the one that made the job was before
    name = next(iter(first))[0]
    assert first == {(name, 2 if file == "failed" else 1, file) for file in (*KEPT, "failed")}
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert {(number, file) for _, number, file in runs(resume=True)} == {
        (3 if file == "failed" else 1, file) for file in (*KEPT, "failed")
    }
    assert {one[:2] for one in runs(overwrite=True)} == {(name, 4)}
