"""Results stored by STOW-RS: in Orthanc, and in servers that refuse, fail, change and lie."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from typer.testing import CliRunner

from gpuenc.archive import dicomweb
from gpuenc.archive.addresses import server as address
from gpuenc.archive.journal import Journal, place_of
from gpuenc.archive.request import Job
from gpuenc.archive.scan import Item
from gpuenc.cli import app
from gpuenc.errors import JobError
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive import orthanc
from tests.archive.orthanc import PASSWORD, USER
from tests.archive.watcher import transcode
from tests.made import Element

httpx = pytest.importorskip("httpx")
UIDS = {0x0020000D: "1.2.826.0.1.3680043.8.498.7", 0x0020000E: "1.2.826.0.1.3680043.8.498.8"}


def image(number, seed=0, **more):
    """Return a file of its own instance."""
    uids = UIDS | {0x00080018: f"1.2.826.0.1.3680043.8.498.9.{number}"}
    elements = (*(Element(tag, "UI", uid) for tag, uid in uids.items()), Element(0x00091001, "UN", b"private\0"))
    return made.of(made.noise((2, 16, 24), "u2", seed=seed), elements=elements, **more)


def forget():
    """Let the next request find out anew who asks."""
    if dicomweb._client.cache_info().currsize:
        dicomweb._client().close()
    dicomweb._client.cache_clear()
    dicomweb._PLAIN_PARTS.clear()


@pytest.fixture
def credentials(monkeypatch):
    for name in ("GPUENC_DICOMWEB_TOKEN", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUENC_DICOMWEB_USER", USER)
    monkeypatch.setenv("GPUENC_DICOMWEB_PASSWORD", PASSWORD)
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with orthanc.served(tmp_path_factory.mktemp("orthanc")) as url:
        yield url


def retrieved(url):
    answer = httpx.get(
        url,
        auth=(USER, PASSWORD),
        headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
    )
    head, _, rest = answer.content.partition(b"\r\n\r\n")
    return rest[: int(re.search(rb"Content-Length: (\d+)", head)[1])]


@pytest.mark.parametrize("to", ["htj2k-lossless", "rle", "jpeg-ls-lossless"])
def test_orthanc_gives_back_what_it_was_sent(pacs, credentials, tmp_path, to):
    """Every byte, File Meta Information included, HTJ2K too, which Orthanc itself cannot decode."""
    numbers = {"htj2k-lossless": 1, "rle": 2, "jpeg-ls-lossless": 3}
    (tmp_path / "in").mkdir()
    image(numbers[to]).write(tmp_path / "in" / "a.dcm")
    [here] = transcode(tmp_path / "in", tmp_path / "out", to)
    [there] = transcode(tmp_path / "in", address(pacs), to, journal=place_of(tmp_path / "home"))
    assert (there.status, there.reason, there.message) == ("encoded", "", "")
    assert there.verified
    assert there.destination.endswith(f"/instances/1.2.826.0.1.3680043.8.498.9.{numbers[to]}")
    assert there.output_digest == here.output_digest
    back = retrieved(there.destination)
    assert back == (tmp_path / "out" / "a.dcm").read_bytes()
    assert pydicom.dcmread(BytesIO(back)).file_meta.TransferSyntaxUID == here.target_syntax


def test_orthanc_has_it_already(pacs, credentials, tmp_path):
    """Nothing is sent over an instance that is there; asked to, what the server made of it is found out."""
    image(10).write(tmp_path / "a.dcm")
    [first] = transcode(tmp_path / "a.dcm", address(pacs), "rle")
    image(10, seed=5).write(tmp_path / "a.dcm")
    [again] = transcode(tmp_path / "a.dcm", address(pacs), "rle")
    [forced] = transcode(tmp_path / "a.dcm", address(pacs), "rle", overwrite=True)
    assert (first.status, again.status, again.reason) == ("encoded", "skipped", "destination-exists")
    # Orthanc answers that all is well, and keeps what it had.
    assert (forced.status, forced.reason) == ("failed", "read-back-mismatch")


def test_wrong_credentials(pacs, credentials, tmp_path, monkeypatch):
    image(11).write(tmp_path / "a.dcm")
    monkeypatch.setenv("GPUENC_DICOMWEB_PASSWORD", "wrong-" + PASSWORD)
    with pytest.raises(JobError) as error:
        transcode(tmp_path / "a.dcm", address(pacs), "rle")
    assert error.value.code == "store-denied"
    assert PASSWORD not in str(error.value)


def test_netrc(pacs, credentials, tmp_path, monkeypatch):
    image(12).write(tmp_path / "a.dcm")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.delenv("GPUENC_DICOMWEB_USER")
    monkeypatch.setenv("NETRC", str(netrc))
    [record] = transcode(tmp_path / "a.dcm", address(pacs), "rle")
    assert record.status == "encoded"


def test_the_command_resumes_without_sending_again(pacs, credentials, tmp_path):
    (tmp_path / "in").mkdir()
    for number in (20, 21):
        image(number).write(tmp_path / "in" / f"{number}.dcm")
    (tmp_path / "in" / "no.txt").write_text("no DICOM")
    home, report = tmp_path / "home", tmp_path / "report.jsonl"
    options = ["--stow", pacs, "--to", "htj2k-lossless", "--journal", str(home), "--workers", "0", "--jobs", "1"]
    first = CliRunner().invoke(app, ["transcode", str(tmp_path / "in"), *options, "--report", str(report)])
    assert first.exit_code == 0, first.output
    records = [json.loads(line) for line in report.read_text().splitlines()]
    assert [record["status"] for record in records] == ["encoded", "encoded", "skipped"]
    image(22).write(tmp_path / "in" / "22.dcm")
    # A server that is not there any more is not asked about what it has taken.
    sent = []
    post = dicomweb._posted

    def counted(*args):
        sent.append(args[2].name)
        return post(*args)

    dicomweb._posted = counted
    try:
        then = CliRunner().invoke(app, ["transcode", str(tmp_path / "in"), *options, "--resume"])
    finally:
        dicomweb._posted = post
    assert then.exit_code == 0, then.output
    assert len(sent) == 1
    written = [first.output.encode(), then.output.encode()]
    written += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(PASSWORD.encode() in text for text in written)


# A server of ours, for what Orthanc does not do.


@dataclass
class Planned:
    """What a server answers to the posts it gets, in turn, the last one from then on; and what it got."""

    answers: list[tuple[int, object]]
    back: bytes | None = None
    # What it answers to whoever wants an instance, and whether it says that it has it.
    unwilling: int = 0
    has: bool = False
    url: str = ""
    got: list[bytes] = field(default_factory=list)


def result(failed=None, warned=None, instance="1.2.826.0.1.3680043.8.498.9.1"):
    """Return a response as PS3.18 10.5.3 has it."""
    named = {"00081155": {"vr": "UI", "Value": [instance]}}
    if failed is not None:
        return {"00081198": {"vr": "SQ", "Value": [named | {"00081197": {"vr": "US", "Value": [failed]}}]}}
    if warned is not None:
        named |= {"00081196": {"vr": "US", "Value": [warned]}}
    return {"00081199": {"vr": "SQ", "Value": [named]}}


@contextlib.contextmanager
def serving(planned):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, content, kind="application/dicom+json"):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            if "SOPInstanceUID=" in self.path:
                found = [{"00080018": {"vr": "UI", "Value": ["1.2.826.0.1.3680043.8.498.9.1"]}}] if planned.has else []
                self.answer(200, json.dumps(found).encode())
            elif "StudyInstanceUID=" in self.path:
                self.answer(200, b"[]")
            elif planned.unwilling:
                self.answer(planned.unwilling, b"")
            elif not (planned.got or planned.back):
                self.answer(404, b"")
            else:
                end = rb"\r\n\r\n(.*)\r\n--[0-9a-f]{32}--\r\n$"
                back = planned.back or re.search(end, planned.got[-1], re.DOTALL)[1]
                body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + back + b"\r\n--x--"
                self.answer(200, body, 'multipart/related; type="application/dicom"; boundary="x"')

        def do_POST(self):
            planned.got.append(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = planned.answers.pop(0) if len(planned.answers) > 1 else planned.answers[0]
            self.answer(status, content if isinstance(content, bytes) else json.dumps(content).encode())

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    planned.url = f"http://127.0.0.1:{service.server_port}/dw"
    try:
        yield planned
    finally:
        service.shutdown()
        thread.join()
        service.server_close()


def sent(planned, tmp_path, **options):
    image(1).write(tmp_path / "a.dcm")
    with serving(planned):
        [record] = transcode(tmp_path / "a.dcm", address(planned.url), "htj2k-lossless", **options)
    return record


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([(409, result(failed=0xC122))], "syntax-refused"),
        ([(200, result(failed=0xC122))], "syntax-refused"),
        ([(202, result(failed=0x0122))], "object-refused"),
        ([(409, result(failed=0xA700))], "store-full"),
        ([(409, result(failed=0xA900))], "object-refused"),
        ([(409, result(failed=0x0110))], "object-refused"),
        ([(409, result(failed=0x0124))], "store-denied"),
        ([(409, b"<html>SECRET^PATIENT</html>")], "object-refused"),
        ([(415, b"")], "syntax-refused"),
        ([(401, b"")], "store-denied"),
        ([(403, b"")], "store-denied"),
        ([(404, b"")], "store-missing"),
        ([(413, b"")], "object-refused"),
        ([(500, b"Traceback: SECRET^PATIENT")], "store-failed"),
        ([(507, b"")], "store-full"),
        ([(302, b"")], "store-failed"),
        ([(200, {})], "store-failed"),
        ([(200, b"no JSON")], "store-failed"),
        ([(200, b"[" * 100000)], "store-failed"),
        ([(200, result(instance="1.2.3"))], "store-failed"),
    ],
)
def test_a_server_that_refuses(credentials, tmp_path, answers, code):
    record = sent(Planned(answers), tmp_path)
    assert (record.status, record.reason, record.destination) == ("failed", code, "")
    assert "SECRET" not in record.message
    if code == "syntax-refused":
        assert "1.2.840.10008.1.2.4.201" in record.message


def test_a_server_that_is_down_for_a_moment(credentials, tmp_path):
    planned = Planned([(503, b""), (429, b""), (200, result())])
    assert sent(planned, tmp_path).status == "encoded"
    assert len(planned.got) == 3


def test_each_part_names_its_transfer_syntax(credentials, tmp_path):
    planned = Planned([(200, result())])
    sent(planned, tmp_path)
    assert b"Content-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.4.201\r\n" in planned.got[0]


def test_a_server_that_warns_and_one_that_changes(credentials, tmp_path):
    record = sent(Planned([(202, result(warned=0xB000))]), tmp_path)
    assert (record.status, record.message) == ("encoded", "the server warns of B000H")
    transcode(tmp_path / "a.dcm", tmp_path / "out")
    whole = (tmp_path / "out" / "a.dcm").read_bytes()
    changed = whole.replace(b"SECRET^PATIENT", b"OTHERS^PATIENT")
    record = sent(Planned([(200, result())], back=changed), tmp_path)
    assert (record.status, record.message) == ("encoded", "the server has changed 1 elements: (0010,0010)")
    for other in (whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:], whole[:300], b"no DICOM", b""):
        record = sent(Planned([(200, result())], back=other or b"\0"), tmp_path)
        assert (record.status, record.reason) == ("failed", "read-back-mismatch")
    assert sent(Planned([(200, result())], back=b"other"), tmp_path, verify="none").status == "encoded"


@pytest.mark.parametrize("fault", ["unreachable", "other pixels"])
def test_what_was_stored_and_not_verified_is_sent_again(credentials, tmp_path, monkeypatch, fault):
    """A resumed job does not take it for another's instance."""
    monkeypatch.setattr(dicomweb, "_TRIES", 1)
    image(1).write(tmp_path / "a.dcm")
    [here] = transcode(tmp_path / "a.dcm", tmp_path / "out")
    whole = Path(here.destination).read_bytes()
    planned = Planned([(200, result())])
    code = "stored-unverified" if fault == "unreachable" else "read-back-mismatch"
    if fault == "unreachable":
        planned.unwilling = 503
    else:
        planned.back = whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]
    with serving(planned):
        options = {"journal": place_of(tmp_path / "home")}
        [first] = transcode(tmp_path / "a.dcm", address(planned.url), **options)
        planned.has = True
        [again] = transcode(tmp_path / "a.dcm", address(planned.url), **options, resume=True)
        planned.unwilling, planned.back = 0, None
        [well] = transcode(tmp_path / "a.dcm", address(planned.url), **options, resume=True)
    assert [(record.status, record.reason) for record in (first, again)] == [("failed", code)] * 2
    assert (well.status, len(planned.got)) == ("encoded", 3)


@pytest.mark.parametrize("whose", ["ours", "another's"])
def test_a_resumed_job_sends_nothing_over_an_instance_that_may_be_anothers(credentials, tmp_path, whose):
    """It was killed when it had begun a file: the instance that the server has may be that one."""
    image(1).write(tmp_path / "a.dcm")
    [here] = transcode(tmp_path / "a.dcm", tmp_path / "out")
    image(1, seed=5).write(tmp_path / "b.dcm")
    back = Path(here.destination) if whose == "ours" else tmp_path / "b.dcm"
    planned = Planned([(200, result())], back=back.read_bytes(), has=True)
    journal = place_of(tmp_path / "home")
    with serving(planned):
        output = address(planned.url)
        job = Job((tmp_path / "a.dcm",), output, target(find("htj2k-lossless")), journal=journal).absolute()
        left = Journal(journal, job.about())
        left.plan([(Item(tmp_path / "a.dcm", output / "a.dcm"), 1)])
        left.next(1)
        left.commit()
        left._db.close()
        [record] = transcode(tmp_path / "a.dcm", output, journal=journal, resume=True)
    assert planned.got == []
    if whose == "ours":
        assert (record.status, record.reason) == ("encoded", "")
    else:
        assert (record.status, record.reason) == ("failed", "destination-exists")


def test_what_is_no_instance(credentials, tmp_path):
    made.of(made.noise((1, 8, 8), "u2")).write(tmp_path / "a.dcm")  # without a study
    planned = Planned([(200, result())])
    with serving(planned):
        [record] = transcode(tmp_path / "a.dcm", address(planned.url), "rle")
        directory = Path(pydicom.data.get_testdata_file("DICOMDIR", download=False))
        [other] = transcode(directory, address(planned.url), "rle")
    assert (record.status, record.reason) == ("failed", "not-storable")
    assert (other.status, other.reason) == ("skipped", "not-storable")
    assert planned.got == []


def test_a_dead_server(credentials, tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "_TRIES", 2)
    image(1).write(tmp_path / "a.dcm")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/x"
        with pytest.raises(JobError, match=url) as error:
            transcode(tmp_path / "a.dcm", address(url), "rle")
        options = ("--workers", "0", "--journal", str(tmp_path / "home"), "--to", "rle")
        command = CliRunner().invoke(app, ["transcode", str(tmp_path / "a.dcm"), "--stow", url, *options])
    assert error.value.code == "store-unreachable"
    assert (command.exit_code, command.stdout, command.stderr.count("\n")) == (4, "", 1)


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    image(1).write(tmp_path / "a.dcm")
    with pytest.raises(JobError, match="gpuenc\\[dicomweb\\]"):
        transcode(tmp_path / "a.dcm", address("http://127.0.0.1:1/x"), "rle")


@pytest.mark.parametrize("url", ["http://u:hush@host/x", "https://host/x?token=hush", "host/hush", "ftp://host/hush"])
def test_addresses_that_are_refused(url, tmp_path):
    image(1).write(tmp_path / "a.dcm")
    found = CliRunner().invoke(app, ["transcode", str(tmp_path / "a.dcm"), "--stow", url, "--to", "rle"])
    assert found.exit_code == 2
    assert "hush" not in found.output


def test_bodies_in_any_pieces(tmp_path):
    from gpuenc.archive.received import first_part

    content = bytes(range(256)) * 40 + b"\r\n--x"
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--x--\r\n"
    for size in (1, 7, 4096, len(body)):
        target = tmp_path / str(size)
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        first_part(pieces, "multipart/related; boundary=x", target, 1 << 20, lambda: None)
        assert target.read_bytes() == content
    assert Path(target).exists()
