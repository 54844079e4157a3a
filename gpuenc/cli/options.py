"""Options that several commands share: their names, their values, and what they are for."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class LossySources(StrEnum):
    """What happens to files whose pixels already are lossy."""

    KEEP = "keep"
    ENCODE = "encode"


class OutOfRange(StrEnum):
    """What happens to files with samples that do not fit Bits Stored."""

    KEEP = "keep"
    WHOLE_CELLS = "whole-cells"


class Unsupported(StrEnum):
    """What happens to files that cannot be encoded although nothing is wrong with them."""

    FAIL = "fail"
    KEEP = "keep"


class Durability(StrEnum):
    """When an output counts as done."""

    FILE = "file"
    SHARD = "shard"
    NONE = "none"


def _place(text: str) -> Path:
    from gpuenc.archive.addresses import place
    from gpuenc.errors import InvalidOption

    try:
        return place(text)
    except InvalidOption as error:
        raise typer.BadParameter(str(error)) from None


def local(text: str) -> Path:
    """Return the path of this machine that an argument means; an address is none."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text)
    if scheme and scheme[0].lower() != "file://":
        # The rest may hold what must not be told.
        raise typer.BadParameter(f"a file or folder of this machine is wanted here, not an address: {scheme[0]}…")
    return _place(text)


def _server(text: str) -> Path:
    from gpuenc.archive.addresses import server
    from gpuenc.errors import InvalidOption

    try:
        return server(text)
    except InvalidOption as error:
        raise typer.BadParameter(str(error)) from None


Sources = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Files and folders, walked recursively, and s3://, gs:// and az:// prefixes.",
        metavar="SRC",
        show_default=False,
        parser=_place,
    ),
]
LocalSources = Annotated[
    list[Path] | None,
    typer.Argument(help="Files and folders, walked recursively.", metavar="SRC", show_default=False, parser=local),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="Folder for the outputs, or an s3://, gs:// or az:// prefix; mirrors the sources.",
        parser=_place,
    ),
]
Stow = Annotated[
    Path | None,
    typer.Option(
        "--stow",
        metavar="URL",
        help="Store the outputs in a DICOMweb server (STOW-RS) instead of an --output.",
        parser=_server,
    ),
]
JournalFolder = Annotated[
    Path | None,
    typer.Option(
        "--journal",
        metavar="DIR",
        help="Folder of this machine for the journal of outputs that go elsewhere, and for files in work; "
        "by default one below ~/.local/state/gpuenc.",
        parser=local,
    ),
]
To = Annotated[str, typer.Option("--to", help="Transfer syntax: a name from `gpuenc syntaxes` or a UID.")]
WhichDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="[auto|fastest|gpu|cpu|INDEX]",
        help="Where to encode: all GPUs if there are any, else the CPU; what `gpuenc bench` found faster; or one.",
    ),
]
DeviceMemory = Annotated[
    int, typer.Option("--device-memory", min=0, help="Most MB of each GPU's memory; 0 for a quarter of what is free.")
]
PluginLabel = Annotated[str, typer.Option("--plugin", help="Label of the only plug-in to use.")]
Jobs = Annotated[int, typer.Option("--jobs", min=0, help="Files at once; 0 for two more than cores.")]
WorkerCount = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that share the files, by default one for every four cores; 0 for threads of this one.",
    ),
]
OnACluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="[ADDRESS|local[:N]]",
        help="Share the files out to the workers of a Dask cluster, or of one that is started here; --jobs, --workers "
        "and --memory are then what each of them gets.",
    ),
]
Quality = Annotated[float | None, typer.Option("--quality", help="JPEG and JPEG XL quality, 1 to 100.")]
Psnr = Annotated[float | None, typer.Option("--psnr", help="JPEG 2000 and HTJ2K: signal-to-noise ratio in dB.")]
Ratio = Annotated[float | None, typer.Option("--ratio", help="JPEG 2000 and HTJ2K: compression ratio.")]
Near = Annotated[int, typer.Option("--near", help="JPEG-LS: largest error of a sample.")]
Lossless = Annotated[bool, typer.Option("--lossless", help="Lossless, where the syntax can be either.")]
WhatToVerify = Annotated[
    str,
    typer.Option(
        "--verify",
        metavar="[all|independent|sample=N%|none]",
        help="Decode lossless outputs again and compare every sample: of all files, by a decoder of another code base, "
        "or of N % of the files.",
    ),
]
WithLossySources = Annotated[
    LossySources,
    typer.Option("--lossy-sources", help="Files that are lossy already: copy them byte for byte, or encode again."),
]
WithOutOfRange = Annotated[
    OutOfRange,
    typer.Option("--out-of-range", help="Samples outside Bits Stored: copy the file, or encode all bits of each cell."),
]
WithUnsupported = Annotated[
    Unsupported,
    typer.Option(
        "--unsupported",
        help="Formats that the target does not take, and transfer syntaxes that nothing reads: fail, or copy the file.",
    ),
]
ExtendedOffsets = Annotated[bool, typer.Option("--extended-offsets", help="Always an Extended Offset Table.")]
Memory = Annotated[
    int,
    typer.Option("--memory", min=0, help="Most MB of memory for frames in work; 0 for a quarter of this machine's."),
]
WithDurability = Annotated[
    Durability,
    typer.Option(
        "--durability", help="When an output counts as done: on the disk, with a shard's others, or only written."
    ),
]
Reserve = Annotated[
    int,
    typer.Option(
        "--reserve", min=-1, help="Stop before less than so many MB are left; -1 for 1 % of the disk, at most 1000."
    ),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="PATH", help="Write one line of JSON per file here.", parser=local),
]
Metrics = Annotated[
    str,
    typer.Option(
        "--metrics", metavar="PORT|FILE", help="Numbers for Prometheus: a port, HOST:PORT, or a file named *.prom."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the job that was interrupted.")]
InPlace = Annotated[
    bool,
    typer.Option("--in-place", help="Replace the sources by their verified outputs; needs --backup or --no-backup."),
]
Backup = Annotated[
    Path | None,
    typer.Option("--backup", metavar="DIR", help="With --in-place: keep the originals in this folder.", parser=local),
]
NoBackup = Annotated[bool, typer.Option("--no-backup", help="With --in-place: keep no originals.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing but the --report.")]
ManifestToDo = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="PATH",
        help="Do what `gpuenc plan` has written here, instead of SRC, --output and --to.",
        parser=local,
    ),
]
Shard = Annotated[str, typer.Option("--shard", metavar="I/N", help="Of the manifest, only the I-th of N shares.")]
ManifestToWrite = Annotated[
    Path | None,
    typer.Option("--manifest", metavar="PATH", help="Write the files down here, in shards.", parser=local),
]
