"""Frames through plug-ins, on lanes: in order, bounded in bytes, and with exactly one result per frame.

A lane is a thread with its own encoder of each plug-in. A batch goes to the first plug-in; the frames it fails go,
still from their native cells, to the next. What a plug-in returns is believed only after the codestream's own
markers were read, and, where verification is asked for, after it was decoded and every sample compared.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
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
from gpuenc.syntaxes import keeps_jpeg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.frames import FrameFormat
    from gpuenc.plugins import BatchEncoder, Plugin
    from gpuenc.targets import Target

LOGGER = logging.getLogger(__name__)
# What a plug-in raised is in its frames' failures; the traceback is for those who set up logging.
logging.getLogger("gpuenc").addHandler(logging.NullHandler())

# The frame's own fault, whichever plug-in noticed: another one would have to cut or guess.
FINAL_CODES = frozenset(
    {InvalidPixels.code, FormatNotAllowed.code, ValuesOutsideBitsStored.code, DecodeFailed.code, "truncated"}
)
DEFAULT_MEMORY_BYTES = 512 << 20


def usable_cores() -> int:
    """Return the number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


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
    idle: SimpleQueue[_Lane] = SimpleQueue()
    idle.put(first)
    opened = [first]
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="gpuenc-lane")

    def work(batch: tuple[Frame, ...]) -> list[Encoded | Failure]:
        lane = idle.get()
        try:
            return lane.encode(batch)
        finally:
            idle.put(lane)

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
            if len(opened) < lanes and len(pending) >= len(opened):
                opened.append(first.another())
                idle.put(opened[-1])
            pending.append((pool.submit(work, batch), size))
            in_flight += size
            del batch
            while pending and pending[0][0].done():
                future, done_bytes = pending.popleft()
                yield from future.result()
                in_flight -= done_bytes
        while pending:
            yield from pending.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for lane in opened:
            lane.close()


class _Lane:
    """One encoder of each plug-in, opened when first needed; used by one thread at a time."""

    def __init__(
        self, plugins: Sequence[Plugin], target: Target, verify: bool, decode: Callable[[Frame], Frame]
    ) -> None:
        if not plugins:
            raise EncodeFailed(f"No plug-in for '{target.syntax.keyword}' is available")
        self._plugins, self._target, self._verify, self._decode = tuple(plugins), target, verify, decode
        self._encoders: dict[str, BatchEncoder] = {}
        self.limits = self._encoder(self._plugins[0]).limits

    def another(self) -> _Lane:
        return _Lane(self._plugins, self._target, self._verify, self._decode)

    def close(self) -> None:
        for encoder in self._encoders.values():
            encoder.close()
        self._encoders.clear()

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
            wanted = coding(self._target, fmt)
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

    def _encoder(self, plugin: Plugin) -> BatchEncoder:
        if plugin.label not in self._encoders:
            self._encoders[plugin.label] = plugin.open(self._target)
        return self._encoders[plugin.label]

    def _try(self, plugin: Plugin, frames: list[Frame], wanted: Coding) -> list[Encoded | Failure]:
        """Let one plug-in encode `frames`, and believe nothing it says before it is checked."""
        try:
            results = self._encoder(plugin).encode(frames)
        except Exception as error:  # a third party's code: whatever it raises must not lose a frame
            LOGGER.exception("plug-in '%s' failed", plugin.label)
            return [Failure(frame.ref, "plugin-error", plugin.label, _line(error)) for frame in frames]
        if len(results) != len(frames):
            reason = f"returned {len(results)} results for {len(frames)} frames"
            return [Failure(frame.ref, "plugin-error", plugin.label, reason) for frame in frames]
        return [self._checked(plugin, frame, got, wanted) for frame, got in zip(frames, results, strict=True)]

    def _checked(self, plugin: Plugin, frame: Frame, result: Encoded | Failure, wanted: Coding) -> Encoded | Failure:
        if isinstance(result, Failure):
            return result
        syntax = self._target.syntax
        try:
            verified = False
            if not isinstance(frame.pixels, Coded) or syntax.recompresses_jpeg:
                check(result.codestream, syntax, wanted)
            # What a GPU returns is not believed before it has been seen to be exact (benchmarks/gpu-evidence.md).
            unproven = wanted.must_verify or plugin.device == "gpu"
            if wanted.lossless and (self._verify or unproven):
                _compare(result.codestream, frame, self._target, wanted)
                verified = True
        except DecodeFailed as error:
            # Not the frame's fault but its codestream's: the next plug-in may do better.
            return Failure(frame.ref, "undecodable", plugin.label, f"its codestream cannot be decoded: {error}")
        except GpuencError as error:
            return Failure(frame.ref, error.code, plugin.label, str(error))
        codestream = pad_even(result.codestream, syntax.family) if syntax.family == "jpeg-ls" else result.codestream
        return Encoded(frame.ref, codestream, plugin.label, verified)


def _stays_coded(pixels: NDArray[np.uint8] | Coded, target: Target) -> bool:
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
        back = decoders.decode_samples(codestream, target.syntax, wanted)
        if back.tobytes() != frame.pixels.codestream:
            raise EncodeFailed("the JPEG codestream does not come back bit for bit", code="verify-mismatch")
        return
    expected = samples.prepare(frame.pixels, frame.format, wanted, bit_offset=frame.bit_offset)
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
