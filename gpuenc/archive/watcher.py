"""Who wants to know what happens in a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuenc.archive.report import Record, Summary


class Watcher:
    """Is told what happens, from the thread that runs the job; does nothing of itself."""

    def start(self, files: int, bytes_total: int) -> None:
        """The job begins; so many files of so many bytes were found so far."""

    def planned(self, files: int, bytes_total: int) -> None:
        """More files were found: so many altogether."""

    def earlier(self, record: Record) -> None:
        """A file has its outcome from an earlier run of the job."""

    def done(self, record: Record) -> None:
        """One file has an outcome."""

    def workers(self, states: list[str]) -> None:
        """What the worker processes do, a line on each."""

    def finish(self, summary: Summary) -> None:
        """The job is over."""
