"""What a GPU could do, and how much of it gpuenc does: `make gpu-bench`, offline, in less than eight minutes.

    python -m benchmarks.gpu [--rounds N] [--out DIR]

kernels    bytes that each launch has to move ÷ the measured bandwidth of a copy, against its measured time. CUDA events
           around the launch alone; the L2 cache is flushed before each, and two batches in different memory take turns.
engine     frames on the GPU: the whole path ÷ nvImageCodec called in a loop; frames on the host: ÷ the lesser of that
           and of the measured rate of copies from pinned memory
transcode  `gpuenc transcode` of CT files ÷ NVIDIA's own converter, files in and files out

Everything is of output that was verified: kernels against their CPU twins before they are timed, every codestream
decoded. What is wrong is void, what cannot be had says why.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydicom.uid import UID

from benchmarks import bare, contest, kernels
from benchmarks.peers import why_no_gpu_tools
from gpuenc.bench import document, phantoms
from gpuenc.bench.cases import Case, frames_of
from gpuenc.bench.lanes import Kept
from gpuenc.bench.measure import LEAST_ROUNDS, Contender, figure, interleave, ratio
from gpuenc.bench.referee import Referee
from gpuenc.bench.rows import candidates, encode
from gpuenc.cuda.kernels import CupyDevice
from gpuenc.dicom.request import request
from gpuenc.frames import Encoded, Frame
from gpuenc.syntaxes import BY_UID, find
from gpuenc.targets import target

FORMAT = "gpuenc-gpu-bench/1"
SYNTAX = "htj2k-lossless"
TARGETS = {"device": 0.95, "host": 0.9, "transcode": 5.0}
LAUNCHES = 20
# When nothing more is begun.
LIMIT_S = 420.0
_SCRATCH_BYTES, _COPY_BYTES = 256 << 20, 512 << 20
# Side in pixels, frames.
ENGINE = ((256, 512), (512, 256), (2048, 16))
TRANSCODE_FILES = 200

Row = dict[str, Any]


class Clock(Protocol):
    """Times what is queued on a device."""

    def seconds(self, queued: Callable[[], object], *, flush: bool = True) -> float:
        """Return how long the device takes for what `queued` queues, its cache empty before."""


class EventClock:
    """A `Clock` by CUDA events; a buffer larger than any L2 cache is written before each measurement."""

    def __init__(self) -> None:
        self._cupy = import_module("cupy")
        self._scratch = self._cupy.empty(_SCRATCH_BYTES, "u1")
        self._turn = 0

    def seconds(self, queued: Callable[[], object], *, flush: bool = True) -> float:
        """Return the time between two events around what is queued."""
        if flush:
            self._turn += 1
            self._scratch.fill(self._turn % 251)
        begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        begin.record()
        queued()
        end.record()
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(begin, end)) / 1e3


class PuttingDevice(CupyDevice):
    """A GPU with `put`, as the kernels' cases use it."""

    def put(self, values: np.ndarray, misalign: int = 0) -> Any:
        """Return a copy on the device."""
        return self.upload(np.ascontiguousarray(values))


def copy_gb_s(clock: Clock) -> dict[str, Any]:
    """Return the rate of a copy on the device, reads and writes counted: what kernels are measured by."""
    cupy = import_module("cupy")
    pairs = [(cupy.ones(_COPY_BYTES, "u1"), cupy.empty(_COPY_BYTES, "u1")) for _ in range(2)]
    clock.seconds(lambda: cupy.copyto(pairs[0][1], pairs[0][0]))
    spent = [clock.seconds(lambda n=n: cupy.copyto(pairs[n % 2][1], pairs[n % 2][0])) for n in range(LAUNCHES)]  # type: ignore[misc]
    return figure([2 * _COPY_BYTES / seconds / 1e9 for seconds in spent]).as_json()


def pinned_gb_s(clock: Clock) -> dict[str, Any]:
    """Return the rate of copies from pinned host memory to the device."""
    cupy = import_module("cupy")
    memory = cupy.cuda.alloc_pinned_memory(_SCRATCH_BYTES)
    host = np.frombuffer(memory, np.uint8, _SCRATCH_BYTES)
    host[:] = 1
    there = cupy.empty(_SCRATCH_BYTES, "u1")
    clock.seconds(lambda: there.set(host))
    spent = [clock.seconds(lambda: there.set(host)) for _ in range(LAUNCHES)]
    return figure([_SCRATCH_BYTES / seconds / 1e9 for seconds in spent]).as_json()


def of_kernels(
    device: Any,
    clock: Clock,
    copy: float,
    *,
    side: int = kernels.SIDE,
    frames: int = kernels.FRAMES,
    launches: int = LAUNCHES,
    until_s: float = float("inf"),
    check: Callable[[str, Any], None] | None = None,
) -> list[Row]:
    """Return a row for each launch of each batch: its time, its rate, and that as a share of a copy's.

    Parameters
    ----------
    device : Device
        With `put`.
    clock : Clock
        Of that device.
    copy : float
        Rate of a copy, GB/s.
    side, frames : int
        Of the batches: pixels, and their number.
    launches : int
        Timed rounds of each.
    until_s : float
        On `time.monotonic`'s clock: what has not begun by then is left out, and says so.
    check : callable, optional
        Gets a kernel's name, and the device; raises where it does not equal its CPU twin.
    """
    rows: list[Row] = []
    for name, make in kernels.batches():
        try:
            if time.monotonic() > until_s:
                rows.append({"batch": name, "status": "absent", "why": "no time was left"})
                continue
            if check is not None:
                check(name, device)
            pair = [make(device, side, frames) for _ in range(2)]
            _demand_right(name, pair[0], side)
            rows += _timed(name, device, clock, copy, pair, launches)
        except Exception as error:  # noqa: BLE001 - whatever a device raises voids its row, and only that
            rows.append({"batch": name, "status": "void", "why": " ".join(str(error).split()) or type(error).__name__})
    rows += [
        {"batch": name, "kernel": name, "status": "absent", "why": why} for name, why in kernels.WITHOUT_BYTES.items()
    ]
    return rows


def _timed(
    name: str, device: Any, clock: Clock, copy: float, pair: Sequence[kernels.Batch], launches: int
) -> Iterator[Row]:
    spent: list[list[float]] = [[] for _ in pair[0].launches]
    for number in range(launches + 1):
        for place, launch in enumerate(pair[number % 2].launches):

            def again(one: kernels.Launch = launch) -> None:
                device.launch(one.source, one.kernel, one.grid, one.block, one.arguments)

            seconds = clock.seconds(again)
            if number:
                spent[place].append(seconds)
    for launch, moved, times in zip(pair[0].launches, pair[0].moved_bytes, spent, strict=True):
        if moved:
            rate = figure([moved / seconds / 1e9 for seconds in times])
            yield {
                "batch": name, "kernel": launch.kernel, "status": "measured", "moved_bytes": moved,
                "us": figure([1e6 * seconds for seconds in times]).as_json(), "gb_s": rate.as_json(),
                "share_of_copy": rate.median / copy,
            }  # fmt: skip
    if pair[0].samples_bytes:
        whole = [sum(times) for times in zip(*spent, strict=True)]
        rate = figure([pair[0].samples_bytes / seconds / 1e9 for seconds in whole])
        yield {"batch": name, "kernel": "all launches", "status": "measured", "gb_s": rate.as_json()}


def _demand_right(name: str, batch: kernels.Batch, side: int) -> None:
    """Decode the codestreams of a batch, and compare every sample.

    Raises
    ------
    GpuencError
        A codestream is not what it should be.
    """
    if not batch.codestreams or "no levels" in name:  # a coding that no DICOM target asks for; its kernel has a twin
        return
    bits, colour = (8 if "8 bits" in name else 12), "RGB" in name
    frames = frames_of(kernels.samples_of(bits, 3 if colour else 1, side, len(batch.codestreams)), bits, name)
    syntax = {"htj2k": "htj2k-lossless-rpcl", "jpeg-lossless": "jpeg-lossless-sv1", "rle": "rle"}[name.split()[0]]
    referee = Referee(frames, target(find(syntax)))
    referee.judge([Encoded(frame.ref, one, "") for frame, one in zip(frames, batch.codestreams, strict=True)])


def equals_its_twin(name: str, device: Any) -> None:
    """Compare a kernel with its CPU twin on random formats, as the tests do; of encoders, output is decoded instead."""
    compared = import_module("tests.simt.cases").COMPARISONS
    if name in compared:
        compared[name](np.random.default_rng(1), device, 64)


def of_engine(pinned: float, rounds: int, until_s: float = float("inf")) -> list[Row]:
    """Return rows of the engine with frames on the GPU and on the host, against nvImageCodec alone."""
    chosen = target(find(SYNTAX))
    plugin = dict(candidates(chosen, "auto")).get("nvimgcodec", "there is no such plug-in")
    why = why_no_gpu_tools() or (plugin if isinstance(plugin, str) else "")
    if why:
        return [{"syntax": SYNTAX, "status": "absent", "why": why}]
    rows = []
    for side, count in ENGINE:
        if time.monotonic() > until_s:
            rows.append({"syntax": SYNTAX, "side": side, "status": "absent", "why": "no time was left"})
            continue
        frames = _repeated(frames_of(phantoms.ct(min(count, 16), side), 12, "engine"), count)
        with Kept(plugin) as kept:
            rows.append(_against_bare(frames, kept, pinned, rounds))
    return rows


def _repeated(made: Sequence[Frame], count: int) -> list[Frame]:
    return [replace(made[n % len(made)], ref=replace(made[0].ref, index=n)) for n in range(count)]


def _against_bare(frames: Sequence[Frame], kept: Kept, pinned: float, rounds: int) -> Row:
    chosen, syntax = target(find(SYNTAX)), find(SYNTAX)
    size = sum(frame.format.frame_bytes for frame in frames)
    there = import_module("cupy").asarray(np.stack(bare.arrays(frames)))
    asked = request(BY_UID[syntax.uid], UID(syntax.uid), there, validate=True, options={"bits_stored": 12})
    on_device = list(asked)
    referee = Referee(frames, chosen)

    def judge(made: Sequence[Any]) -> None:
        named = [
            Encoded(f.ref, one, "") if isinstance(one, bytes) else one for f, one in zip(frames, made, strict=True)
        ]
        referee.judge(named)

    contenders = [
        Contender("bare nvImageCodec", bare.on_gpu(SYNTAX, frames), judge, size / 1e9),
        Contender("frames on the GPU", lambda: encode(on_device, chosen, kept.plugin), judge, size / 1e9),
        Contender("frames on the host", lambda: encode(frames, chosen, kept.plugin), judge, size / 1e9),
    ]
    interleave(contenders, rounds)
    fmt = frames[0].format
    row: Row = {"syntax": SYNTAX, "side": fmt.rows, "frames": len(frames)}
    for one in contenders:
        if one.why_void:
            return row | {"status": "void", "why": f"{one.name}: {one.why_void}"}
    alone, device, host = contenders
    ceiling = [min(rate, pinned) for rate in alone.rates]
    return row | {
        "status": "measured",
        "bare_gb_s": figure(alone.rates).as_json(),
        "device_gb_s": figure(device.rates).as_json(),
        "host_gb_s": figure(host.rates).as_json(),
        "pinned_gb_s": pinned,
        "device_share": ratio(device.rates, alone.rates).as_json(),
        "host_share": ratio(host.rates, ceiling).as_json(),
    }


def of_transcode(rounds: int) -> list[Row]:
    """Return the rows of a contest over CT files: gpuenc, NVIDIA's converter, and both bare codecs."""
    made = frames_of(phantoms.ct(TRANSCODE_FILES), 12, "CT")
    case = Case("CT series 512², 200 files", "synthetic", made, "CT", True)
    with contest.processes() as pool:
        return contest.measure(case, SYNTAX, rounds, pool, TRANSCODE_FILES)


def run(rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure on this machine's GPU; return the results as they are written."""
    begun = time.monotonic()
    clock, device = EventClock(), PuttingDevice(0)
    results: dict[str, Any] = {
        **document.heading(FORMAT),
        "settings": {"rounds": rounds, "launches": LAUNCHES, "side": kernels.SIDE, "frames": kernels.FRAMES},
    }
    tell("bandwidth")
    results["copy_gb_s"], results["pinned_gb_s"] = copy_gb_s(clock), pinned_gb_s(clock)
    tell("engine")
    results["engine"] = of_engine(results["pinned_gb_s"]["median"], rounds, begun + LIMIT_S / 2)
    tell("transcode")
    results["transcode"] = of_transcode(rounds)
    tell("kernels")
    copy = results["copy_gb_s"]["median"]
    results["kernels"] = of_kernels(device, clock, copy, until_s=begun + LIMIT_S, check=equals_its_twin)
    results["seconds"] = time.monotonic() - begun
    return results


def said(results: dict[str, Any]) -> str:
    """Return the results as lines of text."""
    lines = [
        f"copy {results['copy_gb_s']['median']:.0f} GB/s, pinned to device {results['pinned_gb_s']['median']:.1f} GB/s"
    ]
    for row in results["engine"]:
        about = f"{row['syntax']} {row.get('side', '')}²"
        if row["status"] != "measured":
            lines.append(f"{about} {row['status']}: {row['why']}")
            continue
        lines.append(
            f"{about}: bare {row['bare_gb_s']['median']:.2f} GB/s; on the GPU {row['device_share']['median']:.2f} of "
            f"it; from the host {row['host_share']['median']:.2f} of what could be"
        )
    for row in results["transcode"]:
        figures = (
            f"{row['mb_s']['median']:.0f} MB/s" if row["status"] == "measured" else f"{row['status']}: {row['why']}"
        )
        lines.append(f"transcode, {row['peer']}: {figures}")
    for row in results["kernels"]:
        about = f"{row['batch']}: {row.get('kernel', '')}"
        if row["status"] != "measured":
            lines.append(f"{about} {row['status']}: {row['why']}")
        else:
            share = f", {row['share_of_copy']:.0%} of a copy" if "share_of_copy" in row else ""
            lines.append(f"{about} {row['gb_s']['median']:.0f} GB/s{share}")
    return "\n".join(lines)


def write(results: dict[str, Any], folder: Path) -> Path:
    """Write the results; return where."""
    return document.write(results, folder, "-gpubench")


def transcode_times(rows: Sequence[Row]) -> float | None:
    """Return how many times as fast as NVIDIA's converter `gpuenc transcode` is, verifying; None if not known."""
    found = [
        row["gpuenc_times"]["median"] for row in rows if row["peer"].startswith("NVIDIA") and "gpuenc_times" in row
    ]
    return statistics.median(found) if found else None


def main() -> None:
    """Measure, say and write; without a GPU, say why not, and end with 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if args.rounds < LEAST_ROUNDS:
        parser.error(f"fewer than {LEAST_ROUNDS} rounds have no spread worth the name")
    if why := why_no_gpu_tools():
        sys.exit(f"nothing is measured: {why}")
    warnings.simplefilter("ignore")
    results = run(args.rounds, lambda line: print(f"{line} …", file=sys.stderr))
    print(said(results))
    print(write(results, args.out))


if __name__ == "__main__":
    main()
