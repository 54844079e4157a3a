"""The sources of the kernels, the modules compiled from them per device, and the errors their status words mean."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gpuenc.cuda.jobs import FAULT_OVERFLOW, FAULT_TRUNCATED
from gpuenc.errors import CodecError, InvalidPixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.resources.abc import Traversable

    import numpy as np
    from numpy.typing import DTypeLike, NDArray

SOURCES = (
    *("samples", "colour", "compare"),
    *("dwt53", "ht_block", "packet_headers", "gather"),
    *("packed", "jpeg_lossless", "rle"),
)
OPTIONS = ("-std=c++17", "-lineinfo")

_INCLUDE = re.compile(r'\s*#\s*include\s+"([\w./]+)"\s*$')


class Array(Protocol):
    """An array on a device, C-contiguous: CuPy's, PyTorch's and others have this interface."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface: ``data``, ``shape``, ``typestr``, ``strides``."""


class Device(Protocol):
    """Where kernels run: a GPU, or in the tests the CPU. Work is queued in order; `download` waits for it."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of anything."""

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""

    def upload(self, values: NDArray[Any]) -> Array:
        """Return a copy of `values`."""

    def download(self, array: Array) -> NDArray[Any]:
        """Return a copy of `array` on the host."""

    def launch(
        self, source: str, kernel: str, grid: tuple[int, int], block: int, arguments: Sequence[Array | np.uint32]
    ) -> None:
        """Queue `kernel` of ``kernels/<source>.cu``; arrays are passed as their addresses."""


class CupyDevice:
    """A GPU, through CuPy, on the current stream of the calling thread.

    Modules are compiled at a kernel's first use on this device. CuPy keeps the binaries on disk, by source text and
    options, so other processes find them there.

    Parameters
    ----------
    index : int
        Which of the visible GPUs.
    """

    def __init__(self, index: int = 0) -> None:
        import cupy

        self._cupy = cupy
        self._device = cupy.cuda.Device(index)
        self._modules: dict[str, Any] = {}
        self._compiling = threading.Lock()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Return a context in which this device is current, with a stream of its own."""
        with self._device, self._cupy.cuda.Stream(non_blocking=True):
            yield

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of anything, from CuPy's pool: freed memory is reused in the order of the stream."""
        with self._device:
            array: Array = self._cupy.empty(shape, dtype)
        return array

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""
        with self._device:
            array: Array = self._cupy.zeros(shape, dtype)
        return array

    def upload(self, values: NDArray[Any]) -> Array:
        """Return a copy of `values`, whose memory may be reused at once. Structures travel as bytes."""
        with self._device:
            array: Array = self._cupy.asarray(values.view("u1") if values.dtype.fields else values)
        return array

    def download(self, array: Array) -> NDArray[Any]:
        """Return a copy of `array` on the host, once the stream has reached this point."""
        with self._device:
            values: NDArray[Any] = self._cupy.asarray(array).get()
        return values

    def launch(
        self, source: str, kernel: str, grid: tuple[int, int], block: int, arguments: Sequence[Array | np.uint32]
    ) -> None:
        """Queue `kernel` of ``kernels/<source>.cu``."""
        with self._device:
            # CuPy passes its own arrays as addresses, and refuses others that have the same interface.
            passed = (
                self._cupy.asarray(argument) if hasattr(argument, "__cuda_array_interface__") else argument
                for argument in arguments
            )
            self._module(source).get_function(kernel)(grid, (block,), tuple(passed))

    def _module(self, source: str) -> Any:
        with self._compiling:
            if source not in self._modules:
                self._modules[source] = self._cupy.RawModule(code=read_source(f"{source}.cu"), options=OPTIONS)
            return self._modules[source]


def sources_root() -> Traversable:
    """Return the folder of the CUDA sources: in the installed package, or the repository's."""
    packaged = files("gpuenc") / "_kernels"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "kernels"


def read_source(*names: str, root: Traversable | None = None) -> str:
    """Return sources as one text, each file once, where it is first included; ``#line`` for messages and profilers.

    CuPy's cache on disk goes by this text: what a compiler would fetch through an include path it would not see, and
    a changed header would run the old binary.

    Parameters
    ----------
    *names : str
        File names, such as ``"samples.cu"``.
    root : Traversable, optional
        The folder; by default `sources_root`.

    Raises
    ------
    FileNotFoundError
        One of them, or a header it includes, is not there.
    """
    seen: set[str] = set()
    inlined = (_inlined(root or sources_root(), name, seen) for name in names if name not in seen)
    return "".join(line for lines in inlined for line in lines)


def _inlined(root: Traversable, name: str, seen: set[str]) -> list[str]:
    seen.add(name)
    lines = [f'#line 1 "{name}"\n']
    for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines(), 1):
        header = _INCLUDE.match(line)
        if header is None:
            lines.append("\n" if line.strip() == "#pragma once" else f"{line}\n")
        elif header[1] in seen:
            lines.append("\n")
        else:
            lines += [*_inlined(root, header[1], seen), f'#line {number + 1} "{name}"\n']
    return lines


def raise_for_fault(kernel: str, frame: int, fault: int) -> None:
    """Raise what a frame's fault, of the status that `kernel` left, means; return if it is 0.

    Raises
    ------
    InvalidPixels
        The frame is too short (code ``"truncated"``), or a result needs more than 32 bits, as in the CPU twin.
    CodecError
        The kernel refused its job (code ``"kernel-refused"``): an error of gpuenc, not of the pixels.
    """
    if fault & FAULT_TRUNCATED:
        raise InvalidPixels(f"Kernel '{kernel}' found frame {frame} of the batch too short", code="truncated")
    if fault & FAULT_OVERFLOW:
        raise InvalidPixels(f"Kernel '{kernel}': results of frame {frame} of the batch need more than 32 bits")
    if fault:
        raise CodecError(
            f"Kernel '{kernel}' refused frame {frame} of the batch with status {fault:#x}", code="kernel-refused"
        )
