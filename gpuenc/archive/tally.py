"""What was encoded of a file so far, and where the time went."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpuenc.frames import Encoded, Frame


def timed_decoder(decode: Callable[[Frame], Frame], seconds: dict[str, float]) -> Callable[[Frame], Frame]:
    """Return a decoder that adds its time to a stage of its own; for one thread."""

    def timed(frame: Frame) -> Frame:
        begun = time.perf_counter()
        try:
            return decode(frame)
        finally:
            seconds["decode"] = seconds.get("decode", 0.0) + time.perf_counter() - begun

    return timed


@dataclass(slots=True)
class Tally:
    """What was encoded of a file so far, and where the time went."""

    plugins: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    crc32: list[str] = field(default_factory=list)
    verified: int = 0
    encoded_bytes: int = 0

    def add(self, result: Encoded) -> None:
        """Count one frame."""
        self.encoded_bytes += len(result.codestream)
        self.verified += result.verified
        self.plugins[result.plugin] += 1
        self.fallbacks.update(f"{failure.plugin}: {failure.code}" for failure in result.refused)
        if result.crc32 is not None:
            self.crc32.append(f"{result.crc32:08x}")

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time until the context ends."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun

    def stages(self, seconds: float) -> dict[str, float]:
        """Return the time of each stage; what is left of the file's time is counted as reading."""
        read = max(0.0, seconds - sum(self.seconds.values()))
        return {stage: round(spent, 6) for stage, spent in {"read": read, **self.seconds}.items()}
