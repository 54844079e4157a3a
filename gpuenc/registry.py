"""The encoders with their default plug-ins, one per transfer syntax."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydicom.uid import UID

from gpuenc import devices, measured, plugins
from gpuenc.encoder import Encoder
from gpuenc.errors import DeviceUnavailable, UnknownSyntax
from gpuenc.syntaxes import TABLE, find

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuenc.plugins import Plugin
    from gpuenc.syntaxes import Syntax

_ENCODERS: dict[str, Encoder] = {}


def get_encoder(uid: str) -> Encoder:
    """Return the encoder of a transfer syntax, with its default plug-ins.

    Parameters
    ----------
    uid : str
        Transfer Syntax UID, or a name of it: ``"htj2k-lossless"``, ``"HTJ2KLossless"``.

    Raises
    ------
    NotImplementedError
        There is no encoder for it.
    """
    try:
        syntax = find(uid)
    except UnknownSyntax:
        name = UID(uid).name
        raise UnknownSyntax(f"No pixel data encoders have been implemented for '{name}'") from None
    if not syntax.encapsulated:
        raise UnknownSyntax(f"No pixel data encoders have been implemented for '{UID(syntax.uid).name}'")
    if syntax.uid not in _ENCODERS:
        encoder = Encoder(UID(syntax.uid))
        encoder.add_plugins([(path.label, path.import_path) for path in plugins.default_plugins(syntax.uid)])
        # A thread that was faster keeps its own: both are complete.
        _ENCODERS.setdefault(syntax.uid, encoder)
    return _ENCODERS[syntax.uid]


def chain(
    syntax: Syntax,
    label: str = "",
    options: Mapping[str, Any] | None = None,
    device: str | int = "auto",
    *,
    device_memory_bytes: int | None = None,
    near: int | None = None,
) -> list[Plugin]:
    """Return the plug-ins for `syntax`, in order, ready for `engine.encode_frames`.

    Targets without compression have one, which hands cells through.

    Raises
    ------
    RuntimeError, ValueError
        As `Encoder.chain`.
    """
    if not syntax.encapsulated and devices.choice(device) not in ("auto", "fastest", "cpu"):
        raise DeviceUnavailable(f"'{syntax.name}' needs no encoder, on a GPU or elsewhere")
    if syntax.encapsulated:
        return get_encoder(syntax.uid).chain(label, options, device, device_memory_bytes=device_memory_bytes, near=near)
    path = plugins.IMAGECODECS
    return [plugins.Plugin("native", import_module(path.module).BatchEncoder)]


def why_on_cpu(syntax: Syntax, device: str | int = "auto", label: str = "") -> str:
    """Return why frames that might have gone to a GPU go to the CPU, or nothing where they did not.

    Asked after a run it tells of GPUs that were given up meanwhile.

    Parameters
    ----------
    syntax : Syntax
        What frames become.
    device : {'auto', 'fastest', 'cpu', 'gpu'} or int
        What was asked for; only the first two leave it open.
    label : str
        The only plug-in to use.
    """
    where = devices.choice(device)
    if where not in ("auto", "fastest"):
        return ""
    whys: list[str] = []
    for path in plugins.default_plugins(syntax.uid) if syntax.encapsulated else ():
        if path.device == "gpu" and label in ("", path.label):
            module = import_module(path.module)
            if plugins.is_by_label(module) and not label:
                continue
            if module.is_available(syntax.uid):
                slower = where == "fastest" and measured.from_pixels(syntax.name, path.label) == measured.NEVER
                return f"this machine's cores were measured to be faster than {path.label}" if slower else ""
            whys.append(module.why_unavailable(syntax.uid))
    return "; ".join(dict.fromkeys(whys))


def all_encoders() -> dict[str, Encoder]:
    """Return every encoder by its Transfer Syntax UID."""
    return {syntax.uid: get_encoder(syntax.uid) for syntax in TABLE if syntax.encapsulated}
