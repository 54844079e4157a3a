"""The encoding kernels on random frames: the bytes of the references, and what decoders make of them.

python -m tests.simt.campaign_encoders [seconds [seed]]        60 seconds, seed 0
"""

from __future__ import annotations

import sys
import time
from collections import Counter

import imagecodecs
import numpy as np

from gpuenc.cpu import rle as cpu_rle
from gpuenc.cuda import jpeg_lossless, rle
from tests.simt import encoders, references
from tests.simt.shim import SCHEDULES, SimtDevice
from tests.simt.test_encoders import by_libjpeg_turbo, entropy_coded

_MOST_SAMPLES, _MOST_ROWS = 40_000, 600


def shape_of(rng: np.random.Generator) -> tuple[int, ...]:
    """Return small and large, square and narrow shapes, of one or three samples."""
    side = int(rng.choice([4, 40, 200]))
    rows, columns = int(rng.integers(1, side + 1)), int(rng.integers(1, side + 1))
    if rng.random() < 0.2:
        rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 9000))
    elif rng.random() < 0.1:
        rows, columns = int(rng.integers(1, _MOST_ROWS)), int(rng.integers(1, 4))
    samples = int(rng.choice([1, 1, 3]))
    columns = min(columns, max(1, _MOST_SAMPLES // (rows * samples)))
    return (rows, columns) if samples == 1 else (rows, columns, samples)


def one_round(rng: np.random.Generator, schedule: str, count: Counter[str]) -> None:
    """Encode a batch of each codec, and hold every frame against all there is."""
    few = (int(rng.integers(1, 4)), int(rng.integers(1, 4))) if rng.random() < 0.5 else (1 << 31, 1 << 16)
    how = {"seed": int(rng.integers(1, 1 << 32)), "misalign": int(rng.integers(0, 16)), "most_blocks": few}
    for codec, kinds in ((jpeg_lossless, ("u1", "u2")), (rle, ("u1", "u2", "u4"))):
        shape, kind = shape_of(rng), np.dtype(str(rng.choice(kinds)))
        batch = encoders.batch_of(rng, shape, kind, int(rng.integers(1, 4)))
        layout = {"planar": True} if codec is rle and len(shape) == 3 and rng.random() < 0.5 else {}
        made = encoders.encoded(codec.measure, SimtDevice(schedule, **how), batch, misalign=how["misalign"], **layout)
        for frame, codestream in zip(batch, made, strict=True):
            if codec is rle:
                assert codestream == references.rle(frame)
                assert len(codestream) <= len(cpu_rle.encode(frame))
                np.testing.assert_array_equal(cpu_rle.decode(codestream, shape, kind), frame)
            else:
                assert codestream == references.jpeg_lossless(frame)
                assert entropy_coded(codestream) == entropy_coded(by_libjpeg_turbo(frame))
                np.testing.assert_array_equal(imagecodecs.jpeg8_decode(codestream).reshape(shape), frame)
                np.testing.assert_array_equal(imagecodecs.jpegsof3_decode(codestream).reshape(shape), frame)
            count[f"frames of {codec.LABEL}"] += 1
            count["samples"] += frame.size
        count[f"batches, {schedule}"] += 1


def main(seconds: float = 60, seed: int = 0) -> None:
    """Run until the time is over, and print how much was compared; the seed of a failure is in its message."""
    count: Counter[str] = Counter()
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            one_round(np.random.default_rng([seed, turn]), SCHEDULES[turn % len(SCHEDULES)], count)
        except Exception as wrong:
            raise AssertionError(f"seed {seed}, round {turn}") from wrong
        turn += 1
    print(", ".join(f"{number:,} {what}" for what, number in sorted(count.items())))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
