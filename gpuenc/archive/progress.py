"""What a person sees while a job runs: a live bar on a terminal, plain lines elsewhere, and the summary."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gpuenc.archive.watcher import Watcher

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from gpuenc.archive.report import Record, ReportFile, Summary

_LINE_EVERY_S = 10.0


class Display(Watcher):
    """Shows progress on `console`, errors on `errors`, and writes the report.

    A reader that is gone, or a disk that is full, does not stop the job: what cannot be shown is not shown.

    Parameters
    ----------
    console, errors : rich.console.Console
        Standard output and standard error.
    report : ReportFile or None
        Where the record of each file goes.
    dry_run : bool
        Say that nothing was written.
    """

    def __init__(self, console: Console, errors: Console, report: ReportFile | None, *, dry_run: bool = False) -> None:
        self._console, self._errors, self._report, self._dry_run = console, errors, report, dry_run
        self._bar: tuple[Progress, TaskID] | None = None
        self._files = self._done = self._frames = self._bytes_in = self._bytes_out = self._read_bytes = 0
        self._started = self._last_line = time.monotonic()

    def start(self, files: int, bytes_total: int) -> None:
        """Show how much there is to do."""
        self._files = files
        self._started = self._last_line = time.monotonic()
        if not self._console.is_terminal:
            self._show(self._console, f"{counted(files, 'file')}, {megabytes(bytes_total)}")
            return
        bar = _bar(self._console)
        self._bar = bar, bar.add_task("files", total=files, rates="")
        bar.start()

    def planned(self, files: int, bytes_total: int) -> None:
        """Take note of how much was found so far."""
        if files != self._files:
            self._files = files
            if self._bar:
                self._bar[0].update(self._bar[1], total=files)

    def earlier(self, record: Record) -> None:
        """Count a file that an earlier run has done."""
        self._done += 1
        if self._report:
            self._report.add(record)
        if self._bar:
            self._bar[0].update(self._bar[1], advance=1)

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
            self._show(self._errors, f"failed: {visible(record.source)}: {visible(record.message)} [{record.reason}]")
        if self._bar:
            bar, task = self._bar
            with contextlib.suppress(OSError):
                bar.update(task, advance=1, rates=self._rates())
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._show(self._console, f"{self._done}/{self._files} files, {self._rates()}")

    def finish(self, summary: Summary) -> None:
        """Show the totals."""
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar[0].stop()
        self._show(self._console, summary_table(summary, dry_run=self._dry_run))
        if summary.interrupted:
            left = summary.planned - summary.done
            self._show(self._errors, f"interrupted: {left} of {counted(summary.planned, 'file')} have no outcome")

    def _show(self, console: Console, what: Any) -> None:
        with contextlib.suppress(OSError):
            console.print(what, markup=False, highlight=False)

    def _rates(self) -> str:
        seconds = max(1e-6, time.monotonic() - self._started)
        ratio = f", ratio {self._bytes_in / self._bytes_out:.2f}" if self._bytes_out else ""
        return f"{counted(self._frames, 'frame')}, {self._read_bytes / seconds / 1e6:.1f} MB/s{ratio}"


def _bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def summary_table(summary: Summary, *, dry_run: bool = False) -> Table:
    """Return the summary of a job as a table."""
    title = "What would be done (dry run: nothing was written)" if dry_run else "Summary"
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
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


def counted(count: int, what: str) -> str:
    """Return a count with its noun: ``"1 file"``, ``"2 files"``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def visible(text: str) -> str:
    """Return one line without anything that a terminal would obey: such characters as Python's escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
