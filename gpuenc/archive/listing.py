"""What is in an object store: the objects of a source, and where each one's output goes."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive import stores
from gpuenc.archive.addresses import inside
from gpuenc.archive.scan import Item, LeftOut
from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.archive.stamp import Stamp

_NO_OBJECT = LeftOut("failed", "unreadable-source", "there is no such object, and nothing below it")
_EMPTY = LeftOut("skipped", "not-dicom", "an empty object, as stands for a folder")


def objects_of(source: Path, destination: Path, *, alone: bool) -> Iterator[Item]:
    """Yield the objects of a source: the one of that name, or those below it, lazily and in the order of their keys.

    What cannot be listed is an item too, so that nothing is lost without a word.

    Parameters
    ----------
    source : Path
        The address of an object or of a prefix.
    destination : Path
        Where outputs go: a folder or an address. What lies there already is no source.
    alone : bool
        It is the only source, and what is below it is mirrored without its name.
    """
    below = destination != source and inside(destination, source)
    try:
        one = stores.stamp_of(source)
        if one:
            yield Item(source, destination / source.name, stamp=one)
        empty = not one
        base = destination if alone else destination / source.name
        for found in _all(source):
            empty = False
            if isinstance(found, Item):
                yield found
            elif not (below and inside(found[0], destination)):
                yield _item(*found, source, base)
        if empty:
            yield Item(source, destination / source.name, _NO_OBJECT)
    except SourceError as error:
        yield Item(source, destination / source.name, LeftOut("failed", error.code, str(error)))


def _item(path: Path, stamp: Stamp, source: Path, base: Path) -> Item:
    return Item(path, base / path.relative_to(source), None if stamp.size_bytes else _EMPTY, stamp=stamp)


def _all(source: Path) -> Iterator[tuple[Path, Stamp] | Item]:
    """Yield what is below a prefix; where a key is none that can be a path, around it, prefix by prefix."""
    bucket = Path(*source.parts[:2])
    last = ""
    try:
        for key, stamp in stores.listed(source):
            last = key
            yield bucket / key, stamp
    except SourceError as error:
        if error.code != "store-name":
            raise
    else:
        return
    waiting = deque([source])
    while waiting:
        prefix = waiting.popleft()
        try:
            objects, prefixes = stores.listed_here(prefix)
        except SourceError as error:
            if error.code != "store-name":
                raise
            message = (
                "a key right below it has '//', '.', '..' or a control character in it, which can be no path: what is "
                "there is not read"
            )
            yield Item(prefix, prefix, LeftOut("failed", "store-name", message))
            continue
        yield from ((bucket / key, stamp) for key, stamp in objects if key > last)
        waiting.extend(bucket / key for key in prefixes)
