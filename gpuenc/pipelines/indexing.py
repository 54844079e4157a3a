"""Building an index, using one that is there, and telling whether it still is that of the files."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Literal
from warnings import warn

from gpuenc.dicom import columns as dicom_columns
from gpuenc.errors import IndexMismatch, InvalidOption, SourceError
from gpuenc.pipelines import listing, records
from gpuenc.pipelines.index import FileIndex, Index, MemoryIndex, write
from gpuenc.pipelines.records import LeftOut, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OnStale = Literal["error", "rebuild"]

# What is no image at all is no loss.
_NO_LOSS = frozenset(("not-dicom", "no-pixel-data"))


def index_of(sources: Sequence[str], columns: Sequence[str], path: str | None, on_stale: OnStale) -> Index:
    """Return the index of `sources`.

    Parameters
    ----------
    sources : sequence of str
        As `listing.absolute` returns them.
    columns : sequence of str
        Keywords of PS3.6.
    path : str, optional
        Where it is kept. What is there is used as it is; by default it is built in memory.
    on_stale : {'error', 'rebuild'}
        What to do with one that was built for other sources or columns. With ``"rebuild"`` all files are also looked
        for, and those that changed, by size or time, are read again.

    Raises
    ------
    IndexMismatch
        ``index-unusable``, ``index-differs``.
    SourceError
        There is no frame in the sources.
    """
    if on_stale not in ("error", "rebuild"):
        raise InvalidOption(f"on_stale must be 'error' or 'rebuild', not {on_stale!r}")
    tags = dicom_columns.tags(columns)
    if path is None:
        index: Index = MemoryIndex(records.look(file, tags) for file in listing.files(sources))
    elif not os.path.lexists(path):
        index = write(
            path, (records.look(file, tags) for file in listing.files(sources, without=path)), sources, columns
        )
    else:
        return _existing(FileIndex(path), sources, tags, on_stale)
    _warn(index)
    if not index.frames:
        raise SourceError("there is no frame in the sources", code="no-pixel-data")
    return index


def changes(index: Index, sources: Sequence[str], path: str | None) -> Iterator[tuple[str, str]]:
    """Yield each file that is not as the index has it, with ``"changed"``, ``"gone"`` or ``"new"``.

    Every file of the sources is looked for, and none is read.
    """
    waiting = {seen.path: seen for seen in _known(index)}
    for file in listing.files(sources, without=path):
        seen = waiting.pop(file, None)
        if seen is None:
            yield file, "new"
        elif not _as_it_was(seen):
            yield file, "changed"
    for file in waiting:
        yield file, "gone"


def _existing(index: FileIndex, sources: Sequence[str], tags: Mapping[str, int], on_stale: OnStale) -> Index:
    missing = [column for column in tags if column not in index.columns]
    other = index.sources != tuple(sources)
    if on_stale == "error":
        if other or missing:
            why = f"it has no column {missing[0]}" if missing else f"it was built of {', '.join(index.sources)}"
            raise IndexMismatch(
                f"{index.path} is not the index that is asked for: {why}; on_stale='rebuild' builds it anew",
                code="index-differs",
            )
        return index
    if not missing and not other and next(changes(index, sources, index.path), None) is None:
        return index
    # What one user has as columns, another need not lose.
    columns = tuple(dict.fromkeys((*index.columns, *tags)))
    known: dict[str, Record | LeftOut] = {}
    if not missing:
        known |= {one.seen.path: one for one in index.records()}
        known |= {one.seen.path: one for one in index.left_out()}
    rebuilt = write(index.path, _again(known, sources, dicom_columns.tags(columns), index.path), sources, columns)
    _warn(rebuilt)
    if not rebuilt.frames:
        raise SourceError("there is no frame in the sources", code="no-pixel-data")
    return rebuilt


def _again(
    known: Mapping[str, Record | LeftOut], sources: Sequence[str], tags: Mapping[str, int], path: str
) -> Iterator[Record | LeftOut]:
    for file in listing.files(sources, without=path):
        before = known.get(file)
        yield before if before is not None and _as_it_was(before.seen) else records.look(file, tags)


def _as_it_was(seen: records.Seen) -> bool:
    try:
        return records.stat(seen.path) == seen
    except OSError:
        return False


def _known(index: Index) -> Iterator[records.Seen]:
    for one in index.records():
        yield one.seen
    for left in index.left_out():
        yield left.seen


def _warn(index: Index) -> None:
    lost = Counter(one.code for one in index.left_out() if one.code not in _NO_LOSS)
    if lost:
        codes = ", ".join(f"{code} ({count})" for code, count in sorted(lost.items()))
        warn(f"{lost.total()} files have no frame in the dataset: {codes}; see FrameDataset.left_out", stacklevel=4)
