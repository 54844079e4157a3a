"""JPEG Lossless with selection value 1, by our own kernels (kernels/jpeg_lossless.cu)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuenc.cuda import lane, packed, probe
from gpuenc.cuda.jobs import THREADS

if TYPE_CHECKING:
    from gpuenc.coding import Coding
    from gpuenc.cpu.codecs import Runner
    from gpuenc.cuda.kernels import Array, Device

UIDS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")

LABEL = "cuda-jpeg-lossless"
DEVICE = "gpu"
THREAD_SAFE = True
PROVEN = False
ENCODER_DEPENDENCIES = dict.fromkeys(UIDS, ("gpuenc[cuda13] or gpuenc[cuda12]", "an NVIDIA GPU"))

# As in kernels/jpeg_lossless.cuh.
_CHUNK, _CATEGORIES, _TABLE_BYTES = 2048, 17, 40
_MOST_SAMPLES = (1 << 31) - 1
# T.81 annex H, for samples of 8 and 16 bits: 4 or 5 bits of a flat table and 8 or 15 more. No better table does worse.
_MOST_BITS = {8: 12, 16: 20}
_SLACK_BITS = 64
# What codestreams are expected to take, of their samples' bits; noise takes a few percent more than the samples.
_ROOM = 1.25
_HEAD_BYTES = 128


def refusal(wanted: Coding) -> str:
    """Return why frames that become `wanted` are not for the kernels, or nothing."""
    if wanted.cell_bits not in _MOST_BITS or wanted.precision != wanted.cell_bits or wanted.raw:
        return f"the kernels encode whole cells of 8 or 16 bits, not {wanted.precision} in {wanted.cell_bits}"
    if wanted.samples not in (1, 3):
        return f"the kernels encode 1 or 3 samples per pixel, not {wanted.samples}"
    if not (0 < wanted.rows <= 65535 and 0 < wanted.columns <= 65535):
        return f"JPEG has no images of {wanted.rows} rows and {wanted.columns} columns"
    samples = wanted.rows * wanted.columns * wanted.samples
    if samples > _MOST_SAMPLES or _scratch_words(samples, wanted.cell_bits) * 4 > packed.MOST_BYTES:
        return f"the kernels encode no frames of {samples} samples"
    return ""


def scratch_bytes(wanted: Coding) -> int:
    """Return the memory on the device that a frame takes beside its cells and samples."""
    samples = wanted.rows * wanted.columns * wanted.samples
    chunks = -(-samples // _CHUNK)
    tables = _CATEGORIES * 4 + _TABLE_BYTES + 8 + 4 + 8 + 16
    return _scratch_words(samples, wanted.cell_bits) * 4 + chunks * (2 * _CATEGORIES + 8 + 4) + tables + _room(wanted)


def measure(device: Device, samples: Array, wanted: Coding) -> packed.Measured:
    """Queue the launches up to the size of each codestream.

    Parameters
    ----------
    device : Device
        Where `samples` are.
    samples : Array
        Shape (frames, *wanted.shape), whole cells of 8 or 16 bits, signed ones as two's complement.
    wanted : Coding
        What `refusal` has nothing against.
    """
    frames = int(samples.__cuda_array_interface__["shape"][0])
    count, bits = wanted.rows * wanted.columns * wanted.samples, wanted.cell_bits
    chunks, words = -(-count // _CHUNK), _scratch_words(count, bits)
    histograms = device.empty((frames, _CATEGORIES, chunks), np.uint16)
    tables = device.empty((frames, _CATEGORIES), np.uint32)
    dhts = device.empty((frames, _TABLE_BYTES), np.uint8)
    bit_at = device.empty((frames, chunks + 1), np.uint64)
    faults = device.empty((frames,), np.uint32)
    scratch = device.empty((frames, words), np.uint32)
    stuffed = device.empty((frames, chunks), np.uint32)
    outcomes = device.empty((frames,), np.uint64)

    size = (np.uint32(wanted.rows), np.uint32(wanted.columns), np.uint32(wanted.samples))
    by_chunk, by_frame = (chunks, min(frames, packed.MOST_GRID_Y)), (min(frames, packed.MOST_GRID_Y), 1)
    room, number = np.uint32(words), np.uint32(frames)

    def launch(kernel: str, grid: tuple[int, int], *arguments: Array | np.uint32) -> None:
        device.launch("jpeg_lossless", f"jpeg_lossless_{kernel}", grid, THREADS, arguments)

    def write(places: Array, into: Array) -> None:
        precision = np.uint32(wanted.precision)
        launch("stuff", by_chunk, scratch, bit_at, stuffed, dhts, places, into, *size, precision, room, number)

    launch(f"count_{bits}", by_chunk, samples, histograms, *size, number)
    launch("plan", by_frame, histograms, tables, dhts, bit_at, faults, *size, room, number)
    launch(f"pack_{bits}", by_chunk, samples, tables, bit_at, faults, scratch, stuffed, *size, room, number)
    launch("place", by_frame, stuffed, bit_at, dhts, faults, outcomes, *size, number)
    return packed.Measured("jpeg_lossless_plan", outcomes, frames * _room(wanted), write)


def _scratch_words(samples: int, bits: int) -> int:
    """Return the 32-bit words that hold any frame's code, without stuffed bytes."""
    return -(-(samples * _MOST_BITS[bits] + _SLACK_BITS) // 32)


def _room(wanted: Coding) -> int:
    return int(wanted.rows * wanted.columns * wanted.samples * wanted.cell_bits // 8 * _ROOM) + _HEAD_BYTES


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
