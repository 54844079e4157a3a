"""The journal: every state of a file, whatever happens to the process that writes it."""

from __future__ import annotations

import os
import resource
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.journal_read import records
from gpuenc.archive.report import Record
from gpuenc.archive.scan import Item
from gpuenc.errors import JobError

ABOUT = {"target": "rle", "output": "out"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / ".gpuenc" / "journal.sqlite"


def item(name, source=None):
    return Item(Path("in") / (source or name), Path("out") / name)


def encoded(name):
    return Record(f"in/{name}", "encoded", destination=f"out/{name}", bytes_out=1)


def crashed(path, *names, done=()):
    """Leave a journal as a process does that is killed: what was committed is there, and nothing is closed."""
    journal = Journal(path, ABOUT)
    journal.plan((item(name), 1) for name in names)
    tasks = journal.next(len(names))
    for task in tasks:
        if task.item.destination.name in done:
            journal.done(task.number, encoded(task.item.destination.name))
    journal.commit()
    journal._db.close()
    return tasks


def states(path):
    db = sqlite3.connect(path)
    try:
        return {
            os.fsdecode(os.path.basename(place)): (state, ours)
            for place, state, ours in db.execute("SELECT place, state, ours FROM files")
        }
    finally:
        db.close()


def test_a_file_is_planned_begun_and_done(path):
    with Journal(path, ABOUT) as journal:
        assert journal.plan([(item("a"), 3), (item("b"), 4)]) == []
        journal.commit()
        assert states(path) == {"a": (0, 0), "b": (0, 0)}
        assert journal.without_outcome(3) == ["in/a", "in/b"]
        (task,) = journal.next(1)
        assert (task.item, task.size_bytes) == (item("a"), 3)
        # Durable before anything can be written under its name.
        assert states(path) == {"a": (1, 0), "b": (0, 0)}
        journal.done(task.number, encoded("a"))
        assert states(path)["a"] == (1, 0)
        journal.commit()
        assert states(path)["a"] == (2, 2)
        assert [one.item.source.name for one in journal.next(9)] == ["b"]
        assert journal.next(9) == []
    assert [record.source for record in records(path)] == ["in/a"]


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_what_failed_is_not_ours(path, status):
    with Journal(path, ABOUT) as journal:
        journal.plan([(item("a"), 3)])
        (task,) = journal.next(1)
        journal.done(task.number, Record("in/a", status, reason="destination-exists"))
    assert states(path) == {"a": (2, 0)}


@pytest.mark.parametrize("reason", ["worker-crashed", "worker-hung"])
def test_what_a_file_that_was_given_up_may_have_left_is_ours(path, reason):
    """Its process may have ended after the output had its name: a resumed job makes it again."""
    with Journal(path, ABOUT) as journal:
        journal.plan([(item("a"), 3)])
        (task,) = journal.next(1)
        journal.done(task.number, Record("in/a", "failed", reason=reason))
    assert states(path) == {"a": (2, 1)}


@pytest.mark.parametrize(
    ("reason", "seconds", "ours"),
    [
        # Nobody knows what came of what was sent; or it is there, and wrong; or another's is.
        ("store-unreachable", {"store": 1.0}, 1),
        ("stored-unverified", {"store": 1.0}, 2),
        ("read-back-mismatch", {"store": 1.0}, 2),
        ("destination-exists", {"store": 1.0}, 0),
        # Nothing was sent.
        ("store-unreachable", {"fetch": 1.0}, 0),
        ("read-back-mismatch", {}, 0),
    ],
)
def test_what_may_have_come_to_a_store_is_looked_at_again(path, reason, seconds, ours):
    with Journal(path, ABOUT) as journal:
        journal.plan([(item("a"), 3)])
        (task,) = journal.next(1)
        journal.done(task.number, Record("in/a", "failed", reason=reason, stage_seconds=seconds))
    assert states(path) == {"a": (2, ours)}


def test_an_etag_is_known_until_there_is_another(path):
    with Journal(path, ABOUT) as journal:
        journal.plan([(item("a"), 3)])
        (task,) = journal.next(1)
        assert task.item.made_before is None
        journal.done(task.number, replace(encoded("a"), output_etag="e1"))
    for outcome in (Record("in/a", "failed", reason="truncated"), replace(encoded("a"), output_etag="e2")):
        with Journal(path, ABOUT, resume=True) as journal:
            journal.plan([(item("a"), 3)])
            (task,) = journal.next(1)
            assert task.item.made_before == "e1"
            journal.done(task.number, outcome)
    with Journal(path, ABOUT, resume=True) as journal:
        assert journal.earlier(["out/a"])["out/a"].output_etag == "e2"


def test_an_output_stays_ours_when_making_it_again_fails(path):
    """The one that is there is still that of the first run, and the next one may replace it."""
    crashed(path, "a", done=["a"])
    with Journal(path, ABOUT, resume=True) as journal:
        journal.plan([(item("a"), 3)])
        (task,) = journal.next(1)
        assert task.item.replaces
        journal.done(task.number, Record("in/a", "failed", reason="truncated"))
    with Journal(path, ABOUT, resume=True) as journal:
        assert journal.earlier(["out/a"])["out/a"].ours


def test_a_place_is_taken_once(path):
    with Journal(path, ABOUT) as journal:
        assert journal.plan([(item("a"), 1), (item("a", "other"), 1)]) == [item("a", "other")]
        assert journal.plan([(item("a", "third"), 1)]) == [item("a", "third")]


def test_what_was_begun_may_be_ours_and_what_was_only_planned_is_not(path):
    crashed(path, "a", "b", done=["b"])
    db = sqlite3.connect(path)
    db.execute("INSERT INTO files (place, source, size_bytes, state, ours) VALUES (?, ?, 0, 0, 0)", (b"out/c", b"in/c"))
    db.commit()
    db.close()
    with Journal(path, ABOUT, resume=True) as journal:
        assert journal.interrupted == [("in/a", "out/a")]
        found = journal.earlier(["out/a", "out/b", "out/c", "out/d"])
        assert {name: (one.ours, one.kept is not None) for name, one in found.items()} == {
            "out/a": (1, False),
            "out/b": (2, True),
            "out/c": (0, False),
        }
        assert found["out/b"].source == "in/b"
        journal.keep([found["out/b"].number])
        assert journal.plan([(item("a"), 1)]) == []
        assert journal.plan([(item("b", "another"), 1)]) == [item("b", "another")]
        assert [task.item.replaces for task in journal.next(9)] == [True]


def test_a_resumed_job_that_dies_at_once_forgets_nothing(path):
    crashed(path, "a", "b", done=["b"])
    Journal(path, ABOUT, resume=True)._db.close()
    with Journal(path, ABOUT, resume=True) as journal:
        assert journal.interrupted == [("in/a", "out/a")]


def test_nothing_to_resume(path):
    with pytest.raises(JobError, match="missing") as caught:
        Journal(path, ABOUT, resume=True)
    assert caught.value.code == "journal-missing"
    assert not path.exists()


def test_an_unfinished_job_is_not_replaced(path):
    crashed(path, "a")
    with pytest.raises(JobError, match="go on with --resume") as caught:
        Journal(path, ABOUT)
    assert caught.value.code == "journal-unfinished"
    assert states(path) == {"a": (1, 0)}


def test_a_finished_job_is_replaced_or_gone_on_with(path):
    crashed(path, "a", done=["a"])
    with Journal(path, ABOUT, resume=True) as journal:
        journal.finish()
    with Journal(path, ABOUT, resume=True) as journal:
        assert journal.earlier(["out/a"])
        journal.finish()
    with Journal(path, ABOUT) as journal:
        assert journal.earlier(["out/a"]) == {}
        journal.plan([(item("b"), 1)])
        journal.next(1)
    assert states(path) == {"b": (1, 0)}


@pytest.mark.parametrize("about", [{"target": "htj2k", "output": "out"}, {"output": "elsewhere", "target": "rle"}])
def test_another_job_is_not_gone_on_with(path, about):
    crashed(path, "a")
    with pytest.raises(JobError, match="the job to resume was asked for") as caught:
        Journal(path, about, resume=True)
    assert caught.value.code == "journal-differs"
    assert states(path) == {"a": (1, 0)}


def test_a_journal_of_another_version(path):
    crashed(path, "a")
    db = sqlite3.connect(path)
    db.execute("UPDATE about SET value = '99' WHERE name = 'format'")
    db.commit()
    db.close()
    with pytest.raises(JobError, match="another version") as caught:
        Journal(path, ABOUT, resume=True)
    assert caught.value.code == "journal-differs"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be one" * 9, b"SQLite format 3\0" + bytes(99)]
)
def test_what_is_no_journal_is_left_alone(path, content, resume):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(JobError) as caught:
        Journal(path, ABOUT, resume=resume)
    assert caught.value.code == "journal-unusable"
    assert path.read_bytes() == content


@pytest.mark.parametrize("resume", [False, True])
def test_a_corrupt_journal_is_said_to_be_one(path, resume):
    crashed(path, *(f"{number:04}" for number in range(500)))
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with pytest.raises(JobError) as caught:
        Journal(path, ABOUT, resume=resume)
    assert caught.value.code == "journal-unusable"


def test_killed_before_the_journal_was_begun(path):
    """The database is there, and nothing is in it: as if it were not."""
    path.parent.mkdir(parents=True)
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    with pytest.raises(JobError) as caught:
        Journal(path, ABOUT, resume=True)
    assert caught.value.code == "journal-missing"
    with Journal(path, ABOUT) as journal:
        journal.plan([(item("a"), 1)])
        assert len(journal.next(1)) == 1


def test_a_journal_is_whole_or_not_there(path, monkeypatch):
    """Killed anywhere while it is begun: no table is there without the others and what the job is about."""

    class Killed(BaseException):
        pass

    path.parent.mkdir(parents=True)
    for most in range(10):
        Path(path).unlink(missing_ok=True)
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN")
        journal = Journal.__new__(Journal)
        journal._token, journal.run = "0123456789ab", "0123456789ab-1"

        class Mortal:
            left = most

            def __getattr__(self, name, db=db):
                def call(*args, **options):
                    if not Mortal.left:
                        raise Killed
                    Mortal.left -= 1
                    return getattr(db, name)(*args, **options)

                return call

        journal._db = Mortal()
        try:
            journal._begin(ABOUT)
        except Killed:
            ended = False
        else:
            ended = True
        db.close()
        look = sqlite3.connect(path)
        tables = {name for (name,) in look.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables in (set(), {"about", "files", "gone"})
        if tables:
            assert dict(look.execute("SELECT name, value FROM about")).keys() == {"format", "token", "run", *ABOUT}
        look.close()
    assert ended


def test_names_that_are_no_text(path):
    odd = os.fsdecode(b"\xff\xfe\n.dcm")
    tasks = crashed(path, odd, "größe", done=[odd])
    assert [task.item.source.name for task in tasks] == [odd, "größe"]
    with Journal(path, ABOUT, resume=True) as journal:
        found = journal.earlier([f"out/{odd}"])[f"out/{odd}"]
        assert (found.source, found.record.destination) == (f"in/{odd}", f"out/{odd}")


def test_a_journal_in_which_nothing_was_begun_is_none(path):
    with Journal(path, ABOUT) as journal:
        journal.plan([(item("a"), 1)])
    assert not list(path.parent.iterdir())


def test_records_of_what_is_no_journal(tmp_path):
    (tmp_path / "x").write_bytes(b"nothing" * 99)
    for name in ("x", "missing"):
        with pytest.raises(JobError) as caught:
            list(records(tmp_path / name))
        assert caught.value.code == "journal-unusable"


def test_place():
    assert place_of(Path("out"), "shard-1-of-2") == Path("out/.gpuenc/shard-1-of-2.sqlite")


def test_memory_does_not_grow_with_rows(path):
    def hundred(first):
        return [(item(f"{number:06}"), 1) for number in range(first, first + 100)]

    with Journal(path, ABOUT) as journal:
        for first in range(0, 10_000, 100):
            journal.plan(hundred(first))
        journal.commit()
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for first in range(10_000, 110_000, 100):
            journal.plan(hundred(first))
        journal.commit()
        begun = 0
        while tasks := journal.next(64):
            begun += len(tasks)
            if begun > 20_000:
                break
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20 << 10
