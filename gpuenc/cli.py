"""The `gpuenc` command: arguments in, exit codes out; what it does lives in `archive` and `encoder`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from enum import IntEnum, StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from gpuenc._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import BinaryIO

    from gpuenc.archive.report import ReportFile
    from gpuenc.targets import Target

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class _Console(Console):
    """Says what there is to say to nobody once its reader is gone (`gpuenc transcode … | head`), and goes on."""

    def on_broken_pipe(self) -> None:
        """Do not end the process, as rich does."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# What is shown holds names that others chose, so nothing in it is read as markup.
console = _Console(markup=False, highlight=False)
errors = _Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


class Exit(IntEnum):
    """Exit codes, part of the interface."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NO_INPUT = 3
    ENVIRONMENT = 4
    INTERRUPTED = 130


_DEVICES = "[auto|gpu|cpu|INDEX]"


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
    sources: Annotated[list[Path], typer.Argument(help="Files and folders, walked recursively.", metavar="SRC")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the outputs; mirrors the sources.")],
    to: Annotated[str, typer.Option("--to", help="Transfer syntax: a name from `gpuenc syntaxes` or a UID.")],
    device: Annotated[
        str, typer.Option(help="Where to encode: all GPUs if there are any, else the CPU; or one.", metavar=_DEVICES)
    ] = "auto",
    device_memory: Annotated[
        int, typer.Option(min=0, help="Most MB of each GPU's memory; 0 for a quarter of what is free.")
    ] = 0,
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
    with _stop_on_signals() as stop:
        from gpuenc.archive.budget import ByteBudget, default_bytes
        from gpuenc.archive.job import run
        from gpuenc.archive.progress import Display
        from gpuenc.archive.transcode import Job
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
                device=device,
                device_memory_bytes=device_memory * 10**6 or None,
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
            if summary.plugins:
                _say_why_on_cpu(target, plugin, device)
        if summary.interrupted:
            raise typer.Exit(Exit.INTERRUPTED)
        if report_file and report_file.problem:
            _give_up(f"the report {report} is not complete: {report_file.problem}", Exit.ENVIRONMENT)
        if summary.planned == 0:
            _give_up("the sources hold no files", Exit.NO_INPUT)
        raise typer.Exit(Exit.SOME_FAILED if summary.files["failed"] else Exit.OK)


@app.command()
def syntaxes() -> None:
    """Show what can be encoded here, and by which plug-ins, in their order."""
    from gpuenc.registry import get_encoder
    from gpuenc.syntaxes import TABLE

    table = Table(box=SIMPLE, pad_edge=False)
    # At 80 columns only one name has to be broken, and no UID.
    table.add_column("name", overflow="fold", min_width=25)
    table.add_column("UID", no_wrap=True)
    table.add_column("loss", no_wrap=True)
    table.add_column("plug-ins here", min_width=13)
    missing: dict[str, list[str]] = {}
    for syntax in TABLE:
        loss = "either" if syntax.loss == "option" else syntax.loss
        here = "none needed"
        if syntax.encapsulated:
            encoder = get_encoder(syntax.uid)
            here = ", ".join(encoder.labels) or "none"
            for line in encoder.missing_dependencies:
                missing.setdefault(line, []).append(syntax.name)
        table.add_row(syntax.name, syntax.uid, loss, here)
    _show(table)
    for line, names in missing.items():
        console.print(f"could be added: {line} (for {', '.join(names)})", soft_wrap=not console.is_terminal)


@app.command()
def doctor() -> None:
    """Show what is installed and found, and what is missing."""
    from gpuenc.doctor import findings

    table = Table(show_header=False, box=SIMPLE)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for what, found in findings():
        table.add_row(what, found)
    _show(table)


def _show(table: Table) -> None:
    # Whoever reads it from a pipe wants no lines broken.
    wide = console if console.is_terminal else _Console(width=240, markup=False, highlight=False)
    wide.print(table)


def _give_up(message: str, code: Exit) -> NoReturn:
    from gpuenc.archive.progress import visible

    errors.print(f"gpuenc: {visible(message)}")
    raise typer.Exit(code)


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Let the first Ctrl-C (or SIGTERM, or the terminal's end) set an event, and a second one end the process."""
    stop = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        # A signal that whoever started us ignores, as nohup does, stays ignored.
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        _give_up(str(error), Exit.USAGE)


def _demand_sources(sources: list[Path], output: Path) -> None:
    missing = [source for source in sources if not os.path.exists(source)]
    for source in missing[:-1]:
        errors.print(f"gpuenc: no such file or folder: {source}")
    if missing:
        _give_up(f"no such file or folder: {missing[-1]}", Exit.NO_INPUT)
    for source in sources:
        if os.path.isdir(source) and os.path.exists(output) and os.path.samefile(source, output):
            _give_up(f"{output} is a source, and sources are never changed: choose another --output", Exit.USAGE)


def _demand_plugin(target: Target, label: str, device: str) -> None:
    """Stop with 2 for a label that is not there, with 4 where nothing can encode or a GPU is missing."""
    from gpuenc.registry import chain

    if label and not target.syntax.encapsulated:
        _give_up(f"{target.syntax.name} is written without a plug-in; leave out --plugin", Exit.USAGE)
    try:
        chain(target.syntax, label, device=device)
    except ValueError as error:
        _give_up(str(error), Exit.USAGE)
    except RuntimeError as error:
        _give_up(str(error), Exit.ENVIRONMENT)


def _say_why_on_cpu(target: Target, label: str, device: str) -> None:
    """Say once, after the summary, that a GPU was not used, or no more, though it might have been."""
    from gpuenc.archive.progress import visible
    from gpuenc.registry import why_on_cpu

    why = why_on_cpu(target.syntax, device, label)
    if why:
        console.print(f"encoded on the CPU: {visible(why)}", soft_wrap=True)


def _demand_destination(output: Path, dry_run: bool) -> None:
    if os.path.lexists(output) and not os.path.isdir(output):
        _give_up(f"{output} is not a folder", Exit.USAGE)
    if dry_run:
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _give_up(f"cannot make {output}: {error.strerror}", Exit.ENVIRONMENT)
    if not os.access(output, os.W_OK | os.X_OK):
        _give_up(f"cannot write to {output}", Exit.ENVIRONMENT)


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
                    _give_up(f"{path} exists and is no report; it is left as it is", Exit.USAGE)
        stream = path.open("wb", buffering=0)
    except OSError as error:
        _give_up(f"cannot write the report {path}: {error.strerror}", Exit.ENVIRONMENT)
    with stream:
        yield ReportFile(cast("BinaryIO", stream))


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name or an arrow that the terminal's encoding lacks is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    # Warnings of libraries may quote what a file holds.
    warnings.simplefilter("ignore")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    finally:
        _flush_quietly()


def _flush_quietly() -> None:
    """Write out what is left to say; where nobody reads it (`gpuenc syntaxes | head`), say it to nobody."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
