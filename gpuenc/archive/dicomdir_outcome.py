"""What becomes of a job's DICOMDIRs: they say what other files are, so they are brought up to date after all of these.

Of a job that is shared out no machine knows when that is, so its shards leave their copies to whoever joins their
reports.
"""

from __future__ import annotations

import os
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
    from gpuenc.archive.dicomdir import is_dicomdir

    source, destination = Path(record.source), Path(record.destination)
    if is_remote(source) or is_remote(destination):
        return record.but(reason="dicomdir-stale", message="in a store it is copied as it is")
    if job.dry_run or not is_dicomdir(source):
        return record
    if record.status != "copied":  # in place
        message = "it may say of its files what they were before they were replaced"
        return record.but(reason="dicomdir-stale", message=message)
    if job.journal and is_share(job.journal):
        message = "files that it names may be other shards': `gpuenc merge-reports --manifest` brings it up to date"
        return record.but(reason="dicomdir-stale", message=message)
    return _rebuilt(record, source, destination, fsync=job.durability != "none", token=job.token)


def completed(record: Record, outputs: Path) -> Record:
    """Return the outcome of a DICOMDIR that a shard left as it was, now that all files of the job have theirs.

    Parameters
    ----------
    record : Record
        What the shard's report says of it; any other is returned as it is.
    outputs : Path
        The folder of the job's outputs, outside of which nothing is changed whatever a report says.
    """
    from gpuenc.archive.dicomdir import is_dicomdir

    if record.reason != "dicomdir-stale" or record.status != "copied":
        return record
    place = Path(record.destination)
    if not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(outputs)) or not is_dicomdir(place):
        return record.but(message="its copy is not among the outputs here")
    # The copy is what the source was, or was brought up to date before; the source may be out of reach.
    return _rebuilt(record, place, place, fsync=True)


def _rebuilt(record: Record, source: Path, destination: Path, *, fsync: bool, token: str = "") -> Record:
    from gpuenc.archive.dicomdir import rebuild

    try:
        made = rebuild(source, destination, fsync=fsync, token=token)
    except (GpuencError, OSError) as error:
        return record.but(reason="dicomdir-stale", message=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - whatever its bytes may do to us, the job has other files
        return record.but(reason="dicomdir-stale", message=f"internal error: {type(error).__name__}")
    stamp = Stamp.of_any(destination)
    said = f"{made.changed} of {made.files} records changed"
    said += f"; {made.missing} files it names are not there" if made.missing else ""
    return record.but(
        # Of one that was brought up to date before, nothing changes any more.
        reason="dicomdir-rebuilt" if made.changed or made.digest != record.output_digest else "no-pixel-data",
        message="; ".join(filter(None, (said, made.note))),
        bytes_out=made.bytes_written,
        output_digest=made.digest,
        output_mtime_ns=stamp.mtime_ns if stamp else 0,
    )
