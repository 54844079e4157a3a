"""Modality LUT, windows, inversion and size, against pydicom's and against the formulas of PS3.3 in 64 bits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_windowing

import gpuenc
from gpuenc.errors import InvalidOption, InvalidPixels
from gpuenc.pipelines.display import TOLERANCE, Window, resized, windowed
from tests import made
from tests.dicom.files import named

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def only(path, **options):
    with gpuenc.FrameDataset(path, **options) as frames:
        return frames[0]["image"]


def near(found, expected):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    return np.abs(found - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


def formula(x, center, width, function):
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.2 and C.11.2.1.3.1, value by value, y from 0 to 1."""
    x = x.astype(np.float64)
    if function == "LINEAR":
        y = (x - (center - 0.5)) / (width - 1) + 0.5 if width > 1 else np.zeros_like(x)
        y = np.where(x > center - 0.5 + (width - 1) / 2, 1, y)
        return np.where(x <= center - 0.5 - (width - 1) / 2, 0, y)
    if function == "LINEAR_EXACT":
        y = (x - center) / width + 0.5
        return np.where(x > center + width / 2, 1, np.where(x <= center - width / 2, 0, y))
    return 1 / (1 + np.exp(-4 * (x - center) / width))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600.5, 1500), (127.5, 1), (0, 2), (1e4, 12.25), (0, 65535)])
def test_windows_are_those_of_the_standard(function, center, width):
    values = np.concatenate([np.arange(-3000, 3000, 7), [-32768, 32767, 127, 128, 0, -1]]).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = formula(values, center, width, function)
    assert near(windowed(values[None].copy(), Window(center, width, function)), expected[None])


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_J2KR.dcm", "JPEG-LL.dcm"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_real_images_are_shown_as_by_pydicom(name, function):
    ds = dcmread(named(name))
    rescaled = apply_modality_lut(ds.pixel_array, ds).astype(np.float64)
    assert near(only(named(name), rescale=True), rescaled)
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 50, 350, function
    shown = apply_windowing(rescaled, ds)
    # pydicom's range is that of the stored values, rescaled.
    bits = (
        [0, 2**ds.BitsStored - 1]
        if not ds.PixelRepresentation
        else [-(2 ** (ds.BitsStored - 1)), 2 ** (ds.BitsStored - 1) - 1]
    )
    low, high = (value * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0)) for value in bits)
    assert near(only(named(name), window=(50, 350, function)), (shown - low) / (high - low))


def ct(*elements, samples=None, **options):
    values = made.noise((2, 5, 6), "i2", 12) if samples is None else samples
    return made.of(values, stored=12, elements=elements, **options), values


def ds(tag, text):
    return made.Element(tag, "DS", text)


def test_the_files_own_window_is_its_first(tmp_path):
    image, values = ct(
        ds(0x00281050, "40\\-600"), ds(0x00281051, "400\\1500"), ds(0x00281052, "-1024"), ds(0x00281053, "2")
    )
    found = only(image.write(tmp_path / "a"), window="file")
    assert near(found, formula(values[0] * 2 - 1024, 40, 400, "LINEAR"))


@pytest.mark.parametrize("width", ["0", "none", ""])
def test_a_window_that_cannot_be_used_has_a_name(tmp_path, width):
    image, _ = ct(ds(0x00281050, "40"), ds(0x00281051, width))
    path = image.write(tmp_path / "a")
    with pytest.raises(InvalidPixels) as caught:
        only(path, window="file")
    assert caught.value.code == "no-window"
    assert only(path, window=(0, 100)).dtype == np.float32


def test_what_is_no_rescaling_has_a_name(tmp_path):
    lut = made.Element(0x00283000, "SQ", [[made.Element(0x00283006, "US", (1, 2))]])
    for element in (lut, ds(0x00281053, "steep")):
        image, values = ct(element)
        path = image.write(tmp_path / "a")
        with pytest.raises(InvalidPixels) as caught:
            only(path, rescale=True)
        assert caught.value.code == "no-modality"
        assert np.array_equal(only(path), values[0])


def test_each_frame_has_its_own_transform(tmp_path):
    def item(slope, center):
        value = [ds(0x00281052, "0"), ds(0x00281053, slope), made.Element(0x00281054, "LO", "US")]
        voi = [ds(0x00281050, center), ds(0x00281051, "500")]
        return [made.Element(0x00289132, "SQ", [voi]), made.Element(0x00289145, "SQ", [value])]

    shared = made.Element(0x52009229, "SQ", [item("3", "10")])
    each = made.Element(0x52009230, "SQ", [item("1", "100"), item("0.5", "-50")], True)
    for elements, expected in (((shared,), [(3, 10), (3, 10)]), ((shared, each), [(1, 100), (0.5, -50)])):
        for syntax in (made.EXPLICIT, made.IMPLICIT):
            image, values = ct(*elements, syntax=syntax)
            image.write(tmp_path / "a")
            with gpuenc.FrameDataset(
                tmp_path, index=tmp_path.with_suffix(".index"), window="file", on_stale="rebuild"
            ) as frames:
                for number, (slope, center) in enumerate(expected):
                    assert near(frames[number]["image"], formula(values[number] * slope, center, 500, "LINEAR"))


@pytest.mark.parametrize("count", [1, 3])
def test_groups_that_are_not_one_for_each_frame_tell_nothing(tmp_path, count):
    def each(group, *elements):
        return made.Element(0x52009230, "SQ", [[made.Element(group, "SQ", [list(elements)])]] * count, True)

    def failure(image, **options):
        with (
            gpuenc.FrameDataset(image.write(tmp_path / "a"), **options) as frames,
            pytest.raises(InvalidPixels) as caught,
        ):
            frames[1]
        return caught.value.code

    rescaled, values = ct(each(0x00289145, ds(0x00281052, "0"), ds(0x00281053, "2")))
    assert failure(rescaled, rescale=True) == "no-modality"
    assert failure(rescaled, window=(0, 100)) == "no-modality"
    with gpuenc.FrameDataset(rescaled.write(tmp_path / "a")) as frames:
        assert np.array_equal(frames[1]["image"], values[1])
    shown, values = ct(each(0x00289132, ds(0x00281050, "40"), ds(0x00281051, "400")))
    assert failure(shown, window="file") == "no-window"
    with gpuenc.FrameDataset(shown.write(tmp_path / "a"), rescale=True) as frames:
        assert near(frames[1]["image"], values[1])


def test_an_enhanced_object_is_rescaled_as_pydicom_reads_its_groups():
    path = named("eCT_Supplemental.dcm")
    enhanced = dcmread(path)
    shared = enhanced.SharedFunctionalGroupsSequence[0]
    values, voi = shared.PixelValueTransformationSequence[0], shared.FrameVOILUTSequence[0]
    expected = enhanced.pixel_array[1] * float(values.RescaleSlope) + float(values.RescaleIntercept)
    with gpuenc.FrameDataset(path, rescale=True) as frames:
        assert near(frames[1]["image"], expected)
    center, width = (np.ravel(number)[0] for number in (voi.WindowCenter, voi.WindowWidth))
    with gpuenc.FrameDataset(path, window="file") as frames:
        assert near(frames[1]["image"], formula(expected, float(center), float(width), "LINEAR"))


def test_monochrome1_is_inverted_on_request(tmp_path):
    one, values = ct(photometric="MONOCHROME1")
    other, _ = ct(samples=values)
    one.write(tmp_path / "1"), other.write(tmp_path / "2")
    assert np.array_equal(only(tmp_path / "1"), values[0])
    assert np.array_equal(only(tmp_path / "1", invert=True), -1 - values[0])
    assert np.array_equal(only(tmp_path / "2", invert=True), values[0])
    bright = only(tmp_path / "2", window=(0, 1000))
    assert near(only(tmp_path / "1", window=(0, 1000), invert=True), 1 - bright.astype(np.float64))
    assert np.array_equal(only(tmp_path / "2", window=(0, 1000), invert=True), bright)
    unsigned = made.noise((1, 4, 4), "u2", 10)
    path = made.of(unsigned, stored=10, photometric="MONOCHROME1").write(tmp_path / "3")
    assert np.array_equal(only(path, invert=True), 1023 - unsigned[0])
    assert only(path, invert=True).dtype == np.uint16
    with pytest.raises(InvalidOption):
        gpuenc.FrameDataset(path, invert=True, rescale=True)


def test_colours_have_no_window(tmp_path):
    colours = made.noise((1, 4, 4, 3), "u1")
    path = made.of(colours).write(tmp_path / "a")
    odd = made.of(colours, elements=(ds(0x00281053, "2"),)).write(tmp_path / "b")
    for each, options in ((path, {"window": (0, 10)}), (odd, {"rescale": True}), (odd, {"window": "file"})):
        with pytest.raises(InvalidPixels) as caught:
            only(each, **options)
        assert caught.value.code == "not-monochrome"
    assert near(only(path, rescale=True), colours[0])
    assert only(path, size=(2, 8)).shape == (2, 8, 3)


@pytest.mark.parametrize("options", [{"window": (0, 0)}, {"window": (0, 0.5)}, {"window": (0, -1, "SIGMOID")},
                                     {"window": (0, 1, "CUBIC")}, {"window": "auto"}, {"window": (float("nan"), 1)},
                                     {"size": (0, 4)}, {"size": 4}, {"size": (4, 4.0)}, {"threads": 0}])  # fmt: skip
def test_options_are_checked_at_the_door(tmp_path, options):
    path = ct()[0].write(tmp_path / "a")
    with pytest.raises(InvalidOption):
        gpuenc.FrameDataset(path, **options)


def triangle(have, wanted):
    """Return the matrix of the resize, entry by entry, in 64 bits."""
    scale = have / wanted
    reach = max(1, scale)
    matrix = np.zeros((wanted, have))
    for row in range(wanted):
        center = (row + 0.5) * scale
        for column in range(have):
            matrix[row, column] = max(0, 1 - abs(column + 0.5 - center) / reach)
    return matrix / matrix.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [(16, 12), (33, 24), (7, 5), (64, 64), (33, 5), (1, 1), (66, 48)])
def test_resizing_is_its_matrix(size):
    image = made.noise((33, 24), "u2", 12)
    expected = triangle(33, size[0]) @ image @ triangle(24, size[1]).T
    assert near(resized(image, size), expected)
    colour = made.noise((33, 24, 3), "u1")
    found = resized(colour, size)
    for sample in range(3):
        assert near(
            np.ascontiguousarray(found[..., sample]),
            triangle(33, size[0]) @ colour[..., sample] @ triangle(24, size[1]).T,
        )
    assert found.flags.c_contiguous


def test_a_resized_dataset_is_of_one_shape(tmp_path):
    with gpuenc.FrameDataset(
        [named(name) for name in ("CT_small.dcm", "MR_small.dcm", "SC_rgb_small_odd.dcm")], size=(32, 48)
    ) as frames:
        assert {one["image"].shape[:2] for one in frames} == {(32, 48)}


def test_the_array_module_is_the_one_given():
    """On a GPU nothing of numpy may touch the values: what is not called through `xp` would fail there."""
    used = []

    class Module(SimpleNamespace):
        def __getattr__(self, name):
            used.append(name)
            return getattr(np, name)

    module = Module()
    image = made.noise((8, 8), "u2", 12).astype(np.float32)
    for function in FUNCTIONS:
        windowed(image.copy(), Window(40, 400, function), module)
    resized(image, (4, 4), module)
    assert {"clip", "exp", "zeros", "asarray", "ascontiguousarray"} <= set(used)
