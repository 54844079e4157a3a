"""imagecodecs as a plug-in: every transfer syntax, on the CPU, without the GIL."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import imagecodecs
import numpy as np

from gpuenc.codestream import check, pad_even
from gpuenc.coding import coding
from gpuenc.cpu import decoders, encoders, samples
from gpuenc.errors import CodecError, EncodeFailed, GpuencError, InvalidOption
from gpuenc.frames import Coded, Encoded, Failure, Frame, FrameFormat
from gpuenc.plugins import Limits, usable_cores
from gpuenc.syntaxes import BY_UID, TABLE
from gpuenc.targets import from_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gpuenc.syntaxes import Family, Syntax
    from gpuenc.targets import Target

LABEL = "imagecodecs"
THREAD_SAFE = True
ENCODER_DEPENDENCIES = {syntax.uid: ("imagecodecs>=2026.10.10",) for syntax in TABLE if syntax.encapsulated}

_OLDEST = (2026, 10, 10)
_CODECS: dict[Family, str] = {
    "rle": "PACKBITS",
    "jpeg": "JPEG8",
    "jpeg-lossless": "JPEG8",
    "jpeg-ls": "JPEGLS",
    "jpeg2000": "JPEG2K",
    "htj2k": "HTJ2K",
    "jpegxl": "JPEGXL",
    "deflate": "DEFLATE",
}
# A lane that ends early waits for the others, so batches are short; but not of the codecs that are done so soon that
# handing over would cost more.
_BATCH_BYTES, _QUICK_BATCH_BYTES = 1 << 19, 1 << 21
_QUICK = ("rle", "native")
_BATCH_FRAMES = 1024
# Peak memory of one call over the frame's native bytes, measured on 2048 x 2048 pixels of noise, rounded up: samples,
# the codec's own arrays (32-bit integers or floats in some), the codestream. Frames of 1 bit take 8 times as much.
_PEAK_FACTORS: dict[Family, float] = {
    "native": 2,
    "deflate": 3,
    "rle": 3,
    "jpeg": 4,
    "jpeg-lossless": 4,
    "jpeg-ls": 4,
    "jpeg2000": 12,
    "htj2k": 6,
    "jpegxl": 4,
}
_LOSSY_PEAK_FACTORS: dict[Family, float] = {"htj2k": 12, "jpegxl": 24}
# What pydicom's callers name as intended is what comes out; these samples go in.
_SAMPLES_OF = {"YBR_RCT": "RGB", "YBR_ICT": "RGB", "XYB": "RGB"}


class Runner(Protocol):
    """What is used of pydicom's ``EncodeRunner``."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The encoding options."""


def is_available(uid: str) -> bool:
    """Return whether imagecodecs is new enough here and has the codec of transfer syntax `uid`."""
    return uid in ENCODER_DEPENDENCIES and _has_codec(BY_UID[uid].family)


@cache
def _has_codec(family: Family) -> bool:
    try:
        version = tuple(int(part) for part in imagecodecs.__version__.split(".")[:3])
        return version >= _OLDEST and bool(getattr(imagecodecs, _CODECS[family]).available)
    except (AttributeError, ImportError, ValueError):
        return False


def encode_frame(src: bytes, runner: Runner) -> bytes:
    """Return one encoded frame: the function that pydicom's encoders call.

    Unlike batches, which the engine checks, the codestream is held against what was asked for right here, and decoded
    and compared where the codec is known to be wrong for some images.

    Parameters
    ----------
    src : bytes
        One frame of little-endian cells, as ``EncodeRunner.get_frame`` gives them: narrowed to what Bits Stored needs,
        interleaved but for JPEG-LS with Planar Configuration 1.
    runner : pydicom.pixels.encoders.base.EncodeRunner
        Its options say the rest.

    Raises
    ------
    InvalidOption, InvalidPixels, CodecError
        The options contradict each other or the syntax, the samples do not fit them, or the codec failed.
    """
    options = runner.options
    syntax = BY_UID[str(options["transfer_syntax_uid"])]
    target = from_options(syntax, options)
    fmt, pixels = native_cells_of(src, options, syntax)
    wanted = coding(target, fmt)
    prepared = samples.prepare(pixels, fmt, wanted)
    codestream = encoders.encode_samples(prepared, target, wanted, fmt)
    check(codestream, syntax, wanted)
    if wanted.must_verify and not np.array_equal(decoders.decode_samples(codestream, syntax, wanted), prepared):
        raise EncodeFailed("the samples do not come back", code="verify-mismatch")
    return pad_even(codestream, syntax.family) if syntax.family == "jpeg-ls" else codestream


def native_cells_of(src: bytes, options: Mapping[str, Any], syntax: Syntax) -> tuple[FrameFormat, NDArray[np.uint8]]:
    """Return a frame from pydicom's runner as native cells of Bits Allocated, and their format."""
    if options.get("byteorder", "<") == ">":
        raise InvalidOption("Unsupported option \"byteorder = '>'\"")
    photometric = str(options["photometric_interpretation"])
    planar = options.get("planar_configuration", 0) if syntax.family == "jpeg-ls" else 0
    fmt = FrameFormat(
        options["rows"],
        options["columns"],
        options["samples_per_pixel"],
        options["bits_allocated"],
        options["bits_stored"],
        options["pixel_representation"] == 1,
        _SAMPLES_OF.get(photometric, photometric),
        planar if options["samples_per_pixel"] > 1 else 0,
    )
    pixels = np.frombuffer(src, np.uint8)
    count = fmt.rows * fmt.columns * fmt.samples
    if fmt.subsampled and len(src) >= count:  # from an array, whose chroma is there for every pixel
        fmt = replace(fmt, photometric="YBR_FULL")
    if fmt.bits_allocated == 1:
        return fmt, samples.pack_bits(pixels) if len(src) == count else pixels
    cells = count // 3 * 2 if fmt.subsampled else count
    narrow, wide = len(src) // cells if cells else 0, fmt.bits_allocated // 8
    if narrow in (1, 2) and narrow < wide:
        kind = "i" if fmt.signed else "u"
        pixels = pixels[: cells * narrow].view(f"<{kind}{narrow}").astype(f"<{kind}{wide}").view(np.uint8)
    return fmt, pixels


class BatchEncoder:
    """Encodes batches of frames of one format for one target, frame by frame; see `gpuenc.plugins.BatchEncoder`.

    Holds nothing between calls; lanes give it its parallelism, since every codec releases the GIL.

    Parameters
    ----------
    target : Target
        What frames become.
    device, memory_bytes
        For devices; not looked at.
    """

    def __init__(self, target: Target, *, device: int | None = None, memory_bytes: int | None = None) -> None:
        self._target = target
        family = target.syntax.family
        factor = _PEAK_FACTORS[family]
        if not target.lossless:
            factor = _LOSSY_PEAK_FACTORS.get(family, factor)
        size = _QUICK_BATCH_BYTES if target.syntax.family in _QUICK else _BATCH_BYTES
        self.limits = Limits(frames=_BATCH_FRAMES, bytes=size, lanes=usable_cores(), peak_factor=factor)

    def encode(self, frames: Sequence[Frame]) -> list[Encoded | Failure]:
        """Return one result per frame, in order."""
        return [self._encode(frame) for frame in frames]

    def close(self) -> None:
        """Release nothing: nothing is held."""

    def _encode(self, frame: Frame) -> Encoded | Failure:
        try:
            if isinstance(frame.pixels, Coded):
                codestream = _transcoded(frame.pixels, self._target)
            else:
                wanted = coding(self._target, frame.format)
                prepared = samples.prepare(frame.host_cells(), frame.format, wanted, bit_offset=frame.bit_offset)
                codestream = encoders.encode_samples(prepared, self._target, wanted, frame.format)
        except GpuencError as error:
            return Failure(frame.ref, error.code, LABEL, str(error))
        return Encoded(frame.ref, codestream, LABEL)


def _transcoded(coded: Coded, target: Target) -> bytes:
    """Return a JPEG codestream re-compressed, or one that was as the JPEG it comes from (PS3.5 A.4.12)."""
    source = BY_UID.get(coded.syntax)
    if target.syntax.recompresses_jpeg and source is not None and source.family == "jpeg":
        return encoders.recompress_jpeg(coded.codestream)
    if target.syntax.family == "jpeg" and source is not None and source.recompresses_jpeg:
        return decoders.jpeg_of(coded.codestream)
    raise CodecError(f"a frame of transfer syntax {coded.syntax} must be decoded before it is encoded")
