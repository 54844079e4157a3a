"""The figures that the encoder and the archive engine promise, as ratios within one run, on output that was verified.

    python -m benchmarks.speed [--files N] [--rounds N] [--only PART ...] [--out DIR]

encoder   `iter_encode` over 64 frames with two threads, against the bare codec called from two threads
files     `gpuenc transcode` of N CT files to HTJ2K, verified and not, in threads and in worker processes, against the
          bare codec on the same frames on all cores, and against pydicom's serial loop to JPEG 2000
peers     `gpuenc transcode` of N CT files to JPEG-LS, JPEG Lossless and RLE, in as many processes as every peer has
command   `gpuenc transcode` as a command, start of its process included, and the time of ``import gpuenc``

Contenders take turns; each figure is the median of the rounds with its spread. Slow contenders get the first files
only: their rows say how many, and ratios are of files per second. 400 files take less than ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import gpuenc
from benchmarks import bare, contest
from benchmarks.peers import Peer, Work, compress_share, peers_of, transcode
from gpuenc.bench import document, files, phantoms
from gpuenc.bench.cases import Case, frames_of
from gpuenc.bench.measure import LEAST_ROUNDS, NOISY, Contender, figure, interleave, ratio
from gpuenc.bench.referee import Referee
from gpuenc.frames import Encoded
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import find
from gpuenc.targets import target

FORMAT = "gpuenc-speed/1"
PARTS = ("encoder", "files", "peers", "command")
SYNTAXES = ("htj2k-lossless", "jpeg-lossless-sv1", "jpeg-ls-lossless", "rle")
THREADS = 2
# Different pictures; more files repeat them under other UIDs.
SLICES = 200
# Files for those that take 20 ms and more for each.
SLOW_FILES = 60
NAME = "CT 512², 12 of 16 bits"

Row = dict[str, Any]
Tell = Callable[[str], None]


def series(count: int) -> Case:
    """Return so many slices of 512² pixels, each to be a file of its own."""
    made = frames_of(phantoms.ct(min(count, SLICES)), 12, NAME)
    frames = tuple(replace(made[n % len(made)], ref=replace(made[0].ref, index=n)) for n in range(count))
    return Case(NAME, "synthetic", frames, "CT", True)


def against_codec(rounds: int, tell: Tell) -> list[Row]:
    """Return for each syntax the rate of `iter_encode`, and its share of the bare codec's."""
    frames = series(64).frames
    arrays = bare.arrays(frames)
    megabytes = sum(array.nbytes for array in arrays) / 1e6
    rows = []
    for name in SYNTAXES:
        tell(f"iter_encode: {name}")
        rows.append(
            {"syntax": name, "frames": len(frames), "threads": THREADS}
            | _encoder(name, frames, arrays, rounds, megabytes)
        )
    return rows


def _encoder(name: str, frames: Sequence[Any], arrays: Sequence[Any], rounds: int, megabytes: float) -> Row:
    chosen = target(find(name))
    encoder, referee = gpuenc.get_encoder(name), Referee(frames, chosen)
    precision = 16 if name == "jpeg-lossless-sv1" else 12
    call, stacked = bare.codec(name, precision), np.stack(arrays)

    def codec() -> list[bytes]:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(call, arrays))

    def ours() -> list[bytes]:
        # As the codec is called: with the precision that is stored.
        return list(encoder.iter_encode(stacked, threads=THREADS, bits_stored=12))

    def judge(made: list[bytes]) -> None:
        referee.judge([Encoded(frame.ref, one, "") for frame, one in zip(frames, made, strict=True)])

    pair = [Contender("bare", codec, judge, megabytes), Contender("ours", ours, judge, megabytes)]
    interleave(pair, rounds)
    if why := pair[0].why_void or pair[1].why_void:
        return {"status": "void", "why": why}
    return {
        "status": "measured",
        "mb_s": figure(pair[1].rates).as_json(),
        "bare_mb_s": figure(pair[0].rates).as_json(),
        "share_of_bare": ratio(pair[1].rates, pair[0].rates).as_json(),
        "ratio": referee.ratio,
    }


class Folder:
    """N files of CT slices on the disk, and contenders that make others of them.

    Parameters
    ----------
    case : Case
        Whose frames the files have.
    root : Path
        An empty folder.
    """

    def __init__(self, case: Case, root: Path) -> None:
        self.case, self._root, self._known = case, root, set[tuple[int, bytes]]()
        (root / "in").mkdir()
        self.paths = files.write(case, root / "in")

    def contender(
        self, name: str, work: Work, syntax: str, most: int | None = None, *, strict: bool = True
    ) -> Contender:
        """Return one whose rate is files per second; where `strict`, what it wrote has to be right in every way."""
        paths, out = self.paths[:most], self._root / f"out-{abs(hash((name, syntax)))}"
        few = self.case.frames[: len(paths)]

        def run() -> Path:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            work(paths, out)
            return out

        def check(out: Path) -> None:
            seen = contest.verdict(self.case, few, out, syntax, self._known)
            shutil.rmtree(out)
            if strict and not (seen["lossless"] and seen["label"]):
                raise RuntimeError(seen["wrong"] or "wrong label")

        return Contender(name, run, check, float(len(paths)))

    def codec(self, syntax: str) -> Contender:
        """Return the bare codec on the same frames, on all cores."""
        referee = Referee(self.case.frames, target(find(syntax)))

        def judge(made: list[bytes]) -> None:
            referee.judge([Encoded(f.ref, one, "") for f, one in zip(self.case.frames, made, strict=True)])

        return Contender(contest.BARE, bare.on_cores(syntax, self.case.frames), judge, float(len(self.case.frames)))


def pydicom_serial(paths: Sequence[Path], out: Path) -> None:
    """What people write today."""
    compress_share(paths, out, find("jpeg2000-lossless").uid, "pylibjpeg")


def over_files(folder: Folder, rounds: int, tell: Tell) -> list[Row]:
    """Return rows of jobs to HTJ2K, with their share of the bare codec's rate and times pydicom's."""
    name, cores = "htj2k-lossless", usable_cores()
    tell(f"{len(folder.paths)} files: {name}")
    slow = folder.contender("pydicom, serial, JPEG 2000", pydicom_serial, "jpeg2000-lossless", SLOW_FILES)
    codec = folder.codec(name)
    ours = [
        folder.contender(f"gpuenc, {on}, --verify {verify}", transcode(name, verify, workers), name)
        for workers, on in ((0, "threads"), (cores, f"{cores} worker processes"))
        for verify in ("none", "all")
    ]
    interleave([codec, slow, *ours], rounds)
    rows = [_row(one, name if one is not slow else "jpeg2000-lossless") for one in (codec, slow, *ours)]
    for row, one in zip(rows[2:], ours, strict=True):
        if one.seconds and codec.seconds:
            row["share_of_bare"] = ratio(one.rates, codec.rates).as_json()
        if one.seconds and slow.seconds:
            row["times_pydicom"] = ratio(one.rates, slow.rates).as_json()
    return rows


def against_peers(folder: Folder, rounds: int, pool: Executor, tell: Tell) -> list[Row]:
    """Return for JPEG-LS, JPEG Lossless and RLE a row of each peer and ours, with how many times as fast ours is."""
    rows, cores = [], usable_cores()
    for name in SYNTAXES[1:]:
        tell(f"{len(folder.paths)} files, peers: {name}")
        on = f"{cores} worker processes"
        ours = [
            folder.contender("gpuenc, threads, --verify none", transcode(name, "none"), name),
            folder.contender(f"gpuenc, {on}, --verify none", transcode(name, "none", cores), name),
            folder.contender("gpuenc, threads, --verify all", transcode(name, "all"), name),
        ]
        others = [_but_slow(peer) for peer in peers_of(name, pool) if not peer.name.startswith("gpuenc")]
        here = [folder.contender(peer.name, peer.work, name, SLOW_FILES, strict=False) for peer in others if peer.work]
        interleave([*ours, *here], rounds)
        rows += [_row(one, name) for one in (*ours, *here)]
        rows += [
            {"syntax": name, "by": peer.name, "status": "absent", "why": peer.why} for peer in others if not peer.work
        ]
        there = [one for one in here if one.seconds]
        if there:
            best = max(there, key=lambda one: statistics.median(one.rates))
            for one in ours:
                row = next(row for row in rows if (row["syntax"], row["by"]) == (name, one.name))
                if one.seconds:
                    row |= {"best_peer": best.name, "times_best_peer": ratio(one.rates, best.rates).as_json()}
    return rows


def _but_slow(peer: Peer) -> Peer:
    """Return a peer; without its work where that would take minutes and is never the best."""
    if peer.name == "pydicom compress, pydicom":
        return replace(peer, work=None, why="RLE in plain Python: far slower than the others, see make bench")
    return peer


def as_command(folder: Folder, rounds: int, tell: Tell) -> dict[str, Any]:
    """Return the command's rate over files, and the seconds that imports take, less an empty interpreter's."""
    tell("the command, and imports")

    def command(paths: Sequence[Path], out: Path) -> None:
        words = [sys.executable, "-m", "gpuenc", "transcode", str(paths[0].parent), "-o", str(out), "--overwrite"]
        subprocess.run([*words, "--to", "htj2k-lossless"], check=True, stdout=subprocess.DEVNULL)

    one = folder.contender("gpuenc transcode, as a command, --verify all", command, "htj2k-lossless")
    slow = folder.contender("pydicom, serial, JPEG 2000", pydicom_serial, "jpeg2000-lossless", SLOW_FILES)
    interleave([one, slow], rounds)
    row = _row(one, "htj2k-lossless")
    if one.seconds and slow.seconds:
        row["times_pydicom"] = ratio(one.rates, slow.rates).as_json()
    programs = {
        "nothing": "pass",
        "import gpuenc": "import gpuenc",
        "get_encoder": "import gpuenc; gpuenc.get_encoder('htj2k-lossless')",
        "pydicom's encoders": "import pydicom.pixels.encoders.base",
    }
    imports = [
        Contender(label, lambda code=code: subprocess.run([sys.executable, "-c", code], check=True), lambda _: None)  # type: ignore[misc]
        for label, code in programs.items()
    ]
    interleave(imports, rounds)
    empty = imports[0].seconds
    spent = {
        one.name: figure([max(0.0, a - b) for a, b in zip(one.seconds, empty, strict=True)]).as_json()
        for one in imports[1:]
    }
    return {"rows": [row], "import_s": spent}


def _row(one: Contender, syntax: str) -> Row:
    row: Row = {"syntax": syntax, "by": one.name}
    if one.why_void:
        return row | {"status": "void", "why": one.why_void}
    return row | {"status": "measured", "files": int(one.amount), "files_s": figure(one.rates).as_json()}


def run(count: int, rounds: int, parts: Sequence[str], tell: Tell) -> dict[str, Any]:
    """Measure; return the results as they are written."""
    begun = time.monotonic()
    results: dict[str, Any] = {
        **document.heading(FORMAT),
        "settings": {"files": count, "rounds": rounds, "slow_files": SLOW_FILES, "processes": usable_cores()},
    }
    if "encoder" in parts:
        results["encoder"] = against_codec(rounds, tell)
    with tempfile.TemporaryDirectory(prefix="gpuenc-bench-") as name, contest.processes() as pool:
        folder = Folder(series(count), Path(name))
        if "files" in parts:
            results["files"] = over_files(folder, rounds, tell)
        if "peers" in parts:
            results["peers"] = against_peers(folder, rounds, pool, tell)
        if "command" in parts:
            results["command"] = as_command(folder, rounds, tell)
    results["seconds"] = time.monotonic() - begun
    spreads = [row[key]["spread"] for row in _rows(results) for key in ("files_s", "mb_s") if key in row]
    noisy = sum(spread > NOISY for spread in spreads)
    results["noise"] = {
        "figures": len(spreads), "noisy_figures": noisy, "widest_spread": max(spreads, default=0.0), "limit": NOISY,
        "noisy": noisy > 0,
    }  # fmt: skip
    return results


def _rows(results: dict[str, Any]) -> list[Row]:
    return [
        *results.get("encoder", []), *results.get("files", []), *results.get("peers", []),
        *results.get("command", {}).get("rows", []),
    ]  # fmt: skip


def said(results: dict[str, Any]) -> str:
    """Return the results as lines of text."""
    lines = []
    for row in _rows(results):
        what = f"{row['syntax']:20} {row.get('by', 'iter_encode, 2 threads'):46}"
        if row["status"] != "measured":
            lines.append(f"{what} {row['status']}: {row['why']}")
            continue
        rate, unit = (row["files_s"], "files/s") if "files_s" in row else (row["mb_s"], "MB/s")
        more = [
            f"{row[key]['median']:.2f} ({row[key]['low']:.2f}–{row[key]['high']:.2f}) {label}"
            for key, label in (
                ("share_of_bare", "of the bare codec"),
                ("times_pydicom", "× pydicom"),
                ("times_best_peer", f"× {row.get('best_peer')}"),
            )
            if key in row
        ]
        lines.append(f"{what} {rate['median']:8.1f} {unit} ±{rate['spread']:.0%}  {'; '.join(more)}")
    for name, spent in results.get("command", {}).get("import_s", {}).items():
        lines.append(f"{name}: {spent['median']:.3f} s")
    noise = results["noise"]
    if noise["noisy"]:
        lines.append(f"NOISY: {noise['noisy_figures']} of {noise['figures']} figures spread over more than 20 %")
    return "\n".join(lines)


def write(results: dict[str, Any], folder: Path) -> Path:
    """Write the results; return where."""
    return document.write(results, folder, "-speed")


def main() -> None:
    """Measure, say and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=400, help="how many CT files; 2000 for the record")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if args.rounds < LEAST_ROUNDS or args.files < 1:
        parser.error(f"--rounds of at least {LEAST_ROUNDS}, --files of at least 1")
    warnings.simplefilter("ignore")
    results = run(args.files, args.rounds, args.only, lambda line: print(f"{line} …", file=sys.stderr))
    print(said(results))
    print(write(results, args.out))


if __name__ == "__main__":
    main()
