"""Worker processes that files bring down: what a module named `sitecustomize` does before anything of ours is loaded.

A worker opens its sources with `open`, so that is where a file is told by its name, and nothing of gpuenc is changed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_SITE = """
import builtins, ctypes, os, resource, signal, sys, time

right = builtins.open

def poisoned(file, *args, **options):
    name = os.path.basename(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else ""
    name = "" if name.startswith(".") else name  # outputs that are read back
    if "segv" in name:
        signal.raise_signal(signal.SIGSEGV)
    elif "fault" in name:
        ctypes.string_at(0)
    elif "abort" in name:
        os.abort()
    elif "exit" in name:
        os._exit(3)
    elif "oom" in name:
        os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does where memory is short
    elif "eats" in name:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
        held = bytearray(1 << 40)
    elif "hang" in name:
        time.sleep(1000)
    elif "deadlock" in name:
        ctypes.PyDLL(None).sleep(1000)  # with the interpreter's lock held: no other thread runs
    elif "stops" in name:
        os.kill(os.getpid(), signal.SIGSTOP)
    elif "once" in name:
        try:
            os.close(os.open(os.path.join(PLACE, name), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            signal.raise_signal(signal.SIGSEGV)
    return right(file, *args, **options)

if "GPUENC_WORKER" in os.environ:
    if BROKEN:
        BROKEN_BY
    builtins.open = poisoned
"""


def prepare(monkeypatch: pytest.MonkeyPatch, place: Path, *, start: str = "") -> None:
    """Poison workers that are started from now on: by names of files, and with `start` by what they do first."""
    place.mkdir(exist_ok=True)
    text = _SITE.replace("PLACE", repr(os.fspath(place))).replace("BROKEN_BY", start or "pass")
    (place / "sitecustomize.py").write_text(text.replace("BROKEN", str(bool(start))), encoding="utf-8")
    # Found before any other of its name, and by nobody but interpreters that are started.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.fspath(place), *filter(None, sys.path)]))
