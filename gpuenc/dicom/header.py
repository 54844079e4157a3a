"""The header of an output: the source's own bytes, patched only where an element has to change.

Explicit VR Little Endian headers are copied byte for byte around the changes; others are transcribed first, their
values kept. Retired group lengths are set right in groups that change and left alone in all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from struct import pack
from typing import TYPE_CHECKING

from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_dataset
from pydicom.uid import UID

from gpuenc._version import __version__
from gpuenc.dicom.attributes import SOP_CLASS_UID, SOP_INSTANCE_UID
from gpuenc.dicom.elements import Element, Window, walk
from gpuenc.dicom.transcribe import explicit_little
from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset

    from gpuenc.dicom.attributes import Changes
    from gpuenc.dicom.source import DicomFile

# (0002,0012), for files that come without File Meta Information: a UID derived from a UUID (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID = "2.25.197316527894417260349519376190244371603"
META_LENGTH, MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE, TRANSFER_SYNTAX = 0x00020000, 0x00020002, 0x00020003, 0x00020010
# Length to End, and the length of the group of Pixel Data: retired, and wrong as soon as Pixel Data changes.
_LENGTHS_OF_PIXELS = (0x00080001, 0x7FE00000)
# What follows Pixel Data is in memory, several times over, while it is transcribed.
MAX_TRAILER_BYTES = 64 << 20
# Where it need not be, every byte still has to be read and digested, and holes in a file can claim any number of them.
MAX_COPIED_TRAILER_BYTES = 64 << 30


@dataclass(frozen=True, slots=True)
class Header:
    """What precedes Pixel Data.

    Parameters
    ----------
    prefix : bytes
        Preamble, ``DICM`` and File Meta Information (PS3.10 7.1).
    elements : bytes
        The data set's elements up to Pixel Data, Explicit VR Little Endian.
    """

    prefix: bytes
    elements: bytes

    def __len__(self) -> int:
        return len(self.prefix) + len(self.elements)


def header(source: DicomFile, found: Changes, syntax: str) -> Header:
    """Return the header of the output.

    Called again with the same changes and another ratio or other overlays, it returns a header of the same length.

    Parameters
    ----------
    source : DicomFile
        Open.
    found : Changes
        What changes in the data set.
    syntax : str
        Transfer Syntax UID of the output.

    Raises
    ------
    SourceError
        ``corrupt-header``: an implicit or big-endian header cannot be transcribed, or an element that has to precede
        Pixel Data follows it. ``too-large``: so much follows Pixel Data that `trailer` would refuse it.
    """
    _check_trailer(source)
    patches: dict[int, bytes] = dict.fromkeys((*found.delete, *_LENGTHS_OF_PIXELS), b"")
    for tag, element in found.set.items():
        patches[tag] = _encoded(element)
    head, elements, origin = source.head, source.elements, source.origin
    if source.implicit or source.big_endian:
        head, origin = explicit_little(head, implicit=source.implicit, big_endian=source.big_endian), 0
        elements, _, _ = walk(Window(BytesIO(head), len(head)), 0, len(head))
    for tag, item in found.append.items():
        old = next((element for element in elements if element.tag == tag and element.vr == b"SQ"), None)
        items = b"" if old is None else head[old.value - origin : old.end - origin - (8 if old.undefined else 0)]
        patches[tag] = _with_item(tag, items, item)
    return Header(_prefix(source, found.sop_instance_uid, syntax), spliced(head, elements, origin, patches))


def header_of(dataset: Dataset, syntax: str) -> Header:
    """Return the header of a new file.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        What precedes Pixel Data, with its UIDs. Elements that are still as they were read keep their bytes.
    syntax : str
        Transfer Syntax UID of the output.
    """
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    made = {
        0x00020001: pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1",
        MEDIA_SOP_CLASS: _uid(MEDIA_SOP_CLASS, dataset.SOPClassUID),
        MEDIA_SOP_INSTANCE: _uid(MEDIA_SOP_INSTANCE, dataset.SOPInstanceUID),
        TRANSFER_SYNTAX: _uid(TRANSFER_SYNTAX, syntax),
        0x00020012: _uid(0x00020012, IMPLEMENTATION_CLASS_UID),
        0x00020013: _text(0x00020013, b"SH", f"GPUENC {__version__}"[:16]),
    }
    body = b"".join(made[tag] for tag in sorted(made))
    prefix = b"\0" * 128 + b"DICM" + pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body
    return Header(prefix, bytes(buffer.getvalue()))


def trailer(source: DicomFile) -> Iterator[bytes]:
    """Yield what follows Pixel Data, Explicit VR Little Endian.

    Raises
    ------
    SourceError
        ``corrupt-header``: an implicit or big-endian trailer cannot be transcribed. ``too-large``: it is larger than
        `MAX_TRAILER_BYTES`, or any other than `MAX_COPIED_TRAILER_BYTES`.
    """
    _check_trailer(source)
    if not (source.implicit or source.big_endian):
        yield from source.trailer()
        return
    data = b"".join(source.trailer())
    if any(data):
        yield explicit_little(data, implicit=source.implicit, big_endian=source.big_endian)


def _check_trailer(source: DicomFile) -> None:
    if (source.implicit or source.big_endian) and source.trailer_bytes > MAX_TRAILER_BYTES:
        raise SourceError(
            f"{source.trailer_bytes} bytes follow Pixel Data, and only {MAX_TRAILER_BYTES} can be transcribed to "
            "Explicit VR Little Endian",
            code="too-large",
        )
    if source.trailer_bytes > MAX_COPIED_TRAILER_BYTES:
        raise SourceError(
            f"{source.trailer_bytes} bytes follow Pixel Data, more than {MAX_COPIED_TRAILER_BYTES}", code="too-large"
        )
    source.demand_described_once()


def spliced(head: bytes, elements: list[Element], origin: int, patches: Mapping[int, bytes]) -> bytes:
    """Return `head` with some of its elements replaced, inserted or, where a patch is empty, left out.

    Parameters
    ----------
    head : bytes
        Explicit VR Little Endian elements.
    elements : list of Element
        Where they are; positions count from ``head[-origin]``.
    origin : int
        Position of ``head[0]``.
    patches : mapping of int to bytes
        Whole elements by tag.
    """
    there: dict[int, list[Element]] = {}
    for element in elements:
        if element.tag in patches or element.tag & 0xFFFF == 0:
            there.setdefault(element.tag, []).append(element)
    edits: list[tuple[int, int, bytes]] = []
    grown: dict[int, int] = {}
    for tag in sorted(patches):
        patch = patches[tag]
        olds = there.get(tag, [])
        if not olds and patch:
            at = next((element.start for element in elements if element.tag > tag), origin + len(head))
            edits.append((at, at, patch))
        for index, old in enumerate(olds):
            edits.append((old.start, old.end, b"" if index else patch))
        change = len(patch) - sum(old.end - old.start for old in olds)
        if olds or patch:
            grown[tag >> 16] = grown.get(tag >> 16, 0) + change
    for group, change in grown.items():
        for old in there.get(group << 16, []):
            if old.tag in patches or old.end - old.value != 4:
                continue
            size = sum(e.end - e.start for e in elements if e.tag >> 16 == group and e.tag & 0xFFFF) + change
            edits.append((old.value, old.end, pack("<I", size)))
    edits.sort(key=lambda edit: edit[0])  # stable: insertions at one place stay in the order of their tags
    pieces, copied = [], origin
    for start, end, patch in edits:
        pieces += [head[copied - origin : start - origin], patch]
        copied = end
    return b"".join([*pieces, head[copied - origin :]])


def _encoded(element: DataElement | RawDataElement) -> bytes:
    """Return one element in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element)
    return bytes(buffer.getvalue())


def _with_item(tag: int, items: bytes, item: Dataset) -> bytes:
    """Return a sequence of the items that were there, as they were, and one more."""
    items += _encoded(DataElement(tag, "SQ", [item]))[12:]
    return pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(items)) + items


def _prefix(source: DicomFile, sop_instance_uid: str, syntax: str) -> bytes:
    """Return preamble and File Meta Information with the new transfer syntax (PS3.10 7.1)."""
    patches = {TRANSFER_SYNTAX: _uid(TRANSFER_SYNTAX, syntax)}
    if sop_instance_uid:
        patches[MEDIA_SOP_INSTANCE] = _uid(MEDIA_SOP_INSTANCE, sop_instance_uid)
    start = 132 if source.prefix[128:132] == b"DICM" else 0
    preamble = source.prefix[:132] if start else b"\0" * 128 + b"DICM"
    if source.meta and not all(element.vr for element in source.meta):
        raise SourceError("the File Meta Information is not encoded with explicit VRs", code="corrupt-header")
    if not source.meta:
        patches |= _new_meta(source, patches)
    body = spliced(source.prefix[start:], source.meta, start, {**patches, META_LENGTH: b""})
    return preamble + pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body


def _new_meta(source: DicomFile, patches: Mapping[int, bytes]) -> dict[int, bytes]:
    made = {
        0x00020001: pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1",
        0x00020012: _uid(0x00020012, IMPLEMENTATION_CLASS_UID),
        0x00020013: _text(0x00020013, b"SH", f"GPUENC {__version__}"[:16]),
    }
    for tag, of_dataset in ((MEDIA_SOP_CLASS, SOP_CLASS_UID), (MEDIA_SOP_INSTANCE, SOP_INSTANCE_UID)):
        value = source.attributes.text(of_dataset)
        if value and tag not in patches:
            made[tag] = _uid(tag, value)
    return made


def _uid(tag: int, value: str) -> bytes:
    return _text(tag, b"UI", UID(value), b"\0")


def _text(tag: int, vr: bytes, text: str, padding: bytes = b" ") -> bytes:
    value = text.encode("latin-1")
    value += padding * (len(value) % 2)
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
