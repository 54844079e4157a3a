"""`FrameDataset`: the frames of an archive, each by its number."""

from __future__ import annotations

import multiprocessing
import operator
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Self

from gpuenc.cpu.stored import stored_values
from gpuenc.devices import choice
from gpuenc.errors import GpuencError, InvalidOption
from gpuenc.pipelines import decoding, listing
from gpuenc.pipelines.display import Display, Window, shown
from gpuenc.pipelines.indexing import changes, index_of
from gpuenc.pipelines.reading import Files
from gpuenc.plugins import usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from gpuenc.frames import Frame
    from gpuenc.pipelines.decoding import DeviceDecoder
    from gpuenc.pipelines.indexing import OnStale
    from gpuenc.pipelines.records import Record

Sample = dict[str, Any]


class FrameDataset:
    """Frames of files and folders at random, each read and decoded on its own.

    A map-style dataset as PyTorch has them, without PyTorch: ``len``, ``dataset[i]`` and ``__getitems__``, which a
    ``DataLoader`` calls with a batch. Frames are numbered through, files in the order of sources and names. It can be
    used by several threads, pickled, and forked: no handle of a file or database is carried into another process.

    Parameters
    ----------
    sources : path-like, or sequence of path-like
        DICOM files, and folders, which are walked; ``~`` is the home folder. A file that several of them lead to by the
        same path gives its frames once, where it is met first.
    device : {'cpu', 'auto', 'gpu'} or int
        Where to decode. On a GPU (`gpuenc.cuda.decoding`) arrays are CuPy's and stay there; ``"auto"`` is the GPU if
        one can be used. It is opened when the first frame is read, in the process that reads it.
    index : path-like, optional
        Where the index is kept, an SQLite file. It is built if it is not there, and else used as it is, so that opening
        an archive costs no look at its files; with each frame that is read, what has the file's path then is checked by
        size and time of modification. Paths in it are absolute: it has to be built anew where an archive was moved. By
        default an index is built in memory each time.
    columns : str or sequence of str
        Keywords of PS3.6, such as ``"SeriesInstanceUID"``, whose values every sample has. They are kept in the index,
        and are patient data where they are.
    rescale : bool
        Apply the Modality LUT (PS3.3 C.11.1), which is Rescale Slope and Intercept or a Modality LUT Sequence: float32.
        Frames without one keep their values.
    window : (center, width), (center, width, function), 'file' or 'lut', optional
        Apply the Modality LUT and this window, or the VOI LUT of each file (C.11.2): float32 from 0 to 1. `function` is
        ``"LINEAR"``, ``"LINEAR_EXACT"`` or ``"SIGMOID"``. Where a file has both a window and a VOI LUT Sequence,
        ``"file"`` takes the window and ``"lut"`` the table; where it has one of them, both take that.
    invert : bool
        Turn MONOCHROME1 into MONOCHROME2: after the window 1 - x, without one mirrored in the range of Bits Stored.
    size : (rows, columns), optional
        Resize, as a last step: float32. Between pixels the interpolation is linear; where an axis shrinks, each result
        is the mean below a triangle as wide as twice the factor, so that nothing is skipped, which is Pillow's BILINEAR
        and PyTorch's bilinear with ``antialias``; see `gpuenc.pipelines.display.resized`. The aspect is not kept.
    on_stale : {'error', 'rebuild'}
        What to do where the index is not that of the files: a named error, at the latest when the file is read; or look
        for all files now and read again those that changed.
    threads : int, optional
        Of the CPU, for decoding a batch; by default one for each core, and one in a process that was started by
        `multiprocessing`, such as a worker of a ``DataLoader``.

    Attributes
    ----------
    sources, columns : tuple of str
        Absolute paths; keywords.

    Raises
    ------
    SourceError
        A source does not exist, a folder cannot be read, or there is no frame.
    IndexMismatch
        ``index-differs``: the index was built for other sources, or has not all columns. ``index-unusable``.
    InvalidOption
        An option is wrong.

    Notes
    -----
    A sample is a dict: ``"image"``, the array, (rows, columns) or (rows, columns, samples), stored values of the type
    of Bits Allocated unless something was computed; ``"index"``, its number; ``"source"``, the file; ``"frame"``, its
    number in that file, from 0; and the columns. Arrays are handed over by DLPack as they are. Colours are not
    converted: YBR_FULL and PALETTE COLOR stay what they are, YBR_FULL_422 comes as YBR_FULL.
    """

    def __init__(
        self,
        sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        device: str | int = "cpu",
        index: str | os.PathLike[str] | None = None,
        columns: str | Sequence[str] = (),
        rescale: bool = False,
        window: tuple[float, float] | tuple[float, float, str] | Literal["file", "lut"] | None = None,
        invert: bool = False,
        size: tuple[int, int] | list[int] | None = None,
        on_stale: OnStale = "error",
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise InvalidOption(f"threads must be at least 1, not {threads}")
        self._device = choice(device)
        self._display = Display(rescale, _window(window), invert, _size(size))
        self._threads = threads
        self.sources = listing.absolute(sources)
        self.columns = (columns,) if isinstance(columns, str) else tuple(columns)
        self._path = None if index is None else listing.place("index", index)
        self._index = index_of(self.sources, self.columns, self._path, on_stale)
        self._work: _Work | None = None
        self._lock = threading.Lock()
        _DATASETS.add(self)

    def __len__(self) -> int:
        return self._index.frames

    def __repr__(self) -> str:
        return f"FrameDataset({len(self)} frames of {self._index.files} files)"

    def __getitem__(self, number: int) -> Sample:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Iterable[int]) -> list[Sample]:
        """Return the samples of a batch, in the order of `numbers`, decoded together.

        Parameters
        ----------
        numbers : iterable of int
            Which frames; negative ones count from the end, and one may be there twice.

        Raises
        ------
        IndexError
            There is no such frame.
        TypeError
            A number is no integer.
        IndexMismatch
            ``index-stale``: a file is not as the index has it.
        SourceError, DecodeFailed, InvalidPixels
            A frame cannot be read, decoded or shown; the message names file and frame.
        DeviceUnavailable
            A GPU was asked for and cannot be used.
        """
        wanted = [self._located(number) for number in numbers]
        return self._at_work().samples(wanted)

    def __iter__(self) -> Iterator[Sample]:
        for number in range(len(self)):
            yield self[number]

    def describe(self, number: int) -> Sample:
        """Return what is known of a frame without reading it: its sample without the image, its format and syntax.

        Raises
        ------
        IndexError
            There is no such frame.
        """
        located = self._located(number)
        record = located.record
        fmt = record.format
        return located.described() | {
            "syntax": record.syntax,
            "photometric": fmt.photometric,
            "rows": fmt.rows,
            "columns": fmt.columns,
            "samples": fmt.samples,
            "bits_stored": fmt.bits_stored,
        }

    @property
    def device(self) -> str | int:
        """Where frames are decoded, as it was asked for."""
        return self._device

    @property
    def left_out(self) -> list[tuple[str, str, str]]:
        """Files of the sources without a frame here: path, code (`gpuenc.errors.CODES`) and message of each."""
        return [(one.seen.path, one.code, one.message) for one in self._index.left_out()]

    def stale(self) -> Iterator[tuple[str, str]]:
        """Yield each file that is not as the index has it, with ``"changed"``, ``"gone"`` or ``"new"``.

        All files of the sources are looked for, and none is read.
        """
        return changes(self._index, self.sources, self._path)

    def close(self) -> None:
        """Close what is open in this process; reading opens it again."""
        with self._lock:
            work, self._work = self._work, None
        if work is not None:
            work.close()
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_work": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        _DATASETS.add(self)

    def _located(self, number: int) -> _Located:
        try:
            asked = operator.index(number)
        except TypeError:
            raise TypeError(
                f"a frame is asked for by its number, an integer, not {type(number).__name__}: "
                "dataset.__getitems__([0, 1]) returns several"
            ) from None
        position = asked + len(self) if asked < 0 else asked
        if not 0 <= position < len(self):
            raise IndexError(f"There is no frame {asked} of {len(self)}")
        record, first = self._index.find(position)
        return _Located(record, position, position - first, self.columns)

    def _at_work(self) -> _Work:
        with self._lock:
            if self._work is None:
                self._work = _Work(self._device, self._display, self._threads)
            return self._work

    def _forked(self) -> None:
        self._lock, self._work = threading.Lock(), None
        self._index.forked()


class _Located:
    """One frame that was asked for."""

    __slots__ = ("_columns", "frame", "number", "record")

    def __init__(self, record: Record, number: int, frame: int, columns: tuple[str, ...]) -> None:
        self.record, self.number, self.frame, self._columns = record, number, frame, columns

    def described(self) -> Sample:
        values = self.record.columns
        about = {"index": self.number, "source": self.record.seen.path, "frame": self.frame}
        return about | {column: values[column] for column in self._columns}

    def sample(self, image: Any) -> Sample:
        return {"image": image} | self.described()

    def named(self, error: GpuencError) -> GpuencError:
        """Return the same error with the frame's name in its message."""
        return type(error)(f"{self.record.seen.path}, frame {self.frame}: {error}", code=error.code)


class _Work:
    """What one process reads and decodes with."""

    def __init__(self, device: str | int, display: Display, threads: int | None) -> None:
        self._files, self._display = Files(), display
        self._decoder: DeviceDecoder | None = decoding.device_decoder(device)
        if threads is None:
            threads = 1 if multiprocessing.parent_process() is not None else usable_cores()
        # Its threads end when it is collected.
        self._pool = ThreadPoolExecutor(threads, "gpuenc-frames") if threads > 1 else None

    def samples(self, wanted: Sequence[_Located]) -> list[Sample]:
        if self._decoder is None:
            return self._each(self._on_cpu, wanted)
        frames = self._each(self._frame, wanted)
        with self._decoder.current():
            found = self._decoder.stored(frames)
            return [self._on_device(self._decoder, *pair) for pair in zip(wanted, found, strict=True)]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._files.close()
        if self._decoder is not None:
            self._decoder.close()

    def _each[T](self, function: Callable[[_Located], T], wanted: Sequence[_Located]) -> list[T]:
        if self._pool is None or len(wanted) < 2:
            return [function(one) for one in wanted]
        return list(self._pool.map(function, wanted))

    def _frame(self, one: _Located) -> Frame:
        try:
            return self._files.frame(one.record, one.frame)
        except GpuencError as error:
            raise one.named(error) from error

    def _on_cpu(self, one: _Located) -> Sample:
        frame = self._frame(one)
        try:
            stored, fmt = stored_values(frame)
            return one.sample(shown(stored, fmt, one.record.transform_of(one.frame), self._display))
        except GpuencError as error:
            raise one.named(error) from error

    def _on_device(self, decoder: DeviceDecoder, one: _Located, found: Any) -> Sample:
        try:
            if isinstance(found, GpuencError):
                raise found
            stored, fmt = found
            return one.sample(shown(stored, fmt, one.record.transform_of(one.frame), self._display, decoder.xp))
        except GpuencError as error:
            raise one.named(error) from error


def _size(size: Any) -> Any:
    """Return a size as the tuple it may be; `Display` says whether it is one."""
    return tuple(size) if isinstance(size, list) else size


def _window(window: Any) -> Window | Literal["file", "lut"] | None:
    if window is None or isinstance(window, Window):
        return window
    if isinstance(window, str) and window in ("file", "lut"):
        return "file" if window == "file" else "lut"
    if not isinstance(window, tuple | list) or not 2 <= len(window) <= 3:
        raise InvalidOption(
            f"window must be 'file', 'lut', (center, width) or (center, width, function), not {window!r}"
        )
    return Window(*window)


_DATASETS: weakref.WeakSet[FrameDataset] = weakref.WeakSet()


def _after_fork() -> None:
    for dataset in list(_DATASETS):
        dataset._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
