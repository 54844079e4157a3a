"""What every server of objects on loopback has in common: what it was asked is kept, and faults can be planted."""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Of the answer of another server these are for one connection, or made again.
_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "date", "server"))
_START_S = 30.0


@dataclass
class ObjectServer:
    """A server with one bucket: each request as method, path and headers, and faults to be planted.

    Its own client, with which a test puts and gets objects, is of another code base than what is tested, and its
    requests are not kept.
    """

    scheme: str
    url: str = ""
    bucket: str = "bucket"
    client: Any = None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    # Is given method and path of a request; what it returns is the answer instead: status and body, and a third thing
    # where the request is to be done all the same.
    fault: Any = None
    # Of the object whose path ends like that, the last byte is another one whenever it is read.
    changed: str = ""

    # What must not be told to anybody.
    secrets: tuple[str, ...] = ()
    # What is in the paths of requests for a list, and for a part of an object, and a pattern of what removes one.
    lists: str = "list-type"
    part: str = "partNumber="
    removal: str = "^DELETE"
    # How many uploads are left over when one was given up.
    lingering: int = 0

    def at(self, key: str = "", bucket: str = "") -> Path:
        """Return the address of an object or a prefix."""
        return Path(f"{self.scheme}://{bucket or self.bucket}/{key}")

    def name(self, key: str) -> str:
        """Return the address of an object as people write it."""
        return f"{self.scheme}://{self.bucket}/{key}"

    def asked(self, method: str, path: str = "") -> list[tuple[str, str, dict[str, str]]]:
        return [each for each in self.requests if each[0] == method and re.search(path, each[1])]

    def removes(self, method: str, path: str) -> bool:
        return re.search(self.removal, f"{method} {path}") is not None

    # Each kind has its own.

    def environment(self, monkeypatch, url: str = "") -> None:
        """Let this process, and those that it starts, find the server, or nothing at another address."""
        raise NotImplementedError

    def wrong_credentials(self, monkeypatch) -> None:
        raise NotImplementedError

    def pages(self, monkeypatch, keys: int) -> None:
        """Give so many keys in one answer."""
        raise NotImplementedError

    def put(self, key: str, data: bytes) -> None:
        raise NotImplementedError

    def get(self, key: str) -> bytes:
        raise NotImplementedError

    def etag(self, key: str) -> str:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError

    def keys(self, prefix: str = "") -> list[str]:
        raise NotImplementedError

    def clean(self) -> None:
        for key in self.keys():
            self.delete(key)

    def uploads(self) -> int:
        """Return how many uploads in parts were begun and neither completed nor given up."""
        raise NotImplementedError


@contextlib.contextmanager
def recorded(server: ObjectServer, answers):
    """Serve a WSGI application on a free port of loopback, with the server's record and faults before it."""
    serving = pytest.importorskip("werkzeug.serving")
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)

    def application(environ, start_response):
        headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        path = environ["PATH_INFO"].encode("latin-1").decode() + (f"?{query}" if query else "")
        ours = not headers.get("user-agent", "").startswith("Boto3")
        if ours:
            server.requests.append((method, path, headers))
        if ours and server.fault and (answer := server.fault(method, path)):
            status, body, *done = answer
            if done:
                list(answers(environ, lambda *_: lambda data: None))
            else:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{status} Planted", [("Content-Length", str(len(body)))])
            return [body]
        answer = answers(environ, start_response)
        if ours and server.changed and method == "GET" and path.endswith(server.changed):
            whole = b"".join(answer)
            return [whole[:-1] + bytes([whole[-1] ^ 1])]
        return answer

    running = serving.make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        server.url = f"http://127.0.0.1:{running.server_port}"
        yield
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def forwarding(port: int):
    """Return a WSGI application that asks the server at a port of loopback, byte for byte."""

    def application(environ, start_response):
        headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name[:5] == "HTTP_"}
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if environ.get(name):
                headers[name.replace("_", "-")] = environ[name]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.putrequest(environ["REQUEST_METHOD"], environ["REQUEST_URI"], True, True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        told = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        if not any(name.lower() == "content-length" for name, _ in told):
            told.append(("Content-Length", str(len(data))))
        start_response(f"{answer.status} {answer.reason or 'Answer'}", told)
        return [data]

    return application


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def started(command, port: int, log: Path, **options):
    """Run a server's program until the end; go on when it listens."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        end = time.monotonic() + _START_S
        while True:
            assert process.poll() is None, log.read_text(errors="replace")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < end, "it does not listen: " + log.read_text(errors="replace")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
