"""What is said of a job from outside: of one at work, stopped, killed, without room, shared out, and of its report."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import pytest

from gpuenc.archive import manifest as manifests
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.merge import merge_reports
from gpuenc.archive.outcomes import Outcomes, State
from gpuenc.archive.page import make_page
from gpuenc.archive.plan import plan
from gpuenc.archive.request import Job
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.records import Page, write_report
from tests.archive.watcher import Records

FILES = 12


@pytest.fixture
def job(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        made.of(made.noise((1, 8, 8), "u2", seed=number)).write(tmp_path / "in" / f"{number:02}")
    out = tmp_path / "out"
    return Job((tmp_path / "in",), out, target(find("rle")), journal=place_of(out))


class After(Records):
    """Calls something once so many files are done."""

    def __init__(self, files, act):
        super().__init__()
        self._files, self._act = files, act

    def done(self, record):
        super().done(record)
        if len(self.records) == self._files:
            self._act()


def stopped_at(job, files):
    """Run a job until so many files are done, as Ctrl-C ends it; return what it told."""
    stop = threading.Event()
    watcher = After(files, stop.set)
    run(job, watcher, stop)
    assert files <= len(watcher.records) < FILES
    return watcher.records


def said(path, tmp_path):
    """Return what stands at the top of a page, and its State."""
    tally, outcomes = make_page(path, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert int(Page(html).tiles["Files"]) == tally.files
    top = html.partition("<main>")[0].partition("</title>")
    sentence = outcomes.state.sentence(tally.files)
    assert ('id="state"' in top[2]) == bool(sentence)
    if sentence:
        assert sentence[1:] in top[2]
        assert sentence.partition(":")[0] in top[0]
    return sentence, outcomes.state


def test_finished(job, tmp_path):
    watcher = Records()
    run(job, watcher)
    report = write_report(tmp_path / "r.jsonl", watcher.records)
    for path in (job.destination, job.journal, report):
        sentence, state = said(path, tmp_path)
        assert (sentence, state) == ("", State("finished", FILES))
    assert Outcomes(job.destination).summary().files == watcher.summary.files


def test_interrupted_and_resumed(job, tmp_path):
    records = stopped_at(job, 3)
    report = write_report(tmp_path / "r.jsonl", records)
    for path in (job.destination, report):
        sentence, state = said(path, tmp_path)
        assert sentence == f"interrupted: {len(records)} of {FILES} files done; go on with --resume"
        assert state == State("interrupted", FILES)
    summary = Outcomes(job.destination).summary()
    assert (summary.planned, summary.done) == (FILES, len(records))
    run(replace(job, resume=True), Records())
    assert said(job.destination, tmp_path)[1] == State("finished", FILES)
    # The earlier report is of the same job, and not of all of it.
    sentence, _ = said(report, tmp_path)
    assert sentence == f"the job is over, and here are {len(records)} of its {FILES} files"


def test_at_work(job, tmp_path):
    seen = []
    watcher = After(3, lambda: seen.append(said(job.destination, tmp_path)))
    run(job, watcher)
    [(sentence, state)] = seen
    assert state == State("running", FILES)
    assert sentence.startswith("still running: ")
    assert said(job.destination, tmp_path)[1].condition == "finished"


def test_killed(job, tmp_path):
    """As far as a journal tells: nobody is at work, and nobody has said why."""

    def die():
        raise SystemExit

    with pytest.raises(SystemExit):
        run(job, After(3, die))
    assert said(job.destination, tmp_path)[1] == State("interrupted", FILES)


def test_no_room(job, tmp_path):
    run(replace(job, reserve_bytes=1 << 60), Records())
    # Nothing was begun, so there is no journal.
    with pytest.raises(JobError, match="no job's journal"):
        Outcomes(job.destination)
    records = stopped_at(job, 3)
    watcher = Records()
    run(replace(job, resume=True, reserve_bytes=1 << 60), watcher)
    assert watcher.summary.stopped == "disk-full"
    sentence, state = said(job.destination, tmp_path)
    assert state == State("disk-full", FILES)
    assert sentence.startswith(f"stopped for lack of room: {len(records)} of {FILES} files done; make room")


def test_sources_that_were_not_walked_to_the_end(job, tmp_path, monkeypatch):
    monkeypatch.setattr("gpuenc.archive.planner._AT_ONCE", 4)
    monkeypatch.setattr("gpuenc.archive.job._PLAN_FIRST_S", 0)
    stop = threading.Event()
    stop.set()
    journal = place_of(job.destination)
    assert not run(job, Records(), stop).all_found
    assert not journal.exists()
    stop = threading.Event()
    run(job, After(1, stop.set), stop)
    sentence, state = said(job.destination, tmp_path)
    assert state.all_found == (state.planned == FILES)
    assert ("found so far" in sentence) == (state.planned < FILES)


def test_a_source_that_is_gone_is_none_of_the_job_any_more(job, tmp_path):
    stopped_at(job, 9)
    (tmp_path / "in" / "00").unlink()
    run(replace(job, resume=True), Records())
    assert said(job.destination, tmp_path)[1] == State("finished", FILES - 1)
    assert len(list(Outcomes(job.destination))) == FILES - 1


def test_a_report_of_another_job(job, tmp_path):
    """What lies beside the outputs now tells nothing of the job that made them before."""
    first = Records()
    run(job, first)
    report = write_report(tmp_path / "r.jsonl", first.records)
    run(replace(job, overwrite=True), Records())
    assert said(report, tmp_path)[1] == State()
    assert "not known here" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def shard(job, tmp_path, monkeypatch):
    """Return a function that does a share of the job, whole or up to so many files, and writes its report."""
    monkeypatch.setattr(manifests, "SHARD_FILES", 2)
    with (tmp_path / "m").open("wb") as stream:
        writer = manifests.Writer(stream, job)
        plan(replace(job, dry_run=True, journal=None), threading.Event(), writer)

    def do(index, count, files=None, resume=False):
        share, manifest = manifests.Share(index, count), manifests.Manifest(tmp_path / "m")
        stop = threading.Event()
        watcher = After(files, stop.set)
        mine = replace(manifest.job, journal=place_of(job.destination, share.name), resume=resume)
        run(mine, watcher, stop, manifest.items(share))
        return write_report(tmp_path / f"r{index}.jsonl", watcher.records), watcher.records

    return do


def test_shards(job, shard, tmp_path):
    out = job.destination
    one, of_one = shard(1, 3)
    assert said(out, tmp_path)[0] == "not complete: 4 of 4 files done; not begun: shard 2/3, 3/3"
    assert said(one, tmp_path)[1] == State("finished", 4)
    two, of_two = shard(2, 3, files=1)
    assert len(of_two) < 4
    three, _ = shard(3, 3)
    sentence, state = said(out, tmp_path)
    assert state == State("interrupted", FILES)
    assert sentence == f"interrupted: {8 + len(of_two)} of {FILES} files done; go on with --resume"
    assert said(two, tmp_path)[1] == State("interrupted", 4)
    assert said(one, tmp_path)[1] == State("finished", 4)
    merge_reports([one, two, three], tmp_path / "all.jsonl")
    assert said(tmp_path / "all.jsonl", tmp_path)[1] == State("interrupted", FILES)
    shard(2, 3, resume=True)
    assert said(out, tmp_path) == ("", State("finished", FILES))
    records = list(Outcomes(out))
    assert len({record.source for record in records}) == len(records) == FILES
    assert sorted(record.as_json() for record in records[:4]) == sorted(record.as_json() for record in of_one)


def test_shards_without_files_are_done(job, shard, tmp_path):
    for index in range(1, 9):
        shard(index, 8)
    assert said(job.destination, tmp_path) == ("", State("finished", FILES))


def test_journals_of_an_earlier_job_are_left_out(job, shard, tmp_path):
    run(job, Records())
    old = time.time() - 100
    os.utime(job.journal, (old, old))
    for path in list(job.destination.iterdir()):
        if path.is_dir():
            continue
        path.unlink()
    shard(1, 2)
    shard(2, 2)
    outcomes = Outcomes(job.destination)
    assert len(list(outcomes)) == FILES
    assert len(outcomes.notes) == 1
    assert "not shared out is older" in outcomes.notes[0]
