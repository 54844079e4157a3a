"""What a codestream says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuenc.syntaxes import Family

_PADDING = b"\0\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """The facts that a codestream's markers state; ``None`` where its format has no such thing.

    Parameters
    ----------
    family : str
        How it was read.
    rows, columns, samples : int
        Size of the image. For RLE 0, since PS3.5 Annex G stores none of them.
    precision : int
        Bits per sample; 0 for RLE, and where components differ in precision or sign (T.800 A.5.1).
    ends_properly : bool or None
        The end marker is where it belongs and only padding follows; for JPEG 2000 also that the tile-parts lie end to
        end and no tile is missing; for an RLE frame that its length is even. None where nothing marks the end (a bare
        JPEG XL codestream).
    length_bytes : int
        Length up to and with the end marker, without padding. Where nothing marks the end, all of it.
    signed : bool or None
        Samples are two's complement (T.800 A.5.1).
    lossless : bool or None
        Every step is reversible: 5-3 wavelet without quantisation, SOF3 without point transform, NEAR 0. Whether an
        encoder dropped bits on the way, the markers cannot tell. None for a JPEG XL codestream that is not XYB.
    subsampling : tuple of (int, int)
        Per component, horizontal then vertical: sampling factors Hi and Vi (T.81 B.2.2), or separations XRsiz and
        YRsiz (T.800 A.5.1).
    sof : int or None
        n of the frame header SOFn: 0 baseline, 1 extended, 3 lossless, 55 JPEG-LS.
    components : tuple of int
        Component identifiers Ci (T.81 B.2.2).
    near : int or None
        Largest NEAR of all scans (T.87 C.2.3).
    predictor : int or None
        Selection value of lossless JPEG (T.81 table H.1); 0 where scans differ.
    point_transform : int or None
        Largest Pt of all scans of lossless JPEG or JPEG-LS.
    jfif : bool
        A JFIF APP0 is there: three components are then YCbCr (T.871).
    adobe_transform : int or None
        Colour transform of an Adobe APP14 (T.872 6.5.3): 0 none, 1 YCbCr, 2 YCCK. None without APP14.
    hp_transform : int
        Colour transform of an ``mrfx`` APP8, which only some JPEG-LS codecs know; 0 for none.
    mct : bool or None
        Multiple component transform (T.800 A.6.1); None where tiles differ.
    levels : int or None
        Decomposition levels; the fewest, where components or tiles differ.
    progression : str
        ``"LRCP"``, ``"RLCP"``, ``"RPCL"``, ``"PCRL"`` or ``"CPRL"`` (T.800 table A.16); empty where it changes.
    cap, ht : bool
        CAP announces Part 15 (T.814 A.3); code-blocks are HT code-blocks (T.814 A.4).
    tlm : bool
        Tile-part lengths are in the main header (T.800 A.7.1).
    tlm_matches : bool or None
        Those lengths are the actual ones, in order. None without TLM.
    xyb : bool or None
        JPEG XL: colours are XYB, which is always lossy.
    container : bool
        JPEG XL: the boxes of 18181-2 and not a bare codestream.
    jpeg_data : bool
        JPEG XL: a box holds what is needed to give the original JPEG back, bit for bit.
    orientation : int
        JPEG XL: how a decoder turns the image, 1 for not at all (EXIF's numbers).
    float_samples : bool
        JPEG XL: samples are floating point.
    segments : int or None
        RLE: number of byte segments (PS3.5 G.5).
    """

    family: Family
    ends_properly: bool | None
    length_bytes: int
    rows: int = 0
    columns: int = 0
    samples: int = 0
    precision: int = 0
    signed: bool | None = None
    lossless: bool | None = None
    subsampling: tuple[tuple[int, int], ...] = ()
    sof: int | None = None
    components: tuple[int, ...] = ()
    near: int | None = None
    predictor: int | None = None
    point_transform: int | None = None
    jfif: bool = False
    adobe_transform: int | None = None
    hp_transform: int = 0
    mct: bool | None = None
    levels: int | None = None
    progression: str = ""
    cap: bool = False
    ht: bool = False
    tlm: bool = False
    tlm_matches: bool | None = None
    xyb: bool | None = None
    container: bool = False
    jpeg_data: bool = False
    orientation: int = 1
    float_samples: bool = False
    segments: int | None = None


def marked_end(codestream: bytes, marker: bytes) -> int | None:
    """Return the length up to and with a closing `marker` that only padding follows; else None.

    Padding is 00 (PS3.5 A.4), or FF, with which some writers fill up.
    """
    tail = codestream[-16:]
    padding = len(tail) - len(tail.rstrip(_PADDING))
    if padding == len(tail):  # rare, and the copy that rstrip makes is the price
        padding = len(codestream) - len(codestream.rstrip(_PADDING))
    end = len(codestream) - padding
    return end if codestream[max(0, end - len(marker)) : end] == marker else None
