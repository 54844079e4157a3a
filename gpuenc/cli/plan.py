"""`gpuenc plan`: what `transcode` would do."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE
from rich.table import Table

from gpuenc.cli import options as given
from gpuenc.cli.jobs import demand_job, job_of, output_of, target_of, with_resources
from gpuenc.cli.options import LossySources, OutOfRange, Unsupported
from gpuenc.cli.terminal import Exit, errors, give_up, show, stop_on_signals, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.archive.manifest import Writer
    from gpuenc.archive.plan import Plan
    from gpuenc.archive.request import Job


def plan(
    sources: given.Sources = None,
    output: given.Output = None,
    stow: given.Stow = None,
    to: given.To = "",
    manifest: given.ManifestToWrite = None,
    plugin: given.PluginLabel = "",
    jobs: given.Jobs = 0,
    workers: given.WorkerCount = None,
    quality: given.Quality = None,
    psnr: given.Psnr = None,
    ratio: given.Ratio = None,
    near: given.Near = 0,
    lossless: given.Lossless = False,
    verify: given.WhatToVerify = "all",
    lossy_sources: given.WithLossySources = LossySources.KEEP,
    out_of_range: given.WithOutOfRange = OutOfRange.KEEP,
    unsupported: given.WithUnsupported = Unsupported.FAIL,
    extended_offsets: given.ExtendedOffsets = False,
    overwrite: given.Overwrite = False,
    in_place: given.InPlace = False,
    backup: given.Backup = None,
    no_backup: given.NoBackup = False,
) -> None:
    """Say what `gpuenc transcode` would do, and write it down for machines that share it out among themselves."""
    with stop_on_signals() as stop:
        from gpuenc.archive.plan import plan as make_plan

        job = job_of(
            sources,
            output_of(output, stow),
            target_of(to, quality, psnr, ratio, near, lossless),
            plugin=plugin,
            verify=verify,
            lossy_sources=lossy_sources,
            out_of_range=out_of_range,
            unsupported=unsupported,
            extended_offsets=extended_offsets,
            overwrite=overwrite,
            in_place=in_place,
            backup=backup,
            no_backup=no_backup,
        )
        job = replace(job.absolute(), report=manifest, dry_run=True)
        job = with_resources(job, jobs=jobs, workers=workers, memory=0, reserve=0)
        demand_job(job)
        with _manifest_at(manifest, job) as writer, told():
            made = make_plan(job, stop, writer)
        _name_failed(made)
        show(_table(made, writer))
    if made.summary.stopped == "store-lost":
        give_up(made.summary.outage, Exit.ENVIRONMENT)
    if made.summary.stopped:
        raise typer.Exit(Exit.INTERRUPTED)
    if not made.summary.planned:
        give_up("the sources hold no files", Exit.NO_INPUT)
    raise typer.Exit(Exit.SOME_FAILED if made.summary.files["failed"] else Exit.OK)


@contextlib.contextmanager
def _manifest_at(path: Path | None, job: Job) -> Iterator[Writer | None]:
    from gpuenc.archive.manifest import BEGINNING, Writer
    from gpuenc.dicom.atomic import AtomicFile
    from gpuenc.dicom.regular import regular
    from gpuenc.errors import DestinationError

    if path is None:
        yield None
        return
    try:
        if path.exists():
            with open(path, "rb", opener=regular) as before:
                if before.read(len(BEGINNING)) != BEGINNING:
                    give_up(f"{path} exists and is no manifest; it is left as it is", Exit.USAGE)
        with AtomicFile(path, overwrite=True) as file:
            writer = Writer(file.file, replace(job, dry_run=False))
            yield writer
            if writer.complete:
                file.publish()
    except DestinationError as error:
        give_up(f"{path}: {error}", Exit.ENVIRONMENT)
    except OSError as error:
        give_up(f"cannot write the manifest {path}: {error.strerror}", Exit.ENVIRONMENT)


def _name_failed(made: Plan) -> None:
    from gpuenc.archive.progress import failure_line

    for record in made.failed:
        errors.print(failure_line(record))
    if (more := made.summary.files["failed"] - len(made.failed)) > 0:
        errors.print(f"failed: and {more} more; `gpuenc transcode --dry-run --report` names all of them")


def _table(made: Plan, writer: Writer | None) -> Table:
    from gpuenc.archive.progress import counted, size_text
    from gpuenc.syntaxes import name_of

    summary = made.summary
    table = Table(show_header=False, box=SIMPLE, title="What would be done", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    counts = ", ".join(f"{summary.files[status]} {status}" for status in ("encoded", "copied", "skipped", "failed"))
    table.add_row("files", f"{summary.planned}: {counts}")
    table.add_row("encoded", f"{counted(summary.frames, 'frame')}, {size_text(summary.pixel_bytes)} of pixels")
    table.add_row("from", ", ".join(f"{name_of(uid)}: {number}" for uid, number in made.syntaxes.most_common()))
    table.add_row("modalities", ", ".join(f"{name}: {number}" for name, number in made.modalities.most_common()))
    for (status, reason), number in sorted(summary.reasons.items()):
        table.add_row(status, f"{number} × {reason}")
    if made.sample_files:
        table.add_row("tried", f"{counted(made.sample_files, 'file')} encoded, ratio {made.ratio:.2f}")
        table.add_row("output, about", size_text(made.output_bytes))
        table.add_row("time, about", _duration(made.seconds))
    if writer:
        table.add_row("manifest", f"{counted(writer.files, 'file')} in {counted(writer.shards, 'shard')}")
    return table


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "under a second"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
