"""What happened, file by file, and in sum. Holds paths, UIDs and sizes; never patient data."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, NoReturn, cast, get_args

from gpuenc.dicom.regular import regular
from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gpuenc.archive.earlier import Earlier
    from gpuenc.archive.findings import Finding

Status = Literal["encoded", "copied", "skipped", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)

# A longer line would be a record of more than a million frames.
LINE_BYTES = 1 << 26


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
    unverified : {'', 'lossy', 'sample', 'none'}
        Of an output that is not verified, why: its samples are others on purpose; it is not in the share of
        `--verify sample`; `--verify none`.
    modality : str
        Modality (0008,0060) of the source.
    finished_s : float
        When it had its outcome: seconds since 1970-01-01 UTC.
    worker : int
        Which worker process did it, counted from 1; 0 where none was needed.
    stage_seconds : dict of str to float
        Time spent in each stage ("read", of compressed sources "decode", "encode", "verify", "write"), over all
        threads. In records of earlier versions, "read" includes decoding.
    crc32 : tuple of str
        CRC-32 of the samples of each verified frame, 8 hexadecimal digits: samples interleaved, little endian, in
        cells of 8, 16 or 32 bits.
    source_digest, output_digest : str
        XXH3-128 of the two files, 32 hexadecimal digits.
    source_mtime_ns, output_mtime_ns : int
        When the two files were last modified; nanoseconds since 1970-01-01 UTC.
    run : str
        In which run of which job: the job's name, a hyphen, and the run's number, counted from 1. It says what came
        later where a clock does not.
    source_etag, output_etag : str
        ETags of the two objects, where they are objects in a store.
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
    run: str = ""
    source_etag: str = ""
    output_etag: str = ""
    unverified: str = ""

    def as_json(self) -> str:
        """Return the record as one line of JSON.

        Bytes of a file name that are no UTF-8 become lone surrogates, escaped, as `os.fsencode` takes them back.
        """
        values = dict(zip(_NAMES, _values(self), strict=True))
        values["seconds"] = round(self.seconds, 6)
        line = _encoded(values)
        return line if line.isascii() else line.encode("utf-8", "backslashreplace").decode()

    def but(self, **values: Any) -> Record:
        """Return it with other values: each record is changed thrice, and `dataclasses.replace` takes twice as long."""
        return Record(**(dict(zip(_NAMES, _values(self), strict=True)) | values))

    def __reduce__(self) -> tuple[type[Record], tuple[Any, ...]]:
        """Travel between processes as its values: a frozen class is otherwise taken apart field by field."""
        return Record, _values(self)


_NAMES = tuple(field.name for field in fields(Record))
_values = cast("Callable[[Record], tuple[Any, ...]]", attrgetter(*_NAMES))
_encoded = json.JSONEncoder(ensure_ascii=False).encode


class ReportFile:
    """A file of JSON Lines, written as the job goes on, so that it is complete up to any interruption.

    What goes wrong with it does not stop the job, which would cost files their outcome: it is kept in `problem`.

    Parameters
    ----------
    stream : binary file
        Unbuffered, so that a line is there as a whole or not at all, and open for appending.
    """

    # What every line of a report begins with.
    BEGINNING = b'{"source": '

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.problem = ""

    def begin(self) -> None:
        """Take away what an earlier job wrote: this one has begun."""
        with contextlib.suppress(OSError):  # not of a device
            self._stream.truncate(0)

    def add(self, record: Record | Finding) -> None:
        """Write one line and hand it to the operating system; nothing after the first failure."""
        self.add_line(record.as_json())

    def add_line(self, text: str) -> None:
        """Write what `Record.as_json` returned once, as `add` does."""
        if self.problem:
            return
        line = text.encode() + b"\n"
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
    all_found : bool
        There are no more files than these.
    stopped : str
        Why it ended early: ``"interrupted"``, ``"disk-full"``, ``"destination-lost"`` or ``"store-lost"``.
    outage : str
        Of ``"store-lost"``, which store or server does not answer any more, and how, in a sentence.
    gpu_unused : str
        Why no GPU was used although one could be, in a sentence.
    resumable : bool
        It can be gone on with.
    unverified : Counter
        Encoded files whose samples were not all compared, by `Record.unverified`.
    verify_sample : str
        Which share of them is to be verified, such as ``"sample=1%"``, where not all are and that is known.
    """

    files: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    plugins: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixel_bytes: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    verified_files: int = 0
    seconds: float = 0.0
    planned: int = 0
    all_found: bool = True
    earlier_files: int = 0
    stopped: str = ""
    outage: str = ""
    gpu_unused: str = ""
    resumable: bool = False
    unverified: Counter[str] = field(default_factory=Counter)
    verify_sample: str = ""

    def add(self, record: Record | Earlier) -> None:
        """Count one file."""
        self.files[record.status] += 1
        if record.reason:
            self.reasons[record.status, record.reason] += 1
        for label, frames in record.plugins.items():
            self.plugins[label] += frames
        for what, frames in record.fallbacks.items():
            self.fallbacks[what] += frames
        for stage, seconds in record.stage_seconds.items():
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        self.frames += record.frames
        self.pixel_bytes += record.pixel_bytes
        self.verified_files += record.verified
        if record.unverified:
            self.unverified[record.unverified] += 1
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


class Line(NamedTuple):
    """One line of a report: where it begins, its bytes without the line's end, and the record that it holds."""

    offset: int
    data: bytes
    record: Record


def read_records(path: Path, notes: list[str] | None = None) -> Iterator[Record]:
    """Yield the records of a report, one at a time.

    A last line that is cut off, as a job that was killed leaves it, is left out; fields of later versions are ignored.

    Parameters
    ----------
    path : Path
        What `--report` wrote, or several such files one after the other.
    notes : list of str, optional
        Is told in one line what was left out.

    Raises
    ------
    SourceError
        ``unreadable-source``, or ``not-a-report`` with the number of the line that is no record.
    """
    for line in read_lines(path, notes):
        yield line.record


def read_lines(path: Path, notes: list[str] | None = None) -> Iterator[Line]:
    """Yield the records of a report with their lines; see `read_records`."""
    try:
        with open(path, "rb", opener=regular) as stream:
            offset = 0
            for number, data in enumerate(iter(lambda: stream.readline(LINE_BYTES), b""), 1):
                ended = data.endswith(b"\n")
                record = record_of(data)
                if record is None:
                    if ended or len(data) == LINE_BYTES or not _may_be_cut(data, number):
                        _demand_report(path, number)
                    if notes is not None:
                        notes.append(f"{path}: line {number} is cut off and left out")
                    return
                yield Line(offset, data.rstrip(b"\r\n"), record)
                offset += len(data)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SourceError(f"{path} cannot be read: {reason}", code="unreadable-source") from None


def _demand_report(path: Path, number: int) -> NoReturn:
    what = f"line {number} is no record" if number > 1 else "it does not begin with a record"
    raise SourceError(f"{path} is no report of gpuenc: {what}", code="not-a-report")


def _may_be_cut(data: bytes, number: int) -> bool:
    """Say whether a last line without an end can be the beginning of a record, or the zeros of a lost page."""
    begun = ReportFile.BEGINNING
    return data[: len(begun)] == begun[: len(data)] or (number > 1 and (data[:1] == b"{" or not data.strip(b"\0")))


def record_of(line: bytes | str) -> Record | None:
    """Return the record that a line holds, or None if it holds none."""
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            return None
        return Record(**{name: check(values[name]) for name, check in _FIELDS.items() if name in values})
    except (
        AttributeError,
        ValueError,
        TypeError,
        RecursionError,
    ):  # no JSON, no UTF-8, a field of another kind, or one is missing
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _status(value: Any) -> Status:
    if value not in STATUSES:
        raise ValueError
    return cast("Status", value)


def _count(value: Any) -> int:
    # As wide as any file system counts; sums of them stay exact.
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e12:  # NaN is neither
        raise ValueError
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(map(_text, value))


# What JSON may hold for each kind of field.
_KINDS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "Status": _status,
    "int": _count,
    "float": _seconds,
    "bool": _truth,
    "dict[str, int]": lambda value: {_text(key): _count(number) for key, number in value.items()},
    "dict[str, float]": lambda value: {_text(key): _seconds(number) for key, number in value.items()},
    "tuple[str, ...]": _texts,
}
_FIELDS = {each.name: _KINDS[str(each.type)] for each in fields(Record)}
