"""gpuenc and its peers on the same files, to the same transfer syntax, on the same cores, judged the same way.

Rounds are interleaved with `gpuenc transcode`. What each wrote is read again after every round: transfer syntax,
precision in the codestream's own markers, and every sample. A peer that loses samples, precision or the label keeps its
figures, and its row says so; gpuenc's would be void.
"""

from __future__ import annotations

import math
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from benchmarks import bare
from benchmarks.peers import Peer, package_version, peers_of, ready, why_no_gpu_tools
from gpuenc.bench import files
from gpuenc.bench.cases import Case
from gpuenc.bench.measure import Contender, figure, interleave, ratio
from gpuenc.codestream import parse
from gpuenc.coding import coding
from gpuenc.cpu import decoders, samples
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import GpuencError
from gpuenc.frames import Coded, Frame
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import BY_UID, find
from gpuenc.targets import target

SYNTAXES = ("jpeg2000-lossless", "jpeg-ls-lossless", "jpeg-lossless-sv1", "rle", "htj2k-lossless")
MOST_FRAMES = 16
BARE, BARE_GPU = "bare codec, all cores", "bare nvImageCodec, frames on the GPU"


@contextmanager
def processes(count: int | None = None) -> Iterator[Executor]:
    """Have processes for peers, started and with everything imported: what they cost once is not counted."""
    with ProcessPoolExecutor(count or usable_cores(), multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(ready) for _ in range(4 * (count or usable_cores()))]:
            done.result()
        yield pool


def verdict(
    case: Case, frames: Sequence[Frame], out: Path, name: str, known: set[tuple[int, bytes]] | None = None
) -> dict[str, Any]:
    """Return what a peer's files are: labelled right, lossless, of how many bits, how large.

    Parameters
    ----------
    case : Case
        What was compressed.
    frames : sequence of Frame
        Of it, in the order of the files' names.
    out : Path
        Folder of the files.
    name : str
        The transfer syntax that was asked for.
    known : set, optional
        Numbers of these frames with digests of codestreams that were found right: they are not decoded again.
    """
    seen = _nothing_wrong()
    rest = iter(enumerate(frames))
    for path in sorted(out.rglob("*.dcm")):
        with DicomFile(path) as file:
            seen["label"] &= file.syntax == find(name).uid
            for made in file.frames():
                number, source = next(rest, (len(frames), None))
                if source is None:
                    return seen | {"lossless": False, "wrong": "there are more frames than there were"}
                _seen_before(number, source, made, seen, known)
    if next(rest, None) is not None:
        seen |= {"lossless": False, "wrong": "frames are missing"}
    return seen


def _seen_before(
    number: int, source: Frame, made: Frame, seen: dict[str, Any], known: set[tuple[int, bytes]] | None
) -> None:
    """Compare a frame, unless this codestream of it was found right."""
    key = (number, xxhash.xxh3_128_digest(made.pixels.codestream)) if isinstance(made.pixels, Coded) else None
    if known is None or key is None or key not in known:
        _compare(source, made, seen)
        if known is not None and key is not None and seen["lossless"] and seen["label"]:
            known.add(key)
    elif isinstance(made.pixels, Coded):
        seen["codestream_bytes"] += len(made.pixels.codestream)


def _nothing_wrong() -> dict[str, Any]:
    return {"label": True, "lossless": True, "precision": None, "codestream_bytes": 0, "wrong": ""}


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


def measure(
    case: Case, name: str, rounds: int, pool: Executor, most_frames: int = MOST_FRAMES, left_s: float = math.inf
) -> list[dict[str, Any]]:
    """Return a row for each peer: megabytes a second, times gpuenc's, on what, its version, and what its output is."""
    frames = case.frames[:most_frames]
    few = Case(case.name, case.source, tuple(frames), case.modality, case.series)
    megabytes = sum(frame.format.frame_bytes for frame in frames) / 1e6
    contenders: list[Contender] = []
    verdicts: dict[str, dict[str, Any]] = {}
    about = {"case": case.name, "syntax": name}
    with tempfile.TemporaryDirectory(prefix="gpuenc-bench-") as folder:
        native = Path(folder) / "in"
        native.mkdir()
        paths = files.write(few, native)
        peers = list(peers_of(name, pool))
        for number, peer in enumerate(peers):
            if peer.work is not None:
                out = Path(folder) / str(number)
                contenders.append(_contender(peer, few, paths, out, name, megabytes, verdicts))
        ceilings = list(_ceilings(few, name, megabytes, verdicts))
        contenders += [one for one in ceilings if isinstance(one, Contender)]
        interleave(contenders, rounds, left_s=left_s)
    known = {peer.name: {"version": peer.version, "on": peer.on} for peer in peers} | _ceilings_known()
    rows = [about | {"peer": peer.name, "status": "absent", "why": peer.why} for peer in peers if peer.work is None] + [
        about | one for one in ceilings if not isinstance(one, Contender)
    ]
    for one in contenders:
        row = about | {"peer": one.name} | known[one.name]
        if one.why_void:
            rows.append(row | one.without)
            continue
        found = verdicts[one.name]
        row |= {"status": "measured", "files": len(paths), "mb_s": figure(one.rates).as_json(), **found}
        row["ratio"] = megabytes * 1e6 / max(1, row.pop("codestream_bytes"))
        # JPEG Lossless has codestreams of whole cells (see `gpuenc.coding`); everything else says Bits Stored.
        asked = (None, case.format.bits_stored, coding(target(find(name)), case.format).precision)
        row["precision_kept"] = found["precision"] in asked
        if contenders[0].seconds:
            row["gpuenc_times"] = ratio(contenders[0].rates, one.rates).as_json()
        if contenders[1].seconds:
            row["gpuenc_unverified_times"] = ratio(contenders[1].rates, one.rates).as_json()
        rows.append(row)
    return rows


def _contender(
    peer: Peer, case: Case, paths: Sequence[Path], out: Path, name: str, megabytes: float, verdicts: dict[str, Any]
) -> Contender:
    def work() -> Path:
        out.mkdir()
        assert peer.work is not None
        peer.work(paths, out)
        return out

    def check(out: Path) -> None:
        found = verdict(case, case.frames, out, name)
        shutil.rmtree(out)
        _keep_worst(verdicts, peer.name, found)
        if peer.name.startswith("gpuenc") and not (found["label"] and found["lossless"]):
            raise RuntimeError(found["wrong"] or "wrong label")

    return Contender(peer.name, work, check, megabytes)


def _keep_worst(verdicts: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Note what was found of a round, so that one bad round is not forgotten over good ones."""
    worst = verdicts.setdefault(name, found)
    for key in ("label", "lossless"):
        worst[key] &= found[key]
    worst["wrong"] = worst["wrong"] or found["wrong"]


def _ceilings(
    case: Case, name: str, megabytes: float, verdicts: dict[str, dict[str, Any]]
) -> Iterator[Contender | dict[str, Any]]:
    """Yield the bare codecs on frames in memory, or why one is not here: nothing is read, written or checked."""
    uid, fmt = find(name).uid, case.format

    def judged(label: str) -> Any:
        def check(made: list[bytes]) -> None:
            seen = _nothing_wrong()
            for frame, codestream in zip(case.frames, made, strict=True):
                try:
                    _compare(frame, Frame(frame.ref, fmt, Coded(uid, codestream)), seen)
                except GpuencError as error:
                    seen |= {"lossless": False, "wrong": str(error)}
            _keep_worst(verdicts, label, seen)

        return check

    if fmt.signed:
        yield {"peer": BARE, "status": "absent", "why": "signed samples need preparation"}
        return
    yield Contender(BARE, bare.on_cores(name, case.frames), judged(BARE), megabytes)
    if find(name).jpeg2000:
        why = why_no_gpu_tools()
        if why:
            yield {"peer": BARE_GPU, "status": "absent", "why": why}
        else:
            yield Contender(BARE_GPU, bare.on_gpu(name, case.frames), judged(BARE_GPU), megabytes)


def _ceilings_known() -> dict[str, dict[str, str]]:
    found = package_version("nvidia-nvimgcodec-cu13") or package_version("nvidia-nvimgcodec-cu12")
    return {
        BARE: {"version": f"imagecodecs {package_version('imagecodecs')}", "on": f"1 process, {usable_cores()} cores"},
        BARE_GPU: {"version": found, "on": "1 process, 1 GPU"},
    }
