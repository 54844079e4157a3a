"""What the codestreams of each transfer syntax must say of themselves (PS3.5 8.2, 10 and A.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuenc.errors import WrongCodestream

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from gpuenc.codestream.info import StreamInfo
    from gpuenc.coding import Coding
    from gpuenc.syntaxes import Syntax

# Frame headers by transfer syntax (T.81 table B.1), and the precisions each may have.
# .51 also takes SOF0: what process 2 makes of 8 bits with two Huffman tables of each class is a baseline codestream,
# every extended decoder must read it (T.81 table 1), and it is what dcmcjpeg writes there unless told otherwise.
_SOF: Mapping[str, Mapping[int, Container[int]]] = {
    "1.2.840.10008.1.2.4.50": {0: (8,)},
    "1.2.840.10008.1.2.4.51": {0: (8,), 1: (8, 12)},
    "1.2.840.10008.1.2.4.57": {3: range(2, 17)},
    "1.2.840.10008.1.2.4.70": {3: range(2, 17)},
    "1.2.840.10008.1.2.4.80": {55: range(2, 17)},
    "1.2.840.10008.1.2.4.81": {55: range(2, 17)},
}
_SV1 = "1.2.840.10008.1.2.4.70"
_RPCL = "1.2.840.10008.1.2.4.202"
_MOST_BASE_PX = 64  # PS3.5 10.18.1
_RGB_IDENTIFIERS = tuple(b"RGB")


def check(info: StreamInfo, syntax: Syntax, coding: Coding) -> None:
    """Refuse a codestream whose markers are not what `coding` and `syntax` ask.

    Raises
    ------
    WrongCodestream
        In one line: which property, what it is, what was asked for.
    """
    if syntax.family != "rle":
        _same("rows", info.rows, coding.rows)
        _same("columns", info.columns, coding.columns)
        _same("components", info.samples, coding.samples)
        _same("bits per sample", info.precision, coding.precision)
    _demand(info.ends_properly is not False, "is cut off, or what follows its end marker is not padding")
    _FAMILIES[syntax.family](info, syntax, coding)


def _jpeg(info: StreamInfo, syntax: Syntax, coding: Coding) -> None:
    _process(info, syntax)
    if coding.keeps_jpeg:
        return  # not made here, and nothing of it may change: its sampling factors and colour markers are its own
    _jpeg_colour(info, coding)
    luma = (2, 1) if coding.photometric == "YBR_FULL_422" else (1, 1)
    if coding.samples == 1:
        return  # the factors of a single component mean nothing (T.81 A.2.2)
    _same("sampling factors", info.subsampling, (luma, (1, 1), (1, 1)))


def _jpeg_lossless(info: StreamInfo, syntax: Syntax, coding: Coding) -> None:
    _process(info, syntax)
    _jpeg_colour(info, coding)
    _not_subsampled(info)
    _same("point transform", info.point_transform, 0)
    if syntax.uid == _SV1:
        _same("predictor", info.predictor, 1)
    else:
        _demand(1 <= (info.predictor or 0) <= 7, f"has predictor {info.predictor}, not 1 to 7 (T.81 table H.1)")


def _jpeg_ls(info: StreamInfo, syntax: Syntax, coding: Coding) -> None:
    _process(info, syntax)
    _not_subsampled(info)
    _same("point transform", info.point_transform, 0)
    _same("HP colour transform", info.hp_transform, 0)
    _same("NEAR", info.near, coding.near)


def _jpeg2000(info: StreamInfo, syntax: Syntax, coding: Coding) -> None:
    _same("sign", info.signed, coding.signed)
    _same("multiple component transform", info.mct, coding.mct)
    _not_subsampled(info)
    if coding.lossless:
        _demand(info.lossless is True, "is not reversible: 9-7 wavelet or quantisation")
    # RCT goes with the reversible wavelet, ICT with the other (T.800 Annex G).
    if coding.photometric in ("YBR_RCT", "YBR_ICT"):
        transform = "YBR_RCT" if info.lossless else "YBR_ICT"
        _same("component transform", transform, coding.photometric)
    high_throughput = syntax.family == "htj2k"
    _same("HT code-blocks", info.ht, high_throughput)
    _same("a CAP marker for Part 15", info.cap, high_throughput)
    _demand(info.tlm_matches is not False, "has TLM that does not list its tile-parts")
    if syntax.uid == _RPCL:
        _same("progression", info.progression, "RPCL")
        _same("TLM", info.tlm, True)
        # More levels than `coding.levels` are as good: OpenJPH cannot be asked for none.
        base = -(-max(info.rows, info.columns) >> (info.levels or 0))
        _demand(base <= _MOST_BASE_PX, f"has a base resolution of {base} pixels, more than {_MOST_BASE_PX}")


def _jpegxl(info: StreamInfo, syntax: Syntax, coding: Coding) -> None:
    _same("orientation", info.orientation, 1)
    _same("floating point samples", info.float_samples, False)
    # Only the boxes of 18181-2 have room for what gives a JPEG back; elsewhere PS3.5 cites 18181-1 alone.
    _same("a container", info.container, syntax.recompresses_jpeg)
    _same("JPEG reconstruction data", info.jpeg_data, syntax.recompresses_jpeg)
    if coding.lossless:
        _same("XYB", info.xyb, False)
    elif coding.samples == 3:
        _same("XYB", info.xyb, coding.photometric == "XYB")


def _rle(info: StreamInfo, syntax: Syntax, coding: Coding) -> None:
    _same("segments", info.segments, coding.samples * (coding.cell_bits // 8))


def _process(info: StreamInfo, syntax: Syntax) -> None:
    allowed = _SOF[syntax.uid]
    names = " or ".join(f"SOF{sof}" for sof in allowed)
    _demand(info.sof in allowed, f"has SOF{info.sof}, not {names}")
    _demand(info.precision in allowed[info.sof or 0], f"has SOF{info.sof} with {info.precision} bits per sample")


def _jpeg_colour(info: StreamInfo, coding: Coding) -> None:
    """The markers must not contradict Photometric Interpretation: decoders act on them (PS3.5 8.2.1)."""
    if coding.samples == 1:
        return
    if coding.photometric == "RGB":
        _demand(not info.jfif, "has a JFIF APP0, which says YCbCr, and not RGB")
        _demand(not info.adobe_transform, "has an Adobe APP14 that says YCbCr, and not RGB")
    else:
        _demand(info.adobe_transform in (None, 1), f"has an Adobe APP14 that does not say {coding.photometric}")
        _demand(info.components != _RGB_IDENTIFIERS, f"has the component identifiers RGB, not {coding.photometric}")


def _not_subsampled(info: StreamInfo) -> None:
    _demand(len(set(info.subsampling)) == 1, f"is subsampled: {info.subsampling}")


def _same(what: str, have: object, want: object) -> None:
    if have != want:
        raise WrongCodestream(f"the codestream has {what}: {have}, not {want}")


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise WrongCodestream(f"the codestream {what}")


_FAMILIES: dict[str, Callable[[StreamInfo, Syntax, Coding], None]] = {
    "rle": _rle,
    "jpeg": _jpeg,
    "jpeg-lossless": _jpeg_lossless,
    "jpeg-ls": _jpeg_ls,
    "jpeg2000": _jpeg2000,
    "htj2k": _jpeg2000,
    "jpegxl": _jpegxl,
}
