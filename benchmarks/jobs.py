"""What a job costs besides its codec: to find files, to do each of many, to go on when it is finished.

    python -m benchmarks.jobs [--files 100 10000 200000] [--rounds N] [--folder DIR] [--out FILE.json]

Files are small and synthetic (16×16 pixels). Each figure comes from a process of its own, so that its peak of memory is
that of one job; rounds are interleaved, and medians are told with their spread.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from gpuenc.archive.job import run
from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.planner import Planner
from gpuenc.archive.report import Record, Summary
from gpuenc.archive.request import Job
from gpuenc.archive.watcher import Watcher
from gpuenc.bench import document
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import find
from gpuenc.targets import target

FORMAT = "gpuenc-jobs/1"
_PER_FOLDER = 500
# A small job is over before it can be measured: it is repeated.
_LEAST_FILES = 2000
_WARM_UP = 50
_PLANNED = 10_000


def archive(folder: Path, count: int) -> Path:
    """Write `count` CT objects of 16×16×16 bit, with all the attributes of a real one; return their folder."""
    if folder.exists():
        return folder
    template = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    template.Rows = template.Columns = 16
    template.PixelData = template.PixelData[: 16 * 16 * 2]
    template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.000000000")
    folder.mkdir(parents=True)
    template.save_as(folder / "template")
    whole = (folder / "template").read_bytes()
    (folder / "template").unlink()
    for number in range(count):
        place = folder / f"study{number // _PER_FOLDER:06}"
        if number % _PER_FOLDER == 0:
            place.mkdir()
        (place / f"{number:09}.dcm").write_bytes(whole.replace(b"1.2.3.000000000", b"1.2.3.%09d" % (number + 1)))
    return folder


class _Clock(Watcher):
    """Measures a job from its first file to its last; a file that was not encoded voids the figure."""

    def start(self, files: int, bytes_total: int) -> None:
        """Begin to measure."""
        self.began_s, self.began_cpu_s = time.perf_counter(), time.process_time()

    def done(self, record: Record) -> None:
        """Demand that the file was encoded."""
        if record.status != "encoded":
            raise RuntimeError(f"{record.source}: {record.status} {record.reason}")

    def finish(self, summary: Summary) -> None:
        """End."""
        self.wall_s, self.cpu_s = time.perf_counter() - self.began_s, time.process_time() - self.began_cpu_s


def _job(source: Path, out: Path, durability: str = "none") -> Job:
    return Job(
        (source,),
        out,
        target(find("htj2k-lossless")),
        jobs=usable_cores() + 1,
        journal=place_of(out),
        durability=durability,
    ).absolute()


def one_job(folder: Path, count: int, durability: str) -> dict[str, float]:
    """Encode `count` files in this process, after some to warm up; return what each cost."""
    shutil.rmtree(folder / "warm", ignore_errors=True)
    run(_job(archive(folder / f"in{_WARM_UP}", _WARM_UP), folder / "warm"), _Clock())
    source = archive(folder / f"in{count}", count)
    clock, wall_s, cpu_s, done = _Clock(), 0.0, 0.0, 0
    while done < _LEAST_FILES:
        shutil.rmtree(folder / "out", ignore_errors=True)
        run(_job(source, folder / "out", durability), clock)
        wall_s, cpu_s, done = wall_s + clock.wall_s, cpu_s + clock.cpu_s, done + count
    return {
        "wall_us_per_file": wall_s / done * 1e6,
        "cpu_us_per_file": cpu_s / done * 1e6,
        "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def one_plan(folder: Path, how: str) -> dict[str, float]:
    """Find files, by their names alone or reading every header; return how many in a second."""
    source = archive(folder / f"in{_PLANNED}", _PLANNED)
    job = replace(_job(source, folder / "planned"), dry_run=True, journal=None)
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    if how == "headers":
        run(job, _Clock())
    else:
        with Journal(None, {}) as journal:
            planner = Planner(job, journal, lambda record: None, lambda outcome: None)
            while not planner.complete:
                planner.some()
    wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    return {"files_s": _PLANNED / wall_s, "cpu_us_per_file": cpu_s / _PLANNED * 1e6}


def one_resume(folder: Path, count: int) -> dict[str, float]:
    """Have the command go on with the finished job that `one_job` left."""
    source, out = folder / f"in{count}", folder / "out"
    command = [sys.executable, "-m", "gpuenc", "transcode", str(source), "-o", str(out), "--to", "htj2k-lossless"]
    before, begun_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [*command, "--resume", "--report", str(folder / "report.jsonl")], check=True, stdout=subprocess.DEVNULL
    )
    wall_s, after = time.perf_counter() - begun_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if sum(1 for _ in (folder / "report.jsonl").open("rb")) != count:
        raise RuntimeError("the report does not hold every file")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_kib": after.ru_maxrss}


def _apart(*what: str | Path | int) -> dict[str, float]:
    """Take one figure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.jobs", "--one", *map(str, what)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def _one(what: str, folder: str, *more: str) -> dict[str, float]:
    if what == "job":
        return one_job(Path(folder), int(more[0]), more[1])
    if what == "plan":
        return one_plan(Path(folder), more[0])
    return one_resume(Path(folder), int(more[0]))


def _told(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    names = rounds[0].keys()
    columns = {name: [one[name] for one in rounds] for name in names}
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in columns.items()
    }


def measure(folder: Path, counts: list[int], rounds: int) -> dict[str, Any]:
    """Measure everything; the largest job once, and the others in turn."""
    plans: dict[str, list[dict[str, float]]] = {"names": [], "headers": []}
    each: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    resumed: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    durable: dict[str, list[dict[str, float]]] = {"none": [], "shard": [], "file": []}
    for number in range(rounds):
        for how, found in plans.items():
            found.append(_apart("plan", folder, how))
        for count in counts:
            if number and count == max(counts):
                continue
            each[count].append(_apart("job", folder, count, "none"))
            resumed[count].append(_apart("resume", folder, count))
            print(count, each[count][-1], resumed[count][-1], file=sys.stderr)
        for durability, found in durable.items():
            found.append(_apart("job", folder, _LEAST_FILES, durability))
    return {
        "planning": {how: _told(found) for how, found in plans.items()},
        "job": {str(count): _told(found) for count, found in each.items()},
        "resume_of_a_finished_job": {str(count): _told(found) for count, found in resumed.items()},
        "durability": {name: _told(found) for name, found in durable.items()},
    }


def main() -> None:
    """Measure, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[100, 10_000, 200_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work, on the disk that is meant; a temporary one")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_one(*args.one)))
        return
    with tempfile.TemporaryDirectory(prefix="gpuenc-jobs-", dir=args.folder) as name:
        found = measure(Path(name), args.files, args.rounds)
    result: dict[str, Any] = {
        **document.heading(FORMAT),
        "settings": {"rounds": args.rounds, "quick": False},
        **found,
    }
    result["versions"]["kernel"] = platform.release()
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
