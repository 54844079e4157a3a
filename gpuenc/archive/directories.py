"""The DICOMDIRs of a job: they say what other files are, so they are brought up to date when all of these are done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_remote
from gpuenc.archive.shares import is_share
from gpuenc.archive.stamp import Stamp
from gpuenc.errors import GpuencError

if TYPE_CHECKING:
    from gpuenc.archive.report import Record
    from gpuenc.archive.request import Job

NAME = "DICOMDIR"


def is_held(record: Record) -> bool:
    """Whether a file has to wait for its outcome until the others have theirs."""
    return record.reason == "no-pixel-data" and Path(record.source).name.upper() == NAME


def brought_up_to_date(record: Record, job: Job) -> Record:
    """Return the outcome of a DICOMDIR that was copied, once it says what its files have become.

    Where that cannot be done, or would change a source, the copy is as it was, and the outcome says that it is stale.
    """
    from gpuenc.archive.dicomdir import is_dicomdir, rebuild

    source, destination = Path(record.source), Path(record.destination)
    if is_remote(source) or is_remote(destination):
        return replace(record, reason="dicomdir-stale", message="in a store it is copied as it is")
    if job.dry_run or not is_dicomdir(source):
        return record
    if record.status != "copied":  # in place
        message = "it may say of its files what they were before they were replaced"
        return replace(record, reason="dicomdir-stale", message=message)
    if job.journal and is_share(job.journal):
        message = "files that it names may be other shards', which may not be done yet"
        return replace(record, reason="dicomdir-stale", message=message)
    try:
        made = rebuild(source, destination, fsync=job.durability != "none")
    except (GpuencError, OSError) as error:
        return replace(record, reason="dicomdir-stale", message=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - whatever its bytes may do to us, the job has other files
        return replace(record, reason="dicomdir-stale", message=f"internal error: {type(error).__name__}")
    stamp = Stamp.of_any(destination)
    said = f"{made.changed} of {made.files} records changed"
    return replace(
        record,
        reason="dicomdir-rebuilt" if made.changed else record.reason,
        message=f"{said}; {made.missing} files it names are not there" if made.missing else said,
        bytes_out=made.bytes_written,
        output_digest=made.digest,
        output_mtime_ns=stamp.mtime_ns if stamp else 0,
    )
