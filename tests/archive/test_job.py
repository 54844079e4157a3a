"""Jobs: every file one outcome, counts that add up, and a clean end at any moment."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from gpuenc.archive import job as module
from gpuenc.archive import transcode as transcode_module
from gpuenc.archive.job import run
from gpuenc.archive.progress import visible
from gpuenc.archive.report import Record, ReportFile, Summary
from gpuenc.archive.request import Job
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


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_records_come_in_the_order_of_the_files(source, tmp_path, workers):
    watcher = Records()
    summary = run(jobs(source, tmp_path, jobs=workers), watcher)
    assert [Path(record.source).name for record in watcher.records] == [f"{number:02}.dcm" for number in range(30)]
    assert (summary.planned, summary.done, summary.files["encoded"]) == (30, 30, 30)
    assert (watcher.files, watcher.bytes_total) == (30, 30 * len(IMAGE.file()))
    assert not summary.interrupted
    assert summary is watcher.summary


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("after", [1, 5, 29])
@pytest.mark.parametrize("how", ["event", "interrupt"])
def test_stopped(source, tmp_path, after, workers, how):
    stop = threading.Event()

    class Stopper(Records):
        def done(self, record):
            super().done(record)
            if len(self.records) == after:
                stop.set()
                if how == "interrupt":
                    raise KeyboardInterrupt

    watcher = Stopper()
    summary = run(jobs(source, tmp_path, jobs=workers), watcher, stop)
    assert summary.interrupted == (len(watcher.records) < 30)
    assert after <= summary.done == len(watcher.records) <= 30
    assert outputs(tmp_path) == {Path(record.source).name for record in watcher.records}
    assert threading.active_count() == 1 or not [
        thread for thread in threading.enumerate() if thread.name.startswith("gpuenc-file")
    ]


def test_stopped_in_the_middle_of_a_file(tmp_path):
    """A file in work is given up without a trace."""
    (tmp_path / "in").mkdir()
    made.of(made.noise((50, 64, 64), "u2")).write(tmp_path / "in" / "large.dcm")
    (tmp_path / "in" / "z.dcm").write_bytes(made.float_pixels().file() + bytes(5 << 20))
    stop = threading.Event()
    right = transcode_module.OutputFile.put
    put = []

    def counted(self, codestream):
        put.append(1)
        if len(put) == 20:
            stop.set()
        return right(self, codestream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcode_module.OutputFile, "put", counted)
        records = transcode(tmp_path / "in", tmp_path / "out", stop=stop)
    assert (len(put), records, outputs(tmp_path)) == (20, [], set())
    # So is one that is copied.
    stop.clear()
    right_check = transcode_module.copy_file

    def stopping(*args, check, **options):
        def stop_then_check():
            stop.set()
            check()

        return right_check(*args, check=stop_then_check, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transcode_module, "copy_file", stopping)
        assert transcode(tmp_path / "in" / "z.dcm", tmp_path / "out", stop=stop) == []
    assert outputs(tmp_path) == set()


def test_nothing_is_begun_once_stopped(source, tmp_path):
    stop = threading.Event()
    stop.set()
    watcher = Records()
    summary = run(jobs(source, tmp_path), watcher, stop)
    assert (summary.interrupted, summary.done, summary.planned) == (True, 0, 30)
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
    monkeypatch.setattr(module, "_refusals", lambda items, job: ((item, None) for item in items[:-1]))
    with pytest.raises(RuntimeError, match="30 files were found, but 29"):
        run(jobs(source, tmp_path), Records())


def test_a_defect_costs_one_file_its_outcome_and_shows_nothing(source, tmp_path, monkeypatch):
    right = transcode_module.DicomFile

    def broken(path):
        if path.name == "03.dcm":
            raise ZeroDivisionError("SECRET^PATIENT")
        if path.name == "04.dcm":
            raise MemoryError
        return right(path)

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
            room = 400 - len(self.data)
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
