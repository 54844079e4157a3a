"""Frames of files: the samples that were put in, the errors that each kind of damage gets, and no more memory."""

import random
import resource
import tracemalloc
import warnings
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_nr_frames

from gpuenc.dicom import description
from gpuenc.dicom import source as module
from gpuenc.dicom.source import DicomFile, frames_of, may_be_lossy
from gpuenc.errors import GpuencError, InvalidPixels, SourceError
from gpuenc.frames import Coded
from tests import made
from tests.dicom import files
from tests.dicom.mutate import fuzz_corpus, mutated

FRAMES = made.noise((3, 5, 7), "u2")


@pytest.fixture
def opened(tmp_path):
    """Return a function that writes an image and opens it; both ways of having it, file and dataset, must agree."""
    sources = []

    def open_image(image, data=None):
        path = tmp_path / f"{len(sources)}.dcm"
        path.write_bytes(image.file() if data is None else data)
        sources.append(DicomFile(path))
        return sources[-1]

    yield open_image
    for each in sources:
        each.close()


def cells(source):
    return [frame.pixels for frame in source.frames()]


def both(source):
    """Return the source, and the same from pydicom's dataset."""
    return source, frames_of(dcmread(source.path, force=True))


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


FRAGMENTS = [[b"\xff\xd8ab", b"cd\xff\xd9"], [b"\xff\xd8ef\xff\xd9"], [b"\xff\xd8", b"g\xff\xd9\0"]]
WHOLE = [b"\xff\xd8abcd\xff\xd9", b"\xff\xd8ef\xff\xd9", b"\xff\xd8g\xff\xd9\0"]


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


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("not-dicom", b""),
        ("not-dicom", b"\x08\0"),
        ("not-dicom", random.Random(1).randbytes(4096)),
        ("not-dicom", b"\x08\0" + random.Random(2).randbytes(4096)),
        ("not-dicom", b"\x02\0" + random.Random(3).randbytes(4096)),
        ("no-pixel-data", bytes(128) + b"DICM"),
        ("no-pixel-data", made.of(FRAMES, meta=True).prefix()),
        ("float-pixel-data", made.float_pixels().file()),
        ("float-pixel-data", made.float_pixels(double=True).file()),
        ("unknown-syntax", made.of(FRAMES, syntax="1.2.840.113619.5.2").file()),
        ("video", made.compressed(FRAGMENTS, syntax="1.2.840.10008.1.2.4.102").file()),
        ("unknown-syntax", made.of(FRAMES, syntax="SECRET^NAME").file()),
        ("truncated", made.of(FRAMES).file()[:-1]),
        ("truncated", made.of(FRAMES, pixel_length=1 << 31).file()[:-2]),
        ("truncated", replace(made.of(FRAMES), frames=4).file()),
        ("truncated", replace(made.of(FRAMES), frames=2**31 - 1).file()),
        ("truncated", replace(made.of(FRAMES), rows=65535, columns=65535).file()),
        ("truncated", made.of(FRAMES).file()[:300]),
        ("truncated", made.of(FRAMES, elements=(US(0x00090010, "LO", "X"), US(0x00091001, "OB", b"12"))).file()[:250]),
        ("truncated", made.of(FRAMES, syntax=made.DEFLATED).file()[:-40]),
        ("corrupt-deflate", made.of(FRAMES, syntax=made.DEFLATED).prefix() + b"\xff" * 99),
        ("truncated", replace(made.segmentation(made.noise((5, 3, 7), "u1", 1)), frames=6).file()),
        ("truncated", made.compressed(FRAGMENTS).file()[:-20]),
        ("truncated", replace(made.compressed(FRAGMENTS, "empty"), frames=6).file()),
        ("wrong-length", replace(made.compressed(FRAGMENTS, "empty"), frames=2).file()),
        ("wrong-length", replace(made.compressed(FRAGMENTS), frames=2).file()),
        ("wrong-length", made.compressed(FRAGMENTS, "empty", syntax=made.RLE).file()),
        ("wrong-length", made.compressed(FRAGMENTS, pixel_length=20).file()),
        ("wrong-length", made.of(FRAMES, pixel_length=made.UNDEFINED).file()),
        ("wrong-length", made.ybr_422(made.noise((2, 4, 3, 6), "u1")).file().replace(b"\x06\0", b"\x06\0")),
        ("wrong-length", made.compressed([[b"ab"], [b"cd" * (1 << 20)]]).file()),
        ("invalid-pixels", replace(made.of(FRAMES), rows=0).file()),
        ("invalid-pixels", replace(made.of(FRAMES), stored=17).file()),
        ("invalid-pixels", replace(made.of(FRAMES), allocated=12).file()),
        ("invalid-pixels", replace(made.of(FRAMES), samples=2).file()),
        ("invalid-pixels", replace(made.of(FRAMES), photometric="secret^name").file()),
        ("invalid-pixels", made.of(FRAMES, elements=(US(0x00280008, "IS", "many"),)).file()),
        ("invalid-pixels", made.of(FRAMES, elements=(US(0x00280103, "US", 2),)).file()),
        ("invalid-pixels", made.of(FRAMES, elements=(US(0x00280010, "US", (5, 5)), US(0x00280011, "FD", 7.0))).file()),
    ],
)  # fmt: skip
def test_damage_has_its_code(tmp_path, code, data):
    path = tmp_path / "x.dcm"
    path.write_bytes(data)
    with pytest.raises(GpuencError) as caught, DicomFile(path) as source:
        list(source.frames())
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value).lower()


def test_missing_native_data_is_noticed_before_any_frame_is_read(tmp_path):
    for image in (made.of(FRAMES), made.of(made.noise((3, 5, 7), "u1"), syntax=made.BIG, pixel_vr="OW")):
        path = tmp_path / "x.dcm"
        path.write_bytes(image.file()[:-1])
        with pytest.raises(SourceError) as caught:
            DicomFile(path)
        assert caught.value.code == "truncated"


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


def test_422_without_subsampling_is_not_guessed_at(opened):
    image = replace(made.ybr_422(made.noise((2, 4, 3, 4), "u1")), pixels=bytes(2 * 4 * 6 * 3))
    with pytest.raises(SourceError, match="subsampling"):
        opened(image)


@pytest.mark.parametrize("tag", [0x00280002, 0x00280004, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103])
def test_missing_attributes_are_named(opened, tag):
    with pytest.raises(InvalidPixels, match=f"{tag >> 16:04X},{tag & 0xFFFF:04X}"):
        opened(made.of(FRAMES, without=frozenset({tag})))
    with pytest.raises(InvalidPixels, match="0028,0006"):
        opened(made.of(made.noise((1, 4, 6, 3), "u1"), without=frozenset({0x00280006})))


def test_more_data_than_frames_is_noted(opened):
    size = FRAMES[0].nbytes
    for source in both(opened(replace(made.of(FRAMES), frames=2, pixels=FRAMES.tobytes()[: 3 * size - 2]))):
        assert len(cells(source)) == 2
        assert any("behind the last frame" in note for note in source.notes)
    assert opened(made.of(made.noise((1, 3, 3), "u1"))).notes == []


@pytest.mark.parametrize("frames", [None, 1, 2])
@pytest.mark.parametrize("samples", [FRAMES, made.noise((3, 3, 3), "u1"), made.noise((3, 4, 6, 3), "u1")])
def test_whole_frames_behind_the_last_are_not_left_out(opened, frames, samples):
    image = replace(made.of(samples), frames=frames)
    path = opened(made.of(samples)).path
    wanted = f"holds 3 frames where Number of Frames says {frames or 1}"
    with pytest.raises(SourceError, match=wanted) as caught:
        opened(image)
    assert caught.value.code == "wrong-length"
    with pytest.raises(SourceError, match=wanted):
        frames_of(dcmread(BytesIO(image.file())))
    # Unless the caller says how many to read.
    assert len(cells(frames_of(dcmread(path), 2))) == 2


def test_whole_one_bit_frames_behind_the_last_are_not_left_out(opened):
    bits = made.noise((5, 3, 7), "u1", 1)
    with pytest.raises(SourceError, match="holds 5 frames where Number of Frames says 1"):
        opened(replace(made.segmentation(bits), frames=None))
    tiny = made.segmentation(made.noise((1, 1, 3), "u1", 1))
    assert opened(tiny).notes == []  # the bits up to the next word are padding, however many frames they could be


@pytest.mark.parametrize("syntax", [made.RLE, made.JPEG2000])
def test_a_byte_for_each_bit_is_not_too_much(opened, syntax):
    stream = bytes(3 << 20)
    image = made.compressed([[stream]], syntax=syntax, rows=1600, columns=1600, allocated=1)
    assert opened(image).frame(0).pixels.codestream == stream
    with pytest.raises(SourceError, match="far more than its 2560000 without compression"):
        opened(made.compressed([[stream * 4]], syntax=syntax, rows=1600, columns=1600, allocated=1)).frame(0)


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.DEFLATED])
def test_native_422_has_pairs_of_pixels(opened, monkeypatch, syntax):
    monkeypatch.setattr(description, "check_format", lambda fmt: None)
    image = replace(made.ybr_422(made.noise((2, 4, 3, 4), "u1"), syntax=syntax), columns=5)
    with pytest.raises(InvalidPixels, match=r"0028,0011.*'5'.*even for native YBR_FULL_422"):
        opened(image)
    with pytest.raises(InvalidPixels, match="even for native"):
        frames_of(dcmread(BytesIO(image.file())))
    odd = made.compressed([[WHOLE[0]]], columns=5, samples=3, photometric="YBR_FULL_422")
    assert opened(odd).format.columns == 5


def test_wrong_offset_tables_are_refused(opened):
    good = made.compressed(FRAGMENTS)
    value = bytearray(good.pixels)
    for entry, offset in ((0, 2), (1, 30), (2, 4)):
        changed = value[:]
        changed[8 + 4 * entry : 12 + 4 * entry] = offset.to_bytes(4, "little")
        with pytest.raises(SourceError, match="Offset Table") as caught:
            list(opened(replace(good, pixels=bytes(changed))).frames())
        assert caught.value.code == "wrong-length"
    extended = made.compressed([[WHOLE[1]], [WHOLE[2]]], "extended")
    for tag, numbers in ((0x7FE00001, (0, 15)), (0x7FE00002, (6, 9)), (0x7FE00002, (6, 4)), (0x7FE00001, (0,))):
        elements = tuple(US(e.tag, "OV", numbers) if e.tag == tag else e for e in extended.elements)
        with pytest.raises(SourceError, match="Extended Offset Table"):
            list(opened(replace(extended, elements=elements)).frames())


def test_a_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_INFLATED_BYTES", 1 << 22)
    bomb = made.of(FRAMES, syntax=made.DEFLATED).prefix() + zlib.compress(bytes(1 << 26), wbits=-15)
    path = tmp_path / "bomb.dcm"
    path.write_bytes(bomb)
    with pytest.raises(SourceError) as caught:
        DicomFile(path)
    assert caught.value.code == "too-large"


def test_a_header_that_claims_gigabytes_costs_nothing(tmp_path):
    image = made.of(FRAMES, elements=(US(0x00091001, "OB", b"12"),))
    data = image.file()
    at = data.index(b"\x09\0\x01\x10OB") + 8
    path = tmp_path / "x.dcm"
    path.write_bytes(data[:at] + b"\xf0\xff\xff\xff" + data[at + 4 :])
    tracemalloc.start()
    try:
        with pytest.raises(SourceError):
            DicomFile(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_4_gib_object_streams(tmp_path):
    path = made.huge(tmp_path / "huge.dcm")
    tracemalloc.start()
    try:
        with DicomFile(path) as source:
            assert source.number_of_frames == 8191
            assert not source.frame(8190).pixels.any()
            for _, frame in zip(range(50), source.frames(), strict=False):
                assert frame.pixels.size == 512 * 512 * 2
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_deep_nesting_is_refused_not_followed(tmp_path):
    inner = made.Element(0x00081140, "SQ", [], True)
    for _ in range(90):
        inner = made.Element(0x00081140, "SQ", [[inner]], True)
    path = made.of(FRAMES, elements=(inner,)).write(tmp_path / "deep.dcm")
    with pytest.raises(SourceError, match="nested"):
        DicomFile(path)


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_gets_anything_but_a_reason(tmp_path, seed):
    rng = random.Random(seed)
    corpus = fuzz_corpus()
    path = tmp_path / "x.dcm"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(400):
        path.write_bytes(mutated(rng.choice(corpus), rng))
        try:
            with DicomFile(path) as source:
                for frame in source.frames(expand=True):
                    assert isinstance(frame.pixels, Coded) or len(frame.pixels) * 8 >= frame.format.frame_bits
                b"".join(source.trailer())
        except GpuencError:
            continue
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 << 10


# Found by tests.fuzz: what other readers read otherwise, or not at all.


def code_of(opened, image, data=None):
    with pytest.raises(GpuencError) as caught:
        list(opened(image, data).frames())
    return caught.value.code


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG])
@pytest.mark.parametrize("tag", [0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD])
def test_a_delimiter_between_elements_is_no_element(opened, syntax, tag):
    """pydicom ends the data set there, and finds no Pixel Data."""
    image = made.of(FRAMES, syntax=syntax)
    stray = made.tag_and_length(tag, "", 0, implicit=True, order=">" if syntax == made.BIG else "<")
    prefix = len(image.prefix())
    assert code_of(opened, image, image.prefix() + stray + image.file()[prefix:]) == "corrupt-header"


@pytest.mark.parametrize(("vr", "value"), [("DT", b"\5\0"), ("UL", b"\5\0"), ("US", b"\5\0\0\0"), ("AS", b"\5\0")])
def test_numbers_have_the_vr_and_the_length_of_numbers(opened, vr, value):
    length = made.tag_and_length(0x00280010, vr, len(value)) + value
    data = made.of(FRAMES).file()
    at = data.index(made.tag_and_length(0x00280010, "US", 2))
    assert code_of(opened, made.of(FRAMES), data[:at] + length + data[at + 10 :]) == "invalid-pixels"


def test_unknown_numbers_are_read_as_the_dictionary_says(opened):
    """UN keeps its bytes when a big-endian file is transcribed, so there it would become another number."""
    known, unknown = (made.tag_and_length(0x00280010, vr, 2, order="<") for vr in ("US", "UN"))
    data = made.of(FRAMES).file()
    assert opened(None, data.replace(known + b"\5\0", unknown + b"\5\0")).format.rows == 5
    known, unknown = (made.tag_and_length(0x00280010, vr, 2, order=">") for vr in ("US", "UN"))
    image = made.of(FRAMES, syntax=made.BIG)
    assert code_of(opened, image, image.file().replace(known + b"\0\5", unknown + b"\0\5")) == "invalid-pixels"


def test_numbers_of_frames_are_text_only_where_their_vr_is(opened):
    data = made.of(FRAMES).file().replace(b"\x28\0\x08\0IS", b"\x28\0\x08\0FD")
    assert code_of(opened, None, data) == "invalid-pixels"


@pytest.mark.parametrize("vr", [b"FD", b"US", b"ZZ"])
def test_text_has_a_vr_of_text(opened, vr):
    data = made.of(FRAMES).file().replace(b"\x28\0\x04\0CS", b"\x28\0\x04\0" + vr)
    assert code_of(opened, None, data) == "invalid-pixels"


@pytest.mark.parametrize("vr", [b"US", b"ZZ", b"O\xc7", b"SQ"])
def test_pixel_data_of_another_vr_begins_elsewhere(opened, vr):
    """Where they are read, the first samples would be those of the length field."""
    data = made.of(FRAMES).file().replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0" + vr)
    assert code_of(opened, None, data) == "corrupt-header"


def test_a_length_of_many_frames_more_is_wrong_even_if_the_file_is_short(opened):
    size = FRAMES.nbytes
    assert code_of(opened, replace(made.of(FRAMES), pixel_length=size + FRAMES[0].nbytes)) == "wrong-length"
    assert len(cells(opened(replace(made.of(FRAMES), pixel_length=size + FRAMES[0].nbytes - 2)))) == 3


def test_two_transfer_syntaxes_are_one_too_many(opened):
    again = made.Element(0x00020010, "UI", made.IMPLICIT)
    assert code_of(opened, made.of(FRAMES, meta_elements=(again,))) == "corrupt-header"
    same = made.Element(0x00020010, "UI", made.EXPLICIT)
    assert len(cells(opened(made.of(FRAMES, meta_elements=(same,))))) == 3


def test_file_meta_elements_do_not_belong_into_the_data_set(opened):
    """Behind the new File Meta Information the transfer syntax would be this one."""
    image = made.of(FRAMES, syntax=made.BIG, elements=(made.Element(0x00020010, "UI", made.HTJ2K),))
    assert code_of(opened, image) == "corrupt-header"


@pytest.mark.parametrize("begin", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"])
def test_a_frame_of_two_jpeg_xl_codestreams_is_none(opened, begin):
    """libjxl decodes the first and leaves out the other."""
    syntax = "1.2.840.10008.1.2.4.110"
    two = made.compressed([[b"\xff\x0aab", begin + b"cd"], [b"\xff\x0aef"]], syntax=syntax)
    assert code_of(opened, two) == "wrong-length"
    one = made.compressed([[b"\xff\x0aab", b"cd"], [b"\xff\x0aef"]], syntax=syntax)
    assert [frame.pixels.codestream for frame in opened(one).frames()] == [b"\xff\x0aabcd", b"\xff\x0aef"]


def test_an_extended_offset_table_of_one_frame_is_looked_at(opened):
    """With one frame there is no need of it, but other readers go by it: to the first fragment alone."""
    value, table = made.encapsulated([[b"\xff\xd8ab"], [b"cd\xff\xd9"]], "extended")
    image = replace(made.compressed([[b"ab"]]), pixels=value)
    assert opened(image).frame(0).pixels.codestream == b"\xff\xd8abcd\xff\xd9"
    data = replace(image, elements=table).file()
    assert code_of(opened, None, data) == "wrong-length"
