"""Jobs on a Dask cluster of real processes: the outputs of one machine, whatever happens to a worker.

More, which takes longer: `python -m pytest tests/faults/cluster.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gpuenc.archive.job import run
from gpuenc.errors import JobError
from tests.archive import dask_processes as dask
from tests.archive.dask_processes import Archive, Processes, Told, environment, times, tree

pytest.importorskip("distributed", reason="needs gpuenc[dask]")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX"),
    # Sockets and loops that Dask leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(place):
    with Processes(place, 2, dask.SLOW.replace("SECONDS", "0.2")) as processes:
        yield processes


@pytest.fixture(scope="module")
def archive(place):
    return Archive(place)


def test_the_outputs_are_those_of_one_machine_also_when_resumed(cluster, archive, tmp_path):
    """Stopped in the middle, what is in work is finished; the rest is done by another run, and nothing twice."""
    watcher, stop = Told(), threading.Event()
    watcher.done = lambda record: (watcher.records.append(record), stop.set())
    job = archive.job(cluster.address, tmp_path)
    first = run(job, watcher, stop)
    assert first.stopped == "interrupted"
    assert 0 < first.done < first.planned
    before = times(tmp_path)
    assert {Path(record.destination) for record in watcher.records if record.destination} == before.keys()
    watcher = Told()
    second = run(replace(job, resume=True), watcher)
    assert second.earlier_files == first.done
    assert archive.reconciled(watcher) == {"z.text": "not-dicom"}
    assert tree(tmp_path) == archive.expected
    assert before.items() <= times(tmp_path).items()
    assert "2 workers, 4 files at once" in watcher.notes[1]
    assert "dashboard: " in watcher.notes[1]


def test_a_worker_that_is_killed_costs_nothing(cluster, archive, tmp_path, monkeypatch):
    from gpuenc.archive import members

    monkeypatch.setattr(members, "Members", partial(members.Members, after_s=1.0))
    third = cluster.worker(dask.SLOW.replace("SECONDS", "2"))
    cluster.workers.append(third)
    watcher = Told()
    watcher.workers = lambda states: (
        third.kill() if len(states) == 4 and " 0 handed out" not in "".join(states) else None
    )
    run(archive.job(cluster.address, tmp_path), watcher)
    assert third.poll() is not None
    assert archive.reconciled(watcher) == {"z.text": "not-dicom"}
    assert tree(tmp_path) == archive.expected
    assert any("is gone" in note or "was lost" in note for note in watcher.notes)


def test_a_worker_without_gpuenc_is_named_before_anything_is_made(cluster, archive, tmp_path):
    unfit = cluster.worker(dask.NO_GPUENC)
    cluster.workers.append(unfit)
    try:
        with pytest.raises(JobError, match="gpuenc is not installed there") as caught:
            run(archive.job(cluster.address, tmp_path / "out"), Told())
        assert caught.value.code == "worker-unfit"
        assert list(tmp_path.iterdir()) == []
    finally:
        unfit.kill()
        unfit.wait()


def test_no_such_cluster(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("gpuenc.archive.cluster._CONNECT_S", 0.5)
    watcher = Told()
    with pytest.raises(JobError, match=r"at 127\.0\.0\.1:9 within .*: is it running, is this the address") as caught:
        run(archive.job("127.0.0.1:9", tmp_path / "out"), watcher)
    assert caught.value.code == "cluster-unavailable"
    assert watcher.notes == ["asking for the Dask scheduler at 127.0.0.1:9"]


def test_without_the_extra(tmp_path):
    hidden = dask.NO_GPUENC.replace('"gpuenc"', '"distributed"')
    command = [sys.executable, "-m", "gpuenc", "transcode", tmp_path, "-o", tmp_path / "out", "--to", "rle"]
    found = subprocess.run(
        [*command, "--cluster", "local"], env=environment(tmp_path / "site", hidden), capture_output=True, text=True
    )
    assert found.returncode == 4
    assert "pip install 'gpuenc[dask]'" in found.stderr
