"""The `gpuenc` command: arguments in, exit codes out; what it does lives in `archive` and `encoder`."""

from __future__ import annotations

import os
import sys
import warnings
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated

import typer

from gpuenc._version import __version__
from gpuenc.cli import about, bench, reports, verify
from gpuenc.cli import plan as planning
from gpuenc.cli import shards as sharding
from gpuenc.cli import transcode as transcoding
from gpuenc.cli.terminal import EPILOG, Exit, console, flush_quietly

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, epilog=EPILOG)
app.command(epilog=EPILOG)(transcoding.transcode)
app.command(epilog=EPILOG)(planning.plan)
app.command(epilog=EPILOG)(verify.verify)
app.command(epilog=EPILOG)(reports.report)
app.command("merge-reports", epilog=EPILOG)(reports.merge_reports)
app.command(epilog=EPILOG)(sharding.shards)
app.command()(bench.bench)
app.command()(about.syntaxes)
app.command()(about.doctor)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Compress DICOM pixel data in bulk."""
    if version:
        console.print(f"gpuenc {__version__}")
        raise typer.Exit


def main(loaded: Callable[[], None] = lambda: None) -> None:
    """Run the command; `loaded` is called once everything is, before it begins."""
    # Where nobody listens, what is said goes nowhere, and no output of ours gets the number of a stream.
    sys.stdin, sys.stdout, sys.stderr = (
        stream or open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
        for stream, mode in ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
    )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name or an arrow that the terminal's encoding lacks is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    # Warnings of libraries may quote what a file holds.
    warnings.simplefilter("ignore")
    try:
        loaded()
        app()
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    finally:
        flush_quietly()
