"""What nvImageCodec can be asked for, and how: pure but for the names of its enumerations.

What it would refuse, or do other than asked, is refused here with a reason, before anything is copied to a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gpuenc.coding import Coding
    from gpuenc.frames import FrameFormat
    from gpuenc.targets import Target

UIDS = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
)
RPCL = "1.2.840.10008.1.2.4.202"
DEFAULT_QUALITY = 90.0
# Encoders come close to what they are asked for from both sides, and at least that much is what was promised.
_PSNR_MARGIN_DB = 0.5
# nvJPEG's sizes overflow 32 bits for colour images a little larger (CUDALibrarySamples issue 360).
_MOST_JPEG_PX = 1 << 28


def codec_of(target: Target) -> Literal["jpeg2k", "jpeg"]:
    """Return nvImageCodec's name of the codec."""
    return "jpeg2k" if target.syntax.jpeg2000 else "jpeg"


def refusal(target: Target, fmt: FrameFormat, coding: Coding) -> str:
    """Return why frames of `fmt` are not for the device, or nothing."""
    if fmt.bits_allocated == 1:
        return "single bits are not for the device"
    if coding.precision > 16:
        return f"nvImageCodec encodes samples of at most 16 bits, not {coding.precision}"
    if coding.signed and coding.cell_bits == 8:
        return "nvImageCodec encodes no signed samples of 8 bits"
    return _jpeg2000_refusal(target, coding) if target.syntax.jpeg2000 else _jpeg_refusal(fmt, coding)


def _jpeg2000_refusal(target: Target, coding: Coding) -> str:
    if target.ratios:
        return "nvJPEG2000 cannot be asked for a compression ratio"
    if len(target.psnrs) > 1:
        return "nvJPEG2000 writes one quality layer"
    if target.psnrs and target.syntax.family == "htj2k":
        return "nvJPEG2000 takes no PSNR for HTJ2K"
    # It makes at most log2 of the shorter side, whatever it is asked for.
    most = min(coding.rows, coding.columns).bit_length() - 1
    if coding.levels > most:
        return (
            f"nvJPEG2000 makes {most} decomposition levels of {coding.rows} rows and {coding.columns} columns, and "
            f"{coding.levels} are needed"
        )
    return ""


def _jpeg_refusal(fmt: FrameFormat, coding: Coding) -> str:
    if coding.precision != 8:
        return "nvJPEG encodes samples of 8 bits"
    if coding.rows * coding.columns > _MOST_JPEG_PX:
        return "the image is too large for nvJPEG"
    if coding.samples == 3 and fmt.photometric not in ("RGB", "PALETTE COLOR"):
        return f"nvJPEG takes RGB and converts it; samples are {fmt.photometric}"
    if coding.samples == 3 and coding.photometric != "YBR_FULL_422":
        return f"nvJPEG converts RGB to YCbCr and is asked for {coding.photometric}"
    return ""


def settings(nv: Any, target: Target, coding: Coding) -> Any:
    """Return the ``EncodeParams`` for `coding`.

    Nothing is left to a default that has changed between versions (chroma subsampling) or that DICOM has no use for
    (the JP2 file format).
    """
    if not target.syntax.jpeg2000:
        css = nv.ChromaSubsampling
        return nv.EncodeParams(
            quality_type=nv.QualityType.QUALITY,
            quality_value=float(round(target.quality or DEFAULT_QUALITY)),
            chroma_subsampling=css.CSS_422 if coding.samples == 3 else css.CSS_GRAY,
            jpeg_encode_params=nv.JpegEncodeParams(progressive=False, optimized_huffman=False),
        )
    j2k = nv.Jpeg2kEncodeParams(
        ht=target.syntax.family == "htj2k",
        bitstream_type=nv.Jpeg2kBitstreamType.J2K,
        prog_order=nv.Jpeg2kProgOrder.RPCL,
        # The number of resolutions: one more than decompositions.
        num_resolutions=coding.levels + 1,
        mct_mode=int(coding.mct),
        code_block_size=(64, 64),
    )
    if coding.lossless:
        quality: dict[str, Any] = {"quality_type": nv.QualityType.LOSSLESS}
    else:
        quality = {"quality_type": nv.QualityType.PSNR, "quality_value": target.psnrs[0] + _PSNR_MARGIN_DB}
    return nv.EncodeParams(
        **quality,
        # A component transform needs both colour specifications to be sRGB; anything else converts nothing.
        color_spec=nv.ColorSpec.SRGB if coding.mct else nv.ColorSpec.UNCHANGED,
        chroma_subsampling=nv.ChromaSubsampling.CSS_444 if coding.samples == 3 else nv.ChromaSubsampling.CSS_GRAY,
        jpeg2k_encode_params=j2k,
    )


def decode_settings(nv: Any) -> Any:
    """Return the ``DecodeParams`` that change nothing: by default samples become 8 bits of sRGB, turned by Exif."""
    return nv.DecodeParams(
        apply_exif_orientation=False,
        color_spec=nv.ColorSpec.UNCHANGED,
        allow_any_depth=True,
        sample_format=nv.SampleFormat.I_UNCHANGED,
    )


def decode_refusal(target: Target, coding: Coding) -> str:
    """Return why nvImageCodec's decoder would not give back what `coding` codes, or nothing."""
    if not target.syntax.jpeg2000:
        return "nvImageCodec verifies JPEG 2000 and HTJ2K alone"
    if coding.signed and coding.precision <= 8:
        return "nvJPEG2000 decodes no signed samples of 8 bits or fewer"
    return ""


def image(nv: Any, samples: Any, target: Target, coding: Coding, stream: int = 0) -> Any:
    """Return prepared samples of one frame as an ``Image``: its precision in the codestream's terms.

    Parameters
    ----------
    samples : array
        On the host or a device, C-contiguous, shape `coding.shape`.
    stream : int
        The CUDA stream on which they are made.
    """
    return nv.as_image(
        samples,
        stream,
        sample_format=nv.SampleFormat.I_RGB if coding.samples == 3 else nv.SampleFormat.I_Y,
        color_spec=nv.ColorSpec.SRGB if coding.samples == 3 else nv.ColorSpec.GRAY,
        # JPEG has no such thing, and warns.
        precision=coding.precision if target.syntax.jpeg2000 else None,
    )
