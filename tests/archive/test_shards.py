"""Shards of a cluster: every file once, small ones at the end, and poison found by division."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuenc.archive import shards as shards_module
from gpuenc.archive.pool import Task
from gpuenc.archive.scan import Item
from gpuenc.archive.shards import MOST_BYTES, MOST_FILES, Shards


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def tasks(count, size_bytes=1):
    return [Task(number, Item(Path(f"/in/{number}"), Path(f"/out/{number}")), size_bytes) for number in range(count)]


def drained(shards, workers=1):
    found = []
    while shard := shards.next(workers, idle=True):
        found.append(shard)
    return found


@pytest.mark.parametrize("workers", [1, 3, 100])
def test_every_file_is_in_one_shard_and_the_last_are_small(workers):
    shards = Shards("1.2")
    shards.give(tasks(5000))
    found = drained(shards, workers)
    assert [task.number for shard in found for task in shard.tasks] == list(range(5000))
    sizes = [len(shard.tasks) for shard in found]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= MOST_FILES
    assert sizes[-1] == 1
    assert len({shard.number for shard in found}) == len(found)
    assert shards.files == 0


def test_large_files_make_small_shards():
    shards = Shards("1.2")
    shards.give([*tasks(4, MOST_BYTES // 2), Task(4, Item(Path("/x"), Path("/y")), 9 * MOST_BYTES)])
    assert [len(shard.tasks) for shard in drained(shards)] == [2, 2, 1]


def test_what_was_lost_waits_and_then_has_a_worker_to_itself(clock):
    shards = Shards("1.2", after_s=5, clock=clock)
    shards.give(tasks(2, MOST_BYTES))
    first = shards.next(1, idle=True)
    assert first
    assert shards.lost(first) == []
    assert shards.files == 2
    clock.now = 4.9
    other = shards.next(1, idle=True)
    assert other
    assert [task.number for task in other.tasks] == [1]
    clock.now = 5.0
    assert shards.next(1, idle=False) is None
    again = shards.next(1, idle=True)
    assert again
    assert again.alone
    assert again.number not in (first.number, other.number)
    # Its output may be there, and then is its own.
    assert [(task.number, task.item.replaces) for task in again.tasks] == [(0, True)]


@pytest.mark.parametrize("count", [1, 2, 9, 256])
@pytest.mark.parametrize("poison", [set(), {0}, {0, 1}, {255}, {3, 77, 200}])
def test_poison_is_found_and_nothing_else_is_given_up(clock, count, poison):
    """A worker is lost with each shard that holds any; the others are done, each once."""
    poison = {number for number in poison if number < count}
    shards = Shards("1.2", after_s=1, clock=clock)
    shards.give(tasks(count))
    done, given_up, losses = [], [], 0
    while shards.files:
        clock.now += 1
        shard = shards.next(0, idle=True)
        assert shard
        if poison & {task.number for task in shard.tasks}:
            losses += 1
            given_up += shards.lost(shard)
        else:
            done += [task.number for task in shard.tasks]
    assert sorted(done) == sorted(set(range(count)) - poison)
    assert sorted(number for number, _ in given_up) == sorted(poison)
    assert {record.reason for _, record in given_up} <= {"worker-crashed"}
    # Whole twice, then an eighth of it at a time (256, 32, 4, 1), and the last one once more.
    assert losses <= len(poison) * 6
    assert all(record.source == f"/in/{number}" for number, record in given_up)


def test_the_window_does_not_grow_with_the_archive():
    assert shards_module.window_files(2) == 2 * shards_module.window_files(1) == 2 * shards_module.window_files(0)
