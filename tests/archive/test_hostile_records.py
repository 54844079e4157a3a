"""Manifests, journals and reports that were not written by gpuenc: a clear error, and nothing lands elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3

import pytest

from gpuenc.archive.manifest import Writer
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.test_cli import gpuenc

IMAGE = made.of(made.noise((1, 8, 8), "u2"))
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def study(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        IMAGE.write(tmp_path / "in" / name)
    return tmp_path / "in"


def plan(study, out, path):
    """Write a manifest as `gpuenc plan` does, without trying what would become of the files."""
    with path.open("wb") as stream:
        writer = Writer(stream, Job((study,), out, target(find("rle"))))
        for name in ("a", "b"):
            writer.add(Item(study / name, out / name), 9)
        writer.finish()


def refused(*args):
    """Run the command; return what it says, which is one line."""
    code, out, err = gpuenc(*args)
    assert code in (2, 3, 4), (code, out, err)
    assert "Traceback" not in err
    [line] = err.strip().splitlines()
    assert len(line) < 1000
    return line


def job_with(**fields):
    return lambda job, shard, end: [{**job, "job": {**job["job"], **fields}}, shard, end]


def shard_with(files, **more):
    return lambda job, shard, end: [job, {**shard, "files": files, **more}, end]


def entry(*values):
    return lambda job, shard, end: [job, {**shard, "files": [list(values), *shard["files"][1:]]}, end]


MANIFESTS = {
    "sources are numbers": job_with(sources=[1]),
    "sources are no list": job_with(sources=5),
    "sources are text": job_with(sources="in"),
    "NUL in a source": job_with(sources=["a\0b"]),
    "NUL in the output": job_with(output="a\0b"),
    "the output is a number": job_with(output=3),
    "the output is relative": job_with(output="out"),
    "no such syntax": job_with(to="1.2.3"),
    "the syntax is a list": job_with(to=[]),
    "options are a list": job_with(options=[]),
    "an unknown option": job_with(options={"x": 1, "psnrs": [], "ratios": []}),
    "a quality of text": job_with(options={"quality": "x", "psnrs": [], "ratios": [], "near": 0, "lossless": None}),
    "PSNR of text": job_with(options={"quality": None, "psnrs": ["x"], "ratios": [], "near": 0, "lossless": None}),
    "a huge near": job_with(options={"quality": None, "psnrs": [], "ratios": [], "near": 1 << 80, "lossless": None}),
    "verify is a number": job_with(verify=7),
    "no such verification": job_with(verify="perhaps"),
    "a share of text": job_with(verify_share="all"),
    "a share of ten": job_with(verify_share=10),
    "in_place is text": job_with(in_place="no"),
    "overwrite is a list": job_with(overwrite=[]),
    "a plug-in is a number": job_with(plugin=5),
    "the backup is a number": job_with(backup=5),
    "a job is missing": lambda job, shard, end: [{"gpuenc_manifest": 1, "x": 0}, shard, end],
    "a job is a list": lambda job, shard, end: [{"gpuenc_manifest": 1, "job": []}, shard, end],
    "files are a number": shard_with(5),
    "files are numbers": shard_with([5]),
    "files are text": shard_with("abc"),
    "an entry is short": shard_with([["a"]]),
    "an entry is long": shard_with([["a", "b", 1, "skipped", "x", "y", "z"]]),
    "an entry is an object": shard_with([{"a": 1, "b": 2, "c": 3}]),
    "a source is a number": entry(5, "a", 9),
    "a source is relative": entry("a", "a", 9),
    "a source with NUL": entry("/a\0b", "a", 9),
    "a place is a number": entry("/a", 5, 9),
    "a place with NUL": entry("/a", "a\0b", 9),
    "a place is absolute": entry("/a", "/tmp/elsewhere", 9),
    "a place leads out": entry("/a", "../../elsewhere", 9),
    "a place leads out below": entry("/a", "x/../../elsewhere", 9),
    "the place is the output": entry("/a", ".", 9),
    "no place": entry("/a", "", 9),
    "a size is text": entry("/a", "a", "9"),
    "a size is negative": entry("/a", "a", -9),
    "another shard": lambda job, shard, end: [job, {**shard, "shard": 7}, end],
    "shards are text": lambda job, shard, end: [job, shard, {**end, "shards": "one"}],
    "the last line is a list": lambda job, shard, end: [job, shard, ["shards"]],
}  # fmt: skip


@pytest.mark.parametrize("how", MANIFESTS)
@pytest.mark.parametrize("command", ["transcode", "merge-reports"])
def test_manifests(study, tmp_path, monkeypatch, how, command):
    manifest, report = tmp_path / "m", tmp_path / "r.jsonl"
    out = tmp_path / "out" / "deeper"
    plan(study, out, manifest)
    lines = MANIFESTS[how](*map(json.loads, manifest.read_text().splitlines()))
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "cwd").mkdir()
    before = sorted(os.listdir(tmp_path))
    monkeypatch.chdir(tmp_path / "cwd")
    if command == "transcode":
        refused("transcode", "--manifest", manifest, "--workers", "0")
    else:
        record = {"source": "x", "status": "failed", "reason": "not-dicom"}
        report.write_text(json.dumps(record) + "\n")
        refused("merge-reports", report, "-o", tmp_path / "all", "--manifest", manifest)
        before = sorted([*before, "r.jsonl"])
    assert set(os.listdir(tmp_path)) - set(before) <= {"out"}
    assert not os.listdir(tmp_path / "cwd")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name not in ("deeper", ".gpuenc")
                and path.parent.name != ".gpuenc"]  # fmt: skip


LINES = {
    "deep": DEEP,
    "a huge number": "1" * 10_000,
    "a float beyond all": '{"gpuenc_manifest": 1, "job": 1e9999}',
    "no UTF-8": "\udcff\udcfe",
    "NUL": "\0" * 100,
    "nothing": "",
}


@pytest.mark.parametrize("what", LINES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_lines_of_manifests(study, tmp_path, what, place):
    manifest = tmp_path / "m"
    plan(study, tmp_path / "out", manifest)
    lines = manifest.read_text().splitlines()
    begin, end = {
        0: ('{"gpuenc_manifest": 1, "job": ', "}"),
        1: ('{"shard": 0, "files": ', "}"),
        2: ('{"files": ', "}"),
    }[place]
    lines[place] = f"{begin}{LINES[what]}{end}" if what not in ("nothing", "NUL") else LINES[what]
    manifest.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    refused("transcode", "--manifest", manifest, "--workers", "0")


def job(study, tmp_path, *more):
    return ("transcode", study, "-o", tmp_path / "out", "--to", "rle", "--workers", "0", "--durability", "none", *more)


def test_a_database_that_is_something_else(study, tmp_path):
    journal = tmp_path / "out" / ".gpuenc" / "journal.sqlite"
    journal.parent.mkdir(parents=True)
    for content in (b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)):
        journal.write_bytes(content)
        for more in ((), ("--resume",)):
            refused(*job(study, tmp_path, *more))
            assert journal.read_bytes() == content
        refused("report", tmp_path / "out", "-o", tmp_path / "p")
    journal.unlink()
    with sqlite3.connect(journal) as db:
        db.execute("CREATE TABLE about (x)")
        db.execute("CREATE TABLE photographs (x)")
    db.close()
    for more in ((), ("--resume",)):
        refused(*job(study, tmp_path, *more))
    refused("report", tmp_path / "out", "-o", tmp_path / "p")
    with sqlite3.connect(journal) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (2,)
    db.close()


VALUES = ("5", "'text'", "x'ff00'")


@pytest.mark.parametrize("value", VALUES)
def test_columns_of_other_types(study, tmp_path, value):
    """Whatever a journal's columns hold, a job that goes on with it ends right, or says that it is unusable."""
    (study / "z").write_bytes(b"no DICOM")
    assert gpuenc(*job(study, tmp_path))[0] == 0
    journal = tmp_path / "out" / ".gpuenc" / "journal.sqlite"
    with sqlite3.connect(journal) as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(files)")]
    db.close()
    shutil.copytree(tmp_path / "out", tmp_path / "kept")
    for column in columns:
        for state in ("", ", state = 1"):
            shutil.rmtree(tmp_path / "out")
            shutil.copytree(tmp_path / "kept", tmp_path / "out")
            db = sqlite3.connect(journal)
            try:
                db.execute(f"UPDATE files SET {column} = {value}{state if column != 'state' else ''} WHERE number = 1")
                db.commit()
            except sqlite3.Error:
                continue  # it keeps such a value out
            finally:
                db.close()
            code, _, err = gpuenc(*job(study, tmp_path, "--resume"))
            assert code in (0, 1, 4), (column, err)
            if code == 4:
                assert len(err.strip().splitlines()) == 1, (column, err)
            else:
                assert (tmp_path / "out" / "a").read_bytes() == (tmp_path / "kept" / "a").read_bytes()
        code, _, err = gpuenc("report", tmp_path / "out", "-o", tmp_path / "p")
        assert code in (0, 2, 4), (column, err)


REPORTS = {
    "deep": '{"source": ' + DEEP,
    "a huge number": '{"source": "a", "status": "encoded", "bytes_in": ' + "9" * 5000 + "}",
    "a list": '{"source": ["a"], "status": "encoded"}',
    "NUL": "\0" * 50,
    "NaN": '{"source": "a", "status": "encoded", "seconds": NaN}',
    "text for a number": '{"source": "a", "status": "encoded", "frames": "5"}',
    "a status of one's own": '{"source": "a", "status": "eaten"}',
}


@pytest.mark.parametrize("what", REPORTS)
def test_reports(tmp_path, what):
    report = tmp_path / "r.jsonl"
    good = '{"source": "a", "status": "failed", "reason": "not-dicom"}\n'
    report.write_text(good + REPORTS[what] + "\n" + good)
    refused("report", report, "-o", tmp_path / "p")
    refused("merge-reports", report, "-o", tmp_path / "all")
    assert sorted(os.listdir(tmp_path)) == ["r.jsonl"]


def test_surrogates_are_names(tmp_path):
    """Bytes of a name that are no UTF-8; others that no name has."""
    report = tmp_path / "r.jsonl"
    for name in ("\\udcff", "\\ud800", "a\\u0000b", "\\u202e\\u001b[2J\\n"):
        report.write_text(f'{{"source": "{name}", "status": "failed", "reason": "not-dicom", "message": "{name}"}}\n')
        assert gpuenc("report", report, "-o", tmp_path / "p")[0] == 0
        code, out, err = gpuenc("merge-reports", report, "-o", tmp_path / "all")
        assert code == 0, err
        assert "\x1b" not in out + err
        verified = gpuenc("verify", "--record", report, tmp_path)
        assert verified[0] in (0, 1, 3)
