"""Who does a job's files: threads of this process in `archive/threads.py`, processes in `archive/workers.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gpuenc.errors import EncodeFailed, GpuencError, InvalidOption, JobError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.archive.folders import Identity
    from gpuenc.archive.report import Record
    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item
    from gpuenc.dicom.atomic import Unnamed
    from gpuenc.plugins import Plugin

# Files handed out at once, for each that can be in work: enough that nobody waits for the next.
QUEUED_PER_FILE = 4


@dataclass(frozen=True, slots=True)
class Task:
    """One file to do: its number in the job, what it is, the size of its source in bytes, and the job's destination."""

    number: int
    item: Item
    size_bytes: int = 0
    # Which folder it was when the job began.
    destination: Identity | None = None


def demand_plugins(job: Job) -> list[Plugin]:
    """Return what encodes the job's files.

    Raises
    ------
    JobError
        ``invalid-option``: there is no such plug-in; ``device-unavailable``, ``encode-failed``: nothing can encode.
    """
    # The process that only hands files out does not need it.
    from gpuenc.registry import chain

    try:
        return chain(job.target.syntax, job.plugin, device=job.device, device_memory_bytes=job.device_memory_bytes)
    except GpuencError as error:
        raise JobError(str(error), code=error.code) from None
    except ValueError as error:
        raise JobError(str(error), code=InvalidOption.code) from None
    except RuntimeError as error:
        raise JobError(str(error), code=EncodeFailed.code) from None


class Pool(Protocol):
    """Does tasks, several at a time. Used by one thread."""

    @property
    def room(self) -> int:
        """How many more tasks it takes now."""

    @property
    def outstanding(self) -> int:
        """Tasks that were given and have no outcome yet."""

    @property
    def gpu_unused(self) -> str:
        """Why no GPU is used although one could be; known once `demand_ready` has returned."""

    @property
    def unnamed(self) -> dict[int, Unnamed]:
        """Outputs whose outcomes `take` has returned and that wait for their names, by the number of their task.

        There are some only for `Job.durability` "shard"; who names them takes them out.
        """

    @property
    def dropped(self) -> set[int]:
        """Tasks that a stop has kept from being begun, by their numbers: nothing was written under their names."""

    def demand_ready(self) -> None:
        """Wait until it is known whether anything can be done.

        Raises
        ------
        JobError
            Nothing can: its code says why.
        """

    def give(self, tasks: Sequence[Task]) -> None:
        """Have tasks done; each comes back from `take` once."""

    def take(self, timeout_s: float) -> list[tuple[int, Record]]:
        """Return the outcomes there are, by the number of their task; wait so long for the first.

        Raises
        ------
        JobError
            Nothing can be done any more.
        """

    def stop(self) -> None:
        """Begin nothing more; what is in work still gets its outcome."""

    def close(self) -> None:
        """Give up what is in work without a trace in the destination, and end; once more does nothing."""

    def states(self) -> list[str]:
        """Return a line on each worker, for people."""
