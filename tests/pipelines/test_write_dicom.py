"""Arrays written as DICOM objects: read back by pydicom, judged by dciodvfy where it is installed."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.config import IGNORE
from pydicom.data import get_testdata_file

import gpuenc
from gpuenc.dicom.scale import Scale, quantised
from gpuenc.errors import DestinationError, GpuencError, InvalidPixels

J2K, HT = "jpeg2000-lossless", "htj2k-lossless"
NATIVE, DEFLATED_FRAMES = "explicit-vr-little-endian", "deflated-image-frame"


def source(name):
    return dcmread(get_testdata_file(name, download=False))


@pytest.fixture
def ct():
    return source("CT_small.dcm")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.dcm"


KEPT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"),
    *("FrameOfReferenceUID", "SOPClassUID", "Modality", "AccessionNumber", "KVP", "InstanceNumber"),
)


def test_a_derived_object_says_so_and_is_about_the_same(ct, out):
    arr = ct.pixel_array // 2
    written = gpuenc.write_dicom(ct, arr, J2K, out, rescale="template", description="Halved", series_number=7)
    made = dcmread(out)
    assert np.array_equal(made.pixel_array, arr)
    for keyword in KEPT:
        assert made[keyword].value == ct[keyword].value, keyword
    assert list(made.ImageType) == ["DERIVED", "SECONDARY", *list(ct.ImageType)[2:]]
    new = {made.SOPInstanceUID, made.SeriesInstanceUID, ct.SOPInstanceUID, ct.SeriesInstanceUID}
    assert len(new) == 4
    assert (written.sop_instance_uid, written.series_instance_uid) == (made.SOPInstanceUID, made.SeriesInstanceUID)
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert (made.SeriesNumber, made.DerivationDescription) == (7, "Halved")
    [item] = made.SourceImageSequence
    assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (ct.SOPClassUID, ct.SOPInstanceUID)
    assert (made.RescaleSlope, made.RescaleIntercept) == (ct.RescaleSlope, ct.RescaleIntercept)
    assert (made.PixelSpacing, made.ImagePositionPatient) == (ct.PixelSpacing, ct.ImagePositionPatient)
    assert written.bytes_written == out.stat().st_size
    assert "LossyImageCompression" not in made
    assert ct == source("CT_small.dcm")


def test_what_describes_the_old_samples_is_gone(ct, out):
    ct.SmallestImagePixelValue, ct.LargestImagePixelValue = 1, 2
    ct.WindowCenter, ct.WindowWidth = 40, 400
    ct.PixelPaddingValue = -2000
    ct.add_new(0x00090010, "LO", "VENDOR")
    ct.add_new(0x00091001, "LO", "private")
    ct.IconImageSequence = []
    for element, value in ((0x10, 9), (0x11, 9), (0x102, 0)):
        ct.add_new(0x60000000 | element, "US", value)
    item = ct.OtherPatientIDsSequence[0]
    item.add_new(0x00090010, "LO", "VENDOR")
    gpuenc.write_dicom(ct, ct.pixel_array.astype(np.uint16), HT, out, rescale=(0.5, -7), rescale_type="US")
    made = dcmread(out)
    gone = ("SmallestImagePixelValue", "LargestImagePixelValue", "WindowCenter", "PixelPaddingValue")
    assert not [keyword for keyword in (*gone, "IconImageSequence") if keyword in made]
    assert not [element for element in made.iterall() if element.tag.is_private or element.tag.group == 0x6000]
    assert (made.RescaleSlope, made.RescaleIntercept, made.RescaleType) == (0.5, -7, "US")
    assert (made.BitsStored, made.HighBit, made.PixelRepresentation) == (16, 15, 0)


def test_what_values_mean_is_asked_for_where_it_matters(ct, out):
    with pytest.raises(ValueError, match=r"rescale='template' if the same, or rescale=\(slope, intercept\)"):
        gpuenc.write_dicom(ct, ct.pixel_array, HT, out)
    assert not out.exists()
    gpuenc.write_dicom(source("MR_small.dcm"), source("MR_small.dcm").pixel_array, HT, out)
    assert "RescaleSlope" not in dcmread(out)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_floats_are_quantised_only_when_asked(ct, out, dtype):
    values = (ct.pixel_array * 0.25 - 300).astype(dtype)
    for rescale in (None, "template"):
        with pytest.raises(ValueError, match=r"rescale=\(slope, intercept\).*rescale='range'"):
            gpuenc.write_dicom(ct, values, HT, out, rescale=rescale)
    written = gpuenc.write_dicom(ct, values, HT, out, rescale="range", rescale_type="HU", window=(40, 400))
    made = dcmread(out)
    slope = float(made.RescaleSlope)
    meant = made.pixel_array * slope + float(made.RescaleIntercept)
    assert np.abs(meant - values.astype("f8")).max() <= slope / 2 * 1.001
    assert int(made.pixel_array.max()) - int(made.pixel_array.min()) > 65000
    assert (made.RescaleType, made.WindowCenter, made.WindowWidth) == ("HU", 40, 400)
    assert (written.rescale_slope, written.rescale_intercept) == (str(made.RescaleSlope), str(made.RescaleIntercept))


def test_floats_on_a_scale_of_the_callers(ct, out):
    values = ct.pixel_array.astype("f4") - 1024
    gpuenc.write_dicom(ct, values, HT, out, rescale=(1, -1024), rescale_type="HU")
    assert np.array_equal(dcmread(out).pixel_array, ct.pixel_array)
    with pytest.raises(ValueError, match=r"do not reach: from -32768 to 32767; choose others, or rescale='range'"):
        gpuenc.write_dicom(ct, values * 100, HT, out.with_name("b"), rescale=(1, 0))
    values[3, 3] = np.nan
    for rescale in ((1, -1024), "range"):
        with pytest.raises(ValueError, match=r"not finite|do not reach"):
            gpuenc.write_dicom(ct, values, HT, out.with_name("b"), rescale=rescale)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (-1, 1), (1e6, 1e6 + 1e-3), (-1e-9, 1e-9), (3.3, 3.3), (-1e30, 1e30), (1e-300, 2e-300), (-0.1, 0.2)],
)
def test_a_range_always_fits_sixteen_bits_and_a_ds(low, high):
    scale = Scale.over(low, high)
    assert max(len(scale.slope), len(scale.intercept)) <= 16
    values = np.linspace(low, high, 4096).reshape(64, 64)
    stored = quantised(values, scale, np.dtype("u2"))
    meant = stored.astype("f8") * float(scale.slope) + float(scale.intercept)
    assert np.abs(meant - values).max() <= float(scale.slope) * 0.5001 + abs(high) * 1e-15


@pytest.mark.parametrize(
    ("dtype", "rescale", "message"),
    [
        ("i8", "template", "convert it to integers of 8, 16 or 32 bits"),
        ("?", "template", "convert it to integers, such as uint8"),
        ("u1", (1, 0), r"cells of 16 bits, and the array's have 8: convert it to uint16"),
        ("i2", "range", "holds integers already"),
        ("i2", "nonsense", "rescale is"),
        ("i2", (0, 1), "no slope other than 0"),
    ],
)
def test_arrays_that_such_an_object_cannot_hold(ct, out, dtype, rescale, message):
    with pytest.raises(ValueError, match=message):
        gpuenc.write_dicom(ct, np.zeros((128, 128), dtype), HT, out, rescale=rescale)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(("dtype", "value"), [("u2", 5000), ("i2", 2048), ("i2", -2049)])
@pytest.mark.parametrize("target", [HT, "rle", NATIVE, "deflated-explicit-vr-little-endian", DEFLATED_FRAMES])
def test_values_outside_bits_stored_are_refused_and_nothing_is_left(ct, out, target, dtype, value):
    arr = np.zeros((128, 128), dtype)
    arr[7, 8] = value
    with pytest.raises(GpuencError) as caught:
        gpuenc.write_dicom(ct, arr, target, out, rescale=(1, 0), bits_stored=12)
    assert caught.value.code == "values-outside-bits-stored"
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(("dtype", "least", "greatest"), [("u2", 0, 4095), ("i2", -2048, 2047)])
def test_all_values_of_bits_stored_fit(ct, out, dtype, least, greatest):
    arr = np.zeros((128, 128), dtype)
    arr[7, 8:10] = least, greatest
    gpuenc.write_dicom(ct, arr, NATIVE, out, rescale=(1, 0), bits_stored=12)
    assert np.array_equal(dcmread(out).pixel_array, arr)


def test_nothing_is_overwritten(ct, out):
    out.write_bytes(b"mine")
    with pytest.raises(DestinationError) as caught:
        gpuenc.write_dicom(ct, ct.pixel_array, HT, out, rescale="template")
    assert caught.value.code == "destination-exists"
    assert str(caught.value) == f"{out.name} exists; write_dicom replaces no file"
    assert out.read_bytes() == b"mine"
    assert list(out.parent.iterdir()) == [out]


def test_resized_pixels_lie_where_they_lay(ct, out):
    """The corners of the field of view, by PS3.3 C.7.6.2.1.1, are the template's."""
    arr = np.kron(ct.pixel_array, np.ones((4, 2), np.int16))
    with pytest.raises(ValueError, match="resized=True if it shows the same field of view"):
        gpuenc.write_dicom(ct, arr, HT, out, rescale="template")
    ct.ImageOrientationPatient = [0, 0.6, 0.8, 1, 0, 0]
    gpuenc.write_dicom(ct, arr, HT, out, rescale="template", resized=True)
    made = dcmread(out)
    assert [float(v) for v in made.PixelSpacing] == pytest.approx([ct.PixelSpacing[0] / 4, ct.PixelSpacing[1] / 2])
    for rows, columns in ((0, 0), (1, 0), (0, 1), (1, 1)):
        assert corner(made, rows, columns) == pytest.approx(corner(ct, rows, columns), abs=1e-4)
    assert made.DerivationCodeSequence[0].CodeValue == "113085"


def corner(ds, down, right):
    along, across = np.array(ds.ImageOrientationPatient[:3], float), np.array(ds.ImageOrientationPatient[3:], float)
    i, j = down * ds.Rows - 0.5, right * ds.Columns - 0.5
    position = np.array(ds.ImagePositionPatient, float)
    return position + along * j * float(ds.PixelSpacing[1]) + across * i * float(ds.PixelSpacing[0])


def test_a_lossy_target_adds_to_the_history(ct, out):
    ct.LossyImageCompression, ct.LossyImageCompressionRatio = "01", 3
    ct.LossyImageCompressionMethod = "ISO_10918_1"
    gpuenc.write_dicom(ct, ct.pixel_array, "htj2k", out, rescale="template", ratio=5)
    made = dcmread(out)
    ratio = ct.Rows * ct.Columns * 2 / len(next(iter_frames(made)))
    assert [float(value) for value in made.LossyImageCompressionRatio] == pytest.approx([3, ratio], rel=1e-4)
    assert list(made.LossyImageCompressionMethod) == ["ISO_10918_1", "ISO_15444_15"]
    assert len(made.SourceImageSequence) == 1
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == ct.SOPInstanceUID
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert [item.CodeValue for item in made.DerivationCodeSequence] == ["113040"]


def iter_frames(ds):
    from pydicom.encaps import generate_frames

    return generate_frames(ds.PixelData, number_of_frames=1)


def test_samples_from_a_lossy_template_stay_lossy(out):
    template = source("JPEG-lossy.dcm")
    template.pop("LossyImageCompression", None)
    gpuenc.write_dicom(template, np.zeros((template.Rows, template.Columns), "u2"), HT, out)
    assert dcmread(out).LossyImageCompression == "01"


@pytest.mark.parametrize("axes", ["HWC", "CHW"])
@pytest.mark.parametrize("target", [J2K, HT, "rle", "jpeg-ls-lossless", NATIVE])
def test_colours_in_both_orders(out, axes, target):
    template = source("SC_rgb_rle.dcm")
    rgb = np.random.default_rng(3).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    arr = rgb if axes == "HWC" else np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
    gpuenc.write_dicom(template, arr, target, out, layout=axes)
    assert np.array_equal(dcmread(out).pixel_array, rgb)


def test_one_frame_objects_take_one_frame_and_grey_ones_no_colours(ct, out):
    with pytest.raises(ValueError, match="has one frame, and the array has 2: write one object for each"):
        gpuenc.write_dicom(ct, np.zeros((2, 128, 128), "i2"), HT, out, rescale="template")
    with pytest.raises(ValueError, match="has no colours, and the array does"):
        gpuenc.write_dicom(ct, np.zeros((128, 128, 3), "u1"), HT, out, rescale="template")
    with pytest.raises(ValueError, match="PALETTE COLOR: say photometric='MONOCHROME2'"):
        gpuenc.write_dicom(source("examples_palette.dcm"), np.zeros((9, 9), "u1"), HT, out)


def test_frames_that_the_template_describes_one_by_one(out):
    template = source("eCT_Supplemental.dcm")
    arr = template.pixel_array
    with pytest.raises(ValueError, match=r"describes each of its 2 frames .* and the array has 1"):
        gpuenc.write_dicom(template, arr[:1], HT, out, rescale="template")
    with pytest.raises(ValueError, match="Grid Frame Offset Vector has a value for each of its 15 frames"):
        gpuenc.write_dicom(valid(source("rtdose.dcm")), np.zeros((4, 10, 10), "u4"), HT, out, rescale="template")
    [shared] = template.SharedFunctionalGroupsSequence
    for item in template.PerFrameFunctionalGroupsSequence:
        item.PixelValueTransformationSequence = shared.PixelValueTransformationSequence
        item.FrameVOILUTSequence = [Dataset()]
        item.DerivationImageSequence = [Dataset()]
    gpuenc.write_dicom(template, arr, HT, out, rescale=(2, -5), window=(1, 100))
    made = dcmread(out)
    assert np.array_equal(made.pixel_array, arr)
    assert list(made.ImageType)[:2] == ["DERIVED", "PRIMARY"]
    [shared] = made.SharedFunctionalGroupsSequence
    assert shared.PixelValueTransformationSequence[0].RescaleSlope == 2
    assert shared.FrameVOILUTSequence[0].WindowWidth == 100
    for item in made.PerFrameFunctionalGroupsSequence:
        assert "PixelValueTransformationSequence" not in item
        assert "FrameVOILUTSequence" not in item
        assert "DerivationImageSequence" not in item
    source_of = shared.DerivationImageSequence[0].SourceImageSequence[0]
    assert source_of.ReferencedSOPInstanceUID == template.SOPInstanceUID


def test_a_window_is_that_of_every_frame_where_values_mean_the_same(out):
    template = source("eCT_Supplemental.dcm")
    [shared] = template.SharedFunctionalGroupsSequence
    arr, slope = template.pixel_array, shared.PixelValueTransformationSequence[0].RescaleSlope
    for item in template.PerFrameFunctionalGroupsSequence:
        item.FrameVOILUTSequence = shared.FrameVOILUTSequence
    gpuenc.write_dicom(template, arr, HT, out, rescale="template", window=(1, 100))
    made = dcmread(out)
    [shared] = made.SharedFunctionalGroupsSequence
    [shown] = shared.FrameVOILUTSequence
    assert (shown.WindowCenter, shown.WindowWidth) == (1, 100)
    assert shared.PixelValueTransformationSequence[0].RescaleSlope == slope
    assert not any("FrameVOILUTSequence" in item for item in made.PerFrameFunctionalGroupsSequence)
    assert "WindowCenter" not in made


def valid(ds):
    ds.SOPInstanceUID = "1.2.3.4"
    return ds


@pytest.mark.parametrize(
    "name", ["MR_small_implicit.dcm", "image_dfl.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "MR_small_expb.dcm"]
)
def test_templates_of_any_syntax(out, name):
    template = get_testdata_file(name, download=False)
    ds = dcmread(template)
    arr = np.arange(ds.Rows * ds.Columns, dtype="u2").reshape(ds.Rows, ds.Columns)
    if ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.2":
        with pytest.raises(ValueError, match="big endian"):
            gpuenc.write_dicom(template, arr, HT, out)
        return
    gpuenc.write_dicom(template, arr, HT, out, rescale="template")
    made = dcmread(out)
    assert np.array_equal(made.pixel_array, arr)
    for keyword in ("PatientID", "StudyInstanceUID", "Modality"):
        assert made.get(keyword) == ds.get(keyword)


def test_names_in_any_characters_stay(ct, out, tmp_path):
    ct.SpecificCharacterSet, ct.PatientName = "ISO_IR 192", "Ångström^Ærlig"
    ct.save_as(tmp_path / "template.dcm")
    for template in (tmp_path / "template.dcm", ct):
        gpuenc.write_dicom(template, ct.pixel_array, HT, out, rescale="template", description="größer")
        made = dcmread(out)
        assert made.PatientName == "Ångström^Ærlig"
        assert made.DerivationDescription == "größer"
        out.unlink()


def test_a_template_tells_three_frames_from_three_colours(out):
    rgb = np.random.default_rng(4).integers(0, 256, (3, 100, 100)).astype(np.uint8)
    gpuenc.write_dicom(source("SC_rgb_rle.dcm"), rgb, HT, out)
    assert np.array_equal(dcmread(out).pixel_array, np.moveaxis(rgb, 0, 2))
    template = source("SC_rgb_rle.dcm")
    template.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.2"  # multi-frame grey
    template.NumberOfFrames, template.SamplesPerPixel, template.PhotometricInterpretation = 3, 1, "MONOCHROME2"
    gpuenc.write_dicom(template, rgb, HT, out.with_name("grey"))
    assert np.array_equal(dcmread(out.with_name("grey")).pixel_array, rgb)
    template.NumberOfFrames = 5
    with pytest.raises(ValueError, match="more than one way"):
        gpuenc.write_dicom(template, rgb, HT, out.with_name("x"))


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_a_template_that_is_not_encoded_as_it_says(out):
    template = source("SC_rgb_jpeg.dcm")
    arr = np.random.default_rng(5).integers(0, 256, (template.Rows, template.Columns, 3)).astype(np.uint8)
    gpuenc.write_dicom(get_testdata_file("SC_rgb_jpeg.dcm", download=False), arr, HT, out)
    made = dcmread(out)
    assert np.array_equal(made.pixel_array, arr)
    assert made.PatientID == template.PatientID


def test_elements_that_cannot_be_written_are_no_text_in_an_error(ct, out):
    ct.add(DataElement(0x00181150, "US", "SECRET", validation_mode=IGNORE))
    with pytest.raises(ValueError, match="cannot be written") as caught:
        gpuenc.write_dicom(ct, ct.pixel_array, HT, out, rescale="template")
    assert caught.value.code == "corrupt-header"
    assert "SECRET" not in str(caught.value)
    assert not out.exists()


def test_what_is_no_template(tmp_path, out):
    (tmp_path / "text").write_text("x" * 400)
    for template in (tmp_path / "text", tmp_path / "nothing", source("CT_small.dcm").file_meta):
        with pytest.raises((GpuencError, AttributeError, TypeError)):
            gpuenc.write_dicom(template, np.zeros((9, 9), "u1"), HT, out)
    ds = source("CT_small.dcm")
    del ds.StudyInstanceUID
    with pytest.raises(ValueError, match="has no StudyInstanceUID"):
        gpuenc.write_dicom(ds, np.zeros((128, 128), "i2"), HT, out, rescale="template")


def findings(path):
    run = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    lines = (run.stdout + run.stderr).splitlines()
    return {line for line in lines if line.startswith("Error")}


CASES = {
    "CT": ("CT_small.dcm", J2K, {"rescale": "template"}),
    "CT of floats": ("CT_small.dcm", J2K, {"rescale": "range", "rescale_type": "HU", "window": (40, 400)}),
    "CT, JPEG-LS near": ("CT_small.dcm", "jpeg-ls", {"rescale": "template", "near": 2}),
    "MR": ("MR_small.dcm", NATIVE, {}),
    "SC": ("SC_rgb_rle.dcm", "jpeg-baseline", {"quality": 90}),
    "SC, grey": ("SC_rgb_rle.dcm", J2K, {}),
    "enhanced CT": ("eCT_Supplemental.dcm", J2K, {"rescale": "template"}),
    "enhanced CT, other values": ("eCT_Supplemental.dcm", J2K, {"rescale": (2, -5), "window": (1, 100)}),
}


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize(("name", "target", "options"), CASES.values(), ids=CASES)
def test_dciodvfy_finds_nothing_that_it_does_not_find_in_the_template(out, name, target, options):
    arr = source(name).pixel_array
    if options.get("rescale") == "range":
        arr = arr * np.float32(0.5)
    if name == "SC_rgb_rle.dcm" and target == J2K:
        arr = arr[..., 0]
    gpuenc.write_dicom(get_testdata_file(name, download=False), arr, target, out, **options)
    assert findings(out) <= findings(get_testdata_file(name, download=False))


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_would_find_something(ct, out):
    gpuenc.write_dicom(ct, ct.pixel_array, NATIVE, out, rescale="template")
    made = dcmread(out)
    made.HighBit, made.ImageType = 3, ["DERIVED", "SIDEWAYS", "AXIAL"]
    made.save_as(out)
    assert findings(out) - findings(get_testdata_file("CT_small.dcm", download=False))


def test_masked_arrays_are_refused(out):
    array = np.ma.masked_greater(np.arange(16384, dtype="f4").reshape(128, 128), 16000)
    with pytest.raises(InvalidPixels, match=r"filled"):
        gpuenc.write_dicom(source("CT_small.dcm"), array, HT, out, rescale="range")
    assert not out.exists()


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm"])
def test_templates_that_are_no_images(out, name):
    with pytest.raises(InvalidPixels, match="is no image"):
        gpuenc.write_dicom(source(name), np.zeros((16, 16), np.uint16), HT, out, rescale=(1, 0))
    assert not out.exists()
