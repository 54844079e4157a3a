"""Where metrics go: a tiny HTTP server for scrapes, or a file that is written anew every few seconds."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6, SOCK_STREAM, AddressFamily, gaierror, getaddrinfo
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Protocol, Self

from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.regular import regular
from gpuenc.errors import DestinationError, InvalidOption

if TYPE_CHECKING:
    from types import TracebackType

LOGGER = logging.getLogger(__name__)

_HERE = "127.0.0.1"
_WRITE_EVERY_S = 5.0
# A reader that says nothing for so long is given up.
_TIMEOUT_S = 5.0
_SUFFIX = ".prom"
_FILE_BEGINNING = b"# HELP gpuenc_"
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text"

Address = tuple[str, int]


class Render(Protocol):
    """Writes all metrics as text."""

    def __call__(self, *, openmetrics: bool = False) -> str:
        """Return the text format 0.0.4, or OpenMetrics 1.0."""


def destination_of(spec: str) -> Address | Path:
    """Return what `spec` asks for: where to listen, or which file to write.

    Raises
    ------
    InvalidOption
        It is neither a port from 1 to 65535, nor ``HOST:PORT``, nor a file whose name ends in ``.prom``.
    """
    if spec.endswith(_SUFFIX) and len(Path(spec).name) > len(_SUFFIX):
        return Path(spec)
    found = re.fullmatch(r"(?:(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):)?(?P<port>[0-9]{1,5})", spec)
    if not found or not 1 <= int(found["port"]) <= 65535:
        wanted = f"a port from 1 to 65535, HOST:PORT, or a file whose name ends in {_SUFFIX}"
        raise InvalidOption(f"metrics want {wanted}, not {spec!r}")
    return (found["host"] or _HERE).strip("[]"), int(found["port"])


class MetricsServer:
    """Answers scrapes at ``/metrics`` from threads of its own; a context manager.

    Parameters
    ----------
    address : tuple of str and int
        Host and port; 0 for any free port, which `port` tells.
    render : Render
        What it answers.

    Raises
    ------
    InvalidOption
        The address cannot be listened on.
    """

    def __init__(self, address: Address, render: Render) -> None:
        try:
            family, _, _, _, _ = getaddrinfo(*address, type=SOCK_STREAM)[0]
            kind = _Server6 if family == AF_INET6 else _Server
            self._server = kind(address, type("Handler", (_Handler,), {"render": staticmethod(render)}))
        except (OSError, gaierror, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise InvalidOption(f"metrics cannot listen on {address[0]}, port {address[1]}: {reason}") from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="gpuenc-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # On Windows it would let two jobs share a port.
    allow_reuse_address = os.name == "posix"
    # A reader that hangs is not waited for at the end.
    block_on_close = False

    def server_bind(self) -> None:
        """Bind without asking name servers what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing on the terminal of someone's job."""
        LOGGER.debug("a scrape failed", exc_info=sys.exc_info())


class _Server6(_Server):
    address_family: AddressFamily = AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S
    server_version = "gpuenc"
    sys_version = ""
    render: Render

    def do_GET(self) -> None:
        """Answer with the metrics."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with what `do_GET` would say of them."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if self.path.partition("?")[0] != "/metrics":
            status, kind, data = HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"metrics are at /metrics\n"
        else:
            wanted = _OPENMETRICS in self.headers.get("Accept", "")
            status, kind = HTTPStatus.OK, f"{_OPENMETRICS}; version=1.0.0; charset=utf-8" if wanted else _TEXT
            data = type(self).render(openmetrics=wanted).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on the terminal of someone's job."""


class MetricsFile:
    """Writes a file every few seconds and at the end, whole or not at all; a context manager.

    Parameters
    ----------
    path : Path
        Replaced only if it is such a file.
    render : Render
        What it holds.
    every_s : float
        Time between two writes.

    Attributes
    ----------
    problem : str
        What went wrong with the last write; the next one is tried all the same.

    Raises
    ------
    InvalidOption
        It is another kind of file, or it cannot be written to begin with.
    """

    def __init__(self, path: Path, render: Render, every_s: float = _WRITE_EVERY_S) -> None:
        self._path, self._render, self._every_s = path, render, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpuenc-metrics", daemon=True)
        self.problem = ""
        try:
            with open(path, "rb", opener=regular) as before:
                foreign = before.read(len(_FILE_BEGINNING)) not in (b"", _FILE_BEGINNING)
        except FileNotFoundError:
            foreign = False
        except OSError as error:
            raise InvalidOption(f"metrics cannot be written to {path}: {error.strerror}") from None
        if foreign:
            raise InvalidOption(f"{path} exists and holds no metrics of gpuenc; it is left as it is")

    def __enter__(self) -> Self:
        self.write()
        if self.problem:
            raise InvalidOption(f"metrics cannot be written to {self._path}: {self.problem}")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.write()

    def write(self) -> None:
        """Write the file now."""
        self.problem = ""
        # Not flushed to the disk: after a power loss nobody reads the numbers of a job that is gone.
        try:
            with AtomicFile(self._path, overwrite=True, fsync=False) as new, new.errors():
                new.file.write(self._render().encode())
                new.publish()
        except DestinationError as error:
            self.problem = str(error).rpartition(": ")[2]
            LOGGER.debug("metrics cannot be written: %s", self.problem)

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            # A thread that died would leave old numbers that look like new ones.
            with contextlib.suppress(OSError):
                self.write()
