"""One file from its source to its one outcome."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpuenc import engine
from gpuenc.archive.budget import ByteBudget, default_bytes
from gpuenc.archive.report import Record, Status
from gpuenc.coding import coding
from gpuenc.dicom.atomic import copy_file
from gpuenc.dicom.attributes import changes, moves_overlays, with_ratio
from gpuenc.dicom.cells import encoded_format
from gpuenc.dicom.decoding import frame_decoder
from gpuenc.dicom.header import header, trailer
from gpuenc.dicom.overlays import EmbeddedOverlays
from gpuenc.dicom.source import DicomFile
from gpuenc.dicom.writer import OutputFile
from gpuenc.encoder import error_of
from gpuenc.errors import DestinationError, GpuencError, SourceError, ValuesOutsideBitsStored
from gpuenc.frames import Failure
from gpuenc.registry import chain
from gpuenc.syntaxes import keeps_jpeg

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator
    from pathlib import Path

    from gpuenc.archive.scan import Item
    from gpuenc.coding import Coding
    from gpuenc.frames import Encoded, FrameFormat
    from gpuenc.targets import Target

LOGGER = logging.getLogger(__name__)

# Images whose samples no compressed transfer syntax can hold (PS3.5 A.4), and objects that are no images.
_COPIED_CODES = frozenset({"no-pixel-data", "float-pixel-data", "video"})
# Below this, a file is one thread's work; above, its frames are spread over lanes.
_SPREAD_BYTES = 32 << 20
# Peak memory of a frame's way through the hungriest lossless codec, as a multiple of its samples.
_PEAK_FACTOR = 12


class Interrupted(Exception):
    """The job was told to stop while this file was in work."""


@dataclass(frozen=True, slots=True)
class Job:
    """What `gpuenc transcode` was asked for.

    Parameters
    ----------
    sources : tuple of Path
        Files and folders that exist.
    destination : Path
        Folder of the outputs.
    target : Target
        What frames become.
    plugin : str
        Label of the only plug-in to use; empty for all.
    device : {'auto', 'cpu', 'gpu'} or int
        As for `Encoder.encode`.
    device_memory_bytes : int, optional
        As for `Encoder.encode`.
    jobs : int
        Files in work at once.
    lanes : int, optional
        Most threads for the frames of one large file; by default one per usable core.
    verify : bool
        Decode lossless outputs again and compare every sample.
    keep_lossy : bool
        Copy files that are lossy already instead of encoding them again.
    whole_cells : bool
        Encode files with samples outside Bits Stored at the precision of Bits Allocated, instead of copying them.
    extended_offsets, overwrite, dry_run : bool
        Always write an Extended Offset Table; replace outputs; read headers only and write nothing.
    report : Path, optional
        The report that is being written, which is no source.
    budget : ByteBudget
        Memory that all files in work share.
    """

    sources: tuple[Path, ...]
    destination: Path
    target: Target
    plugin: str = ""
    device: str | int = "auto"
    device_memory_bytes: int | None = None
    jobs: int = 1
    lanes: int | None = None
    verify: bool = True
    keep_lossy: bool = True
    whole_cells: bool = False
    extended_offsets: bool = False
    overwrite: bool = False
    dry_run: bool = False
    report: Path | None = None
    budget: ByteBudget = field(default_factory=lambda: ByteBudget(default_bytes()), compare=False)


def transcode_file(item: Item, job: Job, stop: threading.Event) -> Record:
    """Give one file its outcome.

    Raises
    ------
    Interrupted
        `stop` was set meanwhile; nothing of the output is left. Nothing else is raised for what a file holds.
    """
    begun = time.perf_counter()
    if stop.is_set():
        raise Interrupted
    try:
        record = _transcode(item, job, stop)
    except GpuencError as error:
        record = _failed(item, job, error)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a deflated source is inflated into a temporary file
            record = _record(item, job, "failed", "disk-full", f"the folder for temporary files: {reason}")
        else:
            record = _record(item, job, "failed", "unreadable-source", f"the source cannot be read: {reason}")
    except MemoryError:
        record = _record(item, job, "failed", "out-of-memory", "there is not enough memory for one of its frames")
    except Interrupted:
        raise
    except Exception as error:
        # A defect of ours must not cost the other files theirs. Its text may quote the file, so it is not shown.
        LOGGER.debug("internal error", exc_info=True)
        record = _record(item, job, "failed", "internal-error", f"internal error: {type(error).__name__}")
    try:
        size = item.source.stat().st_size
    except OSError:
        size = 0
    return replace(record, bytes_in=size, seconds=time.perf_counter() - begun)


def _transcode(item: Item, job: Job, stop: threading.Event) -> Record:
    if not job.overwrite and os.path.lexists(item.destination):
        return _record(item, job, "skipped", "destination-exists", "the destination exists")
    try:
        source = DicomFile(item.source)
    except SourceError as error:
        if error.code == "not-dicom":
            return _record(item, job, "skipped", error.code, str(error))
        if error.code in _COPIED_CODES:
            return _copied(item, job, stop, error.code, str(error))
        raise
    with source:
        try:
            return _outcome(source, item, job, stop)
        except GpuencError as error:
            return _failed(item, job, error, source.syntax)


def _outcome(source: DicomFile, item: Item, job: Job, stop: threading.Event) -> Record:
    if source.compressed:
        source.frame(0)  # what is cut off, or contradicts itself, is neither encoded nor copied
    if source.syntax == job.target.syntax.uid and (job.target.lossless or job.keep_lossy):
        return _copied(item, job, stop, "already-encoded", "it has the target's transfer syntax", source.syntax)
    if job.keep_lossy and source.lossy and not keeps_jpeg(source.syntax, job.target.syntax):
        return _copied(item, job, stop, "lossy-source", "its pixels are lossy already", source.syntax)
    try:
        return _encoded(source, item, job, job.target, stop)
    except ValuesOutsideBitsStored as error:
        if not job.whole_cells:
            return _copied(item, job, stop, error.code, str(error), source.syntax)
    return _encoded(source, item, job, replace(job.target, whole_cells=True), stop)


def _encoded(source: DicomFile, item: Item, job: Job, target: Target, stop: threading.Event) -> Record:
    cells = encoded_format(source, target)
    wanted = coding(target, cells, keeps_jpeg=keeps_jpeg(source.syntax, target.syntax))
    if job.dry_run:
        return _record(
            item,
            job,
            "encoded",
            destination=str(item.destination),
            source_syntax=source.syntax,
            frames=source.number_of_frames,
            pixel_bytes=source.native_bytes,
        )
    with job.budget.share(_memory_bytes(source, job)) as memory_bytes:
        return _written(source, item, job, target, cells, wanted, stop, memory_bytes)


def _memory_bytes(source: DicomFile, job: Job) -> int:
    """Return what encoding this file takes at its peak.

    Raises
    ------
    SourceError
        One frame alone takes more than the whole budget: a header may ask for 65535 × 65535 pixels.
    """
    fmt = source.format
    frame_bytes = fmt.rows * fmt.columns * fmt.samples * max(1, fmt.bits_allocated // 8)
    one = frame_bytes * _PEAK_FACTOR
    if one > job.budget.total_bytes:
        raise SourceError(
            f"one frame of {frame_bytes / 1e6:.0f} MB takes up to {one / 1e6:.0f} MB of memory to encode, and "
            f"{job.budget.total_bytes / 1e6:.0f} MB are allowed (--memory)",
            code="too-large",
        )
    return max(one, job.budget.total_bytes // 2) if source.native_bytes >= _SPREAD_BYTES else one


def _written(
    source: DicomFile,
    item: Item,
    job: Job,
    target: Target,
    cells: FrameFormat,
    wanted: Coding,
    stop: threading.Event,
    memory_bytes: int,
) -> Record:
    found = changes(source, cells, target, wanted)
    overlays = EmbeddedOverlays(source.attributes, cells.overlay_bits) if moves_overlays(cells, wanted) else None
    _make_folder(item.destination.parent)
    plugins: Counter[str] = Counter()
    fallbacks: Counter[str] = Counter()
    verified = 0
    with (
        OutputFile(
            item.destination,
            header(source, found, target.syntax.uid),
            target.syntax,
            source.number_of_frames,
            cells=cells,
            extended_offsets=job.extended_offsets,
            overwrite=job.overwrite,
        ) as output,
        closing(_results(source, job, target, wanted, overlays, memory_bytes)) as results,
    ):
        encoded_bytes = 0
        for result in results:
            if stop.is_set():
                raise Interrupted
            if isinstance(result, Failure):
                raise error_of(result)
            output.put(result.codestream)
            encoded_bytes += len(result.codestream)
            verified += result.verified
            plugins[result.plugin] += 1
            fallbacks.update(f"{failure.plugin}: {failure.code}" for failure in result.refused)
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
            final = header(source, with_ratio(found, source, encoded_bytes), target.syntax.uid)
        summary = output.finish(final, trailer(source))
    return _record(
        item,
        job,
        "encoded",
        message="; ".join(source.notes),
        destination=str(item.destination),
        source_syntax=source.syntax,
        plugins=dict(plugins),
        fallbacks=dict(fallbacks),
        frames=source.number_of_frames,
        bytes_out=summary.bytes_written,
        pixel_bytes=source.native_bytes,
        verified=verified == source.number_of_frames,
    )


def _results(
    source: DicomFile,
    job: Job,
    target: Target,
    wanted: Coding,
    overlays: EmbeddedOverlays | None,
    memory_bytes: int,
) -> Generator[Encoded | Failure]:
    decode = frame_decoder()
    frames = source.frames(expand=wanted.expand)
    if overlays:
        frames = overlays.watch(frames, decode)
    return engine.encode_frames(
        frames,
        target,
        chain(target.syntax, job.plugin, device=job.device, device_memory_bytes=job.device_memory_bytes),
        threads=job.lanes if source.native_bytes >= _SPREAD_BYTES else 1,
        memory_bytes=memory_bytes,
        verify="all" if job.verify else "none",
        decode=decode,
    )


def _copied(item: Item, job: Job, stop: threading.Event, code: str, message: str, source_syntax: str = "") -> Record:
    def check() -> None:
        if stop.is_set():
            raise Interrupted

    if job.dry_run:
        size = item.source.stat().st_size
    else:
        _make_folder(item.destination.parent)
        size = copy_file(item.source, item.destination, overwrite=job.overwrite, check=check)
    return _record(
        item,
        job,
        "copied",
        code,
        message,
        destination=str(item.destination),
        source_syntax=source_syntax,
        bytes_out=size,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DestinationError(f"the folder cannot be made: {reason}", code="destination-unwritable") from None


def _failed(item: Item, job: Job, error: GpuencError, source_syntax: str = "") -> Record:
    message = " ".join(str(error).split())
    return _record(item, job, "failed", error.code, message, source_syntax=source_syntax)


def _record(item: Item, job: Job, status: Status, reason: str = "", message: str = "", **more: Any) -> Record:
    return Record(str(item.source), status, reason=reason, message=message, target_syntax=job.target.syntax.uid, **more)
