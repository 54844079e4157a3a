"""Folders of outputs: made below a job's destination, never instead of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from gpuenc.errors import DestinationError

# Which folder a path leads to: device and inode.
Identity = tuple[int, int]


def identity(path: str | os.PathLike[str]) -> Identity | None:
    """Return which file or folder is at `path`, links followed, or None where nothing can be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it, however many: `Path.mkdir` and `os.makedirs` end with Python's stack.

    Returns
    -------
    list of Path
        Folders whose entries change with a new file in the lowest one, that one first.

    Raises
    ------
    OSError
        One of them cannot be made.
    """
    changed = [folder]
    while not os.path.isdir(changed[-1]):
        parent = changed[-1].parent
        if parent == changed[-1]:
            break
        changed.append(parent)
    for each in reversed(changed[:-1]):
        try:
            os.mkdir(each)
        except FileExistsError:
            if not os.path.isdir(each):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), each) from None
    return changed


def demand_same(destination: str | os.PathLike[str], expected: Identity | None) -> None:
    """Check that a job's destination is the folder that it was when the job began; `expected` None asks no questions.

    Raises
    ------
    DestinationError
        ``destination-lost``.
    """
    if expected is not None and identity(destination) != expected:
        raise DestinationError("the job's destination was removed, moved or replaced", code="destination-lost")


def make_output_folder(
    folder: str | os.PathLike[str], destination: str | os.PathLike[str], expected: Identity | None
) -> None:
    """Make an output's folder, in the job's destination as that was when the job began.

    A destination that was removed, moved or unmounted is not made again: what would be written there lands elsewhere
    than what was written before.

    Parameters
    ----------
    folder : path-like
        Of the output; empty for the one where this process is.
    destination : path-like
        Of the job.
    expected : tuple of int, optional
        Its `identity` when the job began; None asks no questions.

    Raises
    ------
    DestinationError
        ``destination-lost``, ``destination-unwritable`` or ``name-too-long``.
    """
    demand_same(destination, expected)
    # What replaces a source goes to a folder that was there.
    if os.path.isdir(folder) or not Path(folder).is_relative_to(destination):
        return
    try:
        make_folders(Path(folder))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        code = "name-too-long" if error.errno == errno.ENAMETOOLONG else "destination-unwritable"
        raise DestinationError(f"the folder cannot be made: {reason}", code=code) from None
