"""What a person sees of a verification: what is wrong at once, and the sums at the end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gpuenc.archive.findings import VERDICTS
from gpuenc.archive.progress import counted, visible

if TYPE_CHECKING:
    from rich.console import Console

    from gpuenc.archive.findings import Finding, Verified
    from gpuenc.archive.report import ReportFile

_LINE_EVERY_S = 10.0
_SHOWN = frozenset(("differs", "missing", "unreadable"))


class VerdictDisplay:
    """Shows what is found on `console` and what is wrong on `errors`, and writes the report.

    Parameters
    ----------
    console, errors : rich.console.Console
        Standard output and standard error.
    report : ReportFile, optional
        Gets one line of JSON for each file.
    """

    def __init__(self, console: Console, errors: Console, report: ReportFile | None = None) -> None:
        self._console, self._errors, self._report = console, errors, report
        self._files = self._done = 0
        self._last_line = time.monotonic()

    def start(self, files: int) -> None:
        """Show how much there is to do."""
        self._files = files
        if self._report:
            self._report.begin()
        self._show(self._console, counted(files, "file"))

    def done(self, finding: Finding) -> None:
        """Count one file; say at once what is wrong."""
        self._done += 1
        if self._report:
            self._report.add(finding)
        if finding.verdict in _SHOWN:
            path = visible(finding.source or finding.output)
            code = f" [{finding.reason}]" if finding.reason else ""
            self._show(self._errors, f"{finding.verdict}: {path}: {visible(finding.message)}{code}")
        if time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._show(self._console, f"{self._done}/{counted(self._files, 'file')}")

    def finish(self, verified: Verified) -> None:
        """Show the totals."""
        self._show(self._console, verdict_table(verified))
        if verified.interrupted:
            left = verified.planned - verified.files.total() + verified.files["extra"]
            self._show(self._errors, f"interrupted: {left} of {counted(verified.planned, 'file')} have no verdict")

    def _show(self, console: Console, what: Any) -> None:
        with contextlib.suppress(OSError):
            console.print(what, markup=False, highlight=False)


def verdict_table(verified: Verified) -> Table:
    """Return the totals as a table."""
    table = Table(show_header=False, title="Verification", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    explained = {
        "equal": f", {verified.identical} of them byte for byte" if verified.identical else "",
        "extra": ", only in the output",
        "left-out": ", no images",
    }
    for verdict in VERDICTS:
        if verified.files[verdict] or verdict == "equal":
            table.add_row(verdict, counted(verified.files[verdict], "file") + explained.get(verdict, ""))
    table.add_row("frames compared", str(verified.frames))
    for (about, reason), number in sorted(verified.reasons.items()):
        table.add_row(f"  {about}", f"{number} × {reason}")
    table.add_row("time", f"{verified.seconds:.2f} s")
    return table
