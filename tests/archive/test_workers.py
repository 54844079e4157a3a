"""Worker processes: whatever a file does to its process, it costs that file alone its outcome."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from gpuenc.archive import processes as processes_module
from gpuenc.archive import workers as workers_module
from gpuenc.archive.job import run
from gpuenc.archive.pool import Task
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.archive.workers import Workers
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive import poison
from tests.archive.watcher import Records

pytestmark = pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX")

IMAGE = made.of(made.noise((1, 8, 8), "u2"))
OUTPUT_NAMES = [f"good{number}" for number in range(12)]


@pytest.fixture
def archive(tmp_path):
    """Return what writes files of these names, and describes the job over them."""

    def make(*names, **options):
        (tmp_path / "in").mkdir(exist_ok=True)
        for name in names:
            IMAGE.write(tmp_path / "in" / name)
        options = {"workers": 1, "jobs": 2} | options
        return Job((tmp_path / "in",), tmp_path / "out", target(find("rle")), **options)

    return make


def reasons(job, watcher=None):
    watcher = watcher or Records()
    summary = run(job, watcher)
    found = {Path(record.source).name: record.reason for record in watcher.records}
    assert len(found) == len(watcher.records) == summary.planned  # each exactly once
    return found


def outputs(tmp_path):
    return {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}


@pytest.fixture
def impatient(monkeypatch):
    """Have hangs noticed after seconds."""
    right = Workers.__init__
    monkeypatch.setattr(Workers, "__init__", lambda self, job: right(self, job, file_s=2.0))


def test_a_poison_file_costs_itself_alone(archive, tmp_path, monkeypatch):
    """Several of them, of every kind that ends a process, among good ones."""
    poison.prepare(monkeypatch, tmp_path / "site")
    bad = ("b.segv", "k.abort", "l.exit", "z.oom")
    watcher = Records()
    found = reasons(archive(*OUTPUT_NAMES, *bad), watcher)
    assert {name for name, reason in found.items() if reason} == set(bad)
    assert {found[name] for name in bad} == {"worker-crashed"}
    assert outputs(tmp_path) == set(OUTPUT_NAMES)
    messages = {Path(record.source).name: record.message for record in watcher.records}
    assert "SIGSEGV" in messages["b.segv"]
    assert "ended with 3" in messages["l.exit"]
    assert "SIGKILL" in messages["z.oom"]


def test_memory_that_is_not_there_is_the_files_own_failure(archive, tmp_path, monkeypatch):
    poison.prepare(monkeypatch, tmp_path / "site")
    assert reasons(archive("a", "b.eats"))["b.eats"] == "out-of-memory"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["hang", "deadlock", "stops"])
def test_a_file_that_never_ends(archive, tmp_path, monkeypatch, how):
    poison.prepare(monkeypatch, tmp_path / "site")
    assert reasons(archive("a", f"b.{how}", "c", "d")) == {"a": "", f"b.{how}": "worker-hung", "c": "", "d": ""}
    assert outputs(tmp_path) == {"a", "c", "d"}


def test_a_file_that_fails_once_is_done(archive, tmp_path, monkeypatch):
    """Its process died, but it is innocent; so are those that were in work beside it."""
    poison.prepare(monkeypatch, tmp_path / "site")
    assert set(reasons(archive("a", "b.once", "c", "d", jobs=4)).values()) == {""}
    assert outputs(tmp_path) == {"a", "b.once", "c", "d"}


def test_many_poison_files_at_the_end_do_not_stop_the_job(archive, tmp_path, monkeypatch):
    """More deaths in a row than a machine that can do nothing is allowed."""
    monkeypatch.setattr(workers_module, "_MOST_DEATHS_AT_FIRST", 4)
    poison.prepare(monkeypatch, tmp_path / "site")
    bad = [f"z{number}.exit" for number in range(2)]
    found = reasons(archive("a", "b", *bad))
    assert {name for name, reason in found.items() if reason == "worker-crashed"} == set(bad)


def test_where_every_file_ends_its_process_the_job_gives_up(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "_MOST_DEATHS_AT_FIRST", 4)
    poison.prepare(monkeypatch, tmp_path / "site")
    with pytest.raises(JobError, match="4 worker processes died in a row; the last one ended with 3") as caught:
        run(archive(*(f"{number}.exit" for number in range(9))), Records())
    assert caught.value.code == "workers-failed"
    assert outputs(tmp_path) == set()


@pytest.mark.parametrize("start", ["os._exit(7)", "raise SystemExit(7)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_workers_that_cannot_start(archive, tmp_path, monkeypatch, start):
    poison.prepare(monkeypatch, tmp_path / "site", start=start)
    with pytest.raises(JobError, match=r"3 worker processes died in a row") as caught:
        run(archive("a"), Records())
    assert caught.value.code == "workers-failed"
    assert not (tmp_path / "out").exists()


def test_workers_that_hang_while_they_start(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "_START_S", 2.0)
    monkeypatch.setattr(workers_module, "_MOST_DEATHS_UNREADY", 1)
    poison.prepare(monkeypatch, tmp_path / "site", start="time.sleep(1000)")
    with pytest.raises(JobError) as caught:
        run(archive("a"), Records())
    assert caught.value.code == "workers-failed"


def test_an_interpreter_that_is_gone(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", os.fspath(tmp_path / "gone"))
    with pytest.raises(JobError, match="No such file") as caught:
        run(archive("a"), Records())
    assert caught.value.code == "workers-failed"


class Killer(Records):
    """Kills a worker from outside with each file that is done."""

    def __init__(self, pool, times):
        super().__init__()
        self.pool, self.times = pool, times

    def done(self, record):
        super().done(record)
        if self.times and self.pool:
            self.times -= 1
            for worker in self.pool[0]._workers:
                worker.process.kill()


@pytest.fixture
def pools(monkeypatch):
    """Return a list to which each pool adds itself."""
    found, right = [], Workers._start

    def start(self, **options):
        found[:] = [self]
        return right(self, **options)

    monkeypatch.setattr(Workers, "_start", start)
    return found


def test_workers_killed_from_outside(archive, tmp_path, pools):
    """Nothing is lost, done twice, or said to exist because of it."""
    job = archive(*OUTPUT_NAMES, jobs=2, workers=2)
    assert set(reasons(job, Killer(pools, 2)).values()) == {""}
    assert outputs(tmp_path) == set(OUTPUT_NAMES)


def test_killed_between_output_and_outcome(archive, tmp_path):
    """The output is there, and nobody has heard of it: it is made again, and not taken for someone else's."""
    job = archive("a", jobs=1)
    pool = Workers(job)
    pool.demand_ready()
    (tmp_path / "out").mkdir()
    item = Item(tmp_path / "in" / "a", tmp_path / "out" / "a")
    pool.give([Task(1, item, 100)])
    worker = pool._workers[0]
    deadline = time.monotonic() + 30
    while not item.destination.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    # What was said after "begin" is lost.
    while worker.pipe.poll(0.2):
        if (message := worker.pipe.recv())[0] == "begin":
            pool._heard(worker, *message)
    worker.process.kill()
    outcomes = []
    while pool.outstanding:
        outcomes += pool.take(1.0)
    pool.close()
    assert [(number, record.status, record.reason) for number, record in outcomes] == [(1, "encoded", "")]


def test_temporary_files_of_a_dead_worker_are_removed_and_no_others(archive, tmp_path, monkeypatch):
    poison.prepare(monkeypatch, tmp_path / "site")
    out = tmp_path / "out"
    out.mkdir()
    mine, other = out / ".b.segv.0123456789ab.gpuenc-tmp", out / ".b.0123456789ab.gpuenc-tmp"
    for path in (mine, out / ".b.segv.0123456789ab-2.gpuenc-tmp", other):
        path.write_bytes(b"half")
    reasons(archive("a", "b.segv", token="0123456789ab"))
    assert outputs(tmp_path) == {"a", other.name}


def test_a_worker_that_says_nothing_is_a_hung_one(archive, tmp_path):
    """Stopped while it had nothing to do, and then given files."""
    pool = Workers(archive("a", jobs=1), file_s=1.0)
    pool.demand_ready()
    (tmp_path / "out").mkdir()
    os.kill(pool._workers[0].process.pid, signal.SIGSTOP)
    pool.give([Task(1, Item(tmp_path / "in" / "a", tmp_path / "out" / "a"), 100)])
    outcomes = []
    deadline = time.monotonic() + 60
    while pool.outstanding and time.monotonic() < deadline:
        outcomes += pool.take(0.5)
    pool.close()
    assert [record.status for _, record in outcomes] == ["encoded"]


def test_a_worker_that_does_not_listen_does_not_stop_the_job(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(processes_module, "_SEND_S", 1)
    pool = Workers(archive("a", jobs=1))
    pool.demand_ready()
    (tmp_path / "out").mkdir()
    stopped = pool._workers[0]
    os.kill(stopped.process.pid, signal.SIGSTOP)
    items = [Item(tmp_path / "in" / ("x" * 200), tmp_path / "out" / str(number)) for number in range(4000)]
    pool._give(stopped, [Task(number, item) for number, item in enumerate(items)])
    assert stopped.process.wait(10) == -signal.SIGKILL
    pool.close()


def test_time_in_which_all_were_stopped_is_not_held_against_a_file(archive):
    pool = Workers(archive("a", jobs=1), file_s=50.0)
    pool.demand_ready()
    worker = pool._workers[0]
    worker.tasks[1] = Task(1, Item(Path("a"), Path("b")))
    worker.begun_s[1] = worker.heard_s = pool._looked_s = time.monotonic() - 10000
    pool._end_the_hung()
    assert worker.process.poll() is None
    worker.begun_s[1] -= 10000
    pool._end_the_hung()
    assert worker.process.poll() is not None
    pool.close()


def test_stopped_while_a_worker_dies(archive, tmp_path, pools):
    """What was in work has no outcome, and nothing waits for it."""
    stop = threading.Event()

    class Ends(Killer):
        def done(self, record):
            stop.set()
            super().done(record)

    watcher = Ends(pools, 1)
    summary = run(archive(*OUTPUT_NAMES), watcher, stop)
    assert summary.stopped == "interrupted"
    assert 1 <= summary.done < len(OUTPUT_NAMES)
    assert not [name for name in outputs(tmp_path) if name.endswith("gpuenc-tmp")]
