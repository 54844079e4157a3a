"""Shares of one job replace files side by side; nobody else does beside them, wherever it keeps its backups."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpuenc.archive import groups
from gpuenc.archive.locks import only_in_place
from gpuenc.archive.report import read_records
from gpuenc.errors import JobError
from tests import made
from tests.test_cli import gpuenc

ROOT = Path(__file__).resolve().parents[2]
HOLDER = (
    "import sys; from gpuenc.archive.locks import only_in_place\n"
    "with only_in_place([sys.argv[1]], share_of=sys.argv[2]): print('held', flush=True); sys.stdin.read()"
)
pytestmark = pytest.mark.skipif(not groups._CAN, reason="this system locks no ranges of open files")


@pytest.fixture
def tree(tmp_path):
    for name in ("tree/sub/deep", "tree/sub2", "other"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (("tree", "a"), ("tree", "a"), True),
        (("tree", "a"), ("tree", "b"), False),
        (("tree", "a"), ("tree/sub", "b"), False),
        (("tree", "a"), ("tree/sub/deep", "b"), False),
        (("tree/sub/deep", "a"), ("tree", "b"), False),
        (("tree/sub", "a"), ("tree/sub2", "b"), True),
        (("tree", "a"), ("other", "b"), True),
        # A job that is not shared out, over a part and over the whole.
        (("tree", "a"), ("tree/sub", ""), False),
        (("tree/sub", ""), ("tree", "a"), False),
        (("tree/sub", "a"), ("tree", ""), False),
        (("tree/sub", "a"), ("tree/sub2", ""), True),
    ],
)
def test_who_may_be_at_work_beside_whom(tree, first, second, both):
    one, two = (only_in_place([tree / name], share_of=job) for name, job in (first, second))
    with ExitStack() as stack:
        stack.enter_context(one)
        if both:
            stack.enter_context(two)
            # One more share of each, while both are there.
            for name, job in (first, second):
                if job:
                    stack.enter_context(only_in_place([tree / name], share_of=job))
        else:
            with pytest.raises(JobError, match="replacing files in") as caught, two:
                pass
            assert caught.value.code == "journal-in-use"
            if first[1]:  # who was refused has not kept out anybody
                stack.enter_context(only_in_place([tree / first[0]], share_of=first[1]))
    with only_in_place([tree / second[0]], share_of=second[1]):
        pass


def test_a_share_that_is_killed_keeps_nobody_out(tree):
    command = [sys.executable, "-c", HOLDER, tree / "tree", "a"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(JobError), only_in_place([tree / "tree"], share_of="b"):
            pass
        with only_in_place([tree / "tree"], share_of="a"):
            pass
    finally:
        process.kill()
        process.communicate()
    with only_in_place([tree / "tree"], share_of="b"):
        pass


def test_numbers_of_groups():
    assert groups.number_of("a") == groups.number_of("a") != groups.number_of("b")
    assert groups.number_of("") != groups.number_of("")
    assert all(0 < groups.number_of(name) < groups._POSITIONS for name in ("", *map(str, range(100))))


def test_shares_of_two_manifests_with_different_backups(tmp_path):
    """As people run them: while a share of one job is held up, one of the other is refused, and one of the same not."""
    for number in range(4):
        made.of(made.noise((1, 8, 8), "u2", seed=number)).write(_in(tmp_path) / f"{number}.dcm")
    for name in ("one", "two"):
        args = ("--in-place", "--backup", tmp_path / name, "--to", "rle", "--manifest", tmp_path / f"{name}.manifest")
        assert gpuenc("plan", _in(tmp_path), *args, "--workers", "0")[0] == 0
    at_work = subprocess.Popen(
        [sys.executable, "-c", _HELD_UP, tmp_path / "one.manifest", tmp_path / "go"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert b"at work\n" in iter(at_work.stdout.readline, b"")
        code, _, err = _share(tmp_path / "two.manifest", "1/2")
        assert (code, "is replacing files in" in err) == (4, True)
        code, _, err = _share(tmp_path / "one.manifest", "2/2", "--report", tmp_path / "r.jsonl")
        assert (code, err) == (0, "")
        code, _, err = _share(tmp_path / "one.manifest", "1/2")
        assert (code, "is at work on" in err) == (4, True)
    finally:
        (tmp_path / "go").touch()
        assert at_work.wait(60) == 0
        at_work.stdout.close()
    assert all(record.status in ("encoded", "skipped") for record in read_records(tmp_path / "r.jsonl"))


# Share 1/2 of a manifest, whose first file is begun and waits for another file to be there.
_HELD_UP = """
import sys, time
from pathlib import Path
from gpuenc.archive import threads
from gpuenc.cli import app
right = threads.carry
def held_up(*args, **options):
    print("at work", flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.01)
    return right(*args, **options)
threads.carry = held_up
sys.stdout.flush()
app(["transcode", "--manifest", sys.argv[1], "--shard", "1/2", "--workers", "0"])
"""


def _in(folder):
    (folder / "in").mkdir(exist_ok=True)
    return folder / "in"


def _share(manifest, share, *args):
    return gpuenc("transcode", "--manifest", manifest, "--shard", share, "--workers", "0", *args)
