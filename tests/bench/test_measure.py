"""Medians, spreads and ratios from made-up timings, and what voids a contender."""

from __future__ import annotations

import pytest

from gpuenc.bench.measure import Contender, figure, interleave, percentile, ratio


class Clock:
    """A clock that work moves forward."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def takes(self, *seconds):
        left = list(seconds)

        def work():
            self.now += left.pop(0)

        return work


def test_figure_is_median_and_range():
    of = figure([4.0, 1.0, 10.0, 2.0, 3.0])
    assert (of.median, of.low, of.high, of.rounds) == (3.0, 1.0, 10.0, 5)
    assert of.spread == 3.0
    assert of.noisy
    assert not figure([1.0, 1.1, 1.2]).noisy  # exactly 0.2 / 1.1


def test_ratio_is_of_pairs_and_not_of_medians():
    # The machine slows down by ten times in the third round, for both: their ratio stays what it is.
    clock = Clock()
    slow = Contender("slow", clock.takes(9, 4, 4, 40, 4, 4), lambda _: None)
    fast = Contender("fast", clock.takes(9, 2, 2, 20, 1, 2), lambda _: None)
    interleave([slow, fast], 5, clock)
    assert slow.seconds == [4, 4, 40, 4, 4]
    assert fast.seconds == [2, 2, 20, 1, 2]
    times = ratio(fast.rates, slow.rates)
    assert (times.median, times.low, times.high) == (2.0, 2.0, 4.0)


def test_contenders_take_turns():
    order = []
    pair = [Contender(name, lambda name=name: order.append(name), lambda _: None) for name in "AB"]
    interleave(pair, 2)
    assert "".join(order) == "ABABAB"  # one round of warm-up


def test_what_is_checked_is_not_timed():
    clock = Clock()
    slow_check = Contender("a", clock.takes(1, 1, 1), lambda _: clock.takes(100)())
    interleave([slow_check], 2, clock)
    assert slow_check.seconds == [1, 1]


@pytest.mark.parametrize("bad_round", [0, 1, 4])
def test_one_wrong_round_voids_all_figures_and_the_others_go_on(bad_round):
    rounds = []

    def check(number):
        if number == bad_round:
            raise ValueError("1 of 9 samples\ndo not come back")

    wrong = Contender("wrong", lambda: rounds.append(0) or len(rounds) - 1, check)
    right = Contender("right", lambda: None, lambda _: None)
    interleave([wrong, right], 5)
    assert wrong.why_void == "1 of 9 samples do not come back"
    assert wrong.seconds == []
    assert len(rounds) == bad_round + 1
    assert len(right.seconds) == 5


def test_percentile_is_the_nearest_rank():
    hundred = [float(number) for number in range(100, 0, -1)]
    assert (percentile(hundred, 50), percentile(hundred, 95), percentile(hundred, 100)) == (50, 95, 100)
    assert percentile([7.0], 95) == 7.0
