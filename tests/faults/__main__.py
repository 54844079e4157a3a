"""`python -m tests.faults --rounds 100 --seed S`: run a campaign, and print what was found as JSON."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import Campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="work here, and keep the rounds that went wrong")
    args = parser.parse_args()
    begun, wrong = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="gpuenc-faults-") as folder:
        campaign = Campaign(args.keep or Path(folder), random.Random(args.seed), args.files)
        for number in range(args.rounds):
            found = campaign.round(number)
            for line in found:
                print(line, file=sys.stderr, flush=True)
            wrong += found
    result = {
        "rounds": args.rounds,
        "seed": args.seed,
        "runs": campaign.runs,
        "seconds": round(time.monotonic() - begun, 1),
        "undisturbed_seconds": round(campaign.seconds, 2),
        "faults": dict(campaign.faults.most_common()),
        "ends": dict(campaign.ends.most_common()),
        "files_seen_under_final_names": campaign.looked,
        "wrong": wrong,
    }
    print(json.dumps(result, indent=1))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
