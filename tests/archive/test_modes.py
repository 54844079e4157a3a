"""Who may read what a job writes: what the umask of the job says, whatever the source's mode was."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpuenc.dicom.atomic import AtomicFile
from tests import made
from tests.test_cli import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")

IMAGE = made.of(made.noise((1, 8, 8), "u2"))


def test_everything_follows_the_umask(tmp_path):
    umask = 0o027
    top = tmp_path / "in"
    (top / "sub").mkdir(parents=True)
    IMAGE.write(top / "sub" / "encoded")
    (top / "copied").write_bytes(made.float_pixels().file())
    for path in (top / "sub" / "encoded", top / "copied"):
        path.chmod(0o666)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gpuenc"]
    job = ["--to", "rle", "--workers", "0", "-o", out]
    steps = [
        ["plan", top, *job, "--manifest", tmp_path / "manifest"],
        ["transcode", top, *job, "--report", tmp_path / "r.jsonl", "--metrics", tmp_path / "m.prom"],
        ["verify", top, out, "--report", tmp_path / "v.jsonl"],
        ["report", tmp_path / "r.jsonl", "-o", tmp_path / "page.html"],
        ["merge-reports", tmp_path / "r.jsonl", "-o", tmp_path / "all.jsonl"],
    ]
    before = set(tmp_path.rglob("*"))
    for step in steps:
        done = subprocess.run(
            [*command, *step], umask=umask, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stderr
    new = set(tmp_path.rglob("*")) - before
    assert {"manifest", "r.jsonl", "m.prom", "v.jsonl", "page.html", "all.jsonl", "encoded", "copied",
            "journal.sqlite"} <= {path.name for path in new}  # fmt: skip
    for path in new:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & umask, (path, oct(mode))
        if path.suffix not in (".lock", ".sqlite"):
            assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, (path, oct(mode))


def test_a_temporary_file_is_its_owners(tmp_path):
    before = os.umask(0)
    try:
        with AtomicFile(Path(tmp_path / "a")) as file:
            file.file.write(b"1")
            [name] = os.listdir(tmp_path)
            assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600
    finally:
        os.umask(before)
