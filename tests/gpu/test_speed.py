"""How fast, and how much memory: figures, not verdicts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gpuenc import engine
from gpuenc.cpu import codecs as cpu_codecs
from gpuenc.cuda import nvcodec, session
from gpuenc.frames import Encoded, FrameFormat
from gpuenc.plugins import Plugin
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.conftest import ROOT, made_frame

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


@pytest.mark.parametrize("side", [256, 512])
def test_many_small_frames_as_tiles_of_one_image(gpu, evidence, cupy, said_of_tiles, side):
    """The codec alone, from device memory: an 8 x 8 image of tiles, cut apart nowhere, against 64 images."""
    from gpuenc.coding import coding
    from gpuenc.cuda import nvrules, probe

    nv, chosen = probe.load(), target(find("htj2k-lossless"))
    frame = FrameFormat(side, side, 1, 16, 12, False, "MONOCHROME2")
    wanted = coding(chosen, frame)
    pixels = [cupy.asarray(f.pixels.view("<u2").reshape(side, side)) for f in batch_of(side, 64)]
    whole = cupy.concatenate([cupy.concatenate(pixels[n : n + 8], axis=1) for n in range(0, 64, 8)])
    cupy.cuda.Device().synchronize()
    encoder = nv.Encoder(device_id=0, max_num_cpu_threads=session._threads(), backends=probe.backends(nv, "jpeg2k"))
    plain, tiled = nvrules.settings(nv, chosen, wanted), nvrules.settings(nv, chosen, wanted)
    tiled.tile_width = tiled.tile_height = side
    rates = []
    for arrays, params in ((pixels, plain), ([whole], tiled)):
        images = [nvrules.image(nv, array, chosen, wanted) for array in arrays]
        best = 0.0
        for _ in range(4):
            start = time.perf_counter()
            made = encoder.encode(images, "jpeg2k", params=params)
            assert all(one is not None for one in made)
            best = max(best, whole.nbytes / (time.perf_counter() - start) / 1e9)
        rates.append(best)
    said_of_tiles.append(f"64 of {side}²: one by one {rates[0]:.2f}, as tiles {rates[1]:.2f} GB/s")
    evidence.record("tiles", "; ".join(said_of_tiles))


@pytest.fixture(scope="module")
def said_of_tiles():
    return []


PROCESS = """
import sys, time
from gpuenc.cuda import nvcodec
from gpuenc.frames import Encoded
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.test_speed import batch_of
batch = batch_of(512, 64)
encoder = nvcodec.BatchEncoder(target(find("htj2k-lossless")), memory_bytes=1 << 30)
encoder.encode(batch)
print("ready", flush=True)
sys.stdin.readline()
start = time.time()
for _ in range(8):
    assert all(isinstance(result, Encoded) for result in encoder.encode(batch))
print(start, time.time(), 8 * sum(frame.format.frame_bytes for frame in batch), flush=True)
encoder.close()
"""


def test_several_processes_on_one_gpu(gpu, evidence, rates):
    if gpu.rehearsal:
        pytest.skip("processes of their own see no fake device")
    said = []
    for count in (1, 2, 4):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                env=environment,
            )
            for _ in range(count)
        ]  # fmt: skip
        try:
            assert all(one.stdout.readline() == "ready\n" for one in running)
            for one in running:
                one.stdin.write("go\n")
                one.stdin.flush()
            spans = [[float(word) for word in one.communicate(timeout=120)[0].split()] for one in running]
        finally:
            for one in running:
                one.kill()
                one.wait()
        took_s = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
        said.append(f"{count} processes {sum(size for *_, size in spans) / took_s / 1e9:.2f}")
    lanes = ", ".join(f"{n} lanes {rates['htj2k-lossless', 512, n]:.2f}" for n in (1, 2, 4) if rates)
    evidence.record("processes", f"HTJ2K of 512² in GB/s: {', '.join(said)}; in one process {lanes or 'not measured'}")


def test_what_verification_costs(gpu, evidence):
    """Through the engine, with as many lanes as the plug-in wants."""
    chosen = target(find("htj2k-lossless"))
    batch = batch_of(gpu.count(512, 48), gpu.count(512, 6))
    size, said = sum(frame.format.frame_bytes for frame in batch), []
    for proven, verify, who in ((True, "none", "nobody"), (True, "all", "the device"), (False, "all", "the CPU")):
        plugin = Plugin(nvcodec.LABEL, nvcodec.BatchEncoder, "gpu", proven)
        list(engine.encode_frames(batch[:8], chosen, [plugin], verify=verify))
        start = time.perf_counter()
        results = list(engine.encode_frames(batch, chosen, [plugin], verify=verify))
        assert all(isinstance(result, Encoded) and result.verified == (who != "nobody") for result in results)
        said.append(f"by {who} {size / (time.perf_counter() - start) / 1e9:.2f}")
    evidence.record("verify-rates", f"GB/s of 512²: {', '.join(said)}; {CORES} cores")
