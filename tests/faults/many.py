"""A job over very many files on a cluster, names only: what the one that runs it takes in memory and time.

`python -m tests.faults.many --files 10000000 --folder DIR` plans files that do not exist, submits them in windows to a
local Dask cluster, whose workers say of each that it was encoded without reading anything, and reconciles the outcomes:
the journal of every file, resumed once, and one line of JSON with memory, rates and the size of the journal.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive import members
from gpuenc.archive.cluster import do
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.report import Record
from gpuenc.archive.request import Job, OnCluster
from gpuenc.archive.scan import Item
from gpuenc.archive.shards import packed_outcomes, unpacked
from gpuenc.archive.watcher import Watcher
from gpuenc.syntaxes import find
from gpuenc.targets import target

if TYPE_CHECKING:
    from collections.abc import Iterator

_PER_FOLDER = 500


def at_once(_session: str, _number: int, files: bytes) -> bytes:
    """Stand in for what a worker does with a shard: an outcome as of a slice of a CT, and no work."""
    return packed_outcomes(
        (
            task.number,
            Record(
                str(task.item.source),
                "encoded",
                str(task.item.destination),
                source_syntax="1.2.840.10008.1.2.1",
                target_syntax="1.2.840.10008.1.2.4.201",
                plugins={"nvimgcodec": 1},
                frames=1,
                bytes_in=526_000,
                bytes_out=201_000,
                pixel_bytes=524_288,
                seconds=0.004,
                verified=True,
                modality="CT",
                finished_s=time.time(),
                stage_seconds={"read": 0.001, "encode": 0.001, "verify": 0.001, "write": 0.001},
                crc32=("12345678",),
                source_digest="0" * 32,
                output_digest="1" * 32,
                source_mtime_ns=1_700_000_000_000_000_000,
                output_mtime_ns=1_800_000_000_000_000_000,
            ),
        )
        for task in unpacked(files)
    )


def items(count: int, output: Path) -> Iterator[Item]:
    """Yield names as an archive has them: 500 files to a series."""
    for number in range(count):
        name = f"study{number // _PER_FOLDER // 8:07}/series{number // _PER_FOLDER % 8}/{number:012}.dcm"
        yield Item(Path("/archive/of/names", name), output / name)


class _Counts(Watcher):
    """Counts, says now and then how far it is, and keeps the most memory that this process had."""

    def __init__(self, count: int) -> None:
        self.outcomes = 0
        self._count, self._begun_s, self._every = count, time.monotonic(), max(1, count // 20)
        self.shards = 0

    def done(self, _record: Record) -> None:
        self.outcomes += 1
        if self.outcomes % self._every == 0:
            rate = self.outcomes / (time.monotonic() - self._begun_s)
            print(f"{self.outcomes} of {self._count}, {rate:.0f}/s, {_peak_mb():.0f} MB", file=sys.stderr, flush=True)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Run it, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.many", description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the journal; 1 GB for a million files")
    args = parser.parse_args()
    assert do is not at_once
    vars(members)["do"] = at_once
    place = Path(tempfile.mkdtemp(prefix="gpuenc-many-", dir=args.folder))
    try:
        job = Job(
            (place,),
            place / "out",
            target(find("htj2k-lossless")),
            journal=place_of(place / "out"),
            cluster=OnCluster(f"local:{args.workers}", jobs=1, workers=1),
        )
        watcher = _Counts(args.files)
        begun_s, cpu_s = time.monotonic(), time.process_time()
        summary = run(job, watcher, items=items(args.files, job.destination))
        seconds, cpu_s = time.monotonic() - begun_s, time.process_time() - cpu_s
        assert job.journal is not None
        result = {
            "files": args.files,
            "outcomes": watcher.outcomes,
            "reconciled": summary.planned == summary.done == watcher.outcomes == args.files,
            "seconds": round(seconds, 1),
            "files_per_s": round(args.files / seconds),
            "cpu_us_per_file": round(cpu_s / args.files * 1e6, 1),
            "most_memory_mb": round(_peak_mb()),
            "journal_bytes_per_file": round(os.path.getsize(job.journal) / args.files),
        }
        print(json.dumps(result, indent=1))
    finally:
        shutil.rmtree(place)
    return 0 if result["reconciled"] and result["most_memory_mb"] < 2000 else 1


if __name__ == "__main__":
    sys.exit(main())
