"""What a verification found, file by file, and in sum. Holds paths, UIDs and numbers; never patient data."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

from gpuenc.errors import GpuencError

Verdict = Literal["equal", "lossy", "differs", "missing", "extra", "unreadable", "left-out"]
VERDICTS: tuple[Verdict, ...] = ("equal", "lossy", "differs", "missing", "unreadable", "extra", "left-out")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be said of one file.

    Parameters
    ----------
    source, output : str
        Paths; empty where there is no such file.
    verdict : {'equal', 'lossy', 'differs', 'missing', 'extra', 'unreadable', 'left-out'}
        Samples and elements are equal, or all bytes are; samples differ as a lossy output says of itself; something
        differs; there is no output; there is no source; one of the two cannot be read; no image, and left out.
    reason : str
        For what cannot be read or was left out, a stable code (see `gpuenc.errors`).
    message : str
        In one line, for people. No patient data.
    identical : bool
        Equal byte for byte.
    source_syntax, output_syntax : str
        Transfer Syntax UIDs, where they were read.
    frames : int
        Frames decoded and compared.
    differing_frames, differing_samples : int
        How many are not equal.
    differing : dict of int to int
        The first of these frames, counted from 0, and how many of their samples.
    elements : tuple of str
        Elements that differ and must not, as ``(gggg,eeee)``.
    psnr_db : float or None
        Peak signal-to-noise ratio of a lossy output, where it can be told.
    seconds : float
        Wall time.
    """

    source: str
    output: str
    verdict: Verdict
    reason: str = ""
    message: str = ""
    identical: bool = False
    source_syntax: str = ""
    output_syntax: str = ""
    frames: int = 0
    differing_frames: int = 0
    differing_samples: int = 0
    differing: dict[int, int] = field(default_factory=dict)
    elements: tuple[str, ...] = ()
    psnr_db: float | None = None
    seconds: float = 0.0

    def as_json(self) -> str:
        """Return the finding as one line of JSON; names that are no UTF-8 as `Record.as_json` has them."""
        values = asdict(self)
        values["seconds"] = round(self.seconds, 6)
        return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


@dataclass(slots=True)
class Verified:
    """Totals of a verification."""

    files: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    identical: int = 0
    frames: int = 0
    seconds: float = 0.0
    planned: int = 0
    interrupted: bool = False

    def add(self, finding: Finding) -> None:
        """Count one file."""
        self.files[finding.verdict] += 1
        if finding.reason:
            self.reasons[finding.verdict, finding.reason] += 1
        self.identical += finding.identical
        self.frames += finding.frames

    def good(self, *, allow_lossy: bool = False) -> bool:
        """Return whether every file of the source is in the output as it was, but for those that are no images.

        Parameters
        ----------
        allow_lossy : bool
            Outputs that say themselves that they are lossy are as they should be.
        """
        bad = {"differs", "missing", "unreadable"} | (set() if allow_lossy else {"lossy"})
        return not self.interrupted and not any(self.files[verdict] for verdict in bad)


class VerdictWatcher(Protocol):
    """Is told what is found, from the thread that verifies."""

    def start(self, files: int) -> None:
        """So many files are to be compared."""

    def done(self, finding: Finding) -> None:
        """One file has its verdict."""

    def finish(self, verified: Verified) -> None:
        """All is over."""


class Stopped(Exception):
    """The verification was told to stop."""


def line(error: BaseException) -> str:
    """Return what happened in one line, without what a file may hold."""
    if isinstance(error, GpuencError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"internal error: {type(error).__name__}"
