"""A job in one worker of a cluster, without a cluster."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.archive.pool import Task
from gpuenc.archive.request import Job, OnCluster
from gpuenc.archive.scan import Item
from gpuenc.archive.session import Means, Session, SessionLost, fitted, why_unreachable
from gpuenc.archive.shards import packed, unpacked
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made

pytestmark = pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX")


@pytest.fixture
def job(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return Job((tmp_path / "in",), tmp_path / "out", target(find("rle")), cluster=OnCluster("local", jobs=2))


@pytest.fixture
def tasks(job):
    image = made.of(made.noise((1, 8, 8), "u2"))
    found = []
    for number in range(6):
        image.write(job.sources[0] / str(number))
        found.append(Task(number, Item(job.sources[0] / str(number), job.destination / str(number))))
    return found


def test_an_attempt_is_made_once_and_a_session_lives_while_it_is_held(job, tasks):
    held = threading.Event()
    held.set()
    session = Session(job, Means(1), held.is_set, lambda done, shards: None)
    assert session.begin().files_at_once == 2
    outcomes = session.do(1, tasks[:4])
    assert {number: record.status for number, record in outcomes} == dict.fromkeys(range(4), "encoded")
    with pytest.raises(SessionLost):
        session.do(1, tasks[4:])
    assert not (job.destination / "4").exists()
    held.clear()  # as where whoever ran the job is gone
    until = time.monotonic() + 30
    while not session.over:
        assert time.monotonic() < until
        time.sleep(0.05)
    with pytest.raises(SessionLost):
        session.do(2, tasks[4:])
    assert sorted(path.name for path in job.destination.iterdir()) == ["0", "1", "2", "3"]


def test_another_folder_with_the_destinations_name_is_not_written_to(job, tasks):
    """As where a machine of the cluster loses a mount, and writes to what lies below it."""
    session = Session(job, Means(1), lambda: True, lambda done, shards: None)
    session.begin()
    try:
        assert [record.status for _, record in session.do(1, unpacked(packed(tasks[:2])))] == ["encoded"] * 2
        job.destination.rename(job.destination.with_name("elsewhere"))
        job.destination.mkdir()
        outcomes = session.do(2, unpacked(packed(tasks[2:])))
    finally:
        session.close()
    assert {(record.status, record.reason) for _, record in outcomes} == {("failed", "destination-lost")}
    assert not list(job.destination.iterdir())


@pytest.mark.parametrize(
    ("asked", "means", "jobs", "workers", "memory_bytes"),
    [
        (OnCluster("local"), Means(8, 64 << 30), 10, 2, 16 << 30),
        (OnCluster("local"), Means(1), 3, 1, 512 << 20),
        (OnCluster("local", jobs=1, workers=3, memory_bytes=5), Means(8, 64 << 30), 1, 1, 5),
    ],
)
def test_what_a_worker_gives_a_job(job, asked, means, jobs, workers, memory_bytes):
    found = fitted(replace(job, cluster=asked), means)
    assert (found.jobs, found.workers, found.budget.total_bytes) == (jobs, workers, memory_bytes)


def test_a_worker_says_what_it_does_not_see(job, tmp_path, monkeypatch):
    monkeypatch.setattr("gpuenc.archive.session._SEEN_S", 0.1)
    mark = tmp_path / "out" / "mark"
    mark.touch()
    assert why_unreachable(job, mark) == ""
    absent = replace(job, sources=(tmp_path / "in", tmp_path / "absent"))
    assert why_unreachable(absent, mark) == f"it does not see the source {tmp_path / 'absent'}"
    assert "does not see the destination" in why_unreachable(job, Path("/nowhere/mark"))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert "cannot write to the destination" in why_unreachable(job, mark)
    assert "no access to the source" in why_unreachable(replace(job, in_place=True), mark)
