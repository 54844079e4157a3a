"""What is in an object store: the objects of a source, and where each one's output goes."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from contextlib import closing
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
_NO_PATH = LeftOut(
    "failed",
    "store-name",
    "a key right below it has '//', '.', '..' or a control character in it, which can be no path: what is there is not "
    "read",
)
_TWO_KEYS = LeftOut("failed", "store-name", "another key is the same but for '/' at its end: it is not read")


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
            path = found.source if isinstance(found, Item) else found[0]
            if below and inside(path, destination):
                continue
            yield found if isinstance(found, Item) else _item(*found, source, base)
        if empty:
            yield Item(source, destination / source.name, _NO_OBJECT)
    except SourceError as error:
        yield Item(source, destination / source.name, LeftOut("failed", error.code, str(error)))


def _item(path: Path, stamp: Stamp, source: Path, base: Path) -> Item:
    return Item(path, base / path.relative_to(source), None if stamp.size_bytes else _EMPTY, stamp=stamp)


def _all(source: Path) -> Iterator[tuple[Path, Stamp] | Item]:
    """Yield what is below a prefix, each path once; where a key is none that can be a path, around it.

    What was told is kept in a temporary file, not in memory. No order of the keys is relied upon: directory buckets of
    S3 have none, and Azure's accounts with a hierarchical namespace one of their own.
    """
    with closing(sqlite3.connect("", check_same_thread=False)) as told:
        told.execute("CREATE TABLE told (key BLOB PRIMARY KEY) WITHOUT ROWID")

        def is_new(key: str) -> bool:
            return told.execute("INSERT OR IGNORE INTO told VALUES (?)", (os.fsencode(key),)).rowcount == 1

        bucket = Path(*source.parts[:2])
        try:
            for key, stamp in stores.listed(source):
                if is_new(key):
                    yield bucket / key, stamp
                else:
                    yield Item(bucket / key, bucket / key, _TWO_KEYS if stamp.size_bytes else _EMPTY)
        except SourceError as error:
            if error.code != "store-name":
                raise
        else:
            return
        for found in _prefix_by_prefix(source, bucket):
            if isinstance(found, Item):
                yield found
            elif is_new(found[0]):
                yield bucket / found[0], found[1]


def _prefix_by_prefix(source: Path, bucket: Path) -> Iterator[tuple[str, Stamp] | Item]:
    """Yield keys and stamps below a prefix; a prefix right below which a key can be no path is an item."""
    waiting = deque([source])
    while waiting:
        prefix = waiting.popleft()
        try:
            objects, prefixes = stores.listed_here(prefix)
        except SourceError as error:
            if error.code != "store-name":
                raise
            yield Item(prefix, prefix, _NO_PATH)
            continue
        yield from objects
        waiting.extend(bucket / key for key in prefixes)
