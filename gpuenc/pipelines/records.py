"""What an index remembers of a file, so that any of its frames can be read without reading its header again."""

from __future__ import annotations

import json
import os
import sys
from array import array
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from struct import unpack_from
from typing import TYPE_CHECKING, Any

from gpuenc.dicom import columns as dicom_columns
from gpuenc.dicom.pixels import DEFLATED
from gpuenc.dicom.source import DicomFile
from gpuenc.dicom.tables import Table
from gpuenc.dicom.transforms import Transform, transforms
from gpuenc.errors import GpuencError, SourceError
from gpuenc.frames import FrameFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuenc.dicom.columns import Value

# Position and length of one piece of a codestream, little endian.
_PIECE_BYTES = 16
_FIRST_BYTES = 4


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was when it was looked at: by size and time of modification it is known again."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file of which no frame is in the index: `code` is one of `gpuenc.errors.CODES`, `message` for people."""

    seen: Seen
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """One file.

    Parameters
    ----------
    seen : Seen
        The file.
    frames : int
        Of the image.
    syntax : str
        Transfer Syntax UID.
    format : FrameFormat
        As `DicomFile.format`.
    native_at : int
        Where native Pixel Data begins; -1 for compressed.
    pieces : bytes
        Of compressed frames: position and length of each piece of a codestream, 64 bits each, little endian.
    firsts : bytes
        The number of each frame's first piece, and that behind the last, 32 bits each; empty where each frame is one.
    through : bool
        Frames cannot be found by positions in the file: it is Deflated, or its 8-bit cells lie in swapped words.
    transforms : tuple of Transform
        One for all frames, or one for each.
    columns : dict
        What was asked for, by keyword.
    """

    seen: Seen
    frames: int
    syntax: str
    format: FrameFormat
    native_at: int
    pieces: bytes
    firsts: bytes
    through: bool
    transforms: tuple[Transform, ...]
    columns: dict[str, Value]

    def pieces_of(self, frame: int) -> list[tuple[int, int]]:
        """Return position and length in bytes of each piece of the codestream of `frame`, from 0."""
        first, stop = unpack_from("<II", self.firsts, frame * _FIRST_BYTES) if self.firsts else (frame, frame + 1)
        return [unpack_from("<QQ", self.pieces, piece * _PIECE_BYTES) for piece in range(first, stop)]

    def transform_of(self, frame: int) -> Transform:
        """Return the transform of `frame`, from 0."""
        return self.transforms[frame if len(self.transforms) > 1 else 0]


def look(path: str, columns: Mapping[str, int]) -> Record | LeftOut:
    """Read what there is to know of a file, once: its header, and where its frames lie.

    Fragments are walked from item to item, and offset tables held against them, so that a table which points
    elsewhere leaves the file out.

    Parameters
    ----------
    path : str
        The file.
    columns : mapping
        Keywords and tags, as `gpuenc.dicom.columns.tags` returns them.
    """
    seen = Seen(path, -1, -1)
    try:
        seen = stat(path)
        with DicomFile(path) as source:
            source.demand_described_once()
            record = _record(seen, source, columns)
        if stat(path) != seen:
            raise SourceError("the file changed while it was read", code="source-changed")
    except GpuencError as error:
        return LeftOut(seen, error.code, str(error))
    except OSError as error:
        return LeftOut(seen, "unreadable-source", f"the file cannot be read: {os.strerror(error.errno or 0)}")
    return record


def stat(path: str) -> Seen:
    """Return a file as it is now; raises `OSError`."""
    found = os.stat(path)
    return Seen(path, found.st_size, found.st_mtime_ns)


def _record(seen: Seen, source: DicomFile, columns: Mapping[str, int]) -> Record:
    pieces, firsts = array("Q"), array("I", [0])
    if source.compressed:
        for frame in range(source.number_of_frames):
            for place in source.codestream_at(frame):
                pieces.extend(place)
            firsts.append(len(pieces) // 2)
    return Record(
        seen=seen,
        frames=source.number_of_frames,
        syntax=source.syntax,
        format=source.format,
        native_at=-1 if source.compressed else source.pixels_at[0],
        pieces=_little(pieces),
        firsts=_little(firsts) if firsts[-1] > source.number_of_frames else b"",
        through=source.syntax == DEFLATED or source.words_swapped,
        transforms=transforms(source),
        columns=dicom_columns.values(source, columns),
    )


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def to_row(record: Record) -> tuple[Any, ...]:
    """Return a record as values that SQLite stores; `from_row` makes a record of them again."""
    seen = record.seen
    fmt = {key: value for key, value in asdict(record.format).items() if key != "palette"}
    return (
        seen.path, seen.size, seen.mtime_ns, record.frames, record.syntax, json.dumps(fmt), record.native_at,
        record.pieces, record.firsts, record.through, _told(record.transforms), json.dumps(record.columns),
    )  # fmt: skip


def from_row(row: tuple[Any, ...]) -> Record:
    """Return the record of which `to_row` made `row`."""
    path, size, mtime_ns, frames, syntax, fmt, native_at, pieces, firsts, through, told, columns = row
    return Record(
        Seen(path, size, mtime_ns),
        frames,
        syntax,
        FrameFormat(**json.loads(fmt)),
        native_at,
        pieces,
        firsts,
        bool(through),
        _transforms(told),
        json.loads(columns),
    )


def _told(transforms: tuple[Transform, ...]) -> str:
    """Return transforms as JSON, each table once."""
    tables = list(dict.fromkeys(table for t in transforms for table in (t.modality, t.voi) if table is not None))
    places: dict[Table | None, int | None] = {None: None} | {table: place for place, table in enumerate(tables)}
    frames = [
        [t.slope, t.intercept, t.center, t.width, t.function, places[t.modality], places[t.voi]] for t in transforms
    ]
    packed = [[table.first, table.bits, b64encode(table.packed).decode(), table.wrong] for table in tables]
    return json.dumps({"frames": frames, "tables": packed})


def _transforms(told: str) -> tuple[Transform, ...]:
    """Return the transforms of which `_told` made JSON; raises `ValueError` and others where it is damaged."""
    said = json.loads(told)
    tables = [Table(first, bits, b64decode(packed), wrong) for first, bits, packed, wrong in said["tables"]]
    for table in tables:
        if not table.wrong:
            table.entries()
    either = {None: None} | dict(enumerate(tables))
    return tuple(
        Transform(slope, intercept, center, width, function, either[modality], either[voi])
        for slope, intercept, center, width, function, modality, voi in said["frames"]
    )
