"""RLE Lossless (PS3.5 Annex G), by our own kernels (kernels/rle.cu)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuenc.cuda import lane, packed, probe
from gpuenc.cuda.jobs import THREADS

if TYPE_CHECKING:
    from gpuenc.coding import Coding
    from gpuenc.cpu.codecs import Runner
    from gpuenc.cuda.kernels import Array, Device

UIDS = ("1.2.840.10008.1.2.5",)

LABEL = "cuda-rle"
DEVICE = "gpu"
THREAD_SAFE = True
PROVEN = False
ENCODER_DEPENDENCIES = dict.fromkeys(UIDS, ("gpuenc[cuda13] or gpuenc[cuda12]", "an NVIDIA GPU"))

# As in kernels/rle.cuh and rle.cu.
_MASK_WORDS, _ROWS_OF_BLOCK, _SEGMENT_WORDS = 2048, 8, 16
_HEADER_BYTES, _MOST_PLANES = 64, 15


def refusal(wanted: Coding) -> str:
    """Return why frames that become `wanted` are not for the kernels, or nothing."""
    if wanted.cell_bits not in (8, 16, 32) or wanted.raw:
        return f"the kernels encode cells of 8, 16 or 32 bits, not {wanted.cell_bits}"
    if not 0 < wanted.samples * wanted.cell_bits // 8 <= _MOST_PLANES:
        return f"RLE Lossless has room for {_MOST_PLANES} segments (PS3.5 G.5)"
    if not (0 < wanted.rows <= 65535 and 0 < wanted.columns <= 65535):
        return f"the kernels encode no images of {wanted.rows} rows and {wanted.columns} columns"
    if most_bytes(wanted) > packed.MOST_BYTES:
        return "the offsets of segments have 32 bits (PS3.5 G.5), and the frame may need more"
    return ""


def most_bytes(wanted: Coding) -> int:
    """Return the bytes that no frame exceeds.

    A row of literals alone has a header for every 128 bytes. Literals end before that only at a run of three or more,
    which saves at least the byte that the next header costs, or at 127 before a pair, which costs two bytes by itself.
    """
    row = wanted.columns + -(-wanted.columns // 128)
    planes = wanted.samples * wanted.cell_bits // 8
    return _HEADER_BYTES + planes * (wanted.rows * row + wanted.rows * row % 2)


def scratch_bytes(wanted: Coding) -> int:
    """Return the memory on the device that a frame takes beside its cells and samples."""
    planes = wanted.samples * wanted.cell_bits // 8
    return most_bytes(wanted) + 4 * planes * wanted.rows + 4 * _SEGMENT_WORDS + 8 + 16


def measure(device: Device, samples: Array, wanted: Coding, *, planar: bool = False) -> packed.Measured:
    """Queue the launches up to the size of each codestream.

    Parameters
    ----------
    device : Device
        Where `samples` are.
    samples : Array
        Shape (frames, *wanted.shape); with `planar` (frames, samples, rows, columns). Little-endian integers of
        `wanted.cell_bits`.
    wanted : Coding
        What `refusal` has nothing against.
    planar : bool
        Samples lie in planes.
    """
    frames = int(samples.__cuda_array_interface__["shape"][0])
    planes = wanted.samples * wanted.cell_bits // 8
    row_at = device.empty((frames, planes, wanted.rows), np.uint32)
    segments = device.empty((frames, _SEGMENT_WORDS), np.uint32)
    outcomes = device.empty((frames,), np.uint64)

    size = tuple(np.uint32(n) for n in (wanted.rows, wanted.columns, wanted.samples, wanted.cell_bits // 8))
    layout, number = np.uint32(planar), np.uint32(frames)
    rows_of_block = min(_ROWS_OF_BLOCK, _MASK_WORDS // -(-wanted.columns // 32))
    by_row = (-(-planes * wanted.rows // rows_of_block), min(frames, packed.MOST_GRID_Y))
    by_frame = (min(frames, packed.MOST_GRID_Y), 1)

    def write(places: Array, into: Array) -> None:
        device.launch(
            "rle", "rle_write", by_row, THREADS, (samples, row_at, segments, places, into, *size, layout, number)
        )

    device.launch("rle", "rle_measure", by_row, THREADS, (samples, row_at, *size, layout, number))
    device.launch("rle", "rle_place", by_frame, THREADS, (row_at, segments, outcomes, *size, number))
    return packed.Measured("rle_place", outcomes, frames * most_bytes(wanted), write)


class BatchEncoder(packed.BatchEncoder):
    """Encodes batches with these kernels; see `gpuenc.cuda.lane.BatchEncoder`."""

    label = LABEL
    codec = packed.Codec(refusal, scratch_bytes, measure)


_SINGLE = lane.Single(BatchEncoder)


def device_count() -> int:
    """Return how many GPUs are visible."""
    return probe.device_count()


def is_available(uid: str) -> bool:
    """Return whether some visible GPU encodes transfer syntax `uid`; see `gpuenc.cuda.probe`."""
    return uid in ENCODER_DEPENDENCIES and probe.some(lambda device: not why_unavailable(uid, device))


def why_unavailable(uid: str, device: int = 0) -> str:
    """Return in a sentence why transfer syntax `uid` cannot be encoded on `device`, or nothing."""
    return packed.why_unavailable(BatchEncoder.codec, LABEL, uid, device)


def encode_frame(src: bytes, runner: Runner) -> bytes:
    """Return one encoded frame: the function that pydicom's encoders call. See `gpuenc.cpu.codecs.encode_frame`."""
    return _SINGLE.encode_frame(src, runner)
