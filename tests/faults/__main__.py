"""`python -m tests.faults --rounds 100`, or `--power-cuts 100`: run a campaign, and print what was found as JSON."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import Campaign
from tests.faults.power import PowerCuts, why_not


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--power-cuts", type=int, default=0, help="so many of these instead; see tests/faults/power.py")
    parser.add_argument("--durability", default="file", help="of the jobs whose power is cut")
    parser.add_argument("--keep", type=Path, help="work here, and keep the rounds that went wrong")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuenc-faults-") as folder:
        run = _power_cuts if args.power_cuts else _rounds
        result = run(args, args.keep or Path(folder))
    print(json.dumps(result, indent=1))
    return bool(result["wrong"])


def _rounds(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    begun, wrong = time.monotonic(), []
    campaign = Campaign(folder, random.Random(args.seed), args.files)
    for number in range(args.rounds):
        wrong += _told(campaign.round(number))
    return {
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


def _power_cuts(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    if why := why_not():
        sys.exit(f"no power cuts here: {why}")
    begun, wrong = time.monotonic(), []
    cuts = PowerCuts(folder, random.Random(args.seed), args.files, args.durability)
    for found in cuts.rounds(args.power_cuts):
        wrong += _told(found)
    return {
        "power_cuts": sum(cuts.cuts.values()),
        "seed": args.seed,
        "durability": args.durability,
        "seconds": round(time.monotonic() - begun, 1),
        "disks": dict(cuts.cuts.most_common()),
        "outputs_found_after_restarts": cuts.found_outputs,
        "files_found_done_after_restarts": cuts.found_done,
        "wrong": wrong,
    }


def _told(found: list[str]) -> list[str]:
    for line in found:
        print(line, file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
