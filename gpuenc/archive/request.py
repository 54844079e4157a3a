"""What a job over many files was asked for."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gpuenc.archive.addresses import is_remote, text_of
from gpuenc.archive.budget import ByteBudget, default_bytes
from gpuenc.syntaxes import TABLE, find
from gpuenc.targets import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuenc.errors import GpuencError
    from gpuenc.plugins import Plugin
    from gpuenc.verification import Verify

_NAMES = frozenset(syntax.name for syntax in TABLE)
# What is not wrong with a file, but cannot be encoded: the target does not hold such an image, or nothing reads it.
UNSUPPORTED = frozenset({"format-not-allowed", "unknown-syntax"})


@dataclass(frozen=True, slots=True)
class OnCluster:
    """Which cluster does a job, and what is asked for of each of its workers: 0 for what suits its cores and memory.

    Parameters
    ----------
    address : str
        A Dask scheduler's, such as ``"tcp://10.0.0.1:8786"``; ``"local"`` or ``"local:4"`` for one that is started on
        this machine, with so many workers.
    jobs, workers, memory_bytes : int
        Files at once; processes that share them; memory for the frames in work.
    """

    address: str
    jobs: int = 0
    workers: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """What `gpuenc transcode` was asked for.

    Parameters
    ----------
    sources : tuple of Path
        Files and folders that exist, and addresses of objects (`archive/addresses.py`).
    destination : Path
        Folder of the outputs, or an address.
    target : Target
        What frames become.
    plugin : str
        Label of the only plug-in to use; empty for all.
    device : {'auto', 'fastest', 'cpu', 'gpu'} or int
        As for `Encoder.encode`.
    device_memory_bytes : int, optional
        As for `Encoder.encode`.
    jobs : int
        Files in work at once.
    lanes : int, optional
        Most threads for the frames of one large file; by default one per usable core.
    verify : {'all', 'independent', 'none'}
        Decode lossless outputs again, and compare every sample; see `gpuenc.engine.encode_frames`.
    verify_share : float
        Of how many files, from 0 to 1; the same ones whenever the job is run.
    keep_lossy : bool
        Copy files that are lossy already instead of encoding them again.
    whole_cells : bool
        Encode files with samples outside Bits Stored at the precision of Bits Allocated, instead of copying them.
    keep_unsupported : bool
        Copy files byte for byte whose format the target does not take, or whose transfer syntax cannot be read, instead
        of having them fail.
    extended_offsets, overwrite, dry_run : bool
        Always write an Extended Offset Table; replace outputs; read headers only and write nothing.
    report : Path, optional
        The report that is being written, which is no source.
    budget : ByteBudget
        Memory that all files in work in one process share.
    plugins : tuple of Plugin
        What encodes, instead of what `plugin` and `device` choose for each file anew: plug-ins that all files of one
        process share, such as those of a `gpuenc.gathering.Gathering`. Whoever made them closes them.
    workers : int
        Processes to share the files out to; 0 for threads of this process.
    journal : Path, optional
        Where to write down what was done; see `archive/journal.py`.
    resume : bool
        Go on with the job that the journal tells of.
    durability : {'file', 'shard', 'none'}
        What is on the disk before an output counts as done: itself; a whole group of outputs, of which none has its
        name before; or nothing.
    reserve_bytes : int
        End the job before less than this is left in the destination.
    in_place : bool
        Outputs replace their sources; `destination` is where the journal lies.
    backup : Path, optional
        Where replaced sources are kept.
    manifest : str
        Digest of the manifest that the files come from, if they do.
    token : str
        Twelve hexadecimal digits of the run, which its temporary files have in their names.
    cluster : OnCluster, optional
        Who does the files, instead of `workers`, and how many at once, instead of `jobs`.
    scratch : Path, optional
        Folder for copies of what lies elsewhere while it is in work; `gpuenc.archive.elsewhere` chooses one.
    """

    sources: tuple[Path, ...]
    destination: Path
    target: Target
    plugin: str = ""
    device: str | int = "auto"
    device_memory_bytes: int | None = None
    jobs: int = 1
    lanes: int | None = None
    verify: Verify = "all"
    verify_share: float = 1.0
    keep_lossy: bool = True
    whole_cells: bool = False
    keep_unsupported: bool = False
    extended_offsets: bool = False
    overwrite: bool = False
    dry_run: bool = False
    report: Path | None = None
    budget: ByteBudget = field(default_factory=lambda: ByteBudget(default_bytes()), compare=False)
    plugins: tuple[Plugin, ...] = field(default=(), compare=False)
    workers: int = 0
    journal: Path | None = None
    resume: bool = False
    durability: str = "file"
    reserve_bytes: int = 0
    in_place: bool = False
    backup: Path | None = None
    manifest: str = ""
    token: str = field(default="", compare=False)
    cluster: OnCluster | None = None
    scratch: Path | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether a source or the destination is no place of this machine."""
        return is_remote(self.destination) or any(map(is_remote, self.sources))

    def chooses(self, path: str) -> bool:
        """Whether a file is among those that are verified, where not all are."""
        return self.verify_share >= 1 or zlib.crc32(os.fsencode(path)) < self.verify_share * (1 << 32)

    def keeps(self, code: str) -> bool:
        """Whether a file that cannot be encoded, with this code, is copied instead of failing."""
        return self.keep_unsupported and code in UNSUPPORTED

    def absolute(self) -> Self:
        """Return the same job with paths that mean the same wherever it is resumed."""
        return replace(
            self,
            sources=tuple(_absolute(source) for source in self.sources),
            destination=_absolute(self.destination),
            report=self.report and _absolute(self.report),
            journal=self.journal and _absolute(self.journal),
            backup=self.backup and _absolute(self.backup),
        )

    def about(self) -> dict[str, str]:
        """Return what an interrupted job and the one that goes on with it must have in common."""
        found = {
            "sources": ", ".join(text_of(_absolute(source)) for source in self.sources),
            "output": text_of(_absolute(self.destination)),
            "target": _described(self.target),
            "--plugin": self.plugin,
            "--verify": self.verify if self.verify_share >= 1 else f"sample={self.verify_share:.6%}",
            "--lossy-sources": "keep" if self.keep_lossy else "encode",
            "--out-of-range": "whole-cells" if self.whole_cells else "keep",
            "--unsupported": "keep" if self.keep_unsupported else "fail",
            "--extended-offsets": str(self.extended_offsets),
            "--in-place": str(self.in_place),
        } | ({"--manifest": self.manifest} if self.manifest else {})
        # Paths may hold bytes that are no text.
        return {name: value.encode("utf-8", "backslashreplace").decode() for name, value in found.items()}


def failure_text(error: GpuencError) -> str:
    """Return why a file fails, in one line, and which option would have it copied."""
    advice = "or have such files copied as they are with --unsupported keep" if error.code in UNSUPPORTED else ""
    return "; ".join(filter(None, (" ".join(str(error).split()), advice)))


# What journals of earlier versions do not say, since there was nothing to choose.
_ALWAYS_BEFORE = {"--unsupported": "fail"}


def asked_otherwise(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in the words of the command line what a job was asked for and one that goes on with it is not.

    Parameters
    ----------
    before, now : mapping of str to str
        `Job.about` of the two; of the earlier one perhaps by an earlier version.
    """
    for name, value in now.items():
        earlier = before.get(name, _ALWAYS_BEFORE.get(name, ""))
        if earlier != value:
            said = _said(name, earlier, value)
            return f"the job to resume was asked for {said}: go on with that, or choose another output"
    return ""


def _said(name: str, earlier: str, now: str) -> str:
    if name == "--manifest":
        return "what another manifest says" if earlier else "no --manifest"
    if name == "target":
        return f"{_as_options(earlier)}, not {_as_options(now)}"
    if {earlier, now} <= {"True", "False"}:
        return f"with {name}, not without it" if earlier == "True" else f"without {name}, not with it"
    if not earlier or not now:  # a plug-in, which need not be chosen
        return f"{name} {earlier}, not without it" if earlier else f"no {name}, not {now}"
    return f"{name} {earlier}, not {now}"


def _as_options(described: str) -> str:
    """Return what `_described` says as options: ``"--to jpeg2000 --psnr 40"``."""
    name, _, rest = described.partition(" ")
    options = [f"--to {name}"]
    for option, value in re.findall(r"(\w+)=(\([^)]*\)|\S+)", rest):
        if option != "lossless":
            numbers = [f"{float(number):g}" for number in re.findall(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", value)]
            options.append(f"--{option} {' '.join(numbers)}")
        elif name in _NAMES and find(name).loss == "option":  # others are lossless without being asked
            options.append("--lossless")
    return " ".join(options)


def _absolute(path: Path) -> Path:
    if is_remote(path):
        return path
    # ".." after a link is not the folder before it, so only what is really there can tell what that means.
    return Path(os.path.realpath(path)) if ".." in path.parts else path.absolute()


def _described(target: Target) -> str:
    options = {
        "quality": target.quality,
        "psnr": target.psnrs,
        "ratio": target.ratios,
        "near": target.near,
        "lossless": target.lossless,
    }
    return " ".join([target.syntax.name, *(f"{name}={value}" for name, value in options.items() if value)])
