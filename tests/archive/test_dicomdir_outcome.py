"""A DICOMDIR among the sources: its copy says what the files around it have become."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from gpuenc.archive import dicomdir
from gpuenc.archive import manifest as manifests
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.merge import merge_reports
from gpuenc.archive.plan import plan
from gpuenc.archive.report import read_records
from gpuenc.archive.request import Job
from gpuenc.archive.verify import verify
from gpuenc.dicom.atomic import TEMPORARY_SUFFIX
from gpuenc.dicom.digests import file_digest
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.records import write_report
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


def test_what_a_job_leaves_that_is_killed_over_it_is_removed(study, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = {"journal": out / ".gpuenc" / "journal.sqlite", "workers": 0}

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dicomdir, "file_digest", killed)  # when the new one is written and has no name yet
        patch.setattr(dicomdir.AtomicFile, "abort", lambda self: self.file.close())
        with pytest.raises(KeyboardInterrupt):
            transcode(study, out, "rle", **options)
    assert len(list(out.rglob(f"*{TEMPORARY_SUFFIX}"))) == 1
    record = outcome(transcode(study, out, "rle", resume=True, **options))
    assert record.reason == "dicomdir-rebuilt"
    assert list(out.rglob(f"*{TEMPORARY_SUFFIX}")) == []


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


@pytest.fixture
def shares(study, tmp_path, monkeypatch):
    """Return a function that does one share of three of the study, and the manifest that shares it out."""
    monkeypatch.setattr(manifests, "SHARD_FILES", 5)
    with (tmp_path / "m").open("wb") as stream:
        job = Job((study,), tmp_path / "out", target(find("rle")))
        plan(replace(job, dry_run=True), threading.Event(), manifests.Writer(stream, job))

    def do(index):
        share, manifest = manifests.Share(index, 3), manifests.Manifest(tmp_path / "m")
        watcher = Records()
        journal = place_of(tmp_path / "out", share.name)
        run(replace(manifest.job, journal=journal), watcher, items=manifest.items(share))
        return write_report(tmp_path / f"r{index}.jsonl", watcher.records)

    return do, manifests.Manifest(tmp_path / "m")


def test_shards_leave_it_to_whoever_joins_their_reports(study, tmp_path, shares):
    do, manifest = shares
    reports = [do(index) for index in (1, 2)]
    out, joined = tmp_path / "out", tmp_path / "all.jsonl"
    before = (study / "DICOMDIR").read_bytes()

    def merged(paths, **options):
        merge_reports(paths, joined, manifest.sources(), **options)
        return outcome(read_records(joined))

    # Not before all is done, not without being told where, and nowhere else.
    assert merged(reports, outputs=out).reason == "dicomdir-stale"
    reports.append(do(3))
    assert merged(reports).reason == "dicomdir-stale"
    (tmp_path / "else").mkdir()
    assert merged(reports, outputs=tmp_path / "else").reason == "dicomdir-stale"
    assert (out / "DICOMDIR").read_bytes() == before
    assert [each.reason for each in differing(study, out)] == ["dicomdir-stale"]
    for _ in range(2):
        record = merged(reports, outputs=out)
        assert (record.status, record.reason) == ("copied", "dicomdir-rebuilt")
        assert all(stated == actual for stated, actual in syntaxes(out) if actual is not None)
        assert record.output_digest == file_digest(out / "DICOMDIR")
        assert differing(study, out) == []
    # What was joined before can be joined with what is told again.
    assert merge_reports([joined, *reports], tmp_path / "more.jsonl", manifest.sources()).conflicts == 0
    whole = tmp_path / "whole"
    transcode(study, whole, "rle")
    assert (out / "DICOMDIR").read_bytes() == (whole / "DICOMDIR").read_bytes()


def test_one_in_a_share_that_has_nothing_to_say(study, tmp_path, shares):
    """Its files are not there, so it is what it was, and that is all there is to say."""
    for path in study.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    do, manifest = shares
    reports = [do(index) for index in (1, 2, 3)]
    merge_reports(reports, tmp_path / "all.jsonl", manifest.sources(), outputs=tmp_path / "out")
    record = outcome(read_records(tmp_path / "all.jsonl"))
    assert (record.status, record.reason) == ("copied", "no-pixel-data")
    assert (tmp_path / "out" / "DICOMDIR").read_bytes() == (study / "DICOMDIR").read_bytes()


def test_one_that_was_wrong_about_its_own_files_is_no_difference(study, tmp_path):
    """As far as the output's files are what the source's are."""
    shutil.copytree(study, tmp_path / "out")
    assert differing(study, tmp_path / "out") == []
    for folder in (study, tmp_path / "out"):
        path = folder / "DICOMDIR"
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    assert differing(study, tmp_path / "out") == []
    transcode(study, tmp_path / "new", "htj2k-lossless")
    shutil.copy(study / "DICOMDIR", tmp_path / "new")
    assert [each.reason for each in differing(study, tmp_path / "new")] == ["dicomdir-stale"]


def differing(source, output):
    findings = []
    verify(source, output, SimpleNamespace(start=lambda _: 0, done=findings.append, finish=lambda _: 0))
    return [each for each in findings if each.verdict not in ("equal", "missing")]
