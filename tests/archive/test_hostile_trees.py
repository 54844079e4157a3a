"""Trees that are deeper, names that are odder and limits that are lower than anybody would think; folders that go."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.archive.earlier import NO_OUTCOME
from gpuenc.archive.folders import identity, make_folders, make_output_folder
from gpuenc.archive.job import run
from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.request import Job
from gpuenc.dicom import copies, source
from gpuenc.errors import DestinationError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records, transcode

IMAGE = made.of(made.noise((1, 8, 8), "u2"))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(8):
        IMAGE.write(tmp_path / "in" / f"f{number}")
    return tmp_path / "in"


def by_name(records):
    return {Path(record.source).name: (record.status, record.reason) for record in records}


def job_of(study, out, **options):
    return Job((study,), out, target(find("rle")), journal=place_of(out), **options)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def deep(folder, levels, name="d"):
    """Make a folder so many levels down, whatever its path's length, and return a handle."""
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=handle)
        below = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    return handle


def removed(folder):
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.parametrize("in_place", [False, True])
def test_more_levels_than_pythons_stack(tmp_path, in_place):
    top = tmp_path / "in"
    top.mkdir()
    handle = deep(top, 1050)
    os.write(os.open("a", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=handle), IMAGE.file())
    os.close(handle)
    options = {"in_place": True, "backup": tmp_path / "kept"} if in_place else {}
    try:
        records = transcode(top, tmp_path / ("kept" if in_place else "out"), "rle", **options)
        assert by_name(records) == {"a": ("encoded", "")}
        assert os.path.isfile(records[0].destination)
    finally:
        for name in ("in", "out", "kept"):
            removed(tmp_path / name)


def test_paths_that_are_too_long(tmp_path):
    """One that only its output has, and one that the source has."""
    top = tmp_path / "in"
    top.mkdir()
    IMAGE.write(top / "good")
    name, longest = "n" * 200, os.pathconf("/", "PC_PATH_MAX")
    fitting = (longest - 300 - len(str(top))) // 201
    handle = deep(top, fitting, name)
    os.write(os.open("a", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=handle), IMAGE.file())
    os.close(handle)
    handle = deep(top, 30, "m" * 200)
    os.write(os.open("b", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=handle), IMAGE.file())
    os.close(handle)
    out = tmp_path / ("o" * 200) / ("o" * 200) / ("o" * 200)  # so much is never left, however long tmp_path is
    try:
        records = transcode(top, out, "rle")
        found = {record.source[-1]: (record.status, record.reason) for record in records}
        assert found.pop("d") == ("encoded", "")
        assert found.pop("a") == ("failed", "name-too-long")
        assert set(found.values()) == {("failed", "unreadable-source")}  # the folder, which holds nobody knows what
        assert all("too long" in record.message for record in records if record.status == "failed")
        records = transcode(top, tmp_path / "kept", "rle", in_place=True, backup=out)
        assert {record.reason for record in records} == {"", "name-too-long", "unreadable-source"}
    finally:
        removed(top)


def test_names(tmp_path):
    """No name means anything but itself."""
    top = tmp_path / "in"
    top.mkdir()
    names = [
        b"-rf", b"--to", b"new\nline", b"\xff\xfe", b"n" * 255, b"Twin", b"twin", b" ", b"\x1b[2J", b"a\\b", b"~",
        b"$(x)", b"[bold]", b"%s", b"*", "e\u0301".encode(), "\u00e9".encode(), b"con", b"a:b", b"..a", b"...",
    ]  # fmt: skip
    for name in names:
        (top / os.fsdecode(name)).write_bytes(IMAGE.file())
    (top / "loop").symlink_to("loop")
    (top / "up").symlink_to("..")
    os.link(top / "twin", top / "hard")
    found = by_name(transcode(top, tmp_path / "out", "rle", jobs=3))
    assert {name: found.pop(os.fsdecode(name)) for name in names} == dict.fromkeys(names, ("encoded", ""))
    assert found == {
        "loop": ("failed", "unreadable-source"),
        "up": ("skipped", "symbolic-link"),
        "hard": ("encoded", ""),
    }
    assert {os.fsencode(name) for name in os.listdir(tmp_path / "out")} == {*names, b"hard"}


def test_what_is_in_the_way_stays(study, tmp_path):
    out = tmp_path / "out"
    (out / "f0").mkdir(parents=True)
    (out / "f1").symlink_to(study / "f1")
    (out / "f2").symlink_to("nowhere")
    (out / "f3").write_bytes(b"mine")
    found = by_name(transcode(study, out, "rle"))
    assert {found[f"f{number}"] for number in range(4)} == {("skipped", "destination-exists")}
    found = by_name(transcode(study, out, "rle", overwrite=True))
    assert found["f0"] == ("failed", "destination-unwritable")
    assert {found[f"f{number}"] for number in range(1, 8)} == {("encoded", "")}
    assert not (out / "f1").is_symlink()
    assert [path.read_bytes() for path in sorted(study.iterdir())] == [IMAGE.file()] * 8
    assert not list(tmp_path.rglob("*gpuenc-tmp"))


class Then(Records):
    """Does something once, when so many files are done."""

    def __init__(self, count, action):
        super().__init__()
        self._count, self._action = count, action

    def done(self, record):
        super().done(record)
        if len(self.records) == self._count:
            self._action()


def deleted(out):
    while out.exists():  # others make files there meanwhile
        shutil.rmtree(out, ignore_errors=True)


def moved(out):
    out.rename(out.with_name("elsewhere"))


def replaced(out):
    moved(out)
    out.mkdir()
    (out / ".gpuenc").mkdir()


@pytest.mark.parametrize("lose", [deleted, moved, replaced])
@pytest.mark.parametrize("done", [2, 8])
def test_a_destination_that_goes(study, tmp_path, lose, done):
    """Also after the last file: what was reported is not there any more."""
    out = tmp_path / "out"
    watcher = Then(done, lambda: lose(out))
    summary = run(job_of(study, out), watcher)
    assert summary.stopped == "destination-lost"
    assert {record.reason for record in watcher.records[done + 1 :]} <= {"destination-lost"}
    assert not out.exists() or files(out) == []
    assert not list(tmp_path.rglob("*gpuenc-tmp"))
    if lose is moved:
        (tmp_path / "elsewhere").rename(out)
        assert run(job_of(study, out, resume=True), Records()).files == {"encoded": 8}
        assert files(out)[-8:] == [f"f{number}" for number in range(8)]


def test_a_destination_that_goes_while_a_file_is_in_work(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    out.mkdir()
    was = identity(out)
    make_output_folder(out / "a" / "b", out, was)
    assert (out / "a" / "b").is_dir()
    out.rename(tmp_path / "gone")
    out.symlink_to(other)
    with pytest.raises(DestinationError) as caught:
        make_output_folder(out / "c", out, was)
    assert caught.value.code == "destination-lost"
    assert not list(other.iterdir())


def test_folders_are_made_by_several_at_once(tmp_path, monkeypatch):
    right = os.mkdir

    def late(path, *more):
        right(path, *more)
        raise FileExistsError(errno.EEXIST, "another one was faster")

    monkeypatch.setattr("os.mkdir", late)
    assert make_folders(tmp_path / "a" / "b") == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_folders(tmp_path / "file" / "x")


@pytest.mark.parametrize("workers", ["0", "3"])
def test_few_open_files(study, tmp_path, workers):
    resource = pytest.importorskip("resource")
    command = [sys.executable, "-m", "gpuenc", "transcode", study, "-o", tmp_path / "out", "--to", "rle"]
    command += ["--jobs", "30", "--workers", workers]

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))

    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=100, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(files(tmp_path / "out")) >= 8


@pytest.mark.parametrize("kind", ["encoded", "copied"])
@pytest.mark.parametrize("at", [0, 1, 60_000, 5_000_000])
def test_a_disk_that_cannot_read_on(tmp_path, monkeypatch, kind, at):
    """EIO in the middle of a file."""

    class Worn(io.FileIO):
        def _demand(self, count):
            if self.tell() + count > at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        def read(self, count=-1):
            self._demand(count if count > 0 else 1 << 30)
            return super().read(count)

        def readinto(self, view):
            self._demand(len(view))
            return super().readinto(view)

        def readall(self):
            self._demand(1 << 30)

    (tmp_path / "in").mkdir()
    image = made.of(made.noise((1, 1600, 2000), "u2")).file() if kind == "encoded" else made.float_pixels().file()
    (tmp_path / "in" / "a").write_bytes(image + bytes(0 if kind == "encoded" else 6 << 20))
    right = open

    def opened(path, mode="r", *args, opener=None, **options):
        if "/in/" in os.fspath(path) and mode == "rb":
            return Worn(path, "rb", opener=opener)
        return right(path, mode, *args, opener=opener, **options)

    monkeypatch.setattr(source, "open", opened, raising=False)
    monkeypatch.setattr(copies, "open", opened, raising=False)
    [record] = transcode(tmp_path / "in", tmp_path / "out", "rle")
    assert (record.status, record.reason) == ("failed", "unreadable-source")
    assert os.strerror(errno.EIO) in record.message
    assert files(tmp_path / "out") == []


def test_what_was_replaced_and_not_written_down_is_compared(study, tmp_path):
    """A kill between replacing a source and its outcome; its record is the one that it would have had."""
    backup = tmp_path / "kept"
    job = replace(job_of(study, backup), in_place=True, backup=backup)
    first = Records()
    run(job, first)

    def forget():
        db = Journal(job.journal, job.absolute().about(), resume=True)
        db._db.execute(f"UPDATE files SET state = 1, ours = 0, {NO_OUTCOME}")
        db.commit()
        db._db.close()

    forget()
    again = Records()
    run(replace(job, resume=True), again)
    names = ("status", "destination", "frames", "bytes_in", "bytes_out", "pixel_bytes", "verified", "crc32",
             "source_digest", "output_digest", "source_mtime_ns", "output_mtime_ns")  # fmt: skip
    for before, after in zip(
        *(sorted(each.records, key=lambda record: record.source) for each in (first, again)), strict=True
    ):
        assert {name: getattr(after, name) for name in names} == {name: getattr(before, name) for name in names}
        assert after.crc32
    # What is not the backup's is no outcome of ours.
    (study / "f3").write_bytes(made.of(made.noise((1, 8, 8), "u2", seed=5)).file())
    other = tmp_path / "other"
    transcode(study / "f3", other, "rle")
    shutil.copy(other / "f3", study / "f3")
    forget()
    last = Records()
    run(replace(job, resume=True), last)
    assert by_name(last.records)["f3"] == ("failed", "verify-mismatch")


def test_room_is_measured_on_every_disk_that_is_written(study, tmp_path, monkeypatch):
    """The disk of the sources is full, that of the backup is not."""
    asked = []

    def free_bytes(folder):
        asked.append(folder)
        return 0 if folder.is_relative_to(study) else 1 << 40

    monkeypatch.setattr("gpuenc.archive.job._free_bytes", free_bytes)
    monkeypatch.setattr(
        "gpuenc.archive.job.identity",
        lambda path: (1 if Path(path).is_relative_to(study) else 2, os.stat(path).st_ino),
    )
    backup = tmp_path / "kept"
    job = replace(job_of(study, backup, reserve_bytes=1), in_place=True, backup=backup)
    summary = run(job, Records())
    assert (summary.stopped, summary.done) == ("disk-full", 0)
    assert set(asked) == {study, backup}
    assert {path.read_bytes() for path in study.iterdir()} == {IMAGE.file()}
