"""Where pixels lie in a patient, after an image was resized (PS3.3 C.7.6.2, 10.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.valuerep import DSfloat

from gpuenc.dicom import functional_groups as groups
from gpuenc.dicom.template import numbers
from gpuenc.errors import InvalidPixels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from gpuenc.frames import FrameFormat

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
# Regions, shutters, collimators and masks in pixels.
_IN_PIXELS = (0x00186011, *range(0x00181600, 0x00181624), *range(0x00181700, 0x00181721), 0x00286100)


def differs(template: Dataset, fmt: FrameFormat) -> bool:
    """Whether an image has another number of rows or columns than the template's."""
    return (template.get("Rows"), template.get("Columns")) != (fmt.rows, fmt.columns)


def resize(made: Dataset, fmt: FrameFormat, *, resized: bool) -> None:
    """Make spacing and position those of `fmt`, which shows the same field of view.

    The first pixel's centre moves with the pixels' size, since it is their outer edges that stay.

    Raises
    ------
    SourceError
        Spacing, position or orientation are no numbers.
    InvalidPixels
        Nobody says that it is the same field of view, or it cannot be told here where the pixels lie.
    """
    rows, columns = int(made.get("Rows") or 0), int(made.get("Columns") or 0)
    placed = [keyword for keyword in (*_SPACINGS, "ImagePositionPatient") if made.get(keyword) is not None]
    if groups.has(made) or "TotalPixelMatrixColumns" in made:
        raise InvalidPixels(
            f"The array's frames are {fmt.rows} × {fmt.columns} and the template's {rows} × {columns}, and where each "
            "frame lies stands in its functional groups: give a template whose Rows, Columns and functional groups are "
            "those of the array"
        )
    if placed and not (resized and rows and columns):
        raise InvalidPixels(
            f"The array is {fmt.rows} × {fmt.columns} and the template {rows} × {columns}, which has {placed[0]}: say "
            "resized=True if it shows the same field of view, or give a template whose spacing and position are its own"
        )
    for tag in _IN_PIXELS:
        made.pop(tag, None)
    if not placed:
        return
    scale = rows / fmt.rows, columns / fmt.columns
    _aspect(made, *scale)
    before = numbers(made, "PixelSpacing", 2, positive=True) if made.get("PixelSpacing") is not None else None
    for keyword in _SPACINGS:
        if made.get(keyword) is not None:
            spacing = numbers(made, keyword, 2, positive=True)
            made[keyword].value = [_ds(value * by) for value, by in zip(spacing, scale, strict=True)]
    if made.get("ImagePositionPatient") is None:
        return
    if before is None or made.get("ImageOrientationPatient") is None:
        raise InvalidPixels("The template has a position without spacing or orientation: where pixels lie is unknown")
    position, orientation = numbers(made, "ImagePositionPatient", 3), numbers(made, "ImageOrientationPatient", 6)
    down, right = ((float(now) - then) / 2 for now, then in zip(made.PixelSpacing, before, strict=True))
    made.ImagePositionPatient = [
        _ds(position[axis] + orientation[axis] * right + orientation[axis + 3] * down) for axis in range(3)
    ]


def _aspect(made: Dataset, vertical: float, horizontal: float) -> None:
    if "PixelAspectRatio" in made and abs(vertical - horizontal) > 1e-9 * vertical:
        raise InvalidPixels(
            "The template has a Pixel Aspect Ratio, which resizing by another factor across than down changes: remove "
            "or correct it in the template"
        )


def _ds(value: float) -> DSfloat:
    return DSfloat(value, auto_format=True)
