"""Compressed frames back to samples, by imagecodecs: for sources, and to verify what encoders made.

No colour is ever converted: what a JPEG holds as YCbCr stays YCbCr. Only transforms that belong to the codec itself are
undone (RCT and ICT of JPEG 2000, XYB of JPEG XL). Every codestream's own header is read first, so that no decoder is
given one whose size, components or end are not what the image says.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import imagecodecs
import numpy as np

from gpuenc.codestream import parse
from gpuenc.codestream.jpeg2000 import unboxed
from gpuenc.cpu import rle, samples
from gpuenc.cpu.jpeg_data import check_data
from gpuenc.errors import DecodeFailed, WrongCodestream
from gpuenc.frames import Coded, Frame, FrameFormat
from gpuenc.syntaxes import BY_UID

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gpuenc.codestream import StreamInfo
    from gpuenc.coding import Coding
    from gpuenc.syntaxes import Family, Syntax

_OPENJPEG_HT_BITS = 24
_RGB_IDENTIFIERS = tuple(b"RGB")
# Sequential Huffman coding (T.81 table B.1). Arithmetic coders may leave out zeros at the end (T.81 D.1.8).
_HUFFMAN_SOFS = (0, 1, 3)
# What these codecs return for samples whose colours they transform themselves.
_DECODED_PHOTOMETRIC = {"YBR_RCT": "RGB", "YBR_ICT": "RGB", "XYB": "RGB", "YBR_FULL_422": "YBR_FULL"}


def decode(
    uid: str,
    codestream: bytes,
    *,
    rows: int,
    columns: int,
    samples: int,
    bits_allocated: int,
    bits_stored: int,
    signed: bool,
    photometric: str,
) -> NDArray[Any]:
    """Return the samples of one compressed frame.

    Parameters
    ----------
    uid : str
        Transfer Syntax UID.
    codestream : bytes
        All fragments of the frame, joined; bytes that pad its end are ignored.
    rows, columns, samples, bits_allocated, bits_stored, signed, photometric
        The Image Pixel attributes, as in `gpuenc.frames.FrameFormat`.

    Returns
    -------
    numpy.ndarray
        (rows, columns) or (rows, columns, samples), C-contiguous, signed or unsigned integers of the size of
        `bits_allocated`, negative samples sign-extended. Chroma that was subsampled is upsampled.

    Raises
    ------
    DecodeFailed
        In one line: the codestream is cut off or corrupt, is not of this syntax, or contradicts the attributes.
    """
    fmt = FrameFormat(rows, columns, samples, bits_allocated, bits_stored, signed, photometric)
    syntax = _syntax(uid)
    return _decode(syntax, codestream, fmt, exact=syntax.loss == "never", foreign=True)[0]


@lru_cache(maxsize=256)
def decoded_format(uid: str, fmt: FrameFormat) -> FrameFormat:
    """Return the format of the cells that a `Coded` frame decodes to.

    Parameters
    ----------
    uid : str
        Transfer Syntax UID it is compressed with.
    fmt : FrameFormat
        What the dataset's attributes say.

    Returns
    -------
    FrameFormat
        Interleaved, little endian, with the Photometric Interpretation of the decoded samples. High Bit and embedded
        overlays stay only where whole cells are compressed: RLE, and deflated frames, which otherwise stay as they are.
    """
    family = BY_UID[uid].family if uid in BY_UID else ""
    if family in ("native", "deflate"):
        return replace(fmt, big_endian=False)
    whole = family == "rle"
    return replace(
        fmt,
        planar=0,
        big_endian=False,
        high_bit=fmt.high_bit if whole else fmt.bits_stored - 1,
        overlay_bits=fmt.overlay_bits if whole else 0,
        photometric=_DECODED_PHOTOMETRIC.get(fmt.photometric, fmt.photometric),
    )


def cells_of(frame: Frame) -> FrameFormat:
    """Return the format of the cells that one `Coded` frame decodes to.

    As `decoded_format`, and where High Bit is not Bits Stored - 1, as the codestream tells: one of more bits than
    High Bit was made of whole cells, so its samples, and embedded overlays, still lie where the attributes say.

    Raises
    ------
    DecodeFailed
        The codestream's header cannot be read.
    """
    coded, fmt = cast("Coded", frame.pixels), frame.format
    decoded = decoded_format(coded.syntax, fmt)
    syntax = _syntax(coded.syntax)
    if fmt.high_bit < fmt.bits_stored or syntax.family in ("rle", "deflate") or syntax.recompresses_jpeg:
        return decoded
    codestream = _unboxed(coded.codestream) if syntax.jpeg2000 else coded.codestream
    if _parse(codestream, syntax.family).precision <= fmt.high_bit:
        return decoded
    return replace(decoded, high_bit=fmt.high_bit, overlay_bits=fmt.overlay_bits)


def decode_frame(frame: Frame) -> Frame:
    """Return a frame with `Coded` pixels as one with native cells.

    Raises
    ------
    DecodeFailed
        As `decode`.
    """
    coded = cast("Coded", frame.pixels)
    syntax = _syntax(coded.syntax)
    fmt = cells_of(frame)
    if syntax.family == "deflate":
        return Frame(frame.ref, fmt, np.frombuffer(_inflate(coded.codestream, fmt.frame_bytes), np.uint8))
    decoded = _decode(syntax, coded.codestream, fmt, exact=syntax.loss == "never", foreign=True)[0]
    return Frame(frame.ref, fmt, samples.to_cells(decoded, fmt))


def decode_samples(
    codestream: bytes,
    syntax: Syntax,
    coding: Coding,
    *,
    by: Callable[[bytes, StreamInfo], NDArray[Any]] | None = None,
) -> NDArray[Any]:
    """Return what a codestream made for `coding` decodes to, to be compared with the prepared samples.

    Parameters
    ----------
    codestream : bytes
        One frame.
    syntax : Syntax
        Its transfer syntax.
    coding : Coding
        What it was made for.
    by : callable, optional
        What decodes the samples of a codestream with this header, instead of imagecodecs; of families with a header.

    Returns
    -------
    numpy.ndarray
        Shape and dtype as `cpu.samples.prepare` returns them; for re-compressed JPEG the JPEG codestream, uint8,
        shape (bytes,).

    Raises
    ------
    DecodeFailed
        As `decode`.
    """
    if syntax.recompresses_jpeg:
        return np.frombuffer(jpeg_of(codestream), np.uint8)
    if coding.raw:
        count = 2 if coding.photometric == "YBR_FULL_422" else coding.samples
        size = (coding.rows * coding.columns * count * coding.precision + 7) // 8
        cells = _inflate(codestream, size) if syntax.family == "deflate" else codestream
        if len(cells) != size:
            raise DecodeFailed(f"the frame has {len(cells)} bytes, not {size}")
        return np.frombuffer(cells, np.uint8)
    fmt = FrameFormat(
        coding.rows,
        coding.columns,
        coding.samples,
        coding.cell_bits,
        coding.precision,
        coding.signed,
        coding.photometric,
    )
    return _decode(syntax, codestream, fmt, exact=coding.lossless, by=by)[0]


def jpeg_of(codestream: bytes) -> bytes:
    """Return the JPEG codestream that a re-compressed one (.111) was made of, bit for bit.

    Raises
    ------
    DecodeFailed
        It does not hold what is needed for that, or is corrupt.
    """
    info = _parse(codestream, "jpegxl")
    if not info.jpeg_data:
        raise DecodeFailed("the JPEG XL codestream has no JPEG reconstruction data")
    return bytes(_call("jpegxl", imagecodecs.jpegxl_decode_jpeg, codestream[: info.length_bytes]))


def _syntax(uid: str) -> Syntax:
    syntax = BY_UID.get(uid)
    if syntax is None or not syntax.encapsulated:
        raise DecodeFailed(f"imagecodecs does not decode transfer syntax {uid}")
    return syntax


def _decode(
    syntax: Syntax,
    codestream: bytes,
    fmt: FrameFormat,
    *,
    exact: bool,
    foreign: bool = False,
    by: Callable[[bytes, StreamInfo], NDArray[Any]] | None = None,
) -> tuple[NDArray[Any], int]:
    """Return samples in the container of Bits Allocated, and the precision of the codestream.

    `exact` promises that the codestream holds every sample as it was; `foreign` asks for the checks that only sources
    need, and not what was encoded just now.
    """
    container = np.dtype(f"{'i' if fmt.signed else 'u'}{max(1, fmt.bits_allocated // 8)}")
    if syntax.family == "deflate":
        cells = np.frombuffer(_inflate(codestream, fmt.frame_bytes), np.uint8)
        numbers = samples.native_cells(cells, fmt)
        if fmt.subsampled:
            numbers = samples.upsample_422(numbers, fmt.rows, fmt.columns)
        return numbers.reshape(fmt.shape).view(container), fmt.bits_allocated
    if syntax.family == "rle":
        return rle.decode(codestream, fmt.shape, container), 8 * container.itemsize
    family = syntax.family
    if syntax.recompresses_jpeg:
        codestream, family = jpeg_of(codestream), "jpeg"
    elif syntax.jpeg2000:
        codestream = _unboxed(codestream)
    info = _checked(codestream, family, fmt)
    codestream = codestream[: info.length_bytes]
    decoded = by(codestream, info) if by else _DECODERS[family](codestream, info, exact)
    if decoded.shape != fmt.shape or decoded.dtype.kind not in "iu":
        raise DecodeFailed(f"the codestream decodes to {decoded.dtype} of shape {decoded.shape}, not {fmt.shape}")
    if foreign and info.sof in _HUFFMAN_SOFS:
        check_data(codestream, decoded, partial(_jpeg, info=info, exact=True))
    return _in_container(decoded, info, container), info.precision


def _checked(codestream: bytes, family: Family, fmt: FrameFormat) -> StreamInfo:
    """Return what the header says, once it agrees with the attributes and the codestream ends as it must."""
    info = _parse(codestream, family)
    have, want = (info.rows, info.columns, info.samples), (fmt.rows, fmt.columns, fmt.samples)
    if have != want:
        raise DecodeFailed(
            f"the codestream has {have[0]} rows, {have[1]} columns and {have[2]} components; the image has {want[0]}, "
            f"{want[1]} and {want[2]}"
        )
    if not 1 <= info.precision <= max(8, fmt.bits_allocated):
        raise DecodeFailed(
            f"the codestream has {info.precision} bits per sample; Bits Allocated is {fmt.bits_allocated}"
        )
    if info.signed not in (None, fmt.signed) and info.precision < fmt.bits_stored:
        raise DecodeFailed(
            f"the codestream has {info.precision} bits and another sign; Bits Stored is {fmt.bits_stored}"
        )
    if info.ends_properly is False:
        raise DecodeFailed("the codestream is cut off, or something other than padding follows it")
    if family == "jpeg-lossless" and info.sof != 3:
        raise DecodeFailed(f"the codestream has SOF{info.sof}, and is not lossless as its transfer syntax says")
    if family in ("jpeg", "jpeg-lossless") and fmt.photometric == "RGB" and (info.jfif or info.adobe_transform == 1):
        # Its readers would show YCbCr; a copy of its samples under the attribute's name would show other colours.
        raise DecodeFailed("the JPEG's markers say YCbCr, and Photometric Interpretation says RGB")
    if family == "jpeg" and fmt.photometric.startswith("YBR") and _says_rgb(info):
        # Only with DCT: lossless JPEG of YCbCr often has Adobe's 0, which its encoders write for any colours.
        raise DecodeFailed(f"the JPEG's markers say RGB, and Photometric Interpretation says {fmt.photometric}")
    if family in ("jpeg2000", "htj2k") and set(info.subsampling) != {(1, 1)}:
        raise DecodeFailed(f"the codestream is subsampled: {info.subsampling}")
    return info


def _says_rgb(info: StreamInfo) -> bool:
    """Whether decoders take a JPEG's three components for RGB: JFIF counts more than Adobe, and it than identifiers."""
    if info.jfif or info.samples != 3:
        return False
    return info.adobe_transform == 0 or (info.adobe_transform is None and info.components == _RGB_IDENTIFIERS)


def _unboxed(codestream: bytes) -> bytes:
    try:
        return unboxed(codestream)
    except WrongCodestream as error:
        raise DecodeFailed(str(error)) from None


def _parse(codestream: bytes, family: Family) -> StreamInfo:
    try:
        return parse(codestream, family)
    except WrongCodestream as error:
        raise DecodeFailed(str(error)) from None


def _in_container(decoded: NDArray[Any], info: StreamInfo, container: np.dtype[Any]) -> NDArray[Any]:
    """Return samples as integers of the image's sign, whatever sign the codestream has.

    Where the two differ, or the codec knows no sign, the bits of each sample are read with the image's sign: that is
    how datasets and codestreams that contradict each other are meant, and what other decoders do.
    """
    unused = 8 * decoded.dtype.itemsize - info.precision
    if (decoded.dtype.kind == "i") != (container.kind == "i"):
        unsigned = decoded.view(f"u{decoded.dtype.itemsize}") << unused
        decoded = unsigned.view(f"{container.kind}{decoded.dtype.itemsize}") >> unused
    return np.ascontiguousarray(decoded.astype(container, copy=False))


def _call(name: str, function: Callable[..., Any], codestream: bytes, **options: Any) -> Any:
    """Let a codec decode, and turn whatever it raises into one line."""
    try:
        return function(codestream, **options)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise DecodeFailed(f"{name}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _jpeg(codestream: bytes, info: StreamInfo, exact: bool) -> NDArray[Any]:
    # Told that components are YCbCr and wanted as YCbCr, libjpeg leaves them alone, whatever the markers say.
    colour = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"} if info.samples == 3 else {}
    return cast("NDArray[Any]", _call("libjpeg-turbo", imagecodecs.jpeg8_decode, codestream, **colour))


def _jpeg_ls(codestream: bytes, info: StreamInfo, exact: bool) -> NDArray[Any]:
    return cast("NDArray[Any]", _call("CharLS", imagecodecs.jpegls_decode, codestream))


def _jpeg2000(codestream: bytes, info: StreamInfo, exact: bool) -> NDArray[Any]:
    # imagecodecs cuts off what OpenJPH returns beyond the samples' range: after loss, 255 + 1 becomes 0. OpenJPEG
    # clips, is three times as slow, and does not read HTJ2K of more than 28 bits.
    if info.ht and info.lossless and (exact or info.precision > _OPENJPEG_HT_BITS):
        # Without being told, it returns components that share no colour transform as planes.
        interleaved = {"planar": False} if info.samples > 1 else {}
        return cast("NDArray[Any]", _call("OpenJPH", imagecodecs.htj2k_decode, codestream, **interleaved))
    return cast("NDArray[Any]", _call("OpenJPEG", imagecodecs.jpeg2k_decode, codestream, numthreads=1))


def _jpegxl(codestream: bytes, info: StreamInfo, exact: bool) -> NDArray[Any]:
    return cast("NDArray[Any]", _call("libjxl", imagecodecs.jpegxl_decode, codestream, index=0, numthreads=1))


_DECODERS: dict[Family, Callable[[bytes, StreamInfo, bool], NDArray[Any]]] = {
    "jpeg": _jpeg,
    "jpeg-lossless": _jpeg,
    "jpeg-ls": _jpeg_ls,
    "jpeg2000": _jpeg2000,
    "htj2k": _jpeg2000,
    "jpegxl": _jpegxl,
}


def _inflate(codestream: bytes, size: int) -> bytes:
    """Return exactly `size` bytes of raw deflate (RFC 1951)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        cells = inflater.decompress(codestream, size + 1)
    except zlib.error as error:
        raise DecodeFailed(f"deflate: {error}") from None
    if len(cells) != size or not inflater.eof or inflater.unused_data.strip(b"\0"):
        raise DecodeFailed(f"the deflated frame does not hold the {size} bytes of the image")
    return cells
