"""Our own encoders on a GPU: the bytes of the references, and how fast."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pytest

from gpuenc.coding import coding
from gpuenc.cpu import codecs as cpu_codecs
from gpuenc.cuda import jpeg_lossless, packed, rle
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import BY_UID
from gpuenc.targets import target
from tests.gpu.test_speed import CORES, batch_of, gb_s
from tests.simt import encoders, references

CODECS = {
    "JPEG Lossless": (jpeg_lossless, references.jpeg_lossless, ("u1", "u2")),
    "RLE": (rle, references.rle, ("u1", "u2", "u4")),
}
SIZES = (512, 2048)


def batches(seed, kinds):
    """Yield batches of up to 64 frames of one size, of every content, without end."""
    rng = np.random.default_rng(seed)
    while True:
        shape = (int(rng.integers(1, 49)), int(rng.integers(1, 97)))
        shape = shape if rng.random() < 0.7 else (*shape, 3)
        yield encoders.batch_of(rng, shape, str(rng.choice(kinds)), int(rng.integers(1, 65)))


@pytest.mark.parametrize("name", CODECS)
def test_the_bytes_of_the_reference(gpu, evidence, kernels, name):
    """A hundred thousand frames of each codec; then some larger than what a round of a block's threads takes."""
    module, reference, kinds = CODECS[name]
    wanted, seen, wrong = gpu.count(100_000, 70), 0, 0
    with ThreadPoolExecutor(CORES) as pool:
        for batch in batches(7, kinds):
            shape = batch.shape[1:]
            made = packed.collect(
                kernels, module.measure(kernels, kernels.put(batch), encoders.wanted(shape, batch.dtype))
            )
            wrong += sum(one != right for one, right in zip(made, pool.map(reference, batch), strict=True))
            seen += len(batch)
            if seen >= wanted:
                break
    large = islice(batches(8, kinds), gpu.count(4, 0))
    for batch in (np.kron(one[:2], np.ones((1, 40, 20, *[1] * (one.ndim - 3)), one.dtype)) for one in large):
        shape = batch.shape[1:]
        made = packed.collect(kernels, module.measure(kernels, kernels.put(batch), encoders.wanted(shape, batch.dtype)))
        wrong += sum(one != reference(frame) for one, frame in zip(made, batch, strict=True))
        seen += len(batch)
    evidence.tally("own-exact", not wrong, f"{name}: {wrong} of {seen} frames")
    assert not wrong


def _rate(cupy, run, size):
    run()
    best = 0.0
    for _ in range(5):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        best = max(best, size / cupy.cuda.get_elapsed_time(start, end) / 1e6)
    return best


def test_rates_of_the_kernels_alone(gpu, evidence, kernels, cupy):
    """Samples on the device to codestreams on the device, launches included."""
    rates = {}
    for name, (module, _, _) in CODECS.items():
        for bits in (8, 16):
            fmt = FrameFormat(512, 512, 1, bits, min(bits, 12), False, "MONOCHROME2")
            wanted = coding(target(BY_UID[module.UIDS[-1]]), fmt)
            values = encoders.smooth(np.random.default_rng(1), (512, 512), np.dtype(f"u{bits // 8}"))
            batch = cupy.asarray(np.stack([values] * 128))

            def run(module=module, batch=batch, wanted=wanted):
                measured = module.measure(kernels, batch, wanted)
                packed_ = kernels.empty((-(-measured.room_bytes // 256) * 256,), np.uint8)
                places = kernels.empty((128, 2), np.uint64)
                room = np.uint32(packed_.size // 256)
                kernels.launch(
                    "packed", "place_streams", (1, 1), 256, (measured.outcomes, places, np.uint32(128), room)
                )
                measured.write(places, packed_)

            rates[f"{name} {bits} bits"] = round(_rate(cupy, run, batch.nbytes), 1)
    said = ", ".join(f"{name} {rate:g} GB/s" for name, rate in rates.items())
    evidence.record("own-kernel-rates", f"{said}; 128 frames of 512², smooth", GB_s=rates)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CODECS)
def test_rates_from_host_memory_to_codestreams(gpu, evidence, cupy, end_to_end, name, size, lanes):
    module = CODECS[name][0]
    chosen = target(BY_UID[module.UIDS[-1]])
    batch = batch_of(size, max(4, min(128, (32 << 20) // (size * size * 2))))
    made = [module.BatchEncoder(chosen) for _ in range(lanes)]
    try:
        end_to_end[f"{name} {size}² {lanes} lanes"] = round(gb_s(made, batch), 2)
    finally:
        for encoder in made:
            encoder.close()
    if lanes == 1:
        one, count = cpu_codecs.BatchEncoder(chosen), max(CORES, len(batch))
        frames = [batch[number % len(batch)] for number in range(count)]
        with ThreadPoolExecutor(CORES) as pool:
            spread = [Spread(one, pool)]
            end_to_end[f"{name} {size}² CPU"] = round(gb_s(spread, frames), 2)
    said = "; ".join(f"{what} {rate:.2f}" for what, rate in end_to_end.items())
    evidence.record("own-rates", f"GB/s: {said}; {CORES} cores", GB_s=dict(end_to_end))


class Spread:
    """The CPU plug-in with a frame for each core."""

    def __init__(self, encoder, pool):
        self._encoder, self._pool = encoder, pool

    def encode(self, frames):
        return [result for [result] in self._pool.map(lambda frame: self._encoder.encode([frame]), frames)]


@pytest.fixture(scope="module")
def end_to_end():
    return {}
