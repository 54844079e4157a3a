"""More of tests/simt/test_htj2k.py than ``make test`` has time for.

python -m tests.simt.campaign_htj2k blocks [count]      random code blocks: kernel = reference, five schedules in turn
python -m tests.simt.campaign_htj2k batches [count]     random batches: kernels = reference, and both decoders exact
python -m tests.simt.campaign_htj2k large [seed]        the same for four images of up to 2048 x 2500
python -m tests.simt.campaign_htj2k reference [seed]    the reference alone, both decoders, up to 2048 x 2500

Each ends with what was found, and with a status of 1 if anything was wrong.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from tests.simt import htj2k
from tests.simt.shim import SCHEDULES, SimtDevice
from tests.simt.test_htj2k import require_exact

AT_ONCE = 64


def blocks(count: int, seed: int = 0) -> int:
    """Compare that many blocks, and return how many differ; faults of the shim are exceptions."""
    rng, done, wrong, size = np.random.default_rng([seed, 3]), 0, 0, 0
    while done < count:
        made = [htj2k.random_block(rng) for _ in range(AT_ONCE)]
        schedule = SCHEDULES[done // AT_ONCE % len(SCHEDULES)]
        most = (int(rng.integers(1, 5)), 1) if rng.random() < 0.5 else (1 << 31, 1)
        device = SimtDevice(schedule, seed=done + 1, most_blocks=most)
        for one, block in zip(htj2k.kernel_blocks(device, made), made, strict=True):
            right = htj2k.coded_block(block)
            wrong += one != right
            size += len(right)
        done += AT_ONCE
    print(f"{done} blocks of {size} bytes, {wrong} differ; 0 faults of memory, order or barriers")
    return wrong


def batches(count: int, seed: int = 0) -> int:
    """Compare and decode that many batches of four frames, and return how many are wrong."""
    rng, done, wrong = np.random.default_rng([seed, 4]), 0, 0
    for number in range(count):
        most = int(rng.choice([4, 40, 150]))
        shape = (int(rng.integers(1, most)), int(rng.integers(1, most)), *((3,) if rng.random() < 0.3 else ()))
        precision, signed = int(rng.integers(1, 17)), bool(rng.random() < 0.4)
        mct = len(shape) == 3 and bool(rng.random() < 0.7)
        wanted = htj2k.coding(shape, precision, signed=signed, levels=int(rng.integers(0, 9)), mct=mct)
        frames = [htj2k.image(rng, str(rng.choice(htj2k.CONTENTS)), shape, precision, signed) for _ in range(4)]
        cut = (int(rng.integers(1, 4)), int(rng.integers(1, 4))) if rng.random() < 0.5 else (1 << 31, 1 << 16)
        device = SimtDevice(SCHEDULES[number % len(SCHEDULES)], seed=number + 1, most_blocks=cut)
        try:
            for codestream, frame in zip(htj2k.check_batch(device, frames, wanted), frames, strict=True):
                done += 1
                require_exact(frame, codestream, wanted)
        except AssertionError as error:
            wrong += 1
            print(f"batch {number}: {str(error)[:300]}")
    print(f"{count} batches, {done} codestreams, {wrong} batches wrong")
    return wrong


def large(seed: int = 0) -> int:
    """Compare and decode large images, and return how many are wrong."""
    rng, wrong = np.random.default_rng([seed, 6]), 0
    for shape, precision, signed in (
        ((640, 500, 3), 8, False), ((700, 4200), 10, False), ((2500, 2048), 12, False), ((2500, 2048), 16, True),
    ):  # fmt: skip
        frame = htj2k.image(rng, "smooth", shape, precision, signed)
        wanted = htj2k.coding(shape, precision, signed=signed, levels=5)
        try:
            [codestream] = htj2k.check_batch(SimtDevice(), [frame], wanted)
            require_exact(frame, codestream, wanted)
        except AssertionError as error:
            wrong += 1
            print(f"{shape}: {str(error)[:300]}")
        print(f"{shape}: {wrong} wrong", flush=True)
    return wrong


def reference(seed: int = 0) -> int:
    """Decode the reference over the grid, and return how many are wrong."""
    rng, done, wrong = np.random.default_rng([seed, 5]), 0, 0
    small = [(1, 1), (1, 7), (7, 1), (1, 200), (131, 1), (5, 5), (33, 65), (97, 130)]
    grid = [(shape, range(7)) for shape in small] + [((512, 512), (0, 5)), ((640, 500), (5,))]
    grid += [((*shape, 3), (0, 1, 3, 5, 6)) for shape in small] + [((640, 500, 3), (5,)), ((2500, 2048), (5,))]
    for shape, levels in grid:
        large = shape[0] * shape[1] > 1 << 20
        for precision in (12, 16) if large else range(1, 17):
            for signed in (False, True):
                for content in ("smooth", "noise", "extremes") if large else htj2k.CONTENTS:
                    samples = htj2k.image(rng, content, shape, precision, signed)
                    for level in levels:
                        done += 1
                        wanted = htj2k.coding(shape, precision, signed=signed, levels=level)
                        try:
                            require_exact(samples, htj2k.encoded(samples, wanted), wanted)
                        except Exception as error:  # noqa: BLE001 - decoders raise what they like
                            wrong += 1
                            print(f"{content}: {str(error)[:200]}")
        print(f"{shape}: {done} codestreams, {wrong} wrong", flush=True)
    print(f"{done} codestreams, two decoders, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    start = time.perf_counter()
    what = {"blocks": blocks, "batches": batches, "large": large, "reference": reference}[sys.argv[1]]
    number = int(sys.argv[2]) if sys.argv[2:] else {"blocks": 50000, "batches": 1000}.get(sys.argv[1], 0)
    failed = what(number)
    print(f"{time.perf_counter() - start:.0f} s")
    sys.exit(bool(failed))
