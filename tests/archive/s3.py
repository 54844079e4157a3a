"""A real S3 server on loopback, and what it was asked: moto's, in a thread of this process."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

KEY, SECRET = "AKIAGPUENCTEST", "sEcReT/of+the+test"
_ELSEWHERE = ("PROFILE", "SESSION_TOKEN", "ENDPOINT", "ENDPOINT_URL_S3", "DEFAULT_REGION")


@dataclass
class S3:
    """The server: its address, its one bucket, each request as method, path and headers; and faults to be planted."""

    url: str
    bucket: str
    client: Any = None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    # Is given method and path of a request; what it returns is the answer instead: status and body.
    fault: object = None
    # Of the object whose path ends like that, the last byte is another one whenever it is read.
    changed: str = ""

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def uploads(self) -> int:
        """Return how many multipart uploads were begun and neither completed nor given up."""
        return len(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))

    def asked(self, method: str, path: str = "") -> list[tuple[str, str, dict[str, str]]]:
        return [each for each in self.requests if each[0] == method and re.search(path, each[1])]


@contextlib.contextmanager
def served():
    """Serve an empty bucket on a free port of loopback."""
    moto = pytest.importorskip("moto.server")
    import boto3
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    answers = moto.DomainDispatcherApplication(moto.create_backend_app)
    s3 = S3("", "bucket")

    def application(environ, start_response):
        headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
        query = environ.get("QUERY_STRING", "")
        path = environ["PATH_INFO"] + (f"?{query}" if query else "")
        ours = not headers.get("user-agent", "").startswith("Boto3")
        if ours:
            s3.requests.append((environ["REQUEST_METHOD"], path, headers))
        if ours and s3.fault and (answer := s3.fault(environ["REQUEST_METHOD"], path)):
            status, body = answer
            start_response(f"{status} Planted", [("Content-Length", str(len(body)))])
            return [body]
        answer = answers(environ, start_response)
        if ours and s3.changed and environ["REQUEST_METHOD"] == "GET" and path.endswith(s3.changed):
            whole = b"".join(answer)
            return [whole[:-1] + bytes([whole[-1] ^ 1])]
        return answer

    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        s3.url = f"http://127.0.0.1:{server.server_port}"
        s3.client = boto3.client(
            "s3",
            endpoint_url=s3.url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        s3.client.create_bucket(Bucket=s3.bucket)
        yield s3
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(monkeypatch, url: str) -> None:
    """Let this process, and those that it starts, find the server."""
    for name in _ELSEWHERE:
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
