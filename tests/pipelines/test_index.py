"""The index: built once, opened without a look at the files, true to them or a named error, used by many processes."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import warnings
from dataclasses import replace

import numpy as np
import pytest

import gpuenc
from gpuenc.errors import IndexMismatch, InvalidOption
from gpuenc.pipelines import indexing, reading, records
from tests import made
from tests.pipelines.test_dataset import cine


@pytest.fixture
def archive(tmp_path):
    """Return a folder of three files with eight frames, and where its index is to be."""
    folder = tmp_path / "archive"
    (folder / "b").mkdir(parents=True)
    cine(folder / "a.dcm")
    made.of(made.noise((2, 4, 6)), elements=(made.Element(0x00080060, "CS", "CT"),)).write(folder / "b" / "b.dcm")
    made.of(made.noise((1, 4, 6))).write(folder / "c.dcm")
    return folder, folder / "frames.index"


@pytest.fixture
def looked(monkeypatch):
    """Return the names of the files that were read for an index."""
    names = []
    real = records.look
    monkeypatch.setattr(records, "look", lambda path, tags: names.append(os.path.basename(path)) or real(path, tags))
    return names


def code(function, *arguments, **options):
    with pytest.raises(IndexMismatch) as caught:
        function(*arguments, **options)
    return caught.value.code


def test_opening_again_reads_no_file(archive, looked, monkeypatch):
    folder, index = archive
    with gpuenc.FrameDataset(folder, index=index, columns=("Modality",)) as frames:
        first = [one["image"] for one in frames]
    assert looked == ["a.dcm", "c.dcm", "b.dcm"]
    monkeypatch.setattr(indexing.listing, "files", None)
    with gpuenc.FrameDataset(folder, index=index) as frames:  # fewer columns are there too
        assert len(looked) == 3
        assert len(frames) == 8
        assert "Modality" not in frames[0]
        for number in reversed(range(8)):
            assert np.array_equal(frames[number]["image"], first[number])


def test_all_that_is_known_survives_the_file(archive):
    folder, index = archive
    transform = (made.Element(0x00281050, "DS", "40\\80"), made.Element(0x00281051, "DS", "400\\1500"),
                 made.Element(0x00281053, "DS", "2.5"), made.Element(0x00281056, "CS", "SIGMOID"))  # fmt: skip
    made.embedded_overlays(made.noise((2, 4, 6), "u2", 12), {14: made.noise((2, 4, 6), "u1", 1)}).write(folder / "d")
    made.compressed([[b"ab", b"cdef"], [b"gh"]], rows=4, columns=6, elements=transform).write(folder / "e")
    with gpuenc.FrameDataset(folder, index=index) as kept, gpuenc.FrameDataset(folder) as memory:
        expected = [one for one in memory._index.records() if one.seen.path != str(index)]
        assert list(kept._index.records()) == expected
        assert {(kept[n]["source"], kept[n]["frame"]) for n in range(8)} >= {(str(folder / "a.dcm"), 4)}
        assert expected[-2].firsts or expected[-1].firsts or expected[2].firsts


@pytest.mark.parametrize("how", ["longer", "touched", "replaced", "gone"])
def test_a_file_that_is_not_as_it_was_is_a_named_error(archive, how):
    folder, index = archive
    gpuenc.FrameDataset(folder, index=index).close()
    path = folder / "a.dcm"
    frames = gpuenc.FrameDataset(folder, index=index)
    if how == "replaced":
        cine(folder / "new", count=4)
        os.replace(folder / "new", path)
    elif how == "gone":
        path.unlink()
    elif how == "longer":
        data = path.read_bytes()
        path.write_bytes(data + b"\0\0")
        os.utime(path, ns=(0, frames._index.find(0)[0].seen.mtime_ns))
    else:
        os.utime(path, ns=(0, 10**9))
    assert code(frames.__getitem__, 0) == "index-stale"
    assert frames[5]["image"].shape == (4, 6)  # the others are read
    assert list(frames.stale()) == [(str(path), "gone" if how == "gone" else "changed")]
    frames.close()


def test_a_file_that_changes_while_it_is_open_is_noticed(archive):
    folder, index = archive
    with gpuenc.FrameDataset(folder, index=index) as frames:
        assert frames[0]["image"].size
        with (folder / "a.dcm").open("r+b") as file:
            file.seek(-20, os.SEEK_END)
            file.write(b"\0")
        assert code(frames.__getitem__, 1) == "index-stale"


def test_a_deflated_file_that_changes_while_it_is_open_is_noticed(archive):
    folder, index = archive
    path = folder / "a.dcm"
    made.of(made.noise((2, 4, 6)), syntax=made.DEFLATED).write(path)
    with gpuenc.FrameDataset(path, index=index) as frames:
        assert frames[0]["image"].size
        os.utime(path, ns=(0, 10**9))
        assert code(frames.__getitem__, 1) == "index-stale"


def test_a_deflated_file_is_read_from_where_it_was_checked(archive, monkeypatch):
    """Another file gets its name in between."""
    folder, index = archive
    path = folder / "a.dcm"
    old, new = made.noise((2, 4, 6)), made.noise((2, 4, 6)) ^ 1
    made.of(old, syntax=made.DEFLATED).write(path)
    made.of(new, syntax=made.DEFLATED).write(folder / "new")
    right = reading.Files._file

    def replaced(files, record):
        file = right(files, record)
        os.replace(folder / "new", path)
        return file

    with gpuenc.FrameDataset(path, index=index) as frames:
        monkeypatch.setattr(reading.Files, "_file", replaced)
        assert np.array_equal(frames[1]["image"], old[1])


def test_rebuilding_reads_only_what_changed(archive, looked):
    folder, index = archive
    (folder / "notes.txt").write_text("no image")
    gpuenc.FrameDataset(folder, index=index).close()
    looked.clear()
    before = index.stat().st_mtime_ns
    gpuenc.FrameDataset(folder, index=index, on_stale="rebuild").close()
    assert (looked, index.stat().st_mtime_ns) == ([], before)  # nothing changed: it stays as it is
    samples = cine(folder / "a.dcm", count=3)
    made.of(made.noise((2, 4, 6))).write(folder / "new.dcm")
    (folder / "c.dcm").unlink()
    with gpuenc.FrameDataset(folder, index=index, on_stale="rebuild") as frames:
        assert sorted(looked) == ["a.dcm", "new.dcm"]
        assert len(frames) == 3 + 2 + 2
        assert np.array_equal(frames[2]["image"], samples[2])
        assert [path for path, _, _ in frames.left_out] == [str(folder / "notes.txt")]
        assert list(frames.stale()) == []


def test_an_index_for_something_else_is_a_named_error(archive, looked):
    folder, index = archive
    gpuenc.FrameDataset(folder, index=index, columns=("Modality",)).close()
    assert code(gpuenc.FrameDataset, folder / "b", index=index) == "index-differs"
    assert code(gpuenc.FrameDataset, folder, index=index, columns=("PatientID",)) == "index-differs"
    with gpuenc.FrameDataset(folder, index=index, columns=("PatientName",), on_stale="rebuild") as frames:
        assert frames[0]["PatientName"] == "SECRET^PATIENT"
    with gpuenc.FrameDataset(folder, index=index, columns=("PatientName", "Modality")) as frames:
        assert frames[6]["Modality"] in ("CT", "OT")
    with pytest.raises(InvalidOption):
        gpuenc.FrameDataset(folder, index=index, on_stale="ignore")


def test_what_is_no_index_is_never_written_over(archive):
    folder, index = archive
    with sqlite3.connect(index) as other:
        other.execute("CREATE TABLE about (key TEXT, value TEXT)")
    other.close()
    for content in (b"", b"text of somebody", index.read_bytes()):
        index.write_bytes(content)
        for on_stale in ("error", "rebuild"):
            assert code(gpuenc.FrameDataset, folder, index=index, on_stale=on_stale) == "index-unusable"
        assert index.read_bytes() == content


def test_a_damaged_index_is_a_named_error(archive):
    folder, index = archive
    gpuenc.FrameDataset(folder, index=index).close()
    whole = index.read_bytes()
    found = set()
    for cut in range(100, len(whole), 2048):
        index.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        try:
            with gpuenc.FrameDataset(folder, index=index) as frames:
                assert [one["index"] for one in frames] == list(range(8))
        except IndexMismatch as error:
            found.add(error.code)
    assert found == {"index-unusable"}


def test_a_build_that_fails_leaves_nothing(archive, monkeypatch):
    folder, index = archive
    real = records.look

    def killed(path, tags):
        if path.endswith("b.dcm"):
            raise KeyboardInterrupt
        return real(path, tags)

    before = sorted(folder.iterdir())
    monkeypatch.setattr(records, "look", killed)
    with pytest.raises(KeyboardInterrupt):
        gpuenc.FrameDataset(folder, index=index)
    assert sorted(folder.iterdir()) == before


def test_an_index_that_was_replaced_is_not_mixed_with_the_old_one(archive):
    folder, index = archive
    one = gpuenc.FrameDataset(folder, index=index)
    assert one[0]["image"].size
    made.of(made.noise((2, 4, 6))).write(folder / "0.dcm")  # comes before all others
    gpuenc.FrameDataset(folder, index=index, on_stale="rebuild").close()
    assert one[7]["source"] == str(folder / "b" / "b.dcm")  # still the old one, which is open
    one.close()
    assert code(one.__getitem__, 0) == "index-stale"
    index.unlink()
    assert code(one.__getitem__, 0) == "index-stale"
    one.close()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_the_same_frames(archive, start, kept):
    folder, index = archive
    made.of(made.noise((2, 4, 6)), syntax=made.DEFLATED).write(folder / "d.dcm")
    with gpuenc.FrameDataset(folder, index=index if kept else None, threads=2) as frames:
        expected = frames.__getitems__(range(10))  # everything is open, threads are there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is meant here
            with multiprocessing.get_context(start).Pool(3) as pool:
                numbers = [*range(10), *reversed(range(10))]
                for one in pool.imap_unordered(frames.__getitem__, numbers, chunksize=1):
                    assert np.array_equal(one["image"], expected[one["index"]]["image"])
        assert np.array_equal(frames[3]["image"], expected[3]["image"])


def test_a_forked_child_has_handles_of_its_own(archive):
    folder, index = archive
    frames = gpuenc.FrameDataset(folder, index=index, threads=1)
    assert frames[0]["image"].size
    connection, work = frames._index._open, frames._work
    pid = os.fork()
    if not pid:
        ok = frames._index._open is None and frames._work is None and frames[0]["image"].size
        ok = ok and frames._index._open.sqlite is not connection.sqlite and frames._work is not work
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert frames._index._open is connection
    frames.close()


def test_each_file_is_there_once(archive, tmp_path):
    folder, _ = archive
    (folder / "link").symlink_to(folder / "b")
    (folder / "out.gpuenc-tmp").write_bytes((folder / "c.dcm").read_bytes())
    os.symlink(folder / "a.dcm", tmp_path / "alone.dcm")
    with gpuenc.FrameDataset([folder, folder / "b", str(folder / "a.dcm"), tmp_path / "alone.dcm"]) as frames:
        assert len(frames) == 8 + 5
    assert records.from_row(records.to_row(replace(frames._index.find(0)[0]))) == frames._index.find(0)[0]
