"""Frames a second out of files: one at random, and all in an epoch; gpuenc, pydicom, PNG and NumPy's own format.

python -m benchmarks.loading [--frames N] [--files N] [--workers N] [--rounds N] [--out DIR]

Pictures are `gpuenc.bench.phantoms`' CT slices, 512 × 512 of 12 bits: one object of many frames for random access, and
as many files of one frame for the epoch. Every contender's frames are compared with the originals before anything is
timed. Contenders take turns; figures are medians of rounds. An epoch is read by the same number of worker processes for
each, which touch every frame and send nothing back. Files lie in the page cache: the disk is not measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

import gpuenc
from gpuenc.bench import document, phantoms
from gpuenc.bench.measure import NOISY, figure, ratio

FORMAT = "gpuenc-loading/1"
SIDE, BITS, UNIQUE, BATCH = 512, 12, 24, 32
J2K, HTJ2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
CT = "1.2.840.10008.5.1.4.1.1.2"
COMPARED = {"times_pydicom_j2k": "pydicom on JPEG 2000", "times_pydicom_same": "pydicom on the same"}
Read = Callable[[Sequence[int]], "list[np.ndarray] | Any"]


@dataclass(frozen=True)
class Contender:
    """Who reads frames of one folder by their numbers; `most` is how many of them it is asked for, being slow."""

    name: str
    format: str
    open: Callable[[], Read]
    most: int = 1 << 30


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000, help="of the object for random access")
    parser.add_argument("--files", type=int, default=400, help="of the epoch")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuenc-loading-") as name:
        results = run(Path(name), args.frames, args.files, args.workers, args.rounds)
    print(said(results))
    print(document.write(results, args.out, "-loading"))


def run(folder: Path, frames: int, files: int, workers: int, rounds: int) -> dict[str, Any]:
    """Write what is read into a folder and measure; return the results as they are written."""
    settings = {"frames": frames, "files": files, "workers": workers, "rounds": rounds, "side": SIDE, "bits": BITS}
    results: dict[str, Any] = {**document.heading(FORMAT), "settings": settings}
    pictures = phantoms.ct(min(UNIQUE, frames), SIDE)
    make(folder, pictures, frames, files)
    results["random"] = measured(objects(folder), partial(at_random, frames=frames), pictures, rounds)
    results["epoch"] = measured(series(folder), partial(in_workers, workers, files), pictures, rounds)
    results["index"] = indexing(folder)
    rows = results["random"] + results["epoch"]
    noisy = sum(row["frames_s"]["noisy"] for row in rows)
    results["noise"] = {"figures": len(rows), "noisy_figures": noisy, "limit": NOISY, "noisy": noisy > 0}
    return results


def said(results: dict[str, Any]) -> str:
    """Return the results as lines of text."""
    lines = []
    for part in ("random", "epoch"):
        for row in results[part]:
            more = "".join(
                f"; {row[key]['median']:.1f} ({row[key]['low']:.1f}–{row[key]['high']:.1f}) × {what}"
                for key, what in COMPARED.items()
                if key in row
            )
            rate = row["frames_s"]
            lines.append(
                f"{part:7}{row['reader']:40}{row['format']:8}{rate['median']:9.1f}/s ±{rate['spread']:.0%}{more}"
            )
    return "\n".join(lines)


def make(folder: Path, pictures: np.ndarray, frames: int, files: int) -> None:
    """Write everything that is read: objects of `frames`, and `files` of one frame in five formats."""
    coded = {
        J2K: [
            imagecodecs.jpeg2k_encode(one, level=0, codecformat="j2k", reversible=True, bitspersample=BITS)
            for one in pictures
        ],
        HTJ2K: [imagecodecs.htj2k_encode(one, reversible=True, bitspersample=BITS) for one in pictures],
        ExplicitVRLittleEndian: [one.tobytes() for one in pictures],
    }
    pngs = [imagecodecs.png_encode(one) for one in pictures]
    for name, uid in (("j2k", J2K), ("htj2k", HTJ2K), ("native", ExplicitVRLittleEndian)):
        write(folder / f"{name}.dcm", uid, [coded[uid][n % len(pictures)] for n in range(frames)])
        (folder / name).mkdir()
        for number in range(files):
            write(folder / name / f"{number:06}.dcm", uid, [coded[uid][number % len(pictures)]])
    for name in ("png", "npy"):
        (folder / name).mkdir()
    for number in range(max(frames, files)):
        (folder / "png" / f"{number:06}.png").write_bytes(pngs[number % len(pictures)])
        np.save(folder / "npy" / f"{number:06}.npy", pictures[number % len(pictures)])


def write(path: Path, uid: str, frames: Sequence[bytes]) -> None:
    """Write one object with pydicom, with a Basic Offset Table."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(uid)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CT, generate_uid(None, [path.name, uid]), "CT"
    ds.Rows = ds.Columns = SIDE
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.NumberOfFrames = 16, BITS, BITS - 1, len(frames)
    native = uid == ExplicitVRLittleEndian
    ds.PixelData = b"".join(frames) if native else encapsulate(list(frames), has_bot=True)
    ds["PixelData"].VR = "OW" if native else "OB"
    ds.save_as(path, enforce_file_format=True)


def objects(folder: Path) -> list[Contender]:
    """Return who reads frames of the object of many frames."""
    found = []
    for name in ("htj2k", "j2k", "native"):
        path = folder / f"{name}.dcm"
        found.append(Contender("gpuenc, batches of 32", name, partial(by_gpuenc, path, BATCH)))
        found.append(Contender("gpuenc, one by one", name, partial(by_gpuenc, path, 1)))
    for name in ("j2k", "native"):
        path = folder / f"{name}.dcm"
        found.append(Contender("pydicom pixel_array(path, index=n)", name, partial(by_index, path)))
        found.append(Contender("pydicom dcmread(path).pixel_array[n]", name, partial(by_attribute, path), 1))
    return [*found, files_of(folder, "png"), files_of(folder, "npy")]


def series(folder: Path) -> list[Contender]:
    """Return who reads files of one frame."""
    found = [
        Contender("gpuenc", name, partial(by_gpuenc, folder / name, BATCH, 1)) for name in ("htj2k", "j2k", "native")
    ]
    found += [
        Contender("pydicom dcmread(path).pixel_array", name, partial(by_files, folder / name, "*.dcm", pydicom_image))
        for name in ("j2k", "native")
    ]
    return [*found, files_of(folder, "png"), files_of(folder, "npy")]


def by_gpuenc(path: Path, batch: int, threads: int | None = None) -> Read:
    dataset = gpuenc.FrameDataset(path, threads=threads)

    def read(numbers: Sequence[int]) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for start in range(0, len(numbers), batch):
            found += [one["image"] for one in dataset.__getitems__(numbers[start : start + batch])]
        return found

    return read


def by_index(path: Path) -> Read:
    return lambda numbers: [pixel_array(path, index=number) for number in numbers]


def by_attribute(path: Path) -> Read:
    return lambda numbers: [dcmread(path).pixel_array[number] for number in numbers]


def files_of(folder: Path, kind: str) -> Contender:
    one = np.load if kind == "npy" else png
    return Contender("imagecodecs.png_decode" if kind == "png" else "np.load", kind,
                     partial(by_files, folder / kind, f"*.{kind}", one))  # fmt: skip


def by_files(folder: Path, pattern: str, one: Callable[[Path], np.ndarray]) -> Read:
    paths = sorted(folder.glob(pattern))
    return lambda numbers: [one(paths[number]) for number in numbers]


def png(path: Path) -> np.ndarray:
    return imagecodecs.png_decode(path.read_bytes())


def pydicom_image(path: Path) -> np.ndarray:
    return dcmread(path).pixel_array


def at_random(contender: Contender, seed: int, frames: int) -> dict[str, float]:
    """Return frames a second of one process, and what each costs its processors."""
    read = contender.open()
    numbers = np.random.default_rng(seed).permutation(frames)[: min(contender.most, 128)].tolist()
    if contender.most > 1:
        read(numbers[:4])  # open what stays open
    began, used = time.perf_counter(), time.process_time()
    read(numbers)
    seconds = time.perf_counter() - began
    return {"frames_s": len(numbers) / seconds, "cpu_ms": (time.process_time() - used) / len(numbers) * 1e3}


def in_workers(workers: int, files: int, contender: Contender, seed: int) -> dict[str, float]:
    """Return frames a second of an epoch in shuffled order; workers are there before it begins."""
    order = np.random.default_rng(seed).permutation(files).tolist()
    batches = [order[start : start + BATCH] for start in range(0, files, BATCH)]
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(workers + 1)
    with context.Pool(workers, prepare, (contender, ready)) as pool:
        ready.wait(120)
        began = time.perf_counter()
        used = sum(pool.imap_unordered(touch, batches, chunksize=1))
        seconds = time.perf_counter() - began
    return {"frames_s": files / seconds, "cpu_ms": used / files * 1e3}


_read: Read | None = None


def prepare(contender: Contender, ready: Any) -> None:
    global _read
    _read = contender.open()
    _read([0])
    ready.wait(120)


def touch(numbers: Sequence[int]) -> float:
    used = time.process_time()
    assert _read is not None
    for image in _read(numbers):
        image[0, 0].item()
    return time.process_time() - used


def measured(
    contenders: Sequence[Contender],
    work: Callable[[Contender, int], dict[str, float]],
    pictures: np.ndarray,
    rounds: int,
) -> list[dict[str, Any]]:
    """Return a row for each contender, whose frames were found right, after rounds in turn."""
    taken: dict[int, list[dict[str, float]]] = {place: [] for place in range(len(contenders))}
    for contender in contenders:
        for number in (0, len(pictures) - 1):
            image = contender.open()([number])[0]
            if not np.array_equal(image, pictures[number]):
                raise RuntimeError(f"{contender.name} of {contender.format}: frame {number} is not the picture")
    for turn in range(rounds):
        for place, contender in enumerate(contenders):
            taken[place].append(work(contender, turn))
            print(f"{contender.name}, {contender.format}: {taken[place][-1]['frames_s']:.1f}/s", file=sys.stderr)
    rates = [[one["frames_s"] for one in rounds] for rounds in taken.values()]
    rows = []
    for place, contender in enumerate(contenders):
        row = {
            "reader": contender.name, "format": contender.format, "status": "measured",
            "frames_s": figure(rates[place]).as_json(),
            "cpu_ms": figure([one["cpu_ms"] for one in taken[place]]).as_json(),
        }  # fmt: skip
        for other, peer in enumerate(contenders):
            if contender.name.startswith("gpuenc") and peer.name.startswith("pydicom") and peer.most > 1:
                found = ratio(rates[place], rates[other]).as_json()
                row |= {"times_pydicom_j2k": found} if peer.format == "j2k" else {}
                row |= {"times_pydicom_same": found} if peer.format == contender.format else {}
        rows.append(row)
    return rows


def indexing(folder: Path) -> dict[str, float]:
    """Return files and frames a second of building an index, and what opening it takes."""
    found: dict[str, float] = {}
    for name, sources in (("files", folder / "htj2k"), ("object", folder / "htj2k.dcm")):
        index = folder / f"{name}.index"
        began = time.perf_counter()
        with gpuenc.FrameDataset(sources, index=index) as dataset:
            found[f"{name}_built_frames_s"] = round(len(dataset) / (time.perf_counter() - began), 1)
        began = time.perf_counter()
        gpuenc.FrameDataset(sources, index=index).close()
        found[f"{name}_opened_ms"] = round((time.perf_counter() - began) * 1e3, 2)
    return found


if __name__ == "__main__":
    if shutil.disk_usage(tempfile.gettempdir()).free < 4 << 30:
        print("this needs 4 GB of temporary space", file=sys.stderr)
    main()
