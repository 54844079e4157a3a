"""Whether there is a GPU: quick, silent, and in a sentence; asked in processes of their own, as users' are."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from gpuenc.cuda import health, nvcodec, probe
from tests.cuda.fake_nvimgcodec import CodeStream

ROOT = Path(__file__).resolve().parents[2]
HT, JPEG = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.50"

LIBCUDA = r"""
#include <stdlib.h>
#include <unistd.h>
static int number(const char* name, int otherwise) { const char* v = getenv(name); return v ? atoi(v) : otherwise; }
static pid_t initialised;
int cuDriverGetVersion(int* version) { *version = number("FAKE_DRIVER", 13000); return 0; }
int cuInit(unsigned) {
    if (initialised && initialised != getpid()) return 3;
    initialised = getpid();
    return number("FAKE_INIT", 0);
}
int cuDeviceGetCount(int* count) { *count = number("FAKE_COUNT", 1); return 0; }
"""

FAKE = """
import sys, types
from importlib.machinery import ModuleSpec
from tests.cuda import fake_nvimgcodec as fake
script = fake.Script()
parent = types.ModuleType("nvidia")
parent.__path__, parent.__spec__ = [], ModuleSpec("nvidia", None, is_package=True)
sys.modules |= {"nvidia": parent, "nvidia.nvimgcodec": fake.module(script)}
"""


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory):
    """A driver's library that answers what the environment says, on the search path of child processes."""
    folder = tmp_path_factory.mktemp("driver")
    source = folder / "cuda.c"
    source.write_text(LIBCUDA, encoding="utf-8")
    command = ["gcc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source)]
    subprocess.run(command, check=True)
    return folder


def ask(code, libcuda=None, **environment):
    """Return what `code` prints, of a process that must write nothing to its standard error."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path} | environment
    if libcuda:
        env["LD_LIBRARY_PATH"] = str(libcuda)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, cwd=ROOT, env=env, timeout=120, check=False,
    )  # fmt: skip
    assert done.stderr == "", done.stderr
    assert done.returncode == 0
    return done.stdout.strip()


WHY = f"from gpuenc.cuda import nvcodec; print(nvcodec.why_unavailable('{HT}'))"


def test_without_a_driver_the_answer_is_no_and_nothing_of_cuda_is_loaded():
    loaded = "import sys; print([m for m in sys.modules if m.split('.')[0] in ('cupy', 'nvidia')])"
    said = ask(f"{WHY}\n{loaded}", LD_LIBRARY_PATH="")
    if "No NVIDIA driver" not in said:
        pytest.skip("there is a driver on this machine")
    assert said.endswith("[]")


def test_importing_asks_nothing(libcuda):
    code = "from gpuenc.cuda import nvcodec, probe; print(probe._cuda_was_used, probe._ANSWERS)"
    assert ask(FAKE + code, libcuda) == "False {}"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, ""),
        ({"FAKE_INIT": "100"}, "No CUDA device is visible"),
        ({"FAKE_INIT": "100", "CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is ''"),
        ({"FAKE_INIT": "2"}, "busy or out of memory"),
        ({"FAKE_INIT": "46"}, "busy or out of memory"),
        ({"FAKE_INIT": "999"}, "CUDA error 999"),
        ({"FAKE_COUNT": "0"}, "There is no GPU 0: 0 visible"),
    ],
    ids=str,
)
def test_what_the_driver_says(libcuda, environment, said):
    answer = ask(FAKE + WHY, libcuda, **environment)
    assert said in answer
    assert bool(said) == bool(answer)


def test_a_missing_wheel_names_the_extra_that_suits_the_driver(libcuda):
    finds = "from gpuenc.cuda import probe; probe.find_spec = lambda name: None\n"
    assert "pip install 'gpuenc[cuda13]'" in ask(finds + WHY, libcuda)
    assert "pip install 'gpuenc[cuda12]'" in ask(finds + WHY, libcuda, FAKE_DRIVER="12040")


def test_a_driver_older_than_the_wheel_is_too_old(libcuda):
    version = "from gpuenc.cuda import probe; probe._version = lambda name: '0.9' if '13' in name else ''\n"
    said = ask(FAKE + version + WHY, libcuda, FAKE_DRIVER="12040")
    assert "too old: it supports CUDA 12.4" in said
    assert "gpuenc[cuda12]" in said


def test_what_c_code_writes_to_standard_error_is_swallowed_and_used(libcuda):
    noisy = """
    import os
    def create():
        os.write(2, b"[ERROR] [nvjpeg2k_ext] Failed to load nvjpeg2k library!\\n")
    script.create = create
    script.dead = "none"
    """
    said = ask(FAKE + textwrap.dedent(noisy) + WHY, libcuda)
    assert "nvJPEG2000 does not work on GPU 0: it encodes nothing: install 'gpuenc[cuda13]'" in said


FORK = f"""
import os
from gpuenc.cuda import nvcodec
{{before}}
read, write = os.pipe()
child = os.fork()
if not child:
    os.write(write, nvcodec.why_unavailable("{HT}").encode() or b"yes")
    os._exit(0)
os.waitpid(child, 0)
print(os.read(read, 1000).decode())
"""


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_asks_again(libcuda):
    assert ask(FAKE + FORK.format(before=""), libcuda) == "yes"
    used = f"assert nvcodec.is_available('{HT}')"
    assert "does not survive a fork" in ask(FAKE + FORK.format(before=used), libcuda)
    elsewhere = "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)"
    assert "forked from one that had used CUDA" in ask(FAKE + FORK.format(before=elsewhere), libcuda)


def test_it_is_asked_once_per_codec(gpu):
    for _ in range(3):
        assert nvcodec.is_available(HT)
        assert nvcodec.is_available(JPEG)
    assert len(gpu.encoders) == 2
    assert not nvcodec.is_available("1.2.840.10008.1.2.5")


def test_many_threads_ask_at_once_and_one_answer_is_found(gpu):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(nvcodec.is_available(HT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 8
    assert len(gpu.encoders) == 1


class Misbehaving:
    """An encoder whose probe goes wrong in one way."""

    def __init__(self, monkeypatch, gpu, change):
        plain = gpu_encoder(gpu)._batch

        def batch(own, images, codec, slots, params):
            made = plain(own, images, codec, slots, params)
            return [change(bytes(memoryview(one))) for one in made]

        monkeypatch.setattr(gpu_encoder(gpu), "_batch", batch)


def gpu_encoder(gpu):
    return sys.modules["nvidia.nvimgcodec"].Encoder


def stream(data):
    made = CodeStream(0)
    made.write(data)
    return made


def flip_a_packet_bit(data):
    return data[:200] + bytes([data[200] ^ 4]) + data[201:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: None, "it encodes nothing"),
        (lambda data: stream(b"\0\0\0\x0cjP  \r\n\x87\n" + data), "JP2"),
        (lambda data: stream(data[:-2]), "cut off"),
        (lambda data: stream(data[:42] + b"\x0f" + data[43:]), "bits per sample: 16, not 12"),
        (lambda data: stream(flip_a_packet_bit(data)), "samples do not come back"),
    ],
    ids=["none", "jp2", "cut", "precision", "samples"],
)
def test_the_probes_own_bytes_are_inspected(gpu, monkeypatch, change, said):
    Misbehaving(monkeypatch, gpu, change)
    assert said in nvcodec.why_unavailable(HT)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("CUDA Runtime failure: '#35' at x.h:32"), "driver is too old"),
        (RuntimeError("CUDA Runtime failure: '#2' at x.h:32"), "busy: out of memory"),
        (RuntimeError("CUDA Runtime failure: '#46' at x.h:32"), "busy or unavailable"),
        (RuntimeError("Internal error - Could not create encoder. Code: 8"), "cannot be used"),
        (RuntimeError("Internal error - Could not create encoder. Code: 5"), "busy: out of memory"),
        (ImportError("libnvimgcodec.so.0"), "cannot be loaded"),
    ],
    ids=str,
)
def test_why_an_encoder_could_not_be_made(gpu, error, said):
    def create():
        raise error

    gpu.create = create
    assert said in nvcodec.why_unavailable(HT)
    assert len(nvcodec.why_unavailable(HT).splitlines()) == 1


def test_a_probe_that_hangs_is_a_no(gpu, monkeypatch):
    monkeypatch.setattr(probe, "_TIMEOUT_S", 0.2)
    gpu.create = lambda: gpu.hang.wait(30) and None
    assert "does not answer" in nvcodec.why_unavailable(HT)
    assert health.lost(0)


def test_standard_error_is_given_back(capfd):
    with health.silenced() as said:
        os.write(2, b"from C")
    os.write(2, b"after")
    assert said.text == "from C"
    assert capfd.readouterr().err == "after"


COUNT = "from gpuenc.cuda import probe; print(probe.device_count(), probe.device_count())"


@pytest.mark.parametrize(
    ("environment", "said"),
    [({"FAKE_COUNT": "3"}, "3 3"), ({"FAKE_INIT": "100"}, "0 0"), ({"FAKE_COUNT": "0"}, "0 0"), ({}, "1 1")],
    ids=str,
)
def test_gpus_are_counted_by_the_driver(libcuda, environment, said):
    environment = environment | ({"FAKE_COUNT": "0"} if "FAKE_INIT" in environment else {})
    assert ask(COUNT, libcuda, **environment) == said


def test_each_gpu_is_asked_for_itself(libcuda):
    code = f"""
    from gpuenc.cuda import nvcodec, probe
    plain = probe._initialise
    probe._initialise = lambda device: "it is broken" if device == 0 else plain(device)
    print([nvcodec.why_unavailable("{HT}", device) for device in range(3)], nvcodec.is_available("{HT}"))
    """
    said = ask(FAKE + textwrap.dedent(code), libcuda, FAKE_COUNT="2")
    assert said == "['it is broken', '', 'There is no GPU 2: 2 visible'] True"


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_of_a_process_that_used_cuda_counts_none(libcuda):
    code = FORK.format(before=f"assert nvcodec.is_available('{HT}')")
    code = code.replace(f'nvcodec.why_unavailable("{HT}")', "str(nvcodec.device_count())")
    assert ask(FAKE + code, libcuda) == "0"


@pytest.fixture
def cupy(gpu, monkeypatch):
    """CuPy, as far as the probe of kernels sees it: kernels run under the shim."""
    from tests.simt.shim import SimtDevice

    class Device(SimtDevice):
        def __init__(self, index):
            asked.append(index)
            super().__init__()

        def current(self):
            return nullcontext()

    asked = []
    monkeypatch.setattr(probe, "CupyDevice", Device)
    monkeypatch.setattr(probe, "_is_installed", lambda module: module == "cupy")
    monkeypatch.setattr(probe, "_version", lambda name: "14.0.1" if name == "cupy-cuda13x" else "")
    return asked


def test_kernels_need_no_nvimagecodec(cupy):
    answer = probe.kernels(0)
    assert (answer.reason, answer.detail) == ("", "driver for CUDA 13.0, cupy-cuda13x 14.0.1")
    assert "nvImageCodec is not installed" in probe.probe(0).reason


def test_kernels_are_asked_once_for_each_device_and_check(cupy):
    checked = []
    for _ in range(2):
        assert probe.kernels(0).usable
        assert probe.kernels(0, "rle", lambda device: checked.append(device) or "").usable
        assert probe.kernels(1, "bad", lambda device: "it encodes nothing").reason == (
            "Our kernels do not work on GPU 1: it encodes nothing"
        )
    assert cupy == [0, 0, 1]
    assert len(checked) == 1


def test_kernels_that_compute_wrongly_are_not_used(cupy, monkeypatch):
    from gpuenc.cuda import jobs, samples

    plain = jobs.cells_of
    monkeypatch.setattr(jobs, "cells_of", lambda fmt, wanted: replace(plain(fmt, wanted), flags=0))
    assert samples.jobs is jobs
    assert probe.kernels(0).reason == "Our kernels do not work on GPU 0: samples are prepared wrongly"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("libnvrtc.so.13"), "CuPy cannot be loaded: ImportError: libnvrtc.so.13"),
        (RuntimeError("nvrtc: error: invalid value\nfor --gpu-architecture"), "GPU 0 cannot be used: RuntimeError"),
        (MemoryError(), "GPU 0 is busy: out of memory"),
    ],
    ids=str,
)
def test_why_kernels_cannot_run(cupy, monkeypatch, error, said):
    def device(index):
        raise error

    monkeypatch.setattr(probe, "CupyDevice", device)
    assert said in probe.kernels(0).reason
    assert len(probe.kernels(0).reason.splitlines()) == 1


def test_without_cupy_the_reason_names_the_extra(gpu, monkeypatch):
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    assert probe.kernels().reason == "CuPy is not installed: pip install 'gpuenc[cuda13]'"
    monkeypatch.setattr(probe, "_driver_version", lambda: 0)
    assert "No NVIDIA driver" in probe.kernels(1).reason
