"""Headers keep every byte that need not change, whatever stands in them."""

import random
import tracemalloc
import warnings
from dataclasses import replace
from io import BytesIO
from struct import unpack_from

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from gpuenc.dicom import header as module
from gpuenc.dicom.attributes import Changes
from gpuenc.dicom.header import header, trailer
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import GpuencError, SourceError
from tests import made
from tests.dicom import files
from tests.dicom.mutate import fuzz_corpus, mutated
from tests.dicom.pipeline import rewrite

HTJ2K = made.HTJ2K
LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT", "UV", "SV")
REPLACED, INSERTED, REMOVED = 0x00280004, 0x00282110, 0x00080060
CHANGES = Changes(
    {REPLACED: DataElement(REPLACED, "CS", "YBR_RCT"), INSERTED: DataElement(INSERTED, "CS", "01")},
    delete=frozenset({REMOVED}),
)
SPECIMEN = made.noise((2, 3, 5), "u2")


def without(data, tags):
    """Return what pydicom finds outside the elements `tags`, by the positions of its own reader."""
    ds = dcmread(BytesIO(data), force=True)
    starts = []
    for element in (*ds.file_meta.elements(), *ds.elements()):
        tell = element.file_tell if isinstance(element, DataElement) else element.value_tell
        starts.append((tell - (12 if element.VR in LONG else 8), element.tag))
    starts.sort()
    kept = [data[: starts[0][0]]]
    for (start, tag), (end, _) in zip(starts, [*starts[1:], (len(data), 0)], strict=True):
        if tag not in tags:
            kept.append(data[start:end])
    return b"".join(kept)


def output(source, changes=CHANGES, syntax=HTJ2K):
    """Return header and trailer as a file without Pixel Data."""
    head = header(source, changes, syntax)
    return head.prefix + head.elements + b"".join(trailer(source))


def source_without_pixels(source):
    # What was inflated is a plain data set; pydicom would inflate it again.
    prefix = source.prefix.replace(made.DEFLATED.encode(), made.EXPLICIT.encode() + bytes(3))
    return prefix + source.head + b"".join(source.trailer())


def explicit_files():
    found = []
    for path in files.readable():
        with DicomFile(path) as source:
            if source.meta and not (source.implicit or source.big_endian):
                found.append(path)
    return found


@pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")
def test_all_bytes_of_explicit_files_are_kept():
    """The bytes outside the changed elements, of every Explicit VR Little Endian file of both packages."""
    groups = {0x00020000, 0x00080000, 0x00280000, 0x7FE00000, 0x00080001}
    patched = {0x00020010, REPLACED, INSERTED, REMOVED, *groups}
    paths, ordered = explicit_files(), 0
    for path in paths:
        with DicomFile(path) as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before, after = source_without_pixels(source), output(source)
            assert without(after, patched) == without(before, patched), path
            ds = dcmread(BytesIO(after))
            assert ds.file_meta.TransferSyntaxUID == HTJ2K
            assert ds.PhotometricInterpretation == "YBR_RCT"
            assert ds.LossyImageCompression == "01"
            assert "Modality" not in ds
            order = list(source.dataset.keys())
            kept = set(order) & set(ds.keys())
            assert [tag for tag in ds if tag.tag in kept] == [ds[tag] for tag in order if tag in kept], path
            if order == sorted(order):
                assert list(ds.keys()) == sorted(ds.keys()), path
                ordered += 1
    assert len(paths) > 100
    assert ordered > 100


@pytest.mark.parametrize("target", ["explicit-vr-little-endian", "deflated-frame"])
def test_nothing_but_what_must_change_changes(tmp_path, target):
    image = replace(
        made.of(SPECIMEN, trailer=made.PADDING, preamble=b"II*\0" * 32),
        elements=(*made.odd_private(), made.icon(), made.Element(0x00280002, "US", 1)),
    )
    path = image.write(tmp_path / "in.dcm")
    rewrite(path, tmp_path / "out.dcm", target)
    data, out = path.read_bytes(), (tmp_path / "out.dcm").read_bytes()
    if target == "explicit-vr-little-endian":
        assert out == data
    else:
        assert without(out[: out.rindex(b"\xe0\x7f\x10\0OB")], {0x00020000, 0x00020010}) == without(
            data[: data.rindex(b"\xe0\x7f\x10\0OW")], {0x00020000, 0x00020010}
        )
        assert out.endswith(made.encoded(made.PADDING[0]))


def test_meta_group_length_is_right(tmp_path):
    with DicomFile(made.of(SPECIMEN).write(tmp_path / "x.dcm")) as source:
        prefix = header(source, CHANGES, HTJ2K).prefix
    assert unpack_from("<I", prefix, 140) == (len(prefix) - 144,)


def test_group_lengths_are_set_right_where_the_group_changes(tmp_path):
    image = made.of(SPECIMEN, elements=made.wrong_group_lengths())
    with DicomFile(image.write(tmp_path / "x.dcm")) as source:
        data = output(source)
    ds = dcmread(BytesIO(data))
    starts = {e.tag: e.value_tell - 8 for e in ds.elements() if e.tag.element == 0}
    first = {
        group: min(e.value_tell for e in ds.elements() if e.tag.group == group and e.tag.element) for group in (8, 0x28)
    }
    for group, after in ((0x08, 0x10), (0x28, None)):
        end = starts[after << 16] if after else len(data)
        assert ds[group << 16].value == end - starts[group << 16] - 12
        assert first[group] > starts[group << 16]
    assert ds[0x00100000].value == 7  # nothing changed there
    assert 0x7FE00000 not in ds


def test_sequences_get_an_item_more_behind_those_they_have(tmp_path):
    old = made.Element(0x00082112, "SQ", [[made.Element(0x00081155, "UI", "1.2.3"), made.icon()]], True)
    item = Dataset()
    item.ReferencedSOPInstanceUID = "4.5.6"
    for undefined in (True, False):
        image = made.of(SPECIMEN, elements=(replace(old, undefined=undefined),))
        with DicomFile(image.write(tmp_path / f"{undefined}.dcm")) as source:
            ds = dcmread(BytesIO(output(source, Changes(append={0x00082112: item, 0x00089215: item}))))
        assert [each.ReferencedSOPInstanceUID for each in ds.SourceImageSequence] == ["1.2.3", "4.5.6"]
        assert len(ds.DerivationCodeSequence) == 1


def test_an_element_that_is_there_twice_is_replaced_once(tmp_path):
    image = made.of(SPECIMEN)
    once = made.encoded(made.Element(0x00280004, "CS", "MONOCHROME2"))
    path = tmp_path / "x.dcm"
    path.write_bytes(image.file().replace(once, once + once))
    with DicomFile(path) as source:
        data = output(source)
    assert data.count(b"YBR_RCT") == 1
    assert b"MONOCHROME2" not in data


def test_private_sequences_of_implicit_files_are_kept_as_unknown(tmp_path):
    private = made.Element(0x00091001, "SQ", [[made.Element(0x00091002, "US", 7)]], True)
    image = made.of(SPECIMEN, syntax=made.IMPLICIT, elements=(made.Element(0x00090010, "LO", "X"), private))
    with DicomFile(image.write(tmp_path / "x.dcm")) as source:
        data = output(source)
    value = made.encoded(private, made.IMPLICIT)[8:]
    assert made.tag_and_length(0x00091001, "UN", made.UNDEFINED) + value in data
    assert dcmread(BytesIO(data))[0x00091001].value[0][0x00091002].value == b"\7\0"


NESTED = made.Element(
    0x00081140, "SQ",
    [[
        made.Element(0x00281101, "US", (256, 0, 16)),
        made.Element(0x00081140, "SQ", [[made.Element(0x00280009, "AT", (0x0018, 0x1063))]], True),
    ]],
    True,
)  # fmt: skip
VALUES = (
    made.Element(0x00080008, "CS", "DERIVED\\PRIMARY"),
    NESTED,
    made.Element(0x00081155, "SQ", [[made.Element(0x00081150, "UI", "1.2")]]),
    made.Element(0x00280009, "AT", (0x0054, 0x0080)),
    made.Element(0x00280106, "SS", -5),
    made.Element(0x00281201, "OW", bytes(range(64))),
    made.Element(0x00189073, "FD", 2.5),
    made.Element(0x00186028, "FD", -1e9),
    made.Element(0x60003000, "OW", bytes(range(20))),
    made.icon(),
)


@pytest.mark.parametrize("syntax", [made.IMPLICIT, made.BIG])
def test_other_encodings_become_what_explicit_would_have_been(tmp_path, syntax):
    keep = tuple(e for e in VALUES if e.tag != 0x00081155)
    options = {"elements": keep, "trailer": made.PADDING}
    signed = SPECIMEN.astype("i2")
    with DicomFile(made.of(signed, syntax=syntax, **options).write(tmp_path / "x.dcm")) as source:
        got = output(source, Changes(), made.EXPLICIT)
    with DicomFile(made.of(signed, **options).write(tmp_path / "y.dcm")) as source:
        wanted = output(source, Changes(), made.EXPLICIT)
    # Descriptors of palettes are SS beside signed pixels, where the dictionary leaves the choice.
    assert got.replace(b"\x01\x11SS", b"\x01\x11US") == wanted


@pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")
def test_transcribed_files_read_the_same_in_pydicom():
    checked = 0
    for path in files.readable():
        with DicomFile(path) as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if source.meta and not (source.implicit or source.big_endian):
                continue
            ds = dcmread(BytesIO(output(source, Changes(), made.EXPLICIT)))
            wanted = dcmread(path, force=True)
            for tag in (0x7FE00010, 0x7FE00000, 0x00080001):
                wanted.pop(tag, None)
            for element in wanted:
                got = ds[element.tag]
                if source.big_endian and element.VR == "OW":
                    assert np.frombuffer(got.value, "<u2").tolist() == np.frombuffer(element.value, ">u2").tolist()
                elif got.VR == "SQ" and source.big_endian:
                    assert len(got.value) == len(element.value)
                else:
                    assert got.value == element.value, (path, element.tag)
            assert len(ds) == len(wanted)
            checked += 1
    assert checked == 25


def test_a_file_without_meta_gets_one(tmp_path):
    image = made.of(SPECIMEN, syntax=made.IMPLICIT, preamble=None, meta=False)
    with DicomFile(image.write(tmp_path / "x.dcm")) as source:
        ds = dcmread(BytesIO(output(source)))
    assert ds.file_meta.MediaStorageSOPClassUID == made.SECONDARY_CAPTURE
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID == made.INSTANCE
    assert ds.file_meta.TransferSyntaxUID == HTJ2K
    assert ds.file_meta.ImplementationClassUID.is_valid


def test_implicit_sequences_that_are_none_are_kept(tmp_path):
    image = made.of(SPECIMEN, syntax=made.IMPLICIT, elements=(made.Element(0x00081140, "UN", b"not items at all"),))
    with DicomFile(image.write(tmp_path / "x.dcm")) as source:
        assert made.encoded(made.Element(0x00081140, "UN", b"not items at all")) in output(source)


def test_what_cannot_be_transcribed_is_an_error(tmp_path):
    image = made.of(SPECIMEN, syntax=made.BIG, elements=(made.Element(0x00081140, "UN", b"xx"),))
    data = image.file().replace(b"\x00\x08\x11\x40UN", b"\x00\x08\x11\x40SQ")
    path = tmp_path / "x.dcm"
    path.write_bytes(data)
    with DicomFile(path) as source, pytest.raises(SourceError):
        output(source)


@pytest.mark.parametrize("call", [lambda source: header(source, CHANGES, HTJ2K), lambda source: list(trailer(source))])
@pytest.mark.parametrize("syntax", [made.IMPLICIT, made.BIG])
def test_a_trailer_of_gigabytes_is_not_read_to_be_transcribed(tmp_path, syntax, call):
    path = made.of(SPECIMEN, syntax=syntax).write(tmp_path / "x.dcm")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (4 << 30))
    tracemalloc.start()
    try:
        with DicomFile(path) as source:
            assert source.trailer_bytes == 4 << 30
            with pytest.raises(SourceError, match="4294967296 bytes follow Pixel Data") as caught:
                call(source)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.code == "too-large"


def test_only_what_must_be_transcribed_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_TRAILER_BYTES", 22)  # of the padding, which is 22 bytes with a VR and 18 without
    for syntax, size in ((made.EXPLICIT, 22), (made.BIG, 22), (made.IMPLICIT, 18)):
        image = made.of(SPECIMEN, syntax=syntax, trailer=made.PADDING)
        with DicomFile(image.write(tmp_path / "x.dcm")) as source:
            assert source.trailer_bytes == size
            assert b"".join(trailer(source)) == made.encoded(made.PADDING[0])
    monkeypatch.setattr(module, "MAX_TRAILER_BYTES", 17)
    for image in (made.of(SPECIMEN, trailer=made.PADDING), made.compressed([[b"ab"]], trailer=made.PADDING)):
        with DicomFile(image.write(tmp_path / "x.dcm")) as source:
            assert source.trailer_bytes == 22
            assert output(source).endswith(made.encoded(made.PADDING[0]))


@pytest.mark.parametrize("seed", range(2))
def test_no_mutation_breaks_the_header(tmp_path, seed):
    rng, corpus = random.Random(seed + 100), fuzz_corpus()
    path, opened = tmp_path / "x.dcm", 0
    item = Dataset()
    item.CodeValue = "1"
    for _ in range(400):
        path.write_bytes(mutated(rng.choice(corpus), rng))
        try:
            with DicomFile(path) as source:
                opened += 1
                output(source, replace(CHANGES, append={0x00082112: item}))
        except GpuencError:
            continue
    assert opened > 50


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG])
def test_a_preamble_without_meta_stays_a_preamble(tmp_path, syntax):
    image = made.of(SPECIMEN, syntax=syntax, preamble=bytes(range(128)), meta=False)
    with DicomFile(image.write(tmp_path / "x.dcm")) as source:
        data = output(source)
    assert data[:132] == bytes(range(128)) + b"DICM"
    assert data.count(b"DICM") == 1
    ds = dcmread(BytesIO(data))
    assert ds.file_meta.TransferSyntaxUID == HTJ2K
    assert ds.Rows == 3


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG, made.JPEG])
@pytest.mark.parametrize("stray", [False, True])
@pytest.mark.parametrize("tag", [0x00080018, 0x00280010, 0x7FE00010])
def test_what_precedes_pixel_data_does_not_follow_it(tmp_path, syntax, stray, tag):
    """Readers that take the last of two elements would see another image."""
    again = made.Element(tag, "OB" if tag == 0x7FE00010 else "US", b"\2\0")
    image = made.compressed([[b"ab"]]) if syntax == made.JPEG else made.of(SPECIMEN, syntax=syntax)
    data = image.file()
    if stray:
        data += made.tag_and_length(0xFFFEE0DD, "", 0, implicit=True, order=">" if syntax == made.BIG else "<")
    (tmp_path / "x.dcm").write_bytes(data + made.encoded(again, syntax if syntax != made.JPEG else made.EXPLICIT))
    with DicomFile(tmp_path / "x.dcm") as source, pytest.raises(SourceError, match="behind Pixel Data") as caught:
        header(source, CHANGES, HTJ2K)
    assert caught.value.code == "corrupt-header"


@pytest.mark.parametrize("rest", [b"", b"\0", b"\0" * 5000, b"rubbish", b"\xff" * 9])
def test_what_is_no_element_may_follow_pixel_data(tmp_path, rest):
    (tmp_path / "x.dcm").write_bytes(made.of(SPECIMEN, trailer=made.PADDING).file() + rest)
    with DicomFile(tmp_path / "x.dcm") as source:
        header(source, CHANGES, HTJ2K)
        assert b"".join(trailer(source)) == made.encoded(made.PADDING[0]) + rest
