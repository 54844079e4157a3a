"""A Dask cluster of real processes on this machine: a scheduler and workers, on loopback alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.request import Job, OnCluster
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records

ROOT = Path(__file__).resolve().parents[2]
# What a worker does first: `sitecustomize` is found before anything of ours.
NO_GPUENC = """
import sys
class _Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "gpuenc":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, _Hidden())
"""
OTHER_VERSION = "import gpuenc; gpuenc.__version__ = '0.0.1'\n"
# A file of such a name ends the worker of the cluster, as where memory is short.
KILLS_ITS_WORKER = """
import builtins, os, signal
right = builtins.open
def poisoned(file, *args, **options):
    name = os.path.basename(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else ""
    if name.startswith("poison"):
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return right(file, *args, **options)
if "GPUENC_WORKER" in os.environ:
    builtins.open = poisoned
"""
# Every file takes a while.
SLOW = """
import builtins, os, time
right = builtins.open
def slow(file, *args, **options):
    name = os.path.basename(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else ""
    if name.startswith("slow"):
        time.sleep(SECONDS)
    return right(file, *args, **options)
if "GPUENC_WORKER" in os.environ:
    builtins.open = slow
"""


NAMES = [*(f"a{number:02}" for number in range(20)), *(f"slow{number:02}" for number in range(20)), "below/b"]


class Told(Records):
    """Keeps notes too."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Archive:
    """Sources, and what one machine makes of them.

    Parameters
    ----------
    place : Path
        A folder of its own.
    names : sequence of str
        Of the images; beside them lies a text.
    """

    def __init__(self, place: Path, names: list[str] = NAMES) -> None:
        self.sources = place / "in"
        image = made.of(made.noise((1, 16, 16), "u2"))
        for name in names:
            (self.sources / name).parent.mkdir(parents=True, exist_ok=True)
            image.write(self.sources / name)
        (self.sources / "z.text").write_text("no image")
        run(Job((self.sources,), place / "one", target(find("rle"))), Records())
        self.expected = tree(place / "one")

    def job(self, address: str, output: Path, **options: Any) -> Job:
        """Return the job over them on a cluster, two files at once on each worker."""
        options = {"cluster": OnCluster(address, jobs=2), "journal": place_of(output)} | options
        return Job((self.sources,), output, target(find("rle")), **options)

    def reconciled(self, watcher: Records) -> dict[str, str]:
        """Check that each file has one outcome, and return the reasons of those that were not encoded."""
        found = sorted(record.source for record in watcher.records)
        assert found == sorted(str(path) for path in self.sources.rglob("*") if path.is_file())
        return {Path(record.source).name: record.reason for record in watcher.records if record.reason}


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files by their place, hidden ones too, but not the journal's."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in _outputs(folder)}


def times(folder: Path) -> dict[Path, int]:
    """Return when each of these files was written."""
    return {path: path.stat().st_mtime_ns for path in _outputs(folder)}


def _outputs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".gpuenc" not in path.parts]


def environment(place: Path, start: str = "") -> dict[str, str]:
    """Return what processes inherit so that they find this gpuenc, and do `start` first."""
    paths = [os.fspath(ROOT), *filter(None, sys.path)]
    if start:
        place.mkdir(parents=True, exist_ok=True)
        (place / "sitecustomize.py").write_text(start, encoding="utf-8")
        paths.insert(0, os.fspath(place))
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}


class Processes:
    """A scheduler and its workers; a context manager that ends what it has started.

    Parameters
    ----------
    place : Path
        A folder of its own.
    workers : int
        How many to start at once.
    start : str
        What workers, and their processes, do first.
    """

    def __init__(self, place: Path, workers: int = 2, start: str = "") -> None:
        place.mkdir(parents=True, exist_ok=True)
        self._place = place
        self._file = place / "scheduler.json"
        self._started: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._python("scheduler", "--scheduler-file", os.fspath(self._file), "--port", "0")
        self.workers = [self.worker(start) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    @property
    def address(self) -> str:
        """The scheduler's, once it and all workers are there."""
        from distributed import Client

        self._await_file()
        with Client(scheduler_file=os.fspath(self._file), set_as_default=False) as client:
            client.wait_for_workers(sum(worker.poll() is None for worker in self.workers), timeout=60)
            return str(client.scheduler_info()["address"])

    def restart_scheduler(self) -> None:
        """Start the scheduler again, where it was, after its end; its workers have ended with it."""
        port = json.loads(self._file.read_text())["address"].rpartition(":")[2]
        self._file.unlink()
        self.scheduler = self._python("scheduler", "--scheduler-file", os.fspath(self._file), "--port", port)

    def worker(self, start: str = "") -> subprocess.Popen[bytes]:
        """Start one more worker."""
        scratch = self._place / "scratch"
        options = ["--no-nanny", "--nthreads", "2", "--local-directory", os.fspath(scratch)]
        self._await_file()
        return self._python("worker", "--scheduler-file", os.fspath(self._file), *options, start=start)

    def _await_file(self) -> None:
        until = time.monotonic() + 60
        while not self._file.exists() and time.monotonic() < until:
            time.sleep(0.02)

    def _python(self, *arguments: str, start: str = "") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        place = self._place / f"site{len(self._started)}"
        with (self._place / "log").open("ab") as log:
            process = subprocess.Popen(command, env=environment(place, start), cwd=self._place, stdout=log, stderr=log)
        self._started.append(process)
        return process
