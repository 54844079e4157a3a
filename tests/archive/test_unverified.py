"""Reports of jobs whose outputs were not all verified say how many were, why not the others, and what these had."""

from __future__ import annotations

import json
import re

import pytest

from gpuenc.archive.report import record_of
from tests import made
from tests.archive.records import Page
from tests.test_cli import gpuenc, transcode

FILES = 12


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(FILES):
        made.of(made.noise((1, 16, 16), "u1", seed=number)).write(folder / f"{number}.dcm")
    return folder


def row(out: str) -> str:
    """The row "verified" of a summary, however it is folded."""
    cells = re.findall(r"│ (\S*(?: \S+)*) *│ (.*?) *│", out)
    begin = [name for name, _ in cells].index("verified")
    end = next((at for at in range(begin + 1, len(cells)) if cells[at][0]), len(cells))
    return " ".join(text for _, text in cells[begin:end])


def seen_by(job):
    """What is said of a job by its folder, its report, the report joined again, and the page."""
    assert gpuenc("merge-reports", job / "r.jsonl", "-o", job / "joined.jsonl")[0] == 0
    assert gpuenc("report", job / "r.jsonl", "-o", job / "page.html")[0] == 0
    said = [row(gpuenc("report", job / name)[1]) for name in ("", "r.jsonl", "joined.jsonl")]
    return said, Page((job / "page.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "to", "why", "words"),
    [
        (("--verify", "sample=40%"), "rle", "sample", "not chosen by --verify sample"),
        (("--verify", "none"), "rle", "none", "left out by --verify none"),
        (("--quality", "90"), "jpegxl", "lossy", "lossy: other samples than the source's"),
    ],
)
def test_reports_say_what_was_verified_and_what_was_not(images, tmp_path, options, to, why, words):
    code, out, err = transcode(images, "-o", tmp_path, "--report", tmp_path / "r.jsonl", *options, to=to)
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    without = sum(not record["verified"] for record in records)
    assert len(records) == FILES
    assert 0 < without < FILES if why == "sample" else without == FILES
    # Of each record: verified with checksums of its frames, or why not.
    assert all(record["verified"] == bool(record["crc32"]) == (not record["unverified"]) for record in records)
    assert {record["unverified"] for record in records} - {""} == {why}
    said, page = seen_by(tmp_path)
    for each in (row(out).replace("sample=40%", "sample"), *said):
        assert each.startswith(f"{FILES - without} of {FILES} files")
        assert f"; {without} {words}; of these, the codestreams' markers were checked and each" in each
        assert ("every sample compared" in each) == (without < FILES)
    assert int(page.tiles["Verified"]) == FILES - without
    assert any(f"{without} {words}" in text for text in page.texts)
    # A finished job that is gone on with counts what its journal holds.
    code, out, _ = transcode(images, "-o", tmp_path, "--resume", *options, to=to)
    assert code == 0
    assert f"{without} {words}" in row(out).replace("sample=40%", "sample")


def test_records_of_earlier_versions_say_nothing_of_it(images, tmp_path):
    assert (
        transcode(images, "-o", tmp_path / "out", "--report", tmp_path / "r.jsonl", "--verify", "none", to="rle")[0]
        == 0
    )
    old = []
    for line in (tmp_path / "r.jsonl").read_text().splitlines():
        values = json.loads(line)
        del values["unverified"]
        old.append(json.dumps(values))
        assert record_of(old[-1])
    (tmp_path / "r.jsonl").write_text("".join(f"{line}\n" for line in old))
    assert row(gpuenc("report", tmp_path / "r.jsonl")[1]) == "no"
