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
    from gpuenc.archive import members

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
