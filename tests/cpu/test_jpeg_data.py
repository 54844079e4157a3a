"""Valid JPEGs of dull images are not taken for damaged ones."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from gpuenc.cpu import decoders
from gpuenc.frames import Coded, Frame, FrameFormat, FrameRef

BASELINE, LOSSLESS, SV1 = (f"1.2.840.10008.1.2.4.{number}" for number in (50, 57, 70))


def dull(rng, kind):
    """Return an image that has little to say: of one value, noisy above a flat ground, or of rare specks."""
    rows, columns = rng.integers(1, 70, 2)
    bits = int(rng.choice([1, 2, 3, 8, 12, 16]))
    image = np.zeros((rows, columns), np.uint16 if bits > 8 else np.uint8)
    most = (1 << bits) - 1
    if kind == "above":
        image[: rows // 2] = rng.integers(0, most + 1, (rows // 2, columns))
    elif kind == "bright":
        image[:] = most
        image[: rows // 3] = rng.integers(0, most + 1, (rows // 3, columns))
    elif kind == "specks":
        image[:] = rng.random((rows, columns)) < 0.02
    return image, bits


@pytest.mark.parametrize("kind", ["flat", "above", "bright", "specks"])
@pytest.mark.parametrize("uid", [BASELINE, LOSSLESS, SV1])
def test_dull_images_are_whole(uid, kind):
    rng = np.random.default_rng(len(kind))
    for _ in range(40):
        image, bits = dull(rng, kind)
        allocated = image.dtype.itemsize * 8
        if uid == BASELINE:
            if allocated > 8:
                continue
            codestream = imagecodecs.jpeg8_encode(image, level=90)
        else:
            predictor = 1 if uid == SV1 else int(rng.integers(1, 8))
            codestream = imagecodecs.jpeg8_encode(image, lossless=True, predictor=predictor, bitspersample=allocated)
        fmt = FrameFormat(*map(int, image.shape), 1, allocated, bits, False, "MONOCHROME2")
        frame = Frame(FrameRef("", 0), fmt, Coded(uid, codestream))
        decoded = decoders.decode_frame(frame).host_cells()
        if uid != BASELINE:
            assert decoded.tobytes() == image.tobytes()
