"""What stored values mean: Rescale Slope and Intercept (PS3.3 C.11.1), and floats brought to integers by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cuda.arrays import DeviceArray
from gpuenc.errors import InvalidOption, InvalidPixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

# So that a sign, a point and an exponent fit into the 16 characters of a DS (PS3.5 6.2).
_DIGITS, _DS_CHARACTERS = 9, 16
_MOST_16_BITS = 65535


@dataclass(frozen=True, slots=True)
class Scale:
    """What a stored value means: `slope` times it, plus `intercept`.

    Parameters
    ----------
    slope, intercept : str
        As they are written, VR DS.
    """

    slope: str
    intercept: str

    @classmethod
    def of(cls, slope: float, intercept: float) -> Scale:
        """Return the scale of two numbers.

        Raises
        ------
        InvalidOption
            One is not finite, or the slope is 0.
        """
        if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
            raise InvalidOption(f"rescale=({slope}, {intercept}) is no slope other than 0, and intercept")
        nearest = Context(prec=_DIGITS)
        return cls(*(_text(nearest.create_decimal(Decimal(repr(float(each))))) for each in (slope, intercept)))

    @classmethod
    def over(cls, low: float, high: float) -> Scale:
        """Return the scale under which values from `low` to `high` fill 16 bits.

        Raises
        ------
        InvalidPixels
            One of them is not finite.
        """
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InvalidPixels("The array holds values that are not finite, which no stored value can mean")
        # Both are rounded away from the values, which then fit whatever the rounding did.
        intercept = Context(prec=_DIGITS, rounding=ROUND_FLOOR).create_decimal(Decimal(low))
        step = (Decimal(high) - intercept) / _MOST_16_BITS
        slope = Context(prec=_DIGITS, rounding=ROUND_CEILING).create_decimal(step) if step else Decimal(1)
        return cls(_text(slope), _text(intercept))


def quantised(arr: NDArray[Any] | DeviceArray, scale: Scale, dtype: np.dtype[Any]) -> NDArray[Any] | DeviceArray:
    """Return the stored values that come closest to the floats of `arr`, wherever it is.

    Parameters
    ----------
    arr : numpy.ndarray or DeviceArray
        Two axes or more, of floats.
    scale : Scale
        What stored values mean.
    dtype : numpy.dtype
        Of the stored values.

    Raises
    ------
    InvalidPixels
        A value is not finite, or has no stored value of this dtype.
    """
    slope, intercept = float(scale.slope), float(scale.intercept)
    found: NDArray[Any] | DeviceArray | None
    if isinstance(arr, DeviceArray):
        found = arr.quantised(slope, intercept, dtype)
    else:
        found = _on_host(arr, slope, intercept, dtype)
    if found is None:
        bounds = sorted(slope * edge + intercept for edge in (np.iinfo(dtype).min, np.iinfo(dtype).max))
        raise InvalidPixels(
            f"The array holds values that {np.iinfo(dtype).bits} bits of slope {scale.slope} and intercept "
            f"{scale.intercept} do not reach: from {bounds[0]:.6g} to {bounds[1]:.6g}; choose others, "
            "or rescale='range'"
        )
    return found


def extremes(arr: NDArray[Any] | DeviceArray) -> tuple[float, float]:
    """Return the least and greatest value of an array, wherever it is."""
    if isinstance(arr, DeviceArray):
        return arr.extremes()
    return float(arr.min()), float(arr.max())


def _on_host(arr: NDArray[Any], slope: float, intercept: float, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    stored = np.empty(arr.shape, dtype)
    limits = np.iinfo(dtype)
    # A frame at a time: the doubles in between are no larger than that.
    frames, out = (arr[np.newaxis], stored[np.newaxis]) if arr.ndim == 2 else (arr, stored)
    for index, frame in enumerate(frames):
        values = np.rint((frame.astype(np.float64) - intercept) / slope)
        if not (values.min() >= limits.min and values.max() <= limits.max):  # NaN is neither
            return None
        out[index] = values
    return stored


def _text(number: Decimal) -> str:
    """Return a number of at most `_DIGITS` digits as a DS."""
    plain = format(number.normalize(), "f")
    return plain if len(plain) <= _DS_CHARACTERS else f"{number.normalize():E}"
