"""Whole runs on a GPU: many frames, injected faults, and what happens where a device fails for real."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest

import gpuenc
from gpuenc import engine
from gpuenc.coding import coding
from gpuenc.cpu import codecs as cpu_codecs
from gpuenc.cpu import samples
from gpuenc.cuda import arrays, memory, nvcodec, probe
from gpuenc.frames import Encoded, Failure, FrameFormat, FrameRef
from gpuenc.plugins import Plugin, Verdict
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.conftest import in_a_process, made_frame

CPU = Plugin(cpu_codecs.LABEL, cpu_codecs.BatchEncoder)
HT = "1.2.840.10008.1.2.4.201"
FORMATS = (
    FrameFormat(128, 128, 1, 16, 12, False, "MONOCHROME2"),
    FrameFormat(96, 100, 1, 8, 8, False, "MONOCHROME2"),
    FrameFormat(61, 67, 3, 8, 8, False, "RGB"),
    FrameFormat(128, 120, 1, 16, 16, True, "MONOCHROME2"),
    FrameFormat(40, 50, 1, 32, 20, False, "MONOCHROME2"),  # not for the device
)


class Saboteur:
    """The plug-in, with some of its results spoiled: failures, cut and swapped codestreams, a raised error."""

    def __init__(self, chosen):
        self.inner = nvcodec.BatchEncoder(chosen)
        self.limits = replace(self.inner.limits, frames=32)
        self.calls = 0

    def encode(self, frames):
        self.calls += 1
        results = self.inner.encode(frames)
        if self.calls % 13 == 0:
            raise RuntimeError("injected")
        return [self.spoiled(result) for result in results]

    def spoiled(self, result):
        if not isinstance(result, Encoded):
            return result
        kind = result.ref.index % 37
        if kind == 5:
            return Failure(result.ref, "injected", nvcodec.LABEL, "injected")
        if kind == 11:
            return replace(result, codestream=result.codestream[:-40])
        return replace(result, codestream=b"") if kind == 23 else result

    def close(self):
        self.inner.close()


def test_ten_thousand_mixed_frames_with_faults(gpu, evidence):
    chosen, count = target(find("htj2k-lossless")), gpu.count(10_000, 60)
    started = time.perf_counter()

    def source():
        for index in range(count):
            frame = made_frame(FORMATS[index // 5 % len(FORMATS)], index, ("noise", "smooth")[index % 2])
            yield replace(frame, ref=FrameRef("mixed", index))

    seen, by = 0, {}
    for result, frame in zip(
        engine.encode_frames(source(), chosen, [Plugin("nvimgcodec", Saboteur), CPU], threads=4), source(), strict=True
    ):
        assert isinstance(result, Encoded), result
        assert result.ref == frame.ref
        expected = samples.prepare(frame.pixels, frame.format, coding(chosen, frame.format))
        back = imagecodecs.htj2k_decode(result.codestream, **({"planar": False} if frame.format.samples > 1 else {}))
        assert np.array_equal(back, expected), (result.plugin, frame.format)
        by[result.plugin], seen = by.get(result.plugin, 0) + 1, seen + 1
    assert seen == count
    took_s = time.perf_counter() - started
    evidence.record("mixed", f"{seen} of {count} right, by plug-in {by}, in {took_s:.0f} s with decoding", by=by)
    evidence.record("hang", f"none among {count} mixed frames")
    assert by["nvimgcodec"] > by["imagecodecs"] // 2


def test_the_probe_is_quick_and_silent(gpu, evidence):
    if gpu.rehearsal:
        pytest.skip("processes of their own see no fake device")
    code = f"""
import time
start = time.perf_counter()
from gpuenc.cuda import nvcodec
imported = time.perf_counter() - start
why = nvcodec.why_unavailable({HT!r})
from gpuenc.cuda import probe
asked = time.perf_counter() - start - imported
print(f"{{imported:.2f}} s to import, {{asked:.2f}} s to ask;", probe.probe().detail, why)
"""
    done = in_a_process(code)
    assert done.returncode == 0, done.stderr
    evidence.record("probe", f"{done.stdout.strip().split(';')[0]}; {len(done.stderr)} bytes on standard error")
    evidence.record("driver", f"driver {gpu.driver}: {probe.probe().detail}")
    assert done.stderr == ""


def test_a_forked_child_goes_on_without_the_gpu(gpu, evidence):
    if gpu.rehearsal:
        pytest.skip("processes of their own see no fake device")
    code = f"""
import os, sys
from gpuenc.cuda import nvcodec
assert nvcodec.is_available({HT!r})
read, write = os.pipe()
child = os.fork()
if not child:
    os.write(write, nvcodec.why_unavailable({HT!r}).encode() or b"yes")
    os._exit(0)
os.waitpid(child, 0)
print(os.read(read, 1000).decode())
"""
    done = in_a_process(code)
    said = done.stdout.strip()
    evidence.record("fork", f"the child says: {said}")
    assert "does not survive a fork" in said, done.stderr


def test_a_sticky_error_costs_the_device_and_no_frame(gpu, evidence, cupy):
    code = """
import json
import cupy
from gpuenc.cuda import health, nvcodec
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.conftest import made_frame
encoder = nvcodec.BatchEncoder(target(find("htj2k-lossless")))
frames = [made_frame(FrameFormat(128, 128, 1, 16, 12, False, "MONOCHROME2"), n) for n in range(4)]
before = [type(r).__name__ for r in encoder.encode(frames)]
bad = cupy.RawKernel('extern "C" __global__ void bad(int* p) { *p = 1; }', "bad")
try:
    bad((1,), (1,), (8,))
    cupy.cuda.Device().synchronize()
except Exception as error:
    sticky = repr(error)
after = [(r.code, r.reason[:160]) for r in encoder.encode(frames)]
again = [r.code for r in encoder.encode(frames)]
encoder.close()
print(json.dumps([before, sticky, after, again, health.lost(0)[:160]]), flush=True)
import os
os._exit(0)
"""
    done = in_a_process(code)
    evidence.record("sticky", (done.stdout.strip() or f"rc {done.returncode}: {done.stderr[-300:]}").replace("|", "/"))
    before, _, after, again, lost = json.loads(done.stdout.splitlines()[-1])
    assert before == ["Encoded"] * 4
    assert {code for code, _ in after} <= {"device-lost", "device-failed", "device-error"}
    assert set(again) == {"device-lost"}
    assert lost


def test_device_memory_that_runs_out(gpu, evidence, cupy):
    code = """
import json
import cupy
from gpuenc.cuda import health, nvcodec
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.conftest import made_frame
encoder = nvcodec.BatchEncoder(target(find("htj2k-lossless")), memory_bytes=4 << 30)
frames = [made_frame(FrameFormat(2048, 2048, 1, 16, 12, False, "MONOCHROME2"), n, "smooth") for n in range(8)]
hog = []
while (free := cupy.cuda.runtime.memGetInfo()[0]) > 192 << 20:
    hog.append(cupy.cuda.memory.Memory(max(16 << 20, (free - (128 << 20)) // 2)))
first = [(type(r).__name__, getattr(r, "code", ""), getattr(r, "reason", "")[:160]) for r in encoder.encode(frames)]
hog.clear()
second = [type(r).__name__ for r in encoder.encode(frames)]
print(json.dumps([first, second, health.lost(0)]), flush=True)
encoder.close()
"""
    done = in_a_process(code, timeout_s=180)
    evidence.record(
        "out-of-memory", (done.stdout.strip() or f"rc {done.returncode}: {done.stderr[-300:]}").replace("|", "/")
    )
    assert done.returncode == 0, done.stderr


def test_arrays_on_the_device_are_encoded_where_they_are(gpu, evidence, cupy):
    """Each is written by a slow producer on a stream of the caller's, and handed over without waiting."""
    chosen, fmt = target(find("htj2k-lossless")), FORMATS[0]
    wanted, encoder = coding(chosen, fmt), nvcodec.BatchEncoder(chosen)
    stream, rounds, wrong = cupy.cuda.Stream(non_blocking=True), 40, 0
    busy = cupy.zeros(64 << 20, cupy.uint8)
    for index in range(rounds):
        frame = made_frame(fmt, index)
        with stream:
            there = cupy.zeros(frame.pixels.size, cupy.uint8)
            cells = cupy.asarray(frame.pixels)
            for _ in range(20):
                busy += 1
            there[:] = cells
            view = memory.View(int(there.data.ptr), there.shape, "|u1", int(stream.ptr), there)
        [result] = encoder.encode([replace(frame, pixels=view)])
        back = imagecodecs.htj2k_decode(result.codestream) if isinstance(result, Encoded) else None
        wrong += not np.array_equal(back, samples.prepare(frame.pixels, fmt, wanted))
    encoder.close()
    evidence.record("streams", f"{rounds - wrong} of {rounds} right")
    assert not wrong


def test_the_devices_verification_is_the_cpus(gpu, evidence, cupy):
    """Every format: the verdict on right codestreams, on those of other frames, and on some with bits flipped."""
    for name in ("htj2k-lossless", "jpeg2000-lossless", "htj2k-lossless-rpcl"):
        chosen = target(find(name))
        for fmt in FORMATS[:4]:
            wanted, encoder = coding(chosen, fmt), nvcodec.BatchEncoder(chosen)
            batch = [made_frame(fmt, n, ("noise", "smooth")[n % 2]) for n in range(16)]
            made = [result.codestream for result in encoder.encode(batch)]
            expected = [samples.prepare(frame.pixels, fmt, wanted) for frame in batch]
            right = [Verdict(0, samples.checksum(one)) for one in expected]
            evidence.tally("verify-exact", encoder.verify(batch, made) == right, f"{name} {fmt}")
            turned = encoder.verify(batch, made[1:] + made[:1])
            differing = [
                int(np.count_nonzero(a != b)) for a, b in zip(expected, expected[1:] + expected[:1], strict=True)
            ]
            evidence.tally("verify-exact", [one.differing for one in turned] == differing, f"{name} {fmt} turned")
            spoiled = [one[:-60] + bytes([one[-60] ^ 0x10]) + one[-59:] for one in made]
            said = encoder.verify(batch, spoiled)
            fine = [isinstance(one, Verdict) and not one.differing for one in said]
            back = [np.array_equal(_decoded(one, fmt), two) for one, two in zip(spoiled, expected, strict=True)]
            evidence.tally(
                "verify-exact", not any(a and not b for a, b in zip(fine, back, strict=True)), f"{name} spoiled"
            )
            encoder.close()
    count, wrong = evidence.tallies["verify-exact"]
    assert count
    assert not wrong


def _decoded(codestream, fmt):
    planes = {"planar": False} if fmt.samples > 1 else {}
    for decode in (
        lambda: imagecodecs.htj2k_decode(codestream, **planes),
        lambda: imagecodecs.jpeg2k_decode(codestream),
    ):
        try:
            return decode()
        except Exception:  # noqa: BLE001 - whatever a decoder makes of a spoiled codestream
            continue
    return None


class ByDlpack:
    """An array that nothing but DLPack tells of."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_a_caller_are_frames(gpu, evidence, cupy, monkeypatch):
    encoder = gpuenc.get_encoder(HT)
    values = np.random.default_rng(6).integers(0, 4096, (12, 130, 140)).astype(np.uint16)
    expected = list(encoder.iter_encode(values, bits_stored=12))
    copies, plain = [], arrays.fetched
    monkeypatch.setattr(arrays, "fetched", lambda cells: copies.append(1) or plain(cells))
    monkeypatch.setattr(nvcodec, "PROVEN", True)
    wide = cupy.zeros((12, 130, 280), cupy.uint16)
    wide[..., ::2] = cupy.asarray(values)
    ways = {
        "CuPy": cupy.asarray(values),
        "DLPack": ByDlpack(cupy.asarray(values)),
        "strides": wide[..., ::2],
        "32 bits": cupy.asarray(values.astype(np.uint32)),
    }
    for name, array in ways.items():
        options = {"bits_allocated": 16} if name == "32 bits" else {}
        made = list(encoder.iter_encode(array, bits_stored=12, **options))
        evidence.tally("arrays", made == expected, name)
        assert made == expected, name
    assert not copies


def test_several_gpus(gpu, evidence, cupy):
    count = probe.device_count()
    if count < 2:
        pytest.skip("there is one GPU")
    values = np.random.default_rng(6).integers(0, 4096, (400, 512, 512)).astype(np.uint16)
    free = [cupy.cuda.Device(n).mem_info[0] for n in range(count)]
    encoder = gpuenc.get_encoder(HT)
    start = time.perf_counter()
    made = list(encoder.iter_encode(values, bits_stored=12))
    rate = values.nbytes / (time.perf_counter() - start) / 1e9
    used = [n for n in range(count) if cupy.cuda.Device(n).mem_info[0] < free[n]]
    right = sum(np.array_equal(imagecodecs.htj2k_decode(one), two) for one, two in zip(made, values, strict=True))
    evidence.record("gpus", f"{len(used)} of {count} used, {right} of {len(values)} right, {rate:.2f} GB/s")
    assert right == len(values)
    assert len(used) == count
