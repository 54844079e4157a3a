"""Window and resize a CT series, on a GPU where there is one, and store it as HTJ2K: a new series of the same study.

    python examples/window_and_resize_ct.py STUDY/CT OUT --rows 256 --columns 256 --center 40 --width 400

Slices are decoded, brought to Hounsfield units, cut to the window, averaged to the new size and written by
`gpuenc.write_dicom`, which corrects spacing and position, says that the objects are derived and gives them new UIDs.
With CuPy the arithmetic happens on the GPU, and so does the encoding: what comes back to the host is compressed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, generate_uid

import gpuenc


def array_module(device: str) -> ModuleType:
    """Return CuPy where a GPU is wanted and there is one, else numpy."""
    if device != "cpu":
        try:
            import cupy

            if cupy.cuda.runtime.getDeviceCount():
                return cupy
        except Exception as error:  # no CuPy, no driver, no GPU
            if device == "gpu":
                raise SystemExit(f"there is no GPU to work on: {error}") from error
    return np


def area_weights(xp: ModuleType, before: int, after: int) -> Any:
    """Return the matrix, (after, before), that averages `before` pixels into `after` by the area they share."""
    edges = np.linspace(0, before, after + 1)
    pixel = np.arange(before)
    shared = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return xp.asarray(np.clip(shared, 0, None) * after / before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("series", type=Path, help="folder of CT slices")
    parser.add_argument("out", type=Path, help="folder for the new series, which must not exist")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--center", type=float, default=40, help="of the window, in HU")
    parser.add_argument("--width", type=float, default=400, help="of the window, in HU")
    parser.add_argument("--device", choices=("auto", "gpu", "cpu"), default="auto")
    asked = parser.parse_args()
    xp = array_module(asked.device)
    series_instance_uid = generate_uid()
    asked.out.mkdir(parents=True)
    slices = 0
    for path in sorted(path for path in asked.series.rglob("*") if path.is_file()):
        try:
            ds = dcmread(path)
        except InvalidDicomError:
            continue
        if ds.get("SOPClassUID") != CTImageStorage:
            continue
        units = xp.asarray(ds.pixel_array) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        low, high = asked.center - asked.width / 2, asked.center + asked.width / 2
        down, across = area_weights(xp, ds.Rows, asked.rows), area_weights(xp, ds.Columns, asked.columns)
        resized = down @ xp.clip(units, low, high) @ across.T
        gpuenc.write_dicom(
            ds,
            resized,
            "htj2k-lossless",
            asked.out / f"{slices:04}.dcm",
            rescale=(1, -1024),
            rescale_type="HU",
            window=(asked.center, asked.width),
            resized=True,
            description=f"Cut to {low:g} to {high:g} HU, averaged to {asked.rows} x {asked.columns}",
            series_instance_uid=series_instance_uid,
            series_description="windowed and resized",
            device="auto" if xp is not np else "cpu",
        )
        slices += 1
    print(f"{slices} slices of {asked.rows} x {asked.columns} in {asked.out}, computed with {xp.__name__}")


if __name__ == "__main__":
    main()
