"""`install` and `uninstall`: pydicom's own `get_encoder` and `Dataset.compress` with gpuenc's encoders."""

from __future__ import annotations

from typing import Any

from pydicom.pixels.encoders import base
from pydicom.uid import UID

from gpuenc._version import __version__
from gpuenc.encoder import Encoder
from gpuenc.registry import all_encoders

_REGISTRY: dict[UID, tuple[Any, str]] = base._PIXEL_DATA_ENCODERS
_before: dict[UID, tuple[Any, str]] = {}


def install() -> None:
    """Make pydicom use gpuenc's encoders, for the transfer syntaxes that pydicom lacks too.

    `pydicom.pixels.get_encoder`, `pydicom.pixels.compress` and `Dataset.compress` look encoders up in one registry,
    which is all that is changed. Calling it twice changes nothing more.
    """
    if _before:
        return
    _before.update(_REGISTRY)
    _REGISTRY.update({UID(uid): (encoder, f"gpuenc {__version__}") for uid, encoder in all_encoders().items()})


def uninstall() -> None:
    """Give pydicom back its own encoders, exactly as `install` found them.

    Encoders that others registered in between stay.
    """
    if not _before:
        return
    for uid, (encoder, _) in list(_REGISTRY.items()):
        if isinstance(encoder, Encoder) and uid not in _before:
            del _REGISTRY[uid]
        elif isinstance(encoder, Encoder):
            _REGISTRY[uid] = _before[uid]
    _before.clear()
