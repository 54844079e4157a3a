"""Power cuts: what a disk held at some moment of a job, mounted as after a restart, and the job gone on with there.

A job's destination is a file system in an image, and the image lies on XFS, which clones a file at one moment. A clone
holds what the inner file system had written by then and nothing of what it still had in memory, so mounting it is what
a machine finds after its power came back: the inner journal is replayed, names without data and data without names are
as that file system leaves them. Needs Linux, root, loop devices, xfsprogs and btrfs-progs.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.kept_lines import line_of
from gpuenc.dicom.atomic import TEMPORARY_SUFFIX
from tests.faults import jobs, sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

ENDED, USAGE = 1, 2  # of each ten files one fails
# How a disk may forget.
DISKS = {
    "ext4": (("mkfs.ext4", "-q"), ""),
    "ext4, unordered": (("mkfs.ext4", "-q"), "data=writeback,noauto_da_alloc,commit=1"),
    "xfs": (("mkfs.xfs", "-q"), ""),
    # Flushing one file leaves the names of others where they were.
    "btrfs": (("mkfs.btrfs", "-q"), ""),
}
WAYS = ("workers", "threads", "in-place")
_HOST_BYTES, _DISK_BYTES = 16 << 30, 320 << 20  # sparse; XFS takes no less than 300 MiB
_DONE = 2


def why_not() -> str:
    """Return why there can be no power cuts here, or nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "mounting needs root"
    missing = [name for name in ("mkfs.xfs", "mkfs.ext4", "mkfs.btrfs", "losetup", "mount") if not shutil.which(name)]
    if missing or not Path("/dev/loop-control").exists():
        return f"needs {', '.join(missing) or 'loop devices'}"
    try:
        _run("losetup", "--find")
    except RuntimeError as error:
        return str(error)
    return ""


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(image: Path, at: Path, options: str = "") -> Iterator[None]:
    """Mount an image for a while."""
    at.mkdir(exist_ok=True)
    _run("mount", "-o", ",".join(filter(None, ("loop", options))), image, at)
    try:
        yield
    finally:
        _run("umount", at)


class _Clones(threading.Thread):
    """Clones an image at random moments until it is closed."""

    def __init__(self, image: Path, moments_s: list[float]) -> None:
        super().__init__(daemon=True)
        self._image, self._moments_s, self._over = image, moments_s, threading.Event()
        self.taken: list[Path] = []

    def run(self) -> None:
        begun = time.monotonic()
        for number, moment_s in enumerate(sorted(self._moments_s)):
            if self._over.wait(max(0.0, begun + moment_s - time.monotonic())):
                return
            clone = self._image.with_name(f"clone-{number}.img")
            _run("cp", "--reflink=always", self._image, clone)
            self.taken.append(clone)

    def close(self) -> None:
        self._over.set()
        self.join()


@dataclass
class PowerCuts:
    """An archive, what an undisturbed job makes of it, and what was found after the power cuts so far."""

    folder: Path
    chance: Random
    files: int = sources.FILES
    durability: str = "file"
    cuts: Counter[str] = field(default_factory=Counter)
    found_done: int = 0
    found_outputs: int = 0

    def __post_init__(self) -> None:
        self._disk = self.folder / "disk"
        sources.write(self.folder / "archive", self.chance.randrange(1 << 30), self.files)
        self._originals = sources.tree(self.folder / "archive")
        begun = time.monotonic()
        code = self._transcode("workers", "-o", self.folder / "expected", self.folder / "archive")
        self._seconds = time.monotonic() - begun
        self._expected = sources.tree(self.folder / "expected")
        if code != ENDED:
            raise RuntimeError(f"undisturbed, it ended with {code}: {(self.folder / 'errors').read_text()}")

    def rounds(self, cuts: int, each: int = 8) -> Iterator[list[str]]:
        """Run jobs until so many cuts were looked at; yield what was wrong after each."""
        host = self.folder / "host.img"
        with host.open("wb") as file:
            file.truncate(_HOST_BYTES)
        _run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", host)
        with mounted(host, self.folder / "host"):
            done, kinds = 0, [(disk, way) for disk in DISKS for way in WAYS]
            self.chance.shuffle(kinds)
            for disk, way in itertools.cycle(kinds):
                if done >= cuts:
                    return
                for wrong in self._job(disk, way, min(each, cuts - done)):
                    done += 1
                    yield [f"power cut {done} ({disk}, {way}, {self.durability}): {what}" for what in wrong]

    def _job(self, disk: str, way: str, cuts: int) -> Iterator[list[str]]:
        """Clone the disk under one job, and yield what was wrong with each clone."""
        make, options = DISKS[disk]
        image = self.folder / "host" / "disk.img"
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(_DISK_BYTES)
        _run(*make, image)
        with mounted(image, self._disk, options):
            if way == "in-place":
                shutil.copytree(self.folder / "archive", self._disk / "in")
                _run("sync", "-f", self._disk)
            clones = _Clones(image, [self.chance.uniform(0.1, 1.0) * self._seconds for _ in range(cuts)])
            clones.start()
            code = self._transcode(way, *self._places(way))
            clones.close()
            wrong = self._look_at_end(way) if code == ENDED else [f"undisturbed, it ended with {code}"]
        if wrong or not clones.taken:
            yield wrong
        for clone in clones.taken:
            self.cuts[f"{disk}, {way}"] += 1
            with mounted(clone, self._disk, options):
                yield self._restarted(way)
            clone.unlink()

    def _places(self, way: str) -> list[str | Path]:
        if way == "in-place":
            return ["--in-place", "--backup", self._disk / "backup", self._disk / "in"]
        return ["-o", self._disk / "out", self.folder / "archive"]

    def _transcode(self, way: str, *args: str | Path) -> int:
        how = ["--workers", "0" if way == "threads" else "2", "--jobs", "4", "--durability", self.durability]
        return jobs.end(
            jobs.begin(*args, *how, "--to", "htj2k-lossless", "--reserve", "0", errors=self.folder / "errors")
        )

    def _journal(self, way: str) -> Path:
        return self._disk / ("backup" if way == "in-place" else "out") / ".gpuenc" / "journal.sqlite"

    def _restarted(self, way: str) -> list[str]:
        """Look at what is there after a restart, go on, and look again."""
        wrong = self._look_at_names(way)
        journal = self._journal(way)
        resume = journal.exists() and journal.stat().st_size > 0
        if resume:
            wrong += self._look_at_done(journal)
        elif way != "in-place" and sources.tree(self._disk / "out"):
            wrong.append("there are outputs and no journal")
        code = self._transcode(way, *self._places(way), *(["--resume"] if resume else []))
        if resume and code == USAGE:  # cut off while the journal was made: there is no job yet
            code = self._transcode(way, *self._places(way))
        if code != ENDED:
            said = (self.folder / "errors").read_text(encoding="utf-8", errors="replace")
            return [*wrong, f"gone on with, it ended with {code}: {said[-300:]}"]
        return wrong + self._look_at_end(way)

    def _look_at_names(self, way: str) -> list[str]:
        """Whatever has a final name is whole; of what is replaced, the original is there or kept."""
        if way != "in-place":
            there = sources.tree(self._disk / "out")
            named = {name: digest for name, digest in there.items() if not name.endswith(TEMPORARY_SUFFIX)}
            self.found_outputs += len(named)
            return [f"not whole: {name}" for name, digest in named.items() if self._expected.get(name) != digest]
        there, kept = sources.tree(self._disk / "in"), sources.tree(self._backup())
        wrong = []
        for name, digest in self._originals.items():
            replaced = there.get(name) not in (None, digest)
            self.found_outputs += replaced
            if replaced and there[name] != self._expected.get(name):
                wrong.append(f"neither original nor output: {name}")
            if there.get(name) != digest and kept.get(name) != digest:
                wrong.append(f"the original is lost: {name}")
        return wrong

    def _backup(self) -> Path:
        return (self._disk / "backup").joinpath(*(self._disk / "in").parts[1:])

    def _look_at_done(self, journal: Path) -> list[str]:
        """What the journal calls done has its output on the disk."""
        # What it says is in its log too, and reading that would change it.
        with tempfile.TemporaryDirectory() as folder:
            for path in journal.parent.glob(f"{journal.name}*"):
                shutil.copy(path, folder)
            with contextlib.closing(sqlite3.connect(Path(folder) / journal.name)) as db:
                try:
                    rows = db.execute("SELECT place, record FROM files WHERE state = ?", (_DONE,)).fetchall()
                except sqlite3.OperationalError:  # cut off while it was made: it knows of nothing
                    rows = []
        self.found_done += len(rows)
        made = [
            Path(os.fsdecode(place)) for place, record in rows if json.loads(line_of(record))["status"] == "encoded"
        ]
        return [f"done, and not there: {path.name}" for path in made if not path.is_file()]

    def _look_at_end(self, way: str) -> list[str]:
        there = sources.tree(self._disk / ("in" if way == "in-place" else "out"))
        wanted = self._expected
        if way == "in-place":
            wanted = self._originals | {name: one for name, one in wanted.items() if name in self._originals}
        wrong = [f"different: {name}" for name in sorted(there.keys() | wanted) if there.get(name) != wanted.get(name)]
        if way == "in-place":
            kept = {name: digest for name, digest in self._originals.items() if digest != wanted[name]}
            found = sources.tree(self._backup())
            wrong += [f"backup: {name}" for name in sorted(found.keys() | kept) if found.get(name) != kept.get(name)]
        return wrong + [f"left behind: {path.name}" for path in self._disk.rglob(f"*{TEMPORARY_SUFFIX}")]
