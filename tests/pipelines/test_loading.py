"""What measures reading: the example and the benchmark run, and the benchmark believes no wrong frame."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest

from benchmarks import loading, readme, targets
from tests import made

ROOT = Path(__file__).resolve().parents[2]


def test_the_loaders_example_runs(tmp_path):
    made.series(tmp_path, 9)
    command = [sys.executable, ROOT / "examples" / "benchmark_loader.py", tmp_path, "--batch", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("FrameDataset(9 frames of 9 files)")
    assert done.stdout.count("frames/s") >= 2


def test_the_benchmark_writes_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SIDE", 64)
    monkeypatch.setattr(
        sys, "argv", ["loading", "--frames", "5", "--files", "6", "--rounds", "1", "--out", str(tmp_path)]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading.multiprocessing, "get_context", lambda _: _InThreads())
        loading.main()
    (out,) = tmp_path.glob("*-loading.json")
    results = json.loads(out.read_text())
    assert {row["format"] for row in results["random"]} == {"htj2k", "j2k", "native", "png", "npy"}
    assert all(row["frames_s"]["median"] > 0 for row in results["random"] + results["epoch"])
    assert results["commit"] is not None
    assert results["machine"]["cores"]
    pages = readme.committed(tmp_path)
    found = {key: list(targets.TARGETS[key].find(results)) for key in ("loading-random", "loading-epoch")}
    rate = {(row["reader"], row["format"]): row["frames_s"]["median"] for row in results["random"]}
    ours, theirs = rate["gpuenc, batches of 32", "htj2k"], rate["pydicom pixel_array(path, index=n)", "j2k"]
    assert found["loading-random"][0]["median"] == pytest.approx(ours / theirs)
    assert found["loading-epoch"][0]["median"] > 0
    assert readme.loading(tmp_path).count("| `htj2k` |") == 3
    assert targets.LOADING in pages


class _InThreads:
    """As a context of multiprocessing, without processes, whose fork warns under pytest's threads."""

    def Barrier(self, parties):
        return threading.Barrier(2)

    def Pool(self, workers, prepare, arguments):
        return ThreadPool(1, prepare, arguments)


def test_a_wrong_frame_voids_the_run():
    pictures = made.noise((2, 4, 4), "u2", 12)
    wrong = loading.Contender("wrong", "npy", lambda: lambda numbers: [np.zeros((4, 4), "u2")])
    with pytest.raises(RuntimeError, match="is not the picture"):
        loading.measured([wrong], loading.at_random, pictures, 1)
