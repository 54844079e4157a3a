"""``python -m tests.fuzz``: a campaign, told line by line."""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from pathlib import Path

from tests.fuzz.campaign import run
from tests.fuzz.plants import PLANTS


def main() -> int:
    """Run a campaign; return 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--count", type=int, help="run so many mutants (1000 unless --seconds is given)")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--only", type=int, help="run this mutant alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the mutants that led to findings")
    parser.add_argument(
        "--plant", action="append", default=[], choices=list(PLANTS), help="put this defect into gpuenc"
    )
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # pydicom's, on the seeds
    count = chosen.count if chosen.count is not None else 1000 if chosen.seconds == float("inf") else None
    if chosen.only is not None:
        chosen.first, count = chosen.only, 1
    indices = itertools.count(chosen.first) if count is None else range(chosen.first, chosen.first + count)
    tally = run(
        chosen.seed, indices, jobs=chosen.jobs, planted=chosen.plant, keep=chosen.keep, seconds=chosen.seconds,
        tell=lambda finding: print(finding, flush=True),
    )  # fmt: skip
    print(f"{tally.mutants} mutants in {tally.seconds:.0f} s, {len(tally.findings)} findings")
    for name, counter in (("outcomes", tally.outcomes), ("verdicts", tally.judged)):
        print(f"{name}:")
        for what, number in counter.most_common():
            print(f"  {number:6} {what}")
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
