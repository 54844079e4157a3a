"""What is here: the files of the sources, and where each one's output goes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuenc.dicom.atomic import TEMPORARY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Item:
    """One file, and its place in the destination's tree."""

    source: Path
    destination: Path


def scan(sources: Sequence[Path], destination: Path) -> Iterator[Item]:
    """Yield every regular file below `sources`, folders in name order, lazily.

    The contents of a single folder are mirrored into `destination`; of several sources, each folder goes below its
    own name, and files go beside them. Symbolic links to folders are not followed, links to files only where the
    file lies inside the same source, so nothing outside the sources is read. The destination itself and unfinished
    outputs are left out.

    Parameters
    ----------
    sources : sequence of Path
        Files and folders that exist.
    destination : Path
        The folder of the outputs; it need not exist.

    Yields
    ------
    Item
        `Item.destination` always lies inside `destination`.
    """
    out = destination.resolve()
    for source in sources:
        if not source.is_dir():
            yield Item(source, destination / source.name)
            continue
        base = destination if len(sources) == 1 else destination / source.resolve().name
        root = source.resolve()
        for file in _files(source, out, root):
            yield Item(file, base / file.relative_to(source))


def _files(folder: Path, out: Path, root: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            if path.resolve() != out:
                yield from _files(path, out, root)
        elif entry.is_symlink():
            target = path.resolve()
            if target.is_file() and target.is_relative_to(root):
                yield path
        elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(TEMPORARY_SUFFIX):
            yield path
