"""What is installed and found on this machine, in sentences."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gpuenc import measured
from gpuenc._version import __version__
from gpuenc.cuda.nvcodec import why_unavailable
from gpuenc.cuda.probe import device_count, kernels, probe
from gpuenc.plugins import default_plugins, usable_cores
from gpuenc.registry import all_encoders
from gpuenc.syntaxes import TABLE, find

if TYPE_CHECKING:
    from collections.abc import Iterator

_CORE = ("pydicom", "numpy", "imagecodecs")
_OPTIONAL = {
    "pylibjpeg": "gpuenc[pylibjpeg]",
    "pylibjpeg-openjpeg": "gpuenc[pylibjpeg]",
    "pylibjpeg-rle": "gpuenc[pylibjpeg]",
    "pyjpegls": "gpuenc[pyjpegls]",
    "python-gdcm": "gpuenc[gdcm]",
}
# What each extra brings, as pyproject.toml has it. The last two exclude each other.
EXTRAS = {
    "plugins": ("pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm"),
    "independent": ("av", "micro-reader-codecs"),
    "cloud": ("obstore",),
    "dicomweb": ("httpx",),
    "dask": ("distributed", "cryptography"),
    "bench": ("matplotlib",),
    "torch": ("torch",),
    "cuda12": ("cupy-cuda12x", "cuda-toolkit", "nvidia-nvimgcodec-cu12"),
    "cuda13": ("cupy-cuda13x", "cuda-toolkit", "nvidia-nvimgcodec-cu13"),
}
_CUDA = ("cuda12", "cuda13")


def findings() -> Iterator[tuple[str, str]]:
    """Yield pairs of what was looked for and what was found."""
    yield "gpuenc", __version__
    yield (
        "Python",
        f"{platform.python_version()} ({sys.implementation.name}) on {platform.system()} {platform.machine()}",
    )
    yield "cores", f"{usable_cores()} usable of {os.cpu_count()}"
    for package in _CORE:
        yield package, _version(package) or "missing: reinstall gpuenc"
    for package, extra in _OPTIONAL.items():
        yield package, _version(package) or f"not installed (optional): pip install '{extra}'"
    yield "extras", _extras()
    count = device_count()
    for device in range(max(1, count)):
        why = why_unavailable(find("htj2k-lossless").uid, device)
        yield f"GPU {device}" if count > 1 else "GPU", why or probe(device).detail
        if count:
            answer = kernels(device)
            yield f"kernels on GPU {device}", answer.reason or answer.detail
            yield from _plugins_on(device)
    known = measured.findings()
    for one in known:
        yield "measured", str(one)
    if not known:
        why = "run `gpuenc bench`, for --device fastest to know" if count else "there is no GPU whose rate could differ"
        yield "measured", f"nothing on this machine: {why}"
    encoders = all_encoders().values()
    able = sum(encoder.is_available for encoder in encoders)
    yield "transfer syntaxes", f"{able} of {len(encoders)} can be encoded; see `gpuenc syntaxes`"


def _plugins_on(device: int) -> Iterator[tuple[str, str]]:
    """Yield for each plug-in of GPUs which transfer syntaxes it encodes on a device, or why it does not."""
    found: dict[tuple[str, str], list[str]] = {}
    for syntax in TABLE:
        for path in default_plugins(syntax.uid) if syntax.encapsulated else ():
            if path.device == "gpu":
                why = import_module(path.module).why_unavailable(syntax.uid, device)
                found.setdefault((path.label, why), []).append(syntax.name)
    for (label, why), names in found.items():
        yield f"{label} on GPU {device}", f"{why or 'works'} ({', '.join(names)})"


def _extras() -> str:
    """Return which extras are installed as a whole, which are not, and how these are."""
    installed = [extra for extra, packages in EXTRAS.items() if all(map(_version, packages))]
    missing = [extra for extra in EXTRAS if extra not in installed and extra not in _CUDA]
    named = list(missing)
    if not set(_CUDA) & set(installed):
        missing.append(_CUDA[0])
        named.append(" or ".join(_CUDA))
    said = f"installed: {', '.join(installed) or 'none'}"
    return f"{said}; missing: {', '.join(named)}, pip install '.[{','.join(missing)}]'" if missing else said


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
