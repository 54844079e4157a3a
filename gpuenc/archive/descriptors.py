"""Files that a process may have open: as many as it is allowed, and work for no more than that."""

from __future__ import annotations

import contextlib

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

# What one file in work has open at its peak: source, what it is inflated to, output, that output read again, a folder.
_PER_FILE = 7
# Streams, pipes, locks, the journal with its log, libraries as they are loaded; fewer, and nothing can be done.
_FOR_ITSELF = 20
# More is of no use, and some systems say "unlimited".
_ENOUGH = 1 << 16


def raise_limit() -> None:
    """Let this process, and those it starts, have as many files open as the system allows without asking anyone."""
    if resource is None:
        return
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def files_at_once(wanted: int) -> int:
    """Return how many of `wanted` files this process can have in work at once, at least one."""
    if resource is None:
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, (soft - _FOR_ITSELF) // _PER_FILE))


def workers_at_once(wanted: int) -> int:
    """Return how many of `wanted` worker processes this one can have pipes to, at least one."""
    if resource is None:
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # One that takes a suspect file comes on top, and each needs both ends of its pipe while it starts.
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - _FOR_ITSELF - 3))
