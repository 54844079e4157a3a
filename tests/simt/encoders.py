"""Batches for the kernels that encode, and what they must become: `references`, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpuenc.coding import Coding
from gpuenc.cuda import jpeg_lossless, packed, rle
from gpuenc.errors import GpuencError
from tests.simt import references
from tests.simt.shim import SimtDevice

Rng = np.random.Generator
_MOST_ROWS = 60  # a warp codes each of them, for each byte of a sample
Samples = NDArray[np.unsignedinteger]
SHAPES = [
    (1, 1), (1, 2), (2, 1), (1, 3, 3), (3, 1, 3), (2, 2, 3), (7, 5), (5, 31), (5, 32), (5, 33), (3, 127), (3, 128),
    (3, 129), (3, 130), (2, 255), (2, 256), (2, 257), (2, 1023), (2, 1024), (2, 1025), (1, 2047), (1, 2048), (1, 2049),
    (2049, 1), (300, 1, 3), (1, 5000), (5000, 1), (64, 65), (17, 241), (40, 57, 3),
]  # fmt: skip


def wanted(shape: tuple[int, ...], dtype: DTypeLike) -> Coding:
    """Return the `Coding` of whole cells of this shape, (rows, columns[, samples])."""
    bits = 8 * np.dtype(dtype).itemsize
    samples = shape[2] if len(shape) == 3 else 1
    return Coding(shape[0], shape[1], samples, bits, False, bits, "RGB" if samples == 3 else "MONOCHROME2")


def noise(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def flat(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    return np.full(shape, noise(rng, (), dtype))


def extremes(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    return rng.choice(np.array([0, np.iinfo(dtype).max], dtype), shape)


def smooth(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    steps = rng.normal(0, float(rng.choice([0.4, 2, 30])), shape)
    return (
        (np.cumsum(steps, axis=1) + np.cumsum(rng.normal(0, 3, (shape[0], 1, *shape[2:])), axis=0))
        .astype(np.int64)
        .astype(dtype)
    )


def jumps(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    """Differences of half the range, 32768 of 16 bits among them, which has a category of its own."""
    half = 1 << 8 * dtype.itemsize - 1
    return (np.cumsum(rng.choice([0, half, half - 1, half + 1], shape, p=[0.4, 0.4, 0.1, 0.1]), axis=1)).astype(dtype)


def ones(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    """Differences of 2^k - 1, whose bits are all ones: FF wherever they can be, so that many bytes are stuffed."""
    most = 8 * dtype.itemsize - 1
    steps = np.array([(1 << bits) - 1 for bits in range(max(1, most - int(rng.integers(0, 12))), most + 1)])
    return np.cumsum(rng.choice(steps, shape), axis=1).astype(dtype)


def fibonacci(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    """Differences whose categories are as rare as Fibonacci numbers: a tree without branches, the deepest there is.

    All 17 categories, 6763 samples or more, have codes of up to 17 bits before they are limited to 16 (T.81 K.3).
    """
    weights, count = [1, 2], int(np.prod(shape))
    while len(weights) < 8 * dtype.itemsize + 1 and sum(weights) + weights[-1] + weights[-2] <= count:
        weights.append(weights[-1] + weights[-2])
    kinds = rng.permutation(8 * dtype.itemsize + 1)[: len(weights)]
    categories = np.repeat(kinds, weights)[::-1][:count]
    categories = rng.permutation(np.concatenate([categories, np.full(count - categories.size, categories[0])]))
    steps = np.where(categories, 1 << np.maximum(categories - 1, 0), 0).reshape(shape)
    steps[0, 0] += 1 << 8 * dtype.itemsize - 1
    steps[:, 0] = np.cumsum(steps[:, 0], axis=0)
    return np.cumsum(steps, axis=1).astype(dtype)


def runs(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    """Runs of equal samples of the lengths at which PackBits decides, one after the other in random order."""
    count, row = int(np.prod(shape)), []
    lengths = [
        1,
        1,
        1,
        2,
        2,
        3,
        4,
        5,
        31,
        32,
        33,
        63,
        64,
        65,
        126,
        127,
        128,
        129,
        130,
        131,
        255,
        256,
        257,
        258,
        300,
        385,
    ]
    few = rng.choice(lengths, int(rng.integers(1, 6)))
    while len(row) < count:
        row += [int(rng.integers(0, 4)) * 0x0101] * int(rng.choice(few if rng.random() < 0.9 else lengths))
    return np.array(row[:count]).reshape(shape).astype(dtype)


def pairs(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    """Pairs alone, or with a single byte or a run in front: literal or not as far as they go."""
    count = int(np.prod(shape))
    head = [7] * int(rng.integers(0, 5)) + [9] * int(rng.integers(0, 3))
    return np.resize(np.concatenate([head, np.arange(count + 2) // 2 % 251]), count).reshape(shape).astype(dtype)


def literals(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    """Long stretches without runs, with pairs here and there: some lie where 128 bytes are full."""
    count, row, share = int(np.prod(shape)), [], rng.random() * 0.4
    while len(row) < count:
        long = rng.random() < 0.01
        row += [len(row) * 7 % 251] * int(rng.choice([3, 128, 129, 130]) if long else 1 + (rng.random() < share))
    return np.array(row[:count]).reshape(shape).astype(dtype)


def word_edges(rng: Rng, shape: tuple[int, ...], dtype: np.dtype) -> Samples:
    """Literals, a run up to byte 128, and literals from there on: of those before it nothing must be left."""
    made = np.empty((int(np.prod(shape)) // shape[1] + 1, shape[1]), np.int64)
    for row in made:
        begin, count = int(rng.integers(3, 31)), int(rng.integers(1, 90))
        parts = [[0] * begin, np.arange(count) % 250 + 1, [0] * (128 - begin - count), np.arange(300) % 250 + 1]
        row[:] = np.resize(np.concatenate(parts), shape[1])
    return made.reshape(-1)[: int(np.prod(shape))].reshape(shape).astype(dtype)


CONTENTS = (noise, flat, extremes, smooth, jumps, ones, fibonacci, runs, pairs, literals, word_edges)


def encoded(
    codec: Callable[..., packed.Measured], device: SimtDevice, batch: Samples, *, misalign: int = 0, **layout: bool
) -> list[bytes | GpuencError]:
    """Return what the kernels make of `batch`, (frames, rows, columns[, samples])."""
    shape, dtype = batch.shape[1:], batch.dtype
    if layout:
        batch = np.ascontiguousarray(np.moveaxis(batch, -1, 1))
    array = device.put(batch, misalign // dtype.itemsize * dtype.itemsize)
    return packed.collect(device, codec(device, array, wanted(shape, dtype), **layout))


def check_jpeg_lossless(device: SimtDevice, batch: Samples, misalign: int = 0) -> None:
    assert encoded(jpeg_lossless.measure, device, batch, misalign=misalign) == [
        references.jpeg_lossless(frame) for frame in batch
    ]


def check_rle(device: SimtDevice, batch: Samples, misalign: int = 0, *, planar: bool = False) -> None:
    layout = {"planar": True} if planar else {}
    assert encoded(rle.measure, device, batch, misalign=misalign, **layout) == [
        references.rle(frame) for frame in batch
    ]


def batch_of(rng: Rng, shape: tuple[int, ...], dtype: DTypeLike, frames: int = 3) -> Samples:
    """Return frames of different contents."""
    kind = np.dtype(dtype)
    return np.stack([CONTENTS[int(rng.integers(0, len(CONTENTS)))](rng, shape, kind) for _ in range(frames)])


def _shape(rng: Rng, most: int) -> tuple[int, ...]:
    shape = (int(rng.integers(1, min(most, _MOST_ROWS) + 1)), int(rng.integers(1, most + 1)))
    return shape if rng.random() < 0.6 else (*shape, 3)


def compare_jpeg_lossless(dtype: str, rng: Rng, device: SimtDevice, most: int) -> None:
    check_jpeg_lossless(device, batch_of(rng, _shape(rng, most), dtype), int(rng.integers(0, 16)))


def compare_rle(rng: Rng, device: SimtDevice, most: int) -> None:
    shape, dtype = _shape(rng, most), str(rng.choice(["u1", "u2", "u4"]))
    batch = batch_of(rng, shape, dtype)
    check_rle(device, batch, int(rng.integers(0, 16)), planar=len(shape) == 3 and rng.random() < 0.5)


def adversarial(seed: int, dtypes: tuple[str, ...]) -> Iterator[Samples]:
    """Yield a batch of every content for every shape, in one of the dtypes each."""
    for number, shape in enumerate(SHAPES):
        rng = np.random.default_rng([seed, number])
        kind = np.dtype(dtypes[(number + seed) % len(dtypes)])
        yield np.stack([content(rng, shape, kind) for content in CONTENTS])
