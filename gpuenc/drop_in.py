"""`install` and `uninstall`: pydicom's own `get_encoder` and `Dataset.compress` with gpuenc's encoders."""

from __future__ import annotations

from typing import Any

from pydicom._uid_dict import UID_dictionary
from pydicom.pixels.encoders import base
from pydicom.uid import UID

from gpuenc._version import __version__
from gpuenc.registry import all_encoders
from gpuenc.syntaxes import BY_UID

_REGISTRY: dict[UID, tuple[Any, str]] = base._PIXEL_DATA_ENCODERS
# What `install` found and what it put there; UIDs that this pydicom did not know.
_before: dict[UID, tuple[Any, str]] = {}
_ours: dict[UID, tuple[Any, str]] = {}
_named: set[str] = set()


def install() -> None:
    """Make pydicom use gpuenc's encoders, for the transfer syntaxes that pydicom lacks too.

    `pydicom.pixels.get_encoder`, `pydicom.pixels.compress` and `Dataset.compress` look encoders up in one registry,
    which is all that is changed, and the names of transfer syntaxes that are newer than pydicom in its dictionary of
    UIDs, so that it writes them. Calling it twice changes nothing more.

    `Dataset.compress` leaves the Image Pixel attributes and overlays as they are. Where they would not be true of the
    codestreams (YBR_FULL_422 that is upsampled, RGB that lossy JPEG XL makes XYB of, overlays embedded in the cells) it
    raises a ValueError and leaves the dataset alone; `gpuenc.compress` does all of these and corrects the attributes.
    """
    if _ours:
        return
    _before.update(_REGISTRY)
    _ours.update({UID(uid): (encoder, f"gpuenc {__version__}") for uid, encoder in all_encoders().items()})
    _REGISTRY.update(_ours)
    for uid in _ours:
        if uid not in UID_dictionary:
            keyword = BY_UID[uid].keyword
            UID_dictionary[str(uid)] = (keyword, "Transfer Syntax", "", "", keyword)
            _named.add(str(uid))


def uninstall() -> None:
    """Give pydicom back its own encoders, exactly as `install` found them.

    Encoders that others registered in between stay.
    """
    for uid, entry in _ours.items():
        if _REGISTRY.get(uid) is not entry:
            continue
        if uid in _before:
            _REGISTRY[uid] = _before[uid]
        else:
            del _REGISTRY[uid]
    for name in _named:
        UID_dictionary.pop(name, None)
    for kept in (_before, _ours, _named):
        kept.clear()
