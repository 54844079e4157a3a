"""Samples for encoders of other projects, whose codestreams are what these tests read."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.codestream.asked import Encoders

Noise = Callable[..., NDArray[np.generic]]


@pytest.fixture(scope="session")
def noise() -> Noise:
    """Make (rows, columns[, samples]) of `bits` random bits, sign-extended where signed, in 8, 16 or 32-bit cells."""

    def make(rows: int, columns: int, samples: int = 1, bits: int = 8, signed: bool = False) -> NDArray[np.generic]:
        shape = (rows, columns) if samples == 1 else (rows, columns, samples)
        cell = next(size for size in (8, 16, 32) if bits <= size)
        low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
        random = np.random.default_rng(rows * 7919 + columns * 31 + samples * 7 + bits)
        return random.integers(low, high, shape).astype(f"{'i' if signed else 'u'}{cell // 8}")

    return make


@pytest.fixture(scope="session")
def encoders(noise: Noise) -> Encoders:
    """Encoders of other projects, of random samples."""
    return Encoders(noise)
