"""A data set derived from another: new pixels, and all that is said of them; what it is about stays.

PS3.3 C.7.6.1.1.2 (Image Type), C.7.6.1 and C.12.4 (derivation and its source), C.7.6.3 (Image Pixel). Attributes that
describe the old samples are set anew or left out, and where only the caller can know what is true, an error asks.
"""

from __future__ import annotations

import re
import warnings
from copy import deepcopy
from datetime import datetime
from typing import TYPE_CHECKING

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRBigEndian, generate_uid

from gpuenc._version import __version__
from gpuenc.dicom import functional_groups as groups
from gpuenc.dicom import geometry, iods
from gpuenc.dicom import template as checked
from gpuenc.dicom.pixels import may_be_lossy
from gpuenc.dicom.transcribe import vr_of
from gpuenc.errors import InvalidOption, InvalidPixels, SourceError
from gpuenc.frames import FrameFormat

if TYPE_CHECKING:
    from pydicom.tag import BaseTag

    from gpuenc.dicom.derivation import Derivation

# What describes the samples, or the file, and not what they show.
_OF_OLD_SAMPLES = frozenset((
    *range(0x00280106, 0x00280112), 0x00880200, 0x00603000, 0x00287FE0, 0x00282000,
    0x00286010, 0x00082142, 0x00082143, 0x00080014, 0x01000410,
    0x00209161, 0x00209162, 0x00209163, 0x00209228, 0x00200242,
    0x4FFE0001, 0xFFFAFFFA, 0xFFFCFFFC,
))  # fmt: skip
# Pixel Data with its tables, and curves, which are retired.
_OLD_GROUPS = frozenset((0x7FE0, *range(0x5000, 0x5100)))
# Palettes, which enhanced grey images may have too, to be shown in colours (PS3.3 C.8.16.2.1.1).
_PALETTE = (
    *range(0x00281101, 0x00281105), 0x00281199, *range(0x00281201, 0x00281205), *range(0x00281221, 0x00281225),
)  # fmt: skip
# Pixel Padding Value and Range Limit.
_PADDING = (0x00280120, 0x00280121)
# Intensity relationship and its sign, windows, rescale, their explanations and tables, real-world values.
_OF_OLD_VALUES = (
    *range(0x00281040, 0x00281042), *range(0x00281050, 0x00281057), 0x00283000, 0x00283010, 0x00409096, 0x00409212,
    0x00409224, 0x00409225,
)  # fmt: skip
_SAYS_WHAT_VALUES_MEAN = ("RescaleSlope", "ModalityLUTSequence", "DoseGridScaling")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
# Which every decoder turns back (PS3.3 C.7.6.3.1.2).
_MADE_FROM_RGB = ("YBR_RCT", "YBR_ICT")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
# Enhanced objects need a code (PS3.3 C.7.6.16.2.6), and CID 7203, which may be extended, has none for this.
_SOME_COMPUTATION = ("COMPUTED", "99GPUENC", "Samples computed by a program")
_DEFAULT_DESCRIPTION = "Samples replaced by an array derived from them (gpuenc)"


def derived(template: Dataset, asked: Derivation) -> Dataset:
    """Return a data set without Pixel Data, nothing of which is shared with `template`.

    Raises
    ------
    SourceError
        The template lacks what every image has, or is big endian.
    InvalidPixels
        The new pixels contradict what it says, and only the caller can know what is true; the message says how.
    InvalidOption
        What is to be said cannot be said in its character set, or of its kind.
    """
    _check_template(template)
    _check_characters(template, asked)
    iods.check(template, asked.format, asked.number_of_frames)
    made = _copied(template)
    enhanced = groups.has(made)
    _frames(made, asked)
    if geometry.differs(made, asked.format):
        geometry.resize(made, asked.format, resized=asked.resized)
    _values(made, asked)
    _image_pixel(made, asked.format)
    codes = [_code(*asked.code)] if asked.code else []
    if geometry.differs(template, asked.format):
        codes.append(_code("113085", "DCM", "Spatial resampling"))
    source = _source_image(template)
    text = asked.description or _DEFAULT_DESCRIPTION
    if enhanced:
        groups.derive(made, text, codes or [_code(*_SOME_COMPUTATION)], source)
        made.SourceImageEvidenceSequence = [_evidence(template)]
    else:
        made.DerivationDescription = text
        made.SourceImageSequence = [source]
        made.pop("DerivationCodeSequence", None)
        if codes:
            made.DerivationCodeSequence = codes
    _identify(made, asked, enhanced=enhanced)
    return made


def new_format(
    template: Dataset, shape: tuple[int, int, int, int], *, bits: int, stored: int, signed: bool, photometric: str
) -> FrameFormat:
    """Return the format of new cells, (frames, rows, columns, samples), of `bits` bits each.

    Raises
    ------
    InvalidPixels
        The template is PALETTE COLOR, and nobody said what the array's one sample is; or its samples are luminance and
        chroma, and nobody said whether the array's are.
    """
    _, rows, columns, samples = shape
    stated = str(template.get("PhotometricInterpretation", ""))
    if not photometric and samples == 1 and stated == "PALETTE COLOR":
        raise InvalidPixels(
            "The template is PALETTE COLOR: say photometric='MONOCHROME2' for grey values, or give colours, "
            "(rows, columns, 3); indices into its palette are not taken"
        )
    if not photometric and samples == 3 and stated.startswith("YBR_") and stated not in _MADE_FROM_RGB:
        raise InvalidPixels(
            f"The template is {stated}, and the array's samples may be its own or colours as they are shown: say "
            "photometric='YBR_FULL' for samples as they are stored, such as those of pixel_array(..., raw=True) or "
            "FrameDataset, or photometric='RGB' for red, green and blue, such as those of Dataset.pixel_array"
        )
    if not photometric:
        photometric = (stated if stated in _MONOCHROME else "MONOCHROME2") if samples == 1 else "RGB"
    if (photometric in _MONOCHROME) != (samples == 1) or photometric not in (*_MONOCHROME, "RGB", "YBR_FULL"):
        raise InvalidPixels(
            f"photometric='{photometric}' cannot be said of {samples} samples per pixel: MONOCHROME1 or MONOCHROME2 of "
            "one, RGB or YBR_FULL of three"
        )
    return FrameFormat(rows, columns, samples, bits, stored, signed, photometric)


def _check_template(template: Dataset) -> None:
    checked.check(template)
    meta = getattr(template, "file_meta", None) or {}
    if meta.get("TransferSyntaxUID") == ExplicitVRBigEndian or template.original_encoding[1] is False:
        raise SourceError(
            "the template is big endian: gpuenc.compress(template, 'explicit-vr-little-endian') first",
            code="unknown-syntax",
        )


def _check_characters(template: Dataset, asked: Derivation) -> None:
    """Refuse text that would come back as another (PS3.5 6.1): pydicom would write question marks."""
    if all(text.isascii() for text in asked.texts):
        return
    try:
        names = template.get("SpecificCharacterSet") or ""
        encodings = convert_encodings([names] if isinstance(names, str) else list(names))
    except Exception as error:  # noqa: BLE001 - of a character set that nobody knows
        raise SourceError(
            f"the template's Specific Character Set cannot be used ({type(error).__name__})", code="corrupt-header"
        ) from None
    for text in asked.texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = decode_bytes(encode_string(text, encodings), encodings, set())
        if again != text:
            raise InvalidOption(
                "a text has characters that the template's Specific Character Set does not: use others, or give a "
                "template in ISO_IR 192"
            )


def _copied(template: Dataset) -> Dataset:
    """Return a copy without private elements, whose meaning nobody here knows, and without pixels."""
    own: dict[BaseTag, DataElement | RawDataElement] = {
        tag: template.get_item(tag)
        for tag in template.keys()  # noqa: SIM118 - iteration gives elements
        if not tag.is_private and tag.element and tag not in _OF_OLD_SAMPLES and tag.group not in _OLD_GROUPS
    }
    shallow = Dataset(own)
    implicit, little = template.original_encoding
    shallow.set_original_encoding(implicit, little, template.original_character_set)
    try:
        made = deepcopy(shallow)
        _clean(made)
    except Exception as error:  # noqa: BLE001 - pydicom's converters raise whatever they like, and quote the value
        raise SourceError(
            f"an element of the template cannot be read ({type(error).__name__})", code="corrupt-header"
        ) from None
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = template.SOPClassUID
    if may_be_lossy(str((getattr(template, "file_meta", None) or {}).get("TransferSyntaxUID") or "1.2.840.10008.1.2")):
        made.LossyImageCompression = made.get("LossyImageCompression") or "01"
    return made


def _clean(dataset: Dataset, signs: tuple[int, ...] = ()) -> None:
    """Remove private elements, inside sequences too; others keep their bytes, and get a VR where they have none.

    Which need not be a matter of the transfer syntax: there are files that are implicit where they say otherwise.
    """
    sign = dataset.get("PixelRepresentation")
    signs = signs if sign is None else (int(sign), *signs)
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if tag.is_private:
            del dataset[tag]
            continue
        vr = element.VR
        if isinstance(element, RawDataElement) and not vr:
            vr = vr_of(tag, len(element.value or b""), signs).decode()
            if vr != "SQ":
                dataset[tag] = element._replace(VR=vr, is_implicit_VR=False)
        if vr == "SQ":
            for item in dataset[tag].value or ():
                _clean(item, signs)


def _frames(made: Dataset, asked: Derivation) -> None:
    """Set Number of Frames; refuse to where something else was said of each frame."""
    before, now = int(made.get("NumberOfFrames") or 1), asked.number_of_frames
    groups.check(made, now)
    if before != now:
        pointers = made.get("FrameIncrementPointer")
        tags = pointers if isinstance(pointers, MultiValue | list) else [pointers] if pointers is not None else []
        for tag in tags:
            if tag in made and made[tag].VM > 1:
                raise InvalidPixels(
                    f"The template's {made[tag].name} has a value for each of its {before} frames, and the array has "
                    f"{now}: give a template whose values are those of the array's frames"
                )
    if now > 1 or "NumberOfFrames" in made:
        made.NumberOfFrames = now
    for tag in [tag for tag in made.keys() if 0x6000 <= tag.group < 0x6100]:  # noqa: SIM118
        base = made.get((tag.group, 0x3000))
        size = made.get((tag.group, 0x0010)), made.get((tag.group, 0x0011))
        same = [each and each.value for each in size] == [asked.format.rows, asked.format.columns]
        if base is None or not same or before != now:
            del made[tag]  # it lay in the old cells, or over other pixels


def _values(made: Dataset, asked: Derivation) -> None:
    """Say what stored values mean, and how to show them."""
    says = [keyword for keyword in _SAYS_WHAT_VALUES_MEAN if keyword in made]
    if asked.keeps_scale:
        if int(made.get("PixelRepresentation", 0)) != int(asked.format.signed):
            for tag in _PADDING:
                made.pop(tag, None)
        if "PixelPresentation" not in made:
            for tag in _PALETTE:
                made.pop(tag, None)
        if asked.window:
            _window(made, asked.window)
        return
    if (says or groups.rescales(made)) and asked.scale is None:
        raise InvalidPixels(
            "The template says what its stored values mean (Rescale Slope and Intercept), and nobody says what those "
            "of the array do: rescale='template' if the same, or rescale=(slope, intercept) and rescale_type, such as "
            "rescale=(1, 0) for values without a unit"
        )
    if "DoseGridScaling" in made or ("Units" in made and not asked.units):
        what = "Dose Grid Scaling" if "DoseGridScaling" in made else "Units"
        raise InvalidPixels(
            f"The template states {what}: rescale='template' for integers that it is true of"
            f"{', or say which in rescale_type' if what == 'Units' else ''}"
        )
    for tag in (*_OF_OLD_VALUES, *_PADDING, *_PALETTE):
        made.pop(tag, None)
    if "PixelPresentation" in made:
        made.PixelPresentation = "MONOCHROME" if asked.format.samples == 1 else "TRUE_COLOR"
    if "Units" in made:
        if not _CODE_STRING.fullmatch(asked.units):
            raise InvalidOption(f"rescale_type={asked.units!r} cannot be Units, a code string such as 'BQML'")
        made.Units = asked.units
    if groups.has(made):
        groups.set_values(made, asked.scale, asked.units or "US", asked.window)
        return
    if asked.scale:
        made.RescaleIntercept, made.RescaleSlope = asked.scale.intercept, asked.scale.slope
        made.RescaleType = asked.units or "US"  # unspecified (PS3.3 C.11.1.1.2)
    if asked.window:
        _window(made, asked.window)


def _window(made: Dataset, window: tuple[float, float]) -> None:
    old = [tag for tag in (*range(0x00281050, 0x00281052), 0x00281055, 0x00281056, 0x00283010) if tag in made]
    for tag in old:
        del made[tag]
    if groups.has(made):
        groups.set_window(made, window)
    if old or not groups.has(made):
        made.WindowCenter, made.WindowWidth = (f"{value:.10g}" for value in window)


def _image_pixel(made: Dataset, fmt: FrameFormat) -> None:
    made.SamplesPerPixel, made.PhotometricInterpretation = fmt.samples, fmt.photometric
    made.Rows, made.Columns = fmt.rows, fmt.columns
    made.BitsAllocated, made.BitsStored, made.HighBit = fmt.bits_allocated, fmt.bits_stored, fmt.high_bit
    made.PixelRepresentation = int(fmt.signed)
    for keyword in ("PlanarConfiguration", *(() if fmt.samples == 1 else ("PresentationLUTShape",))):
        made.pop(keyword, None)
    if fmt.samples > 1:
        made.PlanarConfiguration = fmt.planar
    elif "PresentationLUTShape" in made:
        made.PresentationLUTShape = "INVERSE" if fmt.photometric == "MONOCHROME1" else "IDENTITY"


def _identify(made: Dataset, asked: Derivation, *, enhanced: bool) -> None:
    """Make it an instance, and a series, of its own (PS3.3 C.7.6.1.1.2, C.7.3.1)."""
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.SeriesInstanceUID = UID(asked.series_instance_uid) if asked.series_instance_uid else generate_uid()
    made.add(DataElement(0x00200011, "IS", asked.series_number))
    if asked.series_description:
        made.SeriesDescription = asked.series_description
    values = made.get("ImageType") or []
    values = [values] if isinstance(values, str) else list(values)
    # Enhanced objects are PRIMARY whatever was done to them (PS3.3 C.8.16.1.2).
    kind = ["DERIVED", "PRIMARY" if enhanced or iods.is_enhanced(made) else "SECONDARY"]
    made.add(DataElement(0x00080008, "CS", [*kind, *values[2:]], validation_mode=IGNORE))
    now = datetime.now()
    made.InstanceCreationDate = made.ContentDate = now.strftime("%Y%m%d")
    made.InstanceCreationTime = made.ContentTime = now.strftime("%H%M%S")
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code("109102", "DCM", "Processing Equipment")]
    equipment.Manufacturer, equipment.SoftwareVersions = "gpuenc", __version__
    made.ContributingEquipmentSequence = [*(made.get("ContributingEquipmentSequence") or ()), equipment]


def _source_image(template: Dataset) -> Dataset:
    source = _reference(template)
    source.PurposeOfReferenceCodeSequence = [_code("121322", "DCM", "Source image for image processing operation")]
    return source


def _reference(template: Dataset) -> Dataset:
    reference = Dataset()
    # What a template says is repeated, not judged.
    reference.add(DataElement(0x00081150, "UI", str(template.SOPClassUID), validation_mode=IGNORE))
    reference.add(DataElement(0x00081155, "UI", str(template.SOPInstanceUID), validation_mode=IGNORE))
    return reference


def _evidence(template: Dataset) -> Dataset:
    """Return study and series of the source (PS3.3 10.3)."""
    series, study = Dataset(), Dataset()
    series.add(DataElement(0x0020000E, "UI", str(template.get("SeriesInstanceUID", "")), validation_mode=IGNORE))
    series.ReferencedSOPSequence = [_reference(template)]
    study.add(DataElement(0x0020000D, "UI", str(template.StudyInstanceUID), validation_mode=IGNORE))
    study.ReferencedSeriesSequence = [series]
    return study


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
