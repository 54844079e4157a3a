"""What a derived object's template says of its pixels, strictly: what is no number is named before anything is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
_INTEGERS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)


def check(template: Dataset) -> None:
    """Refuse a template that is no image, or whose description of its pixels is no number where it should be one.

    Raises
    ------
    SourceError
        ``corrupt-header``; the message names the element.
    """
    for keyword in _UIDS:
        uid = _value(template, keyword)
        if not uid:
            raise SourceError(f"the template has no {keyword}, which every image has", code="corrupt-header")
        if not isinstance(uid, str):
            raise _wrong(keyword, "one UID")
    for keyword in _INTEGERS:
        value = _value(template, keyword)
        if value is not None and value != "" and not (isinstance(value, int | float) and int(value) == value):
            raise _wrong(keyword, "one integer")


def numbers(template: Dataset, keyword: str, count: int, *, positive: bool = False) -> list[float]:
    """Return the finite numbers of an element, exactly `count`.

    Raises
    ------
    SourceError
        ``corrupt-header``: it has others, or none.
    """
    value = _value(template, keyword)
    try:
        found = [float(each) for each in value]
    except (TypeError, ValueError, OverflowError):
        found = []
    if len(found) != count or not all(math.isfinite(each) and (each > 0 or not positive) for each in found):
        raise _wrong(keyword, f"{count} numbers{' above 0' if positive else ''}")
    return found


def _value(template: Dataset, keyword: str) -> Any:
    try:
        return template.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom's converters raise whatever they like, and quote the value
        raise _wrong(keyword, "anything that can be read") from None


def _wrong(keyword: str, what: str) -> SourceError:
    return SourceError(f"the template's {keyword} is not {what}", code="corrupt-header")
