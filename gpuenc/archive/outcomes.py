"""What is known of a job from outside it: the outcomes so far, and whether it is still at work, from what it left.

That is its report, its journal, or the journals of its shards. All of it is only read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from gpuenc.archive.journal import place_of
from gpuenc.archive.journal_read import Progress, progress, recorded, records
from gpuenc.archive.locks import is_at_work
from gpuenc.archive.report import Summary, read_records
from gpuenc.archive.scan import JOURNALS
from gpuenc.archive.shares import share_of
from gpuenc.errors import JobError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuenc.archive.report import Record

Condition = Literal["finished", "running", "interrupted", "disk-full", "unknown"]
# Shards that are named.
_NAMED = 8


@dataclass(frozen=True, slots=True)
class State:
    """How far a job is.

    Parameters
    ----------
    condition : {'finished', 'running', 'interrupted', 'disk-full', 'unknown'}
        Every file has its outcome; a process is at work on it; it ended before that; it ended since there was no room
        left; its journal is not where the report says that its outputs are.
    planned : int
        Files found; 0 where that is unknown.
    all_found : bool
        There are no more than these.
    absent : tuple of str
        Shards, such as ``"2/3"``, of which there is no journal.
    """

    condition: Condition = "unknown"
    planned: int = 0
    all_found: bool = True
    absent: tuple[str, ...] = ()

    def sentence(self, done: int) -> str:
        """Return what is to be said of a job of which so many outcomes are shown; empty where all is well."""
        if self.condition == "unknown":
            return ""
        far = f"{done:,} of {self.planned:,} files{'' if self.all_found else ' found so far'} done"
        names = ", ".join(self.absent[:_NAMED]) + (" …" if len(self.absent) > _NAMED else "")
        absent = f"; not begun: shard {names}" if names else ""
        if self.condition == "running":
            return f"still running: {far}{absent}"
        if self.condition == "disk-full":
            return f"stopped for lack of room: {far}{absent}; make room, then go on with --resume"
        if self.condition == "interrupted":
            return f"interrupted: {far}{absent}; go on with --resume"
        if done < self.planned and not absent:
            return f"the job is over, and here are {done:,} of its {self.planned:,} files"
        return f"not complete: {far}{absent}" if absent else ""


class Outcomes:
    """The outcomes of one job.

    Parameters
    ----------
    path : Path
        What `--report` wrote, a journal, or the folder in which journals are: the outputs' or, of replaced sources,
        the backups'.

    Attributes
    ----------
    state : State
        As it was when this was made, so before the outcomes are read.
    notes : list of str
        What was left out, a line each.

    Raises
    ------
    SourceError
        The report cannot be read, or is none.
    JobError
        ``journal-missing``: the folder holds no journal; ``journal-unusable``: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self._path = path
        self._journals: Sequence[Path] = ()
        if path.is_dir():
            self._journals = _journals_in(path, self.notes)
            if not self._journals:
                raise JobError(f"{path} holds no job's journal: name a report", code="journal-missing")
        elif path.suffix == ".sqlite":
            self._journals = (path,)
        self.state = _state_of(self._journals) if self._journals else _state_of_report(path)

    def __iter__(self) -> Iterator[Record]:
        if self._journals:
            return chain.from_iterable(map(records, self._journals))
        return read_records(self._path, self.notes)

    def summary(self) -> Summary:
        """Return the totals; the time from when the first file was begun to when the last was done."""
        summary, span = Summary(), Span()
        for record in self:
            summary.add(record)
            span.add(record)
        summary.planned = max(summary.done, self.state.planned)
        summary.seconds = span.seconds
        return summary


class Span:
    """From when the first of some files was begun until the last was done."""

    def __init__(self) -> None:
        self._first_s, self._last_s = float("inf"), 0.0

    def add(self, record: Record) -> None:
        """Take note of one file, unless its record has no time."""
        if record.finished_s:
            self._first_s = min(self._first_s, record.finished_s - record.seconds)
            self._last_s = max(self._last_s, record.finished_s)

    @property
    def seconds(self) -> float:
        """How long; 0 where no record has a time."""
        return max(0.0, self._last_s - self._first_s) if self._last_s else 0.0


class _Shards(NamedTuple):
    """The journals of one way to share a job out."""

    number: int
    journals: dict[int, Path]


def _journals_in(folder: Path, notes: list[str]) -> list[Path]:
    """Return the journals of the job that was last at work in a folder; `notes` is told of others."""
    single = place_of(folder)
    groups: dict[int, _Shards] = {}
    if single.is_file():
        groups[1] = _Shards(1, {1: single})
    for path in sorted(single.parent.glob("shard-*.sqlite")):
        share = share_of(path)
        if share and path.is_file():
            groups.setdefault(share[1], _Shards(share[1], {})).journals[share[0]] = path
    if not groups:
        return []
    last = max(groups.values(), key=lambda each: max(map(_changed_s, each.journals.values())))
    for other in groups.values():
        if other is not last:
            what = "a job that was not shared out" if other.number == 1 else f"a job in {other.number} shards"
            notes.append(f"{single.parent}: the journal of {what} is older, and left out")
    return [last.journals[number] for number in sorted(last.journals)]


def _changed_s(journal: Path) -> float:
    times = [0.0]
    for path in (journal, Path(f"{journal}-wal")):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)


def _state_of(journals: Sequence[Path]) -> State:
    """Return the state of a job from the journals of all its shards that have begun."""
    found: list[Progress] = []
    conditions: list[Condition] = []
    for journal in journals:
        # In this order: what ends meanwhile is then said to be at work still, and nothing too much of it.
        at_work = is_at_work(journal)
        found.append(progress(journal))
        conditions.append(_condition(found[-1], at_work))
    order: tuple[Condition, ...] = ("running", "disk-full", "interrupted", "finished")
    return State(
        condition=next(each for each in order if each in conditions),
        planned=sum(each.planned for each in found),
        all_found=all(each.all_found for each in found),
        absent=_absent(journals),
    )


def _condition(far: Progress, at_work: bool) -> Condition:
    if far.finished:
        return "finished"
    if at_work:
        return "running"
    return "disk-full" if far.stopped == "disk-full" else "interrupted"


def _absent(journals: Sequence[Path]) -> tuple[str, ...]:
    shares = [share for journal in journals if (share := share_of(journal))]
    there = {number for number, _ in shares}
    count = max((count for _, count in shares), default=0)
    missing = [number for number in range(1, min(count, 1000) + 1) if number not in there]
    return tuple(f"{number}/{count}" for number in missing)


def _state_of_report(path: Path) -> State:
    """Return the state of the job that wrote a report, by the journal that has the same outcome of one of its files."""
    try:
        first = next((record for record in read_records(path) if record.destination), None)
    except SourceError:
        return State()  # whoever reads the whole of it is told
    if first is None:
        return State()
    for folder in Path(os.path.abspath(first.destination)).parents:
        if not (folder / JOURNALS).is_dir():
            continue
        try:
            journals = _journals_in(folder, [])
            holders = [journal for journal in journals if recorded(journal, first.destination) == first]
            if holders:
                return _of_as_many(path, holders, journals)
        except (JobError, OSError):
            continue
    return State()


def _of_as_many(path: Path, holders: list[Path], journals: list[Path]) -> State:
    """Return the state of the shard that a report is of, or of all where it holds more than one."""
    state = _state_of(holders)
    if len(journals) > len(holders) and sum(1 for _ in read_records(path)) > state.planned:
        return _state_of(journals)
    return replace(state, absent=())
