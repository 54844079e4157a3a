"""Who verifies, and verification on the device: nvImageCodec decodes, kernels compare, and only counts come back."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

import gpuenc
from gpuenc import chain, verification
from gpuenc.coding import coding
from gpuenc.cpu import codecs as cpu_codecs
from gpuenc.cpu import samples
from gpuenc.cuda import compare, health, nvcodec
from gpuenc.cuda.samples import checksum_tables
from gpuenc.errors import InvalidOption, InvalidPixels
from gpuenc.frames import Encoded, Failure
from gpuenc.plugins import Plugin, Verdict
from gpuenc.syntaxes import BY_UID
from gpuenc.targets import target
from gpuenc.verification import judge
from tests.cuda.test_nvcodec import CPU, CT, FORMATS, HT, J2K, JPEG, RGB, RPCL, assert_right, by, frames, lossless, run
from tests.simt.shim import SimtDevice

CPU_PLUGIN, UNPROVEN = Plugin("c", CPU.open), Plugin("g", CPU.open, "gpu")
PROVEN = replace(UNPROVEN, proven=True)
WANTED = coding(lossless(HT), CT)
HARD = replace(WANTED, must_verify=True)
LOSSY = replace(WANTED, lossless=False)


@pytest.mark.parametrize(
    ("plugin", "wanted", "asked", "expected"),
    [
        (CPU_PLUGIN, WANTED, "none", "nobody"),
        (CPU_PLUGIN, HARD, "none", "cpu"),
        (CPU_PLUGIN, WANTED, "all", "cpu"),
        (CPU_PLUGIN, WANTED, "independent", "independent"),
        (UNPROVEN, WANTED, "none", "cpu"),
        (UNPROVEN, WANTED, "all", "cpu"),
        (UNPROVEN, WANTED, "independent", "independent"),
        (PROVEN, WANTED, "none", "nobody"),
        (PROVEN, HARD, "none", "device"),
        (PROVEN, WANTED, "all", "device"),
        (PROVEN, WANTED, "independent", "independent"),
        (UNPROVEN, LOSSY, "all", "nobody"),
        (PROVEN, LOSSY, "independent", "nobody"),
    ],
)
def test_who_verifies(plugin, wanted, asked, expected):
    assert judge(plugin, wanted, asked, can_verify=True) == expected
    without = "cpu" if expected == "device" else expected
    assert judge(plugin, wanted, asked, can_verify=False) == without


def test_what_may_be_asked():
    assert [verification.verify_of(asked) for asked in (True, False, "independent")] == ["all", "none", "independent"]
    for wrong in ("some", 1, None):
        with pytest.raises(InvalidOption, match="independent"):
            verification.verify_of(wrong)
    with pytest.raises(ValueError, match="verify must be"):
        gpuenc.get_encoder(HT).encode(np.zeros((8, 8), np.uint8), verify="some")


@pytest.mark.parametrize(("asked", "verified"), [(True, True), (False, False), ("all", True), ("none", False)])
def test_the_engine_takes_a_bool_too(asked, verified):
    assert [r.verified for r in run(frames(2), lossless(J2K), plugins=[CPU], verify=asked)] == [verified] * 2


@pytest.fixture
def on_cpu(monkeypatch):
    """What the CPU compares."""
    compared, plain = [], chain.compare
    monkeypatch.setattr(
        chain, "compare", lambda *args, **kw: compared.append((args[1].ref.index, kw)) or plain(*args, **kw)
    )
    return compared


def gpu(proven=True, **options):
    return Plugin("nvimgcodec", lambda chosen: nvcodec.BatchEncoder(chosen, **options), "gpu", proven)


def crc(frame, chosen):
    return samples.checksum(samples.prepare(frame.pixels, frame.format, coding(chosen, frame.format)))


@pytest.mark.parametrize("fmt", [*FORMATS.values()], ids=FORMATS)
@pytest.mark.parametrize("uid", [J2K, RPCL])
def test_the_device_verifies_every_format(simt_gpu, on_cpu, uid, fmt):
    batch = frames(3, fmt)
    results = run(batch, lossless(uid), plugins=[gpu(), CPU], verify="all")
    assert_right(results, batch, lossless(uid))
    assert by(results) == ["nvimgcodec"] * 3
    assert [(r.verified, r.crc32) for r in results] == [(True, crc(f, lossless(uid))) for f in batch]
    assert not on_cpu
    assert simt_gpu.decoded == [3]
    [decoder] = simt_gpu.decoders
    assert decoder.closed
    assert {backend.kind for backend in decoder.backends} == {"gpu"}


@pytest.mark.parametrize(
    ("proven", "asked", "who"), [(False, "none", "cpu"), (False, "all", "cpu"), (True, "none", "")]
)
def test_a_gpu_is_not_believed_before_it_is_proven(simt_gpu, on_cpu, proven, asked, who):
    batch = frames(3)
    results = run(batch, lossless(HT), plugins=[gpu(proven), CPU], verify=asked)
    assert_right(results, batch, lossless(HT))
    assert [index for index, _ in on_cpu] == ([0, 1, 2] if who else [])
    assert [(r.verified, r.crc32) for r in results] == [
        (bool(who), crc(f, lossless(HT)) if who else None) for f in batch
    ]
    assert not simt_gpu.decoded


def test_independent_is_the_cpus_whatever_is_proven(simt_gpu, on_cpu):
    results = run(frames(2), lossless(HT), plugins=[gpu(), CPU], verify="independent")
    assert by(results) == ["nvimgcodec"] * 2
    assert on_cpu == [(0, {"independently": True}), (1, {"independently": True})]
    assert not simt_gpu.decoded


def test_a_wrong_sample_is_found_by_the_device(simt_gpu, on_cpu):
    simt_gpu.fault = lambda number: "wrong sample" if number in (1, 2) else ""
    batch = frames(4)
    results = run(batch, lossless(HT), plugins=[gpu(), CPU], verify="all")
    assert_right(results, batch, lossless(HT))
    assert by(results) == ["nvimgcodec", "imagecodecs", "imagecodecs", "nvimgcodec"]
    assert [r.refused[0].code for r in results if r.refused] == ["verify-mismatch"] * 2
    assert "1 samples do not come back" in results[1].refused[0].reason
    assert all(r.verified and r.crc32 == crc(f, lossless(HT)) for r, f in zip(results, batch, strict=True))
    assert [index for index, _ in on_cpu] == [1, 2]  # of what the CPU encoded


@pytest.mark.parametrize("fault", ["none", "cut"])
def test_what_the_device_cannot_decode_is_compared_by_the_cpu(simt_gpu, on_cpu, fault):
    simt_gpu.decode_fault = lambda number: fault if number == 1 else ""
    batch = frames(3)
    results = run(batch, lossless(HT), plugins=[gpu(), CPU], verify="all")
    assert_right(results, batch, lossless(HT))
    assert by(results) == ["nvimgcodec"] * 3
    assert [index for index, _ in on_cpu] == [1]
    assert all(r.verified and r.crc32 == crc(f, lossless(HT)) for r, f in zip(results, batch, strict=True))


def test_a_decoder_that_returns_zeros_proves_nothing(simt_gpu):
    """As nvImageCodec issue 50 had it: a decoder's fault costs its frame the GPU, and no wrong frame is believed."""
    simt_gpu.decode_fault = lambda number: "zeros" if number == 1 else ""
    batch = frames(3)
    results = run(batch, lossless(HT), plugins=[gpu(), CPU], verify="all")
    assert_right(results, batch, lossless(HT))
    assert by(results) == ["nvimgcodec", "imagecodecs", "nvimgcodec"]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("CUDA Runtime failure: '#2' at x.cpp:1"), False),
        (RuntimeError("CUDA Runtime failure: '#700' at x.cpp:1"), True),
        (ValueError("odd"), False),
    ],
    ids=str,
)
def test_a_verification_that_fails_is_done_by_the_cpu(simt_gpu, on_cpu, error, lost):
    def decode_batch(streams):
        raise error

    simt_gpu.decode_batch = decode_batch
    batch = frames(3)
    results = run(batch, lossless(HT), plugins=[gpu(), CPU], verify="all")
    assert_right(results, batch, lossless(HT))
    assert by(results) == ["nvimgcodec"] * 3
    assert len(on_cpu) == 3
    assert bool(health.lost(0)) is lost
    assert simt_gpu.workspaces[0].trimmed == ("'#2'" in str(error))


def test_a_verification_that_hangs_costs_the_device_and_no_frame(simt_gpu, on_cpu):
    simt_gpu.decode_fault = lambda number: "hang" if number == 1 else ""
    batch = frames(3)
    # The first call makes the fake's kernels; only the decoder's may take long.
    encoder = nvcodec.BatchEncoder(lossless(HT))
    encoder.encode(batch)
    encoder._timeout_s = 0.3
    results = run(
        batch, lossless(HT), plugins=[Plugin("nvimgcodec", lambda _: encoder, "gpu", True), CPU], verify="all"
    )
    assert_right(results, batch, lossless(HT))
    assert len(on_cpu) == 3
    assert health.lost(0)


def test_without_cupy_the_cpu_verifies(gpu_without_cupy, on_cpu):
    batch = frames(2)
    results = run(batch, lossless(HT), plugins=[gpu(), CPU], verify="all")
    assert by(results) == ["nvimgcodec"] * 2
    assert len(on_cpu) == 2


@pytest.fixture
def gpu_without_cupy(request):
    return request.getfixturevalue("gpu")


def test_jpeg_is_verified_by_nobody(simt_gpu, on_cpu):
    results = run(frames(2, RGB), target(BY_UID[JPEG]), plugins=[gpu(), CPU], verify="all")
    assert [(r.verified, r.crc32) for r in results] == [(False, None)] * 2
    assert not on_cpu


def test_samples_are_prepared_once_and_again_only_where_they_are_gone(simt_gpu):
    batch = frames(6)
    encoder = nvcodec.BatchEncoder(lossless(HT))
    made = encoder.encode(batch)
    launched = simt_gpu.workspaces[0].kernels.launched
    prepared = launched.count("prepare_16_16")
    verdicts = encoder.verify(batch, [r.codestream for r in made])
    assert launched.count("prepare_16_16") == prepared
    assert verdicts == [Verdict(0, crc(f, lossless(HT))) for f in batch]
    assert encoder.verify(batch[2:4], [r.codestream for r in made[2:4]]) == verdicts[2:4]
    others = frames(6, seed=9)
    wrong = encoder.verify(others, [r.codestream for r in made])
    assert launched.count("prepare_16_16") > prepared
    assert all(isinstance(one, Verdict) and one.differing > 1000 for one in wrong)
    assert [one.crc32 for one in wrong] == [crc(f, lossless(HT)) for f in others]
    encoder.close()


def test_frames_outside_bits_stored_are_not_verified(simt_gpu):
    batch = frames(3)
    batch[1].pixels.view("<u2")[7] = 0xF000
    encoder = nvcodec.BatchEncoder(lossless(HT))
    [good] = encoder.encode(batch[:1])
    said = encoder.verify(batch, [good.codestream] * 3)
    encoder.close()
    assert said[0] == Verdict(0, crc(batch[0], lossless(HT)))
    assert isinstance(said[1], Failure)
    assert said[2].differing


def test_after_out_of_memory_halves_are_verified_as_they_were_encoded(simt_gpu, on_cpu):
    def batch(images):
        if len(images) > 2:
            raise RuntimeError("CUDA Runtime failure: '#2' at x.cpp:1")

    simt_gpu.batch = batch
    all_frames = frames(4)
    results = run(all_frames, lossless(HT), plugins=[gpu(), CPU], verify="all")
    assert by(results) == ["nvimgcodec"] * 4
    assert simt_gpu.decoded == [2, 2]
    assert not on_cpu
    assert [r.crc32 for r in results] == [crc(f, lossless(HT)) for f in all_frames]
    assert_right(results, all_frames, lossless(HT))


def test_a_codestream_that_is_none_leaves_the_others_alone(simt_gpu):
    batch = frames(3)
    encoder = nvcodec.BatchEncoder(lossless(HT))
    one, _, three = (result.codestream for result in encoder.encode(batch))
    said = encoder.verify(batch, [one, b"garbage", three])
    encoder.close()
    assert [type(each) for each in said] == [Verdict, Failure, Verdict]
    assert said[2] == Verdict(0, crc(batch[2], lossless(HT)))


class Odd(cpu_codecs.BatchEncoder):
    """A plug-in of a GPU that says odd things of its codestreams."""

    says: object = None

    def verify(self, frames, codestreams):
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.mark.parametrize(
    "says", [None, [], [Verdict(0, 1)], "yes", [True, True], ValueError("odd"), [None, 5]], ids=repr
)
def test_what_is_no_verdict_is_none(monkeypatch, on_cpu, says):
    monkeypatch.setattr(Odd, "says", says)
    batch = frames(2)
    results = run(batch, lossless(HT), plugins=[Plugin("odd", Odd, "gpu", True)], verify="all")
    assert_right(results, batch, lossless(HT))
    assert len(on_cpu) == 2
    assert all(r.verified and r.crc32 == crc(f, lossless(HT)) for r, f in zip(results, batch, strict=True))


def test_a_plugin_cannot_claim_that_it_verified():
    class Claims(cpu_codecs.BatchEncoder):
        def encode(self, frames):
            return [replace(r, verified=True, crc32=7) for r in super().encode(frames)]

    results = run(frames(2), lossless(HT), plugins=[Plugin("claims", Claims)])
    assert [(r.verified, r.crc32) for r in results] == [(False, None)] * 2


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.5", J2K, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.8.1"])
def test_verified_frames_have_their_checksum_on_the_cpu_too(uid):
    batch = frames(2)
    results = run(batch, target(BY_UID[uid]), plugins=[CPU], verify="all")
    assert [(r.verified, r.crc32) for r in results] == [(True, crc(f, target(BY_UID[uid]))) for f in batch]
    assert {r.crc32 for r in run(batch, target(BY_UID[uid]), plugins=[CPU])} == {None}


@pytest.mark.parametrize(("one", "other"), [("u1", "u1"), ("u2", "i2"), ("i2", "u4"), ("u4", "u1")])
def test_frames_anywhere_are_compared_as_their_twin_does(one, other):
    rng, device = np.random.default_rng(3), SimtDevice()
    ones = [rng.integers(0, 100, (5, 7)).astype(one) for _ in range(4)]
    others = [values.astype(other) for values in ones]
    others[2][3, 4] += 1
    others[3][:] += 1
    there = [
        [device.put(values, int(rng.integers(0, 8)) * values.itemsize) for values in side] for side in (ones, others)
    ]
    assert compare.count_differing(device, *there) == [0, 0, 1, 35]
    tables = checksum_tables(device)
    for side, put in zip((ones, others), there, strict=True):
        assert compare.checksums(device, put, tables) == [samples.checksum(values) for values in side]
    assert compare.count_differing(device, [], []) == []
    assert compare.checksums(device, [], tables) == []


def test_frames_of_other_sizes_are_not_compared():
    device = SimtDevice()
    small, large = device.put(np.zeros((2, 2), "u1")), device.put(np.zeros((2, 3), "u1"))
    for pair in (([small], [large]), ([small, large], [small, large]), ([small, small], [small])):
        with pytest.raises(InvalidPixels, match="compared"):
            compare.count_differing(device, *pair)


def test_a_lane_that_was_never_used_or_is_another_process_says_nothing(simt_gpu):
    encoder = nvcodec.BatchEncoder(lossless(HT))
    batch = frames(2)
    assert all(isinstance(one, Failure) for one in encoder.verify(batch, [b"", b""]))
    made = encoder.encode(batch)
    process, encoder._process = encoder._process, -1
    assert all(isinstance(one, Failure) for one in encoder.verify(batch, [r.codestream for r in made]))
    encoder._process = process
    encoder.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("gpuenc-gpu")]
    assert all(isinstance(one, Encoded) for one in made)
