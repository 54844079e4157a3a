"""Which transfer syntax a file says it has, from its first bytes alone."""

from __future__ import annotations

import io
import re

from gpuenc.dicom.elements import Window, walk
from gpuenc.errors import SourceError

# More than the File Meta Information of ordinary files takes.
STATED_BYTES = 4096
_UID = re.compile(r"[0-9.]{1,64}")
_TRANSFER_SYNTAX = 0x00020010


def stated_syntax(head: bytes) -> str:
    """Return the Transfer Syntax UID (0002,0010) that a file states, or nothing where it is not to be told.

    Parameters
    ----------
    head : bytes
        The first `STATED_BYTES` of a file, or all of a shorter one: preamble, and File Meta Information (PS3.10 7.1).
    """
    if head[128:132] != b"DICM":
        return ""
    try:
        _, found, _ = walk(Window(io.BytesIO(head), len(head)), 132, len(head), last=_ends, last_from=0)
    except SourceError:
        return ""
    if found is None or found.tag != _TRANSFER_SYNTAX or found.end > len(head):
        return ""
    uid = head[found.value : found.end].decode("latin-1").strip(" \0")
    return uid if _UID.fullmatch(uid) else ""


def _ends(tag: int) -> bool:
    return tag >= _TRANSFER_SYNTAX
