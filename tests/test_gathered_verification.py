"""Devices that verify, behind a gathering: batches of many files, each file its own verdicts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from gpuenc import engine
from gpuenc.cpu import samples
from gpuenc.frames import Encoded, Failure, Frame, FrameFormat, FrameRef
from gpuenc.gathering import Gathering
from gpuenc.plugins import Limits, Plugin, Verdict
from gpuenc.syntaxes import find
from gpuenc.targets import target

TARGET = target(find("deflated-image-frame"))
FORMAT = FrameFormat(8, 8, 1, 16, 16, False, "MONOCHROME2")
LONG_S = 30.0


def frame(index):
    cells = np.random.default_rng(index).integers(0, 256, FORMAT.frame_bytes, np.uint8)
    return Frame(FrameRef("test", index), FORMAT, cells)


def deflate(data):
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


class Device:
    """Encodes and verifies frame by frame; frames of `wrong` are encoded as others, those of `mute` get no verdict."""

    limits = Limits(64, 1 << 30, 1, 2.0)

    def __init__(self, wrong=(), mute=(), ways=("encode", "verify")):
        self.wrong, self.mute, self.ways = wrong, mute, ways
        self.encoded, self.verified, self.threads = [], [], set()
        self.gate = threading.Event()
        self.gate.set()

    def plugin(self):
        return Plugin("device", self.open, "gpu", proven=True)

    def open(self, _target):
        encoder = type("Encoder", (), {way: getattr(self, way) for way in (*self.ways, "close")})()
        encoder.limits = self.limits
        return encoder

    def encode(self, batch):
        assert self.gate.wait(LONG_S)
        self.threads.add(threading.current_thread().name)
        self.encoded.append([one.ref.index for one in batch])
        flip = {index: index in self.wrong for index in self.encoded[-1]}
        return [Encoded(one.ref, deflate(bytes(one.pixels ^ flip[one.ref.index])), "device") for one in batch]

    def verify(self, batch, codestreams):
        self.threads.add(threading.current_thread().name)
        self.verified.append([one.ref.index for one in batch])
        said = []
        for one, codestream in zip(batch, codestreams, strict=True):
            back = np.frombuffer(zlib.decompress(codestream, -15), np.uint16)
            differing = int(np.count_nonzero(back != one.pixels.view(np.uint16)))
            mute = one.ref.index in self.mute
            # No CRC-32 that anything else in the program has computed.
            crc32 = zlib.crc32(b"device" + bytes([one.ref.index]))
            said.append(Failure(one.ref, "device-refused", "device", "mute") if mute else Verdict(differing, crc32))
        return said

    def close(self):
        pass


def through(device, count=100, verify="all", behind=()):
    """Each of `count` files of one frame by a thread of its own; the results by number."""
    with Gathering([device.plugin(), *behind]) as gathering, ThreadPoolExecutor(count) as pool:

        def one(index):
            results = engine.encode_frames(iter([frame(index)]), TARGET, gathering.plugins, threads=1, verify=verify)
            return next(results)

        device.gate.clear()
        futures = [pool.submit(one, index) for index in range(count)]
        device.gate.set()
        return [future.result(LONG_S) for future in futures]


def test_verdicts_of_many_files_come_from_few_batches_each_to_its_own():
    device = Device()
    results = through(device)
    assert all(isinstance(result, Encoded) and result.verified for result in results)
    assert [result.crc32 for result in results] == [zlib.crc32(b"device" + bytes([n])) for n in range(100)]
    assert sorted(index for batch in device.verified for index in batch) == list(range(100))
    assert len(device.verified) < 100
    assert device.threads == {"gpuenc-gather-device"}


def test_what_differs_is_that_frames_failure_and_the_next_plugin_gets_it():
    device, behind = Device(wrong={7, 31}), Device(ways=("encode",))
    results = through(device, behind=[replace(behind.plugin(), label="behind", device="cpu")])
    assert {n for n, result in enumerate(results) if result.plugin == "behind"} == {7, 31}
    for number, result in enumerate(results):
        assert zlib.decompress(result.codestream, -15) == frame(number).pixels.tobytes()
        assert result.verified
    assert [failure.code for failure in results[7].refused] == ["verify-mismatch"]


def test_a_frame_without_a_verdict_is_compared_by_the_cpu():
    device = Device(mute={3}, wrong={3})
    results = through(device, count=8)
    assert isinstance(results[3], Failure)
    assert results[3].code == "verify-mismatch"
    right = through(Device(mute={3}), count=8)
    assert right[3].crc32 == samples.checksum(frame(3).pixels.view(np.uint16).reshape(8, 8))


@pytest.mark.parametrize("ways", [("encode",), ("encode", "verify")])
def test_who_cannot_verify_is_not_asked(ways):
    device = Device(ways=ways)
    results = through(device, count=4, verify="all" if ways == ("encode",) else "independent")
    assert all(result.verified for result in results)
    assert device.verified == []


def test_a_device_that_fails_while_it_verifies_leaves_it_to_the_cpu():
    class Failing(Device):
        def verify(self, batch, codestreams):
            super().verify(batch, codestreams)
            raise RuntimeError("an error of the device")

    device = Failing(wrong={2})
    results = through(device, count=6)
    assert device.verified
    assert [type(result) for result in results] == [Failure if n == 2 else Encoded for n in range(6)]
    assert all(result.verified for result in results if isinstance(result, Encoded))


def test_calls_to_encode_and_to_verify_share_no_batch():
    """Both wait while the lane is busy; a batch of both would lose codestreams or results."""
    started = threading.Event()

    class Busy(Device):
        def encode(self, batch):
            started.set()
            return super().encode(batch)

    device = Busy()
    device.gate.clear()
    with Gathering([device.plugin()]) as gathering, ThreadPoolExecutor(8) as pool:
        encoders = [gathering.plugins[0].open(TARGET) for _ in range(5)]
        first = pool.submit(encoders[0].encode, [frame(0)])
        assert started.wait(LONG_S)
        verdicts = [pool.submit(encoders[n].verify, [frame(n)], [deflate(bytes(frame(n).pixels))]) for n in (1, 2)]
        results = [pool.submit(encoders[n].encode, [frame(n)]) for n in (3, 4)]
        pools = gathering._gathered[0]._pools.values()
        end = time.monotonic() + LONG_S
        while sum(len(queue) for one in pools for queue in list(one._waiting.values())) < 4:
            assert time.monotonic() < end
            time.sleep(0.001)
        device.gate.set()
        assert [type(one) for call in verdicts for one in call.result(LONG_S)] == [Verdict, Verdict]
        assert [type(one) for call in [first, *results] for one in call.result(LONG_S)] == [Encoded] * 3
        for encoder in encoders:
            encoder.close()
    assert sorted(map(sorted, device.encoded)) == [[0], [3, 4]]
    assert sorted(map(sorted, device.verified)) == [[1, 2]]


@pytest.mark.parametrize(("number", "begins"), [("", 0), ("1", 0), ("3", 2)])
def test_workers_begin_with_gpus_of_their_own(number, begins):
    said = subprocess.run(
        [sys.executable, "-c", "from gpuenc import devices; print(next(devices._TURNS))"],
        env=os.environ | {"GPUENC_WORKER": number},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [str(begins)]
