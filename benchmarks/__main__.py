"""`make bench`: gpuenc's benchmark with peers, its results and charts, and the README's section made of them.

python -m benchmarks [--quick] [--out DIR]      measure, and write the README's section where DIR is the default
python -m benchmarks --readme                   only write the README's section from the committed results
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from benchmarks import peers, readme
from gpuenc.bench import cases, run


def main() -> None:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="prove the program, in two minutes and some")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=readme.RESULTS)
    parser.add_argument("--readme", action="store_true", help="measure nothing")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if not args.readme:
        asked = run.Request(data=("synthetic",), quick=args.quick, rounds=args.rounds)
        results = run.run(asked, lambda line: print(line, file=sys.stderr))
        results["peers"] = []
        for case in cases.synthetic(quick=True):
            for name in peers.SYNTAXES[-2:] if args.quick else peers.SYNTAXES:
                print(f"peers: {case.name}: {name}", file=sys.stderr)
                results["peers"] += peers.measure(case, name, args.rounds)
            if not case.series or args.quick:
                break
        for path in run.write(results, args.out):
            print(path)
    if args.readme or args.out == readme.RESULTS:
        readme.write()


if __name__ == "__main__":
    main()
