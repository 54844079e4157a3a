"""What a job would do, how large its outputs would be and how long it would take: found out before it is begun."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_remote
from gpuenc.archive.elsewhere import demand_elsewhere, demand_reached
from gpuenc.archive.job import run
from gpuenc.archive.landing import Landing
from gpuenc.archive.planner import found
from gpuenc.archive.report import Record, Summary
from gpuenc.archive.scan import COLLISION, Item
from gpuenc.archive.stamp import Stamp
from gpuenc.archive.watcher import Watcher

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from gpuenc.archive.manifest import Writer
    from gpuenc.archive.request import Job

# Enough to see a mixture; each is encoded.
_SAMPLE_FILES, _SAMPLE_BYTES = 24, 256 << 20
# Of files that would fail; a manifest's job, and a dry run's report, have them all.
MOST_NAMED = 20


@dataclass(slots=True)
class Plan:
    """What would be done.

    Attributes
    ----------
    summary : Summary
        Of a dry run.
    failed : list of Record
        The first of the files that would fail.
    syntaxes, modalities : Counter
        Files that would be encoded, by the Transfer Syntax UID of the source, and by modality.
    encoded_bytes, copied_bytes : int
        Sizes of the sources that would be encoded and copied.
    sample_files : int
        How many files were encoded, to see what becomes of them; 0 where there was none.
    ratio : float
        Of these, bytes of the sources by bytes of the outputs.
    output_bytes, seconds : float
        Expected of the whole, going by these; 0 without.
    """

    summary: Summary = field(default_factory=Summary)
    failed: list[Record] = field(default_factory=list)
    syntaxes: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    encoded_bytes: int = 0
    copied_bytes: int = 0
    sample_files: int = 0
    ratio: float = 0.0
    output_bytes: float = 0.0
    seconds: float = 0.0


def plan(job: Job, stop: threading.Event, manifest: Writer | None = None, *, seed: int = 0) -> Plan:
    """Walk the sources, read every header, and encode a sample of the files into a folder that is removed again.

    Parameters
    ----------
    job : Job
        What would be done.
    stop : threading.Event
        Ends it early; the plan then says `interrupted` in its summary.
    manifest : Writer, optional
        Where to write the files down.
    seed : int
        Of the choice of the sample.
    """
    if job.is_elsewhere:
        demand_elsewhere(job)
        demand_reached(replace(job, dry_run=True), with_input=True)
    collector = _Collector(random.Random(seed))
    items = found(job)
    if manifest:
        items = _written(items, manifest, None if job.in_place or is_remote(job.destination) else Landing(job))
    collector.plan.summary = run(replace(job, dry_run=True, journal=None), collector, stop, items=items)
    if manifest and not collector.plan.summary.stopped:
        manifest.finish()
    if not stop.is_set():
        _estimate(job, collector, stop)
    return collector.plan


def _written(items: Iterator[Item], manifest: Writer, landing: Landing | None) -> Iterator[Item]:
    # Two sources of one place may fall to two shares, neither of which knows of the other: it is decided here.
    with closing(sqlite3.connect("")) as places:
        places.execute("CREATE TABLE taken (place BLOB PRIMARY KEY) WITHOUT ROWID")
        for item in items:
            place = os.fsencode(landing.of(item.place) if landing else item.place)
            new = item.left_out or places.execute("INSERT OR IGNORE INTO taken VALUES (?)", (place,)).rowcount
            found = item if new else replace(item, left_out=COLLISION)
            stamp = None if found.left_out else found.stamp or Stamp.of_any(found.source_path)
            manifest.add(found, stamp.size_bytes if stamp else 0)
            yield found


class _Collector(Watcher):
    """A watcher that counts, and keeps a sample in which every file has the same chance to be."""

    def __init__(self, chance: random.Random) -> None:
        self.plan = Plan()
        self.sample: list[Record] = []
        self._chance, self._seen = chance, 0
        self.first_s, self.last_s = math.inf, 0.0

    def done(self, record: Record) -> None:
        """Count one file."""
        if record.status == "failed" and len(self.plan.failed) < MOST_NAMED:
            self.plan.failed.append(record)
        self.first_s = min(self.first_s, record.finished_s - record.seconds)
        self.last_s = max(self.last_s, record.finished_s)
        if record.status == "copied":
            self.plan.copied_bytes += record.bytes_in
        if record.status != "encoded":
            return
        self.plan.encoded_bytes += record.bytes_in
        self.plan.syntaxes[record.source_syntax] += 1
        self.plan.modalities[record.modality or "?"] += 1
        self._seen += 1
        if len(self.sample) < _SAMPLE_FILES:
            self.sample.append(record)
        elif (place := self._chance.randrange(self._seen)) < _SAMPLE_FILES:
            self.sample[place] = record


def _estimate(job: Job, collector: _Collector, stop: threading.Event) -> None:
    plan, sample, held = collector.plan, [], 0
    for record in collector.sample:
        if held + record.bytes_in <= _SAMPLE_BYTES:
            sample.append(record)
            held += record.bytes_in
    if not sample:
        return
    with tempfile.TemporaryDirectory(prefix="gpuenc-plan-") as folder:
        items = [Item(Path(one.source), Path(folder) / str(number)) for number, one in enumerate(sample)]
        tried = replace(
            job, destination=Path(folder), journal=None, dry_run=False, in_place=False, reserve_bytes=0, report=None
        )
        watcher = _Collector(random.Random(0))
        summary = run(tried, watcher, stop, items=items)
    if summary.stopped:
        plan.summary.stopped = summary.stopped
        return
    # Not the start of processes, which large jobs do not feel: from the first file to be begun to the last one done.
    seconds = watcher.last_s - watcher.first_s
    if not summary.bytes_out or seconds <= 0:
        return
    plan.sample_files, plan.ratio = summary.files["encoded"], summary.ratio
    plan.output_bytes = plan.encoded_bytes / summary.ratio + plan.copied_bytes
    plan.seconds = seconds * plan.encoded_bytes / summary.bytes_in
