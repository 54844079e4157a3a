"""`gpuenc verify`: whether outputs hold what their sources hold."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from gpuenc.cli import options as given
from gpuenc.cli.jobs import report_at
from gpuenc.cli.options import local
from gpuenc.cli.terminal import Exit, console, errors, give_up, stop_on_signals


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Source and output: two folders, or two files.", metavar="PATH", parser=local),
    ],
    record: Annotated[
        Path | None,
        typer.Option(
            help="A job's report to check the output against; then PATH is the output alone.",
            metavar="PATH",
            parser=local,
        ),
    ] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Decode the output with other code than encoded it.")
    ] = False,
    allow_lossy: Annotated[
        bool, typer.Option("--allow-lossy", help="Outputs that say they are lossy are good.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Files at once; 0 for as many as cores.")] = 0,
    report: given.Report = None,
) -> None:
    """Decode outputs again and compare every sample and element with the sources."""
    with stop_on_signals() as stop:
        from gpuenc.archive import verify as trees
        from gpuenc.archive.descriptors import raise_limit
        from gpuenc.archive.recheck import recheck
        from gpuenc.archive.verdicts import VerdictDisplay

        if problem := trees.unfit(paths, record):
            give_up(problem, Exit.NO_INPUT if problem.startswith("no such") else Exit.USAGE)
        raise_limit()
        with contextlib.ExitStack() as files:
            report_file = files.enter_context(report_at(report, kind="verification"))
            display = VerdictDisplay(console, errors, report_file)
            if record:
                verified = recheck(
                    record, paths[0], display, independent=independent, jobs=jobs, report=report, stop=stop
                )
            else:
                source, output = paths
                verified = trees.verify(
                    source, output, display, independent=independent, jobs=jobs, report=report, stop=stop
                )
        if verified.interrupted:
            raise typer.Exit(Exit.INTERRUPTED)
        if report_file and report_file.problem:
            give_up(f"the report {report} is not complete: {report_file.problem}", Exit.ENVIRONMENT)
        if verified.planned == 0:
            give_up("there is nothing to verify", Exit.NO_INPUT)
        raise typer.Exit(Exit.OK if verified.good(allow_lossy=allow_lossy) else Exit.SOME_FAILED)
