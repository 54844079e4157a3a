"""Plug-ins side by side: what is wrong has no figures, what is missing says why, and the rest is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpuenc.bench import phantoms, rows
from gpuenc.bench.cases import Case, frames_of
from gpuenc.bench.referee import Referee
from gpuenc.cpu import codecs
from gpuenc.errors import EncodeFailed
from gpuenc.frames import Failure
from gpuenc.plugins import Plugin
from gpuenc.syntaxes import find
from gpuenc.targets import target

TARGET = target(find("htj2k-lossless"))
SETTINGS = rows.Settings(round_s=0.05, latencies=5, device="cpu")
CASE = Case("slices", "synthetic", frames_of(phantoms.ct(4, 64), 12, "slices"))


class OneSampleOff(codecs.BatchEncoder):
    """Encodes, from some call on, another picture than it is given: one sample of it is off by one."""

    good_calls = 0

    def encode(self, frames):
        type(self).good_calls -= 1
        if type(self).good_calls >= 0:
            return super().encode(frames)
        cells = frames[-1].pixels.copy()
        cells[0] ^= 1
        return super().encode([*frames[:-1], replace(frames[-1], pixels=cells)])


class Raises(codecs.BatchEncoder):
    def encode(self, frames):
        raise RuntimeError("out of order")


class Refuses(codecs.BatchEncoder):
    def encode(self, frames):
        return [Failure(frame.ref, "device-refused", "refuses", "not this format") for frame in frames]


GOOD = ("imagecodecs", Plugin("imagecodecs", codecs.BatchEncoder))


@pytest.mark.parametrize("good_calls", [0, 4, 10])
def test_one_wrong_sample_voids_the_row(good_calls):
    planted = type("Planted", (OneSampleOff,), {"good_calls": good_calls})
    found, ratios = rows.measure(CASE, TARGET, [GOOD, ("wrong", Plugin("wrong", planted))], SETTINGS)
    good, wrong = found
    assert wrong["status"] == "void"
    assert "do not come back" in wrong["why"]
    assert not {"mb_s", "frames_s", "ratio", "latency_ms"} & set(wrong)
    assert good["status"] == "measured"
    assert ratios == []


@pytest.mark.parametrize(
    ("encoder", "status", "why"), [(Raises, "void", "out of order"), (Refuses, "absent", "not this format")]
)
def test_a_plugin_that_fails_has_a_row_that_says_so(encoder, status, why):
    found, _ = rows.measure(CASE, TARGET, [("bad", Plugin("bad", encoder)), GOOD], SETTINGS)
    assert found[1]["status"] == "measured"
    assert found[0]["status"] in (status, "absent")
    assert why in found[0]["why"]


def test_a_missing_plugin_says_why_and_figures_are_complete():
    found, ratios = rows.measure(
        CASE, TARGET, [("gone", "not installed: pip install x"), GOOD, ("b", GOOD[1])], SETTINGS
    )
    gone, one, two = found
    assert (gone["status"], gone["why"]) == ("absent", "not installed: pip install x")
    for row in (one, two):
        assert row["frames_s"]["rounds"] == 5
        assert row["frames_s"]["low"] <= row["frames_s"]["median"] <= row["frames_s"]["high"]
        # The same frames: megabytes follow from frames.
        assert row["mb_s"]["median"] == pytest.approx(row["frames_s"]["median"] * 64 * 64 * 2 / 1e6)
        assert row["latency_ms"]["p50"] <= row["latency_ms"]["p95"]
    assert one["verified_mb_s"]["rounds"] == 5
    assert [(each["plugin"], each["over"]) for each in ratios] == [("b", "imagecodecs")]


def test_no_time_left_is_said():
    [row], _ = rows.measure(CASE, TARGET, [GOOD], replace(SETTINGS, until_s=0.0))
    assert (row["status"], row["why"]) == ("absent", "no time was left")


def test_every_default_plugin_is_there_or_says_why():
    found = dict(rows.candidates(TARGET))
    assert list(found) == ["nvimgcodec", "imagecodecs", "cuda-htj2k"]
    assert all(found.values())
    assert isinstance(found["imagecodecs"], Plugin)
    on_cpu = dict(rows.candidates(TARGET, "cpu"))
    assert "--device cpu" in on_cpu["nvimgcodec"]


def test_ratio_is_native_over_encoded():
    referee = Referee(CASE.frames, TARGET)
    made = rows.encode(CASE.frames, TARGET, GOOD[1])
    referee.judge(made)
    assert referee.ratio == pytest.approx(4 * 64 * 64 * 2 / sum(len(one.codestream) for one in made))


def test_results_that_are_missing_or_swapped_are_not_believed():
    made = rows.encode(CASE.frames, TARGET, GOOD[1])
    with pytest.raises(EncodeFailed, match="3 results for 4 frames"):
        Referee(CASE.frames, TARGET).judge(made[:3])
    with pytest.raises(EncodeFailed, match="do not come back"):
        Referee(CASE.frames, TARGET).judge([made[1], made[0], *made[2:]])


def test_lossy_output_is_held_to_its_bounds():
    near = target(find("jpeg-ls"), near=2)
    Referee(CASE.frames, near).judge(rows.encode(CASE.frames, near, GOOD[1]))
    made = rows.encode(CASE.frames, near, GOOD[1])
    with pytest.raises(EncodeFailed, match="a sample is off by"):
        Referee(CASE.frames, near).judge([made[1], made[0], *made[2:]])


def test_frames_of_samples_are_their_cells():
    samples = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    frames = frames_of(samples, 8, "x")
    assert frames[1].format.photometric == "RGB"
    assert bytes(frames[1].pixels) == samples[1].tobytes()
