"""`gpuenc verify`: whether outputs hold what their sources hold."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gpuenc.cli.terminal import Exit, console, errors, give_up, stop_on_signals

if TYPE_CHECKING:
    from typing import BinaryIO


def verify(
    paths: Annotated[list[Path], typer.Argument(help="Source and output: two folders, or two files.", metavar="PATH")],
    record: Annotated[
        Path | None, typer.Option(help="A job's report to check the output against; then PATH is the output alone.")
    ] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Decode the output with other code than encoded it.")
    ] = False,
    allow_lossy: Annotated[
        bool, typer.Option("--allow-lossy", help="Outputs that say they are lossy are good.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Files at once; 0 for as many as cores.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write one line of JSON per file here.")] = None,
) -> None:
    """Decode outputs again and compare every sample and element with the sources."""
    with stop_on_signals() as stop:
        from gpuenc.archive import verify as trees
        from gpuenc.archive.recheck import recheck
        from gpuenc.archive.verdicts import VerdictDisplay

        if problem := trees.unfit(paths, record):
            give_up(problem, Exit.NO_INPUT if problem.startswith("no such") else Exit.USAGE)
        with contextlib.ExitStack() as files:
            stream = None
            if report:
                try:
                    stream = files.enter_context(report.open("xb", buffering=0))
                except OSError as error:
                    give_up(f"cannot write the report {report}: {error.strerror}", Exit.ENVIRONMENT)
            display = VerdictDisplay(console, errors, cast("BinaryIO | None", stream))
            if record:
                verified = recheck(record, paths[0], display, independent=independent, jobs=jobs, stop=stop)
            else:
                source, output = paths
                verified = trees.verify(
                    source, output, display, independent=independent, jobs=jobs, report=report, stop=stop
                )
        if verified.interrupted:
            raise typer.Exit(Exit.INTERRUPTED)
        if display.problem:
            give_up(f"the report {report} is not complete: {display.problem}", Exit.ENVIRONMENT)
        if verified.planned == 0:
            give_up("there is nothing to verify", Exit.NO_INPUT)
        raise typer.Exit(Exit.OK if verified.good(allow_lossy=allow_lossy) else Exit.SOME_FAILED)
