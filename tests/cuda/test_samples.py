"""What the launchers refuse before they launch; what they compute is in tests/simt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from gpuenc.coding import Coding
from gpuenc.cuda import samples
from gpuenc.errors import InvalidPixels
from gpuenc.frames import FrameFormat, Palette
from tests.simt.shim import SimtDevice

GRAY = FrameFormat(6, 4, 1, 16, 12, False, "MONOCHROME2")
BITS = FrameFormat(3, 3, 1, 1, 1, False, "MONOCHROME2")


def coding(fmt: FrameFormat, cell_bits: int) -> Coding:
    return Coding(fmt.rows, fmt.columns, 1, fmt.bits_stored, False, cell_bits, fmt.photometric)


def refused(call: Callable[[SimtDevice], Any], error: type[Exception], words: str) -> Exception:
    """Call, and see that nothing was launched."""
    on = SimtDevice()
    with pytest.raises(error, match=words) as caught:
        call(on)
    assert on.launched == []
    return caught.value


def test_a_frame_that_is_too_short_is_refused() -> None:
    def call(on: SimtDevice) -> object:
        frames = [on.put(np.zeros(size, np.uint8)) for size in (48, 47)]
        return samples.prepare(on, frames, GRAY, coding(GRAY, 16))

    error = refused(call, InvalidPixels, "needs 48 bytes of pixel data, there are 47")
    assert error.code == "truncated"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("offset", "enough"), [(0, 2), (7, 2)])
def test_bits_that_are_too_few_are_refused(offset: int, enough: int) -> None:
    def call(on: SimtDevice, size: int) -> samples.Prepared:
        return samples.prepare(on, [on.put(np.zeros(size, np.uint8))], BITS, coding(BITS, 8), bit_offsets=[offset])

    refused(lambda on: call(on, enough - 1), InvalidPixels, f"needs {enough} bytes")
    assert call(SimtDevice(), enough).found() == [None]


@pytest.mark.parametrize(("fmt", "offset"), [(BITS, 8), (GRAY, 1)])
def test_a_bit_offset_that_cannot_be_is_refused(fmt: FrameFormat, offset: int) -> None:
    def call(on: SimtDevice) -> object:
        cells = on.put(np.zeros(100, np.uint8))
        return samples.prepare(on, [cells], fmt, coding(fmt, 8 if fmt is BITS else 16), bit_offsets=[offset])

    refused(call, ValueError, f"cannot begin at bit {offset}")


def test_no_frames_are_no_launch() -> None:
    on = SimtDevice()
    prepared = samples.prepare(on, [], GRAY, coding(GRAY, 16))
    assert prepared.found() == []
    assert on.launched == []


@pytest.mark.parametrize(
    ("call", "values", "error", "words"),
    [
        (samples.interleave, np.zeros((2, 4, 5, 6), np.uint8), ValueError, "axis 1 has a size of 3"),
        (samples.planar, np.zeros((2, 5, 6, 4), np.uint8), ValueError, "axis 3 has a size of 3"),
        (samples.planar, np.zeros((5, 6, 3), np.uint8), ValueError, "4 axes"),
        (samples.rgb_to_ybr, np.zeros((2, 5, 6, 3), np.uint16), ValueError, "needs uint8"),
        (samples.ybr_to_rgb, np.zeros((2, 5, 6, 4), np.uint8), ValueError, "needs uint8"),
        (samples.downsample_422, np.zeros((2, 5, 7, 3), np.uint8), InvalidPixels, "even number of columns, not 7"),
        (samples.rct_forward, np.zeros((2, 5, 7, 4), np.uint8), ValueError, "axis -1 has a size of 3"),
        (samples.rct_inverse, np.zeros((2, 5, 7, 3), np.int16), ValueError, "needs int32"),
        (samples.rct_inverse, np.zeros((2, 5, 7, 3), np.int64), ValueError, "8, 16 or 32 bits, not int64"),
        (samples.planar, np.zeros((2, 5, 7, 3), ">u2"), ValueError, "little-endian"),
        (samples.planar, np.zeros((2, 5, 7, 3), np.float32), ValueError, "integers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    call: Callable[..., object], values: np.ndarray, error: type[Exception], words: str
) -> None:
    refused(lambda on: call(on, on.put(values)), error, words)


def test_arrays_of_different_shapes_are_not_compared() -> None:
    def call(on: SimtDevice) -> object:
        return samples.count_differing(on, on.put(np.zeros((2, 3, 4), "u1")), on.put(np.zeros((2, 4, 3), "u1")))

    refused(call, InvalidPixels, "cannot be compared")


@pytest.mark.parametrize(
    ("palette", "words"),
    [(Palette(0, b"", b"", b""), "empty or differ"), (Palette(0, b"12", b"12", b"1"), "empty or differ")],
)
def test_a_palette_that_contradicts_itself_is_refused(palette: Palette, words: str) -> None:
    refused(lambda on: samples.expand_palette(on, on.put(np.zeros((2, 5), "u1")), palette), InvalidPixels, words)
    signed = Palette(0, b"1", b"2", b"3")
    refused(lambda on: samples.expand_palette(on, on.put(np.zeros((2, 5), "i1")), signed), InvalidPixels, "unsigned")


def test_odd_columns_are_not_upsampled() -> None:
    refused(lambda on: samples.upsample_422(on, on.put(np.zeros((2, 30), "u1")), 3, 5), InvalidPixels, "even number")


def test_an_array_with_gaps_is_refused() -> None:
    @dataclass
    class Strided:
        inner: Any

        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return self.inner.__cuda_array_interface__ | {"strides": (1,) * 4}

    call = lambda on: samples.planar(on, Strided(on.put(np.zeros((2, 5, 7, 3), "u1"))))  # noqa: E731
    refused(call, ValueError, "C-contiguous")


def test_stray_bits_are_told_for_their_frame() -> None:
    on = SimtDevice()
    clean = np.full(24, 0x0FFF, "<u2")
    stray = clean.copy()
    stray[[3, 9]] |= np.array([0x4000, 0x1000], "<u2")
    frames = [on.put(cells.view(np.uint8)) for cells in (clean, stray, clean)]
    prepared = samples.prepare(on, frames, GRAY, coding(GRAY, 16))
    assert prepared.found() == [None, samples.Outside(2, 0x5000), None]
    assert np.array_equal(on.download(prepared.samples)[1], clean.reshape(6, 4))
    whole = replace(coding(GRAY, 16), whole_cells=True)
    assert samples.prepare(on, frames, GRAY, whole).found() == [None] * 3
