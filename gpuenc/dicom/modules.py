"""Plug-ins' modules, pydicom's and gpuenc's, as the engine takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from gpuenc import devices, plugins
from gpuenc.dicom.runner import FrameByFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType


def device_of(module: ModuleType) -> plugins.Device:
    """Return where a plug-in's module encodes."""
    return getattr(module, "DEVICE", "cpu")


def why_not(module: ModuleType, uid: str, device: int) -> str:
    """Return why a plug-in's module cannot use a GPU for a transfer syntax, or nothing."""
    why = getattr(module, "why_unavailable", None)
    return str(why(uid, device)) if why else ""


def plugin_of(
    label: str,
    function: Callable[..., Any],
    module: ModuleType,
    options: Mapping[str, Any],
    uid: str,
    index: int | None,
    device_memory_bytes: int | None,
) -> plugins.Plugin:
    """Return a plug-in's module as the engine takes it.

    Parameters
    ----------
    label : str
        The plug-in's label.
    function : callable
        Its function for one frame, for modules without a `BatchEncoder`.
    module : module
        With the names that `gpuenc.plugins` tells of.
    options : mapping
        What the user gave to `Encoder.encode`, for plug-ins written for pydicom.
    uid : str
        Transfer Syntax UID.
    index : int or None
        The only GPU to use; None for all.
    device_memory_bytes : int or None
        Memory of each GPU.
    """
    batched: type[plugins.BatchEncoder] | None = getattr(module, "BatchEncoder", None)
    if batched is None:
        return plugins.Plugin(label, lambda target: FrameByFrame(label, function, module, options, target))
    if device_of(module) == "gpu":
        spread = devices.Spread(cast("devices.GpuModule", module), uid, index, device_memory_bytes)
        return plugins.Plugin(label, spread, "gpu", bool(getattr(module, "PROVEN", False)), spread.alive)
    return plugins.Plugin(label, batched)
