"""Which files go to a cluster's workers together, and which of them may have ended a worker. Knows of no cluster.

A shard whose worker was lost is tried again as a whole, by a worker that does nothing else meanwhile; where that one is
lost too, in pieces, and so on, until one file is left that ends every worker: that one is given up, and no other.
"""

from __future__ import annotations

import pickle
import time
import zlib
from collections import deque
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from gpuenc.archive.manifest import SHARD_BYTES, SHARD_FILES
from gpuenc.archive.pool import Task
from gpuenc.archive.report import Record
from gpuenc.archive.scan import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# A quarter of a manifest's shard: its outcomes come back together, and are lost together.
MOST_FILES, MOST_BYTES = SHARD_FILES // 4, SHARD_BYTES // 4
# What is in work and what waits at a worker; and here, enough for shards to be whole until the last ones.
SHARDS_PER_WORKER = 2
_WINDOW_SHARDS = 8
_PIECES = 8
# How often a file may end a worker that does nothing else before it is given up.
_TRIES_ALONE = 2
# Longer than processes of a lost worker go on with what they have in work (archive/worker.py).
AFTER_S = 7.0


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that one worker does: an attempt, of which each has a number of its own, and is made at most once.

    Parameters
    ----------
    number : int
        Of the attempt.
    tasks : tuple of Task
        The files.
    alone : bool
        To be done by a worker that does nothing else: it may be what ended another one.
    losses : int
        How many workers were lost that did nothing else.
    """

    number: int
    tasks: tuple[Task, ...]
    alone: bool = False
    losses: int = 0


class Shards:
    """Files that wait for a worker of the cluster.

    Parameters
    ----------
    target_syntax : str
        UID, for the records of what is given up.
    after_s : float
        How long what was lost waits before it is tried again.
    clock : callable
        Seconds that only go forward.
    """

    def __init__(
        self, target_syntax: str, *, after_s: float = AFTER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._target_syntax, self._after_s, self._clock = target_syntax, after_s, clock
        self._waiting: deque[Task] = deque()
        self._lost: deque[tuple[float, Shard]] = deque()
        self._attempts = 0

    @property
    def files(self) -> int:
        """How many wait."""
        return len(self._waiting) + sum(len(shard.tasks) for _, shard in self._lost)

    def give(self, tasks: Sequence[Task]) -> None:
        """Have files wait."""
        self._waiting.extend(tasks)

    def clear(self) -> set[int]:
        """Forget all; return the numbers of those that no worker ever had."""
        fresh = {task.number for task in self._waiting if not task.item.replaces}
        self._waiting.clear()
        self._lost.clear()
        return fresh

    def next(self, workers: int, *, idle: bool) -> Shard | None:
        """Return the next shard for one of so many workers, if there is one for it; `idle` has nothing in work.

        Towards the end shards become small, so that all workers end together.
        """
        if idle and self._lost and self._lost[0][0] <= self._clock():
            return self._lost.popleft()[1]
        if not self._waiting:
            return None
        most = min(MOST_FILES, -(-len(self._waiting) // (SHARDS_PER_WORKER * max(1, workers))))
        tasks = [self._waiting.popleft()]
        size_bytes = tasks[0].size_bytes
        while self._waiting and len(tasks) < most:
            size_bytes += self._waiting[0].size_bytes
            if size_bytes > MOST_BYTES:
                break
            tasks.append(self._waiting.popleft())
        return self._shard(tasks)

    def unsent(self, shard: Shard) -> None:
        """Have a shard wait again that no worker has begun."""
        if shard.alone:
            self._lost.appendleft((0.0, shard))
        else:
            self._waiting.extendleft(reversed(shard.tasks))

    def again(self, shard: Shard) -> None:
        """Have a shard wait again that came to no end for no fault of its own, and may have been begun."""
        tasks = [_replacing(task) for task in shard.tasks]
        if shard.alone:
            self._lost.appendleft((0.0, self._shard(tasks, alone=True, losses=shard.losses)))
        else:
            self._waiting.extendleft(reversed(tasks))

    def lost(self, shard: Shard) -> list[tuple[int, Record]]:
        """Take back a shard whose worker was lost with it; return the outcomes of what is given up."""
        tasks = [_replacing(task) for task in shard.tasks]
        ready_s = self._clock() + self._after_s
        losses = shard.losses + shard.alone
        if not shard.alone or (len(tasks) == 1 and losses < _TRIES_ALONE):
            self._lost.append((ready_s, self._shard(tasks, alone=True, losses=losses)))
        elif len(tasks) > 1:
            size = -(-len(tasks) // _PIECES)
            for first in range(0, len(tasks), size):
                self._lost.append((ready_s, self._shard(tasks[first : first + size], alone=True)))
        else:
            return [(tasks[0].number, self._given_up(tasks[0]))]
        return []

    def _shard(self, tasks: Sequence[Task], *, alone: bool = False, losses: int = 0) -> Shard:
        self._attempts += 1
        return Shard(self._attempts, tuple(tasks), alone, losses)

    def _given_up(self, task: Task) -> Record:
        return Record(
            task.item.name,
            "failed",
            reason="worker-crashed",
            message="each worker of the cluster that worked on it was lost",
            target_syntax=self._target_syntax,
            bytes_in=task.size_bytes,
            finished_s=max(0.0, time.time()),
        )


def _replacing(task: Task) -> Task:
    # An output may be there already: the worker may have been lost before it could say so.
    return replace(task, item=replace(task.item, replaces=True))


def window_files(workers: int) -> int:
    """Return how many files so many workers, and what waits for them, hold: never the whole archive."""
    return max(1, workers) * MOST_FILES * _WINDOW_SHARDS


def packed(tasks: Iterable[Task]) -> bytes:
    """Return files as few bytes: a scheduler keeps its last thousand messages to each worker.

    Which folder the destination is, each machine knows itself (`archive/session.py`).
    """
    values = [
        (
            task.number,
            task.item.source_path,
            task.item.place,
            task.item.replaces,
            task.item.made_before,
            task.size_bytes,
        )
        for task in tasks
    ]
    return zlib.compress(pickle.dumps(values), 1)


def unpacked(data: bytes) -> list[Task]:
    """Return what `packed` was given."""
    return [
        Task(number, Item(source, place, replaces=replaces, made_before=made_before), size_bytes)
        for number, source, place, replaces, made_before, size_bytes in pickle.loads(zlib.decompress(data))
    ]


def packed_outcomes(outcomes: Iterable[tuple[int, Record]]) -> bytes:
    """Return outcomes as few bytes, and quickly: dataclasses pickle slowly."""
    return zlib.compress(pickle.dumps([(number, _VALUES(record)) for number, record in outcomes]), 1)


def unpacked_outcomes(data: bytes) -> list[tuple[int, Record]]:
    """Return what `packed_outcomes` was given."""
    return [(number, Record(*values)) for number, values in pickle.loads(zlib.decompress(data))]


_VALUES = attrgetter(*(field.name for field in fields(Record)))
