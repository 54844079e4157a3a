"""nvImageCodec as a plug-in: JPEG 2000, HTJ2K and JPEG Baseline on a GPU.

Nothing of CUDA is imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuenc.cuda import lane, nvrules, probe
from gpuenc.cuda.session import Session
from gpuenc.syntaxes import BY_UID

if TYPE_CHECKING:
    from gpuenc.coding import Coding
    from gpuenc.cpu.codecs import Runner
    from gpuenc.frames import FrameFormat

LABEL = "nvimgcodec"
DEVICE = "gpu"
# Until the exactness rows of benchmarks/gpu-evidence.md are closed.
PROVEN = False
THREAD_SAFE = True
ENCODER_DEPENDENCIES = dict.fromkeys(nvrules.UIDS, ("gpuenc[cuda13] or gpuenc[cuda12]", "an NVIDIA GPU"))


def is_available(uid: str) -> bool:
    """Return whether a visible GPU encodes transfer syntax `uid`; see `gpuenc.cuda.probe`."""
    if uid not in ENCODER_DEPENDENCIES:
        return False
    return probe.some(lambda device: not why_unavailable(uid, device))


def device_count() -> int:
    """Return how many GPUs are visible."""
    return probe.device_count()


def why_unavailable(uid: str, device: int = 0) -> str:
    """Return in a sentence why transfer syntax `uid` cannot be encoded on `device`, or nothing."""
    return probe.probe(device, "jpeg2k" if BY_UID[uid].jpeg2000 else "jpeg").reason


class BatchEncoder(lane.BatchEncoder):
    """Encodes batches with nvImageCodec; see `gpuenc.cuda.lane.BatchEncoder`."""

    label = LABEL
    undone = "nvImageCodec did not encode this frame, and does not say why"

    def answer(self) -> probe.Answer:
        """Return whether nvImageCodec encodes on the device."""
        return probe.probe(self.device, nvrules.codec_of(self.target))

    def unfit(self, fmt: FrameFormat, wanted: Coding) -> str:
        """Return why frames of `fmt` are not for nvImageCodec, or nothing."""
        return nvrules.refusal(self.target, fmt, wanted)

    def open_session(self) -> Session:
        """Return an encoder of nvImageCodec with all that it needs."""
        return Session(self.target, self.device, self.pinned_bytes)


_SINGLE = lane.Single(BatchEncoder)


def encode_frame(src: bytes, runner: Runner) -> bytes:
    """Return one encoded frame: the function that pydicom's encoders call. See `gpuenc.cpu.codecs.encode_frame`."""
    return _SINGLE.encode_frame(src, runner)
