"""One encoder of nvImageCodec with all that it needs; used by one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.codestream import insert_tlm
from gpuenc.cpu import decoders, lossy
from gpuenc.cuda import memory, nvrules, probe, staging
from gpuenc.errors import CodecError, EncodeFailed, GpuencError
from gpuenc.plugins import usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.coding import Coding
    from gpuenc.frames import Frame
    from gpuenc.targets import Target

_MOST_THREADS = 8


class Session:
    """An encoder, its output streams, and a workspace on the device where CuPy is there.

    Parameters
    ----------
    target : Target
        What frames become.
    device : int
        Which of the visible GPUs.
    pinned_bytes : int
        Most pinned memory.

    Raises
    ------
    Exception
        Whatever nvImageCodec or CuPy raises.
    """

    def __init__(self, target: Target, device: int, pinned_bytes: int) -> None:
        self._target, self._device, self._pinned_bytes = target, device, pinned_bytes
        self._codec = nvrules.codec_of(target)
        self._nv: Any = probe.load()
        self._encoder: Any = self._nv.Encoder(
            device_id=device, max_num_cpu_threads=_threads(), backends=probe.backends(self._nv, self._codec)
        )
        self._slots = memory.Slots(self._nv, pinned_bytes * 3 // 5)
        self._workspace = memory.open_workspace(device)

    def encode(self, frames: Sequence[Frame], wanted: Coding) -> list[bytes | GpuencError | None]:
        """Return for each frame its codestream, what is wrong with the frame, or None where the device did nothing.

        Raises
        ------
        Exception
            Whatever nvImageCodec or CuPy raises: of the batch as a whole nothing is known then.
        """
        results: list[bytes | GpuencError | None] = [None] * len(frames)
        samples = self._prepared(frames, wanted)
        places = []
        for place, one in enumerate(samples):
            if isinstance(one, GpuencError):
                results[place] = one
            else:
                places.append(place)
        if not places:
            return results
        nv, stream = self._nv, self._workspace.stream if self._workspace else 0
        # A list, and nothing else: a tuple would be taken for one image.
        images = [nvrules.image(nv, samples[place], self._target, wanted, stream) for place in places]
        slots = self._slots.take(len(images), memory.codestream_bytes(wanted))
        made = self._encoder.encode(
            images,
            self._codec,
            code_stream_s=slots,
            params=nvrules.settings(nv, self._target, wanted),
            cuda_stream=stream,
        )
        if not isinstance(made, list) or len(made) != len(images):
            raise CodecError(f"nvImageCodec returned {made!r:.80} for {len(images)} images")
        for place, one in zip(places, made, strict=True):
            if one is not None:
                results[place] = memory.copied(one)
        return [self._finished(one, made, wanted) for one, made in zip(samples, results, strict=True)]

    def wrong(self) -> str:
        """Return what is wrong with the encoder now, or nothing."""
        return probe.works(self._nv, self._encoder, self._codec)

    def trim(self) -> None:
        """Give back what is only cached."""
        if self._workspace:
            self._workspace.trim()

    def close(self) -> None:
        """Give back everything."""
        self._slots.clear()
        if self._encoder is not None:
            self._encoder.__exit__(None, None, None)
            self._encoder = None
        if self._workspace:
            self._workspace.close()

    def _prepared(self, frames: Sequence[Frame], wanted: Coding) -> list[Any]:
        """Return the samples of each frame, on the device where there is a workspace, or what is wrong with it."""
        there = any(staging.is_on_device(frame) for frame in frames)
        if self._workspace is None or (staging.host_bytes(frames) > self._pinned_bytes * 2 // 5 and not there):
            # Without CuPy, or too large for pinned memory: nvImageCodec copies from where the samples are.
            return [staging.on_host(frame, wanted) for frame in frames]
        return staging.on_device(self._workspace, frames, wanted).views(len(frames), self._workspace.stream)

    def _finished(self, samples: Any, made: bytes | GpuencError | None, wanted: Coding) -> bytes | GpuencError | None:
        """Patch what nvJPEG2000 leaves out, and hold it to the quality that was asked for."""
        if not isinstance(made, bytes):
            return made
        try:
            if self._target.syntax.uid == nvrules.RPCL:
                return insert_tlm(made)
            if self._target.psnrs:
                self._require_psnr(samples, made, wanted)
        except GpuencError as error:
            return error
        return made

    def _require_psnr(self, samples: Any, codestream: bytes, wanted: Coding) -> None:
        """Refuse less than was asked for: what nvJPEG2000 takes as the peak of 12-bit samples is not documented."""
        if not isinstance(samples, np.ndarray) and self._workspace:
            samples = self._workspace.kernels.download(samples)
        back = decoders.decode_samples(codestream, self._target.syntax, wanted)
        got, asked = lossy.psnr_db(samples, back, wanted.precision), self._target.psnrs[0]
        if got < asked:
            raise EncodeFailed(f"the PSNR is {got:.2f} dB, not {asked:g}", code="device-quality")


def _threads() -> int:
    """Return how many threads of nvImageCodec an encoder gets: each keeps one image in flight."""
    return max(1, min(_MOST_THREADS, usable_cores() - 1))
