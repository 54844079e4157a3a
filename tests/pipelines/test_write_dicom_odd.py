"""What `write_dicom` is given and cannot write: a named error each time, and nothing in the folder afterwards."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from pydicom import DataElement, dcmread
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.pixels import pixel_array
from pydicom.tag import Tag

import gpuenc
from gpuenc.errors import GpuencError, InvalidOption, InvalidPixels, SourceError
from tests.dicom.files import named
from tests.pipelines.test_write_dicom import NATIVE, findings, source

NAN, INF = float("nan"), float("inf")
UID = "1.2.826.0.1.3680043.8.498."
ARRAYS = {
    "0 axes": np.array(3, "i2"), "5 axes": np.zeros((1, 2, 3, 4, 5), "i2"), "none": np.zeros((0, 5), "i2"),
    "a list": [[1, 2]], "nothing": None, "complex": np.zeros((128, 128), "c8"), "text": np.full((128, 128), "1"),
    "objects": np.zeros((128, 128), "O"), "64 bits": np.zeros((128, 128), "i8"), "bools": np.zeros((128, 128), bool),
}  # fmt: skip


@pytest.fixture(scope="module")
def ct():
    return source("CT_small.dcm")


def refused(kind, folder, template, array, out=None, **options):
    options = {"rescale": "template"} | options
    with pytest.raises(kind) as caught:
        gpuenc.write_dicom(template, array, NATIVE, folder / "out.dcm" if out is None else out, **options)
    assert type(caught.value) is kind
    assert not list(folder.iterdir())
    return caught.value.code


@pytest.mark.parametrize("option", [
    *({"window": value} for value in (
        (NAN, 1), (40, NAN), (40, -400), (40, 0), (40, 0.5), (INF, 1), (40, INF), (1,), (1, 2, 3), (None, 400),
        ("a", "b"), "file", "40", 40, {}, (-1.234567891e-100, 400), (10**400, 1),
    )),
    *({"series_instance_uid": value} for value in (
        "abc", "1", "1..2", "1.2.", "01.2", "1.02", "9.9", "1." + "2" * 63, " 1.2", "1.2\n", "1.2\\1.3", 5, 1.2, b"1.2",
        "\N{FULLWIDTH DIGIT ONE}.2",
    )),
    *({"series_description": value} for value in ("x" * 65, "a\\b", "a\nb", "\0", "日本", 5, b"x")),
    *({"description": value} for value in ("x" * 1025, "\0", "a\x1bb", "日本", 5, ["x"])),
    *({"series_number": value} for value in ("7", "abc", 2**31, -(2**31) - 1, 1.5, True, NAN, 10**14)),
    *({"derivation_code": value} for value in (
        ("a", "b"), ("a" * 17, "DCM", "x"), ("", "DCM", "x"), (1, 2, 3), ("a", "b" * 17, "c"), ("a", "b", "c" * 65),
        ("a\\b", "DCM", "x"), "abc", 5, ("a", None, "c"), ("a", "b", "日本"),
    )),
    *({"rescale": (1, -1024), "rescale_type": value} for value in ("x" * 65, "a\\b", "a\tb", 5)),
    *({"rescale": value} for value in (
        (NAN, 1), (0, 1), (1, INF), ("a", "b"), (1,), (1, 2, 3), (1, None), 5, {}, "nope", "", b"range", (10**400, 0),
    )),
    *({"bits_stored": value} for value in (0, -1, 33, "12", 12.0, True, NAN)),
    *({"threads": value} for value in (0, -1, "2", 1.5)),
    *({"device_memory_bytes": value} for value in (0, -1, "x")),
    *({"device": value} for value in ("tpu", -1, 1.5, None)),
    *({"verify": value} for value in ("maybe", 5, None)),
    *({"layout": value} for value in ("XX", 5)),
    *({"out": value} for value in (5, b"x", "\0x", ["x"])),
], ids=str)  # fmt: skip
def test_an_option_that_cannot_be_written_is_refused_before_anything_is(tmp_path, ct, option):
    assert refused(InvalidOption, tmp_path, ct, ct.pixel_array, **option) == "invalid-option"


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_what_is_no_array_of_samples(tmp_path, ct, array):
    assert refused(InvalidPixels, tmp_path, ct, array) == "invalid-pixels"


def test_what_is_no_template(tmp_path, ct):
    for template in (None, 5, ct.pixel_array, "\0"):
        assert refused(InvalidOption, tmp_path, template, ct.pixel_array) == "invalid-option"
    assert refused(SourceError, tmp_path, tmp_path, ct.pixel_array) == "unreadable-source"


def test_units_are_a_code(tmp_path, ct):
    ct = source("CT_small.dcm")
    ct.Units = "BQML"
    for units in ("becquerel", "Größe"):
        assert refused(InvalidOption, tmp_path, ct, ct.pixel_array, rescale=(1, 0), rescale_type=units)
    gpuenc.write_dicom(ct, ct.pixel_array, NATIVE, tmp_path / "out.dcm", rescale=(1, 0), rescale_type="CNTS")
    assert dcmread(tmp_path / "out.dcm").Units == "CNTS"


def with_odd(keyword, value):
    """Return a template with text or bytes, or a value that pydicom does not judge, in an element."""
    ct = source("CT_small.dcm")
    tag = Tag(tag_for_keyword(keyword))
    vr = dictionary_VR(tag)
    if isinstance(value, str | bytes):
        raw = value if isinstance(value, bytes) else value.encode() + b" " * (len(value) % 2)
        ct[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    else:
        ct[tag] = DataElement(tag, vr, value, validation_mode=IGNORE)
    return ct


@pytest.mark.parametrize(("keyword", "value"), [
    ("Rows", b"abc"), ("Rows", [1, 2]), ("Columns", b"a"), ("NumberOfFrames", "x"), ("NumberOfFrames", "1\\2"),
    ("NumberOfFrames", b"\xff\xff"), ("SamplesPerPixel", b"abc"), ("SamplesPerPixel", [1, 1]), ("BitsStored", b"x"),
    ("BitsStored", [12, 12]), ("BitsAllocated", b"a"), ("PixelRepresentation", b"zz1"), ("SOPClassUID", ""),
    ("SOPClassUID", "1.2\\1.3"), ("SOPInstanceUID", "1.2\\1.3"), ("StudyInstanceUID", ""), ("StudyInstanceUID", "1\\2"),
])  # fmt: skip
def test_a_template_whose_description_is_garbage_is_refused_by_name(tmp_path, ct, keyword, value):
    odd = with_odd(keyword, value)
    for options in ({}, {"rescale": (1, -5)}):
        assert refused(SourceError, tmp_path, odd, ct.pixel_array, **options) == "corrupt-header"
    with pytest.raises(SourceError, match=keyword):
        gpuenc.write_dicom(odd, ct.pixel_array, NATIVE, tmp_path / "out.dcm", rescale="template")


@pytest.mark.parametrize(("keyword", "value"), [
    ("PixelSpacing", "x"), ("PixelSpacing", "1"), ("PixelSpacing", "1\\2\\3"), ("PixelSpacing", "nan\\1"),
    ("PixelSpacing", "0\\0"), ("PixelSpacing", "-1\\1"), ("PixelSpacing", "1e400\\1"), ("ImagerPixelSpacing", "q"),
    ("ImagePositionPatient", "x"), ("ImagePositionPatient", "1\\2"), ("ImagePositionPatient", "nan\\1\\2"),
    ("ImageOrientationPatient", "1\\2"), ("ImageOrientationPatient", "1\\0\\0\\0\\1\\q"),
])  # fmt: skip
def test_geometry_that_is_garbage_is_repeated_but_not_counted_with(tmp_path, ct, keyword, value):
    odd = with_odd(keyword, value)
    small = ct.pixel_array[::2, ::2].copy()
    assert refused(SourceError, tmp_path, odd, small, resized=True) == "corrupt-header"
    gpuenc.write_dicom(odd, ct.pixel_array, NATIVE, tmp_path / "out.dcm", rescale="template")
    assert np.array_equal(dcmread(tmp_path / "out.dcm").pixel_array, ct.pixel_array)


@pytest.mark.parametrize("option", [
    {"window": (40, 1)}, {"window": [40, 400]}, {"window": np.array([-600.5, 1500])}, {"window": (-1e7, 123456.789)},
    {"series_instance_uid": UID + "0"}, {"series_instance_uid": "1." + "2" * 62}, {"series_instance_uid": "2.25.9"},
    {"series_description": "x" * 64}, {"series_description": "Größe"}, {"description": "a\r\nb\\c"},
    {"description": "x" * 1024}, {"series_number": 1 - 2**31}, {"series_number": np.int64(7)},
    {"derivation_code": ["113085", "DCM", "Spatial resampling"]}, {"rescale": [1, -1024], "rescale_type": "HU"},
    {"rescale": np.array([1e-5, -1e9]), "rescale_type": "x" * 64}, {"bits_stored": np.int64(16)},
], ids=str)  # fmt: skip
def test_what_is_odd_and_right_is_written_as_it_was_given(tmp_path, option):
    ct, out = source("CT_small.dcm"), tmp_path / "out.dcm"
    gpuenc.write_dicom(ct, ct.pixel_array, NATIVE, out, **({"rescale": "template"} | option))
    made = dcmread(out)
    assert np.array_equal(made.pixel_array, ct.pixel_array)
    said = {
        "window": lambda: [float(made.WindowCenter), float(made.WindowWidth)],
        "series_instance_uid": lambda: made.SeriesInstanceUID,
        "series_description": lambda: made.SeriesDescription,
        "description": lambda: made.DerivationDescription,
        "series_number": lambda: made.SeriesNumber,
        "derivation_code": lambda: [made.DerivationCodeSequence[0][tag].value for tag in (0x80100, 0x80102, 0x80104)],
        "rescale": lambda: [float(made.RescaleSlope), float(made.RescaleIntercept)],
        "rescale_type": lambda: made.RescaleType,
        "bits_stored": lambda: made.BitsStored,
    }
    for name, given in option.items():
        is_text = isinstance(given, str) or name == "derivation_code"
        assert said[name]() == (given if is_text else pytest.approx(given))
    if shutil.which("dciodvfy"):
        # Rescale Type and Bits Stored of CT are its IOD's business.
        new = findings(out) - findings(named("CT_small.dcm"))
        assert not [line for line in new if "Rescale" not in line]


def test_everything_is_an_error_of_ours(tmp_path, ct):
    """Odd values two at a time: whichever is found first, it has a name."""
    odd = [NAN, -1, "", b"\0", (), ("x",), object(), 10**30]
    names = (
        "window",
        "series_instance_uid",
        "description",
        "series_number",
        "derivation_code",
        "rescale",
        "bits_stored",
    )
    written = 0
    for number in range(len(odd) * len(names)):
        first, second = names[number % len(names)], names[(number // 8 + number + 1) % len(names)]
        options = {"rescale": "template", first: odd[number % 8], second: odd[(number * 3) % 8]}
        try:
            gpuenc.write_dicom(ct, ct.pixel_array, NATIVE, tmp_path / f"{number}.dcm", **options)
            written += 1
        except GpuencError:
            assert not (tmp_path / f"{number}.dcm").exists()
    assert written < number


@pytest.mark.parametrize("name", ["SC_ybr_full_422_uncompressed.dcm", "examples_ybr_color.dcm", "SC_rgb_rle.dcm"])
def test_colours_of_templates_of_luminance_and_chroma_are_asked_about(tmp_path, name):
    """What is shown afterwards is what was shown before, whichever of both the array is."""
    template = dcmread(named(name))
    shown = pixel_array(template, raw=False)
    if not str(template.PhotometricInterpretation).startswith("YBR_FULL"):
        gpuenc.write_dicom(template, shown, "rle", tmp_path / "rgb.dcm")
        assert np.array_equal(pixel_array(dcmread(tmp_path / "rgb.dcm")), shown)
        return
    with pytest.raises(InvalidPixels, match=r"say photometric='YBR_FULL' .* or photometric='RGB'"):
        gpuenc.write_dicom(template, pixel_array(template, raw=True), "rle", tmp_path / "out.dcm")
    for photometric, raw in (("YBR_FULL", True), ("RGB", False)):
        out = tmp_path / f"{photometric}.dcm"
        gpuenc.write_dicom(template, pixel_array(template, raw=raw), "rle", out, photometric=photometric)
        made = dcmread(out)
        assert made.PhotometricInterpretation == photometric
        assert np.array_equal(pixel_array(made, raw=False), shown)
    frame = gpuenc.FrameDataset(named(name))[0]["image"]
    gpuenc.write_dicom(template, frame, "rle", tmp_path / "frame.dcm", photometric="YBR_FULL")
    first = shown[0] if shown.ndim == 4 else shown
    assert np.array_equal(pixel_array(dcmread(tmp_path / "frame.dcm"), raw=False), first)
    assert np.array_equal(template.pixel_array, shown)  # which the message says


@pytest.mark.parametrize("photometric", ["YBR_RCT", "YBR_ICT"])
def test_templates_whose_decoders_give_rgb_are_not_asked_about(tmp_path, photometric):
    template = dcmread(named("SC_rgb_rle.dcm"))
    shown = template.pixel_array
    template.PhotometricInterpretation = photometric
    gpuenc.write_dicom(template, shown, "rle", tmp_path / "out.dcm")
    assert np.array_equal(pixel_array(dcmread(tmp_path / "out.dcm")), shown)
