"""Sources and outputs in a store, against servers on loopback for S3, Google Cloud Storage and Azure Blob Storage."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import xxhash
from typer.testing import CliRunner

from gpuenc.archive import outage, stores
from gpuenc.archive.addresses import place, text_of
from gpuenc.archive.carried import carry
from gpuenc.archive.folders import identity
from gpuenc.archive.job import run
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
from tests.archive import azurite, gcs, s3
from tests.archive.azurite import SECRET
from tests.archive.watcher import Records, transcode

pytest.importorskip("obstore")
ROOT = Path(__file__).resolve().parents[2]
IMAGE = made.of(made.noise((2, 16, 24), "u2"))


@pytest.fixture(scope="module", params=["s3", "gs", "az"])
def server(request, tmp_path_factory):
    """A server of each kind; its tests come one after another."""
    folder = tmp_path_factory.mktemp(request.param)
    with {"s3": s3, "gs": gcs, "az": azurite}[request.param].served(folder) as found:
        yield found


@pytest.fixture
def store(server, monkeypatch):
    server.environment(monkeypatch)
    stores._store.cache_clear()
    yield server
    server.fault, server.changed = None, ""
    server.clean()
    assert server.uploads() == 0
    server.requests.clear()
    stores._store.cache_clear()


only_s3 = pytest.mark.parametrize("server", ["s3"], indirect=True)
only_gs = pytest.mark.parametrize("server", ["gs"], indirect=True)
only_az = pytest.mark.parametrize("server", ["az"], indirect=True)


def by_key(found):
    return {record.source.split("/", 3)[3]: record for record in found}


@only_s3
@pytest.mark.parametrize("moved", [False, True])
def test_another_folder_with_the_destinations_name_is_not_written_to(store, tmp_path, moved):
    out = tmp_path / "out"
    out.mkdir()
    store.put("in/a.dcm", IMAGE.file())
    job = Job((store.at("in"),), out, target(find("rle")), scratch=tmp_path)
    was = identity(out)
    if moved:
        out.rename(tmp_path / "elsewhere")
        out.mkdir()
    record = carry(Item(store.at("in/a.dcm"), out / "a.dcm"), job, threading.Event(), destination=was)
    assert (record.status, record.reason) == (("failed", "destination-lost") if moved else ("encoded", ""))
    assert (out / "a.dcm").exists() == (not moved)


def test_a_store_to_a_store_is_what_a_folder_to_a_folder_is(store, tmp_path):
    """Names, bytes, statuses and digests are those of the same job on this machine."""
    (tmp_path / "in" / "we ird#%41").mkdir(parents=True)
    files = {"a.dcm": IMAGE.file(), "we ird#%41/ü?.dcm": IMAGE.file(), "no.txt": b"no DICOM", "empty": b""}
    files["q+ =&;[]😀..dcm"] = IMAGE.file()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
        store.put("in/" + name, data)
    here = transcode(tmp_path / "in", tmp_path / "out")
    there = transcode(store.at("in"), store.at("out"), journal=place_of(tmp_path / "home"))
    assert [(r.status, r.reason, r.frames, r.output_digest, r.source_digest) for r in here] == [
        (r.status, r.reason, r.frames, r.output_digest, r.source_digest) for r in there
    ]
    assert [r.source for r in there] == [store.name(f"in/{name}") for name in sorted(files)]
    images = [name for name in sorted(files) if name.endswith(".dcm")]
    assert store.keys("out/") == ["out/" + name for name in images]
    for name in images:
        assert store.get("out/" + name) == (tmp_path / "out" / name).read_bytes()
    [made_one] = [r for r in there if r.source.endswith("a.dcm")]
    assert made_one.destination == store.name("out/a.dcm")
    assert (made_one.source_etag, made_one.output_etag) == (store.etag("in/a.dcm"), store.etag("out/a.dcm"))
    if store.scheme == "s3":
        # Of what was put by one request, the ETag is a checksum.
        assert made_one.output_etag == hashlib.md5(store.get("out/a.dcm")).hexdigest()
        assert made_one.source_etag == hashlib.md5(files["a.dcm"]).hexdigest()
    assert list((tmp_path / "home" / ".gpuenc").glob("*.scratch")) == []


def test_a_store_to_a_folder_and_back(store, tmp_path):
    store.put("in/a.dcm", IMAGE.file())
    [down] = transcode(store.at("in/a.dcm"), tmp_path / "out", "rle")
    assert (down.status, down.destination) == ("encoded", str(tmp_path / "out" / "a.dcm"))
    [up] = transcode(tmp_path / "out", store.at("up"), "htj2k-lossless")
    assert (up.status, up.destination) == ("encoded", store.name("up/a.dcm"))
    assert up.verified
    assert xxhash.xxh3_128(store.get("up/a.dcm")).hexdigest() == up.output_digest


def test_planning_reads_headers_only(store, tmp_path):
    big = made.of(np.zeros((16, 512, 512), "u2")).file()  # 8 MiB
    store.put("in/big.dcm", big)
    store.put("in/small.dcm", IMAGE.file())
    store.requests.clear()
    [one, other] = transcode(store.at("in"), store.at("out"), dry_run=True)
    assert (one.status, one.frames, other.frames) == ("encoded", 16, 2)
    read = 0
    for _, _, headers in store.asked("GET", "/in/"):
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        read += int(last) - int(first) + 1
    assert 0 < read < 1 << 20
    assert store.keys("out/") == []
    assert not store.asked("PUT")


def test_large_objects_that_are_none_of_ours_are_not_fetched(store, tmp_path):
    store.put("in/x.zip", b"PK" + bytes(3 << 20))
    store.requests.clear()
    [record] = transcode(store.at("in"), tmp_path / "out")
    assert (record.status, record.reason) == ("skipped", "not-dicom")
    assert all("range" in headers for _, _, headers in store.asked("GET", "/in/"))


@only_s3
def test_plan_of_a_store(store, tmp_path):
    for number in range(3):
        store.put(f"in/{number}.dcm", IMAGE.file())
    job = Job((store.at("in"),), store.at("out"), target(find("rle")))
    found = plan(job, threading.Event())
    assert (found.summary.planned, found.summary.files["encoded"], found.sample_files) == (3, 3, 3)
    assert store.keys("out/") == []


@only_s3
def test_shares_of_a_manifest(store, tmp_path):
    for name in "ab":
        store.put(f"in/{name}.dcm", IMAGE.file())
    manifest, home = str(tmp_path / "m"), str(tmp_path / "home")
    options = (store.name("in"), "-o", store.name("out"), "--to", "rle", "--manifest", manifest, "--workers", "0")
    planned = CliRunner().invoke(app, ["plan", *options])
    assert planned.exit_code == 0, planned.output
    for share in ("1/2", "2/2"):
        run = CliRunner().invoke(
            app, ["transcode", "--manifest", manifest, "--shard", share, "--journal", home, "--workers", "0"]
        )
        assert run.exit_code == 0, run.output
    assert store.keys("out/") == ["out/a.dcm", "out/b.dcm"]
    journals = sorted(path.name for path in Path(home, ".gpuenc").glob("*.sqlite"))
    assert journals == ["shard-1-of-2.sqlite", "shard-2-of-2.sqlite"]


def test_lists_of_more_than_a_page(store, tmp_path, monkeypatch):
    store.pages(monkeypatch, 3)
    for number in range(8):
        store.put(f"many/{number:04}", b"x")
    found = transcode(store.at("many"), tmp_path / "out", dry_run=True)
    assert [Path(record.source).name for record in found] == [f"{number:04}" for number in range(8)]
    assert len(store.asked("GET", store.lists)) == 2 * 3  # whether there is anything at all is asked before


def test_keys_that_are_no_paths_cost_only_what_is_right_below_their_prefix(store, tmp_path):
    for key in ("in/a.dcm", "in/bad//x.dcm", "in/bad/y.dcm", "in/good/z.dcm", "in/zz.dcm"):
        store.put(key, IMAGE.file())
    found = by_key(transcode(store.at("in"), tmp_path / "out"))
    assert {key: (record.status, record.reason) for key, record in found.items()} == {
        "in/a.dcm": ("encoded", ""),
        "in/bad": ("failed", "store-name"),
        "in/good/z.dcm": ("encoded", ""),
        "in/zz.dcm": ("encoded", ""),
    }


@only_gs
def test_keys_that_are_no_paths_in_a_list_without_order(store, tmp_path, monkeypatch):
    """As of S3's directory buckets, and of Azure's accounts with a hierarchical namespace."""
    monkeypatch.setattr(stores, "_PAGE", 3)
    monkeypatch.setattr(store, "unsorted", True)
    store.pages(monkeypatch, 3)
    for key in ("0//x", *"1234567"):
        store.put(f"in/{key}", b"x")
    told = transcode(store.at("in"), tmp_path / "out")
    assert len(told) == 8
    assert {key: record.reason for key, record in by_key(told).items()} == {
        "in/0": "store-name",
        **{f"in/{number}": "not-dicom" for number in "1234567"},
    }


def test_keys_that_end_with_a_slash(store, tmp_path):
    """The library leaves the slash out, so that two keys have the same name."""
    for key in ("in/a.dcm", "in/a.dcm/", "in/b.dcm", "in/c.dcm/"):
        store.put(key, IMAGE.file())
    store.put("in/b.dcm/", b"")
    found = transcode(store.at("in"), tmp_path / "out")
    told = sorted((record.source.rpartition("/")[2], record.status, record.reason) for record in found)
    assert told == [
        ("a.dcm", "encoded", ""),
        ("a.dcm", "failed", "store-name"),
        ("b.dcm", "encoded", ""),
        ("b.dcm", "skipped", "not-dicom"),
        ("c.dcm", "failed", "unreadable-source"),
    ]
    [alone] = [record for record in found if record.source.endswith("c.dcm")]
    assert "ends with '/'" in alone.message


def test_outputs_below_the_source_are_no_sources(store, tmp_path):
    store.put("a.dcm", IMAGE.file())
    options = {"journal": place_of(tmp_path)}
    [first] = transcode(store.at(), store.at("out"), "rle", **options)
    [again] = transcode(store.at(), store.at("out"), "rle", overwrite=True, **options)
    assert (first.status, again.status) == ("encoded", "encoded")
    store.put("in/in/a.dcm", IMAGE.file())
    store.put("in/a.dcm", IMAGE.file())
    before = store.get("in/a.dcm")
    found = by_key(transcode(store.at("in"), store.at(), "rle", overwrite=True, **options))
    assert found["in/in/a.dcm"].reason == "destination-is-source"
    assert store.get("in/a.dcm") == before


def test_what_is_there_is_never_replaced(store, tmp_path):
    store.put("in/a.dcm", IMAGE.file())
    store.put("out/a.dcm", b"another's")
    [record] = transcode(store.at("in"), store.at("out"))
    assert (record.status, record.reason) == ("skipped", "destination-exists")
    assert store.get("out/a.dcm") == b"another's"
    [record] = transcode(store.at("in"), store.at("out"), overwrite=True)
    assert record.status == "encoded"
    assert store.get("out/a.dcm")[128:132] == b"DICM"


@pytest.mark.parametrize("single_bytes", [stores.SINGLE_BYTES, 100])
def test_what_comes_to_be_there_meanwhile_is_not_replaced(store, tmp_path, monkeypatch, single_bytes):
    """Between our question and our answer, another has the name: the store minds it, or is asked before the parts."""
    monkeypatch.setattr(stores, "SINGLE_BYTES", single_bytes)
    store.put("in/a.dcm", IMAGE.file())
    upload = stores.upload

    def late(*args, **options):
        store.put("out/a.dcm", b"another's")
        return upload(*args, **options)

    monkeypatch.setattr(stores, "upload", late)
    [record] = transcode(store.at("in"), store.at("out"))
    assert (record.status, record.reason) == ("failed", "destination-exists")
    assert store.get("out/a.dcm") == b"another's"


def test_large_outputs_are_written_in_parts_and_seen_when_complete(store, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "SINGLE_BYTES", 5 << 20)
    image = made.of(made.noise((40, 256, 256), "u2"))
    image.write(tmp_path / "a.dcm")
    seen = []

    def watch(method, path):
        if method == "PUT" and store.part in path:
            seen.append(store.keys("out/"))

    store.fault = watch
    [record] = transcode(tmp_path / "a.dcm", store.at("out"), "rle")
    assert record.status == "encoded"
    assert record.output_etag == store.etag("out/a.dcm")
    assert len(store.asked("PUT", store.part)) == 2
    assert seen == [[], []]
    assert "asked before" in record.message
    assert xxhash.xxh3_128(store.get("out/a.dcm")).hexdigest() == record.output_digest
    [record] = transcode(tmp_path / "a.dcm", store.at("out"), "rle")
    assert record.reason == "destination-exists"


def test_an_upload_that_breaks_leaves_nothing_to_see(store, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "SINGLE_BYTES", 5 << 20)
    monkeypatch.setattr(stores, "_PARTS_AT_ONCE", 1)
    made.of(made.noise((40, 256, 256), "u2")).write(tmp_path / "a.dcm")
    denied = (403, b"<Code>AccessDenied</Code>")
    store.fault = lambda method, path: (
        denied if store.part in path and len(store.asked("PUT", store.part)) == 2 else None
    )
    [record] = transcode(tmp_path / "a.dcm", store.at("out"), "rle")
    assert (record.status, record.reason) == ("failed", "store-denied")
    assert (store.keys("out/"), store.uploads()) == ([], store.lingering)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((403, b"<Error><Code>SignatureDoesNotMatch</Code><K>SECRETBODY</K></Error>"), "store-denied"),
        ((403, b"<Error><Code>QuotaExceeded</Code></Error>"), "store-full"),
        ((507, b"<Error><Code>XMinioStorageFull</Code></Error>"), "store-full"),
        ((400, b"<Error><Code>InvalidRequest</Code></Error>"), "store-failed"),
    ],
)
def test_one_object_that_is_refused(store, tmp_path, monkeypatch, answer, code):
    monkeypatch.setattr(stores, "_RETRIES", 1)
    for name in "abc":
        store.put(f"in/{name}.dcm", IMAGE.file())
    store.fault = lambda method, path: answer if method == "PUT" and path.endswith("/b.dcm") else None
    found = by_key(transcode(store.at("in"), store.at("out")))
    assert {key: record.reason for key, record in found.items()} == {
        "in/a.dcm": "",
        "in/b.dcm": code,
        "in/c.dcm": "",
    }
    assert store.keys("out/") == ["out/a.dcm", "out/c.dcm"]
    assert "SECRETBODY" not in found["in/b.dcm"].message


def test_a_store_that_fails_for_a_moment_is_asked_again(store, tmp_path):
    store.put("in/a.dcm", IMAGE.file())
    failed = set()

    def once(method, path):
        if (method, path) in failed:
            return None
        failed.add((method, path))
        return 429 if len(failed) % 2 else 503, b"<Error><Code>SlowDown</Code></Error>"

    store.fault = once
    [record] = transcode(store.at("in"), store.at("out"))
    assert record.status == "encoded"
    assert {method for method, _ in failed} == {"GET", "HEAD", "PUT"}


def test_an_answer_that_is_lost_makes_no_other_s_object_of_ours(store, tmp_path):
    """It is asked again, and the store says that the name is taken: by what was put the first time."""
    store.put("in/a.dcm", IMAGE.file())
    lost = iter([(503, b"", "done")])
    store.fault = lambda method, path: next(lost, None) if method == "PUT" else None
    [record] = transcode(store.at("in"), store.at("out"))
    assert (record.status, record.output_etag) == ("encoded", store.etag("out/a.dcm"))
    assert len(store.asked("PUT")) == 2


def test_what_the_store_holds_is_read_back(store, tmp_path, monkeypatch):
    """A store that gives back other bytes than it was given: found by --verify all, and taken away again."""
    store.put("in/a.dcm", IMAGE.file())
    store.changed = "/out/a.dcm"
    [record] = transcode(store.at("in"), store.at("out"))
    assert (record.status, record.reason) == ("failed", "read-back-mismatch")
    assert store.keys("out/") == []
    [unread] = transcode(store.at("in"), store.at("out"), verify="none")
    assert unread.status == "encoded"


def test_what_another_puts_there_right_afterwards_does_not_pass_for_ours(store, tmp_path):
    store.put("in/a.dcm", IMAGE.file())

    def put_over(method, path):
        if method == "HEAD" and path.endswith("out/a.dcm") and store.keys("out/"):
            store.put("out/a.dcm", store.get("out/a.dcm")[:-1] + b"!")

    store.fault = put_over
    [record] = transcode(store.at("in"), store.at("out"))
    assert (record.status, record.reason) == ("failed", "read-back-mismatch")
    assert store.get("out/a.dcm").endswith(b"!")


def test_a_source_that_changes_while_it_is_read(store, tmp_path, monkeypatch):
    store.put("in/a.dcm", IMAGE.file())
    fetch = stores.fetch

    def late(*args):
        store.put("in/a.dcm", IMAGE.file()[:-2] + b"\1\1")
        return fetch(*args)

    monkeypatch.setattr(stores, "fetch", late)
    [record] = transcode(store.at("in"), tmp_path / "out")
    assert (record.status, record.reason) == ("failed", "source-changed")
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_a_job_is_resumed(store, tmp_path):
    """Done is what the journal says is done, as long as both objects are as they were."""
    for name in "abcd":
        store.put(f"in/{name}.dcm", IMAGE.file())
    journal = place_of(tmp_path / "home")
    stop = threading.Event()
    store.fault = lambda method, path: stop.set() if method == "PUT" and path.endswith("b.dcm") else None
    first = transcode(store.at("in"), store.at("out"), stop=stop, journal=journal)
    assert 1 <= len(first) < 4
    store.fault = None
    store.requests.clear()
    done = {Path(record.source).name for record in first}
    found = transcode(store.at("in"), store.at("out"), journal=journal, resume=True)
    assert [record.status for record in found] == ["encoded"] * 4
    assert {Path(path).name for _, path, _ in store.asked("PUT")} == {f"{name}.dcm" for name in "abcd"} - done
    # One source is another, one output is gone: these are made again, and nothing else.
    store.put("in/a.dcm", made.of(made.noise((2, 16, 24), "u2", seed=9)).file())
    store.delete("out/d.dcm")
    store.requests.clear()
    found = transcode(store.at("in"), store.at("out"), journal=journal, resume=True)
    assert [record.status for record in found] == ["encoded"] * 4
    assert {Path(path).name for _, path, _ in store.asked("PUT")} == {"a.dcm", "d.dcm"}
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
def test_a_resumed_job_replaces_nothing_that_is_not_its_own(store, tmp_path, monkeypatch, single_bytes):
    """What was begun may have been brought there before the job was killed, or be another's: the bytes tell."""
    monkeypatch.setattr(stores, "SINGLE_BYTES", single_bytes)
    for name in "ab":
        store.put(f"in/{name}.dcm", IMAGE.file())
    source, output = store.at("in"), store.at("out")
    [whole, *_] = transcode(source, tmp_path / "here")
    store.put("out/a.dcm", b"another's")
    store.put("out/b.dcm", Path(whole.destination).read_bytes())
    journal = place_of(tmp_path / "home")
    killed(journal, source, output, "a.dcm", "b.dcm")
    for _ in range(2):
        found = by_key(transcode(source, output, journal=journal, resume=True))
        assert {key: (record.status, record.reason) for key, record in found.items()} == {
            "in/a.dcm": ("failed", "destination-exists"),
            "in/b.dcm": ("encoded", ""),
        }
        assert store.get("out/a.dcm") == b"another's"


def test_what_another_has_put_over_an_output_is_not_replaced(store, tmp_path):
    """A source that has changed is encoded again, over what the job has made and over nothing else."""
    for name in "ab":
        store.put(f"in/{name}.dcm", IMAGE.file())
    source, output, journal = store.at("in"), store.at("out"), place_of(tmp_path)
    transcode(source, output, journal=journal)
    for name in "ab":
        store.put(f"in/{name}.dcm", made.of(made.noise((2, 16, 24), "u2", seed=9)).file())
    store.put("out/a.dcm", b"another's")
    found = by_key(transcode(source, output, journal=journal, resume=True))
    assert {key: record.reason for key, record in found.items()} == {
        "in/a.dcm": "destination-exists",
        "in/b.dcm": "",
    }
    assert store.get("out/a.dcm") == b"another's"
    assert xxhash.xxh3_128(store.get("out/b.dcm")).hexdigest() == found["in/b.dcm"].output_digest


@pytest.mark.parametrize("also", ["", "removal", "HEAD"])
def test_what_cannot_be_read_back_does_not_pass_for_another_s(store, tmp_path, monkeypatch, also):
    """It is removed; where that cannot be done either, the resumed job looks at it again, and no summary is clean."""
    monkeypatch.setattr(stores, "_RETRIES", 0)
    stores._store.cache_clear()
    store.put("in/a.dcm", IMAGE.file())
    source, output, journal = store.at("in"), store.at("out"), place_of(tmp_path)

    def after_the_upload(method, path):
        broken = (method in ("GET", also) and "/out/" in path) or (also == "removal" and store.removes(method, path))
        return (503, b"") if broken and store.asked("PUT", "/out/") else None

    store.fault = after_the_upload
    [record] = transcode(source, output, journal=journal)
    assert (record.status, record.reason) == ("failed", "stored-unverified" if also else "store-unreachable")
    assert store.keys("out/") == (["out/a.dcm"] if also else [])
    [record] = transcode(source, output, journal=journal, resume=True)
    assert record.status == "failed"
    store.fault = None
    if also == "removal":
        store.put("out/a.dcm", b"bytes that a store has lost")
        [record] = transcode(source, output, journal=journal, resume=True)
        assert (record.status, record.reason) == ("failed", "destination-exists")
        return
    [record] = transcode(source, output, journal=journal, resume=True)
    assert (record.status, record.reason, store.keys("out/")) == ("encoded", "", ["out/a.dcm"])


@only_s3
def test_a_killed_job_leaves_scratch_files_that_the_next_one_removes(store, tmp_path):
    store.put("in/a.dcm", IMAGE.file())
    journal = place_of(tmp_path / "home")
    scratch = journal.parent / "journal.scratch" / "left"
    scratch.mkdir(parents=True)
    (scratch / "source").write_bytes(IMAGE.file())
    [record] = transcode(store.at("in"), store.at("out"), journal=journal)
    assert record.status == "encoded"
    assert not scratch.parent.exists()


@only_s3
def test_a_full_disk_for_copies(store, tmp_path, monkeypatch):
    from gpuenc.archive import job as jobs

    store.put("in/a.dcm", IMAGE.file())
    monkeypatch.setattr(jobs, "_free_bytes", lambda folder: 1000)
    found = transcode(store.at("in"), store.at("out"), reserve_bytes=1, journal=place_of(tmp_path))
    assert found == []
    assert store.keys("out/") == []


def refused(source, output, **options):
    """Return code and message of what ends a job before it has done anything, and a plan of it."""
    with pytest.raises(JobError) as error:
        transcode(source, output, **options)
    with pytest.raises(JobError) as planned:
        plan(Job((source,), output, target(find("rle"))), threading.Event())
    assert (planned.value.code, str(planned.value)) == (error.value.code, str(error.value))
    return error.value.code, str(error.value)


def test_a_dead_endpoint(store, tmp_path, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        store.environment(monkeypatch, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setattr(stores, "_RETRIES", 1)
        IMAGE.write(tmp_path / "a.dcm")
        for source, output in ((store.at("in"), tmp_path / "out"), (tmp_path / "a.dcm", store.at("out"))):
            code, message = refused(source, output)
            assert (code, message.startswith(f"{store.name('')}")) == ("store-unreachable", True)
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_is_not_there(store, tmp_path):
    IMAGE.write(tmp_path / "a.dcm")
    there, gone = "there is no such bucket", store.at("x", "nowhere")
    assert refused(tmp_path / "a.dcm", gone) == ("store-missing", f"{text_of(gone)}: {there}")
    assert refused(gone, tmp_path / "out") == ("unreadable-source", f"{text_of(gone)}: {there}")
    code, message = refused(store.at("nothing"), tmp_path / "out")
    assert (code, message.startswith(store.name("nothing"))) == ("unreadable-source", True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("server", ["gs", "az"], indirect=True)
def test_wrong_credentials(store, tmp_path, monkeypatch, caplog):
    """Moto's server believes everybody."""
    caplog.set_level(logging.DEBUG)
    store.put("in/a.dcm", IMAGE.file())
    IMAGE.write(tmp_path / "a.dcm")
    store.wrong_credentials(monkeypatch)
    for source, output in ((store.at("in"), tmp_path / "out"), (tmp_path / "a.dcm", store.at("out"))):
        code, message = refused(source, output)
        assert code == "store-denied"
        assert "hush" not in message + caplog.text
    assert store.keys() == ["in/a.dcm"]


def test_an_object_of_another_transfer_syntax_is_not_taken_for_the_output(store, tmp_path):
    IMAGE.write(tmp_path / "a.dcm")
    assert [record.status for record in transcode(tmp_path / "a.dcm", store.at("out"), "rle")] == ["encoded"]
    [same] = transcode(tmp_path / "a.dcm", store.at("out"), "rle")
    store.requests.clear()
    [other] = transcode(tmp_path / "a.dcm", store.at("out"), "htj2k-lossless")
    assert same.reason == other.reason == "destination-exists"
    assert same.message == "the destination exists"
    assert other.message == "the destination exists, in another transfer syntax than asked for: rle"
    [(_, _, headers)] = store.asked("GET", "/out/")
    assert int(headers["range"].rpartition("-")[2]) < 4096


@only_s3
def test_who_may_not_list_may_write(store, tmp_path):
    IMAGE.write(tmp_path / "a.dcm")
    denied = (403, b"<Error><Code>AccessDenied</Code></Error>")
    store.fault = lambda method, path: denied if "list-type" in path else None
    [record] = transcode(tmp_path / "a.dcm", store.at("out"))
    assert (record.status, store.keys("out/")) == ("encoded", ["out/a.dcm"])


@only_s3
def test_how_the_command_ends_without_input_or_a_place_for_outputs(store, tmp_path, monkeypatch):
    IMAGE.write(tmp_path / "a.dcm")
    store.put("in/a.dcm", IMAGE.file())

    def ended(source, output):
        options = ("--to", "rle", "--workers", "0", "--journal", str(tmp_path / "home"))
        found = [
            CliRunner().invoke(app, [name, source, "-o", output, *options[: 4 if name == "plan" else None]])
            for name in ("transcode", "plan")
        ]
        assert [run.stdout for run in found] == ["", ""]
        [(code, said)] = {(run.exit_code, run.stderr) for run in found}
        return code, said

    assert ended("s3://nowhere/in", store.name("out")) == (3, "gpuenc: s3://nowhere/in: there is no such bucket\n")
    said = f"gpuenc: {store.name('i')}: there is no such object, and nothing below it\n"
    assert ended(store.name("i"), store.name("out")) == (3, said)
    assert ended(store.name("in"), "s3://nowhere") == (4, "gpuenc: s3://nowhere: there is no such bucket\n")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    stores._store.cache_clear()
    code, said = ended(store.name("in"), store.name("out"))
    assert (code, "AWS_ALLOW_HTTP=true" in said) == (4, True)


@pytest.mark.parametrize("server", ["az"], indirect=True)
def test_azure_over_plain_http(store, tmp_path, monkeypatch):
    monkeypatch.delenv("AZURE_ALLOW_HTTP", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_USE_EMULATOR", raising=False)
    stores._store.cache_clear()
    code, message = refused(store.at("in"), tmp_path / "out")
    assert (code, "AZURE_ALLOW_HTTP=true" in message) == ("store-denied", True)


@only_s3
@pytest.mark.parametrize("all_of_it", [True, False])
def test_a_store_that_fails_in_the_middle_of_a_job(store, tmp_path, monkeypatch, all_of_it):
    """Nothing works any more: the rest waits for --resume; objects that are refused by themselves end nothing."""
    monkeypatch.setattr(outage, "FILES_IN_A_ROW", 4)
    for number in range(30):
        store.put(f"in/{number:02}.dcm", IMAGE.file())
    denied = (403, b"<Error><Code>AccessDenied</Code></Error>")

    begun = set()

    def fault(method, path):
        number = re.search(r"/in/(\d\d)\.dcm", path)
        begun.update([int(number[1])] if number else [])
        return denied if max(begun, default=0) >= 3 and (all_of_it or number) else None

    store.fault = fault
    journal = place_of(tmp_path / "home")
    summary = run(Job((store.at("in"),), store.at("out"), target(find("rle")), journal=journal), Records())
    assert summary.files["encoded"] == 3
    if not all_of_it:
        assert (summary.stopped, summary.files["failed"]) == ("", 27)
        return
    assert (summary.stopped, summary.resumable, summary.done < 30) == ("store-lost", True, True)
    assert summary.outage.startswith(store.name("in"))
    store.fault = None
    again = transcode(store.at("in"), store.at("out"), "rle", journal=journal, resume=True)
    assert {record.status for record in again} == {"encoded"}
    assert len(store.keys("out/")) == len(again) == 30


@only_az
def test_no_token_in_what_is_logged(store, tmp_path, monkeypatch, caplog):
    """It is in the address of every request."""
    monkeypatch.setattr(stores, "_RETRIES", 0)
    caplog.set_level(logging.DEBUG)
    store.put("in/a.dcm", IMAGE.file())
    store.pages(monkeypatch, 1)
    signature = re.search("sig=([^&]+)", os.environ["AZURE_STORAGE_SAS_TOKEN"])[1]
    store.fault = lambda method, path: (500, b"") if method == "PUT" else None
    [record] = transcode(store.at("in"), store.at("out"))
    assert record.reason == "store-unreachable"
    for secret in (signature, unquote(signature), SECRET):
        assert secret not in caplog.text + str(record)
    assert all(unquote(signature) in unquote(path) for _, path, _ in store.requests)


@only_az
def test_names_that_azure_does_not_keep(store, tmp_path):
    """Two of them would be those of one blob."""
    for name in ("x/y.dcm", "x\\y.dcm", "x./z.dcm", "z.dcm."):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(IMAGE.file())
    found = transcode(tmp_path / "in", store.at("out"), overwrite=True)
    assert {Path(record.source).name: record.reason for record in found} == {
        "y.dcm": "",
        "x\\y.dcm": "store-name",
        "z.dcm": "store-name",
        "z.dcm.": "store-name",
    }
    assert store.keys() == ["out/x/y.dcm"]


@only_az
def test_a_conflict_that_is_no_name_that_is_taken(store, tmp_path):
    IMAGE.write(tmp_path / "a.dcm")
    store.fault = lambda method, path: (409, b"<Code>ContainerBeingDeleted</Code>") if method == "PUT" else None
    [record] = transcode(tmp_path / "a.dcm", store.at("out"))
    assert (record.reason, record.message) == ("store-failed", "the store has failed (409 ContainerBeingDeleted)")


@only_s3
def test_without_the_extra(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(JobError, match="gpuenc\\[cloud\\]") as error:
        transcode(store.at("in"), tmp_path / "out")
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
        "s3://AKIAKEY:hush@bucket/in",
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


def test_the_command_with_worker_processes_and_no_word_of_credentials(store, tmp_path, monkeypatch):
    """Everything that a job writes, on a good day and on a bad one, is searched for what must not be told."""
    for name in "abc":
        store.put(f"in/{name}.dcm", IMAGE.file())
    store.fault = lambda method, path: (
        (403, f"<Code>Denied</Code>{store.secrets[-1]}".encode()) if method == "PUT" and "b.dcm" in path else None
    )
    report = tmp_path / "report.jsonl"
    home = tmp_path / "state"
    code, said = command(
        *("transcode", store.name("in"), "-o", store.name("out"), "--to", "htj2k-lossless"),
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
    store.fault = None
    options = ("transcode", store.name("in"), "-o", store.name("out"), "--to", "htj2k-lossless", "--resume")
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    then = CliRunner().invoke(app, [*options, "--jobs", "2", "--workers", "0"])
    assert then.exit_code == 0, then.output
    assert store.keys("out/") == ["out/a.dcm", "out/b.dcm", "out/c.dcm"]
    [journal] = home.rglob("journal.sqlite")
    assert journal.parent.parent.name.startswith(f"{store.scheme}-bucket-out-")
    written = [
        said.encode(),
        then.output.encode(),
        *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()),
    ]
    for text in written:
        assert not [secret for secret in store.secrets if secret.encode() in text]


def test_no_secret_in_what_is_logged(store, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stores, "_RETRIES", 1)
    store.put("in/a.dcm", IMAGE.file())
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    store.fault = lambda method, path: (500, store.secrets[-1].encode()) if method == "PUT" else None
    [record] = transcode(store.at("in"), store.at("out"))
    assert record.reason == "store-unreachable"
    assert not [secret for secret in store.secrets if secret in caplog.text + str(record)]


def test_stamps_tell_objects_apart():
    assert Stamp(1, 2, etag="a") != Stamp(1, 2, etag="b")
    assert Stamp(1, 2, 3, etag="a") == Stamp(1, 2, 4, etag="a")
