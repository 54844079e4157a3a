"""Frames with known samples, and what the plug-in makes of them."""

import numpy as np

from gpuenc.codestream import check
from gpuenc.coding import coding
from gpuenc.cpu import codecs, samples
from gpuenc.frames import Encoded, Frame, FrameFormat, FrameRef
from gpuenc.syntaxes import TABLE
from gpuenc.targets import target

REF = FrameRef("test", 3)
LOSSLESS = [syntax for syntax in TABLE if syntax.loss != "always" and not syntax.recompresses_jpeg]


def limits(fmt):
    if fmt.signed:
        return -(1 << (fmt.bits_stored - 1)), (1 << (fmt.bits_stored - 1)) - 1
    return 0, (1 << fmt.bits_stored) - 1


def content(kind, fmt, seed=0):
    """Samples of shape `fmt.shape`, in the dtype of the cells."""
    low, high = limits(fmt)
    rng = np.random.default_rng(seed)
    values = {
        "noise": lambda: rng.integers(low, high, fmt.shape, endpoint=True),
        "lowest": lambda: np.full(fmt.shape, low),
        "highest": lambda: np.full(fmt.shape, high),
        "extremes": lambda: np.where(rng.integers(0, 2, fmt.shape) > 0, high, low),
    }[kind]()
    return values.astype(f"{'i' if fmt.signed else 'u'}{max(1, fmt.bits_allocated // 8)}")


def picture(fmt):
    """A picture with edges and noise over the whole range, saturated in places."""
    low, high = limits(fmt)
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: fmt.rows, : fmt.columns]
    value = 0.5 + 0.35 * np.sin(x / 23) * np.cos(y / 31) + rng.normal(0, 0.003, y.shape)
    value[(x - fmt.columns / 2) ** 2 + (y - fmt.rows / 2) ** 2 > (0.45 * fmt.rows) ** 2] = 0
    value[fmt.rows // 3 : fmt.rows // 2, : fmt.columns // 4] = 1.1
    if fmt.samples == 3:
        value = np.stack([value, 0.8 * value + 0.1, 1 - value], -1)
    pixels = (low + value * (high - low)).round().clip(low, high)
    return pixels.astype(f"{'i' if fmt.signed else 'u'}{fmt.bits_allocated // 8}")


def mono(rows, columns, bits, *, signed=False, allocated=None, photometric="MONOCHROME2"):
    container = allocated or next(size for size in (8, 16, 32) if bits <= size)
    return FrameFormat(rows, columns, 1, container, bits, signed, photometric)


def rgb(rows, columns, bits=8, photometric="RGB"):
    return FrameFormat(rows, columns, 3, next(size for size in (8, 16, 32) if bits <= size), bits, False, photometric)


def frame_of(pixels, fmt):
    return Frame(REF, fmt, samples.to_cells(pixels, fmt))


def encode(syntax, frame, **options):
    chosen = target(syntax, **options)
    encoder = codecs.BatchEncoder(chosen)
    [result] = encoder.encode([frame])
    encoder.close()
    assert isinstance(result, Encoded), result
    assert (result.ref, result.plugin) == (frame.ref, "imagecodecs")
    check(result.codestream, syntax, coding(chosen, frame.format))
    return result.codestream
