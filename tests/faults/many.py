"""A job over very many files on a cluster, names only: what the one that runs it takes in memory and time.

`python -m tests.faults.many --files 10000000 --folder DIR` plans files that do not exist and submits them in windows to
a local Dask cluster, whose workers say of each that it was encoded without reading anything. The job is stopped in the
middle, resumed, and resumed once more when it is finished: each file must have exactly one outcome, and nothing is done
twice. What it prints is JSON: memory, time and the size of the journal after each of the three runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gpuenc.archive import members, planner
from gpuenc.archive.cluster import do
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.report import Record
from gpuenc.archive.request import Job, OnCluster
from gpuenc.archive.scan import Item
from gpuenc.archive.shards import MOST_FILES, packed_outcomes, unpacked
from gpuenc.archive.watcher import Watcher
from gpuenc.syntaxes import find
from gpuenc.targets import target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.archive.earlier import Earlier

_PER_FOLDER = 500
_ARCHIVE = "/archive/of/names"
# Size and time of every source and of every output, which are only names.
_SOURCE, _OUTPUT = (526_000, 1_700_000_000_123_456_789), (201_000, 1_800_000_000_123_456_789)


def at_once(_session: str, _number: int, files: bytes) -> bytes:
    """Stand in for what a worker does with a shard: an outcome as of a slice of a CT, and no work."""
    # As little alike as the digests of real files: a journal's size depends on that.
    digits = random.randbytes
    return packed_outcomes(
        (
            task.number,
            Record(
                task.item.source_path,
                "encoded",
                task.item.place,
                source_syntax="1.2.840.10008.1.2.1",
                target_syntax="1.2.840.10008.1.2.4.201",
                plugins={"nvimgcodec": 1},
                frames=1,
                bytes_in=_SOURCE[0],
                bytes_out=_OUTPUT[0],
                pixel_bytes=524_288,
                seconds=random.uniform(0.003, 0.005),
                verified=True,
                modality="CT",
                finished_s=time.time(),
                stage_seconds={
                    stage: round(random.uniform(0, 0.001), 6) for stage in ("read", "encode", "verify", "write")
                },
                crc32=(digits(4).hex(),),
                source_digest=digits(16).hex(),
                output_digest=digits(16).hex(),
                source_mtime_ns=_SOURCE[1],
                output_mtime_ns=_OUTPUT[1],
            ),
        )
        for task in unpacked(files)
    )


def stat(path: str) -> Any:
    """Stand in for what is known of a file that is only a name: sources are there, and outputs once they are made."""
    size_bytes, mtime_ns = _SOURCE if path.startswith(_ARCHIVE) else _OUTPUT
    return SimpleNamespace(st_size=size_bytes, st_mtime_ns=mtime_ns, st_blocks=-(-size_bytes // 512))


def items(count: int, output: Path) -> Iterator[Item]:
    """Yield names as an archive has them: 500 files to a series."""
    # As the walk does: on Python 3.12 every name that a `Path` has seen stays in memory, 95 bytes for each.
    below = os.fspath(output)
    for number in range(count):
        name = f"study{number // _PER_FOLDER // 8:07}/series{number // _PER_FOLDER % 8}/{number:012}.dcm"
        yield Item(f"{_ARCHIVE}/{name}", f"{below}/{name}")


class _Counts(Watcher):
    """Counts, says now and then how far it is, and stops the job where it is told to."""

    def __init__(self, count: int, stop: threading.Event, stop_at: int = 0) -> None:
        self.made = self.before = 0
        self._stop, self._stop_at = stop, stop_at
        self._count, self._begun_s, self._every = count, time.monotonic(), max(1, count // 20)
        # Of this process at each of these moments.
        self.memory_mb: list[float] = []

    def done(self, _record: Record) -> None:
        self.made += 1
        self._one_more()

    def earlier(self, _outcome: Earlier) -> None:
        self.before += 1
        self._one_more()

    def _one_more(self) -> None:
        done = self.made + self.before
        if done == self._stop_at:
            self._stop.set()
        if done % self._every == 0:
            self.memory_mb.append(_memory_mb())
            rate = done / (time.monotonic() - self._begun_s)
            said = f"{done} of {self._count}, {rate:.0f}/s, {self.memory_mb[-1]:.0f} MB"
            print(said, file=sys.stderr, flush=True)


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(name: str, job: Job, files: int, stop_at: int = 0) -> dict[str, Any]:
    """Run the job once; return what it took, of which CPU time is that of the local cluster's scheduler too."""
    stop = threading.Event()
    watcher = _Counts(files, stop, stop_at)
    begun_s, cpu_s = time.monotonic(), time.process_time()
    summary = run(job, watcher, stop, items=items(files, job.destination))
    seconds, cpu_s = time.monotonic() - begun_s, time.process_time() - cpu_s
    assert job.journal is not None
    handled = max(1, watcher.made + watcher.before)
    later = watcher.memory_mb[len(watcher.memory_mb) // 2 :] or [0.0]
    return {
        "run": name,
        "made": watcher.made,
        "earlier": watcher.before,
        "complete": not summary.stopped and summary.planned == summary.done == files,
        "seconds": round(seconds, 1),
        "wall_ms_per_shard": round(seconds / handled * MOST_FILES * 1000, 2),
        "cpu_ms_per_shard": round(cpu_s / handled * MOST_FILES * 1000, 2),
        "memory_mb_half_way_and_at_the_end": [round(later[0], 1), round(later[-1], 1)],
        "most_memory_mb": round(_peak_mb()),
        "journal_bytes_per_file": round(os.path.getsize(job.journal) / handled),
    }


def _outcomes(journal: Path) -> tuple[int, int, int]:
    """Return how many files a journal holds, how many places, of which there is one each, and how many outcomes."""
    with closing(sqlite3.connect(journal)) as db:
        found: tuple[int, int, int] = db.execute("SELECT count(*), count(place), count(record) FROM files").fetchone()
    return found


def main() -> int:
    """Run it, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.many", description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the journal; 1.5 GB for a million files")
    args = parser.parse_args()
    assert do is not at_once
    vars(members)["do"] = at_once
    vars(planner)["_stat"] = stat
    place = Path(tempfile.mkdtemp(prefix="gpuenc-many-", dir=args.folder))
    try:
        job = Job(
            (place,),
            place / "out",
            target(find("htj2k-lossless")),
            journal=place_of(place / "out"),
            cluster=OnCluster(f"local:{args.workers}", jobs=1, workers=1),
        )
        first = _run("stopped half-way", job, args.files, args.files // 2)
        second = _run("resumed", replace(job, resume=True), args.files)
        third = _run("resumed when finished", replace(job, resume=True), args.files)
        assert job.journal is not None
        once = first["made"] + second["made"] == args.files == third["earlier"] and not third["made"]
        reconciled = once and second["complete"] and third["complete"] and second["earlier"] == first["made"]
        reconciled = reconciled and set(_outcomes(job.journal)) == {args.files}
        print(json.dumps({"files": args.files, "reconciled": reconciled, "runs": [first, second, third]}, indent=1))
    finally:
        shutil.rmtree(place)
    return 0 if reconciled and _peak_mb() < 2000 else 1


if __name__ == "__main__":
    sys.exit(main())
