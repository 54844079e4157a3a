"""What a person sees while a job runs: a live bar on a terminal, plain lines elsewhere, and the summary."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from gpuenc.archive.outcomes import State
from gpuenc.archive.there import OTHER_SYNTAX
from gpuenc.archive.unverified import verification_text
from gpuenc.archive.watcher import Watcher
from gpuenc.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

    from gpuenc.archive.earlier import Earlier
    from gpuenc.archive.merge import Merge
    from gpuenc.archive.outcomes import Condition
from gpuenc.archive.report import Record, ReportFile, Summary

# What the time of a report's files is: a job is at work before the first and after the last of them.
SPAN = "first to last file"
_LINE_EVERY_S = 10.0
# More workers than this have no line of their own.
_WORKER_LINES = 16
# Before this much is known, an estimate of the time left says nothing.
_ETA_AFTER_S = 2.0
_STOPPED = {"disk-full": "there is no room left", "store-lost": "the store or server does not work any more"}


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
    clock : callable
        Seconds that only go forward.
    """

    def __init__(
        self,
        console: Console,
        errors: Console,
        report: ReportFile | None,
        *,
        dry_run: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._errors, self._report, self._dry_run = console, errors, report, dry_run
        self._clock = clock
        self._bar: tuple[Progress, TaskID] | None = None
        self._states: list[Text] = []
        self._files = self._done = self._failed = self._frames = self._bytes_in = self._bytes_out = 0
        self._bytes_total = self._read_bytes = self._other_syntax = 0
        self._started = self._last_line = clock()

    def start(self, files: int, bytes_total: int) -> None:
        """Show how much there is to do."""
        if self._report:
            self._report.begin()
        self._files, self._bytes_total = files, bytes_total
        self._started = self._last_line = self._clock()
        if not self._console.is_terminal:
            self._show(self._console, f"{counted(files, 'file')}, {size_text(bytes_total)}")
            return
        bar = _bar(self._console, self._states)
        self._bar = bar, bar.add_task("files", total=files, rates="", left="-:--:--")
        with contextlib.suppress(OSError):
            bar.start()

    def planned(self, files: int, bytes_total: int) -> None:
        """Take note of how much was found so far."""
        if files == self._files:
            return
        self._files, self._bytes_total = files, bytes_total
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar[0].update(self._bar[1], total=files)

    def earlier(self, outcome: Earlier) -> None:
        """Count a file that an earlier run has done."""
        self._done += 1
        # What is left takes as long as what was done in this run.
        self._bytes_total -= outcome.bytes_in
        if self._report:
            self._report.add_line(outcome.line)
        self._tell(advance=1)

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
            self._failed += 1
            self._show(self._errors, failure_line(record))
        self._other_syntax += OTHER_SYNTAX in record.message
        self._tell(advance=1)

    def workers(self, states: Sequence[str]) -> None:
        """Show what each worker does, one line each."""
        shown = [Text(f"  {visible(state)}", no_wrap=True, overflow="ellipsis") for state in states[:_WORKER_LINES]]
        if len(states) > _WORKER_LINES:
            shown.append(Text(f"  and {counted(len(states) - _WORKER_LINES, 'worker')} more"))
        self._states[:] = shown
        self._tell()

    def note(self, text: str) -> None:
        """Show a line."""
        with contextlib.suppress(OSError):
            self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def finish(self, summary: Summary) -> None:
        """Show the totals."""
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar[0].stop()
        self._show(self._console, summary_table(summary, _far(summary), dry_run=self._dry_run))
        if self._other_syntax:
            what = f"{counted(self._other_syntax, 'output')} there already, {OTHER_SYNTAX}, and left as they are"
            self._show(self._errors, f"{what}: choose another --output, or replace them with --overwrite")
        if summary.interrupted:
            left = summary.planned - summary.done
            why = _STOPPED.get(summary.stopped, summary.stopped)
            if summary.outage:
                self._show(self._errors, visible(summary.outage))
            # A job in which nothing was begun has left no journal.
            after = "go on with --resume" if summary.resumable else "begin again"
            if summary.stopped == "disk-full":
                after = f"make some, then {after}"
            if summary.stopped == "store-lost":
                after = f"when it does again, {after}"
            self._show(self._errors, f"{why}: {left} of {counted(summary.planned, 'file')} have no outcome; {after}")

    def _tell(self, advance: int = 0) -> None:
        """Bring the bar up to date, or write a line once enough time has passed."""
        now = self._clock()
        if self._bar:
            bar, task = self._bar
            with contextlib.suppress(OSError):
                bar.update(task, advance=advance, rates=self._rates(now), left=self._left(now))
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            self._show(
                self._console, f"{self._done}/{counted(self._files, 'file')}, {self._rates(now)}, ETA {self._left(now)}"
            )

    def _show(self, console: Console, what: Any) -> None:
        with contextlib.suppress(OSError):
            console.print(what, markup=False, highlight=False)

    def _rates(self, now: float) -> str:
        seconds = max(1e-6, now - self._started)
        ratio = f", ratio {self._bytes_in / self._bytes_out:.2f}" if self._bytes_out else ""
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{counted(self._frames, 'frame')}, {self._read_bytes / seconds / 1e6:.1f} MB/s{ratio}{failed}"

    def _left(self, now: float) -> str:
        """Return the time left at the speed so far, by bytes where there are some: files differ too much in size."""
        done, total = self._read_bytes, self._bytes_total
        if not done or done > total:
            done, total = self._done, self._files
        seconds = now - self._started
        if not done or done >= total or seconds < _ETA_AFTER_S:
            return "0:00:00" if self._done >= self._files else "-:--:--"
        return clock_time(seconds * (total - done) / done)


def failure_line(record: Record) -> str:
    """Return what is said of a file that fails."""
    return f"failed: {visible(record.source)}: {visible(record.message)} [{visible(record.reason)}]"


def _bar(console: Console, states: Sequence[Text]) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    class WithWorkers(Progress):
        """A bar, and below it a line per worker."""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield from super().get_renderables()
            yield from list(states)

    return WithWorkers(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}"),
        TimeElapsedColumn(),
        TextColumn("ETA {task.fields[left]}"),
        console=console,
        transient=True,
    )


def _far(summary: Summary) -> str:
    """Return how far a job is that was stopped."""
    condition: Condition = "disk-full" if summary.stopped == "disk-full" else "interrupted"
    sentence = State(condition, summary.planned, summary.all_found).sentence(summary.done)
    return sentence.partition(";")[0] if summary.stopped else ""


def summary_table(summary: Summary, far: str = "", *, dry_run: bool = False, time_of: str = "time") -> Table:
    """Return the summary of a job as a table; `far` says how far one is that is not over, `time_of` what is timed."""
    title = "What would be done (dry run: nothing was written)" if dry_run else "Summary"
    title += f" – {far}" if far else ""
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    counts = ", ".join(f"{summary.files[status]} {status}" for status in ("encoded", "copied", "skipped", "failed"))
    left = summary.planned - summary.done
    table.add_row("files", f"{summary.planned}: {counts}" + (f", {left} without an outcome" if left > 0 else ""))
    if summary.earlier_files:
        table.add_row("of these", f"{summary.earlier_files} by an earlier run, and unchanged since")
    table.add_row("frames", f"{summary.frames} ({size_text(summary.pixel_bytes)} of pixels)")
    if summary.bytes_out:
        sizes = f"{size_text(summary.bytes_in)} → {size_text(summary.bytes_out)}"
        table.add_row("encoded files", f"{sizes}, ratio {summary.ratio:.2f}")
        table.add_row("saved", _saved(summary))
        encoded = summary.files["encoded"]
        said = verification_text(summary.verified_files, encoded, summary.unverified, summary.verify_sample)
        table.add_row("verified", visible(said))
    working = sum(summary.stage_seconds.values())
    if working > 0 and summary.verified_files:
        share = summary.stage_seconds.get("verify", 0.0) / working
        table.add_row("verification", f"{share * 100:.0f} % of the time spent on files, over all threads")
    if summary.plugins:
        table.add_row(
            "plug-ins", visible(", ".join(f"{label}: {counted(n, 'frame')}" for label, n in summary.plugins.items()))
        )
    if summary.fallbacks:
        table.add_row(
            "fallbacks", visible(", ".join(f"{what}: {counted(n, 'frame')}" for what, n in summary.fallbacks.items()))
        )
    for reason in _why_no_gpu(summary):
        table.add_row("GPU not used", reason)
    for (status, reason), number in sorted(summary.reasons.items()):
        table.add_row(status, visible(f"{number} × {reason}"))
    rate = f", {summary.done / summary.seconds:.1f} files/s" if summary.seconds > 0 else ""
    table.add_row(time_of, f"{summary.seconds:.2f} s{rate}")
    return table


def _saved(summary: Summary) -> str:
    saved = summary.bytes_in - summary.bytes_out
    if saved < 0:
        return f"nothing: the outputs are {size_text(-saved)} larger"
    return f"{size_text(saved)}, {saved / summary.bytes_in * 100:.0f} % of the files encoded"


def _why_no_gpu(summary: Summary) -> Iterable[str]:
    """Yield why frames that a GPU was to encode were encoded elsewhere."""
    if summary.gpu_unused:
        yield visible(summary.gpu_unused)
    for what, frames in summary.fallbacks.items():
        code = what.rpartition(": ")[2]
        if code.startswith("device-"):
            yield f"{CODES.get(code, code)}: {counted(frames, 'frame')}"


def clock_time(seconds: float) -> str:
    """Return a time span as hours, minutes and seconds: ``"1:02:03"``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def show_merge(merge: Merge, console: Console, errors: Console) -> None:
    """Show what came of joining reports: the summary, and on `errors` what does not add up."""

    def named(sources: Sequence[str], count: int, what: str) -> None:
        for source in sources:
            errors.print(f"{what}: {visible(source)}", markup=False, highlight=False)
        if count > len(sources):
            errors.print(f"{what}: {count - len(sources)} more", markup=False, highlight=False)

    for note in merge.notes:
        errors.print(f"gpuenc: {visible(note)}", markup=False, highlight=False)
    named(merge.named_conflicts, merge.conflicts, "outcomes that contradict each other")
    named(merge.named_missing, merge.missing, "missing")
    if merge.conflicts:
        text = f"gpuenc: nothing was written: {counted(merge.conflicts, 'source')} with outcomes at odds"
        errors.print(text, markup=False, highlight=False)
        return
    table = summary_table(merge.summary, time_of=SPAN)
    table.add_row("superseded", f"{counted(merge.superseded, 'outcome')} by a later one")
    table.add_row("repeated", counted(merge.repeated, "line"))
    if merge.missing:
        table.add_row("missing", f"{counted(merge.missing, 'file')} without an outcome")
    if merge.unexpected:
        table.add_row("unexpected", f"{counted(merge.unexpected, 'file')} not in the manifest")
    console.print(table, markup=False, highlight=False)


def size_text(count: float) -> str:
    """Return a number of bytes with three digits and a decimal unit: ``"1.23 GB"``."""
    if count < 1000:
        return f"{count:.0f} B"
    units = ["kB", "MB", "GB", "TB", "PB"]
    count /= 1000
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f} {units[0]}"


def counted(count: int, what: str) -> str:
    """Return a count with its noun: ``"1 file"``, ``"2 files"``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def visible(text: str) -> str:
    """Return one line without anything that a terminal would obey: such characters as Python's escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
