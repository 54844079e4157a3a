"""What may happen to a job on a cluster, at length: `python -m pytest tests/faults/cluster.py`, two minutes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gpuenc.archive import members
from gpuenc.archive.addresses import server
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.request import Job, OnCluster
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.archive import dask_processes as dask
from tests.archive import orthanc
from tests.archive.dask_processes import Archive, Processes, Told, environment, times, tree
from tests.archive.test_dicomweb import image, retrieved

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
NOT_DICOM = {"z.text": "not-dicom"}
COMMAND = [sys.executable, "-m", "gpuenc", "transcode", "--to", "rle", "--jobs", "1"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return Archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(members, "Members", partial(members.Members, after_s=1.0, silent_s=3.0, workers_s=10.0))


@pytest.mark.usefixtures("impatient")
def test_what_a_silent_worker_still_does_changes_nothing(archive, tmp_path):
    """It is stopped while its processes go on, and goes on itself when others have done all: nothing is there twice."""
    with Processes(tmp_path / "dask", 1, dask.SLOW.replace("SECONDS", "0.1")) as cluster:
        slow = cluster.worker(dask.SLOW.replace("SECONDS", "1"))
        cluster.workers.append(slow)
        watcher = Told()
        watcher.workers = lambda states: slow.send_signal(signal.SIGSTOP) if "2 workers; 2 sh" in states[0] else None
        run(archive.job(cluster.address, tmp_path / "out"), watcher)
        assert any("does not answer" in note for note in watcher.notes)
        assert archive.reconciled(watcher) == NOT_DICOM
        before = times(tmp_path / "out")
        slow.send_signal(signal.SIGCONT)
        time.sleep(4)  # its processes give up, or have
        assert times(tmp_path / "out") == before
        assert tree(tmp_path / "out") == archive.expected


@pytest.mark.usefixtures("impatient")
def test_a_file_that_ends_every_worker_is_found(tmp_path):
    """Of a cluster whose workers are started again; whatever else was in its shard is done."""
    archive = Archive(tmp_path, [f"a{number:02}" for number in range(30)])
    (archive.sources / "poison").write_bytes((archive.sources / "a00").read_bytes())
    environ = environment(tmp_path / "site", dask.KILLS_ITS_WORKER)
    code = "import sys; from functools import partial; from gpuenc.archive import members; "
    code += "members.Members = partial(members.Members, after_s=1.0); from gpuenc.cli import main; main()"
    command = [sys.executable, "-c", code, *COMMAND[3:], archive.sources, "-o", tmp_path / "out"]
    found = subprocess.run([*command, "--cluster", "local:2"], env=environ, capture_output=True, text=True)
    assert found.returncode == 1, found.stderr
    assert "poison: each worker of the cluster that worked on it was lost [worker-crashed]" in found.stderr
    assert "1 failed" in found.stdout
    assert tree(tmp_path / "out") == archive.expected


def test_a_scheduler_that_comes_back(archive, tmp_path, caplog):
    """Killed while shards are in work, and started again at its address, as are its workers, which end without it."""
    with Processes(tmp_path / "dask", 2, dask.SLOW.replace("SECONDS", "0.3")) as cluster:
        watcher, before = Told(), list(cluster.workers)

        def kill(states):
            if cluster.scheduler.poll() is None and "2 workers; 4 sh" in states[0] and watcher.records:
                cluster.scheduler.kill()
                cluster.scheduler.wait()

        def note(text):
            watcher.notes.append(text)
            if "was lost" in text:
                cluster.restart_scheduler()
                cluster.workers += [cluster.worker() for _ in range(2)]

        watcher.workers, watcher.note = kill, note
        summary = run(archive.job(cluster.address, tmp_path / "out"), watcher)
        for worker in before:
            worker.wait(30)
    assert [note for note in watcher.notes if "cluster's scheduler" in note][1:2] == [
        "the cluster's scheduler is back; its workers begin anew with what was in work"
    ]
    assert summary.planned == summary.done
    assert archive.reconciled(watcher) == NOT_DICOM
    assert max(record.worker for record in watcher.records) > 2, watcher.notes
    assert not caplog.records
    assert tree(tmp_path / "out") == archive.expected


def test_without_a_scheduler_the_job_ends_and_can_be_resumed(archive, tmp_path, monkeypatch):
    """Here by one machine; the cluster's processes are waited for."""
    monkeypatch.setattr("gpuenc.archive.cluster.BACK_S", 2.0)
    with Processes(tmp_path / "dask", 1, dask.SLOW.replace("SECONDS", "0.2")) as cluster:
        watcher = Told()
        watcher.workers = lambda states: cluster.scheduler.kill() if "1 workers; 2 sh" in states[0] else None
        job = archive.job(cluster.address, tmp_path / "out")
        with pytest.raises(JobError, match="--resume") as caught:
            run(job, watcher)
        assert caught.value.code == "cluster-lost"
        watcher = Told()
        run(replace(job, resume=True, cluster=None), watcher)
    assert archive.reconciled(watcher) == NOT_DICOM
    assert tree(tmp_path / "out") == archive.expected


def test_without_the_one_that_runs_it_a_cluster_gives_up(archive, tmp_path):
    """Killed as a machine that fails; the next run on the same cluster waits until nobody is at work any more."""
    with Processes(tmp_path / "dask", 2, dask.SLOW.replace("SECONDS", "0.5")) as cluster:
        command = [*COMMAND, archive.sources, "-o", tmp_path / "out", "--cluster", cluster.address]
        process = subprocess.Popen(list(map(os.fspath, command)), env=environment(tmp_path), stdout=subprocess.DEVNULL)
        _await_outputs(tmp_path / "out")
        process.kill()
        process.wait()
        watcher = Told()
        summary = run(archive.job(cluster.address, tmp_path / "out", resume=True), watcher)
    assert archive.reconciled(watcher) == NOT_DICOM
    assert summary.files["encoded"] == len(archive.expected)
    assert tree(tmp_path / "out") == archive.expected


def test_ctrl_c_on_a_cluster_of_its_own(archive, tmp_path):
    """As a terminal sends it: to all processes of the job at once."""
    process = subprocess.Popen(
        [*map(os.fspath, [*COMMAND, archive.sources, "-o", tmp_path / "out", "--cluster", "local:1"])],
        env=environment(tmp_path / "site", dask.SLOW.replace("SECONDS", "0.5")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    _await_outputs(tmp_path / "out")
    os.killpg(process.pid, signal.SIGINT)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 130, text
    assert "1 workers, 1 files at once" in text
    assert "go on with --resume" in text
    assert "Traceback" not in text
    _await_end(process.pid)
    found = tree(tmp_path / "out")
    assert found
    assert found.items() <= archive.expected.items()


def test_a_worker_of_another_version_that_joins_later_gets_nothing(archive, tmp_path):
    with Processes(tmp_path / "dask", 1, dask.SLOW.replace("SECONDS", "0.3")) as cluster:
        watcher = Told()
        address = cluster.address

        def start(_files, _bytes_total):
            cluster.workers.append(cluster.worker(dask.OTHER_VERSION))
            assert cluster.address == address  # once it is there

        watcher.start = start
        run(archive.job(address, tmp_path / "out"), watcher)
    assert any("gpuenc 0.0.1 is there" in note for note in watcher.notes)
    assert {record.worker for record in watcher.records} == {1}
    assert tree(tmp_path / "out") == archive.expected


def test_results_in_a_dicomweb_server(tmp_path_factory, tmp_path, monkeypatch):
    """Each worker asks with what its own environment says, and one that has nothing to say is named."""
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"GPUENC_DICOMWEB_{name}", raising=False)
    (tmp_path / "in").mkdir()
    for number in range(4):
        image(number).write(tmp_path / "in" / f"{number}.dcm")
    with orthanc.served(tmp_path_factory.mktemp("orthanc")) as url, Processes(tmp_path / "without", 1) as without:
        address = without.address
        monkeypatch.setenv("GPUENC_DICOMWEB_USER", orthanc.USER)
        monkeypatch.setenv("GPUENC_DICOMWEB_PASSWORD", orthanc.PASSWORD)
        job = Job((tmp_path / "in",), server(url), target(find("rle")), journal=place_of(tmp_path / "home"))
        with pytest.raises(JobError, match="the server refuses it: wrong credentials") as caught:
            run(replace(job, cluster=OnCluster(address)), Told())
        assert caught.value.code == "worker-unfit"
        with Processes(tmp_path / "dask", 2) as cluster:
            job, watcher = replace(job, cluster=OnCluster(cluster.address)), Told()
            run(job, watcher)
            assert [(record.status, record.reason) for record in watcher.records] == [("encoded", "")] * 4
            for record in watcher.records:
                assert record.destination.startswith(url)
                assert b"private" in retrieved(record.destination)
            assert run(replace(job, resume=True), Told()).earlier_files == 4


def _await_end(group: int) -> None:
    """Wait until no process of a group is left."""
    until = time.monotonic() + 15
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < until
        time.sleep(0.1)


def _await_outputs(folder: Path) -> None:
    until = time.monotonic() + 60
    while not folder.exists() or all(name.startswith(".") for name in os.listdir(folder)):
        assert time.monotonic() < until
        time.sleep(0.05)
