"""Interleaved rounds, medians and spreads: how a figure comes about, and when it is void.

Contenders take turns (A B A B …), so that whatever else the machine does meets all of them alike; ratios are taken
between rounds that ran side by side. What a round returned is checked after the clock was stopped: one wrong sample
voids all figures of that contender.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Fewer rounds have no spread worth the name.
LEAST_ROUNDS = 5
# Why a contender has no figures that would have taken too long.
NO_TIME = "no time was left"
# (highest - lowest) / median above which a figure is called noisy.
NOISY = 0.20


@dataclass(frozen=True, slots=True)
class Figure:
    """Median of rounds, with the lowest and the highest of them."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Distance between the lowest and the highest round, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    @property
    def noisy(self) -> bool:
        """Whether the spread is too large to believe the median."""
        return self.spread > NOISY

    def as_json(self) -> dict[str, Any]:
        """Return it as the results' JSON has it."""
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "rounds": self.rounds,
            "spread": self.spread,
            "noisy": self.noisy,
        }


@dataclass(slots=True)
class Contender:
    """One of those that take turns.

    Parameters
    ----------
    name : str
        What it is called in results.
    work : callable
        What is timed.
    check : callable
        Gets what `work` returned, untimed; raises where any of it is wrong.
    amount : float
        How much one round does, such as frames or megabytes.
    seconds : list of float
        Of its rounds, without the one of warm-up.
    why_void : str
        Why it has no figures: what it raised, or what was wrong; empty while all is well.
    """

    name: str
    work: Callable[[], Any]
    check: Callable[[Any], None]
    amount: float = 1.0
    seconds: list[float] = field(default_factory=list)
    why_void: str = ""

    @property
    def without(self) -> dict[str, str]:
        """What a row says that has no figures: void, or absent where only time was missing."""
        return {"status": "absent" if self.why_void == NO_TIME else "void", "why": self.why_void}

    @property
    def rates(self) -> list[float]:
        """Amount per second, of each round."""
        return [self.amount / seconds for seconds in self.seconds]


def figure(values: Sequence[float]) -> Figure:
    """Return the median of values, one per round, with their range; there must be one at least."""
    return Figure(statistics.median(values), min(values), max(values), len(values))


def ratio(ones: Sequence[float], others: Sequence[float]) -> Figure:
    """Return how many times as high `ones` are as `others`: of pairs that ran side by side, not of two medians."""
    return figure([one / other for one, other in zip(ones, others, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def interleave(
    contenders: Sequence[Contender],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_ups: int = 1,
    left_s: float = math.inf,
) -> None:
    """Let contenders take turns for `rounds` rounds after those of warm-up, and write their seconds down.

    One that raises, or whose work is found wrong in any round, warm-up included, loses all its figures and runs no
    more; the others go on. Where warm-up shows that the rounds would not be over in `left_s`, nobody has figures, for
    want of time.
    """
    first = clock()
    for number in range(rounds + warm_ups):
        if number == 1 and (1 + rounds) * (clock() - first) > left_s:
            for one in contenders:
                one.why_void = one.why_void or NO_TIME
            return
        for one in contenders:
            if one.why_void:
                continue
            try:
                begun = clock()
                done = one.work()
                seconds = clock() - begun
                one.check(done)
            except Exception as error:  # noqa: BLE001 - whatever a codec raises voids its row, and only that
                one.why_void = " ".join(str(error).split()) or type(error).__name__
                one.seconds.clear()
                continue
            if number >= warm_ups:
                one.seconds.append(max(seconds, 1e-9))
