"""What figures belong to: machine, cores, GPU, driver, versions and commit."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpuenc.cuda.probe import device_count
from gpuenc.plugins import usable_cores

_PACKAGES = (
    "gpuenc", "numpy", "pydicom", "imagecodecs", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls",
    "python-gdcm", "pydicom-data", "cupy-cuda12x", "cupy-cuda13x", "nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13",
)  # fmt: skip
_TIMEOUT_S = 20


def describe() -> dict[str, Any]:
    """Return what a reader of the figures has to know of this machine; nothing that names it or its owner."""
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpus": _gpus(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of what encodes."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the checkout that runs, with ``-dirty`` where it was changed since.

    A copy without git says which in ``GPUENC_COMMIT``; a wheel has its version, and no commit.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        said = os.environ.get("GPUENC_COMMIT", "")
        return said if re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", said) else ""
    head = _said("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    return head + "-dirty" * bool(head and _said("git", "-C", str(root), "status", "--porcelain", "--", "gpuenc"))


def slug(about: dict[str, Any]) -> str:
    """Return a short name of such a machine for a file: its GPU, or its processor, and its cores."""
    gpus = about["gpus"]
    words = re.sub(r"\(r\)|\(tm\)|@.*|nvidia|processor|cpu", " ", (gpus[0]["name"] if gpus else about["cpu"]).lower())
    name = "-".join(re.findall(r"[a-z0-9]+", words)[:4]) or "cpu"
    return f"{name}-{about['cores']}core"


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _gpus() -> list[dict[str, str]]:
    """Return name, driver and memory of the visible GPUs, as the driver's own tool tells them."""
    if not device_count():
        return []
    said = _said("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    rows = [[field.strip() for field in line.split(",")] for line in said.splitlines()]
    return [dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows if len(row) == 3] or [
        {"name": "GPU", "driver": "", "memory": ""}
    ]


def _said(*command: str) -> str:
    """Return what a program prints, or nothing where it is missing, fails or hangs."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
