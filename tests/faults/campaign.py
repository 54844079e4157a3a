"""Rounds: a job is disturbed at random moments and gone on with, until it ends; then everything is looked at."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from gpuenc.dicom.atomic import TEMPORARY_SUFFIX
from tests.faults import jobs, sources

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

# A job with worker processes, one of threads, and one that replaces its sources.
WAYS = ("workers", "workers", "workers", "workers", "threads", "in-place")
FAULTS = (
    "worker", "worker worker", "worker worker worker", "worker worker worker worker worker", "parent", "parent",
    "group", "group", "INT", "TERM", "HUP", "INT INT", "TERM TERM", "INT TERM", "ctrl-c", "ctrl-c ctrl-c",
    "worker INT", "worker group", "INT worker",
)  # fmt: skip
# One file of each ten fails, so a job that reached its end says 1.
ENDED, INTERRUPTED, USAGE = 1, 130, 2
MOST_RUNS = 12


@dataclass
class Campaign:
    """An archive, what an undisturbed job makes of it, and what was found in the rounds so far."""

    folder: Path
    chance: Random
    files: int = sources.FILES
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    looked: int = 0

    def __post_init__(self) -> None:
        sources.write(self.folder / "archive", self.chance.randrange(1 << 30), self.files)
        self.stamps = sources.stamps(self.folder / "archive")
        begun = time.monotonic()
        self._undisturbed(self.folder / "expected", ())
        self.seconds = time.monotonic() - begun
        self.expected = sources.tree(self.folder / "expected")

    @cached_property
    def replaced(self) -> dict[str, str]:
        """The archive after an undisturbed job that replaces it."""
        copy = self.folder / "replaced"
        shutil.copytree(self.folder / "archive", copy)
        self._undisturbed(None, ("--in-place", "--backup", self.folder / "replaced-backup", copy))
        return sources.tree(copy)

    def round(self, number: int) -> list[str]:
        """Return what was wrong in one round."""
        place = self.folder / f"round-{number}"
        place.mkdir()
        way = self.chance.choice(WAYS)
        self._wrong: list[str] = []
        if way == "in-place":
            shutil.copytree(self.folder / "archive", place / "in")
            originals = {name: digest for name, (_, _, digest) in sources.stamps(place / "in").items()}
            watched, wanted = place / "in", self.replaced
            allowed = {name: {digest, wanted[name]} for name, digest in originals.items()}
            args = ["--in-place", "--backup", place / "backup", "--workers", "2", place / "in"]
            journal = place / "backup" / ".gpuenc" / "journal.sqlite"
        else:
            watched, wanted = place / "out", self.expected
            allowed = {name: {digest} for name, digest in wanted.items()}
            args = ["--workers", "2" if way == "workers" else "0", "-o", watched, self.folder / "archive"]
            journal = watched / ".gpuenc" / "journal.sqlite"
        args += ["--to", "htj2k-lossless", "--jobs", "4", "--reserve", "0", "--report", place / "r.jsonl"]
        with jobs.watched(watched, allowed) as eyes:
            self._until_ended(args, journal, place / "errors")
        self.looked += eyes.looked
        self._wrong += [f"partial or wrong under its final name: {name}" for name in eyes.wrong]
        self._compare("outputs", sources.tree(watched), wanted)
        if way == "in-place":
            base = (place / "backup").joinpath(*(place / "in").parts[1:])
            kept = {name: digest for name, digest in originals.items() if digest != wanted[name]}
            self._compare("backups", sources.tree(base), kept)
        elif sources.stamps(self.folder / "archive") != self.stamps:
            self._wrong.append("a source has changed")
        self._wrong += [f"left behind: {path.name}" for path in place.rglob(f"*{TEMPORARY_SUFFIX}")]
        self._look_at_journal(journal)
        self._look_at_report(place / "r.jsonl")
        said = (place / "errors").read_text(encoding="utf-8", errors="replace")
        # One that is interrupted while Python itself is being loaded says so; from our first line on, nobody does.
        if "Traceback" in said and ("KeyboardInterrupt" not in said or "gpuenc" in said.replace("-m gpuenc", "")):
            self._wrong.append(f"a traceback: {said[said.index('Traceback') :][-400:]}")
        if not self._wrong:
            shutil.rmtree(place)
        return [f"round {number} ({way}): {what}" for what in self._wrong]

    def _until_ended(self, args: list[str | Path], journal: Path, errors: Path) -> None:
        disturbances = self.chance.choice((1, 1, 2, 3))
        half_made = False  # killed while it made its journal: there is no job to go on with
        for attempt in range(MOST_RUNS):
            fault = self.chance.choice(FAULTS) if attempt < disturbances else ""
            resume = ["--resume"] if journal.exists() and not half_made else []
            self.runs += 1
            process = jobs.begin(*args, *resume, errors=errors)
            if fault:
                time.sleep(self.chance.uniform(0, 0.8) * self.seconds)
                # Before it has started a worker, it may not listen to signals yet.
                begun, running = bool(jobs.children(process.pid)), process.poll() is None
                jobs.disturb(process, fault, self.chance)
                code = jobs.end(process)
                if not running:
                    fault = "none, it had ended"
                self.faults[fault] += 1
                if running and begun and fault in ("INT", "TERM", "HUP", "ctrl-c") and code not in (ENDED, INTERRUPTED):
                    self._wrong.append(f"{fault} ended it with {code}")
            else:
                code = jobs.end(process)
            self.ends[str(code)] += 1
            half_made = bool(resume) and code == USAGE
            if code == ENDED and (not fault or journal.exists()):
                return
            if not fault and code != USAGE:
                self._wrong.append(f"undisturbed, it ended with {code}")
                return
        self._wrong.append("it never came to its end")

    def _undisturbed(self, output: Path | None, more: tuple[str | Path, ...]) -> None:
        where = ["-o", output, self.folder / "archive"] if output else []
        args = [*where, *more, "--to", "htj2k-lossless", "--workers", "2", "--jobs", "4", "--reserve", "0"]
        code = jobs.end(jobs.begin(*args, errors=self.folder / "errors"))
        if code != ENDED:
            raise RuntimeError(f"undisturbed, the job ended with {code}: {(self.folder / 'errors').read_text()}")

    def _compare(self, what: str, found: dict[str, str], wanted: dict[str, str]) -> None:
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                how = "missing" if name not in found else "too many" if name not in wanted else "different"
                self._wrong.append(f"{what}: {name} is {how}")

    def _look_at_journal(self, journal: Path) -> None:
        db = sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)
        try:
            states = dict(db.execute("SELECT state, count(*) FROM files GROUP BY state"))
            finished = db.execute("SELECT value FROM about WHERE name = 'finished'").fetchone()
        finally:
            db.close()
        if states != {2: self.files} or not finished:
            self._wrong.append(f"the journal has {states}, finished: {finished}")

    def _look_at_report(self, report: Path) -> None:
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
        times = Counter(line["source"] for line in lines)
        if len(times) != self.files or max(times.values()) != 1:
            self._wrong.append(f"the report has {len(lines)} lines on {len(times)} files")
        statuses = Counter(line["status"] for line in lines)
        skipped = {line["reason"] for line in lines if line["status"] == "skipped"}
        if statuses["failed"] != self.files // 10 or "destination-exists" in skipped:
            self._wrong.append(f"the report says {dict(statuses)}, skipped for {skipped}")
        if "SECRET" in report.read_text(encoding="utf-8"):
            self._wrong.append("the report holds a patient's name")
