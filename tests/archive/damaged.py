"""Files as they come from broken disks, careless writers and enemies, with the outcome that each must have.

Every one of them names its patient ``SECRET^PATIENT``, which must never be shown.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from tests import made

if TYPE_CHECKING:
    from pathlib import Path

CODEC = "1.2.840.10008.1.2"
SAMPLES = made.noise((2, 8, 8), "u2", 12)
GOOD = made.of(SAMPLES, stored=12)
GARBAGE = np.random.default_rng(3).bytes(400)
LARGE = 65535
# A codestream of each, and where its header says how large the image is.
J2K = bytes(imagecodecs.jpeg2k_encode(SAMPLES[0], level=0, codecformat="j2k", reversible=True, bitspersample=12))
HTJ2K = bytes(imagecodecs.htj2k_encode(SAMPLES[0], reversible=True, bitspersample=12))
JPEG_LS = bytes(imagecodecs.jpegls_encode(SAMPLES[0], bitspersample=12))
SV1 = bytes(imagecodecs.jpeg8_encode(SAMPLES[0], lossless=True, predictor=1, bitspersample=16))


def even(codestream):
    return codestream + b"\0" * (len(codestream) % 2)


def coded(codestream, syntax, rows=8, columns=8):
    return made.compressed(
        [[even(codestream)]], rows=rows, columns=columns, allocated=16, stored=12, syntax=CODEC + syntax
    )


def large_siz(codestream):
    """Return a JPEG 2000 codestream that says it is as large as can be (SIZ, T.800 A.5.1)."""
    lie, at = bytearray(codestream), codestream.index(b"\xff\x51")
    lie[at + 6 : at + 14] = lie[at + 22 : at + 30] = struct.pack(">II", LARGE, LARGE)
    return bytes(lie)


def large_sof(codestream, marker):
    """Return a JPEG or JPEG-LS codestream that says it is as large as can be (T.81 B.2.2, T.87 C.2.2)."""
    lie, at = bytearray(codestream), codestream.index(marker)
    lie[at + 5 : at + 9] = struct.pack(">HH", LARGE, LARGE)
    return bytes(lie)


def hole(codestream):
    """Return a codestream whose middle third is gone."""
    third = len(codestream) // 3
    return codestream[:third] + codestream[-third:]


def rle_lie():
    return struct.pack("<16I", 2, 64, 70, *[0] * 13) + b"\x81\0" * 6


def bomb():
    """Return a deflated data set of 320 MB of zeros, which look like elements."""
    squeeze = zlib.compressobj(9, wbits=-15)
    zeros = b"".join(squeeze.compress(bytes(1 << 24)) for _ in range(20))
    return replace(GOOD, syntax=made.DEFLATED).prefix() + zeros + squeeze.flush()


def without(*tags):
    return replace(GOOD, without=frozenset(tags)).file()


def huge_element():
    return GOOD.prefix() + struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 0x7FFFFFFF) + b"xx"


# Name → (status, reason, bytes)
FILES = {
    "empty": ("skipped", "not-dicom", b""),
    "random": ("skipped", "not-dicom", np.random.default_rng(1).bytes(5000)),
    "text": ("skipped", "not-dicom", b"SECRET^PATIENT was here"),
    "truncated": ("failed", "truncated", GOOD.file()[:-30]),
    "truncated header": ("failed", "truncated", GOOD.file()[:400]),
    "truncated meta": ("failed", "truncated", GOOD.file()[:150]),
    "huge element": ("failed", "truncated", huge_element()),
    "length too short": ("failed", "truncated", replace(GOOD, pixel_length=10).file()),
    "length undefined": ("failed", "wrong-length", replace(GOOD, pixel_length=made.UNDEFINED).file()),
    "no Rows": ("failed", "invalid-pixels", without(0x00280010)),
    "no Columns": ("failed", "invalid-pixels", without(0x00280011)),
    "no Bits Allocated": ("failed", "invalid-pixels", without(0x00280100)),
    "no Bits Stored": ("failed", "invalid-pixels", without(0x00280101)),
    "Rows 0": ("failed", "invalid-pixels", replace(GOOD, rows=0).file()),
    "Columns 0": ("failed", "invalid-pixels", replace(GOOD, columns=0).file()),
    "Rows and Columns too large": ("failed", "truncated", replace(GOOD, rows=LARGE, columns=LARGE).file()),
    "Bits Allocated 12": ("failed", "invalid-pixels", replace(GOOD, allocated=12).file()),
    "Bits Allocated 64": ("failed", "invalid-pixels", replace(GOOD, allocated=64).file()),
    "Bits Stored 20": ("failed", "invalid-pixels", replace(GOOD, stored=20).file()),
    "High Bit 30": ("failed", "invalid-pixels", replace(GOOD, high_bit=30).file()),
    "Samples per Pixel 4": ("failed", "invalid-pixels", replace(GOOD, samples=4).file()),
    "no such Photometric Interpretation": ("failed", "format-not-allowed", replace(GOOD, photometric="CMYK").file()),
    "a name for Photometric Interpretation": (
        "failed", "invalid-pixels", replace(GOOD, photometric="SECRET^PATIENT").file(),
    ),
    "two thousand million frames": ("failed", "truncated", replace(GOOD, frames=2_000_000_000).file()),
    "no pixel data": ("copied", "no-pixel-data", replace(GOOD, pixel_tag=0x7FDF0010).file()),
    "float": ("copied", "float-pixel-data", made.float_pixels().file()),
    "video": ("copied", "video", coded(GARBAGE, ".4.102").file()),
    "private syntax": ("failed", "unknown-syntax", replace(GOOD, syntax="1.2.3.4.5.6").file()),
    "a name for a syntax": ("failed", "unknown-syntax", replace(GOOD, syntax="SECRET^PATIENT").file()),
    "JPIP": ("failed", "unknown-syntax", coded(GARBAGE, ".4.94").file()),
    "samples outside Bits Stored": (
        "copied", "values-outside-bits-stored", made.of(made.noise((1, 8, 8), "u2"), stored=12).file(),
    ),
    **{
        f"garbage in {syntax}": ("failed", "decode-failed", coded(GARBAGE, syntax).file())
        for syntax in (".5", ".4.57", ".4.70", ".4.80", ".4.90", ".4.201", ".4.110", ".8.1")
    },
    **{
        f"nothing in {syntax}": ("failed", "decode-failed", coded(b"", syntax).file())
        for syntax in (".5", ".4.70", ".4.80", ".4.90", ".4.201", ".4.110", ".8.1")
    },
    "a hole in JPEG-LS": ("failed", "decode-failed", coded(hole(JPEG_LS), ".4.80").file()),
    "a hole in JPEG 2000": ("failed", "decode-failed", coded(hole(J2K), ".4.90").file()),
    "another size in JPEG 2000": ("failed", "decode-failed", coded(J2K, ".4.90", rows=9).file()),
    **{
        f"huge garbage in {syntax}": ("failed", "wrong-length", coded(GARBAGE, syntax, LARGE, LARGE).file())
        for syntax in (".5", ".4.50", ".4.70", ".4.80", ".4.90", ".4.110", ".8.1")
    },
    "a lie in JPEG 2000": ("failed", "wrong-length", coded(large_siz(J2K), ".4.90", LARGE, LARGE).file()),
    "a lie in HTJ2K": ("failed", "wrong-length", coded(large_siz(HTJ2K), ".4.201", LARGE, LARGE).file()),
    "a lie in JPEG-LS": (
        "failed", "wrong-length", coded(large_sof(JPEG_LS, b"\xff\xf7"), ".4.80", LARGE, LARGE).file(),
    ),
    "a lie in JPEG Lossless": (
        "failed", "wrong-length", coded(large_sof(SV1, b"\xff\xc3"), ".4.70", LARGE, LARGE).file(),
    ),
    "a lie in RLE": ("failed", "wrong-length", coded(rle_lie(), ".5", LARGE, LARGE).file()),
    "a bomb": ("failed", "corrupt-header", bomb()),
    "good": ("encoded", "", GOOD.file()),
}  # fmt: skip


def write_all(folder: Path) -> dict[str, tuple[str, str]]:
    """Write every file; return what must become of each."""
    for name, (_, _, data) in FILES.items():
        (folder / f"{name}.dcm").write_bytes(data)
    return {f"{name}.dcm": (status, reason) for name, (status, reason, _) in FILES.items()}
