"""The nvImageCodec plug-in on a scripted device, through the real engine, with the CPU plug-in behind it."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gpuenc import devices, engine, registry
from gpuenc.codestream import parse
from gpuenc.coding import coding
from gpuenc.cpu import codecs as cpu_codecs
from gpuenc.cpu import decoders, samples
from gpuenc.cuda import health, memory, nvcodec, probe, session
from gpuenc.frames import Coded, Encoded, Failure, Frame, FrameFormat, FrameRef, Palette
from gpuenc.plugins import Plugin
from gpuenc.syntaxes import BY_UID, find
from gpuenc.targets import target
from tests.cuda import fake_nvimgcodec as fake

J2K, J2K_LOSSY, JPEG = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.50"
HT, RPCL, HT_LOSSY = (f"1.2.840.10008.1.2.4.20{n}" for n in (1, 2, 3))
CT = FrameFormat(40, 48, 1, 16, 12, False, "MONOCHROME2")
RGB = FrameFormat(40, 48, 3, 8, 8, False, "RGB")


def lossless(uid):
    return target(BY_UID[uid], lossless=True)


def frames(count, fmt=CT, seed=5):
    """Return frames of noise, each with its own number in its first cell."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        low, high = (-(1 << fmt.bits_stored - 1), 1 << fmt.bits_stored - 1) if fmt.signed else (0, 1 << fmt.bits_stored)
        kind = f"{'>' if fmt.big_endian else '<'}{'i' if fmt.signed else 'u'}{fmt.bits_allocated // 8}"
        per_pixel = 2 if fmt.subsampled else fmt.samples
        cells = rng.integers(low, high, fmt.rows * fmt.columns * per_pixel).astype(kind)
        cells[0] = index
        made.append(Frame(FrameRef("test", index), fmt, cells.view(np.uint8)))
    return made


def gpu_plugin(**options):
    return Plugin(nvcodec.LABEL, lambda chosen: nvcodec.BatchEncoder(chosen, **options))


CPU = Plugin(cpu_codecs.LABEL, cpu_codecs.BatchEncoder)


def run(batch, chosen, *, plugins=None, **options):
    return list(engine.encode_frames(iter(batch), chosen, plugins or [gpu_plugin(), CPU], **{"threads": 1} | options))


def assert_right(results, batch, chosen):
    """Every frame once, in order, and every sample as the CPU's twin prepares it."""
    assert [r.ref for r in results] == [f.ref for f in batch]
    for result, frame in zip(results, batch, strict=True):
        assert isinstance(result, Encoded), result
        wanted = coding(chosen, frame.format)
        back = decoders.decode_samples(result.codestream, chosen.syntax, wanted)
        assert np.array_equal(back, samples.prepare(frame.pixels, frame.format, wanted))


def by(results):
    return [r.plugin if isinstance(r, Encoded) else r.code for r in results]


def of_gpu_threads():
    return [t for t in threading.enumerate() if t.name.startswith("gpuenc-gpu")]


FORMATS = {
    "u8": replace(CT, bits_allocated=8, bits_stored=8, high_bit=7),
    "u12": CT,
    "u16": replace(CT, bits_stored=16, high_bit=15),
    "s12": replace(CT, signed=True),
    "s16": replace(CT, bits_stored=16, high_bit=15, signed=True),
    "u10 big-endian": replace(CT, bits_stored=10, high_bit=9, big_endian=True),
    "rgb": RGB,
    "rgb planar": replace(RGB, planar=1),
    "ybr": replace(RGB, photometric="YBR_FULL"),
    "ybr 422": replace(RGB, photometric="YBR_FULL_422"),
    "palette": replace(CT, photometric="PALETTE COLOR", bits_stored=8, bits_allocated=8, high_bit=7),
}


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("uid", [J2K, HT, RPCL])
def test_every_format_of_the_table_is_encoded_by_the_device_and_comes_back(gpu, uid, fmt):
    batch = frames(3, fmt)
    results = run(batch, lossless(uid))
    assert by(results) == ["nvimgcodec"] * 3
    assert_right(results, batch, lossless(uid))
    assert all(image.precision == coding(lossless(uid), fmt).precision for call in gpu.calls for image in call)


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_the_kernels_prepare_the_samples_where_there_is_a_workspace(simt_gpu, fmt):
    batch = frames(3, fmt)
    results = run(batch, lossless(HT))
    assert by(results) == ["nvimgcodec"] * 3
    assert_right(results, batch, lossless(HT))
    assert all(image.on_device and image.stream == 77 for call in simt_gpu.calls for image in call)
    assert simt_gpu.workspaces[0].kernels.launched
    assert simt_gpu.workspaces[0].closed


def test_rpcl_gets_the_lengths_that_nvjpeg2000_does_not_write(gpu):
    results = run(frames(2), lossless(RPCL))
    assert all(parse(r.codestream, "htj2k").tlm_matches for r in results)
    assert not any(parse(r.codestream, "htj2k").tlm for r in run(frames(2), lossless(HT)))


def test_what_is_asked_of_the_encoder(gpu):
    run(frames(2, RGB), lossless(HT))
    [params] = gpu.params
    j2k = params.jpeg2k_encode_params
    assert (j2k.ht, j2k.mct_mode, j2k.num_resolutions) == (True, 1, coding(lossless(HT), RGB).levels + 1)
    assert (j2k.bitstream_type, j2k.prog_order) == (fake.Jpeg2kBitstreamType.J2K, fake.Jpeg2kProgOrder.RPCL)
    assert params.color_spec is fake.ColorSpec.SRGB
    assert params.chroma_subsampling is fake.ChromaSubsampling.CSS_444
    assert {backend.kind for encoder in gpu.encoders for backend in encoder.backends} == {"gpu"}
    run(frames(2, replace(RGB, photometric="YBR_FULL")), lossless(HT))
    assert gpu.params[-1].jpeg2k_encode_params.mct_mode == 0
    assert gpu.params[-1].color_spec is fake.ColorSpec.UNCHANGED


@pytest.mark.parametrize("fmt", [RGB, FORMATS["u8"], FORMATS["palette"]], ids=["rgb", "gray", "palette"])
def test_jpeg(gpu, fmt):
    if fmt.photometric == "PALETTE COLOR":
        ramp = bytes(range(256))
        fmt = replace(fmt, palette=Palette(0, ramp, ramp[::-1], ramp))
    chosen = target(find("jpeg-baseline"), quality=95)
    results = run(frames(2, fmt), chosen)
    assert by(results) == ["nvimgcodec"] * 2
    assert {backend.kind for encoder in gpu.encoders for backend in encoder.backends} == {"hybrid"}
    assert gpu.params[0].quality_value == 95
    info = parse(results[0].codestream, "jpeg")
    assert info.samples == 1 or info.subsampling == ((2, 1), (1, 1), (1, 1))


@pytest.mark.parametrize(
    ("chosen", "fmt", "why"),
    [
        (lossless(HT), replace(CT, bits_allocated=32, bits_stored=20, high_bit=19), "at most 16 bits"),
        (lossless(HT), replace(CT, bits_allocated=8, bits_stored=8, high_bit=7, signed=True), "signed samples of 8"),
        (lossless(RPCL), replace(CT, rows=1, columns=130), "decomposition levels"),
        (target(BY_UID[J2K_LOSSY], ratios=(10,)), CT, "ratio"),
        (target(BY_UID[HT_LOSSY], psnrs=(50,)), CT, "PSNR for HTJ2K"),
        (target(BY_UID[J2K_LOSSY], psnrs=(50, 60)), CT, "one quality layer"),
        (target(BY_UID[JPEG], photometric="RGB"), RGB, "asked for RGB"),
        (target(BY_UID[JPEG]), replace(RGB, photometric="YBR_FULL"), "samples are YBR_FULL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_device_cannot_do_is_refused_before_anything_is_copied(simt_gpu, chosen, fmt, why):
    encoder = nvcodec.BatchEncoder(chosen)
    results = encoder.encode(frames(2, fmt))
    encoder.close()
    assert {r.code for r in results} == {"device-refused"}
    assert all(why in r.reason for r in results)
    assert not simt_gpu.calls
    assert not simt_gpu.workspaces


def test_single_bits_are_refused_and_done_by_the_cpu(gpu):
    fmt = FrameFormat(8, 16, 1, 1, 1, False, "MONOCHROME2")
    batch = [Frame(FrameRef("bits", n), fmt, np.full(16, n, np.uint8)) for n in range(3)]
    results = run(batch, lossless(HT))
    assert by(results) == ["imagecodecs"] * 3
    assert {r.refused[0].code for r in results} == {"device-refused"}


def test_a_frame_larger_than_the_memory_goes_to_the_cpu(gpu):
    batch = frames(3)
    results = run(batch, lossless(HT), plugins=[gpu_plugin(memory_bytes=4096), CPU])
    assert by(results) == ["imagecodecs"] * 3
    assert_right(results, batch, lossless(HT))
    assert "more than" in results[0].refused[0].reason


def test_compressed_frames_are_refused(gpu):
    batch = [Frame(FrameRef("c", 0), CT, Coded(JPEG, b"x"))]
    [result] = nvcodec.BatchEncoder(lossless(HT)).encode(batch)
    assert result.code == "device-refused"


WRONG = ("none", "cut", "noise", "empty", "whole precision", "jp2", "other size", "not ht", "unwritten")


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_frame_that_goes_wrong_is_done_by_the_cpu_and_the_others_are_not(gpu, fault, threads):
    bad = {0, 3, 4, 11}
    gpu.fault = lambda number: fault if number in bad else ""
    batch = frames(12)
    results = run(batch, lossless(HT), threads=threads)
    assert_right(results, batch, lossless(HT))
    assert {r.ref.index for r in results if r.plugin == "imagecodecs"} == bad
    assert not of_gpu_threads()


@pytest.mark.parametrize(("fault", "uid", "fmt"), [("no mct", HT, RGB), ("lossy", J2K, CT), ("jp2", RPCL, CT)])
def test_more_codestreams_that_are_not_what_was_asked_for(gpu, fault, uid, fmt):
    gpu.fault = lambda number: fault
    batch = frames(2, fmt)
    results = run(batch, lossless(uid))
    assert by(results) == ["imagecodecs"] * 2
    assert {r.refused[0].code for r in results} <= {"wrong-codestream"}
    assert_right(results, batch, lossless(uid))


def test_wrong_samples_are_found_by_verification_alone(gpu):
    gpu.fault = lambda number: "wrong sample" if number == 1 else ""
    batch = frames(3)
    results = run(batch, lossless(HT), verify="all")
    assert by(results) == ["nvimgcodec", "imagecodecs", "nvimgcodec"]
    assert_right(results, batch, lossless(HT))


def test_streams_are_used_again_and_what_came_out_before_stays_as_it_was(gpu, monkeypatch):
    made, plain = [], memory.Slots._new
    monkeypatch.setattr(memory.Slots, "_new", lambda *given: made.append(plain(*given)) or made[-1])
    encoder = nvcodec.BatchEncoder(lossless(HT))
    first = encoder.encode(frames(4, seed=1))
    before = [bytes(r.codestream) for r in first]
    second = encoder.encode(frames(4, seed=2))
    encoder.close()
    assert [r.codestream for r in first] == before
    assert all(a.codestream != b.codestream for a, b in zip(first, second, strict=True))
    assert len(made) == 4


def test_a_stream_that_was_not_written_is_not_taken_for_the_frame_before(gpu):
    encoder = nvcodec.BatchEncoder(lossless(HT))
    [good] = encoder.encode(frames(1))
    gpu.fault = lambda number: "unwritten"
    [stale] = encoder.encode(frames(1))
    encoder.close()
    assert isinstance(good, Encoded)
    assert isinstance(stale, Encoded)  # the plug-in cannot know ...
    assert stale.codestream != good.codestream  # ... but no check will believe it
    assert stale.codestream[:4] == b"\0\0\0\0"


def out_of_memory_above(count, text="CUDA Runtime failure: '#2' at buffer.cpp:9"):
    def batch(images):
        if len(images) > count:
            raise RuntimeError(text)

    return batch


def test_out_of_memory_halves_the_batch_once_and_remembers(simt_gpu):
    simt_gpu.batch = out_of_memory_above(4)
    encoder = nvcodec.BatchEncoder(lossless(HT))
    batch = frames(8)
    results = [*encoder.encode(batch), *encoder.encode(batch)]
    encoder.close()
    assert_right(results, batch * 2, lossless(HT))
    assert [len(call) for call in simt_gpu.calls] == [8, 4, 4, 4, 4]
    assert simt_gpu.workspaces[0].trimmed == 1


def test_out_of_memory_that_halves_do_not_cure_goes_to_the_cpu_and_the_device_stays(gpu):
    gpu.batch = out_of_memory_above(2, "nvImageCodec failure: '#5'")
    batch = frames(9)
    results = run(batch, lossless(HT))
    assert_right(results, batch, lossless(HT))
    assert by(results) == ["imagecodecs"] * 9
    assert {r.refused[0].code for r in results} == {"device-out-of-memory"}
    assert not health.lost(0)
    assert [len(call) for call in gpu.calls] == [9, 5, 4]


@pytest.mark.parametrize("dead", ["raises", "none"])
def test_a_device_that_dies_is_given_up_and_asked_no_more(gpu, dead):
    def batch(images):
        if any(image.samples.reshape(-1)[0] == 5 for image in images):
            gpu.dead = dead
            if dead == "raises":
                raise RuntimeError("CUDA Runtime failure: '#719' at kernel.cpp:3")

    gpu.batch = batch
    if dead == "none":
        gpu.fault = lambda number: "none" if gpu.dead else ""
    all_frames = frames(20)
    encoder = [gpu_plugin(), CPU]
    results = []
    for start in range(0, 20, 4):
        results += run(all_frames[start : start + 4], lossless(HT), plugins=encoder)
    assert_right(results, all_frames, lossless(HT))
    assert by(results) == ["nvimgcodec"] * 4 + ["imagecodecs"] * 16
    assert len(gpu.calls) == 2
    assert health.lost(0)
    assert "given up" in results[-1].refused[0].reason
    assert results[-1].refused[0].code == "device-lost"
    assert not nvcodec.is_available(HT)
    assert "given up" in nvcodec.why_unavailable(HT)


def test_a_batch_of_refusals_does_not_cost_the_device(gpu):
    gpu.fault = lambda number: "none"
    results = run(frames(4), lossless(HT))
    assert by(results) == ["imagecodecs"] * 4
    assert {r.refused[0].code for r in results} == {"device-failed"}
    assert not health.lost(0)


@pytest.mark.parametrize("error", [RuntimeError("nvImageCodec failure: '#8'"), ValueError("odd"), KeyError("x")])
def test_any_other_error_costs_its_batch_alone(gpu, error):
    def batch(images):
        gpu.batch = lambda images: None
        raise error

    gpu.batch = batch
    all_frames = frames(8)
    plugin = nvcodec.BatchEncoder(lossless(HT))
    kept = Plugin("nvimgcodec", lambda chosen: plugin)
    results = run(all_frames, lossless(HT), plugins=[kept, CPU], memory_bytes=8 * CT.frame_bytes * 5 // 2)
    assert_right(results, all_frames, lossless(HT))
    assert 0 < by(results).count("imagecodecs") < 8
    assert {f.code for r in results for f in r.refused} == {"device-error"}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_call_that_hangs_is_abandoned_and_the_run_ends_on_the_cpu(gpu, threads):
    gpu.fault = lambda number: "hang" if number == 2 else ""
    all_frames = frames(12)
    results = run(all_frames, lossless(HT), plugins=[gpu_plugin(timeout_s=0.3), CPU], threads=threads)
    assert_right(results, all_frames, lossless(HT))
    hung = [f for r in results for f in r.refused]
    assert "device-hung" in {f.code for f in hung}
    assert not nvcodec.is_available(HT)


def test_an_encoder_that_cannot_be_made_is_not_tried_again_and_again(gpu):
    run(frames(1), lossless(HT))  # the probe and one encoder are fine

    def create():
        gpu.tries = getattr(gpu, "tries", 0) + 1
        raise RuntimeError("Internal error - Could not create encoder. Code: 8")

    gpu.create = create
    results = [*run(frames(2), lossless(HT)), *run(frames(2), lossless(HT))]
    assert by(results) == ["imagecodecs"] * 4
    assert gpu.tries == 1


@pytest.mark.parametrize("with_kernels", [False, True])
def test_samples_outside_bits_stored_are_the_frames_own_fault_on_every_path(request, with_kernels):
    request.getfixturevalue("simt_gpu" if with_kernels else "gpu")
    batch = frames(3)
    batch[1].pixels.view("<u2")[7] = 0xF000
    said = run(batch, lossless(HT), plugins=[CPU])
    results = run(batch, lossless(HT))
    assert isinstance(results[1], Failure)
    assert (results[1].code, results[1].reason) == (said[1].code, said[1].reason)
    assert by(results[::2]) == ["nvimgcodec"] * 2


@pytest.mark.parametrize("with_kernels", [False, True])
def test_a_frame_that_is_too_short_fails_alone(request, with_kernels):
    request.getfixturevalue("simt_gpu" if with_kernels else "gpu")
    batch = frames(3)
    batch[0] = replace(batch[0], pixels=batch[0].pixels[:-2])
    results = run(batch, lossless(HT))
    assert results[0].code == "truncated"
    assert by(results[1:]) == ["nvimgcodec"] * 2


def test_a_kernel_that_disagrees_with_its_twin_is_not_believed(simt_gpu, monkeypatch):
    from gpuenc.cuda import samples as device_samples

    found = device_samples.Prepared.found
    monkeypatch.setattr(device_samples.Prepared, "found", lambda self: [device_samples.Outside(1, 1), *found(self)[1:]])
    results = run(frames(2), lossless(HT))
    assert by(results) == ["imagecodecs", "nvimgcodec"]
    assert results[0].refused[0].code == "kernel-disagrees"


def test_pixels_on_the_device_are_encoded_where_they_are(simt_gpu):
    encoder = nvcodec.BatchEncoder(lossless(HT))
    encoder.encode(frames(1))  # opens the workspace
    [place] = simt_gpu.workspaces
    host = frames(4)
    there = [replace(f, pixels=place.kernels.put(f.pixels)) if n % 2 else f for n, f in enumerate(host)]
    results = encoder.encode(there)
    encoder.close()
    assert_right(results, host, lossless(HT))
    assert len(place.adopted) == 2


def test_pixels_on_a_device_without_cupy_are_a_refusal(gpu):
    there = [replace(f, pixels=memory.View(f.pixels.ctypes.data, f.pixels.shape, "|u1")) for f in frames(2)]
    encoder = nvcodec.BatchEncoder(lossless(HT))
    results = encoder.encode(there)
    encoder.close()
    assert {r.code for r in results} == {"device-refused"}


def test_an_encoder_that_nobody_closed_leaves_no_thread(gpu):
    encoder = nvcodec.BatchEncoder(lossless(HT))
    encoder.encode(frames(1))
    [thread] = of_gpu_threads()
    del encoder
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("fault", ["", "poor"])
def test_lossy_jpeg2000_has_at_least_the_psnr_asked_for(simt_gpu, fault):
    simt_gpu.fault = lambda number: fault
    batch, chosen = frames(2), target(BY_UID[J2K_LOSSY], psnrs=(60,))
    results = run(batch, chosen)
    assert by(results) == ["imagecodecs" if fault else "nvimgcodec"] * 2
    assert simt_gpu.params[0].quality_value == 60.5
    if fault:
        assert {r.refused[0].code for r in results} == {"device-quality"}
        assert "not 60" in results[0].refused[0].reason


def test_lanes_have_encoders_of_their_own(gpu):
    """The fake refuses, as the real one does, an encoder that two threads use at once."""
    all_frames = frames(64)
    small = Plugin("nvimgcodec", lambda chosen: _small(nvcodec.BatchEncoder(chosen)))
    results = run(all_frames, lossless(HT), plugins=[small, CPU], threads=4)
    assert_right(results, all_frames, lossless(HT))
    assert by(results) == ["nvimgcodec"] * 64
    assert all(encoder.closed for encoder in gpu.encoders[1:])  # the first is the probe's
    assert not of_gpu_threads()


def _small(encoder):
    encoder.limits = replace(encoder.limits, frames=2)
    return encoder


def test_mixed_frames_with_faults_of_all_kinds(gpu):
    """Order, count and every sample, over formats that change and faults that come at random."""
    rng = np.random.default_rng(11)
    kinds = ("", "", "", *WRONG)
    gpu.fault = lambda number: kinds[number % len(kinds)] if number < 4096 else ""
    gpu.batch = lambda images: rng.random() < 0.1 and (_ for _ in ()).throw(RuntimeError("CUDA Runtime failure: '#2'"))
    formats = (CT, RGB, FORMATS["s16"], replace(CT, bits_allocated=32, bits_stored=20, high_bit=19))
    mixed = []
    for start in range(30):
        fmt = formats[start % 4]
        mixed += [replace(f, ref=FrameRef("mixed", len(mixed) + n)) for n, f in enumerate(frames(5, fmt, seed=start))]
    results = run(mixed, lossless(RPCL), threads=3)
    assert_right(results, mixed, lossless(RPCL))
    assert {"nvimgcodec", "imagecodecs"} == set(by(results))


def test_one_frame_the_way_pydicom_asks(gpu):
    options = {
        "transfer_syntax_uid": HT, "rows": 40, "columns": 48, "samples_per_pixel": 1, "bits_allocated": 16,
        "bits_stored": 12, "pixel_representation": 0, "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
    }  # fmt: skip
    runner = SimpleNamespace(options=options)
    [frame] = frames(1)
    codestream = nvcodec.encode_frame(frame.pixels.tobytes(), runner)
    assert parse(codestream, "htj2k").precision == 12
    gpu.fault = lambda number: "wrong sample"
    with pytest.raises(RuntimeError, match="do not come back"):
        nvcodec.encode_frame(frame.pixels.tobytes(), runner)
    gpu.fault = lambda number: ""
    nvcodec.encode_frame(frame.pixels.tobytes(), SimpleNamespace(options=options | {"transfer_syntax_uid": J2K}))
    assert [encoder.closed for encoder in gpu.encoders[1:]] == [True, False]  # one is kept, of the last target
    gpu.fault = lambda number: "none"
    with pytest.raises(RuntimeError, match="did not encode"):
        nvcodec.encode_frame(frame.pixels.tobytes(), runner)
    nvcodec._SINGLE.close()
    assert not of_gpu_threads()


def test_memory_that_was_asked_for(gpu, monkeypatch):
    monkeypatch.setenv(memory.DEVICE_MEMORY, "256M")
    limits = nvcodec.BatchEncoder(lossless(HT)).limits
    assert limits.lanes * limits.bytes * 4 <= 256 << 20
    assert nvcodec.BatchEncoder(lossless(HT), memory_bytes=128 << 20).limits.lanes == 1


def test_an_encoder_in_a_forked_child_touches_nothing(gpu):
    encoder = nvcodec.BatchEncoder(lossless(HT))
    encoder.encode(frames(1))
    worker, encoder._process = encoder._worker, -1
    assert {r.code for r in encoder.encode(frames(2))} == {"device-unavailable"}
    encoder.close()
    assert not gpu.encoders[-1].closed
    worker.close()


def test_an_encoder_of_a_device_that_is_not_there_refuses_each_frame(clean, monkeypatch):
    monkeypatch.setattr(probe, "_driver_version", lambda: 0)
    encoder = nvcodec.BatchEncoder(lossless(HT))
    results = encoder.encode(frames(2))
    encoder.close()
    assert {r.code for r in results} == {"device-unavailable"}
    assert "No NVIDIA driver" in results[0].reason


@pytest.fixture
def two_gpus(gpu, monkeypatch):
    """The fake, twice, and encoders that were not asked before; the first turn is the first GPU's."""
    monkeypatch.setattr(probe, "_counted", 2)
    monkeypatch.setattr(registry, "_ENCODERS", {})
    monkeypatch.setattr(devices, "_TURNS", itertools.count())
    monkeypatch.setattr(session, "_threads", lambda: 5)
    gpu.used = lambda: {encoder.device_id for encoder in gpu.encoders if encoder.threads == 5}  # the probe's have one
    return gpu


def test_lanes_are_spread_over_gpus(two_gpus):
    chain = registry.chain(BY_UID[HT])
    batch = frames(64)
    results = run(batch, lossless(HT), plugins=[small_batches(chain[0]), *chain[1:]], threads=4)
    assert_right(results, batch, lossless(HT))
    assert by(results) == ["nvimgcodec"] * 64
    assert two_gpus.used() == {0, 1}


def small_batches(plugin):
    def open_(chosen):
        return _small(plugin.open(chosen))

    return replace(plugin, open=open_)


def test_a_gpu_that_is_given_up_leaves_the_other(two_gpus):
    def batch(images):
        if any(image.samples.reshape(-1)[0] == 9 for image in images):
            two_gpus.batch = lambda images: None
            raise RuntimeError("CUDA Runtime failure: '#719' at kernel.cpp:3")

    two_gpus.batch = batch
    all_frames = frames(40)
    chain = registry.chain(BY_UID[HT])
    results = run(all_frames, lossless(HT), plugins=[small_batches(chain[0]), *chain[1:]], threads=1)
    assert_right(results, all_frames, lossless(HT))
    assert health.lost(0)
    assert not health.lost(1)
    assert by(results).count("imagecodecs") == 2
    assert by(results[-20:]) == ["nvimgcodec"] * 20
    assert two_gpus.used() == {0, 1}
    assert nvcodec.is_available(HT)
    assert registry.why_on_cpu(BY_UID[HT]) == ""
    health.give_up(1, "it hangs")
    assert not nvcodec.is_available(HT)
    assert "#719" in registry.why_on_cpu(BY_UID[HT])


def test_one_gpu_by_its_index(two_gpus):
    for asked in (1, "1"):
        assert run(frames(2), lossless(HT), plugins=registry.chain(BY_UID[HT], device=asked))
    assert two_gpus.used() == {1}


def test_a_gpu_that_is_not_there_is_an_error(two_gpus, monkeypatch):
    monkeypatch.setattr(
        probe, "_initialise", lambda device: f"There is no GPU {device}: 2 visible" if device > 1 else ""
    )
    with pytest.raises(RuntimeError, match="There is no GPU 2: 2 visible") as caught:
        registry.chain(BY_UID[HT], device=2)
    assert caught.value.code == "device-unavailable"


def test_device_memory_reaches_the_encoder(two_gpus, monkeypatch):
    asked, plain = [], memory.device_budget
    monkeypatch.setattr(memory, "device_budget", lambda *given: asked.append(given[0]) or plain(*given))
    encoder = registry.get_encoder(HT)
    pixels = np.zeros((2, 40, 48), np.uint16)
    list(encoder.iter_encode(pixels, device_memory_bytes=5 << 20))
    encoder.encode(pixels, index=0, device_memory_bytes=6 << 20)
    assert asked == [5 << 20, 6 << 20]
