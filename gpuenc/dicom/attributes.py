"""What changes in a data set when its frames are re-encoded. Pure: from descriptions to elements.

A lossless target changes as little as describes the new encoding truthfully; the SOP Instance UID and any history of
lossy compression stay. A lossy target makes a new SOP Instance that says what it is and where it comes from
(PS3.3 C.7.6.1.1.2, C.7.6.1.1.5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from gpuenc.dicom.description import overlay_positions, raw_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.dataelem import RawDataElement

    from gpuenc.coding import Coding
    from gpuenc.dicom.description import Attributes
    from gpuenc.frames import FrameFormat
    from gpuenc.targets import Target

    Setting = dict[int, DataElement | RawDataElement]

IMAGE_TYPE = 0x00080008
SOP_CLASS_UID, SOP_INSTANCE_UID = 0x00080016, 0x00080018
DERIVATION_DESCRIPTION, SOURCE_IMAGES, DERIVATION_CODES = 0x00082111, 0x00082112, 0x00089215
SAMPLES, PHOTOMETRIC, PLANAR = 0x00280002, 0x00280004, 0x00280006
BITS_ALLOCATED, BITS_STORED, HIGH_BIT, PIXEL_REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
LOSSY, LOSSY_RATIO, LOSSY_METHOD = 0x00282110, 0x00282112, 0x00282114
# Extended Offset Table, its Lengths, Encapsulated Pixel Data Value Total Length.
_DESCRIBE_FRAGMENTS = (0x7FE00001, 0x7FE00002, 0x7FE00003)

# Describe samples that a palette's expansion does away with: Pixel Padding Value and Range Limit, and the Palette Color
# Lookup Tables: descriptors, UID, data, segmented data.
_PALETTE_ONLY = (
    0x00280120, 0x00280121,
    *range(0x00281101, 0x00281105), 0x00281199, *range(0x00281201, 0x00281205), *range(0x00281221, 0x00281225),
)  # fmt: skip
# Smallest and Largest Image Pixel Value: no longer true of lossy samples.
_EXTREMES = (0x00280106, 0x00280107)
# Their pixel data is lossy in every case; where the syntax allows both, the attribute decides.
_ALWAYS_LOSSY = frozenset(
    f"1.2.840.10008.1.2.4.{number}" for number in ("50", "51", "111")
)  # fmt: skip
_RATIO_WIDTH = 12
_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?")
_MAX_DESCRIPTION = 1024  # VR ST


class Described(Protocol):
    """What `changes` reads of a source: `DicomFile` and `DatasetSource` have it."""

    syntax: str
    format: FrameFormat
    number_of_frames: int
    compressed: bool

    @property
    def attributes(self) -> Attributes:
        """The elements at the top level."""

    @property
    def native_bytes(self) -> int:
        """Bytes of all frames without compression."""

    @property
    def lossy(self) -> bool:
        """The source's transfer syntax may have lost information."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Elements to set and tags to delete, at the top level of a data set.

    Parameters
    ----------
    set : mapping
        pydicom's `DataElement` or `RawDataElement` by tag.
    append : mapping
        One item, as pydicom's `Dataset`, by the tag of the sequence that gets it.
    delete : frozenset of int
        Tags.
    sop_instance_uid : str
        The new SOP Instance UID, for the File Meta Information too; empty where it stays.
    """

    set: Mapping[int, DataElement | RawDataElement] = field(default_factory=dict)
    append: Mapping[int, Dataset] = field(default_factory=dict)
    delete: frozenset[int] = frozenset()
    sop_instance_uid: str = ""


def changes(
    source: Described,
    cells: FrameFormat,
    chosen: Target,
    coding: Coding,
    *,
    encoded_bytes: int = 0,
    overlays: Mapping[int, bytes] | None = None,
    sop_instance_uid: str = "",
) -> Changes:
    """Return what has to change in the data set of `source`.

    Parameters
    ----------
    source : Described
        A `DicomFile` or `DatasetSource`.
    cells : FrameFormat
        Of the native cells that are encoded: ``source.format``, and for compressed sources what they decode to.
    chosen, coding : Target, Coding
        What they become.
    encoded_bytes : int
        Bytes of all codestreams, for the ratio of a lossy target. Where it is not known yet, `with_ratio` fills it
        in without changing the length of any element.
    overlays : mapping of int to bytes, optional
        Overlay Data by group, of the overlays embedded in the cells, as `EmbeddedOverlays` collects it; zeros of the
        same length where it is not known yet.
    sop_instance_uid : str
        The new SOP Instance UID of a lossy target, for a second call to give what the first one made; empty for a new
        one.
    """
    setting: Setting = {}
    delete = {tag for tag in _DESCRIBE_FRAGMENTS if tag in source.attributes.tags()}
    _image_pixel(source, cells, chosen, coding, setting)
    if coding.expand:
        delete.update(tag for tag in _PALETTE_ONLY if tag in source.attributes.tags())
    if moves_overlays(cells, coding):
        _overlays(source, cells, overlays or {}, setting)
    if not coding.lossless:
        delete.update(tag for tag in _EXTREMES if tag in source.attributes.tags())
        uid = sop_instance_uid or str(generate_uid())
        _put(setting, SOP_INSTANCE_UID, "UI", uid)
        _lossy(source, chosen, setting)
        found = Changes(setting, _origin(source), frozenset(delete), uid)
        return with_ratio(found, source, encoded_bytes)
    if source.lossy:
        stated = source.attributes.text(LOSSY)
        if stated != "01" and (stated is None or source.syntax in _ALWAYS_LOSSY):
            _put(setting, LOSSY, "CS", "01")
    return Changes(setting, delete=frozenset(delete))


def moves_overlays(cells: FrameFormat, coding: Coding) -> bool:
    """Return whether overlays embedded in the cells are lost to the codestream, and so must move (PS3.5 8.1.2)."""
    return bool(cells.overlay_bits) and not (coding.raw or coding.whole_cells)


def with_ratio(found: Changes, source: Described, encoded_bytes: int) -> Changes:
    """Return `found` with the ratio that `encoded_bytes` make, in as many characters as before."""
    if LOSSY_RATIO not in found.set:
        return found
    ratio = source.native_bytes / encoded_bytes if encoded_bytes else 0.0
    # (0028,2112) holds the numerator alone: "30" for 30:1. Trailing spaces of a DS mean nothing (PS3.5 6.2).
    text = f"{ratio:.6g}" if 1e-3 < ratio < 1e6 else f"{ratio:.4g}"
    history = bytes(found.set[LOSSY_RATIO].value or b"").decode().split("\\")[:-1]
    setting = {**found.set, LOSSY_RATIO: raw_text(LOSSY_RATIO, "DS", "\\".join([*history, text.ljust(_RATIO_WIDTH)]))}
    return replace(found, set=setting)


def apply(dataset: Dataset, found: Changes) -> None:
    """Make the changes in a dataset in memory, its ``file_meta`` included."""
    for tag in found.delete:
        if tag in dataset:
            del dataset[tag]
    for tag, element in found.set.items():
        dataset[tag] = element
    for tag, item in found.append.items():
        items = list(dataset[tag].value or ()) if tag in dataset and dataset[tag].VR == "SQ" else []
        dataset[tag] = DataElement(tag, "SQ", [*items, item])
    if found.sop_instance_uid and hasattr(dataset, "file_meta"):
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(found.sop_instance_uid)


def _image_pixel(source: Described, cells: FrameFormat, chosen: Target, coding: Coding, setting: Setting) -> None:
    """Set the attributes of PS3.3 C.7.6.3 whose present values do not describe the new pixel data."""
    now = source.format
    photometric = cells.photometric if coding.raw else coding.photometric
    samples = cells.samples if coding.raw else coding.samples
    allocated, stored, high_bit, signed = cells.bits_allocated, cells.bits_stored, cells.high_bit, cells.signed
    if coding.expand:
        allocated, stored, high_bit, signed = 8, 8, 7, False
    elif not coding.raw and not coding.whole_cells:
        high_bit = stored - 1  # samples go into codestreams, and come out of them, at the bottom of their cells
    for tag, before, after in (
        (SAMPLES, now.samples, samples),
        (BITS_ALLOCATED, now.bits_allocated, allocated),
        (BITS_STORED, now.bits_stored, stored),
        (HIGH_BIT, now.high_bit, high_bit),
        (PIXEL_REPRESENTATION, int(now.signed), int(signed)),
    ):
        if before != after:
            _put(setting, tag, "US", after)
    if now.photometric != photometric:
        _put(setting, PHOTOMETRIC, "CS", photometric)
    if samples > 1:
        planar = _planar(source, cells, chosen, coding)
        if source.attributes.number(PLANAR) != planar:
            _put(setting, PLANAR, "US", planar)


def _planar(source: Described, cells: FrameFormat, chosen: Target, coding: Coding) -> int:
    """Return Planar Configuration: as the cells are where they are kept, as it was for RLE, and else 0.

    RLE is by plane whatever the attribute says, and allows both values (PS3.5 8.2.2); the other codecs' codestreams
    have an order of their own and demand 0 (PS3.5 8.2.1, 8.2.3, 8.2.4).
    """
    if coding.raw:
        return cells.planar
    kept = source.attributes.number(PLANAR) if chosen.syntax.family == "rle" else None
    return kept if kept in (0, 1) else 0


def _overlays(source: Described, cells: FrameFormat, overlays: Mapping[int, bytes], setting: Setting) -> None:
    """Move embedded overlays into Overlay Data of their own (PS3.3 C.9.2)."""
    size = (cells.rows * cells.columns * source.number_of_frames + 15) // 16 * 2
    for group, bit in overlay_positions(source.attributes).items():
        if not cells.overlay_bits >> bit & 1:
            continue
        base = group << 16
        _put(setting, base | 0x0100, "US", 1)
        _put(setting, base | 0x0102, "US", 0)
        if source.number_of_frames > 1 and source.attributes.number(base | 0x0015) is None:
            _put(setting, base | 0x0015, "IS", str(source.number_of_frames))
        _put(setting, base | 0x3000, "OW", overlays.get(group, b"").ljust(size, b"\0"))


def _lossy(source: Described, chosen: Target, setting: Setting) -> None:
    """Say what was done to the samples (PS3.3 C.7.6.1.1.5)."""
    read = source.attributes
    image_type = _values(read.text(IMAGE_TYPE))
    if image_type:
        setting[IMAGE_TYPE] = read.with_text(IMAGE_TYPE, "CS", "\\".join(["DERIVED", *image_type[1:]]))
    method = chosen.syntax.method
    said = f"Lossy compression, {chosen.syntax.keyword} ({method}); see Lossy Image Compression Ratio"
    before = read.text(DERIVATION_DESCRIPTION)
    text = f"{before}; {said}" if before and len(before) + len(said) + 2 <= _MAX_DESCRIPTION else said
    setting[DERIVATION_DESCRIPTION] = read.with_text(DERIVATION_DESCRIPTION, "ST", text)
    _put(setting, LOSSY, "CS", "01")
    ratios = [value if _NUMBER.fullmatch(value) else "" for value in _values(read.text(LOSSY_RATIO))]
    methods = _values(read.text(LOSSY_METHOD))
    # One method for each ratio, in order; where the history lacks one, an empty value keeps the pairs together.
    steps = max(len(ratios), len(methods))
    ratios += [""] * (steps - len(ratios))
    methods += [""] * (steps - len(methods))
    setting[LOSSY_RATIO] = raw_text(LOSSY_RATIO, "DS", "\\".join([*ratios, " " * _RATIO_WIDTH]))
    setting[LOSSY_METHOD] = read.with_text(LOSSY_METHOD, "CS", "\\".join([*methods, method]))


def _origin(source: Described) -> dict[int, Dataset]:
    """Return what was done, and to which instance, as items of the sequences that tell."""
    reference = Dataset()
    for tag, of_dataset in ((0x00081150, SOP_CLASS_UID), (0x00081155, SOP_INSTANCE_UID)):
        reference.add(_element(tag, "UI", source.attributes.text(of_dataset) or ""))
    # PS3.16 CID 7202 tells uncompressed predecessors from lossy ones and has nothing for those compressed without loss,
    # nor for those of which nobody can tell: their purpose is left out.
    if source.attributes.text(LOSSY) == "01" or source.syntax in _ALWAYS_LOSSY:
        reference.PurposeOfReferenceCodeSequence = [_code("121330", "Lossy compressed predecessor")]
    elif not source.compressed:
        reference.PurposeOfReferenceCodeSequence = [_code("121320", "Uncompressed predecessor")]
    return {DERIVATION_CODES: _code("113040", "Lossy Compression"), SOURCE_IMAGES: reference}


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _values(text: str | None) -> list[str]:
    return [value.strip(" ") for value in text.split("\\")] if text else []


def _put(setting: Setting, tag: int, vr: str, value: Any) -> None:
    setting[tag] = _element(tag, vr, value)


def _element(tag: int, vr: str, value: Any) -> DataElement:
    # What a source says is repeated, not judged.
    return DataElement(tag, vr, value, validation_mode=IGNORE)
