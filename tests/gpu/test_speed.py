"""How fast, and how much memory: figures, not verdicts."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gpuenc.cpu import codecs as cpu_codecs
from gpuenc.cuda import nvcodec, session
from gpuenc.frames import Encoded, FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.conftest import made_frame

CORES = len(os.sched_getaffinity(0))
CASES = [(size, name) for name in ("htj2k-lossless", "jpeg2000-lossless") for size in (256, 512, 2048)]


def batch_of(size, count):
    fmt = FrameFormat(size, size, 1, 16, 12, False, "MONOCHROME2")
    made = [made_frame(fmt, n, "smooth") for n in range(min(count, 8))]
    return [replace(made[n % len(made)]) for n in range(count)]


def gb_s(encoders, batch, rounds=3):
    """Return GB/s of native pixels with one thread per encoder, each with the whole batch."""
    size = sum(frame.format.frame_bytes for frame in batch)

    def lane(encoder):
        for _ in range(rounds):
            assert all(isinstance(result, Encoded) for result in encoder.encode(batch))

    for encoder in encoders:
        encoder.encode(batch)
    threads = [threading.Thread(target=lane, args=(encoder,)) for encoder in encoders]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rounds * len(encoders) * size / (time.perf_counter() - start) / 1e9


@pytest.fixture(scope="module")
def rates():
    return {}


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize(("size", "name"), CASES)
def test_rates(gpu, evidence, rates, size, name, lanes):
    size = gpu.count(size, 48)
    count = max(4, min(128, (32 << 20) // (size * size * 2)))
    encoders = [nvcodec.BatchEncoder(target(find(name))) for _ in range(lanes)]
    try:
        rates[name, size, lanes] = round(gb_s(encoders, batch_of(size, gpu.count(count, 3)), gpu.count(3, 1)), 3)
    finally:
        for encoder in encoders:
            encoder.close()
    said = "; ".join(f"{name} {size}² {lanes} lanes {rate:.2f}" for (name, size, lanes), rate in rates.items())
    evidence.record("rates", f"GB/s: {said}", threads_per_lane=session._threads(), cores=CORES)


@pytest.mark.parametrize(("size", "name"), CASES)
def test_against_the_same_machines_cores(gpu, evidence, rates, size, name):
    size = gpu.count(size, 48)
    batch = batch_of(size, gpu.count(max(CORES, min(64, (16 << 20) // (size * size * 2))), 3))
    encoder = cpu_codecs.BatchEncoder(target(find(name)))
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(lambda frame: encoder.encode([frame]), batch))
        start = time.perf_counter()
        list(pool.map(lambda frame: encoder.encode([frame]), batch))
        rate = sum(frame.format.frame_bytes for frame in batch) / (time.perf_counter() - start) / 1e9
    rates[name, size, "cpu"] = round(rate, 3)
    best = {key[:2]: max(rates.get((*key[:2], lanes), 0) for lanes in (1, 2, 4)) for key in rates}
    said = "; ".join(
        f"{name} {size}² GPU {best[name, size]:.2f} / CPU {rates[name, size, 'cpu']:.2f} GB/s"
        for name, size in best
        if (name, size, "cpu") in rates
    )
    evidence.record("against-cpu", f"{said}; {CORES} cores")


def test_memory_of_an_encoder(gpu, evidence, cupy, monkeypatch):
    said, free = [], lambda: cupy.cuda.runtime.memGetInfo()[0]
    for size in (512, 4096):
        batch = batch_of(size, 8)
        for threads in (1, 8):
            monkeypatch.setattr(session, "_threads", lambda threads=threads: threads)
            before = free()
            encoder = nvcodec.BatchEncoder(target(find("htj2k-lossless")))
            assert all(isinstance(result, Encoded) for result in encoder.encode(batch))
            used = before - free()
            encoder.close()
            cupy.get_default_memory_pool().free_all_blocks()
            said.append(f"{size}² {threads} threads {used >> 20} MiB, {before - free() >> 20} MiB after closing")
    evidence.record("memory", "; ".join(said))


def test_a_busy_python_thread(gpu, evidence):
    encoder, batch, stop = nvcodec.BatchEncoder(target(find("htj2k-lossless"))), None, threading.Event()
    batch = batch_of(gpu.count(512, 48), gpu.count(64, 3))
    quiet = gb_s([encoder], batch)

    def spin():
        while not stop.is_set():
            sum(range(2000))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        busy = gb_s([encoder], batch)
    finally:
        stop.set()
        thread.join()
        encoder.close()
    evidence.record("busy-python", f"{quiet:.2f} GB/s, and {busy:.2f} with one busy thread")
