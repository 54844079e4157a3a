"""One job as a process: begun, disturbed, and watched from outside."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.dicom.atomic import TEMPORARY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from random import Random

ROOT = Path(__file__).resolve().parents[2]
_END_S = 120.0


def begin(*args: str | Path, errors: Path) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own; what it says on standard error goes to a file."""
    with errors.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "gpuenc", "transcode", *map(os.fspath, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
            cwd=ROOT,
        )


def end(process: subprocess.Popen[bytes]) -> int:
    """Return how a process ended; one that does not is ended, which is an error."""
    try:
        return process.wait(_END_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def disturb(process: subprocess.Popen[bytes], fault: str, chance: Random) -> None:
    """Do to a job what `fault` says: some of the words below, in their order."""
    for word in fault.split():
        with contextlib.suppress(ProcessLookupError):
            match word:
                case "worker":
                    if pids := children(process.pid):
                        os.kill(chance.choice(pids), signal.SIGKILL)
                case "parent":
                    process.kill()
                case "group":
                    os.killpg(process.pid, signal.SIGKILL)
                case "INT" | "TERM" | "HUP":
                    process.send_signal(getattr(signal, f"SIG{word}"))
                case "ctrl-c":
                    os.killpg(process.pid, signal.SIGINT)
        time.sleep(chance.uniform(0, 0.3))


class Eyes(threading.Thread):
    """Looks at a tree all the time: whatever has a final name must be whole from the first moment.

    Parameters
    ----------
    folder : Path
        What to look at.
    allowed : mapping of str to collection of str
        Digests that a file may have, by its path in the folder.
    """

    def __init__(self, folder: Path, allowed: Mapping[str, Collection[str]]) -> None:
        super().__init__(daemon=True)
        self._folder, self._allowed = folder, allowed
        self._over = threading.Event()
        self._seen: set[tuple[str, int, int]] = set()
        self.looked = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.004):
            self._look(self._folder)

    def close(self) -> None:
        self._over.set()
        self.join()
        self._look(self._folder)

    def _look(self, folder: Path) -> None:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == ".gpuenc":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    self._look(Path(entry.path))
                elif not entry.name.endswith(TEMPORARY_SUFFIX):
                    with contextlib.suppress(OSError):
                        self._read(entry.path)

    def _read(self, path: str) -> None:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if (key := (path, found.st_ino, found.st_mtime_ns)) in self._seen:
                return
            digest = hashlib.sha256(file.read()).hexdigest()
        self._seen.add(key)
        self.looked += 1
        name = os.path.relpath(path, self._folder)
        if digest not in self._allowed.get(name, ()):
            self.wrong.append(name)


@contextlib.contextmanager
def watched(folder: Path, allowed: Mapping[str, Collection[str]]) -> Iterator[Eyes]:
    """Look at a tree meanwhile."""
    eyes = Eyes(folder, allowed)
    eyes.start()
    try:
        yield eyes
    finally:
        eyes.close()
