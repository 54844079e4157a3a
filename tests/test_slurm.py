"""The README's job script for Slurm arrays: a loop of the shell for Slurm, and what may become of a task."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpuenc.archive import manifest
from gpuenc.archive.report import read_records
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the script needs bash")

README = Path(__file__).resolve().parents[1] / "README.md"
SCRIPT = re.compile(r"<!-- slurm -->\n```bash\n(.*?)```", re.DOTALL)
NAMES = [f"{number:02}" for number in range(12)]
SHARES = 3
# Of the first submission, one task runs, one never comes to run its command, and one is killed, whenever that is.
SRUN = """#!/bin/bash
echo "$SLURM_ARRAY_TASK_ID" >> ran
if [[ $SUBMITTED == 1 ]]; then
    case $SLURM_ARRAY_TASK_ID in
        2) exit 137;;
        3) exec timeout -s KILL 0.8 "$@";;
    esac
fi
exec "$@"
"""
LOOP = "for task in $(seq 3); do SLURM_ARRAY_TASK_ID=$task bash slurm.sh m reports & done; wait"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the current directory: a manifest of shards of two files, the script, and what it calls."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(manifest, "SHARD_FILES", 2)
    image = made.of(made.noise((1, 8, 8), "u2"))
    (tmp_path / "in").mkdir()
    job = Job((tmp_path / "in",), tmp_path / "out", target(find("rle")))
    with (tmp_path / "m").open("wb") as stream:
        writer = manifest.Writer(stream, job)
        for name in NAMES:
            image.write(tmp_path / "in" / name)
            writer.add(Item(tmp_path / "in" / name, tmp_path / "out" / name), 1)
        writer.finish()
    found = SCRIPT.search(README.read_text(encoding="utf-8"))
    assert found
    assert found[1].count("of=16 ") == 1
    assert "--array=1-16 " in found[1]
    (tmp_path / "slurm.sh").write_text(found[1].replace("of=16 ", f"of={SHARES} "), encoding="utf-8")
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("gpuenc", f'#!/bin/bash\nexec "{sys.executable}" -m gpuenc "$@"\n')):
        (tmp_path / "bin" / name).write_text(text, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(README.parent), *filter(None, sys.path)]))
    return tmp_path


def submit(number):
    """Return which tasks ran anything, one per run."""
    Path("ran").write_text("")
    environ = os.environ | {"SUBMITTED": str(number)}
    done = subprocess.run(["bash", "-c", LOOP], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return sorted(Path("ran").read_text().split())


def merged():
    command = [sys.executable, "-m", "gpuenc", "merge-reports", *sorted(map(str, Path("reports").glob("*.jsonl")))]
    return subprocess.run([*command, "--manifest", "m", "-o", "all.jsonl"], capture_output=True, text=True)


def test_an_array_that_is_submitted_until_all_is_done(place):
    assert submit(1) == ["1", "2", "3"]
    first = merged()
    assert first.returncode == 1
    assert f"missing: {place / 'in' / '02'}\n" in first.stderr
    # What never began has nothing to resume: it is tried with --resume, and then without.
    assert set(submit(2)) == {"2", "3"}
    assert merged().returncode == 0
    records = list(read_records(place / "all.jsonl"))
    assert sorted(Path(record.source).name for record in records) == NAMES
    assert {record.status for record in records} == {"encoded"}
    assert sorted(path.name for path in (place / "out").iterdir() if path.name != ".gpuenc") == NAMES
    assert submit(3) == []
