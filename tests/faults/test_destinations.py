"""Destinations that fill up, turn read-only or vanish, and sources that do, in the middle of a job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from gpuenc.archive import transcode as transcode_module
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.request import Job
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records
from tests.faults.jobs import ROOT
from tests.faults.sources import stamps, tree

IMAGE = made.of(made.noise((2, 128, 128), "u2"))
FILES = 20


@pytest.fixture
def archive(tmp_path):
    for number in range(FILES):
        folder = tmp_path / "in" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        made.of(made.noise((2, 128, 128), "u2", seed=number)).write(folder / f"{number:02}")
    return tmp_path / "in"


def job_of(archive, out, **options):
    return Job((archive,), out, target(find("rle")), journal=place_of(out), **options)


def expected(archive, tmp_path):
    run(replace(job_of(archive, tmp_path / "expected"), journal=None), Records())
    return tree(tmp_path / "expected")


class After(Records):
    """Does something once, when so many files are done."""

    def __init__(self, files, action):
        super().__init__()
        self.files_before, self.action = files, action

    def done(self, record):
        super().done(record)
        if len(self.records) == self.files_before:
            self.action()


SMALL_DISK = """
set -e
mount -t tmpfs -o size=1m tmpfs "$1"
gpuenc() { "$3" -m gpuenc transcode "$2" -o "$1" --to rle --jobs 1 --workers 1 "${@:4}"; }
set +e
gpuenc "$1" "$2" "$3" --reserve "$5"; first=$?
left=$(stat -f -c '%a' "$1")
find "$1" -name '*gpuenc-tmp' | wc -l > "$4/temporary"
mount -o remount,size=64m "$1"
gpuenc "$1" "$2" "$3" --resume --reserve 0; second=$?
cp -r "$1" "$4/copy"
echo "$first $second $left" > "$4/codes"
"""


@pytest.mark.parametrize("reserve", [0])
def test_a_disk_that_fills_up(archive, tmp_path, reserve):
    """The job ends with 4, and goes on where it was once there is room."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) here")
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*alone, "sh", "-c", f"mount -t tmpfs tmpfs {tmp_path}"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    out, result = tmp_path / "out", tmp_path / "result"
    out.mkdir()
    result.mkdir()
    done = subprocess.run(
        [*alone, "bash", "-c", SMALL_DISK, "bash", out, archive, sys.executable, result, str(reserve)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, _ = (result / "codes").read_text().split()
    assert (first, second) == ("4", "0"), done.stderr
    assert (result / "temporary").read_text().strip() == "0"
    assert tree(result / "copy") == expected(archive, tmp_path)


def test_the_reserve_is_left_alone(archive, tmp_path, monkeypatch):
    """The job stops while there still is more than the reserve, and with each file begun accounted for."""
    free = [FILES * len(IMAGE.file())]
    monkeypatch.setattr("gpuenc.archive.job._free_bytes", lambda _: free[0])
    out = tmp_path / "out"

    class Filling(Records):
        def done(self, record):
            super().done(record)
            free[0] -= record.bytes_in
            assert free[0] >= reserve

    reserve = FILES * len(IMAGE.file()) // 2
    watcher = Filling()
    summary = run(job_of(archive, out, jobs=3, reserve_bytes=reserve), watcher)
    assert summary.stopped == "disk-full"
    assert 0 < summary.done < FILES
    free[0] = 1 << 40
    assert run(job_of(archive, out, resume=True, reserve_bytes=reserve), Records()).done == FILES
    assert tree(out) == expected(archive, tmp_path)


def test_a_folder_of_the_destination_that_is_removed(archive, tmp_path):
    out = tmp_path / "out"
    summary = run(job_of(archive, out), After(12, lambda: shutil.rmtree(out / "a")))
    assert summary.done == FILES
    summary = run(job_of(archive, out, resume=True), Records())
    assert (summary.done, summary.files["encoded"]) == (FILES, FILES)
    assert tree(out) == expected(archive, tmp_path)


def test_a_destination_that_turns_read_only(archive, tmp_path):
    """Each file that cannot be written fails by itself; all are done once they can be."""
    out = tmp_path / "out"

    def lock():
        shutil.rmtree(out / "b", ignore_errors=True)
        (out / "b").write_bytes(b"in the way")

    watcher = After(3, lock)
    summary = run(job_of(archive, out), watcher)
    assert summary.files["failed"] >= FILES // 2 - 1
    assert {record.reason for record in watcher.records if record.status == "failed"} == {"destination-unwritable"}
    (out / "b").unlink()
    assert run(job_of(archive, out, resume=True), Records()).files["encoded"] == FILES
    assert tree(out) == expected(archive, tmp_path)


def test_sources_that_vanish(archive, tmp_path):
    before = stamps(archive)
    watcher = After(2, lambda: (archive / "b" / "19").unlink())
    summary = run(job_of(archive, tmp_path / "out"), watcher)
    assert summary.done == FILES
    assert [record.reason for record in watcher.records if record.status == "failed"] == ["unreadable-source"]
    del before["b/19"]
    assert stamps(archive) == before


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (lambda path: path.write_bytes(IMAGE.file()), {"source-changed"}),
        (lambda path: os.utime(path, ns=(1, 1)), {"source-changed"}),
        (lambda path: os.truncate(path, 20_000), {"source-changed", "truncated"}),
        (lambda path: path.open("ab").close() or os.truncate(path, 10**6), {"source-changed"}),
    ],
)
@pytest.mark.parametrize("kind", ["encoded", "copied"])
def test_sources_that_change_while_they_are_read(tmp_path, monkeypatch, change, reasons, kind):
    """No output of what never was on the disk at one time."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a"
    path.write_bytes(IMAGE.file() if kind == "encoded" else made.float_pixels().file() + bytes(3 << 20))
    os.utime(path, ns=(10**18, 10**18))
    changed = []

    def once():
        if not changed:
            changed.append(change(path))

    right_put, right_copy = transcode_module.OutputFile.put, transcode_module.copy_file

    def put(self, codestream):
        right_put(self, codestream)
        once()

    def copy(*args, check, **options):
        return right_copy(*args, check=lambda: (once(), check()), **options)

    monkeypatch.setattr(transcode_module.OutputFile, "put", put)
    monkeypatch.setattr(transcode_module, "copy_file", copy)
    out = tmp_path / "out"
    watcher = Records()
    run(job_of(tmp_path / "in", out), watcher)
    assert changed
    assert watcher.records[0].reason in reasons
    assert tree(out) == {}
