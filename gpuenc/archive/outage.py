"""Whether a store or server that files have failed for still answers, or nothing works any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuenc.archive.elsewhere import demand_reached
from gpuenc.errors import JobError

if TYPE_CHECKING:
    from gpuenc.archive.report import Record
    from gpuenc.archive.request import Job

# So many files in a row, without one that is done in between.
FILES_IN_A_ROW = 16
_CODES = frozenset(("store-denied", "store-failed", "store-missing", "store-unreachable"))


class Outage:
    """Counts the files that a store or server fails; after some in a row, asks whether it is there at all.

    Some objects may be refused for reasons of their own, such as those in a cold tier: these end nothing.

    Parameters
    ----------
    job : Job
        Whose places are asked for.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._in_a_row = job, 0

    def why(self, record: Record) -> str:
        """Return why nothing works any more, now that a file has this outcome, in a sentence; mostly nothing."""
        if not (self._job.is_elsewhere and record.status == "failed" and record.reason in _CODES):
            self._in_a_row = 0
            return ""
        self._in_a_row += 1
        if self._in_a_row < FILES_IN_A_ROW:
            return ""
        self._in_a_row = 0
        try:
            demand_reached(self._job)
        except JobError as error:
            return str(error)
        return ""
