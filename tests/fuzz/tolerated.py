"""Where an output may differ from what other people's code reads in its damaged source, with the reason of each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.mutations import Mutant

_ROOT = "1.2.840.10008.1.2.4."
HTJ2K = {f"{_ROOT}{number}" for number in (201, 202, 203)}
JPEG_LOSSLESS = {f"{_ROOT}57", f"{_ROOT}70"}
# Steps that change the bytes of codestreams.
_CHANGE_BYTES = ("flip", "zeros", "shift", "value", "fragments", "duplicate", "truncate")


def tolerated(
    kind: str, detail: str, made: Mutant, options: dict[str, Any], record: dict[str, Any], verdict: dict[str, Any]
) -> str:
    """Return why this is no finding; empty if it is one."""
    damaged = any(step.startswith("codestream") or step in _CHANGE_BYTES for step in made.steps)
    if kind == "another decoder" and damaged and record["source_syntax"] in HTJ2K:
        # Nothing in the markers tells; the samples are those of OpenJPH, which decodes HTJ2K here. OpenJPEG refuses
        # some code-blocks and headers that OpenJPH reads, and makes other samples of others.
        return "OpenJPH and OpenJPEG part ways over a damaged HTJ2K codestream"
    if kind == "another decoder" and damaged and record["source_syntax"] in JPEG_LOSSLESS:
        # Differences that lead beyond the precision: libjpeg-turbo wraps around, pylibjpeg-libjpeg clips. Or markers
        # that the latter insists on and that do not matter: table numbers of a scan's AC, units of JFIF.
        return "libjpeg-turbo and libjpeg part ways over a damaged lossless JPEG"
    if kind == "output unread" and detail == verdict["unread"]:
        # The source cannot be read for the same reason: an element that has nothing to do with pixels, and is kept.
        if "unpack requires" in detail or ("no Pixel Data" in detail and {"end", *_CHANGE_BYTES} & {*made.steps}):
            return "what follows Pixel Data is no element, and kept"
        if re.search(r"'(int|PersonName)' object is not subscriptable", detail):
            return "pydicom cannot read the character set, which is kept"
    return ""
