"""Two sources whose outputs have one place, by whatever paths: the first has it, the other fails and says so."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from gpuenc.archive import landing as landing_module
from gpuenc.archive import manifest as manifest_module
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.landing import Landing, folds_case
from gpuenc.archive.manifest import Manifest, Share, Writer
from gpuenc.archive.plan import plan
from gpuenc.archive.request import Job
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records

NAMES = ("a/x.dcm", "b/x.dcm", "c/x.dcm", "c/y.dcm")
COLLISION = "destination-collision"


@pytest.fixture
def job(tmp_path):
    """Return a job in whose output the folder b leads to a, and c to b."""
    for seed, name in enumerate(NAMES):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        made.of(made.noise((1, 8, 8), "u2", seed=seed)).write(tmp_path / "in" / name)
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "b").symlink_to("a")
    (out / "c").symlink_to(out / "b")
    return Job((tmp_path / "in",), out, target(find("rle")), journal=place_of(out))


def outcomes(job, items=None):
    """Run a job; return what became of each file, by its name below the source."""
    watcher = Records()
    run(job, watcher, items=items)
    return {str(Path(each.source).relative_to(job.sources[0])): each.reason or each.status for each in watcher.records}


def pixels(path):
    return pydicom.dcmread(path).pixel_array.tobytes()


def demand_whole(job, found, *, first="a/x.dcm"):
    """Check that every output is that of its own source, and that nothing was replaced by another."""
    assert {name for name, what in found.items() if what == "encoded"} == {first, "c/y.dcm"}
    assert {what for name, what in found.items() if name not in (first, "c/y.dcm")} == {COLLISION}
    assert {path.name for path in (job.destination / "a").iterdir()} == {"x.dcm", "y.dcm"}
    for place, source in (("a/x.dcm", first), ("a/y.dcm", "c/y.dcm")):
        assert pixels(job.destination / place) == pixels(job.sources[0] / source)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_folders_that_lead_to_each_other(job, overwrite, workers):
    job = replace(job, overwrite=overwrite, workers=workers, jobs=2)
    found = outcomes(job)
    demand_whole(job, found)
    before = (job.destination / "a" / "x.dcm").stat()
    assert outcomes(replace(job, resume=True)) == found
    after = (job.destination / "a" / "x.dcm").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)  # it was not made again


def test_a_link_comes_before_the_folder_that_it_leads_to(job):
    """The order of names decides, and not which of the paths is the real one."""
    for name in "abc":
        path = job.destination / name
        path.rmdir() if name == "a" else path.unlink()
    (job.destination / "c").mkdir()
    for name in "ab":
        (job.destination / name).symlink_to("c")
    job = replace(job, overwrite=True)
    found = outcomes(job)
    assert found == {"a/x.dcm": "encoded", "b/x.dcm": COLLISION, "c/x.dcm": COLLISION, "c/y.dcm": "encoded"}
    assert pixels(job.destination / "c" / "x.dcm") == pixels(job.sources[0] / "a" / "x.dcm")
    assert outcomes(replace(job, resume=True)) == found
    # What was done and is gone is made again, and is not that of the others.
    (job.destination / "c" / "x.dcm").unlink()
    assert outcomes(replace(job, resume=True)) == found
    assert pixels(job.destination / "c" / "x.dcm") == pixels(job.sources[0] / "a" / "x.dcm")


def test_an_output_that_leads_elsewhere_as_a_whole_is_no_collision(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
        made.of(made.noise((1, 8, 8), "u2")).write(tmp_path / "in" / name / "x.dcm")
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    out = tmp_path / "out"
    job = Job((tmp_path / "in",), out, target(find("rle")), journal=place_of(out), overwrite=True)
    for _ in range(2):
        assert set(outcomes(job).values()) == {"encoded"}
    found = Landing(job.absolute())
    assert found.of(str(out / "one" / "x.dcm")) == str(out / "one" / "x.dcm")


def test_shares_of_a_manifest(job, tmp_path, monkeypatch):
    """Neither share knows of the other: the plan tells them apart."""
    monkeypatch.setattr(manifest_module, "SHARD_FILES", 1)
    job = replace(job.absolute(), overwrite=True)
    with (tmp_path / "m").open("wb") as stream:
        plan(replace(job, dry_run=True, journal=None), threading.Event(), Writer(stream, job))
    found, manifest = {}, Manifest(tmp_path / "m")
    for index in (1, 2):
        share = Share(index, 2)
        shared = replace(manifest.job, journal=place_of(job.destination, share.name))
        found |= outcomes(shared, manifest.items(share))
    demand_whole(job, found)


def test_names_that_a_file_system_takes_for_one(job, tmp_path, monkeypatch):
    """As on a share of Windows: what it does with names is not to be had here, so it is said to do so."""
    monkeypatch.setattr(landing_module, "folds_case", lambda folder: True)
    for seed, name in enumerate(("IM1", "Im1", "im1", "É", "E\u0301", "im2")):
        made.of(made.noise((1, 8, 8), "u2", seed=seed)).write(tmp_path / "in" / name)
    out = tmp_path / "other"
    job = replace(job, destination=out, journal=place_of(out), overwrite=True)
    found = outcomes(job)
    assert {name for name, what in found.items() if what == COLLISION} == {"Im1", "im1", "É"}
    assert outcomes(replace(job, resume=True)) == found


def test_whether_names_are_folded_is_seen(tmp_path, monkeypatch):
    assert not folds_case(tmp_path)
    assert not folds_case(tmp_path / "absent")
    (tmp_path / "a").write_bytes(b"1")
    assert not folds_case(tmp_path)
    os.link(tmp_path / "a", tmp_path / "A")  # one file, two names
    assert not folds_case(tmp_path)
    os.unlink(tmp_path / "A")
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: real(Path(path).with_name(Path(path).name.lower())))
    assert folds_case(tmp_path)
