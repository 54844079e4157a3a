"""Frames through plug-ins, on lanes: in order, bounded in bytes, and with exactly one result per frame.

A lane is a thread with its own encoder of each plug-in. A batch goes to the first plug-in; the frames it fails go,
still from their native cells, to the next. What a plug-in returns is believed only after the codestream's own
markers were read, and, where verification is asked for, after it was decoded and every sample compared.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gpuenc.batching import batches
from gpuenc.codestream import check, pad_even
from gpuenc.coding import coding
from gpuenc.cpu import decoders, samples
from gpuenc.errors import (
    DecodeFailed,
    EncodeFailed,
    FormatNotAllowed,
    GpuencError,
    InvalidPixels,
    ValuesOutsideBitsStored,
)
from gpuenc.frames import Coded, Encoded, Failure, Frame
from gpuenc.plugins import Limits, usable_cores
from gpuenc.syntaxes import keeps_jpeg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from gpuenc.coding import Coding
    from gpuenc.frames import FrameFormat
    from gpuenc.plugins import BatchEncoder, Plugin
    from gpuenc.targets import Target

LOGGER = logging.getLogger(__name__)
# What a plug-in raised is in its frames' failures; the traceback is for those who set up logging.
logging.getLogger("gpuenc").addHandler(logging.NullHandler())

# The frame's own fault, whichever plug-in noticed: another one would have to cut or guess.
FINAL_CODES = frozenset(
    {
        InvalidPixels.code,
        FormatNotAllowed.code,
        ValuesOutsideBitsStored.code,
        DecodeFailed.code,
        "truncated",
        "other-device",
    }
)
DEFAULT_MEMORY_BYTES = 512 << 20
# For batches that no plug-in will encode, because none can be opened.
_NO_LIMITS = Limits(frames=1, bytes=1, lanes=1, peak_factor=1.0)


def encode_frames(
    frames: Iterable[Frame],
    target: Target,
    plugins: Sequence[Plugin],
    *,
    threads: int | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    verify: bool = False,
    decode: Callable[[Frame], Frame] = decoders.decode_frame,
) -> Generator[Encoded | Failure]:
    """Yield one result per frame, in order.

    Frames are taken from `frames` in the consumer's thread, only as lanes become free. Closing the iterator, or
    letting go of it, stops the lanes and waits for them.

    Parameters
    ----------
    frames : iterable of Frame
        Of any formats and any number.
    target : Target
        What they become.
    plugins : sequence of Plugin
        In the order in which they are tried.
    threads : int, optional
        Most lanes; by default one per usable core. One lane runs in the caller's thread.
    memory_bytes : int
        Bound on the peak memory of all batches between `frames` and the consumer. One batch is always let
        through, and it holds at least one frame.
    verify : bool
        Decode each codestream and compare every sample; a difference is that plug-in's failure.
    decode : callable
        Turns a frame with `Coded` pixels into one with native cells; raises `DecodeFailed`.

    Raises
    ------
    Exception
        Whatever `frames` raises. Nothing that a plug-in does is raised: it becomes a `Failure`.
    """
    lanes = max(1, threads or usable_cores())
    first = _Lane(plugins, target, verify, decode)
    limits = first.limits
    lanes = min(lanes, limits.lanes)
    share = int(memory_bytes / (lanes * limits.peak_factor))
    source = batches(frames, max_frames=limits.frames, max_bytes=max(1, min(limits.bytes, share)))
    if lanes == 1:
        yield from _inline(source, first)
    else:
        yield from _parallel(source, first, lanes, memory_bytes / limits.peak_factor)


def _inline(source: Iterator[tuple[Frame, ...]], lane: _Lane) -> Iterator[Encoded | Failure]:
    try:
        for batch in source:
            yield from lane.encode(batch)
    finally:
        lane.close()


def _parallel(
    source: Iterator[tuple[Frame, ...]], first: _Lane, lanes: int, budget_bytes: float
) -> Iterator[Encoded | Failure]:
    lanes_open = _Lanes(first)
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="gpuenc-lane", initializer=lanes_open.join_in)
    pending: deque[tuple[Future[list[Encoded | Failure]], int]] = deque()
    in_flight = 0
    try:
        for batch in source:
            size = sum(frame.format.frame_bytes for frame in batch)
            # Two batches more than lanes keep every lane busy while the consumer holds one.
            while pending and (len(pending) >= lanes + 2 or in_flight + size > budget_bytes):
                future, done_bytes = pending.popleft()
                yield from future.result()
                in_flight -= done_bytes
            # There is an idle lane for each batch that a thread takes up: fewer are pending than open, or all are open.
            if lanes_open.count < lanes and len(pending) >= lanes_open.count:
                lanes_open.add(first.another())
            pending.append((pool.submit(lanes_open.encode, batch), size))
            in_flight += size
            del batch
            while pending and pending[0][0].done():
                future, done_bytes = pending.popleft()
                yield from future.result()
                in_flight -= done_bytes
        while pending:
            yield from pending.popleft()[0].result()
    finally:
        try:
            # The garbage collector may close this generator in a lane's own thread, which cannot wait for itself.
            pool.shutdown(wait=not lanes_open.is_ours(), cancel_futures=True)
        finally:
            lanes_open.close()


class _Lanes:
    """The lanes of one run, idle or in use; safe to use from all of its threads."""

    def __init__(self, first: _Lane) -> None:
        self.count = 1
        self._idle = [first]
        self._threads: set[int] = set()
        self._closed = False
        # Reentrant: the collector may close the run in a thread that holds it.
        self._lock = threading.RLock()

    def join_in(self) -> None:
        """Note that the current thread is a lane's."""
        self._threads.add(threading.get_ident())

    def is_ours(self) -> bool:
        """Whether the current thread is a lane's."""
        return threading.get_ident() in self._threads

    def add(self, lane: _Lane) -> None:
        self.count += 1
        with self._lock:
            self._idle.append(lane)

    def encode(self, batch: Sequence[Frame]) -> list[Encoded | Failure]:
        """Encode `batch` on an idle lane; of a closed run, nobody waits for the results."""
        with self._lock:
            if self._closed:
                return []
            lane = self._idle.pop()
        try:
            return lane.encode(batch)
        finally:
            with self._lock:
                self._idle.append(lane)
                if self._closed:
                    self.close()

    def close(self) -> None:
        """Close the idle lanes now, and each of the others when it becomes idle."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()


class _Lane:
    """One encoder of each plug-in, opened when first needed; used by one thread at a time."""

    def __init__(
        self, plugins: Sequence[Plugin], target: Target, verify: bool, decode: Callable[[Frame], Frame]
    ) -> None:
        if not plugins:
            raise EncodeFailed(f"No plug-in for '{target.syntax.keyword}' is available")
        self._plugins, self._target, self._verify, self._decode = tuple(plugins), target, verify, decode
        self._encoders: dict[str, BatchEncoder] = {}
        self._unopened: dict[str, str] = {}
        opened = (self._opened(plugin) for plugin in self._plugins)
        self.limits = next((encoder.limits for encoder in opened if encoder is not None), _NO_LIMITS)

    def another(self) -> _Lane:
        return _Lane(self._plugins, self._target, self._verify, self._decode)

    def close(self) -> None:
        while self._encoders:
            label, encoder = self._encoders.popitem()
            try:
                encoder.close()
            except Exception:
                LOGGER.exception("plug-in '%s' failed to close", label)

    def encode(self, batch: Sequence[Frame]) -> list[Encoded | Failure]:
        """Return one result per frame of a homogeneous batch, in order."""
        results: dict[int, Encoded | Failure] = {}
        # Codestreams that one description covers may still decode to cells of several formats.
        formats: dict[FrameFormat, dict[int, Frame]] = {}
        for place, frame in enumerate(batch):
            try:
                native = self._native(frame)
                formats.setdefault(native.format, {})[place] = native
            except GpuencError as error:
                results[place] = Failure(frame.ref, error.code, "decoder", str(error))
        for fmt, frames in formats.items():
            results |= self._encode_cells(fmt, frames)
        return [results[place] for place in range(len(batch))]

    def _encode_cells(self, fmt: FrameFormat, frames: Mapping[int, Frame]) -> dict[int, Encoded | Failure]:
        """Return one result per frame of native cells of one format."""
        try:
            kept = any(_stays_coded(frame.pixels, self._target) for frame in frames.values())
            wanted = coding(self._target, fmt, keeps_jpeg=kept)
        except InvalidPixels as error:
            return {place: Failure(frame.ref, error.code, "", str(error)) for place, frame in frames.items()}
        results: dict[int, Encoded | Failure] = {}
        refused: dict[int, list[Failure]] = {place: [] for place in frames}
        for plugin in self._plugins:
            waiting = [place for place in frames if place not in results]
            if not waiting:
                break
            for place, result in zip(waiting, self._try(plugin, [frames[i] for i in waiting], wanted), strict=True):
                if isinstance(result, Encoded):
                    results[place] = replace(result, refused=tuple(refused[place]))
                elif result.code in FINAL_CODES:
                    results[place] = result
                else:
                    refused[place].append(result)
        failed = {place: _all_failed(frame, refused[place]) for place, frame in frames.items() if place not in results}
        return results | failed

    def _native(self, frame: Frame) -> Frame:
        coded = isinstance(frame.pixels, Coded)
        if self._target.syntax.recompresses_jpeg and not (coded and _stays_coded(frame.pixels, self._target)):
            raise FormatNotAllowed(
                f"'{self._target.syntax.keyword}' ({self._target.syntax.clause}) takes frames of JPEG Baseline or JPEG "
                "Extended, and no others"
            )
        return self._decode(frame) if coded and not _stays_coded(frame.pixels, self._target) else frame

    def _opened(self, plugin: Plugin) -> BatchEncoder | None:
        """Return this lane's encoder of `plugin`; None where it cannot be opened, which is tried once."""
        if plugin.label not in self._encoders and plugin.label not in self._unopened:
            try:
                encoder = plugin.open(self._target)
                if not isinstance(encoder.limits, Limits):
                    raise TypeError(f"its limits are {type(encoder.limits).__name__}, not Limits")
                self._encoders[plugin.label] = encoder
            except Exception as error:
                LOGGER.exception("plug-in '%s' cannot be opened", plugin.label)
                self._unopened[plugin.label] = f"cannot be opened: {_line(error)}"
        return self._encoders.get(plugin.label)

    def _try(self, plugin: Plugin, frames: list[Frame], wanted: Coding) -> list[Encoded | Failure]:
        """Let one plug-in encode `frames`, and believe nothing it says before it is checked."""
        encoder = self._opened(plugin)
        if encoder is None:
            return _broken(plugin, frames, self._unopened[plugin.label])
        try:
            results: object = encoder.encode(frames)
        except Exception as error:  # a third party's code: whatever it raises must not lose a frame
            LOGGER.exception("plug-in '%s' failed", plugin.label)
            return _broken(plugin, frames, _line(error))
        if not isinstance(results, list | tuple):
            return _broken(plugin, frames, f"returned {type(results).__name__}, not a list of results")
        if len(results) != len(frames):
            return _broken(plugin, frames, f"returned {len(results)} results for {len(frames)} frames")
        return [self._checked(plugin, frame, got, wanted) for frame, got in zip(frames, results, strict=True)]

    def _checked(self, plugin: Plugin, frame: Frame, result: object, wanted: Coding) -> Encoded | Failure:
        if isinstance(result, Failure) and all(isinstance(x, str) for x in (result.code, result.plugin, result.reason)):
            return replace(result, ref=frame.ref)
        if not isinstance(result, Encoded) or not isinstance(result.codestream, bytes):
            what = f"{type(result).__name__} whose fields have wrong types"
            what = what if isinstance(result, Encoded | Failure) else type(result).__name__
            return _broken(plugin, [frame], f"returned {what} for a frame")[0]
        syntax, codestream = self._target.syntax, result.codestream
        try:
            verified = False
            check(codestream, syntax, wanted)
            # What a GPU returns is not believed before it has been seen to be exact (benchmarks/gpu-evidence.md).
            unproven = wanted.must_verify or plugin.device == "gpu"
            if wanted.lossless and (self._verify or unproven):
                _compare(codestream, frame, self._target, wanted)
                verified = True
            codestream = pad_even(codestream, syntax.family) if syntax.family == "jpeg-ls" else codestream
        except DecodeFailed as error:
            # Not the frame's fault but its codestream's: the next plug-in may do better.
            return Failure(frame.ref, "undecodable", plugin.label, f"its codestream cannot be decoded: {error}")
        except GpuencError as error:
            return Failure(frame.ref, error.code, plugin.label, str(error))
        except Exception as error:  # what the checks did not foresee in a codestream
            LOGGER.exception("the codestream of plug-in '%s' cannot be checked", plugin.label)
            return _broken(plugin, [frame], f"its codestream cannot be checked: {_line(error)}")[0]
        return Encoded(frame.ref, codestream, plugin.label, verified)


def _broken(plugin: Plugin, frames: Sequence[Frame], reason: str) -> list[Encoded | Failure]:
    return [Failure(frame.ref, "plugin-error", plugin.label, reason) for frame in frames]


def _stays_coded(pixels: object, target: Target) -> bool:
    """Whether these are a JPEG codestream that is itself re-compressed, or restored (PS3.5 A.4.12)."""
    return isinstance(pixels, Coded) and keeps_jpeg(pixels.syntax, target.syntax)


def _compare(codestream: bytes, frame: Frame, target: Target, wanted: Coding) -> None:
    """Decode `codestream` and compare every sample with what the frame's own cells say.

    Raises
    ------
    EncodeFailed
        With code ``verify-mismatch``, and how many samples differ.
    """
    if isinstance(frame.pixels, Coded):
        packed, jpeg = frame.pixels.codestream, codestream
        if target.syntax.recompresses_jpeg:
            packed, jpeg = jpeg, packed
        if decoders.jpeg_of(packed) != jpeg:
            raise EncodeFailed("the JPEG codestream does not come back bit for bit", code="verify-mismatch")
        return
    expected = samples.prepare(frame.host_cells(), frame.format, wanted, bit_offset=frame.bit_offset)
    back = decoders.decode_samples(codestream, target.syntax, wanted)
    if back.shape != expected.shape or back.dtype != expected.dtype or not np.array_equal(back, expected):
        differ = samples.count_differing(back, expected) if back.shape == expected.shape else expected.size
        raise EncodeFailed(f"{differ} of {expected.size} samples do not come back", code="verify-mismatch")


def _all_failed(frame: Frame, refused: Sequence[Failure]) -> Failure:
    said = "\n  ".join(f"{failure.plugin}: {failure.reason}" for failure in refused)
    code = refused[0].code if len(refused) == 1 else EncodeFailed.code
    return Failure(frame.ref, code, ", ".join(failure.plugin for failure in refused), said)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if not isinstance(error, GpuencError) else text
