"""Frames of files: the samples that were put in."""

import warnings
from dataclasses import replace
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_nr_frames

from gpuenc.dicom import source as module
from gpuenc.dicom.source import DicomFile, frames_of, may_be_lossy
from gpuenc.errors import SourceError
from gpuenc.frames import Coded
from tests import made
from tests.dicom import files
from tests.dicom.opening import FRAGMENTS, FRAMES, WHOLE, both, cells


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG, made.DEFLATED])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_native_cells_are_those_put_in(opened, syntax, dtype):
    samples = made.noise((3, 5, 7), dtype)
    for source in both(opened(made.of(samples, syntax=syntax))):
        fmt = source.format
        assert (fmt.rows, fmt.columns, fmt.samples, fmt.signed) == (5, 7, 1, dtype[0] == "i")
        assert source.number_of_frames == 3
        assert not source.compressed
        assert fmt.big_endian == (syntax == made.BIG and fmt.bits_allocated > 8)
        kind = np.dtype(dtype).newbyteorder(">" if fmt.big_endian else "<")
        got = [pixels.view(kind).reshape(5, 7) for pixels in cells(source)]
        np.testing.assert_array_equal(got, samples)
        assert [frame.ref.index for frame in source.frames()] == [0, 1, 2]


def test_big_endian_bytes_in_words_are_swapped(opened):
    # 3 frames of 35 bytes: frames begin in the middle of words.
    samples = made.noise((3, 5, 7), "u1")
    value = np.append(samples.reshape(-1), np.uint8(0)).reshape(-1, 2)[:, ::-1].tobytes()
    image = replace(made.of(samples, syntax=made.BIG, pixel_vr="OW"), pixels=value)
    for source in both(opened(image)):
        np.testing.assert_array_equal(np.stack(cells(source)).reshape(3, 5, 7), samples)
    np.testing.assert_array_equal(dcmread(opened(image).path).pixel_array, samples)


@pytest.mark.parametrize(
    ("syntax", "vr"), [(made.EXPLICIT, "OB"), (made.EXPLICIT, "OW"), (made.BIG, "OW"), (made.BIG, "OB")]
)
def test_one_bit_frames_begin_inside_bytes(opened, syntax, vr):
    bits = made.noise((5, 3, 7), "u1", 1)
    for source in both(opened(made.segmentation(bits, syntax=syntax, pixel_vr=vr))):
        for index, frame in enumerate(source.frames()):
            assert frame.bit_offset == index * 21 % 8
            got = np.unpackbits(frame.pixels, bitorder="little")[frame.bit_offset :][:21]
            np.testing.assert_array_equal(got.reshape(3, 7), bits[index])


def test_planes_and_subsampled_colour_stay_as_they_are(opened):
    rgb = made.noise((2, 4, 6, 3), "u1")
    source = opened(made.of(rgb, planar=1))
    assert source.format.planar == 1
    np.testing.assert_array_equal(np.stack(cells(source)).reshape(2, 3, 4, 6), np.moveaxis(rgb, 3, 1))
    pairs = made.noise((2, 4, 3, 4), "u1")
    source = opened(made.ybr_422(pairs))
    assert source.format.subsampled
    np.testing.assert_array_equal(np.stack(cells(source)).reshape(pairs.shape), pairs)


def test_shifted_samples_and_overlays_are_described(opened):
    assert opened(made.shifted(FRAMES, 13)).format.high_bit == 13
    planes = {12: made.noise((3, 5, 7), "u1", 1), 15: made.noise((3, 5, 7), "u1", 1, seed=1)}
    image = made.embedded_overlays(made.noise((3, 5, 7), "u2", 12), planes)
    assert opened(image).format.overlay_bits == 1 << 12 | 1 << 15
    # Overlay Data of its own: the bits in the cells are no overlay.
    apart = replace(image, elements=(*image.elements, made.Element(0x60003000, "OW", bytes(14))))
    assert opened(apart).format.overlay_bits == 1 << 15
    inside = made.embedded_overlays(made.noise((3, 5, 7), "u2", 12), {11: planes[12]})
    assert opened(inside).format.overlay_bits == 0
    assert "overlay" in opened(inside).notes[0]


def test_frames_agree_with_pydicom_for_every_file():
    checked = 0
    for path in files.readable():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, about the values of its odd files
            ds = dcmread(path, force=True)
            value = ds["PixelData"].value
            number = get_nr_frames(ds)
        with DicomFile(path) as source:
            assert source.number_of_frames == number, path
            if source.compressed:
                table = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
                wanted = generate_frames(value, number_of_frames=number, extended_offsets=table if table[0] else None)
                got = [frame.pixels.codestream for frame in source.frames()]
                assert got == [next(wanted) for _ in range(number)], path
            elif not source._swapped and source.format.frame_bits % 8 == 0:
                got = b"".join(pixels.tobytes() for pixels in cells(source))
                assert value.startswith(got), path
                assert len(got) == source.native_bytes
            checked += 1
    assert checked > 160


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm",
                                  "SC_rgb_jpeg.dcm", "liver_1frame.dcm"])  # fmt: skip
def test_dataset_is_what_pydicom_reads(name):
    with DicomFile(files.named(name)) as source, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = dcmread(source.path, stop_before_pixels=True)
        for tag in list(wanted.keys()):
            if tag > 0x7FE00010:
                del wanted[tag]
        assert source.dataset == wanted
        assert source.dataset.file_meta == wanted.file_meta
        if name != "SC_rgb_jpeg.dcm":  # implicit against its transfer syntax, and pydicom says what that states
            assert source.dataset.original_encoding == wanted.original_encoding


@pytest.mark.parametrize("table", ["basic", "empty"])
def test_fragments_of_a_frame_are_joined(opened, table):
    for source in both(opened(made.compressed(FRAGMENTS, table))):
        assert source.compressed
        assert [frame.pixels for frame in source.frames()] == [Coded(made.JPEG, stream) for stream in WHOLE]
        assert source.frame(1).pixels.codestream == WHOLE[1]


def test_all_fragments_of_a_single_frame_are_its(opened):
    source = opened(made.compressed([[b"ab", b"cd", b"ef"]], "empty"))
    assert source.frame(0).pixels.codestream == b"abcdef"


SINGLE = (
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    made.JPEG,
    made.JPEG2000,
    made.HTJ2K,
)


@pytest.mark.parametrize("syntax", SINGLE)
@pytest.mark.parametrize("frames", [None, 1])
def test_frames_beyond_the_only_one_are_not_lost(opened, syntax, frames):
    begin = b"\xff\x4f" if syntax in (made.JPEG2000, made.HTJ2K) else b"\xff\xd8"
    streams = [[begin + b"ab\xff\xd9"], [begin + b"c\xff\xd9\0"], [begin + b"ef\xff\xd9"]]
    for source in both(opened(replace(made.compressed(streams, "empty", syntax=syntax), frames=frames))):
        with pytest.raises(SourceError, match="3 fragments hold 3 codestreams where Number of Frames says 1") as caught:
            list(source.frames())
        assert caught.value.code == "wrong-length"


@pytest.mark.parametrize("frames", [None, 1])
@pytest.mark.parametrize("boxed", [False, True])
def test_jpeg_xl_frames_beyond_the_only_one_are_not_lost(opened, frames, boxed):
    images = made.noise((3, 5, 7), "u1")
    streams = [imagecodecs.jpegxl_encode(image, lossless=True, usecontainer=boxed) for image in images]
    assert (imagecodecs.jpegxl_decode(b"".join(streams)) == images[0]).all()  # and nothing is said of the others
    padded = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    image = made.compressed([[stream] for stream in padded], "empty", syntax="1.2.840.10008.1.2.4.110")
    for source in both(opened(replace(image, rows=5, columns=7, frames=frames))):
        with pytest.raises(SourceError, match="frame 0 has more than one codestream") as caught:
            list(source.frames())
        assert caught.value.code == "wrong-length"
    # One codestream in several fragments stays one, also where its bytes are like a signature.
    fragments = [padded[0][:6], b"\xff\x0a" + padded[0][6:]]
    source = opened(replace(made.compressed([fragments], "empty", syntax="1.2.840.10008.1.2.4.110"), rows=5, columns=7))
    assert source.frame(0).pixels.codestream == b"".join(fragments)


def test_an_end_marker_that_ends_no_codestream_divides_no_frame(opened):
    # The bytes of a marker may end a fragment by chance, and a second fragment may begin like a codestream.
    for fragments in ([b"\xff\xd8a\xff\xd9b", b"cd\xff\xd9"], [b"\xff\xd8ab", b"\xff\xd8\xff\xd9"]):
        source = opened(made.compressed([fragments], "empty"))
        assert source.frame(0).pixels.codestream == b"".join(fragments)


def test_extended_offset_table_gives_lengths_without_padding(opened):
    for source in both(opened(made.compressed([[WHOLE[1]], [WHOLE[2]]], "extended"))):
        assert [frame.pixels.codestream for frame in source.frames()] == [WHOLE[1], WHOLE[2][:-1]]


def test_trailer_follows_pixel_data(opened):
    wanted = made.encoded(made.PADDING[0])
    assert b"".join(opened(made.of(FRAMES, trailer=made.PADDING)).trailer()) == wanted
    assert b"".join(opened(made.compressed(FRAGMENTS, trailer=made.PADDING)).trailer()) == wanted


def test_a_dataset_in_memory_is_viewed_not_copied():
    ds = dcmread(BytesIO(made.of(FRAMES).file()))
    frame = frames_of(ds).frame(1)
    assert np.shares_memory(frame.pixels, np.frombuffer(ds.PixelData, np.uint8))
    del ds.file_meta
    assert frames_of(ds).syntax == made.EXPLICIT
    assert frames_of(ds, 2).number_of_frames == 2


def test_without_preamble_or_meta(opened):
    source = opened(made.of(FRAMES, syntax=made.IMPLICIT, preamble=None, meta=False))
    np.testing.assert_array_equal(np.stack(cells(source)).view("<u2").reshape(FRAMES.shape), FRAMES)
    assert source.notes
    for syntax in (made.EXPLICIT, made.BIG):
        assert opened(made.of(FRAMES, syntax=syntax, preamble=None, meta=False)).syntax == syntax
    assert opened(made.of(FRAMES, preamble=None)).syntax == made.EXPLICIT


def test_only_always_lossless_syntaxes_are_lossless():
    lossy = [uid[17:] for uid in module.COMPRESSED_UIDS | {made.EXPLICIT, made.BIG} if may_be_lossy(uid)]
    assert sorted(lossy) == [".4.111", ".4.112", ".4.203", ".4.50", ".4.51", ".4.81", ".4.91"]
    assert may_be_lossy("1.2.840.10008.1.2.4.102")


US = made.Element


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT])
def test_headers_are_read_across_every_boundary(opened, syntax):
    # Elements with short and long headers, at all distances from the places where reading begins anew.
    for filler in range(32_300, 32_400, 2):
        sequence = made.Element(0x00091101, "SQ", [[made.Element(0x00091001, "OB", b"ab")]], True)
        elements = (
            US(0x00090010, "LO", "X"),
            US(0x00091001, "OB", bytes(filler)),
            US(0x00091002, "OB", b"cd"),
            sequence,
        )
        source = opened(made.of(FRAMES, syntax=syntax, elements=elements))
        assert source.attributes.value(0x00091002) == b"cd"
        assert source.frame(2).pixels.tobytes() == FRAMES[2].tobytes()
