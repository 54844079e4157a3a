"""The claims that only a GPU can show, what was found, and benchmarks/gpu-evidence.md made of both.

python -m tests.gpu.evidence        writes benchmarks/gpu-evidence.md from benchmarks/results/*-gputest.json
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "gpu-evidence.md"
OPEN = "**not measured yet**"
NO_TEST = "no test yet"

HEAD = """# What only a GPU can show

Each row is a claim, or a question, that no machine without a GPU can settle. The figures come from `make gpu-test`,
which writes `benchmarks/results/<date>-<device>-gputest.json` and this page; nothing here is typed. README claims
nothing whose row is open.

| Claim or question | Found | On | Shown by |
|---|---|---|---|
"""

_CODESTREAMS, _LANES, _SPEED, _KERNELS, _HTJ2K, _ENCODERS, _DATASET = (
    f"tests/gpu/test_{name}.py" for name in ("codestreams", "lanes", "speed", "kernels", "htj2k", "encoders", "dataset")
)

# Claim → where it is shown.
ROWS: dict[str, tuple[str, str]] = {
    "exact": ("Lossless J2K and HTJ2K of every format come back exactly, by OpenJPH and OpenJPEG", _CODESTREAMS),
    "exact-12": ("A precision below 16 in 16-bit cells comes back exactly, HT and not HT", _CODESTREAMS),
    "exact-noise": ("Noise of 8 to 16 bits comes back exactly, which old versions got wrong", _CODESTREAMS),
    "exact-signed": ("Signed samples of 9 to 16 bits come back exactly, with the sign in SIZ", _CODESTREAMS),
    "exact-rct": ("RGB with mct_mode=1 is exact by OpenJPH and OpenJPEG", _CODESTREAMS),
    "exact-sizes": ("Images of 1 x 1 to 2048 x 2500 come back exactly", _CODESTREAMS),
    "siz": ("SIZ says Bits Stored and the sign, COD the levels asked for, MCT and RPCL", _CODESTREAMS),
    "markers": ("Which markers nvJPEG2000 writes; no TLM", _CODESTREAMS),
    "low-precision": ("A precision of 1 to 7 bits in 8-bit cells", _CODESTREAMS),
    "signed-8": ("Signed samples of 8 bits as int16 with a precision of 8", _CODESTREAMS),
    "two-components": ("Two components by I_UNCHANGED", _CODESTREAMS),
    "psnr": ("What PSNR comes out where 40 and 50 dB are asked for, at 8 and 12 bits", _CODESTREAMS),
    "jpeg": ("JPEG Baseline decodes with libjpeg-turbo: 4:2:2, error at quality 90", _CODESTREAMS),
    "jpeg-markers": ("Which markers nvJPEG writes, and whether its tables are libjpeg's", _CODESTREAMS),
    "mixed": ("10,000 mixed frames with injected faults: none lost, order kept, every sample right", _LANES),
    "hang": ("Calls that did not return", _LANES),
    "probe": ("The probe: how long it takes, and that it writes nothing to standard error", _LANES),
    "fork": ("A forked child of a process that used the GPU says no, and the CPU encodes there", _LANES),
    "sticky": ("What nvImageCodec does after a sticky CUDA error, and that the device is given up", _LANES),
    "out-of-memory": ("What nvImageCodec does where device memory runs out: None, or which exception", _LANES),
    "streams": ("Arrays still being written on a caller's stream are waited for", _LANES),
    "memory": ("Device memory of one encoder by frame size and threads, and after it is closed", _SPEED),
    "rates": ("GB/s of native pixels by lanes, frame size and codec, host memory to codestreams", _SPEED),
    "against-cpu": ("The same against OpenJPH and OpenJPEG on all cores of the same machine", _SPEED),
    "busy-python": ("How much a busy Python thread slows a lane down", _SPEED),
    "processes": ("Whether several processes on one GPU are faster than lanes of one", _SPEED),
    "tiles": ("Whether many small frames as tiles of one image are faster than one by one", _SPEED),
    "verify-exact": ("Verification on the device agrees with the CPU's, finds wrong samples, gives its CRC-32", _LANES),
    "verify-rates": ("GB/s with every sample compared: by nobody, by the device, by the CPU", _SPEED),
    "arrays": ("Arrays of CuPy, by DLPack and with strides give the host's codestreams", _LANES),
    "gpus": ("Lanes on several GPUs: all are used, and results are right", _LANES),
    "kernels": ("Every kernel equals its CPU twin on this GPU", _KERNELS),
    "kernel-bandwidth": ("Preparation of samples at 80 % or more of copy bandwidth", _KERNELS),
    "own-exact": ("JPEG Lossless and RLE by our kernels: the references' bytes in 100,000 frames of each", _ENCODERS),
    "own-kernel-rates": ("GB/s of our JPEG Lossless and RLE kernels alone, all on the GPU", _ENCODERS),
    "own-rates": ("GB/s of both from host memory to codestreams, by lanes, and of the CPU on all cores", _ENCODERS),
    "kernel-rates": ("GB/s of every kernel at 128 frames of 512 x 512, launches alone", _KERNELS),
    "compare-rates": ("GB/s of crc32 and count_differing", _KERNELS),
    "launch-cost": ("What a batch of 256 small frames costs the host", _KERNELS),
    "compile": ("How long kernels take to compile at first use, and in a second process from CuPy's cache", _KERNELS),
    "sanitizer": ("compute-sanitizer (memcheck, racecheck, initcheck) finds nothing in the kernel tests", _KERNELS),
    "htj2k-kernels": ("Our HTJ2K kernels write the reference's bytes: 100,000 random frames", _HTJ2K),
    "htj2k-rates": ("GB/s of native pixels of our HTJ2K kernels: launches alone, host memory to codestreams", _HTJ2K),
    "dataset-exact": ("FrameDataset: stored values equal those of the CPU, real files and batches", _DATASET),
    "dataset-shown": ("FrameDataset: rescaling, windows, tables, inversion and size within the tolerance", _DATASET),
    "dataset-dlpack": ("FrameDataset: arrays stay on the device and are handed over by DLPack uncopied", _DATASET),
    "dataset-memory": ("FrameDataset: device memory over ten epochs, and after it is closed", _DATASET),
    "dataset-rates": ("FrameDataset: frames/s of 512 x 512, 12 bits, HTJ2K and native, and of the CPU", _DATASET),
    "driver": ("Driver and libraries with which all this ran; a driver of CUDA 13.0 under a build for 13.3", _LANES),
}  # fmt: skip


@dataclass
class Evidence:
    """What one run finds: a figure in words and its data for each row; tallies of what was right."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    tallies: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def record(self, row: str, figure: str, **data: Any) -> None:
        """Note what was found for a row."""
        if row not in ROWS:
            raise KeyError(row)
        self.rows[row] = {"figure": figure, **data}

    def tally(self, row: str, right: bool, what: str) -> None:
        """Count a case of a row, and name it if it is wrong."""
        count, wrong = self.tallies.get(row, (0, []))
        self.tallies[row] = count + 1, wrong if right else [*wrong, what]

    def finished(self, machine: dict[str, str]) -> dict[str, Any]:
        """Return all of it as it is written to a file."""
        for row, (count, wrong) in self.tallies.items():
            named = f"; wrong: {', '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''}" if wrong else ""
            self.record(row, f"{count - len(wrong)} of {count} right{named}", cases=count, wrong=wrong)
        return {"date": datetime.now(UTC).date().isoformat(), "commit": commit(), **machine, "rows": self.rows}


def commit() -> str:
    """Return the commit that is measured; a checkout without git says which in GPUENC_COMMIT."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=True
        )
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GPUENC_COMMIT", "unknown")


def machine(device: str, driver: str) -> dict[str, str]:
    """Return what a result has to say of where it comes from."""
    packages = (
        "cupy-cuda13x",
        "nvidia-nvimgcodec-cu13",
        "nvidia-nvjpeg2k-cu13",
        "nvidia-nvjpeg",
        "imagecodecs",
        "numpy",
    )
    return {
        "device": device,
        "driver": driver,
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        **{name: _version(name) for name in packages},
    }


def write(found: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write one run's results, and return where."""
    slug = re.sub(r"[^a-z0-9]+", "-", found["device"].lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found['date']}-{slug}-gputest.json"
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def page(folder: Path = RESULTS) -> str:
    """Return benchmarks/gpu-evidence.md: for each row what the newest run found."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-gputest.json"))]
    lines = []
    for row, (claim, where) in ROWS.items():
        found, on = OPEN, ""
        for run in runs:  # by date: the last one stays
            if row in run["rows"]:
                found = str(run["rows"][row]["figure"]).replace("|", "\\|").replace("\n", " ")
                on = f"{run['device']}, {run['date']}, {run['commit']}"
        shown = where if where == NO_TEST else f"`{where}`"
        lines.append(f"| {claim} | {found} | {on} | {shown} |\n")
    return HEAD + "".join(lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
