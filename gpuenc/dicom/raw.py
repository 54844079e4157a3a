"""Elements found in bytes, as pydicom's raw elements: nothing is converted until it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement

    from gpuenc.dicom.elements import Element


def raw_dataset(elements: list[Element], head: bytes, origin: int, implicit: bool, big_endian: bool) -> Dataset:
    """Return the dataset of `elements`, whose positions count from ``head[-origin]``."""
    raw = {BaseTag(element.tag): raw_element(element, head, origin, not big_endian) for element in elements}
    dataset = Dataset(cast("dict[BaseTag, DataElement | RawDataElement]", raw))
    charset = raw.get(BaseTag(0x00080005))
    encodings: str | list[str] = default_encoding
    if charset is not None and charset.value:
        names = charset.value.decode("latin-1").strip(" \0").split("\\")
        try:
            encodings = convert_encodings(names)
        except (LookupError, ValueError):
            encodings = default_encoding
    dataset.set_original_encoding(implicit, not big_endian, encodings)
    return dataset


def raw_element(element: Element, head: bytes, origin: int, little_endian: bool) -> RawDataElement:
    """Return one element; a sequence of undefined length keeps its delimiter, which pydicom's reader stops at."""
    tag, vr_bytes, _, at, end, undefined = element
    vr = vr_bytes.decode() or None
    value = head[at - origin : end - origin]
    if undefined and vr in (None, "UN") and value[:4] in (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"):
        vr = "SQ"  # PS3.5 6.2.2 note 2
    elif undefined and vr != "SQ":
        value = value[:-8]
    stated = value or cast("bytes | None", empty_value_for_VR(vr, raw=True))
    return RawDataElement(BaseTag(tag), vr, len(value), stated, at, not vr_bytes, little_endian)
