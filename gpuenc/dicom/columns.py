"""Attributes of files as plain values, by keyword: what a table about images has in its columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue

from gpuenc.dicom.raw import raw_dataset
from gpuenc.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuenc.dicom.source import DicomFile

Value = str | int | float | None | list[str | int | float | None]

_CHARACTER_SET = 0x00080005
# Whose values are no numbers or text, or far too long for a table.
_NO_COLUMN = frozenset(("SQ", "OB", "OD", "OF", "OL", "OV", "OW", "OB or OW", "UN"))


def tags(keywords: Sequence[str]) -> dict[str, int]:
    """Return the tag of each keyword of PS3.6, such as ``"SeriesInstanceUID"``.

    Raises
    ------
    InvalidOption
        One is none, or is that of a sequence or of binary values.
    """
    found = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise InvalidOption(f"'{keyword}' is no keyword of PS3.6")
        if dictionary_VR(tag) in _NO_COLUMN:
            raise InvalidOption(f"'{keyword}' holds neither numbers nor text, and can be no column")
        found[keyword] = tag
    return found


def values(source: DicomFile, columns: Mapping[str, int]) -> dict[str, Value]:
    """Return the value of each column, None where the element is absent, empty or cannot be read.

    Parameters
    ----------
    source : DicomFile
        Opened with all groups.
    columns : mapping
        As `tags` returns it.

    Returns
    -------
    dict
        By keyword: text, a number, or a list of these where there is more than one value (VR IS, DS and binary numbers
        are numbers).
    """
    if not columns:
        return {}
    wanted = {*columns.values(), _CHARACTER_SET}
    elements = [element for element in source.elements if element.tag in wanted]
    dataset = raw_dataset(elements, source.head, source.origin, source.implicit, source.big_endian)
    return {keyword: _plain(dataset, tag) for keyword, tag in columns.items()}


def _plain(dataset: Any, tag: int) -> Value:
    if tag not in dataset:
        return None
    try:
        value = dataset[tag].value
        return [_one(one) for one in value] if isinstance(value, MultiValue | list) else _one(value)
    except Exception:  # noqa: BLE001 - pydicom raises whatever a malformed value makes it; a column is no reason to stop
        return None


def _one(value: Any) -> str | int | float | None:
    if value is None or value == "":
        return None
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) or hasattr(value, "as_tuple") else str(value)
