"""device="fastest" on a machine with a GPU, as far as gpuenc can see."""

from __future__ import annotations

import numpy as np

import gpuenc
from gpuenc import measured, registry
from gpuenc.bench.cases import frames_of
from gpuenc.bench.sweeps import crossovers
from gpuenc.engine import encode_frames
from gpuenc.syntaxes import find
from gpuenc.targets import target

HT = "htj2k-lossless"


def kept(times):
    """Keep what a benchmark would have found: a GPU that is so many times as fast as the cores, by side."""
    about = {"syntax": HT, "plugin": "nvimgcodec", "device": "gpu", "batch": 16, "status": "measured"}
    sweep = [about | {"side": side, "over_cores": {"median": one, "noisy": False}} for side, one in times.items()]
    measured.keep({"sweep": sweep, "crossovers": crossovers(sweep), "measured_at": "2026-11-22T10:00:00+00:00"})


def test_the_chain_of_a_machine_with_a_gpu(gpu, monkeypatch, tmp_path):
    """The fake nvImageCodec on a fake GPU: first by "auto", and by "fastest" only for frames that it is faster for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(measured, "device_names", lambda: ("NVIDIA Nonesuch 9",))
    monkeypatch.setattr(registry, "_ENCODERS", {})
    measured._known.cache_clear()
    encoder, syntax = gpuenc.get_encoder(HT), find(HT)
    small, large = np.zeros((8, 8), np.uint16), np.zeros((600, 500), np.uint16)

    def by(device, frames):
        asked = registry.chain(syntax, device=device)
        return {one.plugin for one in encode_frames(frames_of(frames[None], 12, "x"), target(syntax), asked)}

    assert [one.from_pixels for one in encoder.chain(device="fastest")] == [0, 0]
    assert by("fastest", small) == by("auto", small) == {"nvimgcodec"}
    kept({64: 0.5, 512: 2})
    assert [one.from_pixels for one in encoder.chain(device="fastest")] == [512**2, 0]
    assert [one.from_pixels for one in encoder.chain(device="auto")] == [0, 0]
    # Arrays on a GPU stay there.
    assert [one.from_pixels for one in encoder.chain(device="fastest", near=0)] == [0, 0]
    assert by("fastest", small) == {"imagecodecs"}
    assert by("auto", small) == by("fastest", large) == {"nvimgcodec"}
    assert registry.why_on_cpu(syntax, "fastest") == ""
    kept({64: 0.5, 512: 0.9})
    assert by("fastest", large) == {"imagecodecs"}
    assert "measured to be faster than nvimgcodec" in registry.why_on_cpu(syntax, "fastest")
    assert registry.why_on_cpu(syntax, "auto") == ""
    measured._known.cache_clear()
