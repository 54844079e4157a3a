"""Sources as one text, lazily compiled modules, status words as errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpuenc.cuda import kernels, memory
from gpuenc.errors import CodecError, InvalidPixels


def folder(root: Path, **files: str) -> Path:
    for name, text in files.items():
        (root / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return root


def test_headers_are_inlined_once_with_their_lines(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        a_cu='// first\n#include "b.cuh"\n  # include "c.cuh"\nint last;\n',
        b_cuh='#pragma once\n#include "c.cuh"\nint b;\n',
        c_cuh="#include <system>\nint c;\n",
    )
    assert kernels.read_source("a.cu", root=root).splitlines() == [
        '#line 1 "a.cu"', "// first",
        '#line 1 "b.cuh"', "",
        '#line 1 "c.cuh"', "#include <system>", "int c;",
        '#line 3 "b.cuh"', "int b;",
        '#line 3 "a.cu"', "", "int last;",
    ]  # fmt: skip


def test_a_changed_header_changes_the_text_that_the_cache_goes_by(tmp_path: Path) -> None:
    root = folder(tmp_path, a_cu='#include "b.cuh"\n', b_cuh="int b;\n")
    before = kernels.read_source("a.cu", root=root)
    folder(tmp_path, b_cuh="int c;\n")
    assert kernels.read_source("a.cu", root=root) != before


def test_a_header_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"b\.cuh"):
        kernels.read_source("a.cu", root=folder(tmp_path, a_cu='#include "b.cuh"\n'))


def test_no_source_needs_an_include_path() -> None:
    for source in kernels.SOURCES:
        assert "#include" not in kernels.read_source(f"{source}.cu")


def test_packaged_sources_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.sources_root() == Path(kernels.__file__).parents[2] / "kernels"
    monkeypatch.setattr(kernels, "files", lambda package: tmp_path / package)
    (tmp_path / "gpuenc/_kernels").mkdir(parents=True)
    assert kernels.sources_root() == tmp_path / "gpuenc/_kernels"


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        (kernels.FAULT_TRUNCATED, InvalidPixels, "truncated"),
        (kernels.FAULT_OVERFLOW, InvalidPixels, "invalid-pixels"),
        (2, CodecError, "kernel-refused"),
        (64, CodecError, "kernel-refused"),
    ],
)
def test_a_fault_becomes_an_error_that_names_the_kernel(fault: int, error: type[Exception], code: str) -> None:
    with pytest.raises(error, match=r"'crc32'.*frame 5 ") as caught:
        kernels.raise_for_fault("crc32", 5, fault)
    assert caught.value.code == code  # type: ignore[attr-defined]


def test_no_fault_is_no_error() -> None:
    kernels.raise_for_fault("crc32", 5, 0)


def test_importing_the_launchers_loads_nothing_of_cuda() -> None:
    code = (
        "import sys, gpuenc.cuda.samples, gpuenc.cuda.kernels; "
        "print([name for name in sys.modules if name.split('.')[0] in ('cupy', 'nvidia', 'cuda')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


class FakeModule:
    made: list[dict[str, object]] = []  # noqa: RUF012

    def __init__(self, **how: object) -> None:
        self.made.append(how)

    def get_function(self, name: str) -> object:
        return lambda *arguments: launches.append((name, *arguments))


launches: list[tuple[object, ...]] = []


def test_a_module_is_made_once_for_a_device_at_its_first_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeCuda:
        class Device:
            def __init__(self, index: int) -> None:
                self.index = index

            def __enter__(self) -> None:
                launches.append(("device", self.index))

            def __exit__(self, *_: object) -> None:
                pass

    class FakeCupy:
        cuda = FakeCuda
        RawModule = FakeModule
        asarray = staticmethod(lambda array: ("CuPy's own", array.address))

    monkeypatch.setitem(sys.modules, "cupy", FakeCupy)
    first, second = kernels.CupyDevice(0), kernels.CupyDevice(3)
    assert FakeModule.made == []
    first.launch("compare", "crc32", (7, 2), 256, ("jobs",))  # type: ignore[arg-type]
    first.launch("compare", "crc32_tables", (1, 1), 256, ())
    second.launch("compare", "crc32", (1, 1), 256, (memory.View(4096, (2,), "|u1"), np.uint32(7)))
    assert FakeModule.made == [{"code": kernels.read_source("compare.cu"), "options": kernels.OPTIONS}] * 2
    assert launches == [
        ("device", 0), ("crc32", (7, 2), (256,), ("jobs",)),
        ("device", 0), ("crc32_tables", (1, 1), (256,), ()),
        ("device", 3), ("crc32", (1, 1), (256,), (("CuPy's own", 4096), 7)),
    ]  # fmt: skip
