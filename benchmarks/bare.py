"""Bare codecs on frames in memory: the ceilings. Nothing is read, written or checked in what is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import imagecodecs
import numpy as np

from gpuenc.coding import coding
from gpuenc.cpu import rle
from gpuenc.cuda import nvrules, probe
from gpuenc.frames import Frame
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import find
from gpuenc.targets import target

Codec = Callable[[np.ndarray], bytes]


def codec(name: str, bits: int) -> Codec:
    """Return imagecodecs' own call for samples of so many bits, or for RLE ours, without anything around it."""
    return {
        "htj2k-lossless": lambda a: imagecodecs.htj2k_encode(
            a, reversible=True, tlm=True, bitspersample=bits, resolutions=5
        ),
        "jpeg2000-lossless": lambda a: imagecodecs.jpeg2k_encode(
            a, level=0, codecformat="j2k", reversible=True, bitspersample=bits, numthreads=1
        ),
        "jpeg-lossless-sv1": lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1, bitspersample=bits),
        "jpeg-ls-lossless": lambda a: imagecodecs.jpegls_encode(a, bitspersample=bits, spiff=False),
        "rle": lambda a: rle.encode(a),
    }[name]


def arrays(frames: Sequence[Frame]) -> list[np.ndarray]:
    """Return unsigned frames of native cells as arrays of samples."""
    fmt = frames[0].format
    return [frame.host_cells().view(f"u{fmt.bits_allocated // 8}").reshape(fmt.shape) for frame in frames]


def on_cores(name: str, frames: Sequence[Frame]) -> Callable[[], list[bytes]]:
    """Return what encodes unsigned frames by the bare codec, called from as many threads as there are cores."""
    call = codec(name, coding(target(find(name)), frames[0].format).precision)
    samples = arrays(frames)

    def work() -> list[bytes]:
        with ThreadPoolExecutor(usable_cores()) as pool:
            return list(pool.map(call, samples))

    return work


def on_gpu(name: str, frames: Sequence[Frame], batch: int = 64) -> Callable[[], list[bytes]]:
    """Return what encodes frames, which lie on the GPU, by a loop around nvImageCodec's encoder alone.

    The codestreams are fetched, as they are by anyone who wants to keep them. Needs CuPy and a GPU.
    """
    cupy, nv, chosen = import_module("cupy"), probe.load(), target(find(name))
    wanted = coding(chosen, frames[0].format)
    there = [cupy.asarray(array) for array in arrays(frames)]
    encoder: Any = nv.Encoder(device_id=0, backends=probe.backends(nv, "jpeg2k"))
    params = nvrules.settings(nv, chosen, wanted)
    cupy.cuda.Device().synchronize()

    def work() -> list[bytes]:
        made: list[bytes] = []
        for first in range(0, len(there), batch):
            images = [nvrules.image(nv, array, chosen, wanted) for array in there[first : first + batch]]
            made += [bytes(one) for one in encoder.encode(images, "jpeg2k", params=params)]
        return made

    return work
