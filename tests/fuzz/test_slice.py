"""The first mutants of one campaign; ``python -m tests.fuzz`` runs more."""

from __future__ import annotations

import pytest

from tests.fuzz import seeds
from tests.fuzz.campaign import LOSSLESS, LOSSY, options_of, run
from tests.fuzz.mutations import mutant

SEED, COUNT = 11, 1500


@pytest.mark.filterwarnings("ignore")  # pydicom's, on what is odd in its own files
class TestSlice:
    def test_the_first_mutants_break_nothing(self):
        tally = run(SEED, range(COUNT))
        assert not tally.findings, "\n".join(map(str, tally.findings))
        assert tally.mutants == COUNT
        # Or nothing would have been looked at.
        assert sum(number for what, number in tally.judged.items() if what.startswith("same samples")) > COUNT // 20

    def test_a_mutant_is_told_by_its_number(self):
        first = [(mutant(SEED, index), options_of(SEED, index)) for index in range(100)]
        assert [(mutant(SEED, index), options_of(SEED, index)) for index in range(100)] == first
        assert len({made.data for made, _ in first}) > 90

    def test_every_target_has_its_turn(self):
        chosen = {options_of(SEED, index)["to"] for index in range(COUNT)}
        assert chosen == {*LOSSLESS, *(each["to"] for each in LOSSY)}

    def test_seeds_come_back_from_their_trees(self):
        for name, tree in seeds.trees().items():
            assert tree is None or tree.deflated or tree.bytes() == seeds.every()[name]
        assert sum(tree is not None for tree in seeds.trees().values()) > 150
