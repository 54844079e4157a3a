"""What has an indexed file's name by the time its frames are read: noticed, and waited for by nobody."""

from __future__ import annotations

import os
import shutil
import socket
import threading

import numpy as np
import pytest

import gpuenc
from gpuenc.errors import IndexMismatch, JobError, SourceError
from gpuenc.pipelines.webdataset import write_shards
from tests import made
from tests.pipelines.test_webdataset import job

WIDE = made.noise((3, 40, 50), "u2")
OTHER = made.noise((3, 40, 50), "u2") ^ 1


@pytest.fixture(params=["read", "not-read-yet"])
def frames(tmp_path, request):
    """A dataset of one file, whose frame 0 was read, or of which nothing is open."""
    made.of(WIDE).write(tmp_path / "a.dcm")
    with gpuenc.FrameDataset(tmp_path / "a.dcm") as found:
        if request.param == "read":
            assert np.array_equal(found[0]["image"], WIDE[0])
        yield found


def in_time(function, *arguments, **options):
    """Return what it raises; a call that waits for a writer is let go of, and fails."""
    raised = []

    def run():
        try:
            function(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it hangs"
    return raised[0] if raised else None


def stale(frames, match):
    error = in_time(frames.__getitem__, 1)
    assert isinstance(error, IndexMismatch)
    assert error.code == "index-stale"
    assert match in str(error)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe(frames, tmp_path):
    os.unlink(tmp_path / "a.dcm")
    os.mkfifo(tmp_path / "a.dcm")
    stale(frames, "no file")


def test_a_folder_or_a_socket(frames, tmp_path, monkeypatch):
    os.unlink(tmp_path / "a.dcm")
    (tmp_path / "a.dcm").mkdir()
    stale(frames, "no file")
    if hasattr(socket, "AF_UNIX"):
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        (tmp_path / "a.dcm").rmdir()
        with socket.socket(socket.AF_UNIX) as heard:
            heard.bind("a.dcm")
            stale(frames, "no file")


def test_nothing(frames, tmp_path):
    os.unlink(tmp_path / "a.dcm")
    stale(frames, "is gone")


def test_another_file_renamed_over_it(frames, tmp_path):
    made.of(OTHER).write(tmp_path / "b.dcm")
    os.replace(tmp_path / "b.dcm", tmp_path / "a.dcm")
    stale(frames, "changed since")


def test_another_file_of_the_same_size_and_time_is_read_for_what_it_is(frames, tmp_path):
    """Size and time are all that tells; but nobody gets samples of a file that is not there any more."""
    made.of(OTHER).write(tmp_path / "b.dcm")
    shutil.copystat(tmp_path / "a.dcm", tmp_path / "b.dcm")
    os.replace(tmp_path / "b.dcm", tmp_path / "a.dcm")
    assert np.array_equal(frames[1]["image"], OTHER[1])


@pytest.mark.parametrize("image", [made.of(WIDE[:1, :3]), made.of(WIDE, syntax=made.DEFLATED)])
def test_a_smaller_file_copied_over_it_is_not_called_truncated(frames, tmp_path, image):
    image.write(tmp_path / "b.dcm")
    shutil.copyfile(tmp_path / "b.dcm", tmp_path / "a.dcm")
    stale(frames, "changed since")


def test_a_file_cut_while_it_is_read_frame_by_frame(tmp_path):
    """Of syntaxes whose frames have no place of their own too."""
    made.of(WIDE, syntax=made.DEFLATED).write(tmp_path / "a.dcm")
    with gpuenc.FrameDataset(tmp_path / "a.dcm") as frames:
        os.truncate(tmp_path / "a.dcm", 600)
        stale(frames, "changed since")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_pipes_in_place_of_other_files_that_are_read(tmp_path):
    made.of(WIDE).write(tmp_path / "a.dcm")
    os.mkfifo(tmp_path / "pipe")
    error = in_time(gpuenc.FrameDataset, tmp_path / "a.dcm", index=tmp_path / "pipe")
    assert isinstance(error, IndexMismatch)
    assert error.code == "index-unusable"
    error = in_time(gpuenc.write_dicom, tmp_path / "pipe", WIDE, "rle", tmp_path / "out.dcm")
    assert isinstance(error, SourceError)
    (tmp_path / "shards").mkdir()
    os.mkfifo(tmp_path / "shards" / ".gpuenc-shards.json")
    error = in_time(write_shards, job(tmp_path / "a.dcm", tmp_path / "shards", resume=True), threading.Event())
    assert isinstance(error, JobError)
    assert error.code == "journal-unusable"
