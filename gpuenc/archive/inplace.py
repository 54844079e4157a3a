"""Outputs that replace their sources: the original is kept under another name until nobody asks for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuenc.archive.stamp import Stamp
from gpuenc.dicom.atomic import DISK_FULL, copy_file, sync_folder
from gpuenc.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item


_COMPARE_BYTES = 1 << 20


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
    made = _keep(item.source, backup, durable=job.durability != "none", token=job.token)
    try:
        yield
    except BaseException:
        # Where the original is not in its place any more, the backup is all there is of it.
        with contextlib.suppress(OSError):
            if made and _same(item.source, backup):
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


def _keep(source: Path, backup: Path, *, durable: bool, token: str) -> bool:
    """Give a source its backup, on the disk before anything happens to the source; return whether it is a new one."""
    changed, new = _make_folder(backup.parent), True
    try:
        os.link(source, backup)
    except OSError as error:
        if os.path.lexists(backup):
            # An interrupted job may have kept it already, and been killed before the copy had its times.
            if os.path.islink(backup) or not _same(source, backup):
                raise DestinationError("another file has the backup's name", code="destination-exists") from None
            new = False
        elif error.errno in DISK_FULL:
            raise DestinationError("the backup cannot be written", code="disk-full") from None
        else:
            copy_file(source, backup, fsync=durable, token=token)
    if not os.path.samefile(source, backup):
        with contextlib.suppress(OSError):
            shutil.copystat(source, backup)
    if durable:
        for folder in changed:
            sync_folder(os.fspath(folder))
    return new


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if os.path.samefile(one, other):
        return True
    with open(one, "rb") as first, open(other, "rb") as second:
        while (piece := first.read(_COMPARE_BYTES)) == second.read(_COMPARE_BYTES):
            if not piece:
                return True
    return False


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; return those whose entries change with a new file in it, the lowest first."""
    changed = [folder]
    while not changed[-1].exists():
        changed.append(changed[-1].parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(
            f"the folder of the backup cannot be made: {error.strerror}", code="destination-unwritable"
        ) from None
    return changed
