"""Outputs that replace their sources: the original is kept under another name until nobody asks for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuenc.archive.stamp import Stamp
from gpuenc.dicom.atomic import copy_file
from gpuenc.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item


@contextlib.contextmanager
def kept(item: Item, job: Job) -> Iterator[None]:
    """Keep a source that is replaced as its backup, if one is asked for, and remove the backup if replacing fails.

    A second name of the same file, where the file system has those; otherwise a copy with its times and mode.

    Raises
    ------
    DestinationError
        ``destination-exists``: another file has the backup's name; or it cannot be written.
    """
    backup = backup_of(item, job)
    if backup is None:
        yield
        return
    made = _keep(item.source, backup)
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                os.unlink(backup)
        raise


def backup_of(item: Item, job: Job) -> Path | None:
    """Return where the original of a replaced source is kept, if it is: below the backup, with its whole path."""
    if not job.in_place or job.backup is None:
        return None
    whole = Path(os.path.abspath(item.source))
    return job.backup / whole.relative_to(whole.anchor)


def replaced_before(item: Item, job: Job) -> dict[str, Any]:
    """Return what a record says of a source that an interrupted run of this job has replaced; nothing of others."""
    backup = backup_of(item, job)
    original = Stamp.of_any(backup) if backup and item.replaces else None
    if original is None:
        return {}
    return {
        "destination": str(item.destination),
        "bytes_in": original.size_bytes,
        "source_mtime_ns": original.mtime_ns,
        "bytes_out": Stamp.of(item.source).size_bytes,
    }


def _keep(source: Path, backup: Path) -> bool:
    try:
        backup.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, backup)
    except FileExistsError:
        # An interrupted job has kept it already.
        if Stamp.of(backup) == Stamp.of(source):
            return False
        raise DestinationError("another file has the backup's name", code="destination-exists") from None
    except OSError:
        copy_file(source, backup)
        with contextlib.suppress(OSError):
            shutil.copystat(source, backup)
    return True
