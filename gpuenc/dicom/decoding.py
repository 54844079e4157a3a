"""Decoders for compressed sources: imagecodecs, or the one of pydicom's that is asked for by label."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from gpuenc.cpu import decoders, samples
from gpuenc.dicom.runner import one_at_a_time
from gpuenc.errors import DecodeFailed
from gpuenc.frames import Coded, Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def frame_decoder(label: str = "") -> Callable[[Frame], Frame]:
    """Return what turns a frame with `Coded` pixels into one with native cells, without colour conversion.

    Parameters
    ----------
    label : str
        ``"imagecodecs"``, which the empty label stands for too, or the label of one of pydicom's decoding plug-ins.

    Notes
    -----
    No other decoder is asked after imagecodecs has refused a codestream: of corrupt JPEG-LS pylibjpeg-libjpeg returns
    invented samples, and gdcm can end the process.
    """
    return decoders.decode_frame if label in ("", "imagecodecs") else partial(_by_pydicom, label=label)


def _by_pydicom(frame: Frame, label: str) -> Frame:
    coded = cast("Coded", frame.pixels)
    fmt = decoders.cells_of(frame)
    try:
        decoder = get_decoder(UID(coded.syntax))
    except NotImplementedError:
        raise DecodeFailed(f"pydicom has no decoder for {coded.syntax}") from None
    if not decoder.is_available:
        raise DecodeFailed("pydicom: no decoding plug-in is installed")
    options = {
        "rows": fmt.rows,
        "columns": fmt.columns,
        "samples_per_pixel": fmt.samples,
        "number_of_frames": 1,
        "bits_allocated": fmt.bits_allocated,
        "bits_stored": fmt.bits_stored,
        "pixel_representation": int(fmt.signed),
        "photometric_interpretation": frame.format.photometric,
        "planar_configuration": 0,
        "pixel_keyword": "PixelData",
    }
    try:
        with one_at_a_time():
            decoded, _ = decoder.as_array(encapsulate([coded.codestream]), raw=True, decoding_plugin=label, **options)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - foreign code; whatever it raises means it cannot decode this
        raise DecodeFailed(f"pydicom: {' '.join(str(error).split())}") from None
    if decoded.shape != fmt.shape:
        raise DecodeFailed(f"pydicom: decoded to shape {decoded.shape}, not {fmt.shape}")
    return Frame(frame.ref, fmt, samples.to_cells(_in_container(decoded, fmt.bits_allocated, fmt.signed), fmt))


def _in_container(decoded: NDArray[np.generic], bits_allocated: int, signed: bool) -> NDArray[np.generic]:
    """Return samples in the container of Bits Allocated, reading the codec's bits with the dataset's sign."""
    same_size = np.dtype(f"{'i' if signed else 'u'}{decoded.dtype.itemsize}")
    return decoded.view(same_size).astype(f"{'i' if signed else 'u'}{max(1, bits_allocated // 8)}")
