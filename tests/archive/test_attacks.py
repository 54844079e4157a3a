"""What somebody who wanted a job to lose files, or to say what is not true, has tried."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpuenc.archive import transcode as transcode_module
from gpuenc.archive.job import run
from gpuenc.archive.manifest import Manifest, Writer
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records, transcode

IMAGE = made.of(made.noise((1, 8, 8), "u2"))
ROOT = Path(__file__).resolve().parents[2]


def by_name(records):
    return {Path(record.source).name: (record.status, record.reason) for record in records}


def test_sources_within_the_output_are_not_replaced(tmp_path):
    """The output lies in one source, and other sources lie in the output."""
    for name in ("f1", "sub/f2", "sub/x/f3"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        IMAGE.write(tmp_path / "src" / name)
    src = tmp_path / "src"
    records = transcode((src, src / "sub" / "x", src / "sub" / "f2"), src / "sub", "rle", overwrite=True)
    assert by_name(records)["f2"] == ("failed", "destination-is-source")
    assert by_name(records)["f3"] == ("failed", "destination-is-source")
    for name in ("f1", "sub/f2", "sub/x/f3"):
        assert (src / name).read_bytes() == IMAGE.file()


def test_a_file_that_took_the_place_of_a_source_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    source = IMAGE.write(tmp_path / "in" / "a")
    right = transcode_module.inplace.kept
    other = made.of(made.noise((1, 9, 9), "u2")).file()

    class Late:
        def __init__(self, item, job):
            self.kept = right(item, job)

        def __enter__(self):
            self.kept.__enter__()
            source.unlink()
            source.write_bytes(other)

        def __exit__(self, *error):
            return self.kept.__exit__(*error)

    monkeypatch.setattr(transcode_module.inplace, "kept", Late)
    [record] = transcode(tmp_path / "in", tmp_path / "kept", "rle", in_place=True, backup=tmp_path / "kept")
    assert (record.status, record.reason) == ("failed", "source-changed")
    assert source.read_bytes() == other


def test_a_replaced_source_keeps_its_mode(tmp_path):
    (tmp_path / "in").mkdir()
    source = IMAGE.write(tmp_path / "in" / "a")
    source.chmod(0o640)
    [record] = transcode(tmp_path / "in", tmp_path / "in", "rle", in_place=True)
    assert record.status == "encoded"
    assert stat.S_IMODE(source.stat().st_mode) == 0o640


def test_a_file_of_holes_does_not_fill_the_disk(tmp_path):
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "a.bin").open("wb") as file:
        file.truncate(1 << 42)
    IMAGE.write(tmp_path / "in" / "b")
    records = transcode(tmp_path / "in", tmp_path / "out", "rle", reserve_bytes=1 << 20)
    assert by_name(records) == {"a.bin": ("skipped", "not-dicom"), "b": ("encoded", "")}


def test_a_manifest_claims_no_outcomes(tmp_path):
    (tmp_path / "in").mkdir()
    IMAGE.write(tmp_path / "in" / "a")
    job = Job((tmp_path / "in",), tmp_path / "out", target(find("rle")))
    path = tmp_path / "m"
    with path.open("wb") as stream:
        writer = Writer(stream, job)
        writer.add(Item(tmp_path / "in" / "a", tmp_path / "out" / "a"), 9)
        writer.finish()
    lines = path.read_text().splitlines()
    for claim in (["encoded", "", ""], ["bogus", 3, 5], ["skipped", 3, ""]):
        shard = json.loads(lines[1])
        shard["files"][0] += claim
        path.write_text("\n".join([lines[0], json.dumps(shard), *lines[2:]]) + "\n")
        with pytest.raises(JobError):
            list(Manifest(path).items())


def test_the_journals_of_a_tree_are_no_sources_of_the_next(tmp_path):
    (tmp_path / "in").mkdir()
    IMAGE.write(tmp_path / "in" / "a")
    job = Job((tmp_path / "in",), tmp_path / "one", target(find("rle")))
    run(
        Job(job.sources, job.destination, job.target, journal=tmp_path / "one" / ".gpuenc" / "journal.sqlite"),
        Records(),
    )
    assert (tmp_path / "one" / ".gpuenc").is_dir()
    assert by_name(transcode(tmp_path / "one", tmp_path / "two", "jpeg-ls-lossless")) == {"a": ("encoded", "")}


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_streams_that_are_closed(tmp_path, closed):
    (tmp_path / "in").mkdir()
    IMAGE.write(tmp_path / "in" / "a")
    command = [sys.executable, "-m", "gpuenc", "transcode", tmp_path / "in", "-o", tmp_path / "out", "--to", "rle"]
    done = subprocess.run(
        command, preexec_fn=lambda: [os.close(number) for number in closed], check=False, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0
    assert (tmp_path / "out" / "a").exists()


@pytest.mark.parametrize(
    "line", [b"[" * 200_000, b'{"source": "a", "destination": "b", "status": "encoded", "crc32": 5}']
)
def test_hostile_records(tmp_path, line):
    (tmp_path / "out").mkdir()
    (tmp_path / "r.jsonl").write_bytes(line + b"\n")
    for record, code in ((tmp_path / "r.jsonl", 1), (tmp_path, 2)):
        command = [sys.executable, "-m", "gpuenc", "verify", "--record", record, tmp_path / "out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
        assert done.returncode == code
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("CT", "CT"),
        ("X RAY_2 ", "X RAY_2"),
        ("", ""),
        ("Doe^John", ""),
        ("\x1b[2J", ""),
        ("CT\nMR", ""),
        ("C" * 17, ""),
    ],
)
def test_a_modality_that_is_none_is_not_told(tmp_path, said, told):
    (tmp_path / "in").mkdir()
    elements = (made.Element(0x00080060, "CS", said),)
    made.of(made.noise((1, 16, 16), "u2", 12), stored=12, elements=elements).write(tmp_path / "in" / "a")
    [record] = transcode(tmp_path / "in", tmp_path / "out", "rle")
    assert (record.status, record.modality) == ("encoded", told)
