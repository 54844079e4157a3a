"""How processes begin and end: `started` by whoever needs one, which calls `begun` first."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import warnings
from multiprocessing import connection
from typing import TYPE_CHECKING

from gpuenc.archive.descriptors import raise_limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# How long a process may leave its pipe full.
_SEND_S = 60
_START = (
    "import sys; sys.path[:] = __import__('json').loads(sys.argv[3]); "
    "__import__('importlib').import_module(sys.argv[1]).main(int(sys.argv[2]))"
)


def started(
    module: str, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], connection.Connection]:
    """Start a fresh process, and return it with this one's end of a pipe to it.

    Parameters
    ----------
    module : str
        Whose ``main`` it calls, with the number of its end of the pipe.
    environment : mapping, optional
        Variables that it has besides this process's.

    Raises
    ------
    OSError
        It cannot be started.
    """
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_S, 0))
    # What it needs to find the same gpuenc, whatever this process was started as.
    command = [sys.executable, "-c", _START, module, str(theirs.fileno()), json.dumps(sys.path)]
    try:
        with signals_held():
            process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | dict(environment or {}),
            )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, connection.Connection(ours.detach())


def begun(file: int) -> connection.Connection:
    """Make this process, which another one has `started`, one that only does what that asks for; return its pipe.

    Parameters
    ----------
    file : int
        What ``main`` was called with.
    """
    # The terminal sends its signals to all processes of a job; this one obeys the process that started it.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.stderr:
        faulthandler.enable()
    # Warnings of libraries may quote what a file holds.
    warnings.simplefilter("ignore")
    raise_limit()
    return connection.Connection(file)


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
