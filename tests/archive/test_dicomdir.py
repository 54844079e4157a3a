"""A DICOMDIR that was changed is read by pydicom and dcmtk, links what it linked, and names what is there."""

import shutil
import subprocess
import warnings
from pathlib import Path
from struct import pack, unpack_from
from types import SimpleNamespace

import pydicom
import pytest
from pydicom import dcmread, fileset
from pydicom.fileset import FileSet

from gpuenc.archive import dicomdir
from gpuenc.archive.dicomdir import is_dicomdir, rebuild
from gpuenc.errors import DestinationError, SourceError
from gpuenc.syntaxes import find
from tests import made
from tests.archive.watcher import transcode

SET = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"
HTJ2K = find("htj2k-lossless").uid
NAMES = ("DICOMDIR", "DICOMDIR-reordered", "DICOMDIR-implicit", "DICOMDIR-bigEnd", "DICOMDIR-nopatient")
FILE_ID, INSTANCE, SYNTAX = 0x00041500, 0x00041511, 0x00041512
MAY_CHANGE = {SYNTAX, INSTANCE, 0x00041400, 0x00041420}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Return a source and an output: the file sets of pydicom with images of some size in place of its empty ones."""
    root = tmp_path_factory.mktemp("media")
    shutil.copytree(SET, root / "in")
    for number, path in enumerate(sorted(root.joinpath("in").rglob("*"))):
        if not path.is_file() or path.name.startswith(("DICOMDIR", "README")):
            continue
        ds = dcmread(path)
        ds.PixelData = made.noise((16, 16), "u2", 12, seed=number).tobytes()
        ds["PixelData"].VR = "OW"
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.save_as(path)
    transcode(root / "in", root / "out")
    return root


def records(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(dcmread(path).DirectoryRecordSequence)


def links(path):
    """Return the order and depth of the records' File IDs, as pydicom's FileSet reads them by their offsets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = FileSet(path)
        return [
            (instance.ReferencedSOPInstanceUIDInFile, tuple(instance.ReferencedFileID), node.key)
            for instance in found
            for node in instance.node.ancestors
        ]


@pytest.mark.parametrize("name", NAMES)
def test_records_say_what_the_files_are(media, tmp_path, name):
    source, output = media / "in" / name, media / "out" / f"{name}.new"
    result = rebuild(source, output)
    before, after = records(source), records(output)
    assert len(before) == len(after)
    named = changed = 0
    for old, new in zip(before, after, strict=True):
        tags = set(old.keys()) | set(new.keys())
        assert {tag for tag in tags if old.get(tag) != new.get(tag)} <= MAY_CHANGE
        if FILE_ID not in new:
            continue
        named += 1
        ids = new.ReferencedFileID
        path = (media / "out").joinpath(*([ids] if isinstance(ids, str) else ids))
        meta = dcmread(path, stop_before_pixels=True).file_meta
        assert new.ReferencedTransferSyntaxUIDInFile == meta.TransferSyntaxUID == HTJ2K
        assert new.ReferencedSOPInstanceUIDInFile == meta.MediaStorageSOPInstanceUID
        changed += old.ReferencedTransferSyntaxUIDInFile != new.ReferencedTransferSyntaxUIDInFile
    assert (result.files, result.changed, result.missing) == (named, changed, 0)
    assert changed == named > 10
    assert result.bytes_written == output.stat().st_size > source.stat().st_size


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-reordered"])
def test_offsets_lead_to_the_same_records(media, tmp_path, monkeypatch, name):
    # It makes folders for what is staged, and leaves it to the garbage collector to remove them.
    monkeypatch.setattr(
        fileset, "TemporaryDirectory", lambda: SimpleNamespace(name=str(tmp_path), cleanup=lambda: None)
    )
    # FileSet asks for a file called DICOMDIR.
    for folder in ("in", "out"):
        (media / f"{folder}-{name}").mkdir()
        for path in (media / folder).iterdir():
            if path.is_dir():
                shutil.copytree(path, media / f"{folder}-{name}" / path.name)
    shutil.copy(media / "in" / name, media / f"in-{name}" / "DICOMDIR")
    rebuild(media / "in" / name, media / f"out-{name}" / "DICOMDIR")
    old, new = (links(media / f"{folder}-{name}" / "DICOMDIR") for folder in ("in", "out"))
    assert len(new) > 30
    assert new == old


@pytest.mark.skipif(not shutil.which("dcmdump"), reason="dcmtk is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_dcmtk_reads_it(media, tmp_path, name):
    rebuild(media / "in" / name, media / "out" / f"{name}.dcmtk")

    def dumped(path):
        return subprocess.run(["dcmdump", "-q", path], capture_output=True, text=True, check=True).stdout

    old, new = dumped(media / "in" / name), dumped(media / "out" / f"{name}.dcmtk")
    assert new.count("(0004,1500)") == old.count("(0004,1500)") > 10
    assert new.count("=HighThroughputJPEG2000") + new.count(HTJ2K) >= new.count("(0004,1512)") > 10


def test_a_record_whose_length_stays_is_patched_alone(media, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(media / "in", folder)
    before = (folder / "DICOMDIR").read_bytes()
    assert rebuild(folder / "DICOMDIR", folder / "same").changed == 0
    assert (folder / "same").read_bytes() == before
    first = next(path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent != folder)
    data = first.read_bytes()
    uid = dcmread(first).file_meta.MediaStorageSOPInstanceUID.encode()
    (at,) = {data.index(uid, 132)}
    first.write_bytes(data[:at] + b"2" * len(uid) + data[at + len(uid) :])
    result = rebuild(folder / "DICOMDIR", folder / "new")
    assert result.changed <= 1
    if result.changed:
        assert (folder / "new").read_bytes() == before.replace(uid, b"2" * len(uid))


def test_files_that_are_not_there_are_counted_and_left_alone(media, tmp_path):
    shutil.copytree(media / "out", tmp_path / "set")
    gone = sorted(path for path in (tmp_path / "set" / "77654033").rglob("*") if path.is_file())
    for path in gone[:2]:
        path.unlink()
    gone[2].write_bytes(b"no DICOM file")
    result = rebuild(media / "in" / "DICOMDIR", tmp_path / "set" / "DICOMDIR")
    assert result.missing == 3
    assert result.changed == result.files - 3
    syntaxes = [
        each.ReferencedTransferSyntaxUIDInFile for each in records(tmp_path / "set" / "DICOMDIR") if FILE_ID in each
    ]
    assert sum(uid != HTJ2K for uid in syntaxes) == 3


def test_names_are_found_in_any_case(media, tmp_path):
    shutil.copytree(media / "out", tmp_path / "set")
    for folder in (tmp_path / "set").iterdir():
        if folder.is_dir():
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rename(path.with_name(path.name.lower()))
    assert rebuild(media / "in" / "DICOMDIR", tmp_path / "set" / "DICOMDIR").missing == 0


def directory(file_ids, *, undefined=False, syntax=made.EXPLICIT, group_lengths=False, files=None, offset=0):
    """Return a DICOMDIR made by hand: one level of records, linked one to the next, for files in `file_ids`."""

    def build(starts):
        items = []
        for number, file_id in enumerate(file_ids):
            elements = [
                made.Element(0x00041400, "UL", starts[number + 1] if number + 1 < len(starts) else 0),
                made.Element(0x00041410, "US", 0xFFFF),
                made.Element(0x00041420, "UL", 0),
                made.Element(0x00041430, "CS", "IMAGE"),
                made.Element(0x00041500, "CS", file_id),
                made.Element(0x00041511, "UI", "1.2.3"),
                made.Element(0x00041512, "UI", made.EXPLICIT),
                made.Element(0x00091001, "LO", "odd \xff"),
            ]
            if group_lengths:
                size = sum(len(made.encoded(each)) for each in elements[:-1])
                elements.insert(0, made.Element(0x00040000, "UL", size))
            items.append(made.item(elements, undefined=undefined))
        body = b"".join(items) + (pack("<HHI", 0xFFFE, 0xE0DD, 0) if undefined else b"")
        length = made.UNDEFINED if undefined else len(body)
        sequence = made.tag_and_length(0x00041220, "SQ", length) + body
        top = b"".join(
            made.encoded(each)
            for each in (
                made.Element(0x00041130, "CS", "SET"),
                made.Element(0x00041200, "UL", starts[0] + offset if starts else 0),
                made.Element(0x00041202, "UL", starts[-1] if starts else 0),
                made.Element(0x00041212, "US", 0),
            )
        )
        if group_lengths:
            top = made.encoded(made.Element(0x00040000, "UL", len(top) + len(sequence))) + top
        prefix = (
            made.Image(syntax=syntax)
            .prefix()
            .replace(made.SECONDARY_CAPTURE.encode(), b"1.2.840.10008.1.3.10\0\0\0\0\0")
        )
        at = len(prefix) + len(top) + 12
        positions = []
        for each in items:
            positions.append(at)
            at += len(each)
        return prefix + top + sequence, positions

    _, starts = build([0] * len(file_ids))
    return build(starts)[0]


def image(path, syntax=HTJ2K):
    made.Image(syntax=syntax).write(path)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("group_lengths", [False, True])
def test_lengths_and_offsets_of_made_directories(tmp_path, undefined, group_lengths):
    options = {"undefined": undefined, "group_lengths": group_lengths}
    (tmp_path / "DICOMDIR").write_bytes(directory(["A", "B", "C"], **options))
    image(tmp_path / "A")
    image(tmp_path / "B", made.EXPLICIT)
    image(tmp_path / "C")
    result = rebuild(tmp_path / "DICOMDIR", tmp_path / "NEW")
    assert (result.files, result.changed, result.missing) == (3, 3, 0)  # B has another instance
    data = (tmp_path / "NEW").read_bytes()
    ds = dcmread(tmp_path / "NEW")
    starts = [each.seq_item_tell for each in ds.DirectoryRecordSequence]
    assert [data[at : at + 4] for at in starts] == [b"\xfe\xff\x00\xe0"] * 3
    assert ds.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity == starts[0]
    assert ds.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity == starts[2]
    assert [each.OffsetOfTheNextDirectoryRecord for each in ds.DirectoryRecordSequence] == [*starts[1:], 0]
    syntaxes = [each.ReferencedTransferSyntaxUIDInFile for each in ds.DirectoryRecordSequence]
    assert syntaxes == [HTJ2K, made.EXPLICIT, HTJ2K]
    assert {each.ReferencedSOPInstanceUIDInFile for each in ds.DirectoryRecordSequence} == {made.INSTANCE}
    assert data.count(b"odd \xff") == 3
    if group_lengths:
        at = len(made.Image().prefix()) - len(made.SECONDARY_CAPTURE) + 25
        assert ds[0x00040000].value == len(data) - ds[0x00041130].file_tell + 8
        assert at > 0
        for each in ds.DirectoryRecordSequence:
            begin = each[0x00041400].file_tell
            end = each[0x00091001].file_tell - 8
            assert each[0x00040000].value == end - begin + 8


@pytest.mark.parametrize(
    "file_id", ["..\\SECRET", "A\\..\\..\\SECRET", "/etc/passwd", "\\A", "", ".", "A/../../SECRET"]
)
def test_file_ids_do_not_lead_out_of_the_folder(tmp_path, file_id):
    folder = tmp_path / "set"
    folder.mkdir()
    image(tmp_path / "SECRET")
    (folder / "DICOMDIR").write_bytes(directory([file_id]))
    result = rebuild(folder / "DICOMDIR", folder / "NEW")
    assert (result.changed, result.missing) == (0, 1)
    assert (folder / "NEW").read_bytes() == (folder / "DICOMDIR").read_bytes()


def stale(source, destination):
    with pytest.raises(SourceError) as caught:
        rebuild(source, destination)
    assert caught.value.code == "dicomdir-stale"
    assert not destination.exists()


def test_what_cannot_be_changed_consistently_is_refused(tmp_path):
    image(tmp_path / "A")
    (tmp_path / "DICOMDIR").write_bytes(directory(["A", "A"], offset=2))
    stale(tmp_path / "DICOMDIR", tmp_path / "NEW")
    (tmp_path / "DICOMDIR").write_bytes(directory(["A"], syntax=made.DEFLATED))
    stale(tmp_path / "DICOMDIR", tmp_path / "NEW")
    good = directory(["A", "A"])
    for cut in range(132, len(good) - 1, 7):
        (tmp_path / "DICOMDIR").write_bytes(good[:cut])
        try:
            rebuild(tmp_path / "DICOMDIR", tmp_path / "NEW")
        except SourceError as error:
            assert error.code == "dicomdir-stale"  # noqa: PT017 - others may pass
        (tmp_path / "NEW").unlink(missing_ok=True)


def test_wrong_offsets_of_our_own_are_noticed(tmp_path, monkeypatch):
    image(tmp_path / "A")
    (tmp_path / "DICOMDIR").write_bytes(directory(["A", "A", "A"]))
    monkeypatch.setattr(dicomdir, "bisect_left", lambda places, offset: 0)
    stale(tmp_path / "DICOMDIR", tmp_path / "NEW")


def test_damage_never_does_more_than_be_refused(tmp_path):
    image(tmp_path / "A")
    good = directory(["A", "A"], group_lengths=True)
    for at in range(132, len(good)):
        (tmp_path / "DICOMDIR").write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            rebuild(tmp_path / "DICOMDIR", tmp_path / "NEW", fsync=False)
        except SourceError as error:
            assert error.code == "dicomdir-stale"  # noqa: PT017 - others may pass


def test_the_old_copy_stays_where_the_new_one_cannot_be_written(tmp_path):
    image(tmp_path / "A")
    (tmp_path / "DICOMDIR").write_bytes(directory(["A"]))
    (tmp_path / "NEW").write_bytes(b"mine")
    with pytest.raises(DestinationError, match="exists"):
        rebuild(tmp_path / "DICOMDIR", tmp_path / "NEW", overwrite=False)
    assert (tmp_path / "NEW").read_bytes() == b"mine"


def test_what_a_dicomdir_is(tmp_path):
    assert is_dicomdir(SET / "DICOMDIR")
    assert not is_dicomdir(SET / "README.txt")
    assert not is_dicomdir(SET)
    assert not is_dicomdir(tmp_path / "nothing")
    image(tmp_path / "DICOMDIR")
    assert not is_dicomdir(tmp_path / "DICOMDIR")
    assert unpack_from("<I", directory(["A"]), 140)
