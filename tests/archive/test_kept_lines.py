"""Lines of outcomes as a journal keeps them."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace

import pytest

from gpuenc.archive import kept_lines
from gpuenc.archive.earlier import Earlier, columns_of
from gpuenc.archive.journal_read import records
from gpuenc.archive.kept_lines import kept, line_of
from gpuenc.archive.report import Record, record_of
from gpuenc.errors import JobError
from tests.archive.watcher import transcode
from tests.made import noise, of


@pytest.mark.parametrize("source", ["/in/a.dcm", "/in/\u00fc \U0001f9e0", "/in/\udcff", "/in/" + "x" * 5000])
def test_a_line_is_what_it_was(source):
    line = Record(source, "encoded", crc32=tuple(f"{number:08x}" for number in range(999))).as_json()
    assert line_of(kept(line)) == line
    assert record_of(line_of(kept(line))).source == source


def test_what_earlier_versions_have_deflated_is_still_read():
    """A stream names its dictionary by its Adler-32 (RFC 1950, 2.2): another one makes journals unreadable."""
    assert int.from_bytes(kept("")[2:6]) == zlib.adler32(kept_lines._DICTIONARY) == 0x4104F531


@pytest.mark.parametrize("change", ["cut", "a bit", "another dictionary", "longer than it may be", "none"])
def test_what_is_no_line_is_none(monkeypatch, change):
    whole = kept(Record("/in/a", "encoded").as_json())
    monkeypatch.setattr(kept_lines, "_MOST_BYTES", 1000)
    other = zlib.compressobj(wbits=kept_lines._WINDOW_BITS, zdict=b"another one")
    found = {
        "cut": whole[:-5],
        "a bit": whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
        "another dictionary": other.compress(b"{}") + other.flush(),
        "longer than it may be": kept("x" * 1001),
        "none": b"",
    }[change]
    assert line_of(found) == ""
    with pytest.raises(JobError) as caught:
        _ = Earlier(1, "/in/a", 0, *columns_of(Record("/in/a", "encoded"))[:-1], found).record
    assert caught.value.code == "journal-unusable"


def test_a_journal_of_the_version_before_is_gone_on_with(tmp_path):
    """It has lines as they are; what is added has not."""
    journal = tmp_path / "out" / ".gpuenc" / "journal.sqlite"
    for name in "ab":
        (tmp_path / "in").mkdir(exist_ok=True)
        of(noise((1, 8, 8), "u2")).write(tmp_path / "in" / name)
    first = transcode(tmp_path / "in", tmp_path / "out", "rle", journal=journal)
    with closing(sqlite3.connect(journal)) as db, db:
        for number, line in db.execute("SELECT number, record FROM files").fetchall():
            db.execute("UPDATE files SET record = ? WHERE number = ?", (line_of(line), number))
        db.execute("UPDATE about SET value = '3' WHERE name = 'format'")
    of(noise((1, 8, 8), "u2", seed=3)).write(tmp_path / "in" / "b")
    of(noise((1, 8, 8), "u2")).write(tmp_path / "in" / "c")
    again = transcode(tmp_path / "in", tmp_path / "out", "rle", journal=journal, resume=True)
    assert [record.status for record in again] == ["encoded"] * 3
    assert replace(again[0], seconds=0) == replace(first[0], seconds=0)
    assert again[1].source_digest != first[1].source_digest
    assert [record.output_digest for record in records(journal)] == [record.output_digest for record in again]
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("SELECT value FROM about WHERE name = 'format'").fetchone() == ("4",)
        assert {type(line) for (line,) in db.execute("SELECT record FROM files")} == {str, bytes}
