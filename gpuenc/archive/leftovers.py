"""What files in work leave behind when their process is killed: temporary files that nobody will finish."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from gpuenc.archive.inplace import backup_of
from gpuenc.dicom.atomic import temporaries_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item


def remove_leftovers(items: Iterable[Item], job: Job, token: str) -> None:
    """Remove temporary files that the run with this token made of these outputs, and of their backups.

    Their names are known, so no folder is looked into: what others do there, such as other shards, is not even seen.
    """
    for item in items:
        backup = backup_of(item, job)
        for path in (item.place, os.fspath(backup)) if backup else (item.place,):
            for temporary in temporaries_of(path, token):
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
