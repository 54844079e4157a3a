"""The whole benchmark: cases, targets, plug-ins, jobs over files, sweeps; and its results as one JSON document."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuenc.bench import cases, charts, document, stages, sweeps, transcoding
from gpuenc.bench.measure import LEAST_ROUNDS, NOISY
from gpuenc.bench.rows import Settings, candidates, measure
from gpuenc.errors import InvalidOption
from gpuenc.syntaxes import find
from gpuenc.targets import target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from gpuenc.bench.cases import Absent, Case
    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target

FORMAT = "gpuenc-bench/1"
SYNTAXES = ("htj2k-lossless", "jpeg-ls-lossless", "jpeg-lossless-sv1", "rle", "jpeg2000-lossless")
# When nothing more is begun, so that what is begun, and peers after it, end within two, or ten, minutes.
_QUICK_S, _WHOLE_S = 105.0, 380.0
# What is kept back of that for frame sizes and batches.
_QUICK_REST_S, _WHOLE_REST_S = 20.0, 60.0
# Of each case but the first, or of all in --quick, jobs over files get so many frames.
_FEW_FRAMES = 48
# A job of so many frames that would take longer is not timed.
_MOST_JOB_S = 8.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Parameters
    ----------
    data : tuple of str or Path
        ``"synthetic"``, ``"demo"``, or folders.
    targets : tuple of Target
        What frames become.
    device : str or int
        As for `Encoder.encode`.
    quick : bool
        At most two minutes; what does not fit into them says so.
    rounds : int
        At least `LEAST_ROUNDS`.
    tiles : int
        How many tiles the built-in slide has; see `cases.synthetic`.
    """

    data: tuple[str | Path, ...] = ("synthetic",)
    targets: tuple[Target, ...] = ()
    device: str | int = "auto"
    quick: bool = False
    rounds: int = LEAST_ROUNDS
    tiles: int = 0

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS:
            raise InvalidOption(f"fewer than {LEAST_ROUNDS} rounds have no spread worth the name")


def default_targets() -> tuple[Target, ...]:
    """Return the lossless targets that are compared where none are asked for."""
    return tuple(target(find(name)) for name in SYNTAXES)


def run(asked: Request, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure what is asked for and return the results.

    Parameters
    ----------
    asked : Request
        What to measure. Nothing that cannot be measured is an error: it has a row that says why.
    tell : callable
        Gets a line on what is done next.
    """
    begun = time.monotonic()
    limit_s = begun + (_QUICK_S if asked.quick else _WHOLE_S)
    settings = Settings(
        rounds=asked.rounds,
        round_s=0.06 if asked.quick else 0.25,
        latencies=20 if asked.quick else 100,
        verified=not asked.quick,
        until_s=limit_s - (_QUICK_REST_S if asked.quick else _WHOLE_REST_S),
        device=asked.device,
    )
    targets = asked.targets or default_targets()
    results: dict[str, Any] = {
        **document.heading(FORMAT),
        "settings": {"quick": asked.quick, "rounds": asked.rounds, "device": str(asked.device)},
        **{name: [] for name in ("cases", "absent", "rows", "ratios", "transcode", "workers", "sweep", "crossovers")},
        "stages": [],
    }
    first, rows_until_s = True, settings.until_s
    for number, case in enumerate(_cases(asked)):
        # No case takes the others' time: each has its share of what is left.
        now, left = time.monotonic(), max(1, _expected(asked) - number)
        settings = replace(settings, until_s=now + (rows_until_s - now) / left)
        if isinstance(case, cases.Absent):
            results["absent"].append({"name": case.name, "why": case.why})
            continue
        results["cases"].append(case.as_json())
        for chosen in targets:
            tell(f"{case.name}: {chosen.syntax.name}")
            rows, ratios = measure(case, chosen, candidates(chosen, asked.device), settings)
            results["rows"] += rows
            results["ratios"] += ratios
        if first or not asked.quick:
            tell(f"{case.name}: transcode")
            # The first case's jobs show most: they have a third of what is left, those of the others their share.
            now, share = time.monotonic(), 3 if first else 2 * left
            later = replace(settings, until_s=now + max(0.0, limit_s - now) / share)
            _over_files(case, targets, later, results, quick=asked.quick, scaling=first)
        first = False
    for number, chosen in enumerate(targets):
        on_gpu = any(not isinstance(one, str) and one.device == "gpu" for _, one in candidates(chosen, asked.device))
        if number and (asked.quick or not on_gpu):
            continue  # without a GPU there is nothing to compare
        tell(f"frame sizes and batches: {chosen.syntax.name}")
        _sweep(chosen, asked, replace(settings, until_s=limit_s, round_s=settings.round_s / 2), results)
    results["crossovers"] = sweeps.crossovers(results["sweep"])
    results["seconds"] = time.monotonic() - begun
    results["noise"] = noise(results)
    return results


def noise(results: dict[str, Any]) -> dict[str, Any]:
    """Return how much rounds differed: the widest spread of any rate, and how many of the rates are noisy."""
    rates = [
        row[name]
        for part in ("rows", "transcode", "workers", "sweep", "peers")
        for row in results.get(part, ())
        for name in ("mb_s", "verified_mb_s")
        if name in row
    ]
    spreads = [rate["spread"] for rate in rates]
    noisy = sum(spread > NOISY for spread in spreads)
    return {
        "figures": len(spreads),
        "noisy_figures": noisy,
        "widest_spread": max(spreads, default=0.0),
        "limit": NOISY,
        "noisy": noisy > 0,
    }


def write(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write the results and, where there is matplotlib, their charts; return the paths, the JSON's first."""
    path = document.write(results, folder, "-quick" if results["settings"]["quick"] else "")
    return [path, *(charts.save(results, folder, path.stem) if charts.available() else [])]


def _expected(asked: Request) -> int:
    """Return about how many cases there will be; of folders it is not known before they are read."""
    known = {"synthetic": 5, "demo": len(cases.REAL)}
    return sum(known.get(str(data), 3) for data in asked.data)


def _cases(asked: Request) -> Iterator[Case | Absent]:
    for data in asked.data:
        if data == "synthetic":
            yield from cases.synthetic(quick=asked.quick, tiles=asked.tiles)
        elif data == "demo":
            yield from cases.real()
        else:
            from pathlib import Path

            yield from cases.of_folder(Path(data))


def _over_files(
    case: Case, targets: Sequence[Target], settings: Settings, results: dict[str, Any], *, quick: bool, scaling: bool
) -> None:
    few = case if case.files else replace(case, frames=case.frames[:_FEW_FRAMES])
    with transcoding.study(few if quick else case) as study:
        results["transcode"] += transcoding.by_plugin(study, targets[0], _fast(results, case, targets[0]), settings)
        if scaling:
            results["workers"] += transcoding.by_workers(study, targets[0], settings)
    if scaling and not quick:
        with transcoding.study(few) as study:
            for one in targets[1:]:
                results["transcode"] += transcoding.by_plugin(study, one, _fast(results, case, one), settings)


def _fast(results: dict[str, Any], case: Case, chosen: Target) -> list[tuple[str, Plugin | str]]:
    """Return the plug-ins of a target; of those without figures for the case, why a job is not timed either."""
    said = {
        row["plugin"]: row.get("why", "")
        for row in results["rows"]
        if row["case"] == case.name and row["syntax"] == chosen.syntax.name
    }
    found = candidates(chosen, results["settings"]["device"])
    slowest_mb_s = sum(frame.format.frame_bytes for frame in case.frames[:_FEW_FRAMES]) / 1e6 / _MOST_JOB_S
    for row in results["rows"]:
        if row["case"] == case.name and row["syntax"] == chosen.syntax.name and row["status"] == "measured":
            rate = row["mb_s"]["median"]
            if rate < slowest_mb_s:
                said[row["plugin"]] = f"at {rate:.1f} MB/s a job takes too long for this run"
    return [(label, said.get(label) or plugin) for label, plugin in found]


def _sweep(chosen: Target, asked: Request, settings: Settings, results: dict[str, Any]) -> None:
    plugins = candidates(chosen, asked.device)
    sides = sweeps.QUICK_SIDES if asked.quick else sweeps.SIDES
    batches = sweeps.QUICK_BATCHES if asked.quick else sweeps.BATCHES
    results["sweep"] += sweeps.sweep(chosen, plugins, settings, sides, batches)
    results["stages"] += stages.measure(chosen, plugins, settings)
