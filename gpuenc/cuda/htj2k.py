"""Lossless HTJ2K by our own kernels, in batches: .201 and .202 without nvImageCodec.

A batch of frames of one geometry is a handful of launches, between which nothing is asked of the device: a wavelet
level each, all code blocks, all packet headers, one place for each frame, and the codestreams in one buffer. What comes
back is a table of places and that buffer.

The plug-in is used where its label is asked for and not otherwise: it has not run on a GPU yet. It needs CuPy, and
nothing of nvImageCodec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.codestream import check
from gpuenc.coding import coding
from gpuenc.cpu import decoders
from gpuenc.cuda import htj2k_plan, lane, memory, probe, staging
from gpuenc.errors import CodecError, GpuencError
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target as target_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.coding import Coding
    from gpuenc.cpu.codecs import Runner
    from gpuenc.cuda.htj2k_plan import Plan
    from gpuenc.cuda.kernels import Array, Device
    from gpuenc.frames import Frame

LABEL = "cuda-htj2k"
DEVICE = "gpu"
THREAD_SAFE = True
BY_LABEL = True
PROVEN = False
ENCODER_DEPENDENCIES = dict.fromkeys(
    ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"), ("cupy-cuda13x or cupy-cuda12x", "an NVIDIA GPU")
)

# Geometries whose tables stay on the device.
_KEPT_TABLES = 16
# Of the image that has to come back: more than one code block and more than one level.
_SIDE = 150

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
        CodecError
            The kernels' places are beyond their output.
        """
        plan = htj2k_plan.plan(wanted)
        views = _frames_of(samples, wanted)
        at_once = max(1, min(plan.most_frames, self._scratch_bytes // plan.frame_bytes))
        results: list[bytes | GpuencError] = []
        for start in range(0, len(views), at_once):
            part = views[start : start + at_once]
            results += self._encode_set(plan, part[0], len(part))
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

    def _arrays(self, plan: Plan, first: Array, frames: int) -> dict[str, Any]:
        """Return what the launches of a set work on, by name; `first` is where its samples begin."""
        arrays: dict[str, Any] = {**self._tables_of(plan), "samples": first, "frames": np.uint32(frames)}
        for name, (count, dtype) in plan.scratch(frames).items():
            arrays[name] = self._device.empty((count,), dtype)
        arrays["faults"] = self._device.zeros((frames,), "u4")
        return arrays

    def _launch(self, plan: Plan, arrays: dict[str, Any], frames: int) -> None:
        for launch in plan.launches(frames):
            arguments = [arrays[name] for name in launch.arguments]
            self._device.launch(launch.source, launch.kernel, launch.grid, launch.block, arguments)

    def _encode_set(self, plan: Plan, first: Array, frames: int) -> list[bytes | GpuencError]:
        device, arrays = self._device, self._arrays(plan, first, frames)
        self._launch(plan, arrays, frames)
        places = device.download(arrays["places"]).view(htj2k_plan.FRAME_PLACE)
        last = places[-1]
        used = int(last["offset"]) + -(-int(last["bytes"]) // htj2k_plan.PLACE_ALIGN) * htj2k_plan.PLACE_ALIGN
        packed = b""
        if used > frames * int(plan.layout["frame_output_bytes"][0]):
            raise CodecError(f"The HTJ2K kernels say that {frames} frames have {used} bytes", code="kernel-disagrees")
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


class Session:
    """The kernels and a place on a device; see `gpuenc.cuda.lane.Session`.

    Parameters
    ----------
    device : int
        Which of the visible GPUs.
    scratch_bytes : int
        Most memory of a set of launches, beside cells and samples.

    Raises
    ------
    CodecError
        There is no CuPy.
    """

    def __init__(self, device: int, scratch_bytes: int) -> None:
        workspace = memory.open_workspace(device)
        if workspace is None:
            raise CodecError("The HTJ2K kernels need CuPy: install 'gpuenc[cuda13]'", code="device-unavailable")
        self._workspace = workspace
        self._pipeline = Pipeline(workspace.kernels, scratch_bytes)

    def encode(self, frames: Sequence[Frame], wanted: Coding) -> list[bytes | GpuencError | None]:
        """Return for each frame its codestream, or what is wrong with it."""
        staged = staging.on_device(self._workspace, frames, wanted)
        results: list[bytes | GpuencError | None] = [None] * len(frames)
        if staged.samples is not None and len(staged.wrong) < len(frames):
            with self._workspace.current():
                made = self._pipeline.encode(staged.samples, wanted)
            for place, one in zip(staged.places, made, strict=True):
                results[place] = one
        for place, error in staged.wrong.items():
            results[place] = error
        return results

    def wrong(self) -> str:
        """Return what is wrong with the device now, or nothing."""
        with self._workspace.current():
            return works(self._workspace.kernels)

    def trim(self) -> None:
        """Give back what is only cached."""
        self._pipeline.trim()
        self._workspace.trim()

    def close(self) -> None:
        """Give back everything."""
        self._pipeline.trim()
        self._workspace.close()


def works(device: Device) -> str:
    """Return what is wrong with the kernels on `device`, or nothing: a small image has to come back."""
    chosen = target_of(find("htj2k-lossless-rpcl"))
    wanted = coding(chosen, FrameFormat(_SIDE, _SIDE, 1, 16, 12, False, "MONOCHROME2"))
    ramp = np.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE) % 4096
    samples = (ramp ^ np.random.default_rng(1).integers(0, 64, ramp.shape)).astype(np.uint16)
    [made] = Pipeline(device, 1).encode(device.upload(samples[None]), wanted)
    if not isinstance(made, bytes):
        return str(made)
    try:
        check(made, chosen.syntax, wanted)
        back = decoders.decode_samples(made, chosen.syntax, wanted)
    except GpuencError as error:
        return f"what the HTJ2K kernels write is not what was asked for: {error}"
    return "" if np.array_equal(back, samples) else "samples do not come back from what the HTJ2K kernels write"


def device_count() -> int:
    """Return how many GPUs are visible."""
    return probe.device_count()


def is_available(uid: str) -> bool:
    """Return whether the kernels run on some visible GPU, for transfer syntax `uid`."""
    return uid in ENCODER_DEPENDENCIES and probe.some(lambda device: not why_unavailable(uid, device))


def why_unavailable(uid: str, device: int = 0) -> str:
    """Return in a sentence why transfer syntax `uid` cannot be encoded on `device`, or nothing."""
    return probe.kernels(device, LABEL, works).reason


class BatchEncoder(lane.BatchEncoder):
    """Encodes batches with our own kernels; see `gpuenc.cuda.lane.BatchEncoder`.

    Cells and samples of a batch take half of the lane's memory at most, the launches the other half.
    """

    label = LABEL

    def answer(self) -> probe.Answer:
        """Return whether the kernels run on the device."""
        return probe.kernels(self.device, LABEL, works)

    def unfit(self, fmt: FrameFormat, wanted: Coding) -> str:
        """Return why frames of `fmt` are not for the kernels, or nothing."""
        return htj2k_plan.refusal(wanted)

    def device_bytes(self, fmt: FrameFormat, wanted: Coding) -> int:
        """Return the bytes of the device's memory that one frame takes at its peak."""
        return memory.device_bytes(fmt, wanted) + htj2k_plan.plan(wanted).frame_bytes

    def open_session(self) -> Session:
        """Return the kernels with all that they need."""
        return Session(self.device, self._lane_bytes // 2)


_SINGLE = lane.Single(BatchEncoder)


def encode_frame(src: bytes, runner: Runner) -> bytes:
    """Return one encoded frame: the function that pydicom's encoders call. See `gpuenc.cpu.codecs.encode_frame`."""
    return _SINGLE.encode_frame(src, runner)
