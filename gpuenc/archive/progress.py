"""What a person sees while a job runs: a live bar on a terminal, plain lines elsewhere, and the summary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from gpuenc.archive.report import Record, ReportFile, Summary

_LINE_EVERY_S = 10.0


class Display:
    """Shows progress on `console`, errors on `errors`, and writes the report.

    Parameters
    ----------
    console, errors : rich.console.Console
        Standard output and standard error.
    report : ReportFile or None
        Where the record of each file goes.
    """

    def __init__(self, console: Console, errors: Console, report: ReportFile | None) -> None:
        self._console, self._errors, self._report = console, errors, report
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._files = self._done = self._frames = self._bytes_in = self._bytes_out = self._read_bytes = 0
        self._started = self._last_line = time.monotonic()

    def start(self, files: int, bytes_total: int) -> None:
        """Show how much there is to do."""
        self._files = files
        self._started = self._last_line = time.monotonic()
        if not self._console.is_terminal:
            self._console.print(f"{files} files, {megabytes(bytes_total)}")
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("files", total=files, rates="")
        self._bar.start()

    def done(self, record: Record) -> None:
        """Count one file; say at once what failed."""
        self._done += 1
        self._frames += record.frames
        self._read_bytes += record.bytes_in
        if record.status == "encoded":
            self._bytes_in += record.bytes_in
            self._bytes_out += record.bytes_out
        if self._report:
            self._report.add(record)
        if record.status == "failed":
            self._errors.print(f"failed: {record.source}: {record.message} [{record.reason}]", markup=False)
        if self._bar:
            self._bar.update(self._task, advance=1, rates=self._rates())
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(f"{self._done}/{self._files} files, {self._rates()}", markup=False)

    def finish(self, summary: Summary) -> None:
        """Show the totals."""
        if self._bar:
            self._bar.stop()
        self._console.print(summary_table(summary))
        if summary.interrupted:
            left = summary.planned - summary.done
            self._errors.print(f"interrupted: {left} of {summary.planned} files have no outcome", markup=False)

    def _rates(self) -> str:
        seconds = max(1e-6, time.monotonic() - self._started)
        ratio = f", ratio {self._bytes_in / self._bytes_out:.2f}" if self._bytes_out else ""
        return f"{self._frames} frames, {self._read_bytes / seconds / 1e6:.1f} MB/s{ratio}"


def summary_table(summary: Summary) -> Table:
    """Return the summary of a job as a table."""
    table = Table(show_header=False, title="Summary", title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    counts = ", ".join(f"{summary.files[status]} {status}" for status in ("encoded", "copied", "skipped", "failed"))
    table.add_row("files", f"{summary.planned}: {counts}")
    table.add_row("frames", f"{summary.frames} ({megabytes(summary.pixel_bytes)} of pixels)")
    if summary.bytes_out:
        sizes = f"{megabytes(summary.bytes_in)} → {megabytes(summary.bytes_out)}"
        table.add_row("encoded files", f"{sizes}, ratio {summary.ratio:.2f}")
        verified = f"{summary.verified_files} of {summary.files['encoded']} files, every sample compared"
        table.add_row("verified", verified if summary.verified_files else "no")
    if summary.plugins:
        table.add_row("plug-ins", ", ".join(f"{label}: {n} frames" for label, n in summary.plugins.items()))
    if summary.fallbacks:
        table.add_row("fallbacks", ", ".join(f"{what}: {n} frames" for what, n in summary.fallbacks.items()))
    for (status, reason), number in sorted(summary.reasons.items()):
        table.add_row(status, f"{number} × {reason}")
    rate = f", {summary.done / summary.seconds:.1f} files/s" if summary.seconds > 0 else ""
    table.add_row("time", f"{summary.seconds:.2f} s{rate}")
    return table


def megabytes(count: int) -> str:
    """Return a number of bytes in MB (10⁶ bytes)."""
    return f"{count / 1e6:.1f} MB"
