"""Pipes, sockets and devices where files should be: refused by name, and nobody waits for them."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest

from gpuenc.archive.report import read_records
from gpuenc.dicom.regular import regular
from tests import made
from tests.test_cli import gpuenc, process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")

IMAGE = made.of(made.noise((1, 8, 8), "u2"))


@pytest.fixture(autouse=True)
def impatient():
    """Whoever waits for a pipe is woken up."""

    def wake(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def study(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        IMAGE.write(tmp_path / "in" / name)
    return tmp_path / "in"


def fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def listening(path):
    path.unlink(missing_ok=True)
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as made_here:
        made_here.bind(path.name)


@pytest.mark.parametrize(("make", "held"), [(fifo, "a"), (device, "a"), (listening, "a"), (fifo, "a big one")])
def test_in_a_sources_place_after_planning(study, tmp_path, make, held, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = study / "a"
    if held != "a":  # it has to be copied, and is not held in memory
        source.write_bytes(made.float_pixels().file() + bytes(5 << 20))
    manifest, report = tmp_path / "m", tmp_path / "r.jsonl"
    args = ("-o", tmp_path / "out", "--to", "rle", "--manifest", manifest, "--workers", "0")
    assert gpuenc("plan", study, *args)[0] == 0
    make(source)
    done = process("transcode", "--manifest", manifest, "--report", report, "--workers", "0")
    assert done.returncode == 1, done.stderr
    outcomes = {record.source[-1]: (record.status, record.reason) for record in read_records(report)}
    assert outcomes == {"a": ("failed", "unreadable-source"), "b": ("encoded", "")}
    assert sorted(os.listdir(tmp_path / "out")) == [".gpuenc", "b"]


def test_what_is_opened_waits_for_nothing(tmp_path):
    fifo(tmp_path / "pipe")
    for path, error in (("pipe", OSError), ("", IsADirectoryError), ("none", FileNotFoundError)):
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        with pytest.raises(error):
            open(tmp_path / path, "rb", opener=regular)  # noqa: SIM115 - it is not opened
        assert not before or len(os.listdir("/proc/self/fd")) == before
    (tmp_path / "file").write_bytes(b"1")
    with open(tmp_path / "file", "rb", opener=regular) as file:
        assert os.get_blocking(file.fileno())
        assert not os.get_inheritable(file.fileno())
        assert file.read() == b"1"


# Every option that names a file; IN is a study, OUT no folder yet, REPORT a job's.
COMMANDS = {
    "metrics": "transcode IN -o OUT --to rle --workers 0 --metrics PIPE.prom",
    "report": "transcode IN -o OUT --to rle --workers 0 --report PIPE",
    "manifest to write": "plan IN -o OUT --to rle --workers 0 --manifest PIPE",
    "manifest": "transcode --workers 0 --manifest PIPE",
    "report to read": "report PIPE -o OUT",
    "journal to read": "report PIPE.sqlite -o OUT",
    "page": "report REPORT -o PIPE",
    "merged": "merge-reports REPORT -o PIPE",
    "to merge": "merge-reports PIPE -o OUT",
    "merged by a manifest": "merge-reports REPORT -o OUT --manifest PIPE",
    "record": "verify --record PIPE IN",
    "verdicts": "verify IN DONE --report PIPE",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_where_a_file_is_asked_for(study, tmp_path, name):
    done, report = tmp_path / "done", tmp_path / "r.jsonl"
    assert gpuenc("transcode", study, "-o", done, "--to", "rle", "--workers", "0", "--report", report)[0] == 0
    words = {"IN": study, "OUT": tmp_path / "out", "REPORT": report, "DONE": done}
    words |= {word: tmp_path / word for word in ("PIPE", "PIPE.prom", "PIPE.sqlite")}
    for word in ("PIPE", "PIPE.prom", "PIPE.sqlite"):
        fifo(tmp_path / word)
    code, out, err = gpuenc(*(words.get(word, word) for word in COMMANDS[name].split()))
    assert code in (2, 3, 4), (out, err)
    assert len(err.strip().splitlines()) == 1
    for word in ("PIPE", "PIPE.prom", "PIPE.sqlite"):
        assert (tmp_path / word).is_fifo()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_in_the_journals_place(study, tmp_path, options):
    (tmp_path / "out" / ".gpuenc").mkdir(parents=True)
    fifo(tmp_path / "out" / ".gpuenc" / "journal.sqlite")
    code, _, err = gpuenc("transcode", study, "-o", tmp_path / "out", "--to", "rle", "--workers", "0", *options)
    assert code == 4, err
    assert "journal" in err


def test_a_report_into_a_pipe_that_is_read(study, tmp_path):
    """As of `--report >(jq .status)`."""
    fifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        code, _, err = gpuenc(
            "transcode", study, "-o", tmp_path / "out", "--to", "rle", "--workers", "0", "--report", tmp_path / "pipe"
        )
        assert code == 0, err
        assert os.read(reader, 1 << 16).count(b'"status": "encoded"') == 2
    finally:
        os.close(reader)


def test_each_report_replaces_its_own_kind(study, tmp_path):
    job, verdicts = tmp_path / "r.jsonl", tmp_path / "v.jsonl"
    made_by = ("transcode", study, "-o", tmp_path / "out", "--to", "rle", "--workers", "0", "--report")
    compared = ("verify", study, tmp_path / "out", "--report")
    assert gpuenc(*made_by, job)[0] == 0
    for _ in range(2):
        assert gpuenc(*compared, verdicts)[0] == 0
        assert verdicts.read_bytes().count(b"\n") == 2
    kept = job.read_bytes(), verdicts.read_bytes()
    assert gpuenc(*compared, job)[0] == 2
    assert gpuenc(*made_by, verdicts, "--overwrite")[0] == 2
    assert (job.read_bytes(), verdicts.read_bytes()) == kept
    (tmp_path / "notes").write_text("mine")
    assert gpuenc(*compared, tmp_path / "notes")[0] == 2
    assert (tmp_path / "notes").read_text() == "mine"
