"""An archive of many small files on a device that is scripted: few batches, and the outputs that a CPU gives."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from gpuenc.archive.budget import PEAK_FACTOR, ByteBudget, file_threads
from gpuenc.cpu import codecs
from gpuenc.cuda import nvcodec
from gpuenc.gathering import Gathering
from gpuenc.plugins import Limits, Plugin
from gpuenc.registry import chain
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import transcode
from tests.cuda.conftest import clean, gpu  # noqa: F401 - fixtures

HT = target(find("htj2k-lossless"))
CPU = chain(HT.syntax, "imagecodecs", device="cpu")
FILES = 300


class Everybody:
    """Holds each batch until all file threads wait, or no file is left to come: then counts depend on no clock."""

    def __init__(self, jobs):
        self.jobs, self.inside, self.files = jobs, 0, 0
        self.lock = threading.Lock()

    def hold(self, batch, gathering):
        with self.lock:
            self.inside += len(batch)
            self.files += sum(one.ref.index == 0 for one in batch)
        end = time.monotonic() + 30
        while not self._here(gathering):
            assert time.monotonic() < end, "they do not come"
            time.sleep(0.002)
        with self.lock:
            self.inside -= len(batch)

    def _here(self, gathering):
        waiting = []
        for pool in [pool for gathered in gathering._gathered for pool in list(gathered._pools.values())]:
            with pool._changed:
                waiting += [one for queue in pool._waiting.values() for call in queue for one in call.frames]
        files = self.files + sum(one.ref.index == 0 for one in waiting)
        return self.inside + len(waiting) >= self.jobs or files == FILES


class Device:
    """The CPU's encoder, called a GPU: each batch takes a while, whatever its size, and may fail as `fails` says."""

    limits = Limits(frames=64, bytes=64 << 20, lanes=2, peak_factor=4.5)

    def __init__(self, fails=lambda batch: False):
        self.fails, self.batches, self.opened, self.closed = fails, [], 0, 0
        self.lock = threading.Lock()

    def plugin(self):
        return Plugin("device", self.open, "gpu")

    def open(self, chosen):
        with self.lock:
            self.opened += 1
        owner, real = self, codecs.BatchEncoder(chosen)

        class Encoder:
            limits = owner.limits

            def encode(self, batch):
                with owner.lock:
                    owner.batches.append(len(batch))
                time.sleep(0.03)
                if owner.fails(batch):
                    raise RuntimeError("the device is gone")
                return real.encode(batch)

            def close(self):
                with owner.lock:
                    owner.closed += 1

        return Encoder()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Slices of two formats, one file of several frames among them, and what the CPU makes of them."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "in").mkdir()
    made.series(folder / "in", FILES - 20)
    for number in range(19):
        made.of(made.noise((1, 12, 20), "u1", seed=number)).write(folder / "in" / f"b{number:02}.dcm")
    made.of(made.noise((9, 16, 16), "u2")).write(folder / "in" / "c.dcm")
    transcode(folder / "in", folder / "cpu")
    return folder


def outputs(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_many_files_are_few_batches_and_the_same_outputs(archive, tmp_path):
    everybody = Everybody(100)
    device = Device(lambda batch: everybody.hold(batch, gathering))
    with Gathering([device.plugin(), *CPU]) as gathering:
        records = transcode(archive / "in", tmp_path / "out", jobs=100, plugins=gathering.plugins)
    assert {record.status for record in records} == {"encoded"}
    assert all(set(record.plugins) == {"device"} and record.verified and not record.fallbacks for record in records)
    assert outputs(tmp_path / "out") == outputs(archive / "cpu")
    assert len(outputs(tmp_path / "out")) == FILES
    assert sum(device.batches) == FILES + 8
    assert len(device.batches) <= FILES // 5
    assert device.opened == device.closed <= 2


def test_a_device_that_fails_a_batch_costs_its_files_nothing_but_time(archive, tmp_path):
    failed = []

    def fails(batch):
        failed.append(len(batch) if len(device.batches) % 3 == 0 else 0)
        return bool(failed[-1])

    device = Device(fails)
    with Gathering([device.plugin(), *CPU]) as gathering:
        records = transcode(archive / "in", tmp_path / "out", jobs=60, plugins=gathering.plugins)
    assert sum(record.plugins.get("imagecodecs", 0) for record in records) == sum(failed) > 1
    assert sum(record.fallbacks.get("device: plugin-error", 0) for record in records) == sum(failed)
    assert outputs(tmp_path / "out") == outputs(archive / "cpu")


def test_stopped_while_files_wait_for_the_device(archive, tmp_path):
    stop, device = threading.Event(), Device(lambda batch: stop.set())
    with Gathering([device.plugin(), *CPU]) as gathering:
        records = transcode(archive / "in", tmp_path / "out", stop=stop, jobs=40, plugins=gathering.plugins)
    assert len(records) < FILES
    assert len(outputs(tmp_path / "out")) == len(records)
    assert device.opened == device.closed > 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpuenc-")]


def test_memory_for_few_files_makes_small_batches_and_no_deadlock(archive, tmp_path):
    device = Device()
    with Gathering([device.plugin(), *CPU]) as gathering:
        options = {"jobs": 40, "budget": ByteBudget(16 * 16 * 2 * PEAK_FACTOR * 5), "plugins": gathering.plugins}
        records = transcode(archive / "in", tmp_path / "out", **options)
    assert {record.status for record in records} == {"encoded"}
    # Five files of one frame, or one of several with two at a time.
    assert 1 < max(device.batches) <= 2 * 5


def test_nvimgcodec_gets_batches_of_files(gpu, archive, tmp_path, monkeypatch):  # noqa: F811
    batches, everybody = [], Everybody(100)
    right = nvcodec.Session.encode

    def counted(self, frames, wanted):
        batches.append(len(frames))
        everybody.hold(frames, gathering)
        return right(self, frames, wanted)

    monkeypatch.setattr(nvcodec.Session, "encode", counted)
    real = Plugin(nvcodec.LABEL, nvcodec.BatchEncoder, "gpu")
    with Gathering([real, *CPU]) as gathering:
        records = transcode(archive / "in", tmp_path / "out", jobs=100, plugins=gathering.plugins)
    assert all(set(record.plugins) == {"nvimgcodec"} and record.verified for record in records)
    assert sum(batches) == FILES + 8
    assert len(batches) <= FILES // 5
    for name in ("0000.dcm", "0279.dcm", "b07.dcm", "c.dcm"):
        got, cells = (pydicom.dcmread(archive.parent / p / name) for p in (tmp_path / "out", archive / "in"))
        assert np.array_equal(got.pixel_array, cells.pixel_array)


def test_how_many_files_at_once():
    device, size = Device(), 512 * 512 * 2
    with Gathering([device.plugin(), *CPU]) as gathering:
        # Two lanes of 64 frames, and those that are read or written meanwhile.
        assert file_threads(gathering.plugins, HT, 1 << 40, cores=4) == 2 * 64 + 6
        assert file_threads(gathering.plugins, HT, 50 * PEAK_FACTOR * size, cores=4) == 50
        assert file_threads(gathering.plugins, HT, 1, cores=4) == 6
        # 64 MiB are 8 frames of 8 MiB; one that is larger than a batch is one all the same.
        assert file_threads(gathering.plugins, HT, 1 << 40, cores=4, frame_bytes=8 << 20) == 2 * 8 + 6
        assert file_threads(gathering.plugins, HT, 1 << 40, cores=4, frame_bytes=1 << 30) == 2 + 6
    assert device.opened == device.closed == 1
    assert file_threads(CPU, HT, 1 << 40, cores=4) == 6
    assert file_threads([device.plugin()], HT, 1 << 40, cores=4) == 2 * 64 + 6
    assert device.opened == device.closed == 2
    broken = Plugin("broken", lambda _: 1 / 0, "gpu")
    assert file_threads([broken, *CPU], HT, 1 << 40, cores=4) == 6
    assert file_threads([broken], replace(HT, whole_cells=True), 1 << 40, cores=4) == 6
