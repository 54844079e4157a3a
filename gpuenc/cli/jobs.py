"""From options to a job, with everything checked that can be checked before it begins."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

from gpuenc.cli.options import LossySources, OutOfRange, Unsupported
from gpuenc.cli.terminal import Exit, errors, give_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from gpuenc.archive.report import ReportFile
    from gpuenc.archive.request import Job
    from gpuenc.targets import Target
    from gpuenc.verification import Verify

_MOST_RESERVE_BYTES = 10**9
_CORES_PER_WORKER = 4


def target_of(
    to: str, quality: float | None, psnr: float | None, ratio: float | None, near: int, lossless: bool
) -> Target:
    """Return the target that these options ask for; end with 2 where they are wrong."""
    from gpuenc.errors import GpuencError
    from gpuenc.syntaxes import find
    from gpuenc.targets import target

    if not to:
        give_up("--to is missing: which transfer syntax? See `gpuenc syntaxes`", Exit.USAGE)
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


def verification_of(text: str) -> tuple[Verify, float]:
    """Return what is verified, and of what share of the files; end with 2 where the text says neither."""
    known: dict[str, Verify] = {"all": "all", "independent": "independent", "none": "none"}
    if text in known:
        return known[text], 1.0
    share = re.fullmatch(r"sample=(\d+(?:\.\d+)?)%", text)
    if not share or not 0 < float(share[1]) <= 100:
        give_up(f"--verify is all, independent, none or a share such as sample=1%, not '{text}'", Exit.USAGE)
    return "all", float(share[1]) / 100


def job_of(
    sources: Sequence[Path] | None,
    output: Path | None,
    target: Target,
    *,
    plugin: str,
    verify: str,
    lossy_sources: LossySources,
    out_of_range: OutOfRange,
    unsupported: Unsupported,
    extended_offsets: bool,
    overwrite: bool,
    in_place: bool,
    backup: Path | None,
    no_backup: bool,
) -> Job:
    """Return the job that these options ask for, without what the machine gives it; end with 2 where they are wrong."""
    from gpuenc.archive.request import Job

    found = tuple(sources or ())
    how_to_verify, verify_share = verification_of(verify)
    return Job(
        sources=found,
        destination=_destination_of(found, output, in_place=in_place, backup=backup, no_backup=no_backup),
        target=target,
        plugin=plugin,
        verify=how_to_verify,
        verify_share=verify_share,
        keep_lossy=lossy_sources is LossySources.KEEP,
        whole_cells=out_of_range is OutOfRange.WHOLE_CELLS,
        keep_unsupported=unsupported is Unsupported.KEEP,
        extended_offsets=extended_offsets,
        overwrite=overwrite,
        in_place=in_place,
        backup=backup,
    )


def _destination_of(
    sources: tuple[Path, ...], output: Path | None, *, in_place: bool, backup: Path | None, no_backup: bool
) -> Path:
    """Return the folder of the outputs, or, for replaced sources, of the journal; end with 2 for a contradiction."""
    if not sources:
        give_up("no sources: name files or folders, or a --manifest", Exit.USAGE)
    if not in_place:
        if backup or no_backup:
            give_up("--backup and --no-backup belong to --in-place", Exit.USAGE)
        if output is None:
            give_up("--output is missing", Exit.USAGE)
        return output
    if output is not None:
        give_up("--in-place replaces the sources: leave out --output", Exit.USAGE)
    if (backup is None) != no_backup:
        give_up("--in-place needs either --backup DIR, for the originals, or --no-backup", Exit.USAGE)
    if backup is not None:
        return backup
    return sources[0] if sources[0].is_dir() else sources[0].parent


def output_of(output: Path | None, stow: Path | None) -> Path | None:
    """Return where the outputs go; end with 2 where that is said twice."""
    if output is not None and stow is not None:
        give_up("--stow stores the outputs in a server: leave out --output", Exit.USAGE)
    return stow if output is None else output


def home_of(destination: Path, journal: Path | None) -> Path:
    """Return the folder of this machine that the journal of a job lies in; end with 2 for one beside its outputs."""
    from gpuenc.archive.addresses import is_remote
    from gpuenc.archive.elsewhere import default_home

    if is_remote(destination):
        return journal.absolute() if journal else default_home(destination)
    if journal is not None:
        give_up("--journal is for outputs that go elsewhere: those of a folder have theirs in it", Exit.USAGE)
    return destination


def with_resources(job: Job, *, jobs: int, workers: int | None, memory: int, reserve: int, cluster: str = "") -> Job:
    """Return the job with what this machine, or each worker of a cluster, gives it."""
    from gpuenc.archive.budget import FILES_BEYOND_CORES, ByteBudget, default_bytes
    from gpuenc.archive.descriptors import raise_limit, workers_at_once
    from gpuenc.archive.elsewhere import room_of
    from gpuenc.archive.request import OnCluster
    from gpuenc.plugins import usable_cores

    reserve_bytes = _reserve_bytes(room_of(job)) if reserve < 0 else reserve * 10**6
    if cluster:
        _demand_cluster(cluster, job)
        on_cluster = OnCluster(cluster, jobs, workers or 0, memory * 10**6)
        return replace(job, cluster=on_cluster, reserve_bytes=reserve_bytes)
    raise_limit()
    cores = usable_cores()
    at_once = jobs or cores + FILES_BEYOND_CORES
    if workers is None:
        # A worker can crash without taking the job with it, so there is always one where there can be.
        workers = max(1, cores // _CORES_PER_WORKER) if os.name == "posix" else 0
    elif workers and os.name != "posix":
        give_up("there are no worker processes on this system: --workers 0", Exit.USAGE)
    return replace(
        job,
        jobs=at_once,
        lanes=jobs or None,
        workers=workers_at_once(min(workers, at_once)) if workers else 0,
        budget=ByteBudget(memory * 10**6 or default_bytes()),
        reserve_bytes=reserve_bytes,
    )


def _demand_cluster(cluster: str, job: Job) -> None:
    if os.name != "posix":
        give_up("there are no worker processes on this system: leave out --cluster", Exit.USAGE)
    if job.dry_run:
        give_up("--dry-run only reads headers, and needs no --cluster", Exit.USAGE)
    if job.durability == "shard":
        give_up("--durability shard is for one machine: leave it out with --cluster", Exit.USAGE)
    if not re.fullmatch(r"local(:[1-9][0-9]{0,3})?|(?!local:)([a-z]+://)?[^/\s:]+:[1-9][0-9]{0,4}", cluster):
        give_up(
            f"--cluster is local, local:N for N workers, or the address of a scheduler, host:port; not '{cluster}'",
            Exit.USAGE,
        )


def demand_job(job: Job) -> None:
    """End with an exit code where the job cannot be begun."""
    _demand_sources(job)
    if job.plugin and not job.target.syntax.encapsulated:
        give_up(f"{job.target.syntax.name} is written without a plug-in; leave out --plugin", Exit.USAGE)
    if job.in_place and not (job.verify != "none" and job.verify_share >= 1 and job.target.lossless):
        give_up("--in-place is only for outputs that are verified: lossless ones, and all of them", Exit.USAGE)
    if job.in_place and job.durability == "none":
        give_up(
            "--in-place needs its outputs on the disk before it replaces anything: leave out --durability none",
            Exit.USAGE,
        )
    if os.path.lexists(job.destination) and not os.path.isdir(job.destination):
        give_up(f"{job.destination} is not a folder", Exit.USAGE)


def _reserve_bytes(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):
        return 0
    return min(_MOST_RESERVE_BYTES, found.f_blocks * found.f_frsize // 100)


def _demand_sources(job: Job) -> None:
    from gpuenc.archive.addresses import is_remote, text_of

    missing = [source for source in job.sources if not is_remote(source) and not os.path.exists(source)]
    for source in missing[:-1]:
        errors.print(f"gpuenc: no such file or folder: {source}")
    if missing:
        give_up(f"no such file or folder: {missing[-1]}", Exit.NO_INPUT)
    output = job.destination
    for source in job.sources:
        if is_remote(source) and source == output:
            give_up(
                f"{text_of(output)} is a source, and sources are never changed: choose another --output", Exit.USAGE
            )
        if not job.in_place and os.path.isdir(source) and os.path.exists(output) and os.path.samefile(source, output):
            give_up(f"{output} is a source, and sources are never changed: choose another --output", Exit.USAGE)


def demand_other_report(job: Job) -> None:
    """End with 2 where the job's report is that of the finished job in its place, whose checksums would be lost."""
    from gpuenc.archive.addresses import text_of
    from gpuenc.archive.journal_read import is_report_of_finished
    from gpuenc.errors import JobError

    if job.report is None or job.journal is None or job.resume or job.overwrite:
        return
    with contextlib.suppress(JobError):  # the job itself says what is wrong with its journal
        if is_report_of_finished(job.report, job.journal):
            give_up(
                f"{job.report} is the report of a finished job in {text_of(job.destination)}: name another --report, "
                "--resume to add what is new, or --overwrite to do all again",
                Exit.USAGE,
            )


# What follows the source in a line of a report: `transcode`'s and `verify`'s replace their own kind.
_SECOND = {"job": b"status", "verification": b"output"}
_FIRST = re.compile(rb'\{"source": "(?:[^"\\]|\\.)*", "(\w+)"')
# A path of 4096 bytes takes six times as much when every byte is escaped.
_LONGEST_PATH_BYTES = 1 << 15


@contextlib.contextmanager
def report_at(
    path: Path | None,
    output: Path | None = None,
    *,
    kind: Literal["job", "verification"] = "job",
    dry_run: bool = False,
) -> Iterator[ReportFile | None]:
    """Open a report; end with 2 for a file of another kind, or that is not to be lost, with 4 for one it cannot."""
    from gpuenc.archive.folders import make_folders
    from gpuenc.archive.report import ReportFile
    from gpuenc.dicom.regular import regular, waiting_for_nobody

    if path is None:
        yield None
        return
    try:
        if path.is_file():
            with open(path, "rb", opener=regular) as before:
                begins = before.read(_LONGEST_PATH_BYTES)
            if not ReportFile.BEGINNING.startswith(begins[: len(ReportFile.BEGINNING)]):
                give_up(f"{path} exists and is no report; it is left as it is", Exit.USAGE)
            if (found := _FIRST.match(begins)) and found[1] != _SECOND[kind]:
                give_up(f"{path} exists and is no report of a {kind}; it is left as it is", Exit.USAGE)
            if dry_run and begins:
                give_up(f"{path} is a report, and a dry run replaces none: choose another name", Exit.USAGE)
        if output is not None and path.absolute().is_relative_to(output.absolute()):
            make_folders(path.parent)  # as the job would a little later
        stream = open(path, "ab", buffering=0, opener=waiting_for_nobody)  # noqa: SIM115 - emptied when the job begins
    except OSError as error:
        give_up(f"cannot write the report {path}: {error.strerror}", Exit.ENVIRONMENT)
    with stream:
        yield ReportFile(cast("BinaryIO", stream))
