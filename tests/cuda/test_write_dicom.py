"""Arrays on a GPU become DICOM objects without a visit to the host."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

import gpuenc
from gpuenc import registry
from gpuenc.cuda import nvcodec
from tests.cuda.fake_cupy import Cupy
from tests.cuda.test_nvcodec import HT


@pytest.fixture
def machine(simt_gpu, monkeypatch):
    monkeypatch.setattr(registry, "_ENCODERS", {})
    monkeypatch.setattr(nvcodec, "PROVEN", True)
    simt_gpu.cupy = Cupy(monkeypatch)
    return simt_gpu


@pytest.mark.parametrize("kind", ["integers", "floats", "range", "planes"])
def test_device_arrays_never_visit_the_host(machine, tmp_path, kind):
    template = get_testdata_file("CT_small.dcm", download=False)
    values = dcmread(template).pixel_array[::4, ::4].copy()
    options = {"rescale": "template", "resized": True}
    if kind in ("floats", "range"):
        values = values.astype("f4") / 2 - 1024
        options = {"rescale": (0.5, -1024) if kind == "floats" else "range", "resized": True}
    if kind == "planes":
        template, values = get_testdata_file("SC_rgb_rle.dcm", download=False), np.arange(3072).astype("u1")
        values, options = values.reshape(3, 32, 32), {"layout": "CHW", "resized": True}
    gpuenc.write_dicom(template, values, HT, tmp_path / "host.dcm", **options)
    gpuenc.write_dicom(template, machine.cupy.put(values, stream=5), HT, tmp_path / "device.dcm", **options)
    assert machine.cupy.host_copies == 0
    host, device = (dcmread(tmp_path / name) for name in ("host.dcm", "device.dcm"))
    assert device.PixelData == host.PixelData
    assert device.get("RescaleSlope") == host.get("RescaleSlope")


def test_values_that_do_not_fit_are_refused_on_the_device(machine, tmp_path):
    template = get_testdata_file("CT_small.dcm", download=False)
    for bad in (np.nan, 1e9):
        values = np.zeros((128, 128), "f4")
        values[5, 5] = bad
        with pytest.raises(ValueError, match="do not reach"):
            gpuenc.write_dicom(template, machine.cupy.put(values), HT, tmp_path / "x.dcm", rescale=(1, 0))
    assert list(tmp_path.iterdir()) == []
