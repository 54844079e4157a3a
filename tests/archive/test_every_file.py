"""Every file of pydicom and pydicom-data to every lossless target: its outcome, its samples, all its other bytes."""

from __future__ import annotations

import hashlib
import json
import tomllib
import warnings
from functools import cache
from pathlib import Path

import data_store
import numpy as np
import pydicom
import pytest
import xxhash
from pydicom import dcmread
from pydicom.pixels import pixel_array

from gpuenc.archive.job import run
from gpuenc.archive.request import Job
from gpuenc.archive.watcher import Watcher
from gpuenc.syntaxes import TABLE
from gpuenc.targets import target
from tests.archive import oracle
from tests.dicom import files

OUTCOMES = tomllib.loads((Path(__file__).parent / "outcomes.toml").read_text(encoding="utf-8"))
ROOTS = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent)
# The codecs of these are the same as of their neighbours, so small files suffice.
SMALL = {"jpeg-ls", "jpeg2000", "htj2k", "jpegxl"}
SMALL_BYTES = 100_000
TARGETS = [syntax for syntax in TABLE if syntax.loss != "always"]
# Group lengths, and what describes the encoding of the pixels: PS3.3 C.7.6.3.1.
MAY_CHANGE = {0x00080001, 0x00280004, 0x00280006, 0x00282110, 0x7FE00001, 0x7FE00002, 0x7FE00010}


class Records(Watcher):
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.records = []

    def start(self, files, bytes_total):
        self.files, self.bytes_total = files, bytes_total

    def planned(self, files, bytes_total):
        self.files, self.bytes_total = files, bytes_total

    def done(self, record):
        self.records.append(record)

    def finish(self, summary):
        self.summary = summary


def name_of(path):
    return f"{path.parent.name}/{path.name}"


@cache
def dataset(path):
    """Return pydicom's dataset without its values, or None for what no DICOM file is."""
    name = name_of(path)
    if OUTCOMES["always"].get(name, [""])[0] == "skipped":
        return None
    return oracle.read(path, OUTCOMES["no_meta"].get(name, ""))


def expected(path, syntax):
    name = name_of(path)
    if path.suffix in files.SUFFIXES_OF_OTHERS:
        return "skipped", "not-dicom"
    if name in OUTCOMES["always"]:
        return tuple(OUTCOMES["always"][name])
    ds = dataset(path)
    uid = str(ds.file_meta.TransferSyntaxUID)
    if "PixelData" not in ds:
        return "copied", "no-pixel-data"
    if uid == syntax.uid:
        return "copied", "already-encoded"
    jpeg = uid in oracle.DCT
    if uid in oracle.LOSSY and not (jpeg and syntax.name == "jpegxl-jpeg"):
        return "copied", "lossy-source"
    if syntax.name == "jpegxl-jpeg" and not jpeg:
        return "failed", "format-not-allowed"
    if syntax.name == "jpegxl" and ds.PixelRepresentation == 1:
        return "failed", "format-not-allowed"  # PS3.5 8.2.15 has unsigned samples only
    for rule in OUTCOMES["no_row"]:
        if name in rule["files"] and syntax.name in rule["targets"]:
            return "failed", "format-not-allowed"
    return "encoded", ""


@cache
def source_digest(path):
    """Return what the source's samples are, as pydicom decodes them."""
    return digest(pixel_array(dataset(path), raw=True))


def digest(samples):
    values = np.ascontiguousarray(samples.reshape(-1), dtype=np.int64)
    return values.size, xxhash.xxh3_128_hexdigest(values)


@pytest.fixture(scope="module")
def untouched():
    """Hash all sources before and after."""

    def hashes():
        return {path: hashlib.sha256(path.read_bytes()).digest() for path in files.every()}

    before = hashes()
    yield
    assert hashes() == before


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for path in files.every():
        if path.stat().st_size < SMALL_BYTES:
            link = folder / path.parent.name / path.name
            link.parent.mkdir(exist_ok=True)
            link.write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("syntax", TARGETS, ids=lambda syntax: syntax.name)
def test_every_file(syntax, tmp_path, small, untouched):
    chosen = target(syntax, lossless=True if syntax.loss == "option" else None)
    sources = (small,) if syntax.name in SMALL else ROOTS
    watcher = Records()
    summary = run(Job(sources, tmp_path, chosen, jobs=2), watcher)
    found = {path for root in sources for path in root.rglob("*") if path.is_file()}
    assert {Path(record.source) for record in watcher.records} == found
    assert summary.done == summary.planned == len(found) == watcher.files

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on what is odd in these files
        outcomes = {record.source: (record.status, reason_of(record)) for record in watcher.records}
        assert outcomes == {str(path): expected(path, syntax) for path in found}
        problems = []
        for record in watcher.records:
            path, output = Path(record.source), Path(record.destination)
            try:
                check_output(record, path, output, syntax)
            except Exception as error:  # noqa: BLE001 - a decoder's refusal is a finding too
                problems.append(f"{name_of(path)}: {type(error).__name__}: {error}")
        assert not problems, "\n".join(problems)
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {Path(record.destination) for record in watcher.records if record.destination}


def reason_of(record):
    """Return the reason; of a DICOMDIR that was changed to what its files have become, that it is no image."""
    return record.reason.replace("dicomdir-rebuilt", "no-pixel-data")


def check_output(record, path, output, syntax):
    json.loads(record.as_json())
    assert record.bytes_in == path.stat().st_size
    if record.status in ("failed", "skipped"):
        assert (record.destination, record.bytes_out, record.frames) == ("", 0, 0)
        assert record.message
        return
    assert record.bytes_out == output.stat().st_size
    if record.reason == "dicomdir-rebuilt":  # see test_directories
        assert output.name == path.name == "DICOMDIR"
        assert "DirectoryRecordSequence" in dcmread(output)
        return
    if record.status == "copied":
        assert output.read_bytes() == path.read_bytes()
        return
    ds = oracle.read(output)
    assert ds.file_meta.TransferSyntaxUID == syntax.uid == record.target_syntax
    assert record.verified
    assert record.frames == int(ds.get("NumberOfFrames") or 1)
    assert record.plugins == {"native" if syntax.family == "native" else "imagecodecs": record.frames}
    if syntax.name == "jpegxl-jpeg":
        jpegs = [imagecodecs_jpeg(each) for each in oracle.fragments(ds)]
        assert [each.rstrip(b"\0") for each in jpegs] == [
            each.rstrip(b"\0") for each in oracle.fragments(dataset(path))
        ]
    else:
        assert digest(oracle.samples(ds)) == source_digest(path)
    check_header(dataset(path), path, ds, output)


def imagecodecs_jpeg(codestream):
    import imagecodecs

    return bytes(imagecodecs.jpegxl_decode_jpeg(codestream))


def check_header(before, path, after, output):
    """Hold every element against the source's: bytes where both are explicit, else as pydicom reads them."""
    assert after.get("SOPInstanceUID") == before.get("SOPInstanceUID")
    stored = before.file_meta.get("MediaStorageSOPInstanceUID", before.get("SOPInstanceUID"))
    assert after.file_meta.MediaStorageSOPInstanceUID == stored
    assert "ExtendedOffsetTable" not in after
    assert "ExtendedOffsetTableLengths" not in after
    uid = before.file_meta.TransferSyntaxUID
    explicit = uid.is_encapsulated or uid in (oracle.EXPLICIT, oracle.DEFLATED)
    if explicit and name_of(path) not in (*OUTCOMES["no_meta"], *OUTCOMES["implicit"]["files"]):
        preamble, meta, elements = oracle.split(path)
        new_preamble, new_meta, new_elements = oracle.split(output)
        assert new_preamble == preamble
        assert without(new_meta, {0x00020000, 0x00020010}) == without(meta, {0x00020000, 0x00020010})
        assert without(new_elements, MAY_CHANGE) == without(elements, MAY_CHANGE)
        return
    tags = {tag for tag in (*before.keys(), *after.keys()) if tag not in MAY_CHANGE and tag.element}
    for tag in tags:
        assert tag in before, f"{tag} is new"
        assert tag in after, f"{tag} is lost"
        old, new = before[tag], after[tag]
        if old.VR == "OW" and not before.original_encoding[1]:
            assert np.frombuffer(old.value, ">u2").astype("<u2").tobytes() == new.value, f"{tag} has changed"
        else:
            assert old == new, f"{tag} has changed"


def without(elements, tags):
    return [(tag, value) for tag, value in elements if tag not in tags and tag & 0xFFFF]


def test_the_table_names_files_that_are_there():
    names = {name_of(path) for path in files.every()}
    listed = {*OUTCOMES["always"], *OUTCOMES["no_meta"]}.union(*(rule["files"] for rule in OUTCOMES["no_row"]))
    assert listed <= names
    assert {name for rule in OUTCOMES["no_row"] for name in rule["targets"]} <= {syntax.name for syntax in TABLE}
