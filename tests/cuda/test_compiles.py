"""Every kernel compiles for every GPU generation, within its registers and without spilling; needs no GPU."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import pytest

from gpuenc.cuda.kernels import OPTIONS, SOURCES, read_source
from tests.simt.shim import CACHE, kernel_names

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
# 80 registers: three blocks of 256 threads on a multiprocessor of any of these. 16 bytes: one 64-bit value out and in.
MOST_REGISTERS = 80
MOST_SPILLED_BYTES = 16
USAGE = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", re.S
)


def missing(what: str) -> None:
    """Skip for want of a tool, or fail where the environment says that nothing may be skipped."""
    if os.environ.get("GPUENC_NO_SKIPS") == "1":
        pytest.fail(f"GPUENC_NO_SKIPS is set, and there is no {what}")
    pytest.skip(f"no {what} here")


@lru_cache
def nvrtc() -> ctypes.CDLL | None:
    """Return NVIDIA's run-time compiler: of the wheel nvidia-cuda-nvrtc or nvidia-cuda-nvrtc-cu12, or the system's."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    found = [path for folder in folders for path in folder.rglob("libnvrtc.so.*") if "alt" not in path.name]
    for name in (*map(str, found), "libnvrtc.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def version(library: ctypes.CDLL) -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def supported(library: ctypes.CDLL, architecture: int) -> bool:
    count = ctypes.c_int()
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    known = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(known)
    return architecture in known


def compile_with_nvrtc(library: ctypes.CDLL, name: str, text: str, options: list[str]) -> tuple[int, list[str], str]:
    """Return the compiler's status, the kernels that are in the binary, and its log."""
    program = ctypes.c_void_p()
    assert not library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None)
    try:
        words = [option.encode() for option in options]
        status = library.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        kernels = []
        if not status:
            library.nvrtcGetCUBINSize(program, ctypes.byref(size))
            cubin = ctypes.create_string_buffer(size.value)
            library.nvrtcGetCUBIN(program, cubin)
            kernels = [kernel for kernel in kernel_names(text) if f".text.{kernel}\0".encode() in cubin.raw]
        return status, kernels, log.value.decode()
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


Compiled = dict[tuple[str, int], tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    """Every source for every architecture that NVRTC knows: what has been compiled before comes from the cache."""
    library = nvrtc()
    if library is None:
        missing("NVRTC (pip install nvidia-cuda-nvrtc)")
        return {}
    which = [(source, number) for source in SOURCES for number in ARCHITECTURES if supported(library, number)]

    def one(source: str, architecture: int) -> tuple[int, list[str], str]:
        text = read_source(f"{source}.cu")
        options = [*OPTIONS, f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v", "-Werror=all-warnings"]
        key = hashlib.sha256("\0".join((text, *options, str(version(library)))).encode()).hexdigest()[:24]
        kept = CACHE / f"{key}.json"
        if not kept.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            result = compile_with_nvrtc(library, f"{source}.cu", text, options)
            whole = kept.with_suffix(f".{threading.get_ident()}")
            whole.write_text(json.dumps(result), encoding="utf-8")
            whole.replace(kept)
        status, kernels, log = json.loads(kept.read_text(encoding="utf-8"))
        return status, kernels, log

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(which, pool.map(one, *zip(*which, strict=True)), strict=True))


def check_usage(log: str, source: str, text: str) -> None:
    usage = {
        kernel: (int(stores) + int(loads), int(registers)) for kernel, stores, loads, registers in USAGE.findall(log)
    }
    assert set(usage) == set(kernel_names(text)), log[:2000]
    most = (MOST_SPILLED_BYTES, MOST_REGISTERS)
    over = {kernel: each for kernel, each in usage.items() if each[0] > most[0] or each[1] > most[1]}
    assert not over, f"{source}: (bytes spilled, registers) over {most}: {over}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES)
def test_nvrtc_compiles_it_within_its_registers(compiled: Compiled, source: str, architecture: int) -> None:
    if (source, architecture) not in compiled:
        return missing(f"NVRTC that knows sm_{architecture}")
    status, kernels, log = compiled[source, architecture]
    text = read_source(f"{source}.cu")
    assert not status, log
    assert kernels == kernel_names(text)
    check_usage(log, source, text)
    return None


def test_the_block_coder_leaves_room_for_eight_blocks_on_a_multiprocessor(compiled: Compiled) -> None:
    if ("ht_block", 90) not in compiled:
        return missing("NVRTC that knows sm_90")
    [(kernel, stores, loads, registers)] = USAGE.findall(compiled["ht_block", 90][2])
    assert (kernel, int(stores), int(loads)) == ("ht_encode_blocks", 0, 0)
    assert int(registers) <= 64
    return None


def test_an_error_in_a_source_is_named_with_its_file_and_line() -> None:
    library = nvrtc()
    if library is None:
        return missing("NVRTC (pip install nvidia-cuda-nvrtc)")
    text = read_source("samples.cu").replace("return cell >> 8", "return cel >> 8")
    status, _, log = compile_with_nvrtc(library, "samples.cu", text, [*OPTIONS, "--gpu-architecture=sm_90"])
    assert status
    line = next(
        number
        for number, line in enumerate((Path(__file__).parents[2] / "kernels/samples.cuh").read_text().splitlines(), 1)
        if "return cell >> 8" in line
    )
    assert f"samples.cuh({line})" in log
    return None


def test_the_budget_can_be_exceeded() -> None:
    log = (
        "ptxas info    : Compiling entry function 'k' for 'sm_90'\nptxas info    : Function properties for k\n"
        "    {} bytes stack frame, {} bytes spill stores, {} bytes spill loads\nptxas info    : Used {} registers, used"
    )
    source = 'extern "C" __global__ void __launch_bounds__(256) k(int a)'
    check_usage(log.format(0, 8, 8, 80), "k", source)
    for figures in ((0, 20, 0, 20), (0, 0, 20, 20), (0, 12, 8, 20), (0, 0, 0, 81)):
        with pytest.raises(AssertionError, match="over"):
            check_usage(log.format(*figures), "k", source)
    with pytest.raises(AssertionError):
        check_usage("", "k", source)


@pytest.mark.parametrize("source", SOURCES)
def test_nvcc_compiles_it_within_its_registers(source: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return missing("nvcc (the CUDA toolkit)")
    text = read_source(f"{source}.cu")
    (tmp_path / f"{source}.cu").write_text(text, encoding="utf-8")
    command = [nvcc, "-std=c++17", "-arch=sm_90", "-cubin", "-Xptxas", "-v", "-Werror", "all-warnings", f"{source}.cu"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not built.returncode, built.stderr
    check_usage(built.stderr, source, text)
    return None
