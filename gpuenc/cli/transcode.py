"""`gpuenc transcode`: files and folders re-encoded."""

from __future__ import annotations

import contextlib
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gpuenc.cli.terminal import Exit, console, errors, give_up, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from gpuenc.archive.report import ReportFile
    from gpuenc.targets import Target


class Device(StrEnum):
    """Where to encode."""

    AUTO = "auto"
    GPU = "gpu"
    CPU = "cpu"


class Verify(StrEnum):
    """What to decode again and compare."""

    ALL = "all"
    NONE = "none"


class LossySources(StrEnum):
    """What happens to files whose pixels already are lossy."""

    KEEP = "keep"
    ENCODE = "encode"


class OutOfRange(StrEnum):
    """What happens to files with samples that do not fit Bits Stored."""

    KEEP = "keep"
    WHOLE_CELLS = "whole-cells"


def transcode(
    sources: Annotated[list[Path], typer.Argument(help="Files and folders, walked recursively.", metavar="SRC")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the outputs; mirrors the sources.")],
    to: Annotated[str, typer.Option("--to", help="Transfer syntax: a name from `gpuenc syntaxes` or a UID.")],
    device: Annotated[Device, typer.Option(help="Where to encode.")] = Device.AUTO,
    plugin: Annotated[str, typer.Option(help="Label of the only plug-in to use.")] = "",
    jobs: Annotated[int, typer.Option(min=0, help="Files at once; 0 for two more than cores.")] = 0,
    quality: Annotated[float | None, typer.Option(help="JPEG and JPEG XL quality, 1 to 100.")] = None,
    psnr: Annotated[float | None, typer.Option(help="JPEG 2000 and HTJ2K: signal-to-noise ratio in dB.")] = None,
    ratio: Annotated[float | None, typer.Option(help="JPEG 2000 and HTJ2K: compression ratio.")] = None,
    near: Annotated[int, typer.Option(help="JPEG-LS: largest error of a sample.")] = 0,
    lossless: Annotated[bool, typer.Option("--lossless", help="Lossless, where the syntax can be either.")] = False,
    verify: Annotated[
        Verify, typer.Option(help="Decode lossless outputs again and compare every sample.")
    ] = Verify.ALL,
    lossy_sources: Annotated[
        LossySources, typer.Option(help="Files that are lossy already: copy them byte for byte, or encode again.")
    ] = LossySources.KEEP,
    out_of_range: Annotated[
        OutOfRange, typer.Option(help="Samples outside Bits Stored: copy the file, or encode all bits of each cell.")
    ] = OutOfRange.KEEP,
    extended_offsets: Annotated[
        bool, typer.Option("--extended-offsets", help="Always an Extended Offset Table.")
    ] = False,
    memory: Annotated[
        int, typer.Option(min=0, help="Most MB of memory for frames in work; 0 for a quarter of this machine's.")
    ] = 0,
    report: Annotated[Path | None, typer.Option(help="Write one line of JSON per file here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
) -> None:
    """Re-encode files and folders of DICOM files. Sources are never changed."""
    with stop_on_signals() as stop:
        from gpuenc.archive.budget import ByteBudget, default_bytes
        from gpuenc.archive.job import run
        from gpuenc.archive.progress import Display
        from gpuenc.archive.request import Job
        from gpuenc.plugins import usable_cores

        target = _target(to, quality, psnr, ratio, near, lossless)
        _demand_sources(sources, output)
        _demand_plugin(target, plugin, device)
        _demand_destination(output, dry_run)
        with _report(report) as report_file:
            job = Job(
                sources=tuple(sources),
                destination=output,
                target=target,
                plugin=plugin,
                device=str(device),
                # Two more than cores: while one waits for the disk, another computes.
                jobs=jobs or usable_cores() + 2,
                lanes=jobs or None,
                verify=verify is Verify.ALL,
                keep_lossy=lossy_sources is LossySources.KEEP,
                whole_cells=out_of_range is OutOfRange.WHOLE_CELLS,
                extended_offsets=extended_offsets,
                overwrite=overwrite,
                dry_run=dry_run,
                report=report,
                budget=ByteBudget(memory * 10**6 or default_bytes()),
            )
            summary = run(job, Display(console, errors, report_file, dry_run=dry_run), stop)
        if summary.interrupted:
            raise typer.Exit(Exit.INTERRUPTED)
        if report_file and report_file.problem:
            give_up(f"the report {report} is not complete: {report_file.problem}", Exit.ENVIRONMENT)
        if summary.planned == 0:
            give_up("the sources hold no files", Exit.NO_INPUT)
        raise typer.Exit(Exit.SOME_FAILED if summary.files["failed"] else Exit.OK)


def _target(
    to: str, quality: float | None, psnr: float | None, ratio: float | None, near: int, lossless: bool
) -> Target:
    from gpuenc.errors import GpuencError
    from gpuenc.syntaxes import find
    from gpuenc.targets import target

    try:
        return target(
            find(to),
            quality=quality,
            psnrs=() if psnr is None else (psnr,),
            ratios=() if ratio is None else (ratio,),
            near=near,
            lossless=lossless or None,
        )
    except GpuencError as error:
        give_up(str(error), Exit.USAGE)


def _demand_sources(sources: list[Path], output: Path) -> None:
    missing = [source for source in sources if not os.path.exists(source)]
    for source in missing[:-1]:
        errors.print(f"gpuenc: no such file or folder: {source}")
    if missing:
        give_up(f"no such file or folder: {missing[-1]}", Exit.NO_INPUT)
    for source in sources:
        if os.path.isdir(source) and os.path.exists(output) and os.path.samefile(source, output):
            give_up(f"{output} is a source, and sources are never changed: choose another --output", Exit.USAGE)


def _demand_plugin(target: Target, label: str, device: Device) -> None:
    """Stop with 2 for a label that is not there, with 4 where nothing can encode or a GPU is missing."""
    from gpuenc.registry import chain

    if label and not target.syntax.encapsulated:
        give_up(f"{target.syntax.name} is written without a plug-in; leave out --plugin", Exit.USAGE)
    try:
        chain(target.syntax, label, device=str(device))
    except ValueError as error:
        give_up(str(error), Exit.USAGE)
    except RuntimeError as error:
        give_up(str(error), Exit.ENVIRONMENT)


def _demand_destination(output: Path, dry_run: bool) -> None:
    if os.path.lexists(output) and not os.path.isdir(output):
        give_up(f"{output} is not a folder", Exit.USAGE)
    if dry_run:
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        give_up(f"cannot make {output}: {error.strerror}", Exit.ENVIRONMENT)
    if not os.access(output, os.W_OK | os.X_OK):
        give_up(f"cannot write to {output}", Exit.ENVIRONMENT)


@contextlib.contextmanager
def _report(path: Path | None) -> Iterator[ReportFile | None]:
    from gpuenc.archive.report import ReportFile

    if path is None:
        yield None
        return
    try:
        if path.is_file():
            with path.open("rb") as before:
                if before.read(len(ReportFile.BEGINNING)) not in (b"", ReportFile.BEGINNING):
                    give_up(f"{path} exists and is no report; it is left as it is", Exit.USAGE)
        stream = path.open("wb", buffering=0)
    except OSError as error:
        give_up(f"cannot write the report {path}: {error.strerror}", Exit.ENVIRONMENT)
    with stream:
        yield ReportFile(cast("BinaryIO", stream))
