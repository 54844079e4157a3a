"""A file by which workers of a cluster know that their destination is the job's."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_remote
from gpuenc.dicom.atomic import TEMPORARY_SUFFIX
from gpuenc.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

    from gpuenc.archive.request import Job


class Mark:
    """A file in a job's destination, or where it will be made, as long as there are workers to look at it.

    Parameters
    ----------
    job : Job
        Whose destination it is.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._path: Path | None = None

    @property
    def path(self) -> Path | None:
        """The file, which is made if it is not there; none for an address, which is the same everywhere.

        Raises
        ------
        JobError
            ``destination-unwritable``.
        """
        job = self._job
        if self._path is None and not is_remote(job.destination):
            folder = job.journal.parent if job.journal and job.journal.parent.exists() else job.destination
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
            mark = folder / f".gpuenc-{os.urandom(6).hex()}{TEMPORARY_SUFFIX}"
            try:
                mark.touch(mode=0o600)
            except OSError as error:
                raise JobError(f"cannot write to {folder}: {error.strerror}", code="destination-unwritable") from None
            self._path = mark
        return self._path

    def remove(self) -> None:
        """Remove the file."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._path = None
