"""Plug-ins tried one after the other, by one thread: what each says is checked before it is believed.

What a plug-in returns is believed only after the codestream's own markers were read, and, where verification is asked
for, after it was decoded and every sample compared. A frame that one plug-in fails goes to the next, still from its
native cells.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gpuenc.codestream import check, pad_even
from gpuenc.coding import coding
from gpuenc.errors import (
    DecodeFailed,
    EncodeFailed,
    FormatNotAllowed,
    GpuencError,
    InvalidPixels,
    ValuesOutsideBitsStored,
)
from gpuenc.frames import Coded, Encoded, Failure, Frame
from gpuenc.plugins import GONE_CODES, Limits, Verdict
from gpuenc.syntaxes import keeps_jpeg
from gpuenc.verification import compare, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gpuenc.coding import Coding
    from gpuenc.frames import FrameFormat
    from gpuenc.plugins import BatchEncoder, Plugin
    from gpuenc.targets import Target
    from gpuenc.verification import Judge, Verify

LOGGER = logging.getLogger(__name__)

# The frame's own fault, whichever plug-in noticed: another one would have to cut or guess.
FINAL_CODES = frozenset(
    {InvalidPixels.code, FormatNotAllowed.code, ValuesOutsideBitsStored.code, DecodeFailed.code, "truncated"}
    | {"other-device"}
)
# For batches that no plug-in will encode, because none can be opened.
_NO_LIMITS = Limits(frames=1, bytes=1, lanes=1, peak_factor=1.0)


@dataclass(frozen=True, slots=True)
class Run:
    """What all lanes of one run share.

    Parameters
    ----------
    plugins : tuple of Plugin
        In the order in which they are tried.
    target : Target
        What frames become.
    verify : Verify
        What is decoded again and compared.
    decode : callable
        Turns a frame with `Coded` pixels into one with native cells; raises `DecodeFailed`.
    seconds : dict of str to float
        Time that the lanes have spent on ``"decode"``, of compressed sources, on ``"encode"`` and on ``"verify"``.
    """

    plugins: tuple[Plugin, ...]
    target: Target
    verify: Verify
    decode: Callable[[Frame], Frame]
    seconds: dict[str, float] = field(default_factory=dict)
    _adding: threading.Lock = field(default_factory=threading.Lock)
    # By label, of the plug-ins that some lane has opened.
    _limits: dict[str, Limits] = field(default_factory=dict)

    @property
    def limits(self) -> Limits:
        """What the first plug-in wants that could be opened and is still alive: it changes when a device is lost."""
        known = (
            self._limits[plugin.label] for plugin in self.plugins if plugin.label in self._limits and plugin.alive()
        )
        return next(known, next(iter(list(self._limits.values())), _NO_LIMITS))

    @property
    def on_gpu(self) -> bool:
        """Whether some plug-in for GPUs could be opened and is still alive."""
        return any(
            plugin.device == "gpu" and plugin.label in self._limits and plugin.alive() for plugin in self.plugins
        )

    def peak_bytes(self, batch: Sequence[Frame]) -> int:
        """Return the memory that a batch takes at its peak, with the plug-in it is made for or those behind it.

        Those take the frames that it fails, one after the other, in batches that were not made for them.
        """
        sizes = [frame.format.frame_bytes for frame in batch]
        factor = self.limits.peak_factor
        worst = max((limits.peak_factor for limits in list(self._limits.values())), default=factor)
        behind = max(sizes) * worst + 2 * sum(sizes) if worst > factor else 0
        return int(max(sum(sizes) * factor, behind))

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time until the context ends."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._adding:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun

    def opened(self, label: str, limits: Limits) -> None:
        """Note what a plug-in wants that was opened."""
        self._limits[label] = limits


class Chain:
    """One encoder of each plug-in, opened when first needed; used by one thread at a time.

    Parameters
    ----------
    run : Run
        What it shares with the run's other lanes.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._target = run, run.target
        self._encoders: dict[str, BatchEncoder] = {}
        self._unopened: dict[str, str] = {}

    def open_first(self) -> None:
        """Open plug-ins in their order, up to one that can be, so that the run knows its limits."""
        for plugin in self._run.plugins:
            if self._opened(plugin) is not None:
                return

    def close(self) -> None:
        """Close all encoders."""
        for label in list(self._encoders):
            self._let_go(label)

    def _let_go(self, label: str) -> None:
        try:
            self._encoders.pop(label).close()
        except Exception:
            LOGGER.exception("plug-in '%s' failed to close", label)

    def encode(self, batch: Sequence[Frame]) -> list[Encoded | Failure]:
        """Return one result per frame of a homogeneous batch, in order."""
        results: dict[int, Encoded | Failure] = {}
        # Codestreams that one description covers may still decode to cells of several formats.
        formats: dict[FrameFormat, dict[int, Frame]] = {}
        for place, frame in enumerate(batch):
            try:
                native = self._native(frame)
                formats.setdefault(native.format, {})[place] = native
            except GpuencError as error:
                results[place] = Failure(frame.ref, error.code, "decoder", str(error))
        for fmt, frames in formats.items():
            results |= self._encode_cells(fmt, frames)
        return [results[place] for place in range(len(batch))]

    def _encode_cells(self, fmt: FrameFormat, frames: Mapping[int, Frame]) -> dict[int, Encoded | Failure]:
        """Return one result per frame of native cells of one format."""
        try:
            kept = any(_stays_coded(frame.pixels, self._target) for frame in frames.values())
            wanted = coding(self._target, fmt, keeps_jpeg=kept)
        except InvalidPixels as error:
            return {place: Failure(frame.ref, error.code, "", str(error)) for place, frame in frames.items()}
        results: dict[int, Encoded | Failure] = {}
        refused: dict[int, list[Failure]] = {place: [] for place in frames}
        for plugin in self._run.plugins:
            waiting = [place for place in frames if place not in results]
            if not waiting:
                break
            for place, result in zip(waiting, self._try(plugin, [frames[i] for i in waiting], wanted), strict=True):
                if isinstance(result, Encoded):
                    results[place] = replace(result, refused=tuple(refused[place]))
                elif result.code in FINAL_CODES:
                    results[place] = result
                else:
                    refused[place].append(result)
        failed = {place: _all_failed(frame, refused[place]) for place, frame in frames.items() if place not in results}
        return results | failed

    def _native(self, frame: Frame) -> Frame:
        coded = isinstance(frame.pixels, Coded)
        if self._target.syntax.recompresses_jpeg and not (coded and _stays_coded(frame.pixels, self._target)):
            raise FormatNotAllowed(
                f"'{self._target.syntax.keyword}' ({self._target.syntax.clause}) takes frames of JPEG Baseline or JPEG "
                "Extended, and no others"
            )
        if not coded or _stays_coded(frame.pixels, self._target):
            return frame
        with self._run.timed("decode"):
            return self._run.decode(frame)

    def _opened(self, plugin: Plugin) -> BatchEncoder | None:
        """Return this lane's encoder of `plugin`; None where it cannot be opened, which is tried once."""
        if plugin.label not in self._encoders and plugin.label not in self._unopened:
            try:
                encoder = plugin.open(self._target)
                if not isinstance(encoder.limits, Limits):
                    raise TypeError(f"its limits are {type(encoder.limits).__name__}, not Limits")
                self._encoders[plugin.label] = encoder
                self._run.opened(plugin.label, encoder.limits)
            except Exception as error:
                LOGGER.exception("plug-in '%s' cannot be opened", plugin.label)
                self._unopened[plugin.label] = f"cannot be opened: {_line(error)}"
        return self._encoders.get(plugin.label)

    def _try(self, plugin: Plugin, frames: list[Frame], wanted: Coding) -> list[Encoded | Failure]:
        """Let one plug-in encode `frames`, and believe nothing it says before it is checked."""
        encoder = self._opened(plugin)
        if encoder is None:
            return _broken(plugin, frames, self._unopened[plugin.label])
        try:
            with self._run.timed("encode"):
                results: object = encoder.encode(frames)
        except Exception as error:  # a third party's code: whatever it raises must not lose a frame
            LOGGER.exception("plug-in '%s' failed", plugin.label)
            return _broken(plugin, frames, _line(error))
        if not isinstance(results, list | tuple):
            return _broken(plugin, frames, f"returned {type(results).__name__}, not a list of results")
        if len(results) != len(frames):
            return _broken(plugin, frames, f"returned {len(results)} results for {len(frames)} frames")
        checked = [self._checked(plugin, frame, got, wanted) for frame, got in zip(frames, results, strict=True)]
        if plugin.alive() and all(isinstance(one, Failure) and one.code in GONE_CODES for one in checked):
            self._let_go(plugin.label)  # its device is lost, and others are left: the next batch opens another
            return checked
        by = judge(plugin, wanted, self._run.verify, can_verify=hasattr(encoder, "verify"))
        verified = checked
        if by != "nobody":
            with self._run.timed("verify"):
                verified = self._verified(plugin, encoder, frames, checked, wanted, by)
        return [self._padded(plugin, frame, result) for frame, result in zip(frames, verified, strict=True)]

    def _checked(self, plugin: Plugin, frame: Frame, result: object, wanted: Coding) -> Encoded | Failure:
        """Return a result whose codestream's own markers say what was asked for, and nothing that it claims besides."""
        if isinstance(result, Failure) and all(isinstance(x, str) for x in (result.code, result.plugin, result.reason)):
            return replace(result, ref=frame.ref)
        if not isinstance(result, Encoded) or not isinstance(result.codestream, bytes):
            what = f"{type(result).__name__} whose fields have wrong types"
            what = what if isinstance(result, Encoded | Failure) else type(result).__name__
            return _broken(plugin, [frame], f"returned {what} for a frame")[0]
        try:
            check(result.codestream, self._target.syntax, wanted)
        except Exception as error:  # noqa: BLE001 - also what the checks did not foresee in a codestream
            return _refuted(plugin, frame, error)
        return Encoded(frame.ref, result.codestream, plugin.label)

    def _verified(
        self,
        plugin: Plugin,
        encoder: BatchEncoder,
        frames: Sequence[Frame],
        checked: list[Encoded | Failure],
        wanted: Coding,
        by: Judge,
    ) -> list[Encoded | Failure]:
        """Return the results with every codestream compared: by the device, and where that cannot tell, by the CPU."""
        results = list(checked)
        places = [place for place, result in enumerate(checked) if isinstance(result, Encoded)]
        verdicts = self._verdicts(plugin, encoder, [frames[i] for i in places], [checked[i] for i in places], by)
        for place, verdict in zip(places, verdicts, strict=True):
            frame, result = frames[place], checked[place]
            assert isinstance(result, Encoded)
            if verdict is None:
                try:
                    crc32 = compare(result.codestream, frame, self._target, wanted, independently=by == "independent")
                except Exception as error:  # noqa: BLE001 - whatever a decoder makes of a codestream
                    results[place] = _refuted(plugin, frame, error)
                    continue
            elif verdict.differing:
                reason = f"{verdict.differing} samples do not come back, says the device"
                results[place] = Failure(frame.ref, "verify-mismatch", plugin.label, reason)
                continue
            else:
                crc32 = verdict.crc32
            results[place] = replace(result, verified=True, crc32=crc32)
        return results

    def _verdicts(
        self,
        plugin: Plugin,
        encoder: BatchEncoder,
        frames: list[Frame],
        results: list[Encoded | Failure],
        by: Judge,
    ) -> list[Verdict | None]:
        """Return what the device says of each codestream; None where it is not asked or does not know."""
        unknown: list[Verdict | None] = [None] * len(frames)
        verify = getattr(encoder, "verify", None)
        if by != "device" or verify is None or not frames:
            return unknown
        codestreams = [result.codestream for result in results if isinstance(result, Encoded)]
        try:
            said: object = verify(frames, codestreams)
        except Exception:
            LOGGER.exception("plug-in '%s' failed to verify", plugin.label)
            return unknown
        if not isinstance(said, list) or len(said) != len(frames):
            LOGGER.warning("plug-in '%s' does not say whether its codestreams are right", plugin.label)
            return unknown
        for frame, one in zip(frames, said, strict=True):
            if isinstance(one, Failure):
                LOGGER.debug("frame %d is compared by the CPU: %s", frame.ref.index, one.reason)
        return [one if isinstance(one, Verdict) else None for one in said]

    def _padded(self, plugin: Plugin, frame: Frame, result: Encoded | Failure) -> Encoded | Failure:
        if isinstance(result, Failure) or self._target.syntax.family != "jpeg-ls":
            return result
        try:
            return replace(result, codestream=pad_even(result.codestream, "jpeg-ls"))
        except Exception as error:  # noqa: BLE001 - what nobody foresaw in a codestream
            return _refuted(plugin, frame, error)


def _refuted(plugin: Plugin, frame: Frame, error: Exception) -> Failure:
    """Return what an error of the checks says of a codestream."""
    if isinstance(error, DecodeFailed):
        # Not the frame's fault but its codestream's: the next plug-in may do better.
        return Failure(frame.ref, "undecodable", plugin.label, f"its codestream cannot be decoded: {error}")
    if isinstance(error, GpuencError):
        return Failure(frame.ref, error.code, plugin.label, str(error))
    LOGGER.error("the codestream of plug-in '%s' cannot be checked", plugin.label, exc_info=error)
    return Failure(frame.ref, "plugin-error", plugin.label, f"its codestream cannot be checked: {_line(error)}")


def _broken(plugin: Plugin, frames: Sequence[Frame], reason: str) -> list[Encoded | Failure]:
    return [Failure(frame.ref, "plugin-error", plugin.label, reason) for frame in frames]


def _stays_coded(pixels: object, target: Target) -> bool:
    """Whether these are a JPEG codestream that is itself re-compressed, or restored (PS3.5 A.4.12)."""
    return isinstance(pixels, Coded) and keeps_jpeg(pixels.syntax, target.syntax)


def _all_failed(frame: Frame, refused: Sequence[Failure]) -> Failure:
    said = "\n  ".join(f"{failure.plugin}: {failure.reason}" for failure in refused)
    code = refused[0].code if len(refused) == 1 else EncodeFailed.code
    return Failure(frame.ref, code, ", ".join(failure.plugin for failure in refused), said)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if not isinstance(error, GpuencError) else text
