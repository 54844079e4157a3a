"""`gpuenc shards`: archives as WebDataset shards."""

from __future__ import annotations

import os
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuenc.cli import options as given
from gpuenc.cli.jobs import target_of
from gpuenc.cli.terminal import Exit, console, errors, give_up, stop_on_signals, told

if TYPE_CHECKING:
    from gpuenc.pipelines.shard_sources import Encoding
    from gpuenc.pipelines.webdataset import Summary


class Uids(StrEnum):
    """How UIDs are said in a sample's JSON."""

    HASHED = "hashed"
    PLAIN = "plain"
    NONE = "none"


# Of more, only the number is printed; the index has them all.
_MOST_SHOWN = 20


def shards(
    sources: given.LocalSources = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for the shards.", parser=given.local)
    ] = None,
    to: given.To = "",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Most samples of a shard.")] = 10_000,
    size: Annotated[int, typer.Option("--size", min=1, help="Most MB of a shard.")] = 1000,
    uids: Annotated[Uids, typer.Option("--uids", help="UIDs in the JSON: hashed, as they are, or none.")] = Uids.HASHED,
    device: given.WhichDevice = "auto",
    device_memory: given.DeviceMemory = 0,
    plugin: given.PluginLabel = "",
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Most threads; 0 for one per core.")] = 0,
    quality: given.Quality = None,
    psnr: given.Psnr = None,
    ratio: given.Ratio = None,
    near: given.Near = 0,
    lossless: given.Lossless = False,
    verify: Annotated[
        str, typer.Option("--verify", metavar="[all|independent|none]", help="Decode lossless samples and compare.")
    ] = "all",
    resume: given.Resume = False,
) -> None:
    """Write the frames of DICOM files as WebDataset shards: a codestream and JSON without patient data each."""
    with stop_on_signals() as stop:
        from gpuenc.pipelines.shard_sources import Encoding
        from gpuenc.pipelines.webdataset import ShardJob, write_shards
        from gpuenc.verification import verify_of

        target = target_of(to, quality, psnr, ratio, near, lossless)
        if not sources or output is None:
            give_up("no sources: name files or folders" if not sources else "--output is missing", Exit.USAGE)
        for source in sources:
            if not source.exists():
                give_up(f"no such file or folder: {source}", Exit.NO_INPUT)
            if output.exists() and source.is_dir() and source.samefile(output):
                give_up(f"{output} is a source: choose another --output", Exit.USAGE)
        if output.exists() and not output.is_dir():
            give_up(f"{output} is not a folder", Exit.USAGE)
        if verify not in ("all", "independent", "none"):
            give_up(f"--verify is all, independent or none, not '{verify}'", Exit.USAGE)
        encoding = Encoding(
            target,
            plugin=plugin,
            verify=verify_of(verify),
            device=device,
            device_memory_bytes=device_memory * 10**6 or None,
            threads=jobs or None,
            uids=uids.value,
        )
        job = ShardJob(tuple(sources), output, encoding, shard_samples=samples, shard_bytes=size * 10**6, resume=resume)
        job = replace(job, isolated=os.name == "posix")
        _demand_plugin(encoding)
        with told():
            summary = write_shards(job, stop)
        _tell(summary, output)


def _demand_plugin(encoding: Encoding) -> None:
    """Stop with 2 for a label that is not there, with 4 where nothing can encode or a GPU is missing."""
    from gpuenc.registry import chain

    try:
        chain(encoding.target.syntax, encoding.plugin, device=encoding.device)
    except ValueError as error:
        give_up(str(error), Exit.USAGE)
    except RuntimeError as error:
        give_up(str(error), Exit.ENVIRONMENT)


def _tell(summary: Summary, output: Path) -> None:
    from gpuenc.archive.progress import counted, size_text, visible

    for trouble in summary.failed[:_MOST_SHOWN]:
        where = summary.paths[trouble.file]
        frame = "" if trouble.frame is None else f", frame {trouble.frame}"
        errors.print(f"gpuenc: {visible(f'{where}{frame}: {trouble.code}: {trouble.message}')}")
    if len(summary.failed) > _MOST_SHOWN:
        errors.print(f"gpuenc: and {len(summary.failed) - _MOST_SHOWN} more")
    size = sum(shard.bytes for shard in summary.shards)
    skipped = len(summary.troubles) - len(summary.failed)
    found = f"{counted(summary.samples, 'sample')} of {counted(len(summary.paths), 'file')}"
    shards = f"{counted(len(summary.shards), 'shard')}, {size_text(size)}, in {output}"
    console.print(visible(f"{found} in {shards}; {skipped} skipped, {len(summary.failed)} failed"))
    if summary.interrupted:
        errors.print("gpuenc: interrupted; the same command with --resume goes on")
        raise typer.Exit(Exit.INTERRUPTED)
    if summary.failed:
        raise typer.Exit(Exit.SOME_FAILED)
    if not summary.samples:
        give_up("no frames were found", Exit.NO_INPUT)
