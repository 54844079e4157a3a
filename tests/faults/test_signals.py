"""Signals to the command: the first lets files in work be finished, a second one of any kind ends it at once."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from gpuenc.archive.journal import place_of
from tests import made
from tests.archive import poison
from tests.faults import jobs
from tests.faults.sources import tree
from tests.test_cli import gpuenc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children of processes are read from /proc")

IMAGE = made.of(made.noise((1, 8, 8), "u2"))


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it(tmp_path, monkeypatch, second):
    """While a file is in work that never comes to its end."""
    poison.prepare(monkeypatch, tmp_path / "site")
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "z.hang"):
        IMAGE.write(tmp_path / "in" / name)
    out, errors = tmp_path / "out", tmp_path / "errors"
    args = ("-o", out, tmp_path / "in", "--to", "rle", "--workers", "1", "--jobs", "3", "--reserve", "0")
    process = jobs.begin(*args, errors=errors)
    until(lambda: (out / "a").exists() and (out / "b").exists())
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None  # it waits for the file in work
    process.send_signal(second)
    assert jobs.end(process) == -second
    assert "Traceback" not in errors.read_text(encoding="utf-8")
    (tmp_path / "in" / "z.hang").rename(tmp_path / "in" / "z")
    # It waits for what is left of the first job's processes.
    assert jobs.end(jobs.begin(*args, "--resume", errors=errors)) == 0, errors.read_text(encoding="utf-8")
    assert tree(out).keys() == {"a", "b", "z"}
    assert not place_of(out).with_name("journal.sqlite-wal").exists()


def test_a_share_without_files_is_no_failure(tmp_path):
    """Of more machines than shards."""
    (tmp_path / "in").mkdir()
    IMAGE.write(tmp_path / "in" / "a")
    code, _, err = gpuenc(
        "plan", tmp_path / "in", "-o", tmp_path / "out", "--to", "rle", "--manifest", tmp_path / "m", "--workers", "0"
    )
    assert code == 0, err
    share = ("transcode", "--manifest", tmp_path / "m", "--workers", "0", "--shard")
    assert gpuenc(*share, "2/2")[0] == 0
    assert tree(tmp_path / "out") == {}
    assert gpuenc(*share, "1/2")[0] == 0
    assert tree(tmp_path / "out").keys() == {"a"}
