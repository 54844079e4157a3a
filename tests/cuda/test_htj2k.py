"""The HTJ2K plug-in: its plan, its session under the shim, its lane, and when it is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import HTJ2KLossless

from gpuenc import encoder as encoders
from gpuenc import plugins
from gpuenc.codestream import parse
from gpuenc.coding import coding
from gpuenc.cuda import htj2k, htj2k_plan, memory, probe
from gpuenc.errors import CodecError, GpuencError
from gpuenc.frames import Failure
from gpuenc.plugins import Plugin
from gpuenc.registry import get_encoder
from tests.cuda.test_nvcodec import CPU, CT, FORMATS, HT, RGB, RPCL, assert_right, by, frames, lossless, run
from tests.simt.htj2k import coding as coding_of
from tests.simt.shim import SimtDevice


@pytest.fixture
def own(simt_gpu, monkeypatch):
    """CuPy and a GPU, as far as the plug-in can see."""
    monkeypatch.setattr(probe, "kernels", lambda device=0, name="", check=None: probe.Answer())
    return simt_gpu


def own_plugin(**options):
    return Plugin(htj2k.LABEL, lambda chosen: htj2k.BatchEncoder(chosen, **options), "gpu")


# The plan: what the kernels are told.


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 300), (300, 1), (64, 65), (130, 257), (129, 1000)])
@pytest.mark.parametrize("levels", [0, 1, 2, 5, 10])
@pytest.mark.parametrize("samples", [1, 3])
def test_blocks_cover_every_coefficient_once(rows, columns, levels, samples):
    plan = htj2k_plan.plan(coding_of((rows, columns, 3)[: 2 + samples // 2], 12, levels=levels))
    covered = np.zeros(int(plan.layout["frame_coefficients"][0]), np.uint8)
    for block in plan.blocks:
        assert block["offset"] % 2 == block["stride"] % 2 == 0
        assert 1 <= block["columns"] <= 64
        assert 1 <= block["rows"] <= 64
        for row in range(block["rows"]):
            start = int(block["offset"]) + row * int(block["stride"])
            covered[start : start + int(block["columns"])] += 1
    assert covered.max() == 1
    assert covered.sum() == rows * columns * samples
    assert len(plan.packets) == (levels + 1) * samples
    assert plan.packets["blocks"].sum() == len(plan.blocks)
    assert np.array_equal(np.repeat(np.arange(len(plan.packets)), plan.packets["blocks"]), plan.blocks["packet"])
    ends = [*plan.packets["header"][1:].tolist(), int(plan.layout["header_bytes"][0])]
    for packet, end in zip(plan.packets, ends, strict=True):  # T.800 B.10: at most some bytes for each block
        assert end - packet["header"] >= 40 + 10 * packet["blocks"]


def test_sizes_are_known_before_anything_is_launched():
    wanted = coding_of((512, 512), 16)
    plan = htj2k_plan.plan(wanted)
    assert htj2k_plan.plan(replace(wanted)) is plan
    scratch = plan.scratch(7)
    assert sum(count * np.dtype(dtype).itemsize for count, dtype in scratch.values()) == 7 * plan.frame_bytes
    assert plan.frame_bytes < 13 * 512 * 512
    assert len(plan.launches(7)) == 5 + 4
    names = {*plan.tables(), *scratch, "frames", "samples", "faults"}
    assert {name for launch in plan.launches(7) for name in launch.arguments} == names


def test_a_large_image_is_planned():
    wanted = coding_of((40000, 12000), 16, levels=10)
    assert htj2k_plan.refusal(wanted) == ""
    plan = htj2k_plan.plan(wanted)
    assert len(plan.blocks) >= 40000 * 12000 // 4096
    assert plan.most_frames * (len(plan.blocks) + len(plan.packets) + 1) <= 1 << 31


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"lossless": False}, "lossless"),
        ({"precision": 17, "cell_bits": 32}, "at most 16 bits"),
        ({"samples": 4}, "1 or 3 samples"),
        ({"rows": 40000, "columns": 40000}, "too large"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused(change, why):
    wanted = coding_of((40, 48), 12)
    assert htj2k_plan.refusal(wanted) == ""
    assert why in htj2k_plan.refusal(replace(wanted, **change))


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((1, 40, 48), np.uint8), np.zeros((1, 40, 48), np.int16), np.zeros((1, 48, 40), np.uint16),
        np.zeros((40, 48), np.uint16), np.zeros((1, 40, 48), np.float16),
    ],
    ids=["cells", "sign", "shape", "axes", "kind"],
)  # fmt: skip
def test_samples_that_are_not_the_codings_are_an_error(samples):
    device = SimtDevice()
    with pytest.raises(ValueError, match="are not frames of"):
        htj2k.Pipeline(device, 1 << 30).encode(device.put(samples), coding_of((40, 48), 12))
    assert device.launched == []


def test_tables_are_uploaded_once_and_not_kept_for_ever(monkeypatch):
    device = SimtDevice()
    uploads = []
    upload = device.upload
    monkeypatch.setattr(device, "upload", lambda values: uploads.append(1) or upload(values))
    pipeline = htj2k.Pipeline(device, 1 << 30)
    wanted = coding_of((4, 5), 8, levels=1)
    for _ in range(2):
        pipeline.encode(device.put(np.zeros((1, 4, 5), np.uint8)), wanted)
    assert len(uploads) == len(htj2k_plan.plan(wanted).tables())
    for columns in range(6, 30):
        pipeline.encode(device.put(np.zeros((1, 4, columns), np.uint8)), coding_of((4, columns), 8, levels=1))
    assert len(pipeline._tables) == htj2k._KEPT_TABLES
    pipeline.trim()
    assert not pipeline._tables


# The session and the lane.


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("uid", [HT, RPCL])
def test_every_format_of_the_table_comes_back(own, uid, fmt):
    batch = frames(3, fmt)
    results = run(batch, lossless(uid), plugins=[own_plugin(), CPU])
    assert by(results) == ["cuda-htj2k"] * 3
    assert_right(results, batch, lossless(uid))
    assert own.workspaces[0].closed
    assert not own.calls  # of nvImageCodec


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 65), (64, 64), (65, 64), (200, 3), (130, 129)])
def test_base_resolutions_and_lengths_of_202(own, rows, columns):
    batch = frames(2, replace(CT, rows=rows, columns=columns))
    results = run(batch, lossless(RPCL), plugins=[own_plugin(), CPU])
    assert by(results) == ["cuda-htj2k"] * 2
    assert_right(results, batch, lossless(RPCL))
    for result in results:
        info = parse(result.codestream, "htj2k")
        assert max(-(-rows >> info.levels), -(-columns >> info.levels)) <= 64
        assert (info.progression, info.tlm_matches, info.precision) == ("RPCL", True, 12)


def test_single_bits_come_back(own):
    fmt = replace(CT, bits_allocated=1, bits_stored=1, high_bit=0)
    rng = np.random.default_rng(0)
    batch = [replace(frame, format=fmt, pixels=rng.integers(0, 256, 240, np.uint8)) for frame in frames(2)]
    results = run(batch, lossless(HT), plugins=[own_plugin(), CPU])
    assert_right(results, batch, lossless(HT))
    assert by(results) == ["cuda-htj2k"] * 2


def test_what_is_wrong_with_a_frame_is_its_own(own):
    batch = frames(5)
    batch[1] = replace(batch[1], pixels=batch[1].pixels[:-1])
    stray = batch[3].pixels.copy()
    stray[1] |= 0x80
    batch[3] = replace(batch[3], pixels=stray)
    encoder = htj2k.BatchEncoder(lossless(HT))
    results = encoder.encode(batch)
    encoder.close()
    assert [getattr(one, "code", "right") for one in results] == [
        "right", "truncated", "right", "values-outside-bits-stored", "right",
    ]  # fmt: skip
    good = [0, 2, 4]
    assert_right([results[place] for place in good], [batch[place] for place in good], lossless(HT))


def test_a_batch_of_wrong_frames_launches_nothing_of_htj2k(own):
    batch = [replace(frame, pixels=frame.pixels[:7]) for frame in frames(2)]
    encoder = htj2k.BatchEncoder(lossless(HT))
    assert {one.code for one in encoder.encode(batch)} == {"truncated"}
    assert own.workspaces[0].kernels.launched == []
    encoder.close()


def test_a_frame_beyond_the_lanes_memory_is_refused(own):
    wanted = coding(lossless(HT), CT)
    need = memory.device_bytes(CT, wanted) + htj2k_plan.plan(wanted).frame_bytes
    [made] = htj2k.BatchEncoder(lossless(HT), memory_bytes=need).encode(frames(1))
    assert not isinstance(made, Failure)
    [refused] = htj2k.BatchEncoder(lossless(HT), memory_bytes=need - 1).encode(frames(1))
    assert (refused.code, refused.plugin) == ("device-refused", "cuda-htj2k")
    assert f"needs {need} bytes" in refused.reason


def test_a_small_memory_makes_several_sets_of_launches(own):
    need = htj2k.BatchEncoder(lossless(HT)).device_bytes(CT, coding(lossless(HT), CT))
    encoder = htj2k.BatchEncoder(lossless(HT), memory_bytes=4 * need)
    batch = frames(4)
    assert_right(encoder.encode(batch), batch, lossless(HT))
    encoder.close()
    assert own.workspaces[0].kernels.launched.count("gather") > 1


def test_memory_that_does_not_suffice_halves_the_batch(own, monkeypatch):
    pipeline_encode, asked = htj2k.Pipeline.encode, []

    def encode(self, samples, wanted):
        count = samples.__cuda_array_interface__["shape"][0]
        asked.append(count)
        if count > 2:
            raise MemoryError
        return pipeline_encode(self, samples, wanted)

    monkeypatch.setattr(htj2k.Pipeline, "encode", encode)
    batch = frames(4)
    results = run(batch, lossless(HT), plugins=[own_plugin(), CPU])
    assert by(results) == ["cuda-htj2k"] * 4
    assert asked == [4, 2, 2]
    assert own.workspaces[0].trimmed == 1


def test_frames_of_other_targets_are_refused(own):
    fmt = replace(CT, bits_allocated=32, bits_stored=20, high_bit=19)
    batch = [replace(frame, format=fmt, pixels=np.zeros(4 * 40 * 48, np.uint8)) for frame in frames(1)]
    [refused] = htj2k.BatchEncoder(replace(lossless(HT), strict=False)).encode(batch)
    assert (refused.code, "at most 16 bits" in refused.reason) == ("device-refused", True)


def test_without_cupy_there_is_no_session(monkeypatch):
    monkeypatch.setattr(memory, "open_workspace", lambda device: None)
    with pytest.raises(CodecError, match="need CuPy") as caught:
        htj2k.Session(0, 1 << 20)
    assert caught.value.code == "device-unavailable"


# Whether it works is found out by doing it.


def test_the_check_of_a_device_passes_where_the_kernels_work():
    assert htj2k.works(SimtDevice()) == ""


class Liar(SimtDevice):
    """A device that spoils a byte of what it returns."""

    place = 0

    def download(self, array):
        values = super().download(array)
        if values.dtype == np.uint8:
            values[self.place] ^= 0x10
        return values


@pytest.mark.parametrize(("place", "why"), [(0, "not what was asked for"), (3000, "do")])
def test_the_check_of_a_device_finds_what_is_wrong(monkeypatch, place, why):
    monkeypatch.setattr(Liar, "place", place)
    assert why in htj2k.works(Liar())


def test_places_beyond_the_output_are_not_believed(monkeypatch):
    device = SimtDevice()
    download = device.download
    monkeypatch.setattr(device, "download", lambda array: download(array) | np.uint64(1 << 40))
    with pytest.raises(CodecError, match="1 frames have") as caught:
        htj2k.Pipeline(device, 1).encode(device.put(np.zeros((1, 4, 5), np.uint8)), coding_of((4, 5), 8, levels=1))
    assert caught.value.code == "kernel-disagrees"


def test_the_check_of_a_device_tells_of_a_refusal(monkeypatch):
    monkeypatch.setattr(htj2k.Pipeline, "encode", lambda self, samples, wanted: [GpuencError("no")])
    assert htj2k.works(SimtDevice()) == "no"


def test_a_session_asks_the_same(own):
    session = htj2k.Session(0, 1 << 20)
    assert session.wrong() == ""
    session.trim()
    assert own.workspaces[0].trimmed == 1
    session.close()
    assert own.workspaces[0].closed


def test_availability_is_that_of_the_kernels(monkeypatch):
    asked = []

    def kernels(device=0, name="", check=None):
        asked.append((device, name, check))
        return probe.Answer("no CuPy")

    monkeypatch.setattr(probe, "kernels", kernels)
    assert not htj2k.is_available(HT)
    assert htj2k.why_unavailable(RPCL, 1) == "no CuPy"
    assert asked == [(0, "cuda-htj2k", htj2k.works), (1, "cuda-htj2k", htj2k.works)]
    assert not htj2k.is_available("1.2.840.10008.1.2.4.203")
    assert len(asked) == 2
    [failure] = htj2k.BatchEncoder(lossless(HT)).encode(frames(1))
    assert (failure.code, failure.reason) == ("device-unavailable", "no CuPy")


# Chosen by its label, and not otherwise.


@pytest.mark.parametrize("uid", [HT, RPCL])
def test_it_is_the_last_of_the_default_plugins(uid):
    labels = [path.label for path in plugins.default_plugins(uid)]
    assert labels == ["nvimgcodec", "imagecodecs", "cuda-htj2k"]
    assert "cuda-htj2k" not in [path.label for path in plugins.default_plugins("1.2.840.10008.1.2.4.203")]


def test_it_is_used_by_label_only(own):
    encoder = encoders.Encoder(HTJ2KLossless)
    encoder.add_plugin("cuda-htj2k", ("gpuenc.cuda.htj2k", "encode_frame"))
    encoder.add_plugin("imagecodecs", ("gpuenc.cpu.codecs", "encode_frame"))
    assert encoder.labels == ("cuda-htj2k", "imagecodecs")
    assert [plugin.label for plugin in encoder.chain()] == ["imagecodecs"]
    assert [plugin.label for plugin in encoder.chain("cuda-htj2k")] == ["cuda-htj2k"]
    with pytest.raises(RuntimeError, match="cannot be encoded on a GPU"):
        encoder.chain(device="gpu")
    pixels = np.random.default_rng(0).integers(0, 4096, (70, 80)).astype(np.uint16)
    options = {"bits_stored": 12, "photometric_interpretation": "MONOCHROME2"}
    described = {
        "rows": 70, "columns": 80, "samples_per_pixel": 1, "number_of_frames": 1, "bits_allocated": 16,
        "pixel_representation": 0, **options,
    }  # fmt: skip
    by_label = encoder.encode(pixels.tobytes(), encoding_plugin="cuda-htj2k", **described)
    assert b"\xff\x55" in by_label[:120]  # TLM, which the CPU codec does not write for .201
    assert by_label != encoder.encode(pixels.tobytes(), **described)


def test_the_registry_has_it(own, monkeypatch):
    monkeypatch.setattr("gpuenc.registry._ENCODERS", {})
    assert get_encoder(RPCL).chain("cuda-htj2k")[0].label == "cuda-htj2k"
    assert "cuda-htj2k" not in [plugin.label for plugin in get_encoder(RPCL).chain()]


def test_one_frame_the_way_pydicom_asks(own):
    from types import SimpleNamespace

    [frame] = frames(1, RGB)
    options = {
        "transfer_syntax_uid": HT, "rows": 40, "columns": 48, "samples_per_pixel": 3, "bits_allocated": 8,
        "bits_stored": 8, "pixel_representation": 0, "photometric_interpretation": "RGB", "number_of_frames": 1,
        "planar_configuration": 0,
    }  # fmt: skip
    made = htj2k.encode_frame(frame.pixels.tobytes(), SimpleNamespace(options=options))
    htj2k._SINGLE.close()
    assert parse(made, "htj2k").samples == 3
