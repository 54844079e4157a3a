"""Outputs that replace their sources: the original is kept under another name until nobody asks for it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.folders import make_folders
from gpuenc.dicom.atomic import DISK_FULL
from gpuenc.dicom.copies import copy_file
from gpuenc.dicom.flushing import sync_folder
from gpuenc.dicom.regular import regular
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
        ``destination-exists``: another file has the backup's name; or it cannot be written, or not flushed to the disk.
    """
    backup = backup_of(item, job)
    if backup is None:
        yield
        return
    durable = job.durability != "none"
    changed, made, note = _keep(item.source, backup, durable=durable, token=job.token)
    try:
        if durable:
            _flush(changed, note)
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


def _keep(source: Path, backup: Path, *, durable: bool, token: str) -> tuple[list[Path], bool, str]:
    """Give a source its backup; return the folders that changed, whether it is a new one, and its note."""
    changed, new, note = _make_folder(backup.parent), True, ""
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
            note = copy_file(source, backup, fsync=durable, token=token).note
    if not os.path.samefile(source, backup):
        with contextlib.suppress(OSError):
            shutil.copystat(source, backup)
    return changed, new, note


def _flush(changed: list[Path], note: str) -> None:
    """Have a backup's name on the disk before anything happens to the source."""
    try:
        for folder in changed:
            sync_folder(os.fspath(folder))
    except OSError as error:
        note = error.strerror or type(error).__name__
    if note:  # the system tells of it once: whoever made the copy may have been told
        raise DestinationError(
            f"the backup's folder could not be flushed to the disk: {note}", code="destination-unwritable"
        )


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if os.path.samefile(one, other):
        return True
    with open(one, "rb", opener=regular) as first, open(other, "rb", opener=regular) as second:
        while (piece := first.read(_COMPARE_BYTES)) == second.read(_COMPARE_BYTES):
            if not piece:
                return True
    return False


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; return those whose entries change with a new file in it, the lowest first."""
    try:
        return make_folders(folder)
    except OSError as error:
        code = "name-too-long" if error.errno == errno.ENAMETOOLONG else "destination-unwritable"
        raise DestinationError(f"the folder of the backup cannot be made: {error.strerror}", code=code) from None
