"""A MONAI pipeline that reads through gpuenc.

    python examples/monai_reader.py FILE [FILE …]

`GpuencReader` is a MONAI `ImageReader`: LoadImage and LoadImaged take it, and every transform after them works as ever.
It reads one file, of any transfer syntax that gpuenc decodes, as a volume of its frames. Needs MONAI.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data import DataLoader, Dataset, ImageReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized, ScaleIntensityd

import gpuenc


class GpuencReader(ImageReader):
    """Reads DICOM files with `gpuenc.FrameDataset`.

    Parameters
    ----------
    **options
        Of `FrameDataset`, such as ``rescale=True`` or ``window=(40, 400)``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options

    def verify_suffix(self, filename: Any) -> bool:
        """Return True: DICOM files need no suffix, and what is none is refused when it is read."""
        return True

    def read(self, data: Any, **kwargs: Any) -> gpuenc.FrameDataset:
        """Return the frames of one file; only its header is read yet."""
        path = data[0] if isinstance(data, Sequence) and not isinstance(data, str) else data
        return gpuenc.FrameDataset(path, columns=("PixelSpacing",), **(self._options | kwargs))

    def get_data(self, img: gpuenc.FrameDataset) -> tuple[np.ndarray, dict[str, Any]]:
        """Return (rows, columns, frames) or (rows, columns, frames, samples), and what MONAI wants to know of it."""
        samples = img.__getitems__(range(len(img)))
        volume = np.stack([sample["image"] for sample in samples], axis=2)
        down, right = samples[0]["PixelSpacing"] or (1.0, 1.0)
        meta = {
            "filename_or_obj": samples[0]["source"],
            # Spacing alone: where the patient lies is not looked at.
            "affine": np.diag([down, right, 1.0, 1.0]),
            "spatial_shape": np.asarray(volume.shape[:3]),
            "original_channel_dim": -1 if volume.ndim == 4 else float("nan"),
        }
        return volume, meta


def main(paths: Sequence[str]) -> None:
    pipeline = Compose([
        LoadImaged("image", reader=GpuencReader(rescale=True)),
        EnsureChannelFirstd("image"),
        ScaleIntensityd("image"),
        Resized("image", (64, 64, -1)),
    ])  # fmt: skip
    for batch in DataLoader(Dataset([{"image": path} for path in paths], pipeline), batch_size=1):
        image = batch["image"]
        print(f"{tuple(image.shape)} {image.dtype} {image.min():.2f} to {image.max():.2f}")


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    main(sys.argv[1:])
