"""Orthanc with its DICOMweb plug-in, on loopback alone, with a configuration and a storage of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")

USER, PASSWORD = "gpuenc", "pAsSwOrD-of-the-test"
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_S = 30.0


@contextlib.contextmanager
def served(folder: Path):
    """Serve an empty archive; yield the address of its DICOMweb service."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    compiler = shutil.which("cc") or shutil.which("c++")
    if not (program and compiler and _PLUGIN.exists()):
        pytest.skip(
            "needs Orthanc, its DICOMweb plug-in and a C compiler: apt-get install orthanc orthanc-dicomweb g++"
        )
    shim = folder / "loopback.so"
    source = Path(__file__).with_name("loopback.c")
    subprocess.run([compiler, "-x", "c", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "storage").mkdir()
    asked = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(_PLUGIN)],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(asked))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [program, folder / "orthanc.json"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LD_PRELOAD": str(shim)},
        )
    try:
        _await(process, port, folder / "log")
        _demand_loopback(port)
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen, port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/system", auth=(USER, PASSWORD)).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"Orthanc does not start: {log.read_text()[-2000:]}")


def _demand_loopback(port: int) -> None:
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F:{port:04X}"], listening
