"""Kernels on a GPU against their CPU twins: the comparisons that also run under the shim, at full sizes."""

from __future__ import annotations

import numpy as np
import pytest

from gpuenc.coding import coding
from gpuenc.cuda import samples as device_samples
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.conftest import made_frame
from tests.simt.cases import COMPARISONS


@pytest.mark.parametrize("kernel", COMPARISONS)
def test_kernel_equals_its_twin(request, gpu, evidence, kernels, kernel):
    if "_htj2k" in str(COMPARISONS[kernel]):
        request.getfixturevalue("compiler")
    if gpu.rehearsal and kernel not in ("prepare_16_16", "crc32"):
        pytest.skip("all of them run under the shim elsewhere")
    right = False
    try:
        for seed in range(gpu.count(6, 1)):
            COMPARISONS[kernel](np.random.default_rng(seed), kernels, gpu.count((40, 700)[seed % 2], 12))
        right = True
    finally:
        evidence.tally("kernels", right, kernel)


def test_preparation_runs_at_the_speed_of_memory(gpu, evidence, kernels, cupy):
    formats = {
        "u12": FrameFormat(512, 512, 1, 16, 12, False, "MONOCHROME2"),
        "u12 big-endian": FrameFormat(512, 512, 1, 16, 12, False, "MONOCHROME2", big_endian=True),
        "rgb8 planar": FrameFormat(512, 512, 3, 8, 8, False, "RGB", 1),
    }
    rates = {"copy": _rate(cupy, *_copy(cupy))}
    for name, fmt in formats.items():
        plain = FrameFormat(512, 512, fmt.samples, fmt.bits_allocated, fmt.bits_stored, False, fmt.photometric)
        wanted, pixels = coding(target(find("htj2k-lossless")), fmt), made_frame(plain, 0, "lowest").pixels
        batch = [kernels.put(pixels) for _ in range(256)]

        def prepare(batch=batch, fmt=fmt, wanted=wanted):
            device_samples.prepare(kernels, batch, fmt, wanted)

        rates[name] = _rate(cupy, prepare, 2 * 256 * pixels.nbytes)
    share = {name: round(rate / rates["copy"], 2) for name, rate in rates.items() if name != "copy"}
    said = ", ".join(f"{name} {rates[name]:.0f} GB/s ({part:.0%})" for name, part in share.items())
    evidence.record("kernel-bandwidth", f"{said}; copy {rates['copy']:.0f} GB/s, launches included", GB_s=rates)


def _copy(cupy):
    source = cupy.ones(256 << 20, cupy.uint8)
    copied = cupy.empty_like(source)
    return lambda: cupy.copyto(copied, source), 2 * source.nbytes


def _rate(cupy, run, moved_bytes):
    """Return GB/s, reads and writes counted once, best of some."""
    run()
    best = 0.0
    for _ in range(5):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        best = max(best, moved_bytes / cupy.cuda.get_elapsed_time(start, end) / 1e6)
    return best
