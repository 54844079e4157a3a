"""A folder of shards: what in it is ours, who may write to it, and how it is left."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing keeps jobs apart there
    fcntl = None  # type: ignore[assignment]

from gpuenc.archive.locks import locked
from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.regular import regular
from gpuenc.errors import DestinationError, JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

INDEX, JOURNAL = "index.json", ".gpuenc-shards.json"
FORMAT = "gpuenc-shards-1"
# Of more shards, the first and the last are named.
_MOST_NAMED = 3
_NAME = re.compile(r"shard-[0-9]{6,}\.tar")


def shard_name(number: int) -> str:
    """Return the name of a shard, counted from 0."""
    return f"shard-{number:06d}.tar"


def is_shard_name(name: str) -> bool:
    """Whether a shard may be named so."""
    return _NAME.fullmatch(name) is not None


def make(folder: Path) -> list[Path]:
    """Make a folder and return those that were not there before, the outermost first.

    Raises
    ------
    DestinationError
        It cannot be made, or not be read.
    """
    made = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.listdir(folder)
    except OSError as error:
        raise DestinationError(
            f"the folder cannot be made or read: {error.strerror}", code="destination-unwritable"
        ) from None
    return made[::-1]


def leave(folder: Path, made: Sequence[Path]) -> None:
    """Leave nothing of a job that has nothing to show: neither its journal nor the folders that it made."""
    with suppress(OSError):
        os.unlink(folder / JOURNAL)
        for each in reversed(made):
            each.rmdir()


@contextmanager
def only_job(folder: Path) -> Iterator[None]:
    """Be the only job in a folder. Where a file system does not lock folders, such as NFS, nothing is kept apart."""
    if fcntl is None:
        yield
        return
    with locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)) as alone:
        if not alone:
            raise JobError(f"another gpuenc is at work in {folder}", code="journal-in-use")
        yield


def write(path: Path, said: dict[str, Any], token: str, *, overwrite: bool) -> None:
    """Write an index or a journal, under its name when it is complete; raises `DestinationError`."""
    with AtomicFile(path, overwrite=overwrite, token=token) as out:
        with out.errors():
            out.file.write(json.dumps(said, indent=1, sort_keys=True).encode() + b"\n")
        out.publish()


def loaded(path: Path) -> dict[str, Any]:
    """Return what a journal says; raises `JobError`, ``journal-unusable``."""
    said = _said(path)
    if said is None:
        raise JobError("the journal cannot be read", code="journal-unusable")
    return said


def whose(folder: Path, name: str) -> str:
    """Return what may be removed to forget the job of an index or a journal: nothing where somebody else wrote it."""
    if not _is_ours(folder, name):
        return ""
    said = _said(folder / name) or {}
    files = [each for each in (INDEX, JOURNAL) if _is_ours(folder, each)]
    named = [str(each.get("name")) for each in said.get("shards", []) if isinstance(each, dict)]
    named = [each for each in named if is_shard_name(each)]
    if len(named) > _MOST_NAMED:
        named = [f"{named[0]} to {named[-1]} ({len(named)}, which {name} lists)"]
    return f"{', '.join([*files, *named])} in {folder}"


def _is_ours(folder: Path, name: str) -> bool:
    said = _said(folder / name)
    return said is not None and (said.get("format") == FORMAT if name == INDEX else "fingerprint" in said)


def _said(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb", opener=regular) as file:
            said = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None
