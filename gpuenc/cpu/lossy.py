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
    best: bytes | None = None
    # Settings known to fall short and to suffice, with their excess.
    short: tuple[float, float] | None = None
    enough: tuple[float, float] | None = None
    setting = min(max(start, low), high)
    for attempt in range(_MOST_ENCODES):
        codestream = encode(setting)
        beyond = excess(codestream)
        if beyond >= 0:
            enough, best = (setting, beyond), codestream
            if beyond <= tolerance or setting <= low:
                break
        else:
            short = setting, beyond
            if setting >= high:
                break
        if short and enough:
            if enough[0] - short[0] < _CLOSE:
                break
            setting = _between(short, enough, tolerance / 2, halve=attempt % 2 == 1)
        else:
            setting = min(max(setting - (beyond - tolerance / 2) / slope, low), high)
            slope /= 2  # the guess was too small, so the next step goes further
    if best is None:
        raise CodecError("the quality or ratio asked for cannot be reached for this image")
    return best


def _between(short: tuple[float, float], enough: tuple[float, float], aim: float, *, halve: bool) -> float:
    """Return the setting to try next: by interpolation, or halfway, since a curve can defeat interpolation."""
    part = 0.5 if halve else (aim - short[1]) / (enough[1] - short[1])
    return short[0] + (enough[0] - short[0]) * min(max(part, 0.05), 0.95)
