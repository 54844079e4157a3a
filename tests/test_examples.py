"""The examples run as the README says, and what they write is what they say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import HTJ2KLossless, generate_uid

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    ds = dcmread(get_testdata_file("CT_small.dcm", download=False))
    for number in range(3):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.InstanceNumber, ds.ImagePositionPatient[2] = number + 1, -75 - 5 * number
        ds.save_as(folder / f"{number}.dcm")
    shutil.copy(get_testdata_file("MR_small.dcm", download=False), folder)
    (folder / "notes.txt").write_text("none of the series")
    return folder


def run(name, *arguments):
    done = subprocess.run([sys.executable, EXAMPLES / name, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_window_and_resize_ct(series, tmp_path):
    out = tmp_path / "out"
    said = run("window_and_resize_ct.py", series, out, "--rows", 64, "--columns", 32, "--device", "cpu")
    assert said.startswith("3 slices of 64 x 32")
    made = [dcmread(path) for path in sorted(out.iterdir())]
    before = [dcmread(path) for path in sorted(series.glob("[0-9].dcm"))]
    assert len({ds.SeriesInstanceUID for ds in made}) == 1
    assert len({ds.SOPInstanceUID for ds in (*made, *before)}) == 6
    for new, old in zip(made, before, strict=True):
        assert new.file_meta.TransferSyntaxUID == HTJ2KLossless
        assert new.StudyInstanceUID == old.StudyInstanceUID
        assert [float(each) for each in new.PixelSpacing] == pytest.approx(
            [old.PixelSpacing[0] * 2, old.PixelSpacing[1] * 4]
        )
        units = np.clip(old.pixel_array * old.RescaleSlope + old.RescaleIntercept, -160, 240)
        expected = units.reshape(64, 2, 32, 4).mean((1, 3))
        got = new.pixel_array * new.RescaleSlope + new.RescaleIntercept
        assert np.abs(got - expected).max() <= 0.5


@pytest.mark.skipif(not find_spec("webdataset"), reason="webdataset is not installed")
def test_shards_there_and_back(series, tmp_path):
    said = run("shards_there_and_back.py", series, tmp_path / "out").splitlines()
    ct = dcmread(series / "0.dcm").pixel_array - 1024
    assert sum(f"CT (128, 128) from {ct.min()} to {ct.max()}" in line for line in said) == 3
    assert sum("MR (64, 64)" in line for line in said) == 1
