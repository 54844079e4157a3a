"""Why a GPU plug-in is not used, as a sentence for people."""

from __future__ import annotations

import pytest

from gpuenc.encoder import Encoder
from gpuenc.registry import why_no_gpu
from gpuenc.syntaxes import find


@pytest.mark.parametrize(
    ("name", "lacking", "said"),
    [
        ("htj2k-lossless", ["imagecodecs - broken", "nvimgcodec - No driver - really"], "No driver - really"),
        ("htj2k-lossless", ["imagecodecs - broken"], ""),
        ("htj2k-lossless", [], ""),
        ("rle", ["nvimgcodec - No driver"], ""),
        ("explicit-vr-little-endian", ["nvimgcodec - No driver"], ""),
    ],
)
def test_why_no_gpu(monkeypatch, name, lacking, said):
    monkeypatch.setattr(Encoder, "missing_dependencies", property(lambda self: lacking))
    assert why_no_gpu(find(name)) == said
