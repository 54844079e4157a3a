"""Memory for all files in work, in bytes: granted before the first frame is read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target

# Peak memory of a frame's way through the hungriest lossless codec, as a multiple of its samples.
PEAK_FACTOR = 12
# While one file waits for the disk, another computes.
FILES_BEYOND_CORES = 2

_LEAST_BYTES = 512 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
# A slice of 512 × 512 cells of 16 bits, of which most files of an archive hold one.
_SLICE_BYTES = 512 << 10


def default_bytes() -> int:
    """Return a quarter of this machine's memory, or of what its container may use, but at least 512 MiB."""
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    with contextlib.suppress(OSError, ValueError):
        have = min(have, int(_CGROUP_LIMIT.read_text()))
    return max(_LEAST_BYTES, have // 4)


def file_threads(
    plugins: Sequence[Plugin], target: Target, budget_bytes: int, cores: int, *, frame_bytes: int = _SLICE_BYTES
) -> int:
    """Return how many files one process should have in work at once.

    For CPU plug-ins two more than cores, since some wait for the disk. Where a GPU comes first, so many that files of
    one frame fill all of its lanes while others are read, verified and written, as far as the budget goes.

    Parameters
    ----------
    plugins : sequence of Plugin
        As for `gpuenc.engine.encode_frames`; those on a GPU gathered (`gpuenc.gathering`), or more threads mean more
        encoders. The first that can be opened counts.
    target : Target
        What frames become.
    budget_bytes : int
        Memory that the files of this process share. Frames larger than `frame_bytes` leave threads waiting for it,
        which costs little.
    cores : int
        What this process may use.
    frame_bytes : int
        Bytes of a typical native frame.
    """
    few = cores + FILES_BEYOND_CORES
    for plugin in plugins:
        try:
            encoder = plugin.open(target)
        except Exception:  # noqa: BLE001 - the engine passes it over too, and each file's record says why
            continue
        limits = encoder.limits
        encoder.close()
        if plugin.device != "gpu":
            break
        batch = max(1, min(limits.frames, limits.bytes // frame_bytes))
        return max(few, min(limits.lanes * batch + few, budget_bytes // (PEAK_FACTOR * frame_bytes)))
    return few


class ByteBudget:
    """A number of bytes that several threads share; who wants more than is left waits.

    Parameters
    ----------
    total_bytes : int
        What there is.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._left = total_bytes
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    def __reduce__(self) -> tuple[type[ByteBudget], tuple[int]]:
        """In another process it is another budget, of the same size."""
        return ByteBudget, (self.total_bytes,)

    @contextlib.contextmanager
    def share(self, wanted_bytes: int, waits: Callable[[bool], None] = lambda waiting: None) -> Iterator[int]:
        """Hold `wanted_bytes`, or all there is if that is less. Who comes first is served first.

        Parameters
        ----------
        wanted_bytes : int
            At most that much.
        waits : callable
            Is told True when there is not enough, and False when there is again.

        Yields
        ------
        int
            Bytes granted.
        """
        granted = min(wanted_bytes, self.total_bytes)
        me = object()

        def served() -> bool:
            return self._queue[0] is me and self._left >= granted

        with self._changed:
            self._queue.append(me)
            at_once = served()
        try:
            if not at_once:
                waits(True)
            with self._changed:
                self._changed.wait_for(served)
                self._left -= granted
        finally:
            with self._changed:
                self._queue.remove(me)
                self._changed.notify_all()
        try:
            if not at_once:
                waits(False)
            yield granted
        finally:
            with self._changed:
                self._left += granted
                self._changed.notify_all()
