"""Every kernel on a batch of real size: its launches, and the bytes that each of them has to move.

Bytes are those of the contract table in kernels/README.md; `tests/bench/test_gpu.py` counts them under the shim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpuenc.bench import phantoms
from gpuenc.coding import Coding, coding
from gpuenc.cuda import htj2k, htj2k_plan, jpeg_lossless, packed, rle
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.gpu.full_size import CASES

SIDE, FRAMES = 512, 128
# Makes constants and moves nothing worth the name.
WITHOUT_BYTES = {"crc32_tables": "moves no bytes: it makes 9 KB of constants, once"}


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, as it was asked for: can be done again, with the same result."""

    source: str
    kernel: str
    grid: tuple[int, int]
    block: int
    arguments: Sequence[Any]


@dataclass
class Recorder:
    """A `gpuenc.cuda.kernels.Device` that notes all launches and hands everything on to another.

    Parameters
    ----------
    device : Device
        Does the work.
    """

    device: Any
    launches: list[Launch] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.device, name)

    def launch(self, source: str, kernel: str, grid: tuple[int, int], block: int, arguments: Sequence[Any]) -> None:
        """Note the launch, and do it."""
        self.launches.append(Launch(source, kernel, grid, block, arguments))
        self.device.launch(source, kernel, grid, block, arguments)


@dataclass(frozen=True)
class Batch:
    """A batch that was worked on once: its launches, the bytes of each, and what has to stay alive.

    Parameters
    ----------
    name : str
        What it is, for the report.
    launches : tuple of Launch
        In order; each round does all of them, so that every one finds what it needs.
    moved_bytes : tuple of int
        Read and written by each; 0 for those that are not of interest.
    samples_bytes : int
        Native bytes of the frames.
    codestreams : tuple of bytes
        What came out, where that is codestreams.
    kept : object
        Keeps memory on the device alive.
    """

    name: str
    launches: tuple[Launch, ...]
    moved_bytes: tuple[int, ...]
    samples_bytes: int
    codestreams: tuple[bytes, ...] = ()
    kept: object = None


Maker = Callable[[Any, int, int], Batch]


def batches() -> Iterator[tuple[str, Maker]]:
    """Yield for each batch its name, and what makes it of a device, a side in pixels and a number of frames."""
    for name in CASES:
        yield name, lambda device, side, frames, name=name: _single(name, device, side, frames)
    for bits, samples in ((12, 1), (8, 1), (8, 3)):
        said = f"{bits} bits" + (", RGB" if samples == 3 else "")
        yield f"htj2k {said}", lambda *of, b=bits, s=samples: _htj2k(f"htj2k {b} bits, {s} samples", b, s, None, *of)
    for bits in (8, 12):
        yield f"htj2k {bits} bits, no levels", lambda *of, b=bits: _htj2k(f"htj2k {b} bits, no levels", b, 1, 0, *of)
    for bits in (8, 12):
        yield f"jpeg-lossless {bits} bits", lambda *of, b=bits: _packed("jpeg-lossless-sv1", jpeg_lossless, b, *of)
        yield f"rle {bits} bits", lambda *of, b=bits: _packed("rle", rle, b, *of)


def samples_of(bits: int, samples: int, side: int, frames: int) -> np.ndarray:
    """Return frames of the seeded pictures, of which there are 8 different ones."""
    if samples == 3:
        made: np.ndarray = phantoms.tiles(min(8, frames), side)
    else:
        made = phantoms.ct(min(8, frames), side)
        made = (made >> 4).astype(np.uint8) if bits == 8 else made
    return np.ascontiguousarray(made[np.arange(frames) % len(made)])


def _single(name: str, device: Any, side: int, frames: int) -> Batch:
    recorder = Recorder(device)
    case = CASES[name](recorder, side, frames)
    recorder.launches.clear()
    kept = case.run()
    # Tables of constants are made before; the kernel that is meant comes last.
    moved = (0,) * (len(recorder.launches) - 1) + (case.moved_bytes,)
    return Batch(name, tuple(recorder.launches), moved, 0, kept=(case, kept))


def _coding(syntax: str, bits: int, samples: int, side: int, levels: int | None = None) -> Coding:
    allocated = 8 if bits <= 8 else 16
    photometric = "RGB" if samples == 3 else "MONOCHROME2"
    wanted = coding(target(find(syntax)), FrameFormat(side, side, samples, allocated, bits, False, photometric))
    if levels is None:
        return wanted
    return replace(wanted, levels=levels)


def _htj2k(name: str, bits: int, samples: int, levels: int | None, device: Any, side: int, frames: int) -> Batch:
    wanted, recorder = _coding("htj2k-lossless-rpcl", bits, samples, side, levels), Recorder(device)
    pixels = samples_of(bits, samples, side, frames)
    plan = htj2k_plan.plan(wanted)
    there = device.put(pixels)
    made = _all_encoded(htj2k.Pipeline(recorder, frames * plan.frame_bytes).encode(there, wanted))
    launches = tuple(recorder.launches)
    assert len(launches) == len(plan.launches(frames)), "a batch in several sets"
    moved = _htj2k_bytes(launches, plan, wanted, frames, sum(map(len, made)))
    return Batch(name, launches, moved, pixels.nbytes, made, kept=(there, launches))


def _htj2k_bytes(
    launches: Sequence[Launch], plan: htj2k_plan.Plan, wanted: Coding, frames: int, codestream_bytes: int
) -> tuple[int, ...]:
    samples = frames * wanted.rows * wanted.columns * wanted.samples
    layout, level, found = plan.layout[0], 0, []
    for launch in launches:
        moved: float
        if launch.kernel.startswith("level_shift"):
            moved = samples * (plan.cell_bytes + 4)
        elif launch.kernel.startswith("dwt53_first"):
            # With three samples, each block of threads makes one of them out of all.
            moved = samples * (1.07 * plan.cell_bytes * wanted.samples + 4)
        elif launch.kernel == "dwt53_next":
            level += 1
            size = int(plan.levels[level]["columns"]) * int(plan.levels[level]["rows"])
            moved = frames * wanted.samples * size * (4.3 + 4)
        elif launch.kernel == "ht_encode_blocks":
            moved = 4 * samples + codestream_bytes
        elif launch.kernel == "packet_headers":
            moved = frames * (24 * int(layout["blocks"]) + 8 * int(layout["nodes"]))
        elif launch.kernel == "place_frames":
            moved = frames * 24 * int(layout["packets"])
        else:
            moved = 2 * codestream_bytes
        found.append(int(moved))
    return tuple(found)


def _packed(syntax: str, codec: Any, bits: int, device: Any, side: int, frames: int) -> Batch:
    wanted, recorder = _coding(syntax, bits, 1, side), Recorder(device)
    pixels = samples_of(bits, 1, side, frames)
    there = device.put(pixels)
    made = _all_encoded(packed.collect(recorder, codec.measure(recorder, there, wanted)))
    code, planes = sum(map(len, made)), wanted.cell_bits // 8
    chunks = frames * -(-side * side // 2048)
    by = {
        "jpeg_lossless_count": pixels.nbytes,
        "jpeg_lossless_plan": 34 * chunks,
        "jpeg_lossless_pack": pixels.nbytes + code,
        "jpeg_lossless_place": 8 * chunks,
        "jpeg_lossless_stuff": 2 * code,
        "rle_measure": pixels.nbytes,
        "rle_place": 8 * frames * side * planes,
        "rle_write": pixels.nbytes + code,
        "place_streams": 24 * frames,
    }
    launches = tuple(recorder.launches)
    moved = tuple(by[launch.kernel.removesuffix("_8").removesuffix("_16")] for launch in launches)
    return Batch(f"{syntax} {bits} bits", launches, moved, pixels.nbytes, made, kept=(there, launches))


def _all_encoded(made: Sequence[bytes | Exception]) -> tuple[bytes, ...]:
    for one in made:
        if isinstance(one, Exception):
            raise one
    return tuple(one for one in made if isinstance(one, bytes))
