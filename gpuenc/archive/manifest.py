"""A job written down before it is begun: which files, in which shards, and what becomes of them.

A manifest is a file of JSON Lines: the job, one line per shard, and a last line with the totals, without which it is
not complete. A shard is a unit of work of at most 1,024 files and 2 GiB; machines that share a job out among themselves
each take every N-th of them.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gpuenc.archive.addresses import is_remote
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item, LeftOut
from gpuenc.dicom.digests import file_digest
from gpuenc.dicom.regular import regular
from gpuenc.errors import GpuencError, JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

BEGINNING = b'{"gpuenc_manifest": 1, '
SHARD_FILES, SHARD_BYTES = 1024, 2 << 30
# What of a job decides about its outputs; the rest belongs to the machine that runs it.
_SWITCHES = ("keep_lossy", "whole_cells", "keep_unsupported", "extended_offsets", "overwrite", "in_place")
_KEPT = ("plugin", "verify", "verify_share", *_SWITCHES)


class Writer:
    """Writes a manifest as files are found. Memory does not grow with their number.

    Parameters
    ----------
    stream : binary file
        Where to write.
    job : Job
        What becomes of the files; its paths are absolute.
    """

    def __init__(self, stream: BinaryIO, job: Job) -> None:
        self._stream, self._destination = stream, job.destination
        self.files = self.bytes_total = self.shards = 0
        self.complete = False
        self._shard: list[list[str | int]] = []
        self._shard_bytes = 0
        self._line({"gpuenc_manifest": 1, "job": _as_json(job)})

    def add(self, item: Item, size_bytes: int) -> None:
        """Write down one file with the size of its source."""
        if self._shard and (len(self._shard) >= SHARD_FILES or self._shard_bytes + size_bytes > SHARD_BYTES):
            self._close_shard()
        entry: list[str | int] = [item.source_path, os.path.relpath(item.place, self._destination), size_bytes]
        if item.left_out:
            entry += [item.left_out.status, item.left_out.code, item.left_out.message]
        self._shard.append(entry)
        self._shard_bytes += size_bytes
        self.files += 1
        self.bytes_total += size_bytes

    def finish(self) -> None:
        """Write the last shard and the totals."""
        if self._shard:
            self._close_shard()
        self.complete = True
        self._line({"files": self.files, "bytes": self.bytes_total, "shards": self.shards})

    def _close_shard(self) -> None:
        self._line({"shard": self.shards, "bytes": self._shard_bytes, "files": self._shard})
        self.shards += 1
        self._shard, self._shard_bytes = [], 0

    def _line(self, values: dict[str, Any]) -> None:
        self._stream.write(json.dumps(values).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of a manifest's shards: the `index`-th of `count`, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what ``"I/N"`` means.

        Raises
        ------
        JobError
            ``manifest-wrong``: it means nothing.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise JobError(f"a shard is I/N with I from 1 to N, such as 3/16, not '{text}'", code="manifest-wrong")
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """How files that belong to this share are called."""
        return "journal" if self.count == 1 else f"shard-{self.index}-of-{self.count}"


@dataclass(slots=True)
class Manifest:
    """A manifest that is read; every pass over it reads the file again.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    job : Job
        What becomes of the files.

    Raises
    ------
    JobError
        ``manifest-wrong``: it is no manifest, or not complete.
    """

    path: Path
    job: Job = field(init=False)

    def __post_init__(self) -> None:
        try:
            with open(self.path, "rb", opener=regular) as stream:
                first = stream.readline()
                if not first.startswith(BEGINNING):
                    raise JobError(f"{self.path} is no manifest", code="manifest-wrong")
                self.job = _job_of(json.loads(first)["job"])
                stream.seek(max(len(first), stream.seek(0, os.SEEK_END) - 200))
                if b'"shards": ' not in stream.read().splitlines()[-1]:
                    raise ValueError
        except OSError as error:
            raise JobError(f"{self.path} cannot be read: {error.strerror}", code="manifest-wrong") from None
        except GpuencError:
            raise
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise JobError(f"the manifest {self.path} is not complete", code="manifest-wrong") from None

    def items(self, share: Share = Share()) -> Iterator[Item]:
        """Yield the files of one share, in order.

        Raises
        ------
        JobError
            ``manifest-wrong``: a line cannot be read.
        """
        with open(self.path, "rb", opener=regular) as stream:
            next(stream)
            for number, line in enumerate(stream):
                try:
                    # Each shard says which one it is, and the last line how many there were: none is missed.
                    if line.startswith(b'{"files": '):
                        if json.loads(line)["shards"] != number:
                            raise ValueError
                    elif not line.startswith(b'{"shard": %d, ' % number):
                        raise ValueError
                    elif number % share.count == share.index - 1:
                        files = json.loads(line)["files"]
                        yield from (self._item(*entry) for entry in files)
                except (ValueError, KeyError, TypeError, RecursionError):
                    raise JobError(f"line {number + 2} of {self.path} is wrong", code="manifest-wrong") from None

    def digest(self) -> str:
        """Return XXH3-128 of the file: which manifest it is, whatever it is called."""
        try:
            return file_digest(self.path)
        except OSError as error:
            raise JobError(f"{self.path} cannot be read: {error.strerror}", code="manifest-wrong") from None

    def sources(self) -> Iterator[str]:
        """Yield the path of every file."""
        for item in self.items():
            yield item.source_path

    def _item(self, source: str, place: str, size_bytes: int, *left_out: Any) -> Item:
        _demand_path(source)
        if type(size_bytes) is not int or size_bytes < 0 or not isinstance(place, str) or "\0" in place:
            raise ValueError
        if self.job.in_place:
            return Item(source, source, _left_out(*left_out) if left_out else None)
        destination = self.job.destination / place
        inside = Path(os.path.normpath(destination))
        if inside == self.job.destination or not inside.is_relative_to(self.job.destination):
            raise ValueError  # nobody but us may have written that, and we have not
        return Item(source, destination, _left_out(*left_out) if left_out else None)


def _demand_path(path: object) -> Path:
    """Return a path that means the same everywhere; others are not written, and would be read in another place."""
    if not isinstance(path, str) or "\0" in path or not (os.path.isabs(path) or is_remote(path)):
        raise ValueError
    return Path(path)


def _left_out(status: str, code: str, message: str) -> LeftOut:
    if status not in ("skipped", "failed") or not isinstance(code, str) or not isinstance(message, str):
        raise ValueError
    return LeftOut("skipped" if status == "skipped" else "failed", code, message)


def _as_json(job: Job) -> dict[str, Any]:
    chosen = job.target
    return {
        "sources": [str(source) for source in job.sources],
        "output": str(job.destination),
        "to": chosen.syntax.uid,
        "options": {
            "quality": chosen.quality,
            "psnrs": chosen.psnrs,
            "ratios": chosen.ratios,
            "near": chosen.near,
            "lossless": chosen.lossless or None,
        },
        "backup": str(job.backup) if job.backup else None,
    } | {name: getattr(job, name) for name in _KEPT}


def _job_of(values: dict[str, Any]) -> Job:
    values = {"keep_unsupported": False} | values  # manifests of earlier versions do not say it
    options, share = values["options"], values["verify_share"]
    if (
        not isinstance(values["sources"], list)
        or not isinstance(values["plugin"], str)
        or values["verify"] not in ("all", "independent", "none")
        or type(share) not in (int, float)
        or not 0 < share <= 1
        or any(type(values[name]) is not bool for name in _SWITCHES)
    ):
        raise ValueError
    return Job(
        sources=tuple(map(_demand_path, values["sources"])),
        destination=_demand_path(values["output"]),
        target=target(find(values["to"]), **options | {name: tuple(options[name]) for name in ("psnrs", "ratios")}),
        backup=None if values["backup"] is None else _demand_path(values["backup"]),
        **{name: values[name] for name in _KEPT},
    )
