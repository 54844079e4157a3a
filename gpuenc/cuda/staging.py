"""A batch's frames as samples on a device: copied there, prepared by kernels, and the frames that cannot be left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuenc.cpu import samples as cpu_samples
from gpuenc.cuda import samples as device_samples
from gpuenc.errors import CodecError, GpuencError, InvalidPixels, ValuesOutsideBitsStored

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from gpuenc.coding import Coding
    from gpuenc.cuda.kernels import Array
    from gpuenc.cuda.memory import Workspace
    from gpuenc.frames import Frame


@dataclass(frozen=True, slots=True)
class Staged:
    """What became of a batch.

    Parameters
    ----------
    samples : Array or None
        Shape (len(places), *coding.shape); None where no frame is left.
    places : tuple of int
        Which frame of the batch each of them is.
    refused : dict of int to GpuencError
        What is wrong with the others. A frame may be in both: then its samples must not be used.
    """

    samples: Array | None
    places: tuple[int, ...]
    refused: dict[int, GpuencError]


def stage(workspace: Workspace, frames: Sequence[Frame], wanted: Coding) -> Staged:
    """Return the samples of a batch of frames of one format, on the device of `workspace`, in whose context it is called.

    Frames on the host travel in one transfer; those on the device are read where they are.
    """
    refused: dict[int, GpuencError] = {}
    cells: dict[int, Any] = {}
    for place, frame in enumerate(frames):
        try:
            cells[place] = workspace.adopt(frame.pixels) if is_on_device(frame) else _whole(frame)  # type: ignore[arg-type]
        except GpuencError as error:
            refused[place] = error
    host = [place for place in cells if not is_on_device(frames[place])]
    for place, staged in zip(host, workspace.stage([cells[place] for place in host]) if host else (), strict=True):
        cells[place] = staged
    if not cells:
        return Staged(None, (), refused)
    try:
        offsets = [frames[place].bit_offset for place in cells]
        prepared = device_samples.prepare(
            workspace.kernels, list(cells.values()), frames[0].format, wanted, bit_offsets=offsets
        )
        found = prepared.found()
    except GpuencError as error:
        return Staged(None, (), refused | dict.fromkeys(cells, error))
    for place, outside in zip(cells, found, strict=True):
        if outside:
            refused[place] = _outside(frames[place], wanted)
    return Staged(prepared.samples, tuple(cells), refused)


def is_on_device(frame: Frame) -> bool:
    """Return whether a frame's cells are on a device."""
    return hasattr(frame.pixels, "__cuda_array_interface__")


def _whole(frame: Frame) -> NDArray[np.uint8]:
    """Return a frame's own bytes, which have to be there: kernels say of a batch what the twin says of a frame."""
    needed = (frame.bit_offset + frame.format.frame_bits + 7) // 8
    cells: NDArray[np.uint8] = frame.pixels  # type: ignore[assignment]
    if cells.size < needed:
        raise InvalidPixels(f"The frame needs {needed} bytes of pixel data, there are {cells.size}", code="truncated")
    return cells[:needed]


def _outside(frame: Frame, wanted: Coding) -> GpuencError:
    """Return what the CPU says of a frame in which a kernel found bits outside the samples."""
    if is_on_device(frame):
        return ValuesOutsideBitsStored(
            f"Samples do not fit a (0028,0101) 'Bits Stored' of {frame.format.bits_stored} with a (0028,0102) 'High "
            f"Bit' of {frame.format.high_bit}"
        )
    try:
        cpu_samples.prepare(frame.pixels, frame.format, wanted, bit_offset=frame.bit_offset)  # type: ignore[arg-type]
    except GpuencError as error:
        return error
    return CodecError("a kernel found bits outside the samples, and the CPU does not", code="kernel-disagrees")
