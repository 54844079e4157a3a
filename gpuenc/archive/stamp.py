"""How a change of a file is told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size of a file, in bytes, and when it was last modified, in nanoseconds since 1970-01-01 UTC."""

    size_bytes: int
    mtime_ns: int
    # What it takes on its disk, which for files with holes is less.
    allocated_bytes: int = field(default=0, compare=False)
    # Of an object in a store, which gives another one to other bytes.
    etag: str = ""

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Self:
        """Return that of the file at `path`."""
        found = os.stat(path)
        allocated_bytes = found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size
        return cls(found.st_size, found.st_mtime_ns, allocated_bytes)

    @classmethod
    def of_any(cls, path: str | os.PathLike[str]) -> Self | None:
        """Return that of what is at `path`, or None where nothing can be seen."""
        try:
            return cls.of(path)
        except OSError:
            return None
