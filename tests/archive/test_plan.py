"""Plans: what a job would do, with nothing written."""

from __future__ import annotations

import threading

from gpuenc.archive.job import run
from gpuenc.archive.manifest import Writer
from gpuenc.archive.plan import plan
from gpuenc.archive.request import Job
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records


def archive(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(30):
        made.of(made.noise((1, 8, 8), "u2", seed=number)).write(tmp_path / "in" / f"{number:02}")
    (tmp_path / "in" / "copied").write_bytes(made.float_pixels().file())
    (tmp_path / "in" / "failed").write_bytes(made.of(made.noise((1, 8, 8), "u2")).file()[:-20])
    (tmp_path / "in" / "skipped").write_text("nothing", encoding="utf-8")
    return Job((tmp_path / "in",), tmp_path / "out", target(find("rle")))


def content(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_plan_says_what_the_job_does_and_writes_nothing(tmp_path):
    job = archive(tmp_path)
    before = content(tmp_path)
    planned = plan(job, threading.Event())
    assert content(tmp_path) == before
    watcher = Records()
    done = run(job, watcher)
    assert planned.summary.files == done.files
    assert planned.summary.reasons == done.reasons
    assert (planned.syntaxes, planned.modalities) == ({made.EXPLICIT: 30}, {"OT": 30})
    assert planned.encoded_bytes == done.bytes_in
    assert planned.sample_files == 24
    # All are alike, so the sample tells the whole.
    assert abs(planned.output_bytes - done.bytes_out - planned.copied_bytes) < 0.02 * done.bytes_out


def test_a_plan_that_is_stopped_writes_no_totals(tmp_path):
    job, stop = archive(tmp_path), threading.Event()
    stop.set()
    with (tmp_path / "m").open("wb") as stream:
        writer = Writer(stream, job)
        planned = plan(job, stop, writer)
    assert planned.summary.stopped == "interrupted"
    assert not writer.complete
    assert (planned.sample_files, planned.output_bytes) == (0, 0.0)


def test_nothing_to_encode(tmp_path):
    (tmp_path / "in").mkdir()
    planned = plan(Job((tmp_path / "in",), tmp_path / "out", target(find("rle"))), threading.Event())
    assert (planned.summary.planned, planned.sample_files, planned.seconds) == (0, 0, 0.0)
