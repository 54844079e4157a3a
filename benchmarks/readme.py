"""Pages that are made from committed results and nothing else: README's section on speed, and the table of targets.

python -m benchmarks --readme       writes both
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import targets
from gpuenc.bench.charts import right

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README, PAGE = ROOT / "README.md", ROOT / "benchmarks" / "README.md"
SECTION = re.compile(r"(?<=<!-- speed -->\n).*?(?=<!-- /speed -->)", re.DOTALL)
TARGETS = re.compile(r"(?<=<!-- targets -->\n).*?(?=<!-- /targets -->)", re.DOTALL)
FIGURES = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)
# Of README: what a reader wants to see first. The rest is in benchmarks/README.md.
HEADLINES = ("throughput", "peers", "frame-size", "workers")


def committed(folder: Path | None = None) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """Return the results by their format, the newest of each machine; quick ones only where there are no others."""
    newest: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for path in sorted((folder or RESULTS).glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        if "format" in results:
            newest[results["format"], path.stem[11:]] = path, results
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for (form, _), one in newest.items():
        found.setdefault(form, []).append(one)
    return found


def section(folder: Path | None = None) -> str:
    """Return the text of README's section."""
    found = committed(folder)
    whole = [one for one in found.get(targets.BENCH, ()) if not one[1]["settings"]["quick"]]
    text = "".join(_of(path, results) for path, results in whole) or (
        "`make bench` writes its figures here; no run of it is committed yet.\n"
    )
    text += "".join(_files(path, results) for path, results in found.get(targets.SPEED, ()))
    on_gpu = any(results["machine"]["gpus"] for _, results in whole) or targets.GPU in found
    return text + ("" if on_gpu else f"\nOn a GPU: {targets.OPEN}.\n")


def table(folder: Path | None = None) -> str:
    """Return the table of targets."""
    return targets.table({form: [results for _, results in found] for form, found in committed(folder).items()})


def figures(folder: Path | None = None) -> str:
    """Return the figures of all pictures, of every machine: README has those of the first."""
    text = ""
    for path, results in committed(folder).get(targets.BENCH, ()):
        if not results["settings"]["quick"]:
            lines = [_about(path, results, ""), "", *_rows(results["rows"])]
            if results.get("peers"):
                lines += ["", *_peers(results["peers"])]
            charts = [f"{path.stem}-{name}.svg" for name in ("cases", "stages")]
            lines += [f"![{name}](results/{name})" for name in charts if (path.parent / name).exists()]
            text += "\n".join(lines) + "\n"
    return (text or f"All pictures: {targets.OPEN}.\n") + loading(folder)


def loading(folder: Path | None = None) -> str:
    """Return what reading frames back gives, of every machine."""
    text = ""
    for path, results in committed(folder).get(targets.LOADING, ()):
        settings = results["settings"]
        text += (
            f"\nReading frames back, {settings['side']}² of {settings['bits']} bits: at random out of one object of "
            f"{settings['frames']}, and an epoch of {settings['files']} files with {settings['workers']} worker "
            f"processes. {_about(path, results, '')}\n\n"
            "| | Format | By | Frames/s | × pydicom on JPEG 2000 | × pydicom on the same |\n" + "|---" * 6 + "|\n"
        )
        for part in ("random", "epoch"):
            text += "".join(f"{line}\n" for line in map(partial(_reader, part), results[part]))
    return text


def _reader(part: str, row: dict[str, Any]) -> str:
    cells = " | ".join(_times(row, key) for key in ("times_pydicom_j2k", "times_pydicom_same"))
    return f"| {part} | `{row['format']}` | {row['reader']} | {_rate(row['frames_s']['median'])} | {cells} |"


def _times(row: dict[str, Any], key: str, digits: int = 1) -> str:
    if key not in row:
        return "–"
    return "{median:.{d}f} ({low:.{d}f}–{high:.{d}f})".format(d=digits, **row[key])


def write() -> None:
    """Put all of it into its pages."""
    README.write_text(SECTION.sub(lambda _: section(), README.read_text(encoding="utf-8")), encoding="utf-8")
    text = TARGETS.sub(lambda _: table(), PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(FIGURES.sub(lambda _: figures(), text), encoding="utf-8")


def _about(path: Path, results: dict[str, Any], base: str = "benchmarks/") -> str:
    machine = results["machine"]
    gpus = ", ".join(f"{one['name']} (driver {one['driver']})" for one in machine["gpus"]) or "no GPU"
    noise = results["noise"]
    wide = f"{noise['noisy_figures']} of {noise['figures']} figures spread over more than {noise['limit']:.0%}"
    noisy = f" **Noisy**: {wide}." if noise["noisy"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {gpus}; {results['measured_at'][:10]}, commit "
        f"`{results['commit'] or 'unknown'}`, medians of {results['settings']['rounds']} interleaved rounds "
        f"([all of it]({base}results/{path.name})).{noisy}"
    )


def _of(path: Path, results: dict[str, Any]) -> str:
    """Return what README shows of a machine: the first pictures, and everyone who compressed them."""
    first = next((row["case"] for row in results["rows"] if row["status"] == "measured"), "")
    lines = [_about(path, results), "", *_rows([row for row in results["rows"] if row["case"] == first])]
    peers = results.get("peers", [])
    if peers:
        begin = peers[0]["case"]
        lines += ["", *_peers([row for row in peers if row["case"] == begin])]
    charts = [f"{path.stem}-{name}.svg" for name in HEADLINES]
    lines += [f"![{name}](benchmarks/results/{name})" for name in charts if (path.parent / name).exists()]
    return "\n".join(lines) + "\n"


def _rows(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| Pictures | Syntax | Plug-in | MB/s | Spread | Verified MB/s | Ratio | p50 ms | p95 ms |"
    yield "|---" * 9 + "|"
    for row in rows:
        if row["status"] == "measured":
            verified = _rate(row["verified_mb_s"]["median"]) if "verified_mb_s" in row else "–"
            yield (
                f"| {row['case']} | `{row['syntax']}` | {row['plugin']} | {_rate(row['mb_s']['median'])} | "
                f"{row['mb_s']['spread']:.0%} | {verified} | {row['ratio']:.2f} | {row['latency_ms']['p50']:.2f} | "
                f"{row['latency_ms']['p95']:.2f} |"
            )


def _peers(rows: list[dict[str, Any]]) -> Iterator[str]:
    measured = [row for row in rows if row["status"] == "measured"]
    if measured:
        yield "The same files, in and out, on the same cores, with what else there is; × is how many times as fast"
        yield "gpuenc is, verifying every sample, and not verifying as the others."
        yield ""
        yield "| Pictures | Syntax | By | On | MB/s | × | × | Ratio | Output |"
        yield "|---" * 9 + "|"
        yield from map(_peer, measured)
        yield ""
    yield from _absent(rows)


def _rate(median: float) -> str:
    return f"{median:.0f}" if median >= 10 else f"{median:.1f}"


def _peer(row: dict[str, Any]) -> str:
    times = [f"{row[key]['median']:.1f}" if key in row else "–" for key in ("gpuenc_times", "gpuenc_unverified_times")]
    faults = [
        text
        for text, wrong in (
            ("**not lossless**", not row["lossless"]),
            (f"precision **{row['precision']}**", not row["precision_kept"]),
            ("**wrong label**", not row["label"]),
        )
        if wrong
    ]
    return (
        f"| {row['case']} | `{row['syntax']}` | {row['peer']} ({row['version']}) | {row['on']} | "
        f"{_rate(row['mb_s']['median'])} | {times[0]} | {times[1]} | {row['ratio']:.2f} | "
        f"{', '.join(faults) or ('lossless' if right(row) else '')} |"
    )


def _absent(rows: list[dict[str, Any]]) -> Iterator[str]:
    missing = dict.fromkeys(
        (row["peer"], row["why"]) for row in rows if row["status"] in ("absent", "void") and row["peer"] != "all"
    )
    if missing:
        yield "Not there: " + "; ".join(f"{peer} ({why})" for peer, why in missing) + "."
        yield ""


def _files(path: Path, results: dict[str, Any]) -> str:
    settings = results["settings"]
    lines = ["", f"{settings['files']} CT files of 512², files in and files out: {_about(path, results)}", ""]
    lines += ["| Syntax | By | Files/s | ÷ bare codec | × pydicom's J2K loop | × best peer |", "|---" * 6 + "|"]
    for row in [*results.get("files", ()), *results.get("peers", ()), *results.get("command", {}).get("rows", ())]:
        if row["status"] == "measured":
            cells = [_times(row, key, 2) for key in ("share_of_bare", "times_pydicom", "times_best_peer")]
            lines.append(f"| `{row['syntax']}` | {row['by']} | {row['files_s']['median']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
