"""Shards whose samples come from another process: the same bytes, and what ends that process costs its file alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpuenc.cli import app
from gpuenc.errors import JobError
from gpuenc.pipelines import shard_process
from gpuenc.pipelines.shard_process import WorkerStream
from gpuenc.pipelines.tar_shard import TarShard
from gpuenc.pipelines.webdataset import write_shards
from tests import made
from tests.archive import poison
from tests.pipelines.test_webdataset import contents, job

pytestmark = pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX")

# Files larger than are held in memory are looked at before each frame: there a name can do harm in the middle.
_IN_THE_MIDDLE = """
looks, right_stat = [], os.stat

def stat(path, *args, **options):
    name = os.path.basename(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else ""
    looks.append(name)
    if "middle" in name and looks.count(name) == 6:
        signal.raise_signal(signal.SIGKILL)  # which nobody writes the memory of to a file
    if "touched" in name and looks.count(name) == 6:
        os.utime(path)
    return right_stat(path, *args, **options)

if "GPUENC_WORKER" in os.environ:
    os.stat = stat
"""


@pytest.fixture
def folder(tmp_path):
    """Files of three frames of their own, and what writes more."""
    (tmp_path / "in").mkdir()

    def write(*names, rows=20, frames=3):
        for name in names:
            seed = sum(name.encode())
            made.of((made.noise((frames, rows, 24), "u2") + seed).astype("u2")).write(tmp_path / "in" / name)
        return tmp_path / "in"

    write(*(f"f{number:02}" for number in range(12)))
    return write


@pytest.fixture
def poisoned(monkeypatch, tmp_path):
    poison.prepare(monkeypatch, tmp_path / "site")


def isolated(source, out, *, stop=None, **options):
    return write_shards(replace(job(source, out, samples=5, **options), isolated=True), stop or threading.Event())


def here(source, out, **options):
    return write_shards(job(source, out, samples=5, **options), threading.Event())


def tars(out):
    return {name: data for name, data in contents(out).items() if name.endswith(".tar")}


def codes(summary):
    return {summary.paths[each.file].name: each.code for each in summary.troubles}


def test_the_same_bytes_as_in_one_process(folder, tmp_path):
    (folder() / "notes.txt").write_text("no image")
    summary = here(folder(), tmp_path / "one")
    assert codes(isolated(folder(), tmp_path / "two")) == codes(summary) == {"notes.txt": "not-dicom"}
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_poison_files_cost_themselves_alone(folder, tmp_path, poisoned):
    """And a file that ended its process once costs nothing; the command names what was left out."""
    source = folder("f05.exit", "f06.once")
    arguments = ["shards", str(source), "-o", str(tmp_path / "out"), "--to", "rle", "--device", "cpu", "--samples", "5"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 1
    told = "f05.exit: worker-crashed: it ended each process that worked on it; the last one ended with 3"
    assert told in " ".join(run.output.split())
    said = json.loads((tmp_path / "out" / "index.json").read_text())
    assert said["without"] == [{"code": "worker-crashed", "file": 6, "frame": None}]  # behind f05
    assert said["samples"] == 13 * 3
    (source / "f05.exit").write_text("none")  # in its place, what was never an image
    here(source, tmp_path / "without", threads=3, to="rle")
    assert tars(tmp_path / "without") == tars(tmp_path / "out")


@pytest.mark.parametrize(("name", "code"), [("f03.middle", "worker-crashed"), ("f03.touched", "source-changed")])
def test_nothing_stays_of_a_file_that_ends_its_process_in_the_middle(folder, tmp_path, monkeypatch, name, code):
    poison.prepare(monkeypatch, tmp_path / "site", start="pass")
    with (tmp_path / "site" / "sitecustomize.py").open("a") as site:
        site.write(_IN_THE_MIDDLE)
    monkeypatch.setattr(shard_process, "_TRIES_ALONE", 1)
    source = folder(name, rows=9000, frames=12)
    assert codes(isolated(source, tmp_path / "out", threads=1, to="rle")) == {name: code}
    (source / name).write_text("none")
    here(source, tmp_path / "without", to="rle")
    assert tars(tmp_path / "without") == tars(tmp_path / "out")


def test_an_interrupted_job_goes_on_to_the_same_bytes_past_a_file_that_hangs(folder, tmp_path, monkeypatch):
    source = folder("f08.hang")
    stop, added, add = threading.Event(), [], TarShard.add

    def counted(self, key, members):
        added.append(key)
        if len(added) > 7:
            stop.set()
        add(self, key, members)

    right = WorkerStream.__init__
    monkeypatch.setattr(
        WorkerStream, "__init__", lambda self, *args, **options: right(self, *args, silent_s=1.5, **options)
    )
    with monkeypatch.context() as patch:
        patch.setattr(TarShard, "add", counted)
        assert isolated(source, tmp_path / "out", stop=stop).interrupted
    poison.prepare(monkeypatch, tmp_path / "site")
    assert codes(isolated(source, tmp_path / "out", resume=True)) == {"f08.hang": "worker-hung"}
    (source / "f08.hang").write_text("none")
    here(source, tmp_path / "without")
    assert tars(tmp_path / "without") == tars(tmp_path / "out")


def test_processes_that_cannot_do_anything_end_the_job(folder, tmp_path, monkeypatch):
    poison.prepare(monkeypatch, tmp_path / "site", start="os._exit(7)")
    with pytest.raises(JobError, match=r"3 processes in a row .* ended with 7") as caught:
        isolated(folder(), tmp_path / "out")
    assert caught.value.code == "workers-failed"
    assert not tars(tmp_path / "out")


def test_what_the_other_process_cannot_begin_is_told_as_here(folder, tmp_path):
    told = []
    for run in (here, isolated):
        with pytest.raises(ValueError, match="no-such-label") as caught:
            run(folder(), tmp_path / run.__name__, plugin="no-such-label")
        told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc to look for processes in")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_other_process_ends_with_this_one(folder, tmp_path, poisoned, number):
    arguments = ["shards", str(folder("f03.hang")), "-o", str(tmp_path / "out"), "--to", "rle", "--device", "cpu"]
    ran = subprocess.Popen([sys.executable, "-m", "gpuenc", *arguments], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(workers(tmp_path)) == 1)
        time.sleep(0.3)
        ran.send_signal(number)
        assert ran.wait(20) == (-number if number == signal.SIGKILL else 130)
        wait_until(lambda: not workers(tmp_path))
    finally:
        ran.kill()
        ran.wait()


def workers(tmp_path):
    """Processes that were told where the poison is."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes()
        except OSError:
            continue
        if b"shard_worker" in line and os.fsencode(tmp_path / "site") in line:
            found.append(each)
    return found


def wait_until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
