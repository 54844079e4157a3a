"""Where a file's time went: decoding of compressed sources is a stage of its own, and no longer part of reading."""

from __future__ import annotations

import time

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from gpuenc.archive import transcode as module
from gpuenc.archive.metrics import Metrics
from gpuenc.archive.report import record_of
from tests import made
from tests.archive.records import Page
from tests.archive.test_page import page_of
from tests.archive.watcher import transcode

FRAMES, FRAME_S = 3, 0.05


@pytest.fixture
def slow(monkeypatch):
    """A decoder that takes its time, by which it is known where that is counted."""
    right = module.frame_decoder()

    def decode(frame):
        time.sleep(FRAME_S)
        return right(frame)

    monkeypatch.setattr(module, "frame_decoder", lambda: decode)


def compressed(path, image):
    """Write an image as RLE, encoded by pydicom."""
    ds = pydicom.dcmread(image.write(path))
    ds.compress(RLELossless, encoding_plugin="pydicom")
    ds.save_as(path)
    return path


def plain():
    return made.of(made.noise((FRAMES, 16, 16), "u1"))


def with_overlays():
    """Overlays in the cells are read while frames come in, so these are decoded before they reach the engine."""
    plane = np.ones((FRAMES, 16, 16), np.uint8)
    return made.embedded_overlays(made.noise((FRAMES, 16, 16), "u2", 12), {12: plane})


@pytest.mark.parametrize("image", [plain, with_overlays])
@pytest.mark.parametrize("lanes", [1, 2])
def test_decoding_is_no_reading(tmp_path, slow, image, lanes, monkeypatch):
    monkeypatch.setattr(module, "_SPREAD_BYTES", 0 if lanes > 1 else 1 << 30)
    [record] = transcode(compressed(tmp_path / "a.dcm", image()), tmp_path / "out", lanes=lanes)
    assert record.status == "encoded"
    assert record.stage_seconds["decode"] >= FRAMES * FRAME_S
    if lanes == 1:  # it is counted once: the stages of one thread are not more than its time
        assert sum(record.stage_seconds.values()) <= record.seconds
    assert record_of(record.as_json()).stage_seconds == record.stage_seconds
    metrics = Metrics()
    metrics.done(record)
    assert f'gpuenc_stage_seconds_total{{stage="decode"}} {record.stage_seconds["decode"]!r}' in metrics.render()
    stages = [row[0] for row in Page(page_of([record])).tables["Stages, over all threads"]]
    assert set(stages) == {"read", "decode", "encode", "verify", "write"}


def test_nothing_is_decoded_of_native_sources(tmp_path, slow):
    [record] = transcode(plain().write(tmp_path / "a.dcm"), tmp_path / "out")
    assert set(record.stage_seconds) == {"read", "encode", "verify", "write"}
