"""What a file says of the way from stored values to shown ones: Modality LUT and VOI LUT (PS3.3 C.11.1, C.11.2).

Of images with functional groups (PS3.3 C.7.6.16) each frame may have its own: Pixel Value Transformation and Frame VOI
LUT, shared or of each frame. Only what is linear, or a sigmoid, is read; whether there are tables instead is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuenc.dicom.raw import raw_dataset

if TYPE_CHECKING:
    from gpuenc.dicom.source import DicomFile

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_MODALITY_LUT = 0x00283000


@dataclass(frozen=True, slots=True)
class Transform:
    """Of one frame, or of all frames of a file.

    Parameters
    ----------
    slope, intercept : float
        Rescale Slope and Intercept; 1 and 0 where there are none. NaN stands for what is not a number, and for what
        cannot be told because functional groups are not one for each frame.
    center, width : float or None
        The first Window Center and Window Width; None where there is none, NaN as above.
    function : str
        VOI LUT Function (0028,1056).
    modality_lut : bool
        There is a Modality LUT Sequence instead of slope and intercept.
    """

    slope: float = 1.0
    intercept: float = 0.0
    center: float | None = None
    width: float | None = None
    function: str = "LINEAR"
    modality_lut: bool = False


def transforms(source: DicomFile) -> tuple[Transform, ...]:
    """Return the transform of all frames, as a tuple of one, or that of each frame.

    Parameters
    ----------
    source : DicomFile
        Opened with all groups.

    Raises
    ------
    SourceError
        A functional group cannot be read.
    """
    text = source.attributes.text
    whole = _transform(
        text(0x00281053),
        text(0x00281052),
        text(0x00281050),
        text(0x00281051),
        text(0x00281056),
        _MODALITY_LUT in source.attributes.elements,
    )
    grouped = [element for element in source.elements if element.tag in (_SHARED, _PER_FRAME)]
    if not grouped:
        return (whole,)
    dataset = raw_dataset(grouped, source.head, source.origin, source.implicit, source.big_endian)
    shared = next(iter(_items(dataset, _SHARED)), None)
    each = _items(dataset, _PER_FRAME)
    base = _grouped(shared, whole) if shared is not None else whole
    found = tuple(_grouped(item, base) for item in each)
    if not found:
        return (base,)
    if len(found) != source.number_of_frames:
        return (_untold(base, found),)
    return found if len(set(found)) > 1 else found[:1]


def _items(dataset: Any, tag: int) -> list[Any]:
    return list(dataset[tag].value) if tag in dataset else []


def _grouped(item: Any, base: Transform) -> Transform:
    """Return `base` with what a functional group says instead."""
    values = next(iter(item.get("PixelValueTransformationSequence") or []), None)
    voi = next(iter(item.get("FrameVOILUTSequence") or []), None)
    slope, intercept, center, width, function = base.slope, base.intercept, base.center, base.width, base.function
    if values is not None:
        slope = _number(values.get("RescaleSlope"), 1.0)
        intercept = _number(values.get("RescaleIntercept"), 0.0)
    if voi is not None and voi.get("WindowCenter") not in (None, ""):
        center, width = _number(voi.get("WindowCenter")), _number(voi.get("WindowWidth"))
        function = str(voi.get("VOILUTFunction") or "LINEAR")
    return Transform(slope, intercept, center, width, function, base.modality_lut)


def _untold(base: Transform, found: tuple[Transform, ...]) -> Transform:
    """Return `base` without what groups say that are more, or fewer, than frames: nobody knows of which."""
    if any((each.slope, each.intercept) != (base.slope, base.intercept) for each in found):
        base = replace(base, slope=math.nan, intercept=math.nan)
    shown = base.center, base.width, base.function
    if any((each.center, each.width, each.function) != shown for each in found):
        base = replace(base, center=math.nan, width=math.nan)
    return base


def _transform(
    slope: str | None, intercept: str | None, center: str | None, width: str | None, function: str | None, lut: bool
) -> Transform:
    return Transform(
        _number(slope, 1.0),
        _number(intercept, 0.0),
        _number(center),
        _number(width),
        function or "LINEAR",
        lut,
    )


def _number[T](value: Any, absent: T = None) -> float | T:  # type: ignore[assignment]
    """Return the first of the numbers that `value` is or spells (VR DS), NaN for what is none."""
    if value is None or value == "":
        return absent
    if not isinstance(value, str | int | float):
        value = next(iter(value), "")
    try:
        number = float(str(value).split("\\")[0].strip(" \0"))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
