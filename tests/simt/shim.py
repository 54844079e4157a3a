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

from gpuenc.cuda.kernels import SOURCES, Array, read_source

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
        table = ", ".join(f'kernel("{name}", ::{name})' for name in self.names)
        text = (
            f'#include "simt.h"\n{source}\n#line 1 "kernels"\n#include "host.h"\n'
            f"const std::vector<simt::Kernel>& simt::kernels() {{ static const std::vector<Kernel> all = {{{table}}}; "
            "return all; }\n"
        )
        self.functions = ctypes.CDLL(str(compiled(text, flags)), mode=os.RTLD_LOCAL)
        self.functions.simt_make_buffer.restype = ctypes.c_uint64
        self.functions.simt_get.restype = ctypes.c_int64


@lru_cache
def own_kernels() -> Library:
    """Return all kernels of the repository as one library."""
    return Library(read_source(*(f"{name}.cu" for name in SOURCES)))


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


@dataclass(frozen=True)
class Done:
    """What the threads of a launch did; bytes and accesses are of global memory, atomics left out."""

    threads: int
    barriers: int
    warp_operations: int
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


@dataclass
class SimtDevice:
    """A `gpuenc.cuda.kernels.Device` on which every access is checked; raises what kernels do wrong.

    One at a time: buffers of the device before are gone when the next is made.

    Parameters
    ----------
    schedule : str
        One of `SCHEDULES`.
    seed : int
        For the random schedule.
    misalign : int
        Bytes by which arrays begin after a multiple of 256, rounded down to the size of their elements.
    most_blocks : tuple of int
        Grids are cut to this: kernels must be right under any grid.
    library : Library
        Whose kernels run; by default the repository's.
    """

    schedule: str = "forward"
    seed: int = 1
    misalign: int = 0
    most_blocks: tuple[int, int] = (1 << 31, 1 << 16)
    library: Library = field(default_factory=own_kernels)
    launched: list[str] = field(default_factory=list)
    done: Done | None = None

    def __post_init__(self) -> None:
        self.library.functions.simt_free_buffers()

    def buffer(
        self, shape: tuple[int, ...], dtype: DTypeLike, label: str, *, misalign: int = 0, writable: bool = True
    ) -> Buffer:
        """Return new memory, poisoned, with guards around it; what nobody has written counts as uninitialised."""
        made = Buffer(0, shape, np.dtype(dtype))
        name = f"{label} {made.dtype}{list(shape)}".encode()
        made.address = self.library.functions.simt_make_buffer(
            name, ctypes.c_uint64(made.nbytes), ctypes.c_uint64(misalign), int(writable)
        )
        return made

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        size = np.dtype(dtype).itemsize
        return self.buffer(shape, dtype, "result", misalign=self.misalign // size * size)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        return self._filled(np.zeros(shape, dtype), "zeros", 0, True)

    def upload(self, values: NDArray[Any]) -> Buffer:
        return self._filled(values, "upload", 0, False)

    def put(self, values: NDArray[Any], misalign: int = 0) -> Buffer:
        """Return read-only memory that holds `values`, at any address."""
        return self._filled(values, "input", misalign, False)

    def download(self, array: Array) -> NDArray[Any]:
        values, unwritten = self.read(array)
        if unwritten:
            raise KernelMisbehaved(str(self.launched), {"unwritten": unwritten}, "bytes of a result nobody has written")
        return values

    def read(self, array: Array) -> tuple[NDArray[Any], int]:
        """Return an array's values, and how many of its bytes nobody has written."""
        interface = array.__cuda_array_interface__
        values = np.empty(interface["shape"], interface["typestr"])
        unwritten = self.library.functions.simt_get(
            ctypes.c_uint64(interface["data"][0]),
            values.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_uint64(values.nbytes),
        )
        assert unwritten >= 0, "no such memory"
        return values, unwritten

    def launch(
        self, source: str, kernel: str, grid: tuple[int, int], block: int, arguments: Sequence[Array | np.uint32]
    ) -> None:
        if self.library is own_kernels():
            assert kernel in kernel_names(read_source(f"{source}.cu")), f"{kernel} is not in {source}.cu"
        across, down = map(min, grid, self.most_blocks)
        self.run(kernel, (across, down, 1), (block, 1, 1), arguments)

    def run(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Any],
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel to its end and raise if it did anything wrong."""
        words = [
            argument.__cuda_array_interface__["data"][0]
            if hasattr(argument, "__cuda_array_interface__")
            else int(argument)
            for argument in arguments
        ]
        result = self.library.functions.simt_launch(
            kernel.encode(),
            (ctypes.c_uint32 * 6)(*grid, *block),
            ctypes.c_uint64(shared_bytes),
            SCHEDULES.index(self.schedule),
            ctypes.c_uint64(self.seed),
            (ctypes.c_uint64 * len(words))(*words),
            ctypes.c_uint64(len(words)),
        )
        if result:
            raise TypeError(
                {-1: "there is no kernel of this name: ", -2: "another number of arguments: "}[result] + kernel
            )
        self.launched.append(kernel)
        counts, text = (ctypes.c_uint64 * (len(KINDS) + 6))(), ctypes.create_string_buffer(10000)
        self.library.functions.simt_report(counts, text, ctypes.c_uint64(len(text)))
        *violations, barriers, warp_operations, read, written, reads, writes = counts
        self.done = Done(grid[0] * grid[1] * block[0], barriers, warp_operations, read, written, reads, writes)
        if any(violations):
            wrong = {kind: count for kind, count in zip(KINDS, violations, strict=True) if count}
            raise KernelMisbehaved(kernel, wrong, text.value.decode())

    def _filled(self, values: NDArray[Any], label: str, misalign: int, writable: bool) -> Buffer:
        values = np.ascontiguousarray(values)
        made = self.buffer(values.shape, values.dtype, label, misalign=misalign, writable=writable)
        if values.nbytes:
            self.library.functions.simt_put(
                ctypes.c_uint64(made.address), values.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(values.nbytes)
            )
        return made
