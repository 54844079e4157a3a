"""`gpuenc transcode`: files and folders re-encoded."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import typer

from gpuenc.cli import options as given
from gpuenc.cli.jobs import (
    demand_job,
    demand_other_report,
    home_of,
    job_of,
    output_of,
    report_at,
    target_of,
    with_resources,
)
from gpuenc.cli.options import Durability, LossySources, OutOfRange, Unsupported
from gpuenc.cli.terminal import Exit, console, errors, give_up, stop_on_signals, told

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable
    from pathlib import Path

    from gpuenc.archive.report import Summary
    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item
    from gpuenc.archive.watcher import Watcher


# What a manifest has decided.
_OF_MANIFEST = (
    *(
        "sources",
        "output",
        "stow",
        "to",
        "plugin",
        "quality",
        "psnr",
        "ratio",
        "near",
        "lossless",
        "verify",
        "lossy_sources",
    ),
    *("out_of_range", "unsupported", "extended_offsets", "overwrite", "in_place", "backup", "no_backup"),
)


def transcode(
    context: typer.Context,
    sources: given.Sources = None,
    output: given.Output = None,
    stow: given.Stow = None,
    journal: given.JournalFolder = None,
    to: given.To = "",
    device: given.WhichDevice = "auto",
    device_memory: given.DeviceMemory = 0,
    plugin: given.PluginLabel = "",
    jobs: given.Jobs = 0,
    workers: given.WorkerCount = None,
    cluster: given.OnACluster = "",
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
    memory: given.Memory = 0,
    durability: given.WithDurability = Durability.FILE,
    reserve: given.Reserve = -1,
    report: given.Report = None,
    metrics: given.Metrics = "",
    overwrite: given.Overwrite = False,
    resume: given.Resume = False,
    manifest: given.ManifestToDo = None,
    shard: given.Shard = "",
    in_place: given.InPlace = False,
    backup: given.Backup = None,
    no_backup: given.NoBackup = False,
    dry_run: given.DryRun = False,
) -> None:
    """Re-encode files and folders of DICOM files. Sources are never changed, unless --in-place asks for it."""
    with stop_on_signals() as stop:
        from gpuenc.archive.journal import place_of as journal_of

        if manifest:
            given_too = [name for name in _OF_MANIFEST if _is_typed(context, name)]
            if given_too:
                names = ", ".join("SRC" if name == "sources" else f"--{name.replace('_', '-')}" for name in given_too)
                give_up(f"--manifest decides that already: leave out {names}", Exit.USAGE)
            job, items, name = _share_of(manifest, shard)
        else:
            if shard:
                give_up("--shard belongs to --manifest", Exit.USAGE)
            items, name = None, "journal"
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
        job = replace(
            job,
            device=device,
            device_memory_bytes=device_memory * 10**6 or None,
            durability=str(durability),
            report=report,
            resume=resume,
            dry_run=dry_run,
            journal=None if dry_run else journal_of(home_of(job.destination, journal), name),
        )
        job = with_resources(job, jobs=jobs, workers=workers, memory=memory, reserve=reserve, cluster=cluster)
        demand_job(job)
        demand_other_report(job)
        _end(_run(job, items, stop, metrics), may_be_empty=bool(shard))


def _is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _share_of(path: Path, shard: str) -> tuple[Job, Iterable[Item], str]:
    """Return the job of a manifest, the files of a share, and what its journal is called."""
    from gpuenc.archive.manifest import Manifest, Share

    with told():
        share = Share.of(shard) if shard else Share()
        manifest = Manifest(path)
        job = replace(manifest.job, manifest=manifest.digest())
    return job, manifest.items(share), share.name


def _run(job: Job, items: Iterable[Item] | None, stop: threading.Event, metrics: str) -> Summary:
    from gpuenc.archive.job import run
    from gpuenc.archive.progress import Display
    from gpuenc.archive.watcher import Several

    with report_at(job.report, job.destination, dry_run=job.dry_run) as report_file, contextlib.ExitStack() as stack:
        watcher: Watcher = Display(console, errors, report_file, dry_run=job.dry_run)
        if metrics:
            from gpuenc.archive.metrics import metrics_watcher

            with told():
                watcher = Several(watcher, stack.enter_context(metrics_watcher(metrics)))
        with told():
            summary = run(job, watcher, stop, items)
        if report_file and report_file.problem and not summary.stopped:
            give_up(f"the report {job.report} is not complete: {report_file.problem}", Exit.ENVIRONMENT)
    return summary


def _end(summary: Summary, *, may_be_empty: bool) -> NoReturn:
    if summary.stopped in ("disk-full", "store-lost"):
        raise typer.Exit(Exit.ENVIRONMENT)
    if summary.stopped == "destination-lost":
        give_up(
            "the output folder, or the journal in it, was removed, moved or replaced while the job was at work; what "
            "was written there before may be gone: put it back and go on with --resume, or begin again",
            Exit.ENVIRONMENT,
        )
    if summary.stopped:
        raise typer.Exit(Exit.INTERRUPTED)
    # Of more machines than shards, some have nothing to do.
    if summary.planned == 0 and not may_be_empty:
        give_up("the sources hold no files", Exit.NO_INPUT)
    raise typer.Exit(Exit.SOME_FAILED if summary.files["failed"] else Exit.OK)
