"""What is found below the sources, where it goes, and what is said of what is left out."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from gpuenc.archive.scan import scan
from tests import made
from tests.archive.watcher import transcode

IMAGE = made.of(made.noise((1, 8, 8), "u2"))


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name in ("c.dcm", "b/d.dcm", "a.dcm"):
        IMAGE.write(tmp_path / "in" / name)
    return tmp_path / "in"


def found(*sources, out, **options):
    return [
        (item.source, item.destination, item.left_out and item.left_out.code) for item in scan(sources, out, **options)
    ]


def test_name_order_and_mirrored_places(source, tmp_path):
    out = tmp_path / "out"
    assert found(source, out=out) == [
        (source / "a.dcm", out / "a.dcm", None),
        (source / "b" / "d.dcm", out / "b" / "d.dcm", None),
        (source / "c.dcm", out / "c.dcm", None),
    ]
    assert [place for _, place, _ in found(source / "b", source / "a.dcm", out=out)] == [
        out / "b" / "d.dcm",
        out / "a.dcm",
    ]


def test_relative_sources(source, tmp_path, monkeypatch):
    monkeypatch.chdir(source)
    out = tmp_path / "out"
    places = [out / "a.dcm", out / "b" / "d.dcm", out / "c.dcm"]
    assert [place for _, place, _ in found(Path(), out=out)] == places
    monkeypatch.chdir(source / "b")
    assert [place for _, place, _ in found(Path(".."), out=out)] == places
    assert [place for _, place, _ in found(Path(".."), Path(), out=out)] == [
        *(out / "in" / place.relative_to(out) for place in places),
        out / "b" / "d.dcm",
    ]


def test_links(source, tmp_path):
    outside = IMAGE.write(tmp_path / "outside.dcm")
    (source / "inside").symlink_to(source / "a.dcm")
    (source / "relative").symlink_to("b/d.dcm")
    (source / "out of the tree").symlink_to(outside)
    (source / "folder").symlink_to(source / "b")
    (source / "loop").symlink_to(source / "loop")
    (source / "b" / "up").symlink_to(source)
    (source / "to nothing").symlink_to(source / "gone")
    codes = {path.relative_to(source).as_posix(): code for path, _, code in found(source, out=tmp_path / "out")}
    assert codes == {
        "a.dcm": None,
        "b/d.dcm": None,
        "c.dcm": None,
        "inside": None,
        "relative": None,
        "b/up": "symbolic-link",
        "folder": "symbolic-link",
        "out of the tree": "symbolic-link",
        "loop": "unreadable-source",
        "to nothing": "unreadable-source",
    }
    records = {Path(record.source).name: record for record in transcode(source, tmp_path / "out")}
    assert {name: record.status for name, record in records.items() if name not in ("a.dcm", "c.dcm", "d.dcm")} == {
        "inside": "encoded",
        "relative": "encoded",
        "up": "skipped",
        "folder": "skipped",
        "out of the tree": "skipped",
        "loop": "failed",
        "to nothing": "failed",
    }
    assert all(record.message for record in records.values() if record.status != "encoded")


def test_what_is_neither_file_nor_folder(source, tmp_path):
    os.mkfifo(source / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(source)  # the path of a socket must be short
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        codes = {path.name: code for path, _, code in found(source, out=tmp_path / "out")}
        assert (codes["fifo"], codes["socket"]) == ("not-a-file", "not-a-file")
        statuses = {Path(record.source).name: record.status for record in transcode(source, tmp_path / "out")}
    assert (statuses["fifo"], statuses["socket"], statuses["a.dcm"]) == ("skipped", "skipped", "encoded")
    (record,) = transcode(source / "fifo", tmp_path / "out")
    assert (record.status, record.reason) == ("skipped", "not-a-file")


def test_destination_report_and_unfinished_outputs_are_no_sources(source, tmp_path):
    (source / "out").mkdir()
    IMAGE.write(source / "out" / "x.dcm")
    (source / "report.jsonl").write_text("")
    (source / ".y.dcm.123.gpuenc-tmp").write_bytes(b"")
    paths = found(source, out=source / "out", without=source / "report.jsonl")
    assert [(path.name, code) for path, _, code in paths] == [
        (".y.dcm.123.gpuenc-tmp", "unfinished-output"),
        ("a.dcm", None),
        ("d.dcm", None),
        ("c.dcm", None),
    ]


def test_a_folder_that_cannot_be_read_is_told(source, tmp_path, monkeypatch):
    right = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return right(path)

    monkeypatch.setattr(os, "scandir", scandir)
    records = transcode(source, tmp_path / "out")
    assert [(Path(record.source).name, record.status, record.reason) for record in records] == [
        ("a.dcm", "encoded", ""),
        ("b", "failed", "unreadable-source"),
        ("c.dcm", "encoded", ""),
    ]
    assert "Permission denied" in records[1].message


def test_deeper_than_python_recurses(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(os.open("x.dcm", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    finally:
        os.close(here)
    try:
        ((path, _, _),) = found(folder, out=tmp_path / "out")
        assert path.parts.count("d") == 1200
    finally:
        # pytest itself recurses when it clears old folders away.
        subprocess.run(["rm", "-rf", folder], check=True)


def test_the_same_source_twice_is_one(source, tmp_path):
    out = tmp_path / "out"
    link = tmp_path / "link"
    link.symlink_to(source / "a.dcm")
    assert len(found(source, source, out=out)) == 3
    assert len(found(source / "a.dcm", source / "a.dcm", out=out)) == 1
    assert len(found(source / "a.dcm", link, out=out)) == 2  # two names, two outputs


def test_files_that_vanish_or_cannot_be_read(source, tmp_path, monkeypatch):
    from gpuenc.archive import planner

    right = planner.scan

    def scan_then_lose(*args, **options):
        items = list(right(*args, **options))
        (source / "a.dcm").unlink()
        (source / "c.dcm").unlink()
        (source / "c.dcm").mkdir()
        return iter(items)

    monkeypatch.setattr(planner, "scan", scan_then_lose)
    records = transcode(source, tmp_path / "out")
    assert [(record.status, record.reason) for record in records] == [
        ("failed", "unreadable-source"),
        ("encoded", ""),
        ("failed", "unreadable-source"),
    ]
    assert "No such file" in records[0].message
