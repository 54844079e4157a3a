"""A running job in numbers that Prometheus reads: over HTTP, or in a file for node_exporter's textfile collector.

Both hold the text format 0.0.4; who asks for OpenMetrics 1.0 over HTTP gets that. Nothing that goes wrong here stops or
slows the job.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from gpuenc._version import __version__
from gpuenc.archive.report import STATUSES
from gpuenc.archive.scrape import MetricsFile, MetricsServer, destination_of
from gpuenc.archive.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gpuenc.archive.earlier import Earlier
    from gpuenc.archive.report import Record, Summary

LOGGER = logging.getLogger(__name__)

_Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """A metric: its name without ``_total``, what it counts, and its samples by their labels."""

    name: str
    kind: str
    help: str
    samples: dict[_Labels, float]


class Metrics(Watcher):
    """A watcher that counts; `render` may be called from any thread.

    Parameters
    ----------
    clock : callable
        Seconds since 1970-01-01 UTC.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._files: Counter[str] = Counter()
        self._read_bytes: Counter[str] = Counter()
        self._written_bytes: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._plugins: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._stages: dict[str, float] = {}
        self._frames = self._pixel_bytes = self._verified = self._planned = self._planned_bytes = 0
        self._started_s = clock()
        self._last_s = self._ended_s = 0.0
        self._workers: int | None = None
        self._interrupted = False

    def start(self, files: int, bytes_total: int) -> None:
        """Take how much there is to do."""
        with self._lock:
            self._planned, self._planned_bytes = files, bytes_total

    def planned(self, files: int, bytes_total: int) -> None:
        """Take how much was found so far."""
        self.start(files, bytes_total)

    def earlier(self, outcome: Earlier) -> None:
        """Count a file that an earlier run of the job has done."""
        self.done(outcome)

    def done(self, record: Record | Earlier) -> None:
        """Count one file."""
        with self._lock:
            self._last_s = self._clock()
            self._files[record.status] += 1
            self._read_bytes[record.status] += record.bytes_in
            self._written_bytes[record.status] += record.bytes_out
            self._failures[record.reason] += record.status == "failed"
            self._frames += record.frames
            self._pixel_bytes += record.pixel_bytes
            self._verified += record.verified
            self._plugins.update(record.plugins)
            self._fallbacks.update(record.fallbacks)
            for stage, seconds in record.stage_seconds.items():
                self._stages[stage] = self._stages.get(stage, 0.0) + seconds

    def workers(self, states: Sequence[str]) -> None:
        """Take one line per worker that is alive; only their number is told."""
        with self._lock:
            self._workers = len(states)

    def finish(self, summary: Summary) -> None:
        """Note that it is over."""
        with self._lock:
            self._ended_s = self._clock()
            self._interrupted = summary.interrupted
            if self._workers is not None:
                self._workers = 0

    def render(self, *, openmetrics: bool = False) -> str:
        """Return everything in the text format 0.0.4, or in OpenMetrics 1.0."""
        with self._lock:
            families = list(self._families())
        lines = []
        for family in families:
            full = f"gpuenc_{family.name}" + ("_total" if family.kind == "counter" else "")
            name = f"gpuenc_{family.name}" if openmetrics else full
            lines += [f"# HELP {name} {_escaped(family.help)}", f"# TYPE {name} {family.kind}"]
            for labels, value in family.samples.items():
                pairs = ",".join(f'{label}="{_escaped(what, quotes=True)}"' for label, what in labels)
                lines.append(f"{full}{{{pairs}}} {value!r}" if pairs else f"{full} {value!r}")
        if openmetrics:
            lines.append("# EOF")
        return "\n".join(lines) + "\n"

    def _families(self) -> Iterator[Family]:
        gauge, counter = "gauge", "counter"
        by_status: list[dict[_Labels, float]]
        counted = (self._files, self._read_bytes, self._written_bytes)
        by_status = [{(("status", status),): each[status] for status in STATUSES} for each in counted]
        yield Family("build_info", gauge, "The version that runs.", {(("version", __version__),): 1})
        yield Family("start_time_seconds", gauge, "When the job began, since 1970.", {(): self._started_s})
        yield Family("running", gauge, "1 until the job is over.", {(): 0 if self._ended_s else 1})
        yield Family("interrupted", gauge, "1 if the job was ended early.", {(): int(self._interrupted)})
        if self._ended_s:
            yield Family("end_time_seconds", gauge, "When the job was over, since 1970.", {(): self._ended_s})
        if self._last_s:
            yield Family("last_file_time_seconds", gauge, "When a file was last done, since 1970.", {(): self._last_s})
        if self._workers is not None:
            yield Family("workers", gauge, "Worker processes alive.", {(): self._workers})
        yield Family("planned_files", gauge, "Files that were found.", {(): self._planned})
        yield Family("planned_bytes", gauge, "Bytes of the files that were found.", {(): self._planned_bytes})
        yield Family("files", counter, "Files with an outcome.", by_status[0])
        yield Family("source_bytes", counter, "Bytes of the sources.", by_status[1])
        yield Family("output_bytes", counter, "Bytes of the outputs.", by_status[2])
        yield Family("verified_files", counter, "Files whose every sample was compared.", {(): self._verified})
        yield Family("frames", counter, "Frames encoded.", {(): self._frames})
        yield Family("pixel_bytes", counter, "Native bytes of the frames encoded.", {(): self._pixel_bytes})
        failures = {reason: number for reason, number in self._failures.items() if number}
        yield Family("failures", counter, "Files that failed, by reason.", _by("reason", failures))
        yield Family("plugin_frames", counter, "Frames by the plug-in that encoded them.", _by("plugin", self._plugins))
        refused: dict[_Labels, float] = {}
        for what, frames in self._fallbacks.items():
            plugin, _, code = what.rpartition(": ")
            refused[("plugin", plugin), ("reason", code)] = frames
        yield Family("fallback_frames", counter, "Frames that a plug-in refused and another encoded.", refused)
        yield Family("stage_seconds", counter, "Time in each stage, over all threads.", _by("stage", self._stages))


@contextlib.contextmanager
def metrics_watcher(spec: str) -> Iterator[Metrics]:
    """Publish a job's numbers while the context lasts.

    Parameters
    ----------
    spec : str
        A port on 127.0.0.1, ``HOST:PORT``, or a file whose name ends in ``.prom``, which is written every few seconds
        and at the end. A server is gone with the job: what is shorter than the time between two scrapes wants a file.

    Yields
    ------
    Metrics
        The watcher to be told of the job.

    Raises
    ------
    InvalidOption
        `spec` is none of these, the address cannot be listened on, or the file cannot be written or is no such file.
    """
    destination = destination_of(spec)
    metrics = Metrics()
    with (
        MetricsFile(destination, metrics.render)
        if not isinstance(destination, tuple)
        else MetricsServer(destination, metrics.render)
    ):
        yield metrics


def _by(label: str, counts: dict[str, int] | dict[str, float] | Counter[str]) -> dict[_Labels, float]:
    return {((label, name),): number for name, number in counts.items()}


def _escaped(text: str, *, quotes: bool = False) -> str:
    r"""Return text with backslash and line feed, and in labels the quote, as the formats want them."""
    # Lone surrogates, which no UTF-8 holds, as Python's escapes.
    text = text.encode("utf-8", "backslashreplace").decode().replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
