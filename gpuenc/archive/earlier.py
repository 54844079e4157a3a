"""What a journal keeps of an outcome besides its line: what decides whether it still stands, and what is counted."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from gpuenc.archive.dicomdir_outcome import NAME as DICOMDIR
from gpuenc.archive.kept_lines import kept, line_of
from gpuenc.archive.report import Record, record_of
from gpuenc.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.archive.report import Status

# Columns of a journal, as `Earlier` has them after the first three.
COLUMNS = {
    # Size and time of the source and of the output, where there is one: while they have these, the outcome stands.
    "source_bytes": "INTEGER",
    "source_mtime_ns": "INTEGER",
    "output_bytes": "INTEGER",
    "output_mtime_ns": "INTEGER",
    # Of objects in a store: what they have besides.
    "source_etag": "TEXT",
    "output_etag": "TEXT",
    # What a summary counts, so that no line has to be read for it.
    "status": "TEXT",
    "reason": "TEXT",
    "bytes_in": "INTEGER",
    "bytes_out": "INTEGER",
    "frames": "INTEGER",
    "pixel_bytes": "INTEGER",
    "verified": "INTEGER",
    "plugins_json": "TEXT",
    "fallbacks_json": "TEXT",
    "stages_json": "TEXT",
    # The outcome, as in the report: see `archive/kept_lines.py`.
    "record": "BLOB",
}
NO_OUTCOME = ", ".join(f"{name} = NULL" for name in COLUMNS)
# By its ETag an object is known that an earlier run has made, whatever becomes of the next try.
NO_OUTCOME_YET = NO_OUTCOME.replace("output_etag = NULL, ", "")
SET_OUTCOME = ", ".join(f"{name} = ?" for name in COLUMNS).replace(
    "output_etag = ?", "output_etag = coalesce(nullif(?, ''), output_etag, '')"
)
# What has the output's name is not this job's, may be, or was made by it.
_OTHERS, PERHAPS, _OURS = range(3)
# Its process may have ended after the output had its name.
_PERHAPS_MADE = ("worker-crashed", "worker-hung")
# A store or server has taken it; whether it holds what it was given is not known, or it does not.
_UNVERIFIED = ("stored-unverified", "read-back-mismatch")

# Why an output was not verified, in the line of its outcome. No path holds this: quotes in a text of JSON are escaped.
_WHY_UNVERIFIED = re.compile(r'"unverified": "([a-z]+)"')


class Earlier(NamedTuple):
    """What an earlier run of a job knows of an output.

    Attributes
    ----------
    number : int
        Of the file in the journal.
    source : str
        Its path.
    ours : int
        Whose what has the output's name is: see `whose`.
    source_bytes, source_mtime_ns, output_bytes, output_mtime_ns : int or None
        What the files have to be for the outcome to stand: nothing of the source where there is no such outcome, and
        nothing of the output where there is none.
    source_etag, output_etag : str
        As in the record.
    status, reason, bytes_in, bytes_out, frames, pixel_bytes, verified
        As in the record; None where there is no outcome.
    kept : bytes or str
        What stands for the outcome's line; None where there is none.
    """

    number: int
    source: str
    ours: int
    source_bytes: int | None
    source_mtime_ns: int | None
    output_bytes: int | None
    output_mtime_ns: int | None
    source_etag: str
    output_etag: str
    status: Status
    reason: str
    bytes_in: int
    bytes_out: int
    frames: int
    pixel_bytes: int
    verified: int
    plugins_json: str
    fallbacks_json: str
    stages_json: str
    kept: bytes | str

    @property
    def plugins(self) -> dict[str, int]:
        """As in the record."""
        return _often(self.plugins_json)

    @property
    def fallbacks(self) -> dict[str, int]:
        """As in the record."""
        return _often(self.fallbacks_json)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """As in the record."""
        return _read(self.stages_json)

    @property
    def unverified(self) -> str:
        """As in the record."""
        if self.verified or self.status != "encoded":
            return ""
        found = _WHY_UNVERIFIED.search(self.line)
        return found[1] if found else ""

    @property
    def line(self) -> str:
        """The outcome as JSON.

        Raises
        ------
        JobError
            ``journal-unusable``: what is written down is none.
        """
        line = line_of(self.kept)
        if not line:
            raise _damaged()
        return line

    @property
    def record(self) -> Record:
        """The whole outcome.

        Raises
        ------
        JobError
            ``journal-unusable``: what is written down is none.
        """
        record = record_of(self.line)
        if record is None:
            raise _damaged()
        return record


def whose(record: Record) -> int:
    """Return whose what has the output's name is, going by this outcome: 0 not the job's, 1 may be, 2 is."""
    # It came as far as to the store or server, which may have taken it whatever was answered.
    sent = record.status == "failed" and "store" in record.stage_seconds
    if record.status in ("encoded", "copied") or (sent and record.reason in _UNVERIFIED):
        return _OURS
    perhaps = record.reason in _PERHAPS_MADE or (sent and record.reason != "destination-exists")
    return PERHAPS if perhaps else _OTHERS


def made_before(ours: object, etag: object) -> str | None:
    """Return what `Item.made_before` is, going by these columns."""
    known = etag if isinstance(etag, str) else ""
    return known if known or ours == _OURS else None


_KINDS = tuple({"INTEGER": (int,), "TEXT": (str,), "BLOB": (bytes, str)}[kind] for kind in COLUMNS.values())
# Where there is an outcome, only what there is no output of may be missing.
_MAY_BE_MISSING = frozenset(("output_bytes", "output_mtime_ns"))
_seen: set[tuple[type, ...]] = set()


def demand_columns(values: Sequence[object]) -> None:
    """Check that the columns of an outcome, in the order of `COLUMNS`, hold what they should: SQLite keeps anything.

    Raises
    ------
    JobError
        ``journal-unusable``.
    """
    kinds = tuple(map(type, values))
    if kinds in _seen:
        return
    is_outcome = values[0] is not None
    for name, kind, found in zip(COLUMNS, _KINDS, kinds, strict=True):
        missing = found is type(None) and (not is_outcome or name in _MAY_BE_MISSING)
        if found not in kind and not missing:
            raise _damaged()
    _seen.add(kinds)


def columns_of(record: Record) -> tuple[Any, ...]:
    """Return what is kept of an outcome, in the order of `COLUMNS`."""
    return (
        *_stands_while(record),
        record.source_etag,
        record.output_etag,
        record.status,
        record.reason,
        record.bytes_in,
        record.bytes_out,
        record.frames,
        record.pixel_bytes,
        record.verified,
        json.dumps(record.plugins),
        json.dumps(record.fallbacks),
        json.dumps(record.stage_seconds),
        kept(record.as_json()),
    )


def _stands_while(record: Record) -> tuple[int | None, ...]:
    if record.status == "failed" or record.reason == "destination-exists":
        return (None,) * 4
    if os.path.basename(record.source).upper() == DICOMDIR:
        return (None,) * 4  # files that it names may be done next time
    output = (record.bytes_out, record.output_mtime_ns) if record.destination else (None, None)
    # A source that was replaced is what it was replaced by.
    replaced = record.destination == record.source
    return (*(output if replaced else (record.bytes_in, record.source_mtime_ns)), *output)


def _read(text: str) -> dict[str, Any]:
    try:
        found = dict(json.loads(text))
        if not all(type(number) in (int, float) for number in found.values()):
            raise ValueError
        return found
    except (ValueError, TypeError, RecursionError):
        raise _damaged() from None


# What most files of a job have in common.
_often = lru_cache(maxsize=256)(_read)


def _damaged() -> JobError:
    return JobError("the journal cannot be used: an outcome in it is damaged", code="journal-unusable")
