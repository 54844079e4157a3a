"""Gathering under scripted encoders: few batches for many callers, each caller its own results, and a clean end."""

from __future__ import annotations

import gc
import random
import signal
import threading
import time
import traceback
import weakref
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from gpuenc import engine
from gpuenc.errors import CodecError
from gpuenc.frames import Encoded, Failure, Frame, FrameFormat, FrameRef
from gpuenc.gathering import Gathered, Gathering
from gpuenc.plugins import Limits, Plugin
from gpuenc.syntaxes import find
from gpuenc.targets import target

# Raw deflate needs no codec of ours, so these tests stand on zlib alone.
TARGET = target(find("deflated-image-frame"))
A = FrameFormat(8, 8, 1, 16, 16, False, "MONOCHROME2")
B = FrameFormat(4, 8, 1, 8, 8, False, "MONOCHROME2")
# What ends a test that hangs; nothing waits for it where all is well.
LONG_S = 30.0


def frame(index, fmt=A, source="test"):
    cells = np.random.default_rng(index).integers(0, 256, fmt.frame_bytes, np.uint8)
    return Frame(FrameRef(source, index), fmt, cells)


def deflate(one):
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(one.pixels.tobytes()) + packer.flush()


def encoded(batch):
    return [Encoded(one.ref, deflate(one), "fake") for one in batch]


def assert_right(results, frames):
    assert [result.ref for result in results] == [one.ref for one in frames]
    for result, one in zip(results, frames, strict=True):
        assert isinstance(result, Encoded), result
        assert zlib.decompress(result.codestream, -15) == one.pixels.tobytes()


class Fake:
    """A plug-in that does as `script(batch)` says, and remembers what it was given and by which threads."""

    def __init__(self, script=encoded, *, opening=None, label="fake", **limits):
        self.script, self.opening, self.label = script, opening, label
        self.limits = Limits(**{"frames": 64, "bytes": 1 << 30, "lanes": 1, "peak_factor": 2.0} | limits)
        self.batches, self.encoders, self.opened, self.closed = [], [], 0, 0
        self.lock = threading.Lock()

    def plugin(self):
        return Plugin(self.label, self.open, "gpu")

    def open(self, _target):
        with self.lock:
            self.opened += 1
            number = self.opened
        if self.opening:
            self.opening(number)
        encoder = _Encoder(self)
        self.encoders.append(encoder)
        return encoder

    @property
    def indices(self):
        return [[one.ref.index for one in batch] for batch in self.batches]


class _Encoder:
    def __init__(self, owner):
        self.owner, self.limits = owner, owner.limits
        self.threads = {threading.get_ident()}
        self.inside = self.closed = 0

    def encode(self, batch):
        self.threads.add(threading.get_ident())
        assert (self.inside, self.closed) == (0, 0)
        self.inside = 1
        with self.owner.lock:
            self.owner.batches.append(tuple(Frame(one.ref, one.format, np.empty(0, np.uint8)) for one in batch))
        try:
            return self.owner.script(batch)
        finally:
            self.inside = 0

    def close(self):
        self.threads.add(threading.get_ident())
        assert not self.inside
        self.closed += 1
        with self.owner.lock:
            self.owner.closed += 1


def assert_clean(fake):
    """No thread and no encoder is left, and each encoder was used by one thread."""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpuenc-gather")]
    assert fake.closed == len(fake.encoders)
    assert all((len(encoder.threads), encoder.closed) == (1, 1) for encoder in fake.encoders)


class Callers:
    """Threads with a proxy each; what became of their calls is in `outcomes` by number."""

    def __init__(self, gathered):
        self.gathered, self.outcomes, self.threads = gathered, {}, []

    def call(self, number, frames):
        thread = threading.Thread(target=self._run, args=(number, frames), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self, number, frames):
        encoder = self.gathered.plugin.open(TARGET)
        try:
            self.outcomes[number] = encoder.encode(frames)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.outcomes[number] = error
        finally:
            encoder.close()

    def join(self):
        for thread in self.threads:
            thread.join(LONG_S)
            assert not thread.is_alive(), "a caller hangs"


def until(condition):
    """Wait for another thread."""
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.001)


def waiting(gathered):
    return sum(len(queue) for pool in gathered._pools.values() for queue in list(pool._waiting.values()))


class Gate:
    """A script whose first batch stays inside until the gate is opened."""

    def __init__(self, then=encoded):
        self.then, self.entered, self.opened = then, threading.Event(), threading.Event()

    def __call__(self, batch):
        if not self.entered.is_set():
            self.entered.set()
            assert self.opened.wait(LONG_S)
            return encoded(batch)
        return self.then(batch)


def held(fake, *calls):
    """Return callers whose calls wait, in this order, while a lane is busy with frame 999."""
    gathered = Gathered(fake.plugin(), linger_s=0)
    callers = Callers(gathered)
    callers.call("first", [frame(999)])
    assert fake.script.entered.wait(LONG_S)
    for number, frames in enumerate(calls):
        callers.call(number, frames)
        until(lambda number=number: waiting(gathered) == number + 1)
    return gathered, callers


def test_calls_of_many_threads_become_few_batches():
    fake = Fake(Gate(), frames=64)
    gathered, callers = held(fake, *([frame(number)] for number in range(200)))
    fake.script.opened.set()
    callers.join()
    gathered.close()
    assert [len(batch) for batch in fake.batches] == [1, 64, 64, 64, 8]
    assert sorted(index for batch in fake.indices for index in batch) == [*range(200), 999]
    for number in range(200):
        assert_right(callers.outcomes[number], [frame(number)])
    assert (fake.opened, len(gathered._pools)) == (1, 1)
    assert_clean(fake)


def test_an_idle_lane_waits_for_those_who_are_on_their_way():
    fake = Fake(frames=64)
    gathered = Gathered(fake.plugin(), linger_s=10 * LONG_S)
    encoders = [gathered.plugin.open(TARGET) for _ in range(150)]
    with ThreadPoolExecutor(149) as pool:
        results = [pool.submit(encoder.encode, [frame(i)]) for i, encoder in enumerate(encoders[:149])]
        until(lambda: len(fake.batches) == 2 and waiting(gathered) == 21)
        encoders[149].close()  # the last one goes without a call: there is nobody to wait for
        for index, future in enumerate(results):
            assert_right(future.result(LONG_S), [frame(index)])
    assert [len(batch) for batch in fake.batches] == [64, 64, 21]
    gathered.close()
    assert_clean(fake)


def test_what_one_idle_lane_leaves_another_takes():
    fake = Fake(Gate(), lanes=2)
    gathered = Gathered(fake.plugin(), linger_s=10 * LONG_S)
    callers = Callers(gathered)
    callers.call("opens one", [frame(1)])
    assert fake.script.entered.wait(LONG_S)
    callers.call("opens another", [frame(2)])
    fake.script.opened.set()
    callers.join()
    [pool] = gathered._pools.values()
    until(lambda: pool._idle == fake.opened == 2)
    fake.script.entered.clear()
    fake.script.opened.clear()
    expected = gathered.plugin.open(TARGET), gathered.plugin.open(TARGET)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(expected[0].encode, [frame(3, A)])
        until(lambda: waiting(gathered) == 1)
        time.sleep(0.05)  # so that the lane that was told of it waits for more
        second = threads.submit(expected[1].encode, [frame(4, B)])
        # One lane has taken the first and is held; the other still waited for more, and has to be told.
        assert_right(second.result(LONG_S), [frame(4, B)])
        assert not first.done()
        fake.script.opened.set()
        assert_right(first.result(LONG_S), [frame(3, A)])
    gathered.close()
    assert_clean(fake)


def test_who_has_called_before_is_not_waited_for():
    fake = Fake()
    gathered = Gathered(fake.plugin(), linger_s=10 * LONG_S)
    first, second = gathered.plugin.open(TARGET), gathered.plugin.open(TARGET)
    second.close()
    begun = time.monotonic()
    for _ in range(3):
        assert_right(first.encode([frame(1)]), [frame(1)])
    third = gathered.plugin.open(TARGET)
    assert_right(third.encode([frame(2)]), [frame(2)])
    assert time.monotonic() - begun < LONG_S
    gathered.close()


def test_a_caller_that_never_comes_is_waited_for_no_longer_than_said():
    fake = Fake()
    gathered = Gathered(fake.plugin(), linger_s=0.02)
    first, _never = gathered.plugin.open(TARGET), gathered.plugin.open(TARGET)
    assert_right(first.encode([frame(1)]), [frame(1)])
    gathered.close()


def test_each_caller_gets_its_own_results_in_its_own_order():
    sizes = [3, 1, 7, 2, 40, 5]
    calls = [[frame(100 * number + i) for i in range(size)] for number, size in enumerate(sizes)]
    fake = Fake(Gate(), frames=50)
    gathered, callers = held(fake, *calls)
    fake.script.opened.set()
    callers.join()
    gathered.close()
    assert [len(batch) for batch in fake.batches] == [1, 13, 45]
    for number, frames in enumerate(calls):
        assert_right(callers.outcomes[number], frames)


def test_failures_stay_with_their_frames():
    def odd(batch):
        return [Failure(f.ref, "codec-error", "fake", "no") if f.ref.index % 2 else encoded([f])[0] for f in batch]

    fake = Fake(Gate(odd))
    gathered, callers = held(fake, *([frame(number)] for number in range(10)))
    fake.script.opened.set()
    callers.join()
    gathered.close()
    assert len(fake.batches) == 2
    assert [type(callers.outcomes[number][0]) for number in range(10)] == [Encoded, Failure] * 5


def test_a_batch_has_one_format_and_the_oldest_comes_first():
    formats = [A, A, A, B, A, A, B, A, A, A]
    fake = Fake(Gate(), frames=2)
    gathered, callers = held(fake, *([frame(number, fmt)] for number, fmt in enumerate(formats)))
    fake.script.opened.set()
    callers.join()
    gathered.close()
    assert fake.indices == [[999], [0, 1], [2, 4], [3, 6], [5, 7], [8, 9]]
    assert all(len({one.format for one in batch}) == 1 for batch in fake.batches)
    for number, fmt in enumerate(formats):
        assert_right(callers.outcomes[number], [frame(number, fmt)])


def test_the_limit_in_bytes_is_kept_and_a_larger_call_comes_alone():
    size = A.frame_bytes
    calls = [[frame(10 * number + i) for i in range(n)] for number, n in enumerate([1, 1, 6, 1, 2, 1, 3])]
    fake = Fake(Gate(), bytes=3 * size)
    gathered, callers = held(fake, *calls)
    fake.script.opened.set()
    callers.join()
    gathered.close()
    assert [len(batch) for batch in fake.batches] == [1, 2, 6, 3, 1, 3]
    for number, frames in enumerate(calls):
        assert_right(callers.outcomes[number], frames)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (lambda batch: 1 / 0, "ZeroDivisionError"),
        (lambda batch: encoded(batch)[1:], "returned 3 results for 4 frames"),
        (lambda batch: encoded(batch) * 2, "returned 8 results for 4 frames"),
        (lambda batch: None, "returned NoneType, not a list"),
        (lambda batch: (one for one in encoded(batch)), "returned generator, not a list"),
    ],
    ids=["raises", "too few", "too many", "None", "a generator"],
)
def test_what_goes_wrong_with_a_batch_is_told_to_all_in_it_and_to_nobody_else(then, said):
    def script(batch):
        return then(batch) if batch[0].format == A else encoded(batch)

    fake = Fake(Gate(script), frames=4)
    gathered, callers = held(fake, *([frame(number, A if number < 4 else B)] for number in range(8)))
    fake.script.opened.set()
    callers.join()
    for number in range(4):
        error = callers.outcomes[number]
        assert said in f"{type(error).__name__} {error}"
    for number in range(4, 8):
        assert_right(callers.outcomes[number], [frame(number, B)])
    # The encoder is used as before.
    later = gathered.plugin.open(TARGET)
    assert_right(later.encode([frame(50, B)]), [frame(50, B)])
    gathered.close()
    assert fake.opened == 1
    assert_clean(fake)


def test_an_error_that_many_get_does_not_collect_their_frames():
    fake = Fake(Gate(lambda batch: 1 / 0))
    gathered, callers = held(fake, *([frame(number)] for number in range(40)))
    fake.script.opened.set()
    callers.join()
    gathered.close()
    errors = {id(callers.outcomes[number]): callers.outcomes[number] for number in range(40)}
    for error in errors.values():
        stack = traceback.extract_tb(error.__traceback__)
        assert stack[-1].name == "<lambda>"
        assert len(stack) < 40


def test_an_exception_that_is_no_error_does_not_end_the_lane():
    def leave(batch):
        raise SystemExit("no")

    fake = Fake(leave)
    gathered = Gathered(fake.plugin())
    encoder = gathered.plugin.open(TARGET)
    for _ in range(2):
        with pytest.raises(SystemExit):
            encoder.encode([frame(1)])
    gathered.close()
    assert_clean(fake)


@pytest.mark.parametrize("fails", [False, True])
def test_an_idle_lane_and_an_error_keep_no_frames(fails):
    """Without the collector: 64 MB of pixels must not wait for it."""
    fake = Fake(Gate(lambda batch: 1 / 0 if fails else encoded(batch)))
    frames = [[frame(number)] for number in range(5)]
    pixels = [weakref.ref(one.pixels) for [one] in frames]
    gc.collect()
    gc.disable()
    try:
        gathered, callers = held(fake, *frames)
        frames.clear()
        fake.script.opened.set()
        callers.join()
        assert all(isinstance(callers.outcomes[n], ZeroDivisionError if fails else list) for n in range(5))
        callers.outcomes.clear()
        callers.threads.clear()
        until(lambda: next(iter(gathered._pools.values()))._idle == 1)
        assert [ref() is None for ref in pixels] == [True] * 5
    finally:
        gc.enable()
    gathered.close()


def test_lanes_are_opened_as_they_are_needed_and_no_more_than_the_plugin_wants():
    inside, most, together, lock = 0, 0, threading.Event(), threading.Lock()

    def busy(batch):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            if inside == 3:
                together.set()
        assert together.wait(LONG_S)
        with lock:
            inside -= 1
        return encoded(batch)

    fake = Fake(busy, lanes=3, frames=4)
    gathered = Gathered(fake.plugin(), linger_s=0)
    callers = Callers(gathered)
    gathered.plugin.open(TARGET)
    assert fake.opened == 1
    for number in range(60):
        callers.call(number, [frame(number)])
    callers.join()
    gathered.close()
    assert (most, fake.opened) == (3, 3)
    for number in range(60):
        assert_right(callers.outcomes[number], [frame(number)])
    assert_clean(fake)


def test_one_lane_is_enough_for_one_caller():
    fake = Fake(lanes=4)
    with Gathering([fake.plugin()]) as gathering:
        encoder = gathering.plugins[0].open(TARGET)
        for number in range(50):
            assert_right(encoder.encode([frame(number)]), [frame(number)])
    assert fake.opened == 1


def test_what_opening_raises_is_raised_in_all_who_wait_and_the_next_tries_again():
    inside, go = threading.Event(), threading.Event()

    def opening(number):
        if number == 1:
            inside.set()
            assert go.wait(LONG_S)
            raise OSError("no such library")

    fake = Fake(Gate(), opening=opening, lanes=2)
    gathered = Gathered(fake.plugin())
    errors, barrier = [], threading.Barrier(8)

    def open_one():
        barrier.wait(LONG_S)
        try:
            gathered.plugin.open(TARGET)
        except OSError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert inside.wait(LONG_S)
    time.sleep(0.05)  # so that the others wait, most likely; who comes later opens the second encoder
    go.set()
    for thread in threads:
        thread.join(LONG_S)
    assert set(errors) == {"no such library"}
    gathered.plugin.open(TARGET).close()
    assert fake.opened == 2
    # The lane that never was is not counted as one that could do the work.
    callers = Callers(gathered)
    callers.call(1, [frame(1)])
    assert fake.script.entered.wait(LONG_S)
    callers.call(2, [frame(2)])
    until(lambda: 2 in callers.outcomes)
    fake.script.opened.set()
    callers.join()
    assert fake.opened == 3
    gathered.close()
    assert_clean(fake)


@pytest.mark.parametrize("others", [True, False])
def test_a_lane_whose_device_is_lost_goes_on_with_another(others):
    def script(batch):
        if len(fake.encoders) == 1:
            return [Failure(one.ref, "device-lost", "fake", "gone") for one in batch]
        return encoded(batch)

    fake = Fake(script)
    gathered = Gathered(replace(fake.plugin(), alive=lambda: others))
    encoder = gathered.plugin.open(TARGET)
    frames = [frame(0), frame(1)]
    assert [result.code for result in encoder.encode(frames)] == ["device-lost"] * 2
    if others:
        assert_right(encoder.encode(frames), frames)
    else:
        assert [result.code for result in encoder.encode(frames)] == ["device-lost"] * 2
    gathered.close()
    assert (fake.opened, fake.closed) == ((2, 2) if others else (1, 1))


def test_limits_that_are_none_are_what_they_are_to_the_engine():
    fake = Fake()
    fake.limits = None
    gathered = Gathered(fake.plugin())
    for _ in range(2):
        with pytest.raises(TypeError, match="its limits are NoneType, not Limits"):
            gathered.plugin.open(TARGET)
    gathered.close()
    assert fake.opened == 2
    assert_clean(fake)


def test_a_second_encoder_that_cannot_be_opened_is_done_without():
    def opening(number):
        if number > 1:
            raise MemoryError("the device is full")

    fake = Fake(Gate(), opening=opening, lanes=4, frames=4)
    gathered, callers = held(fake)
    for number in range(20):
        callers.call(number, [frame(number)])
    until(lambda: waiting(gathered) == 20 and fake.opened == 2)
    fake.script.opened.set()
    callers.join()
    gathered.close()
    assert fake.opened == 2
    for number in range(20):
        assert_right(callers.outcomes[number], [frame(number)])
    assert_clean(fake)


def test_an_encoder_that_hangs_holds_up_its_own_batch_only():
    fake = Fake(Gate(), lanes=2, frames=4)
    gathered = Gathered(fake.plugin(), linger_s=0)
    slow, callers = Callers(gathered), Callers(gathered)
    slow.call("slow", [frame(999)])
    assert fake.script.entered.wait(LONG_S)
    for number in range(20):
        callers.call(number, [frame(number)])
    callers.join()
    assert slow.outcomes == {}
    fake.script.opened.set()
    slow.join()
    gathered.close()
    assert_clean(fake)


def test_closing_waits_for_work_in_flight_and_fails_what_waits():
    fake = Fake(Gate())
    gathered, callers = held(fake, [frame(1)], [frame(2, B)])
    left = gathered.plugin.open(TARGET)
    closer = threading.Thread(target=gathered.close)
    closer.start()
    until(lambda: len(callers.outcomes) == 2)
    assert {str(callers.outcomes[n]) for n in (0, 1)} == {"the encoders of plug-in 'fake' are closed"}
    assert closer.is_alive()
    assert fake.closed == 0
    fake.script.opened.set()
    closer.join(LONG_S)
    callers.join()
    assert_right(callers.outcomes["first"], [frame(999)])
    assert_clean(fake)
    for late in (lambda: left.encode([frame(3)]), lambda: gathered.plugin.open(TARGET)):
        with pytest.raises(CodecError, match="closed"):
            late()
    left.close()
    gathered.close()
    assert fake.closed == 1


def test_closing_what_was_never_used():
    fake = Fake()
    Gathered(fake.plugin()).close()
    with Gathering([fake.plugin()]) as gathering:
        gathering.plugins[0].open(TARGET).close()
    assert_clean(fake)


def test_an_encoder_that_fails_to_close_harms_nobody(monkeypatch):
    monkeypatch.setattr(_Encoder, "close", lambda self: 1 / 0)
    fake = Fake()
    gathered = Gathered(fake.plugin())
    assert_right(gathered.plugin.open(TARGET).encode([frame(1)]), [frame(1)])
    gathered.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpuenc-gather")]


def interrupt_main_when(condition):
    def run():
        until(condition)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_caller_that_is_interrupted_takes_its_call_with_it():
    fake = Fake(Gate())
    gathered, callers = held(fake)
    mine = gathered.plugin.open(TARGET)
    thread = interrupt_main_when(lambda: waiting(gathered) == 1)
    with pytest.raises(KeyboardInterrupt):
        mine.encode([frame(7)])
    thread.join()
    mine.close()
    assert waiting(gathered) == 0
    fake.script.opened.set()
    callers.join()
    gathered.close()
    assert fake.indices == [[999]]
    assert_clean(fake)


def test_closing_can_be_interrupted_and_finished():
    fake = Fake(Gate())
    gathered, callers = held(fake, [frame(1)])
    thread = interrupt_main_when(lambda: 0 in callers.outcomes)
    with pytest.raises(KeyboardInterrupt):
        gathered.close()
    thread.join()
    fake.script.opened.set()
    callers.join()
    gathered.close()
    assert fake.indices == [[999]]
    assert_clean(fake)


def test_targets_do_not_share_encoders():
    fake = Fake()
    asked = []
    plugin = Plugin("fake", lambda chosen: (asked.append(chosen), fake.open(chosen))[1], "gpu")
    gathered = Gathered(plugin)
    whole = replace(TARGET, whole_cells=True)
    for chosen in (TARGET, whole, TARGET, whole):
        encoder = gathered.plugin.open(chosen)
        assert_right(encoder.encode([frame(1)]), [frame(1)])
        encoder.close()
    gathered.close()
    assert asked == [TARGET, whole]
    assert_clean(fake)


def test_plugins_on_the_cpu_are_left_as_they_are():
    gpu, cpu = Fake(label="gpu"), Plugin("cpu", lambda _: None)
    with Gathering([gpu.plugin(), cpu]) as gathering:
        first, second = gathering.plugins
        assert (first.label, first.device, second) == ("gpu", "gpu", cpu)
        assert first.open(TARGET).limits == gpu.limits


def test_a_proxy_that_gets_no_frames_bothers_nobody():
    fake = Fake()
    with Gathering([fake.plugin()]) as gathering:
        assert gathering.plugins[0].open(TARGET).encode([]) == []
    assert fake.batches == []


def run(plugins, frames, **options):
    return engine.encode_frames(iter(frames), TARGET, plugins, **{"threads": 1} | options)


def test_runs_that_are_dropped_half_way_hold_up_no_other():
    fake = Fake(frames=16, lanes=2)
    with Gathering([fake.plugin()]) as gathering, ThreadPoolExecutor(60) as pool:

        def work(number):
            frames = [frame(100 * number + i) for i in range(6)]
            results = run(gathering.plugins, frames, memory_bytes=A.frame_bytes * 4, threads=1 + number % 3)
            if number % 2:
                next(results)
                results.close()
                return
            assert_right(list(results), frames)

        for future in [pool.submit(work, number) for number in range(200)]:
            future.result(LONG_S)
    assert_clean(fake)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpuenc-lane")]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_every_frame_of_every_file_comes_out_right(seed):
    """Hundreds of files on random schedules, with formats, sizes and faults drawn by chance."""
    chance = random.Random(seed)
    formats = [A, B, replace(A, signed=True), replace(B, columns=24)][: chance.randint(1, 4)]
    faults = Counter()
    lock = threading.Lock()

    def script(batch):
        with lock:
            fault = chance.choice(["", "", "", "raise", "short", "none", "some"]) if seed % 3 else ""
            faults[fault] += 1
            delay = chance.choice([0, 0, 0.001, 0.004])
        time.sleep(delay)
        if fault == "raise":
            raise RuntimeError("a sticky fault")
        if fault == "some":
            return [Failure(f.ref, "codec-error", "", "x") if f.ref.index % 3 else encoded([f])[0] for f in batch]
        return {"": encoded(batch), "short": encoded(batch)[1:], "none": None}[fault]

    def opening(number):
        if seed % 4 == 3 and number % 2:
            raise OSError("not now")

    limits = {"frames": chance.choice([1, 5, 64]), "bytes": chance.choice([1, 2000, 1 << 20])}
    fake = Fake(script, opening=opening, lanes=chance.randint(1, 4), **limits)
    honest = Plugin("honest", lambda _: _Encoder(Fake(label="honest")))
    linger_s = chance.choice([0, 0.002])
    files = [
        [frame(1000 * number + i, chance.choice(formats), f"file {number}") for i in range(chance.choice([1, 1, 1, 9]))]
        for number in range(250)
    ]

    def work(frames):
        results = list(run([*gathering.plugins, honest], frames, verify=True, threads=1 + len(frames) % 4))
        assert_right(results, frames)
        assert all(result.verified for result in results)
        return Counter(result.plugin for result in results)

    with Gathering([fake.plugin()], linger_s=linger_s) as gathering, ThreadPoolExecutor(120) as pool:
        used = sum(pool.map(work, files, timeout=2 * LONG_S), Counter())
    assert used.total() == sum(len(frames) for frames in files)
    if not seed % 3 and seed % 4 != 3:
        assert set(used) == {"fake"}
    seen = Counter(one.ref for batch in fake.batches for one in batch)
    assert max(seen.values(), default=0) <= 1
    for batch in fake.batches:
        size = sum(one.format.frame_bytes for one in batch)
        assert len({one.format for one in batch}) == 1
        from_one_file = len({one.ref.source for one in batch}) == 1
        assert from_one_file or (len(batch) <= fake.limits.frames and size <= fake.limits.bytes)
    assert max(encoder.closed for encoder in fake.encoders) == 1
    assert len(fake.encoders) <= fake.limits.lanes
    assert_clean(fake)
