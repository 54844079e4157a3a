"""What an interrupted run had replaced without writing down: looked at again, and believed only when it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuenc.archive.inplace import backup_of
from gpuenc.archive.stamp import Stamp
from gpuenc.dicom.digests import file_digest
from gpuenc.errors import CodecError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item
    from gpuenc.dicom.source import DicomFile


def replaced_before(
    item: Item, job: Job, output: DicomFile, stop: threading.Event, check: Callable[[], None]
) -> dict[str, Any]:
    """Return what a record says of a source that an interrupted run of this job has replaced; nothing of others.

    Parameters
    ----------
    item : Item
        The file.
    job : Job
        What was asked for.
    output : DicomFile
        What is in the source's place now.
    stop : threading.Event
        Gives it up.
    check : callable
        Raises what says so.

    Raises
    ------
    CodecError
        ``verify-mismatch``: it is not what its backup holds.
    GpuencError, OSError
        One of the two cannot be read.
    """
    backup = backup_of(item, job)
    original = Stamp.of_any(backup) if backup and item.replaces else None
    if backup is None or original is None:
        return {}
    # Seldom needed, and long to load.
    from gpuenc.archive.findings import Stopped
    from gpuenc.archive.pairs import compare_pair
    from gpuenc.archive.recheck import frame_crc32
    from gpuenc.archive.scan import Item as Pair

    try:
        found = compare_pair(Pair(backup, item.source), job.budget, independent=False, stop=stop)
    except Stopped:
        check()
        raise
    if found.verdict != "equal":
        raise CodecError(
            f"what an interrupted run put in its place is not what its backup holds: {found.message}",
            code="verify-mismatch",
        )
    crc32 = []
    for index in range(output.number_of_frames):
        check()
        crc32.append(frame_crc32(output.frame(index)))
    return {
        "destination": str(item.destination),
        "bytes_in": original.size_bytes,
        "source_mtime_ns": original.mtime_ns,
        "bytes_out": Stamp.of(item.source).size_bytes,
        "frames": output.number_of_frames,
        "pixel_bytes": output.native_bytes,
        "verified": True,
        "crc32": tuple(crc32),
        "source_digest": file_digest(backup, check=check),
        "output_digest": file_digest(item.source, check=check),
    }


def why_left(item: Item, job: Job) -> str:
    """Return why a source that has the target's transfer syntax stays as it is, in words for people."""
    if job.in_place and item.replaces and job.backup is None:
        # Only a backup would tell the work of the run that was interrupted from a file that always was like this.
        return "it has the target's transfer syntax: perhaps replaced before the interruption; not compared"
    return "it has the target's transfer syntax"
