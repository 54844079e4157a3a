"""Stored values of frames, compressed or native: what a reader of images calls the pixels."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cpu import decoders, samples
from gpuenc.frames import Coded, Frame, FrameFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stored_values(frame: Frame) -> tuple[NDArray[Any], FrameFormat]:
    """Return the stored values of a frame, decoded if need be, and the format they have then.

    Nothing is converted: neither colours nor palettes. Bits outside Bits Stored, such as overlays, are left out.

    Parameters
    ----------
    frame : Frame
        With `Coded` pixels or native cells.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns) or (rows, columns, samples), C-contiguous, writable, in native byte order: signed or
        unsigned integers of the size of Bits Allocated, uint8 for single bits.
    FrameFormat
        Of interleaved, little-endian samples; YBR_FULL_422 has become YBR_FULL.

    Raises
    ------
    DecodeFailed
        A codestream is corrupt or not what the attributes say.
    """
    if isinstance(frame.pixels, Coded):
        frame = decoders.decode_frame(frame)
    fmt = frame.format
    cells = samples.native_cells(frame.host_cells(), fmt, bit_offset=frame.bit_offset)
    values = _samples(cells, fmt)
    if fmt.subsampled:
        values = samples.upsample_422(values, fmt.rows, fmt.columns)
    elif fmt.samples > 1 and fmt.planar:
        values = samples.interleave(values.reshape(fmt.samples, fmt.rows, fmt.columns))
    now = _stored_format(fmt)
    return np.require(values.reshape(now.shape), requirements=["C", "A", "W"]), now


@lru_cache(maxsize=256)
def _stored_format(fmt: FrameFormat) -> FrameFormat:
    return replace(
        fmt,
        planar=0,
        big_endian=False,
        high_bit=fmt.bits_stored - 1,
        overlay_bits=0,
        photometric="YBR_FULL" if fmt.subsampled else fmt.photometric,
    )


def _samples(cells: NDArray[Any], fmt: FrameFormat) -> NDArray[Any]:
    """Return the bits of each sample; the cells themselves where those are the samples already."""
    bits = 8 * cells.dtype.itemsize
    if fmt.bits_allocated == 1:
        return cells
    if fmt.bits_stored == bits:
        return cells.view(f"i{cells.dtype.itemsize}") if fmt.signed else cells
    if not fmt.signed and fmt.high_bit == fmt.bits_stored - 1 and int(cells.max()) < 1 << fmt.bits_stored:
        return cells
    return samples.extract_samples(cells, fmt)
