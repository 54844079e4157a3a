"""How many bytes kernels move, and in how large pieces: what speed on a GPU begins with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gpuenc.cuda import jobs
from gpuenc.cuda import samples as cuda
from gpuenc.frames import Palette
from tests.simt.shim import SimtDevice

RGB, PLANES, GRAY = (2, 32, 64, 3), (2, 3, 32, 64), (2, 32, 64)
TABLE = Palette(0, bytes(range(64)), bytes(range(64)), bytes(range(64)))

# Kernel: its input, the call, bytes of its output per sample of the input, bytes that are written at a time.
CALLS: dict[str, tuple[tuple[int, ...], str, Callable[..., object], float, int]] = {
    "prepare_planar_8_8": (PLANES, "u1", cuda.interleave, 1, 16),
    "prepare_planar_16_16": (PLANES, "u2", cuda.interleave, 2, 16),
    "planar_8": (RGB, "u1", cuda.planar, 1, 16),
    "planar_16": (RGB, "u2", cuda.planar, 2, 16),
    "upsample_422_8": ((2, 32 * 64 * 2), "u1", lambda on, cells: cuda.upsample_422(on, cells, 32, 64), 1.5, 8),
    "downsample_422": (RGB, "u1", cuda.downsample_422, 2 / 3, 16),
    "rgb_to_ybr": (RGB, "u1", cuda.rgb_to_ybr, 1, 16),
    "ybr_to_rgb": (RGB, "u1", cuda.ybr_to_rgb, 1, 16),
    "rct_forward_8": (RGB, "u1", cuda.rct_forward, 4, 16),
    "rct_forward_16": (RGB, "u2", cuda.rct_forward, 4, 16),
    "rct_inverse": (RGB, "i4", cuda.rct_inverse, 4, 16),
    "ict_forward_8": (RGB, "u1", cuda.ict_forward, 4, 16),
    "ict_forward_16": (RGB, "u2", cuda.ict_forward, 4, 16),
    "ict_inverse": (RGB, "i4", cuda.ict_inverse, 4, 16),
    "expand_palette_8": (GRAY, "u1", lambda on, cells: cuda.expand_palette(on, cells, TABLE), 3, 16),
}


@pytest.mark.parametrize("kernel", CALLS)
def test_every_byte_is_moved_once_and_in_vectors(kernel: str) -> None:
    shape, dtype, call, per_sample, vector = CALLS[kernel]
    values = np.zeros(shape, dtype)
    on = SimtDevice()
    call(on, on.put(values))
    assert on.launched == [kernel]
    assert on.done is not None
    look_ups = 4 * values.size if kernel.startswith("expand") else 0
    assert on.done.read_bytes == values.nbytes + look_ups + on.done.threads * jobs.JOB.itemsize
    assert on.done.written_bytes == values.size * per_sample
    read_at_a_time = (
        8
        if kernel in ("downsample_422", "rct_forward_16", "ict_forward_16")
        else 4
        if kernel[1:] == "ct_forward_8"
        else 16
    )
    assert on.done.reads == values.nbytes / read_at_a_time + look_ups / 4 + on.done.threads
    assert on.done.writes == on.done.written_bytes / vector


@pytest.mark.parametrize(("source", "target"), [(8, 8), (16, 8), (16, 16), (32, 8), (32, 16), (32, 32)])
@pytest.mark.parametrize("odd", [False, True])
def test_prepare_at_any_address(source: int, target: int, odd: bool) -> None:
    """A target at an odd address costs a group at either end, a source at an odd one a quarter more, of the cache."""
    count, size = 4096, source // 8
    on = SimtDevice(misalign=5 * odd)
    values = on.put(np.zeros((2, count * size), np.uint8), misalign=3 * odd)
    result = on.empty((2, count), f"u{target // 8}")
    step = jobs.flat_step(source, target, count, jobs.whole(source))
    cuda._launch(on, step, cuda._jobs_between(step, values, result, count * size))
    assert on.done is not None
    reads, writes = on.done.reads - on.done.threads, on.done.writes
    vectors, stores = 2 * count * size // 16, 2 * count * size // 16
    assert on.done.written_bytes == 2 * count * target // 8
    if odd:
        assert reads < 5.2 * vectors + 80
        assert writes < stores + 80
    else:
        assert (reads, writes) == (vectors, stores)
