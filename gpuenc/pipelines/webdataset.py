"""Archives as WebDataset shards: tar files of codestreams and JSON, the same byte for byte whenever they are made.

What is in which shard follows from the sources, their order and the options alone. A journal beside the shards says
where the next one begins, and, once everything is done and ``index.json`` says what there is, for which job that was.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from gpuenc._version import __version__
from gpuenc.archive.scan import scan
from gpuenc.dicom.atomic import temporaries_of
from gpuenc.dicom.digests import file_digest, xxh3_128
from gpuenc.errors import DestinationError, JobError
from gpuenc.pipelines import shard_folder
from gpuenc.pipelines.shard_folder import INDEX, JOURNAL
from gpuenc.pipelines.shard_process import WorkerStream
from gpuenc.pipelines.shard_sources import Encoding, SampleStream, Trouble
from gpuenc.pipelines.tar_shard import TarShard

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from gpuenc.pipelines.shard_sources import Sample

_SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What `gpuenc shards` was asked for.

    Parameters
    ----------
    sources : tuple of Path
        Files and folders that exist, walked as `gpuenc transcode` does.
    destination : Path
        Folder of the shards.
    encoding : Encoding
        What becomes of frames.
    shard_samples, shard_bytes : int
        Most samples, and most bytes, of one shard; one sample is always let in.
    resume : bool
        Go on where an interrupted job left off.
    isolated : bool
        Files are opened and encoded in a process of their own, which may crash or hang; see `WorkerStream`. Shards are
        the same.
    """

    sources: tuple[Path, ...]
    destination: Path
    encoding: Encoding
    shard_samples: int = 10_000
    shard_bytes: int = 1 << 30
    resume: bool = False
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One shard: its name, how many samples and bytes it has, and its XXH3-128."""

    name: str
    samples: int
    bytes: int
    xxh3: str


@dataclass(slots=True)
class Summary:
    """What there is now.

    Parameters
    ----------
    paths : sequence of Path
        The files found, in order; troubles name them by their number.
    shards : list of ShardRecord
        In order.
    troubles : list of Trouble
        What gave no sample.
    interrupted : bool
        The job was told to stop and can be resumed.
    """

    paths: Sequence[Path]
    shards: list[ShardRecord] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    interrupted: bool = False

    @property
    def samples(self) -> int:
        """Samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def failed(self) -> list[Trouble]:
        """Troubles of files that should have given samples."""
        return [trouble for trouble in self.troubles if not trouble.skipped]


def write_shards(job: ShardJob, stop: threading.Event) -> Summary:
    """Write the shards of a job.

    Parameters
    ----------
    job : ShardJob
        What to do.
    stop : threading.Event
        Gives it up; the shard in work is dropped, and those before it stay.

    Raises
    ------
    JobError
        ``journal-unfinished``: an interrupted job is there, and this is not to resume it; ``journal-differs``: it was
        asked for something else, or sources have changed; ``journal-missing``; ``journal-unusable``;
        ``journal-in-use``: another process is at work in the folder.
    DestinationError
        ``destination-exists`` where there are shards already; ``disk-full`` and others.
    RuntimeError
        No plug-in is available.
    """
    return _Run(job).run(stop)


class _Run:
    def __init__(self, job: ShardJob) -> None:
        self._job = job
        self._folder = job.destination
        paths: list[Path] = []
        left_out: list[Trouble] = []
        for item in scan(job.sources, self._folder):
            if item.left_out:
                why = item.left_out
                left_out.append(Trouble(len(paths), why.code, why.message, skipped=why.status == _SKIPPED))
            paths.append(item.source)
        self._fingerprint = _fingerprint(job, paths)
        # Temporary files have names that the same job finds again.
        self._token = self._fingerprint[:12]
        self.summary = Summary(paths)
        self._left_out = left_out
        self._start = (0, 0)
        # Where the last of the shards began, one for each that may be taken back; `_start` is where the next one does.
        self._starts: list[tuple[int, int]] = []

    def run(self, stop: threading.Event) -> Summary:
        made = shard_folder.make(self._folder)
        with shard_folder.only_job(self._folder):
            if self._prepare():
                self.summary.troubles = _sorted([*self.summary.troubles, *self._left_out])
                return self.summary
            self._write_all(stop)
            if not (self.summary.interrupted or self.summary.shards or self.summary.failed):
                shard_folder.leave(self._folder, made)  # and no index of nothing
        return self.summary

    def _write_all(self, stop: threading.Event) -> None:
        while (lost := self._write_some(stop)) is not None:
            self._take_back(lost)
        troubles = self.summary.troubles
        self.summary.troubles = _sorted([*troubles, *self._left_out])
        if not self.summary.interrupted and (self.summary.shards or self.summary.failed):
            self._write_journal((len(self.summary.paths), 0), troubles)
            self._write_index()

    def _write_some(self, stop: threading.Event) -> Trouble | None:
        """Write shards to the end, or up to a file whose samples are of no use after all, whose trouble is returned."""
        # What is not read is no file to open.
        out = {trouble.file for trouble in self._left_out}
        make = WorkerStream if self._job.isolated else SampleStream
        stream = make(self.summary.paths, self._job.encoding, self._start, without=out, stopped=stop.is_set)
        before = self.summary.troubles
        with ExitStack() as stack:
            samples = stack.enter_context(closing(iter(stream)))
            shard: TarShard | None = None
            for sample in samples:
                if stop.is_set() or stream.lost is not None:
                    break
                if shard is not None and self._full(shard, sample):
                    self._finish(shard, (sample.file, sample.frame), [*before, *stream.troubles])
                    shard = None
                if shard is None:
                    # A shard that was finished right before an interrupted job's end is not in its journal.
                    path = self._folder / shard_folder.shard_name(len(self.summary.shards))
                    shard = stack.enter_context(TarShard(path, overwrite=self._job.resume, token=self._token))
                shard.add(f"{sample.file:08d}-{sample.frame:06d}", sample.members)
            self.summary.interrupted = stop.is_set()
            if shard is not None and not self.summary.interrupted and stream.lost is None:
                self._finish(shard, (len(self.summary.paths), 0), [*before, *stream.troubles])
        self.summary.troubles = [*before, *stream.troubles]
        return None if self.summary.interrupted else stream.lost

    def _take_back(self, lost: Trouble) -> None:
        """Leave out a file whose samples are of no use, and remove the shards that have some.

        Raises
        ------
        JobError
            ``journal-differs``: an earlier version made some of them, and did not say where they begin.
        """
        gone = []
        while self._starts and self._start > (lost.file, 0):
            self._start = self._starts.pop()
            gone.append(self.summary.shards.pop().name)
        if self._start > (lost.file, 0):
            raise JobError(
                f"shards of an earlier version hold samples of a file that has to be left out ({lost.code}): begin "
                "anew in another folder",
                code="journal-differs",
            )
        kept = [each for each in self.summary.troubles if each.file != lost.file and _at(each) < self._start]
        self.summary.troubles = kept
        self._left_out.append(lost)
        self._write_journal(self._start, kept)
        for name in gone:
            os.unlink(self._folder / name)

    def _prepare(self) -> bool:
        """Find out where to begin, and refuse to where something else is there; return whether all is done already."""
        names = sorted(os.listdir(self._folder))
        if INDEX in names:
            if self._job.resume and JOURNAL in names:
                self._restore(shard_folder.loaded(self._folder / JOURNAL))
                return True
            ours = shard_folder.whose(self._folder, INDEX)
            there = f"are finished shards in {self._folder}" if ours else f"is another's {INDEX} in {self._folder}"
            raise DestinationError(f"there {there}: {_instead(ours)}", code="destination-exists")
        if JOURNAL in names:
            if not self._job.resume:
                raise JobError(
                    f"an unfinished job is in {self._folder}: --resume goes on with it", code="journal-unfinished"
                )
            self._restore(shard_folder.loaded(self._folder / JOURNAL))
        elif any(shard_folder.is_shard_name(name) for name in names):
            raise DestinationError(
                f"there are shards of another job in {self._folder}: {_instead('')}", code="destination-exists"
            )
        elif self._job.resume:
            raise JobError(f"there is no job to resume in {self._folder}", code="journal-missing")
        else:
            self._write_journal((0, 0), [])
        numbers = range(len(self.summary.shards) + 1)
        for name in (INDEX, JOURNAL, *map(shard_folder.shard_name, numbers)):
            for left in temporaries_of(os.fspath(self._folder / name), self._token):
                with suppress(FileNotFoundError):
                    os.unlink(left)
        return False

    def _restore(self, said: dict[str, Any]) -> None:
        if said.get("fingerprint") != self._fingerprint:
            raise JobError(
                "the job to resume had other sources, other options or another version of gpuenc, or a source has "
                f"changed: {_instead(shard_folder.whose(self._folder, JOURNAL))}",
                code="journal-differs",
            )
        try:
            self.summary.shards = [ShardRecord(**each) for each in said["shards"]]
            self.summary.troubles = [Trouble(**each) for each in said["troubles"]]
            file, frame = said["next"]
            self._start = int(file), int(frame)
            # Journals of an earlier version have none.
            self._starts = [(int(file), int(frame)) for file, frame in said.get("starts", [])]
            named = all(shard_folder.is_shard_name(shard.name) for shard in self.summary.shards)
            order = [(0, 0), *self._starts, self._start, (len(self.summary.paths), 0)]
            inside = order == sorted(order) and min(frame for _, frame in order) >= 0
            inside = inside and len(self._starts) <= len(self.summary.shards)
            known = all(0 <= each.file < len(self.summary.paths) for each in self.summary.troubles)
        except (KeyError, TypeError, ValueError):
            named = inside = known = False
        if not (named and inside and known):
            raise JobError("the journal cannot be read", code="journal-unusable") from None
        for shard in self.summary.shards:
            path = self._folder / shard.name
            if not path.is_file() or path.stat().st_size != shard.bytes or file_digest(path) != shard.xxh3:
                raise JobError(f"{shard.name} is not what the journal says it is", code="journal-differs")

    def _full(self, shard: TarShard, sample: Sample) -> bool:
        grown = shard.size_bytes + shard.size_of(sample.members)
        return shard.samples >= self._job.shard_samples or grown > self._job.shard_bytes

    def _finish(self, shard: TarShard, following: tuple[int, int], troubles: list[Trouble]) -> None:
        digest = shard.finish()
        name = shard_folder.shard_name(len(self.summary.shards))
        self.summary.shards.append(ShardRecord(name, shard.samples, shard.size_bytes, digest))
        self._starts.append(self._start)
        self._start = following
        self._write_journal(following, [each for each in troubles if _at(each) < following])

    def _write_journal(self, following: tuple[int, int], troubles: list[Trouble]) -> None:
        said = {
            "fingerprint": self._fingerprint,
            "next": list(following),
            "shards": [asdict(shard) for shard in self.summary.shards],
            "starts": [list(start) for start in self._starts],
            "troubles": [asdict(trouble) for trouble in _sorted(troubles)],
        }
        shard_folder.write(self._folder / JOURNAL, said, self._token, overwrite=True)

    def _write_index(self) -> None:
        said = {
            "format": shard_folder.FORMAT,
            "transfer_syntax_uid": self._job.encoding.target.syntax.uid,
            "samples": self.summary.samples,
            "files": len(self.summary.paths),
            "shards": [asdict(shard) for shard in self.summary.shards],
            "without": [{"file": each.file, "frame": each.frame, "code": each.code} for each in self.summary.troubles],
        }
        shard_folder.write(self._folder / INDEX, said, self._token, overwrite=False)


def _instead(ours: str) -> str:
    """Return what to do where something is in the way, of which that may be removed; other files are not ours."""
    return "choose another --output" + (f", or remove what it left: {ours}" if ours else "")


def _at(trouble: Trouble) -> tuple[int, int]:
    return trouble.file, -1 if trouble.frame is None else trouble.frame


def _sorted(troubles: list[Trouble]) -> list[Trouble]:
    return sorted(troubles, key=_at)


def _fingerprint(job: ShardJob, paths: Sequence[Path]) -> str:
    """Return a digest of everything that decides what is in which shard."""
    encoding = job.encoding
    digest = xxh3_128()
    options = (__version__, encoding.target, encoding.plugin, encoding.verify, encoding.uids)
    digest.update(repr((*options, job.shard_samples, job.shard_bytes)).encode())
    for path in paths:
        try:
            found = os.stat(path)
            stamp = (found.st_size, found.st_mtime_ns)
        except OSError:
            stamp = (-1, -1)
        digest.update(repr((os.fspath(path.absolute()), stamp)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
