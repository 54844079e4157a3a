"""Frames in, homogeneous batches out: pure, lazy, and never more than the limits ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gpuenc.frames import Frame


def batches(frames: Iterable[Frame], *, max_frames: int, max_bytes: int) -> Iterator[tuple[Frame, ...]]:
    """Yield consecutive frames of one format as batches.

    A batch closes when the next frame has another format or would exceed a limit; a frame larger than `max_bytes`
    comes alone. Order is kept, no frame is left out, and a frame is taken from `frames` only when the batch before
    the one it may belong to has been yielded.

    Parameters
    ----------
    frames : iterable of Frame
        Any length; read lazily.
    max_frames : int
        Most frames in a batch, at least 1.
    max_bytes : int
        Most native bytes in a batch, at least 1; what compressed frames decode to counts.

    Yields
    ------
    tuple of Frame
        At least one, all of the same `FrameFormat`.
    """
    if max_frames < 1 or max_bytes < 1:
        raise ValueError(f"A batch needs at least 1 frame and 1 byte, not {max_frames} and {max_bytes}")
    return bounded_batches(frames, lambda: (max_frames, max_bytes))


def bounded_batches(frames: Iterable[Frame], bounds: Callable[[], tuple[int, int]]) -> Iterator[tuple[Frame, ...]]:
    """Yield batches as `batches` does, of limits that may change: `bounds` is asked for them when a batch begins.

    Parameters
    ----------
    frames : iterable of Frame
        Any length; read lazily.
    bounds : callable
        Returns most frames and most bytes, each at least 1.

    Yields
    ------
    tuple of Frame
        At least one, all of the same `FrameFormat`.
    """
    batch: list[Frame] = []
    held_bytes = max_frames = max_bytes = 0
    for frame in frames:
        size = frame.format.frame_bytes
        if batch and (held_bytes + size > max_bytes or frame.format != batch[0].format):
            yield tuple(batch)
            batch, held_bytes = [], 0
        if not batch:
            max_frames, max_bytes = bounds()
        batch.append(frame)
        held_bytes += size
        # Yield as soon as it is full: a consumer that stops here has not read one frame too many.
        if len(batch) >= max_frames or held_bytes >= max_bytes:
            yield tuple(batch)
            batch, held_bytes = [], 0
    if batch:
        yield tuple(batch)
