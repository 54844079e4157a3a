"""The GPU's benchmark without a GPU: kernels under the shim, a clock that counts, plug-ins in the engine's place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu, kernels
from gpuenc.cpu import codecs
from gpuenc.plugins import Plugin

ROOT = Path(__file__).resolve().parents[2]
SIDE, FRAMES = 64, 2
BATCHES = dict(kernels.batches())


class CountingDevice:
    """The shim's device, which notes the bytes that each launch moved and how many threads it had."""

    def __init__(self):
        from tests.simt.shim import SimtDevice

        self.device, self.log = SimtDevice(), []

    def __getattr__(self, name):
        return getattr(self.device, name)

    def launch(self, source, kernel, *rest):
        self.device.launch(source, kernel, *rest)
        done = self.device.done
        self.log.append((kernel, done.read_bytes + done.written_bytes, done.threads))


class Clock:
    """Every launch takes a millisecond; of a device whose memory is the host's, nothing has to be flushed."""

    def __init__(self):
        self.launches = 0

    def seconds(self, queued, *, flush=True):
        queued()
        self.launches += 1
        return 1e-3


def global_kernels():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "kernels").glob("*.cu"))
    made = re.findall(r"KERNEL\w*\((\w+)", text) + re.findall(
        r"__global__\s+void\s+(?:__\w+__\([^)]*\)\s*)?(\w+)", text
    )
    return set(made)


def test_every_kernel_of_the_contract_is_in_a_batch():
    table = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    contract = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(contract) > 50
    seen = set(kernels.WITHOUT_BYTES)
    for name, make in BATCHES.items():
        device = CountingDevice()
        seen |= {launch.kernel for launch in make(device, 96 if "htj2k" in name else SIDE, 1).launches}
    # Of one decomposition the next is never asked for at this size; its bytes are compared below.
    assert contract - seen <= {"dwt53_next"}


@pytest.mark.parametrize("name", [name for name in BATCHES if " " in name])
def test_no_launch_moves_less_than_is_said(name):
    device = CountingDevice()
    batch = BATCHES[name](device, 160, 1)
    counted = device.log[-len(batch.launches) :]
    assert len(batch.moved_bytes) == len(counted)
    for launch, moved, (kernel, bytes_, threads) in zip(batch.launches, batch.moved_bytes, counted, strict=True):
        assert launch.kernel == kernel
        if kernel.startswith("dwt53"):
            # 1.07 is of columns of 64 rows; the halves of a picture of 160 rows have fewer.
            assert bytes_ > 0.9 * moved
        else:
            assert bytes_ >= moved, kernel
        # Tables, jobs and what lies beside a piece come on top, with each thread.
        assert bytes_ <= 1.35 * moved + 260 * threads, kernel
    assert all(codestream for codestream in batch.codestreams)


def test_rows_follow_from_bytes_and_times(monkeypatch):
    chosen = {name: BATCHES[name] for name in ("prepare_16_16", "rle 12 bits")}
    monkeypatch.setattr(kernels, "batches", lambda: iter(chosen.items()))
    from tests.simt.shim import SimtDevice

    clock = Clock()
    rows = gpu.of_kernels(SimtDevice(), clock, 0.5, side=SIDE, frames=FRAMES, launches=5)
    by = {(row["batch"], row.get("kernel")): row for row in rows}
    prepared = by["prepare_16_16", "prepare_16_16"]
    moved = FRAMES * SIDE * SIDE * (2 + 2)
    assert prepared["moved_bytes"] == moved
    assert prepared["gb_s"]["median"] == pytest.approx(moved / 1e-3 / 1e9)
    assert prepared["share_of_copy"] == pytest.approx(moved / 1e-3 / 1e9 / 0.5)
    assert prepared["us"]["rounds"] == 5
    whole = by["rle 12 bits", "all launches"]
    assert whole["gb_s"]["median"] == pytest.approx(FRAMES * SIDE * SIDE * 2 / 4e-3 / 1e9)  # four launches
    assert by["crc32_tables", "crc32_tables"]["status"] == "absent"
    assert clock.launches == (5 + 1) * (1 + 4)


def test_wrong_output_voids_its_rows_only(monkeypatch):
    from dataclasses import replace

    from tests.simt.shim import SimtDevice

    def wrong(*of):
        made = BATCHES["rle 12 bits"](*of)
        return replace(made, codestreams=(made.codestreams[1], *made.codestreams[1:]))

    chosen = {"rle 12 bits": wrong, "prepare_8_8": BATCHES["prepare_8_8"]}
    monkeypatch.setattr(kernels, "batches", lambda: iter(chosen.items()))

    def check(name, device):
        gpu.equals_its_twin(name, device)

    rows = gpu.of_kernels(SimtDevice(), Clock(), 1.0, side=SIDE, frames=FRAMES, launches=2, check=check)
    assert [row["status"] for row in rows] == ["void", "measured", "absent"]
    assert "do not come back" in rows[0]["why"]

    def differs(name, device):
        raise AssertionError("differs from its twin")

    rows = gpu.of_kernels(SimtDevice(), Clock(), 1.0, side=SIDE, frames=FRAMES, launches=2, check=differs)
    assert {row["status"] for row in rows} == {"void", "absent"}


def test_nothing_is_begun_without_time():
    rows = gpu.of_kernels(None, Clock(), 1.0, until_s=0.0)
    assert {row["why"] for row in rows} == {"no time was left", *kernels.WITHOUT_BYTES.values()}


def test_the_engine_is_compared_with_the_lesser_of_codec_and_bus(monkeypatch):
    """On the CPU: the bare codec in nvImageCodec's place, imagecodecs' plug-in in the GPU's."""
    from benchmarks import bare

    cpu = Plugin("nvimgcodec", codecs.BatchEncoder, "gpu")
    monkeypatch.setattr(gpu, "why_no_gpu_tools", lambda: "")
    monkeypatch.setattr(gpu, "candidates", lambda *_: [("nvimgcodec", cpu)])
    monkeypatch.setattr(gpu, "ENGINE", ((64, 6),))
    monkeypatch.setattr(bare, "on_gpu", bare.on_cores)
    monkeypatch.setattr(gpu, "import_module", lambda name: type("Cupy", (), {"asarray": staticmethod(np.asarray)}))
    [slow] = gpu.of_engine(1e-9, 5)
    assert slow["status"] == "measured"
    assert slow["host_share"]["median"] == pytest.approx(slow["host_gb_s"]["median"] / 1e-9)
    [fast] = gpu.of_engine(1e9, 5)
    assert 0 < fast["host_share"]["median"] < 100
    assert fast["device_share"]["rounds"] == 5
    [late] = gpu.of_engine(1.0, 5, until_s=0.0)
    assert late["why"] == "no time was left"


def test_without_a_gpu_it_says_so_and_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["gpu", "--out", str(tmp_path)])
    monkeypatch.setattr(gpu, "why_no_gpu_tools", lambda: "no NVIDIA GPU on this machine")
    with pytest.raises(SystemExit, match="no NVIDIA GPU"):
        gpu.main()
    assert list(tmp_path.iterdir()) == []
    [row] = gpu.of_engine(1.0, 5)
    assert row["status"] == "absent"
