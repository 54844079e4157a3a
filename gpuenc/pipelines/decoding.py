"""Where frames are decoded: on the CPU by `gpuenc.cpu.stored`, or on a GPU in batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from gpuenc.devices import choice
from gpuenc.errors import DeviceUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from gpuenc.errors import GpuencError
    from gpuenc.frames import Frame, FrameFormat


class DeviceDecoder(Protocol):
    """What decodes batches on a GPU; see `gpuenc.cuda.decoding`."""

    xp: Any

    def stored(self, frames: Sequence[Frame]) -> list[tuple[Any, FrameFormat] | GpuencError]:
        """Return for each frame its stored values on the device with their format, or what is wrong with it."""

    def current(self) -> AbstractContextManager[Any]:
        """Return a context in which the device, and the stream of its arrays, are current."""

    def close(self) -> None:
        """Give back everything."""


def device_decoder(device: str | int) -> DeviceDecoder | None:
    """Return what decodes on a GPU, or None for the CPU.

    Parameters
    ----------
    device : {'cpu', 'auto', 'gpu'} or int
        As `gpuenc.devices.choice` takes it; ``"auto"`` is the CPU where no GPU can be used.

    Raises
    ------
    DeviceUnavailable
        A GPU was asked for and cannot be used; the message says why.
    """
    chosen = choice(device)
    if chosen == "cpu":
        return None
    try:
        module = import_module("gpuenc.cuda.decoding")
        return cast("DeviceDecoder", module.open_decoder(chosen if isinstance(chosen, int) else 0))
    except DeviceUnavailable:
        if chosen == "auto":
            return None
        raise
