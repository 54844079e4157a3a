"""The README's section on speed, made from committed results and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
SECTION = re.compile(r"(?<=<!-- speed -->\n).*?(?=<!-- /speed -->)", re.DOTALL)


def committed() -> list[tuple[Path, dict[str, Any]]]:
    """Return the results of `gpuenc bench`, the newest of each machine; none of --quick."""
    newest: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        if results.get("format") == "gpuenc-bench/1" and not results["settings"]["quick"]:
            newest[path.stem[11:]] = path, results
    return list(newest.values())


def section() -> str:
    """Return the section's text."""
    return "".join(_of(path, results) for path, results in committed()) or (
        "`make bench` writes its figures here; no run of it is committed yet.\n"
    )


def write() -> None:
    """Put the section into README.md."""
    README.write_text(SECTION.sub(lambda _: section(), README.read_text(encoding="utf-8")), encoding="utf-8")


def _of(path: Path, results: dict[str, Any]) -> str:
    machine = results["machine"]
    gpus = ", ".join(f"{one['name']} (driver {one['driver']})" for one in machine["gpus"]) or "no GPU"
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {gpus}; {results['measured_at'][:10]}, commit "
        f"`{results['commit'] or 'unknown'}`, medians of {results['settings']['rounds']} interleaved rounds "
        f"([all of it](benchmarks/results/{path.name})).",
    ]
    noise = results["noise"]
    if noise["noisy"]:
        lines[0] += (
            f" **Noisy**: {noise['noisy_figures']} of {noise['figures']} figures spread over more than "
            f"{noise['limit']:.0%}."
        )
    lines += ["", "| Pictures | Syntax | Plug-in | MB/s | Spread | Verified MB/s | Ratio |", "|---" * 7 + "|"]
    for row in results["rows"]:
        if row["status"] == "measured":
            verified = f"{row['verified_mb_s']['median']:.0f}" if "verified_mb_s" in row else "–"
            lines.append(
                f"| {row['case']} | `{row['syntax']}` | {row['plugin']} | {row['mb_s']['median']:.0f} | "
                f"{row['mb_s']['spread']:.0%} | {verified} | {row['ratio']:.2f} |"
            )
    if results.get("peers"):
        lines += [
            "",
            "The same files, in and out, with what else there is; × is how many times as fast gpuenc is, verifying.",
            "",
        ]
        lines += ["| Pictures | Syntax | By | MB/s | × | Ratio | Output |", "|---" * 7 + "|"]
        lines += [_peer(row) for row in results["peers"] if row["status"] == "measured"]
    lines += [""] + [f"![{chart}](benchmarks/results/{chart})" for chart in _charts(path)]
    return "\n".join(lines) + "\n"


def _peer(row: dict[str, Any]) -> str:
    times = f"{row['gpuenc_times']['median']:.1f}" if "gpuenc_times" in row else "–"
    faults = [
        text
        for text, wrong in (
            ("not lossless", not row["lossless"]),
            (f"precision {row['precision']}", not row["precision_kept"]),
            ("wrong label", not row["label"]),
        )
        if wrong
    ]
    return (
        f"| {row['case']} | `{row['syntax']}` | {row['peer']} | {row['mb_s']['median']:.0f} | "
        f"{times} | {row['ratio']:.2f} | {', '.join(faults) or 'lossless'} |"
    )


def _charts(path: Path) -> list[str]:
    return [chart.name for chart in sorted(path.parent.glob(f"{path.stem}-*.svg"))]
