"""The examples that need PyTorch or MONAI, as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.dicom.files import named
from tests.ml.libraries import needed

needed("torch")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_learns_from_a_re_encoded_archive():
    said = run("train.py")
    epochs = re.findall(r"epoch (\d): (\d+) frames, loss ([\d.]+)", said)
    assert [(number, frames) for number, frames, _ in epochs] == [("0", "64"), ("1", "64")]
    assert float(epochs[1][2]) < float(epochs[0][2])


def test_monai_reads_through_gpuenc():
    needed("monai")
    said = run("monai_reader.py", named("CT_small.dcm"), named("emri_small_RLE.dcm"), named("SC_rgb_small_odd.dcm"))
    assert said.splitlines() == [
        "(1, 1, 64, 64, 1) torch.float32 0.00 to 1.00",
        "(1, 1, 64, 64, 10) torch.float32 0.00 to 1.00",
        "(1, 3, 64, 64, 1) torch.float32 0.00 to 1.00",
    ]
