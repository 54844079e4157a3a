"""Built-in pictures: the same everywhere, of the size they say, and not nearly empty."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from gpuenc.bench import cases, phantoms

MADE = {
    "ct": lambda seed=phantoms.SEED: phantoms.ct(3, 256, seed),
    "dx": lambda seed=phantoms.SEED: phantoms.dx(2, 384, 320, seed),
    "mr": lambda seed=phantoms.SEED: phantoms.mr(3, 128, seed),
    "cine": lambda seed=phantoms.SEED: phantoms.cine(2, 150, 200, seed),
    "tiles": lambda seed=phantoms.SEED: phantoms.tiles(2, 128, seed),
}


@pytest.mark.parametrize("name", MADE)
def test_reproducible_and_another_seed_is_another_picture(name):
    assert np.array_equal(MADE[name](), MADE[name]())
    assert not np.array_equal(MADE[name](), MADE[name](1))


def test_a_slice_does_not_depend_on_how_many_are_made():
    assert np.array_equal(phantoms.ct(2, 64), phantoms.ct(5, 64)[:2])


@pytest.mark.parametrize("name", MADE)
def test_not_nearly_empty(name):
    made = MADE[name]()
    counts = np.unique(made, return_counts=True)[1]
    assert counts.max() / made.size < 0.4
    assert made.nbytes / len(zlib.compress(made.tobytes(), 6)) < 4
    # Frames differ from each other, as those of a scanner do.
    assert np.count_nonzero(made[0] != made[1]) > 0.3 * made[0].size


@pytest.mark.parametrize("name", ["ct", "dx", "mr"])
def test_grey_is_of_twelve_bits_and_uses_them(name):
    made = MADE[name]()
    assert made.dtype == np.uint16
    assert made.max() <= 4095
    assert np.ptp(made) > 1500
    # Cut off at either end would be flat.
    assert np.mean((made == 0) | (made == 4095)) < 0.05


def test_cases_are_those_of_the_modalities():
    found = list(cases.synthetic(quick=True))
    assert len({case.name for case in found}) == 5
    ct = found[0]
    assert (len(ct.frames), ct.format.rows, ct.format.bits_stored, ct.series) == (200, 512, 12, True)
    assert {case.format.samples for case in found} == {1, 3}
    for case in found:
        assert {frame.format for frame in case.frames} == {case.format}
        assert all(frame.pixels.size == case.format.frame_bytes for frame in case.frames)
