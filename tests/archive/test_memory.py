"""Memory does not grow with the file: more than two gibibytes through the command."""

from __future__ import annotations

import json
import subprocess
import sys

import imagecodecs
import numpy as np
from pydicom import dcmread

from tests import made
from tests.archive import oracle
from tests.archive.watcher import PEAK

FRAMES = 4100  # of 512 KiB: more than 2 GiB
MARKED = {0: 1, 2000: 2, 4099: 3}
MAX_RSS_KIB = 600 * 1024


def test_two_gibibytes(tmp_path):
    path = made.huge(tmp_path / "in.dcm", FRAMES)
    start = path.stat().st_size - FRAMES * 512 * 512 * 2
    marks = made.noise((3, 512, 512), "u2", seed=1)
    with path.open("r+b") as file:
        for index, number in MARKED.items():
            file.seek(start + index * 512 * 512 * 2)
            file.write(marks[number - 1].tobytes())
    args = ("transcode", path, "-o", tmp_path / "out", "--to", "htj2k-lossless", "--report", tmp_path / "r.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, args)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "r.jsonl").read_text())
    assert (record["status"], record["frames"], record["verified"]) == ("encoded", FRAMES, True)
    assert record["pixel_bytes"] == FRAMES * 512 * 512 * 2
    assert int(done.stdout.splitlines()[-1]) < MAX_RSS_KIB
    frames = oracle.fragments(dcmread(tmp_path / "out" / "in.dcm"))
    assert len(frames) == FRAMES
    for index, number in MARKED.items():
        np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(frames[index]), marks[number - 1])
    for index in (1, 1999, 4098):
        assert not imagecodecs.jpeg2k_decode(frames[index]).any()
