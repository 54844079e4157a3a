"""Charts of results, by matplotlib: throughput, cases, frame sizes, stages, workers, peers. Void figures are in none.

Each is a figure that can be read alone: what was measured, on which machine, how often. The same results give the same
bytes, so a committed chart changes only with its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Any

WHY_NONE = "charts are drawn with matplotlib: pip install 'gpuenc[bench]'"
# Okabe and Ito's colours, which people with colour blindness can tell apart.
_CPU, _GPU = "#0072b2", "#d55e00"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280", "#000000")
_STAGES = {"read": 6, "decode": 7, "upload": 5, "kernels": 2, "compress": 0, "encode": 0, "verify": 1, "check": 1,
           "download": 4, "write": 3}  # fmt: skip
_LOOK = {
    "svg.hashsalt": "gpuenc", "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "grid.color": "#dddddd", "legend.frameon": False,
}  # fmt: skip
_WIDTH_IN = 9.0

Row = Mapping[str, Any]
# What is drawn, for the figure's text: axes of a figure so many inches high.
Drawn = tuple[str, float, Callable[[Any], None]]


def available() -> bool:
    """Whether there is matplotlib to draw with."""
    return find_spec("matplotlib") is not None


def save(results: dict[str, Any], folder: Path, stem: str, kind: str = "svg") -> list[Path]:
    """Draw all charts that results have figures for; return their paths, ``<stem>-<chart>.<kind>``.

    Parameters
    ----------
    results : dict
        As `gpuenc.bench.run.run` returns them.
    folder : Path
        Where; it exists.
    stem : str
        Begin of the names.
    kind : {'svg', 'png'}
        Of the files.
    """
    paths = []
    for name, (title, height_in, draw) in all_of(results).items():
        paths.append(folder / f"{stem}-{name}.{kind}")
        _draw(paths[-1], title, _about(results), height_in, draw)
    return paths


def all_of(results: dict[str, Any]) -> dict[str, Drawn]:
    """Return the charts that these results have figures for, by name."""
    makers = {
        "throughput": _throughput,
        "cases": _cases,
        "frame-size": _frame_size,
        "stages": _stages,
        "workers": _workers,
        "peers": _peers,
    }
    made = {name: maker(results) for name, maker in makers.items()}
    return {name: drawn for name, drawn in made.items() if drawn is not None}


def _measured(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["status"] == "measured"]


def _throughput(results: Row) -> Drawn | None:
    """Return bars of all plug-ins for the first case, by syntax."""
    rows = _measured(results["rows"])
    rows = [row for row in rows if row["case"] == rows[0]["case"]]
    if not rows:
        return None
    bars = [(f"{row['syntax']}: {row['plugin']}", row["mb_s"], _of(row["device"])) for row in rows]

    def draw(axes: Any) -> None:
        _bars(axes, bars, "MB/s of raw pixels; lines: lowest to highest round")
        _legend(axes, {"CPU, all cores": _CPU} | ({"GPU": _GPU} if any(r["device"] == "gpu" for r in rows) else {}))

    return f"Encoding {rows[0]['case']}, by transfer syntax and plug-in", 1.3 + 0.34 * len(bars), draw


def _cases(results: Row) -> Drawn | None:
    """Return groups of bars: every case, with the fastest plug-in of each syntax."""
    best: dict[str, dict[str, Row]] = {}
    for row in _measured(results["rows"]):
        there = best.setdefault(row["case"], {}).get(row["syntax"])
        if there is None or row["mb_s"]["median"] > there["mb_s"]["median"]:
            best[row["case"]][row["syntax"]] = row
    syntaxes = list(dict.fromkeys(syntax for rows in best.values() for syntax in rows))
    if len(best) < 2:
        return None
    thick = 0.8 / len(syntaxes)

    def draw(axes: Any) -> None:
        for number, syntax in enumerate(syntaxes):
            places = [
                place + (number + 0.5) * thick - 0.4 for place, rows in enumerate(best.values()) if syntax in rows
            ]
            figures = [rows[syntax]["mb_s"]["median"] for rows in best.values() if syntax in rows]
            axes.barh(places, figures, 0.92 * thick, color=_COLOURS[number % len(_COLOURS)], label=syntax)
        axes.set_yticks(range(len(best)), list(best))
        axes.set_ylim(len(best) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("MB/s of raw pixels, fastest plug-in of each syntax")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return "Encoding by pictures and transfer syntax", 1.3 + 0.2 * len(best) * len(syntaxes), draw


def _frame_size(results: Row) -> Drawn | None:
    """Return lines over frame sizes: the cores with the largest batch, a GPU with each batch."""
    points = _measured(results["sweep"])
    points = [point for point in points if point["syntax"] == points[0]["syntax"]]
    if not points:
        return None
    lines: dict[tuple[str, str, int], list[tuple[int, float]]] = {}
    for point in points:
        key = point["device"], point["plugin"], point["batch"]
        lines.setdefault(key, []).append((point["side"], point["mb_s"]["median"]))
    has_gpu = any(device == "gpu" for device, _, _ in lines)
    cores = results["machine"]["cores"]
    names = {key: f"{'GPU' if key[0] == 'gpu' else f'{cores} cores'}, {key[1]}, batch {key[2]}" for key in lines}

    def draw(axes: Any) -> None:
        for number, (key, line) in enumerate(lines.items()):
            style = "-" if key[0] == "gpu" else "--"
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(*zip(*sorted(line), strict=True), style, marker="o", color=colour, label=names[key])
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        sides = sorted({side for line in lines.values() for side, _ in line})
        axes.set_xticks(sides, [f"{side}²" for side in sides])
        axes.minorticks_off()
        rates = [rate for line in lines.values() for _, rate in line]
        _plain_logarithmic(axes, min(rates), max(rates))
        axes.set_xlabel("size of a frame, pixels" + ("" if has_gpu else "; no GPU was measured"))
        axes.set_ylabel("MB/s of raw pixels")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return f"{points[0]['syntax']} by frame size and batch{': GPU against CPU' * has_gpu}", 4.6, draw


def _stages(results: Row) -> Drawn | None:
    """Return stacked bars: where a GPU's batch, and a job's file, spends its time."""
    bars: list[tuple[str, dict[str, float]]] = []
    for row in _measured(results["stages"]):
        parts = {name: row.get(f"{name}_ms") for name in ("upload", "kernels", "compress", "download", "check")}
        spent = {name: ms / row["frames"] for name, ms in parts.items() if ms}
        bars.append((f"GPU, a frame: {row['syntax']}, {row['plugin']}", spent))
    jobs = [row for row in _measured(results["transcode"]) if row.get("stage_ms")]
    for row in [row for row in jobs if row["case"] == jobs[0]["case"]]:
        bars.append((f"job, a file: {row['syntax']}, {row['plugin']}", row["stage_ms"]))
    if not bars:
        return None

    def draw(axes: Any) -> None:
        for place, (_, spent) in enumerate(bars):
            left = 0.0
            for name, ms in spent.items():
                axes.barh(place, ms, 0.7, left=left, color=_COLOURS[_STAGES[name]])
                left += ms
        axes.set_yticks(range(len(bars)), [label for label, _ in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms; of a job: time of its threads, which wait for each other and for the disk")
        used = dict.fromkeys(name for _, spent in bars for name in spent)
        _legend(axes, {name: _COLOURS[_STAGES[name]] for name in used})

    stages = {name for _, spent in bars for name in spent}
    return "Where the time goes", 1.3 + max(0.36 * len(bars), 0.25 * len(stages)), draw


def _workers(results: Row) -> Drawn | None:
    """Return a line over numbers of worker processes, with its range, beside that of as many times the first."""
    rows = _measured(results["workers"])
    if not rows:
        return None
    counts = [row["workers"] for row in rows]
    medians = [row["mb_s"]["median"] for row in rows]
    ranges = [[row["mb_s"]["median"] - row["mb_s"]["low"] for row in rows],
              [row["mb_s"]["high"] - row["mb_s"]["median"] for row in rows]]  # fmt: skip

    def draw(axes: Any) -> None:
        axes.errorbar(counts, medians, ranges, marker="o", capsize=4, color=_CPU, label="measured, lowest to highest")
        ideal = [medians[0] * count / counts[0] for count in counts]
        axes.plot(counts, ideal, "--", color=_COLOURS[6], label="as many times as workers")
        axes.set_xticks(counts)
        axes.set_ylim(0)
        axes.set_xlabel("worker processes, their start included")
        axes.set_ylabel("MB/s of raw pixels")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return f"gpuenc transcode to {rows[0]['syntax']}, verified, {rows[0]['case']}", 4.0, draw


def _peers(results: Row) -> Drawn | None:
    """Return bars of everyone who wrote the first case, by syntax; one whose output is not right is hatched."""
    rows = _measured(results.get("peers", ()))
    rows = [row for row in rows if row["case"] == rows[0]["case"]]
    if not rows:
        return None
    order = sorted(rows, key=lambda row: list(dict.fromkeys(r["syntax"] for r in rows)).index(row["syntax"]))
    bars = [
        (f"{row['syntax']}: {row['peer']}{'' if right(row) else ' (not right: see table)'}", row["mb_s"],
         _CPU if row["peer"].startswith("gpuenc") else _COLOURS[4] if row["peer"].startswith("bare") else _COLOURS[6])
        for row in order
    ]  # fmt: skip

    def draw(axes: Any) -> None:
        _bars(axes, bars, "MB/s of raw pixels; lines: lowest to highest round")
        _legend(axes, {"gpuenc": _CPU, "bare codec, no files": _COLOURS[4], "others": _COLOURS[6]})

    return f"The same files by others: {rows[0]['case']}", 1.4 + 0.3 * len(bars), draw


def right(row: Row) -> bool:
    """Whether a peer's output is what was asked for: lossless, labelled so, of the precision of the samples."""
    return bool(row["lossless"] and row["label"] and row["precision_kept"])


def _of(device: str) -> str:
    return _GPU if device == "gpu" else _CPU


def _bars(axes: Any, bars: Sequence[tuple[str, Row, str]], axis: str) -> None:
    top = max(figure["high"] for _, figure, _ in bars)
    for place, (_, figure, colour) in enumerate(bars):
        median = figure["median"]
        axes.barh(place, median, 0.75, color=colour)
        axes.plot([figure["low"], figure["high"]], [place, place], color="#111111", linewidth=1.2)
        shown = f"{median:.0f}" if median >= 10 else f"{median:.1f}"
        axes.text(max(median, figure["high"]) + 0.01 * top, place, shown, va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1.1 * top)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis)


def _legend(axes: Any, colours: Mapping[str, str]) -> None:
    patches = import_module("matplotlib.patches")
    handles = [patches.Patch(color=colour, label=label) for label, colour in colours.items()]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _plain_logarithmic(axes: Any, low: float, high: float) -> None:
    """Label a logarithmic axis by 1, 2, 5, 10 …, since few people read powers."""
    steps = [digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)]
    shown = [step for step in steps if low / 2 <= step <= high * 2]
    axes.set_yticks(shown, [f"{step:g}" for step in shown])
    axes.set_ylim(low / 1.3, high * 1.3)


def _about(results: Row) -> str:
    about = results["machine"]
    gpu = ", ".join(one["name"] for one in about["gpus"]) or "no GPU"
    noisy = "; NOISY: some spread over 20 %" if results.get("noise", {}).get("noisy") else ""
    return f"{about['cpu']}, {about['cores']} cores, {gpu}; medians of {results['settings']['rounds']} rounds{noisy}"


def _draw(path: Path, title: str, about: str, height_in: float, draw: Callable[[Any], None]) -> None:
    matplotlib = import_module("matplotlib")
    figures, backend = import_module("matplotlib.figure"), import_module("matplotlib.backends.backend_agg")
    with matplotlib.rc_context(_LOOK):
        figure = figures.Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        backend.FigureCanvasAgg(figure)
        draw(figure.subplots())
        figure.suptitle(f"{fill(title, 90)}\n", fontsize=12, fontweight="bold", x=0.01, ha="left")
        figure.text(0.01, 1 - 0.38 / height_in, fill(about, 130), fontsize=8.5, color="#555555", va="top")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
