"""`gpuenc report` and `gpuenc merge-reports` as people run them."""

from __future__ import annotations

import re

import pytest

from gpuenc.archive.report import Record
from tests import made
from tests.archive.records import Page, records, write_report
from tests.test_cli import gpuenc, study, transcode  # noqa: F401  # a fixture

SOME = list(records(60, failed=0.1))


def test_from_files_to_a_page(study, tmp_path):  # noqa: F811
    assert transcode(study, "-o", tmp_path / "out", "--report", tmp_path / "r.jsonl")[0] == 0
    assert gpuenc("report", tmp_path / "r.jsonl", "-o", tmp_path / "p.html") == (0, "", "")
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert (page.tiles["Files"], page.tiles["Encoded"], page.tiles["Verified"]) == ("4", "3", "3")
    sizes = [sum(path.stat().st_size for path in folder.rglob("*.dcm")) for folder in (study, tmp_path / "out")]
    assert float(page.tiles["Ratio"]) == sizes[0] / sizes[1]
    assert page.wrong == []


def test_a_report_says_what_its_time_is(study, tmp_path):  # noqa: F811
    """The job began before its first file, so it took longer."""
    report, merged = tmp_path / "r.jsonl", tmp_path / "all.jsonl"
    code, job, _ = transcode(study, "-o", tmp_path / "out", "--report", report)
    assert code == 0
    assert "first to last file" not in job
    for args in ((report,), (tmp_path / "out",)):
        assert re.search(r"│ first to last file +│ [\d.]+ s", gpuenc("report", *args)[1])
    assert re.search(r"│ first to last file +│ [\d.]+ s", gpuenc("merge-reports", report, "-o", merged)[1])


def test_a_small_plan_takes_under_a_second(tmp_path):
    made.of(made.noise((1, 8, 8), "u2")).write(tmp_path / "one.dcm")
    manifest = tmp_path / "job.manifest"
    args = (tmp_path / "one.dcm", "-o", tmp_path / "out", "--to", "rle", "--workers", "0", "--manifest", manifest)
    code, out, err = gpuenc("plan", *args)
    assert (code, err) == (0, "")
    said = dict(re.findall(r"^ *(\S[^\n]*?) {2,}(\S[^\n]*?) *$", out, re.MULTILINE))
    assert said["encoded"] == "1 frame, 128 B of pixels"
    assert said["time, about"] == "under a second"
    assert said["tried"].startswith("1 file encoded")
    assert said["manifest"] == "1 file in 1 shard"


def test_a_page_that_cannot_be(tmp_path):
    report = write_report(tmp_path / "r.jsonl", SOME)
    (tmp_path / "x").write_bytes(b"precious")
    for args, code, said in (
        ((report, "-o", tmp_path / "x"), 2, "x exists and is no report page; it is left as it is"),
        ((tmp_path / "x", "-o", tmp_path / "p.html"), 2, "x is no report of gpuenc"),
        ((tmp_path / "absent", "-o", tmp_path / "p.html"), 3, "absent cannot be read"),
        ((report, "-o", tmp_path / "no" / "p.html"), 4, "cannot be written"),
    ):
        got, out, err = gpuenc("report", *args)
        assert (got, out, err.count("\n")) == (code, "", 1)
        assert said in err
    assert (tmp_path / "x").read_bytes() == b"precious"
    assert not (tmp_path / "p.html").exists()


def test_a_report_of_a_job_that_was_killed(tmp_path):
    report = write_report(tmp_path / "r.jsonl", SOME)
    report.write_bytes(report.read_bytes()[:-9])
    code, out, err = gpuenc("report", report, "-o", tmp_path / "p.html")
    assert (code, out) == (0, "")
    assert "line 60 is cut off and left out" in err
    assert Page((tmp_path / "p.html").read_text(encoding="utf-8")).tiles["Files"] == "59"


def test_shards_are_joined(tmp_path):
    shards = [write_report(tmp_path / f"{number}.jsonl", SOME[number::3]) for number in range(3)]
    code, out, err = gpuenc("merge-reports", *shards, "-o", tmp_path / "all.jsonl")
    assert (code, err) == (0, "")
    counts = [sum(record.status == status for record in SOME) for status in ("encoded", "copied", "skipped", "failed")]
    assert "60: {} encoded, {} copied, {} skipped, {} failed".format(*counts) in out
    assert "0 outcomes by a later one" in out
    assert gpuenc("report", tmp_path / "all.jsonl", "-o", tmp_path / "p.html")[0] == 0


def test_shards_at_odds(tmp_path):
    shards = [
        write_report(tmp_path / f"{size}.jsonl", [*SOME, Record("twice\x1b[31m", "encoded", bytes_out=size)])
        for size in (1, 2)
    ]
    code, out, err = gpuenc("merge-reports", *shards, "-o", tmp_path / "all.jsonl")
    assert (code, out) == (1, "")
    assert r"outcomes that contradict each other: twice\x1b[31m" in err
    assert "nothing was written: 1 source with outcomes at odds" in err
    assert not (tmp_path / "all.jsonl").exists()


def test_joined_reports_that_cannot_be(tmp_path):
    report = write_report(tmp_path / "r.jsonl", SOME)
    (tmp_path / "x").write_bytes(b"precious")
    for args, code in (
        ((report, "-o", report), 2), ((report, "-o", tmp_path / "x"), 2), ((tmp_path / "x", "-o", tmp_path / "new"), 2),
        ((report, tmp_path / "absent", "-o", tmp_path / "new"), 3), ((report, "-o", tmp_path / "no" / "new"), 4),
    ):  # fmt: skip
        got, out, err = gpuenc("merge-reports", *args)
        assert (got, out, err.count("\n")) == (code, "", 1)
    assert (tmp_path / "x").read_bytes() == b"precious"


@pytest.mark.parametrize("command", ["report", "merge-reports"])
def test_help(command):
    code, out, _ = gpuenc(command, "--help")
    assert code == 0
    assert "--output" in out


@pytest.mark.parametrize(
    ("args", "shown"), [((), True), (("--device", "cpu"), False), (("--plugin", "imagecodecs"), False)]
)
def test_summary_says_why_no_gpu_is_used(study, tmp_path, monkeypatch, args, shown):  # noqa: F811
    monkeypatch.setattr(
        "gpuenc.archive.threads.why_on_cpu",
        lambda syntax, device, label: "" if device == "cpu" or label else f"none for {syntax.name}",
    )
    _, out, _ = transcode(study, "-o", tmp_path / "out", *args)
    assert ("none for htj2k-lossless" in out) == shown


def test_a_job_that_does_not_begin_leaves_the_report_of_another(study, tmp_path):  # noqa: F811
    report = tmp_path / "r.jsonl"
    assert transcode(study, "-o", tmp_path / "out", "--report", report)[0] == 0
    before = report.read_bytes()
    assert before
    code, _, err = transcode(study, "-o", tmp_path / "out", "--report", report, "--resume", "--lossy-sources", "encode")
    assert code == 2
    assert "--lossy-sources" in err
    assert report.read_bytes() == before
    # In the output folder there is room for one, although the folder is only made by the job.
    code, _, _ = transcode(study, "-o", tmp_path / "new", "--report", tmp_path / "new" / "r.jsonl")
    assert (code, (tmp_path / "new" / "r.jsonl").read_bytes().count(b"\n")) == (0, before.count(b"\n"))


def test_what_a_manifest_has_decided_is_not_asked_for_again(study, tmp_path):  # noqa: F811
    manifest = tmp_path / "m"
    assert (
        gpuenc("plan", study, "-o", tmp_path / "out", "--to", "rle", "--manifest", manifest, "--workers", "0")[0] == 0
    )
    for options in (["--overwrite"], ["--verify", "none"], ["--quality", "5"], ["--in-place", "--no-backup"], [study]):
        code, _, err = gpuenc("transcode", "--manifest", manifest, *options)
        assert (code, "leave out" in err) == (2, True)
    assert gpuenc("transcode", "--manifest", manifest, "--workers", "0")[0] == 0
