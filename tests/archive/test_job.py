"""Jobs: every file one outcome, counts that add up, and a clean end at any moment."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from gpuenc.archive import transcode as transcode_module
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.progress import visible
from gpuenc.archive.report import Record, ReportFile, Summary
from gpuenc.archive.request import Job
from gpuenc.archive.threads import Threads
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records, transcode

IMAGE = made.of(made.noise((1, 8, 8), "u2"))


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(30):
        IMAGE.write(tmp_path / "in" / f"{number:02}.dcm")
    return tmp_path / "in"


def jobs(source, tmp_path, **options):
    return Job((source,), tmp_path / "out", target(find("rle")), **options)


def outputs(tmp_path):
    return {path.name for path in (tmp_path / "out").rglob("*")} if (tmp_path / "out").exists() else set()


@pytest.mark.parametrize("at_once", [1, 2, 7])
def test_every_file_has_its_record(source, tmp_path, at_once):
    watcher = Records()
    summary = run(jobs(source, tmp_path, jobs=at_once), watcher)
    assert sorted(Path(record.source).name for record in watcher.records) == [
        f"{number:02}.dcm" for number in range(30)
    ]
    assert (summary.planned, summary.done, summary.files["encoded"]) == (30, 30, 30)
    assert (watcher.files, watcher.bytes_total) == (30, 30 * len(IMAGE.file()))
    assert not summary.interrupted
    assert summary is watcher.summary


class Stopper(Records):
    """Ends a job after so many records."""

    def __init__(self, after, end):
        super().__init__()
        self.after, self.end = after, end

    def done(self, record):
        super().done(record)
        if len(self.records) == self.after:
            self.end()


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("after", [1, 5, 29, 30])
@pytest.mark.parametrize("how", ["event", "interrupt"])
def test_stopped(source, tmp_path, after, at_once, how):
    """Files in work are finished, no other is begun, and what is there has a record."""
    stop = threading.Event()
    watcher = Stopper(after, stop.set if how == "event" else interrupt)
    summary = run(jobs(source, tmp_path, jobs=at_once), watcher, stop)
    assert summary.interrupted == (len(watcher.records) < 30)
    assert after <= summary.done == len(watcher.records) <= min(30, after + 4 * at_once + at_once)
    assert outputs(tmp_path) == {Path(record.source).name for record in watcher.records}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpuenc-file")]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_was_queued_and_never_begun_is_not_ours(source, tmp_path, workers):
    """Whoever takes such a name before the job is resumed keeps it."""
    options = {"journal": place_of(tmp_path / "out"), "workers": workers, "jobs": 2}
    stop = threading.Event()
    first = Stopper(1, stop.set)
    run(jobs(source, tmp_path, **options), first, stop)
    made_by_us = {Path(record.source).name for record in first.records}
    others = {f"{number:02}.dcm" for number in range(30)} - made_by_us
    for name in others:
        (tmp_path / "out" / name).write_bytes(b"another's")
    then = Records()
    run(jobs(source, tmp_path, **options, resume=True), then)
    assert others
    assert {(tmp_path / "out" / name).read_bytes() for name in others} == {b"another's"}
    found = {Path(record.source).name: record.reason for record in then.records}
    assert found == dict.fromkeys(made_by_us, "") | dict.fromkeys(others, "destination-exists")


def test_the_second_interrupt_gives_up_files_in_work(tmp_path, monkeypatch):
    """Without a trace of them, whether encoded or copied."""
    (tmp_path / "in").mkdir()
    made.of(made.noise((50, 64, 64), "u2")).write(tmp_path / "in" / "large.dcm")
    (tmp_path / "in" / "y.dcm").write_bytes(made.float_pixels().file() + bytes(5 << 20))
    IMAGE.write(tmp_path / "in" / "a.dcm")
    begun = threading.Barrier(3)
    gave_up = threading.Event()
    right_put, right_copy = transcode_module.OutputFile.put, transcode_module.copy_file

    def put(self, codestream):
        right_put(self, codestream)
        if self._element.number_of_frames == 50 and self._put == 20:
            begun.wait(10)
            gave_up.wait(10)

    def copy(*args, check, **options):
        def wait_then_check():
            if not gave_up.is_set():
                begun.wait(10)
                gave_up.wait(10)
            check()

        return right_copy(*args, check=wait_then_check, **options)

    def end():
        begun.wait(10)
        stop.set()
        threading.Timer(0.3, gave_up.set).start()
        raise KeyboardInterrupt  # and the job has been told to stop before

    monkeypatch.setattr(transcode_module.OutputFile, "put", put)
    monkeypatch.setattr(transcode_module, "copy_file", copy)
    stop = threading.Event()
    stopped = Stopper(1, end)
    with pytest.raises(KeyboardInterrupt):
        run(jobs(tmp_path / "in", tmp_path, jobs=3), stopped, stop)
    assert [Path(record.source).name for record in stopped.records] == ["a.dcm"]
    assert outputs(tmp_path) == {"a.dcm"}
    assert stopped.summary.done == 1


def test_nothing_is_begun_once_stopped(source, tmp_path):
    stop = threading.Event()
    stop.set()
    watcher = Records()
    summary = run(jobs(source, tmp_path), watcher, stop)
    assert (summary.interrupted, summary.done) == (True, 0)
    assert outputs(tmp_path) == set()


def test_a_watcher_that_breaks_stops_the_job(source, tmp_path):
    class Broken(Records):
        def done(self, record):
            super().done(record)
            raise ZeroDivisionError

    watcher = Broken()
    with pytest.raises(ZeroDivisionError):
        run(jobs(source, tmp_path, jobs=2), watcher)
    assert len(watcher.records) == 1
    assert watcher.summary.done == 1


def test_counts_that_do_not_add_up_are_an_error(source, tmp_path, monkeypatch):
    right = Threads.take

    def take(self, timeout_s):
        return [(number, record) for number, record in right(self, timeout_s) if not record.source.endswith("03.dcm")]

    monkeypatch.setattr(Threads, "take", take)
    with pytest.raises(JobError, match=r"30 files were found, but 29 have an outcome: .*03\.dcm") as caught:
        run(jobs(source, tmp_path), Records())
    assert caught.value.code == "unreconciled"


def test_a_defect_costs_one_file_its_outcome_and_shows_nothing(source, tmp_path, monkeypatch):
    right = transcode_module.DicomFile

    def broken(path, **options):
        name = Path(path).name
        if name == "03.dcm":
            raise ZeroDivisionError("SECRET^PATIENT")
        if name == "04.dcm":
            raise MemoryError
        return right(path, **options)

    monkeypatch.setattr(transcode_module, "DicomFile", broken)
    records = transcode(source, tmp_path / "out", "rle")
    assert [record.reason for record in records if record.status != "encoded"] == ["internal-error", "out-of-memory"]
    assert "SECRET" not in "".join(record.as_json() for record in records)
    assert len(outputs(tmp_path)) == 28


def test_summary_adds_up():
    summary = Summary()
    summary.add(Record("a", "encoded", bytes_in=100, bytes_out=25, frames=2, verified=True, plugins={"x": 2}))
    summary.add(Record("b", "encoded", bytes_in=100, bytes_out=75, frames=1, plugins={"x": 1}, fallbacks={"y: z": 1}))
    summary.add(Record("c", "copied", reason="video", bytes_in=9, bytes_out=9))
    summary.add(Record("d", "failed", reason="truncated", bytes_in=9))
    assert (summary.done, summary.frames, summary.ratio, summary.verified_files) == (4, 3, 2.0, 1)
    assert (summary.bytes_in, summary.bytes_out) == (200, 100)
    assert summary.plugins == {"x": 3}
    assert summary.fallbacks == {"y: z": 1}
    assert summary.reasons == {("copied", "video"): 1, ("failed", "truncated"): 1}
    assert Summary().ratio == 0.0


def test_lines_of_a_report_are_json_whatever_the_name(tmp_path):
    names = ["größe", "two\nlines", "\udcff\udcfe", 'quote"', "\x1b[31m", "\U0001f600"]
    with (tmp_path / "r.jsonl").open("wb", buffering=0) as stream:
        report = ReportFile(stream)
        for name in names:
            report.add(Record(name, "encoded"))
    lines = (tmp_path / "r.jsonl").read_bytes().decode().splitlines()
    assert [json.loads(line)["source"] for line in lines] == names
    assert all(line.encode().startswith(ReportFile.BEGINNING) for line in lines)


def test_a_line_that_does_not_fit_is_not_half_there():
    class Full:
        def __init__(self):
            self.data = b""

        def write(self, data):
            room = 700 - len(self.data)
            if not room:
                raise OSError(28, "No space left on device")
            self.data += bytes(data[:room])
            return min(room, len(data))

        def tell(self):
            return len(self.data)

        def truncate(self, size):
            self.data = self.data[:size]

    stream = Full()
    report = ReportFile(stream)
    for _ in range(3):
        report.add(Record("a", "encoded"))
    assert report.problem == "No space left on device"
    assert [json.loads(line)["source"] for line in stream.data.decode().splitlines()] == ["a"]


def test_visible():
    assert visible("a b größe →") == "a b größe →"
    assert visible("\x1b[31m\n\t\udcff\u202e") == r"\x1b[31m\n\t\udcff\u202e"
