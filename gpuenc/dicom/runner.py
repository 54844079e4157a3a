"""Plug-ins written for pydicom, called frame by frame as pydicom would call them."""

from __future__ import annotations

import inspect
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.pixels.encoders.base import EncodeRunner
from pydicom.uid import UID

from gpuenc.codestream import even_segments
from gpuenc.coding import Coding, coding
from gpuenc.cpu import decoders, encoders, samples
from gpuenc.errors import GpuencError
from gpuenc.frames import Coded, Encoded, Failure
from gpuenc.plugins import Limits, usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from gpuenc.frames import Frame
    from gpuenc.targets import Target

# Every name under which a `Target` takes lossy options that pydicom's plug-ins take too.
_LOSSY_OPTIONS = frozenset(
    {"near", "jls_error", "lossy_error", "ratio", "j2k_cr", "compression_ratios"}
    | {"psnr", "j2k_psnr", "signal_noise_ratios"}
)
# pylibjpeg-openjpeg 2.6 crashes the process when two threads are in it, so foreign code gets one thread at a time.
_ONE_AT_A_TIME = threading.Lock()
if hasattr(os, "register_at_fork"):
    # A fork while another thread holds the lock would leave it held for ever in the child.
    os.register_at_fork(after_in_child=lambda: globals().update(_ONE_AT_A_TIME=threading.Lock()))


def one_at_a_time() -> threading.Lock:
    """Return the lock that lets one thread of this process at a time into foreign codecs."""
    return _ONE_AT_A_TIME


class FrameByFrame:
    """A pydicom encoding plug-in behind gpuenc's batch contract.

    Parameters
    ----------
    label : str
        The plug-in's label.
    function : callable
        ``f(src, runner) -> bytes`` (pydicom 3) or ``f(src, **options) -> bytes`` (pydicom 2).
    module : module
        Its module; ``THREAD_SAFE = True`` there lets several threads in at once.
    options : mapping
        What the user gave to `Encoder.encode`, handed on to the plug-in.
    """

    def __init__(
        self,
        label: str,
        function: Callable[..., bytes | bytearray],
        module: ModuleType,
        options: Mapping[str, Any],
        target: Target,
    ) -> None:
        self._label, self._function, self._target = label, function, target
        self._options = dict(options)
        self._thread_safe = bool(getattr(module, "THREAD_SAFE", False))
        self._takes_runner = not _takes_keywords_only(function)
        lanes = usable_cores() if self._thread_safe else 1
        self.limits = Limits(frames=1, bytes=1, lanes=lanes, peak_factor=4.0)

    def encode(self, frames: Sequence[Frame]) -> list[Encoded | Failure]:
        """Return one result per frame, in order."""
        return [self._one(frame) for frame in frames]

    def close(self) -> None:
        """Nothing is held."""

    def _one(self, frame: Frame) -> Encoded | Failure:
        if isinstance(frame.pixels, Coded):
            return Failure(frame.ref, "codec-error", self._label, "takes samples, not codestreams")
        wanted = coding(self._target, frame.format)
        try:
            prepared = samples.prepare(frame.host_cells(), frame.format, wanted, bit_offset=frame.bit_offset)
        except GpuencError as error:
            return Failure(frame.ref, error.code, self._label, str(error))
        runner = self._runner(wanted, frame)
        try:
            if self._thread_safe:
                codestream = self._call(prepared.tobytes(), runner)
            else:
                with one_at_a_time():
                    codestream = self._call(prepared.tobytes(), runner)
        except Exception as error:  # noqa: BLE001 - any failure of foreign code is a reason to try the next plug-in
            return Failure(frame.ref, "codec-error", self._label, str(error))
        made = bytes(codestream)
        if self._target.syntax.family == "rle":
            made = even_segments(made)
        if self._target.syntax.family == "jpeg2000" and wanted.lossless and encoders.openjpeg_may_be_wrong(wanted):
            # OpenJPEG is what is behind pylibjpeg.
            try:
                exact = np.array_equal(decoders.decode_samples(made, self._target.syntax, wanted), prepared)
            except GpuencError as error:
                return Failure(frame.ref, "undecodable", self._label, str(error))
            if not exact:
                return Failure(frame.ref, "verify-mismatch", self._label, "its samples do not come back")
        return Encoded(frame.ref, made, self._label)

    def _call(self, src: bytes, runner: EncodeRunner) -> bytes | bytearray:
        if self._takes_runner:
            return self._function(src, runner)
        return self._function(src, **runner.options)

    def _runner(self, wanted: Coding, frame: Frame) -> EncodeRunner:
        """Describe the prepared samples, which may be narrower than the source's cells."""
        runner = EncodeRunner(UID(self._target.syntax.uid))
        runner.set_options(
            **{
                **{name: value for name, value in self._options.items() if name not in _LOSSY_OPTIONS},
                **_lossy_options(self._target),
                "rows": wanted.rows,
                "columns": wanted.columns,
                "samples_per_pixel": wanted.samples,
                "planar_configuration": 0,
                "bits_allocated": wanted.cell_bits,
                "bits_stored": wanted.precision,
                "pixel_representation": int(wanted.signed),
                "photometric_interpretation": wanted.photometric,
                "number_of_frames": 1,
                "byteorder": "<",
            }
        )
        runner.set_source(bytes(0))
        return runner


def _lossy_options(target: Target) -> dict[str, Any]:
    """Return what was asked for, whatever it was called, in the words of pydicom's plug-ins."""
    options: dict[str, Any] = {}
    if target.near:
        options["jls_error"] = target.near
    if target.ratios:
        options["j2k_cr"] = list(target.ratios)
    if target.psnrs:
        options["j2k_psnr"] = list(target.psnrs)
    return options


def _takes_keywords_only(function: Callable[..., object]) -> bool:
    """Whether `function` is pydicom 2's ``f(src, **kwargs)``."""
    try:
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(kind in positional for kind in kinds) == 1 and inspect.Parameter.VAR_KEYWORD in kinds
