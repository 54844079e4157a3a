"""Errors sorted; calls that never return; sizes known beforehand."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from gpuenc.coding import coding
from gpuenc.cuda import health, memory
from gpuenc.errors import CodecError, InvalidOption
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.cuda import fake_nvimgcodec as fake


class CupyError(RuntimeError):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA Runtime failure: '#2' at a.cpp:3"), "memory"),
        (RuntimeError("CUDA Runtime failure '#2' at a.cpp:3"), "memory"),
        (RuntimeError("nvImageCodec failure: '#5'"), "memory"),
        (RuntimeError("nvImageCodec failure: '#15'"), "memory"),
        (MemoryError("Out of memory allocating 9 bytes"), "memory"),
        (CupyError(2, "cudaErrorMemoryAllocation: out of memory"), "memory"),
        (RuntimeError("CUDA Runtime failure: '#700' at a.cpp:3"), "lost"),
        (CupyError(719, "cudaErrorLaunchFailure: unspecified launch failure"), "lost"),
        (RuntimeError("CUDA Runtime failure: '#100' at a.cpp:3"), "lost"),
        (health.Hung("no answer"), "lost"),
        # The framework's own numbers are no CUDA errors: 2 is an invalid parameter, 100 and 700 do not exist.
        (RuntimeError("nvImageCodec failure: '#2'"), "error"),
        (RuntimeError("nvImageCodec failure: '#8'"), "error"),
        (RuntimeError("CUDA Runtime failure: '#1' at a.cpp:3"), "error"),
        (RuntimeError("CUDA Runtime failure: '#701' at a.cpp:3"), "error"),
        (CupyError(1, "an illegal argument that says: out of memory"), "error"),
        (KeyError("x"), "error"),
        (RuntimeError(), "error"),
    ],
    ids=repr,
)
def test_errors_are_sorted(error, kind):
    fault = health.classify(error)
    assert fault.kind == kind
    assert fault.reason
    assert "\n" not in fault.reason


def test_a_worker_returns_and_raises_what_its_calls_do_all_on_one_thread():
    worker = health.Worker("w")
    names = {worker.call(lambda: threading.current_thread().name, 5) for _ in range(3)}
    assert names == {"w"}
    with pytest.raises(KeyError, match="x"):
        worker.call(lambda: {}["x"], 5)
    with pytest.raises(TimeoutError):  # the call's own, which is no hang
        worker.call(lambda: (_ for _ in ()).throw(TimeoutError()), 5)
    assert worker.call(lambda: 7, 5) == 7
    worker.close()
    assert "w" not in {thread.name for thread in threading.enumerate()}


def test_a_worker_that_hangs_is_left_behind_and_asked_no_more():
    gate = threading.Event()
    worker = health.Worker("w")
    with pytest.raises(health.Hung, match="within"):
        worker.call(lambda: gate.wait(30), 0.05)
    with pytest.raises(health.Hung, match="earlier"):
        worker.call(lambda: 7, 5)
    worker.close()
    gate.set()


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("2G", 2 << 30), ("512 MiB", 512 << 20), ("1.5g", 3 << 29), ("64kb", 64 << 10), ("", 250)],
)
def test_the_budget_from_the_environment(monkeypatch, text, size):
    monkeypatch.setenv(memory.DEVICE_MEMORY, text)
    assert memory.device_budget(None, lambda: 1000) == size
    assert memory.device_budget(77, lambda: 1000) == 77


@pytest.mark.parametrize("text", ["much", "-1", "2X", "1 G B"])
def test_a_budget_that_is_no_size_is_an_error_that_names_the_variable(monkeypatch, text):
    monkeypatch.setenv(memory.DEVICE_MEMORY, text)
    with pytest.raises(InvalidOption, match="GPUENC_DEVICE_MEMORY"):
        memory.device_budget()


@pytest.mark.parametrize("budget", [1, 1 << 20, 100 << 20, 512 << 20, 1 << 30, 20 << 30])
def test_lanes_together_stay_within_the_budget(budget):
    limits = memory.limits(budget)
    assert limits.lanes >= 1
    assert limits.bytes == 1 or limits.lanes * limits.bytes * 4 <= budget
    assert limits.lanes * limits.bytes * 2.25 <= memory.PINNED_BYTES
    assert memory.limits(budget, 8).bytes in (1, limits.bytes // 2, limits.bytes)


def test_frames_lie_aligned_in_one_buffer():
    starts, total = memory.offsets([1, 256, 257, 0, 5])
    assert starts == [0, 256, 512, 1024, 1024]
    assert total == 1280


def test_views_are_the_frames_of_an_array():
    whole = memory.View(4096, (3, 5, 7), "<u2", 9)
    views = memory.split(whole, 9)
    assert [view.address for view in views] == [4096, 4096 + 70, 4096 + 140]
    assert all(view.shape == (5, 7) and view.owner is whole for view in views)
    assert views[0].__cuda_array_interface__["stream"] == 9
    assert "stream" not in memory.View(1, (2,), "|u1").__cuda_array_interface__


@pytest.mark.parametrize("noise_bits", [8, 12, 16])
def test_noise_fits_the_room_that_a_codestream_gets(noise_bits):
    import imagecodecs

    fmt = FrameFormat(64, 200, 1, 16, noise_bits, False, "MONOCHROME2")
    wanted = coding(target(find("htj2k-lossless")), fmt)
    noise = np.random.default_rng(1).integers(0, 1 << noise_bits, (64, 200)).astype(f"u{wanted.cell_bits // 8}")
    size = len(imagecodecs.htj2k_encode(noise, reversible=True, bitspersample=noise_bits, resolutions=5))
    assert size <= memory.codestream_bytes(wanted)


def test_streams_are_pinned_within_the_limit_and_ordinary_beyond():
    slots = memory.Slots(fake, 1000)
    taken = slots.take(4, 300)
    assert [slot.pin_memory for slot in taken] == [True, True, True, False]
    assert slots.take(2, 200) == taken[:2]
    larger = slots.take(1, 400)
    assert larger[0] is not taken[0]
    assert larger[0].capacity == 400


def test_streams_where_nothing_can_be_pinned():
    class Unpinnable:
        @staticmethod
        def CodeStream(size, pin):
            if pin:
                raise RuntimeError("Unable to get device count")
            return fake.CodeStream(size, pin)

    assert [slot.pin_memory for slot in memory.Slots(Unpinnable, 1000).take(2, 10)] == [False, False]


def test_a_thread_that_was_stopped_is_not_waited_for():
    worker = health.Worker("gpuenc-test")
    worker.close()
    with pytest.raises(health.Stopped):
        worker.call(lambda: 1, 60)


def test_a_run_that_is_collected_with_its_thread_does_not_wait_for_it():
    """The collector stops the thread first, and then closes the generator, whose end calls it once more."""
    said = []

    class Lane:
        def __init__(self):
            self.worker = health.Worker("gpuenc-test")
            self.run = self.frames()
            next(self.run)

        def frames(self):
            try:
                yield 1
            finally:
                try:
                    self.worker.call(lambda: said.append("called"), 60)
                except CodecError as error:
                    said.append(type(error))
                self.worker.close()

    lane = Lane()
    thread = lane.worker._thread
    del lane
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert said in ([health.Stopped], ["called"])
