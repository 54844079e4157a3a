"""Charts of results as SVG files of their own: throughput, frame sizes, workers. Void figures are in none of them."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from gpuenc.archive.page.charts import nice_top, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COLOURS = ("#1f6fb2", "#d1762b", "#3b8f5a", "#9457a6", "#b8434e", "#6b7280", "#a08a1e", "#16808a")
_WIDTH, _LEFT, _RIGHT = 820, 300, 90
_BAR, _TOP = 20, 64


def all_of(results: dict[str, Any]) -> dict[str, str]:
    """Return the charts that these results have figures for, by the names of their files."""
    about = results["machine"]
    gpu = ", ".join(one["name"] for one in about["gpus"]) or "no GPU"
    noisy = "; NOISY: spread over 20 %" if results.get("noise", {}).get("noisy") else ""
    under = f"{about['cpu']}, {about['cores']} cores, {gpu}; medians of {results['settings']['rounds']} rounds{noisy}"
    made = {}
    measured = [row for row in results["rows"] if row["status"] == "measured"]
    if measured:
        case = measured[0]["case"]
        bars = [
            (f"{row['syntax']}: {row['plugin']}", row["device"], row["mb_s"]) for row in measured if row["case"] == case
        ]
        made["throughput"] = _bars(f"Encoding {case}: MB/s of raw pixels", under, bars)
    points = [point for point in results["sweep"] if point["status"] == "measured"]
    if points:
        chosen = points[0]["syntax"]
        batch = max(point["batch"] for point in points if point["syntax"] == chosen)
        lines: dict[str, list[tuple[float, float]]] = {}
        for point in points:
            if point["syntax"] == chosen:
                where = "GPU" if point["device"] == "gpu" else f"{about['cores']} cores"
                if point["device"] == "gpu" or point["batch"] == batch:
                    name = f"{where}: {point['plugin']}, batch {point['batch']}"
                    lines.setdefault(name, []).append((point["side"], point["mb_s"]["median"]))
        absent = sorted({point["why"] for point in results["sweep"] if point["status"] == "absent"})
        note = under + (f"; not here: {'; '.join(absent)}" if absent else "")
        made["frame-size"] = _lines(
            f"{chosen} by frame size: MB/s of raw pixels", note, lines, "side of a frame, pixels"
        )
    workers = [row for row in results["workers"] if row["status"] == "measured"]
    if workers:
        first = workers[0]
        line = {"measured": [(float(row["workers"]), row["mb_s"]["median"]) for row in workers]}
        one = first["mb_s"]["median"]
        line["as many times as workers"] = [(float(row["workers"]), one * row["workers"]) for row in workers]
        title = f"gpuenc transcode to {first['syntax']}, verified, {first['case']}: MB/s"
        made["workers"] = _lines(title, under, line, "worker processes")
    return made


def _bars(title: str, under: str, bars: Sequence[tuple[str, str, dict[str, Any]]]) -> str:
    top = nice_top(max(figure["high"] for _, _, figure in bars))
    width, height = _WIDTH - _LEFT - _RIGHT, _TOP + len(bars) * (_BAR + 6) + 34
    parts = []
    for number, (label, device, figure) in enumerate(bars):
        y = _TOP + number * (_BAR + 6)
        length = figure["median"] / top * width
        low, high = (_LEFT + figure[end] / top * width for end in ("low", "high"))
        colour = _COLOURS[1] if device == "gpu" else _COLOURS[0]
        parts.append(
            _text(_LEFT - 8, y + 15, label, "end")
            + f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>'
            + f'<path d="M{low:.1f} {y + _BAR / 2}H{high:.1f}" stroke="#111" stroke-width="1.5"/>'
            + _text(max(_LEFT + length, high) + 6, y + 15, plain(figure["median"]), "start")
        )
    parts.append(
        _text(_LEFT, height - 12, "bars: median; lines: lowest to highest round; blue CPU, orange GPU", "start")
    )
    return _svg(title, under, height, parts)


def _lines(title: str, under: str, lines: Mapping[str, Sequence[tuple[float, float]]], axis: str) -> str:
    left, height = 70, 420
    width, plot = _WIDTH - left - 250, 270
    xs = sorted({x for points in lines.values() for x, _ in points})
    top = nice_top(max(y for points in lines.values() for _, y in points))
    low, high = math.log2(xs[0]), math.log2(xs[-1])

    def at(x: float) -> float:
        return left + (math.log2(x) - low) / max(high - low, 1e-9) * width

    parts = []
    for quarter in range(5):
        y = _TOP + plot * (1 - quarter / 4)
        parts.append(
            f'<path d="M{left} {y:.1f}h{width}" stroke="#ddd"/>'
            + _text(left - 8, y + 4, plain(top * quarter / 4), "end")
        )
    parts += [_text(at(x), _TOP + plot + 18, plain(x), "middle") for x in xs]
    parts.append(_text(left + width / 2, _TOP + plot + 40, axis, "middle"))
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(at(x), _TOP + plot * (1 - y / top)) for x, y in sorted(points)]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        y = _TOP + 8 + 20 * number
        parts.append(f'<rect x="{left + width + 24}" y="{y - 9}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(left + width + 42, y + 1, name, "start"))
    return _svg(title, under, height, parts)


def _svg(title: str, under: str, height: int, parts: Sequence[str]) -> str:
    # What does not fit beside the chart can still be read where it is not drawn.
    shown = under if len(under) <= 118 else under[:117] + "…"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="13"><title>{escape(title)}</title><desc>{escape(under)}</desc>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>'
        f'<text x="16" y="24" font-size="16" font-weight="bold" fill="#111">{escape(title)}</text>'
        f'<text x="16" y="44" font-size="12" fill="#555">{escape(shown)}</text>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'
