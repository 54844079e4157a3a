"""`gpuenc report` and `gpuenc merge-reports`: what became of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuenc.cli.options import local
from gpuenc.cli.terminal import Exit, console, errors, told


def report(
    job: Annotated[
        Path,
        typer.Argument(
            help="What `--report` wrote, or the output folder of a job, or of its shards; where outputs went to an "
            "address, the folder of the journal.",
            metavar="JOB",
            parser=local,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="Make one HTML page, which needs nothing else; another one is replaced.",
            parser=local,
        ),
    ] = None,
) -> None:
    """Say what has become of a job's files so far, here or as a page, also while the job is at work."""
    from gpuenc.archive.outcomes import Outcomes
    from gpuenc.archive.page import make_page
    from gpuenc.archive.progress import SPAN, summary_table, visible

    with told():
        if output:
            tally, outcomes = make_page(job, output)
            done = tally.files
        else:
            outcomes = Outcomes(job)
            summary = outcomes.summary()
            done = summary.done
    far = outcomes.state.sentence(done)
    if not output:
        console.print(summary_table(summary, far, time_of=SPAN))
    elif far:
        console.print(far, soft_wrap=True)
    for note in outcomes.notes:
        errors.print(f"gpuenc: {visible(note)}")


def merge_reports(
    reports: Annotated[
        list[Path],
        typer.Argument(help="Reports, such as those of a job's shards.", metavar="REPORTS", parser=local),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="PATH", help="The joined report; another report is replaced.", parser=local
        ),
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="PATH",
            parser=local,
            help="What `gpuenc plan` wrote: say which of its files are missing; if none, bring DICOMDIRs up to date.",
        ),
    ] = None,
) -> None:
    """Join reports into one with each source once; fail where outcomes contradict each other or are missing."""
    from gpuenc.archive import merge
    from gpuenc.archive.manifest import Manifest
    from gpuenc.archive.progress import show_merge

    with told():
        of = Manifest(manifest) if manifest else None
        outputs = of.job.destination if of and not of.job.in_place else None
        merged = merge.merge_reports(reports, output, of.sources() if of else None, outputs=outputs)
    show_merge(merged, console, errors)
    raise typer.Exit(Exit.SOME_FAILED if merged.conflicts or merged.missing else Exit.OK)
