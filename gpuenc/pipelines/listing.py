"""Which files the sources of an index are, in an order that is the same every time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuenc.dicom.atomic import TEMPORARY_SUFFIX
from gpuenc.errors import InvalidOption, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The folder of journals below the outputs of `gpuenc transcode`.
_JOURNALS = ".gpuenc"


def absolute(sources: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Return one or several files and folders as absolute paths, each once, as they were given in order.

    Raises
    ------
    SourceError
        ``unreadable-source``: one does not exist, or there is none.
    InvalidOption
        They are no paths.
    """
    if isinstance(sources, str | os.PathLike):
        given = [sources]
    elif isinstance(sources, Iterable) and not isinstance(sources, bytes | bytearray | memoryview):
        given = list(sources)
    else:
        raise InvalidOption(f"sources are one or several paths, not {type(sources).__name__}")
    paths = tuple(dict.fromkeys(place("a source", path) for path in given))
    if not paths:
        raise SourceError("there are no sources")
    for path in paths:
        if not os.path.exists(path):
            raise SourceError(f"{path} does not exist")
    return paths


def place(name: str, given: object) -> str:
    """Return a path that was given for `name` as an absolute one, ``~`` expanded.

    Raises
    ------
    InvalidOption
        It is no path.
    """
    if not isinstance(given, str | os.PathLike) or not isinstance(path := os.fspath(given), str):
        raise InvalidOption(f"{name} is a path, not {type(given).__name__}")
    if "\0" in path:
        raise InvalidOption(f"{name} is no path: it has a zero byte in it")
    return os.path.abspath(os.path.expanduser(path))


def files(sources: Sequence[str], *, without: str | None = None) -> Iterator[str]:
    """Yield every file of `sources`, each once, folders in the order of names.

    Symbolic links to files are followed, those to folders are not. Files that were never completed and the journals
    of `gpuenc transcode` are left out.

    Parameters
    ----------
    sources : sequence of str
        As `absolute` returns them.
    without : str, optional
        The index itself.

    Raises
    ------
    SourceError
        ``unreadable-source``: a folder cannot be read, so that nobody knows what is in it.
    """
    seen: set[str] = set()
    overlapping = len(sources) > 1  # only then can anything be met twice
    for source in sources:
        for path in _below(source) if os.path.isdir(source) else (source,):
            if path == without or path in seen:
                continue
            if overlapping:
                seen.add(path)
            yield path


def _below(folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError(f"{here} cannot be read: {os.strerror(error.errno or 0)}") from None
        folders = []
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != _JOURNALS:
                    folders.append(entry.path)
            elif entry.is_file() and not entry.name.endswith(TEMPORARY_SUFFIX):
                yield entry.path
        waiting += reversed(folders)
