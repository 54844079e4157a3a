"""What else people compress DICOM with, on the same files to the same transfer syntax, its output checked the same way.

Each peer reads files and writes files: pydicom's `Dataset.compress` with its plug-ins, in one process as people write
it, GDCM's and DCMTK's programs, one call a file; and, as the ceiling, the bare codec on frames in memory, on all cores.
Rounds are interleaved with `gpuenc transcode`. The output is read again: transfer syntax, precision in the codestream's
own markers, and every sample. A peer that loses samples or precision keeps its figures, and its row says so.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom import dcmread

import gpuenc
from gpuenc.archive.job import run as run_job
from gpuenc.archive.request import Job
from gpuenc.archive.watcher import Watcher
from gpuenc.bench import files
from gpuenc.bench.cases import Case
from gpuenc.bench.measure import Contender, figure, interleave, ratio
from gpuenc.codestream import parse
from gpuenc.coding import coding
from gpuenc.cpu import decoders, rle, samples
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import GpuencError
from gpuenc.frames import Coded, Frame
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import BY_UID, find
from gpuenc.targets import target

SYNTAXES = ("jpeg2000-lossless", "jpeg-ls-lossless", "jpeg-lossless-sv1", "rle", "htj2k-lossless")
MOST_FRAMES = 16
# Program and options → the transfer syntax it is asked for.
PROGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    "gdcmconv (JPEG 2000)": (("gdcmconv", "--j2k"), "jpeg2000-lossless"),
    "gdcmconv (JPEG-LS)": (("gdcmconv", "--jpegls"), "jpeg-ls-lossless"),
    "gdcmconv (JPEG Lossless)": (("gdcmconv", "--jpeg"), "jpeg-lossless-sv1"),
    "gdcmconv (RLE)": (("gdcmconv", "--rle"), "rle"),
    "dcmcjpeg": (("dcmcjpeg", "+e1"), "jpeg-lossless-sv1"),
    "dcmcjpls": (("dcmcjpls", "+el"), "jpeg-ls-lossless"),
    "dcmcrle": (("dcmcrle",), "rle"),
}
PLUGINS = {"jpeg2000-lossless": ("pylibjpeg",), "jpeg-ls-lossless": ("pyjpegls",), "rle": ("pylibjpeg", "gdcm")}


@dataclass(frozen=True)
class Peer:
    """Something that compresses files, or why it is not here."""

    name: str
    work: Callable[[Sequence[Path], Path], Any] | None = None
    why: str = ""


def pydicom_loop(uid: str, plugin: str) -> Callable[[Sequence[Path], Path], None]:
    """What people write today: dcmread, compress, save_as."""

    def work(paths: Sequence[Path], out: Path) -> None:
        for path in paths:
            ds = dcmread(path)
            ds.compress(uid, encoding_plugin=plugin)
            ds.save_as(out / path.name)

    return work


def program(command: tuple[str, ...]) -> Callable[[Sequence[Path], Path], None]:
    """One call of a program for each file, as many at once as there are cores."""

    def one(path: Path, out: Path) -> None:
        done = subprocess.run([*command, str(path), str(out / path.name)], capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ends with {done.returncode}")

    def work(paths: Sequence[Path], out: Path) -> None:
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(lambda path: one(path, out), paths))

    return work


def transcode(name: str, verify: str) -> Callable[[Sequence[Path], Path], None]:
    """`gpuenc transcode`, in threads of this process."""

    def work(paths: Sequence[Path], out: Path) -> None:
        jobs = usable_cores() + 2
        run_job(Job(tuple(paths), out, target(find(name)), jobs=jobs, verify=verify, overwrite=True), Watcher())

    return work


def peers_of(name: str) -> list[Peer]:
    """Return all that write this transfer syntax, gpuenc first; of those that are not here, why."""
    uid = find(name).uid
    found = [
        Peer("gpuenc, every sample verified", transcode(name, "all")),
        Peer("gpuenc, not verified", transcode(name, "none")),
    ]
    for plugin in PLUGINS.get(name, ()):
        label = f"pydicom compress, {plugin}"
        here = plugin in gpuenc.get_encoder(uid).labels
        found.append(Peer(label, pydicom_loop(uid, plugin)) if here else Peer(label, why=f"{plugin} is not installed"))
    for label, (command, writes) in PROGRAMS.items():
        if writes == name:
            here = shutil.which(command[0])
            found.append(Peer(label, program(command)) if here else Peer(label, why=f"{command[0]} is not installed"))
    return found


def bare(name: str, signed: bool, bits: int) -> Callable[[np.ndarray], bytes] | None:
    """Return imagecodecs' own call, or for RLE ours, without anything around it."""
    if signed:
        return None
    return {
        "htj2k-lossless": lambda a: imagecodecs.htj2k_encode(a, reversible=True, bitspersample=bits, resolutions=5),
        "jpeg2000-lossless": lambda a: imagecodecs.jpeg2k_encode(
            a, level=0, codecformat="j2k", reversible=True, bitspersample=bits, numthreads=1
        ),
        "jpeg-lossless-sv1": lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1, bitspersample=bits),
        "jpeg-ls-lossless": lambda a: imagecodecs.jpegls_encode(a, bitspersample=bits, spiff=False),
        "rle": lambda a: rle.encode(a),
    }.get(name)


def verdict(case: Case, frames: Sequence[Frame], out: Path, name: str) -> dict[str, Any]:
    """Return what a peer's files are: labelled right, lossless, of how many bits, how large."""
    seen: dict[str, Any] = {"label": True, "lossless": True, "precision": None, "codestream_bytes": 0, "wrong": ""}
    rest = iter(frames)
    for path in sorted(out.rglob("*.dcm")):
        with DicomFile(path) as file:
            seen["label"] &= file.syntax == find(name).uid
            for frame in file.frames():
                _compare(next(rest), frame, seen)
    if next(rest, None) is not None:
        seen |= {"lossless": False, "wrong": "frames are missing"}
    return seen


def _compare(source: Frame, made: Frame, seen: dict[str, Any]) -> None:
    if not isinstance(made.pixels, Coded):
        seen |= {"label": False, "wrong": "frames are not compressed"}
        return
    seen["codestream_bytes"] += len(made.pixels.codestream)
    family = BY_UID[made.pixels.syntax].family
    if family != "rle":
        seen["precision"] = parse(made.pixels.codestream, family).precision
    back = decoders.decode_frame(made)
    ones = samples.extract_samples(samples.native_cells(source.host_cells(), source.format), source.format)
    others = samples.extract_samples(samples.native_cells(back.host_cells(), back.format), back.format)
    if not np.array_equal(ones, others):
        seen |= {"lossless": False, "wrong": f"frame {source.ref.index}: samples differ"}


def measure(case: Case, name: str, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each peer: files and megabytes a second, times gpuenc's, and what its output is."""
    frames = case.frames[:MOST_FRAMES]
    megabytes = sum(frame.format.frame_bytes for frame in frames) / 1e6
    rows: list[dict[str, Any]] = []
    contenders: list[Contender] = []
    verdicts: dict[str, dict[str, Any]] = {}
    about = {"case": case.name, "syntax": name}
    with tempfile.TemporaryDirectory() as folder:
        native = Path(folder) / "in"
        native.mkdir()
        few = Case(case.name, case.source, tuple(frames), case.modality, case.series)
        paths = files.write(few, native)
        for number, peer in enumerate(peers_of(name)):
            if peer.work is None:
                rows.append(about | {"peer": peer.name, "status": "absent", "why": peer.why})
                continue
            out = Path(folder) / str(number)

            def work(peer: Peer = peer, out: Path = out) -> Path:
                out.mkdir()
                peer.work(paths, out)
                return out

            def check(out: Path, peer: Peer = peer) -> None:
                found = verdict(few, frames, out, name)
                worst = verdicts.setdefault(peer.name, found)
                for key in ("label", "lossless"):
                    worst[key] &= found[key]
                worst["wrong"] = worst["wrong"] or found["wrong"]
                shutil.rmtree(out)
                if peer.name.startswith("gpuenc") and not (found["label"] and found["lossless"]):
                    raise RuntimeError(found["wrong"] or "wrong label")

            contenders.append(Contender(peer.name, work, check, megabytes))
        contenders += _ceiling(few, name, megabytes, verdicts)
        interleave(contenders, rounds)
    for one in contenders:
        row = about | {"peer": one.name}
        if one.why_void:
            rows.append(row | {"status": "void", "why": one.why_void})
            continue
        found = verdicts[one.name]
        row |= {"status": "measured", "files": len(paths), "mb_s": figure(one.rates).as_json(), **found}
        row["ratio"] = megabytes * 1e6 / max(1, row.pop("codestream_bytes"))
        # JPEG Lossless has codestreams of whole cells (see `gpuenc.coding`); everything else says Bits Stored.
        asked = (None, case.format.bits_stored, coding(target(find(name)), case.format).precision)
        row["precision_kept"] = found["precision"] in asked
        if contenders[0].seconds:
            row["gpuenc_times"] = ratio(contenders[0].rates, one.rates).as_json()
        rows.append(row)
    return rows


def _ceiling(case: Case, name: str, megabytes: float, verdicts: dict[str, dict[str, Any]]) -> list[Contender]:
    """Return the bare codec on frames in memory, on all cores: nothing is read, written or checked."""
    fmt = case.format
    call = bare(name, fmt.signed, coding(target(find(name)), fmt).precision)
    if call is None:
        return []
    arrays = [frame.host_cells().view(f"u{fmt.bits_allocated // 8}").reshape(fmt.shape) for frame in case.frames]

    def work() -> list[bytes]:
        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(pool.map(call, arrays))

    def check(made: list[bytes]) -> None:
        uid, family = find(name).uid, find(name).family
        seen: dict[str, Any] = {"label": True, "lossless": True, "precision": None, "codestream_bytes": 0, "wrong": ""}
        for frame, codestream in zip(case.frames, made, strict=True):
            try:
                _compare(frame, Frame(frame.ref, fmt, Coded(uid, codestream)), seen)
            except GpuencError as error:
                seen |= {"lossless": False, "wrong": f"{family}: {error}"}
        verdicts["bare codec, all cores"] = seen

    return [Contender("bare codec, all cores", work, check, megabytes)]
