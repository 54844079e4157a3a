"""Charts as SVG, drawn from numbers; their colours are classes of the page's style sheet."""

from __future__ import annotations

import math
import time
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from gpuenc.archive.progress import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_WIDTH, _HEIGHT = 560, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 34, 12, 32
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
# Width of a letter at the largest size in which labels are shown.
_LETTER = 9.4


class Series(NamedTuple):
    """Numbers of one colour: what they are, the class of that colour, and one number per bar."""

    name: str
    colour: str
    values: Sequence[float]


def bars(
    title: str,
    series: Sequence[Series],
    labels: Sequence[str],
    says: Callable[[float], str],
    *,
    edges: Sequence[str] = (),
) -> str:
    """Return bars side by side, those of several series on top of each other.

    Parameters
    ----------
    title : str
        What the chart shows, for who cannot see it.
    series : sequence of Series
        As many values each as there are bars; none below zero.
    labels : sequence of str
        What each bar is called; below the axis some are left out where they do not fit.
    says : callable
        Writes a number with its unit.
    edges : sequence of str
        Written below the axis where each bar begins, and where the last one ends, in place of `labels`.
    """
    sums = [sum(values) for values in zip(*(each.values for each in series), strict=True)]
    top = nice_top(max(sums, default=0.0))
    width = _PLOT_WIDTH / max(1, len(labels))
    # A gap between bars as long as they are wide enough to have one.
    gap = 2.0 if width > 8 else 0.0
    parts = [_grid(top, says)]
    for number, label in enumerate(labels):
        left, base = _LEFT + number * width, float(_TOP + _PLOT_HEIGHT)
        rects = []
        for each in series:
            height = each.values[number] / top * _PLOT_HEIGHT
            if height > 0:
                # What is there can be seen, however little it is.
                height = max(height, 1.0)
                base -= height
                place = f'x="{left + gap / 2:.2f}" y="{base:.2f}" width="{width - gap:.2f}" height="{height:.2f}"'
                rects.append(f'<rect class="{each.colour}" {place}/>')
        if rects:
            told = "; ".join(f"{each.name}: {says(each.values[number])}" for each in series if each.values[number])
            parts.append(f"<g><title>{_text(f'{label}: {told}')}</title>{''.join(rects)}</g>")
    parts.append(_axis(edges or labels, width, 0.0 if edges else 0.5))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(title)}">'
        f"<title>{_text(title)}</title>{''.join(parts)}</svg>"
    )


def meter(share: float, colour: str = "encoded") -> str:
    """Return a bar for a cell of a table: `share`, from 0 to 1, of its width."""
    length = min(1.0, max(0.0, share)) * 100
    return (
        '<svg class="meter" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rail" width="100" height="10"/><rect class="{colour}" width="{length:.2f}" height="10"/></svg>'
    )


def key(entries: Sequence[tuple[str, str]]) -> str:
    """Return what the colours of a chart stand for, from pairs of a name and the class of its colour."""
    square = '<svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{}" width="10" height="10"/></svg>'
    items = "".join(f"<li>{square.format(colour)}{_text(name)}</li>" for name, colour in entries)
    return f'<ul class="key">{items}</ul>'


def plain(number: float) -> str:
    """Return a number as an axis shows it."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"


def moment(seconds: float) -> str:
    """Return a time since 1970 as date and time of day, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def nice_top(largest: float) -> float:
    """Return where an axis ends: the next 1, 2, 2.5, 4, 5 or 8 times a power of ten."""
    if largest <= 0 or not math.isfinite(largest):
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    for step in (1, 2, 2.5, 4, 5, 8, 10):
        if step * power >= largest * (1 - 1e-9):
            return step * power
    return 10 * power


def times(starts_s: Sequence[int], width_s: int) -> list[str]:
    """Return how bins of a timeline are called, in UTC, as short as their width and span allow."""
    one_day = not starts_s or starts_s[0] // 86400 == starts_s[-1] // 86400
    clock = "%H:%M:%S" if width_s < 60 else "%H:%M"
    pattern = "%Y-%m-%d" if width_s >= 86400 else clock if one_day else f"%m-%d {clock}"
    return [time.strftime(pattern, time.gmtime(start)) for start in starts_s]


def _grid(top: float, says: Callable[[float], str]) -> str:
    lines = []
    for quarter in range(5):
        y = _TOP + _PLOT_HEIGHT * (1 - quarter / 4)
        if quarter % 2 == 0:
            label = says(top * quarter / 4)
            lines.append(f'<text class="value" x="{_LEFT - 6}" y="{y + 4:.1f}">{_text(label)}</text>')
        kind = "base" if quarter == 0 else "grid"
        lines.append(f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    return "".join(lines)


def _axis(labels: Sequence[str], width: float, shift: float) -> str:
    """Write every n-th label, n as small as lets none touch the next in the large letters of a narrow screen."""
    longest = max(map(len, labels), default=1)
    every = max(1, math.ceil((longest * _LETTER + 8) / width))
    y = _TOP + _PLOT_HEIGHT + 20
    return "".join(
        f'<text class="label" x="{_LEFT + (number + shift) * width:.1f}" y="{y}">{_text(labels[number])}</text>'
        for number in range(0, len(labels), every)
    )


def _text(text: str) -> str:
    return escape(visible(text))
