"""The examples that need PyTorch or MONAI, as a user runs them."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
from pydicom import dcmread

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


FILES = ("CT_small.dcm", "emri_small_RLE.dcm", "SC_rgb_small_odd.dcm")


def test_monai_reads_through_gpuenc():
    needed("monai")
    said = run("monai_reader.py", *map(named, FILES))
    lines = re.findall(r"^(\(.*\)) torch\.float32 (0\.\d\d) to ([01]\.\d\d)$", said, re.MULTILINE)
    assert [shape for shape, _, _ in lines] == ["(1, 1, 64, 64, 1)", "(1, 1, 64, 64, 10)", "(1, 3, 64, 64, 1)"]
    assert all(0 <= float(low) < float(high) <= 1 for _, low, high in lines)


def test_what_monai_reads_is_what_pydicom_reads():
    needed("monai")
    reader = runpy.run_path(str(EXAMPLES / "monai_reader.py"))["GpuencReader"]()
    for name in FILES:
        volume, meta = reader.get_data(reader.read(named(name)))
        ds = dcmread(named(name))
        frames = ds.pixel_array if ds.get("NumberOfFrames", 1) > 1 else ds.pixel_array[None]
        assert np.array_equal(volume, np.moveaxis(frames, 0, 2))
        assert tuple(meta["spatial_shape"]) == volume.shape[:3]
