"""One case under one target: every plug-in side by side, and why one is missing."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuenc import registry
from gpuenc.bench.lanes import Kept
from gpuenc.bench.measure import LEAST_ROUNDS, NO_TIME, Contender, figure, interleave, percentile, ratio
from gpuenc.bench.referee import Referee, Refused, code_of
from gpuenc.engine import encode_frames
from gpuenc.errors import GpuencError
from gpuenc.plugins import default_plugins, usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuenc.bench.cases import Case
    from gpuenc.frames import Frame
    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target

_MOST_PASSES = 16
# A round that takes so many times its share of the time is not worth it.
_TOO_SLOW = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Parameters
    ----------
    rounds : int
        Of each contender, after one of warm-up.
    round_s : float
        How long a round should take.
    latencies : int
        Most single frames that are timed for the percentiles.
    verified : bool
        Also time encoding with every frame decoded and compared, as users do it.
    until_s : float
        On `time.monotonic`'s clock: what has not begun by then is left out, and says so.
    device : str or int
        As for `Encoder.encode`.
    """

    rounds: int = LEAST_ROUNDS
    round_s: float = 1.0
    latencies: int = 100
    verified: bool = True
    until_s: float = math.inf
    device: str | int = "auto"

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.until_s - time.monotonic()

    @property
    def out_of_time(self) -> bool:
        """Whether nothing more may begin."""
        return time.monotonic() > self.until_s


@dataclass(slots=True)
class _Entry:
    """A plug-in that takes part."""

    label: str
    plugin: Plugin
    kept: Kept
    frames: Sequence[Frame]
    passes: int
    referee: Referee
    plain: Contender
    verified: Contender | None = None
    latencies_s: list[float] = field(default_factory=list)


def candidates(target: Target, device: str | int = "auto") -> list[tuple[str, Plugin | str]]:
    """Return the plug-ins of a target's syntax by their labels, in order; in place of one, why it is missing."""
    found: list[tuple[str, Plugin | str]] = []
    for path in default_plugins(target.syntax.uid):
        if path.device == "gpu" and device == "cpu":
            found.append((path.label, "--device cpu leaves GPUs out"))
            continue
        try:
            where = device if path.device == "gpu" else "cpu"
            found.append((path.label, registry.chain(target.syntax, path.label, device=where)[0]))
        except (GpuencError, RuntimeError, ValueError) as error:
            missing = registry.get_encoder(target.syntax.uid).missing_dependencies
            whys = [line.partition(" - ")[2] for line in missing if line.startswith(f"{path.label} -")]
            found.append((path.label, whys[0] if whys else " ".join(str(error).split())))
    return found


def measure(
    case: Case, target: Target, plugins: Sequence[tuple[str, Plugin | str]], settings: Settings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each plug-in, and the ratios between the first that was measured on the CPU and the others.

    Parameters
    ----------
    case : Case
        What is encoded.
    target : Target
        To what.
    plugins : sequence
        As `candidates` returns them.
    settings : Settings
        How much is measured.
    """
    rows: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        entries: list[_Entry] = []
        for label, plugin in plugins:
            row = {"case": case.name, "syntax": target.syntax.name, "plugin": label}
            if isinstance(plugin, str):
                rows[label] = row | {"status": "absent", "why": plugin}
                continue
            row["device"] = plugin.device
            try:
                if settings.out_of_time:
                    raise Refused(NO_TIME)
                entries.append(_entry(label, plugin, case, target, settings, stack))
                rows[label] = row
            except Exception as error:  # noqa: BLE001 - a plug-in that raises has a row that says so
                rows[label] = row | _without(error)
        contenders = [one for entry in entries for one in (entry.plain, entry.verified) if one]
        interleave(contenders, settings.rounds)
        for entry in entries:
            rows[entry.label] |= _measured(entry, target, settings)
    return list(rows.values()), _ratios(case, target, [entry for entry in entries if entry.plain.seconds])


def encode(frames: Sequence[Frame], target: Target, plugin: Plugin, *, verify: bool = False) -> list[Any]:
    """Return the results for frames as the engine gives them, on as many lanes as the plug-in wants."""
    return list(encode_frames(frames, target, [plugin], verify=verify))


def _entry(
    label: str, plugin: Plugin, case: Case, target: Target, settings: Settings, stack: contextlib.ExitStack
) -> _Entry:
    """Return a plug-in with as many frames as make a round; the first of them are judged here."""
    kept = stack.enter_context(Kept(plugin))
    few = case.frames[: max(1, min(len(case.frames), usable_cores()))]
    seconds = 0.0
    for _ in range(2):  # the first call opens
        begun = time.perf_counter()
        made = encode(few, target, kept.plugin)
        seconds = time.perf_counter() - begun
        Referee(few, target).judge(made)
        if seconds > 1.5 * settings.round_s:
            break
    if seconds > _TOO_SLOW * settings.round_s:
        raise Refused(f"{len(few)} frames take {seconds:.1f} s, too long for this run")
    count = max(len(few), min(len(case.frames), int(len(few) * settings.round_s / max(seconds, 1e-6))))
    frames = case.frames[:count]
    passes = 1
    if count == len(case.frames):
        passes = max(1, min(_MOST_PASSES, int(settings.round_s / max(seconds * count / len(few), 1e-6))))
    referee = Referee(frames, target)
    batch = list(frames) * passes

    def contender(name: str, work: Callable[[], list[Any]]) -> Contender:
        return Contender(name, work, lambda made: referee.judge(made, batch), float(len(batch)))

    entry = _Entry(
        label, plugin, kept, frames, passes, referee, contender(label, lambda: encode(batch, target, kept.plugin))
    )
    # The first plug-in of each device; those behind it are only tried where that one fails.
    foremost = plugin.device == "gpu" or label in ("imagecodecs", "")
    if settings.verified and target.lossless and foremost:
        work = lambda: encode(batch, target, kept.as_it_is, verify=True)  # noqa: E731
        entry.verified = contender(f"{label}, verified", work)
    return entry


def _measured(entry: _Entry, target: Target, settings: Settings) -> dict[str, Any]:
    """Return the figures of a plug-in, or why there are none: what voids one of them voids all."""
    why = entry.plain.why_void or (entry.verified.why_void if entry.verified else "")
    if not why:
        try:
            _time_single_frames(entry, target, settings)
        except Exception as error:  # noqa: BLE001 - whatever a codec raises
            why = " ".join(str(error).split()) or type(error).__name__
    if why:
        entry.plain.seconds.clear()
        return {"status": "void", "why": why}
    megabytes = entry.frames[0].format.frame_bytes / 1e6
    rates = entry.plain.rates
    found = {
        "status": "measured",
        "frames": len(entry.frames),
        "passes": entry.passes,
        "frames_s": figure(rates).as_json(),
        "mb_s": figure([rate * megabytes for rate in rates]).as_json(),
        "ratio": entry.referee.ratio,
        "verified_by": entry.referee.how,
        "latency_ms": {
            "p50": 1e3 * percentile(entry.latencies_s, 50),
            "p95": 1e3 * percentile(entry.latencies_s, 95),
            "count": len(entry.latencies_s),
        },
    }
    if entry.referee.psnr_db is not None:
        found["psnr_db"] = entry.referee.psnr_db
    if entry.verified:
        found["verified_mb_s"] = figure([rate * megabytes for rate in entry.verified.rates]).as_json()
        # Of each round, how much longer it took with every frame decoded and compared.
        found["verified_share"] = ratio(entry.verified.rates, rates).as_json()
    return found


def _time_single_frames(entry: _Entry, target: Target, settings: Settings) -> None:
    """Time frames one by one, on one encoder that is open: from cells to a codestream."""
    encoder = entry.kept.plugin.open(target)
    try:
        until = time.monotonic() + settings.round_s
        while len(entry.latencies_s) < settings.latencies:
            frame = entry.frames[len(entry.latencies_s) % len(entry.frames)]
            begun = time.perf_counter()
            made = encoder.encode([frame])
            entry.latencies_s.append(time.perf_counter() - begun)
            entry.referee.judge(made, [frame])
            if time.monotonic() > until and len(entry.latencies_s) >= LEAST_ROUNDS:
                break
    finally:
        encoder.close()


def _without(error: Exception) -> dict[str, Any]:
    """Return why a plug-in has no figures: it took no part, or what it made is wrong."""
    why = " ".join(str(error).split()) or type(error).__name__
    absent = isinstance(error, Refused) or code_of(error) in ("format-not-allowed", "device-refused")
    return {"status": "absent" if absent else "void", "why": why}


def _ratios(case: Case, target: Target, entries: Sequence[_Entry]) -> list[dict[str, Any]]:
    """Return how many times as fast as the first plug-in on the CPU each other one is, from rounds side by side."""
    base = next((entry for entry in entries if entry.plugin.device == "cpu"), None)
    if base is None:
        return []
    return [
        {
            "case": case.name,
            "syntax": target.syntax.name,
            "plugin": entry.label,
            "over": base.label,
            "times": ratio(entry.plain.rates, base.plain.rates).as_json(),
        }
        for entry in entries
        if entry is not base
    ]
