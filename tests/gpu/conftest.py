"""The GPU, or a rehearsal of it.

GPUENC_REQUIRE_CUDA=1     no GPU is a failure and not a skip
GPUENC_GPU_REHEARSAL=1    the tests themselves are tested: nvImageCodec is the fake of tests/cuda, kernels run under the
                          shim, fewer frames, and no result is written
GPUENC_GPU_DISCARD=1      no result is written: for what runs these tests under another tool
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gpuenc.cuda import memory, probe
from gpuenc.cuda.kernels import CupyDevice
from gpuenc.frames import Frame, FrameFormat, FrameRef
from tests.gpu import evidence as evidence_

ROOT = Path(__file__).resolve().parents[2]
REHEARSAL = os.environ.get("GPUENC_GPU_REHEARSAL", "")
DISCARD = os.environ.get("GPUENC_GPU_DISCARD") == "1"
REQUIRED = os.environ.get("GPUENC_REQUIRE_CUDA") == "1"


@dataclass(frozen=True)
class Gpu:
    """What the tests run on."""

    name: str
    driver: str
    rehearsal: bool

    def count(self, frames: int, rehearsed: int) -> int:
        """Return how many frames to take."""
        return rehearsed if self.rehearsal else frames


@pytest.fixture(scope="session", autouse=True)
def gpu():
    if REHEARSAL:
        with pytest.MonkeyPatch.context() as patch:
            rehearse(patch)
            yield Gpu("rehearsal", "none", True)
        return
    answer = probe.probe(0, "jpeg2k")
    if not answer.usable:
        (pytest.fail if REQUIRED else pytest.skip)(answer.reason)
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    name, driver = (part.strip() for part in said.split(","))
    yield Gpu(name, driver, False)


def rehearse(patch):
    """Put the fake device in the GPU's place."""
    from tests.cuda import fake_nvimgcodec as fake
    from tests.cuda.conftest import pretend

    script = fake.Script()
    if REHEARSAL != "1":  # the name of a fault: some test has to notice it
        script.fault = lambda number: REHEARSAL
    pretend(patch, script)
    patch.setattr(memory, "open_workspace", lambda device: None)  # the shim has room for one lane only


@pytest.fixture(scope="session")
def evidence(gpu):
    found = evidence_.Evidence()
    yield found
    if not gpu.rehearsal and not DISCARD:
        evidence_.write(found.finished(evidence_.machine(gpu.name, gpu.driver)))
        evidence_.PAGE.write_text(evidence_.page(), encoding="utf-8")


@pytest.fixture(scope="session")
def cupy(gpu):
    """CuPy itself; a rehearsal has none."""
    if gpu.rehearsal:
        pytest.skip("a rehearsal has no CuPy")
    return __import__("cupy")


@pytest.fixture
def kernels(gpu):
    """A device with `put`, as the kernels' comparisons use it."""
    if gpu.rehearsal:
        from tests.simt.shim import SimtDevice

        return SimtDevice()
    return GpuDevice(0)


class GpuDevice(CupyDevice):
    """A GPU on which arrays may begin at odd addresses, and launches can be done again."""

    def __init__(self, index):
        super().__init__(index)
        self.launches = []

    def launch(self, source, kernel, grid, block, arguments):
        self.launches.append((source, kernel, grid, block, arguments))
        super().launch(source, kernel, grid, block, arguments)

    def again(self, run):
        """Return what does nothing but the launches of `run()`, whose jobs are made here, once."""
        self.launches.clear()
        kept = run(), list(self.launches)  # results are written again, to the same place

        def launches():
            for source, kernel, grid, block, arguments in kept[1]:
                super(GpuDevice, self).launch(source, kernel, grid, block, arguments)

        return launches

    def put(self, values, misalign=0):
        size = max(1, values.nbytes)
        room = self.empty((size + misalign + 16,), "u1")
        room[misalign : misalign + values.nbytes].set(np.ascontiguousarray(values).reshape(-1).view("u1"))
        address = int(room.data.ptr) + misalign
        return memory.View(address, values.shape, values.dtype.str, 0, room)


def in_a_process(code, *, timeout_s=120, **environment):
    """Run `code` in a process of its own and return it."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=timeout_s, check=False,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )  # fmt: skip


CONTENTS = ("noise", "smooth", "lowest", "highest")


def made_frame(fmt: FrameFormat, index: int, content: str = "noise", seed: int = 0) -> Frame:
    """Return a frame of `fmt`, little-endian cells of 8 bits or more, High Bit = Bits Stored - 1."""
    rng = np.random.default_rng([seed, index])
    low = -(1 << fmt.bits_stored - 1) if fmt.signed else 0
    high = low + (1 << fmt.bits_stored) - 1
    count = fmt.rows * fmt.columns * (2 if fmt.subsampled else fmt.samples)
    if content == "noise":
        values = rng.integers(low, high + 1, count)
    elif content == "smooth":
        x = np.arange(count)
        wave = 0.5 + 0.3 * np.sin(x / 61 + index) + 0.1 * np.cos(x / max(1, fmt.columns) / 17)
        values = np.clip(low + wave * (high - low) + rng.normal(0, 1 + (high - low) * 0.002, count), low, high)
    else:
        values = np.full(count, low if content == "lowest" else high)
    kind = f"<{'i' if fmt.signed else 'u'}{fmt.bits_allocated // 8}"
    return Frame(FrameRef("gpu", index), fmt, values.astype(kind).view(np.uint8))
