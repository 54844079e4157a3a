"""Builds kernels with g++ and the shim, runs them, and tells what they did wrong."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpuenc.cuda.kernels import Array, read_source

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "simt"

# As enum Kind in fibers.h.
KINDS = (
    "out of bounds", "misaligned", "read-only", "uninitialised", "conflict", "race", "divergent barrier", "deadlock",
    "warp operation", "stack",
)  # fmt: skip
SCHEDULES = ("forward", "reverse", "random", "warp-greedy", "warp-greedy reverse")

_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")
FLAGS = ("-std=c++17", "-O1", "-g0", "-fPIC", "-shared", "-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function")


class KernelMisbehaved(AssertionError):
    """A kernel did what a GPU would not forgive; the message has the first cases, `counts` all by kind."""

    def __init__(self, kernel: str, counts: dict[str, int], text: str) -> None:
        super().__init__(f"{kernel}: {counts}\n{text}")
        self.counts = counts


def kernel_names(source: str) -> list[str]:
    """Return the kernels that a CUDA source defines, in order."""
    return _KERNEL.findall(source)


def compiled(text: str, flags: Sequence[str] = FLAGS, suffix: str = ".so") -> Path:
    """Return what g++ makes of `text`, from the cache where it has been made before."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise RuntimeError("g++ is needed to run kernels on the CPU")
    headers = "".join(path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*.h")))
    key = hashlib.sha256("\0".join((text, headers, *flags, _version(compiler))).encode()).hexdigest()[:24]
    library = CACHE / f"{key}{suffix}"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            source, made = Path(folder, "kernels.cpp"), Path(folder, "library")
            source.write_text(text, encoding="utf-8")
            command = [compiler, *flags, f"-I{HERE}", "-o", str(made), str(source)]
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            if built.returncode or "warning" in built.stderr:
                raise RuntimeError(f"g++ does not like the kernels:\n{built.stderr[:4000]}")
            made.replace(library)  # whole or not there, also where two processes build it
    return library


@lru_cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout


class Library:
    """Kernels of one source text, ready to run."""

    def __init__(self, source: str, flags: Sequence[str] = FLAGS) -> None:
        self.names = kernel_names(source)
        table = ", ".join(f'kernel("{name}", {name})' for name in self.names)
        text = (
            f'#include "simt.h"\n{source}\n#include "host.h"\n'
            f"const std::vector<simt::Kernel>& simt::kernels() {{ static const std::vector<Kernel> all = {{{table}}}; "
            "return all; }\n"
        )
        self.functions = ctypes.CDLL(str(compiled(text, flags)), mode=os.RTLD_LOCAL)
        self.functions.simt_make_buffer.restype = ctypes.c_uint64
        self.functions.simt_get.restype = ctypes.c_int64

    @classmethod
    @lru_cache
    def of(cls, name: str) -> Library:
        """Return the library of ``kernels/<name>.cu``."""
        return cls(read_source(f"{name}.cu"))


@dataclass
class Buffer:
    """Memory that kernels may use, with the interface of arrays on a device."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"data": (self.address, False), "shape": self.shape, "typestr": self.dtype.str, "version": 3}


@dataclass
class SimtDevice:
    """A device of `gpuenc.cuda.kernels.Device` on which every access is checked; raises what kernels do wrong.

    Parameters
    ----------
    schedule : str
        One of `SCHEDULES`.
    seed : int
        For the random schedule.
    misalign : int
        Bytes by which results begin after a multiple of 256, rounded down to their samples' size.
    library : Library, optional
        Kernels to run instead of those of the repository.
    """

    schedule: str = "forward"
    seed: int = 1
    misalign: int = 0
    library: Library | None = None
    launched: list[str] = field(default_factory=list)
    barriers: int = 0
    warp_operations: int = 0
    _owner: dict[int, Library] = field(default_factory=dict)
    _libraries: list[Library] = field(default_factory=list)
    _held: list[tuple[str, NDArray[Any] | None, tuple[int, ...], np.dtype[Any], int]] = field(default_factory=list)
