"""The transfer syntaxes as data: what each allows, and what its codestreams must be.

A rule of the standard is a field of a row, with its clause; nothing here encodes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gpuenc.errors import UnknownSyntax

MONO = ("MONOCHROME1", "MONOCHROME2")
NATIVE_UIDS = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")

Family = Literal["native", "rle", "jpeg", "jpeg-lossless", "jpeg-ls", "jpeg2000", "htj2k", "jpegxl", "deflate"]
Loss = Literal["never", "option", "always"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table in PS3.5 section 8.2: which formats may be encapsulated.

    `photometric` names what goes in. `encoded` is the Photometric Interpretation of what comes out, where that
    differs (a component transform inside the codestream, chroma subsampling, palette expansion).
    """

    photometric: tuple[str, ...]
    samples: int
    allocated: tuple[int, ...]
    stored: range
    signed: tuple[bool, ...] = (False, True)
    encoded: str = ""
    mct: bool = False
    lossless_only: bool = False
    lossy_only: bool = False


@dataclass(frozen=True, slots=True)
class Syntax:
    """A transfer syntax that gpuenc can write.

    Parameters
    ----------
    uid, keyword : str
        Transfer Syntax UID and its keyword in PS3.6.
    name : str
        Name on the command line.
    family : str
        The codec that makes its codestreams.
    loss : {'never', 'option', 'always'}
        Whether samples may change: never; when an option asks for it; always.
    rows : tuple of Row
        Formats allowed.
    precision : {'stored', 'allocated'}
        Whether the codestream's precision is Bits Stored or Bits Allocated.
    method : str
        (0028,2114) Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1).
    clause : str
        Where PS3.5 defines it.
    """

    uid: str
    keyword: str
    name: str
    family: Family
    loss: Loss
    rows: tuple[Row, ...]
    clause: str
    precision: Literal["stored", "allocated"] = "stored"
    method: str = ""
    aliases: tuple[str, ...] = field(default=())

    @property
    def encapsulated(self) -> bool:
        """Whether Pixel Data is encapsulated in fragments (PS3.5 A.4)."""
        return self.family != "native"

    @property
    def recompresses_jpeg(self) -> bool:
        """Whether its source is a JPEG codestream, which comes back bit for bit, and not samples."""
        return self.uid == "1.2.840.10008.1.2.4.111"

    @property
    def jpeg2000(self) -> bool:
        """Whether its codestreams follow T.800 (Part 1) or T.814 (HTJ2K)."""
        return self.family in ("jpeg2000", "htj2k")


_TO_16 = range(1, 17)
_JPEG_LOSSLESS = (
    Row(MONO, 1, (8, 16), _TO_16),
    Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,)),
    Row(("RGB", "YBR_FULL"), 3, (8, 16), _TO_16, (False,)),
    Row(("YBR_FULL_422",), 3, (8,), range(1, 9), (False,), encoded="YBR_FULL"),
)
_JPEG_LS = (
    Row(MONO, 1, (8, 16), range(2, 17)),
    Row(("PALETTE COLOR",), 1, (8, 16), range(2, 17), (False,), lossless_only=True),
    Row(("RGB",), 3, (8, 16), range(2, 17), (False,)),
    Row(("YBR_FULL",), 3, (8,), range(2, 9), (False,)),
    Row(("YBR_FULL_422",), 3, (8,), range(2, 9), (False,), encoded="YBR_FULL"),
)
# OpenJPEG is silently wrong from 26 bits on, and nothing else here encodes Part 1.
_TO_25 = range(1, 26)
_TO_32 = range(1, 33)
_TO_31 = range(1, 32)  # the reversible colour transform needs one bit more than the samples


def _jpeg2000(mono: range, colour: range) -> tuple[Row, ...]:
    return (
        Row(MONO, 1, (1,), range(1, 2), (False,)),
        Row(MONO, 1, (8, 16, 32), mono),
        Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,), lossless_only=True),
        Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,), encoded="YBR_ICT", mct=True, lossy_only=True),
        Row(("RGB", "YBR_RCT"), 3, (8, 16, 32), colour, (False,), "YBR_RCT", mct=True, lossless_only=True),
        Row(("RGB", "YBR_ICT"), 3, (8, 16, 32), colour, (False,), "YBR_ICT", mct=True, lossy_only=True),
        Row(("YBR_FULL",), 3, (8, 16, 32), colour, (False,)),
        Row(("YBR_FULL_422",), 3, (8,), range(1, 9), (False,), encoded="YBR_FULL"),
    )


_J2K = _jpeg2000(_TO_25, range(1, 25))
_HT = _jpeg2000(_TO_32, _TO_31)
_JXL_LOSSLESS = (
    Row(MONO, 1, (8, 16), _TO_16),
    Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,)),
    Row(("RGB",), 3, (8, 16), _TO_16, (False,)),
)
_ANY_NATIVE = (
    Row(MONO, 1, (1,), range(1, 2), (False,)),
    Row(MONO, 1, (8, 16, 32), _TO_32),
    Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,)),
    Row(("RGB", "YBR_FULL"), 3, (8, 16, 32), _TO_32, (False,)),
    Row(("YBR_FULL_422",), 3, (8,), range(1, 9), (False,)),
)

TABLE: tuple[Syntax, ...] = (
    Syntax(
        "1.2.840.10008.1.2.5", "RLELossless", "rle", "rle", "never",
        (
            Row(MONO, 1, (1,), range(1, 2), (False,)),
            Row(MONO, 1, (8, 16), _TO_16),
            Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,)),
            Row(("RGB",), 3, (8, 16), _TO_16, (False,)),
            Row(("YBR_FULL",), 3, (8,), range(1, 9), (False,)),
            Row(("YBR_FULL_422",), 3, (8,), range(1, 9), (False,), encoded="YBR_FULL"),
        ),
        "PS3.5 8.2.2, A.4.2, Annex G", "allocated",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.50", "JPEGBaseline8Bit", "jpeg-baseline", "jpeg", "always",
        (
            Row(MONO, 1, (8,), range(8, 9), (False,)),
            Row(("RGB", "YBR_FULL", "YBR_FULL_422"), 3, (8,), range(8, 9), (False,), encoded="YBR_FULL_422"),
            Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,), encoded="YBR_FULL_422"),
        ),
        "PS3.5 8.2.1, A.4.1", method="ISO_10918_1", aliases=("jpeg",),
    ),
    Syntax(
        "1.2.840.10008.1.2.4.51", "JPEGExtended12Bit", "jpeg-extended", "jpeg", "always",
        (
            Row(MONO, 1, (8,), range(8, 9), (False,)),
            Row(MONO, 1, (16,), range(12, 13), (False,)),
        ),
        "PS3.5 8.2.1, A.4.1", method="ISO_10918_1",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.57", "JPEGLossless", "jpeg-lossless", "jpeg-lossless", "never",
        _JPEG_LOSSLESS, "PS3.5 8.2.1, A.4.1", "allocated",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.70", "JPEGLosslessSV1", "jpeg-lossless-sv1", "jpeg-lossless", "never",
        _JPEG_LOSSLESS, "PS3.5 8.2.1, A.4.1", "allocated",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.80", "JPEGLSLossless", "jpeg-ls-lossless", "jpeg-ls", "never",
        _JPEG_LS, "PS3.5 8.2.3, A.4.3",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.81", "JPEGLSNearLossless", "jpeg-ls", "jpeg-ls", "option",
        _JPEG_LS, "PS3.5 8.2.3, A.4.3", method="ISO_14495_1", aliases=("jpeg-ls-near-lossless",),
    ),
    Syntax(
        "1.2.840.10008.1.2.4.90", "JPEG2000Lossless", "jpeg2000-lossless", "jpeg2000", "never",
        _J2K, "PS3.5 8.2.4, A.4.4",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.91", "JPEG2000", "jpeg2000", "jpeg2000", "option",
        _J2K, "PS3.5 8.2.4, A.4.4", method="ISO_15444_1",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.201", "HTJ2KLossless", "htj2k-lossless", "htj2k", "never",
        _HT, "PS3.5 8.2.14, A.4.10",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.202", "HTJ2KLosslessRPCL", "htj2k-lossless-rpcl", "htj2k", "never",
        _HT, "PS3.5 8.2.14, 10.18.1, A.4.10",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.203", "HTJ2K", "htj2k", "htj2k", "option",
        _HT, "PS3.5 8.2.14, A.4.10", method="ISO_15444_15",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.110", "JPEGXLLossless", "jpegxl-lossless", "jpegxl", "never",
        _JXL_LOSSLESS, "PS3.5 8.2.15, A.4.12",
    ),
    Syntax(
        # Its source is a JPEG codestream, not samples: these rows are what that JPEG may hold.
        "1.2.840.10008.1.2.4.111", "JPEGXLJPEGRecompression", "jpegxl-jpeg", "jpegxl", "never",
        (
            Row(MONO, 1, (8,), range(8, 9), (False,)),
            Row(("YBR_FULL_422", "YBR_FULL", "RGB"), 3, (8,), range(8, 9), (False,)),
        ),
        "PS3.5 8.2.15, A.4.12", aliases=("jpegxl-jpeg-recompression",),
    ),
    Syntax(
        "1.2.840.10008.1.2.4.112", "JPEGXL", "jpegxl", "jpegxl", "option",
        (
            Row(MONO, 1, (8, 16), _TO_16, (False,)),
            Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,), lossless_only=True),
            Row(("PALETTE COLOR",), 1, (8, 16), _TO_16, (False,), encoded="XYB", lossy_only=True),
            Row(("RGB",), 3, (8, 16), _TO_16, (False,), lossless_only=True),
            Row(("RGB",), 3, (8, 16), _TO_16, (False,), encoded="XYB", lossy_only=True),
            Row(("YBR_FULL", "YBR_FULL_422"), 3, (8,), range(8, 9), (False,), encoded="XYB", lossy_only=True),
        ),
        "PS3.5 8.2.15, A.4.12", method="ISO_18181_1",
    ),
    Syntax(
        "1.2.840.10008.1.2.8.1", "DeflatedImageFrameCompression", "deflated-image-frame", "deflate", "never",
        _ANY_NATIVE, "PS3.5 8.2.16, A.4.13", "allocated", aliases=("deflated-frame",),
    ),
    Syntax(
        "1.2.840.10008.1.2.1", "ExplicitVRLittleEndian", "explicit-vr-little-endian", "native", "never",
        _ANY_NATIVE, "PS3.5 A.2", "allocated", aliases=("uncompressed", "native"),
    ),
    Syntax(
        "1.2.840.10008.1.2.1.99", "DeflatedExplicitVRLittleEndian", "deflated-explicit-vr-little-endian", "native",
        "never", _ANY_NATIVE, "PS3.5 A.5", "allocated", aliases=("deflated",),
    ),
)  # fmt: skip

BY_UID = {syntax.uid: syntax for syntax in TABLE}
_BY_NAME = {
    name.lower(): syntax for syntax in TABLE for name in (syntax.uid, syntax.name, syntax.keyword, *syntax.aliases)
}


def find(name: str) -> Syntax:
    """Return the transfer syntax with this UID, PS3.6 keyword or command-line name.

    Raises
    ------
    UnknownSyntax
        gpuenc cannot write it.
    """
    try:
        return _BY_NAME[str(name).strip().lower()]
    except KeyError:
        known = ", ".join(syntax.name for syntax in TABLE)
        raise UnknownSyntax(
            f"'{name}' is not a transfer syntax that gpuenc can write; choose one of: {known}"
        ) from None


_DCT_JPEGS = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")


def name_of(uid: str) -> str:
    """Return the name of a transfer syntax, or the UID where it has none here."""
    other = {"1.2.840.10008.1.2": "implicit", "1.2.840.10008.1.2.2": "explicit-big-endian"}
    return BY_UID[uid].name if uid in BY_UID else other.get(uid, uid)


def keeps_jpeg(source_uid: str, syntax: Syntax) -> bool:
    """Return whether a JPEG codestream goes on as it is: into JPEG XL, or out of it again (PS3.5 A.4.12)."""
    if syntax.recompresses_jpeg:
        return source_uid in _DCT_JPEGS
    return syntax.uid in _DCT_JPEGS and source_uid in BY_UID and BY_UID[source_uid].recompresses_jpeg
