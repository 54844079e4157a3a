"""`--durability shard`: nothing has its name before it is on the disk, and nothing is done before its name is."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pydicom
import pytest

from gpuenc.archive import job as job_module
from gpuenc.archive import publisher as publisher_module
from gpuenc.archive.job import run
from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.kept_lines import line_of
from gpuenc.archive.landing import Landing
from gpuenc.archive.publisher import Limits, Publisher
from gpuenc.archive.request import Job
from gpuenc.dicom import atomic, flushing
from gpuenc.dicom.digests import xxh3_128
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records

IMAGE = made.of(made.noise((1, 8, 8), "u2"))
NAMES = ("a", "b", "copied", "new/below/c", "new/d")


@pytest.fixture
def job(tmp_path):
    source = tmp_path / "in"
    (source / "new" / "below").mkdir(parents=True)
    for name in NAMES:
        IMAGE.write(source / name)
    (source / "copied").write_bytes(made.float_pixels().file())
    out = tmp_path / "out"
    return Job((source,), out, target(find("rle")), journal=place_of(out), durability="shard", jobs=2)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(job_module, "Publisher", partial(Publisher, limits=Limits(files=2)))


def outcomes(job, **options):
    watcher = Records()
    summary = run(replace(job, **options), watcher)
    return {Path(record.source).name: record.reason or record.status for record in watcher.records}, summary


def content(folder):
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".gpuenc" not in path.parts
    }


class Disk:
    """Takes down what reaches the disk in which order, and knows after each step what a power cut would leave."""

    def __init__(self, monkeypatch, out, *, whole):
        self.out, self.wrong, self.named = out, [], {}
        self.contents, self.entries = set(), set()
        fsync, link, commit = os.fsync, os.link, Journal.commit

        def recorded_fsync(file):
            fsync(file)
            self.flushed(os.readlink(f"/proc/self/fd/{file}"))

        def recorded_link(temporary, path):
            link(temporary, path)
            self.names(temporary, path)

        def recorded_commit(journal):
            commit(journal)
            done = journal._db.execute("SELECT place, record FROM files WHERE state = 2").fetchall()
            self.commits([os.fsdecode(place) for place, record in done if "out" in line_of(record)])

        def syncfs(_file):
            for path in out.rglob("*"):
                self.flushed(os.fspath(path))
            self.flushed(os.fspath(out))
            return 0

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "link", recorded_link)
        monkeypatch.setattr(Journal, "commit", recorded_commit)
        monkeypatch.setattr(flushing, "_syncfs", lambda: syncfs if whole else None)
        monkeypatch.setattr(flushing, "_is_known", lambda device: True)

    def flushed(self, path):
        if os.path.isdir(path):
            self.entries.update(os.path.join(path, name) for name in os.listdir(path))
        else:
            self.contents.add(path)

    def names(self, temporary, path):
        self.named[path] = temporary
        if temporary not in self.contents:
            self.wrong.append(f"{path} has its name before its content is on the disk")

    def commits(self, done):
        for path in done:
            part = path
            while part != os.fspath(self.out):
                if part not in self.entries:
                    self.wrong.append(f"{path} is done, and a power cut would leave no {part}")
                part = os.path.dirname(part)


@pytest.mark.parametrize(("whole", "workers"), [(True, 0), (False, 0), (False, 1)])
def test_a_power_cut_at_any_instant(job, monkeypatch, whole, workers):
    disk = Disk(monkeypatch, job.destination, whole=whole)
    found, summary = outcomes(job, workers=workers)
    assert set(found.values()) == {"encoded", "float-pixel-data"}
    assert disk.wrong == []
    assert summary.done == summary.planned == len(disk.named) == len(NAMES)


def test_the_recorder_finds_what_is_wrong(job, monkeypatch):
    """Where nothing is flushed, it says so for each."""
    disk = Disk(monkeypatch, job.destination, whole=False)
    outcomes(job, durability="none")
    assert len({line.split(" ")[0] for line in disk.wrong if "before its content" in line}) == len(NAMES)
    assert any("is done" in line for line in disk.wrong)


@pytest.mark.parametrize("workers", [0, 1])
def test_outputs_are_those_of_every_other_durability(job, workers):
    outcomes(job, workers=workers)
    grouped = content(job.destination)
    other = replace(job, destination=job.destination.parent / "other", durability="file")
    outcomes(other, journal=place_of(other.destination), workers=workers)
    assert grouped.keys() == set(NAMES)
    assert grouped == content(other.destination)


def test_one_flush_for_a_whole_group(job, monkeypatch):
    calls = []
    monkeypatch.setattr(job_module, "Publisher", Publisher)
    monkeypatch.setattr(flushing, "_syncfs", lambda: lambda file: calls.append(file) or 0)
    monkeypatch.setattr(flushing, "_is_known", lambda device: True)
    outcomes(job)
    assert len(calls) == 2  # contents, then names


def test_what_does_not_reach_the_disk_fails_and_the_others_do_not(job, monkeypatch):
    fsync = os.fsync

    def broken(file):
        if "/.b." in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    monkeypatch.setattr(flushing, "_syncfs", lambda: lambda file: -1)
    monkeypatch.setattr(flushing, "_is_known", lambda device: True)
    monkeypatch.setattr(os, "fsync", broken)
    found, summary = outcomes(job)
    assert found["b"] == "destination-unwritable"
    assert summary.files["failed"] == 1
    assert content(job.destination).keys() == set(NAMES) - {"b"}
    monkeypatch.undo()
    found, _ = outcomes(job, resume=True)
    assert set(found.values()) >= {"encoded"}
    assert content(job.destination).keys() == set(NAMES)


def test_no_room_when_it_is_flushed(job, monkeypatch):
    def full(_file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(flushing, "_syncfs", lambda: None)
    monkeypatch.setattr(os, "fsync", full)
    found, _ = outcomes(job)
    assert set(found.values()) == {"disk-full"}
    assert content(job.destination) == {}


@pytest.mark.parametrize("there_again", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_destination_that_is_moved_while_outputs_wait(job, tmp_path, monkeypatch, workers, there_again):
    """None of them stays behind, in neither folder, and the reason is told."""
    named, waiting = Publisher._named, []

    def late(self, group):
        if not waiting:
            waiting.extend(path for path in content(job.destination) if path.endswith("gpuenc-tmp"))
            job.destination.rename(tmp_path / "elsewhere")
            if there_again:
                (job.destination / "new" / "below").mkdir(parents=True)
        return named(self, group)

    monkeypatch.setattr(Publisher, "_named", late)
    monkeypatch.setattr(job_module, "Publisher", partial(Publisher, limits=Limits(files=len(NAMES))))
    found, summary = outcomes(job, workers=workers, journal=place_of(tmp_path / "journal"))
    assert len(waiting) == len(NAMES)
    assert set(found.values()) == {"destination-lost"}
    assert summary.stopped == "destination-lost"
    assert content(tmp_path / "elsewhere") == {}
    assert content(job.destination) == {}


@pytest.mark.parametrize("durability", ["file", "shard"])
@pytest.mark.parametrize("name", ["EIO", "EMFILE", "EINVAL"])
def test_a_folder_that_does_not_reach_the_disk_is_told(job, monkeypatch, durability, name):
    """Its files have their names: they did not fail, and their records say what may be lost."""
    fsync, code, folder = os.fsync, getattr(errno, name), os.fspath(job.destination / "new")

    def broken(file):
        if os.readlink(f"/proc/self/fd/{file}").endswith(folder):
            raise OSError(code, os.strerror(code))
        fsync(file)

    monkeypatch.setattr(os, "fsync", broken)
    monkeypatch.setattr(flushing, "_syncfs", lambda: None)
    watcher = Records()
    run(replace(job, durability=durability), watcher)
    assert {record.status for record in watcher.records} == {"encoded", "copied"}
    told = {Path(record.source).name for record in watcher.records if os.strerror(code) in record.message}
    # In groups, folders above are flushed as well.
    assert told == (set() if name == "EINVAL" else {"d"} if durability == "file" else {"c", "d"})
    assert content(job.destination).keys() == set(NAMES)


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("names_given", [0, 1, 3])
def test_killed_between_flush_and_outcome(job, monkeypatch, names_given):
    """What has no name is made again, what has one is made again in its place, and nothing is left over."""
    name, left = atomic.Unnamed.name, [names_given]

    def mortal(unnamed):
        if not left[0]:
            raise Cut
        left[0] -= 1
        name(unnamed)

    monkeypatch.setattr(atomic.Unnamed, "name", mortal)
    # A killed process removes nothing.
    monkeypatch.setattr(atomic.Unnamed, "remove", lambda unnamed: None)
    with pytest.raises(Cut):
        run(job, Records())
    assert len([path for path in content(job.destination) if not path.endswith("gpuenc-tmp")]) == names_given
    assert any(path.endswith("gpuenc-tmp") for path in content(job.destination))
    monkeypatch.undo()
    found, summary = outcomes(job, resume=True)
    assert summary.done == len(NAMES) == len(found)
    assert content(job.destination).keys() == set(NAMES)


@pytest.mark.parametrize("workers", [0, 1])
def test_given_up_without_a_trace(job, monkeypatch, workers):
    """The second Ctrl-C: outputs that are complete and have no name yet are removed."""

    class Impatient(Publisher):
        def add(self, complete):
            super().add(complete)
            raise KeyboardInterrupt

    monkeypatch.setattr(job_module, "Publisher", Impatient)
    stop = threading.Event()
    stop.set()
    monkeypatch.setattr(job_module._Run, "_end_early", lambda self, why: None)
    with suppress(KeyboardInterrupt):
        run(replace(job, workers=workers), Records(), stop)
        pytest.fail("it was not interrupted")
    assert content(job.destination) == {}


def test_stopped_once_it_names_what_is_complete(job):
    stop = threading.Event()

    class Stops(Records):
        def done(self, record):
            super().done(record)
            stop.set()

    watcher = Stops()
    summary = run(job, watcher, stop)
    assert content(job.destination).keys() <= set(NAMES)
    assert len(content(job.destination)) == len(watcher.records) == summary.done


def test_a_source_that_changed_before_its_output_replaces_it_stays(job, tmp_path, monkeypatch):
    place, backup = job.sources[0], tmp_path / "backup"
    named = publisher_module._with_its_name

    def late(complete, of):
        if complete.record.source.endswith("/b"):
            (place / "b").write_bytes(b"something else")
        return named(complete, of)

    monkeypatch.setattr(publisher_module, "_with_its_name", late)
    found, _ = outcomes(job, in_place=True, backup=backup, destination=backup, journal=place_of(backup))
    assert found["b"] == "source-changed"
    assert (place / "b").read_bytes() == b"something else"
    assert not list(place.rglob("*gpuenc-tmp"))
    below = backup / (place / "a").relative_to(place.anchor)
    assert below.read_bytes() == IMAGE.file()
    assert not (below.parent / "b").exists()
    assert (place / "a").read_bytes() != IMAGE.file()


def test_groups_are_closed_by_bytes_and_by_time(job, monkeypatch):
    sizes = []
    files = flushing.Flusher.files

    def counted(self, paths):
        sizes.append(len(paths))
        return files(self, paths)

    monkeypatch.setattr(flushing.Flusher, "files", counted)
    monkeypatch.setattr(job_module, "Publisher", partial(Publisher, limits=Limits(bytes_total=1)))
    outcomes(job, jobs=1)
    assert max(sizes) < len(NAMES)
    sizes.clear()
    other = replace(job, destination=job.destination.parent / "other", journal=None)
    monkeypatch.setattr(job_module, "Publisher", partial(Publisher, limits=Limits(seconds=3600)))
    outcomes(other)
    assert sizes == [len(NAMES)]


@pytest.mark.parametrize("workers", [0, 2])
def test_two_paths_to_the_same_place(tmp_path, workers, monkeypatch):
    """One folder of the output leads to another one: the first file's name gets its own pixels, or nobody's.

    The plan tells them apart; here it does not see it, as it would not see a link that is made after it looked.
    """
    monkeypatch.setattr(Landing, "of", lambda self, path: path)
    monkeypatch.setattr(job_module, "Publisher", Publisher)
    source, out = tmp_path / "in", tmp_path / "out"
    images = {name: made.of(made.noise((1, 8, 8), "u2", seed=seed)) for seed, name in enumerate("abc")}
    for name, image in images.items():
        (source / name).mkdir(parents=True)
        image.write(source / name / "x.dcm")
    (out / "a").mkdir(parents=True)
    (out / "b").symlink_to("a")
    (out / "c").symlink_to(out / "a")
    job = Job((source,), out, target(find("rle")), journal=place_of(out), durability="shard", jobs=1, workers=workers)
    watcher = Records()
    run(job, watcher)
    done = [record for record in watcher.records if record.status == "encoded"]
    assert [record.reason for record in watcher.records if record not in done] == ["destination-exists"] * 2
    [record] = done
    written = (out / "a" / "x.dcm").read_bytes()
    assert xxh3_128(written).hexdigest() == record.output_digest
    pixels = {name: pydicom.dcmread(source / name / "x.dcm").pixel_array.tobytes() for name in images}
    assert len(set(pixels.values())) == 3
    assert pydicom.dcmread(out / "a" / "x.dcm").pixel_array.tobytes() == pixels[Path(record.source).parent.name]
    assert not list(tmp_path.rglob("*gpuenc-tmp"))
