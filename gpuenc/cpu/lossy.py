"""Codecs that take a quantisation step or a quality, made to meet a PSNR or a compression ratio that was asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PSNR_TOLERANCE_DB = 0.5
RATIO_TOLERANCE = math.log2(1.02)
_MOST_ENCODES = 12
_COMPARED_AT_ONCE = 1 << 16
_CLOSE = 1e-3
_FAR = 1000.0


def psnr_db(samples: NDArray[Any], decoded: NDArray[Any], precision: int) -> float:
    """Return the peak signal-to-noise ratio over all samples, in dB; the peak is 2 ** precision - 1.

    Parameters
    ----------
    samples, decoded : numpy.ndarray
        Of one shape, integers.
    precision : int
        Bits per sample.
    """
    one, other, squares = samples.reshape(-1), decoded.reshape(-1), 0.0
    for start in range(0, one.size, _COMPARED_AT_ONCE):
        part = slice(start, start + _COMPARED_AT_ONCE)
        error = np.subtract(one[part], other[part], dtype=np.float64)
        squares += float(np.dot(error, error))
    return 10 * math.log10(((1 << precision) - 1) ** 2 * one.size / squares) if squares else math.inf


def log_ratio(samples: NDArray[Any], codestream: bytes, precision: int) -> float:
    """Return the binary logarithm of the compression ratio, measured against `precision` bits per sample."""
    return math.log2(samples.size * precision / 8 / len(codestream))


def least(
    encode: Callable[[float], bytes],
    excess: Callable[[bytes], float],
    *,
    low: float,
    high: float,
    start: float,
    slope: float,
    tolerance: float,
) -> bytes:
    """Return the codestream of the least setting that meets a demand.

    Parameters
    ----------
    encode : callable
        Setting → codestream.
    excess : callable
        How far beyond the demand a codestream is; negative where it falls short. Grows, by and large, with the setting.
    low, high : float
        Bounds of the setting.
    start, slope : float
        A guess at the setting, and at how much the excess grows with it.
    tolerance : float
        An excess that is small enough. What is returned may exceed it where the codec leaves no choice in between.

    Raises
    ------
    CodecError
        No setting within the bounds meets the demand.
    """
    best: tuple[float, bytes] | None = None
    # Settings known to fall short and to suffice, with their excess.
    short: tuple[float, float] | None = None
    enough: tuple[float, float] | None = None
    setting = min(max(start, low), high)
    for _ in range(_MOST_ENCODES):
        codestream = encode(setting)
        beyond = min(excess(codestream), _FAR)
        if beyond >= 0:
            enough = setting, beyond
            if best is None or beyond < best[0]:
                best = beyond, codestream
            if beyond <= tolerance or setting <= low:
                break
        else:
            short = setting, beyond
            if setting >= high:
                break
        if short and enough and enough[0] - short[0] < _CLOSE:
            break
        setting = _next(setting, beyond, short, enough, slope, tolerance, low, high)
    if best is None:
        raise CodecError("the quality or ratio asked for cannot be reached for this image")
    return best[1]


def _next(
    setting: float,
    beyond: float,
    short: tuple[float, float] | None,
    enough: tuple[float, float] | None,
    slope: float,
    tolerance: float,
    low: float,
    high: float,
) -> float:
    """Return the setting to try next: by interpolation once both sides are known, else along `slope`."""
    aim = tolerance / 2
    if short and enough:
        width = enough[0] - short[0]
        part = (aim - short[1]) / (enough[1] - short[1])
        # Kept off the ends, so that a curved relation narrows the interval from both sides.
        return short[0] + width * min(max(part, 0.1), 0.9)
    return min(max(setting - (beyond - aim) / slope, low), high)
