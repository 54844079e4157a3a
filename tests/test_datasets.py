"""`gpuenc.compress`: whole datasets, from and to every encoding, saved and read again by others."""

from __future__ import annotations

import copy
from dataclasses import replace
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

import gpuenc
from gpuenc.errors import GpuencError, SourceError, ValuesOutsideBitsStored
from gpuenc.syntaxes import TABLE
from tests import made
from tests.archive import oracle
from tests.conformance import decoders
from tests.dicom import files

GREY = made.noise((3, 32, 24), "i2", 12, seed=1)
RGB = made.noise((2, 32, 24, 3), "u1", seed=2)
SMOOTH = np.add.outer(np.arange(32) * 5, np.arange(24) * 3).astype("u1")[None]
LOSSLESS = [syntax for syntax in TABLE if syntax.loss != "always" and syntax.name not in ("jpegxl-jpeg", "jpegxl")]
# An independent decoder, by family; tests/conformance/README.md says which are.
READERS = {
    "rle": "dcmdrle",
    "jpeg-lossless": "dcmdjpeg",
    "jpeg-ls": "pyjpegls",
    "jpeg2000": "gdcm-jpeg2000",
    "htj2k": "pylibjpeg-openjpeg",
    "jpegxl": "libjxl",
    "deflate": "zlib",
    "native": "gdcm-native",
}


@pytest.fixture(scope="module")
def child():
    decoder = decoders.Child()
    yield decoder
    decoder.close()


def read(image):
    return dcmread(BytesIO(image.file()), force=True)


def in_jpeg2000(samples, **options):
    frames = [
        bytes(imagecodecs.jpeg2k_encode(each, level=0, codecformat="j2k", reversible=True, bitspersample=12, mct=False))
        for each in samples
    ]
    frames = [[each + b"\0" * (len(each) % 2)] for each in frames]
    return made.compressed(
        frames, rows=32, columns=24, allocated=16, stored=12, signed=True, syntax=made.JPEG2000, **options
    )


SOURCES = {
    "explicit": made.of(GREY, stored=12),
    "implicit": made.of(GREY, stored=12, syntax=made.IMPLICIT),
    "big endian": made.of(GREY, stored=12, syntax=made.BIG),
    "deflated": made.of(GREY, stored=12, syntax=made.DEFLATED),
    "JPEG 2000": in_jpeg2000(GREY),
}


def saved(ds, path):
    ds.save_as(path, enforce_file_format=True)
    return path


def compress(ds, syntax, **options):
    if syntax.loss == "option":
        options["lossless"] = True
    return gpuenc.compress(ds, syntax.uid, **options)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("source", SOURCES)
def test_lossless(source, syntax, tmp_path, child):
    ds = read(SOURCES[source])
    assert compress(ds, syntax) is ds
    assert ds.file_meta.TransferSyntaxUID == syntax.uid
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == made.INSTANCE
    assert "LossyImageCompression" not in ds
    assert ds.PatientName == "SECRET^PATIENT"
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), GREY)
    path = saved(ds, tmp_path / "x.dcm")
    np.testing.assert_array_equal(oracle.samples(oracle.read(path)).reshape(GREY.shape), GREY)
    reader = decoders.BY_NAME[READERS[syntax.family]]
    if reader.missing:
        pytest.skip(f"not installed: {reader.missing}")
    got = child.decode(reader, path)
    if syntax.uid == made.EXPLICIT or syntax.family != "native":
        np.testing.assert_array_equal(got.reshape(GREY.shape), GREY)


@pytest.mark.parametrize("name", ["rle", "htj2k-lossless", "jpeg-lossless", "jpegxl-lossless", "uncompressed"])
@pytest.mark.parametrize("planar", [0, 1])
def test_colour(name, planar):
    ds = read(made.of(RGB, planar=planar, syntax=made.IMPLICIT))
    gpuenc.compress(ds, name)
    np.testing.assert_array_equal(oracle.samples(ds), RGB)
    assert ds.PhotometricInterpretation == ("YBR_RCT" if name == "htj2k-lossless" else "RGB")
    assert ds.PlanarConfiguration == (planar if name in ("rle", "uncompressed") else 0)


@pytest.mark.parametrize("name", ["rle", "htj2k-lossless", "jpegxl-lossless", "deflated-frame", "uncompressed"])
def test_array_instead_of_the_pixels(name):
    ds = read(made.of(made.noise(GREY.shape, "i2", 12, seed=9), stored=12))
    before = GREY.copy()
    gpuenc.compress(ds, name, GREY)
    np.testing.assert_array_equal(GREY, before)
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), GREY)


def test_array_for_a_compressed_dataset_in_colour():
    ds = read(made.of(made.noise(RGB.shape, "u1", seed=8)))
    gpuenc.compress(ds, "htj2k-lossless")
    assert ds.PhotometricInterpretation == "YBR_RCT"
    gpuenc.compress(ds, "rle", RGB)
    assert (ds.PhotometricInterpretation, ds.file_meta.TransferSyntaxUID) == ("RGB", made.RLE)
    np.testing.assert_array_equal(oracle.samples(ds), RGB)


@pytest.mark.parametrize(
    ("options", "changes"),
    [({}, False), ({"generate_instance_uid": True}, True), ({"generate_instance_uid": False}, False)],
)
def test_instance_uid_of_lossless(options, changes):
    ds = read(SOURCES["explicit"])
    gpuenc.compress(ds, "rle", **options)
    assert (ds.SOPInstanceUID != made.INSTANCE) == changes
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


@pytest.mark.parametrize("keep", [False, True])
def test_lossy_says_so(keep, tmp_path):
    ds = read(made.of(SMOOTH))
    gpuenc.compress(ds, "jpeg2000", j2k_psnr=[40], **({"generate_instance_uid": False} if keep else {}))
    assert (ds.SOPInstanceUID == made.INSTANCE) == keep
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert ds.LossyImageCompression == "01"
    assert ds.LossyImageCompressionMethod == "ISO_15444_1"
    frames = list(generate_frames(ds.PixelData, number_of_frames=1))
    assert float(ds.LossyImageCompressionRatio) == pytest.approx(SMOOTH.nbytes / len(frames[0]), rel=0.02)
    assert list(ds.ImageType) == ["DERIVED", "PRIMARY"]
    assert ds.DerivationCodeSequence[0].CodeValue == "113040"
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == made.INSTANCE
    back = oracle.samples(oracle.read(saved(ds, tmp_path / "x.dcm"))).reshape(SMOOTH.shape)
    difference = back.astype(int) - SMOOTH
    assert 10 * np.log10(255**2 / np.mean(difference.astype(float) ** 2)) > 38
    # A second generation appends to the first.
    gpuenc.compress(ds, "jpeg-baseline", quality=80)
    assert list(ds.LossyImageCompressionMethod) == ["ISO_15444_1", "ISO_10918_1"]
    assert len(ds.LossyImageCompressionRatio) == 2
    # Back to lossless, it stays lossy.
    uid = ds.SOPInstanceUID
    gpuenc.compress(ds, "uncompressed")
    assert (ds.LossyImageCompression, ds.SOPInstanceUID) == ("01", uid)


def test_extended_offset_table_comes_and_goes(tmp_path):
    ds = read(SOURCES["explicit"])
    gpuenc.compress(ds, "htj2k-lossless", encapsulate_ext=True)
    offsets = np.frombuffer(ds.ExtendedOffsetTable, "<u8")
    lengths = np.frombuffer(ds.ExtendedOffsetTableLengths, "<u8")
    again = dcmread(saved(ds, tmp_path / "x.dcm"))
    value = again.PixelData
    frames = [value[8 + at + 8 :][:length] for at, length in zip(offsets.tolist(), lengths.tolist(), strict=True)]
    decoded = [imagecodecs.jpeg2k_decode(each) for each in frames]
    np.testing.assert_array_equal(decoded, GREY)
    gpuenc.compress(ds, "rle")
    assert "ExtendedOffsetTable" not in ds
    assert "ExtendedOffsetTableLengths" not in ds
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), GREY)


def test_icons_and_private_elements_stay(tmp_path):
    ds = read(made.of(GREY, stored=12, elements=(made.icon(), *made.odd_private())))
    gpuenc.compress(ds, "htj2k-lossless")
    path = saved(ds, tmp_path / "x.dcm")
    _, _, elements = oracle.split(path)
    kept = dict(elements)
    for element in (*made.odd_private()[:1], *made.odd_private()[2:3], *made.odd_private()[5:]):
        assert kept[element.tag] == made.encoded(element)
    icon = dcmread(path).IconImageSequence[0]
    assert icon.PixelData == bytes(range(16))


def fingerprint(ds):
    buffer = BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image", "args", "options", "error"),
    [
        (SOURCES["explicit"], ("1.2.840.10008.1.2.4.100",), {}, NotImplementedError),
        (SOURCES["explicit"], ("jpeg-baseline",), {}, ValueError),
        (SOURCES["explicit"], ("rle", GREY[:, :-1]), {}, ValueError),
        (SOURCES["explicit"], ("rle", GREY.astype("f4")), {}, ValueError),
        (SOURCES["explicit"], ("rle", GREY * 16), {}, ValuesOutsideBitsStored),
        (SOURCES["explicit"], ("explicit-vr-little-endian", GREY * 16), {}, ValuesOutsideBitsStored),
        (SOURCES["explicit"], ("deflated-image-frame", GREY * 16), {}, ValuesOutsideBitsStored),
        (SOURCES["explicit"], ("rle", None, "nobody"), {}, ValueError),
        (SOURCES["explicit"], ("jpeg2000",), {"j2k_cr": [5], "j2k_psnr": [40]}, ValueError),
        (made.of(made.noise((1, 8, 8), "u2"), stored=12), ("htj2k-lossless",), {}, ValuesOutsideBitsStored),
        (made.compressed([[b"junk"]], syntax=made.RLE), ("htj2k-lossless",), {}, RuntimeError),
        (made.of(GREY, without=frozenset({0x00280010})), ("rle",), {}, (AttributeError, ValueError)),
        (made.float_pixels(), ("rle",), {}, SourceError),
        (made.of(RGB, photometric="CMYK"), ("rle",), {}, ValueError),
    ],
)  # fmt: skip
def test_failure_leaves_the_dataset_as_it_was(image, args, options, error):
    ds = read(image)
    before = fingerprint(ds)
    with pytest.raises(error) as caught:
        gpuenc.compress(ds, *args, **options)
    assert isinstance(caught.value, GpuencError | ValueError | AttributeError)
    assert "SECRET" not in str(caught.value)
    assert fingerprint(ds) == before


def test_failure_in_the_last_frame_leaves_the_dataset_as_it_was():
    samples = made.noise((3, 8, 8), "u2", 12)
    samples[2, 7, 7] = 0xFFFF
    ds = read(made.of(samples, stored=12))
    before = fingerprint(ds)
    with pytest.raises(ValuesOutsideBitsStored):
        gpuenc.compress(ds, "rle")
    assert fingerprint(ds) == before
    gpuenc.compress(ds, "htj2k-lossless", whole_cells=True)
    np.testing.assert_array_equal([imagecodecs.jpeg2k_decode(each) for each in oracle.fragments(ds)], samples)


def test_pixel_array_is_not_the_old_one():
    ds = read(made.of(GREY, stored=12))
    assert (ds.pixel_array == GREY).all()
    other = made.noise(GREY.shape, "i2", 12, seed=5)
    gpuenc.compress(ds, "rle", other)
    np.testing.assert_array_equal(ds.pixel_array, other)


def test_dataset_that_never_was_a_file():
    ds = Dataset()
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 32, 24, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 1
    ds.NumberOfFrames = 3
    ds.PixelData = GREY.tobytes()
    ds["PixelData"].VR = "OW"
    gpuenc.compress(ds, "htj2k-lossless")
    assert ds.file_meta.TransferSyntaxUID == UID(made.HTJ2K)
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), GREY)


def test_decoding_plugin_is_used():
    ds = read(in_jpeg2000(GREY))
    with pytest.raises((RuntimeError, ValueError)):
        gpuenc.compress(ds, "rle", decoding_plugin="nobody")
    gpuenc.compress(ds, "rle", decoding_plugin="pylibjpeg")
    np.testing.assert_array_equal(oracle.samples(ds).reshape(GREY.shape), GREY)


def test_lossy_sources_without_another_loss():
    before = dcmread(files.named("SC_rgb_jpeg_dcmtk.dcm"))
    ds = copy.deepcopy(before)
    gpuenc.compress(ds, "htj2k-lossless")
    assert ds.SOPInstanceUID == before.SOPInstanceUID
    assert ds.LossyImageCompression == "01"
    back, reference = oracle.samples(ds).astype(int), oracle.samples(before).astype(int)
    assert np.abs(back - reference).max() <= 1  # decoders of JPEG round differently
    assert reference.std() > 10


def test_jpeg_in_jpeg_xl_and_back():
    before = dcmread(files.named("SC_rgb_jpeg_dcmtk.dcm"))
    ds = copy.deepcopy(before)
    gpuenc.compress(ds, "jpegxl-jpeg")
    assert ds.file_meta.TransferSyntaxUID.endswith(".111")
    gpuenc.compress(ds, "jpeg-baseline")
    (jpeg,), (original,) = (list(generate_frames(each.PixelData, number_of_frames=1)) for each in (ds, before))
    assert jpeg.rstrip(b"\0") == original.rstrip(b"\0")


def test_offset_table_of_what_is_written():
    ds = read(made.of(GREY, stored=12))
    gpuenc.compress(ds, "rle")
    assert ds.PixelData == encapsulate(list(generate_frames(ds.PixelData, number_of_frames=3)))
    assert ds["PixelData"].VR == "OB"


def test_big_endian_values_are_turned_round(tmp_path):
    tables = made.noise((3, 256), "u2", seed=3)
    indices = made.noise((1, 8, 8), "u1", seed=4)
    image = made.palette(indices, tables, syntax=made.BIG)
    image = replace(image, elements=(*image.elements, made.icon(bytes(range(16)), undefined=False)))
    ds = read(image)
    gpuenc.compress(ds, "rle")
    again = dcmread(saved(ds, tmp_path / "x.dcm"))
    got = [np.frombuffer(again[0x00281201 + channel].value, "<u2") for channel in range(3)]
    np.testing.assert_array_equal(got, tables)
    assert again.IconImageSequence[0].PixelData == bytes(range(16))
    np.testing.assert_array_equal(oracle.samples(again).reshape(indices.shape), indices)
    assert again.Rows == 8


def test_big_endian_with_an_element_that_nobody_can_read():
    ds = read(made.of(GREY, stored=12, syntax=made.BIG, elements=(made.Element(0x00200013, "IS", "not a number"),)))
    before = ds.get_item(0x7FE00010).value
    with pytest.raises(SourceError, match="cannot be read"):
        gpuenc.compress(ds, "rle")
    assert ds.file_meta.TransferSyntaxUID == made.BIG
    assert ds.get_item(0x7FE00010).value == before


@pytest.mark.parametrize("name", ["htj2k-lossless", "rle", "explicit-vr-little-endian"])
def test_an_array_holds_samples_wherever_those_of_the_dataset_lay(name):
    samples, other = made.noise((1, 8, 8), "u2", 12), made.noise((1, 8, 8), "u2", 12, seed=5)
    ds = read(made.shifted(samples, 15))
    gpuenc.compress(ds, name, other)
    assert ds.HighBit == 11
    np.testing.assert_array_equal(oracle.samples(ds).reshape(other.shape), other)


@pytest.mark.parametrize("name", ["rle", "htj2k-lossless", "jpeg-lossless-sv1"])
def test_an_array_has_every_chroma_sample(name):
    ds = read(made.ybr_422(made.noise((1, 8, 4, 4), "u1")))
    other = made.noise((8, 8, 3), "u1", seed=5)
    gpuenc.compress(ds, name, other)
    assert ds.PhotometricInterpretation == "YBR_FULL"
    np.testing.assert_array_equal(oracle.samples(ds).reshape(other.shape), other)


def test_an_array_does_not_make_overlays_vanish():
    samples, plane = made.noise((1, 8, 8), "u2", 12), made.noise((1, 8, 8), "u1", 1)
    ds = read(made.embedded_overlays(samples, {14: plane}))
    other = made.noise((1, 8, 8), "u2", 12, seed=5)
    before = copy.deepcopy(ds)
    with pytest.raises(ValueError, match="without an array first"):
        gpuenc.compress(ds, "htj2k-lossless", other)
    assert ds == before
    gpuenc.compress(ds, "htj2k-lossless")
    gpuenc.compress(ds, "htj2k-lossless", other)
    np.testing.assert_array_equal(oracle.samples(ds).reshape(other.shape), other)
    packed = np.frombuffer(ds[0x60003000].value, "u1")
    np.testing.assert_array_equal(np.unpackbits(packed, bitorder="little")[:64].reshape(8, 8), plane[0])


@pytest.mark.parametrize("name", ["rle", "htj2k-lossless", "jpeg-lossless-sv1", "jpegxl"])
def test_colours_that_only_change_with_the_attribute(name):
    options = {"quality": 90} if name == "jpegxl" else {}
    ds = read(made.ybr_422(made.noise((1, 8, 4, 4), "u1")))
    gpuenc.compress(ds, name, **options)
    assert ds.PhotometricInterpretation == ("XYB" if options else "YBR_FULL")
    ds = read(made.of(RGB, photometric="RGB"))
    gpuenc.compress(ds, name, **options)
    assert ds.PhotometricInterpretation == ("XYB" if options else "YBR_RCT" if name == "htj2k-lossless" else "RGB")


@pytest.mark.parametrize("name", ["htj2k", "explicit-vr-little-endian"])
def test_failure_to_store_leaves_the_dataset_as_it_was(monkeypatch, name):
    def full(*_args, **_options):
        raise MemoryError

    for function in ("encapsulate", "put_native"):
        monkeypatch.setattr(f"gpuenc.datasets.{function}", full)
    ds = read(made.of(GREY, stored=12, signed=True))
    before = copy.deepcopy(ds)
    with pytest.raises(MemoryError):
        gpuenc.compress(ds, name, **({"psnr": 60} if name == "htj2k" else {}))
    assert ds == before
    assert ds.file_meta == before.file_meta


@pytest.mark.parametrize("given", ["a.dcm", b"x", None, np.zeros((4, 4))])
def test_what_is_no_dataset_is_named(given):
    with pytest.raises(ValueError, match=f"takes a dataset, .* not {type(given).__name__}") as caught:
        gpuenc.compress(given, "htj2k-lossless")
    assert caught.value.code == "invalid-option"
