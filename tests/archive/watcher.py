"""A watcher that keeps what it is told, and one call that runs a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuenc.archive.job import run
from gpuenc.archive.request import Job
from gpuenc.archive.watcher import Watcher
from gpuenc.syntaxes import find
from gpuenc.targets import target

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from gpuenc.archive.earlier import Earlier
    from gpuenc.archive.report import Record, Summary


# Runs the command, and prints the most KiB of memory that it or one of its workers had.
PEAK = """import resource
from gpuenc.cli import main
try: main()
finally:
    # What a process had before it was this one does not count; of its workers there is none.
    [own] = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


class Records(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.summary: Summary | None = None

    def start(self, files: int, bytes_total: int) -> None:
        self.files, self.bytes_total = files, bytes_total

    def planned(self, files: int, bytes_total: int) -> None:
        self.files, self.bytes_total = files, bytes_total

    def earlier(self, outcome: Earlier) -> None:
        self.records.append(outcome.record)

    def done(self, record: Record) -> None:
        self.records.append(record)

    def finish(self, summary: Summary) -> None:
        self.summary = summary


def transcode(
    source: Path | tuple[Path, ...],
    output: Path,
    to: str = "htj2k-lossless",
    *,
    stop: threading.Event | None = None,
    quality: float | None = None,
    ratio: float | None = None,
    **options: Any,
) -> list[Record]:
    """Run a job and return its records, in the order of their sources."""
    syntax = find(to)
    lossy = quality is not None or ratio is not None
    chosen = target(
        syntax,
        quality=quality,
        ratios=() if ratio is None else (ratio,),
        lossless=True if syntax.loss == "option" and not lossy else None,
    )
    sources = source if isinstance(source, tuple) else (source,)
    watcher = Records()
    run(Job(sources, output, chosen, **options), watcher, stop)
    return sorted(watcher.records, key=lambda record: record.source)
