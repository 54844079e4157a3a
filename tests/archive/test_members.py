"""Who is in a cluster and who is not any more, without a cluster."""

from __future__ import annotations

import pytest

from gpuenc._version import __version__
from gpuenc.archive.pool import Task
from gpuenc.archive.report import Record
from gpuenc.archive.request import Job, OnCluster
from gpuenc.archive.scan import Item
from gpuenc.archive.session import Admission
from gpuenc.archive.shards import packed_outcomes, unpacked
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target

pytest.importorskip("distributed", reason="needs gpuenc[dask]")
from gpuenc.archive import members


class Cluster:
    """Stands in for `Dask`: nothing comes to its end before the test says so, and what is released is cancelled."""

    topic = "t"

    def __init__(self, happened):
        self.there, self.futures, self.happened, self.lost = set(), {}, happened, False

    def workers(self):
        if self.lost:
            raise JobError("lost", code="cluster-lost")
        return self.there

    def awaited(self):
        return True

    def is_back(self, timeout_s):
        return not self.lost

    def submit(self, key, address, what, *values, gpu=False):
        self.futures[key] = future = {"key": key, "values": values, "error": None, "result": None}
        return future

    def result(self, future):
        if future["error"]:
            raise future["error"]
        return future["result"]

    def release(self, *futures):
        for future in futures:
            future["error"] = JobError("cancelled", code="cluster-lost")
            self.happened.put(future["key"])

    def stop(self):
        pass

    def close(self):
        pass

    def ends(self, key, result):
        self.futures[key]["result"] = result
        self.happened.put(key)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "Dask", lambda job, happened, heard: Cluster(happened))
    job = Job((tmp_path,), tmp_path / "out", target(find("rle")), token="0" * 12, cluster=OnCluster("a:1"))
    pool = members.Members(job, after_s=0.0)
    yield pool
    pool.close()
    assert list(tmp_path.iterdir()) == []


def join(pool, address, number):
    cluster = pool._dask
    cluster.there = cluster.there | {address}
    pool.take(0)
    cluster.ends(f"version-{number}", __version__)
    pool.take(0)
    cluster.ends(f"join-{number}", Admission("session", 1))
    pool.take(0)


@pytest.mark.parametrize("step", ["version", "join"])
def test_a_worker_that_goes_before_it_has_joined_is_no_loss(pool, step):
    cluster = pool._dask
    cluster.there = {"a"}
    pool.take(0)
    if step == "join":
        cluster.ends("version-1", __version__)
        pool.take(0)
    assert f"{step}-1" in cluster.futures
    cluster.there = set()
    assert pool.take(0) == []
    assert pool.take(0) == []  # its futures are cancelled, which does not mean that the scheduler is gone


def test_what_a_lost_worker_says_late_is_not_heard(pool):
    """Its files are another one's by then, under other temporary names, and have one outcome."""
    cluster = pool._dask
    join(pool, "a", 1)
    pool.give([Task(5, Item("/in/x", "/out/x"))])
    pool.take(0)
    first = cluster.futures["shard-1"]
    cluster.there = set()
    pool.take(0)
    assert pool.outstanding == 1
    join(pool, "b", 2)
    [task] = unpacked(cluster.futures["shard-2"]["values"][2])
    assert (task.number, task.item.replaces) == (5, True)
    tokens = [cluster.futures[f"join-{number}"]["values"][2].token for number in (1, 2)]
    assert len({*tokens, "0" * 12}) == 3
    outcome = packed_outcomes([(5, Record("/in/x", "encoded"))])
    first["error"] = None
    cluster.ends("shard-1", outcome)
    assert pool.take(0) == []
    cluster.ends("shard-2", outcome)
    assert [(number, record.worker) for number, record in pool.take(0)] == [(5, 2)]
    assert pool.outstanding == 0


def test_when_the_scheduler_is_back_everything_in_work_is_given_anew(pool):
    """Nothing twice, and nothing is forgotten."""
    cluster = pool._dask
    join(pool, "a", 1)
    pool.give([Task(number, Item(f"/in/{number}", f"/out/{number}")) for number in range(3)])
    pool.take(0)
    cluster.ends("shard-2", packed_outcomes([(2, Record("/in/2", "encoded"))]))
    cluster.lost = True
    assert [number for number, _ in pool.take(0)] == [2]
    assert pool.take(0) == []
    assert pool.outstanding == 2
    assert "no scheduler" in pool.states()[0]
    late = dict(cluster.futures)
    cluster.lost, cluster.there = False, set()
    join(pool, "a", 2)  # of the same address, and another one
    given = [key for key in cluster.futures if key.startswith("shard") and key not in late]
    tasks = [task for key in given for task in unpacked(cluster.futures[key]["values"][2])]
    assert [(task.number, task.item.replaces) for task in tasks] == [(0, True), (1, True)]
    for key in late:
        cluster.ends(key, packed_outcomes([(1, Record("/in/1", "failed"))]))
    assert pool.take(0) == []
    for key in given:
        numbers = [task.number for task in unpacked(cluster.futures[key]["values"][2])]
        cluster.ends(key, packed_outcomes([(number, Record("/in/x", "encoded")) for number in numbers]))
    found = [outcome for _ in range(2) for outcome in pool.take(0)]
    assert sorted((number, record.status, record.worker) for number, record in found) == [
        (0, "encoded", 2),
        (1, "encoded", 2),
    ]
    assert pool.outstanding == 0


def test_a_job_that_is_stopped_does_not_wait_for_the_scheduler(pool):
    join(pool, "a", 1)
    pool.give([Task(number, Item(f"/in/{number}", f"/out/{number}")) for number in range(300)])
    pool.take(0)
    pool._dask.lost = True
    pool.take(0)
    assert pool.outstanding == 300
    pool.stop()
    assert pool.outstanding == 0
    assert pool.dropped < set(range(300))  # what was handed out may have been begun
    assert pool.dropped


@pytest.mark.parametrize("joined", [False, True])
def test_a_frozen_worker_is_spoken_of_before_it_is_given_up(pool, monkeypatch, joined):
    now = [1000.0]
    monkeypatch.setattr(members.time, "monotonic", lambda: now[0])
    notes = []
    pool._tell = notes.append
    cluster = pool._dask
    if joined:
        join(pool, "a", 1)
        pool.give([Task(5, Item("/in/x", "/out/x"))])
    else:
        cluster.there = {"a"}
    pool.take(0)
    now[0] += 31
    pool.take(0)
    pool.take(0)
    what = "after 300 s its files are given to others" if joined else "after 600 s it is left out"
    assert notes == [f"worker 1 (a) has said nothing for 31 s; {what}"]
    assert not joined or pool.states()[1].endswith("silent for 31 s")
    while len(notes) == 1:
        now[0] += 250
        pool.take(0)
    assert "not answer" in notes[1]
    assert now[0] == 1000 + 31 + (500 if joined else 750)
    assert pool.take(0) == []
    assert pool.outstanding == joined
    assert len(notes) == 2
    if not joined:
        with pytest.raises(JobError, match="it does not answer") as caught:
            pool.demand_ready()
        assert caught.value.code == "worker-unfit"
