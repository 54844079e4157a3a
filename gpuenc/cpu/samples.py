"""From native cells to the samples a codec takes, and back: the executable specification of the kernels.

Each step is a pure function over numpy arrays with one exact result; `prepare` puts them together. The steps on bits
and colours and the comparison stand in `bits`, `colour` and `compare` and are offered here too.

*Cells* are what Pixel Data holds (PS3.5 8.1.1); a *sample* is bits High Bit - Bits Stored + 1 to High Bit of its cell.
Results are views of their arguments where nothing has to change: treat both as read-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cpu.bits import BitPacker, align_bits, pack_bits, unpack_bits
from gpuenc.cpu.colour import (
    downsample_422,
    expand_palette,
    ict_forward,
    ict_inverse,
    rct_forward,
    rct_inverse,
    rgb_to_ybr,
    upsample_422,
    ybr_to_rgb,
)
from gpuenc.cpu.compare import checksum, count_differing, samples_crc32
from gpuenc.errors import InvalidPixels, ValuesOutsideBitsStored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.frames import FrameFormat

__all__ = [
    "BitPacker",
    "Outside",
    "align_bits",
    "checksum",
    "count_differing",
    "downsample_422",
    "expand_palette",
    "extract_overlay",
    "extract_samples",
    "ict_forward",
    "ict_inverse",
    "interleave",
    "native_cells",
    "outside_bits",
    "overlay_plane",
    "pack_bits",
    "planar",
    "prepare",
    "rct_forward",
    "rct_inverse",
    "rgb_to_ybr",
    "samples_crc32",
    "to_cells",
    "to_little_endian",
    "unpack_bits",
    "upsample_422",
    "ybr_to_rgb",
]


@dataclass(frozen=True, slots=True)
class Outside:
    """Cells with bits set that are neither the sample's nor an overlay's: how many, and which bits as a mask."""

    cells: int = 0
    bits: int = 0


def prepare(pixels: NDArray[np.uint8], fmt: FrameFormat, coding: Coding, *, bit_offset: int = 0) -> NDArray[Any]:
    """Return the samples of one frame as `coding` wants them, or its cells where `coding.raw`.

    Parameters
    ----------
    pixels : numpy.ndarray
        Native cells of the frame, uint8, shape (bytes,), as `Frame.pixels`; bytes beyond the frame are not looked at.
    fmt : FrameFormat
        Format of the cells.
    coding : Coding
        What `gpuenc.coding.coding` made of `fmt` for a target.
    bit_offset : int
        Where a 1-bit frame begins, as `Frame.bit_offset`.

    Returns
    -------
    numpy.ndarray
        Samples of shape `coding.shape`, C-contiguous and aligned, signed or unsigned integers of `coding.cell_bits`.
        For `coding.raw`: uint8, shape (fmt.frame_bytes,), little-endian cells with all bits as they were, planes as
        they were; a 1-bit frame begins at bit 0 and is followed by zero bits (PS3.5 8.1.1).

    Raises
    ------
    InvalidPixels
        `pixels` is too short (code ``"truncated"``), or a step of `coding` cannot be done on this format.
    ValuesOutsideBitsStored
        A cell has bits set outside its sample that are neither an overlay's nor a sign extension.
    """
    frame = _frame_bytes(pixels, fmt, bit_offset)
    if coding.raw:
        if fmt.bits_allocated == 1:
            return align_bits(frame, fmt.frame_bits, bit_offset)
        return to_little_endian(frame, fmt)
    cells = _typed_cells(frame, fmt, bit_offset)
    samples = _whole_cells(cells, fmt) if coding.whole_cells else _checked_samples(cells, fmt)
    if coding.expand:
        if fmt.palette is None:
            raise InvalidPixels("PALETTE COLOR samples cannot be expanded without Palette Color Lookup Tables")
        return expand_palette(samples.reshape(fmt.shape), fmt.palette)
    samples = samples.astype(f"{'i' if coding.signed else 'u'}{coding.cell_bits // 8}", copy=False)
    if coding.upsample:
        if fmt.planar:
            raise InvalidPixels("YBR_FULL_422 needs a (0028,0006) 'Planar Configuration' of 0 (PS3.3 C.7.6.3.1.2)")
        samples = upsample_422(samples, fmt.rows, fmt.columns)
    elif fmt.samples > 1 and fmt.planar:
        samples = interleave(samples.reshape(fmt.samples, fmt.rows, fmt.columns))
    if coding.to_rgb:
        samples = ybr_to_rgb(samples.reshape(coding.shape))
    return np.require(samples.reshape(coding.shape), requirements=["C", "A"])


def to_cells(samples: NDArray[Any], fmt: FrameFormat) -> NDArray[np.uint8]:
    """Return samples, such as a decoder's, as little-endian native cells with High Bit = Bits Stored - 1.

    Nothing is cut: values beyond Bits Stored that fit Bits Allocated stay in the cells, all their bits as they are.

    Parameters
    ----------
    samples : numpy.ndarray
        Integers or bool, shape `fmt.shape`. Where `fmt.signed` and the dtype is not, as from codecs that know no
        sign, values below 2 ** Bits Stored are two's complement of that many bits.
    fmt : FrameFormat
        Format of the samples; of the cells, only Bits Allocated, Bits Stored and the sign matter.

    Returns
    -------
    numpy.ndarray
        uint8, shape (bytes,): interleaved, signed samples sign-extended; with 1 bit allocated, packed as `pack_bits`.

    Raises
    ------
    InvalidPixels
        The shape is not that of `fmt`, or `fmt` is YBR_FULL_422, whose cells hold fewer samples.
    ValuesOutsideBitsStored
        Values do not fit Bits Allocated, or are negative where Pixel Representation is 0.
    """
    if samples.shape != fmt.shape or fmt.subsampled:
        raise InvalidPixels(
            f"Samples of shape {samples.shape} are not those of {fmt.rows} rows, {fmt.columns} columns and "
            f"{fmt.samples} samples per pixel of {fmt.photometric}"
        )
    if samples.dtype.kind not in "biu":
        raise ValueError(f"samples must be integers, not {samples.dtype}")
    flat = samples.reshape(-1)
    if fmt.bits_allocated == 1:
        return pack_bits(flat)
    if flat.dtype == np.bool_:
        flat = flat.view(np.uint8)
    own_sign = flat.dtype.kind == "i"
    bits = fmt.bits_allocated - (own_sign and fmt.signed)
    lowest, highest = -(1 << bits) if own_sign and fmt.signed else 0, (1 << bits) - 1
    limits = np.iinfo(flat.dtype)
    if (limits.min < lowest and flat.min() < lowest) or (limits.max > highest and flat.max() > highest):
        raise ValuesOutsideBitsStored(
            f"The samples do not fit a (0028,0100) 'Bits Allocated' of {fmt.bits_allocated} with a (0028,0103) "
            f"'Pixel Representation' of {int(fmt.signed)}"
        )
    cells = flat.astype(f"<u{fmt.bits_allocated // 8}", copy=False)
    if fmt.signed and not own_sign and fmt.bits_stored < fmt.bits_allocated:
        extension = (1 << fmt.bits_allocated) - (1 << fmt.bits_stored)
        cells = np.bitwise_or(cells, extension, out=cells.copy(), where=cells >> (fmt.bits_stored - 1) == 1)
    return cells.view(np.uint8)


def to_little_endian(pixels: NDArray[np.uint8], fmt: FrameFormat) -> NDArray[np.uint8]:
    """Return the bytes of whole cells, uint8, shape (bytes,), least significant byte first (PS3.5 7.3)."""
    size = fmt.bits_allocated // 8
    if not fmt.big_endian or size < 2:
        return pixels
    return pixels.view(f">u{size}").astype(f"<u{size}").view(np.uint8)


def native_cells(pixels: NDArray[np.uint8], fmt: FrameFormat, *, bit_offset: int = 0) -> NDArray[Any]:
    """Return the cells of one frame as unsigned integers.

    Parameters
    ----------
    pixels, fmt, bit_offset
        As for `prepare`.

    Returns
    -------
    numpy.ndarray
        Shape (cells,), uint8, uint16 or uint32 by Bits Allocated, in the order of `pixels`; 1-bit cells as uint8.

    Raises
    ------
    InvalidPixels
        `pixels` is too short (code ``"truncated"``).
    """
    return _typed_cells(_frame_bytes(pixels, fmt, bit_offset), fmt, bit_offset)


def extract_samples(cells: NDArray[Any], fmt: FrameFormat) -> NDArray[Any]:
    """Return the bits of each sample, moved to bit 0 and sign-extended or masked to fill the cell (PS3.5 8.1.1).

    Parameters
    ----------
    cells : numpy.ndarray
        As `native_cells` returns them.
    fmt : FrameFormat
        Their format.

    Returns
    -------
    numpy.ndarray
        Shape of `cells`, signed or unsigned integers of its size.
    """
    cell_bits = cells.dtype.itemsize * 8
    up = cell_bits - 1 - fmt.high_bit
    # Shifted up first, the sample's top bit is the cell's: one shift down then masks, or extends the sign.
    samples = _whole_cells(cells << up, fmt)
    samples >>= cell_bits - fmt.bits_stored
    return samples


def outside_bits(cells: NDArray[Any], fmt: FrameFormat) -> Outside:
    """Return which cells have bits set outside their sample that must not be there.

    Allowed are the embedded overlays' bits (PS3.5 8.1.2) and, above a negative sample, its sign extension: all bits
    up to the cell's highest, overlays' excepted. A negative sample without sign extension is allowed too.

    Parameters
    ----------
    cells : numpy.ndarray
        As `native_cells` returns them.
    fmt : FrameFormat
        Their format.
    """
    outside = _outside_mask(fmt)
    if not outside or not int(np.bitwise_or.reduce(cells)) & outside:
        return Outside()
    stray = cells & outside
    above = _above_sample(outside, fmt)
    if fmt.signed and above:
        np.bitwise_and(stray, outside ^ above, out=stray, where=_sign_extended(cells, above, fmt))
    return Outside(int(np.count_nonzero(stray)), int(np.bitwise_or.reduce(stray)))


def interleave(planes: NDArray[Any]) -> NDArray[Any]:
    """Return (samples, rows, columns) as C-contiguous (rows, columns, samples): Planar Configuration 1 to 0."""
    pixels = np.empty((*planes.shape[1:], planes.shape[0]), planes.dtype)
    for index, plane in enumerate(planes):  # three strided writes are four times as fast as one transposed copy
        pixels[..., index] = plane
    return pixels


def planar(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return (rows, columns, samples) as C-contiguous (samples, rows, columns): Planar Configuration 0 to 1."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def overlay_plane(pixels: NDArray[np.uint8], fmt: FrameFormat, bit_position: int) -> NDArray[np.uint8]:
    """Return one embedded overlay of a frame as 0 and 1, uint8, shape (rows, columns) (PS3.5 8.1.2).

    Parameters
    ----------
    pixels, fmt
        As for `prepare`.
    bit_position : int
        (60xx,0102) Overlay Bit Position: the overlay's bit in each cell.

    Raises
    ------
    InvalidPixels
        The cells have no such bit, or it is one of the sample's, or a pixel has more than one cell.
    """
    if fmt.samples != 1 or fmt.bits_allocated == 1:
        raise InvalidPixels("Overlays can be embedded only in cells of 8 bits or more with 1 sample per pixel")
    if not 0 <= bit_position < fmt.bits_allocated or _sample_mask(fmt) >> bit_position & 1:
        raise InvalidPixels(
            f"A (60xx,0102) 'Overlay Bit Position' of {bit_position} is not an unused bit of cells with a (0028,0100) "
            f"'Bits Allocated' of {fmt.bits_allocated} and samples in bits {fmt.high_bit - fmt.bits_stored + 1} to "
            f"{fmt.high_bit}"
        )
    cells = native_cells(pixels, fmt)
    return (cells >> bit_position & 1).astype(np.uint8).reshape(fmt.rows, fmt.columns)


def extract_overlay(pixels: NDArray[np.uint8], fmt: FrameFormat, bit_position: int) -> NDArray[np.uint8]:
    """Return one embedded overlay of a frame as (60xx,3000) Overlay Data holds it (PS3.5 8.1.2).

    Takes and raises what `overlay_plane` does. The result is uint8, shape ((rows * columns + 7) // 8,); overlays of
    several frames follow without padding, as `BitPacker` joins them.
    """
    return pack_bits(overlay_plane(pixels, fmt, bit_position))


def _frame_bytes(pixels: NDArray[np.uint8], fmt: FrameFormat, bit_offset: int) -> NDArray[np.uint8]:
    if not 0 <= bit_offset < (8 if fmt.bits_allocated == 1 else 1):
        raise ValueError(f"cells of {fmt.bits_allocated} bits cannot begin at bit {bit_offset} of a byte")
    needed = (bit_offset + fmt.frame_bits + 7) // 8
    if pixels.size < needed:
        raise InvalidPixels(f"The frame needs {needed} bytes of pixel data, there are {pixels.size}", code="truncated")
    return np.ascontiguousarray(pixels[:needed])


def _typed_cells(frame: NDArray[np.uint8], fmt: FrameFormat, bit_offset: int) -> NDArray[Any]:
    if fmt.bits_allocated == 1:
        return unpack_bits(frame, fmt.frame_bits, bit_offset)
    size = fmt.bits_allocated // 8
    return to_little_endian(frame, fmt).view(f"<u{size}").astype(f"=u{size}", copy=False)


def _whole_cells(cells: NDArray[Any], fmt: FrameFormat) -> NDArray[Any]:
    return cells.view(f"i{cells.dtype.itemsize}") if fmt.signed else cells


def _checked_samples(cells: NDArray[Any], fmt: FrameFormat) -> NDArray[Any]:
    samples = _whole_cells(cells, fmt)
    if fmt.bits_stored == cells.dtype.itemsize * 8:
        return samples
    # Most frames: the cells, taken as numbers, already are the samples, and their range shows it.
    if fmt.high_bit == fmt.bits_stored - 1:
        bits = fmt.bits_stored - fmt.signed
        if samples.max() < 1 << bits and not (fmt.signed and samples.min() < -(1 << bits)):
            return samples
    found = outside_bits(cells, fmt)
    if found.cells:
        positions = ", ".join(str(bit) for bit in range(fmt.bits_allocated) if found.bits >> bit & 1)
        raise ValuesOutsideBitsStored(
            f"{found.cells} of {cells.size} samples do not fit a (0028,0101) 'Bits Stored' of {fmt.bits_stored} with "
            f"a (0028,0102) 'High Bit' of {fmt.high_bit}: bits outside are set ({positions})"
        )
    return extract_samples(cells, fmt)


def _cell_mask(fmt: FrameFormat) -> int:
    return (1 << fmt.bits_allocated) - 1


def _sample_mask(fmt: FrameFormat) -> int:
    return ((1 << fmt.bits_stored) - 1) << (fmt.high_bit + 1 - fmt.bits_stored)


def _outside_mask(fmt: FrameFormat) -> int:
    return _cell_mask(fmt) & ~_sample_mask(fmt) & ~fmt.overlay_bits


def _above_sample(mask: int, fmt: FrameFormat) -> int:
    return mask >> (fmt.high_bit + 1) << (fmt.high_bit + 1)


def _sign_extended(cells: NDArray[Any], above: int, fmt: FrameFormat) -> NDArray[np.bool_]:
    wanted = above | 1 << fmt.high_bit
    extended: NDArray[np.bool_] = cells & wanted == wanted
    return extended
