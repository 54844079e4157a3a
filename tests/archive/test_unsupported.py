"""Files that cannot be encoded although nothing is wrong with them: they fail with advice, or are carried over."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace

import pytest

from gpuenc.archive.request import Job
from gpuenc.coding import coding
from gpuenc.errors import FormatNotAllowed, JobError
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import TABLE, find
from gpuenc.targets import target
from tests import made
from tests.test_cli import gpuenc, transcode

GOOD = made.of(made.noise((2, 16, 16), "u1"))
PRIVATE = "1.3.46.670589.33.1.4.1"


@pytest.fixture
def archive(tmp_path):
    """Return a tree of a good image, one in a format that JPEG-LS has not, one of a private syntax, a damaged one."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    GOOD.write(folder / "good.dcm")
    made.segmentation(made.noise((3, 9, 9), "u1", 1)).write(folder / "deep" / "bits.dcm")
    (folder / "private.dcm").write_bytes(_of_private_syntax())
    (folder / "damaged.dcm").write_bytes(GOOD.file()[:-20])
    return folder


def _of_private_syntax():
    data = made.of(made.noise((1, 8, 8), "u1"), syntax=PRIVATE).file()
    assert PRIVATE.encode() in data
    return data


def by_name(report):
    records = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    return {os.path.basename(record["source"]): record for record in records}


def test_they_fail_and_say_what_to_do(archive, tmp_path):
    code, _, err = transcode(archive, "-o", tmp_path / "out", "--report", tmp_path / "r.jsonl", to="jpeg-ls-lossless")
    assert code == 1
    found = by_name(tmp_path / "r.jsonl")
    reasons = {name: record["reason"] for name, record in found.items()}
    assert reasons == {
        "good.dcm": "",
        "bits.dcm": "format-not-allowed",
        "private.dcm": "unknown-syntax",
        "damaged.dcm": "truncated",
    }
    for name in ("bits.dcm", "private.dcm"):
        assert "--unsupported keep" in found[name]["message"]
    assert "--unsupported" not in found["damaged.dcm"]["message"]
    assert "these take such frames: rle, jpeg2000-lossless" in found["bits.dcm"]["message"]
    assert err.count("\n") == 3
    assert not (tmp_path / "out" / "deep").exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_they_are_carried_over(archive, tmp_path, workers):
    out, report = tmp_path / "out", tmp_path / "r.jsonl"
    options = ("--to", "jpeg-ls-lossless", "--workers", workers, "--report", report, "--unsupported", "keep")
    code, said, _ = gpuenc("transcode", archive, "-o", out, *options)
    assert code == 1  # the damaged one
    found = by_name(report)
    assert {name: (record["status"], record["reason"]) for name, record in found.items()} == {
        "good.dcm": ("encoded", ""),
        "bits.dcm": ("copied", "format-not-allowed"),
        "private.dcm": ("copied", "unknown-syntax"),
        "damaged.dcm": ("failed", "truncated"),
    }
    assert "1 × format-not-allowed" in said
    for name in ("deep/bits.dcm", "private.dcm"):
        record = found[os.path.basename(name)]
        assert (out / name).read_bytes() == (archive / name).read_bytes()
        assert record["source_digest"] == record["output_digest"] != ""
        assert record["bytes_out"] == (archive / name).stat().st_size
        assert "--unsupported" not in record["message"]
    assert not (out / "damaged.dcm").exists()
    # Done is done; another answer is another job.
    code, said, _ = gpuenc("transcode", archive, "-o", out, *options, "--resume")
    assert (code, "3 by an earlier run" in said) == (1, True)
    code, _, err = gpuenc("transcode", archive, "-o", out, *options[:-2], "--resume")
    assert code == 2
    assert "--unsupported keep, not" in err
    code, _, _ = gpuenc("verify", archive, out, "--report", tmp_path / "v.jsonl")
    verdicts = [json.loads(line)["verdict"] for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert sorted(verdicts) == ["equal", "equal", "equal", "missing"]


def test_a_plan_keeps_them_too(archive, tmp_path):
    (archive / "damaged.dcm").unlink()
    manifest = tmp_path / "job.manifest"
    args = ("-o", tmp_path / "out", "--to", "jpeg-ls-lossless", "--workers", "0")
    code, out, _ = gpuenc("plan", archive, *args, "--unsupported", "keep", "--manifest", manifest)
    assert code == 0
    assert re.search(r"3: 1 encoded, 2 copied, 0 skipped, 0 failed", out)
    assert gpuenc("transcode", "--manifest", manifest, "--workers", "0")[0] == 0
    assert (tmp_path / "out" / "deep" / "bits.dcm").exists()
    code, _, err = gpuenc("transcode", "--manifest", manifest, "--unsupported", "fail")
    assert (code, "leave out --unsupported" in err) == (2, True)
    # A manifest of a version that did not know of it.
    lines = manifest.read_bytes().splitlines(keepends=True)
    about = json.loads(lines[0])
    del about["job"]["keep_unsupported"]
    manifest.write_bytes(b"".join([json.dumps(about).encode() + b"\n", *lines[1:]]))
    code, out, _ = gpuenc("transcode", "--manifest", manifest, "--workers", "0", "--overwrite")
    assert code == 2  # the manifest decides that
    assert gpuenc("transcode", "--manifest", manifest, "--workers", "0")[0] == 0


def test_in_place_they_stay_what_they_are(archive, tmp_path):
    (archive / "damaged.dcm").unlink()
    before = (archive / "deep" / "bits.dcm").read_bytes()
    args = ("--in-place", "--backup", tmp_path / "kept", "--unsupported", "keep", "--report", tmp_path / "r.jsonl")
    code, _, _ = transcode(archive, *args, to="jpeg-ls-lossless")
    assert code == 0
    record = by_name(tmp_path / "r.jsonl")["bits.dcm"]
    assert (record["status"], record["reason"]) == ("skipped", "format-not-allowed")
    assert (archive / "deep" / "bits.dcm").read_bytes() == before


def test_what_a_journal_of_an_earlier_version_does_not_say(archive, tmp_path):
    from gpuenc.archive.journal import Journal, place_of

    job = Job((archive,), tmp_path / "out", target(find("rle")))
    about = job.about()
    about.pop("--unsupported")
    Journal(place_of(tmp_path / "out"), about).close()
    with Journal(place_of(tmp_path / "out"), about) as journal:
        journal.finish()
    with pytest.raises(JobError, match="--unsupported"):
        Journal(place_of(tmp_path / "out"), replace(job, keep_unsupported=True).about(), resume=True)
    Journal(place_of(tmp_path / "out"), job.about(), resume=True).close()


@pytest.mark.parametrize("lossless", [True, False])
def test_the_syntaxes_that_a_message_names_take_such_frames(lossless):
    """What is advised is tried, and what is not advised too: both ways of asking agree."""
    frames = [
        FrameFormat(8, 8, samples, bits, stored, signed, photometric)
        for samples, photometric in ((1, "MONOCHROME2"), (1, "PALETTE COLOR"), (3, "RGB"), (3, "YBR_FULL"), (3, "XYZ"))
        for bits, stored in ((1, 1), (8, 1), (16, 16), (32, 32))
        for signed in (False, True)
    ]
    chosen = {
        syntax.name: _target(syntax, lossless=lossless)
        for syntax in TABLE
        if syntax.loss != ("always" if lossless else "never") and not syntax.recompresses_jpeg
    }
    seen = set()
    for fmt in frames:
        takes, said = set(), []
        for name, to in chosen.items():
            try:
                coding(to, fmt)
                takes.add(name)
            except FormatNotAllowed as error:
                said.append(str(error))
        for message in said:
            found = re.search(r"; these take such frames: (.*)$|; (no transfer syntax) here takes", message)
            assert set((found[1] or "").split(", ")) - {""} == takes
            seen.add(bool(found[1]))
    assert seen == {True, False}


def _target(syntax, *, lossless):
    if syntax.loss != "option":
        return target(syntax)
    if syntax.family == "jpeg-ls":
        return target(syntax, near=0 if lossless else 2)
    lossy = {"quality": 90.0} if syntax.family in ("jpegxl", "jpeg") else {"psnrs": (40.0,)}
    return target(syntax, lossless=True) if lossless else target(syntax, **lossy)
