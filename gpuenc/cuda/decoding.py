"""Batches of frames decoded on a GPU, to arrays that stay there.

Lossless JPEG 2000 and HTJ2K are decoded by nvImageCodec; whatever it does not take or make, and every other frame, is
decoded on the CPU and copied to the device. The first frame of each format that it decodes is decoded on the CPU too
and compared, sample by sample: where one differs, the device decodes none of that format in this process.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from warnings import warn

import numpy as np

from gpuenc.codestream import parse
from gpuenc.cpu.decoders import decoded_format
from gpuenc.cpu.stored import stored_values
from gpuenc.cuda import health, nvrules, probe
from gpuenc.errors import DeviceUnavailable, GpuencError, WrongCodestream
from gpuenc.frames import Coded, Frame, FrameFormat
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import BY_UID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Stored = tuple[Any, FrameFormat]
    # Transfer syntax, format, and whether there is a component transform.
    Kind = tuple[str, FrameFormat, bool | None]

_TIMEOUT_S = 120.0
_MOST_THREADS = 8


def open_decoder(device: int) -> GpuDecoder:
    """Return what decodes on a GPU.

    Parameters
    ----------
    device : int
        Which of the visible GPUs.

    Raises
    ------
    DeviceUnavailable
        It cannot be used, or CuPy is not there; the message says why. Without nvImageCodec the CPU decodes.
    """
    answer = probe.kernels(device)
    if not answer.usable:
        raise DeviceUnavailable(answer.reason)
    return GpuDecoder(device)


class GpuDecoder:
    """Decodes for one thread at a time.

    Parameters
    ----------
    device : int
        Which of the visible GPUs, on which CuPy works.

    Attributes
    ----------
    xp : module
        CuPy.
    """

    def __init__(self, device: int) -> None:
        self.xp: Any = import_module("cupy")
        self._device = device
        self._stream: Any = None
        self._decoder: Any = None
        # Calls into nvImageCodec may hang: this thread makes them, and is left behind then.
        self._worker: health.Worker | None = None
        if probe.probe(device, "jpeg2k").usable:
            self._worker = health.Worker("gpuenc-decode")
        # Whether the device decoded the first frame of a kind right.
        self._right: dict[Kind, bool] = {}

    @contextmanager
    def current(self) -> Iterator[None]:
        """Return a context in which the device and the stream of its arrays are current; all is done when it ends."""
        with self.xp.cuda.Device(self._device):
            if self._stream is None:
                self._stream = self.xp.cuda.Stream(non_blocking=True)
            with self._stream:
                yield
            # Whoever gets the arrays need not know of this stream.
            self._stream.synchronize()

    def stored(self, frames: Sequence[Frame]) -> list[Stored | GpuencError]:
        """Return for each frame its stored values on the device with their format, or what is wrong with it.

        To be called in the context of `current`.

        Parameters
        ----------
        frames : sequence of Frame
            With `Coded` pixels or native cells.

        Raises
        ------
        DeviceUnavailable
            ``device-lost``: the device cannot be used any more.
        """
        results: list[Stored | GpuencError | None] = [None] * len(frames)
        kinds = {place: kind for place, frame in enumerate(frames) if (kind := self._kind(frame)) is not None}
        taken = [(frames[place], kind) for place, kind in kinds.items()]
        for place, values in zip(kinds, self._decoded(taken), strict=True):
            results[place] = values
        return [self._by_cpu(frame) if done is None else done for frame, done in zip(frames, results, strict=True)]

    def close(self) -> None:
        """Give back everything."""
        worker, decoder = self._worker, self._decoder
        self._worker = self._decoder = None
        if worker is not None:
            if decoder is not None:
                worker.call(lambda: decoder.__exit__(None, None, None), _TIMEOUT_S)
            worker.close()

    def _kind(self, frame: Frame) -> Kind | None:
        """Return what kind of frame it is, or None where the device would not decode it to the one right result."""
        fmt, coded = frame.format, frame.pixels
        if self._worker is None or not isinstance(coded, Coded):
            return None
        syntax = BY_UID.get(coded.syntax)
        if syntax is None or not syntax.jpeg2000 or syntax.loss != "never":
            return None  # decoders round the irreversible transform as they like
        if not 8 <= fmt.bits_allocated <= 16 or fmt.samples not in (1, 3) or fmt.high_bit != fmt.bits_stored - 1:
            return None
        if fmt.signed and fmt.bits_stored <= 8:
            return None  # nor does nvJPEG2000
        try:
            info = parse(coded.codestream, syntax.family)
        except WrongCodestream:
            return None
        same = (info.rows, info.columns, info.samples) == (fmt.rows, fmt.columns, fmt.samples)
        plain = info.lossless and info.ends_properly is not False and set(info.subsampling) == {(1, 1)}
        if not (same and plain and info.precision == fmt.bits_stored and info.signed == fmt.signed):
            return None
        kind = (coded.syntax, fmt, info.mct)
        return kind if self._right.get(kind, True) else None

    def _decoded(self, taken: Sequence[tuple[Frame, Kind]]) -> list[Stored | None]:
        """Return what nvImageCodec makes of frames of their kinds, None where the CPU has to."""
        if not taken or self._worker is None:
            return [None] * len(taken)
        codestreams = [cast("Coded", frame.pixels).codestream for frame, _ in taken]
        try:
            images = self._worker.call(lambda: self._call(codestreams), _TIMEOUT_S)
        except Exception as error:
            fault = health.classify(error)
            if fault.kind == "lost":
                health.give_up(self._device, fault.reason)
                raise DeviceUnavailable(
                    f"GPU {self._device} was given up: {fault.reason}", code="device-lost"
                ) from error
            return [None] * len(taken)
        found = [self._checked(*one, image) for one, image in zip(taken, images, strict=True)]
        # What precedes, in this batch, the frame that shows a kind to be wrong is not believed either.
        return [one if self._right.get(kind) else None for one, (_, kind) in zip(found, taken, strict=True)]

    def _call(self, codestreams: Sequence[bytes]) -> list[Any]:
        nv: Any = probe.load()
        with self.xp.cuda.Device(self._device):
            if self._decoder is None:
                self._decoder = nv.Decoder(
                    device_id=self._device,
                    max_num_cpu_threads=max(1, min(_MOST_THREADS, usable_cores() - 1)),
                    backends=probe.backends(nv, "jpeg2k"),
                )
            streams = [nv.CodeStream(codestream) for codestream in codestreams]
            images = self._decoder.decode(streams, params=nvrules.decode_settings(nv), cuda_stream=self._stream.ptr)
        return images if isinstance(images, list) and len(images) == len(streams) else [None] * len(streams)

    def _checked(self, frame: Frame, kind: Kind, image: Any) -> Stored | None:
        """Return an image as stored values, once its shape and type are right, and the first of its kind is too."""
        fmt = decoded_format(kind[0], frame.format)
        if image is None:
            return None
        values = self.xp.asarray(image)
        container = np.dtype(f"{'i' if fmt.signed else 'u'}{fmt.bits_allocated // 8}")
        if tuple(values.shape[:2]) != fmt.shape[:2] or values.size != math.prod(fmt.shape):
            return None
        if values.dtype.kind != container.kind:
            return None
        # A copy: the image's memory is nvImageCodec's, which may use it again.
        values = values.reshape(fmt.shape).astype(container)
        if kind not in self._right:
            expected, _ = stored_values(frame)
            self._right[kind] = bool(np.array_equal(values.get(), expected))
            if not self._right[kind]:
                name = BY_UID[kind[0]].name
                warn(f"GPU {self._device} decodes {name} of {fmt.bits_stored} bits wrongly: the CPU does", stacklevel=2)
        return values, fmt

    def _by_cpu(self, frame: Frame) -> Stored | GpuencError:
        try:
            values, fmt = stored_values(frame)
        except GpuencError as error:
            return error
        return self.xp.asarray(values), fmt
