"""The lane of any GPU plug-in, over a session that is neither nvImageCodec nor on a GPU: it compresses RLE Lossless."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from gpuenc.cpu import encoders
from gpuenc.cpu import samples as cpu_samples
from gpuenc.cuda import health, lane, memory, probe
from gpuenc.errors import InvalidPixels
from gpuenc.frames import Coded, Encoded, Failure
from gpuenc.plugins import Plugin
from tests.cuda.test_nvcodec import CPU, CT, assert_right, by, frames, lossless, run
from tests.cuda.test_nvcodec import frames as made_frames

RLE = "1.2.840.10008.1.2.5"


class Rle:
    """A session that does as `script` says: it is given each call's frames and may raise, or return their results."""

    def __init__(self, target, script):
        self.target, self.script = target, script
        self.trimmed, self.closed, self.says, self.thread = 0, False, "", threading.get_ident()
        self.calls = []

    def encode(self, frames, wanted):
        assert threading.get_ident() == self.thread
        self.calls.append(len(frames))
        said = self.script(frames)
        if said is not None:
            return said
        prepared = [cpu_samples.prepare(f.pixels, f.format, wanted) for f in frames]
        return [
            encoders.encode_samples(p, self.target, wanted, f.format) for p, f in zip(prepared, frames, strict=True)
        ]

    def wrong(self):
        return self.says

    def trim(self):
        self.trimmed += 1

    def close(self):
        assert threading.get_ident() == self.thread
        self.closed = True


class Encoder(lane.BatchEncoder):
    label = "own"
    script = staticmethod(lambda frames: None)
    usable = probe.Answer()
    sessions: list = []  # noqa: RUF012 - replaced for each test

    def answer(self):
        return self.usable

    def unfit(self, fmt, wanted):
        return "no colour" if fmt.samples > 1 else ""

    def open_session(self):
        self.sessions.append(Rle(self.target, self.script))
        return self.sessions[-1]


@pytest.fixture
def own(clean, monkeypatch):
    monkeypatch.setattr(memory, "free_device_bytes", lambda device: 4 << 30)
    monkeypatch.setattr(Encoder, "sessions", [])
    return Encoder


PLUGINS = [Plugin("own", Encoder, "gpu"), CPU]


def scripted(monkeypatch, script):
    monkeypatch.setattr(Encoder, "script", staticmethod(script))


def test_a_plugin_needs_nothing_but_a_session(own):
    batch = frames(5)
    results = run(batch, lossless(RLE), plugins=PLUGINS)
    assert_right(results, batch, lossless(RLE))
    assert by(results) == ["own"] * 5
    assert [session.closed for session in own.sessions] == [True]


def test_each_frame_has_its_own_result(own, monkeypatch):
    bad = InvalidPixels("odd", code="truncated")
    scripted(monkeypatch, lambda frames: [b"x", None, bad])
    encoder = own(lossless(RLE))
    one, two, three = encoder.encode(frames(3))
    encoder.close()
    assert (one.codestream, one.plugin) == (b"x", "own")
    assert (two.code, two.plugin, two.reason) == ("device-failed", "own", "the GPU did not encode this frame")
    assert (three.code, three.reason) == ("truncated", "odd")


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        (
            frames(2, replace(CT, samples=3, photometric="RGB", bits_allocated=8, bits_stored=8, high_bit=7)),
            "no colour",
        ),
        ([replace(f, pixels=Coded(RLE, b"x")) for f in frames(2)], "must be decoded"),
    ],
    ids=["unfit", "coded"],
)
def test_what_is_refused_opens_nothing(own, batch, code):
    results = own(lossless(RLE)).encode(batch)
    assert all(r.code == "device-refused" and code in r.reason for r in results)
    assert not own.sessions


def test_a_frame_that_needs_more_than_the_lanes_memory_is_refused(own):
    need = 2 * memory.device_bytes(CT, SimpleNamespace(rows=40, columns=48, samples=1, cell_bits=16))
    assert isinstance(own(lossless(RLE), memory_bytes=need).encode(frames(1))[0], Encoded)
    [refused] = own(lossless(RLE), memory_bytes=need - 1).encode(frames(1))
    assert refused.code == "device-refused"
    assert f"needs {need} bytes" in refused.reason


def test_a_plugin_that_takes_more_memory_gets_smaller_batches(own, monkeypatch):
    before = own(lossless(RLE), memory_bytes=64 << 20).limits.bytes
    monkeypatch.setattr(Encoder, "device_factor", 16)
    assert own(lossless(RLE), memory_bytes=64 << 20).limits.bytes == before // 4


def test_an_answer_of_no_is_every_frames(own, monkeypatch):
    monkeypatch.setattr(Encoder, "usable", probe.Answer("CuPy is not installed"))
    results = run(frames(2), lossless(RLE), plugins=PLUGINS)
    assert {r.refused[0].code for r in results} == {"device-unavailable"}
    assert "CuPy is not installed" in results[0].refused[0].reason


def test_memory_that_does_not_suffice_halves_the_batch(own, monkeypatch):
    def script(frames):
        if len(frames) > 3:
            raise MemoryError

    scripted(monkeypatch, script)
    batch = frames(6)
    results = run(batch, lossless(RLE), plugins=PLUGINS)
    assert_right(results, batch, lossless(RLE))
    assert by(results) == ["own"] * 6
    assert own.sessions[0].calls == [6, 3, 3]
    assert own.sessions[0].trimmed == 1


@pytest.mark.parametrize("says", ["", "it is broken"])
@pytest.mark.parametrize("how", ["raises", "nothing"])
def test_after_an_error_the_device_has_to_show_that_it_works(own, monkeypatch, says, how):
    def script(frames):
        own.sessions[0].says = says
        if how == "raises":
            raise ValueError("odd")
        return [None] * len(frames)

    scripted(monkeypatch, script)
    results = run(frames(2), lossless(RLE), plugins=PLUGINS)
    assert by(results) == ["imagecodecs"] * 2
    assert ("it is broken" in health.lost(0)) == bool(says)


def test_a_sticky_error_gives_the_device_up_for_all_plugins(own, monkeypatch):
    def script(frames):
        raise RuntimeError("CUDA Runtime failure: '#700' at x.cu:1")

    scripted(monkeypatch, script)
    assert by(run(frames(2), lossless(RLE), plugins=PLUGINS)) == ["imagecodecs"] * 2
    assert "#700" in health.lost(0)
    scripted(monkeypatch, lambda frames: None)
    assert {r.code for r in own(lossless(RLE)).encode(frames(2))} == {"device-lost"}
    assert isinstance(own(lossless(RLE), device=1).encode(frames(1))[0], Encoded)


def test_a_call_that_hangs_is_left_behind(own, monkeypatch):
    wake = threading.Event()
    scripted(monkeypatch, lambda frames: wake.wait(30) and None)
    encoder = own(lossless(RLE), timeout_s=0.1)
    assert {r.code for r in encoder.encode(frames(2))} == {"device-hung"}
    encoder.close()
    wake.set()


OPTIONS = {
    "transfer_syntax_uid": RLE, "rows": 40, "columns": 48, "samples_per_pixel": 1, "bits_allocated": 16,
    "bits_stored": 12, "pixel_representation": 0, "photometric_interpretation": "MONOCHROME2", "number_of_frames": 1,
}  # fmt: skip


def test_one_frame_the_way_pydicom_asks(own, monkeypatch):
    single = lane.Single(own)
    [frame] = made_frames(1)
    runner = SimpleNamespace(options=OPTIONS)
    for _ in range(2):
        assert single.encode_frame(frame.pixels.tobytes(), runner)
    assert len(own.sessions) == 1
    other = made_frames(1, seed=6)[0].pixels.tobytes()
    right = single.encode_frame(other, runner)
    monkeypatch.setattr(own.sessions[0], "script", lambda frames: [right])
    with pytest.raises(RuntimeError, match="do not come back"):
        single.encode_frame(frame.pixels.tobytes(), runner)
    monkeypatch.setattr(own.sessions[0], "script", lambda frames: [b"garbage"])
    with pytest.raises(RuntimeError):
        single.encode_frame(frame.pixels.tobytes(), runner)
    single.close()
    assert own.sessions[0].closed


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_makes_an_encoder_of_its_own(own):
    single = lane.Single(own)
    pixels = made_frames(1)[0].pixels.tobytes()
    runner = SimpleNamespace(options=OPTIONS)
    expected = single.encode_frame(pixels, runner)
    read, write = os.pipe()
    with single._lock:  # as if another thread were in it
        child = os.fork()
        if not child:
            made = single.encode_frame(pixels, runner) == expected
            os.write(write, f"{made} {len(own.sessions)} {own.sessions[0].closed}".encode())
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"True 2 False"
    single.close()


def test_failures_name_the_plugin(own):
    [failure] = own(lossless(RLE)).encode([replace(frames(1)[0], format=replace(CT, photometric="ODD"))])
    assert isinstance(failure, Failure)
    assert (failure.code, failure.plugin) == ("format-not-allowed", "own")
