"""A file whose source or output lies elsewhere: fetched, done here as any other, and brought where it belongs.

What is done with a file knows nothing of this: it reads a scratch file, and writes and verifies another one.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, BinaryIO, cast

from gpuenc.archive.addresses import is_object, is_remote, is_server, text_of
from gpuenc.archive.report import Record
from gpuenc.archive.scan import Item
from gpuenc.archive.stamp import Stamp
from gpuenc.archive.there import why_skipped
from gpuenc.archive.transcode import Interrupted, transcode_file
from gpuenc.dicom.atomic import DISK_FULL
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import DestinationError, GpuencError, SourceError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from gpuenc.archive.folders import Identity
    from gpuenc.archive.report import Status
    from gpuenc.archive.request import Job
    from gpuenc.dicom.atomic import Unnamed

# Up to this size an object is fetched before it is known whether it is DICOM: a look at it costs as much.
_LOOK_BYTES = 1 << 20
_MADE = ("encoded", "copied")


def carry(
    item: Item,
    job: Job,
    stop: threading.Event,
    waits: Callable[[bool], None] = lambda waiting: None,
    defer: Callable[[Unnamed], None] | None = None,
    destination: Identity | None = None,
) -> Record:
    """Give one file its outcome, wherever it and its output are; see `gpuenc.archive.transcode.transcode_file`."""
    if not (is_remote(item.source_path) or is_remote(item.place)):
        return transcode_file(item, job, stop, waits, defer, destination)
    begun = time.perf_counter()
    carrier = _Carrier(item, _with_choice(item, job), stop, waits, destination)
    try:
        record = carrier.outcome()
    except Interrupted:
        raise
    except GpuencError as error:
        message = " ".join(str(error).split())
        if error.code == "not-dicom":
            record = carrier.without_output("skipped", error.code, message)
        else:
            record = carrier.without_output("failed", error.code, message)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        code = "disk-full" if error.errno in DISK_FULL else "unreadable-source"
        record = carrier.without_output("failed", code, f"the folder for copies of objects: {reason}")
    except Exception as error:  # noqa: BLE001 - whatever a library does, the job has other files
        record = carrier.without_output("failed", "internal-error", f"internal error: {type(error).__name__}")
    return record.but(
        source=item.name,
        destination=record.destination and (carrier.kept_at or record.destination),
        bytes_in=carrier.stamp.size_bytes,
        source_mtime_ns=carrier.stamp.mtime_ns,
        source_etag=carrier.stamp.etag,
        seconds=time.perf_counter() - begun,
        stage_seconds=record.stage_seconds | carrier.seconds,
        finished_s=max(0.0, time.time()),
    )


def _with_choice(item: Item, job: Job) -> Job:
    """Return the job with its share of verified files decided by this one's own name, not that of its copy."""
    if job.verify_share >= 1:
        return job
    # One that is not chosen keeps the share, which says why.
    return replace(job, verify_share=1.0) if job.chooses(item.name) else replace(job, verify="none")


@dataclass(slots=True)
class _Carrier:
    """One file on its way; `kept_at` is the address of its output, where that has one.

    `place` is which folder the job's destination was when the job began, where it is a folder.
    """

    item: Item
    job: Job
    stop: threading.Event
    waits: Callable[[bool], None]
    place: Identity | None = None
    stamp: Stamp = field(default_factory=lambda: Stamp(0, 0))
    kept_at: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def outcome(self) -> Record:
        item, job = self.item, self.job
        self.check()
        self.stamp = self._source_stamp()
        replaces = job.overwrite or item.replaces
        if is_object(item.destination):
            from gpuenc.archive.stores import demand_name, stamp_of

            demand_name(item.destination)
            # What may be the job's own is looked at when it is known what it should be.
            if not replaces and (there := stamp_of(item.destination, writing=True)):
                return self.without_output("skipped", "destination-exists", why_skipped(item.place, job, there))
        if is_remote(item.destination):
            self.kept_at = text_of(item.destination)
        if job.dry_run:
            return self._looked_at()
        if is_remote(item.source) and self.stamp.size_bytes > _LOOK_BYTES:
            self._demand_dicom()
        folder = Path(mkdtemp(dir=job.scratch))
        try:
            return self._done_in(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def check(self) -> None:
        if self.stop.is_set():
            raise Interrupted

    def _source_stamp(self) -> Stamp:
        if not is_remote(self.item.source):
            return Stamp.of(self.item.source)
        from gpuenc.archive.stores import stamp_of

        stamp = stamp_of(self.item.source)
        if stamp is None:
            raise SourceError("there is no such object any more, or its key ends with '/'", code="unreadable-source")
        return stamp

    def _looked_at(self) -> Record:
        """Return what would become of the file, going by its header."""
        opened = self._ranged() if is_remote(self.item.source) else None
        stamp = self.stamp if opened else None
        item = Item(self.item.source_path, self.item.place, replaces=self.item.replaces, stamp=stamp)
        return transcode_file(item, replace(self.job, dry_run=True), self.stop, self.waits, opened=opened)

    def _ranged(self) -> BinaryIO:
        from gpuenc.archive.ranged import Ranged

        return cast("BinaryIO", Ranged(self.item.source, self.stamp))

    def _demand_dicom(self) -> None:
        """Check that a large object is worth fetching."""
        try:
            DicomFile(self.item.source, file=self._ranged()).close()
        except SourceError as error:
            if error.code == "not-dicom" or error.code.startswith("store-"):
                raise
        except GpuencError:
            pass  # whatever is wrong with it, it is fetched as any other, and its record says so

    def _done_in(self, folder: Path) -> Record:
        item, job = self.item, self.job
        source, output, digest = item.source, item.destination, ""
        if is_remote(source):
            source = folder / "source"
            digest = self._fetch(source)
        if is_remote(output):
            output = folder / "output"
            # It is gone in a moment, and what counts is the store's.
            job = replace(job, durability="none", overwrite=False)
        place = None if is_remote(item.destination) else self.place
        work = Item(source, output, replaces=item.replaces)
        record = transcode_file(work, job, self.stop, self.waits, destination=place)
        # Where copies lie on this machine is in no record.
        record = record.but(message=record.message.replace(f"'{folder}'", "for copies of objects"))
        if digest and record.source_digest and record.source_digest != digest:
            raise SourceError("the copy of the object is not what was sent", code="source-changed")
        if record.status not in _MADE or not is_remote(item.destination):
            return record
        self.check()
        begun = time.perf_counter()
        try:
            return self._stored(output, record, folder) if is_server(item.destination) else self._put(output, record)
        finally:
            self.seconds["store"] = round(time.perf_counter() - begun, 6)

    def _fetch(self, target: Path) -> str:
        from gpuenc.archive.stores import fetch

        begun = time.perf_counter()
        with open(target, "xb", buffering=0) as file:
            digest = fetch(self.item.source, self.stamp, file, self.check)
        self.seconds["fetch"] = round(time.perf_counter() - begun, 6)
        return digest

    def _put(self, output: Path, record: Record) -> Record:
        """Give the verified output to the store, and have back what it then holds, if all is to be verified."""
        from gpuenc.archive import stores

        item, job = self.item, self.job
        replaces = job.overwrite or self._has_ours()
        try:
            stamp, demanded = stores.upload(output, item.destination, overwrite=replaces)
        except DestinationError as error:
            if error.code != "destination-exists":
                raise
            # The answer to a first try may have been lost on its way, or an interrupted run has put it there.
            stamp, demanded = self._ours(record), True
        else:
            if job.verify != "none":
                self._read_back(stamp, record, keep=replaces)
        asked = "" if demanded else "written in parts: the store was asked before whether the name is free"
        return record.but(
            destination=self.kept_at,
            message="; ".join(filter(None, (record.message, asked))),
            output_mtime_ns=stamp.mtime_ns,
            output_etag=stamp.etag,
        )

    def _has_ours(self) -> bool:
        """Whether the object that has the output's name is the one that an earlier run of this job has made."""
        from gpuenc.archive import stores

        etag = self.item.made_before
        if not (self.item.replaces and etag):
            return False
        stamp = stores.stamp_of(self.item.destination, writing=True)
        return stamp is not None and stamp.etag == etag

    def _read_back(self, stamp: Stamp, record: Record, *, keep: bool) -> None:
        """Check that the store holds what it was given; an object of which that is not known does not stay."""
        from gpuenc.archive import stores

        place = self.item.destination
        try:
            if stores.fetch(place, stamp, None, self.check) != record.output_digest:
                raise DestinationError("what the store holds is not what it was given", code="read-back-mismatch")
        except Exception as error:
            differs = isinstance(error, GpuencError) and error.code == "read-back-mismatch"
            # Where a worker of a cluster was given up for lost, another one may have found by now that it is good.
            keep = keep or (self.job.cluster is not None and not differs)
            removed = not keep and stores.remove(place, stamp)
            if removed or differs or not isinstance(error, GpuencError):
                raise
            raise DestinationError(f"it was stored and not verified: {error}", code="stored-unverified") from None

    def _ours(self, record: Record) -> Stamp:
        from gpuenc.archive import stores

        stamp = stores.stamp_of(self.item.destination, writing=True)
        if stamp and stamp.size_bytes == record.bytes_out:
            found = stores.fetch(self.item.destination, stamp, None, self.check)
            if found == record.output_digest:
                return stamp
        raise DestinationError("an object has the output's name", code="destination-exists")

    def _stored(self, output: Path, record: Record, folder: Path) -> Record:
        """Have the DICOMweb server store the verified output, and look at what it gives back."""
        from gpuenc.archive.dicomweb import store

        job = self.job
        try:
            stored = store(
                output,
                job.destination,
                replaces=job.overwrite or (self.item.replaces and self.item.made_before is not None),
                perhaps_stored=self.item.replaces,
                back=folder / "back",
                verify=job.verify != "none",
                check=self.check,
            )
        except SourceError as error:
            if record.status != "copied":
                raise
            # A DICOMDIR, for one, is no instance, and nothing is lost when it is not stored.
            return self.without_output("skipped", error.code, str(error))
        if stored.status:
            return self.without_output(stored.status, stored.code, stored.message)
        self.kept_at = stored.address
        message = "; ".join(filter(None, (record.message, stored.message)))
        return record.but(destination=stored.address, message=message, output_mtime_ns=0)

    def without_output(self, status: Status, code: str, message: str) -> Record:
        syntax = self.job.target.syntax.uid
        return Record(self.item.name, status, reason=code, message=message, target_syntax=syntax)
