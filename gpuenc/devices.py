"""Where to encode: what a caller may ask for, and lanes that are spread over several GPUs."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Literal, Protocol

from gpuenc.errors import InvalidOption

if TYPE_CHECKING:
    from gpuenc.plugins import BatchEncoder
    from gpuenc.targets import Target

# Of the whole process, since each file of a job opens encoders of its own. Several worker processes begin with a GPU
# each: a pool of them tells each its number, from 1.
_TURNS = count(max(0, int(os.environ.get("GPUENC_WORKER", "") or 1) - 1))

Choice = Literal["auto", "fastest", "cpu", "gpu"] | int


class GpuModule(Protocol):
    """What is used of a GPU plug-in's module; see `gpuenc.plugins`."""

    BatchEncoder: type[BatchEncoder]

    def device_count(self) -> int:
        """Return how many GPUs are visible."""

    def why_unavailable(self, uid: str, device: int = 0) -> str:
        """Return why one of them cannot be used, or nothing."""


def choice(device: str | int) -> Choice:
    """Return what `device` asks for.

    Parameters
    ----------
    device : {'auto', 'fastest', 'cpu', 'gpu'} or int or str
        On GPUs where there are any, else on the CPU; the same, but on the CPU where `gpuenc bench` found it to be the
        faster one on this machine, for the transfer syntax and size of the frames; on the CPU; on GPUs, and on the CPU
        only what they refuse; on the GPU of an index, of those that ``CUDA_VISIBLE_DEVICES`` leaves, which may be
        written as text.

    Raises
    ------
    InvalidOption
        It is none of these.
    """
    if isinstance(device, str) and device.isascii() and device.isdigit():
        device = int(device)
    named: tuple[Choice, ...] = ("auto", "fastest", "cpu", "gpu")
    for name in named:
        if device == name:
            return name
    if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
        return device
    raise InvalidOption(f"device must be 'auto', 'fastest', 'cpu', 'gpu' or the index of a GPU, not {device!r}")


class Spread:
    """Opens `BatchEncoder`s of one plug-in on one GPU after the other, so that lanes are spread over them.

    A GPU that cannot be used, or was given up, is passed over. The encoders' limits have the lanes of all GPUs.

    Parameters
    ----------
    module : module
        The plug-in's.
    uid : str
        Transfer Syntax UID.
    index : int, optional
        The only GPU to use; by default all that are visible.
    memory_bytes : int, optional
        Memory of each GPU for all lanes on it together.
    """

    def __init__(self, module: GpuModule, uid: str, index: int | None = None, memory_bytes: int | None = None) -> None:
        self._module, self._uid, self._index, self._memory_bytes = module, uid, index, memory_bytes

    def __call__(self, target: Target) -> BatchEncoder:
        """Return an encoder on the next GPU; where none can be used, one that says why with every frame."""
        devices = self._devices()
        turn = next(_TURNS) % len(devices)
        order = devices[turn:] + devices[:turn]
        chosen = next((device for device in order if self._usable(device)), order[0])
        encoder = self._module.BatchEncoder(target, device=chosen, memory_bytes=self._memory_bytes)
        encoder.limits = replace(encoder.limits, lanes=encoder.limits.lanes * len(devices))
        return encoder

    def alive(self) -> bool:
        """Whether some GPU can still be used."""
        return any(self._usable(device) for device in self._devices())

    def _devices(self) -> list[int]:
        if self._index is not None:
            return [self._index]
        visible: int = getattr(self._module, "device_count", lambda: 1)()
        return list(range(max(1, visible)))

    def _usable(self, device: int) -> bool:
        why = getattr(self._module, "why_unavailable", None)
        return why is None or not why(self._uid, device)
