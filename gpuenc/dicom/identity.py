"""Which instance a file holds: what PS3.18 addresses it by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

_UID = re.compile(r"[0-9.]{1,64}")
_TAGS = {"study": 0x0020000D, "series": 0x0020000E, "instance": 0x00080018, "sop_class": 0x00080016}


class Identity(NamedTuple):
    """UIDs of a study, a series, an instance, its SOP Class and its transfer syntax."""

    study: str
    series: str
    instance: str
    sop_class: str
    syntax: str


def identity(path: Path) -> Identity:
    """Return which instance a file holds.

    Parameters
    ----------
    path : Path
        A file in the DICOM File Format.

    Raises
    ------
    SourceError
        ``not-storable``: one of the UIDs is missing or none, as in a DICOMDIR, or in a file without File Meta
        Information.
    """
    try:
        found = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS.values()))
        uids = {name: str(found[tag].value) for name, tag in _TAGS.items() if tag in found}
        uids["syntax"] = str(found.file_meta.get("TransferSyntaxUID", ""))
    except (InvalidDicomError, AttributeError, ValueError, TypeError, NotImplementedError, EOFError, KeyError):
        uids = {}
    if len(uids) < len(Identity._fields) or not all(map(_UID.fullmatch, uids.values())):
        raise SourceError(
            "it has no valid UIDs of study, series, instance, SOP Class and transfer syntax", code="not-storable"
        )
    return Identity(**uids)
