"""Files as a stream of samples, in order: encoded in batches that span files, or taken as they are."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpuenc import engine
from gpuenc.archive.stamp import Stamp
from gpuenc.coding import coding
from gpuenc.dicom.cells import encoded_format
from gpuenc.dicom.decoding import frame_decoder
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import GpuencError, SourceError
from gpuenc.frames import Coded, Failure
from gpuenc.pipelines.sample import EXTENSIONS, Description, encoded_as
from gpuenc.registry import chain
from gpuenc.syntaxes import keeps_jpeg

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Sequence
    from pathlib import Path

    from gpuenc.coding import Coding
    from gpuenc.frames import Encoded, Frame, FrameFormat
    from gpuenc.pipelines.sample import Uids
    from gpuenc.targets import Target
    from gpuenc.verification import Verify

# No image, or none that has frames of samples: nothing is wrong with such files.
_SKIPPED_CODES = frozenset({"not-dicom", "no-pixel-data", "float-pixel-data", "video"})
_HELD_BYTES = 4 << 20
CHANGED = "the source changed while it was read"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How frames are encoded, and what is said of them.

    Parameters
    ----------
    target : Target
        What they become.
    plugin : str
        Label of the only plug-in to use; empty for all.
    verify : {'all', 'independent', 'none'}
        As for `Encoder.encode`.
    device, device_memory_bytes, threads
        As for `Encoder.iter_encode`.
    uids : {'hashed', 'plain', 'none'}
        As for `Description`.
    """

    target: Target
    plugin: str = ""
    verify: Verify = "all"
    device: str | int = "auto"
    device_memory_bytes: int | None = None
    threads: int | None = None
    uids: Uids = "hashed"


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame: which one of which file, both counted from 0, and the members of its place in a shard."""

    file: int
    frame: int
    members: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a file, or a frame of it, gives no sample; `skipped` where nothing is wrong with that."""

    file: int
    code: str
    message: str
    frame: int | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """A file with frames to give.

    Parameters
    ----------
    number : int
        Which one.
    source : DicomFile
        Open.
    stamp : Stamp
        Of the file before it was opened.
    first : int
        Its first frame that is wanted.
    cells : FrameFormat
        Of the native cells that are encoded.
    wanted : Coding or None
        What they become; None where codestreams are taken as they are.
    """

    number: int
    source: DicomFile
    stamp: Stamp
    first: int
    cells: FrameFormat
    wanted: Coding | None

    def description(self, target: Target, uids: Uids) -> Description:
        """Return what is said of its frames."""
        stored = encoded_as(self.cells, self.wanted) if self.wanted else self.source.format
        lossless = self.wanted.lossless if self.wanted else target.lossless and target.syntax.loss == "never"
        return Description(self.source, stored, target.syntax, lossless=lossless, uids=uids)


class SampleStream:
    """The samples of files, in order, and what gave none.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    encoding : Encoding
        What becomes of their frames.
    start : tuple of int
        The first file and frame that are wanted.
    without : collection of int
        Files that are not opened.
    stopped : callable
        Whether to open no more of them.

    Attributes
    ----------
    troubles : list of Trouble
        What gave no sample so far.
    lost : Trouble or None
        Of a file that changed after samples of it may have been yielded, which are of no use then. No other is opened.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        encoding: Encoding,
        start: tuple[int, int] = (0, 0),
        *,
        without: Collection[int] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._without = without
        self._stopped = stopped
        self._paths = paths
        self._encoding = encoding
        self._next, self._first_frame = start
        self._ahead: Opened | None = None
        self.troubles: list[Trouble] = []
        self.lost: Trouble | None = None

    def __iter__(self) -> Generator[Sample]:
        """Yield every sample."""
        try:
            while opened := self._open_next():
                if opened.wanted is None:
                    yield from self._taken(opened)
                else:
                    self._ahead = opened
                    yield from self._encoded()
        finally:
            if self._ahead:
                self._ahead.source.close()

    def _open_next(self) -> Opened | None:
        """Return the next file that has samples; None behind the last."""
        if self._ahead:
            opened, self._ahead = self._ahead, None
            return opened
        while self._next < len(self._paths) and self.lost is None and not self._stopped():
            number, first = self._next, self._first_frame
            self._next, self._first_frame = number + 1, 0
            if number in self._without:
                continue
            try:
                return self._open(number, first)
            except GpuencError as error:
                skipped = error.code in _SKIPPED_CODES
                self.troubles.append(Trouble(number, error.code, _line(error), skipped=skipped))
            except OSError as error:
                why = error.strerror or type(error).__name__
                self.troubles.append(Trouble(number, "unreadable-source", f"the source cannot be read: {why}"))
        return None

    def _open(self, number: int, first: int) -> Opened:
        target = self._encoding.target
        stamp = Stamp.of(self._paths[number])
        source = DicomFile(self._paths[number], name=str(number), hold_bytes=_HELD_BYTES)
        try:
            if source.held is not None and Stamp.of_any(source.path) != stamp:
                raise SourceError(CHANGED, code="source-changed")
            source.demand_described_once()
            if source.syntax == target.syntax.uid and source.compressed:
                source.frame(0)
                return Opened(number, source, stamp, first, source.format, None)
            cells = encoded_format(source, target)
            wanted = coding(target, cells, keeps_jpeg=keeps_jpeg(source.syntax, target.syntax))
            return Opened(number, source, stamp, first, cells, wanted)
        except BaseException:
            source.close()
            raise

    def _taken(self, opened: Opened) -> Iterator[Sample]:
        with opened.source:
            try:
                description = opened.description(self._encoding.target, self._encoding.uids)
            except GpuencError as error:
                self.troubles.append(Trouble(opened.number, error.code, _line(error)))
                return
            for frame in self._frames(opened):
                if isinstance(frame.pixels, Coded):
                    yield self._sample(opened.number, frame.ref.index, frame.pixels.codestream, description, None)

    def _encoded(self) -> Iterator[Sample]:
        """Yield the samples of files in a row that have to be encoded, which share batches and lanes."""
        described: deque[tuple[int, Description]] = deque()
        with closing(self._results(described)) as results:
            for result in results:
                number, index = int(result.ref.source), result.ref.index
                while described[0][0] != number:
                    described.popleft()
                if isinstance(result, Failure):
                    self.troubles.append(Trouble(number, result.code, _line(result.reason), index))
                    continue
                yield self._sample(number, index, result.codestream, described[0][1], result.crc32)

    def _results(self, described: deque[tuple[int, Description]]) -> Generator[Encoded | Failure]:
        encoding = self._encoding
        target = encoding.target
        return engine.encode_frames(
            self._frames_to_encode(described),
            target,
            chain(
                target.syntax, encoding.plugin, device=encoding.device, device_memory_bytes=encoding.device_memory_bytes
            ),
            threads=encoding.threads,
            verify=encoding.verify,
            decode=frame_decoder(),
        )

    def _frames_to_encode(self, described: deque[tuple[int, Description]]) -> Iterator[Frame]:
        while opened := self._open_next():
            if opened.wanted is None:
                self._ahead = opened
                return
            with opened.source:
                try:
                    description = opened.description(self._encoding.target, self._encoding.uids)
                except GpuencError as error:
                    self.troubles.append(Trouble(opened.number, error.code, _line(error)))
                    continue
                described.append((opened.number, description))
                yield from self._frames(opened)

    def _frames(self, opened: Opened) -> Iterator[Frame]:
        """Yield a file's frames up to the first that cannot be read, or is not of the file that was opened."""
        palette = opened.cells.palette
        for index in range(opened.first, opened.source.number_of_frames):
            try:
                frame = opened.source.frame(index)
            except (GpuencError, OSError) as error:
                if self._has_changed(opened):
                    return
                code = error.code if isinstance(error, GpuencError) else "unreadable-source"
                self.troubles.append(Trouble(opened.number, code, _line(error), index))
                return
            if self._has_changed(opened):
                return
            yield replace(frame, format=replace(frame.format, palette=palette)) if palette else frame

    def _has_changed(self, opened: Opened) -> bool:
        # What is held was looked at when it was opened, and nothing is read any more.
        if opened.source.held is not None or Stamp.of_any(opened.source.path) == opened.stamp:
            return False
        self.lost = Trouble(opened.number, "source-changed", CHANGED)
        return True

    def _sample(
        self, number: int, index: int, codestream: bytes, description: Description, crc32: int | None
    ) -> Sample:
        extension = EXTENSIONS[self._encoding.target.syntax.family]
        return Sample(number, index, {extension: codestream, "json": description.frame(index, crc32)})


def _line(error: object) -> str:
    return " ".join(str(error).split())
