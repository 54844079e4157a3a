"""Prepared samples to codestreams, by imagecodecs: one function per family of codecs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import imagecodecs
import numpy as np

from gpuenc.codestream import unbox
from gpuenc.cpu import decoders, lossy, rle
from gpuenc.errors import CodecError, InvalidPixels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.frames import FrameFormat
    from gpuenc.syntaxes import Family
    from gpuenc.targets import Target

DEFAULT_QUALITY = 90.0
# OpenJPEG keeps no more than 26 bits of a sample, and says nothing; up to 22 no coefficient can exceed that.
_MOST_J2K_BITS, _ALWAYS_EXACT_J2K_BITS = 25, 22
_SAFE_CHROMA = 0.65  # of the samples' range; 2 / 2.93 = 0.68 is where LL of five levels could overflow
_FINEST_STEP, _COARSEST_STEP = 1e-5, 1.0  # what imagecodecs passes on to OpenJPH, relative to the samples' range
_OPENJPH_DEFAULT_LEVELS = 5
# Lossless, effort 1 writes 600 MB/s and 3 30 MB/s of a CT for 8 % less; lossy, 5 is where the quality flattens.
_JXL_LOSSLESS_EFFORT, _JXL_LOSSY_EFFORT = 1, 5
_JXL_FINEST_QUALITY = 99.9  # from 100 on libjxl leaves XYB and becomes lossless


def encode_samples(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    """Return the codestream of one frame.

    Parameters
    ----------
    samples : numpy.ndarray
        What `cpu.samples.prepare` made of the frame for `coding`.
    target : Target
        Transfer syntax and options.
    coding : Coding
        What the codestream must say.
    source : FrameFormat
        Where the samples come from: their colours, and Bits Stored.

    Returns
    -------
    bytes
        Of even or odd length; for native targets the cells.

    Raises
    ------
    CodecError
        The codec cannot do this, refused or failed.
    InvalidPixels
        The samples would not survive: near-lossless coding of signed samples close to their limits.
    """
    return _ENCODERS[target.syntax.family](samples, target, coding, source)


def openjpeg_may_be_wrong(coding: Coding) -> bool:
    """Return whether OpenJPEG loses bits of some such samples without a word, so that each frame must be compared."""
    return coding.mct or coding.precision > _ALWAYS_EXACT_J2K_BITS


def recompress_jpeg(jpeg: bytes) -> bytes:
    """Return a JPEG codestream as JPEG XL from which it comes back bit for bit (PS3.5 A.4.12).

    Raises
    ------
    CodecError
        libjxl does not take this JPEG: lossless, 12-bit, arithmetic-coded or corrupt.
    """
    # Only the boxes of a container have room for what is needed to restore the JPEG.
    return _call("libjxl", imagecodecs.jpegxl_encode_jpeg, jpeg, usecontainer=True, numthreads=1)


def _call(name: str, function: Callable[..., Any], data: Any, *arguments: Any, **options: Any) -> bytes:
    """Let a codec encode, and turn whatever it raises into one line."""
    try:
        return cast("bytes", function(data, *arguments, **options))
    except (RuntimeError, ValueError, MemoryError) as error:
        raise CodecError(f"{name}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _raw(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    return samples.tobytes()


def _deflate(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    return _call("libdeflate", imagecodecs.deflate_encode, np.ascontiguousarray(samples), raw=True)


def _rle(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    return rle.encode(samples)


def _unsigned(samples: NDArray[Any]) -> NDArray[Any]:
    """Return two's complement as codecs without signs take it: whole cells."""
    return samples.view(f"u{samples.dtype.itemsize}")


def _jpeg_ls(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    bits = source.bits_allocated if coding.whole_cells else source.bits_stored
    if target.near and coding.signed:
        _check_margin(samples, target.near, bits)
    cells = _unsigned(samples)

    def encode(**room: int) -> bytes:
        # SPIFF has no place in DICOM; without it the stream begins SOI SOF55. Samples of a pixel lie together (ILV 2).
        return _call(
            "CharLS", imagecodecs.jpegls_encode, cells, target.near, bitspersample=coding.precision, spiff=False, **room
        )

    try:
        codestream = encode()
    except CodecError:
        # The room that CharLS estimates is too small for noise; the longest code of a sample is 4 times its bits
        # (T.87 A.2.1), and a bit may be stuffed into every byte.
        codestream = encode(out=5 * cells.nbytes + 4096)
    if target.near and not coding.signed and coding.precision > bits:
        decoded = decoders.decode_samples(codestream, target.syntax, coding)
        if int(decoded.max()) >> bits:
            raise InvalidPixels(
                f"A 'jls_error' of '{target.near}' carries samples beyond a (0028,0101) 'Bits Stored' value of '{bits}'"
            )
    return codestream


def _check_margin(samples: NDArray[Any], near: int, bits_stored: int) -> None:
    """Refuse signed samples that an error of `near` could carry over the edge of Bits Stored, and to the other sign."""
    low, high = -(1 << (bits_stored - 1)) + near, (1 << (bits_stored - 1)) - 1 - near
    if int(samples.min()) < low or int(samples.max()) > high:
        raise InvalidPixels(
            "The supported range of pixel values when performing lossy JPEG-LS encoding of signed integers with a "
            f"(0028,0101) 'Bits Stored' value of '{bits_stored}' and a 'jls_error' of '{near}' is ({low}, {high})"
        )


def _is_ybr(coding: Coding, source: FrameFormat) -> bool:
    """Whether prepared samples are luma and chroma."""
    return source.photometric.startswith("YBR_FULL") and not coding.to_rgb


def _jpeg(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    colour: dict[str, Any] = {}
    if coding.samples == 3:
        ycc = coding.photometric != "RGB"
        colour = {
            "colorspace": "YCBCR" if _is_ybr(coding, source) else "RGB",
            "outcolorspace": "YCBCR" if ycc else "RGB",
        }
        if ycc:
            colour["subsampling"] = "422" if coding.photometric == "YBR_FULL_422" else "444"
    quality = round(target.quality or DEFAULT_QUALITY)
    return _call("libjpeg-turbo", imagecodecs.jpeg8_encode, samples, quality, bitspersample=coding.precision, **colour)


def _jpeg_lossless(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    colour: dict[str, Any] = {}
    if coding.samples == 3:
        # As YCbCr, libjpeg-turbo 3.2 names Huffman tables in its headers that it does not use, and most decoders return
        # other samples. Without a colour space it writes no markers that would claim one, and all read it right.
        space = "UNKNOWN" if _is_ybr(coding, source) else "RGB"
        colour = {"colorspace": space, "outcolorspace": space}
    return _call(
        "libjpeg-turbo",
        imagecodecs.jpeg8_encode,
        _unsigned(samples),
        lossless=True,
        predictor=1,
        bitspersample=coding.precision,
        **colour,
    )


def _jpeg2000(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    if coding.precision > _MOST_J2K_BITS:
        raise CodecError(f"OpenJPEG is wrong above {_MOST_J2K_BITS} bits, and the samples have {coding.precision}")
    if len(target.psnrs) + len(target.ratios) > 1:
        raise CodecError("imagecodecs writes JPEG 2000 with one quality layer, and several were asked for")

    def encode(psnr_db: float | None, levels: int = coding.levels) -> bytes:
        return _call(
            "OpenJPEG",
            imagecodecs.jpeg2k_encode,
            samples,
            psnr_db,
            codecformat="J2K",
            bitspersample=coding.precision,
            reversible=psnr_db is None,
            mct=coding.mct,
            # The number of resolutions: one more than decompositions. It makes fewer of them in small images.
            resolutions=levels + 1,
            numthreads=1,
        )

    if coding.lossless:
        return _exact_jpeg2000(encode, samples, target, coding)
    most = 6.1 * coding.precision + 60
    if target.psnrs:
        return _by_psnr(encode, samples, target, coding, low=1, high=most, start=target.psnrs[0], slope=1)
    return _by_ratio(lambda x: encode(-x), samples, target, coding, low=-most, high=-1, start=-45, slope=0.1)


def _exact_jpeg2000(
    encode: Callable[[None, int], bytes], samples: NDArray[Any], target: Target, coding: Coding
) -> bytes:
    """Return a codestream that OpenJPEG did not get wrong.

    Raises
    ------
    CodecError
        It gets these samples wrong whatever is tried.
    """
    for levels in dict.fromkeys((coding.levels, 0)):
        try:
            codestream = encode(None, levels)
        except CodecError:
            # Its buffer for packets is sized by the samples, and decomposed noise of 1 or 2 bits needs more.
            if not levels:
                raise
            continue
        if _fits_openjpeg(samples, coding, levels):
            return codestream
        if np.array_equal(decoders.decode_samples(codestream, target.syntax, coding), samples):
            return codestream
    raise CodecError("OpenJPEG gets samples of so many bits wrong")


def _fits_openjpeg(samples: NDArray[Any], coding: Coding, levels: int) -> bool:
    """Whether no wavelet coefficient of these samples can overflow what OpenJPEG has room for.

    It has room for 25 bits, and for the bits of QCD: precision + log2 gain + 1 (T.800 E.2 with 2 guard bits). The worst
    signs make the 5-3 wavelet return 2.93 times the largest sample in LL and 8.1 times in HH (T.800 F.3.8.2), which
    fits; but the chroma of RCT has a bit more than its samples (T.800 G.2), and what does not fit is lost unsaid.
    """
    if coding.precision > _ALWAYS_EXACT_J2K_BITS - coding.mct or (coding.mct and coding.precision <= 3):
        # In so few bits the rounding of the transform weighs as much as the samples.
        return False
    if not coding.mct or not levels:
        return True
    wide = f"i{2 * samples.dtype.itemsize}"
    green = samples[..., 1].astype(wide)
    largest = max(int(np.abs(samples[..., other] - green).max()) for other in (0, 2))
    return largest < _SAFE_CHROMA * (1 << coding.precision)


def _htj2k(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    if len(target.psnrs) + len(target.ratios) > 1:
        raise CodecError("HTJ2K has one quality layer here, and several were asked for")
    levels = _openjph_levels(coding)
    colour = {"rgb": coding.mct, "planar": False} if coding.samples > 1 else {}

    def encode(step: float | None) -> bytes:
        return _call(
            "OpenJPH",
            imagecodecs.htj2k_encode,
            samples,
            step,
            reversible=step is None,
            # .202 must have the lengths of tile-parts (PS3.5 10.18.1); elsewhere they cost 12 bytes.
            tlm=True,
            prog_order="RPCL",
            bitspersample=coding.precision,
            resolutions=levels,
            **colour,
        )

    if coding.lossless:
        return encode(None)
    finest, coarsest = math.log2(_FINEST_STEP), math.log2(_COARSEST_STEP)
    if target.psnrs:
        # Noise of a uniform quantiser: a twelfth of the squared step.
        start = (target.psnrs[0] - 10 * math.log10(12)) / (20 * math.log10(2))
        return _by_psnr(
            lambda x: encode(2.0**-x), samples, target, coding, low=-coarsest, high=-finest, start=start, slope=6.0
        )
    return _by_ratio(
        lambda x: encode(2.0**x), samples, target, coding, low=finest, high=coarsest, start=-7.0, slope=0.6
    )


def _openjph_levels(coding: Coding) -> int | None:
    """Return what to ask imagecodecs for, so that the codestream gets `coding.levels` decompositions or a few more.

    imagecodecs makes at most log2 of the shorter side; only its default, 5, it makes in any image. 0 would be coded
    with two bits too few in the exponent of QCD, and wrong pixels.
    """
    most = min(coding.rows, coding.columns).bit_length() - 1
    wanted = max(1, coding.levels)
    if wanted <= most:
        return wanted
    if wanted <= _OPENJPH_DEFAULT_LEVELS:
        return None
    raise CodecError(
        f"imagecodecs cannot make {wanted} decomposition levels of {coding.rows} rows and {coding.columns} columns"
    )


def _by_psnr(
    encode: Callable[[float], bytes],
    samples: NDArray[Any],
    target: Target,
    coding: Coding,
    **search: float,
) -> bytes:
    """Return the smallest codestream found with at least the PSNR asked for, at most 0.5 dB above it where possible."""

    def excess(codestream: bytes) -> float:
        decoded = decoders.decode_samples(codestream, target.syntax, coding)
        return lossy.psnr_db(samples, decoded, coding.precision) - target.psnrs[0]

    return lossy.least(encode, excess, tolerance=lossy.PSNR_TOLERANCE_DB, **search)


def _by_ratio(
    encode: Callable[[float], bytes],
    samples: NDArray[Any],
    target: Target,
    coding: Coding,
    **search: float,
) -> bytes:
    """Return the best codestream found with at least the ratio asked for, at most 2 % above it where possible."""

    def excess(codestream: bytes) -> float:
        return lossy.log_ratio(samples, codestream, coding.precision) - math.log2(target.ratios[0])

    return lossy.least(encode, excess, tolerance=lossy.RATIO_TOLERANCE, **search)


def _jpegxl(samples: NDArray[Any], target: Target, coding: Coding, source: FrameFormat) -> bytes:
    if target.syntax.recompresses_jpeg:
        raise CodecError("JPEG XL JPEG Recompression takes JPEG codestreams, not samples")
    options: dict[str, Any] = {"bitspersample": coding.precision, "usecontainer": False, "numthreads": 1}
    if coding.lossless:
        options |= {"lossless": True, "effort": _JXL_LOSSLESS_EFFORT}
    else:
        quality = min(target.quality or DEFAULT_QUALITY, _JXL_FINEST_QUALITY)
        # By default more than 8 bits would be taken for linear light, and dark parts get most of the bits.
        options |= {"lossless": False, "level": quality, "effort": _JXL_LOSSY_EFFORT, "transfer": "SRGB"}
    # libjxl boxes samples of more than 12 bits all the same.
    return unbox(_call("libjxl", imagecodecs.jpegxl_encode, _unsigned(samples), **options))


_ENCODERS: dict[Family, Callable[[NDArray[Any], Target, Coding, FrameFormat], bytes]] = {
    "native": _raw,
    "deflate": _deflate,
    "rle": _rle,
    "jpeg": _jpeg,
    "jpeg-lossless": _jpeg_lossless,
    "jpeg-ls": _jpeg_ls,
    "jpeg2000": _jpeg2000,
    "htj2k": _htj2k,
    "jpegxl": _jpegxl,
}
