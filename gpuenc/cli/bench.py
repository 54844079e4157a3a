"""`gpuenc bench`: how fast this machine is, of output that was decoded and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from gpuenc.cli import options as given
from gpuenc.cli.jobs import target_of
from gpuenc.cli.terminal import Exit, console, errors, give_up, show

if TYPE_CHECKING:
    from gpuenc.targets import Target

Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="[DIR|synthetic|demo]", help="Your files, the built-in pictures, or pydicom's."),
]
Targets = Annotated[list[str] | None, typer.Option("--to", help="Transfer syntax; may be given several times.")]
Quick = Annotated[bool, typer.Option("--quick", help="At most two minutes.")]
Rounds = Annotated[int, typer.Option("--rounds", min=5, help="Rounds of each, after one of warm-up.")]
Folder = Annotated[Path, typer.Option("-o", "--output", help="Folder for the JSON and the charts.")]


def bench(
    data: Data = None,
    to: Targets = None,
    device: given.WhichDevice = "auto",
    quick: Quick = False,
    rounds: Rounds = 5,
    output: Folder = Path("results"),
    quality: given.Quality = None,
    psnr: given.Psnr = None,
    ratio: given.Ratio = None,
    near: given.Near = 0,
    lossless: given.Lossless = False,
) -> None:
    """Measure each plug-in on your files or on built-in pictures; every figure is of output that was verified."""
    from gpuenc.bench import run as runner
    from gpuenc.devices import choice
    from gpuenc.errors import InvalidOption

    try:
        where = choice(device)
    except InvalidOption as error:
        give_up(str(error), Exit.USAGE)
    for name in data or ():
        if name not in ("synthetic", "demo") and not Path(name).exists():
            give_up(f"no such file or folder: {name}", Exit.NO_INPUT)
    targets: tuple[Target, ...] = tuple(target_of(name, quality, psnr, ratio, near, lossless) for name in to or ())
    for chosen in targets:
        if not chosen.syntax.encapsulated:
            give_up(f"{chosen.syntax.name} is written without an encoder: there is nothing to measure", Exit.USAGE)
    asked = runner.Request(tuple(data or ("synthetic",)), targets, where, quick, rounds)
    results = runner.run(asked, lambda line: errors.print(f"{line} …"))
    for table in _tables(results):
        show(table)
    _say_what_is_missing(results)
    try:
        for path in runner.write(results, output):
            console.print(f"written: {path}", soft_wrap=True)
    except OSError as error:
        give_up(f"cannot write to {output}: {error.strerror}", Exit.ENVIRONMENT)
    _keep(results)
    if not any(row["status"] == "measured" for row in results["rows"]):
        give_up("nothing could be measured", Exit.NO_INPUT if not results["cases"] else Exit.ENVIRONMENT)
    void = sum(row["status"] == "void" for part in ("rows", "transcode", "workers", "sweep") for row in results[part])
    raise typer.Exit(Exit.SOME_FAILED if void else Exit.OK)


def _keep(results: dict[str, Any]) -> None:
    """Keep what was found of this machine's GPUs, and say what could not be done with results that are there."""
    from gpuenc import measured
    from gpuenc.bench import charts

    try:
        if measured.keep(results):
            console.print("kept for --device fastest and `gpuenc doctor`: where the GPU beats the cores")
    except OSError as error:
        errors.print(f"not kept for --device fastest: the cache folder cannot be written ({error.strerror})")
    if not charts.available():
        errors.print(charts.WHY_NONE, markup=False)


def _tables(results: dict[str, Any]) -> list[Table]:
    rows = Table("case", "syntax", "plug-in", box=SIMPLE, title="Encoding", title_justify="left", pad_edge=False)
    for name in ("frames/s", "MB/s", "spread", "verified MB/s", "ratio", "p50 ms", "p95 ms"):
        rows.add_column(name, justify="right")
    rows.add_column("verified")
    for row in results["rows"]:
        about = (row["case"], row["syntax"], row["plugin"])
        if row["status"] == "measured":
            verified, latency = row.get("verified_mb_s"), row["latency_ms"]
            rows.add_row(
                *about,
                f"{row['frames_s']['median']:.1f}",
                f"{row['mb_s']['median']:.1f}",
                f"{row['mb_s']['spread']:.0%}" + " !" * row["mb_s"]["noisy"],
                f"{verified['median']:.1f}" if verified else "–",
                f"{row['ratio']:.2f}",
                f"{latency['p50']:.2f}",
                f"{latency['p95']:.2f}",
                row["verified_by"] + (f" {row['psnr_db']:.1f} dB" if "psnr_db" in row else ""),
            )
        elif row["status"] == "void":
            rows.add_row(*about, *["void"] * 2, *["–"] * 5, row["why"])
    jobs = Table("case", "syntax", "by", box=SIMPLE, title="gpuenc transcode, verified", title_justify="left")
    for name in ("files/s", "MB/s", "spread"):
        jobs.add_column(name, justify="right")
    for row in [*results["transcode"], *results["workers"]]:
        by = _workers(row["workers"]) if "workers" in row else row["plugin"]
        if row["status"] == "measured":
            rate = row["mb_s"]
            spread = f"{rate['spread']:.0%}" + " !" * rate["noisy"]
            jobs.add_row(
                row["case"], row["syntax"], by, f"{row['files_s']['median']:.1f}", f"{rate['median']:.1f}", spread
            )
        elif row["status"] == "void":
            jobs.add_row(row["case"], row["syntax"], by, "void", "–", row["why"])
    sizes = Table("syntax", "plug-in", box=SIMPLE, title="MB/s by frame size and batch", title_justify="left")
    for name in ("side", "batch", "MB/s", "spread", "over the cores"):
        sizes.add_column(name, justify="right")
    for point in results["sweep"]:
        if point["status"] == "measured":
            rate, over = point["mb_s"], point.get("over_cores")
            sizes.add_row(
                point["syntax"],
                point["plugin"],
                str(point["side"]),
                str(point["batch"]),
                f"{rate['median']:.1f}",
                f"{rate['spread']:.0%}" + " !" * rate["noisy"],
                f"{over['median']:.2f} ×" if over else "–",
            )
    return [rows, jobs, sizes]


def _workers(count: int) -> str:
    return "1 worker process" if count == 1 else f"{count} worker processes"


def _say_what_is_missing(results: dict[str, Any]) -> None:
    from gpuenc.archive.progress import visible

    missing: dict[str, set[str]] = {}
    for part in ("rows", "transcode", "sweep", "stages"):
        for row in results[part]:
            if row["status"] == "absent":
                missing.setdefault(f"{row['plugin']} is not measured: {row['why']}", set()).add(row["syntax"])
    for line, syntaxes in missing.items():
        console.print(visible(f"{line} ({', '.join(sorted(syntaxes))})"), soft_wrap=True)
    for one in results["absent"]:
        console.print(visible(f"{one['name']}: {one['why']}"), soft_wrap=True)
    for one in results["crossovers"]:
        where = f"from {one['from_side']}² on" if one["from_side"] else "at no size measured"
        console.print(f"{one['plugin']}, {one['syntax']}, batches of {one['batch']}: faster than the cores {where}")
    if not results["crossovers"]:
        console.print("Whether a GPU pays cannot be told here: none was measured.")
    noise = results["noise"]
    if noise["noisy"]:
        console.print(
            f"NOISY: {noise['noisy_figures']} of {noise['figures']} figures spread over more than 20 % (up to "
            f"{noise['widest_spread']:.0%}); run again when nothing else runs.",
            soft_wrap=True,
        )
