"""Seeded pictures for benchmarks: what modalities make, with their noise, since noise is what lossless codecs pay for.

Every picture is its parameters and a seed: the same bits come out everywhere (PCG64, and float32 arithmetic rounded to
integers). Each is anatomy drawn as ellipses, texture of two scales, and the noise of its modality:

* CT: Hounsfield units + 1024 in 12 bits; organs, ribs and lungs; correlated noise of 14 HU as of a soft kernel; air
  around the body is not flat.
* DX: 12 bits, photon noise that grows with the root of the signal, edges of ribs.
* MR: 12 bits, Rician noise; the background is noise, not zero.
* Cine: RGB ultrasound, a sector of speckle that moves from frame to frame, with flow in colour.
* Tiles: RGB, stained tissue: nuclei on a textured ground, noise of a camera after its own interpolation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

SEED = 20261122


def ct(count: int, side: int = 512, seed: int = SEED) -> NDArray[np.uint16]:
    """Return slices of a trunk, 12 bits, shape (count, side, side): a volume, whose organs change from one to the next.

    Parameters
    ----------
    count : int
        Number of slices.
    side : int
        Rows and columns.
    seed : int
        Of the noise.
    """
    out = np.empty((count, side, side), np.uint16)
    y, x = _grid(side, side)
    texture = _texture(side, side, np.random.default_rng(seed), 24)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        z = number / 200
        image = np.full((side, side), -1000, np.float32)
        _ellipse(image, y, x, (0.02, 0.0), (0.62 + 0.03 * np.sin(3 * z), 0.86), 45)
        for sign in (-1, 1):
            _ellipse(image, y, x, (-0.08, 0.40 * sign), (0.40 - 0.12 * z, 0.26), -820 + 60 * z)
            _ellipse(image, y, x, (0.12 + 0.05 * z, 0.32 * sign), (0.12, 0.08), 32)
        _ellipse(image, y, x, (-0.05, 0.08), (0.22, 0.17 + 0.04 * np.cos(5 * z)), 62)
        _ellipse(image, y, x, (0.42, 0.0), (0.10, 0.11), 420)
        for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False) + z:
            _ellipse(image, y, x, (0.02 + 0.54 * np.sin(angle), 0.76 * np.cos(angle)), (0.035, 0.05), 640)
        _ellipse(image, y, x, (0.78, 0.0), (0.05, 0.9), -180)
        image += 12 * np.roll(texture, 2 * number, axis=0)
        image += 14 * _smooth(rng.standard_normal((side, side), np.float32)) * 1.6
        out[number] = np.clip(np.rint(image + 1024), 0, 4095)
    return out


def dx(count: int, rows: int = 3072, columns: int = 2560, seed: int = SEED) -> NDArray[np.uint16]:
    """Return radiographs of a chest, 12 bits, shape (count, rows, columns)."""
    out = np.empty((count, rows, columns), np.uint16)
    y, x = _grid(rows, columns)
    for number in range(count):
        rng = np.random.default_rng((seed, 1, number))
        image = 2900 - 900 * (1 - x**2) * (1.1 - y**2)
        for sign in (-1, 1):
            _ellipse(image, y, x, (-0.05, 0.42 * sign), (0.62, 0.32), 820, add=True)
        _ellipse(image, y, x, (0.25, 0.12 + 0.02 * number), (0.36, 0.28), -620, add=True)
        for rib in range(9):
            arc = np.abs(y - (-0.75 + 0.17 * rib + 0.16 * x**2 + 0.01 * number))
            image -= 130 * np.clip(1 - (arc / 0.035) ** 2, 0, 1)
        image += 45 * _texture(rows, columns, rng, 48)
        image += np.sqrt(np.clip(image, 16, None)) * 0.35 * rng.standard_normal((rows, columns), np.float32)
        out[number] = np.clip(np.rint(image), 0, 4095)
    return out


def mr(count: int, side: int = 256, seed: int = SEED) -> NDArray[np.uint16]:
    """Return slices of a head, 12 bits, shape (count, side, side)."""
    out = np.empty((count, side, side), np.uint16)
    y, x = _grid(side, side)
    texture = _texture(side, side, np.random.default_rng((seed, 2)), 10)
    for number in range(count):
        rng = np.random.default_rng((seed, 2, number))
        shrink = 1 - 0.25 * abs(number - count / 2) / max(1, count / 2)
        image = np.zeros((side, side), np.float32)
        for height, width, level in ((0.92, 0.74, 1500), (0.86, 0.68, 220), (0.80, 0.62, 980), (0.62, 0.46, 1240)):
            _ellipse(image, y, x, (0.0, 0.0), (height * shrink, width * shrink), level)
        for sign in (-1, 1):
            _ellipse(image, y, x, (-0.05, 0.14 * sign), (0.26 * shrink, 0.08), 320)
        image += np.where(image > 0, 70 * np.roll(texture, number, axis=1), 0)
        real, imaginary = (22 * rng.standard_normal((side, side), np.float32) for _ in range(2))
        out[number] = np.clip(np.rint(np.hypot(image + real, imaginary)), 0, 4095)
    return out


def cine(count: int, rows: int = 600, columns: int = 800, seed: int = SEED) -> NDArray[np.uint8]:
    """Return frames of an ultrasound sector in colour, shape (count, rows, columns, 3)."""
    out = np.empty((count, rows, columns, 3), np.uint8)
    y, x = _grid(rows, columns)
    depth = np.hypot(y + 1.15, 1.2 * x)
    inside = (depth < 2.1) & (depth > 0.12) & (np.abs(1.2 * x) < 0.95 * (y + 1.15))
    speckle = np.random.default_rng((seed, 3)).standard_normal((rows + 64, columns + 64), np.float32)
    speckle = np.float32(1.8) * np.abs(_smooth(speckle))
    for number in range(count):
        rng = np.random.default_rng((seed, 3, number))
        moved = np.roll(speckle, (number % 64, (2 * number) % 64), axis=(0, 1))[:rows, :columns]
        beat = 0.06 * np.sin(number / 4)
        level = 95 - 28 * (depth - 1)
        _ellipse(level, y, x, (0.0, 0.05), (0.42 + beat, 0.30 + beat), 18)
        grey = np.where(inside, level * (0.35 + moved) + 5 * rng.standard_normal((rows, columns), np.float32), 3)
        # The screen around the sector is recorded with noise too, and has the bar of grey levels that all of them have.
        grey += np.abs(rng.standard_normal((rows, columns), np.float32))
        grey[:, -24:] = np.linspace(255, 0, rows, dtype=np.float32)[:, None]
        flow = np.where(((y - 0.05) / 0.25) ** 2 + ((x - 0.05) / 0.2) ** 2 < 1, 90 * np.sin(6 * y + number / 3), 0)
        out[number, ..., 0] = np.clip(grey + np.maximum(flow, 0), 0, 255)
        out[number, ..., 1] = np.clip(grey, 0, 255)
        out[number, ..., 2] = np.clip(grey - np.minimum(flow, 0), 0, 255)
    return out


def tiles(count: int, side: int = 512, seed: int = SEED) -> NDArray[np.uint8]:
    """Return tiles of a stained slide, shape (count, side, side, 3)."""
    out = np.empty((count, side, side, 3), np.uint8)
    y, x = _grid(side, side)
    ground, nucleus = (np.array(colour, np.float32) for colour in ((228, 176, 208), (96, 62, 138)))
    for number in range(count):
        rng = np.random.default_rng((seed, 4, number))
        fibres = _texture(side, side, rng, 40) + 0.6 * _texture(side, side, rng, 128)
        stain = np.zeros((side, side), np.float32)
        for cy, cx, size in zip(
            rng.uniform(-1, 1, 90), rng.uniform(-1, 1, 90), rng.uniform(0.02, 0.06, 90), strict=True
        ):
            _blob(stain, y, x, cy, cx, size)
        share = np.clip(stain * (0.8 + 0.15 * fibres), 0, 1)[..., None]
        image = ground * (1 - share) + nucleus * share + 11 * fibres[..., None] * np.array((0.7, 1.2, 0.8), np.float32)
        noise = rng.standard_normal((side, side, 3), np.float32)
        image += 2.2 * np.stack([_smooth(noise[..., band]) for band in range(3)], axis=-1)
        out[number] = np.clip(np.rint(image), 0, 255)
    return out


def _grid(rows: int, columns: int) -> tuple[Plane, Plane]:
    """Return coordinates from -1 to 1, shapes (rows, 1) and (1, columns)."""
    return (
        np.linspace(-1, 1, rows, dtype=np.float32)[:, None],
        np.linspace(-1, 1, columns, dtype=np.float32)[None, :],
    )


def _ellipse(
    image: Plane,
    y: Plane,
    x: Plane,
    centre: tuple[float, float],
    radii: tuple[float, float],
    level: float,
    *,
    add: bool = False,
) -> None:
    rows = np.flatnonzero(np.abs(y[:, 0] - centre[0]) <= radii[0])
    columns = np.flatnonzero(np.abs(x[0] - centre[1]) <= radii[1])
    if not rows.size or not columns.size:
        return
    part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    there = ((y[rows] - centre[0]) / radii[0]) ** 2 + ((x[:, columns] - centre[1]) / radii[1]) ** 2 <= 1
    part[there] = part[there] + level if add else level


def _blob(image: Plane, y: Plane, x: Plane, cy: float, cx: float, size: float) -> None:
    rows = np.flatnonzero(np.abs(y[:, 0] - cy) <= size)
    columns = np.flatnonzero(np.abs(x[0] - cx) <= size)
    if rows.size and columns.size:
        part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        near = ((y[rows] - cy) ** 2 + (x[:, columns] - cx) ** 2) / np.float32(size) ** 2
        np.maximum(part, np.clip(1.4 * (1 - near), 0, 1), out=part)


def _smooth(noise: Plane) -> Plane:
    """Return noise correlated over neighbours, as of a reconstruction kernel or a camera's interpolation."""
    rows = noise + 0.5 * (np.roll(noise, 1, axis=0) + np.roll(noise, -1, axis=0))
    both = (rows + 0.5 * (np.roll(rows, 1, axis=1) + np.roll(rows, -1, axis=1))) / 2.25
    return both.astype(np.float32, copy=False)


def _texture(rows: int, columns: int, rng: np.random.Generator, cells: int) -> Plane:
    """Return slow variation of unit size: noise on a grid of `cells` by `cells`, between which it is interpolated."""
    coarse = rng.standard_normal((cells + 2, cells + 2), np.float32)
    low_y, part_y = _steps(rows, cells)
    low_x, part_x = _steps(columns, cells)
    by_rows = coarse[low_y] * (1 - part_y)[:, None] + coarse[low_y + 1] * part_y[:, None]
    made = by_rows[:, low_x] * (1 - part_x) + by_rows[:, low_x + 1] * part_x
    return made.astype(np.float32, copy=False)


def _steps(length: int, cells: int) -> tuple[NDArray[np.intp], Plane]:
    at = np.linspace(0, cells, length, dtype=np.float32)
    low = at.astype(np.intp)
    return low, (at - low).astype(np.float32)
