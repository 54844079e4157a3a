"""The plug-in contract, and which plug-ins each transfer syntax has by default, in their order of choice.

A plug-in is a module with pydicom's three names, and one more if it takes batches::

    ENCODER_DEPENDENCIES: dict[UID, tuple[str, ...]]     what a user must install
    is_available(uid) -> bool                            cheap, never raises, never prints
    encode_frame(src, runner) -> bytes                   pydicom 3's function, under any name
    BatchEncoder(target, *, device, memory_bytes)        optional; see the protocol of that name

and, if it encodes on GPUs::

    DEVICE = "gpu"
    PROVEN: bool                                         what it makes was seen to be exact; see `Plugin`
    device_count() -> int                                how many GPUs are visible
    why_unavailable(uid, device=0) -> str                why one of them cannot be used, in a sentence, or nothing

A module that says ``BY_LABEL = True`` is used where its label is asked for, and never tried of itself.

Modules are named by import path and imported when an encoder for their syntax is first asked for. A module without
`BatchEncoder` is called frame by frame, and by one thread at a time in the whole process unless it says
``THREAD_SAFE = True``: pylibjpeg-openjpeg 2.6 crashes under threads, and none of pydicom's plug-ins releases the GIL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuenc.frames import Encoded, Failure, Frame
    from gpuenc.targets import Target

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a `BatchEncoder` wants of the batches it is given.

    Parameters
    ----------
    frames : int
        Most frames in a batch.
    bytes : int
        Most native bytes in a batch; a single larger frame still comes alone.
    lanes : int
        How many `BatchEncoder`s of this plug-in are worth having at once.
    peak_factor : float
        Peak memory of one `encode` call as a multiple of the batch's native bytes, outputs included.
    """

    frames: int
    bytes: int
    lanes: int
    peak_factor: float


class BatchEncoder(Protocol):
    """Encodes batches of frames of one format for one target. Used by one thread at a time."""

    limits: Limits

    def __init__(self, target: Target, *, device: int | None = None, memory_bytes: int | None = None) -> None:
        """Prepare for `target`; `device` is a GPU's index, `memory_bytes` the memory it may use there."""

    def encode(self, frames: Sequence[Frame]) -> list[Encoded | Failure]:
        """Return exactly one result per frame, in order. Frames share one format; none is `Coded`, except
        where the target re-compresses JPEG. Cells on a GPU (`DeviceCells`) go to plug-ins of GPUs as they are.
        """

    def close(self) -> None:
        """Release what it holds; called once."""


@dataclass(frozen=True, slots=True)
class PluginPath:
    """Where a plug-in lives: its label, its module, the name of its function, and the device it needs."""

    label: str
    module: str
    function: str
    device: Device = "cpu"

    @property
    def import_path(self) -> tuple[str, str]:
        """The module and function as pydicom's `add_plugin` takes them."""
        return (self.module, self.function)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a device says of one codestream that it decoded again.

    Parameters
    ----------
    differing : int
        How many samples differ from those that were encoded.
    crc32 : int
        CRC-32 of the samples that were encoded; see `gpuenc.cpu.samples.checksum`.
    """

    differing: int
    crc32: int


class DeviceVerifier(Protocol):
    """A `BatchEncoder` that can decode and compare where its samples are."""

    def verify(self, frames: Sequence[Frame], codestreams: Sequence[bytes]) -> list[Verdict | Failure]:
        """Return for each frame a verdict on its codestream, or why there is none: then the CPU decides."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plug-in ready for use.

    Parameters
    ----------
    label : str
        Its label.
    open : callable
        Returns a `BatchEncoder` of it for a target.
    device : {'cpu', 'gpu'}
        Where it encodes.
    proven : bool
        For a GPU: what it makes was seen to be exact (benchmarks/gpu-evidence.md). Until then each lossless frame is
        decoded by the CPU, whatever is asked.
    alive : callable
        Whether it may still encode something: False once its last device is given up.
    from_pixels : int
        Frames of fewer pixels are tried by it only when all others have failed: what ``device="fastest"`` knows of this
        machine from `gpuenc.measured`.
    """

    label: str
    open: Callable[[Target], BatchEncoder]
    device: Device = "cpu"
    proven: bool = False
    alive: Callable[[], bool] = _always
    from_pixels: int = 0


NVIMGCODEC = PluginPath("nvimgcodec", "gpuenc.cuda.nvcodec", "encode_frame", "gpu")
CUDA_HTJ2K = PluginPath("cuda-htj2k", "gpuenc.cuda.htj2k", "encode_frame", "gpu")
CUDA_JPEG_LOSSLESS = PluginPath("cuda-jpeg-lossless", "gpuenc.cuda.jpeg_lossless", "encode_frame", "gpu")
CUDA_RLE = PluginPath("cuda-rle", "gpuenc.cuda.rle", "encode_frame", "gpu")
IMAGECODECS = PluginPath("imagecodecs", "gpuenc.cpu.codecs", "encode_frame")
_PYLIBJPEG = PluginPath("pylibjpeg", "pydicom.pixels.encoders.pylibjpeg", "_encode_frame")
_PYJPEGLS = PluginPath("pyjpegls", "pydicom.pixels.encoders.pyjpegls", "_encode_frame")
_GDCM = PluginPath("gdcm", "pydicom.pixels.encoders.gdcm", "encode_pixel_data")
_PYDICOM = PluginPath("pydicom", "pydicom.pixels.encoders.native", "_encode_frame")

# nvImageCodec has no lossless JPEG, JPEG-LS, RLE, JPEG XL or 12-bit JPEG.
_ON_GPU = {
    **{f"1.2.840.10008.1.2.4.{number}": NVIMGCODEC for number in ("50", "90", "91", "201", "202", "203")},
    "1.2.840.10008.1.2.4.57": CUDA_JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70": CUDA_JPEG_LOSSLESS,
    "1.2.840.10008.1.2.5": CUDA_RLE,
}
_BEHIND: dict[str, tuple[PluginPath, ...]] = {
    "1.2.840.10008.1.2.5": (_PYLIBJPEG, _GDCM, _PYDICOM),
    "1.2.840.10008.1.2.4.80": (_PYJPEGLS,),
    "1.2.840.10008.1.2.4.81": (_PYJPEGLS,),
    "1.2.840.10008.1.2.4.90": (_PYLIBJPEG,),
    "1.2.840.10008.1.2.4.91": (_PYLIBJPEG,),
    "1.2.840.10008.1.2.4.201": (CUDA_HTJ2K,),
    "1.2.840.10008.1.2.4.202": (CUDA_HTJ2K,),
}


# Of a device that this process will not use again: an encoder on another one may be had.
GONE_CODES = frozenset({"device-lost", "device-hung"})


def in_order(plugins: Sequence[Plugin], pixels: int) -> tuple[Plugin, ...]:
    """Return plug-ins in the order in which they are tried for frames of so many pixels; see `Plugin.from_pixels`."""
    return tuple(sorted(plugins, key=lambda plugin: pixels < plugin.from_pixels))


def is_by_label(module: object) -> bool:
    """Whether a plug-in's module says that it is used only where its label is asked for."""
    return bool(getattr(module, "BY_LABEL", False))


def usable_cores() -> int:
    """Return the number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def default_plugins(uid: str) -> tuple[PluginPath, ...]:
    """Return the plug-ins of transfer syntax `uid` in the order in which they are tried."""
    first = (_ON_GPU[uid],) if uid in _ON_GPU else ()
    return (*first, IMAGECODECS, *_BEHIND.get(uid, ()))
