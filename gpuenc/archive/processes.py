"""How processes begin and end."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Have a process that is started here, and inherits this, not ended by the terminal's signals as it starts."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in names])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_ended(returncode: int) -> str:
    """Return how a process ended, for people."""
    names = {known.value: known.name for known in signal.Signals}
    how = names.get(-returncode, f"signal {-returncode}")
    return f"ended with {returncode}" if returncode >= 0 else f"was ended by {how}"
