"""Reports read back: what was written comes back, what is cut off is left out, what is no report is refused."""

from __future__ import annotations

import json

import pytest

from gpuenc.archive.report import Record, ReportFile, Summary, read_lines, read_records
from gpuenc.errors import SourceError
from tests.archive.records import records, write_report

FULL = Record(
    "größe\n\udcff\x1b\"'.dcm",
    "encoded",
    destination="out/1.dcm",
    message="a note",
    source_syntax="1.2",
    target_syntax="1.3",
    plugins={"a": 2},
    fallbacks={"b: device-lost": 1},
    frames=2,
    bytes_in=(1 << 63) - 1,
    bytes_out=7,
    pixel_bytes=8,
    seconds=0.25,
    verified=True,
    modality="CT",
    finished_s=1_795_300_000.123456,
    worker=3,
    stage_seconds={"encode": 0.125},
    crc32=("0123abcd", "ffffffff"),
    source_digest="0" * 32,
    output_digest="f" * 32,
    source_mtime_ns=1_795_300_000_123_456_789,
    output_mtime_ns=1,
    run="0123456789ab-2",
    source_etag="a-2",
    output_etag="b",
    unverified="none",
)


def test_every_field_comes_back(tmp_path):
    unset = Record("", "failed")
    assert not [name for name in FULL.__slots__ if name != "reason" and getattr(FULL, name) == getattr(unset, name)]
    written = [FULL, *records(50), unset]
    assert list(read_records(write_report(tmp_path / "r.jsonl", written)))[:1] == [FULL]
    back = list(read_records(tmp_path / "r.jsonl"))
    assert [json.loads(record.as_json()) for record in back] == [json.loads(record.as_json()) for record in written]


def test_lines_say_where_they_are(tmp_path):
    path = write_report(tmp_path / "r.jsonl", records(20))
    data = path.read_bytes()
    lines = list(read_lines(path))
    assert [data[line.offset : line.offset + len(line.data)] for line in lines] == data.splitlines()
    assert [line.data for line in lines] == data.splitlines()


def test_a_line_cut_off_anywhere_is_left_out_and_told(tmp_path):
    data = write_report(tmp_path / "r.jsonl", [*records(2), FULL]).read_bytes()
    whole = list(read_records(tmp_path / "r.jsonl"))
    last = data.rindex(b"\n", 0, -1) + 1
    for end in range(last + 1, len(data) - 1):
        (tmp_path / "cut.jsonl").write_bytes(data[:end])
        notes: list[str] = []
        assert list(read_records(tmp_path / "cut.jsonl", notes)) == whole[:2]
        assert len(notes) == 1
        assert "line 3 is cut off" in notes[0]
    # A line that only lacks its end is all there.
    (tmp_path / "cut.jsonl").write_bytes(data[:-1])
    notes = []
    assert (list(read_records(tmp_path / "cut.jsonl", notes)), notes) == (whole, [])
    # What a power loss leaves.
    (tmp_path / "cut.jsonl").write_bytes(data + bytes(4096))
    assert (list(read_records(tmp_path / "cut.jsonl", notes)), len(notes)) == (whole, 1)
    (tmp_path / "cut.jsonl").write_bytes(data[:20])
    assert list(read_records(tmp_path / "cut.jsonl")) == []


def test_no_lines_are_a_report(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b"")
    assert list(read_records(tmp_path / "r.jsonl")) == []


def test_later_fields_and_other_writers(tmp_path):
    lines = [
        '{"status":"copied","source":"a","new":[1,{"x":2}]}\r',
        '{"source": "b", "status": "failed", "seconds": 3}',
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert list(read_records(tmp_path / "r.jsonl")) == [Record("a", "copied"), Record("b", "failed", seconds=3.0)]


def good(**other):
    return json.dumps({"source": "a", "status": "encoded", **other}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"", b"text", b"[]", b"1", b"null", b'"x"', b"{}", b'{"source": "a"}', b'{"status": "encoded"}', b"\xff\xfe{}",
        b'{"source": "\xff", "status": "failed"}', b"[" * 100_000, b'{"source": ' + b"[" * 100_000,
        good(status="done"), good(status=["encoded"]), good(source=1), good(source=None),
        good(frames=-1), good(frames=1.5), good(frames="1"), good(frames=True), good(bytes_in=1 << 63),
        good(seconds=-1), good(seconds="1"), good(seconds=True), good(verified=1), good(plugins=[]),
        good(plugins={"a": "b"}), good(stage_seconds={"a": None}), good(crc32="00"), good(crc32=[1]), good(modality=2),
        b'{"source": "a", "status": "failed", "seconds": NaN}',
        b'{"source": "a", "status": "failed", "finished_s": Infinity}',
        b'{"source": "a", "status": "failed", "finished_s": 1e999}',
        b'{"source": "a", "status": "failed", "frames": ' + b"9" * 5000 + b"}",
    ],
    ids=range(36),
)  # fmt: skip
def test_what_is_no_record_is_named(tmp_path, line):
    path = tmp_path / "r.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(SourceError, match=r"r\.jsonl is no report of gpuenc: it does not begin") as raised:
        list(read_records(path))
    assert raised.value.code == "not-a-report"
    path.write_bytes(good() + b"\n" + line + b"\n" + good() + b"\n")
    found = read_records(path)
    assert next(found) == Record("a", "encoded")
    with pytest.raises(SourceError, match="line 2 is no record"):
        next(found)


def test_other_files_are_not_reports_without_an_end_either(tmp_path):
    path = tmp_path / "x"
    for data in (b"DICM", b'{"a": 1}', bytes(300), b"<!DOCTYPE html>", b"{"):
        path.write_bytes(data)
        if data == b"{":  # which is how a report begins
            assert list(read_records(path)) == []
            continue
        with pytest.raises(SourceError, match="is no report"):
            list(read_records(path))


def test_a_line_without_end_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("gpuenc.archive.report.LINE_BYTES", 100)
    (tmp_path / "r.jsonl").write_bytes(ReportFile.BEGINNING + b'"' + b"x" * 1000)
    with pytest.raises(SourceError, match="is no report"):
        list(read_records(tmp_path / "r.jsonl"))


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(SourceError, match="cannot be read") as raised:
            list(read_records(path))
        assert raised.value.code == "unreadable-source"


def test_summary_adds_up_stages():
    summary = Summary()
    summary.add(Record("a", "encoded", stage_seconds={"encode": 1.0, "verify": 0.5}))
    summary.add(Record("b", "encoded", stage_seconds={"encode": 2.0}))
    assert summary.stage_seconds == {"encode": 3.0, "verify": 0.5}
