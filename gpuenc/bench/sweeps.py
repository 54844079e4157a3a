"""Frame sizes and batches: from which on a GPU beats this machine's cores, so that a user knows whether to bother."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from gpuenc.bench import phantoms
from gpuenc.bench.cases import frames_of
from gpuenc.bench.lanes import Kept
from gpuenc.bench.measure import Contender, figure, interleave, ratio
from gpuenc.bench.referee import Referee
from gpuenc.bench.rows import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuenc.bench.rows import Settings
    from gpuenc.frames import Frame
    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target

QUICK_SIDES, QUICK_BATCHES = (128, 256, 512, 1024), (1, 16)
SIDES, BATCHES = (64, 128, 256, 512, 1024, 2048), (1, 4, 16, 64)
# A point with more native bytes would show nothing new.
_MOST_BYTES = 160 << 20


def sweep(
    target: Target,
    plugins: Sequence[tuple[str, Plugin | str]],
    settings: Settings,
    sides: Sequence[int] = SIDES,
    batches: Sequence[int] = BATCHES,
) -> list[dict[str, Any]]:
    """Return a point for each frame size, batch and plug-in: its rate, and that over the cores of this machine.

    A batch is what one call is given; the first plug-in of the CPU has all cores for it. A plug-in that is not here has
    one point, which says why.
    """
    syntax = target.syntax.name
    points: list[dict[str, Any]] = [
        {"syntax": syntax, "plugin": label, "status": "absent", "why": plugin}
        for label, plugin in plugins
        if isinstance(plugin, str)
    ]
    here = [plugin for _, plugin in plugins if not isinstance(plugin, str)]
    on_cpu = [plugin for plugin in here if plugin.device == "cpu"][:1]
    with contextlib.ExitStack() as stack:
        kept = [
            stack.enter_context(Kept(plugin))
            for plugin in [*on_cpu, *(plugin for plugin in here if plugin.device == "gpu")]
        ]
        for side in sides:
            pictures = frames_of(phantoms.ct(max(1, min(16, (16 << 20) // (2 * side * side))), side), 12, "sweep")
            for batch in batches:
                if kept and 2 * side * side * batch <= _MOST_BYTES and not settings.out_of_time:
                    points += _point(target, kept, settings, pictures, side, batch)
    return points


def crossovers(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each plug-in of a GPU and each batch the smallest frame from which on it beats the cores.

    Parameters
    ----------
    points : sequence of dict
        Of `sweep`.

    Returns
    -------
    list of dict
        ``from_side`` is None where the largest frame measured does not beat them; else all larger ones do, too.
    """
    grouped: dict[tuple[str, str, int], list[tuple[int, float]]] = defaultdict(list)
    for point in points:
        if point["status"] == "measured" and point["device"] == "gpu" and "over_cores" in point:
            key = (point["syntax"], point["plugin"], point["batch"])
            grouped[key].append((point["side"], point["over_cores"]["median"]))
    found = []
    for (syntax, plugin, batch), sizes in grouped.items():
        from_side = None
        for side, times in sorted(sizes, reverse=True):
            if times <= 1:
                break
            from_side = side
        found.append({"syntax": syntax, "plugin": plugin, "batch": batch, "from_side": from_side})
    return found


def _point(
    target: Target, kept: Sequence[Kept], settings: Settings, pictures: Sequence[Frame], side: int, batch: int
) -> list[dict[str, Any]]:
    frames = [pictures[number % len(pictures)] for number in range(batch)]
    megabytes = sum(frame.format.frame_bytes for frame in frames) / 1e6
    # Small batches are over in a moment: as many calls as fill a part of a round, one after the other.
    calls = max(1, min(64, int(settings.round_s * 100 / 4 / max(megabytes, 1e-3))))
    contenders = [_contender(one, target, frames, pictures, calls) for one in kept]
    interleave(contenders, settings.rounds)
    rows: list[dict[str, Any]] = []
    base = next((one for one, by in zip(contenders, kept, strict=True) if by.plugin.device == "cpu"), None)
    for one, by in zip(contenders, kept, strict=True):
        row: dict[str, Any] = {"syntax": target.syntax.name, "plugin": one.name, "device": by.plugin.device}
        row |= {"side": side, "batch": batch}
        if one.why_void:
            rows.append(row | {"status": "void", "why": one.why_void})
            continue
        row |= {"status": "measured", "mb_s": figure([rate * megabytes for rate in one.rates]).as_json()}
        if base is not None and base is not one and base.seconds:
            row["over_cores"] = ratio(one.rates, base.rates).as_json()
        rows.append(row)
    return rows


def _contender(kept: Kept, target: Target, frames: Sequence[Frame], pictures: Sequence[Frame], calls: int) -> Contender:
    referee = Referee(pictures, target)

    def work() -> list[list[Any]]:
        return [encode(frames, target, kept.plugin) for _ in range(calls)]

    def check(made: list[list[Any]]) -> None:
        for results in made:
            referee.judge(results, frames)

    timed: Callable[[], Any] = work
    return Contender(kept.plugin.label, timed, check, float(calls))
