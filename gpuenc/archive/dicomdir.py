"""A DICOMDIR for re-encoded files: its records say which transfer syntax and instance each file holds (PS3.3 F.3).

The output is the source's own bytes. Only (0004,1511) Referenced SOP Instance UID in File and (0004,1512) Referenced
Transfer Syntax UID in File are set to what the files beside it say, and what follows from their new lengths: lengths
of items and sequence, retired group lengths, and the byte offsets that link the records.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING

from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.digests import file_digest, xxh3_128
from gpuenc.dicom.elements import ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, Element, Window, item_header, name, walk
from gpuenc.dicom.regular import regular
from gpuenc.errors import DestinationError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

STORAGE_SOP_CLASS = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage
# Root directory's first and last record; next record, lower level, and the retired offset of a multi-reference record.
_ROOT_OFFSETS, _RECORD_OFFSETS = (0x00041200, 0x00041202), (0x00041400, 0x00041420, 0x00041504)
_RECORDS, _FILE_ID = 0x00041220, 0x00041500
_INSTANCE, _SYNTAX = 0x00041511, 0x00041512
_META_CLASS, _META_INSTANCE, _META_SYNTAX = 0x00020002, 0x00020003, 0x00020010
_EXPLICIT_BIG, _IMPLICIT = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"
# Some 60,000 files' worth; it is in memory, several times over.
MAX_BYTES = 256 << 20
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of a DICOMDIR.

    Parameters
    ----------
    files : int
        Files that its records name.
    changed : int
        Records that were changed.
    missing : int
        Files named that are not beside the new DICOMDIR, or are no DICOM files; their records are as they were.
    bytes_written : int
        Its size.
    digest : str
        Its XXH3-128, 32 hexadecimal digits.
    note : str
        As that of `AtomicFile`.
    """

    files: int
    changed: int
    missing: int
    bytes_written: int
    digest: str
    note: str = ""


def is_dicomdir(path: Path) -> bool:
    """Return whether a file says that it is a DICOMDIR; False for what cannot be read. Reads its beginning alone."""
    return _meta_of(path).get(_META_CLASS) == STORAGE_SOP_CLASS


def rebuild(source: Path, destination: Path, *, overwrite: bool = True, fsync: bool = True, token: str = "") -> Rebuilt:
    """Write the DICOMDIR `source` to `destination`, changed to what the files around `destination` are.

    To be called once all outputs are there, since they themselves are asked: for each record with a File ID, the file
    of that name below the folder of `destination`. So it does not matter which of them were re-encoded, copied, or
    done by an earlier job. The copy that the job made of the source's DICOMDIR is replaced. Where no record has to
    change, the result is the source byte for byte.

    Parameters
    ----------
    source : Path
        The DICOMDIR as it was; not changed.
    destination : Path
        Its place in the output's tree; may exist.
    overwrite, fsync, token
        As for `AtomicFile`.

    Returns
    -------
    Rebuilt
        `Rebuilt.missing` is not 0 where files failed: the DICOMDIR then names files that are not there, and says of
        them what the source's did.

    Raises
    ------
    SourceError
        ``dicomdir-stale``: it cannot be changed consistently, and `destination` is as it was: a record's offset does
        not point at a record, it is deflated, corrupt or larger than `MAX_BYTES`.
    DestinationError
        As `AtomicFile`; ``read-back-mismatch``.
    OSError
        The source cannot be read.
    """
    data, files, changed, missing = rebuilt(source, destination.parent)
    digest = xxh3_128(data).hexdigest()
    with AtomicFile(destination, overwrite=overwrite, fsync=fsync, token=token) as out:
        with out.errors():
            out.file.write(data)
            written = file_digest(out.flushed())
        if written != digest:
            raise DestinationError("the DICOMDIR is not what was written", code="read-back-mismatch")
        return Rebuilt(files, changed, missing, out.publish(), digest, out.note)


def wrong_records(path: Path) -> dict[int, dict[int, str]]:
    """Return the records that do not say what the files around a DICOMDIR are: by number and tag, what they should say.

    Raises
    ------
    SourceError, OSError
        As `rebuild`.
    """
    return _read(path).wanted(path.parent)[0]


def rebuilt(source: Path, folder: Path) -> tuple[bytes, int, int, int]:
    """Return a DICOMDIR's new bytes for the files in `folder`, and how many it names, has changed and lacks.

    Raises
    ------
    SourceError, OSError
        As `rebuild`.
    """
    directory = _read(source)
    try:
        wanted, missing = directory.wanted(folder)
        new = directory.patched(wanted)
        if wanted:
            _check_links(directory, _Directory(new))
    except SourceError as error:
        raise error if error.code == "dicomdir-stale" else _stale(str(error)) from None
    return new, directory.files, len(wanted), missing


def _read(path: Path) -> _Directory:
    with open(path, "rb", opener=regular) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _stale(f"it has more than {MAX_BYTES} bytes")
    try:
        return _Directory(data)
    except SourceError as error:
        raise error if error.code == "dicomdir-stale" else _stale(str(error)) from None


@dataclass(frozen=True, slots=True)
class _Record:
    """One directory record: its item's tag, the end of its elements, and these by tag."""

    start: int
    end: int
    undefined: bool
    elements: dict[int, Element]


class _Directory:
    """The bytes of a DICOMDIR, and where everything is in them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        window = Window(BytesIO(data), len(data))
        if data[128:132] != b"DICM":
            raise _stale("it is no DICOM file")
        meta, _, at = walk(window, 132, len(data), last=lambda tag: tag >> 16 != 2, last_from=0)
        syntax = next((self._text(element) for element in meta if element.tag == _META_SYNTAX), "")
        if syntax == _DEFLATED:
            raise _stale("it is deflated")
        self.big_endian = syntax == _EXPLICIT_BIG
        vr = data[at + 4 : at + 6]
        self.implicit = not (vr.isalpha() and vr.isupper())
        self.top, _, self.end = walk(
            window, at, len(data), implicit=self.implicit, big_endian=self.big_endian, last=lambda _: False
        )
        self.sequence = next((element for element in self.top if element.tag == _RECORDS), None)
        self.records = [] if self.sequence is None else list(self._read_records(window, self.sequence))
        self.files = sum(_FILE_ID in record.elements for record in self.records)

    def wanted(self, folder: Path) -> tuple[dict[int, dict[int, str]], int]:
        """Return the new UIDs by the record's number and tag, and how many files cannot be found."""
        found: dict[int, dict[int, str]] = {}
        missing = 0
        for number, record in enumerate(self.records):
            if _FILE_ID not in record.elements:
                continue
            path = _named(folder, self._text(record.elements[_FILE_ID]))
            meta = {} if path is None else _meta_of(path)
            if not _UID.fullmatch(meta.get(_META_SYNTAX, "")):
                missing += 1
                continue
            new = {}
            for tag, of_meta in ((_INSTANCE, _META_INSTANCE), (_SYNTAX, _META_SYNTAX)):
                element, value = record.elements.get(tag), meta.get(of_meta, "")
                if element is not None and _UID.fullmatch(value) and self._text(element) != value:
                    new[tag] = value
            if new:
                found[number] = new
        return found, missing

    def patched(self, wanted: dict[int, dict[int, str]]) -> bytes:
        """Return the bytes with new UIDs, and with all lengths and offsets set right."""
        edits: dict[int, tuple[int, bytes]] = {}  # begin: end, new bytes
        growth: list[tuple[int, int]] = []  # where, by how much
        for number, new in wanted.items():
            record, grown = self.records[number], 0
            for tag, text in new.items():
                element = record.elements[tag]
                value = text.encode() + b"\0" * (len(text) % 2)
                length = len(value) - (element.end - element.value)
                edits[element.value] = (element.end, value)
                growth.append((element.value, length))
                grown += length
                self._set_length(edits, element, len(value))
            if not record.undefined:
                edits[record.start + 4] = (record.start + 8, self._long(record.end - record.start - 8 + grown))
            self._set_group_length(edits, record.elements.get(0x00040000), grown)
        growth.sort()
        total = sum(length for _, length in growth)
        if total and self.sequence is not None:
            if not self.sequence.undefined:
                self._set_length(edits, self.sequence, self.sequence.end - self.sequence.value + total)
            group_length = next((element for element in self.top if element.tag == 0x00040000), None)
            self._set_group_length(edits, group_length, total)
            self._move_offsets(edits, growth)
        pieces, at = [], 0
        for begin in sorted(edits):
            end, new_bytes = edits[begin]
            pieces += [self.data[at:begin], new_bytes]
            at = end
        return b"".join([*pieces, self.data[at:]])

    def offsets(self) -> list[tuple[Element, int]]:
        """Return the elements that hold offsets, in order, and what they hold."""
        holders = [element for element in self.top if element.tag in _ROOT_OFFSETS]
        holders += [
            record.elements[tag] for record in self.records for tag in _RECORD_OFFSETS if tag in record.elements
        ]
        for element in holders:
            if element.end - element.value not in (0, 4):
                raise _stale(f"{name(element.tag)} is no offset")
        order = "big" if self.big_endian else "little"
        return [(e, int.from_bytes(self.data[e.value : e.end], order)) for e in holders]  # type: ignore[arg-type]

    def _move_offsets(self, edits: dict[int, tuple[int, bytes]], growth: list[tuple[int, int]]) -> None:
        starts = {record.start for record in self.records}
        places = [place for place, _ in growth]
        sums = [0]
        for _, length in growth:
            sums.append(sums[-1] + length)
        for element, offset in self.offsets():
            if offset and offset not in starts:
                raise _stale(f"{name(element.tag)} at {element.start} does not point at a record")
            if offset:
                edits[element.value] = (element.end, self._long(offset + sums[bisect_left(places, offset)]))

    def _read_records(self, window: Window, sequence: Element) -> Iterator[_Record]:
        at, stop = sequence.value, sequence.end
        while at < stop:
            start = at
            tag, length = item_header(window, at, stop, big_endian=self.big_endian)
            at += 8
            if tag == SEQUENCE_END:
                return
            end = stop if length == UNDEFINED else at + length
            if tag != ITEM or end > stop:
                raise _stale(f"there is no directory record at {start}")
            found, ended, after = walk(
                window, at, end, implicit=self.implicit, big_endian=self.big_endian,
                last=ITEM_END.__eq__, last_from=ITEM_END,
            )  # fmt: skip
            if (ended is None) == (length == UNDEFINED) or (ended is None and after != end):
                raise _stale(f"the directory record at {start} does not end where it has to")
            yield _Record(start, after, length == UNDEFINED, {element.tag: element for element in found})
            at = after + 8 if length == UNDEFINED else end

    def _set_length(self, edits: dict[int, tuple[int, bytes]], element: Element, length: int) -> None:
        # The length field is whatever lies between tag, VR and value.
        size = 4 if element.value - element.start == 12 or not element.vr else 2
        edits[element.value - size] = (element.value, self._number(length, size))

    def _set_group_length(self, edits: dict[int, tuple[int, bytes]], element: Element | None, grown: int) -> None:
        if element is not None and element.end - element.value == 4 and grown:
            order = "big" if self.big_endian else "little"
            old = int.from_bytes(self.data[element.value : element.end], order)  # type: ignore[arg-type]
            edits[element.value] = (element.end, self._long(old + grown))

    def _number(self, value: int, size: int) -> bytes:
        return pack(f"{'>' if self.big_endian else '<'}{'I' if size == 4 else 'H'}", value)

    def _long(self, value: int) -> bytes:
        return self._number(value, 4)

    def _text(self, element: Element) -> str:
        return self.data[element.value : element.end].decode("latin-1").strip(" \0")


def _check_links(old: _Directory, new: _Directory) -> None:
    """Refuse a result whose records are not linked as they were."""
    if len(old.records) != len(new.records):
        raise _stale("the new one would have another number of records")
    links = []
    for directory in (old, new):
        number_of = {record.start: number for number, record in enumerate(directory.records)}
        links.append([(e.tag, number_of.get(offset, -1 if offset else None)) for e, offset in directory.offsets()])
    if links[0] != links[1]:
        raise _stale("the new one's records would be linked otherwise")


def _named(folder: Path, file_id: str) -> Path | None:
    """Return the file of a File ID: as it is written, or, as media are read, whatever the case of its letters."""
    parts = [part.strip(" ") for part in file_id.split("\\")]
    if not all(parts) or any(part in (".", "..") or "/" in part or "\0" in part for part in parts):
        return None  # outside the folder, or no File ID (PS3.10 8.2)
    exact = folder.joinpath(*parts)
    if exact.is_file():
        return exact
    path = folder
    for part in parts:
        try:
            names = sorted(entry for entry in os.listdir(path) if entry.lower() == part.lower())
        except OSError:
            return None
        if len(names) != 1:
            return None
        path = path / names[0]
    return path if path.is_file() else None


def _meta_of(path: Path) -> dict[int, str]:
    """Return the UIDs of a file's File Meta Information; none where it has no such thing or cannot be read."""
    try:
        with open(path, "rb", buffering=0, opener=regular) as file:
            size = os.fstat(file.fileno()).st_size
            window = Window(file, size)
            if window.read(128, 4) != b"DICM":
                return {}
            meta, _, _ = walk(window, 132, size, last=lambda tag: tag >> 16 != 2, last_from=0)
            return {
                element.tag: window.read(element.value, element.end - element.value).decode("latin-1").strip(" \0")
                for element in meta
                if element.vr == b"UI" and element.end - element.value <= 66
            }
    except (OSError, SourceError):
        return {}


def _stale(why: str) -> SourceError:
    return SourceError(f"the DICOMDIR cannot be changed to the new files: {why}", code="dicomdir-stale")
