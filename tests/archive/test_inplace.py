"""Sources that are replaced: the original is kept, on the disk, until its output is in its place."""

from __future__ import annotations

import dataclasses
import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.archive import inplace
from gpuenc.archive.earlier import NO_OUTCOME
from gpuenc.archive.inplace import backup_of, kept
from gpuenc.archive.job import run
from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.dicom import atomic, flushing
from gpuenc.errors import DestinationError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records

IMAGE = made.of(made.noise((1, 8, 8), "u2"))


@pytest.fixture
def job(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        IMAGE.write(tmp_path / "in" / name)
        os.utime(tmp_path / "in" / name, ns=(10**18, 10**18))
    backup = tmp_path / "backup"
    return Job((tmp_path / "in",), backup, target(find("rle")), in_place=True, backup=backup, journal=place_of(backup))


def below(job, path):
    return job.backup.joinpath(*path.parts[1:])


def outcomes(job):
    watcher = Records()
    run(job, watcher)
    return {Path(record.source).name: record.reason or record.status for record in watcher.records}


def resumed(job):
    return outcomes(Job(**{name: getattr(job, name) for name in job.__slots__} | {"resume": True}))


@pytest.fixture(params=["links", "copies"])
def links(request, monkeypatch):
    """Have backups be links, or copies as on another file system."""
    if request.param == "copies":
        right = os.link

        def link(source, destination, **options):
            if "backup" in os.fspath(destination) and "tmp" not in os.path.basename(source):
                raise OSError(errno.EXDEV, "another file system")
            return right(source, destination, **options)

        monkeypatch.setattr("os.link", link)
    return request.param


def test_replaced_and_kept(job, links):
    assert outcomes(job) == {"a": "encoded", "b": "encoded"}
    for name in ("a", "b"):
        source = job.sources[0] / name
        assert below(job, source).read_bytes() == IMAGE.file()
        assert below(job, source).stat().st_mtime_ns == 10**18
        assert source.read_bytes() != IMAGE.file()
    assert resumed(job) == {"a": "encoded", "b": "encoded"}


def test_the_backup_is_on_the_disk_before_the_source_is_replaced(job, monkeypatch, links):
    """Its name as well, and those of new folders above it."""
    synced, seen = [], []
    right, right_replace = inplace.sync_folder, os.replace
    monkeypatch.setattr(inplace, "sync_folder", lambda folder: (synced.append(Path(folder)), right(folder)))
    monkeypatch.setattr(atomic, "sync_folder", lambda folder: None)

    def replace(source, destination):
        seen.append((Path(destination).name, set(synced)))
        right_replace(source, destination)

    monkeypatch.setattr("os.replace", replace)
    outcomes(job)
    folder = below(job, job.sources[0])
    for _, before in seen:
        assert folder in before
        assert job.backup in before
    assert [name for name, _ in seen] == ["a", "b"]


def test_a_failure_leaves_the_source_and_no_backup(job, monkeypatch, links):
    def refuse(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("os.replace", refuse)
    assert outcomes(job) == {"a": "destination-unwritable", "b": "destination-unwritable"}
    assert [path.read_bytes() for path in sorted(job.sources[0].iterdir())] == [IMAGE.file()] * 2
    assert not [path for path in job.backup.rglob("*") if path.is_file() and path.parent.name != ".gpuenc"]


@pytest.mark.parametrize(("name", "wrong"), [("EIO", True), ("EMFILE", True), ("EINVAL", False), ("EACCES", False)])
@pytest.mark.parametrize("durability", ["file", "shard"])
def test_a_backup_whose_name_may_not_be_on_the_disk(job, monkeypatch, links, name, wrong, durability):
    """Its source is not replaced, unless folders cannot be flushed there at all."""
    backup, fsync, code = os.fspath(job.backup), os.fsync, getattr(errno, name)
    told = []

    def broken(file):
        path = os.readlink(f"/proc/self/fd/{file}")
        # Once for each folder, as systems do.
        if path.startswith(backup) and os.path.isdir(path) and path not in told:
            told.append(path)
            raise OSError(code, os.strerror(code))
        fsync(file)

    monkeypatch.setattr(os, "fsync", broken)
    monkeypatch.setattr(flushing, "_syncfs", lambda: None)
    found = outcomes(dataclasses.replace(job, durability=durability, jobs=1))
    sources = [job.sources[0] / name for name in ("a", "b")]
    assert told
    if not wrong:
        assert found == {"a": "encoded", "b": "encoded"}
        return
    assert found["a"] == "destination-unwritable"
    assert sources[0].read_bytes() == IMAGE.file()
    assert not below(job, sources[0]).exists()
    # Of the second one, a folder further up may have had its error by then.
    assert (sources[1].read_bytes() == IMAGE.file()) == (found["b"] != "encoded")
    assert below(job, sources[1]).exists() == (found["b"] == "encoded")


def test_a_backup_is_never_removed_once_the_source_is_replaced(job, tmp_path):
    source = tmp_path / "in" / "a"
    (tmp_path / "new").write_bytes(b"the output")

    def fail_late():
        with kept(Item(source, source), job):
            os.replace(tmp_path / "new", source)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_late()
    assert below(job, source).read_bytes() == IMAGE.file()


def test_another_file_has_the_backups_name(job):
    other = below(job, job.sources[0] / "a")
    other.parent.mkdir(parents=True)
    other.write_bytes(bytes(len(IMAGE.file())))
    os.utime(other, ns=(10**18, 10**18))  # of the same size and time
    assert outcomes(job) == {"a": "destination-exists", "b": "encoded"}
    assert (job.sources[0] / "a").read_bytes() == IMAGE.file()
    assert not any(other.read_bytes())


def test_killed_after_the_backup_was_made(job, links):
    """It may not even have its times yet."""
    source = job.sources[0] / "a"
    below(job, source).parent.mkdir(parents=True)
    below(job, source).write_bytes(IMAGE.file())
    assert outcomes(job) == {"a": "encoded", "b": "encoded"}
    assert below(job, source).read_bytes() == IMAGE.file()
    assert below(job, source).stat().st_mtime_ns == 10**18


def test_killed_after_the_source_was_replaced(job):
    """It has the target's transfer syntax now, because this job has done it."""
    outcomes(job)
    db = Journal(job.journal, job.absolute().about(), resume=True)
    db._db.execute(f"UPDATE files SET state = 1, ours = 0, {NO_OUTCOME}")
    db.commit()
    db._db.close()
    before = (job.sources[0] / "a").read_bytes()
    assert resumed(job) == {"a": "encoded", "b": "encoded"}
    assert (job.sources[0] / "a").read_bytes() == before
    assert below(job, job.sources[0] / "a").read_bytes() == IMAGE.file()


def test_temporary_files_of_backups_are_removed(job):
    db = Journal(job.journal, job.absolute().about(), token="0123456789ab")
    source = job.sources[0] / "a"
    db.plan([(Item(source, source), 1)])
    db.next(1)
    db._db.close()
    folder = below(job, source).parent
    folder.mkdir(parents=True)
    (folder / ".a.0123456789ab.gpuenc-tmp").write_bytes(b"half")
    (job.sources[0] / ".a.0123456789ab.gpuenc-tmp").write_bytes(b"half")
    (job.sources[0] / ".x.0123456789ab.gpuenc-tmp").write_bytes(b"of another job")
    resumed(job)
    assert [path.name for path in folder.parent.rglob("*.gpuenc-tmp")] == []
    assert [path.name for path in job.sources[0].glob(".*")] == [".x.0123456789ab.gpuenc-tmp"]


def test_without_a_backup(job, tmp_path):
    place = job.sources[0]
    bare = Job(job.sources, place, job.target, in_place=True, journal=place_of(place))
    assert backup_of(Item(place / "a", place / "a"), bare) is None
    # The journal lies among the sources, and is none.
    assert outcomes(bare) == {"a": "encoded", "b": "encoded"}
    assert resumed(bare) == {"a": "encoded", "b": "encoded"}


def test_killed_without_a_backup_is_told_as_what_it_may_be(job):
    """Nobody can say whether the run that was killed made it."""
    place = job.sources[0]
    bare = Job(job.sources, place, job.target, in_place=True, journal=place_of(place))
    outcomes(bare)
    db = Journal(bare.journal, bare.absolute().about(), resume=True)
    db._db.execute(f"UPDATE files SET state = 1, ours = 0, {NO_OUTCOME}")
    db.commit()
    db._db.close()
    watcher = Records()
    run(replace(bare, resume=True), watcher)
    assert {(record.status, record.reason) for record in watcher.records} == {("skipped", "already-encoded")}
    assert all("perhaps replaced before the interruption; not compared" in each.message for each in watcher.records)
    again = Records()
    (bare.journal).unlink()
    run(bare, again)
    assert {record.message for record in again.records} == {"it has the target's transfer syntax"}


def test_a_backup_that_cannot_be_made_costs_the_source_nothing(job, monkeypatch):
    job.backup.mkdir()
    (job.backup / job.sources[0].parts[1]).write_bytes(b"a file where a folder belongs")
    assert set(outcomes(job).values()) == {"destination-unwritable"}
    assert (job.sources[0] / "a").read_bytes() == IMAGE.file()


def test_no_room_for_a_backup_ends_the_job(job, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.link", full)
    with pytest.raises(DestinationError) as caught, kept(Item(job.sources[0] / "a", job.sources[0] / "a"), job):
        pass
    assert caught.value.code == "disk-full"
