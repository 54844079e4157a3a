"""Codestreams by their own markers: read them, hold them against what was asked for, patch them.

Pure: bytes in, facts or bytes out. Sizes come from lengths in headers, each checked before it is followed, so a
codestream costs tens of microseconds whatever it holds, and a lying one costs no memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuenc.codestream import jpeg, jpeg2000, jpegxl, rle, rules
from gpuenc.codestream.info import StreamInfo
from gpuenc.codestream.jpeg2000 import insert_tlm
from gpuenc.codestream.jpegxl import unbox
from gpuenc.codestream.rle import even_segments
from gpuenc.errors import WrongCodestream

if TYPE_CHECKING:
    from gpuenc.coding import Coding
    from gpuenc.syntaxes import Family, Syntax

__all__ = [
    "StreamInfo",
    "check",
    "even_segments",
    "insert_tlm",
    "pad_even",
    "parse",
    "unbox",
]


def parse(codestream: bytes, family: Family) -> StreamInfo:
    """Return what a codestream's markers say.

    Parameters
    ----------
    codestream : bytes
        All of one frame.
    family : {'rle', 'jpeg', 'jpeg-lossless', 'jpeg-ls', 'jpeg2000', 'htj2k', 'jpegxl'}
        What it is supposed to be.

    Raises
    ------
    WrongCodestream
        It is something else, its header is cut off or contradicts itself, or the family has no markers.
    """
    if family in ("jpeg2000", "htj2k"):
        return jpeg2000.parse(codestream, family)
    if family in ("jpeg", "jpeg-lossless", "jpeg-ls"):
        return jpeg.parse(codestream, family)
    if family == "jpegxl":
        return jpegxl.parse(codestream)
    if family == "rle":
        return rle.parse(codestream)
    raise WrongCodestream(f"{family} frames have no markers to read")


def check(codestream: bytes, syntax: Syntax, coding: Coding) -> None:
    """Refuse a codestream whose markers are not what was asked for.

    Whether its samples are right, only decoding tells; this finds the wrong size, precision, sign, transform, process
    or progression, and a cut-off end, at no cost worth counting. Native and deflated frames have no markers.

    Raises
    ------
    WrongCodestream
        In one line: which property, what it is, what was asked for.
    """
    if syntax.family == "native":
        if not codestream:
            raise WrongCodestream("the frame is empty")
    elif syntax.family != "deflate":
        rules.check(parse(codestream, syntax.family), syntax, coding)


def pad_even(codestream: bytes, family: Family) -> bytes:
    """Return a codestream of even length, as a fragment must have (PS3.5 A.4); the same object if it has.

    JPEG-LS gets a fill byte before EOI (T.81 B.1.1.2), so that it ends in FF FF D9, since a byte after EOI has no place
    in T.87; all others a 00 after the end.

    Raises
    ------
    WrongCodestream
        A JPEG-LS codestream that does not end in EOI.
    """
    if len(codestream) % 2 == 0:
        return codestream
    if family != "jpeg-ls":
        return codestream + b"\0"
    if codestream[-2:] != jpeg.EOI:
        raise WrongCodestream("a JPEG-LS codestream does not end in EOI")
    return codestream[:-2] + b"\xff" + jpeg.EOI
