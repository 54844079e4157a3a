"""What a frame is, in JSON: what a loader needs to decode and place it, and nothing about a patient."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from gpuenc.dicom.pixels import may_be_lossy
from gpuenc.dicom.tables import table_in, voi_signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuenc.coding import Coding
    from gpuenc.dicom.source import DicomFile
    from gpuenc.frames import FrameFormat
    from gpuenc.syntaxes import Syntax

type Uids = Literal["hashed", "plain", "none"]

# What a member of a shard is called behind its key, by codec family.
EXTENSIONS = {
    "native": "raw", "deflate": "deflate", "rle": "rle", "jpeg": "jpg", "jpeg-lossless": "ljpg", "jpeg-ls": "jls",
    "jpeg2000": "j2c", "htj2k": "jhc", "jpegxl": "jxl",
}  # fmt: skip
_HASH_DIGITS = 32
# Text that a person may have typed is no code string, and stays out.
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
_UID = re.compile(r"[0-9.]{1,64}")
_UIDS = {
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
    "frame_of_reference": "FrameOfReferenceUID",
}


def encoded_as(cells: FrameFormat, wanted: Coding) -> FrameFormat:
    """Return the format that the attributes of an object with such codestreams state (PS3.3 C.7.6.3)."""
    if wanted.raw:
        return cells
    if wanted.expand:
        return replace(
            cells, samples=wanted.samples, photometric=wanted.photometric, bits_allocated=8, bits_stored=8, high_bit=7,
            signed=False, planar=0, big_endian=False,
        )  # fmt: skip
    return replace(
        cells, samples=wanted.samples, photometric=wanted.photometric, high_bit=-1, planar=0, big_endian=False
    )


class Description:
    """What is said of the frames of one file.

    Parameters
    ----------
    source : DicomFile
        Open; it may be closed afterwards.
    stored : FrameFormat
        Of the codestreams, as attributes would state it.
    syntax : Syntax
        What they are compressed with.
    lossless : bool
        Whether that lost nothing.
    uids : {'hashed', 'plain', 'none'}
        How UIDs are said: by 32 hexadecimal digits of their SHA-256, which whoever has the UIDs can compute too.
    """

    def __init__(
        self, source: DicomFile, stored: FrameFormat, syntax: Syntax, *, lossless: bool, uids: Uids = "hashed"
    ) -> None:
        dataset = source.dataset
        self.number_of_frames = source.number_of_frames
        self._shared = _items(dataset, "SharedFunctionalGroupsSequence")[:1]
        self._per_frame = _items(dataset, "PerFrameFunctionalGroupsSequence")
        self._dataset = dataset
        self._read = source.format
        self._modality = _table(_items(dataset, "ModalityLUTSequence"), signed=source.format.signed)
        lossy = not lossless or (may_be_lossy(source.syntax) and source.syntax != syntax.uid)
        self._fixed: dict[str, Any] = {
            "transfer_syntax_uid": syntax.uid,
            "rows": stored.rows,
            "columns": stored.columns,
            "samples_per_pixel": stored.samples,
            "photometric_interpretation": stored.photometric,
            "bits_allocated": stored.bits_allocated,
            "bits_stored": stored.bits_stored,
            "high_bit": stored.high_bit,
            "pixel_representation": int(stored.signed),
            "planar_configuration": stored.planar if stored.samples > 1 else None,
            "big_endian": stored.big_endian or None,
            "lossy": lossy or _value(dataset, "LossyImageCompression") == "01",
            "number_of_frames": source.number_of_frames,
            "modality": _coded(dataset, "Modality"),
            "sop_class_uid": _uid(dataset, "SOPClassUID"),
            "uids": _said(dataset, uids),
            "palette": _palette(source) if stored.photometric == "PALETTE COLOR" else None,
        }

    def _voi_signed(self, values: Any) -> bool:
        said = _rescale(values) or {"slope": 1.0, "intercept": 0.0}
        return voi_signed(self._read, said["slope"], said["intercept"], modality=self._modality is not None)

    def frame(self, index: int, crc32: int | None = None) -> bytes:
        """Return the JSON of frame `index`, from 0: UTF-8, keys in order, what is unknown left out."""
        groups = [*self._per_frame[index : index + 1], *self._shared]
        measures = _first(groups, "PixelMeasuresSequence", self._dataset)
        values = _first(groups, "PixelValueTransformationSequence", self._dataset)
        voi = _first(groups, "FrameVOILUTSequence", self._dataset)
        said = {
            **self._fixed,
            "frame": index,
            "crc32": crc32,
            "rescale": _rescale(values),
            "modality_lut": self._modality,
            "window": _windows(voi),
            "voi_lut": _table(_items(voi, "VOILUTSequence"), signed=self._voi_signed(values)),
            "pixel_spacing": _numbers(measures, "PixelSpacing", 2) or _numbers(measures, "ImagerPixelSpacing", 2),
            "slice_thickness": _number(measures, "SliceThickness"),
            "spacing_between_slices": _number(measures, "SpacingBetweenSlices"),
            "position": _numbers(_first(groups, "PlanePositionSequence", self._dataset), "ImagePositionPatient", 3),
            "orientation": _numbers(
                _first(groups, "PlaneOrientationSequence", self._dataset), "ImageOrientationPatient", 6
            ),
        }
        known = {key: value for key, value in said.items() if value is not None}
        return json.dumps(known, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _value(dataset: Any, keyword: str) -> Any:
    """Return a value, or None where there is none that can be read."""
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom's converters raise whatever they like
        return None


def _items(dataset: Any, keyword: str) -> list[Any]:
    return list(_value(dataset, keyword) or ())


def _first(groups: list[Any], keyword: str, dataset: Any) -> Any:
    """Return the frame's own functional group, or the shared one, or the data set itself."""
    return next((found[0] for group in groups if (found := _items(group, keyword))), dataset)


def _numbers(dataset: Any, keyword: str, count: int = 0) -> list[float] | None:
    value = _value(dataset, keyword)
    if value is None or value == "":
        return None
    try:
        numbers = [float(each) for each in (value if hasattr(value, "__iter__") else [value])]
    except (TypeError, ValueError):
        return None
    fits = numbers and all(map(math.isfinite, numbers)) and (not count or len(numbers) == count)
    return numbers if fits else None


def _number(dataset: Any, keyword: str) -> float | None:
    numbers = _numbers(dataset, keyword, 1)
    return numbers[0] if numbers else None


def _rescale(dataset: Any) -> dict[str, Any] | None:
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return None
    unit = _coded(dataset, "RescaleType")
    return {"slope": slope, "intercept": intercept, **({"type": unit} if unit else {})}


def _windows(dataset: Any) -> list[dict[str, Any]] | None:
    centers, widths = _numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth")
    if not centers or not widths:
        return None
    function = _coded(dataset, "VOILUTFunction")
    about = {} if function in (None, "LINEAR") else {"function": function}
    return [{"center": center, "width": width, **about} for center, width in zip(centers, widths, strict=False)]


def _table(items: list[Any], *, signed: bool) -> dict[str, Any] | None:
    """Return the table of the first item: its first value, the bits of entries, and these as words, little endian."""
    if not items:
        return None
    table = table_in(items[0], signed=signed)
    if table.wrong:
        return {"unusable": table.wrong}
    entries = base64.b64encode(table.entries().astype("<u2").tobytes()).decode()
    return {"first": table.first, "bits": table.bits, "data": entries}


def _coded(dataset: Any, keyword: str) -> str | None:
    value = str(_value(dataset, keyword) or "")
    return value if _CODE.fullmatch(value) else None


def _uid(dataset: Any, keyword: str) -> str | None:
    value = str(_value(dataset, keyword) or "")
    return value if _UID.fullmatch(value) else None


def _said(dataset: Any, how: Uids) -> Mapping[str, str] | None:
    if how == "none":
        return None
    found = {name: uid for name, keyword in _UIDS.items() if (uid := _uid(dataset, keyword))}
    if how == "hashed":
        found = {name: hashlib.sha256(uid.encode()).hexdigest()[:_HASH_DIGITS] for name, uid in found.items()}
    return found


def _palette(source: DicomFile) -> dict[str, Any]:
    palette = source.palette
    tables = {"red": palette.red, "green": palette.green, "blue": palette.blue}
    return {"first": palette.first, **{name: base64.b64encode(table).decode() for name, table in tables.items()}}
