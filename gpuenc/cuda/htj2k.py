"""Lossless HTJ2K by our own kernels, in batches: .201 and .202 without nvImageCodec.

A batch of frames of one geometry is a handful of launches, between which nothing is asked of the device: a wavelet
level each, all code blocks, all packet headers, one place for each frame, and the codestreams in one buffer. What comes
back is a table of places and that buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.cuda import htj2k_plan, memory
from gpuenc.errors import CodecError

if TYPE_CHECKING:
    from gpuenc.coding import Coding
    from gpuenc.cuda.htj2k_plan import Plan
    from gpuenc.cuda.kernels import Array, Device
    from gpuenc.errors import GpuencError

# Geometries whose tables stay on the device.
_KEPT_TABLES = 16

_FAULTS = {
    htj2k_plan.FAULT_VALUES: "has samples outside its precision",
    htj2k_plan.FAULT_MAGNITUDE: "has a coefficient with more bits than its sub-band has bit-planes",
    htj2k_plan.FAULT_ROOM: "needs more bytes than a codestream of its geometry can",
}


class Pipeline:
    """The kernels on one device, with the tables of the geometries that came last. Used by one thread.

    Parameters
    ----------
    device : Device
        Where the kernels run.
    scratch_bytes : int
        Most memory of one set of launches; larger batches become several. One frame always goes.
    """

    def __init__(self, device: Device, scratch_bytes: int) -> None:
        self._device, self._scratch_bytes = device, scratch_bytes
        self._tables: dict[int, tuple[Plan, dict[str, Array]]] = {}

    def encode(self, samples: Array, wanted: Coding) -> list[bytes | GpuencError]:
        """Return for each frame its codestream, or why there is none.

        Parameters
        ----------
        samples : Array
            Shape (frames, *wanted.shape), uint8, int8, uint16 or int16, C-contiguous.
        wanted : Coding
            What `htj2k_plan.refusal` has nothing against.

        Raises
        ------
        ValueError
            `samples` are not what `wanted` says.
        """
        plan = htj2k_plan.plan(wanted)
        views = _frames_of(samples, wanted)
        tables = self._tables_of(plan)
        at_once = max(1, min(plan.most_frames, self._scratch_bytes // plan.frame_bytes))
        results: list[bytes | GpuencError] = []
        for start in range(0, len(views), at_once):
            part = views[start : start + at_once]
            results += self._encode_set(plan, tables, part[0], len(part))
        return results

    def trim(self) -> None:
        """Let go of the tables."""
        self._tables.clear()

    def _tables_of(self, plan: Plan) -> dict[str, Array]:
        kept = self._tables.pop(id(plan), None)  # and put back as the last
        tables = kept[1] if kept else {name: self._device.upload(table) for name, table in plan.tables().items()}
        self._tables[id(plan)] = plan, tables
        while len(self._tables) > _KEPT_TABLES:
            del self._tables[next(iter(self._tables))]
        return tables

    def _encode_set(self, plan: Plan, tables: dict[str, Array], first: Array, frames: int) -> list[bytes | GpuencError]:
        device = self._device
        arrays: dict[str, Any] = {**tables, "samples": first, "frames": np.uint32(frames)}
        for name, (count, dtype) in plan.scratch(frames).items():
            arrays[name] = device.empty((count,), dtype)
        arrays["faults"] = device.zeros((frames,), "u4")
        for launch in plan.launches(frames):
            arguments = [arrays[name] for name in launch.arguments]
            device.launch(launch.source, launch.kernel, launch.grid, launch.block, arguments)
        places = device.download(arrays["places"]).view(htj2k_plan.FRAME_PLACE)
        last = places[-1]
        used = int(last["offset"]) + -(-int(last["bytes"]) // htj2k_plan.PLACE_ALIGN) * htj2k_plan.PLACE_ALIGN
        packed = b""
        if used:
            start = int(arrays["output"].__cuda_array_interface__["data"][0])
            packed = device.download(memory.View(start, (used,), "|u1", 0, arrays["output"])).tobytes()
        return [_result(packed, place) for place in places]


def _result(packed: bytes, place: np.void) -> bytes | GpuencError:
    fault, start = int(place["fault"]), int(place["offset"])
    if fault:
        said = ", ".join(words for bit, words in _FAULTS.items() if fault & bit) or f"has fault {fault:#x}"
        return CodecError(f"A frame {said}: the HTJ2K kernels refuse it", code="kernel-refused")
    return packed[start : start + int(place["bytes"])]


def _frames_of(samples: Array, wanted: Coding) -> list[memory.View]:
    interface = samples.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    if (
        dtype.kind not in "iu"
        or 8 * dtype.itemsize != wanted.cell_bits
        or (dtype.kind == "i") != wanted.signed
        or tuple(interface["shape"][1:]) != wanted.shape
        or interface.get("strides") is not None
    ):
        raise ValueError(f"samples {dtype} of shape {interface['shape']} are not frames of {wanted}")
    return memory.split(samples)
