"""Shards read by tarfile, by pydicom's decoders and by webdataset; made twice, cut short, and made of bad files."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from typer.testing import CliRunner

import gpuenc
from gpuenc.cli import app
from gpuenc.errors import DestinationError, JobError, SourceError
from gpuenc.pipelines import shard_folder, shard_sources, webdataset
from gpuenc.pipelines.shard_sources import Encoding, SampleStream
from gpuenc.pipelines.tar_shard import TarShard
from gpuenc.pipelines.webdataset import ShardJob, write_shards
from gpuenc.syntaxes import find
from gpuenc.targets import from_options
from tests import made

HT = "1.2.840.10008.1.2.4.201"
NAMES = ("CT_small.dcm", "eCT_Supplemental.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm", "emri_small.dcm")


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    (folder / "more").mkdir(parents=True)
    for name in NAMES:
        shutil.copy(get_testdata_file(name, download=False), folder / name)
    ds = gpuenc.compress(dcmread(folder / "CT_small.dcm"), HT)
    ds.save_as(folder / "more" / "already.dcm")
    (folder / "more" / "notes.txt").write_text("no image")
    return folder


def job(archive, out, *, to="htj2k-lossless", resume=False, samples=10_000, size=1 << 30, **options):
    encoding = Encoding(from_options(find(to), {}), device="cpu", **options)
    return ShardJob((archive,), out, encoding, shard_samples=samples, shard_bytes=size, resume=resume)


def run(*arguments, **options):
    return write_shards(job(*arguments, **options), threading.Event())


def samples(folder):
    """Return {key: {extension: bytes}} in order; of each shard the members of a sample lie together."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                assert key not in found or key == next(reversed(found))
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return found


def decoded(sample, extension):
    """Decode by pydicom, from nothing but the sample itself."""
    said = json.loads(sample["json"])
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = said["transfer_syntax_uid"]
    ds.Rows, ds.Columns, ds.SamplesPerPixel = said["rows"], said["columns"], said["samples_per_pixel"]
    ds.PhotometricInterpretation = said["photometric_interpretation"]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = said["bits_allocated"], said["bits_stored"], said["high_bit"]
    ds.PixelRepresentation = said["pixel_representation"]
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = said["planar_configuration"]
    data = sample[extension]
    ds.PixelData = encapsulate([data]) if extension != "raw" else data
    ds["PixelData"].VR = "OB" if extension != "raw" else "OW"
    return ds.pixel_array


@pytest.mark.parametrize(
    ("to", "extension"),
    [
        ("htj2k-lossless", "jhc"),
        ("jpeg2000-lossless", "j2c"),
        ("rle", "rle"),
        ("jpeg-ls-lossless", "jls"),
        ("explicit-vr-little-endian", "raw"),
    ],
)
def test_every_frame_of_every_file_comes_back(archive, tmp_path, to, extension):
    summary = run(archive, tmp_path / "out", to=to)
    found = samples(tmp_path / "out")
    assert summary.samples == len(found) == 1 + 2 + 1 + 2 + 10 + 1
    assert [(trouble.code, trouble.skipped) for trouble in summary.troubles] == [("not-dicom", True)]
    for number, path in enumerate(summary.paths):
        if path.suffix != ".dcm":
            continue
        ds = dcmread(path)
        frames = ds.pixel_array if int(ds.get("NumberOfFrames", 1)) > 1 else ds.pixel_array[None]
        for index, frame in enumerate(frames):
            sample = found[f"{number:08d}-{index:06d}"]
            assert np.array_equal(decoded(sample, extension), frame), (path.name, index)


def test_json_says_what_the_object_says_and_nothing_of_the_patient(archive, tmp_path):
    summary = run(archive, tmp_path / "out")
    found = samples(tmp_path / "out")
    secrets = set()
    for path in summary.paths:
        if path.suffix == ".dcm":
            ds = dcmread(path)
            for element in ds.iterall():
                if element.tag.group in (0x0010, 0x0032) or element.VR in ("PN", "DA", "TM", "DT", "LT", "ST", "UT"):
                    secrets |= {str(element.value)} if element.VR != "SQ" and len(str(element.value)) > 4 else set()
            secrets |= {str(ds.SOPInstanceUID), str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID)}
    assert len(secrets) > 30
    text = b"".join(sample["json"] for sample in found.values()).decode() + (tmp_path / "out/index.json").read_text()
    assert not [secret for secret in secrets if secret in text]
    ct, ect = dcmread(archive / "CT_small.dcm"), dcmread(archive / "eCT_Supplemental.dcm")
    said = json.loads(found["00000000-000000"]["json"])
    assert said["rescale"] == {"slope": 1.0, "intercept": -1024.0}
    assert said["pixel_spacing"] == list(map(float, ct.PixelSpacing))
    assert said["position"] == list(map(float, ct.ImagePositionPatient))
    assert (said["modality"], said["lossy"], said["frame"]) == ("CT", False, 0)
    for index, item in enumerate(ect.PerFrameFunctionalGroupsSequence):
        number = next(n for n, path in enumerate(summary.paths) if path.name == "eCT_Supplemental.dcm")
        said = json.loads(found[f"{number:08d}-{index:06d}"]["json"])
        assert said["position"] == list(map(float, item.PlanePositionSequence[0].ImagePositionPatient))


def test_json_holds_the_tables_and_functions_that_show_a_frame(tmp_path):
    from tests.pipelines.test_tables import MODALITY, VOI, noise, sequence

    first, second = noise(4096, 16), noise(1000, 12)
    window = made.Element(0x00281050, "DS", "40"), made.Element(0x00281051, "DS", "400")
    sigmoid = made.Element(0x00281056, "CS", "SIGMOID")
    tables = sequence(MODALITY, -2048, 16, first), sequence(VOI, 65000, 12, second)
    odd = made.Element(VOI, "SQ", [[made.Element(0x00283002, "US", (2, 0, 7)), made.Element(0x00283006, "US", (1, 2))]])
    (tmp_path / "in").mkdir()
    for name, elements in (("a", (*tables, *window, sigmoid)), ("b", (odd,)), ("c", (tables[1],))):
        made.of(made.noise((1, 5, 6), "i2", 12), stored=12, elements=elements).write(tmp_path / "in" / name)
    run(tmp_path / "in", tmp_path / "out")
    a, b, c = (json.loads(sample["json"]) for sample in samples(tmp_path / "out").values())
    assert (a["modality_lut"]["first"], a["modality_lut"]["bits"]) == (-2048, 16)
    assert np.array_equal(np.frombuffer(base64.b64decode(a["modality_lut"]["data"]), "<u2"), first)
    assert (a["voi_lut"]["first"], a["voi_lut"]["bits"]) == (65000, 12)
    assert np.array_equal(np.frombuffer(base64.b64decode(a["voi_lut"]["data"]), "<u2"), second)
    assert a["window"] == [{"center": 40, "width": 400, "function": "SIGMOID"}]
    assert list(b["voi_lut"]) == ["unusable"]
    assert "modality_lut" not in b
    assert c["voi_lut"]["first"] == 65000 - 65536  # its input is signed there
    assert "SECRET" not in json.dumps((a, b, c))


def test_uids_as_asked(archive, tmp_path):
    ct = dcmread(archive / "CT_small.dcm")
    found = {}
    for how in ("plain", "hashed", "none"):
        run(archive, tmp_path / how, uids=how)
        found[how] = json.loads(samples(tmp_path / how)["00000000-000000"]["json"]).get("uids")
    assert found["plain"]["instance"] == ct.SOPInstanceUID
    assert found["none"] is None
    assert set(found["hashed"]) == set(found["plain"])
    assert all(len(value) == 32 and value != found["plain"][name] for name, value in found["hashed"].items())


def test_what_has_the_syntax_already_is_taken_as_it_is(archive, tmp_path):
    ds = dcmread(archive / "more" / "already.dcm")
    summary = run(archive, tmp_path / "out")
    number = next(n for n, path in enumerate(summary.paths) if path.name == "already.dcm")
    sample = samples(tmp_path / "out")[f"{number:08d}-000000"]
    assert sample["jhc"] == next(generate_frames(ds.PixelData, number_of_frames=1)).rstrip(b"\0")
    assert "crc32" not in json.loads(sample["json"])


@pytest.fixture
def whole(archive, tmp_path):
    """The shards of a run that nobody disturbed, four samples each."""
    run(archive, tmp_path / "whole", samples=4)
    return contents(tmp_path / "whole")


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_again_byte_for_byte_whatever_the_threads(archive, tmp_path, whole):
    run(archive, tmp_path / "again", samples=4, threads=1)
    assert contents(tmp_path / "again") == whole
    assert list(whole) == [webdataset.JOURNAL, "index.json", *(f"shard-{n:06d}.tar" for n in range(5))]
    with tarfile.open(tmp_path / "whole" / "shard-000001.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
    said = json.loads(whole["index.json"])
    assert [shard["samples"] for shard in said["shards"]] == [4, 4, 4, 4, 1]
    assert [shard["bytes"] for shard in said["shards"]] == [len(whole[f"shard-{n:06d}.tar"]) for n in range(5)]


def test_no_shard_is_larger_than_allowed_unless_one_sample_is(archive, tmp_path):
    run(archive, tmp_path / "out", size=40_000)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("*.tar"))]
    counts = Counter("more" if size > 40_000 else "less" for size in sizes)
    assert counts["more"] == 2  # the frames of 512 × 512
    assert len(sizes) < 17
    assert len(samples(tmp_path / "out")) == 17


@pytest.mark.parametrize("after", [0, 1, 3, 5, 9, 14])
def test_an_interrupted_job_goes_on_to_the_same_bytes(archive, tmp_path, whole, monkeypatch, after):
    stop, added = threading.Event(), []
    add = TarShard.add

    def counted(self, key, members):
        added.append(key)
        if len(added) > after:
            stop.set()
        add(self, key, members)

    with monkeypatch.context() as patch:
        patch.setattr(TarShard, "add", counted)
        summary = write_shards(job(archive, tmp_path / "out", samples=4), stop)
    assert summary.interrupted
    assert not list((tmp_path / "out").glob("*-tmp"))
    with pytest.raises(JobError) as caught:
        run(archive, tmp_path / "out", samples=4)
    assert caught.value.code == "journal-unfinished"
    with pytest.raises(JobError) as caught:
        run(archive, tmp_path / "out", samples=5, resume=True)
    assert caught.value.code == "journal-differs"
    summary = run(archive, tmp_path / "out", samples=4, resume=True)
    assert summary.samples == 17
    assert contents(tmp_path / "out") == whole


def cut_short(archive, out, monkeypatch):
    """Leave two shards and a journal."""
    stop, right = threading.Event(), webdataset._Run._finish

    def second(run, *arguments):
        right(run, *arguments)
        if len(run.summary.shards) == 2:
            stop.set()

    with monkeypatch.context() as patched:
        patched.setattr(webdataset._Run, "_finish", second)
        assert write_shards(job(archive, out, samples=4), stop).interrupted


def test_a_shard_that_was_damaged_meanwhile_is_not_gone_on_with(archive, tmp_path, monkeypatch):
    cut_short(archive, tmp_path / "out", monkeypatch)
    shard = tmp_path / "out" / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(JobError, match=r"shard-000000\.tar is not what") as caught:
        run(archive, tmp_path / "out", samples=4, resume=True)
    assert caught.value.code == "journal-differs"


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(next=[999_999, 0]),
        lambda said: said.update(next=[-3, 0]),
        lambda said: said["shards"][0].update(name="../../etc/hosts"),
        lambda said: said.update(troubles=[{"file": 10**6, "code": "x", "message": ""}]),
        lambda said: said.update(troubles=[7]),
    ],
)
def test_a_journal_that_somebody_wrote_to_is_refused(archive, tmp_path, monkeypatch, change):
    cut_short(archive, tmp_path / "out", monkeypatch)
    journal = tmp_path / "out" / webdataset.JOURNAL
    said = json.loads(journal.read_text())
    change(said)
    journal.write_text(json.dumps(said))
    with pytest.raises(JobError, match="cannot be read") as caught:
        run(archive, tmp_path / "out", samples=4, resume=True)
    assert caught.value.code == "journal-unusable"


def test_a_job_killed_between_shard_and_journal_goes_on_too(archive, tmp_path, whole, monkeypatch):
    written = []
    original = shard_folder.write

    def fails(path, said, token, **options):
        if path.name == webdataset.JOURNAL and len(said["shards"]) == 2:
            raise KeyboardInterrupt
        written.append(path)
        original(path, said, token, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shard_folder, "write", fails)
        with pytest.raises(KeyboardInterrupt):
            run(archive, tmp_path / "out", samples=4)
    assert (tmp_path / "out" / "shard-000001.tar").exists()
    token = json.loads((tmp_path / "out" / webdataset.JOURNAL).read_text())["fingerprint"][:12]
    (tmp_path / "out" / f".shard-000001.tar.{token}.gpuenc-tmp").write_bytes(b"left")
    run(archive, tmp_path / "out", samples=4, resume=True)
    assert contents(tmp_path / "out") == whole


def test_files_without_samples_are_no_reason_to_go_on(archive, tmp_path, monkeypatch):
    stop, opened = threading.Event(), []

    def open_file(self, number, first):
        opened.append(number)
        stop.set()
        raise SourceError("not a DICOM file", code="not-dicom")

    monkeypatch.setattr(SampleStream, "_open", open_file)
    assert write_shards(job(archive, tmp_path / "out"), stop).interrupted
    assert opened == [0]
    assert not (tmp_path / "out" / "index.json").exists()


def test_two_jobs_are_not_in_one_folder(archive, tmp_path, monkeypatch):
    codes = []
    add = TarShard.add

    def meets_another(self, key, members):
        if not codes:
            with pytest.raises(JobError) as caught:
                run(archive, tmp_path / "out", resume=True)
            codes.append(caught.value.code)
        add(self, key, members)

    monkeypatch.setattr(TarShard, "add", meets_another)
    assert run(archive, tmp_path / "out").samples == 17
    assert codes == ["journal-in-use"]


def test_a_source_that_changed_meanwhile_is_noticed(archive, tmp_path):
    stop = threading.Event()
    stop.set()
    write_shards(job(archive, tmp_path / "out"), stop)
    with (archive / "CT_small.dcm").open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(JobError) as caught:
        run(archive, tmp_path / "out", resume=True)
    assert caught.value.code == "journal-differs"


def three(folder, to):
    """Write files of 1, 6 and 1 frames; for RLE ones that are taken as they are."""
    folder.mkdir()
    for name, count in (("a", 1), ("b", 6), ("c", 1)):
        made.of(made.noise((count, 8, 8), "u2")).write(folder / name)
        if to == "rle":
            gpuenc.compress(dcmread(folder / name), to).save_as(folder / name)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("to", ["rle", "htj2k-lossless"])
def test_nothing_stays_of_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, to, held):
    """Two samples a shard: those of b are in finished ones by then, where it is not held."""
    three(tmp_path / "in", to)

    class Changing(shard_sources.DicomFile):
        def __init__(self, path, **options):
            super().__init__(path, **options)
            if held:
                self.touch()

        def frame(self, index):
            found = super().frame(index)
            if index == 5:
                finished.update(path.name for path in (tmp_path / "out").glob("*.tar"))
                self.touch()
            return found

        def touch(self):
            if self.path.endswith("b"):
                os.utime(self.path, ns=(0, 10**9))

    finished = set()
    monkeypatch.setattr(shard_sources, "DicomFile", Changing)
    if not held:
        monkeypatch.setattr(shard_sources, "_HELD_BYTES", 0)
    summary = run(tmp_path / "in", tmp_path / "out", to=to, samples=2, threads=1)
    assert [(each.file, each.frame, each.code) for each in summary.failed] == [(1, None, "source-changed")]
    assert len(finished) >= 2 or held or to != "rle"
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["index.json", "shard-000000.tar"]
    said = json.loads((tmp_path / "out" / "index.json").read_text())
    assert said["without"] == [{"file": 1, "frame": None, "code": "source-changed"}]
    monkeypatch.undo()
    (tmp_path / "in" / "b").write_bytes(b"no image")
    run(tmp_path / "in", tmp_path / "right", to=to)
    assert samples(tmp_path / "out") == samples(tmp_path / "right")
    assert list(samples(tmp_path / "out")) == ["00000000-000000", "00000002-000000"]


@pytest.mark.parametrize("earlier", [False, True])
def test_shards_of_an_earlier_run_are_taken_back_too(tmp_path, monkeypatch, earlier):
    """One of a and b lies there when b changes; an earlier version's journal does not say where it begins."""
    three(tmp_path / "in", "rle")
    monkeypatch.setattr(shard_sources, "_HELD_BYTES", 0)
    stop, right, out = threading.Event(), webdataset._Run._finish, tmp_path / "out"

    def first(run, *arguments):
        right(run, *arguments)
        stop.set()

    with monkeypatch.context() as patched:
        patched.setattr(webdataset._Run, "_finish", first)
        assert write_shards(job(tmp_path / "in", out, to="rle", samples=2), stop).interrupted
    assert list(samples(out)) == ["00000000-000000", "00000001-000000"]

    class Changing(shard_sources.DicomFile):
        def frame(self, index):
            if self.path.endswith("b"):
                os.utime(self.path, ns=(0, 10**9))
            return super().frame(index)

    monkeypatch.setattr(shard_sources, "DicomFile", Changing)
    if earlier:
        said = json.loads((out / webdataset.JOURNAL).read_text())
        del said["starts"]
        (out / webdataset.JOURNAL).write_text(json.dumps(said))
        with pytest.raises(JobError, match="earlier version") as caught:
            run(tmp_path / "in", out, to="rle", samples=2, resume=True)
        assert caught.value.code == "journal-differs"
        assert not (out / webdataset.INDEX).exists()
        return
    summary = run(tmp_path / "in", out, to="rle", samples=2, resume=True)
    assert [(each.file, each.frame, each.code) for each in summary.failed] == [(1, None, "source-changed")]
    monkeypatch.undo()
    (tmp_path / "in" / "b").write_bytes(b"no image")
    run(tmp_path / "in", tmp_path / "right", to="rle", samples=2)
    tars = {name: data for name, data in contents(out).items() if name.endswith(".tar")}
    assert tars == {name: data for name, data in contents(tmp_path / "right").items() if name.endswith(".tar")}
    assert list(samples(out)) == ["00000000-000000", "00000002-000000"]


@pytest.mark.parametrize("found", ["nothing", "no-images"])
@pytest.mark.parametrize("there", ["no-folder", "folder", "foreign"])
def test_where_nothing_was_found_nothing_is_left(archive, tmp_path, found, there):
    (tmp_path / "in").mkdir()
    if found == "no-images":
        (tmp_path / "in" / "notes.txt").write_text("no image")
    out = tmp_path / "new" / "out"
    if there != "no-folder":
        out.mkdir(parents=True)
    if there == "foreign":
        (out / "mine.txt").write_text("not ours")
    for _ in range(2):
        done = command(tmp_path / "in", "-o", out, "--to", "rle", "--device", "cpu")
        assert done.exit_code == 3, done.output
        assert "no frames were found" in done.output
        assert (tmp_path / "new").exists() == (there != "no-folder")
        if there != "no-folder":
            assert os.listdir(out) == (["mine.txt"] if there == "foreign" else [])
    assert command(archive, "-o", out, "--to", "rle", "--device", "cpu").exit_code == 0


def test_what_may_be_removed_is_ours_alone(archive, tmp_path):
    out = tmp_path / "out"
    run(archive, out, samples=10)
    (out / "shard-000009.tar").write_text("somebody else's")
    with pytest.raises(DestinationError) as caught:
        run(archive, out)
    left = f"index.json, .gpuenc-shards.json, shard-000000.tar, shard-000001.tar in {out}"
    assert str(caught.value).endswith(f"choose another --output, or remove what it left: {left}")
    for name in ("index.json", ".gpuenc-shards.json", "shard-000000.tar", "shard-000001.tar"):
        (out / name).unlink()
    for name in ("shard-000009.tar", "index.json"):
        (out / name).write_text("[]")
        with pytest.raises(DestinationError) as caught:
            run(archive, out)
        assert caught.value.code == "destination-exists"
        assert str(caught.value).endswith("choose another --output")


def test_nothing_is_overwritten(archive, tmp_path):
    out = tmp_path / "out"
    run(archive, out)
    before = contents(out)
    with pytest.raises(DestinationError) as caught:
        run(archive, out)
    assert caught.value.code == "destination-exists"
    (out / webdataset.JOURNAL).unlink()  # as of a version that left none
    with pytest.raises(DestinationError) as caught:
        run(archive, out, resume=True)
    assert caught.value.code == "destination-exists"
    (out / "index.json").unlink()
    with pytest.raises(DestinationError):
        run(archive, out)
    assert {**before, **contents(out)} == before
    with pytest.raises(JobError) as caught:
        run(archive, tmp_path / "none", resume=True)
    assert caught.value.code == "journal-missing"


def test_a_finished_job_is_gone_on_with_only_as_it_was(archive, tmp_path):
    (archive / "cut.dcm").write_bytes((archive / "CT_small.dcm").read_bytes()[:9000])
    out = tmp_path / "out"
    first = run(archive, out, samples=4)
    before = contents(out)
    again = run(archive, out, samples=4, resume=True)
    assert (again.shards, again.troubles) == (first.shards, first.troubles)
    assert [each.skipped for each in again.troubles].count(False) == 1
    assert contents(out) == before
    (archive / "cut.dcm").unlink()
    args = (archive, "-o", out, "--to", "htj2k-lossless", "--samples", 4, "--device", "cpu")
    done = command(*args, "--resume")
    assert done.exit_code == 2, done.output
    said = "choose another --output, or remove what it left: index.json, .gpuenc-shards.json, shard-000000.tar to"
    assert said in " ".join(done.output.split())
    assert contents(out) == before
    done = command(*args)
    assert done.exit_code == 2, done.output
    shutil.rmtree(out)
    assert command(*args).exit_code == 0
    done = command(*args, "--resume")
    assert done.exit_code == 0, done.output
    assert "17 samples of 7 files in 5 shards" in " ".join(done.output.split())


def test_bad_files_and_frames_are_left_out_by_name(tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    values = made.noise((3, 16, 16), "u2", 12)
    values[1, 0, 0] = 5000
    made.of(values, stored=12).write(archive / "a.dcm")
    (archive / "b.dcm").write_bytes(made.of(made.noise((2, 16, 16))).file()[:-300])
    made.of(made.noise((1, 16, 16))).write(archive / "c.dcm")
    summary = run(archive, tmp_path / "out", samples=1)
    assert list(samples(tmp_path / "out")) == ["00000000-000000", "00000000-000002", "00000002-000000"]
    assert [(each.file, each.frame, each.code) for each in summary.failed] == [
        (0, 1, "values-outside-bits-stored"),
        (1, None, "truncated"),
    ]
    said = json.loads((tmp_path / "out" / "index.json").read_text())
    assert [each["code"] for each in said["without"]] == ["values-outside-bits-stored", "truncated"]


def test_a_shard_that_changes_on_the_disk_gets_no_name(archive, tmp_path, monkeypatch):
    from gpuenc.pipelines import tar_shard

    monkeypatch.setattr(tar_shard, "file_digest", lambda path: "0" * 32)
    with pytest.raises(DestinationError) as caught:
        run(archive, tmp_path / "out")
    assert caught.value.code == "read-back-mismatch"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [webdataset.JOURNAL]


def command(*arguments):
    return CliRunner().invoke(app, ["shards", *map(str, arguments)])


def test_command(archive, tmp_path):
    done = command(archive, "-o", tmp_path / "out", "--to", "htj2k-lossless", "--samples", 6, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "17 samples of 7 files in 3 shards" in " ".join(done.output.split())
    assert len(list((tmp_path / "out").glob("shard-*.tar"))) == 3
    done = command(archive / "CT_small.dcm", "-o", tmp_path / "one", "--to", "rle", "--device", "cpu")
    assert "1 sample of 1 file in 1 shard," in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["{archive}", "-o", "{out}"], 2),
        (["{archive}", "--to", "rle"], 2),
        (["-o", "{out}", "--to", "rle"], 2),
        (["{archive}", "-o", "{archive}", "--to", "rle"], 2),
        (["{archive}", "-o", "{out}", "--to", "rle", "--verify", "some"], 2),
        (["{archive}", "-o", "{out}", "--to", "rle", "--plugin", "none-such"], 2),
        (["{archive}", "-o", "{out}", "--to", "rle", "--resume"], 2),
        (["{archive}/gone", "-o", "{out}", "--to", "rle"], 3),
        (["{archive}/more/notes.txt", "-o", "{out}", "--to", "rle"], 3),
    ],
)
def test_exit_codes(archive, tmp_path, arguments, code):
    out = tmp_path / "out"
    done = command(*(each.format(archive=archive, out=out) for each in arguments))
    assert done.exit_code == code, done.output


READER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import webdataset
dataset = webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode()
for sample in dataset:
    print(json.dumps([sample["__key__"], sample["json"]["rows"], len(sample["jhc"])]))
"""


@pytest.mark.skipif(not find_spec("webdataset"), reason="webdataset is not installed")
def test_webdataset_reads_them(archive, tmp_path):
    run(archive, tmp_path / "out", samples=5)
    paths = map(str, sorted(Path(tmp_path / "out").glob("*.tar")))
    run_it = subprocess.run([sys.executable, "-c", READER, *paths], capture_output=True, text=True, check=False)
    assert run_it.returncode == 0, run_it.stderr
    read = [json.loads(line) for line in run_it.stdout.splitlines()]
    expected = samples(tmp_path / "out")
    assert [key for key, _, _ in read] == list(expected)
    assert [size for _, _, size in read] == [len(sample["jhc"]) for sample in expected.values()]


def test_addresses_are_refused_in_words(tmp_path):
    run = CliRunner().invoke(app, ["shards", "s3://bucket/study", "-o", str(tmp_path / "out"), "--to", "rle"])
    assert run.exit_code == 2
    assert "a file or folder of this machine is wanted" in " ".join(run.output.replace("│", " ").split())


@pytest.mark.parametrize("behind", [made.Element(0x7FE00010, "OW", bytes(48)), made.Element(0x00280103, "US", 1)])
def test_pixels_or_what_they_are_said_twice_give_no_sample(tmp_path, behind):
    (tmp_path / "in").mkdir()
    made.of(made.noise((1, 4, 6)), trailer=(behind,)).write(tmp_path / "in" / "a")
    summary = run(tmp_path / "in", tmp_path / "out", to="rle")
    assert [(each.code, "behind Pixel Data" in each.message) for each in summary.failed] == [("corrupt-header", True)]
    assert summary.samples == 0
