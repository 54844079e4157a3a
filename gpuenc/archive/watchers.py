"""Several watchers of one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.archive.job import Watcher
    from gpuenc.archive.report import Record, Summary


@runtime_checkable
class WatchesWorkers(Protocol):
    """A watcher that also wants to know what each worker does."""

    def workers(self, states: Sequence[str]) -> None:
        """Take one line per worker that is alive, such as ``"worker 1: 12 files, CT"``."""


class Several:
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

    def done(self, record: Record) -> None:
        """Tell all of one file."""
        for watcher in self._watchers:
            watcher.done(record)

    def workers(self, states: Sequence[str]) -> None:
        """Tell those that want to know what the workers do."""
        for watcher in self._watchers:
            if isinstance(watcher, WatchesWorkers):
                watcher.workers(states)

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
