"""Sources and outputs in a store, against a real S3 server on loopback."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xxhash
from typer.testing import CliRunner

from gpuenc.archive import stores
from gpuenc.archive.addresses import place, text_of
from gpuenc.archive.carried import carry
from gpuenc.archive.folders import identity
from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.journal_read import records
from gpuenc.archive.plan import plan
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.archive.stamp import Stamp
from gpuenc.cli import app
from gpuenc.errors import InvalidOption, JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive import s3 as loopback
from tests.archive.s3 import KEY, SECRET
from tests.archive.watcher import transcode

pytest.importorskip("obstore")
ROOT = Path(__file__).resolve().parents[2]
IMAGE = made.of(made.noise((2, 16, 24), "u2"))


@pytest.fixture(scope="module")
def server():
    with loopback.served() as s3:
        yield s3


@pytest.fixture
def s3(server, monkeypatch):
    loopback.environment(monkeypatch, server.url)
    stores._store.cache_clear()
    yield server
    server.fault, server.changed = None, ""
    for key in list(server.keys()):
        server.delete(key)
    assert server.uploads() == 0
    server.requests.clear()
    stores._store.cache_clear()


def by_key(found):
    return {record.source.removeprefix("s3://bucket/"): record for record in found}


@pytest.mark.parametrize("moved", [False, True])
def test_another_folder_with_the_destinations_name_is_not_written_to(s3, tmp_path, moved):
    out = tmp_path / "out"
    out.mkdir()
    s3.put("in/a.dcm", IMAGE.file())
    job = Job((Path("s3://bucket/in"),), out, target(find("rle")), scratch=tmp_path)
    was = identity(out)
    if moved:
        out.rename(tmp_path / "elsewhere")
        out.mkdir()
    record = carry(Item("s3://bucket/in/a.dcm", out / "a.dcm"), job, threading.Event(), destination=was)
    assert (record.status, record.reason) == (("failed", "destination-lost") if moved else ("encoded", ""))
    assert (out / "a.dcm").exists() == (not moved)


def test_a_store_to_a_store_is_what_a_folder_to_a_folder_is(s3, tmp_path):
    """Names, bytes, statuses and digests are those of the same job on this machine."""
    (tmp_path / "in" / "we ird#%41").mkdir(parents=True)
    files = {"a.dcm": IMAGE.file(), "we ird#%41/ü?.dcm": IMAGE.file(), "no.txt": b"no DICOM", "empty": b""}
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
        s3.put("in/" + name, data)
    here = transcode(tmp_path / "in", tmp_path / "out")
    there = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), journal=place_of(tmp_path / "home"))
    assert [(r.status, r.reason, r.frames, r.output_digest, r.source_digest) for r in here] == [
        (r.status, r.reason, r.frames, r.output_digest, r.source_digest) for r in there
    ]
    assert [r.source for r in there] == [f"s3://bucket/in/{name}" for name in sorted(files)]
    assert s3.keys("out/") == ["out/a.dcm", "out/we ird#%41/ü?.dcm"]
    for name in ("a.dcm", "we ird#%41/ü?.dcm"):
        assert s3.get("out/" + name) == (tmp_path / "out" / name).read_bytes()
    [made_one] = [r for r in there if r.source.endswith("a.dcm")]
    assert made_one.destination == "s3://bucket/out/a.dcm"
    # The store's own checksum: MD5 of what was put by one request.
    assert made_one.output_etag == hashlib.md5(s3.get("out/a.dcm")).hexdigest()
    assert made_one.source_etag == hashlib.md5(files["a.dcm"]).hexdigest()
    assert list((tmp_path / "home" / ".gpuenc").glob("*.scratch")) == []


def test_a_store_to_a_folder_and_back(s3, tmp_path):
    s3.put("in/a.dcm", IMAGE.file())
    [down] = transcode(Path("s3://bucket/in/a.dcm"), tmp_path / "out", "rle")
    assert (down.status, down.destination) == ("encoded", str(tmp_path / "out" / "a.dcm"))
    [up] = transcode(tmp_path / "out", Path("s3://bucket/up"), "htj2k-lossless")
    assert (up.status, up.destination) == ("encoded", "s3://bucket/up/a.dcm")
    assert up.verified
    assert xxhash.xxh3_128(s3.get("up/a.dcm")).hexdigest() == up.output_digest


def test_planning_reads_headers_only(s3, tmp_path):
    big = made.of(np.zeros((16, 512, 512), "u2")).file()  # 8 MiB
    s3.put("in/big.dcm", big)
    s3.put("in/small.dcm", IMAGE.file())
    s3.requests.clear()
    [one, other] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), dry_run=True)
    assert (one.status, one.frames, other.frames) == ("encoded", 16, 2)
    read = 0
    for _, _, headers in s3.asked("GET", "/in/"):
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        read += int(last) - int(first) + 1
    assert 0 < read < 1 << 20
    assert s3.keys("out/") == []
    assert not s3.asked("PUT")


def test_large_objects_that_are_none_of_ours_are_not_fetched(s3, tmp_path):
    s3.put("in/x.zip", b"PK" + bytes(3 << 20))
    s3.requests.clear()
    [record] = transcode(Path("s3://bucket/in"), tmp_path / "out")
    assert (record.status, record.reason) == ("skipped", "not-dicom")
    assert all("range" in headers for _, _, headers in s3.asked("GET", "/in/"))


def test_plan_of_a_store(s3, tmp_path):
    for number in range(3):
        s3.put(f"in/{number}.dcm", IMAGE.file())
    job = Job((Path("s3://bucket/in"),), Path("s3://bucket/out"), target(find("rle")))
    found = plan(job, threading.Event())
    assert (found.summary.planned, found.summary.files["encoded"], found.sample_files) == (3, 3, 3)
    assert s3.keys("out/") == []


def test_shares_of_a_manifest(s3, tmp_path):
    for name in "ab":
        s3.put(f"in/{name}.dcm", IMAGE.file())
    manifest, home = str(tmp_path / "m"), str(tmp_path / "home")
    options = ("s3://bucket/in", "-o", "s3://bucket/out", "--to", "rle", "--manifest", manifest, "--workers", "0")
    planned = CliRunner().invoke(app, ["plan", *options])
    assert planned.exit_code == 0, planned.output
    for share in ("1/2", "2/2"):
        run = CliRunner().invoke(
            app, ["transcode", "--manifest", manifest, "--shard", share, "--journal", home, "--workers", "0"]
        )
        assert run.exit_code == 0, run.output
    assert s3.keys("out/") == ["out/a.dcm", "out/b.dcm"]
    journals = sorted(path.name for path in Path(home, ".gpuenc").glob("*.sqlite"))
    assert journals == ["shard-1-of-2.sqlite", "shard-2-of-2.sqlite"]


def test_lists_of_more_than_a_page(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for number in range(8):
        s3.put(f"many/{number:04}", b"x")
    found = transcode(Path("s3://bucket/many"), tmp_path / "out", dry_run=True)
    assert [Path(record.source).name for record in found] == [f"{number:04}" for number in range(8)]
    assert len(s3.asked("GET", "list-type")) == 3


def test_keys_that_are_no_paths_cost_only_what_is_right_below_their_prefix(s3, tmp_path):
    for key in ("in/a.dcm", "in/bad//x.dcm", "in/bad/y.dcm", "in/good/z.dcm", "in/zz.dcm"):
        s3.put(key, IMAGE.file())
    found = by_key(transcode(Path("s3://bucket/in"), tmp_path / "out"))
    assert {key: (record.status, record.reason) for key, record in found.items()} == {
        "in/a.dcm": ("encoded", ""),
        "in/bad": ("failed", "store-name"),
        "in/good/z.dcm": ("encoded", ""),
        "in/zz.dcm": ("encoded", ""),
    }


def test_outputs_below_the_source_are_no_sources(s3, tmp_path):
    s3.put("a.dcm", IMAGE.file())
    options = {"journal": place_of(tmp_path)}
    [first] = transcode(Path("s3://bucket"), Path("s3://bucket/out"), "rle", **options)
    [again] = transcode(Path("s3://bucket"), Path("s3://bucket/out"), "rle", overwrite=True, **options)
    assert (first.status, again.status) == ("encoded", "encoded")
    s3.put("in/in/a.dcm", IMAGE.file())
    s3.put("in/a.dcm", IMAGE.file())
    before = s3.get("in/a.dcm")
    found = by_key(transcode(Path("s3://bucket/in"), Path("s3://bucket"), "rle", overwrite=True, **options))
    assert found["in/in/a.dcm"].reason == "destination-is-source"
    assert s3.get("in/a.dcm") == before


def test_what_is_there_is_never_replaced(s3, tmp_path):
    s3.put("in/a.dcm", IMAGE.file())
    s3.put("out/a.dcm", b"another's")
    [record] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"))
    assert (record.status, record.reason) == ("skipped", "destination-exists")
    assert s3.get("out/a.dcm") == b"another's"
    [record] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), overwrite=True)
    assert record.status == "encoded"
    assert s3.get("out/a.dcm")[128:132] == b"DICM"


@pytest.mark.parametrize("single_bytes", [stores.SINGLE_BYTES, 100])
def test_what_comes_to_be_there_meanwhile_is_not_replaced(s3, tmp_path, monkeypatch, single_bytes):
    """Between our question and our answer, another has the name: the store minds it, or is asked before the parts."""
    monkeypatch.setattr(stores, "SINGLE_BYTES", single_bytes)
    s3.put("in/a.dcm", IMAGE.file())
    upload = stores.upload

    def late(*args, **options):
        s3.put("out/a.dcm", b"another's")
        return upload(*args, **options)

    monkeypatch.setattr(stores, "upload", late)
    [record] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"))
    assert (record.status, record.reason) == ("failed", "destination-exists")
    assert s3.get("out/a.dcm") == b"another's"


def test_large_outputs_are_written_in_parts_and_seen_when_complete(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "SINGLE_BYTES", 5 << 20)
    image = made.of(made.noise((40, 256, 256), "u2"))
    image.write(tmp_path / "a.dcm")
    seen = []

    def watch(method, path):
        if method == "PUT" and "partNumber" in path:
            seen.append(s3.keys("out/"))

    s3.fault = watch
    [record] = transcode(tmp_path / "a.dcm", Path("s3://bucket/out"), "rle")
    assert record.status == "encoded"
    assert record.output_etag.endswith("-2")
    assert seen == [[], []]
    assert "asked before" in record.message
    assert xxhash.xxh3_128(s3.get("out/a.dcm")).hexdigest() == record.output_digest
    [record] = transcode(tmp_path / "a.dcm", Path("s3://bucket/out"), "rle")
    assert record.reason == "destination-exists"


def test_an_upload_that_breaks_leaves_nothing_to_see(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "SINGLE_BYTES", 5 << 20)
    made.of(made.noise((40, 256, 256), "u2")).write(tmp_path / "a.dcm")
    s3.fault = lambda method, path: (403, b"<Code>AccessDenied</Code>") if "partNumber=2" in path else None
    [record] = transcode(tmp_path / "a.dcm", Path("s3://bucket/out"), "rle")
    assert (record.status, record.reason) == ("failed", "store-denied")
    assert (s3.keys("out/"), s3.uploads()) == ([], 0)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((403, b"<Error><Code>SignatureDoesNotMatch</Code><K>SECRETBODY</K></Error>"), "store-denied"),
        ((403, b"<Error><Code>QuotaExceeded</Code></Error>"), "store-full"),
        ((507, b"<Error><Code>XMinioStorageFull</Code></Error>"), "store-full"),
        ((400, b"<Error><Code>InvalidRequest</Code></Error>"), "store-failed"),
    ],
)
def test_one_object_that_is_refused(s3, tmp_path, answer, code):
    for name in "abc":
        s3.put(f"in/{name}.dcm", IMAGE.file())
    s3.fault = lambda method, path: answer if method == "PUT" and path.endswith("/b.dcm") else None
    found = by_key(transcode(Path("s3://bucket/in"), Path("s3://bucket/out")))
    assert {key: record.reason for key, record in found.items()} == {
        "in/a.dcm": "",
        "in/b.dcm": code,
        "in/c.dcm": "",
    }
    assert s3.keys("out/") == ["out/a.dcm", "out/c.dcm"]
    assert "SECRETBODY" not in found["in/b.dcm"].message


def test_a_store_that_fails_for_a_moment_is_asked_again(s3, tmp_path):
    s3.put("in/a.dcm", IMAGE.file())
    failed = set()

    def once(method, path):
        if (method, path) in failed:
            return None
        failed.add((method, path))
        return 503, b"<Error><Code>SlowDown</Code></Error>"

    s3.fault = once
    [record] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"))
    assert record.status == "encoded"
    assert {method for method, _ in failed} == {"GET", "HEAD", "PUT"}


def test_what_the_store_holds_is_read_back(s3, tmp_path, monkeypatch):
    """A store that gives back other bytes than it was given: found by --verify all, and taken away again."""
    s3.put("in/a.dcm", IMAGE.file())
    s3.changed = "/out/a.dcm"
    [record] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"))
    assert (record.status, record.reason) == ("failed", "read-back-mismatch")
    assert s3.keys("out/") == []
    [unread] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), verify="none")
    assert unread.status == "encoded"


def test_a_source_that_changes_while_it_is_read(s3, tmp_path, monkeypatch):
    s3.put("in/a.dcm", IMAGE.file())
    fetch = stores.fetch

    def late(*args):
        s3.put("in/a.dcm", IMAGE.file()[:-2] + b"\1\1")
        return fetch(*args)

    monkeypatch.setattr(stores, "fetch", late)
    [record] = transcode(Path("s3://bucket/in"), tmp_path / "out")
    assert (record.status, record.reason) == ("failed", "source-changed")
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_a_job_is_resumed(s3, tmp_path):
    """Done is what the journal says is done, as long as both objects are as they were."""
    for name in "abcd":
        s3.put(f"in/{name}.dcm", IMAGE.file())
    journal = place_of(tmp_path / "home")
    stop = threading.Event()
    s3.fault = lambda method, path: stop.set() if method == "PUT" and path.endswith("b.dcm") else None
    first = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), stop=stop, journal=journal)
    assert 1 <= len(first) < 4
    s3.fault = None
    s3.requests.clear()
    done = {Path(record.source).name for record in first}
    found = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), journal=journal, resume=True)
    assert [record.status for record in found] == ["encoded"] * 4
    assert {Path(path).name for _, path, _ in s3.asked("PUT")} == {f"{name}.dcm" for name in "abcd"} - done
    # One source is another, one output is gone: these are made again, and nothing else.
    s3.put("in/a.dcm", made.of(made.noise((2, 16, 24), "u2", seed=9)).file())
    s3.delete("out/d.dcm")
    s3.requests.clear()
    found = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), journal=journal, resume=True)
    assert [record.status for record in found] == ["encoded"] * 4
    assert {Path(path).name for _, path, _ in s3.asked("PUT")} == {"a.dcm", "d.dcm"}
    assert [record.output_etag for record in records(journal)] == [record.output_etag for record in found]


def killed(journal, source, output, *names):
    """Leave the journal of a job that was killed when it had begun these files."""
    job = Job((source,), output, target(find("htj2k-lossless"), lossless=True), journal=journal).absolute()
    left = Journal(journal, job.about())
    left.plan((Item(source / name, output / name), 1) for name in names)
    assert len(left.next(len(names))) == len(names)
    left.commit()
    left._db.close()


@pytest.mark.parametrize("single_bytes", [stores.SINGLE_BYTES, 100])
def test_a_resumed_job_replaces_nothing_that_is_not_its_own(s3, tmp_path, monkeypatch, single_bytes):
    """What was begun may have been brought there before the job was killed, or be another's: the bytes tell."""
    monkeypatch.setattr(stores, "SINGLE_BYTES", single_bytes)
    for name in "ab":
        s3.put(f"in/{name}.dcm", IMAGE.file())
    source, output = Path("s3://bucket/in"), Path("s3://bucket/out")
    [whole, *_] = transcode(source, tmp_path / "here")
    s3.put("out/a.dcm", b"another's")
    s3.put("out/b.dcm", Path(whole.destination).read_bytes())
    journal = place_of(tmp_path / "home")
    killed(journal, source, output, "a.dcm", "b.dcm")
    for _ in range(2):
        found = by_key(transcode(source, output, journal=journal, resume=True))
        assert {key: (record.status, record.reason) for key, record in found.items()} == {
            "in/a.dcm": ("failed", "destination-exists"),
            "in/b.dcm": ("encoded", ""),
        }
        assert s3.get("out/a.dcm") == b"another's"


def test_what_another_has_put_over_an_output_is_not_replaced(s3, tmp_path):
    """A source that has changed is encoded again, over what the job has made and over nothing else."""
    for name in "ab":
        s3.put(f"in/{name}.dcm", IMAGE.file())
    source, output, journal = Path("s3://bucket/in"), Path("s3://bucket/out"), place_of(tmp_path)
    transcode(source, output, journal=journal)
    for name in "ab":
        s3.put(f"in/{name}.dcm", made.of(made.noise((2, 16, 24), "u2", seed=9)).file())
    s3.put("out/a.dcm", b"another's")
    found = by_key(transcode(source, output, journal=journal, resume=True))
    assert {key: record.reason for key, record in found.items()} == {
        "in/a.dcm": "destination-exists",
        "in/b.dcm": "",
    }
    assert s3.get("out/a.dcm") == b"another's"
    assert xxhash.xxh3_128(s3.get("out/b.dcm")).hexdigest() == found["in/b.dcm"].output_digest


@pytest.mark.parametrize("also", ["", "?delete", "HEAD"])
def test_what_cannot_be_read_back_does_not_pass_for_another_s(s3, tmp_path, monkeypatch, also):
    """It is removed; where that cannot be done either, the resumed job looks at it again, and no summary is clean."""
    monkeypatch.setattr(stores, "_RETRIES", 0)
    stores._store.cache_clear()
    s3.put("in/a.dcm", IMAGE.file())
    source, output, journal = Path("s3://bucket/in"), Path("s3://bucket/out"), place_of(tmp_path)

    def after_the_upload(method, path):
        broken = (method in ("GET", also) and "/out/" in path) or (also == "?delete" and also in path)
        return (503, b"") if broken and s3.asked("PUT", "/out/") else None

    s3.fault = after_the_upload
    [record] = transcode(source, output, journal=journal)
    assert (record.status, record.reason) == ("failed", "stored-unverified" if also else "store-unreachable")
    assert s3.keys("out/") == (["out/a.dcm"] if also else [])
    [record] = transcode(source, output, journal=journal, resume=True)
    assert record.status == "failed"
    s3.fault = None
    if also == "?delete":
        s3.put("out/a.dcm", b"bytes that a store has lost")
        [record] = transcode(source, output, journal=journal, resume=True)
        assert (record.status, record.reason) == ("failed", "destination-exists")
        return
    [record] = transcode(source, output, journal=journal, resume=True)
    assert (record.status, record.reason, s3.keys("out/")) == ("encoded", "", ["out/a.dcm"])


def test_a_killed_job_leaves_scratch_files_that_the_next_one_removes(s3, tmp_path):
    s3.put("in/a.dcm", IMAGE.file())
    journal = place_of(tmp_path / "home")
    scratch = journal.parent / "journal.scratch" / "left"
    scratch.mkdir(parents=True)
    (scratch / "source").write_bytes(IMAGE.file())
    [record] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), journal=journal)
    assert record.status == "encoded"
    assert not scratch.parent.exists()


def test_a_full_disk_for_copies(s3, tmp_path, monkeypatch):
    from gpuenc.archive import job as jobs

    s3.put("in/a.dcm", IMAGE.file())
    monkeypatch.setattr(jobs, "_free_bytes", lambda folder: 1000)
    found = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"), reserve_bytes=1, journal=place_of(tmp_path))
    assert found == []
    assert s3.keys("out/") == []


def test_a_dead_endpoint(s3, tmp_path, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setattr(stores, "_RETRIES", 1)
        IMAGE.write(tmp_path / "a.dcm")
        [listing, *_] = transcode((Path("s3://bucket/in"), tmp_path / "a.dcm"), tmp_path / "out")[::-1]
        [put] = transcode(tmp_path / "a.dcm", Path("s3://bucket/out"))
    assert (listing.source, listing.status, listing.reason) == ("s3://bucket/in", "failed", "store-unreachable")
    assert (put.status, put.reason) == ("failed", "store-unreachable")
    assert (tmp_path / "out" / "a.dcm").exists()  # the rest went on


def test_a_bucket_that_is_not_there(s3, tmp_path):
    IMAGE.write(tmp_path / "a.dcm")
    [record] = transcode(tmp_path / "a.dcm", Path("s3://nowhere/out"))
    assert (record.status, record.reason) == ("failed", "store-missing")
    [record] = transcode(Path("s3://bucket/nothing"), tmp_path / "out")
    assert (record.status, record.reason) == ("failed", "unreadable-source")


def test_without_the_extra(s3, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(JobError, match="gpuenc\\[cloud\\]") as error:
        transcode(Path("s3://bucket/in"), tmp_path / "out")
    assert error.value.code == "extra-missing"
    assert not (tmp_path / "out").exists()


def test_an_environment_that_does_not_say_enough(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "hush")
    with pytest.raises(JobError, match="AZURE_") as error:
        transcode(Path("az://container/in"), tmp_path / "out")
    assert error.value.code == "store-denied"
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        f"s3://{KEY}:hush@bucket/in",
        "s3://bucket/in?X-Amz-Signature=hush",
        "az://container/in?sv=2024&sig=hush",
        "s3://",
        "s3://bucket/../hush",
        "ftp://host/hush",
        "file://host/hush",
    ],
)
def test_addresses_that_are_refused(text, tmp_path):
    with pytest.raises(InvalidOption) as error:
        place(text)
    assert "hush" not in str(error.value)
    found = CliRunner().invoke(app, ["transcode", text, "-o", str(tmp_path / "out"), "--to", "rle"])
    assert found.exit_code == 2
    assert "hush" not in found.output
    assert not (tmp_path / "out").exists()


def test_file_addresses_are_paths():
    assert place("file:///data/a%20b") == Path("/data/a b")
    assert place("s3:/here").is_absolute()
    assert text_of(place("S3://bucket/a b/ü")) == "s3://bucket/a b/ü"


def command(*arguments, home):
    code = "from gpuenc.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(home), "RUST_LOG": "trace"},
    )
    return run.returncode, run.stdout + run.stderr


def test_the_command_with_worker_processes_and_no_word_of_credentials(s3, tmp_path, monkeypatch):
    """Everything that a job writes, on a good day and on a bad one, is searched for what must not be told."""
    for name in "abc":
        s3.put(f"in/{name}.dcm", IMAGE.file())
    s3.fault = lambda method, path: (
        (403, f"<Code>Denied</Code>{SECRET}".encode()) if method == "PUT" and "b.dcm" in path else None
    )
    report = tmp_path / "report.jsonl"
    home = tmp_path / "state"
    code, said = command(
        *("transcode", "s3://bucket/in", "-o", "s3://bucket/out", "--to", "htj2k-lossless"),
        *("--report", report, "--jobs", "2", "--workers", "1"),
        home=home,
    )
    assert code == 1, said
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert sorted((Path(line["source"]).name, line["reason"]) for line in lines) == [
        ("a.dcm", ""),
        ("b.dcm", "store-denied"),
        ("c.dcm", ""),
    ]
    s3.fault = None
    options = ("transcode", "s3://bucket/in", "-o", "s3://bucket/out", "--to", "htj2k-lossless", "--resume")
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    then = CliRunner().invoke(app, [*options, "--jobs", "2", "--workers", "0"])
    assert then.exit_code == 0, then.output
    assert s3.keys("out/") == ["out/a.dcm", "out/b.dcm", "out/c.dcm"]
    [journal] = home.rglob("journal.sqlite")
    assert journal.parent.parent.name.startswith("s3-bucket-out-")
    written = [
        said.encode(),
        then.output.encode(),
        *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()),
    ]
    for text in written:
        assert SECRET.encode() not in text
        assert KEY.encode() not in text


def test_no_secret_in_what_is_logged(s3, tmp_path, caplog):
    s3.put("in/a.dcm", IMAGE.file())
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    s3.fault = lambda method, path: (500, SECRET.encode()) if method == "PUT" else None
    [record] = transcode(Path("s3://bucket/in"), Path("s3://bucket/out"))
    assert record.reason == "store-unreachable"
    assert SECRET not in caplog.text + str(record)
    assert KEY not in caplog.text + str(record)


def test_stamps_tell_objects_apart():
    assert Stamp(1, 2, etag="a") != Stamp(1, 2, etag="b")
    assert Stamp(1, 2, 3, etag="a") == Stamp(1, 2, 4, etag="a")
