"""Outputs checked again without their sources, against what the job's report says of them.

A record holds CRC-32 of the samples of each frame that was verified when it was encoded, and XXH3-128 of the file. A
file whose digest is as recorded has not changed; its samples are decoded all the same, so that what could not be
decoded any more would be found too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gpuenc.archive.budget import PEAK_FACTOR, ByteBudget, default_bytes
from gpuenc.archive.comparison import MAX_LISTED, coding_of
from gpuenc.archive.findings import Finding, Stopped, line
from gpuenc.archive.report import LINE_BYTES, record_of
from gpuenc.archive.verify import check_all, only_in_output
from gpuenc.cpu import decoders, samples
from gpuenc.dicom.digests import file_digest
from gpuenc.dicom.regular import regular
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import DecodeFailed, GpuencError
from gpuenc.frames import Coded
from gpuenc.syntaxes import BY_UID

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gpuenc.archive.findings import VerdictWatcher, Verified
    from gpuenc.archive.report import Record
    from gpuenc.frames import Frame

    DecodeSamples = Callable[..., NDArray[Any]]

_DIGITS = frozenset("0123456789abcdef")
_NOT_COVERED = "this report does not cover it: its output was there before the job"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a report says of one output.

    Parameters
    ----------
    source, destination : str
        As the job had them.
    path : Path
        Where the output should be now.
    crc32 : tuple of str
        Of the samples of each frame.
    digest : str
        XXH3-128 of the file.
    """

    source: str
    destination: str
    path: Path
    crc32: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class _Told:
    """A report as a whole: outputs to check, what can be said without looking at any, and the paths it names."""

    items: list[Recorded]
    findings: list[Finding]
    named: set[Path]


def recheck(
    record: Path,
    output: Path,
    watcher: VerdictWatcher,
    *,
    independent: bool = False,
    jobs: int = 0,
    budget: ByteBudget | None = None,
    report: Path | None = None,
    stop: threading.Event | None = None,
) -> Verified:
    """Check the outputs that a report names, below `output`, wherever that folder is now.

    A file that failed is missing, unless a later record says that it was done. A file without checksums is not called
    equal, since nothing can be said of it: such as what was there before the job, which the job skipped for that.
    Files that it skipped for another reason have no output, and are not counted. Told last is what no record names.

    Parameters
    ----------
    record : Path
        JSON Lines, one `gpuenc.archive.report.Record` each; the last one of an output counts.
    output : Path
        The folder that was the job's destination.
    watcher, independent, jobs, budget, report, stop
        As for `gpuenc.archive.verify.verify`.
    """
    told = _read(record, output)
    budget = budget or ByteBudget(default_bytes())

    def work(item: Recorded, stopped: threading.Event) -> Finding:
        return _checked(item, budget, independent, stopped)

    extras = only_in_output(told.named, output, (record, report), "no record of the report names it")
    verified = check_all(told.items, work, watcher, extras=chain(told.findings, extras), jobs=jobs, stop=stop)
    verified.planned += len(told.findings)
    return verified


def _read(record: Path, output: Path) -> _Told:
    """Return what a report says; with a finding for each line that is no record."""
    made: dict[str, Record] = {}
    failed: dict[str, Record] = {}
    kept: dict[str, None] = {}
    sources: set[str] = set()
    broken = []
    with open(record, "rb", opener=regular) as lines:
        # A line that is none costs the others nothing, unlike in `report.read_lines`.
        for number, text in enumerate(iter(lambda: lines.readline(LINE_BYTES), b""), 1):
            told = record_of(text)
            if told is None:
                message = f"line {number} of the report is no record"
                broken.append(Finding("", os.fspath(record), "unreadable", "invalid-record", message))
                continue
            sources.add(told.source)
            if told.status == "failed":
                failed[told.source] = told
            elif told.reason == "destination-exists":
                kept[told.source] = None
                failed.pop(told.source, None)
            elif told.destination and told.status in ("encoded", "copied"):
                made[told.destination] = told
                failed.pop(told.source, None)
    # What one run made and the next one found there is covered.
    covered = {told.source for told in made.values()}
    places = _places(list(made), output)
    items = [
        Recorded(told.source, destination, places[destination], told.crc32, told.output_digest)
        for destination, told in made.items()
    ]
    findings = [
        *(Finding(told.source, "", "missing", told.reason, f"it failed: {told.message}") for told in failed.values()),
        *(
            Finding(source, "", "unreadable", "destination-exists", _NOT_COVERED)
            for source in kept
            if source not in covered
        ),
        *broken,
    ]
    # Where sources were replaced, what was left as it is lies there too.
    return _Told(items, findings, {*places.values(), *_below(sources, output)})


def _below(sources: set[str], output: Path) -> Iterator[Path]:
    """Yield where sources lie in `output`."""
    root = os.path.join(os.path.abspath(output), "")
    for source in sources:
        if source.startswith(root):
            yield output / source[len(root) :]


def _places(destinations: list[str], output: Path) -> dict[str, Path]:
    """Return where each output is below `output`: all of them lost the same number of leading folders.

    The job's destination is not in its report. It is `output` itself, or, where that was moved or is named otherwise
    now, the number is the one with which most of them are there.
    """
    root = os.path.abspath(output)
    inside = {each: os.path.relpath(os.path.abspath(each), root) for each in destinations}
    if not any(path == ".." or path.startswith(f"..{os.sep}") for path in inside.values()):
        return {each: output / path for each, path in inside.items()}
    parts = {each: Path(each).parts for each in destinations}
    most = min((len(each) for each in parts.values()), default=1)
    there = [sum(os.path.lexists(output.joinpath(*each[cut:])) for each in parts.values()) for cut in range(1, most)]
    best = 1 + there.index(max(there)) if there else 0
    return {each: output.joinpath(*_inside(path[best:])) for each, path in parts.items()}


def _inside(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts without those that lead out of a folder: a report may come from anywhere."""
    return tuple(part for part in parts if part not in ("..", os.sep))


def _checked(item: Recorded, budget: ByteBudget, independent: bool, stop: threading.Event) -> Finding:
    def check() -> None:
        if stop.is_set():
            raise Stopped

    finding = Finding(item.source, os.fspath(item.path), "differs")
    try:
        if not item.path.is_file():
            return replace(finding, verdict="missing", message="there is no such file in the output")
        if not (item.crc32 or item.digest):
            return replace(finding, verdict="unreadable", reason="invalid-record", message="it has no checksums")
        if not all(set(text) <= _DIGITS for text in (*item.crc32, item.digest)):
            return replace(finding, verdict="unreadable", reason="invalid-record", message="checksums are no numbers")
        unchanged = bool(item.digest) and file_digest(item.path, check=check) == item.digest
        if item.crc32:
            finding = _samples(item, finding, budget, independent, check)
    except GpuencError as error:
        return replace(finding, verdict="unreadable", reason=error.code, message=line(error))
    except OSError as error:
        message = f"the output cannot be read: {line(error)}"
        return replace(finding, verdict="unreadable", reason="unreadable-source", message=message)
    except MemoryError:
        message = "there is not enough memory for one of its frames"
        return replace(finding, verdict="unreadable", reason="out-of-memory", message=message)
    if finding.message:
        return finding
    if item.digest and not unchanged:
        more = "; its samples are as recorded" if item.crc32 else ""
        return replace(finding, message=f"the file's bytes have changed since{more}")
    return replace(finding, verdict="equal", identical=unchanged)


def _samples(
    item: Recorded, finding: Finding, budget: ByteBudget, independent: bool, check: Callable[[], None]
) -> Finding:
    """Return the finding, with a message where samples are not as recorded."""
    decode = _decoder(independent)
    with DicomFile(item.path) as file:
        finding = replace(finding, output_syntax=file.syntax)
        if file.number_of_frames != len(item.crc32):
            return replace(
                finding, message=f"it has {file.number_of_frames} frames, and {len(item.crc32)} were recorded"
            )
        differing: list[int] = []
        frame_bytes = file.format.rows * file.format.columns * file.format.samples * 4
        with budget.share(frame_bytes * PEAK_FACTOR):
            for index, expected in enumerate(item.crc32):
                check()
                if frame_crc32(file.frame(index), decode) != expected:
                    differing.append(index)
    if differing:
        listed = dict.fromkeys(differing[:MAX_LISTED], 0)
        message = f"samples of {len(differing)} of {len(item.crc32)} frames are not those recorded"
        finding = replace(finding, differing=listed, differing_frames=len(differing), message=message)
    return replace(finding, frames=len(item.crc32))


def _decoder(independent: bool) -> DecodeSamples:
    if not independent:
        return decoders.decode_samples
    from importlib import import_module

    theirs = cast("DecodeSamples", import_module("gpuenc.cpu.independent").decode_samples)

    def decode_samples(*arguments: Any) -> NDArray[Any]:
        try:
            return theirs(*arguments)
        except DecodeFailed as error:
            if error.code != "no-independent-decoder":
                raise
            return decoders.decode_samples(*arguments)

    return decode_samples


def frame_crc32(frame: Frame, decode_samples: DecodeSamples = decoders.decode_samples) -> str:
    """Return CRC-32 of a frame's samples as `Record.crc32` has it, 8 hexadecimal digits.

    Of what `decode_samples` returns: samples interleaved, little endian, in the smallest cells of 8, 16 or 32 bits that
    hold the codestream's precision. Of native and deflated frames, their cells; of a JPEG that was re-compressed bit
    for bit, its codestream.

    Raises
    ------
    DecodeFailed
        It cannot be decoded.
    """
    if not isinstance(frame.pixels, Coded):
        cells = frame.host_cells()
        if frame.format.bits_allocated == 1:
            cells = samples.align_bits(cells, frame.format.frame_bits, frame.bit_offset)
        return samples.samples_crc32(samples.to_little_endian(cells, frame.format))
    syntax = BY_UID[frame.pixels.syntax]
    return samples.samples_crc32(decode_samples(frame.pixels.codestream, syntax, coding_of(frame)))
