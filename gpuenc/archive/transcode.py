"""One file from its source to its one outcome."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuenc import engine
from gpuenc.archive import inplace
from gpuenc.archive.budget import PEAK_FACTOR
from gpuenc.archive.folders import demand_same, make_output_folder
from gpuenc.archive.recovery import replaced_before, why_left
from gpuenc.archive.report import Record, Status
from gpuenc.archive.request import Job, failure_text
from gpuenc.archive.stamp import Stamp
from gpuenc.archive.tally import Tally, timed_decoder
from gpuenc.archive.there import why_skipped
from gpuenc.archive.unverified import why_unverified
from gpuenc.coding import coding
from gpuenc.dicom.atomic import DISK_FULL
from gpuenc.dicom.attributes import changes, moves_overlays, with_ratio
from gpuenc.dicom.cells import encoded_format
from gpuenc.dicom.copies import copy_file
from gpuenc.dicom.decoding import frame_decoder
from gpuenc.dicom.description import modality_of
from gpuenc.dicom.digests import file_digest, xxh3_128
from gpuenc.dicom.header import header, trailer
from gpuenc.dicom.overlays import EmbeddedOverlays
from gpuenc.dicom.source import TOLD_GROUPS, DicomFile
from gpuenc.dicom.writer import OutputFile
from gpuenc.encoder import error_of
from gpuenc.errors import GpuencError, SourceError, ValuesOutsideBitsStored
from gpuenc.frames import Failure
from gpuenc.registry import chain
from gpuenc.syntaxes import keeps_jpeg

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator
    from typing import BinaryIO

    from gpuenc.archive.folders import Identity
    from gpuenc.archive.scan import Item
    from gpuenc.coding import Coding
    from gpuenc.dicom.atomic import Unnamed
    from gpuenc.frames import Encoded, FrameFormat
    from gpuenc.targets import Target

LOGGER = logging.getLogger(__name__)

# Images whose samples no compressed transfer syntax can hold (PS3.5 A.4), and objects that are no images.
_COPIED_CODES = frozenset({"no-pixel-data", "float-pixel-data", "video"})
# Below this, a file is one thread's work; above, its frames are spread over lanes.
_SPREAD_BYTES = 32 << 20
# A file up to this size is read once, as a whole: most of an archive are, and each further read costs more than memory.
_HELD_BYTES = 4 << 20


class Interrupted(Exception):
    """The job was told to give up while this file was in work."""


@dataclass(frozen=True, slots=True)
class _Work:
    """One file in work: what it is, what was asked for, whether to give up, and what the source was when it began."""

    item: Item
    job: Job
    stop: threading.Event
    stamp: Stamp
    waits: Callable[[bool], None]
    defer: Callable[[Unnamed], None] | None = None
    opened: BinaryIO | None = None
    destination: Identity | None = None

    def check(self) -> None:
        """Raise `Interrupted` if it is to be given up."""
        if self.stop.is_set():
            raise Interrupted

    def demand_unchanged(self) -> None:
        """Check that the source is what was read, unless it vanished since, and that the destination is where it was.

        Raises
        ------
        SourceError, DestinationError
            ``source-changed``, ``destination-lost``.
        """
        demand_same(self.job.destination, self.destination)
        now = Stamp.of_any(self.item.source_path)
        if now != self.stamp and (now is not None or self.job.in_place):
            raise SourceError("the source changed while it was read", code="source-changed")


def transcode_file(
    item: Item,
    job: Job,
    stop: threading.Event,
    waits: Callable[[bool], None] = lambda waiting: None,
    defer: Callable[[Unnamed], None] | None = None,
    destination: Identity | None = None,
    *,
    opened: BinaryIO | None = None,
) -> Record:
    """Give one file its outcome.

    Parameters
    ----------
    item : Item
        The file.
    job : Job
        What to do.
    stop : threading.Event
        Gives it up.
    waits : callable
        Is told True when the file has to wait for memory that others have, and False when it goes on.
    defer : callable, optional
        Is handed the output when it is complete, and flushes and names it; then the record says what it will be.
    opened : binary file, optional
        The source, where it is no file of this machine and only looked at; then `Item.stamp` says what it is.
    destination : tuple of int, optional
        Which folder the job's destination was when the job began; another one is not written to.

    Raises
    ------
    Interrupted
        `stop` was set meanwhile; nothing of the output is left. Nothing else is raised for what a file holds.
    """
    begun = time.perf_counter()
    work = _Work(item, job, stop, Stamp(0, 0), waits, defer, destination=destination)
    work.check()
    try:
        work = replace(work, stamp=item.stamp or Stamp.of(item.source_path), opened=opened)
        record = _transcode(work)
    except GpuencError as error:
        record = _failed(work, error)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in DISK_FULL:  # a deflated source is inflated into a temporary file
            record = _record(work, "failed", "disk-full", f"the folder for temporary files: {reason}")
        else:
            code = "name-too-long" if error.errno == errno.ENAMETOOLONG else "unreadable-source"
            record = _record(work, "failed", code, f"the source cannot be read: {reason}")
    except MemoryError:
        record = _record(work, "failed", "out-of-memory", "there is not enough memory for one of its frames")
    except Interrupted:
        raise
    except Exception as error:
        # A defect of ours must not cost the other files theirs. Its text may quote the file, so it is not shown.
        LOGGER.debug("internal error", exc_info=True)
        record = _record(work, "failed", "internal-error", f"internal error: {type(error).__name__}")
    output = None if job.dry_run or not record.destination else Stamp.of_any(record.destination)
    return record.but(
        bytes_in=record.bytes_in or work.stamp.size_bytes,
        source_mtime_ns=record.source_mtime_ns or work.stamp.mtime_ns,
        output_mtime_ns=output.mtime_ns if output else 0,
        seconds=time.perf_counter() - begun,
        finished_s=max(0.0, time.time()),
    )


def _transcode(work: _Work) -> Record:
    item, job = work.item, work.job
    replaces = job.overwrite or job.in_place or item.replaces
    if not replaces and os.path.lexists(item.place):
        return _record(work, "skipped", "destination-exists", why_skipped(item.place, job))
    try:
        groups, held_bytes = (TOLD_GROUPS, 0) if job.dry_run else (None, 0 if work.opened else _HELD_BYTES)
        source = DicomFile(item.source_path, hold_bytes=held_bytes, groups=groups, file=work.opened)
    except SourceError as error:
        if error.code == "not-dicom":
            return _record(work, "skipped", error.code, str(error))
        if error.code in _COPIED_CODES or job.keeps(error.code):
            return _copied(work, error.code, str(error))
        raise
    with source:
        try:
            record = _outcome(source, work)
        except GpuencError as error:
            if job.keeps(error.code):
                record = _copied(work, error.code, " ".join(str(error).split()), source.syntax)
            else:
                record = _failed(work, error, source.syntax)
        return record.but(modality=modality_of(source.attributes))


def _outcome(source: DicomFile, work: _Work) -> Record:
    job = work.job
    if source.compressed:
        source.frame(0)  # what is cut off, or contradicts itself, is neither encoded nor copied
    if source.syntax == job.target.syntax.uid and (job.target.lossless or job.keep_lossy):
        before = replaced_before(work.item, job, source, work.stop, work.check)
        if before:
            return _record(work, "encoded", message="replaced before the job was interrupted", **before)
        return _copied(work, "already-encoded", why_left(work.item, job), source.syntax)
    if job.keep_lossy and source.lossy and not keeps_jpeg(source.syntax, job.target.syntax):
        return _copied(work, "lossy-source", "its pixels are lossy already", source.syntax)
    try:
        return _encoded(source, work, job.target)
    except ValuesOutsideBitsStored as error:
        if not job.whole_cells:
            return _copied(work, error.code, str(error), source.syntax)
    return _encoded(source, work, replace(job.target, whole_cells=True))


def _encoded(source: DicomFile, work: _Work, target: Target) -> Record:
    cells = encoded_format(source, target)
    wanted = coding(target, cells, keeps_jpeg=keeps_jpeg(source.syntax, target.syntax))
    if work.job.dry_run:
        return _record(
            work,
            "encoded",
            destination=work.item.place,
            source_syntax=source.syntax,
            frames=source.number_of_frames,
            pixel_bytes=source.native_bytes,
        )
    held_bytes = len(source.held or b"")
    with work.job.budget.share(_memory_bytes(source, work.job) + held_bytes, work.waits) as memory_bytes:
        return _written(source, work, target, cells, wanted, max(1, memory_bytes - held_bytes))


def _memory_bytes(source: DicomFile, job: Job) -> int:
    """Return what encoding this file takes at its peak.

    Raises
    ------
    SourceError
        One frame alone takes more than the whole budget: a header may ask for 65535 × 65535 pixels.
    """
    fmt = source.format
    frame_bytes = fmt.rows * fmt.columns * fmt.samples * max(1, fmt.bits_allocated // 8)
    one = frame_bytes * PEAK_FACTOR
    if one > job.budget.total_bytes:
        raise SourceError(
            f"one frame of {frame_bytes / 1e6:.0f} MB takes up to {one / 1e6:.0f} MB of memory to encode, and "
            f"{job.budget.total_bytes / 1e6:.0f} MB are allowed (--memory)",
            code="too-large",
        )
    return max(one, job.budget.total_bytes // 2) if source.native_bytes >= _SPREAD_BYTES else one


def _written(
    source: DicomFile, work: _Work, target: Target, cells: FrameFormat, wanted: Coding, memory_bytes: int
) -> Record:
    item, job = work.item, work.job
    found = changes(source, cells, target, wanted)
    overlays = EmbeddedOverlays(source.attributes, cells.overlay_bits) if moves_overlays(cells, wanted) else None
    make_output_folder(os.path.dirname(item.place), job.destination, work.destination)
    begun = time.perf_counter()
    tally = Tally()
    with (
        OutputFile(
            item.place,
            header(source, found, target.syntax.uid),
            target.syntax,
            source.number_of_frames,
            cells=cells,
            coding=wanted,
            extended_offsets=job.extended_offsets,
            overwrite=job.overwrite or job.in_place or item.replaces,
            fsync=job.durability != "none",
            defer=work.defer,
            token=job.token,
        ) as output,
        closing(_results(source, job, target, wanted, overlays, memory_bytes, tally.seconds)) as results,
    ):
        for result in results:
            work.check()
            if isinstance(result, Failure):
                raise error_of(result)
            with tally.timed("write"):
                output.put(result.codestream)
            tally.add(result)
        final = None
        if overlays or not wanted.lossless:
            if overlays:
                found = changes(
                    source,
                    cells,
                    target,
                    wanted,
                    overlays=overlays.data(),
                    sop_instance_uid=found.sop_instance_uid,
                )
            final = header(source, with_ratio(found, source, tally.encoded_bytes), target.syntax.uid)
        source_digest = _source_digest(source, work)
        work.demand_unchanged()
        with tally.timed("write"), contextlib.nullcontext() if work.defer else inplace.kept(item, job):
            like = item.source_path if job.in_place else None
            summary = output.finish(final, trailer(source), like=like, check=work.demand_unchanged)
    verified = tally.verified == source.number_of_frames
    return _record(
        work,
        "encoded",
        message="; ".join(filter(None, (*source.notes, summary.note))),
        destination=item.place,
        source_syntax=source.syntax,
        plugins=dict(tally.plugins),
        fallbacks=dict(tally.fallbacks),
        frames=source.number_of_frames,
        bytes_out=summary.bytes_written,
        source_digest=source_digest,
        output_digest=summary.digest,
        pixel_bytes=source.native_bytes,
        verified=verified,
        unverified="" if verified else why_unverified(job, lossless=wanted.lossless),
        crc32=tuple(tally.crc32),
        stage_seconds=tally.stages(time.perf_counter() - begun),
    )


def _source_digest(source: DicomFile, work: _Work) -> str:
    """Return XXH3-128 of what was read; empty where the source is gone and has to be read again for that."""
    if source.held is not None:
        return xxh3_128(source.held).hexdigest()
    with contextlib.suppress(FileNotFoundError):  # it vanished after it was read whole
        return file_digest(work.item.source_path, check=work.check)
    return ""


def _results(
    source: DicomFile,
    job: Job,
    target: Target,
    wanted: Coding,
    overlays: EmbeddedOverlays | None,
    memory_bytes: int,
    seconds: dict[str, float],
) -> Generator[Encoded | Failure]:
    decode = frame_decoder()
    frames = source.frames(expand=wanted.expand)
    if overlays:
        frames = overlays.watch(frames, timed_decoder(decode, seconds))
    return engine.encode_frames(
        frames,
        target,
        job.plugins or chain(target.syntax, job.plugin, device=job.device, device_memory_bytes=job.device_memory_bytes),
        threads=job.lanes if source.native_bytes >= _SPREAD_BYTES else 1,
        memory_bytes=memory_bytes,
        verify=job.verify if job.chooses(source.path) else "none",
        decode=decode,
        seconds=seconds,
    )


def _copied(work: _Work, code: str, message: str, source_syntax: str = "") -> Record:
    item, job = work.item, work.job
    if job.in_place:
        return _record(work, "skipped", code, message, source_syntax=source_syntax)

    def check() -> None:
        work.check()
        work.demand_unchanged()

    size, digest = work.stamp.size_bytes, ""
    if not job.dry_run:
        make_output_folder(os.path.dirname(item.place), job.destination, work.destination)
        copy = copy_file(
            item.source_path,
            item.place,
            overwrite=job.overwrite or item.replaces,
            fsync=job.durability != "none",
            defer=work.defer,
            token=job.token,
            check=check,
        )
        size, digest, message = copy.bytes_written, copy.digest, "; ".join(filter(None, (message, copy.note)))
    return _record(
        work,
        "copied",
        code,
        message,
        destination=item.place,
        source_syntax=source_syntax,
        bytes_out=size,
        source_digest=digest,
        output_digest=digest,
    )


def _failed(work: _Work, error: GpuencError, source_syntax: str = "") -> Record:
    return _record(work, "failed", error.code, failure_text(error), source_syntax=source_syntax)


def _record(work: _Work, status: Status, reason: str = "", message: str = "", **more: Any) -> Record:
    return Record(
        work.item.source_path,
        status,
        reason=reason,
        message=message,
        target_syntax=work.job.target.syntax.uid,
        **more,
    )
