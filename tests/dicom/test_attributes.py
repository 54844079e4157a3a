"""What a data set says after its frames were re-encoded."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from gpuenc.coding import coding
from gpuenc.cpu.samples import prepare
from gpuenc.dicom.attributes import apply, changes, moves_overlays, with_ratio
from gpuenc.dicom.header import header
from gpuenc.dicom.overlays import EmbeddedOverlays
from gpuenc.dicom.source import DicomFile, frames_of
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made

GREY = made.noise((2, 4, 6), "u2", 12)
COLOUR = made.noise((2, 4, 6, 3), "u1")


@pytest.fixture
def described(tmp_path):
    """Return a function that gives the changed data set: spliced, and as `apply` makes it, which must agree."""
    count = iter(range(1000))

    def describe(image, name, *, cells=None, encoded_bytes=0, overlays=None, **options):
        chosen = target(find(name), **options)
        with DicomFile(image.write(tmp_path / f"{next(count)}.dcm")) as source:
            made_of = cells or source.format
            if made_of.photometric == "PALETTE COLOR" and not chosen.lossless:
                made_of = replace(made_of, palette=source.palette)
            what = changes(
                source, made_of, chosen, coding(chosen, made_of), encoded_bytes=encoded_bytes, overlays=overlays
            )
            head = header(source, what, chosen.syntax.uid)
        spliced = dcmread(BytesIO(head.prefix + head.elements))
        applied = dcmread(BytesIO(image.file()))
        del applied.PixelData
        apply(applied, what)
        applied.file_meta.TransferSyntaxUID = chosen.syntax.uid
        assert applied == spliced
        del spliced.file_meta.FileMetaInformationGroupLength, applied.file_meta.FileMetaInformationGroupLength
        assert applied.file_meta == spliced.file_meta
        return spliced

    return describe


def image_pixel(ds):
    return {e.keyword: e.value for e in ds.group_dataset(0x0028)}


@pytest.mark.parametrize("name", ["htj2k-lossless", "jpeg-ls-lossless", "rle", "deflated-frame", "native"])
def test_lossless_grey_changes_nothing(described, name):
    image = made.of(GREY, stored=12)
    before = dcmread(BytesIO(image.file()))
    del before.PixelData
    assert described(image, name) == before


def test_colour_says_what_the_codestream_does(described):
    for planar in (0, 1):
        image = made.of(COLOUR, planar=planar)
        ds = described(image, "htj2k-lossless")
        assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("YBR_RCT", 0)
        ds = described(image, "jpeg-ls-lossless")
        assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("RGB", 0)
        for name in ("rle", "deflated-frame", "native"):
            ds = described(image, name)
            assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("RGB", planar)
    pairs = made.ybr_422(made.noise((1, 4, 3, 4), "u1"))
    assert described(pairs, "htj2k-lossless").PhotometricInterpretation == "YBR_FULL"
    assert described(pairs, "deflated-frame").PhotometricInterpretation == "YBR_FULL_422"


def test_shifted_samples_end_at_the_bottom_of_their_cells(described):
    image = made.shifted(GREY, 14)
    assert described(image, "htj2k-lossless").HighBit == 11
    assert described(image, "deflated-frame").HighBit == 14
    assert described(image, "htj2k-lossless", whole_cells=True).HighBit == 14


def test_decoded_sources_are_described_by_what_they_decode_to(described, tmp_path):
    image = made.compressed([[b"ab"]], syntax=made.JPEG2000, samples=3, photometric="YBR_RCT", high_bit=7)
    with DicomFile(image.write(tmp_path / "x.dcm")) as source:
        cells = replace(source.format, photometric="RGB")
    assert described(image, "native", cells=cells).PhotometricInterpretation == "RGB"
    assert described(image, "jpeg-ls-lossless", cells=cells).PhotometricInterpretation == "RGB"
    assert described(image, "htj2k-lossless", cells=cells).PhotometricInterpretation == "YBR_RCT"
    without_planar = replace(image, without=frozenset({0x00280006}))
    assert described(without_planar, "native", cells=cells).PlanarConfiguration == 0


def test_stale_offset_tables_go(described):
    image = made.compressed([[b"ab"], [b"cd"]], "extended", elements=(made.Element(0x7FE00003, "UV", bytes(8)),))
    ds = described(image, "htj2k-lossless")
    assert [tag for tag in ds.keys() if tag >> 16 == 0x7FE0] == []  # noqa: SIM118


@pytest.mark.parametrize(
    ("syntax", "stated", "wanted"),
    [
        (made.JPEG, None, "01"), (made.JPEG, "00", "01"), ("1.2.840.10008.1.2.4.91", None, "01"),
        ("1.2.840.10008.1.2.4.91", "00", "00"), (made.JPEG2000, None, None), (made.JPEG2000, "01", "01"),
        ("1.2.840.10008.1.2.4.111", None, "01"),
    ],
)  # fmt: skip
def test_lossy_history_is_never_lost(described, syntax, stated, wanted):
    elements = (made.Element(0x00282110, "CS", stated),) if stated else ()
    ds = described(made.compressed([[b"ab"]], syntax=syntax, elements=elements), "native")
    assert ds.get("LossyImageCompression") == wanted
    assert ds.SOPInstanceUID == made.INSTANCE
    assert "LossyImageCompressionRatio" not in ds


HISTORY = (
    made.Element(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
    made.Element(0x00082111, "ST", "made by \xe4"),
    made.Element(0x00080005, "CS", "ISO_IR 100"),
    made.Element(0x00082112, "SQ", [[made.Element(0x00081155, "UI", "1.2.3")]], True),
    made.Element(0x00280106, "US", 1),
    made.Element(0x00282110, "CS", "01"),
    made.Element(0x00282112, "DS", "10\\12.5"),
    made.Element(0x00282114, "CS", "ISO_10918_1"),
)


def test_lossy_is_a_new_instance_that_says_where_it_comes_from(described):
    ds = described(made.of(GREY, stored=12, elements=HISTORY), "htj2k", ratios=(8,), encoded_bytes=30)
    assert ds.SOPInstanceUID != made.INSTANCE
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert list(ds.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    assert ds.DerivationDescription.startswith("made by ä; ")
    assert "HTJ2K" in ds.DerivationDescription
    code = ds.DerivationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("113040", "DCM", "Lossy Compression")
    assert [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence] == ["1.2.3", made.INSTANCE]
    last = ds.SourceImageSequence[1]
    assert last.ReferencedSOPClassUID == made.SECONDARY_CAPTURE
    assert last.PurposeOfReferenceCodeSequence[0].CodeValue == "121330"
    assert ds.LossyImageCompression == "01"
    assert list(ds.LossyImageCompressionRatio) == [10, 12.5, 3.2]  # 2 × 4 × 6 × 2 bytes in 30
    assert list(ds.LossyImageCompressionMethod) == ["ISO_10918_1", "", "ISO_15444_15"]
    assert "SmallestImagePixelValue" not in ds


@pytest.mark.parametrize(
    ("syntax", "stated", "wanted"),
    [
        (made.EXPLICIT, None, "Uncompressed predecessor"), (made.EXPLICIT, "00", "Uncompressed predecessor"),
        (made.DEFLATED, None, "Uncompressed predecessor"), (made.EXPLICIT, "01", "Lossy compressed predecessor"),
        (made.JPEG, None, "Lossy compressed predecessor"), (made.JPEG2000, "01", "Lossy compressed predecessor"),
        (made.JPEG2000, None, None), (made.RLE, "00", None), ("1.2.840.10008.1.2.4.91", "00", None),
        ("1.2.840.10008.1.2.4.91", "01", "Lossy compressed predecessor"),
    ],
)  # fmt: skip
def test_the_predecessor_is_what_it_was(described, syntax, stated, wanted):
    elements = (made.Element(0x00282110, "CS", stated),) if stated else ()
    if syntax in (made.EXPLICIT, made.DEFLATED):
        image = made.of(made.noise((1, 4, 6), "u1"), syntax=syntax, elements=elements)
    else:
        image = made.compressed([[b"ab"]], syntax=syntax, elements=elements)
    purposes = described(image, "htj2k", ratios=(8,)).SourceImageSequence[0].get("PurposeOfReferenceCodeSequence")
    assert [code.CodeMeaning for code in purposes or ()] == ([wanted] if wanted else [])


def test_a_second_call_describes_the_same_instance(described, tmp_path):
    chosen = target(find("htj2k"), ratios=(8,))
    with DicomFile(made.of(GREY, stored=12).write(tmp_path / "x.dcm")) as source:
        options = source, source.format, chosen, coding(chosen, source.format)
        first = changes(*options)
        second = changes(*options, sop_instance_uid=first.sop_instance_uid)
        assert header(source, first, made.HTJ2K) == header(source, second, made.HTJ2K)
        assert changes(*options).sop_instance_uid != first.sop_instance_uid
        lossless = target(find("htj2k-lossless"))
        kept = changes(source, source.format, lossless, coding(lossless, source.format), sop_instance_uid="1.2.3")
        assert kept.sop_instance_uid == ""


@pytest.mark.parametrize("encoded_bytes", [1, 7, 96, 10**9, 10**13])
def test_the_ratio_does_not_change_the_length(tmp_path, encoded_bytes):
    chosen = target(find("htj2k"), ratios=(8,))
    with DicomFile(made.of(GREY, stored=12).write(tmp_path / "x.dcm")) as source:
        first = changes(source, source.format, chosen, coding(chosen, source.format))
        second = with_ratio(first, source, encoded_bytes)
        before, after = (header(source, what, chosen.syntax.uid) for what in (first, second))
    assert len(before) == len(after)
    ds = dcmread(BytesIO(after.prefix + after.elements))
    assert float(ds.LossyImageCompressionRatio) == pytest.approx(96 / encoded_bytes, rel=1e-3)
    assert first.sop_instance_uid == second.sop_instance_uid


def test_an_expanded_palette_becomes_colour(described):
    image = made.palette(made.noise((2, 4, 6), "u1"), made.noise((3, 256), "u2"))
    image = replace(image, elements=(*image.elements, made.Element(0x00280120, "US", 3)))
    ds = described(image, "jpeg-baseline")
    assert (ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration) == (3, "YBR_FULL_422", 0)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation) == (8, 8, 7, 0)
    assert not any("Palette" in element.keyword or "Padding" in element.keyword for element in ds)
    kept = described(image, "htj2k-lossless")
    assert kept.PhotometricInterpretation == "PALETTE COLOR"
    assert kept.RedPaletteColorLookupTableDescriptor == [256, 0, 16]


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG])
def test_embedded_overlays_move_to_data_of_their_own(described, tmp_path, syntax):
    planes = {12: made.noise((3, 5, 7), "u1", 1), 15: made.noise((3, 5, 7), "u1", 1, seed=1)}
    samples = made.noise((3, 5, 7), "u2", 12)
    image = made.embedded_overlays(samples, planes, syntax=syntax)
    chosen = target(find("htj2k-lossless"))
    with DicomFile(image.write(tmp_path / "x.dcm")) as source:
        collected = EmbeddedOverlays(source.attributes, source.format.overlay_bits)
        made_of = coding(chosen, source.format)
        assert moves_overlays(source.format, made_of)
        for frame in source.frames():
            collected.add(frame)
            got = prepare(frame.pixels, frame.format, made_of)
            np.testing.assert_array_equal(got, samples[frame.ref.index])
        data = collected.data()
        before, after = (
            header(source, changes(source, source.format, chosen, made_of, overlays=what), made.HTJ2K)
            for what in (None, data)
        )
    assert len(before) == len(after)
    ds = dcmread(BytesIO(after.prefix + after.elements))
    for group, plane in zip((0x6000, 0x6002), planes.values(), strict=True):
        assert (ds[group, 0x0100].value, ds[group, 0x0102].value, ds[group, 0x0015].value) == (1, 0, 3)
        np.testing.assert_array_equal(ds.overlay_array(group), plane)
    assert not moves_overlays(source.format, coding(target(find("native")), source.format))


def test_datasets_in_memory_change_likewise():
    ds = dcmread(BytesIO(made.of(COLOUR, planar=1).file()))
    source, chosen = frames_of(ds), target(find("htj2k-lossless"))
    apply(ds, changes(source, source.format, chosen, coding(chosen, source.format)))
    assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("YBR_RCT", 0)
    assert isinstance(ds, Dataset)
