"""Outputs checked against a report alone: samples by their CRC-32, files by their digests."""

import json
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames
from typer.testing import CliRunner

from gpuenc.archive import recheck as module
from gpuenc.archive.recheck import frame_crc32, recheck
from gpuenc.cli import app
from gpuenc.coding import coding
from gpuenc.cpu import decoders, samples
from gpuenc.dicom.cells import encoded_format
from gpuenc.dicom.digests import file_digest
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import DecodeFailed
from gpuenc.frames import Coded
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.test_verify import LOSSLESS, Findings, changed, images
from tests.archive.watcher import transcode

NOISE = made.noise((3, 8, 10), "u2", 12)


def crc(array):
    return f"{zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"


def found(record, output, **options):
    watcher = Findings()
    verified = recheck(record, output, watcher, **options)
    assert sum(verified.files.values()) == len(watcher.findings) == verified.planned + verified.files["extra"]
    return [each for each in watcher.findings if each.verdict != "extra"], verified


def lines(path, *values):
    path.write_text("".join(json.dumps({"source": "in", "status": "encoded", **each}) + "\n" for each in values))
    return path


@pytest.fixture
def job(tmp_path):
    """Return a report with checksums made here, from the samples themselves, and the folder of the outputs."""
    source = made.of(NOISE, stored=12).write(tmp_path / "x.dcm")
    eight = made.of(NOISE.astype("u1")[:1]).write(tmp_path / "y.dcm")
    transcode((source, eight), tmp_path / "out")
    out = tmp_path / "out"
    return lines(
        tmp_path / "report.jsonl",
        {"destination": str(out / "x.dcm"), "crc32": [crc(each) for each in NOISE]},
        {"destination": str(out / "y.dcm"), "crc32": [crc(NOISE[0].astype("u1"))]},
    ), out


def test_samples_are_those_recorded(job):
    findings, verified = found(*job)
    assert [each.verdict for each in findings] == ["equal", "equal"], [each.message for each in findings]
    assert verified.frames == 4
    assert verified.good()


def test_other_samples_are_found(tmp_path, job):
    record, out = job
    samples = NOISE.copy()
    samples[1, 0, 0] ^= 1
    made.of(samples, stored=12).write(tmp_path / "x.dcm")
    transcode(tmp_path / "x.dcm", out, overwrite=True)
    findings, verified = found(record, out)
    assert [(each.verdict, list(each.differing)) for each in findings] == [("differs", [1]), ("equal", [])]
    assert not verified.good()


def test_missing_damaged_and_unrecorded_outputs(tmp_path, job):
    record, out = job
    shutil.copy(out / "x.dcm", out / "z.dcm")
    with record.open("a") as file:
        file.write(json.dumps({"source": "in", "status": "encoded", "destination": str(out / "z.dcm")}) + "\n")
        file.write(json.dumps({"source": "in", "status": "failed", "destination": ""}) + "\n")
        file.write("{no json\n[]\n")
    (out / "y.dcm").unlink()
    data = (out / "x.dcm").read_bytes()
    (out / "x.dcm").write_bytes(data[: len(data) // 2])
    findings, verified = found(record, out)
    verdicts = ["unreadable", "missing", "unreadable", "missing", "unreadable", "unreadable"]
    assert [each.verdict for each in findings] == verdicts
    assert [each.reason for each in findings][2:] == ["invalid-record", "", "invalid-record", "invalid-record"]
    assert not verified.good()


def test_a_file_that_failed_is_missing_until_it_is_done(tmp_path, job):
    assert found(*job)[1].good()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.dcm").write_bytes((tmp_path / "x.dcm").read_bytes())
    broken = tmp_path / "in" / "z.dcm"
    broken.write_bytes((tmp_path / "x.dcm").read_bytes()[:-7])
    first = transcode(tmp_path / "in", tmp_path / "new")
    record = tmp_path / "r.jsonl"
    record.write_text("".join(f"{each.as_json()}\n" for each in first))
    findings, verified = found(record, tmp_path / "new")
    (failed,) = (each for each in first if each.status == "failed")
    assert [(each.source, each.verdict, each.reason) for each in findings if each.verdict != "equal"] == [
        (str(broken), "missing", failed.reason)
    ]
    assert not verified.good()
    result = CliRunner().invoke(app, ["verify", "--record", str(record), str(tmp_path / "new")])
    assert result.exit_code == 1, result.output
    made.of(NOISE, stored=12).write(broken)
    again = transcode(broken, tmp_path / "new")
    record.write_text(record.read_text() + "".join(f"{each.as_json()}\n" for each in again))
    assert found(record, tmp_path / "new")[1].good()


def test_what_was_there_before_the_job_is_not_covered(tmp_path, job):
    _, out = job
    records = transcode((tmp_path / "x.dcm", tmp_path / "y.dcm"), out)
    assert {each.reason for each in records} == {"destination-exists"}
    record = tmp_path / "r.jsonl"
    record.write_text("".join(f"{each.as_json()}\n" for each in records))
    result = CliRunner().invoke(app, ["verify", "--record", str(record), str(out)])
    assert result.exit_code == 1, result.output
    assert "2 × destination-exists" in result.output
    # What an earlier record covers, a later one need not.
    record.write_text(
        lines(
            record, *({"source": each.source, **_checked(out / Path(each.source).name)} for each in records)
        ).read_text()
        + "".join(f"{each.as_json()}\n" for each in records)
    )
    assert found(record, out)[1].good()


def _checked(path):
    return {"destination": str(path), "output_digest": file_digest(path)}


def test_files_that_no_record_names_are_extra(job):
    record, out = job
    shutil.copy(out / "x.dcm", out / "foreign.dcm")
    (out / ".gpuenc").mkdir(exist_ok=True)
    (out / ".gpuenc" / "journal.sqlite").touch()
    inside = shutil.copy(record, out / "report.jsonl")
    verdicts = out / "verdicts.jsonl"
    options = ["verify", "--record", str(inside), str(out), "--report", str(verdicts)]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    told = [json.loads(each) for each in verdicts.read_text().splitlines()]
    assert [each["output"] for each in told if each["verdict"] == "extra"] == [str(out / "foreign.dcm")]
    assert len(told) == 3


def test_sources_left_in_place_are_not_extra(tmp_path, job):
    _, out = job
    (out / "notes.txt").write_text("no image")
    values = [_checked(out / "x.dcm"), _checked(out / "y.dcm")]
    left = {"source": str(out / "notes.txt"), "status": "skipped", "reason": "not-dicom"}
    _, verified = found(lines(tmp_path / "r.jsonl", *values, left), out)
    assert verified.files == {"equal": 2}


def test_digests_tell_that_a_file_has_changed(tmp_path, job):
    _, out = job
    path = out / "x.dcm"
    values = {"destination": str(path), "output_digest": file_digest(path)}
    with_samples = {**values, "crc32": [crc(each) for each in NOISE]}
    for each in (values, with_samples):
        (finding,), _ = found(lines(tmp_path / "r.jsonl", each), out)
        assert (finding.verdict, finding.identical) == ("equal", True)
    changed(path, lambda ds: setattr(ds, "PatientName", "OTHER"))
    for each, said in ((values, "changed since"), (with_samples, "its samples are as recorded")):
        (finding,), _ = found(lines(tmp_path / "r.jsonl", each), out)
        assert finding.verdict == "differs"
        assert said in finding.message


def test_copies_are_known_by_their_digest_alone(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    made.float_pixels().write(out / "f.dcm")
    values = {"status": "copied", "destination": str(out / "f.dcm"), "output_digest": file_digest(out / "f.dcm")}
    (finding,), _ = found(lines(tmp_path / "r.jsonl", values), out)
    assert finding.verdict == "equal"
    (out / "f.dcm").write_bytes((out / "f.dcm").read_bytes() + b"\0")
    (finding,), _ = found(lines(tmp_path / "r.jsonl", values), out)
    assert finding.verdict == "differs"


def test_the_outputs_may_have_moved(tmp_path, job, monkeypatch):
    record, out = job
    shutil.move(out, tmp_path / "archive")
    assert found(record, tmp_path / "archive")[1].good()
    # As a job in this folder would have written it.
    text = record.read_text().replace(str(out), "out")
    record.write_text(text)
    monkeypatch.chdir(tmp_path)
    assert found(record, Path("archive"))[1].good()
    shutil.move(tmp_path / "archive", out)
    assert found(record, Path("out"))[1].good()


def test_a_report_cannot_lead_out_of_the_folder(tmp_path, job):
    _, out = job
    outside = out / "x.dcm"
    (tmp_path / "inside").mkdir()
    values = {"destination": f"a/../../out/{outside.name}", "crc32": [crc(each) for each in NOISE]}
    (finding,), _ = found(lines(tmp_path / "r.jsonl", values), tmp_path / "inside")
    assert finding.verdict == "missing"
    assert Path(finding.output).resolve().is_relative_to(tmp_path / "inside")


def test_checksums_that_are_none_are_no_equality(tmp_path, job):
    _, out = job
    for wrong in (["", "", ""], ["xyz", "xyz", "xyz"], [None] * 3, ["00000000"]):
        values = {"destination": str(out / "x.dcm"), "crc32": wrong}
        (finding,), verified = found(lines(tmp_path / "r.jsonl", values), out)
        assert finding.verdict != "equal"
        assert not verified.good()


def test_the_last_record_of_an_output_counts(job):
    record, out = job
    first = record.read_text()
    record.write_text(first.replace(crc(NOISE[0]), "00000000") + first)
    assert found(record, out)[1].good()


@pytest.mark.parametrize("to", [*LOSSLESS[:-1], "jpeg-ls-lossless", "explicit-vr-little-endian"])
def test_checksums_are_those_of_the_samples_that_were_encoded(tmp_path, to):
    """From the output alone comes what `prepare` made of the source for the encoder."""
    chosen = target(find(to))
    folder = tmp_path / "in"
    folder.mkdir()
    for name, image in images().items():
        image.write(folder / f"{name}.dcm")
    compared = 0
    for record in transcode(folder, tmp_path / "out", to):
        if record.status != "encoded":
            continue
        with DicomFile(record.source) as source, DicomFile(record.destination) as output:
            wanted = coding(chosen, encoded_format(source, chosen))
            for index in range(source.number_of_frames):
                frame = source.frame(index)
                assert not isinstance(frame.pixels, Coded)
                prepared = samples.prepare(frame.pixels, frame.format, wanted, bit_offset=frame.bit_offset)
                expected = samples.samples_crc32(prepared)
                assert frame_crc32(output.frame(index)) == expected, (record.source, index)
                compared += 1
    assert compared > 10


def test_checksums_of_colour_are_of_interleaved_samples(tmp_path):
    rgb = made.noise((1, 8, 10, 3), "u1")
    source = made.of(rgb, planar=1).write(tmp_path / "x.dcm")
    transcode(source, tmp_path / "out")
    with DicomFile(tmp_path / "out" / "x.dcm") as output:
        assert frame_crc32(output.frame(0)) == crc(rgb[0])


def test_the_independent_decoder_is_asked(job, monkeypatch):
    asked = []

    def theirs(codestream, syntax, wanted):
        asked.append(syntax.name)
        if len(asked) == 2:
            raise DecodeFailed("nobody else reads it", code="no-independent-decoder")
        return decoders.decode_samples(codestream, syntax, wanted) ^ (len(asked) == 3)

    monkeypatch.setattr("importlib.import_module", lambda _: SimpleNamespace(decode_samples=theirs))
    findings, _ = found(*job, independent=True, jobs=1)
    assert asked == ["htj2k-lossless"] * 4
    assert list(findings[0].differing) == [2]


def test_the_command(job):
    record, out = job
    result = CliRunner().invoke(app, ["verify", "--record", str(record), str(out)])
    assert result.exit_code == 0, result.output
    ds = dcmread(out / "y.dcm")
    assert next(generate_frames(ds.PixelData, number_of_frames=1))
    (out / "y.dcm").unlink()
    assert CliRunner().invoke(app, ["verify", "--record", str(record), str(out)]).exit_code == 1
    assert CliRunner().invoke(app, ["verify", "--record", str(record)]).exit_code == 2
    assert CliRunner().invoke(app, ["verify", "--record", str(out / "no"), str(out)]).exit_code == 3
    assert CliRunner().invoke(app, ["verify", "--record", str(record), str(out), str(out)]).exit_code == 2
    assert module.MAX_LISTED > 1
