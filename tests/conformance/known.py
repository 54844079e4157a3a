"""What decoders are known to do wrong or not at all, each with a frame that shows it.

A decoder is left out where one of these applies, and `test_conformance` checks of each that it is still so: when a new
version of a decoder is better, its line here has to go. `README.md` has the findings these come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuenc.frames import FrameFormat
from tests.conformance import decoders as d

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuenc.coding import Coding


@dataclass(frozen=True, slots=True)
class Case:
    """One file that is to be decoded: its syntax, format and codestreams."""

    uid: str
    format: FrameFormat
    coding: Coding
    codestreams: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A defect: where it shows, what happens, and a format and content that show it.

    `symptom` is 'refuses' (says so), 'crashes' (the process ends) or 'wrong' (other samples come out, no error).
    """

    decoder: str
    applies: Callable[[Case], bool]
    symptom: str
    uid: str
    format: FrameFormat
    why: str
    content: str = "noise"


def _mono(allocated: int, stored: int, *, rows: int = 64, columns: int = 64, signed: bool = False) -> FrameFormat:
    return FrameFormat(rows, columns, 1, allocated, stored, signed, "MONOCHROME2")


def _rgb(allocated: int, stored: int) -> FrameFormat:
    return FrameFormat(64, 64, 3, allocated, stored, False, "RGB")


def _few_bits_in_8(case: Case) -> bool:
    return case.format.bits_allocated == 8 and case.format.bits_stored < 8


def _late_segment(case: Case) -> bool:
    """A segment begins further into the codestream than the frame has bytes (PS3.5 G.5)."""
    frame_bytes = case.coding.rows * case.coding.columns * case.coding.samples * case.coding.cell_bits // 8
    for codestream in case.codestreams:
        segments = int.from_bytes(codestream[:4], "little")
        if int.from_bytes(codestream[4 * segments : 4 * segments + 4], "little") > frame_bytes:
            return True
    return False


_JPEG_LOSSLESS, _JPEG_LS, _EXTENDED = d.JPEG_LOSSLESS[1], d.JPEG_LS[0], d.DCT[1]

ALL = (
    # native
    Known("gdcm-native", _few_bits_in_8, "crashes", d.NATIVE, _mono(8, 7), "Bits Stored below 8 in cells of 8"),
    Known(
        "gdcm-native", lambda case: case.format.bits_stored < case.format.bits_allocated == 32, "wrong", d.NATIVE,
        _mono(32, 24), "clears bits of samples in cells of 32",
    ),
    # RLE
    Known("gdcm-rle", lambda case: case.format.bits_allocated == 1, "crashes", d.RLE, _mono(1, 1), "Bits Allocated 1"),
    Known("gdcm-rle", _few_bits_in_8, "crashes", d.RLE, _mono(8, 7), "Bits Stored below 8 in cells of 8"),
    Known(
        "gdcm-rle", _late_segment, "refuses", d.RLE, _mono(8, 8, rows=3, columns=5),
        "compares offsets of segments with the size of the frame: small frames are refused",
    ),
    Known(
        "gdcm-rle", lambda case: case.format.samples == 3 and case.format.bits_allocated > 8, "wrong", d.RLE,
        _rgb(16, 16), "colour with more than one byte per sample, its own included", "blocks",
    ),
    Known("pydicom-rle", lambda case: case.format.bits_allocated == 1, "refuses", d.RLE, _mono(1, 1), "comes in 3.1"),
    Known("dcmdrle", lambda case: case.format.bits_allocated == 1, "refuses", d.RLE, _mono(1, 1), "Bits Allocated 1"),
    # JPEG Lossless
    Known("gdcm-jpeg", _few_bits_in_8, "crashes", _JPEG_LOSSLESS, _mono(8, 7), "Bits Stored below 8 in cells of 8"),
    Known(
        "pydicom-gdcm-jpeg", _few_bits_in_8, "crashes", _JPEG_LOSSLESS, _mono(8, 7), "Bits Stored below 8 in cells of 8"
    ),
    Known(
        "jpeg-decoder", lambda case: case.coding.samples == 3 and case.coding.cell_bits == 16, "refuses",
        _JPEG_LOSSLESS, _rgb(16, 16), "colour of more than 8 bits comes out with 8",
    ),
    Known(
        "ffmpeg-jpeg", lambda case: case.uid in d.JPEG_LOSSLESS and case.coding.cell_bits == 16, "wrong",
        _JPEG_LOSSLESS, _mono(16, 16, rows=17, columns=33), "some differences of 16-bit samples", "gradient",
    ),
    # JPEG Extended, 12 bits
    Known(
        "pydicom-gdcm-jpeg", lambda case: case.uid == _EXTENDED and case.coding.precision == 12, "refuses", _EXTENDED,
        _mono(16, 12), "pydicom does not let gdcm try",
    ),
    Known(
        "jpeg-decoder", lambda case: case.uid == _EXTENDED and case.coding.precision == 12, "refuses", _EXTENDED,
        _mono(16, 12), "12 bits",
    ),
    Known(
        "ffmpeg-jpeg", lambda case: case.uid == _EXTENDED and case.coding.precision == 12, "wrong", _EXTENDED,
        _mono(16, 12), "12 bits",
    ),
    # JPEG-LS
    Known(
        "pydicom-gdcm-jpegls", lambda case: case.format.bits_stored in (6, 7), "refuses", _JPEG_LS, _mono(8, 7),
        "pydicom does not let gdcm try",
    ),
    Known(
        "pydicom-gdcm-jpegls",
        lambda case: case.uid == d.JPEG_LS[1] and case.format.signed and case.format.bits_stored < 8,
        "refuses", d.JPEG_LS[1], _mono(16, 5, signed=True), "pydicom does not let gdcm try",
    ),
    Known(
        "ffmpeg-jpegls", lambda case: case.coding.samples == 3 and case.coding.precision <= 8, "wrong", _JPEG_LS,
        _rgb(8, 8), "sample-interleaved colour",
    ),
    Known(
        "ffmpeg-jpegls", lambda case: case.coding.samples == 3 and case.coding.precision > 8, "refuses", _JPEG_LS,
        _rgb(16, 16), "sample-interleaved colour of more than 8 bits",
    ),
    # JPEG 2000 and HTJ2K
    Known(
        "ffmpeg-jpeg2000", lambda case: case.coding.precision > 16, "refuses", d.J2K[0], _mono(32, 17),
        "more than 16 bits",
    ),
    Known(
        "ffmpeg-jpeg2000", lambda case: case.uid in d.HTJ2K, "wrong", d.HTJ2K[0], _mono(8, 8),
        "some code-blocks of noise, where OpenJPH and OpenJPEG agree on the samples that went in",
    ),
    *(
        Known(
            decoder, lambda case: case.uid in d.HTJ2K and case.coding.precision + case.coding.mct >= 29, "refuses",
            d.HTJ2K[0], _mono(32, 29), "OpenJPEG has 31 bit-planes, and three are for the wavelet",
        )
        for decoder in ("pylibjpeg-openjpeg", "gdcm-jpeg2000")
    ),
)  # fmt: skip

# Where no decoder of another code base is to be had.
NO_INDEPENDENT_DECODER: tuple[tuple[Callable[[Case], bool], str], ...] = (
    (lambda case: case.uid in d.J2K and case.coding.precision > 16, "only OpenJPEG reads Part 1 above 16 bits"),
    (
        lambda case: case.uid in d.HTJ2K and case.coding.precision + case.coding.mct >= 29,
        "only OpenJPH reads HTJ2K above 28 bits",
    ),
)


def defect(decoder: str, case: Case) -> Known | None:
    """Return the known defect of `decoder` that this case meets, if any."""
    return next((known for known in ALL if known.decoder == decoder and known.applies(case)), None)
