"""From frames to prepared samples: on a device through one copy and our kernels, or on the host by their twins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cpu import samples as cpu_samples
from gpuenc.cuda import memory
from gpuenc.cuda import samples as device_samples
from gpuenc.errors import CodecError, GpuencError, InvalidPixels, ValuesOutsideBitsStored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.cuda.kernels import Array
    from gpuenc.frames import Frame


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch's samples on a device.

    Parameters
    ----------
    samples : Array or None
        Shape (len(places), *coding.shape), or (len(places), bytes) for `Coding.raw`; None where `places` is empty.
    places : tuple of int
        Which frame of the batch each of them is.
    wrong : mapping
        By its place, why a frame must not be encoded. It may have samples nevertheless.
    """

    samples: Array | None
    places: tuple[int, ...]
    wrong: Mapping[int, GpuencError]

    def views(self, count: int, stream: int) -> list[Any]:
        """Return for each of `count` frames a view of its samples, or what is wrong with it."""
        views = memory.split(self.samples, stream) if self.samples is not None else []
        of = dict(zip(self.places, views, strict=True))
        return [self.wrong.get(place) or of[place] for place in range(count)]


def on_device(workspace: memory.Workspace, frames: Sequence[Frame], wanted: Coding) -> Staged:
    """Return the samples of a batch on the device, prepared on the stream of `workspace`.

    Cells of the host travel in one copy; those that are on the device already stay where they are.

    Parameters
    ----------
    workspace : Workspace
        A lane's place on the device.
    frames : sequence of Frame
        Of one format; none is `Coded`.
    wanted : Coding
        What is wanted of them.
    """
    wrong: dict[int, GpuencError] = {}
    cells: dict[int, Any] = {}
    host = []
    with workspace.current():
        for place, frame in enumerate(frames):
            try:
                if is_on_device(frame):
                    cells[place] = workspace.adopt(_pixels(frame))
                else:
                    cells[place] = _whole(frame)
                    host.append(place)
            except GpuencError as error:
                wrong[place] = error
        if host:
            staged = workspace.stage([cells[place] for place in host])
            cells |= zip(host, staged, strict=True)
        if not cells:
            return Staged(None, (), wrong)
        places = tuple(cells)
        try:
            offsets = [frames[place].bit_offset for place in places]
            pixels = list(cells.values())
            prepared = device_samples.prepare(
                workspace.kernels, pixels, frames[0].format, wanted, bit_offsets=offsets if any(offsets) else None
            )
            found = prepared.found()
        except GpuencError as error:
            return Staged(None, (), wrong | dict.fromkeys(places, error))
    for place, outside in zip(places, found, strict=True):
        if outside:
            wrong[place] = _outside(frames[place], wanted)
    return Staged(prepared.samples, places, wrong)


def on_host(frame: Frame, wanted: Coding) -> NDArray[Any] | GpuencError:
    """Return the samples of a frame whose cells are on the host, or what is wrong with it."""
    if is_on_device(frame):
        return InvalidPixels("Pixels on a device need CuPy: install 'gpuenc[cuda13]'", code="device-refused")
    try:
        return cpu_samples.prepare(_pixels(frame), frame.format, wanted, bit_offset=frame.bit_offset)
    except GpuencError as error:
        return error


def is_on_device(frame: Frame) -> bool:
    """Whether the cells of `frame` lie on a device."""
    return hasattr(frame.pixels, "__cuda_array_interface__")


def host_bytes(frames: Sequence[Frame]) -> int:
    """Return how many bytes of cells have to be copied to the device."""
    return sum(frame.format.frame_bytes for frame in frames if not is_on_device(frame))


def _pixels(frame: Frame) -> Any:
    """Return native cells, on the host or on a device; `Coded` frames do not come here."""
    return frame.pixels


def _whole(frame: Frame) -> NDArray[np.uint8]:
    """Return a frame's own bytes, which have to be there: kernels say of a batch what the twin says of a frame."""
    needed, cells = (frame.bit_offset + frame.format.frame_bits + 7) // 8, _pixels(frame)
    if cells.size < needed:
        raise InvalidPixels(f"The frame needs {needed} bytes of pixel data, there are {cells.size}", code="truncated")
    whole: NDArray[np.uint8] = cells[:needed]
    return whole


def _outside(frame: Frame, wanted: Coding) -> GpuencError:
    """Return what the CPU says of a frame in which a kernel found bits outside the samples."""
    if is_on_device(frame):
        return ValuesOutsideBitsStored(
            f"Samples do not fit a (0028,0101) 'Bits Stored' of {frame.format.bits_stored} with a (0028,0102) 'High "
            f"Bit' of {frame.format.high_bit}"
        )
    said = on_host(frame, wanted)
    if isinstance(said, GpuencError):
        return said
    return CodecError("a kernel found bits outside the samples, and the CPU does not", code="kernel-disagrees")
