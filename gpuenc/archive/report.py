"""What happened, file by file, and in sum. Holds paths, UIDs and sizes; never patient data."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Status = Literal["encoded", "copied", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of one file.

    Parameters
    ----------
    source, destination : str
        Paths; `destination` is empty where there is no output.
    status : {'encoded', 'copied', 'skipped', 'failed'}
        Re-encoded; copied byte for byte; left out on purpose; could not be done.
    reason : str
        A stable code (see `gpuenc.errors`); empty for plain success.
    message : str
        The reason in one line, for people.
    source_syntax, target_syntax : str
        Transfer Syntax UIDs; of the source as found, of the output as asked for.
    plugins : dict of str to int
        How many frames each plug-in encoded.
    fallbacks : dict of str to int
        How many frames each ``plug-in: code`` refused before another one encoded them.
    frames : int
        Frames encoded.
    bytes_in, bytes_out : int
        Sizes of the two files.
    pixel_bytes : int
        Native size of the frames encoded.
    seconds : float
        Wall time spent on the file.
    verified : bool
        Every sample of the output was decoded again and compared.
    modality : str
        Modality (0008,0060) of the source.
    finished_s : float
        When it had its outcome: seconds since 1970-01-01 UTC.
    worker : int
        Which worker process did it, counted from 1; 0 where none was needed.
    stage_seconds : dict of str to float
        Time spent in each stage ("read", "encode", "verify", "write"), over all threads.
    crc32 : tuple of str
        CRC-32 of the samples of each verified frame, 8 hexadecimal digits: samples interleaved, little endian, in
        cells of 8, 16 or 32 bits.
    source_digest, output_digest : str
        XXH3-128 of the two files, 32 hexadecimal digits.
    source_mtime_ns, output_mtime_ns : int
        When the two files were last modified; nanoseconds since 1970-01-01 UTC.
    """

    source: str
    status: Status
    destination: str = ""
    reason: str = ""
    message: str = ""
    source_syntax: str = ""
    target_syntax: str = ""
    plugins: dict[str, int] = field(default_factory=dict)
    fallbacks: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixel_bytes: int = 0
    seconds: float = 0.0
    verified: bool = False
    modality: str = ""
    finished_s: float = 0.0
    worker: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    crc32: tuple[str, ...] = ()
    source_digest: str = ""
    output_digest: str = ""
    source_mtime_ns: int = 0
    output_mtime_ns: int = 0

    def as_json(self) -> str:
        """Return the record as one line of JSON.

        Bytes of a file name that are no UTF-8 become lone surrogates, escaped, as `os.fsencode` takes them back.
        """
        values = {name: getattr(self, name) for name in _FIELDS}
        values["seconds"] = round(self.seconds, 6)
        line = _encoded(values)
        return line if line.isascii() else line.encode("utf-8", "backslashreplace").decode()


_FIELDS = dict.fromkeys(field.name for field in fields(Record))
_encoded = json.JSONEncoder(ensure_ascii=False).encode


def record_of(values: Mapping[str, Any]) -> Record:
    """Return the record that a line of JSON holds; what later versions may add to it is left out."""
    if values.keys() != _FIELDS.keys():
        values = {name: value for name, value in values.items() if name in _FIELDS}
    return Record(**{**values, "crc32": tuple(values.get("crc32", ()))})


class ReportFile:
    """A file of JSON Lines, written as the job goes on, so that it is complete up to any interruption.

    What goes wrong with it does not stop the job, which would cost files their outcome: it is kept in `problem`.

    Parameters
    ----------
    stream : binary file
        Unbuffered, so that a line is there as a whole or not at all.
    """

    # What every line of a report begins with.
    BEGINNING = b'{"source": '

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.problem = ""

    def add(self, record: Record) -> None:
        """Write one line and hand it to the operating system; nothing after the first failure."""
        if self.problem:
            return
        line = record.as_json().encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += self._stream.write(line[written:])
        except OSError as error:
            self.problem = error.strerror or type(error).__name__
            with contextlib.suppress(OSError):
                self._stream.truncate(self._stream.tell() - written)


@dataclass(slots=True)
class Summary:
    """Totals of a job.

    Attributes
    ----------
    planned, earlier_files : int
        Files found; of these, done by an earlier run of the job.
    stopped : str
        Why it ended early: ``"interrupted"`` or ``"disk-full"``.
    """

    files: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    plugins: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixel_bytes: int = 0
    verified_files: int = 0
    seconds: float = 0.0
    planned: int = 0
    earlier_files: int = 0
    stopped: str = ""

    def add(self, record: Record) -> None:
        """Count one file."""
        self.files[record.status] += 1
        if record.reason:
            self.reasons[record.status, record.reason] += 1
        self.plugins.update(record.plugins)
        self.fallbacks.update(record.fallbacks)
        self.frames += record.frames
        self.pixel_bytes += record.pixel_bytes
        self.verified_files += record.verified
        if record.status == "encoded":
            self.bytes_in += record.bytes_in
            self.bytes_out += record.bytes_out

    @property
    def interrupted(self) -> bool:
        """It ended before every file had an outcome."""
        return bool(self.stopped)

    @property
    def done(self) -> int:
        """Files with an outcome."""
        return self.files.total()

    @property
    def ratio(self) -> float:
        """Bytes of the sources encoded, divided by bytes of their outputs; 0 where nothing was encoded."""
        return self.bytes_in / self.bytes_out if self.bytes_out else 0.0
