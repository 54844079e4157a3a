"""Outputs that other readers understand, complete or absent."""

import errno
import os
import resource
import stat
import zlib
from contextlib import contextmanager
from io import BytesIO
from struct import unpack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames, parse_basic_offsets

from gpuenc.dicom import atomic, fragments
from gpuenc.dicom.atomic import TEMPORARY_SUFFIX
from gpuenc.dicom.header import Header
from gpuenc.dicom.source import DicomFile, frames_of
from gpuenc.dicom.writer import OutputFile, encapsulate
from gpuenc.errors import DestinationError
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from tests import made
from tests.dicom.pipeline import rewrite

FRAMES = made.noise((3, 5, 7), "u2")
CELLS = FrameFormat(5, 7, 1, 16, 16, False, "MONOCHROME2")
STREAMS = [b"\xff\xd8abc\xff\xd9", b"\xff\xd8de\xff\xd9", b"\xff\xd8\xff\xd9"]
J2K = find("jpeg2000-lossless")


def head(frames=1, syntax=J2K.uid):
    image = made.Image(rows=5, columns=7, frames=frames, syntax=syntax)
    return Header(image.prefix(), b"".join(made.encoded(element) for element in image.header()))


def written(path, streams=STREAMS, **options):
    with OutputFile(path, head(len(streams)), J2K, len(streams), cells=CELLS, fsync=False, **options) as output:
        for stream in streams:
            output.put(stream)
        return output.finish(trailer=[made.encoded(made.PADDING[0])])


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG, made.DEFLATED])
@pytest.mark.parametrize("name", ["explicit-vr-little-endian", "deflated"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4"])
def test_native_targets_hold_the_same_samples(tmp_path, syntax, name, dtype):
    samples = made.noise((3, 5, 7), dtype)
    path = made.of(samples, syntax=syntax, trailer=made.PADDING).write(tmp_path / "in.dcm")
    rewrite(path, tmp_path / "out.dcm", name)
    ds = dcmread(tmp_path / "out.dcm")
    assert ds.file_meta.TransferSyntaxUID == find(name).uid
    np.testing.assert_array_equal(ds.pixel_array, samples)
    vr = "OB" if dtype == "u1" else "OW"
    assert vr == ds["PixelData"].VR
    assert ds[0xFFFCFFFC].value == made.PADDING[0].value
    assert (tmp_path / "out.dcm").stat().st_size % 2 == 0


def test_one_bit_frames_are_joined_without_padding(tmp_path):
    bits = made.noise((5, 3, 7), "u1", 1)
    path = made.segmentation(bits).write(tmp_path / "in.dcm")
    rewrite(path, tmp_path / "out.dcm", "explicit-vr-little-endian")
    np.testing.assert_array_equal(dcmread(tmp_path / "out.dcm").pixel_array, bits)
    assert (tmp_path / "out.dcm").read_bytes() == path.read_bytes()


def test_deflated_frames_come_back(tmp_path):
    path = made.of(FRAMES).write(tmp_path / "in.dcm")
    rewrite(path, tmp_path / "out.dcm", "deflated-frame")
    with DicomFile(tmp_path / "out.dcm") as source:
        streams = [frame.pixels.codestream for frame in source.frames()]
    assert b"".join(zlib.decompress(stream, wbits=-15) for stream in streams) == FRAMES.tobytes()


def test_basic_offset_table_points_at_frames(tmp_path):
    summary = written(tmp_path / "x.dcm")
    ds = dcmread(tmp_path / "x.dcm")
    assert ds["PixelData"].is_undefined_length
    assert ds["PixelData"].VR == "OB"
    assert parse_basic_offsets(ds.PixelData) == [0, 16, 30]
    padded = [STREAMS[0] + b"\0", STREAMS[1], STREAMS[2]]
    assert list(generate_frames(ds.PixelData, number_of_frames=3)) == padded
    assert ds[0xFFFCFFFC].value == made.PADDING[0].value
    assert summary.bytes_written == (tmp_path / "x.dcm").stat().st_size
    assert summary.codestream_bytes == sum(map(len, STREAMS))


def test_extended_offset_table_on_request(tmp_path):
    assert written(tmp_path / "x.dcm", extended_offsets=True).extended_offsets
    ds = dcmread(tmp_path / "x.dcm")
    assert parse_basic_offsets(ds.PixelData) == []
    assert unpack("<3Q", ds.ExtendedOffsetTable) == (0, 16, 30)
    assert unpack("<3Q", ds.ExtendedOffsetTableLengths) == (7, 6, 4)
    tables = ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths
    assert list(generate_frames(ds.PixelData, extended_offsets=tables)) == STREAMS
    with DicomFile(tmp_path / "x.dcm") as source:
        assert source.dataset.get("ExtendedOffsetTable") == ds.ExtendedOffsetTable


def test_offsets_beyond_32_bits_get_an_extended_table(tmp_path, monkeypatch):
    written(tmp_path / "asked.dcm", extended_offsets=True)
    monkeypatch.setattr(fragments, "MAX_BASIC_OFFSET", 29)
    assert written(tmp_path / "needed.dcm").extended_offsets
    assert (tmp_path / "needed.dcm").read_bytes() == (tmp_path / "asked.dcm").read_bytes()
    monkeypatch.setattr(fragments, "MAX_BASIC_OFFSET", 30)
    assert not written(tmp_path / "not.dcm").extended_offsets
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked.dcm", "needed.dcm", "not.dcm"]


def test_jpeg_ls_is_padded_inside(tmp_path):
    dataset = Dataset()
    encapsulate(dataset, STREAMS, find("jpeg-ls-lossless"), extended_offsets=True)
    assert unpack("<3Q", dataset.ExtendedOffsetTableLengths) == (8, 6, 4)
    tables = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    first = next(generate_frames(dataset.PixelData, extended_offsets=tables))
    assert first == b"\xff\xd8abc\xff\xff\xd9"


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=9), st.booleans())
def test_frames_in_memory_are_found_again(streams, extended):
    dataset = dcmread(BytesIO(made.of(FRAMES).file()))
    dataset.NumberOfFrames = len(streams)
    dataset.ExtendedOffsetTable = dataset.ExtendedOffsetTableLengths = b"stale..."
    dataset.file_meta.TransferSyntaxUID = J2K.uid
    encapsulate(dataset, streams, J2K, extended_offsets=extended)
    assert ("ExtendedOffsetTable" in dataset) == extended
    got = [frame.pixels.codestream for frame in frames_of(dataset).frames()]
    assert got == (streams if extended else [stream + b"\0" * (len(stream) % 2) for stream in streams])


def test_native_data_beyond_a_length_field_is_refused(tmp_path):
    cells = FrameFormat(32768, 32768, 1, 32, 32, False, "MONOCHROME2")
    with pytest.raises(DestinationError) as caught:
        OutputFile(tmp_path / "x.dcm", head(), find("native"), 1, cells=cells)
    assert caught.value.code == "too-large"
    assert list(tmp_path.iterdir()) == []


def test_the_header_can_be_written_again(tmp_path):
    path = tmp_path / "x.dcm"
    with OutputFile(path, head(), J2K, 1, cells=CELLS, fsync=False) as output:
        output.put(b"ab")
        again = Header(head().prefix, head().elements.replace(b"SECRET", b"PUBLIC"))
        output.finish(header=again)
    assert str(dcmread(path).PatientName) == "PUBLIC^PATIENT"
    assert next(generate_frames(dcmread(path).PixelData, number_of_frames=1)) == b"ab"
    with OutputFile(tmp_path / "y.dcm", head(), J2K, 1, cells=CELLS) as output:
        output.put(b"ab")
        with pytest.raises(ValueError, match="length"):
            output.finish(header=Header(head().prefix, head().elements + b"12345678"))
    assert not (tmp_path / "y.dcm").exists()


def test_frames_must_add_up(tmp_path):
    with OutputFile(tmp_path / "x.dcm", head(), J2K, 2, cells=CELLS) as output:
        output.put(b"ab")
        with pytest.raises(DestinationError) as caught:
            output.finish()
        assert caught.value.code == "frames-missing"
        output.put(b"cd")
        with pytest.raises(ValueError, match="only 2"):
            output.put(b"ef")
    native = OutputFile(tmp_path / "x.dcm", head(), find("native"), 2, cells=CELLS)
    with native, pytest.raises(ValueError, match="9 bytes"):
        native.put(b"too short")
    assert list(tmp_path.iterdir()) == []


def test_nothing_has_the_name_before_the_end_and_nothing_stays_after_a_failure(tmp_path):
    class Boom(Exception):
        pass

    path = tmp_path / "x.dcm"
    with pytest.raises(Boom), OutputFile(path, head(), J2K, 2, cells=CELLS) as output:  # noqa: PT012 - what is there meanwhile
        output.put(b"ab")
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.endswith(TEMPORARY_SUFFIX)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        raise Boom
    assert list(tmp_path.iterdir()) == []

    def trailer():
        yield b"12"
        raise Boom

    with pytest.raises(Boom), OutputFile(path, head(), J2K, 1, cells=CELLS) as output:  # noqa: PT012
        output.put(b"ab")
        output.finish(trailer=trailer())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_destination_is_not_touched(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(b"mine")
    with pytest.raises(DestinationError) as caught:
        written(path)
    assert caught.value.code == "destination-exists"
    assert path.read_bytes() == b"mine"
    written(path, overwrite=True)
    assert dcmread(path).Rows == 5
    assert [each.name for each in tmp_path.iterdir()] == ["x.dcm"]


@pytest.mark.parametrize("links", [True, False])
def test_a_destination_that_appears_meanwhile_is_not_touched(tmp_path, monkeypatch, links):
    def no_link(*_):
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    path = tmp_path / "x.dcm"
    with OutputFile(path, head(), J2K, 1, cells=CELLS, fsync=False) as output:
        output.put(b"ab")
        path.write_bytes(b"theirs")
        with pytest.raises(DestinationError) as caught:
            output.finish()
    assert caught.value.code == "destination-exists"
    assert path.read_bytes() == b"theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["x.dcm"]
    written(tmp_path / "y.dcm")
    assert dcmread(tmp_path / "y.dcm").Rows == 5


@contextmanager
def file_size_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(DestinationError) as caught, file_size_limit(1 << 16):
        written(tmp_path / "x.dcm", [bytes(1 << 17)])
    assert caught.value.code == "destination-unwritable"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "fchmod", "link"])
def test_a_full_disk_has_its_code(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with OutputFile(tmp_path / "x", head(), J2K, 1, cells=CELLS) as output:
        output.put(b"ab")
        with pytest.raises(DestinationError) as caught:
            output.finish()
    assert caught.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_has_its_code(tmp_path):
    with pytest.raises(DestinationError) as caught:
        written(tmp_path / "nowhere" / "x.dcm")
    assert caught.value.code == "destination-unwritable"


def test_data_is_on_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls = []
    fsync, link = os.fsync, os.link

    def note_fsync(number):
        calls.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else os.fstat(number).st_size)
        fsync(number)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", lambda *names: (calls.append("link"), link(*names)))
    with OutputFile(tmp_path / "x.dcm", head(), J2K, 1, cells=CELLS) as output:
        output.put(b"ab")
        summary = output.finish()
    assert calls == [summary.bytes_written, "link", "folder"]


@pytest.mark.parametrize(
    "name", ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "EBADF", "EACCES", "EPERM", "EIO", "EMFILE", "ENOENT"]
)
@pytest.mark.parametrize("call", ["fsync", "open", "close"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_cannot_be_flushed_is_no_failure(tmp_path, monkeypatch, name, call, overwrite):
    """But where it could be, and that went wrong, it is told."""
    real, code = getattr(os, call), getattr(errno, name)

    def refused(what, *arguments, **keywords):
        folder = os.path.isdir(what) if call == "open" else stat.S_ISDIR(os.fstat(what).st_mode)
        if folder:
            raise OSError(code, os.strerror(code))
        return real(what, *arguments, **keywords)

    path = tmp_path / "x.dcm"
    with OutputFile(path, head(), J2K, 1, cells=CELLS, overwrite=overwrite) as output:
        output.put(b"ab")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refused)
            summary = output.finish()
    assert path.stat().st_size == summary.bytes_written
    assert list(tmp_path.iterdir()) == [path]
    assert (os.strerror(code) in summary.note) == (name in ("EIO", "EMFILE", "ENOENT"))


def test_a_temporary_name_that_stays_is_no_failure(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "x.dcm"
    with OutputFile(path, head(), J2K, 1, cells=CELLS) as output:
        output.put(b"ab")
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", refused)
            summary = output.finish()
    assert path.stat().st_size == summary.bytes_written


def test_the_mode_is_that_of_the_umask(tmp_path):
    before = os.umask(0o027)
    atomic._umask.cache_clear()
    try:
        written(tmp_path / "x.dcm")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
        atomic._umask.cache_clear()
    assert stat.S_IMODE((tmp_path / "x.dcm").stat().st_mode) == 0o640


def test_names_may_be_as_long_as_they_can_be(tmp_path):
    written(tmp_path / ("ä" * 125 + ".dcm"))
    assert len(list(tmp_path.iterdir())) == 1
