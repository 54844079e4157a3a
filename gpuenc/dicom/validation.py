"""pydicom's checks of an array and what is said of it, in its words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from pydicom.pixels.encoders.base import EncodeRunner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuenc.dicom.layouts import Layout

_QUANTISE = ": round it yourself, or have gpuenc.write_dicom quantise it (rescale='range')"


class ValidatingRunner(EncodeRunner):
    """pydicom's runner, for its validation and its words, without reading every sample twice."""

    layout: Layout | None = None  # of an array

    def _validate_array(self) -> None:
        arr = cast("NDArray[Any]", self.src)
        described = (self.number_of_frames, self.rows, self.columns, self.samples_per_pixel)
        if cast("Layout", self.layout).shape != described:
            frames, *size, samples = described
            many = frames > 1 or arr.ndim == 4 or (arr.ndim == 3 and samples == 1)
            colour = samples > 1 or arr.ndim == 4
            expected = (*([frames] if many else []), *size, *([samples] if colour else []))
            raise ValueError(f"Mismatch between the expected ndarray shape {expected} and the actual shape {arr.shape}")
        if arr.dtype.kind not in "ui":
            raise ValueError(
                f"The ndarray's dtype '{arr.dtype}' is not supported, must be a signed or unsigned integer type"
                f"{_QUANTISE if arr.dtype.kind == 'f' else ''}"
            )
        if (arr.dtype.kind == "i") != (self.pixel_representation == 1):
            kind = ("unsigned", "signed")[self.pixel_representation]
            raise ValueError(
                f"The ndarray's dtype '{arr.dtype}' is not consistent with a (0028,0103) 'Pixel Representation' of "
                f"'{self.pixel_representation}' ({kind} integers)"
            )
        if arr.dtype.itemsize < math.ceil(self.bits_allocated / 8):
            raise ValueError(
                f"The ndarray's dtype '{arr.dtype}' is not consistent with a (0028,0100) 'Bits Allocated' value of "
                f"'{self.bits_allocated}'"
            )

    def _validate_encoding_profile(self) -> None:
        """`coding.coding` refuses what the syntax's table does not allow, for every syntax."""
