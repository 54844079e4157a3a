"""Verification by decoders of another code base than the encoder's: nobody should judge their own case.

What one code base encodes and decodes wrongly in the same way comes back right, and nobody else can read it. `TABLE`
has the decoders that gave back every sample of every format tried, and pydicom's real files among them; what they do
not take is a reason of `independent_reason`, never a guess.

Not in it, and why:

* DCT and irreversible wavelets: decoders may round differently (T.83, T.803), so there is nothing to compare.
* JPEG-LS in colour: FFmpeg returns other samples (8 bits) or refuses (16); the only other one, libjpeg of
  pylibjpeg-libjpeg, is under the GPL.
* JPEG 2000 Part 1 above 16 bits, HTJ2K above 28: only OpenJPEG reads the one, only OpenJPH the other.
* JPEG Lossless by FFmpeg (some differences of 16-bit samples) and jpeg-decoder (no colour of 16 bits), HTJ2K by FFmpeg
  (some code-blocks of noise): wrong samples for codestreams that all others agree on.
* RLE by pylibjpeg-rle: many times as fast as pydicom, but it takes segments that are too long without a word, and
  panics at damaged ones.
* JPEG XL JPEG Recompression: only libjxl restores the JPEG's bytes.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

import imagecodecs
import numpy as np

from gpuenc.cpu import decoders, rle
from gpuenc.errors import DecodeFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gpuenc.codestream import StreamInfo
    from gpuenc.coding import Coding
    from gpuenc.syntaxes import Family, Syntax

_MOST_FFMPEG_BITS = 16
_MOST_OPENJPEG_HT_BITS = 28
# FFmpeg's pixel formats in which these codecs' pictures come: type of a sample, samples of a pixel side by side.
_PICTURES = {"gray": ("u1", 1), "gray16le": ("<u2", 1), "rgb24": ("u1", 3), "rgb48le": ("<u2", 3)}


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder of another code base than that of the encoder of `families`.

    Parameters
    ----------
    name : str
        Of the code base.
    encoder : str
        Code base of gpuenc's CPU encoder for these families.
    families : tuple of str
        `Syntax.family` of what it reads.
    module : str
        What is imported.
    requirement : str
        What to install; empty for what gpuenc always comes with.
    limit : callable
        From a `Coding` to why it cannot be used for that, in words that follow "because"; empty if it can.
    decode : callable
        As `decode_samples`, whose arguments it takes, for what `limit` lets through.
    """

    name: str
    encoder: str
    families: tuple[Family, ...]
    module: str
    requirement: str
    limit: Callable[[Coding], str]
    decode: Callable[[bytes, Syntax, Coding], NDArray[Any]]

    @property
    def installed(self) -> bool:
        """Whether it can be imported here."""
        return _found(self.module)


def decoder_of(syntax: Syntax) -> str | None:
    """Return the name of the code base that reads `syntax`, installed or not; None if there is none."""
    decoder = None if syntax.recompresses_jpeg else _BY_FAMILY.get(syntax.family)
    return decoder.name if decoder else None


def independent_reason(syntax: Syntax, wanted: Coding) -> str:
    """Return in one line why codestreams made for `wanted` cannot be verified independently here; empty if they can.

    Parameters
    ----------
    syntax : Syntax
        Their transfer syntax.
    wanted : Coding
        What `gpuenc.coding.coding` made of a format for a target.
    """
    chosen = _chosen(syntax, wanted)
    return chosen if isinstance(chosen, str) else ""


def decode_samples(codestream: bytes, syntax: Syntax, wanted: Coding) -> NDArray[Any]:
    """Return what a codestream made for `wanted` decodes to, as `gpuenc.cpu.decoders.decode_samples` does.

    Parameters
    ----------
    codestream : bytes
        One frame.
    syntax : Syntax
        Its transfer syntax.
    wanted : Coding
        What it was made for.

    Returns
    -------
    numpy.ndarray
        Shape and dtype as `cpu.samples.prepare` returns them.

    Raises
    ------
    DecodeFailed
        As `gpuenc.cpu.decoders.decode`; with code ``"no-independent-decoder"`` and what `independent_reason` says where
        that is not empty.
    """
    chosen = _chosen(syntax, wanted)
    if isinstance(chosen, str):
        raise DecodeFailed(chosen, code="no-independent-decoder")
    return chosen.decode(codestream, syntax, wanted)


def _chosen(syntax: Syntax, wanted: Coding) -> Decoder | str:
    """Return the decoder of `TABLE` that takes this, or why there is none here."""
    decoder = _BY_FAMILY.get(syntax.family)
    if wanted.keeps_jpeg or syntax.recompresses_jpeg:
        why = "it keeps a JPEG codestream bit for bit, which only libjxl restores"
    elif not wanted.lossless and not wanted.near:
        why = "decoders of lossy codestreams may round differently"
    elif decoder is None:
        why = "none is known that gives back every sample"
    elif not (why := decoder.limit(wanted)):
        if decoder.installed:
            return decoder
        why = f"{decoder.name} is not installed: pip install '{decoder.requirement}'"
    return f"{syntax.name} cannot be verified by a decoder of another code base, because {why}"


@cache
def _found(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _call(name: str, function: Callable[[], Any]) -> Any:
    """Let a decoder decode, and turn whatever it raises into one line."""
    try:
        return function()
    except DecodeFailed:
        raise
    except BaseException as error:
        # Other people's code, on a codestream that may be anything. A panic of Rust is not even an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DecodeFailed(f"{name}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _own(by: Callable[[bytes, StreamInfo], NDArray[Any]]) -> Callable[[bytes, Syntax, Coding], NDArray[Any]]:
    """Let `by` decode between the checks of the header before, which is ours, and of shape and type after."""
    return partial(decoders.decode_samples, by=by)


def _rle(codestream: bytes, syntax: Syntax, wanted: Coding) -> NDArray[Any]:
    """Decode by pydicom's own plug-in, which is written in Python."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import RLELossless

    options: dict[str, Any] = {
        "rows": wanted.rows,
        "columns": wanted.columns,
        "number_of_frames": 1,
        "samples_per_pixel": wanted.samples,
        "photometric_interpretation": "RGB" if wanted.samples > 1 else "MONOCHROME2",
        "planar_configuration": 0,
        # A frame of 1-bit samples has a byte for each (PS3.5 G.2), which pydicom reads only as Bits Allocated 8.
        "bits_allocated": wanted.cell_bits,
        "bits_stored": wanted.cell_bits,
        "pixel_representation": int(wanted.signed),
        "pixel_keyword": "PixelData",
    }

    def decode() -> NDArray[Any]:
        fragment = encapsulate([codestream + b"\0" * (len(codestream) % 2)])
        return get_decoder(RLELossless).as_array(fragment, raw=True, decoding_plugin="pydicom", **options)[0]

    rle.check_lengths(codestream, wanted.shape, f"u{wanted.cell_bits // 8}")  # of which pydicom only warns
    decoded = cast("NDArray[Any]", _call("pydicom", decode))
    if decoded.shape != wanted.shape:
        raise DecodeFailed(f"pydicom decodes to shape {decoded.shape}, not {wanted.shape}")
    return np.ascontiguousarray(decoded)


def _jpegsof3(codestream: bytes, info: StreamInfo) -> NDArray[Any]:
    return cast("NDArray[Any]", _call("jpegsof3", lambda: imagecodecs.jpegsof3_decode(codestream)))


def _openjpeg(codestream: bytes, info: StreamInfo) -> NDArray[Any]:
    return cast("NDArray[Any]", _call("OpenJPEG", lambda: imagecodecs.jpeg2k_decode(codestream, numthreads=1)))


def _ffmpeg_jpeg_ls(codestream: bytes, info: StreamInfo) -> NDArray[Any]:
    return _shifted_down(_ffmpeg("jpegls", codestream), info)


def _ffmpeg_jpeg2000(codestream: bytes, info: StreamInfo) -> NDArray[Any]:
    array = _shifted_down(_ffmpeg("jpeg2000", codestream), info)
    if info.signed:  # FFmpeg, whose pictures have no sign, adds half the range
        return array.astype(np.int32) - (1 << (info.precision - 1))
    return array


def _shifted_down(array: NDArray[Any], info: StreamInfo) -> NDArray[Any]:
    """Return the samples of a picture of FFmpeg, which shifts them up to the top of their cells."""
    unused = 8 * array.itemsize - info.precision
    if unused < 0:
        raise DecodeFailed(f"FFmpeg: {8 * array.itemsize} bits per sample came out, not {info.precision}")
    shifted: NDArray[Any] = np.right_shift(array, unused)
    return shifted


def _ffmpeg(codec: str, codestream: bytes) -> NDArray[Any]:
    """Return the picture that FFmpeg's own decoder `codec` makes of a codestream, as (rows, columns[, samples])."""
    import av

    def decode() -> NDArray[Any]:
        context: Any = av.CodecContext.create(codec, "r")
        context.thread_count = 1
        pictures = [*context.decode(av.Packet(codestream)), *context.decode(None)]
        if len(pictures) != 1:
            raise DecodeFailed(f"FFmpeg: {len(pictures)} pictures came out")
        return _pixels(pictures[0])

    return cast("NDArray[Any]", _call("FFmpeg", decode))


def _pixels(picture: Any) -> NDArray[Any]:
    kind = picture.format.name
    if kind not in _PICTURES:
        raise DecodeFailed(f"FFmpeg: a picture of format {kind}")
    dtype, samples = _PICTURES[kind]
    plane = picture.planes[0]
    lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: picture.height]
    # A copy, since the memory is the picture's.
    pixels = lines[:, : picture.width * samples * np.dtype(dtype).itemsize].copy().view(dtype)
    return pixels if samples == 1 else pixels.reshape(picture.height, picture.width, samples)


def _jxl_oxide(codestream: bytes, info: StreamInfo) -> NDArray[Any]:
    """Decode by jxl-oxide, which renders to the full range of 8 or 16 bits: undone here without loss."""
    import micro_reader_codecs

    shape = (info.rows, info.columns) if info.samples == 1 else (info.rows, info.columns, info.samples)
    out = np.zeros(shape, np.uint8 if info.precision <= 8 else np.uint16)

    def decode() -> tuple[int, int, int, int]:
        return cast(
            "tuple[int, int, int, int]",
            micro_reader_codecs.jxl_decode_into(codestream, out.view(np.uint8).reshape(-1)),
        )

    columns, rows, samples, bits = _call("jxl-oxide", decode)
    if (rows, columns, samples, bits) != (info.rows, info.columns, info.samples, info.precision):
        raise DecodeFailed(f"jxl-oxide decodes to {rows} x {columns} x {samples} samples of {bits} bits")
    full, highest = int(np.iinfo(out.dtype).max), (1 << bits) - 1
    if full == highest:
        return out
    nearest: NDArray[Any] = (out.astype(np.uint64) * (2 * highest) + full) // (2 * full)
    return nearest.astype(out.dtype)


def _none(wanted: Coding) -> str:
    return ""


def _ffmpeg_size_limit(wanted: Coding) -> str:
    # av_image_check_size: what FFmpeg refuses whatever the codec.
    if (8 * wanted.columns + 1024) * (wanted.rows + 128) >= 1 << 31:
        return f"FFmpeg takes no pictures as large as {wanted.rows} x {wanted.columns}"
    return ""


def _ffmpeg_jpeg_ls_limit(wanted: Coding) -> str:
    if wanted.samples > 1:
        return "FFmpeg reads JPEG-LS of one component only"
    return _ffmpeg_size_limit(wanted)


def _ffmpeg_jpeg2000_limit(wanted: Coding) -> str:
    if wanted.precision > _MOST_FFMPEG_BITS:
        return f"only OpenJPEG reads Part 1 of more than {_MOST_FFMPEG_BITS} bits, and there are {wanted.precision}"
    return _ffmpeg_size_limit(wanted)


def _openjpeg_limit(wanted: Coding) -> str:
    if wanted.precision + wanted.mct > _MOST_OPENJPEG_HT_BITS:
        return f"only OpenJPH reads HTJ2K of more than {_MOST_OPENJPEG_HT_BITS} bits, a colour transform's one included"
    return ""


_EXTRA = "gpuenc[independent]"
TABLE = (
    Decoder("pydicom", "imagecodecs", ("rle",), "pydicom", "", _none, _rle),
    Decoder("jpegsof3", "libjpeg-turbo", ("jpeg-lossless",), "imagecodecs", "", _none, _own(_jpegsof3)),
    Decoder("FFmpeg", "CharLS", ("jpeg-ls",), "av", _EXTRA, _ffmpeg_jpeg_ls_limit, _own(_ffmpeg_jpeg_ls)),
    Decoder("FFmpeg", "OpenJPEG", ("jpeg2000",), "av", _EXTRA, _ffmpeg_jpeg2000_limit, _own(_ffmpeg_jpeg2000)),
    Decoder("OpenJPEG", "OpenJPH", ("htj2k",), "imagecodecs", "", _openjpeg_limit, _own(_openjpeg)),
    Decoder("jxl-oxide", "libjxl", ("jpegxl",), "micro_reader_codecs", _EXTRA, _none, _own(_jxl_oxide)),
    Decoder("zlib", "libdeflate", ("deflate",), "zlib", "", _none, decoders.decode_samples),
    Decoder("numpy", "none", ("native",), "numpy", "", _none, decoders.decode_samples),
)
_BY_FAMILY = {family: decoder for decoder in TABLE for family in decoder.families}
