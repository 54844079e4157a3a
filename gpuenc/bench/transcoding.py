"""`gpuenc transcode` end to end: files in, verified files out, for each plug-in and for numbers of workers."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from gpuenc.archive.job import run
from gpuenc.archive.request import Job
from gpuenc.archive.watcher import Watcher
from gpuenc.bench import files
from gpuenc.bench.measure import NO_TIME, Contender, figure, interleave, ratio
from gpuenc.errors import EncodeFailed
from gpuenc.plugins import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuenc.archive.report import Record
    from gpuenc.bench.cases import Case
    from gpuenc.bench.rows import Settings
    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target


@dataclass
class _Records(Watcher):
    """Keeps what became of each file."""

    records: list[Record] = field(default_factory=list)

    def done(self, record: Record) -> None:
        """Keep it."""
        self.records.append(record)


@dataclass(frozen=True, slots=True)
class Study:
    """A case's files on the disk: where they lie, and room for outputs."""

    case: Case
    paths: tuple[Path, ...]
    out: Path


@contextlib.contextmanager
def study(case: Case, most_frames: int | None = None) -> Iterator[Study]:
    """Have a case's files on the disk; the user's own are read where they lie, and never written to."""
    with tempfile.TemporaryDirectory(prefix="gpuenc-bench-") as name:
        folder, out = Path(name) / "in", Path(name) / "out"
        folder.mkdir()
        paths = case.files or tuple(files.write(case, folder, most_frames))
        yield Study(case, paths, out)


def by_plugin(
    of: Study, target: Target, plugins: Sequence[tuple[str, Plugin | str]], settings: Settings
) -> list[dict[str, Any]]:
    """Return the rate of a job over files for each plug-in, in threads of this process, every sample verified."""
    rows: list[dict[str, Any]] = []
    contenders: list[Contender] = []
    stages: dict[str, list[dict[str, float]]] = {}
    about = {"case": of.case.name, "syntax": target.syntax.name}
    for label, plugin in plugins:
        if isinstance(plugin, str):
            rows.append(about | {"plugin": label, "status": "absent", "why": plugin})
        elif settings.out_of_time:
            rows.append(about | {"plugin": label, "status": "absent", "why": NO_TIME})
        else:
            kept = stages.setdefault(label, [])
            contenders.append(_contender(of, target, label, 0, settings, label, stages=kept))
    interleave(contenders, settings.rounds, left_s=settings.left_s)
    for one in contenders:
        row = about | {"plugin": one.name} | _figures(of, one)
        if one.seconds:
            rounds = stages[one.name][-len(one.seconds) :]
            names = dict.fromkeys(name for each in rounds for name in each)
            row["stage_ms"] = {name: median(each.get(name, 0.0) for each in rounds) for name in names}
        rows.append(row)
    return rows


def _stages(records: Sequence[Record]) -> dict[str, float]:
    """Return the milliseconds that a file's thread spends in each stage, of one round."""
    spent: dict[str, float] = {}
    for record in records:
        for stage, seconds in record.stage_seconds.items():
            spent[stage] = spent.get(stage, 0.0) + 1e3 * seconds / len(records)
    return spent


def by_workers(of: Study, target: Target, settings: Settings) -> list[dict[str, Any]]:
    """Return the rate of a job over files with 1, 2, 4 … worker processes, up to one for every core."""
    cores = usable_cores()
    counts = sorted({1, cores, *(1 << power for power in range(1, 12) if 1 << power < cores)})
    contenders = [_contender(of, target, "", count, settings, str(count), jobs=count) for count in counts]
    interleave(contenders, settings.rounds, left_s=settings.left_s)
    rows = []
    for one in contenders:
        row = {"case": of.case.name, "syntax": target.syntax.name, "workers": int(one.name)} | _figures(of, one)
        if one.seconds and contenders[0].seconds:
            row["times_one"] = ratio(one.rates, contenders[0].rates).as_json()
        rows.append(row)
    return rows


def _contender(
    of: Study,
    target: Target,
    label: str,
    workers: int,
    settings: Settings,
    name: str,
    *,
    jobs: int | None = None,
    stages: list[dict[str, float]] | None = None,
) -> Contender:
    def work() -> list[Record]:
        watcher = _Records()
        job = Job(
            of.paths,
            of.out / (name or "auto"),
            target,
            plugin=label,
            device=settings.device,
            jobs=jobs or usable_cores() + 2,
            lanes=jobs,
            verify="all",
            overwrite=True,
            keep_lossy=False,
            workers=workers,
            durability="none",
        )
        run(job, watcher)
        return watcher.records

    def check(records: list[Record]) -> None:
        for record in records:
            if record.status != "encoded" or not (record.verified or not target.lossless):
                raise EncodeFailed(f"a file was {record.status}, {record.reason or 'not verified'}")
            if label and set(record.plugins) != {label}:
                raise EncodeFailed(f"frames were encoded by {', '.join(record.plugins)}")
        if len(records) != len(of.paths):
            raise EncodeFailed(f"{len(records)} of {len(of.paths)} files have an outcome")
        if stages is not None:
            stages.append(_stages(records))
        shutil.rmtree(of.out / (name or "auto"), ignore_errors=True)

    return Contender(name, work, check, float(len(of.paths)))


def _figures(of: Study, one: Contender) -> dict[str, Any]:
    if one.why_void:
        return one.without
    size = sum(frame.format.frame_bytes for frame in of.case.frames) / 1e6
    return {
        "status": "measured",
        "files": len(of.paths),
        "files_s": figure(one.rates).as_json(),
        "mb_s": figure([rate * size / one.amount for rate in one.rates]).as_json(),
    }
