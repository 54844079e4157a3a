"""What a job needs whose sources or outputs are no places of this machine: a folder for copies, and a home of its own.

Each object lies in a scratch file while it is in work. The folder of these is beside the journal, and empty before the
first and after the last; what a killed job left there, the next one in the same place removes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import SERVERS, STORES, demand_plain, inside, is_object, is_remote, is_server, text_of
from gpuenc.archive.report import Record
from gpuenc.archive.stamp import Stamp
from gpuenc.errors import DestinationError, InvalidOption, JobError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gpuenc.archive.earlier import Earlier
    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item


def default_home(destination: Path) -> Path:
    """Return the folder of this machine where the journal of a job lies whose outputs go to an address.

    Below ``$XDG_STATE_HOME/gpuenc``, or ``~/.local/state/gpuenc``: a folder named after the address.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    address = text_of(destination)
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", address)[:60].strip("-.")
    return base / "gpuenc" / f"{readable}-{hashlib.sha256(os.fsencode(address)).hexdigest()[:12]}"


def demand_elsewhere(job: Job) -> None:
    """Check that what a job asks for can be done with what is installed.

    Raises
    ------
    JobError
        ``invalid-option``: an address is none or holds credentials, or a source is to be replaced in a store;
        ``extra-missing``: see `pyproject.toml`; ``store-denied``: the environment does not say how to open a store.
    """
    places = [path for path in (*job.sources, job.destination) if is_remote(path)]
    try:
        for path in places:
            demand_plain(path)
    except InvalidOption as error:
        raise JobError(str(error), code="invalid-option") from None
    if job.in_place:
        raise JobError("objects in a store are not replaced in place: name another output", code="invalid-option")
    if any(map(is_server, job.sources)):
        raise JobError("a DICOMweb server is no source: results are stored there", code="invalid-option")
    schemes = {path.parts[0].removesuffix(":") for path in places}
    if schemes & set(STORES):
        from gpuenc.archive.stores import demand_usable

        demand_usable([path for path in places if is_object(path)])
    if schemes & set(SERVERS):
        from gpuenc.archive.dicomweb import demand_library as demand_client

        demand_client()


def demand_reached(job: Job, *, with_input: bool = False) -> None:
    """Check that stores and servers answer to who asks for them here, before every file finds out by itself.

    Parameters
    ----------
    job : Job
        Whose sources and destination are asked for: one list each. Of a dry run, no server is.
    with_input : bool
        A source that is no object, with nothing below it, is a reason too.

    Raises
    ------
    JobError
        ``unreadable-source``: a source's bucket is not there, or nothing in a source is; ``store-missing``: that of the
        destination is not; ``store-denied``, ``store-unreachable``, ``store-failed``.
    """
    for source in dict.fromkeys(job.sources):
        if is_object(source):
            _demand_source(source, with_input)
    try:
        if is_object(job.destination):
            _demand_writable(job.destination)
        elif is_server(job.destination) and not job.dry_run:
            from gpuenc.archive.dicomweb import demand_answer

            demand_answer(job.destination)
    except (SourceError, DestinationError) as error:
        said = "there is no such bucket" if error.code == "store-missing" else str(error)
        raise JobError(f"{text_of(job.destination)}: {said}", code=error.code) from None


def _demand_source(source: Path, with_input: bool) -> None:
    from gpuenc.archive.stores import listed, stamp_of

    said, code = "there is no such object, and nothing below it", "unreadable-source"
    try:
        if next(listed(source), None) or not with_input or stamp_of(source):
            return
    except SourceError as error:
        if error.code == "store-name":
            return  # something is there
        # Who may not list may read the one object that is asked for.
        if error.code == "store-denied" and _is_there(source):
            return
        # What has no list is no object.
        missing = error.code == "store-missing"
        said, code = ("there is no such bucket", code) if missing else (str(error), error.code)
    raise JobError(f"{text_of(source)}: {said}", code=code)


def _is_there(source: Path) -> bool:
    from gpuenc.archive.stores import stamp_of

    with contextlib.suppress(SourceError):
        return stamp_of(source) is not None
    return False


def _demand_writable(place: Path) -> None:
    from gpuenc.archive.stores import listed, stamp_of

    try:
        next(listed(place), None)
    except SourceError as error:
        if error.code == "store-denied":
            # Who may not list may write: each output is asked for by its name before it is written.
            stamp_of(place / ".gpuenc", writing=True)
        elif error.code != "store-name":
            raise


def fills_up_here(job: Job) -> bool:
    """Whether what a job has in work takes room on this machine: a cluster's workers fetch and upload by themselves."""
    return not (job.cluster and is_remote(job.destination))


def room_of(job: Job) -> Path:
    """Return the folder of this machine that fills up as a job goes on."""
    if not is_remote(job.destination):
        return job.destination
    return job.scratch or (job.journal.parent if job.journal else Path(tempfile.gettempdir()))


def with_scratch(job: Job) -> Job:
    """Return a job with the place of its scratch files; one that stays on this machine needs none.

    A cluster's workers have theirs: see `archive/session.py`.
    """
    if not job.is_elsewhere or job.dry_run or job.cluster:
        return job
    if job.durability == "shard":
        job = replace(job, durability="file")  # each file is brought where it belongs by itself
    if job.journal:
        return replace(job, scratch=job.journal.parent / f"{job.journal.stem}.scratch")
    return replace(job, scratch=Path(tempfile.gettempdir()) / f"gpuenc-{os.urandom(8).hex()}")


@contextlib.contextmanager
def scratch_folder(job: Job) -> Iterator[None]:
    """Make the folder, empty and for nobody else to read, and remove it at the end.

    Raises
    ------
    JobError
        ``destination-unwritable``.
    """
    if job.scratch is None:
        yield
        return
    shutil.rmtree(job.scratch, ignore_errors=True)
    try:
        job.scratch.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise JobError(
            f"the folder for copies of objects cannot be made: {error.strerror}", code="destination-unwritable"
        ) from None
    try:
        yield
    finally:
        shutil.rmtree(job.scratch, ignore_errors=True)


def outputs_of(items: Iterable[Item], known: Mapping[str, Earlier]) -> dict[str, Stamp | None]:
    """Return what is where an earlier run has put objects into a store, asked for side by side."""
    paths = [item.destination for item in items if item.place in known and is_object(item.place)]
    if not paths:
        return {}
    from gpuenc.archive.stores import stamps_of

    return {os.fspath(path): stamp for path, stamp in stamps_of(paths).items()}


def stands_elsewhere(item: Item, before: Earlier, outputs: Mapping[str, Stamp | None]) -> bool:
    """Whether an earlier run has done a file, and neither it nor its output has changed since.

    What a server has taken is not asked for again.
    """
    if not before.kept or before.source != item.source_path or item.left_out:
        return False
    source = item.stamp or Stamp.of_any(item.source)
    if source != Stamp(before.source_bytes or 0, before.source_mtime_ns or 0, etag=before.source_etag):
        return False
    if before.output_bytes is None or is_server(item.place):
        return True
    output = outputs[item.place] if item.place in outputs else Stamp.of_any(item.destination)
    return output == Stamp(before.output_bytes, before.output_mtime_ns or 0, etag=before.output_etag)


def refused_elsewhere(item: Item, job: Job) -> Record | None:
    """Return the outcome of an object whose place is that of a source, if it may be written there."""
    if not (job.overwrite and is_object(item.place)):
        return None
    output, place = job.destination, item.destination
    # What lies in an output below a source is none.
    if any(inside(place, root) and not (output != root and inside(output, root)) for root in job.sources):
        message = "its place in the destination is that of a source, and sources are never changed"
        return Record(item.name, "failed", reason="destination-is-source", message=message)
    return None
