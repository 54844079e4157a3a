"""The encoder's speed against the bare codec, and `transcode` against pydicom's loop, as ratios within one run.

Every figure is the median of interleaved rounds (A B A B …) with its spread, on frames that were verified once.

    python benchmarks/speed.py [--rounds N] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, generate_uid

import gpuenc
from gpuenc.archive.job import run
from gpuenc.archive.report import Record, Summary
from gpuenc.archive.request import Job
from gpuenc.archive.watcher import Watcher
from gpuenc.cpu import rle
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import find
from gpuenc.targets import target

THREADS = 2


def ct_frames(count: int = 64, side: int = 512) -> np.ndarray:
    """Return CT-like frames: a real slice, enlarged, moved, and with seeded noise of a few units, int16."""
    ds = dcmread(get_testdata_file("CT_small.dcm", download=False))
    real = ds.pixel_array.astype(np.float32)
    steps = np.linspace(0, real.shape[0] - 1.001, side)
    low, part = steps.astype(int), (steps % 1).astype(np.float32)
    rows = real[low] * (1 - part)[:, None] + real[low + 1] * part[:, None]
    image = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    rng = np.random.default_rng(7)
    frames = np.empty((count, side, side), np.int16)
    for index in range(count):
        frames[index] = np.roll(image, 3 * index, axis=1) + rng.normal(0, 8, image.shape)
    return frames


BARE: dict[str, Callable[[np.ndarray], bytes]] = {
    "htj2k-lossless": lambda a: imagecodecs.htj2k_encode(a, reversible=True, bitspersample=16, resolutions=5),
    "jpeg-lossless-sv1": lambda a: imagecodecs.jpeg8_encode(
        a.view(np.uint16), lossless=True, predictor=1, bitspersample=16
    ),
    "jpeg-ls-lossless": lambda a: imagecodecs.jpegls_encode(a.view(np.uint16), bitspersample=16, spiff=False),
    "rle": lambda a: rle.encode(a),
}


def interleaved(rounds: int, *jobs: Callable[[], object]) -> list[list[float]]:
    """Return the seconds of each round of each job, after one round of warm-up."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for number in range(rounds + 1):
        for place, job in enumerate(jobs):
            begun = time.perf_counter()
            job()
            if number:
                seconds[place].append(time.perf_counter() - begun)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Return how many times faster `fast` is, over pairs of rounds that ran side by side."""
    pairs = sorted(a / b for a, b in zip(slow, fast, strict=True))
    return {"median": statistics.median(pairs), "min": pairs[0], "max": pairs[-1]}


def encoder_against_codec(rounds: int) -> dict[str, object]:
    """`iter_encode` with two threads, as a share of the bare codec called from two threads."""
    frames = ct_frames()
    megabytes = frames.nbytes / 1e6
    rows = {}
    for name, bare in BARE.items():
        encoder = gpuenc.get_encoder(name)
        sizes = [len(c) for c in encoder.iter_encode(frames, threads=THREADS, verify="all")]

        def codec(bare: Callable[[np.ndarray], bytes] = bare) -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(bare, frames))

        def ours(encoder: gpuenc.Encoder = encoder) -> None:
            for _ in encoder.iter_encode(frames, threads=THREADS):
                pass

        seconds = interleaved(rounds, codec, ours)
        share = ratio(seconds[0], seconds[1])
        rows[name] = {
            "bare_mb_s": megabytes / statistics.median(seconds[0]),
            "iter_encode_mb_s": megabytes / statistics.median(seconds[1]),
            "share_of_bare": share,
            "compression_ratio": frames.nbytes / sum(sizes),
        }
        print(f"{name:20} {rows[name]['iter_encode_mb_s']:7.0f} MB/s = {share['median']:.3f} of the bare codec")
    return rows


def ct_series(folder: Path, count: int = 200) -> None:
    """Write a series of `count` files of 512×512×16 bit."""
    template = dcmread(get_testdata_file("CT_small.dcm", download=False))
    template.Rows = template.Columns = 512
    for number, frame in enumerate(ct_frames(count)):
        template.PixelData = frame.tobytes()
        template.InstanceNumber = number + 1
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid(None, [str(number)])
        template.save_as(folder / f"{number:04}.dcm")


def pydicom_loop(source: Path, out: Path) -> None:
    """What people write today: dcmread, compress, save_as."""
    for path in sorted(source.iterdir()):
        ds = dcmread(path)
        ds.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
        ds.save_as(out / path.name)


def transcode(source: Path, out: Path, *options: str) -> None:
    """Run the command, in a process of its own, as a user does."""
    command = [sys.executable, "-m", "gpuenc", "transcode", str(source), "-o", str(out), "--to", "htj2k-lossless"]
    subprocess.run([*command, "--overwrite", *options], check=True, stdout=subprocess.DEVNULL)


class _Silent(Watcher):
    """Watches a job and says nothing; a file that was not encoded voids the figure."""

    def start(self, files: int, bytes_total: int) -> None:
        """Nothing is shown."""

    def done(self, record: Record) -> None:
        if record.status != "encoded":
            raise RuntimeError(f"{record.source}: {record.status} {record.reason}")

    def finish(self, summary: Summary) -> None:
        """Nothing is shown."""


def transcode_job(source: Path, out: Path, *, verify: bool) -> None:
    """Run what the command runs, in this process: no start of an interpreter, no imports."""
    target_ = target(find("htj2k-lossless"))
    run(Job((source,), out, target_, jobs=usable_cores() + 2, verify=verify, overwrite=True), _Silent())


def transcode_against_pydicom(rounds: int) -> dict[str, object]:
    """`gpuenc transcode` against pydicom's loop: the job alone, and the command with the start of its process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("in", "pydicom", "gpuenc"):
            (folder / part).mkdir()
        source, out = folder / "in", folder / "gpuenc"
        ct_series(source)
        jobs: dict[str, Callable[[], None]] = {
            "pydicom_j2k": lambda: pydicom_loop(source, folder / "pydicom"),
            "job_verified": lambda: transcode_job(source, out, verify="all"),
            "job_unverified": lambda: transcode_job(source, out, verify="none"),
            "command_verified": lambda: transcode(source, out),
            "command_unverified": lambda: transcode(source, out, "--verify", "none"),
        }
        seconds = dict(zip(jobs, interleaved(rounds, *jobs.values()), strict=True))
    result: dict[str, object] = {"files": 200}
    for label, times in seconds.items():
        rate = 200 / statistics.median(times)
        over = ratio(seconds["pydicom_j2k"], times)
        result[label] = {"files_s": rate, "over_pydicom": over}
        print(f"{label:20} {rate:6.1f} files/s = {over['median']:.1f} × ({over['min']:.1f} to {over['max']:.1f})")
    return result


def import_seconds(rounds: int) -> dict[str, float]:
    """Wall time of ``import gpuenc`` and of reaching an encoder, less that of an empty interpreter."""
    programs = {
        "nothing": "pass",
        "import_gpuenc": "import gpuenc",
        "get_encoder": "import gpuenc; gpuenc.get_encoder('htj2k-lossless')",
        "import_pydicom_encoders": "import pydicom.pixels.encoders.base",
    }
    jobs = [lambda code=code: subprocess.run([sys.executable, "-c", code], check=True) for code in programs.values()]
    seconds = [statistics.median(times) for times in interleaved(rounds, *jobs)]
    result = {name: value - seconds[0] for name, value in zip(programs, seconds, strict=True)}
    print({name: round(value, 3) for name, value in result.items()})
    return result


def main() -> None:
    """Run everything and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = {
        "machine": {"cpu": platform.processor() or platform.machine(), "usable_cores": len(os.sched_getaffinity(0))},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("gpuenc", "pydicom", "numpy", "imagecodecs", "pylibjpeg-openjpeg")},
        },
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "rounds": args.rounds,
        "threads": THREADS,
        "import_s": import_seconds(args.rounds),
        "iter_encode": encoder_against_codec(args.rounds),
        "transcode": transcode_against_pydicom(args.rounds),
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
