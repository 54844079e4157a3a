"""What is to be said of an output's name that is taken: whether by a file of another transfer syntax than asked for."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_object
from gpuenc.dicom.regular import regular
from gpuenc.dicom.stated import STATED_BYTES, stated_syntax
from gpuenc.errors import SourceError
from gpuenc.syntaxes import name_of

if TYPE_CHECKING:
    from gpuenc.archive.request import Job
    from gpuenc.archive.stamp import Stamp

OTHER_SYNTAX = "in another transfer syntax than asked for"


def why_skipped(place: str, job: Job, stamp: Stamp | None = None) -> str:
    """Return the message of a file that is skipped with ``destination-exists``; reads File Meta Information alone.

    Parameters
    ----------
    place : str
        The output's path or, of an object, address.
    job : Job
        Whose target was asked for.
    stamp : Stamp, optional
        Of the object.
    """
    there = stated_syntax(_beginning(place, stamp))
    if not there or there == job.target.syntax.uid:
        return "the destination exists"
    return f"the destination exists, {OTHER_SYNTAX}: {name_of(there)}"


def _beginning(place: str, stamp: Stamp | None) -> bytes:
    if is_object(place):
        from gpuenc.archive.stores import piece_of

        with contextlib.suppress(SourceError):
            return piece_of(Path(place), stamp, 0, min(STATED_BYTES, stamp.size_bytes)) if stamp else b""
        return b""
    with contextlib.suppress(OSError), open(place, "rb", buffering=0, opener=regular) as file:
        return file.read(STATED_BYTES)
    return b""
