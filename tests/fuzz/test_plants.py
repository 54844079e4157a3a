"""The campaign itself: each planted defect is found by its first mutants."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.plants import PLANTS

SEED, NUMBERS = 7, 20_000


@pytest.mark.filterwarnings("ignore")  # pydicom's, on what is odd in its own files
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_defect_is_found(name):
    _, kinds, where = PLANTS[name]
    # What never ends is waited for to the limit; of what does end, no busy machine may make a hang.
    limit_s = 4 if kinds == ("hang",) else 30
    tally = run(SEED, range(NUMBERS), planted=[name], until_found=True, limit_s=limit_s, where=where)
    assert tally.findings, f"{tally.mutants} mutants do not show it"
    assert tally.findings[0].kind in kinds, str(tally.findings[0])
