"""Whether what was measured is right: of every codestream of every round, markers read and samples compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from gpuenc.codestream import check
from gpuenc.coding import coding
from gpuenc.cpu import decoders, independent, samples
from gpuenc.errors import EncodeFailed, GpuencError
from gpuenc.frames import Encoded, Failure
from gpuenc.verification import compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuenc.frames import Frame
    from gpuenc.targets import Target

# Below this a lossy codestream is a defect, whatever was asked for.
_LEAST_PSNR_DB = 20.0
# Decoders of other code bases are slow for some syntaxes: so many frames go through them, all through our own.
_INDEPENDENT_FRAMES = 2


class Refused(EncodeFailed):
    """A plug-in did not encode a frame, and said why: there is nothing to judge."""


class Referee:
    """Judges the codestreams of one plug-in for frames; those that it has seen before cost only a digest.

    Parameters
    ----------
    frames : sequence of Frame
        What is encoded, in order.
    target : Target
        What they become.
    """

    def __init__(self, frames: Sequence[Frame], target: Target) -> None:
        self._frames, self._target = frames, target
        self._right: set[tuple[int, bytes]] = set()
        # The same frame may come several times in a round.
        self._numbers = {id(frame): number for number, frame in reversed(list(enumerate(frames)))}
        self._independently: set[int] = set()
        self.codestream_bytes: dict[int, int] = {}
        self.psnr_db: float | None = None

    @property
    def how(self) -> str:
        """How frames were verified, in a word or two."""
        if not self._target.lossless:
            return "within NEAR" if self._target.near else "decoded, PSNR"
        count = len(self._independently)
        return (
            f"all samples; {count} frames by {independent.decoder_of(self._target.syntax)}" if count else "all samples"
        )

    @property
    def ratio(self) -> float:
        """Native bytes of the frames seen, by the bytes of their codestreams."""
        native = sum(self._frames[number].format.frame_bytes for number in self.codestream_bytes)
        return native / max(1, sum(self.codestream_bytes.values()))

    def judge(self, results: Iterable[Encoded | Failure], frames: Sequence[Frame] | None = None) -> None:
        """Believe no codestream that is not right.

        Raises
        ------
        Refused
            A frame was not encoded.
        GpuencError
            Markers, or samples, are not what they should be; or results are missing.
        """
        expected, given = list(self._frames if frames is None else frames), list(results)
        if len(given) != len(expected):
            raise EncodeFailed(f"{len(given)} results for {len(expected)} frames")
        for frame, result in zip(expected, given, strict=True):
            if isinstance(result, Failure):
                wrong = result.code in ("verify-mismatch", "wrong-codestream")
                raise (EncodeFailed if wrong else Refused)(f"{result.code}: {result.reason}", code=result.code)
            self._one(frame, result.codestream)

    def _one(self, frame: Frame, codestream: bytes) -> None:
        number = self._numbers[id(frame)]
        digest = xxhash.xxh3_128_digest(codestream)
        if (number, digest) in self._right:
            return
        wanted = coding(self._target, frame.format)
        check(codestream, self._target.syntax, wanted)
        if self._target.lossless:
            compare(codestream, frame, self._target, wanted, independently=False)
            few = len(self._independently) < _INDEPENDENT_FRAMES
            if few and not independent.independent_reason(self._target.syntax, wanted):
                compare(codestream, frame, self._target, wanted, independently=True)
                self._independently.add(number)
        else:
            self._lossy(frame, codestream, wanted)
        self._right.add((number, digest))
        self.codestream_bytes[number] = len(codestream)

    def _lossy(self, frame: Frame, codestream: bytes, wanted: Any) -> None:
        expected = samples.prepare(frame.host_cells(), frame.format, wanted, bit_offset=frame.bit_offset)
        back = decoders.decode_samples(codestream, self._target.syntax, wanted)
        if back.shape != expected.shape:
            raise EncodeFailed(f"decodes to shape {back.shape}, not {expected.shape}", code="verify-mismatch")
        off = back.astype(np.float64) - expected
        if self._target.near and np.abs(off).max() > self._target.near:
            raise EncodeFailed(f"a sample is off by {np.abs(off).max():.0f}", code="verify-mismatch")
        mean = float(np.mean(off**2))
        if mean:
            psnr = 10 * float(np.log10(((1 << wanted.precision) - 1) ** 2 / mean))
            if psnr < _LEAST_PSNR_DB:
                raise EncodeFailed(f"PSNR is {psnr:.1f} dB", code="verify-mismatch")
            self.psnr_db = psnr if self.psnr_db is None else min(self.psnr_db, psnr)


def code_of(error: Exception) -> str:
    """Return the stable code of what was raised."""
    return error.code if isinstance(error, GpuencError) else "plugin-error"
