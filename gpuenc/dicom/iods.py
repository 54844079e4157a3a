"""What a SOP Class allows its pixels to be, as far as an array could contradict it (PS3.3 annex A, C.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import UID

from gpuenc.errors import InvalidPixels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from gpuenc.frames import FrameFormat

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Objects without an image: presentation states, structured reports, waveforms, encapsulated documents, registrations,
# fiducials, surfaces, RT objects but RT Image and RT Dose, raw data, measurements.
_NO_IMAGE = tuple(
    _STORAGE + each
    for each in (
        *("9.", "11.", "66", "66.1", "66.2", "66.3", "66.5", "66.6", "67", "68.", "78.", "79.", "88.", "90."),
        *("104.", "131", "200.", "481.3", "481.4", "481.5", "481.6", "481.7", "481.8", "481.9", "481.10", "481.11"),
    )
)
# Without the Multi-frame Module: CR, DX, mammography and intra-oral, CT, MR, US, SC, VL of one frame, PET.
_ONE_FRAME = frozenset(
    _STORAGE + each
    for each in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "4", "6", "6.1", "7"),
        *("77.1.1", "77.1.2", "77.1.3", "77.1.4", "128"),
    )
)
# MONOCHROME only: CR, DX, mammography, intra-oral, CT and its enhanced kind, MR, XA, RF, PET and RT Dose.
_MONOCHROME = frozenset(
    _STORAGE + each
    for each in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "2.1", "2.2", "4", "4.1", "4.4"),
        *("12.1", "12.1.1", "12.2", "12.2.1", "13.1.1", "13.1.2", "13.1.3", "128", "128.1", "130", "481.2"),
    )
)
# Bits Allocated is 16: CT (C.8.2.1), MR (C.8.3.1), PET (C.8.9.1).
_SIXTEEN_BITS = frozenset(_STORAGE + each for each in ("2", "4", "128"))

# Whose Image Type is PRIMARY in any case: enhanced CT, MR, XA, XRF, 3D, tomosynthesis, PET.
_ENHANCED = frozenset(
    _STORAGE + each
    for each in ("2.1", "2.2", "4.1", "4.3", "4.4", "12.1.1", "12.2.1", "13.1.1", "13.1.2", "13.1.3", "128.1", "130")
)


def is_enhanced(dataset: Dataset) -> bool:
    """Whether it is an enhanced multi-frame object, by its SOP Class."""
    return str(dataset.SOPClassUID) in _ENHANCED


def check(template: Dataset, fmt: FrameFormat, number_of_frames: int) -> None:
    """Refuse pixels that objects of the template's SOP Class cannot have.

    Raises
    ------
    InvalidPixels
        The message says which would do.
    """
    uid = UID(template.SOPClassUID)
    name = uid.name
    if any(uid.startswith(each) if each.endswith(".") else uid == each for each in _NO_IMAGE):
        raise InvalidPixels(f"A {name} object is no image: give a template that is one")
    if number_of_frames > 1 and uid in _ONE_FRAME:
        raise InvalidPixels(
            f"A {name} object has one frame, and the array has {number_of_frames}: write one object for each, with the "
            "template of that frame, in one series (series_instance_uid)"
        )
    if fmt.samples > 1 and uid in _MONOCHROME:
        raise InvalidPixels(
            f"A {name} object has no colours, and the array does: give a template of another SOP Class, such as "
            "Secondary Capture Image Storage"
        )
    if fmt.bits_allocated != 16 and uid in _SIXTEEN_BITS:
        kind = "int16" if fmt.signed else "uint16"
        raise InvalidPixels(
            f"A {name} object has cells of 16 bits, and the array's have {fmt.bits_allocated}: convert it to {kind}"
        )
    if uid == f"{_STORAGE}66.4" or uid == f"{_STORAGE}66.7":
        raise InvalidPixels(f"A {name} object says what each of its pixels means, which an array cannot: see highdicom")
