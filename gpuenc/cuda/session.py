"""One encoder of nvImageCodec with all that it needs; used by one thread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuenc.codestream import insert_tlm
from gpuenc.cpu import decoders, lossy
from gpuenc.cuda import compare, memory, nvrules, probe, staging
from gpuenc.cuda.arrays import is_contiguous
from gpuenc.cuda.samples import checksum_tables
from gpuenc.errors import CodecError, EncodeFailed, GpuencError
from gpuenc.plugins import Verdict, usable_cores

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
        self._decoder: Any = None
        self._crc_tables: Any = None
        # The batch that was encoded last, whose samples are still there.
        self._last: tuple[list[Frame], list[Any]] = ([], [])

    def encode(self, frames: Sequence[Frame], wanted: Coding) -> list[bytes | GpuencError | None]:
        """Return for each frame its codestream, what is wrong with the frame, or None where the device did nothing.

        Raises
        ------
        Exception
            Whatever nvImageCodec or CuPy raises: of the batch as a whole nothing is known then.
        """
        results: list[bytes | GpuencError | None] = [None] * len(frames)
        self._last = ([], [])
        samples = self._prepared(frames, wanted)
        self._last = (list(frames), samples)
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

    def verify(
        self, frames: Sequence[Frame], wanted: Coding, codestreams: Sequence[bytes]
    ) -> list[Verdict | GpuencError]:
        """Decode `codestreams` on the device and compare them there with the samples of `frames`.

        Returns
        -------
        list of Verdict or GpuencError
            For each frame what differs, or why that is not known.

        Raises
        ------
        Exception
            Whatever nvImageCodec or CuPy raises.
        """
        unknown = nvrules.decode_refusal(self._target, wanted)
        if not unknown and self._workspace is None:
            unknown = "comparing on the device needs CuPy"
        if unknown or self._workspace is None:
            return [CodecError(unknown, code="device-refused") for _ in frames]
        samples = self._still_there(frames) or self._prepared(frames, wanted)
        nv, workspace = self._nv, self._workspace
        if self._decoder is None:
            self._decoder = nv.Decoder(
                device_id=self._device, max_num_cpu_threads=_threads(), backends=probe.backends(nv, self._codec)
            )
        # Those of which nvImageCodec makes nothing are None in what it returns.
        streams = [nv.CodeStream(codestream) for codestream in codestreams]
        decoded = self._decoder.decode(streams, params=nvrules.decode_settings(nv), cuda_stream=workspace.stream)
        if not isinstance(decoded, list) or len(decoded) != len(streams):
            raise CodecError(f"nvImageCodec returned {decoded!r:.80} for {len(streams)} codestreams")
        verdicts: list[Verdict | GpuencError] = []
        pairs: dict[int, tuple[Any, memory.View]] = {}
        for place, (one, back) in enumerate(zip(samples, decoded, strict=True)):
            there = one if isinstance(one, GpuencError) else _decoded(back, wanted)
            if isinstance(there, memory.View):
                pairs[place] = one, there
            verdicts.append(there if isinstance(there, GpuencError) else CodecError("not compared"))
        with workspace.current():
            if pairs and self._crc_tables is None:
                self._crc_tables = checksum_tables(workspace.kernels)
            ours, theirs = [one for one, _ in pairs.values()], [back for _, back in pairs.values()]
            differing = compare.count_differing(workspace.kernels, ours, theirs)
            sums = compare.checksums(workspace.kernels, ours, self._crc_tables)
        for place, count, crc32 in zip(pairs, differing, sums, strict=True):
            verdicts[place] = Verdict(count, crc32)
        return verdicts

    def _still_there(self, frames: Sequence[Frame]) -> list[Any]:
        """Return the samples of frames that were encoded last, or nothing."""
        places = {id(frame): place for place, frame in enumerate(self._last[0])}
        if not all(id(frame) in places for frame in frames):
            return []
        found = [self._last[1][places[id(frame)]] for frame in frames]
        return [] if any(isinstance(one, np.ndarray) for one in found) else found

    def wrong(self) -> str:
        """Return what is wrong with the encoder now, or nothing."""
        return probe.works(self._nv, self._encoder, self._codec)

    def trim(self) -> None:
        """Give back what is only cached."""
        self._last = ([], [])
        if self._workspace:
            self._workspace.trim()

    def close(self) -> None:
        """Give back everything."""
        self._slots.clear()
        self._last, self._crc_tables = ([], []), None
        for codec in (self._encoder, self._decoder):
            if codec is not None:
                codec.__exit__(None, None, None)
        self._encoder = self._decoder = None
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


def _decoded(image: Any, wanted: Coding) -> memory.View | GpuencError:
    """Return what was decoded as samples like those that were encoded, or why it cannot be compared with them."""
    if image is None:
        return CodecError("nvImageCodec did not decode its codestream, and does not say why", code="device-failed")
    interface = image.__cuda_array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    fits = math.prod(shape) == math.prod(wanted.shape) and shape[:2] == wanted.shape[:2]
    if not fits or dtype.kind not in "iu" or not is_contiguous(interface.get("strides"), shape, dtype.itemsize):
        return CodecError(f"nvImageCodec decodes its codestream to {dtype} of shape {shape}", code="device-failed")
    # Of shape (rows, columns, 1) where one sample is.
    return memory.View(int(interface["data"][0]), wanted.shape, dtype.str, 0, image)


def _threads() -> int:
    """Return how many threads of nvImageCodec an encoder gets: each keeps one image in flight."""
    return max(1, min(_MOST_THREADS, usable_cores() - 1))
