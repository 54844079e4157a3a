"""Manifests: all shares together are all files, and each is exactly one's."""

from __future__ import annotations

import io
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.archive import manifest as manifest_module
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.manifest import Manifest, Share, Writer
from gpuenc.archive.plan import plan
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item, LeftOut
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records

NAMES = [*(f"{number:02}" for number in range(23)), os.fsdecode(b"\xff\xfe"), "two\nlines", 'quote"', "größe"]


@pytest.fixture
def job(tmp_path):
    return Job((tmp_path / "in",), tmp_path / "out", target(find("htj2k"), psnrs=(50.0,)), keep_lossy=False)


@pytest.fixture
def written(job, tmp_path, monkeypatch):
    """Return a manifest of shards of three files."""
    monkeypatch.setattr(manifest_module, "SHARD_FILES", 3)

    def write(names=NAMES, job=job):
        with (tmp_path / "m.jsonl").open("wb") as stream:
            writer = Writer(stream, job)
            for name in names:
                source = job.sources[0] / name
                writer.add(Item(source, source if job.in_place else job.destination / name), 5)
            writer.finish()
        assert writer.files == len(names)
        return tmp_path / "m.jsonl"

    return write


def test_what_was_asked_for_comes_back(written, job):
    again = Manifest(written()).job
    assert again.about() == job.about()
    assert (again.target, again.keep_lossy, again.verify) == (job.target, False, "all")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 50])
def test_the_shares_are_all_files_and_disjoint(written, job, count):
    manifest = Manifest(written())
    shares = [list(manifest.items(Share(index, count))) for index in range(1, count + 1)]
    found = [item for share in shares for item in share]
    assert sorted(item.source for item in found) == sorted(job.sources[0] / name for name in NAMES)
    assert {item.destination for item in found} == {job.destination / name for name in NAMES}
    assert len({Share(index, count).name for index in range(1, count + 1)}) == count
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 3


def test_shards_are_closed_by_size_and_by_number(job):
    stream = io.BytesIO()
    writer = Writer(stream, job)
    for size in (1 << 30, 1 << 30, 1, 3 << 30, 1):
        writer.add(Item(Path("/in/a"), job.destination / "a"), size)
    for _ in range(1025):
        writer.add(Item(Path("/in/a"), job.destination / "a"), 0)
    writer.finish()
    shards = [json.loads(line) for line in stream.getvalue().splitlines()[1:-1]]
    assert [len(shard["files"]) for shard in shards] == [2, 1, 1, 1024, 2]


def test_what_is_left_out_stays_so(job, tmp_path):
    why = LeftOut("skipped", "symbolic-link", "not followed")
    with (tmp_path / "m").open("wb") as stream:
        writer = Writer(stream, job)
        writer.add(Item(tmp_path / "in" / "a", tmp_path / "out" / "a", why), 0)
        writer.finish()
    assert [item.left_out for item in Manifest(tmp_path / "m").items()] == [why]


def test_sources_that_are_replaced(written, job, tmp_path):
    """Their places are their own, wherever the journal lies."""
    replaced = replace(job, in_place=True, destination=tmp_path / "backup", backup=tmp_path / "backup")
    items = list(Manifest(written(job=replaced)).items())
    assert [item.destination for item in items] == [item.source for item in items]
    assert len(items) == len(NAMES)


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1/3/5", "1/9999999999"])
def test_shares_that_mean_nothing(text):
    with pytest.raises(JobError) as caught:
        Share.of(text)
    assert caught.value.code == "manifest-wrong"


def test_a_share():
    assert Share.of("3/16") == Share(3, 16)
    assert Share().name == "journal"


def lines_without(index):
    return lambda lines: [line for number, line in enumerate(lines) if number != index]


@pytest.mark.parametrize(
    ("damage", "when"),
    [
        (lambda lines: lines[:-1], "opened"),
        (lambda lines: [*lines[:-1], lines[-1][:9]], "opened"),
        (lambda lines: lines[1:], "opened"),
        (lambda lines: [b"{}"], "opened"),
        (lambda lines: [], "opened"),
        (lines_without(2), "read"),
        (lines_without(8), "read"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "read"),
        (lambda lines: [*lines[:2], lines[2][:40], *lines[3:]], "read by its owner"),
        (lambda lines: [*lines[:2], b"", *lines[2:]], "read"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "read"),
    ],
)
def test_a_damaged_manifest_loses_no_file_without_a_word(written, damage, when):
    path = written()
    path.write_bytes(b"".join(line + b"\n" for line in damage(path.read_bytes().splitlines())))
    with pytest.raises(JobError) as caught:
        list(Manifest(path).items())
    assert caught.value.code == "manifest-wrong"
    if when == "read":
        # Whoever has another share notices too.
        with pytest.raises(JobError):
            list(Manifest(path).items(Share(5, 9)))


@pytest.mark.parametrize("place", ["../outside", "/etc/outside", "a/../../outside", ".."])
def test_no_manifest_leads_out_of_the_destination(written, place):
    path = written(["a"])
    path.write_bytes(path.read_bytes().replace(b', "a", 5', b", " + json.dumps(place).encode() + b", 5"))
    with pytest.raises(JobError):
        list(Manifest(path).items())


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(JobError) as caught:
        Manifest(tmp_path / "gone")
    assert caught.value.code == "manifest-wrong"


def test_planned_and_done_in_shares(tmp_path, monkeypatch):
    """As if there had been one job; resumed, each share knows its own."""
    monkeypatch.setattr(manifest_module, "SHARD_FILES", 2)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for number in range(9):
        made.of(made.noise((1, 8, 8), "u2", seed=number)).write(tmp_path / "in" / "sub" / str(number))
    whole = Job((tmp_path / "in",), tmp_path / "whole", target(find("rle")))
    run(whole, Records())
    out = tmp_path / "out"
    with (tmp_path / "m").open("wb") as stream:
        planned = plan(
            replace(whole, destination=out, dry_run=True),
            threading.Event(),
            Writer(stream, replace(whole, destination=out)),
        )
    assert (planned.summary.files["encoded"], planned.sample_files) == (9, 9)
    assert planned.output_bytes > 0
    assert not out.exists()
    for resume, new in ((False, True), (True, False)):
        done = []
        for index in (1, 2, 3):
            share, manifest = Share(index, 3), Manifest(tmp_path / "m")
            job = replace(manifest.job, journal=place_of(out, share.name), resume=resume)
            watcher = Records()
            summary = run(job, watcher, items=manifest.items(share))
            assert (summary.earlier_files == 0) == new
            done += [record.source for record in watcher.records]
        assert len(done) == len(set(done)) == 9
    outputs = {path.name: path.read_bytes() for path in (out / "sub").iterdir()}
    assert outputs == {path.name: path.read_bytes() for path in (tmp_path / "whole" / "sub").iterdir()}


def test_two_sources_of_one_place_are_told_apart_before_they_are_shared_out(tmp_path, monkeypatch):
    """Neither share would know of the other."""
    monkeypatch.setattr(manifest_module, "SHARD_FILES", 1)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.of(made.noise((1, 8, 8), "u2", seed=len(name))).write(tmp_path / name / "a")
    out = tmp_path / "out"
    job = Job((tmp_path / "one" / "a", tmp_path / "two" / "a"), out, target(find("rle")))
    with (tmp_path / "m").open("wb") as stream:
        planned = plan(replace(job, dry_run=True), threading.Event(), Writer(stream, job.absolute()))
    assert planned.summary.reasons == {("failed", "destination-collision"): 1}
    found = {}
    for index in (1, 2):
        share, manifest = Share(index, 2), Manifest(tmp_path / "m")
        watcher = Records()
        run(replace(manifest.job, journal=place_of(out, share.name)), watcher, items=manifest.items(share))
        found |= {Path(record.source).parent.name: record.reason or record.status for record in watcher.records}
    assert found == {"one": "encoded", "two": "destination-collision"}


def test_a_manifest_is_known_by_what_it_says(written, job, tmp_path):
    path = written()
    (tmp_path / "copy").write_bytes(path.read_bytes())
    assert Manifest(path).digest() == Manifest(tmp_path / "copy").digest()
    (tmp_path / "copy").write_bytes(path.read_bytes().replace(b'"bytes": ', b'"bytes":  ', 1))
    assert Manifest(path).digest() != Manifest(tmp_path / "copy").digest()
    one, other = (replace(job, manifest=digest) for digest in ("1", "2"))
    assert one.about() != other.about() != job.about()
