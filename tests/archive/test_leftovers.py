"""Temporary files of killed runs: those of the run are removed, and nothing else is looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuenc.archive.job import run
from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.leftovers import remove_leftovers
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.dicom.atomic import AtomicFile
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records

MINE, OTHERS = "0123456789ab", "ba9876543210"
JOB = Job((Path("in"),), Path("out"), target(find("rle")))


def half(destination, token):
    """Leave what a process leaves that is killed while it writes: under both names that a temporary file may have."""
    before = set(destination.parent.iterdir())
    out = AtomicFile(destination, token=token)
    out.file.write(b"half")
    with out.rewritten():
        made_now = sorted(set(destination.parent.iterdir()) - before)
    out.file.close()
    assert len(made_now) == 2
    for path in made_now:
        path.write_bytes(b"half")
    return made_now


@pytest.mark.parametrize("name", ["a", "ä" * 120, "a" * 255])
def test_only_those_of_the_run(tmp_path, name):
    mine, others = half(tmp_path / name, MINE), half(tmp_path / name, OTHERS)
    remove_leftovers([Item("in/a", tmp_path / name)], JOB, MINE)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    assert not any(path.exists() for path in mine)


def test_no_folder_is_looked_into(tmp_path, monkeypatch):
    """It may hold a million files of others, who are at work."""
    half(tmp_path / "a", MINE)

    def looked(*_):
        raise AssertionError

    with monkeypatch.context() as patch:
        for name in ("listdir", "scandir", "stat", "lstat"):
            patch.setattr(os, name, looked)
        remove_leftovers([Item("in/a", tmp_path / "a"), Item("in/b", tmp_path / "gone" / "b")], JOB, MINE)
    assert not list(tmp_path.iterdir())


def test_a_share_that_goes_on_leaves_alone_what_others_write(tmp_path):
    """In the same folder, even of the same output."""
    out = tmp_path / "out"
    (tmp_path / "in").mkdir()
    out.mkdir()
    made.of(made.noise((1, 8, 8), "u2")).write(tmp_path / "in" / "a")
    journal = place_of(out, "shard-1-of-2")
    job = Job((tmp_path / "in",), out, target(find("rle")), journal=journal, resume=True)
    killed = Journal(journal, job.about(), token=MINE)
    killed.plan([(Item(tmp_path / "in" / "a", out / "a"), 1)])
    killed.next(1)
    killed._db.close()
    half(out / "a", MINE)
    others = half(out / "a", OTHERS) + half(out / "b", OTHERS)
    watcher = Records()
    run(job, watcher)
    assert [record.status for record in watcher.records] == ["encoded"]
    assert sorted(path for path in out.iterdir() if path.is_file()) == sorted([out / "a", *others])


def test_a_second_try_of_a_run_is_not_hindered_by_the_first(tmp_path):
    half(tmp_path / "a", MINE)
    with AtomicFile(tmp_path / "a", token=MINE) as out:
        out.file.write(b"whole")
        out.publish()
    assert (tmp_path / "a").read_bytes() == b"whole"
