"""Every kernel at the size of real batches: a call that launches it, and the bytes it has to move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gpuenc.coding import Coding
from gpuenc.cuda import samples as cuda
from gpuenc.frames import FrameFormat, Palette


@dataclass(frozen=True)
class Case:
    """One kernel on one batch.

    `run` makes its jobs and launches it; `moved_bytes` are read and written, each byte once.
    """

    run: Callable[[], Any]
    moved_bytes: int


def _coding(fmt: FrameFormat, cell_bits: int, **more: Any) -> Coding:
    return Coding(
        rows=fmt.rows, columns=fmt.columns, samples=more.pop("samples", fmt.samples), precision=fmt.bits_stored,
        signed=False, cell_bits=cell_bits, photometric=fmt.photometric, **more,
    )  # fmt: skip


def _prepare(
    allocated: int, wanted: int, layout: str, device: Any, side: int, frames: int, result: float = 1.0, **more: Any
) -> Case:
    """Return a case over native frames; `result` is samples of the result per cell."""
    samples = 3 if layout in ("planar", "422") else 1
    photometric = {"422": "YBR_FULL_422", "palette": "PALETTE COLOR", "planar": "YBR_FULL"}.get(layout, "MONOCHROME2")
    stored = min(allocated, wanted)
    fmt = FrameFormat(
        side, side, samples, allocated, stored, False, photometric, int(layout == "planar"),
        palette=Palette(0, *(bytes(range(256)),) * 3) if layout == "palette" else None,
    )  # fmt: skip
    cells = np.random.default_rng(1).integers(0, 1 << min(stored, 31), fmt.frame_bits // allocated)
    kind = f"<u{max(8, allocated) // 8}"
    packed = np.packbits(cells.astype(np.uint8)) if allocated == 1 else cells.astype(kind).view(np.uint8)
    batch = [device.put(packed) for _ in range(frames)]
    coding = _coding(fmt, wanted, **more)
    made = packed.nbytes if more.get("raw") else int(cells.size * result) * wanted // 8
    return Case(lambda: cuda.prepare(device, batch, fmt, coding), frames * (packed.nbytes + made))


def _over(function: str, dtype: str, shape: str, result: int, device: Any, side: int, frames: int, **more: Any) -> Case:
    """Return a case over (frames, ...) samples; `result` is bytes of the result per pixel."""
    axes = {"pixels": (side, side, 3), "planes": (3, side, side), "samples": (side, side)}[shape]
    limit = min(256, np.iinfo(dtype).max)
    values = np.random.default_rng(2).integers(0, limit, (frames, *axes)).astype(dtype)
    there = device.put(values)
    return Case(lambda: getattr(cuda, function)(device, there, **more), values.nbytes + frames * side * side * result)


def _count(one: int, other: int, device: Any, side: int, frames: int) -> Case:
    values = np.random.default_rng(3).integers(0, 128, (frames, side, side))
    pair = [values.astype(f"u{bits // 8}") for bits in (one, other)]
    there = [device.put(array) for array in pair]
    return Case(lambda: cuda.count_differing(device, *there), sum(array.nbytes for array in pair))


def _checksum(device: Any, side: int, frames: int) -> Case:
    values = np.random.default_rng(4).integers(0, 4096, (frames, side, side)).astype(np.uint16)
    there, tables = device.put(values), cuda.checksum_tables(device)
    return Case(lambda: cuda.checksum(device, there, tables), values.nbytes)


# Kernel → a function of device, side in pixels and number of frames.
CASES: dict[str, Callable[[Any, int, int], Case]] = {
    **{
        f"prepare_{source}_{target}": partial(_prepare, source, target, "one")
        for source, target in ((8, 8), (16, 8), (16, 16), (32, 8), (32, 16), (32, 32))
    },
    **{
        f"prepare_planar_{source}_{target}": partial(_prepare, source, target, "planar")
        for source, target in ((8, 8), (16, 8), (16, 16), (32, 32))
    },
    "prepare_bits": partial(_prepare, 1, 8, "one"),
    "align_bits": partial(_prepare, 1, 8, "one", raw=True),
    **{f"upsample_422_{bits}": partial(_prepare, bits, bits, "422", result=1.5, upsample=True) for bits in (8, 16, 32)},
    **{
        f"expand_palette_{bits}": partial(_prepare, bits, 8, "palette", result=3, samples=3, expand=True)
        for bits in (8, 16, 32)
    },
    **{f"planar_{bits}": partial(_over, "planar", f"u{bits // 8}", "pixels", 3 * bits // 8) for bits in (8, 16, 32)},
    "downsample_422": partial(_over, "downsample_422", "u1", "pixels", 2),
    "rgb_to_ybr": partial(_over, "rgb_to_ybr", "u1", "pixels", 3),
    "ybr_to_rgb": partial(_over, "ybr_to_rgb", "u1", "pixels", 3),
    **{f"rct_forward_{bits}": partial(_over, "rct_forward", f"u{bits // 8}", "pixels", 12) for bits in (8, 16, 32)},
    "rct_inverse": partial(_over, "rct_inverse", "i4", "pixels", 12),
    **{f"ict_forward_{bits}": partial(_over, "ict_forward", f"u{bits // 8}", "pixels", 12) for bits in (8, 16, 32)},
    "ict_inverse": partial(_over, "ict_inverse", "i4", "pixels", 12),
    **{
        f"count_differing_{one}_{other}": partial(_count, one, other)
        for one, other in ((8, 8), (16, 16), (32, 32), (8, 16), (8, 32), (16, 32))
    },
    "crc32": _checksum,
}
