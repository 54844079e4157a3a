"""Memory for all files in work, in bytes: granted before the first frame is read."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST_BYTES = 512 << 20
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def default_bytes() -> int:
    """Return a quarter of this machine's memory, or of what its container may use, but at least 512 MiB."""
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    with contextlib.suppress(OSError, ValueError):
        have = min(have, int(_CGROUP_LIMIT.read_text()))
    return max(_LEAST_BYTES, have // 4)


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

    def __reduce__(self) -> tuple[type[ByteBudget], tuple[int]]:
        """In another process it is another budget, of the same size."""
        return ByteBudget, (self.total_bytes,)

    @contextlib.contextmanager
    def share(self, wanted_bytes: int) -> Iterator[int]:
        """Hold `wanted_bytes`, or all there is if that is less.

        Yields
        ------
        int
            Bytes granted.
        """
        granted = min(wanted_bytes, self.total_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= granted)
            self._left -= granted
        try:
            yield granted
        finally:
            with self._changed:
                self._left += granted
                self._changed.notify_all()
