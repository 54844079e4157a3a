"""What is here: the files of the sources, and where each one's output goes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_remote, text_of
from gpuenc.dicom.atomic import TEMPORARY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuenc.archive.report import Status
    from gpuenc.archive.stamp import Stamp


# The folder of journals below a job's output.
JOURNALS = ".gpuenc"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why something found in the sources is not read: an outcome before any work."""

    status: Status
    code: str
    message: str


@dataclass(frozen=True, slots=True, init=False)
class Item:
    """One file, its place in the destination's tree, why it is left out, and whether what is there may be replaced.

    Parameters
    ----------
    source_path, place : path-like
        Of the file and of its output; kept as strings, since most of a million files need no arithmetic on paths.
    left_out : LeftOut, optional
        An outcome before any work.
    replaces : bool
        What has the output's name may be replaced.
    stamp : Stamp, optional
        What a store's list says of an object.
    made_before : str, optional
        The ETag that the output had when an earlier run made it, empty where it had none; None where no run is known to
        have made it. Where outputs go to a store, nobody has looked yet whether what has the name is the job's.
    """

    source_path: str
    place: str
    left_out: LeftOut | None
    replaces: bool
    stamp: Stamp | None
    made_before: str | None

    def __init__(
        self,
        source_path: str | os.PathLike[str],
        place: str | os.PathLike[str],
        left_out: LeftOut | None = None,
        replaces: bool = False,
        stamp: Stamp | None = None,
        made_before: str | None = None,
    ) -> None:
        _set(self, "source_path", os.fspath(source_path))
        _set(self, "place", os.fspath(place))
        _set(self, "left_out", left_out)
        _set(self, "replaces", replaces)
        _set(self, "stamp", stamp)
        _set(self, "made_before", made_before)

    @property
    def name(self) -> str:
        """The source as people write it."""
        return text_of(self.source_path)

    @property
    def source(self) -> Path:
        """The file."""
        return Path(self.source_path)

    @property
    def destination(self) -> Path:
        """Its place in the destination's tree."""
        return Path(self.place)


_set = object.__setattr__  # what a frozen class leaves for its own beginning


_NOT_FOLLOWED = LeftOut(
    "skipped", "symbolic-link", "symbolic links to folders, and to files outside the source, are not followed"
)
_DANGLING = LeftOut("failed", "unreadable-source", "a symbolic link to nothing")
_NO_FILE = LeftOut("skipped", "not-a-file", "neither a file nor a folder")
COLLISION = LeftOut("failed", "destination-collision", "another source has the same place in the destination")
_UNFINISHED = LeftOut("skipped", "unfinished-output", "an output that was never completed")


def scan(
    sources: Sequence[Path], destination: Path, *, without: Path | None = None, journal: Path | None = None
) -> Iterator[Item]:
    """Yield everything below `sources` that is no folder, in name order, lazily.

    The contents of a single folder are mirrored into `destination`; of several sources, each folder goes below its
    own name, and files go beside them. Symbolic links to folders are not followed, links to files only where the
    file lies inside the same source, so nothing outside the sources is read. The destination itself is left out.
    A folder that cannot be read is an item too, so that nothing is lost without a word.

    Parameters
    ----------
    sources : sequence of Path
        Files and folders that exist, and addresses.
    destination : Path
        The folder of the outputs, or an address; it need not exist.
    without : Path, optional
        A file that is being written, such as the report.
    journal : Path, optional
        The folder of the job's journal, which is left out too.

    Yields
    ------
    Item
        `Item.destination` always lies inside `destination`.
    """
    hidden = {identity for path in (destination, without, journal) if path and (identity := _identity(path))}
    seen = set()
    for source in sources:
        if is_remote(source):
            from gpuenc.archive.listing import objects_of

            yield from objects_of(source, destination, alone=len(sources) == 1)
            continue
        base = destination if len(sources) == 1 else destination / _name(source)
        if not source.is_dir():
            base = destination / source.name
        # The same source twice is one.
        if (key := (_identity(source), base)) in seen:
            continue
        seen.add(key)
        if source.is_dir():
            # Strings until the last moment: pathlib's arithmetic costs more than all else that is done here.
            root = os.fspath(source)
            below, place = len(root.rstrip(os.sep)) + 1, os.fspath(base)
            for path, left_out in _files(source, hidden):
                whole = os.path.join(place, path[below:]) if len(path) > len(root) else place
                yield Item(path, whole, left_out)
        elif _identity(source) not in hidden:
            yield Item(source, base, None if source.is_file() else _NO_FILE)


def _name(folder: Path) -> str:
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _files(root: Path, hidden: set[tuple[int, int]]) -> Iterator[tuple[str, LeftOut | None]]:
    """Walk depth first without recursion: trees may be nested deeper than Python's stack."""
    real_root = os.path.realpath(root)
    inodes = {inode for _, inode in hidden}
    waiting: list[tuple[str, LeftOut | None, bool]] = [(os.fspath(root), None, True)]
    while waiting:
        path, left_out, is_folder = waiting.pop()
        if not is_folder:
            yield path, left_out
            continue
        try:
            with os.scandir(path) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            yield path, LeftOut("failed", "unreadable-source", f"the folder cannot be read: {error.strerror}")
            continue
        for entry in ordered:
            is_folder = entry.is_dir(follow_symlinks=False)
            # A mount point's entry has another inode than the folder mounted there, so folders are always asked.
            if is_folder and entry.name == JOURNALS and os.path.exists(os.path.join(entry.path, "place.lock")):
                continue  # of a job that wrote this tree
            if (is_folder or entry.inode() in inodes) and _identity(entry.path) in hidden:
                continue
            waiting.append((entry.path, None if is_folder else _left_out(entry, real_root), is_folder))


def _left_out(entry: os.DirEntry[str], root: str) -> LeftOut | None:
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if not os.path.exists(target):
            return _DANGLING
        return None if os.path.isfile(target) and Path(target).is_relative_to(root) else _NOT_FOLLOWED
    if not entry.is_file(follow_symlinks=False):
        return _NO_FILE
    return _UNFINISHED if entry.name.endswith(TEMPORARY_SUFFIX) else None
