"""How fast your archive can be read at random here: frames a second by threads and worker processes.

    python examples/benchmark_loader.py ARCHIVE [--index FILE] [--frames N] [--batch N]

Needs nothing but gpuenc. What is measured is reading and decoding; a model that takes the frames needs cores too.
`python -m benchmarks.loading` compares with pydicom, PNG and .npy on pictures of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import gpuenc
from gpuenc.plugins import usable_cores


class Batches:
    """Reads batches, here or in a worker process."""

    def __init__(self, dataset: gpuenc.FrameDataset) -> None:
        self._dataset = dataset

    def __call__(self, numbers: Sequence[int]) -> int:
        """Return how many bytes of samples a batch has."""
        return sum(sample["image"].nbytes for sample in self._dataset.__getitems__(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--index", type=Path, help="where the index is kept; built if it is not there")
    parser.add_argument("--frames", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    began = time.perf_counter()
    dataset = gpuenc.FrameDataset(args.archive, index=args.index)
    print(f"{dataset}, ready after {time.perf_counter() - began:.2f} s")
    numbers = np.random.default_rng(0).permutation(len(dataset))[: args.frames].tolist()
    batches = [numbers[start : start + args.batch] for start in range(0, len(numbers), args.batch)]
    for threads in sorted({1, usable_cores()}):
        with gpuenc.FrameDataset(args.archive, index=args.index, threads=threads) as frames:
            report(f"{threads} threads", len(numbers), map(Batches(frames), batches))
    with multiprocessing.get_context("spawn").Pool(usable_cores()) as pool:
        list(pool.imap_unordered(Batches(dataset), [[0]] * usable_cores()))  # start them first
        done = pool.imap_unordered(Batches(dataset), batches)
        report(f"{usable_cores()} processes", len(numbers), done)


def report(who: str, frames: int, done: Iterable[int]) -> None:
    began = time.perf_counter()
    size = sum(done)
    seconds = time.perf_counter() - began
    print(f"{who}: {frames / seconds:.1f} frames/s, {size / seconds / 1e6:.1f} MB/s of samples")


if __name__ == "__main__":
    main()
