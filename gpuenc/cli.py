"""The `gpuenc` command: arguments in, exit codes out; what it does lives in `archive` and `encoder`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gpuenc._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.archive.report import ReportFile
    from gpuenc.targets import Target

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)


class Exit(IntEnum):
    """Exit codes, part of the interface."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NO_INPUT = 3
    ENVIRONMENT = 4
    INTERRUPTED = 130


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


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Compress DICOM pixel data in bulk."""
    if version:
        console.print(f"gpuenc {__version__}")
        raise typer.Exit


@app.command()
def transcode(
    sources: Annotated[list[Path], typer.Argument(help="Files and folders, walked recursively.", metavar="SRC…")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the outputs; mirrors the sources.")],
    to: Annotated[str, typer.Option("--to", help="Transfer syntax: a name from `gpuenc syntaxes` or a UID.")],
    device: Annotated[Device, typer.Option(help="Where to encode.")] = Device.AUTO,
    plugin: Annotated[str, typer.Option(help="Label of the only plug-in to use.")] = "",
    jobs: Annotated[int, typer.Option(min=0, help="Files at once; 0 for one per core.")] = 0,
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
    report: Annotated[Path | None, typer.Option(help="Write one line of JSON per file here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
) -> None:
    """Re-encode files and folders of DICOM files. Sources are never changed."""
    from gpuenc.archive.job import run
    from gpuenc.archive.progress import Display
    from gpuenc.archive.transcode import Job
    from gpuenc.engine import usable_cores

    target = _target(to, quality, psnr, ratio, near, lossless)
    missing = [source for source in sources if not source.exists()]
    for source in missing:
        errors.print(f"gpuenc: no such file or folder: {source}", markup=False)
    if missing:
        raise typer.Exit(Exit.NO_INPUT)
    _demand_device(device)
    _demand_plugin(target, plugin)
    _demand_destination(output, dry_run)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _report(report) as report_file:
        job = Job(
            sources=tuple(sources),
            destination=output,
            target=target,
            plugin=plugin,
            jobs=jobs or usable_cores(),
            verify=verify is Verify.ALL,
            keep_lossy=lossy_sources is LossySources.KEEP,
            whole_cells=out_of_range is OutOfRange.WHOLE_CELLS,
            extended_offsets=extended_offsets,
            overwrite=overwrite,
            dry_run=dry_run,
        )
        summary = run(job, Display(console, errors, report_file))
    if summary.interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    if summary.planned == 0:
        errors.print("gpuenc: the sources hold no files")
        raise typer.Exit(Exit.NO_INPUT)
    raise typer.Exit(Exit.SOME_FAILED if summary.files["failed"] else Exit.OK)


@app.command()
def syntaxes() -> None:
    """Show what can be encoded here, and by which plug-in."""
    from gpuenc.encoder import get_encoder
    from gpuenc.syntaxes import TABLE

    table = Table("name", "UID", "lossless", "plug-ins here, in order", "could be added")
    for syntax in TABLE:
        lossless = {"never": "yes", "option": "yes or no", "always": "no"}[syntax.loss]
        if syntax.encapsulated:
            encoder = get_encoder(syntax.uid)
            here = ", ".join(encoder.labels) or "none"
            table.add_row(syntax.name, syntax.uid, lossless, here, "; ".join(encoder.missing_dependencies))
        else:
            table.add_row(syntax.name, syntax.uid, lossless, "uncompressed", "")
    console.print(table)


@app.command()
def doctor() -> None:
    """Show what is installed and found, and what is missing."""
    from gpuenc.doctor import findings

    table = Table("what", "found")
    for what, found in findings():
        table.add_row(what, found)
    console.print(table)


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
        errors.print(f"gpuenc: {error}", markup=False)
        raise typer.Exit(Exit.USAGE) from None


def _demand_plugin(target: Target, label: str) -> None:
    """Stop with 2 for a label that is not there, with 4 where nothing can encode."""
    from gpuenc.encoder import chain

    try:
        chain(target.syntax, label)
    except ValueError as error:
        errors.print(f"gpuenc: {error}", markup=False)
        raise typer.Exit(Exit.USAGE) from None
    except RuntimeError as error:
        errors.print(f"gpuenc: {error}", markup=False)
        raise typer.Exit(Exit.ENVIRONMENT) from None


def _demand_device(device: Device) -> None:
    if device is Device.GPU:
        errors.print("gpuenc: --device gpu: this version has no GPU plug-in; use --device auto or cpu")
        raise typer.Exit(Exit.ENVIRONMENT)


def _demand_destination(output: Path, dry_run: bool) -> None:
    if output.exists() and not output.is_dir():
        errors.print(f"gpuenc: {output} is not a folder", markup=False)
        raise typer.Exit(Exit.USAGE)
    if dry_run:
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        errors.print(f"gpuenc: cannot make {output}: {error.strerror}", markup=False)
        raise typer.Exit(Exit.ENVIRONMENT) from None
    if not os.access(output, os.W_OK | os.X_OK):
        errors.print(f"gpuenc: cannot write to {output}", markup=False)
        raise typer.Exit(Exit.ENVIRONMENT)


@contextlib.contextmanager
def _report(path: Path | None) -> Iterator[ReportFile | None]:
    from gpuenc.archive.report import ReportFile

    if path is None:
        yield None
        return
    try:
        stream = path.open("w", encoding="utf-8")
    except OSError as error:
        errors.print(f"gpuenc: cannot write the report {path}: {error.strerror}", markup=False)
        raise typer.Exit(Exit.ENVIRONMENT) from None
    with stream:
        yield ReportFile(stream)


def main() -> None:
    """Run the command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output is gone (`gpuenc syntaxes | head`): nothing is left to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)
