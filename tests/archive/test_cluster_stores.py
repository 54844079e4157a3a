"""Jobs on a Dask cluster of real processes whose files lie in a store: a real S3 server on loopback."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import xxhash

from gpuenc.archive import stores
from gpuenc.archive.carried import carry
from gpuenc.archive.job import run
from gpuenc.archive.journal import place_of
from gpuenc.archive.request import Job, OnCluster
from gpuenc.archive.scan import Item
from gpuenc.archive.transcode import Interrupted
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive import dask_processes as dask
from tests.archive import s3 as loopback
from tests.archive.dask_processes import Processes, Told
from tests.archive.s3 import KEY, SECRET
from tests.archive.watcher import transcode

pytest.importorskip("distributed", reason="needs gpuenc[dask]")
pytest.importorskip("obstore", reason="needs gpuenc[cloud]")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX"),
    # As in test_cluster.py.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
IN, OUT = Path("s3://bucket/in"), Path("s3://bucket/out")
NAMES = [f"{number:02}.dcm" for number in range(12)]
IMAGE = made.of(made.noise((2, 16, 24), "u2"))
THIRDS_KEY = "AKIAOFTHETHIRD"
NO_OBSTORE = dask.NO_GPUENC.replace('"gpuenc"', '"obstore"')


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3")
    with loopback.served(folder) as s3, pytest.MonkeyPatch.context() as monkeypatch:
        s3.environment(monkeypatch)
        stores._store.cache_clear()
        yield s3
        stores._store.cache_clear()


class Refusing(BaseHTTPRequestHandler):
    """A store that knows nobody."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()
        self.wfile.write(b"<Code>InvalidAccessKeyId</Code>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def stranger():
    """Return what a worker does first whose own environment says something else than that of the command."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        yield f"import os; os.environ['AWS_ENDPOINT_URL'] = 'http://127.0.0.1:{refusing.server_port}'\n"
        refusing.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(server, place):
    with Processes(place, 2) as processes:
        yield processes


@pytest.fixture
def s3(server):
    for name in NAMES:
        server.put(f"in/{name}", IMAGE.file())
    server.put("in/z.text", b"no DICOM")
    yield server
    server.fault = None
    server.clean()
    assert server.uploads() == 0
    server.requests.clear()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one machine makes of such a file, in folders."""
    folder = tmp_path_factory.mktemp("expected")
    IMAGE.write(folder / "a")
    [record] = transcode(folder, folder / "out", "rle")
    return Path(record.destination).read_bytes()


def job(cluster, home, source=IN, output=OUT, **options):
    options = {"cluster": OnCluster(cluster.address, jobs=2), "journal": place_of(home)} | options
    return Job((source,), output, target(find("rle")), **options)


def scratch_files(place):
    """Return what is left of objects on this machine."""
    return [path for path in place.rglob("*") if path.name in ("source", "output", "back")]


def test_a_store_to_a_store_is_what_one_machine_makes_of_it_also_when_resumed(s3, cluster, place, expected, tmp_path):
    watcher = Told()
    run(job(cluster, tmp_path), watcher)
    found = {record.source.removeprefix("s3://bucket/in/"): record for record in watcher.records}
    assert {name: (r.status, r.reason) for name, r in found.items() if r.status != "encoded"} == {
        "z.text": ("skipped", "not-dicom")
    }
    assert s3.keys("out/") == [f"out/{name}" for name in NAMES]
    for name in NAMES:
        assert s3.get(f"out/{name}") == expected
        assert found[name].destination == f"s3://bucket/out/{name}"
        assert found[name].output_digest == xxhash.xxh3_128(expected).hexdigest()
        assert found[name].verified
    assert {record.worker for record in watcher.records} == {1, 2}
    # Uploads come from the workers, each on the condition that the name is free; the command has only listed.
    assert all("if-none-match" in headers for _, _, headers in s3.asked("PUT", "/out/"))
    assert scratch_files(place) == scratch_files(tmp_path) == []
    s3.put("in/05.dcm", made.of(made.noise((2, 16, 24), "u2", seed=9)).file())
    s3.requests.clear()
    again = Told()
    summary = run(job(cluster, tmp_path, resume=True), again)
    assert summary.earlier_files == len(NAMES)
    # What it has made itself is known by its ETag on a worker too, and replaced.
    assert [(path, "if-none-match" in headers) for _, path, headers in s3.asked("PUT")] == [
        ("/bucket/out/05.dcm", False)
    ]
    [new] = [record for record in again.records if record.source.endswith("05.dcm")]
    assert (new.status, new.output_digest) == ("encoded", xxhash.xxh3_128(s3.get("out/05.dcm")).hexdigest())
    for path in (*place.rglob("*"), *tmp_path.rglob("*")):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()
            assert KEY.encode() not in path.read_bytes()


def test_a_store_to_a_folder_and_a_folder_to_a_store(s3, cluster, place, expected, tmp_path):
    run(job(cluster, tmp_path / "out", output=tmp_path / "out"), Told())
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*") if path.is_file()} == dict.fromkeys(
        NAMES, expected
    )
    (tmp_path / "in").mkdir()
    IMAGE.write(tmp_path / "in" / "a.dcm")
    run(job(cluster, tmp_path / "home", source=tmp_path / "in", output=Path("s3://bucket/up")), Told())
    assert s3.get("up/a.dcm") == expected
    assert scratch_files(place) == []


def test_a_worker_that_is_killed_in_the_middle_leaves_no_half_and_no_second_object(
    s3, cluster, expected, tmp_path, monkeypatch
):
    """Killed when it has uploaded an object and told nobody: another worker finds that it is what it would upload."""
    from gpuenc.archive import members

    monkeypatch.setattr(members, "Members", partial(members.Members, after_s=1.0))
    third = cluster.worker(f"import os; os.environ['AWS_ACCESS_KEY_ID'] = '{THIRDS_KEY}'\n")
    cluster.workers.append(third)

    def kill(method, path):
        if third.poll() is None and path.startswith("/bucket/out/"):
            if any(THIRDS_KEY in headers["authorization"] for _, _, headers in s3.asked("GET", "/out/")):
                third.kill()
                third.wait()
            time.sleep(0.2)  # long enough that all three have something to do

    s3.fault = kill
    watcher = Told()
    run(job(cluster, tmp_path), watcher)
    assert third.poll() is not None
    assert any("is gone" in note or "was lost" in note for note in watcher.notes), watcher.notes
    assert sorted(Path(record.source).name for record in watcher.records) == [*NAMES, "z.text"]
    assert {record.status for record in watcher.records if record.source.endswith(".dcm")} == {"encoded"}
    assert {key: s3.get(key) == expected for key in s3.keys("out/")} == {f"out/{name}": True for name in NAMES}
    # Every name was given away once: nothing was replaced, whoever was late.
    assert all("if-none-match" in headers for _, _, headers in s3.asked("PUT", "/out/"))
    assert len(s3.asked("PUT", "/out/")) > len(NAMES)
    assert not any(s3.removes(method, path) for method, path, _ in s3.requests)
    s3.fault = None
    s3.requests.clear()
    again = run(job(cluster, tmp_path, resume=True), Told())
    assert again.earlier_files == len(NAMES) + 1
    assert not s3.asked("PUT")


@pytest.mark.parametrize("lacks", ["credentials", "the extra"])
def test_a_worker_that_cannot_reach_the_store_is_named_before_anything_is_made(s3, cluster, stranger, tmp_path, lacks):
    why = {
        "credentials": r"s3://bucket/in: the store refuses it: wrong credentials.*\(403 InvalidAccessKeyId\)",
        "the extra": r"pip install 'gpuenc\[cloud\]'",
    }
    unfit = cluster.worker(stranger if lacks == "credentials" else NO_OBSTORE)
    cluster.workers.append(unfit)
    try:
        with pytest.raises(JobError, match=why[lacks]) as caught:
            run(job(cluster, tmp_path / "home"), Told())
        assert caught.value.code == "worker-unfit"
        assert (s3.keys("out/"), list(tmp_path.iterdir())) == ([], [])
    finally:
        unfit.kill()
        unfit.wait()


def test_a_worker_with_wrong_credentials_that_joins_later_gets_nothing(s3, cluster, stranger, tmp_path):
    watcher, unfit = Told(), []

    def wait(method, path):
        until = time.monotonic() + 60
        while method == "PUT" and time.monotonic() < until and not any("no use" in note for note in watcher.notes):
            time.sleep(0.05)

    def start(_files, _bytes_total):
        unfit.append(cluster.worker(stranger))
        cluster.workers.append(unfit[0])
        assert cluster.address  # once it is there

    watcher.start, s3.fault = start, wait
    try:
        run(job(cluster, tmp_path), watcher)
    finally:
        unfit[0].kill()
        unfit[0].wait()
    assert any("is no use: s3://bucket/in: the store refuses it" in note for note in watcher.notes), watcher.notes
    assert s3.keys("out/") == [f"out/{name}" for name in NAMES]


@pytest.mark.parametrize("on_cluster", [False, True])
def test_what_a_worker_that_was_given_up_has_uploaded_stays(s3, tmp_path, on_cluster):
    """Another worker may have found there what it would have uploaded itself, and told so: then nobody removes it."""
    stop = threading.Event()
    s3.fault = lambda method, path: stop.set() if method == "GET" and "/out/" in path else None
    work = Job((IN,), OUT, target(find("rle")), scratch=tmp_path)
    work = replace(work, cluster=OnCluster("a:1") if on_cluster else None)
    with pytest.raises(Interrupted):
        carry(Item(IN / NAMES[0], OUT / NAMES[0]), work, stop)
    assert s3.keys("out/") == ([f"out/{NAMES[0]}"] if on_cluster else [])
