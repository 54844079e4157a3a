"""`FrameDataset` on a GPU: stored values are those of the CPU, what is shown is within the stated tolerance."""

from __future__ import annotations

import numpy as np
import pytest

import gpuenc
from gpuenc.cuda import probe
from gpuenc.pipelines.display import TOLERANCE
from tests import made
from tests.dicom.files import named
from tests.pipelines.test_dataset import cine

REAL = (
    "693_J2KR.dcm", "RG3_J2KR.dcm", "MR_small_jp2klossless.dcm", "GDCMJ2K_TextGBR.dcm", "JPEG2000.dcm", "CT_small.dcm",
)  # fmt: skip


def both(path, **options):
    """Return all frames by the GPU, on the host, and by the CPU."""
    with gpuenc.FrameDataset(path, device=0, **options) as there, gpuenc.FrameDataset(path, **options) as here:
        return [one["image"].get() for one in there.__getitems__(range(len(there)))], [one["image"] for one in here]


@pytest.mark.parametrize("name", REAL)
def test_stored_values_are_equal(cupy, name):
    for theirs, ours in zip(*both(named(name)), strict=True):
        assert theirs.dtype == ours.dtype
        assert np.array_equal(theirs, ours)


def test_batches_of_many_frames_are_equal(cupy, tmp_path, recwarn):
    assert probe.probe(0, "jpeg2k").usable, probe.probe(0, "jpeg2k").reason
    cine(tmp_path / "htj2k.dcm", count=200)
    made.of(made.noise((20, 24, 32), "i2", 12), stored=12).write(tmp_path / "native.dcm")
    theirs, ours = both(tmp_path)
    assert len(theirs) == 220
    assert all(np.array_equal(*pair) for pair in zip(theirs, ours, strict=True))
    assert not [one for one in recwarn if "wrongly" in str(one.message)]


@pytest.mark.parametrize("size", [None, (100, 130), (700, 600)])
@pytest.mark.parametrize("shown", [{"rescale": True}, {"window": (40, 400)}, {"window": (40, 400, "LINEAR_EXACT")},
                                   {"window": (40, 400, "SIGMOID"), "invert": True}])  # fmt: skip
def test_what_is_shown_is_within_the_tolerance(cupy, shown, size):
    for name in ("693_J2KR.dcm", "CT_small.dcm"):
        for theirs, ours in zip(*both(named(name), size=size, **shown), strict=True):
            assert np.abs(theirs - ours).max() <= TOLERANCE * max(1, np.abs(ours).max())


def test_arrays_are_handed_over_on_the_device(cupy):
    with gpuenc.FrameDataset(named("693_J2KR.dcm"), device=0) as frames:
        image = frames[0]["image"]
    assert image.__dlpack_device__()[0] == 2  # kDLCUDA
    assert cupy.from_dlpack(image).data.ptr == image.data.ptr
