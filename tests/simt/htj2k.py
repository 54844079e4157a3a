"""The HTJ2K reference encoder, batches for it, and the kernels' results beside it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuenc.coding import Coding
from gpuenc.cuda import htj2k_plan
from gpuenc.cuda.htj2k import Pipeline
from gpuenc.cuda.kernels import Device, read_source
from tests.simt.shim import FLAGS, HERE, SimtDevice, compiled

MOST_BLOCK_BYTES = 20000
CONTENTS = (
    "zero", "lowest", "highest", "middle", "noise", "extremes", "checker", "sparse", "smooth",
)  # fmt: skip


@lru_cache
def reference() -> ctypes.CDLL:
    """Return the reference encoder, compiled without the shim."""
    text = (
        read_source("ht_tables.cuh")
        + '#line 1 "htj2k_reference.cpp"\n'
        + (HERE / "htj2k_reference.cpp").read_text(encoding="utf-8")
    )
    library = ctypes.CDLL(str(compiled(text, (*FLAGS, "-O2", "-Wextra", "-Wno-missing-field-initializers"))))
    library.reference_encode.restype = library.reference_block.restype = ctypes.c_int64
    return library


def coding(
    shape: Sequence[int], precision: int, *, signed: bool = False, levels: int = 5, mct: bool | None = None
) -> Coding:
    """Return the coding of samples of `shape`, (rows, columns) or (rows, columns, 3)."""
    samples = shape[2] if len(shape) == 3 else 1
    return Coding(
        rows=shape[0], columns=shape[1], samples=samples, precision=precision, signed=signed,
        cell_bits=8 if precision <= 8 else 16, photometric="RGB" if samples == 3 else "MONOCHROME2",
        mct=samples == 3 if mct is None else mct, levels=levels,
    )  # fmt: skip


def encoded(samples: NDArray[Any], wanted: Coding) -> bytes:
    """Return the reference's codestream of one frame."""
    values = np.ascontiguousarray(samples, np.int32)
    out = np.empty(4 * values.size + 40000 + 3000 * (wanted.levels + 1) * wanted.samples, np.uint8)
    size = reference().reference_encode(
        at(values), wanted.columns, wanted.rows, wanted.samples, wanted.precision, int(wanted.signed),
        int(wanted.mct), wanted.levels, at(out), ctypes.c_int64(out.size),
    )  # fmt: skip
    assert size <= out.size
    return out[:size].tobytes()


def coded_block(block: NDArray[np.int32]) -> bytes:
    """Return the reference's cleanup segment of a block, nothing if no coefficient is significant."""
    values, out = np.ascontiguousarray(block, np.int32), np.empty(MOST_BLOCK_BYTES, np.uint8)
    rows, columns = values.shape
    size = reference().reference_block(at(values), ctypes.c_int64(columns), columns, rows, at(out))
    return out[:size].tobytes()


def wavelet(plane: NDArray[np.int32], levels: int) -> NDArray[np.int32]:
    """Return the wavelet of a plane, low-pass samples first."""
    values = np.ascontiguousarray(plane, np.int32).copy()
    reference().reference_wavelet(at(values), values.shape[1], values.shape[0], levels)
    return values


def kernel_blocks(device: SimtDevice, blocks: Sequence[NDArray[np.int32]], kmax: int = 20) -> list[bytes]:
    """Return what the kernel makes of blocks, each with a place and a stride of its own.

    Raises
    ------
    OverflowError
        The kernel refused one.
    """
    places, planes, used = np.zeros(len(blocks), htj2k_plan.CODE_BLOCK), [], 0
    for number, block in enumerate(blocks):
        rows, columns = block.shape
        stride = columns + columns % 2 + 2 * (number % 3)
        plane = np.full((rows, stride), 0x1234567, np.int32)  # what lies between must not matter
        plane[:, :columns] = block
        places[number] = (used, stride, columns, rows, kmax, 0)
        planes.append(plane.ravel())
        used += plane.size
    magsgn = -(-(4096 * (kmax + 1) * 16 // 120 + 8) // 128) * 128
    layout = np.zeros(1, htj2k_plan.LAYOUT)
    slot = magsgn + htj2k_plan.MEL_BYTES + htj2k_plan.VLC_BYTES
    layout["blocks"], layout["slot_bytes"], layout["magsgn_bytes"] = len(blocks), slot, magsgn
    slots, faults = device.empty((len(blocks), slot // 4), "u4"), device.zeros((1,), "u4")
    results = device.empty((len(blocks), 4), "u4")
    arguments = (
        device.upload(layout), device.upload(places), device.upload(np.concatenate(planes)), np.uint32(1), slots,
        results, faults,
    )  # fmt: skip
    device.launch("ht_block", "ht_encode_blocks", (-(-len(blocks) // 4), 1), 128, arguments)
    if device.download(faults)[0]:
        raise OverflowError
    made = device.read(slots)[0].view(np.uint8)
    return [
        row[:a].tobytes() + row[magsgn : magsgn + b].tobytes() + row[slot - c :].tobytes() if total else b""
        for row, (a, b, c, total) in zip(made, device.download(results).tolist(), strict=True)
    ]


def random_block(rng: np.random.Generator) -> NDArray[np.int32]:
    """Return a block of any size and of one of twelve kinds of content, up to 20 bits."""
    rows, columns = (64, 64) if rng.random() < 0.4 else rng.integers(1, 65, 2)
    shape, bits = (int(rows), int(columns)), int(rng.integers(1, 21))
    high = (1 << bits) - 1
    sign, any_value = rng.choice([-1, 1], shape), rng.integers(0, high + 1, shape)
    kind = int(rng.integers(0, 12))
    if kind == 0:
        values = any_value * sign
    elif kind == 1:
        values = np.where(rng.random(shape) < rng.random() ** 3, any_value, 0) * sign
    elif kind == 2:
        values = np.rint(rng.laplace(0, rng.random() * 60, shape))
    elif kind == 3:
        values = high * (sign if rng.random() < 0.5 else np.full(shape, -1))
    elif kind == 4:
        values = np.zeros(shape)
    elif kind == 5:
        values = np.zeros(shape)
        values[rng.integers(shape[0]), rng.integers(shape[1])] = high
    elif kind == 6:
        values = np.full(shape, -int(rng.integers(0, high + 1)))
    elif kind == 7:
        values = np.rint(rng.laplace(0, 1, shape) * np.exp(rng.normal(0, 2, (shape[0], 1))))
    elif kind == 8:
        diagonal = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % int(rng.integers(2, 9))
        values = np.where(diagonal == 0, high * sign, 0)
    elif kind == 9:  # runs of ones in MagSgn
        values = -np.where(rng.random(shape) < 0.5, high, high >> 1)
    elif kind == 10:  # powers of two, and one less
        values = ((1 << rng.integers(0, bits + 1, shape)) - rng.integers(0, 2, shape)) * sign
    else:
        values = np.rint(rng.normal(0, 1, shape) * (rng.random(shape) < 0.1))
    return np.clip(values, -(1 << 20) + 1, (1 << 20) - 1).astype(np.int32)


def image(rng: np.random.Generator, content: str, shape: Sequence[int], precision: int, signed: bool) -> NDArray[Any]:
    """Return samples of one of `CONTENTS`."""
    low, high = (-(1 << precision - 1), (1 << precision - 1) - 1) if signed else (0, (1 << precision) - 1)
    dtype = np.dtype(f"{'i' if signed else 'u'}{1 if precision <= 8 else 2}")
    rows, columns = shape[:2]
    y, x = np.mgrid[0:rows, 0:columns]
    if content in ("zero", "lowest", "highest", "middle"):
        level = {"zero": max(low, 0), "lowest": low, "highest": high, "middle": (low + high + 1) // 2}[content]
        values: NDArray[Any] = np.full(shape, level)
    elif content == "noise":
        values = rng.integers(low, high + 1, tuple(shape))
    elif content == "extremes":
        values = np.where(rng.integers(0, 2, tuple(shape)), high, low)
    elif content == "sparse":
        values = np.where(rng.random(tuple(shape)) < 0.002, high, max(low, 0))
    else:
        wave = (
            (x + y) % 2 * (high - low) + low
            if content == "checker"
            else np.hypot(x - columns / 2, y - rows / 2) / np.hypot(rows, columns) * 2 * (high - low) + low
        )
        values = wave if len(shape) == 2 else np.stack([wave, wave[::-1], wave[:, ::-1]], 2)
        if content == "smooth":
            values = np.clip(values + rng.normal(0, max(0.4, (high - low) / 500), tuple(shape)), low, high)
    return values.astype(dtype)


def check_batch(device: Device, frames: Sequence[NDArray[Any]], wanted: Coding, misalign: int = 0) -> list[bytes]:
    """Encode a batch with the kernels, compare every codestream with the reference's, and return them."""
    samples = device.put(np.stack(frames), misalign)  # type: ignore[attr-defined]
    made = Pipeline(device, 1 << 40).encode(samples, wanted)
    for number, (codestream, frame) in enumerate(zip(made, frames, strict=True)):
        assert codestream == encoded(frame, wanted), (number, wanted)
    return made  # type: ignore[return-value]


def at(array: NDArray[Any]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)
