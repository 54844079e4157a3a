"""One job at a time in a place, whoever is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.archive import locks
from gpuenc.archive.job import run
from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.locks import only_in_place, only_job, worker_of
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.watcher import Records

ROOT = Path(__file__).resolve().parents[2]
HOLDER = (
    "import sys; from pathlib import Path; from gpuenc.archive.locks import only_job, worker_of\n"
    "with {}(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def holder(journal):
    """Return what holds a lock in a process of its own."""
    started = []

    def hold(kind):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER.format(kind), journal],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_two_jobs_at_once(journal, holder):
    other = holder("only_job")
    with pytest.raises(JobError, match="another gpuenc is at work") as caught, only_job(journal):
        pass
    assert caught.value.code == "journal-in-use"
    other.kill()
    other.wait()
    with only_job(journal):
        pass


def test_a_job_waits_for_workers_of_a_killed_one(journal, holder, monkeypatch):
    other = holder("worker_of")
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.2)
    with pytest.raises(JobError, match="processes of an earlier job") as caught, only_job(journal):
        pass
    assert caught.value.code == "journal-in-use"
    monkeypatch.setattr(locks, "_PATIENCE_S", 60.0)
    other.stdin.close()
    with only_job(journal):
        pass


def test_several_workers_of_one_job(journal, holder):
    with only_job(journal):
        holder("worker_of")
        holder("worker_of")


def test_shares_do_not_keep_each_other_out(tmp_path):
    with pytest.raises(JobError), only_job(tmp_path / "shard-1-of-2.sqlite"), only_job(tmp_path / "journal.sqlite"):
        pass
    with only_job(tmp_path / "shard-1-of-2.sqlite"), only_job(tmp_path / "shard-2-of-2.sqlite"):
        pass


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JobError) as caught, only_job(tmp_path / "file" / "journal.sqlite"):
        pass
    assert caught.value.code == "journal-unusable"


def test_a_worker_whose_journal_is_gone_works_on(tmp_path):
    with worker_of(tmp_path / "gone" / "journal.sqlite"), worker_of(None):
        pass


def test_what_happens_under_the_lock_is_not_called_an_unusable_journal(journal):
    with pytest.raises(PermissionError), only_job(journal):
        raise PermissionError


@pytest.mark.parametrize("resume", [False, True])
def test_a_job_that_is_at_work_is_not_disturbed(tmp_path, resume):
    (tmp_path / "in").mkdir()
    for number in range(3):
        made.of(made.noise((1, 8, 8), "u2")).write(tmp_path / "in" / str(number))
    out = tmp_path / "out"
    job = Job((tmp_path / "in",), out, target(find("rle")), journal=place_of(out))

    class Second(Records):
        codes = ()

        def done(self, record):
            super().done(record)
            with pytest.raises(JobError) as caught:
                run(replace(job, resume=resume), Records())
            self.codes += (caught.value.code,)

    watcher = Second()
    assert run(job, watcher).done == 3
    assert watcher.codes == ("journal-in-use",) * 3


def begun(journal, *, finished):
    """Leave what a share leaves: its lock file, and its journal, finished or not."""
    with only_job(journal, "m"), Journal(journal, {}) as database:
        database.plan([(Item("in/a", "out/a"), 1)])
        database.next(1)
        if finished:
            database.finish()


def test_shares_of_another_division_at_work(tmp_path):
    with only_job(tmp_path / "shard-1-of-2.sqlite", "m"):
        other = only_job(tmp_path / "shard-2-of-3.sqlite", "m")
        with pytest.raises(JobError, match="being written by a job of 2 shares") as caught, other:
            pass
        assert caught.value.code == "journal-in-use"
    with only_job(tmp_path / "shard-2-of-3.sqlite", "m"):
        pass


@pytest.mark.parametrize(
    ("name", "manifest", "said"),
    [
        ("shard-1-of-3", "m", "begun by a job of 2 shares, and this is one of 3 shares"),
        ("shard-2-of-2", "another", "begun by shares of another manifest"),
        ("journal", "", "begun by a job of 2 shares, and this is one of one share"),
        ("shard-2-of-2", "m", ""),
        ("shard-1-of-2", "m", ""),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_shares_of_another_division_that_have_begun(tmp_path, name, manifest, said, finished):
    begun(tmp_path / "shard-1-of-2.sqlite", finished=finished)
    if not said or finished:
        with only_job(tmp_path / f"{name}.sqlite", manifest):
            return
    with pytest.raises(JobError, match=said) as caught, only_job(tmp_path / f"{name}.sqlite", manifest):
        pass
    assert caught.value.code == "journal-unfinished"


def test_a_share_of_another_manifest_at_work(tmp_path):
    first, other = (only_job(tmp_path / f"shard-{i}-of-2.sqlite", m) for i, m in ((1, "m"), (2, "another")))
    with first, pytest.raises(JobError, match="another manifest") as caught, other:
        pass
    assert caught.value.code == "journal-in-use"


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("tree", "tree", False),
        ("tree", "tree/sub", False),
        ("tree/sub", "tree", False),
        ("tree", "link/sub", False),
        ("tree", "tree/file", False),
        ("tree/file", "tree/file", False),
        ("tree", "other", True),
        ("tree/sub", "tree/sub2", True),
    ],
)
def test_one_job_replaces_files_of_a_tree(tmp_path, first, second, both):
    for name in ("tree/sub", "tree/sub2", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tree" / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    with only_in_place([tmp_path / first]):
        # The file that was locked is another one afterwards.
        os.replace(tmp_path / "tree" / "file", tmp_path / "tree" / "file2")
        (tmp_path / "tree" / "file").write_bytes(b"")
        if both:
            with only_in_place([tmp_path / second]):
                return
        other = only_in_place([tmp_path / second])
        with pytest.raises(JobError, match="replacing files in") as caught, other:
            pass
        assert caught.value.code == "journal-in-use"
    with only_in_place([tmp_path / second]):
        pass


def test_shares_replace_files_side_by_side_and_with_nobody_else(tmp_path):
    one, two, whole = (only_in_place([tmp_path], share_of=job) for job in ("a", "a", ""))
    with one, two, pytest.raises(JobError), whole:
        pass


def test_two_jobs_in_place_with_different_backups(tmp_path):
    (tmp_path / "in").mkdir()
    made.of(made.noise((1, 8, 8), "u2")).write(tmp_path / "in" / "a")

    def job(name):
        backup = tmp_path / name
        return Job(
            (tmp_path / "in",), backup, target(find("rle")), journal=place_of(backup), in_place=True, backup=backup
        )

    class Second(Records):
        code = ""

        def done(self, record):
            super().done(record)
            with pytest.raises(JobError) as caught:
                run(job("two"), Records())
            self.code = caught.value.code

    watcher = Second()
    run(job("one"), watcher)
    assert watcher.code == "journal-in-use"
    assert [record.status for record in watcher.records] == ["encoded"]
    after = Records()
    run(job("two"), after)
    assert [record.reason for record in after.records] == ["already-encoded"]
