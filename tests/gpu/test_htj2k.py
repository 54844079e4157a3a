"""Our HTJ2K kernels on a GPU: the reference's bytes, and how fast."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpuenc.coding import coding
from gpuenc.cuda import htj2k, htj2k_plan, probe
from gpuenc.frames import Encoded, FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.conftest import CONTENTS, made_frame
from tests.simt import htj2k as reference

SEEDS = 50
FRAMES_OF_A_SEED = 2000
HT = target(find("htj2k-lossless-rpcl"))
RATE_FORMATS = {
    "12 bits": FrameFormat(512, 512, 1, 16, 12, False, "MONOCHROME2"),
    "16 bits": FrameFormat(512, 512, 1, 16, 16, True, "MONOCHROME2"),
    "RGB": FrameFormat(512, 512, 3, 8, 8, False, "RGB", 0),
}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_bytes_are_the_reference_s(gpu, evidence, kernels, compiler, seed):
    """Random geometries and formats, 200 frames of each; the reference runs on all cores."""
    if gpu.rehearsal and seed > 1:
        pytest.skip("one geometry is enough for a rehearsal")
    rng = np.random.default_rng(seed)
    pipeline, left = htj2k.Pipeline(kernels, 2 << 30), gpu.count(FRAMES_OF_A_SEED, 3)
    while left > 0:
        most = int(rng.choice([8, 70, 300]))
        shape = (int(rng.integers(1, most)), int(rng.integers(1, most)), *((3,) if rng.random() < 0.25 else ()))
        precision, signed = int(rng.integers(1, 17)), bool(rng.random() < 0.4)
        wanted = reference.coding(shape, precision, signed=signed, levels=int(rng.integers(0, 7)))
        contents = rng.choice(reference.CONTENTS, gpu.count(200, 3))
        frames = [reference.image(rng, str(content), shape, precision, signed) for content in contents]
        made = pipeline.encode(kernels.put(np.stack(frames)), wanted)
        with ThreadPoolExecutor() as pool:
            expected = list(pool.map(lambda frame, wanted=wanted: reference.encoded(frame, wanted), frames))
        for one, right in zip(made, expected, strict=True):
            evidence.tally("htj2k-kernels", one == right, f"seed {seed}: {wanted}")
        assert made == expected
        left -= len(frames)


@pytest.fixture(scope="module")
def rates():
    return {}


def record(evidence, rates):
    said = "; ".join(f"{name}: {rate}" for name, rate in rates.items())
    evidence.record("htj2k-rates", said, GB_s=rates)


@pytest.mark.parametrize("content", CONTENTS[:2])
@pytest.mark.parametrize("name", RATE_FORMATS)
def test_rate_of_the_launches(gpu, evidence, rates, kernels, cupy, name, content):
    fmt = RATE_FORMATS[name]
    wanted = coding(HT, fmt)
    frames = [made_frame(fmt, number, content).pixels for number in range(8)]
    dtype = f"{'i' if wanted.signed else 'u'}{wanted.cell_bits // 8}"
    samples = kernels.put(np.stack([frames[n % 8].view(dtype).reshape(wanted.shape) for n in range(256)]))
    plan = htj2k_plan.plan(wanted)
    pipeline = htj2k.Pipeline(kernels, 256 * plan.frame_bytes)
    arrays = pipeline._arrays(plan, samples, 256)
    best = min(_seconds(cupy, lambda: pipeline._launch(plan, arrays, 256)) for _ in range(7))
    rates[f"launches, {name} {content}"] = round(256 * fmt.frame_bytes / best / 1e9, 2)
    record(evidence, rates)


@pytest.mark.parametrize("content", CONTENTS[:2])
@pytest.mark.parametrize("name", RATE_FORMATS)
def test_rate_from_host_memory_to_codestreams(gpu, evidence, rates, monkeypatch, name, content):
    if gpu.rehearsal:
        from tests.cuda.conftest import SimtWorkspace

        monkeypatch.setattr(probe, "kernels", lambda device=0, name="", check=None: probe.Answer())
        monkeypatch.setattr("gpuenc.cuda.memory.open_workspace", lambda device: SimtWorkspace())
    fmt = RATE_FORMATS[name]
    if gpu.rehearsal:
        fmt = FrameFormat(
            40, 48, fmt.samples, fmt.bits_allocated, fmt.bits_stored, fmt.signed, fmt.photometric, fmt.planar
        )
    batch = [made_frame(fmt, number, content) for number in range(8)] * gpu.count(16, 1)
    encoder = htj2k.BatchEncoder(HT)
    try:
        assert all(isinstance(result, Encoded) for result in encoder.encode(batch))
        start = time.perf_counter()
        rounds = gpu.count(5, 1)
        for _ in range(rounds):
            assert all(isinstance(result, Encoded) for result in encoder.encode(batch))
        seconds = time.perf_counter() - start
    finally:
        encoder.close()
    size = rounds * sum(frame.format.frame_bytes for frame in batch)
    rates[f"host to codestreams, {name} {content}"] = round(size / seconds / 1e9, 2)
    record(evidence, rates)


def _seconds(cupy, run):
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    run()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / 1e3
