"""Write DICOM files as WebDataset shards of HTJ2K, and read them back as a loader would.

    python examples/shards_there_and_back.py STUDY OUT

`gpuenc shards` does the first half; the second needs the `webdataset` library (pip install webdataset): each sample is
a codestream and JSON, which together are samples in their units, without DICOM and without patient data.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import webdataset


def decoded(sample: dict[str, Any]) -> tuple[str, np.ndarray, dict[str, Any]]:
    """Return key, values in their units as (rows, columns[, samples]), and what the JSON says, of one sample."""
    said = sample["json"]
    values = imagecodecs.htj2k_decode(sample["jhc"])
    if said["photometric_interpretation"].startswith("MONOCHROME") and "rescale" in said:
        values = values * np.float32(said["rescale"]["slope"]) + np.float32(said["rescale"]["intercept"])
    return sample["__key__"], values, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of DICOM files")
    parser.add_argument("out", type=Path, help="folder for the shards")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "gpuenc", "shards", asked.source, "-o", asked.out, "--to", "htj2k-lossless"]
    subprocess.run([*map(str, command), "--samples", "100"], check=True)
    shards = [str(path) for path in sorted(asked.out.glob("shard-*.tar"))]
    for key, values, said in webdataset.WebDataset(shards, shardshuffle=False).decode().map(decoded):
        print(f"{key}: {said.get('modality', '?')} {values.shape} from {values.min():g} to {values.max():g}")


if __name__ == "__main__":
    main()
