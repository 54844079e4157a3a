"""`make bench`: gpuenc's benchmark with peers, its results and charts, and the pages made of them.

python -m benchmarks [--quick] [--out DIR]      measure, and write the pages where DIR is the default
python -m benchmarks --readme                   only write the pages from the committed results

The whole takes at most ten minutes: what has no time left says so.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks import contest, readme
from gpuenc.bench import cases, run
from gpuenc.bench.measure import LEAST_ROUNDS, NO_TIME

# When no further peers are begun.
_QUICK_S, _WHOLE_S = 120.0, 540.0


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="prove the program, in two minutes and some")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--tiles", type=int, default=0, help="of the slide; 10000 are 8 GB, and take longer")
    parser.add_argument("--out", type=Path, default=readme.RESULTS)
    parser.add_argument("--readme", action="store_true", help="measure nothing")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if not args.readme:
        begun = time.monotonic()
        data = ("synthetic",) if args.quick else ("synthetic", "demo")
        asked = run.Request(data=data, quick=args.quick, rounds=args.rounds, tiles=args.tiles)
        results = run.run(asked, tell)
        results["peers"] = against_peers(args.rounds, begun + (_QUICK_S if args.quick else _WHOLE_S), quick=args.quick)
        results["seconds"] = time.monotonic() - begun
        results["noise"] = run.noise(results)
        for path in run.write(results, args.out):
            print(path)
        print(f"{results['seconds']:.0f} s")
    if args.readme or args.out == readme.RESULTS:
        readme.write()


def against_peers(rounds: int, until_s: float, *, quick: bool) -> list[dict[str, Any]]:
    """Return the rows of all peers over a series of CT, and of radiographs; those without time left say so."""
    rows: list[dict[str, Any]] = []
    with contest.processes() as pool:
        for case in cases.synthetic(quick=True):
            for name in contest.SYNTAXES[-2:] if quick else contest.SYNTAXES:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    rows.append(
                        {
                            "case": case.name,
                            "syntax": name,
                            "peer": "all",
                            "status": "absent",
                            "why": NO_TIME,
                        }
                    )
                    continue
                tell(f"peers: {case.name}: {name}")
                rows += contest.measure(case, name, rounds, pool, left_s=left_s)
            if quick or case.modality == "DX":
                return rows
    return rows


def tell(line: str) -> None:
    """Say what is done next."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
