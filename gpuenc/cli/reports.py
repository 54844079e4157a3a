"""`gpuenc report` and `gpuenc merge-reports`: what became of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuenc.cli.terminal import Exit, console, errors, told


def report(
    job: Annotated[Path, typer.Argument(help="What `--report` wrote, or the output folder of a job.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page; another report page is replaced.")],
) -> None:
    """Make one HTML page of a job's report, which needs no network and no other file."""
    from gpuenc.archive.page import make_page
    from gpuenc.archive.progress import visible

    with told():
        _, notes = make_page(job, output)
    for note in notes:
        errors.print(f"gpuenc: {visible(note)}")


def merge_reports(
    reports: Annotated[list[Path], typer.Argument(help="Reports, such as those of a job's shards.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The joined report; another report is replaced.")],
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="What `gpuenc plan` wrote: say which of its files are missing.")
    ] = None,
) -> None:
    """Join reports into one with each source once; fail where outcomes contradict each other or are missing."""
    from gpuenc.archive import merge
    from gpuenc.archive.manifest import Manifest
    from gpuenc.archive.progress import show_merge

    with told():
        expected = Manifest(manifest).sources() if manifest else None
        merged = merge.merge_reports(reports, output, expected)
    show_merge(merged, console, errors)
    raise typer.Exit(Exit.SOME_FAILED if merged.conflicts or merged.missing else Exit.OK)
