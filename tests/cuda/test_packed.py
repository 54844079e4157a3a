"""Our own encoders as plug-ins, through the real engine: kernels under the shim, the CPU plug-in behind them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gpuenc import registry
from gpuenc.coding import coding
from gpuenc.cpu import samples
from gpuenc.cuda import jpeg_lossless, memory, packed, probe, rle
from gpuenc.errors import CodecError
from gpuenc.frames import Encoded, Frame, FrameFormat, FrameRef
from gpuenc.plugins import Plugin, default_plugins
from tests.cuda.test_nvcodec import CPU, CT, FORMATS, RGB, assert_right, by, frames, lossless, run
from tests.simt import references
from tests.simt.shim import SimtDevice

LOSSLESS, SV1, RLE = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5"
MODULES = {LOSSLESS: jpeg_lossless, SV1: jpeg_lossless, RLE: rle}
REFERENCES = {LOSSLESS: references.jpeg_lossless, SV1: references.jpeg_lossless, RLE: references.rle}


@pytest.fixture
def cupy(simt_gpu, monkeypatch):
    """CuPy as far as the probe sees it, and no nvImageCodec."""

    class Device(SimtDevice):
        def __init__(self, index):
            super().__init__()

        def current(self):
            return nullcontext()

    monkeypatch.setattr(probe, "CupyDevice", Device)
    monkeypatch.setattr(probe, "_is_installed", lambda module: module == "cupy")
    monkeypatch.setattr(probe, "_version", lambda name: "14.0.1" if name == "cupy-cuda13x" else "")
    return simt_gpu


def ours(uid):
    return Plugin(MODULES[uid].LABEL, MODULES[uid].BatchEncoder, "gpu")


def encoded(batch, uid):
    return run(batch, lossless(uid), plugins=[ours(uid), CPU])


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("uid", MODULES)
def test_every_format_of_the_table_is_encoded_verified_and_the_references(cupy, uid, fmt):
    batch = frames(3, fmt)
    results = encoded(batch, uid)
    assert by(results) == [MODULES[uid].LABEL] * 3
    assert_right(results, batch, lossless(uid))
    assert all(result.verified for result in results)
    for result, frame in zip(results, batch, strict=True):
        wanted = coding(lossless(uid), fmt)
        assert result.codestream == REFERENCES[uid](samples.prepare(frame.pixels, fmt, wanted))
    assert [workspace.closed for workspace in cupy.workspaces] == [True]


@pytest.mark.parametrize("uid", MODULES)
def test_frames_that_are_wrong_do_not_touch_the_others(cupy, uid):
    batch = frames(5)
    stray = batch[1].pixels.copy()
    stray[3] |= 0x80
    batch[1] = replace(batch[1], pixels=stray)
    batch[3] = replace(batch[3], pixels=batch[3].pixels[:-1])
    results = encoded(batch, uid)
    label = MODULES[uid].LABEL
    assert by(results) == [label, "values-outside-bits-stored", label, "truncated", label]
    good = [0, 2, 4]
    assert_right([results[place] for place in good], [batch[place] for place in good], lossless(uid))


@pytest.mark.parametrize("uid", MODULES)
def test_a_wrong_codestream_is_noticed_and_the_cpu_takes_the_frame(cupy, uid, monkeypatch):
    right = packed.collect

    def spoiled(device, measured):
        made = right(device, measured)
        if len(made) > 1:
            broken = bytearray(made[1])
            broken[-9] ^= 4
            made[1] = bytes(broken)
        return made

    monkeypatch.setattr(packed, "collect", spoiled)
    batch = frames(3)
    results = encoded(batch, uid)
    assert by(results) == [MODULES[uid].LABEL, "imagecodecs", MODULES[uid].LABEL]
    assert results[1].refused[0].code in ("verify-mismatch", "undecodable")
    assert_right(results, batch, lossless(uid))


def test_frames_that_a_kernel_refuses_go_on_to_the_cpu(cupy, monkeypatch):
    assert by(encoded(frames(2), SV1)) == ["cuda-jpeg-lossless"] * 2  # the probe has its answer
    monkeypatch.setattr(jpeg_lossless, "_scratch_words", lambda samples, bits: 9)
    results = encoded(frames(2), SV1)
    assert by(results) == ["imagecodecs"] * 2
    assert {result.refused[0].code for result in results} == {"kernel-refused"}


def test_what_is_not_for_the_kernels_is_refused_before_anything_is_copied(cupy):
    bits = FrameFormat(16, 24, 1, 1, 1, False, "MONOCHROME2")
    batch = [Frame(FrameRef("bits", 0), bits, np.arange(48, dtype=np.uint8))]
    [result] = encoded(batch, RLE)
    assert (result.plugin, result.refused[0].code) == ("imagecodecs", "device-refused")
    assert not cupy.workspaces


@pytest.mark.parametrize("uid", MODULES)
def test_arrays_on_the_device_stay_there(cupy, uid):
    target = lossless(uid)
    session = packed.Session(MODULES[uid].BatchEncoder.codec, target, 0)
    [workspace] = cupy.workspaces
    host = frames(2)
    there = [replace(frame, pixels=workspace.kernels.put(frame.pixels)) for frame in host]
    made = session.encode([host[0], there[1]], coding(target, CT))
    assert made == session.encode(host, coding(target, CT))
    assert len(workspace.adopted) == 1
    session.trim()
    assert workspace.trimmed == 1


@pytest.mark.parametrize("uid", MODULES)
def test_the_small_image_says_what_is_wrong(cupy, uid, monkeypatch):
    codec, target = MODULES[uid].BatchEncoder.codec, lossless(uid)
    assert packed.Session(codec, target, 0).wrong() == ""
    right = packed.collect
    for change, said in (
        (lambda made: made[:-40] + bytes([made[-40] ^ 2]) + made[-39:], "come back"),
        (lambda made: made[:40], "not what was asked for"),
        (lambda made: CodecError("refused"), "refused"),
    ):
        monkeypatch.setattr(packed, "collect", lambda *_, change=change: [change(made) for made in right(*_)])
        assert said in packed.works(SimtDevice(), codec, target)


def test_the_device_is_asked_once_and_by_a_codestream(cupy, monkeypatch):
    assert rle.is_available(RLE)
    assert jpeg_lossless.is_available(SV1)
    assert jpeg_lossless.is_available(LOSSLESS)
    assert not rle.is_available(SV1)
    assert not jpeg_lossless.is_available(RLE)
    monkeypatch.setattr(probe, "_ANSWERS", {})
    monkeypatch.setattr(packed, "collect", lambda *_: [b"\xff\xd8"])
    assert "Our kernels do not work on GPU 0: what it writes" in rle.why_unavailable(RLE)


def test_without_cupy(gpu, monkeypatch):
    """nvImageCodec alone is not enough, and a session says so too."""
    monkeypatch.setattr(probe, "_is_installed", lambda module: module != "cupy")
    assert rle.why_unavailable(RLE) == "CuPy is not installed: pip install 'gpuenc[cuda13]'"
    with pytest.raises(CodecError, match="need CuPy") as caught:
        packed.Session(rle.BatchEncoder.codec, lossless(RLE), 0)
    assert caught.value.code == "device-unavailable"


@pytest.mark.parametrize("uid", MODULES)
def test_the_plugin_comes_first_and_has_the_names_of_one(uid):
    module = MODULES[uid]
    first = default_plugins(uid)[0]
    assert (first.label, first.module, first.device) == (module.LABEL, module.__name__, "gpu")
    assert registry.get_encoder(uid)  # pydicom's add_plugin has taken it
    assert set(module.ENCODER_DEPENDENCIES) == set(module.UIDS)
    assert not module.is_available(uid)  # or these tests run where there is a GPU, and should not
    assert module.DEVICE == "gpu"
    assert module.THREAD_SAFE


@pytest.mark.parametrize("uid", MODULES)
def test_one_frame_the_way_pydicom_asks(cupy, uid):
    options = {
        "transfer_syntax_uid": uid, "rows": 40, "columns": 48, "samples_per_pixel": 1, "bits_allocated": 16,
        "bits_stored": 12, "pixel_representation": 0, "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
    }  # fmt: skip
    [frame] = frames(1)
    made = MODULES[uid].encode_frame(frame.pixels.tobytes(), SimpleNamespace(options=options))
    assert made == REFERENCES[uid](frame.pixels.view("<u2").reshape(40, 48))
    MODULES[uid]._SINGLE.close()


class Counting(SimtDevice):
    """A device that counts the bytes it is asked for."""

    def empty(self, shape, dtype):
        self.total = getattr(self, "total", 0) + int(np.prod(shape)) * np.dtype(dtype).itemsize
        return super().empty(shape, dtype)


@pytest.mark.parametrize("uid", MODULES)
@pytest.mark.parametrize("fmt", [CT, RGB, replace(CT, rows=1, columns=1), replace(CT, rows=300, columns=1)], ids=str)
def test_the_memory_of_a_frame_is_what_is_said(cupy, uid, fmt):
    wanted, codec = coding(lossless(uid), fmt), MODULES[uid].BatchEncoder.codec
    on = Counting()
    values = on.put(np.zeros((7, *wanted.shape), f"u{wanted.cell_bits // 8}"))
    packed.collect(on, codec.measure(on, values, wanted))
    assert 7 * codec.scratch_bytes(wanted) <= on.total + 7 * 8 <= 7 * codec.scratch_bytes(wanted) + 7 * 8 + 256
    encoder = MODULES[uid].BatchEncoder(lossless(uid))
    assert encoder.device_bytes(fmt, wanted) == memory.device_bytes(fmt, wanted) + codec.scratch_bytes(wanted)
    encoder.close()


def test_launches_of_a_batch_and_copies_back(cupy):
    """The host waits for the places and the codestreams, not in between."""

    class Watched(SimtDevice):
        def download(self, array):
            self.launched.append("download")
            return super().download(array)

    for uid, launches in (
        (SV1, ["count_16", "plan", "pack_16", "place", "place_streams", "stuff", "download", "download"]),
        (RLE, ["measure", "place", "place_streams", "write", "download", "download"]),
    ):
        on = Watched()
        values = np.zeros((9, 40, 48), np.uint16)
        codec = MODULES[uid].BatchEncoder.codec
        packed.collect(on, codec.measure(on, on.put(values), coding(lossless(uid), CT)))
        assert [name.removeprefix("jpeg_lossless_").removeprefix("rle_") for name in on.launched] == launches


def test_frames_of_a_batch_are_encoded_in_halves_where_memory_is_short(cupy, monkeypatch):
    right, calls = packed.collect, []

    def short(device, measured):
        calls.append(measured.outcomes.shape[0])
        if calls[-1] > 3:
            raise MemoryError("out of memory")
        return right(device, measured)

    monkeypatch.setattr(packed, "collect", short)
    batch = frames(6)
    results = encoded(batch, RLE)
    assert all(isinstance(result, Encoded) for result in results)
    assert by(results) == ["cuda-rle"] * 6
    assert calls[-3:] == [6, 3, 3]
