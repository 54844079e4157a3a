"""What a file says of the way from stored values to shown ones: Modality LUT and VOI LUT (PS3.3 C.11.1, C.11.2).

Of images with functional groups (PS3.3 C.7.6.16) each frame may have its own: Pixel Value Transformation and Frame VOI
LUT, shared or of each frame. A Frame VOI LUT may be a table too (C.7.6.16.2.10b); a Modality LUT of a frame is linear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpuenc.dicom.raw import raw_dataset
from gpuenc.dicom.tables import Table, table_in, voi_signed

if TYPE_CHECKING:
    from gpuenc.dicom.source import DicomFile
    from gpuenc.frames import FrameFormat

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_MODALITY_LUT, _VOI_LUT = 0x00283000, 0x00283010


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
    modality : Table or None
        The table of a Modality LUT Sequence, which takes the place of slope and intercept.
    voi : Table or None
        The table of the first item of a VOI LUT Sequence: another view than the window (C.11.2).
    """

    slope: float = 1.0
    intercept: float = 0.0
    center: float | None = None
    width: float | None = None
    function: str = "LINEAR"
    modality: Table | None = None
    voi: Table | None = None


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
    whole = Transform(
        _number(text(0x00281053), 1.0),
        _number(text(0x00281052), 0.0),
        _number(text(0x00281050)),
        _number(text(0x00281051)),
        text(0x00281056) or "LINEAR",
    )
    wanted = (_SHARED, _PER_FRAME, _MODALITY_LUT, _VOI_LUT)
    grouped = [element for element in source.elements if element.tag in wanted]
    if not grouped:
        return (whole,)
    dataset = raw_dataset(grouped, source.head, source.origin, source.implicit, source.big_endian)
    fmt = source.format
    modality = _first(dataset, _MODALITY_LUT)
    if modality is not None:
        whole = replace(whole, modality=table_in(modality, signed=fmt.signed))
    whole = replace(whole, voi=_voi_table(dataset, whole, fmt))
    shared = next(iter(_items(dataset, _SHARED)), None)
    each = _items(dataset, _PER_FRAME)
    base = _grouped(shared, whole, fmt) if shared is not None else whole
    found = tuple(_grouped(item, base, fmt) for item in each)
    if not found:
        return (base,)
    if len(found) != source.number_of_frames:
        return (_untold(base, found),)
    return found if len(set(found)) > 1 else found[:1]


def _items(dataset: Any, tag: int) -> list[Any]:
    return list(dataset[tag].value) if tag in dataset else []


def _first(dataset: Any, tag: int) -> Any:
    return next(iter(_items(dataset, tag)), None)


def _voi_table(dataset: Any, transform: Transform, fmt: FrameFormat) -> Table | None:
    item = _first(dataset, _VOI_LUT)
    if item is None:
        return None
    modality = transform.modality is not None
    return table_in(item, signed=voi_signed(fmt, transform.slope, transform.intercept, modality=modality))


def _grouped(item: Any, base: Transform, fmt: FrameFormat) -> Transform:
    """Return `base` with what a functional group says instead."""
    values = next(iter(item.get("PixelValueTransformationSequence") or []), None)
    voi = next(iter(item.get("FrameVOILUTSequence") or []), None)
    found = base
    if values is not None:
        slope, intercept = _number(values.get("RescaleSlope"), 1.0), _number(values.get("RescaleIntercept"), 0.0)
        found = replace(found, slope=slope, intercept=intercept)
    if voi is None:
        return found
    window, table = voi.get("WindowCenter") not in (None, ""), _voi_table(voi, found, fmt)
    if window:
        center, width = _number(voi.get("WindowCenter")), _number(voi.get("WindowWidth"))
        function = str(voi.get("VOILUTFunction") or "LINEAR")
        return replace(found, center=center, width=width, function=function, voi=table)
    return found if table is None else replace(found, center=None, width=None, function="LINEAR", voi=table)


def _untold(base: Transform, found: tuple[Transform, ...]) -> Transform:
    """Return `base` without what groups say that are more, or fewer, than frames: nobody knows of which."""
    if any((each.slope, each.intercept) != (base.slope, base.intercept) for each in found):
        base = replace(base, slope=math.nan, intercept=math.nan)
    shown = base.center, base.width, base.function, base.voi
    if any((each.center, each.width, each.function, each.voi) != shown for each in found):
        base = replace(base, center=math.nan, width=math.nan, voi=None)
    return base


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
