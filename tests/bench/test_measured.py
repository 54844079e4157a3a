"""What the benchmark found on this machine is kept, believed only there, and used by device="fastest" and doctor."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import gpuenc
from gpuenc import doctor, measured, registry
from gpuenc.bench import phantoms
from gpuenc.bench.cases import frames_of
from gpuenc.cpu import codecs
from gpuenc.cuda import identity
from gpuenc.engine import encode_frames
from gpuenc.errors import DeviceUnavailable
from gpuenc.plugins import Plugin, in_order
from gpuenc.syntaxes import find
from gpuenc.targets import target

HT = "htj2k-lossless"
NAMES = ["NVIDIA Nonesuch 9"]


def results(times, batch=16, syntax=HT, plugin="nvimgcodec", noisy=False):
    """Return as much of the benchmark's results as is kept: a GPU that is so many times as fast, by side."""
    from gpuenc.bench.sweeps import crossovers

    points = [
        {
            "syntax": syntax, "plugin": plugin, "device": "gpu", "side": side, "batch": batch, "status": "measured",
            "mb_s": {}, "over_cores": {"median": one, "noisy": noisy},
        }
        for side, one in times.items()
    ]  # fmt: skip
    return {"sweep": points, "crossovers": crossovers(points), "measured_at": "2026-11-22T10:00:00+00:00"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a machine with a GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(measured, "device_names", lambda: tuple(NAMES))
    measured._known.cache_clear()
    yield tmp_path
    measured._known.cache_clear()


@pytest.mark.parametrize(
    ("times", "pixels", "said"),
    [
        ({64: 0.2, 256: 0.9, 512: 1.5, 1024: 3}, 512**2, "the cores are faster than nvimgcodec for frames below 512²"),
        ({64: 0.2, 256: 0.9}, measured.NEVER, "the cores are faster than nvimgcodec for frames of 64² to 256²"),
        ({64: 1.2, 256: 1.9}, 0, "nvimgcodec is faster than the cores for frames of 64² to 256²"),
    ],
)
def test_what_was_found_is_kept_and_said(times, pixels, said):
    assert measured.findings() == ()
    assert measured.from_pixels(HT, "nvimgcodec") == 0
    measured.keep(results(times))
    assert measured.from_pixels(HT, "nvimgcodec") == pixels
    assert measured.from_pixels("rle", "cuda-rle") == 0
    [one] = measured.findings()
    assert str(one).endswith(said)
    assert ("measured", str(one)) in list(doctor.findings())


def test_the_largest_batch_decides_and_noise_is_said():
    small, large = results({64: 0.1, 512: 0.2}, batch=1), results({64: 0.9, 512: 2.0}, batch=64, noisy=True)
    both = {name: small[name] + large[name] for name in ("sweep", "crossovers")} | {"measured_at": "2026-01-01"}
    measured.keep(both)
    [one] = measured.findings()
    assert (one.batch, one.from_pixels, one.noisy) == (64, 512**2, True)
    assert "noisy" in str(one)


def test_a_new_run_replaces_only_what_it_measured():
    measured.keep(results({64: 0.5, 512: 2}))
    measured.keep(results({64: 3, 512: 4}, syntax="rle", plugin="cuda-rle"))
    measured.keep(results({64: 0.5, 512: 0.6}))
    assert measured.from_pixels(HT, "nvimgcodec") == measured.NEVER
    assert measured.from_pixels("rle", "cuda-rle") == 0
    assert len(measured.findings()) == 2


def test_a_run_without_a_gpu_keeps_nothing(cache):
    assert measured.keep({"sweep": [{"status": "absent"}], "crossovers": []}) is None
    assert list(cache.rglob("*")) == []


def test_another_machine_has_not_measured(monkeypatch):
    path = measured.keep(results({64: 0.5, 512: 2}))
    monkeypatch.setattr(measured, "device_names", lambda: ("NVIDIA Other",))
    assert measured.findings() == ()
    # Not even where its file has this machine's name.
    path.rename(measured._path())
    assert measured.findings() == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "",
        lambda text: text.replace('"from_side": 512', '"from_side": "x"'),
        lambda text: text.replace("gpuenc-measured/1", "gpuenc-measured/9"),
        lambda text: text.replace('"smallest": 64', '"smallest": -1'),
        lambda text: text.replace('"plugin"', '"plug"'),
    ],
)
def test_a_damaged_file_is_as_none(damage):
    path = measured.keep(results({64: 0.5, 512: 2}))
    path.write_text(damage(path.read_text()))
    assert measured.findings() == ()


def test_the_file_has_no_name_of_a_machine_or_user(cache):
    import getpass
    import socket

    text = measured.keep(results({64: 0.5, 512: 2})).read_text()
    assert set(json.loads(text)["machine"]) == {"cpu", "cores", "gpus"}
    for name in (socket.gethostname(), getpass.getuser(), str(cache)):
        assert len(name) < 3 or f'"{name}"' not in text


class Counts(codecs.BatchEncoder):
    """The CPU's encoder in the place of a GPU's."""

    calls = 0

    def encode(self, frames):
        type(self).calls += len(frames)
        return super().encode(frames)


@pytest.mark.parametrize(("side", "by"), [(64, "imagecodecs"), (128, "gpu"), (256, "gpu")])
def test_frames_go_where_they_are_faster(side, by):
    gpu = Plugin("gpu", type("Gpu", (Counts,), {}), "gpu", from_pixels=128 * 128)
    cpu = Plugin("imagecodecs", codecs.BatchEncoder)
    frames = frames_of(phantoms.ct(3, side), 12, "x")
    made = list(encode_frames(iter(frames), target(find(HT)), [gpu, cpu]))
    assert {one.plugin for one in made} == {by}
    assert [one.ref for one in made] == [frame.ref for frame in frames]
    assert list(encode_frames(iter(()), target(find(HT)), [gpu, cpu])) == []


def test_a_slower_gpu_still_takes_what_the_cpu_fails():
    broken = type("Broken", (codecs.BatchEncoder,), {"encode": lambda self, frames: [1 / 0]})
    gpu = Plugin("gpu", codecs.BatchEncoder, "gpu", from_pixels=measured.NEVER)
    [frame] = frames_of(phantoms.ct(1, 64), 12, "x")
    [one] = encode_frames([frame], target(find(HT)), [gpu, Plugin("imagecodecs", broken)])
    assert one.plugin == "gpu"


def test_order_is_kept_where_nothing_was_measured():
    pair = [Plugin("gpu", codecs.BatchEncoder, "gpu"), Plugin("imagecodecs", codecs.BatchEncoder)]
    assert in_order(pair, 1) == tuple(pair)
    assert measured.ranked(HT, pair) == pair
    measured.keep(results({64: 0.5, 512: 2}, plugin="gpu"))
    assert measured.ranked(HT, pair) == [replace(pair[0], from_pixels=512**2), pair[1]]


def test_names_of_gpus_are_the_drivers(monkeypatch):
    class Driver:
        def cuDeviceGetName(self, room, most, index):
            room.value = f"NVIDIA {index}".encode()
            return 101 * (index == 1)

    monkeypatch.setattr(identity.probe, "device_count", lambda: 2)
    monkeypatch.setattr(identity.probe, "driver_library", Driver)
    assert identity.device_names() == ("NVIDIA 0", "")
    monkeypatch.setattr(identity.probe, "device_count", lambda: 0)
    assert identity.device_names() == ()


def test_the_encoder_asks_what_was_measured():
    measured.keep(results({64: 0.5, 512: 2}))
    encoder = gpuenc.get_encoder(HT)
    array = np.arange(64, dtype=np.uint16).reshape(8, 8)
    assert encoder.encode(array, device="fastest") == encoder.encode(array, device="cpu")
    assert list(encoder.iter_encode(array[None], device="fastest")) == [encoder.encode(array, device="cpu")]
    with pytest.raises(DeviceUnavailable):
        encoder.encode(array, device="gpu")
    assert [one.label for one in registry.chain(find("explicit-vr-little-endian"), device="fastest")] == ["native"]
