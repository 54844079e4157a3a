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
        self.there, self.futures, self.happened = set(), {}, happened

    def workers(self):
        return self.there

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
