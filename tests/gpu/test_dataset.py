"""`FrameDataset` on a GPU: stored values are those of the CPU, what is shown is within the stated tolerance."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import gpuenc
from gpuenc.cuda import probe
from gpuenc.pipelines.display import TOLERANCE
from tests import made
from tests.dicom.files import named
from tests.pipelines.test_dataset import cine, htj2k
from tests.pipelines.test_display import ds
from tests.pipelines.test_tables import MODALITY, VOI, noise, sequence

REAL = (
    "693_J2KR.dcm", "RG3_J2KR.dcm", "MR_small_jp2klossless.dcm", "GDCMJ2K_TextGBR.dcm", "JPEG2000.dcm", "CT_small.dcm",
)  # fmt: skip


def both(path, **options):
    """Return all frames by the GPU, on the host, and by the CPU."""
    with gpuenc.FrameDataset(path, device=0, **options) as there, gpuenc.FrameDataset(path, **options) as here:
        return [one["image"].get() for one in there.__getitems__(range(len(there)))], [one["image"] for one in here]


@pytest.mark.parametrize("name", REAL)
def test_stored_values_are_equal(cupy, evidence, name):
    for number, (theirs, ours) in enumerate(zip(*both(named(name)), strict=True)):
        right = theirs.dtype == ours.dtype and np.array_equal(theirs, ours)
        evidence.tally("dataset-exact", right, f"{name}, frame {number}")
        assert right


def test_batches_of_many_frames_are_equal(cupy, evidence, tmp_path, recwarn):
    assert probe.probe(0, "jpeg2k").usable, probe.probe(0, "jpeg2k").reason
    cine(tmp_path / "htj2k.dcm", count=200)
    made.of(made.noise((20, 24, 32), "i2", 12), stored=12).write(tmp_path / "native.dcm")
    theirs, ours = both(tmp_path)
    assert len(theirs) == 220
    right = [np.array_equal(*pair) for pair in zip(theirs, ours, strict=True)]
    for number, each in enumerate(right):
        evidence.tally("dataset-exact", each, f"frame {number} of a batch")
    assert all(right)
    assert not [one for one in recwarn if "wrongly" in str(one.message)]


def within(evidence, path, what, **options):
    for theirs, ours in zip(*both(path, **options), strict=True):
        right = np.abs(theirs - ours).max() <= TOLERANCE * max(1, np.abs(ours).max())
        evidence.tally("dataset-shown", bool(right), what)
        assert right


@pytest.mark.parametrize("size", [None, (100, 130), (700, 600)])
@pytest.mark.parametrize("shown", [{"rescale": True}, {"window": (40, 400)}, {"window": (40, 400, "LINEAR_EXACT")},
                                   {"window": (40, 400, "SIGMOID"), "invert": True}])  # fmt: skip
def test_what_is_shown_is_within_the_tolerance(cupy, evidence, shown, size):
    for name in ("693_J2KR.dcm", "CT_small.dcm"):
        within(evidence, named(name), f"{name}, {shown}, {size}", size=size, **shown)


@pytest.mark.parametrize("shown", [{"rescale": True}, {"window": "file"}, {"window": "lut", "size": (40, 30)}])
def test_tables_are_looked_up_on_the_device(cupy, evidence, tmp_path, shown):
    first, second = noise(4096, 16), noise(40000, 12)
    for name, elements in {
        "both": (sequence(MODALITY, -2048, 16, first, descriptor="SS"), sequence(VOI, 20000, 12, second)),
        "rescaled": (ds(0x00281052, "-7.25"), ds(0x00281053, "0.3"), sequence(VOI, -600, 12, second)),
    }.items():
        values = made.noise((3, 50, 60), "i2", 12)
        within(
            evidence, made.of(values, stored=12, elements=elements).write(tmp_path / name), f"{name}, {shown}", **shown
        )


def test_arrays_are_handed_over_on_the_device(cupy, evidence):
    with gpuenc.FrameDataset(named("693_J2KR.dcm"), device=0) as frames:
        image = frames[0]["image"]
    assert image.__dlpack_device__()[0] == 2  # kDLCUDA
    assert cupy.from_dlpack(image).data.ptr == image.data.ptr
    evidence.record("dataset-dlpack", "the same address, kDLCUDA")


SIDE, FRAMES, BATCH = 512, 512, 64


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Two files of smooth frames of 12 bits: HTJ2K and native."""
    folder = tmp_path_factory.mktemp("archives")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    few = [(2000 + 1500 * np.sin((rows + 3 * n) / 40) * np.cos(columns / 30)).astype("u2") for n in range(16)]
    samples = np.stack([few[n % 16] for n in range(FRAMES)])
    coded = [htj2k(one) for one in few]
    shape = {"rows": SIDE, "columns": SIDE, "allocated": 16, "stored": 12, "syntax": made.HTJ2K}
    made.compressed([coded[n % 16] for n in range(FRAMES)], "basic", **shape).write(folder / "htj2k")
    made.of(samples, stored=12).write(folder / "native")
    return {name: folder / name for name in ("htj2k", "native")}


def epoch(frames):
    for first in range(0, len(frames), BATCH):
        frames.__getitems__(range(first, first + BATCH))


def test_memory_of_epochs(cupy, evidence, archives):
    free, pool, said = lambda: cupy.cuda.runtime.memGetInfo()[0], cupy.get_default_memory_pool(), []
    for name, path in archives.items():
        pool.free_all_blocks()
        before, used = free(), []
        with gpuenc.FrameDataset(path, device=0) as frames:
            for _ in range(10):
                epoch(frames)
                used.append(before - free())
        pool.free_all_blocks()
        said.append(f"{name} {used[0] >> 20} MiB after one, {used[-1] >> 20} after ten, {before - free() >> 20} closed")
        # What one epoch needs, ten need: a leak of one frame per batch would be 40 MiB.
        assert used[-1] - used[1] < 16 << 20
    evidence.record("dataset-memory", f"{'; '.join(said)}; batches of {BATCH} of {SIDE}², 12 bits")


def test_rates_of_epochs(cupy, evidence, archives):
    said = []
    for name, path in archives.items():
        for device in (0, "cpu"):
            with gpuenc.FrameDataset(path, device=device) as frames:
                epoch(frames)
                start = time.perf_counter()
                epoch(frames)  # every batch ends with the device's stream
                said.append(
                    f"{name} {'GPU' if device == 0 else 'CPU'} {len(frames) / (time.perf_counter() - start):.0f}"
                )
    evidence.record("dataset-rates", f"frames/s: {'; '.join(said)}; {len(os.sched_getaffinity(0))} cores")
