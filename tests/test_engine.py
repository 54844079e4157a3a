"""The engine's policy under scripted plug-ins: nothing lost, nothing believed, order kept, lanes gone at the end."""

import gc
import random
import threading
import time
import zlib
from itertools import islice

import numpy as np
import pytest

from gpuenc import chain, engine
from gpuenc.errors import EncodeFailed
from gpuenc.frames import Encoded, Failure, Frame, FrameFormat, FrameRef
from gpuenc.plugins import Limits, Plugin
from gpuenc.syntaxes import find
from gpuenc.targets import target

# Raw deflate needs no codec of ours, so these tests stand on zlib alone.
TARGET = target(find("deflated-image-frame"))
FORMAT = FrameFormat(16, 16, 1, 16, 16, False, "MONOCHROME2")


def frames(count, fmt=FORMAT):
    rng = np.random.default_rng(1)
    for index in range(count):
        yield Frame(FrameRef("test", index), fmt, rng.integers(0, 256, fmt.frame_bytes, np.uint8))


def deflate(frame):
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(frame.pixels.tobytes()) + packer.flush()


def inflate(codestream):
    return np.frombuffer(zlib.decompress(codestream, -15), np.uint8)


class Scripted:
    """A plug-in that does as `script(frame)` says, and remembers what it was given."""

    def __init__(self, label, script=deflate, *, limits=None, whole=None):
        self.label, self.script, self.whole = label, script, whole
        self.limits = limits or Limits(frames=4, bytes=1 << 20, lanes=4, peak_factor=2.0)
        self.opened = self.closed = 0
        self.seen = []
        self.lock = threading.Lock()

    def plugin(self):
        return Plugin(self.label, self.open)

    def open(self, _target):
        with self.lock:
            self.opened += 1
        return _Encoder(self)


class _Encoder:
    def __init__(self, owner):
        self.owner, self.limits = owner, owner.limits

    def encode(self, batch):
        with self.owner.lock:
            self.owner.seen.append([frame.ref.index for frame in batch])
        if self.owner.whole:
            return self.owner.whole(batch)
        return [self._one(frame) for frame in batch]

    def _one(self, frame):
        made = self.owner.script(frame)
        return made if isinstance(made, Failure) else Encoded(frame.ref, made, "whatever it says")

    def close(self):
        with self.owner.lock:
            self.owner.closed += 1


def refuse(frame):
    return Failure(frame.ref, "codec-error", "x", "no")


def run(count, *plugins, fmt=FORMAT, **options):
    return list(engine.encode_frames(frames(count, fmt), TARGET, [p.plugin() for p in plugins], **options))


def assert_right(results, count, fmt=FORMAT):
    assert [r.ref.index for r in results] == list(range(count))
    for result, frame in zip(results, frames(count, fmt), strict=True):
        assert isinstance(result, Encoded), result
        assert np.array_equal(inflate(result.codestream), frame.pixels)


def lane_threads():
    return [t for t in threading.enumerate() if t.name.startswith("gpuenc-lane")]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 64])
def test_every_frame_comes_back_in_order(count, threads):
    rng = random.Random(3)

    def slowly(frame):
        time.sleep(rng.random() * 0.003)
        return deflate(frame)

    plugin = Scripted("a", slowly)
    assert_right(run(count, plugin, threads=threads), count)
    assert plugin.opened == plugin.closed
    assert not lane_threads()


@pytest.mark.parametrize("threads", [1, 3])
def test_failed_frames_go_to_the_next_plugin_and_only_they(threads):
    bad = {0, 5, 6, 17}
    first = Scripted("first", lambda f: refuse(f) if f.ref.index in bad else deflate(f))
    second = Scripted("second")
    results = run(20, first, second, threads=threads)
    assert_right(results, 20)
    assert {r.ref.index for r in results if r.plugin == "second"} == bad
    assert sorted(i for batch in second.seen for i in batch) == sorted(bad)
    for result in results:
        assert [f.plugin for f in result.refused] == (["x"] if result.ref.index in bad else [])


def test_garbage_is_caught_by_verification_and_replaced():
    def garbage(frame):
        other = zlib.compressobj(1, zlib.DEFLATED, -15)
        cells = frame.pixels.copy()
        cells[7] ^= 1
        return other.compress(cells.tobytes()) + other.flush()

    results = run(9, Scripted("liar", garbage), Scripted("honest"), verify="all")
    assert_right(results, 9)
    assert all(r.plugin == "honest" and r.verified for r in results)
    assert {r.refused[0].code for r in results} == {"verify-mismatch"}
    assert "1 of" in results[0].refused[0].reason


def test_without_verification_nothing_is_called_verified():
    assert not any(r.verified for r in run(3, Scripted("a")))


def test_output_that_is_no_codestream_at_all_is_a_failure_not_a_crash():
    results = run(3, Scripted("liar", lambda _: b"\xff\xff\xff"), Scripted("honest"), verify="all")
    assert_right(results, 3)
    assert {r.refused[0].code for r in results} == {"undecodable"}


@pytest.mark.parametrize(
    "whole",
    [
        lambda batch: 1 / 0,
        lambda batch: [],
        lambda batch: [Encoded(batch[0].ref, b"x", "a")] * (len(batch) + 1),
        lambda batch: None,
        lambda batch: 7,
        lambda batch: (Encoded(f.ref, deflate(f), "a") for f in batch),
        lambda batch: [None] * len(batch),
        lambda batch: [deflate(f) for f in batch],
        lambda batch: [Encoded(f.ref, None, "a") for f in batch],
        lambda batch: [Failure(f.ref, [], "a", None) for f in batch],
    ],
    ids=[
        "raises",
        "too few",
        "too many",
        "None",
        "a number",
        "a generator",
        "Nones",
        "bytes",
        "Encoded of None",
        "Failure of junk",
    ],
)
def test_a_plugin_that_breaks_the_contract_loses_no_frame(whole):
    results = run(10, Scripted("broken", whole=whole), Scripted("honest"))
    assert_right(results, 10)
    assert {r.refused[0].code for r in results} == {"plugin-error"}


def test_a_failure_is_of_the_frame_that_was_given_whatever_it_says():
    elsewhere = FrameRef("elsewhere", 7)
    results = run(3, Scripted("a", lambda f: Failure(elsewhere, "codec-error", "a", "no")))
    assert [r.ref for r in results] == [f.ref for f in frames(3)]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_plugin_that_cannot_be_opened_is_passed_over(threads):
    def explode(_target):
        raise OSError("no such library")

    honest = Scripted("honest", limits=Limits(frames=2, bytes=1 << 20, lanes=3, peak_factor=2.0))
    plugins = [Plugin("broken", explode), honest.plugin()]
    results = list(engine.encode_frames(frames(12), TARGET, plugins, threads=threads))
    assert_right(results, 12)
    assert {(r.refused[0].code, r.refused[0].plugin) for r in results} == {("plugin-error", "broken")}
    assert "no such library" in results[0].refused[0].reason
    assert max(len(batch) for batch in honest.seen) == 2
    assert honest.opened == honest.closed > 0


def test_when_no_plugin_can_be_opened_each_frame_fails():
    class WithoutLimits:
        limits = None

    plugins = [Plugin("a", lambda _: 1 / 0), Plugin("b", lambda _: WithoutLimits())]
    results = list(engine.encode_frames(frames(3), TARGET, plugins))
    assert [r.ref.index for r in results] == [0, 1, 2]
    assert all(isinstance(r, Failure) and r.plugin == "a, b" for r in results)


@pytest.mark.parametrize("where", ["check", "pad_even"])
def test_what_a_check_did_not_foresee_is_that_plugins_failure(monkeypatch, where):
    def surprised(*_args):
        raise IndexError("far out")

    monkeypatch.setattr(chain, where, surprised)
    jpeg_ls = target(find("jpeg-ls-lossless"))
    plugin = Scripted("a", lambda f: b"\xff\xd8")
    if where == "pad_even":
        monkeypatch.setattr(chain, "check", lambda *_args: None)
    results = list(engine.encode_frames(frames(2), jpeg_ls, [plugin.plugin()]))
    assert [(r.code, "far out" in r.reason) for r in results] == [("plugin-error", True)] * 2


@pytest.mark.parametrize("threads", [1, 3])
def test_an_encoder_that_fails_to_close_harms_nobody(monkeypatch, threads):
    monkeypatch.setattr(_Encoder, "close", lambda self: 1 / 0)
    assert_right(run(12, Scripted("a"), threads=threads), 12)


def test_a_run_that_ends_in_one_of_its_own_threads_closes_its_lanes():
    held, errors = [], []
    second, go, done = threading.Event(), threading.Event(), threading.Event()

    def drop_the_run(frame):
        if not frame.ref.index:
            second.wait(5)  # or the first result would come before there is another batch
        second.set()
        if frame.ref.index and go.wait(5) and held:
            try:
                held.pop().close()  # as the garbage collector would
            except RuntimeError as error:
                errors.append(error)
            done.set()
        return deflate(frame)

    plugin = Scripted("a", drop_the_run, limits=Limits(frames=1, bytes=1, lanes=3, peak_factor=1.0))
    results = engine.encode_frames(frames(200), TARGET, [plugin.plugin()], threads=3)
    assert next(results).ref.index == 0
    held.append(results)
    go.set()
    assert done.wait(5)
    deadline = time.monotonic() + 5
    while (lane_threads() or plugin.opened != plugin.closed) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not errors
    assert not lane_threads()
    assert plugin.opened == plugin.closed > 0


def test_when_all_fail_the_failure_says_what_each_said():
    results = run(2, Scripted("a", refuse), Scripted("b", whole=lambda batch: 1 / 0))
    assert all(isinstance(r, Failure) for r in results)
    assert "no" in results[0].reason
    assert "ZeroDivisionError" in results[0].reason


def test_what_is_the_frames_own_fault_is_not_tried_again():
    fmt = FrameFormat(16, 16, 1, 16, 12, False, "MONOCHROME2")
    blame = Scripted("a", lambda f: Failure(f.ref, "values-outside-bits-stored", "a", "outside"))
    second = Scripted("b")
    results = run(3, blame, second, fmt=fmt)
    assert [r.code for r in results] == ["values-outside-bits-stored"] * 3
    assert not second.seen


def test_a_format_that_the_syntax_does_not_allow_never_reaches_a_plugin():
    fmt = FrameFormat(16, 16, 1, 8, 8, False, "HSV")
    plugin = Scripted("a")
    results = run(2, plugin, fmt=fmt)
    assert [r.code for r in results] == ["format-not-allowed"] * 2
    assert not plugin.seen


def test_no_plugin_is_an_error():
    with pytest.raises(EncodeFailed, match="No plug-in"):
        run(1)


def test_formats_may_change_from_frame_to_frame():
    other = FrameFormat(3, 5, 1, 8, 8, False, "MONOCHROME2")
    mixed = [f for pair in zip(frames(6), frames(6, other), strict=True) for f in pair]
    plugin = Scripted("a")
    results = list(engine.encode_frames(iter(mixed), TARGET, [plugin.plugin()], threads=3))
    for result, frame in zip(results, mixed, strict=True):
        assert np.array_equal(inflate(result.codestream), frame.pixels)


@pytest.mark.parametrize("threads", [1, 4])
def test_frames_are_read_only_as_they_are_needed(threads):
    limits = Limits(frames=2, bytes=1 << 20, lanes=4, peak_factor=2.0)
    read = []

    def source():
        for frame in frames(1000):
            read.append(frame.ref.index)
            yield frame

    results = engine.encode_frames(source(), TARGET, [Scripted("a", limits=limits).plugin()], threads=threads)
    assert not read
    for wanted in range(50):
        next(results)
        # Each lane's batch, the two that wait, and the one being handed out.
        assert len(read) <= wanted + 1 + (threads + 4) * limits.frames
    results.close()


@pytest.mark.parametrize("budget_frames", [1, 3, 10])
def test_the_byte_budget_bounds_what_is_in_flight(budget_frames):
    size = FORMAT.frame_bytes
    factor = 2.0
    limits = Limits(frames=4, bytes=1 << 20, lanes=4, peak_factor=factor)
    gate = threading.Event()
    inside = 0
    most = 0
    lock = threading.Lock()

    def measured(frame):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        gate.wait(0.002)
        with lock:
            inside -= 1
        return deflate(frame)

    budget = int(budget_frames * size * factor)
    plugin = Scripted("a", measured, limits=limits)
    results = list(engine.encode_frames(frames(40), TARGET, [plugin.plugin()], threads=4, memory_bytes=budget))
    assert_right(results, 40)
    assert most <= budget_frames
    assert max(len(batch) for batch in plugin.seen) <= budget_frames


def test_a_frame_larger_than_the_budget_goes_alone():
    results = run(3, Scripted("a"), threads=2, memory_bytes=1)
    assert_right(results, 3)


@pytest.mark.parametrize("leave", ["close", "raise", "forget"])
def test_lanes_stop_when_the_consumer_does(leave):
    plugin = Scripted("a", lambda f: (time.sleep(0.001), deflate(f))[1])
    results = engine.encode_frames(frames(500), TARGET, [plugin.plugin()], threads=4)
    if leave == "raise":
        with pytest.raises(KeyError):  # noqa: PT012
            for result in results:
                if result.ref.index == 20:
                    raise KeyError
        # the generator lives on in the exception's traceback until it is let go
        results.close()
    else:
        list(islice(results, 20))
        if leave == "close":
            results.close()
        else:
            del results
            gc.collect()
    assert not lane_threads()
    assert plugin.opened == plugin.closed > 0
    assert sum(len(batch) for batch in plugin.seen) < 100


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_in_the_source_stops_the_run(threads):
    def source():
        yield from frames(10)
        raise OSError("the disk is gone")

    plugin = Scripted("a")
    results = engine.encode_frames(source(), TARGET, [plugin.plugin()], threads=threads)
    with pytest.raises(OSError, match="the disk is gone"):
        list(results)
    assert not lane_threads()
    assert plugin.opened == plugin.closed


def test_no_more_lanes_than_the_plugin_wants():
    plugin = Scripted("a", limits=Limits(frames=1, bytes=1, lanes=2, peak_factor=1.0))
    assert_right(run(40, plugin, threads=16), 40)
    assert plugin.opened <= 2


class Mortal(Scripted):
    """A plug-in of a GPU that is lost with the frame `dies_at`; what comes behind has other limits."""

    def __init__(self, dies_at, limits):
        super().__init__("gpu", limits=limits)
        self.dies_at, self.dead = dies_at, False

    def plugin(self):
        return Plugin(self.label, self.open, "gpu", True, lambda: not self.dead)

    def open(self, target_):
        made = super().open(target_)
        plain = made.encode

        def encode(frames):
            self.dead = self.dead or any(frame.ref.index == self.dies_at for frame in frames)
            if self.dead:
                return [Failure(frame.ref, "device-lost", "gpu", "it is gone") for frame in frames]
            return plain(frames)

        made.encode = encode
        return made


class Busy(Scripted):
    """A plug-in that counts how many batches are in it at once, and how large they are."""

    def __init__(self, limits):
        self.now = self.most = 0
        self.batches = []
        super().__init__("cpu", limits=limits)

    def open(self, target_):
        made = super().open(target_)
        plain = made.encode

        def encode(frames):
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
                self.batches.append([frame.ref.index for frame in frames])
            time.sleep(0.02)
            with self.lock:
                self.now -= 1
            return plain(frames)

        made.encode = encode
        return made


def test_what_takes_over_from_a_gpu_has_its_own_lanes_and_batches(monkeypatch):
    monkeypatch.setattr(engine, "usable_cores", lambda: 3)
    gpu = Mortal(40, Limits(frames=16, bytes=1 << 20, lanes=1, peak_factor=2.0))
    cpu = Busy(Limits(frames=2, bytes=1 << 20, lanes=3, peak_factor=4.0))
    results = list(engine.encode_frames(frames(160), TARGET, [gpu.plugin(), cpu.plugin()]))
    assert [r.ref.index for r in results] == list(range(160))
    assert [r.plugin for r in results].count("gpu") == 32
    assert cpu.most == 3
    assert sorted(i for batch in cpu.batches for i in batch) == list(range(32, 160))
    assert sum(len(batch) > 2 for batch in cpu.batches) <= 4  # what was under way when it happened
    assert max(len(batch) for batch in cpu.batches[-30:]) == 2


def test_what_takes_over_from_a_gpu_is_held_to_its_own_memory():
    size = FORMAT.frame_bytes
    gpu = Mortal(10, Limits(frames=16, bytes=1 << 20, lanes=2, peak_factor=1.0))
    cpu = Busy(Limits(frames=16, bytes=1 << 20, lanes=2, peak_factor=8.0))
    results = list(engine.encode_frames(frames(60), TARGET, [gpu.plugin(), cpu.plugin()], memory_bytes=16 * size))
    assert len(results) == 60
    assert {r.plugin for r in results[30:]} == {"cpu"}
    assert max(len(batch) for batch in cpu.batches[-20:]) == 1  # 16 frames / (2 lanes x 8)


def test_more_lanes_than_cores_for_a_gpu_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(engine, "usable_cores", lambda: 1)
    limits = Limits(frames=1, bytes=1 << 20, lanes=5, peak_factor=1.0)

    def most(**options):
        busy = Busy(limits)
        list(engine.encode_frames(frames(40), TARGET, [Plugin("gpu", busy.open, "gpu", True)], **options))
        return busy.most

    assert most() == 5
    assert most(threads=2) == 2
    assert most(threads=1) == 1


def test_frames_that_fall_behind_count_with_the_memory_of_who_takes_them():
    run = chain.Run((), TARGET, "none", lambda frame: frame)
    [frame, *_] = batch = list(frames(8))
    size = frame.format.frame_bytes
    run.opened("gpu", Limits(8, 1 << 20, 1, 4.0))
    assert run.peak_bytes(batch) == 8 * size * 4
    run.opened("cpu", Limits(1, 1, 1, 12.0))
    assert run.peak_bytes(batch) == 8 * size * 4
    assert run.peak_bytes([frame]) == size * 12 + 2 * size


def test_lanes_whose_device_is_lost_open_another_while_there_is_one():
    gone = Limits(frames=2, bytes=1 << 20, lanes=1, peak_factor=1.0)
    opened = []

    def open_(target_):
        number = len(opened)
        opened.append(Scripted(f"gpu {number}", limits=gone).open(target_))
        plain = opened[-1].encode

        def encode(frames):
            if number == 0 and frames[0].ref.index >= 4:
                return [Failure(frame.ref, "device-lost", "gpu", "gone") for frame in frames]
            return plain(frames)

        opened[-1].encode = encode
        return opened[-1]

    behind = Scripted("cpu")
    results = list(
        engine.encode_frames(frames(12), TARGET, [Plugin("gpu", open_, "gpu", True), behind.plugin()], threads=1)
    )
    assert [r.plugin for r in results] == ["gpu"] * 4 + ["cpu"] * 2 + ["gpu"] * 6
    assert len(opened) == 2


@pytest.mark.parametrize("name", ["gpuenc-lane_0", "gpuenc-gpu0"])
def test_a_run_that_ends_in_a_thread_its_lanes_wait_for_does_not_wait_for_them(name):
    """As the garbage collector may have it; any other thread waits."""
    wake = threading.Event()

    def script(frame):
        if frame.ref.index:
            wake.wait(30)
        return deflate(frame)

    plugin = Scripted("a", script, limits=Limits(frames=1, bytes=1 << 20, lanes=2, peak_factor=1.0))
    results = engine.encode_frames(frames(8), TARGET, [plugin.plugin()], threads=2)
    next(results)
    closing = threading.Thread(target=results.close, name=name)
    closing.start()
    closing.join(10)
    waited = closing.is_alive()
    wake.set()
    closing.join(10)
    assert not waited
    for thread in threading.enumerate():
        if thread.name.startswith("gpuenc-lane") and thread is not threading.current_thread():
            thread.join(10)
    assert plugin.closed == plugin.opened
