"""Reports joined: each source once, later successes for earlier failures, no contradictions, nothing missing."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from gpuenc.archive.merge import merge_reports
from gpuenc.archive.report import Record, read_records
from gpuenc.errors import DestinationError, InvalidOption, SourceError
from tests.archive.records import records, write_report

SOME = list(records(600, failed=0.1))


def reports(tmp_path, *several):
    return [write_report(tmp_path / f"{number}.jsonl", each) for number, each in enumerate(several)]


def merged(tmp_path, *several, expected=None):
    found = merge_reports(reports(tmp_path, *several), tmp_path / "all.jsonl", expected)
    written = list(read_records(tmp_path / "all.jsonl")) if not found.conflicts else []
    return found, written


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_shards_add_up_to_the_job(tmp_path, shards):
    parts = [SOME[number::shards] for number in range(shards)]
    found, written = merged(tmp_path, *parts, expected=[record.source for record in SOME])
    assert written == [as_read(record) for part in parts for record in part]
    assert (found.superseded, found.repeated, found.conflicts, found.missing, found.unexpected) == (0, 0, 0, 0, 0)
    summary = found.summary
    assert (summary.planned, summary.done) == (600, 600)
    encoded = [record for record in SOME if record.status == "encoded"]
    assert summary.bytes_in == sum(record.bytes_in for record in encoded)
    assert summary.bytes_out == sum(record.bytes_out for record in encoded)
    begin = min(record.finished_s - record.seconds for record in SOME)
    assert summary.seconds == pytest.approx(max(record.finished_s for record in SOME) - begin)


def as_read(record):
    """Return a record as a report keeps it: times to the microsecond."""
    return Record(**{**{name: getattr(record, name) for name in Record.__slots__}, "seconds": round(record.seconds, 6)})


def test_lines_are_kept_as_they_are(tmp_path):
    """What a later version has written is not lost."""
    lines = [
        '{"source": "a", "status": "copied", "later": [1, {"x": null}],  "frames": 0}',
        '{"source": "\\udcff", "status": "failed"}',
    ]
    (tmp_path / "0.jsonl").write_text("\n".join(lines), encoding="utf-8")
    merge_reports([tmp_path / "0.jsonl"], tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").read_text(encoding="utf-8") == "\n".join(lines) + "\n"


# Outcomes of one source, by what they say.
FAILED = Record("a", "failed", reason="truncated")
FAILED_AGAIN = Record("a", "failed", reason="disk-full")
ENCODED = Record("a", "encoded", destination="x", bytes_out=5)
OTHERWISE = Record("a", "encoded", destination="x", bytes_out=6)
COPIED = Record("a", "copied", reason="video", destination="x")
THERE = Record("a", "skipped", reason="destination-exists")
NO_DICOM = Record("a", "skipped", reason="not-dicom")
# In their order in time: what counts, or None where it contradicts itself.
PAIRS = [
    (FAILED, ENCODED, ENCODED), (FAILED, COPIED, COPIED), (FAILED, NO_DICOM, NO_DICOM), (FAILED, THERE, THERE),
    (FAILED, FAILED_AGAIN, FAILED_AGAIN), (THERE, FAILED, FAILED), (THERE, ENCODED, ENCODED), (ENCODED, THERE, ENCODED),
    (ENCODED, FAILED, None), (ENCODED, OTHERWISE, None), (ENCODED, COPIED, None), (COPIED, NO_DICOM, None),
]  # fmt: skip


def at(record, finished_s):
    return Record(**{**{name: getattr(record, name) for name in Record.__slots__}, "finished_s": finished_s})


@pytest.mark.parametrize("same_file", [False, True])
@pytest.mark.parametrize(("first", "last", "counts"), PAIRS)
def test_two_outcomes_of_one_source(tmp_path, first, last, counts, same_file):
    other = Record("b", "copied")
    found, written = merged(tmp_path, *([[first, other, last]] if same_file else [[first], [other, last]]))
    if counts is None:
        assert (found.conflicts, found.named_conflicts, found.superseded) == (1, ["a"], 0)
        assert not (tmp_path / "all.jsonl").exists()
    else:
        assert sorted(written, key=lambda record: record.source) == [counts, other]
        assert (found.superseded, found.conflicts, found.summary.done) == (1, 0, 2)


@pytest.mark.parametrize(("first", "last", "counts"), PAIRS)
def test_times_say_what_came_later_not_the_order_of_reports(tmp_path, first, last, counts):
    found, written = merged(tmp_path, [at(last, 20.0)], [at(first, 10.0)])
    assert found.conflicts == (counts is None)
    assert written == ([] if counts is None else [at(counts, 20.0 if counts is last else 10.0)])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("first", "last"), [("1-1", "1-2"), ("1-9", "1-10")])
def test_a_clock_that_was_set_back_between_runs(tmp_path, turned, first, last):
    """The later run of one job is the later one, whatever its clock said."""
    lines = [[replace(FAILED, finished_s=9e9, run=first)], [replace(ENCODED, finished_s=1.0, run=last)]]
    found, written = merged(tmp_path, *(reversed(lines) if turned else lines))
    assert (found.conflicts, found.superseded) == (0, 1)
    assert [record.status for record in written] == ["encoded"]


def test_runs_of_different_jobs_say_nothing_about_each_other(tmp_path):
    lines = [[replace(ENCODED, finished_s=1.0, run="a-7")], [replace(FAILED, finished_s=2.0, run="b-1")]]
    assert merged(tmp_path, *lines)[0].conflicts == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_three_tries_in_any_order(tmp_path, order):
    tries = [at(THERE, 5.0), at(FAILED, 10.0), at(FAILED_AGAIN, 20.0), at(ENCODED, 30.0)]
    found, written = merged(tmp_path, *([tries[number]] for number in order))
    assert (written, found.superseded, found.conflicts) == ([tries[3]], 3, 0)


def test_the_same_outcome_twice_is_no_contradiction(tmp_path):
    again = [at(record, record.finished_s + 100) for record in SOME[:50]]
    found, written = merged(tmp_path, SOME, again, SOME)
    assert (found.repeated, found.conflicts, found.superseded) == (650, 0, 0)
    assert written == [as_read(record) for record in SOME]


def test_what_is_missing(tmp_path):
    expected = [record.source for record in SOME[100:]] + [f"gone/{number:03}" for number in range(30)] + ["\udcff"]
    found, written = merged(tmp_path, SOME[:300], SOME[300:], expected=iter(expected))
    assert (found.missing, found.unexpected, len(written)) == (31, 100, 600)
    assert found.named_missing == [f"gone/{number:03}" for number in range(20)]
    assert (found.summary.planned, found.summary.done) == (631, 600)
    # Expected twice is expected once.
    found, _ = merged(tmp_path, SOME, expected=[SOME[0].source] * 3)
    assert (found.missing, found.unexpected) == (0, 599)


def test_many_contradictions_are_counted_and_some_named(tmp_path):
    several = [[Record(f"{number:03}", "encoded", bytes_out=size) for number in range(50)] for size in (1, 2, 3)]
    found, _ = merged(tmp_path, *several)
    assert (found.conflicts, found.named_conflicts) == (50, [f"{number:03}" for number in range(20)])


def test_a_line_cut_off_is_told(tmp_path):
    paths = reports(tmp_path, SOME[:5], SOME[5:10])
    paths[0].write_bytes(paths[0].read_bytes()[:-30])
    found = merge_reports(paths, tmp_path / "all.jsonl")
    assert (found.summary.done, len(found.notes)) == (9, 1)


def test_what_is_there_is_not_replaced(tmp_path):
    paths = reports(tmp_path, SOME[:5])
    (tmp_path / "all.jsonl").write_bytes(b"precious")
    with pytest.raises(InvalidOption, match="left as it is"):
        merge_reports(paths, tmp_path / "all.jsonl")
    assert (tmp_path / "all.jsonl").read_bytes() == b"precious"
    before = paths[0].read_bytes()
    with pytest.raises(InvalidOption, match="one of the reports"):
        merge_reports(paths, paths[0])
    assert paths[0].read_bytes() == before
    with pytest.raises(InvalidOption, match="cannot be replaced"):
        merge_reports(paths, tmp_path)
    with pytest.raises(DestinationError):
        merge_reports(paths, tmp_path / "absent" / "all.jsonl")
    with pytest.raises(SourceError, match="cannot be read"):
        merge_reports([*paths, tmp_path / "absent"], tmp_path / "new.jsonl")
    (tmp_path / "bad.jsonl").write_bytes(b"garbage")
    with pytest.raises(SourceError, match="is no report"):
        merge_reports([*paths, tmp_path / "bad.jsonl"], tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_report_that_is_still_written_to(tmp_path, monkeypatch):
    from gpuenc.archive import merge

    paths = reports(tmp_path, SOME[:5])
    reads = []

    def shrinking(path, notes=None):
        reads.append(path)
        if len(reads) == 2:
            path.write_bytes(b"")
        return right(path, notes)

    right = merge.read_lines
    monkeypatch.setattr(merge, "read_lines", shrinking)
    with pytest.raises(SourceError, match="changed while it was read"):
        merge_reports(paths, tmp_path / "all.jsonl")
    assert not (tmp_path / "all.jsonl").exists()


def test_no_room_for_temporary_files(tmp_path, monkeypatch):
    import sqlite3

    from gpuenc.archive import merge

    def full(*args):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(merge, "_take", full)
    with pytest.raises(DestinationError, match="temporary files") as raised:
        merge_reports(reports(tmp_path, SOME[:5]), tmp_path / "all.jsonl")
    assert raised.value.code == "disk-full"


def test_hostile_names_are_only_names(tmp_path):
    names = ["a'; DROP TABLE outcome; --", "\udcff", "\ud800", "nul\0", "", "\n", "A", "a", "é", "e\u0301"]
    found, written = merged(tmp_path, [Record(name, "copied") for name in names], expected=names)
    assert ([record.source for record in written], found.missing, found.unexpected) == (names, 0, 0)
    lines = (tmp_path / "all.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["source"] for line in lines[:-1]] == names
    assert lines[-1] == b""
