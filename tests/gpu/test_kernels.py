"""Kernels on a GPU against their CPU twins: the comparisons that also run under the shim, at full sizes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.gpu.conftest import ROOT, in_a_process
from tests.gpu.full_size import CASES
from tests.simt.cases import COMPARISONS


@pytest.mark.parametrize("kernel", COMPARISONS)
def test_kernel_equals_its_twin(gpu, evidence, kernels, kernel):
    if gpu.rehearsal and kernel not in ("prepare_16_16", "crc32"):
        pytest.skip("all of them run under the shim elsewhere")
    right = False
    try:
        for seed in range(gpu.count(6, 1)):
            COMPARISONS[kernel](np.random.default_rng(seed), kernels, gpu.count((40, 700)[seed % 2], 12))
        right = True
    finally:
        evidence.tally("kernels", right, kernel)


# One pass over whole cells, which is what nearly all frames take.
PREPARATION = ("prepare_8_8", "prepare_16_16", "prepare_planar_8_8")
COMPARE = ("crc32", "count_differing_16_16", "count_differing_8_8")


def test_every_kernel_at_full_size(gpu, evidence, kernels, cupy):
    """Launches alone are timed: jobs are made once, before."""
    rates = {"copy": _rate(cupy, *_copy(cupy))}
    for name, made in CASES.items():
        case = made(kernels, 512, 128)
        rates[name] = _rate(cupy, kernels.again(case.run), case.moved_bytes)
        del case
        cupy.get_default_memory_pool().free_all_blocks()

    def said(names):
        return ", ".join(f"{name} {rates[name]:.0f} GB/s ({rates[name] / rates['copy']:.0%})" for name in names)

    copied = f"copy {rates['copy']:.0f} GB/s"
    evidence.record("kernel-bandwidth", f"{said(PREPARATION)}; {copied}", GB_s=rates)
    evidence.record("kernel-rates", f"{said(CASES)}; {copied}")
    evidence.record("compare-rates", f"{said(COMPARE)}; {copied}")


@pytest.mark.parametrize("kernel", CASES)
def test_full_size_cases_launch_the_kernel_they_name(gpu, kernels, kernel):
    if not gpu.rehearsal:
        pytest.skip("a rehearsal shows it, whose device counts bytes")
    case = CASES[kernel](kernels, 64, 2)
    kernels.launched.clear()
    case.run()
    assert kernels.launched[-1] == kernel
    moved = kernels.done.read_bytes + kernels.done.written_bytes
    # 80 bytes of the job and 8 of constants for each thread; entries of the palette, constants of the CRC.
    more = moved - case.moved_bytes - 88 * kernels.done.threads
    tables = {"expand": 4 * 2 * 64 * 64, "crc32": 20_000}.get(kernel.partition("_")[0], 64)
    assert 0 <= more <= tables


def test_the_cost_of_a_launch(gpu, evidence, kernels, cupy):
    """What the host does for a batch of 256 small frames, and how long until its results are known."""
    case = CASES["prepare_16_16"](kernels, 64, 256)
    case.run().found()
    queued, done = [], []
    for _ in range(50):
        cupy.cuda.Device().synchronize()
        start = time.perf_counter()
        prepared = case.run()
        queued.append(time.perf_counter() - start)
        prepared.found()
        done.append(time.perf_counter() - start)
    evidence.record(
        "launch-cost",
        f"{np.median(queued) * 1e6:.0f} us to make and queue the jobs of 256 frames, {np.median(done) * 1e6:.0f} us "
        "until what was found is on the host (medians of 50)",
    )


def test_compilation_and_its_cache(gpu, evidence, cupy, tmp_path):
    code = """
import time
import cupy
from gpuenc.cuda.kernels import SOURCES, CupyDevice
cupy.zeros(1)
device, spent = CupyDevice(0), []
for source in SOURCES:
    start = time.perf_counter()
    device._module(source).compile()
    spent.append(time.perf_counter() - start)
print(sum(spent), *(f"{source} {s:.2f}" for source, s in zip(SOURCES, spent)))
"""
    first, second = (in_a_process(code, CUPY_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    spent = [float(done.stdout.split()[0]) for done in (first, second)]
    files = len(list(tmp_path.rglob("*.cubin")))
    evidence.record(
        "compile",
        f"{spent[0]:.2f} s at first use ({' s, '.join(' '.join(p) for p in _pairs(first.stdout))} s); {spent[1]:.2f} s "
        f"in a second process, {files} files in the cache",
    )
    assert files
    assert spent[1] < spent[0]


def _pairs(text):
    words = text.split()[1:]
    return list(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_the_sanitizer_finds_nothing(gpu, evidence, cupy, tool):
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("there is no compute-sanitizer on this machine")
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu/test_kernels.py"]
    done = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *tests, "-k", "its_twin"],
        capture_output=True, text=True, cwd=ROOT, timeout=540, check=False,
        env=os.environ | {"GPUENC_GPU_DISCARD": "1"},
    )  # fmt: skip
    [said] = [line.strip("= ") for line in done.stdout.splitlines() if "ERROR SUMMARY" in line][-1:] or ["no summary"]
    evidence.tally("sanitizer", done.returncode == 0, f"{tool}: {said}")
    assert done.returncode == 0, done.stdout[-3000:]


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
