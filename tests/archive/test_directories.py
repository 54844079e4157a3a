"""A DICOMDIR among the sources: its copy says what the files around it have become."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from gpuenc.archive.job import run
from gpuenc.archive.request import Job
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.test_dicomdir import directory
from tests.archive.watcher import Records, transcode


@pytest.fixture
def study(tmp_path):
    """Return a copy of pydicom's file-set."""
    source = Path(get_testdata_file("DICOMDIR", download=False)).parent
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(source / "DICOMDIR", folder)
    for part in ("77654033", "98892001", "98892003"):
        if (source / part).is_dir():
            shutil.copytree(source / part, folder / part)
    return folder


def syntaxes(folder):
    """Return for each file that the DICOMDIR names what it says of it, and what the file says, where it is there."""
    found = []
    for record in dcmread(folder / "DICOMDIR").DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            names = record.ReferencedFileID
            path = folder.joinpath(*([names] if isinstance(names, str) else names))
            actual = dcmread(path).file_meta.TransferSyntaxUID if path.exists() else None
            found.append((record.ReferencedTransferSyntaxUIDInFile, actual))
    return found


def outcome(records):
    [record] = [record for record in records if record.source.endswith("DICOMDIR")]
    return record


@pytest.mark.parametrize("workers", [0, 1])
def test_it_says_what_its_files_have_become(study, tmp_path, workers):
    before = (study / "DICOMDIR").read_bytes()
    records = transcode(study, tmp_path / "out", "rle", workers=workers, jobs=2)
    record = outcome(records)
    assert (record.status, record.reason) == ("copied", "dicomdir-rebuilt")
    said = syntaxes(tmp_path / "out")
    there = [(stated, actual) for stated, actual in said if actual is not None]
    assert there
    assert all(stated == actual for stated, actual in there)
    assert made.RLE in {actual for _, actual in there}
    assert record.bytes_out == (tmp_path / "out" / "DICOMDIR").stat().st_size
    assert (study / "DICOMDIR").read_bytes() == before
    assert len(records) == len({record.source for record in records})


def test_it_is_brought_up_to_date_again_when_more_files_are_done(study, tmp_path):
    out = tmp_path / "out"
    job = Job((study,), out, target(find("rle")), journal=out / ".gpuenc" / "journal.sqlite")
    first = next(path for path in sorted(study.rglob("*")) if path.is_file() and path.name != "DICOMDIR")
    whole = first.read_bytes()
    first.write_bytes(whole[:-300])
    records = Records()
    run(job, records)
    assert [Path(record.source) for record in records.records if record.status == "failed"] == [first]
    assert "files it names are not there" in outcome(records.records).message
    first.write_bytes(whole)
    again = Records()
    run(Job((study,), out, job.target, journal=job.journal, resume=True), again)
    assert not [record for record in again.records if record.status == "failed"]
    assert all(stated == actual for stated, actual in syntaxes(out) if actual is not None)


def test_a_directory_that_cannot_be_changed_is_copied_and_said_to_be_stale(study, tmp_path):
    made.of(made.noise((1, 4, 4), "u2")).write(study / "A")
    data = directory(["A", "A"], offset=2)  # its records begin elsewhere than it says
    (study / "DICOMDIR").write_bytes(data)
    record = outcome(transcode(study, tmp_path / "out", "rle"))
    assert (record.status, record.reason) == ("copied", "dicomdir-stale")
    assert (tmp_path / "out" / "DICOMDIR").read_bytes() == data


def test_a_file_of_that_name_that_is_none(study, tmp_path):
    made.float_pixels().write(study / "DICOMDIR")
    record = outcome(transcode(study, tmp_path / "out", "rle"))
    assert (record.status, record.reason) == ("copied", "float-pixel-data")


def test_sources_that_are_replaced(study, tmp_path):
    before = (study / "DICOMDIR").read_bytes()
    records = transcode(study, tmp_path / "kept", "rle", in_place=True, backup=tmp_path / "kept")
    record = outcome(records)
    assert (record.status, record.reason) == ("skipped", "dicomdir-stale")
    assert (study / "DICOMDIR").read_bytes() == before
