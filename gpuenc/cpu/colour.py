"""Colour steps on interleaved samples: chroma subsampling, YBR_FULL and RGB, palettes, JPEG 2000's transforms.

Integer arithmetic with one exact result, so that a kernel can be held to it bit by bit. Of these only
`upsample_422` and the reversible transform belong on a lossless path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.errors import InvalidPixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gpuenc.frames import Palette


# Bits behind the binary point of the irreversible transform's results: samples of 19 bits stay within 32 so, and what
# is rounded off is what a 32-bit float at 4096 has no room for.
ICT_FRACTION_BITS = 12
# Its weights in units of 1/100000, in which all of the standard's decimals are whole (T.800 G.3).
_ICT_UNIT = 100_000
_ICT_WEIGHTS = ((29900, 58700, 11400), (-16875, -33126, 50000), (50000, -41869, -8131))


def upsample_422(cells: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Return YBR_FULL from YBR_FULL_422 by giving both pixels of a pair their one Cb and Cr (PS3.3 C.7.6.3.1.2).

    Parameters
    ----------
    cells : numpy.ndarray
        Y0 Y1 Cb Cr for each two pixels, any dtype, rows * columns * 2 of them.
    rows, columns : int
        Size of the image; `columns` is even.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns, 3), dtype of `cells`.

    Raises
    ------
    InvalidPixels
        `columns` is odd.
    """
    if columns % 2:
        raise InvalidPixels(f"YBR_FULL_422 needs an even number of columns, not {columns}")
    pairs = cells.reshape(rows * columns // 2, 4)
    full = np.empty((rows * columns // 2, 6), cells.dtype)
    for position, source in enumerate((0, 2, 3, 1, 2, 3)):
        full[:, position] = pairs[:, source]
    return full.reshape(rows, columns, 3)


def downsample_422(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return YBR_FULL_422 cells from YBR_FULL; the chroma of two pixels a, b becomes (a + b + 1) >> 1. Lossy.

    Parameters
    ----------
    samples : numpy.ndarray
        uint8, shape (rows, columns, 3).

    Returns
    -------
    numpy.ndarray
        uint8, shape (rows * columns * 2,): Y0 Y1 Cb Cr for each two pixels (PS3.3 C.7.6.3.1.2).

    Raises
    ------
    InvalidPixels
        The number of columns is odd.
    """
    rows, columns, _ = _require_8_bit(samples).shape
    if columns % 2:
        raise InvalidPixels(f"YBR_FULL_422 needs an even number of columns, not {columns}")
    full = samples.reshape(-1, 2, 3)
    pairs = np.empty((rows * columns // 2, 4), np.uint8)
    pairs[:, :2] = full[:, :, 0]
    pairs[:, 2:] = (full[:, 0, 1:].astype(np.uint16) + full[:, 1, 1:] + 1) >> 1
    return pairs.reshape(-1)


def rgb_to_ybr(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return YBR_FULL from RGB. Lossy.

    The equations of PS3.3 C.7.6.3.1.2 with the coefficients of ITU-R BT.601 from which those were rounded, each
    result rounded to nearest, halves up, and cut to 255. Exactly, with // rounding down::

        Y  = (299 R + 587 G + 114 B + 500) // 1000
        Cb = (-299 R - 587 G + 886 B + 886) // 1772 + 128
        Cr = (701 R - 587 G - 114 B + 701) // 1402 + 128

    Parameters
    ----------
    samples : numpy.ndarray
        uint8, shape (..., 3).

    Returns
    -------
    numpy.ndarray
        uint8, same shape.
    """
    pixels = _require_8_bit(samples).reshape(-1, 3)
    ybr = np.empty(pixels.shape, np.uint8)
    for block in _blocks(len(pixels)):
        red, green, blue = pixels[block].T.astype(np.int32, order="C")
        ybr[block, 0] = (299 * red + 587 * green + 114 * blue + 500) // 1000
        # With the offset of 128 inside the division no numerator is negative: C's division rounds down too.
        ybr[block, 1] = np.minimum((-299 * red - 587 * green + 886 * blue + (128 * 1772 + 886)) // 1772, 255)
        ybr[block, 2] = np.minimum((701 * red - 587 * green - 114 * blue + (128 * 1402 + 701)) // 1402, 255)
    return ybr.reshape(samples.shape)


def ybr_to_rgb(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB from YBR_FULL. Lossy.

    The inverse of ITU-R BT.601's equations (PS3.3 C.7.6.3.1.2), each result rounded to nearest, halves up, and cut
    to 0 to 255. Exactly, with // rounding down, b = Cb - 128 and r = Cr - 128::

        R = (500 Y + 701 r + 250) // 500
        G = (293500 Y - 101004 b - 209599 r + 146750) // 293500
        B = (250 Y + 443 b + 125) // 250

    All of it fits 32 bits. A numerator below zero is cut to 0 whichever way a division rounds.

    Parameters
    ----------
    samples : numpy.ndarray
        uint8, shape (..., 3).

    Returns
    -------
    numpy.ndarray
        uint8, same shape.
    """
    pixels = _require_8_bit(samples).reshape(-1, 3)
    rgb = np.empty(pixels.shape, np.uint8)
    for block in _blocks(len(pixels)):
        luma, blue_diff, red_diff = pixels[block].T.astype(np.int32, order="C")
        blue_diff -= 128
        red_diff -= 128
        rgb[block, 0] = np.clip((500 * luma + 701 * red_diff + 250) // 500, 0, 255)
        rgb[block, 1] = np.clip((293500 * luma - 101004 * blue_diff - 209599 * red_diff + 146750) // 293500, 0, 255)
        rgb[block, 2] = np.clip((250 * luma + 443 * blue_diff + 125) // 250, 0, 255)
    return rgb.reshape(samples.shape)


def expand_palette(samples: NDArray[Any], palette: Palette) -> NDArray[np.uint8]:
    """Return RGB from PALETTE COLOR samples (PS3.3 C.7.6.3.1.5). For lossy targets only.

    Parameters
    ----------
    samples : numpy.ndarray
        Unsigned integers, shape (...).
    palette : Palette
        Samples below `Palette.first` become the first entry, samples beyond the last entry the last.

    Returns
    -------
    numpy.ndarray
        uint8, shape (..., 3).

    Raises
    ------
    InvalidPixels
        The samples are signed, or the tables are empty or of different lengths.
    """
    entries = len(palette.red)
    if not entries or not entries == len(palette.green) == len(palette.blue):
        raise InvalidPixels("The Palette Color Lookup Tables (0028,1201) to (0028,1203) are empty or differ in length")
    if samples.dtype.kind != "u":
        raise InvalidPixels("PALETTE COLOR samples must be unsigned: (0028,0103) 'Pixel Representation' must be 0")
    table = np.array([list(palette.red), list(palette.green), list(palette.blue)], np.uint8).T.copy()
    flat = samples.reshape(-1)
    expanded = np.empty((flat.size, 3), np.uint8)
    for block in _blocks(flat.size):
        index = flat[block].astype(np.int64) - palette.first
        expanded[block] = np.take(table, index, axis=0, mode="clip")
    return expanded.reshape(*samples.shape, 3)


def rct_forward(samples: NDArray[Any]) -> NDArray[np.int32]:
    """Return Y0 Y1 Y2 of the reversible component transform (T.800 G.2.1).

    ::

        Y0 = floor((R + 2 G + B) / 4),  Y1 = B - G,  Y2 = R - G

    Parameters
    ----------
    samples : numpy.ndarray
        Integers of at most 31 bits, shape (..., 3).

    Returns
    -------
    numpy.ndarray
        int32, same shape.

    Raises
    ------
    InvalidPixels
        A difference needs more than 32 bits.
    """
    wide = np.int64 if samples.dtype.itemsize > 2 else np.int32
    red, green, blue = np.moveaxis(samples.astype(wide), -1, 0)
    transformed = np.empty(samples.shape, wide)
    transformed[..., 0] = (red + 2 * green + blue) >> 2
    transformed[..., 1] = blue - green
    transformed[..., 2] = red - green
    return _narrow(transformed, "reversible")


def rct_inverse(transformed: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return R G B of Y0 Y1 Y2 (T.800 G.2.2), the inverse of `rct_forward`.

    ::

        G = Y0 - floor((Y1 + Y2) / 4),  R = Y2 + G,  B = Y1 + G

    Parameters
    ----------
    transformed : numpy.ndarray
        int32, shape (..., 3).

    Returns
    -------
    numpy.ndarray
        int32, same shape.

    Raises
    ------
    InvalidPixels
        A result needs more than 32 bits; `rct_forward` returns nothing of that kind.
    """
    first, second, third = np.moveaxis(transformed.astype(np.int64), -1, 0)
    samples = np.empty(transformed.shape, np.int64)
    green = first - ((second + third) >> 2)
    samples[..., 0] = third + green
    samples[..., 1] = green
    samples[..., 2] = second + green
    return _narrow(samples, "reversible")


def ict_forward(samples: NDArray[Any]) -> NDArray[np.int32]:
    """Return Y0 Y1 Y2 of the irreversible component transform (T.800 G.3.1), in units of 1/4096. Lossy.

    ::

        Y0 = 0.299 R + 0.587 G + 0.114 B
        Y1 = -0.16875 R - 0.33126 G + 0.5 B
        Y2 = 0.5 R - 0.41869 G - 0.08131 B

    The standard leaves the arithmetic open. Here each result is the exact one times 2 ** `ICT_FRACTION_BITS`, rounded
    to nearest: integers, which fused multiply-adds and the order of sums cannot change, as they do floats. There are
    no ties, as the denominator that is left, 3125, is odd. With w the weights in units of 1/100000::

        Y = (4096 * (w . RGB) + 50000) // 100000

    The level shift of unsigned samples (T.800 G.1) comes before, and is the caller's.

    Parameters
    ----------
    samples : numpy.ndarray
        Integers, shape (..., 3), of at most 19 bits, or of more where the results fit all the same.

    Returns
    -------
    numpy.ndarray
        int32, same shape.

    Raises
    ------
    InvalidPixels
        A result needs more than 32 bits.
    """
    pixels = samples.reshape(-1, 3)
    transformed = np.empty(pixels.shape, np.int64)
    for block in _blocks(len(pixels)):
        red, green, blue = pixels[block].T.astype(np.int64, order="C")
        for index, (of_red, of_green, of_blue) in enumerate(_ICT_WEIGHTS):
            exact = of_red * red + of_green * green + of_blue * blue
            transformed[block, index] = ((exact << ICT_FRACTION_BITS) + _ICT_UNIT // 2) // _ICT_UNIT
    return _narrow(transformed.reshape(samples.shape), "irreversible")


def ict_inverse(transformed: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return R G B of Y0 Y1 Y2 in units of 1/4096 (T.800 G.3.2). Lossy.

    ::

        R = Y0 + 1.402 Y2,  G = Y0 - 0.34413 Y1 - 0.71414 Y2,  B = Y0 + 1.772 Y1

    Each result is the exact one rounded to nearest, halves up, and not cut to any range. What `ict_forward` made of
    samples of up to 14 bits comes back as it was; above, rounding of the standard's decimals shows.

    Parameters
    ----------
    transformed : numpy.ndarray
        int32, shape (..., 3), as `ict_forward` returns it.

    Returns
    -------
    numpy.ndarray
        int32, same shape.
    """
    pixels = transformed.reshape(-1, 3)
    samples = np.empty(pixels.shape, np.int32)
    unit = _ICT_UNIT << ICT_FRACTION_BITS
    for block in _blocks(len(pixels)):
        first, second, third = pixels[block].T.astype(np.int64, order="C")
        first *= _ICT_UNIT
        samples[block, 0] = (first + 140200 * third + unit // 2) // unit
        samples[block, 1] = (first - 34413 * second - 71414 * third + unit // 2) // unit
        samples[block, 2] = (first + 177200 * second + unit // 2) // unit
    return samples.reshape(transformed.shape)


def _blocks(pixels: int) -> Iterator[slice]:
    # The 32-bit intermediates, several times the size of the samples, then stay in the cache and out of the memory.
    return (slice(start, start + 0x4000) for start in range(0, pixels, 0x4000))


def _narrow(values: NDArray[Any], transform: str) -> NDArray[np.int32]:
    limits = np.iinfo(np.int32)
    if values.dtype != np.int32 and values.size and (values.min() < limits.min or values.max() > limits.max):
        most = 31 if transform == "reversible" else 31 - ICT_FRACTION_BITS
        raise InvalidPixels(f"The {transform} component transform takes samples of at most {most} bits")
    return values.astype(np.int32, copy=False)


def _require_8_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    if samples.dtype != np.uint8 or samples.shape[-1] != 3:
        raise ValueError(f"needs uint8 samples of shape (..., 3), not {samples.dtype} of shape {samples.shape}")
    return samples
