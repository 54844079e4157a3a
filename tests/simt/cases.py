"""Random frames, and for every kernel a comparison with its twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuenc.coding import Coding
from gpuenc.cpu import samples as cpu
from gpuenc.cuda import samples as cuda
from gpuenc.errors import ValuesOutsideBitsStored
from gpuenc.frames import FrameFormat, Palette
from tests.simt import encoders, htj2k
from tests.simt.shim import SimtDevice

Rng = np.random.Generator


@dataclass(frozen=True)
class Native:
    """A batch of native frames, and what is to become of them."""

    fmt: FrameFormat
    coding: Coding
    pixels: list[NDArray[np.uint8]]
    bit_offsets: list[int]

    def check(self, device: SimtDevice, misalign: Sequence[int]) -> None:
        """Prepare the batch on `device`, from memory that begins at odd addresses, and compare all there is."""
        arrays = [device.put(frame, int(by)) for frame, by in zip(self.pixels, misalign, strict=True)]
        prepared = cuda.prepare(device, arrays, self.fmt, self.coding, bit_offsets=self.bit_offsets)
        got, found = device.download(prepared.samples), prepared.found()
        for frame, (pixels, offset) in enumerate(zip(self.pixels, self.bit_offsets, strict=True)):
            try:
                expected = cpu.prepare(pixels, self.fmt, self.coding, bit_offset=offset)
            except ValuesOutsideBitsStored:
                cells = cpu.native_cells(pixels, self.fmt, bit_offset=offset)
                outside = cpu.outside_bits(cells, self.fmt)
                assert found[frame] == cuda.Outside(outside.cells, outside.bits), (self, frame)
                continue
            assert found[frame] is None, (self, frame)
            assert got[frame].dtype == expected.dtype, self
            np.testing.assert_array_equal(got[frame], expected, err_msg=str((self.fmt, self.coding)))


def native(
    rng: Rng,
    allocated: int,
    wanted: int = 0,
    *,
    layout: str = "",
    raw: bool = False,
    rgb: bool = False,
    frames: int = 3,
    most: int = 40,
) -> Native:
    """Return random frames of cells of `allocated` bits for samples of `wanted` bits, by default any that fit.

    Parameters
    ----------
    layout : str
        ``"one"`` sample per pixel, ``"interleaved"``, ``"planar"``, ``"422"`` or ``"palette"``; by default any of the
        first three.
    raw, rgb : bool
        As `Coding.raw` and `Coding.to_rgb`.
    most : int
        Rows and columns go up to this.
    """
    layout = layout or str(rng.choice(["one", "interleaved", "planar"]))
    stored = int(rng.integers(1, allocated + 1)) if rng.random() < 0.8 else allocated
    sizes = [bits for bits in (8, 16, 32) if stored <= bits <= max(8, allocated)]
    wanted = (8 if layout == "palette" else wanted) or int(rng.choice(sizes))
    if layout != "palette":
        stored = min(stored, wanted)
    high = stored - 1 if rng.random() < 0.5 else int(rng.integers(stored - 1, allocated))
    own = (1 << stored) - 1 << high + 1 - stored
    overlays = int(rng.integers(0, 1 << allocated)) & ~own if allocated > 1 and rng.random() < 0.4 else 0
    columns = int(rng.integers(1, most + 1))
    fmt = FrameFormat(
        rows=int(rng.integers(1, most + 1)),
        columns=columns + columns % 2 if layout == "422" else columns,
        samples=1 if layout in ("one", "palette") else 3,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=bool(rng.random() < 0.5) and layout != "palette" and not rgb,
        photometric={"422": "YBR_FULL_422", "palette": "PALETTE COLOR", "one": "MONOCHROME2"}.get(layout, "YBR_FULL"),
        planar=int(layout == "planar"),
        high_bit=high,
        big_endian=bool(rng.random() < 0.3),
        overlay_bits=overlays,
        palette=palette(rng, stored) if layout == "palette" else None,
    )
    whole = bool(rng.random() < 0.15) and wanted >= allocated > 1
    coding = Coding(
        rows=fmt.rows,
        columns=fmt.columns,
        samples=3 if layout == "palette" else fmt.samples,
        precision=stored,
        signed=fmt.signed,
        cell_bits=wanted,
        photometric=fmt.photometric,
        upsample=layout == "422" and not raw,
        expand=layout == "palette",
        to_rgb=rgb,
        raw=raw,
        whole_cells=whole,
    )
    offsets = [int(rng.integers(0, 8)) if allocated == 1 else 0 for _ in range(frames)]
    return Native(fmt, coding, [_pixels(rng, fmt, offset) for offset in offsets], offsets)


def _pixels(rng: Rng, fmt: FrameFormat, bit_offset: int) -> NDArray[np.uint8]:
    count, allocated = fmt.frame_bits // fmt.bits_allocated, fmt.bits_allocated
    tail = rng.integers(0, 256, int(rng.integers(0, 20)), np.uint8)
    if allocated == 1:
        bits = rng.integers(0, 2, bit_offset + count, np.uint8)
        packed = np.packbits(bits, bitorder="little")
        if (bit_offset + count) % 8:
            packed[-1] |= np.uint8(0xFF << (bit_offset + count) % 8 & 0xFF) & np.uint8(rng.integers(0, 256))
        return np.concatenate([packed, tail])
    every = (1 << allocated) - 1
    own = (1 << fmt.bits_stored) - 1 << fmt.high_bit + 1 - fmt.bits_stored
    noise = [rng.integers(0, every + 1, count, np.uint64) for _ in range(4)]
    # Few bits set, half of them, most: values near zero, anywhere, near -1 and the maximum.
    value = [noise[0] & noise[1] & noise[2], noise[0], noise[0] | noise[1] | noise[2]][int(rng.integers(0, 3))]
    cells = (value & np.uint64(own)) | (noise[3] & np.uint64(fmt.overlay_bits))
    above = every >> (fmt.high_bit + 1) << (fmt.high_bit + 1) & ~fmt.overlay_bits
    negative = (cells >> np.uint64(fmt.high_bit) & np.uint64(1)).astype(bool)
    extended = negative & (rng.random(count) < rng.choice([0.0, 0.5, 1.0])) & fmt.signed
    cells |= np.where(extended, np.uint64(above), np.uint64(0))
    if rng.random() < 0.3:  # bits where none belong, in some cells
        stray = rng.random(count) < rng.choice([2 / count, 0.5])
        cells |= np.where(stray, noise[1] & noise[2], np.uint64(0))
    order = ">" if fmt.big_endian else "<"
    native_bytes = cells.astype(f"{order}u{allocated // 8}").view(np.uint8)
    return np.concatenate([native_bytes, tail])


def palette(rng: Rng, bits: int) -> Palette:
    entries = int(rng.integers(1, 300))
    first = int(rng.integers(-5, min(1 << bits, 400)))
    return Palette(first, *(rng.integers(0, 256, entries, np.uint8).tobytes() for _ in range(3)))


# One comparison for every kernel: makes a random batch, runs it on a device, compares.

Comparison = Callable[[Rng, SimtDevice, int], None]


def _prepare(allocated: int, wanted: int, layout: str, rng: Rng, device: SimtDevice, most: int, **more: Any) -> None:
    batch = native(rng, allocated, wanted, layout=layout, most=most, **more)
    batch.check(device, rng.integers(0, 16, len(batch.pixels)))


def _align_bits(rng: Rng, device: SimtDevice, most: int) -> None:
    batch = native(rng, 1, 8, layout="one", raw=True, most=most)
    batch.check(device, rng.integers(0, 16, len(batch.pixels)))


def _whole(function: str, dtypes: Sequence[str], rng: Rng, device: SimtDevice, most: int, bits: int = 0) -> None:
    """Compare a function over (frames, rows, columns, 3) with its twin, frame by frame."""
    dtype = np.dtype(str(rng.choice(list(dtypes))))
    shape = (3, int(rng.integers(1, most + 1)), 2 * int(rng.integers(1, most // 2 + 1)), 3)
    batch = integers(rng, shape, dtype)
    if bits:
        batch = (batch >> 8 * dtype.itemsize - bits).astype(dtype)
    result = getattr(cuda, function)(
        device, device.put(batch, int(rng.integers(0, 16)) // dtype.itemsize * dtype.itemsize)
    )
    expected = np.stack([getattr(cpu, function)(frame) for frame in batch])
    np.testing.assert_array_equal(device.download(result), expected, strict=True)


def _upsample(dtype: str, rng: Rng, device: SimtDevice, most: int) -> None:
    rows, columns = int(rng.integers(1, most + 1)), 2 * int(rng.integers(1, most // 2 + 1))
    batch = integers(rng, (3, rows * columns * 2), np.dtype(dtype))
    result = cuda.upsample_422(device, device.put(batch, int(rng.integers(0, 16))), rows, columns)
    expected = np.stack([cpu.upsample_422(frame, rows, columns) for frame in batch])
    np.testing.assert_array_equal(device.download(result), expected, strict=True)
    allocated = 8 * np.dtype(dtype).itemsize
    native(rng, allocated, allocated, layout="422", most=most).check(device, rng.integers(0, 16, 3))
    if allocated == 8:
        native(rng, 8, 8, layout="422", rgb=True, most=most).check(device, rng.integers(0, 16, 3))


def _expand(dtype: str, rng: Rng, device: SimtDevice, most: int) -> None:
    table = palette(rng, 8)
    batch = integers(rng, (3, int(rng.integers(1, most + 1)), 5), np.dtype(dtype))
    batch = np.where(rng.random(batch.shape) < 0.5, batch.astype(np.int64) % 400, batch).astype(dtype)
    result = cuda.expand_palette(device, device.put(batch, int(rng.integers(0, 16))), table)
    np.testing.assert_array_equal(device.download(result), cpu.expand_palette(batch, table), strict=True)
    native(rng, 8 * np.dtype(dtype).itemsize, layout="palette", most=most).check(device, rng.integers(0, 16, 3))


def _planar(dtype: str, rng: Rng, device: SimtDevice, most: int) -> None:
    batch = integers(rng, (3, int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1)), 3), np.dtype(dtype))
    result = cuda.planar(device, device.put(batch, int(rng.integers(0, 16))))
    expected = np.stack([cpu.planar(frame) for frame in batch])
    np.testing.assert_array_equal(device.download(result), expected, strict=True)


def _interleave(size: int, rng: Rng, device: SimtDevice, most: int) -> None:
    dtype = np.dtype(str(rng.choice([f"u{size}", f"i{size}"])))
    batch = integers(rng, (3, 3, int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1))), dtype)
    result = cuda.interleave(device, device.put(batch, int(rng.integers(0, 16))))
    expected = np.stack([cpu.interleave(frame) for frame in batch])
    np.testing.assert_array_equal(device.download(result), expected, strict=True)


def _prepare_planar(allocated: int, wanted: int, rng: Rng, device: SimtDevice, most: int) -> None:
    _prepare(allocated, wanted, "planar", rng, device, most)
    if wanted == 8:
        _prepare(allocated, wanted, "planar", rng, device, most, rgb=True)
    if allocated == wanted:
        _interleave(allocated // 8, rng, device, most)


def _count(sizes: tuple[int, int], rng: Rng, device: SimtDevice, most: int) -> None:
    shape = (3, int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1)))
    first, second = (np.dtype(str(rng.choice([f"u{size}", f"i{size}"]))) for size in sizes)
    one = integers(rng, shape, first)
    other = one.astype(second)  # equal where the value fits, another where not
    changed = rng.random(shape) < rng.choice([0.0, 0.01, 1.0])
    other = np.where(changed, integers(rng, shape, second), other)
    if rng.random() < 0.5:
        one, other = other, one
    arrays = [device.put(values, int(rng.integers(0, 16))) for values in (one, other)]
    expected = [cpu.count_differing(*pair) for pair in zip(one, other, strict=True)]
    assert cuda.count_differing(device, *arrays) == expected


def _checksum(rng: Rng, device: SimtDevice, most: int) -> None:
    dtype = np.dtype(str(rng.choice(["u1", "i1", "u2", "i2", "u4", "i4"])))
    shape = (3, int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1)))
    batch = integers(rng, shape, dtype)
    got = cuda.checksum(device, device.put(batch, int(rng.integers(0, 16))), cuda.checksum_tables(device))
    assert got == [cpu.checksum(frame) for frame in batch]


def _htj2k(bits: int, levels: tuple[int, int], rng: Rng, device: SimtDevice, most: int) -> None:
    """Encode a batch by all kernels of HTJ2K; of `bits` and `levels` depends which they are."""
    samples = () if rng.random() < 0.7 else (3,)
    size = (int(rng.integers(1, most + 1)), int(rng.integers(1, min(most, 90) + 1)))
    precision, signed = int(rng.integers(1 if bits == 8 else 9, bits + 1)), bool(rng.random() < 0.4)
    wanted = htj2k.coding(
        (*size, *samples), precision, signed=signed, levels=int(rng.integers(*levels)), mct=bool(samples) and bits == 8
    )
    contents = rng.choice(htj2k.CONTENTS, 2, replace=False)
    frames = [htj2k.image(rng, str(content), wanted.shape, precision, signed) for content in contents]
    htj2k.check_batch(device, frames, wanted, int(rng.integers(0, 16)) // 2 * 2)


def integers(rng: Rng, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return random integers; sometimes only the smallest and the largest."""
    limits = np.iinfo(dtype)
    if rng.random() < 0.3:
        return rng.choice(np.array([limits.min, limits.max, 0, 1], dtype), shape)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


COMPARISONS: dict[str, Comparison] = {
    **{
        f"prepare_{source}_{target}": partial(_prepare, source, target, "one")
        for source, target in ((8, 8), (16, 8), (16, 16), (32, 8), (32, 16), (32, 32))
    },
    **{
        f"prepare_planar_{source}_{target}": partial(_prepare_planar, source, target)
        for source, target in ((8, 8), (16, 8), (16, 16), (32, 32))
    },
    "prepare_bits": partial(_prepare, 1, 8, ""),
    "align_bits": _align_bits,
    **{f"planar_{bits}": partial(_planar, f"u{bits // 8}") for bits in (8, 16, 32)},
    **{f"upsample_422_{bits}": partial(_upsample, f"u{bits // 8}") for bits in (8, 16, 32)},
    "downsample_422": partial(_whole, "downsample_422", ("u1",)),
    **{f"expand_palette_{bits}": partial(_expand, f"u{bits // 8}") for bits in (8, 16, 32)},
    "rgb_to_ybr": partial(_whole, "rgb_to_ybr", ("u1",)),
    "ybr_to_rgb": partial(_whole, "ybr_to_rgb", ("u1",)),
    **{f"rct_forward_{bits}": partial(_whole, "rct_forward", (f"u{bits // 8}", f"i{bits // 8}")) for bits in (8, 16)},
    "rct_forward_32": partial(_whole, "rct_forward", ("u4", "i4"), bits=31),
    "rct_inverse": partial(_whole, "rct_inverse", ("i4",), bits=30),
    **{f"ict_forward_{bits}": partial(_whole, "ict_forward", (f"u{bits // 8}", f"i{bits // 8}")) for bits in (8, 16)},
    "ict_forward_32": partial(_whole, "ict_forward", ("u4", "i4"), bits=19),
    "ict_inverse": partial(_whole, "ict_inverse", ("i4",)),
    **{
        f"count_differing_{one}_{other}": partial(_count, (one // 8, other // 8))
        for one, other in ((8, 8), (16, 16), (32, 32), (8, 16), (8, 32), (16, 32))
    },
    **{
        f"jpeg_lossless_{step}_{bits}": partial(encoders.compare_jpeg_lossless, f"u{bits // 8}")
        for step in ("count", "pack")
        for bits in (8, 16)
    },
    **{f"jpeg_lossless_{step}": partial(encoders.compare_jpeg_lossless, "u2") for step in ("plan", "place", "stuff")},
    **dict.fromkeys(("rle_measure", "rle_place", "rle_write", "place_streams"), encoders.compare_rle),
    "crc32": _checksum,
    "crc32_tables": _checksum,
    **{f"level_shift_{bits}": partial(_htj2k, bits, (0, 1)) for bits in (8, 16)},
    **{f"dwt53_first_{bits}": partial(_htj2k, bits, (1, 2)) for bits in (8, 16)},
    **dict.fromkeys(("dwt53_next", "ht_encode_blocks"), partial(_htj2k, 16, (2, 6))),
    **dict.fromkeys(("packet_headers", "place_frames", "gather"), partial(_htj2k, 8, (2, 6))),
}
