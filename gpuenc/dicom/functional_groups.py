"""The functional groups of enhanced multi-frame objects (PS3.3 C.7.6.16), after their pixels were replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from gpuenc.errors import InvalidPixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuenc.dicom.scale import Scale

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_OF_OLD_VALUES = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "RealWorldValueMappingSequence")
_FRAME_TYPES = (
    "CTImageFrameTypeSequence",
    "MRImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "XAXRFFrameCharacteristicsSequence",
    "XRay3DFrameTypeSequence",
    "UltrasoundImageFrameTypeSequence",
    "OphthalmicFrameTypeSequence",
)


def has(dataset: Dataset) -> bool:
    """Whether it is an object with functional groups."""
    return _SHARED in dataset or _PER_FRAME in dataset


def check(dataset: Dataset, number_of_frames: int) -> None:
    """Refuse another number of frames than there are items that describe one each.

    Raises
    ------
    InvalidPixels
        There are more frames, or fewer.
    """
    if _PER_FRAME in dataset and len(dataset[_PER_FRAME].value) != number_of_frames:
        raise InvalidPixels(
            f"The template describes each of its {len(dataset[_PER_FRAME].value)} frames (Per-frame Functional Groups "
            f"Sequence), and the array has {number_of_frames}: give a template with an item for each frame of the array"
        )


def rescales(dataset: Dataset) -> bool:
    """Whether a group says what stored values mean."""
    return any("PixelValueTransformationSequence" in item for item in _items(dataset))


def set_values(dataset: Dataset, scale: Scale | None, units: str, window: tuple[float, float] | None) -> None:
    """Say for all frames what stored values mean and how to show them, and for no frame anything else."""
    for item in _items(dataset):
        for keyword in _OF_OLD_VALUES:
            item.pop(keyword, None)
        for keyword in _FRAME_TYPES:
            for frame_type in item.get(keyword) or ():
                if frame_type.get("PixelPresentation") == "COLOR":
                    frame_type.PixelPresentation = "MONOCHROME"
    shared = _shared(dataset)
    if scale:
        values = Dataset()
        values.RescaleIntercept, values.RescaleSlope, values.RescaleType = scale.intercept, scale.slope, units
        shared.PixelValueTransformationSequence = [values]
    if window:
        set_window(dataset, window)


def set_window(dataset: Dataset, window: tuple[float, float]) -> None:
    """Say for all frames how to show them, and for no frame anything else."""
    for item in _items(dataset):
        item.pop("FrameVOILUTSequence", None)
    shown = Dataset()
    shown.WindowCenter, shown.WindowWidth = (f"{value:.10g}" for value in window)
    _shared(dataset).FrameVOILUTSequence = [shown]


def derive(dataset: Dataset, description: str, codes: list[Dataset], source: Dataset) -> None:
    """Say that all frames are derived, how, and from what (PS3.3 C.7.6.16.2.6), and for no frame anything else."""
    for item in _items(dataset):
        item.pop("DerivationImageSequence", None)
        for keyword in _FRAME_TYPES:
            for frame_type in item.get(keyword) or ():
                values = frame_type.get("FrameType")
                if values and not isinstance(values, str):
                    frame_type.FrameType = ["DERIVED", *list(values)[1:]]
    derivation = Dataset()
    derivation.DerivationDescription = description
    derivation.DerivationCodeSequence = codes
    derivation.SourceImageSequence = [source]
    _shared(dataset).DerivationImageSequence = [derivation]


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for keyword in (_SHARED, _PER_FRAME):
        yield from dataset.get(keyword) or ()


def _shared(dataset: Dataset) -> Dataset:
    if not dataset.get(_SHARED):
        setattr(dataset, _SHARED, [Dataset()])
    shared: Dataset = dataset[_SHARED].value[0]
    return shared
