"""What was promised of speed, each with the figure that committed results have for it, and why where it is missed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

OPEN = "not measured yet"
NO_PROFILE = "no profile yet"

# Results by their format, the newest of each machine.
Committed = dict[str, list[dict[str, Any]]]
BENCH, SPEED, GPU, JOBS = "gpuenc-bench/1", "gpuenc-speed/1", "gpuenc-gpu-bench/1", "gpuenc-jobs/1"
LOADING = "gpuenc-loading/1"

# Target → why it was missed on the CPU, with the profile that shows it. Typed, as findings are; figures are not.
_FILE_PATH = (
    "sampled over 2,400 files in one thread (`--verify none`): encode 60 % of the time, opening the source and, "
    "read back, the output 9 %, the rest of reading back and naming 5 %, making the temporary file 4 %, markers 2 "
    "%, the rest in pieces below 2 %. That is 4.4 ms of CPU a file where the encode alone takes 2.6, and 0.5 ms "
    "of whoever hands it out and keeps the journal; with both processors of this machine busy all of it, the bare "
    "codec too, takes a third longer, and threads wait for one interpreter"
)
_START = "starting Python, pydicom, numpy and imagecodecs takes 0.9 s of it in each process; files alone see above"
_PEER = (
    "the peer's codec is as fast and its file path shorter: no fsync, no digests, no second reading of what was "
    "written, which together cost as much as encoding such a file"
)
PROFILES: dict[str, str] = {
    **{f"files-{verify}-threads": _FILE_PATH for verify in ("none", "all")},
    **{f"files-{verify}-workers": f"{_FILE_PATH}; {_START}" for verify in ("none", "all")},
    "loop-job": _FILE_PATH,
    "files-loop": _FILE_PATH,
    "loop-command": _START,
    "peers-jpeg-ls-lossless": _PEER,
    "peers-rle": _PEER,
    "iter-encode-htj2k-lossless": "rounds of 0.15 s on a noisy machine: 0.94 when it was quiet (2026-11-22)",
    "iter-encode-jpeg-ls-lossless": "rounds of 0.3 s on a noisy machine: 0.97 when it was quiet (2026-11-22)",
    "iter-encode-rle": "rounds of 0.08 s on a noisy machine: 0.94 when it was quiet (2026-11-22)",
    "plan": (
        "cProfile over 2,000 files of 280 elements: following the header 45 %, describing pixels 10 %, paths 8 %, "
        "opening and stat 7 %; about 1 ms of CPU for each"
    ),
}


@dataclass(frozen=True)
class Found:
    """A figure: median, lowest and highest round."""

    median: float
    low: float
    high: float
    on: str
    noisy: bool = False


@dataclass(frozen=True)
class Target:
    """A promise.

    Parameters
    ----------
    area : {'Encoder', 'Archive', 'Pipelines', 'Benchmark', 'GPU'}
        Whose.
    what : str
        What is compared.
    bound : float
        At least this, or with `most` at most.
    unit : str
        Behind figures.
    format : str
        Of the results that have it.
    find : callable
        Returns the figures that one document of results has for it.
    most : bool
        It is an upper bound.
    """

    area: str
    what: str
    bound: float
    unit: str
    format: str
    find: Callable[[dict[str, Any]], Iterable[Any]]
    most: bool = False

    def met(self, found: Found) -> bool:
        """Whether the median keeps it."""
        return found.median <= self.bound if self.most else found.median >= self.bound

    def found(self, committed: Committed) -> list[Found]:
        """Return one figure for each machine that has been measured."""
        figures = []
        for results in committed.get(self.format, ()):
            for value in list(self.find(results))[:1]:
                figures.append(_figure(value, results))
        return figures


def _figure(value: Any, results: dict[str, Any]) -> Found:
    about, on = results["machine"], results["measured_at"][:10]
    gpus = ", ".join(one["name"] for one in about["gpus"])
    where = f"{gpus or about['cpu']}, {about['cores']} cores, {on}"
    if isinstance(value, dict):
        return Found(value["median"], value["low"], value["high"], where, bool(value.get("noisy")))
    return Found(value, value, value, where)


def _rows(results: dict[str, Any], *path: str) -> list[dict[str, Any]]:
    found: Any = results
    for name in path:
        found = found.get(name, {} if name != path[-1] else [])
    return [row for row in found if row.get("status") == "measured"]


def _speed(part: Sequence[str], key: str, syntax: str, has: str = "", end: str = "") -> Callable[[Any], Iterator[Any]]:
    def find(results: dict[str, Any]) -> Iterator[Any]:
        for row in _rows(results, *part):
            by = row.get("by", "")
            if row["syntax"] == syntax and has in by and by.endswith(end) and key in row:
                yield row[key]

    return find


def _loading(part: str, reader: str) -> Callable[[Any], Iterator[Any]]:
    return lambda results: (
        row["times_pydicom_j2k"]
        for row in _rows(results, part)
        if (row["reader"], row["format"]) == (reader, "htj2k") and "times_pydicom_j2k" in row
    )


def _rle_over_gdcm(results: dict[str, Any]) -> Iterator[Any]:
    for row in results.get("ratios", ()):
        if (row["syntax"], row["plugin"]) == ("rle", "gdcm"):
            times = row["times"]
            # Of ours over gdcm's, where the results have gdcm's over ours.
            yield {"median": 1 / times["median"], "low": 1 / times["high"], "high": 1 / times["low"],
                   "noisy": times["noisy"]}  # fmt: skip


def _engine(key: str) -> Callable[[Any], Iterator[Any]]:
    return lambda results: (row[key] for row in _rows(results, "engine") if row["side"] == 512)


def _kernels(batch: str, kernel: str, key: str) -> Callable[[Any], Iterator[Any]]:
    return lambda results: (
        row[key] for row in _rows(results, "kernels") if (row["batch"], row["kernel"]) == (batch, kernel)
    )


def _over_nvidia(results: dict[str, Any]) -> Iterator[Any]:
    return (
        row["gpuenc_times"]
        for row in _rows(results, "transcode")
        if row["peer"].startswith("NVIDIA") and "gpuenc_times" in row
    )


def _told(part: str, of: str, key: str) -> Callable[[Any], Iterator[Any]]:
    def find(results: dict[str, Any]) -> Iterator[Any]:
        found = results.get(part, {}).get(of, {}).get(key)
        if found:
            yield {"median": found["median"], "low": found["min"], "high": found["max"]}

    return find


def _cost_ratio(count: int, base: int = 100) -> Callable[[Any], Iterator[Any]]:
    """Return what finds the CPU time of a file in a job of so many, over that in the small one."""

    def find(results: dict[str, Any]) -> Iterator[Any]:
        jobs = results.get("job", {})
        if str(count) in jobs and str(base) in jobs:
            one, other = (jobs[str(number)]["cpu_us_per_file"] for number in (count, base))
            yield {
                "median": one["median"] / other["median"], "low": one["min"] / other["max"],
                "high": one["max"] / other["min"],
            }  # fmt: skip

    return find


def _seconds(quick: bool) -> Callable[[Any], Iterator[Any]]:
    return lambda results: iter([results["seconds"]] if results["settings"]["quick"] == quick else [])


_NAMES = {"htj2k-lossless": "HTJ2K", "jpeg-lossless-sv1": "JPEG Lossless", "jpeg-ls-lossless": "JPEG-LS", "rle": "RLE"}
_FILES, _PEERS, _COMMAND = ("files",), ("peers",), ("command", "rows")

TARGETS: dict[str, Target] = {
    **{
        f"iter-encode-{name}": Target(
            "Encoder", f"`iter_encode` of 64 frames with two threads ÷ the bare codec: {_NAMES[name]}", 0.90, "", SPEED,
            _speed(("encoder",), "share_of_bare", name),
        )
        for name in _NAMES
    },
    "import": Target(
        "Encoder", "`import gpuenc`", 0.3, " s", SPEED,
        lambda results: [results["command"]["import_s"]["import gpuenc"]] if "command" in results else [], most=True,
    ),
    "rle-gdcm": Target("Encoder", "RLE encode ÷ gdcm's", 3, " ×", BENCH, _rle_over_gdcm),
    "loop-job": Target(
        "Encoder", "CT files to HTJ2K, verified ÷ pydicom's serial JPEG 2000 loop, job alone", 10, " ×", SPEED,
        _speed(_FILES, "times_pydicom", "htj2k-lossless", "gpuenc, threads", "--verify all"),
    ),
    "loop-command": Target(
        "Encoder", "The same as a command, start of its process included", 10, " ×", SPEED,
        _speed(_COMMAND, "times_pydicom", "htj2k-lossless"),
    ),
    **{
        f"files-{verify}-{by}": Target(
            "Archive", f"CT files to HTJ2K with `--verify {verify}`, {said} ÷ the bare codec on all cores", bound, "",
            SPEED, _speed(_FILES, "share_of_bare", "htj2k-lossless", begin, f"--verify {verify}"),
        )
        for verify, bound in (("none", 0.85), ("all", 0.60))
        for by, begin, said in (
            ("threads", "gpuenc, threads", "threads of one process"),
            ("workers", "worker processes", "a worker process for each core"),
        )
    },
    "files-loop": Target(
        "Archive", "CT files to HTJ2K with `--verify none` ÷ pydicom's serial JPEG 2000 loop", 14, " ×", SPEED,
        _speed(_FILES, "times_pydicom", "htj2k-lossless", "gpuenc, threads", "--verify none"),
    ),
    **{
        f"peers-{name}": Target(
            "Archive", f"CT files to {_NAMES[name]} ÷ the best peer on as many cores", 2, " ×", SPEED,
            _speed(_PEERS, "times_best_peer", name, "gpuenc, threads", "--verify none"),
        )
        for name in list(_NAMES)[1:]
    },
    "plan": Target(
        "Archive", "Planning, every header read", 2000, " files/s", JOBS, _told("planning", "headers", "files_s")
    ),
    "cost-10000": Target(
        "Archive", "CPU time per file of a job of 10,000 ÷ of 100", 1.1, "", JOBS, _cost_ratio(10_000), most=True
    ),
    "cost-200000": Target(
        "Archive", "CPU time per file of a job of 200,000 ÷ of 100", 1.1, "", JOBS, _cost_ratio(200_000), most=True
    ),
    "resume": Target(
        "Archive", "Resuming a finished job of 200,000 files", 10, " s", JOBS,
        _told("resume_of_a_finished_job", "200000", "wall_s"), most=True,
    ),
    "loading-random": Target(
        "Pipelines", "Random frames of one HTJ2K object, batches of 32 ÷ pydicom's `pixel_array(index=)` of JPEG 2000",
        20, " ×", LOADING, _loading("random", "gpuenc, batches of 32"),
    ),
    "loading-epoch": Target(
        "Pipelines", "An epoch over HTJ2K files ÷ pydicom over JPEG 2000, as many workers", 5, " ×", LOADING,
        _loading("epoch", "gpuenc"),
    ),
    "quick": Target("Benchmark", "`gpuenc bench --quick`", 120, " s", BENCH, _seconds(True), most=True),
    "whole": Target("Benchmark", "`make bench`", 600, " s", BENCH, _seconds(False), most=True),
    "gpu-device": Target(
        "GPU", "HTJ2K of frames on the GPU ÷ bare nvImageCodec, 512²", 0.95, "", GPU, _engine("device_share")
    ),
    "gpu-host": Target(
        "GPU", "HTJ2K of frames on the host ÷ the lesser of bare nvImageCodec and pinned copies, 512²", 0.9, "", GPU,
        _engine("host_share"),
    ),
    "gpu-transcode": Target("GPU", "`gpuenc transcode` ÷ NVIDIA's converter", 5, " ×", GPU, _over_nvidia),
    "gpu-prepare": Target(
        "GPU", "Preparation of 16-bit samples, bytes moved ÷ a copy's", 0.8, "", GPU,
        _kernels("prepare_16_16", "prepare_16_16", "share_of_copy"),
    ),
    "gpu-htj2k": Target(
        "GPU", "Our HTJ2K kernels alone, CT of 12 bits", 10, " GB/s", GPU,
        _kernels("htj2k 12 bits", "all launches", "gb_s"),
    ),
    "gpu-sv1": Target(
        "GPU", "Our JPEG Lossless kernels alone, CT of 12 bits", 20, " GB/s", GPU,
        _kernels("jpeg-lossless 12 bits", "all launches", "gb_s"),
    ),
    "gpu-rle": Target(
        "GPU", "Our RLE kernels alone, CT of 12 bits", 20, " GB/s", GPU, _kernels("rle 12 bits", "all launches", "gb_s")
    ),
}  # fmt: skip


def table(committed: Committed) -> str:
    """Return the targets as a table of Markdown, a line for each machine that has a figure."""
    lines = ["| | Target | | Measured | On | If missed, why |", "|---" * 6 + "|"]
    for key, target in TARGETS.items():
        bound = f"{'≤' if target.most else '≥'} {target.bound:g}{target.unit}"
        figures = target.found(committed)
        if not figures:
            lines.append(f"| {target.area} | {target.what} | {bound} | {OPEN} | | |")
        for found in figures:
            met = target.met(found)
            why = "" if met else PROFILES.get(key, NO_PROFILE)
            lines.append(
                f"| {target.area} | {target.what} | {bound} | {_said(found, target.unit, met)} | {found.on} | {why} |"
            )
    return "\n".join(lines) + "\n"


def _said(found: Found, unit: str, met: bool) -> str:
    digits = 0 if found.median >= 100 else 1 if found.median >= 10 else 2
    text = f"{found.median:.{digits}f}{unit}"
    if found.low != found.high:
        text += f" ({found.low:.{digits}f}–{found.high:.{digits}f})"
    return f"{text}{', met' if met else ', **missed**'}{', noisy' if found.noisy else ''}"
