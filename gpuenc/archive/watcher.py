"""Who wants to know what happens in a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuenc.archive.earlier import Earlier
    from gpuenc.archive.report import Record, Summary


class Watcher:
    """Is told what happens, from the thread that runs the job; does nothing of itself."""

    def start(self, files: int, bytes_total: int) -> None:
        """The job begins; so many files of so many bytes were found so far."""

    def planned(self, files: int, bytes_total: int) -> None:
        """More files were found: so many altogether."""

    def earlier(self, outcome: Earlier) -> None:
        """A file has its outcome from an earlier run of the job."""

    def done(self, record: Record) -> None:
        """One file has an outcome."""

    def workers(self, states: list[str]) -> None:
        """What the worker processes do, a line on each."""

    def note(self, text: str) -> None:
        """What people should know of who does the files, in one line; also before the job begins."""

    def finish(self, summary: Summary) -> None:
        """The job is over."""


class Several(Watcher):
    """One watcher that tells others, in their order.

    Parameters
    ----------
    *watchers : Watcher
        Whom to tell. What one raises ends the job, as if it were alone; all are told of the end nevertheless.
    """

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def start(self, files: int, bytes_total: int) -> None:
        """Tell all how much there is to do."""
        for watcher in self._watchers:
            watcher.start(files, bytes_total)

    def planned(self, files: int, bytes_total: int) -> None:
        """Tell all how much was found so far."""
        for watcher in self._watchers:
            watcher.planned(files, bytes_total)

    def earlier(self, outcome: Earlier) -> None:
        """Tell all of a file of an earlier run."""
        for watcher in self._watchers:
            watcher.earlier(outcome)

    def done(self, record: Record) -> None:
        """Tell all of one file."""
        for watcher in self._watchers:
            watcher.done(record)

    def workers(self, states: list[str]) -> None:
        """Tell all what the workers do."""
        for watcher in self._watchers:
            watcher.workers(states)

    def note(self, text: str) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.note(text)

    def finish(self, summary: Summary) -> None:
        """Tell all that it is over; the first error is raised once all know."""
        first: BaseException | None = None
        for watcher in self._watchers:
            try:
                watcher.finish(summary)
            except BaseException as error:  # noqa: BLE001  # raised below
                first = first or error
        if first:
            raise first
