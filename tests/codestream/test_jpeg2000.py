import struct

import imagecodecs
import numpy as np
import openjpeg
import pytest

from gpuenc.codestream import insert_tlm, parse
from gpuenc.codestream.jpeg2000 import unboxed
from gpuenc.errors import WrongCodestream

SOT, EOC = b"\xff\x90", b"\xff\xd9"


def find(codestream, code):
    """Return where the segment of a marker of the main header begins and ends, by walking from SIZ."""
    at = 2
    while codestream[at : at + 2] != code:
        assert codestream[at : at + 2] != SOT, "no such marker"
        at += 2 + int.from_bytes(codestream[at + 2 : at + 4])
    return at, at + 2 + int.from_bytes(codestream[at + 2 : at + 4])


def without(codestream, code):
    start, end = find(codestream, code)
    return codestream[:start] + codestream[end:]


def first_sot(codestream):
    return find(codestream, SOT)[0]


def with_segment(codestream, code, content, at=None):
    """Add a marker segment to the main header, at its end or at byte `at`."""
    at = first_sot(codestream) if at is None else at
    return codestream[:at] + code + struct.pack(">H", len(content) + 2) + content + codestream[at:]


def tile_parts(codestream):
    """Return (tile, length) of each tile-part, by Psot."""
    at, parts = first_sot(codestream), []
    while codestream[at : at + 2] == SOT:
        tile, length = struct.unpack(">HI", codestream[at + 4 : at + 10])
        parts.append((tile, length))
        at += length
    assert codestream[at:] == EOC
    return parts


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 64), (65, 64), (257, 130)])
@pytest.mark.parametrize(("bits", "signed"), [(1, False), (8, False), (8, True), (12, False), (13, True), (16, True)])
def test_htj2k_says_what_the_encoder_was_asked_for(noise, shape, bits, signed):
    image = noise(*shape, bits=bits, signed=signed)
    info = parse(imagecodecs.htj2k_encode(image, reversible=True, tlm=True, bitspersample=bits, resolutions=3), "htj2k")
    assert (info.rows, info.columns, info.samples) == (*shape, 1)
    assert (info.precision, info.signed) == (bits, signed)
    most = min(shape).bit_length() - 1  # imagecodecs goes no further
    assert (info.levels, info.progression, info.lossless) == (min(3, most), "RPCL", True)
    assert (info.cap, info.ht, info.tlm, info.tlm_matches, info.mct) == (True, True, True, True, False)
    assert info.ends_properly
    assert info.subsampling == ((1, 1),)


@pytest.mark.parametrize("order", ["LRCP", "RLCP", "RPCL", "PCRL", "CPRL"])
@pytest.mark.parametrize("mct", [False, True])
@pytest.mark.parametrize("reversible", [False, True])
def test_htj2k_colour(noise, order, mct, reversible):
    level = None if reversible else 0.01
    encoded = imagecodecs.htj2k_encode(noise(40, 50, 3), level, reversible=reversible, rgb=mct, prog_order=order)
    info = parse(encoded, "htj2k")
    assert (info.samples, info.mct, info.lossless, info.progression) == (3, mct, reversible, order)
    assert (info.tlm, info.tlm_matches, info.levels) == (False, None, 5)
    assert info.subsampling == ((1, 1),) * 3


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (8, True), (11, False), (16, True), (16, False)])
@pytest.mark.parametrize("reversible", [False, True])
def test_jpeg2000_says_what_the_encoder_was_asked_for(noise, bits, signed, reversible):
    image = noise(133, 200, bits=bits, signed=signed)
    level = None if reversible else 40
    encoded = imagecodecs.jpeg2k_encode(
        image, level, codecformat="J2K", reversible=reversible, bitspersample=bits, resolutions=4
    )
    info = parse(encoded, "jpeg2000")
    assert (info.rows, info.columns, info.samples, info.precision, info.signed) == (133, 200, 1, bits, signed)
    # OpenJPEG counts resolutions, which are one more than levels.
    assert (info.lossless, info.levels, info.cap, info.ht, info.tlm) == (reversible, 3, False, False, False)
    assert info.ends_properly


@pytest.mark.parametrize("mct", [False, True])
def test_jpeg2000_colour_of_another_encoder(noise, mct):
    image = noise(120, 130, 3)
    encoded = openjpeg.utils.encode_array(image, use_mct=mct, photometric_interpretation=1 if mct else 3)
    info = parse(bytes(encoded), "jpeg2000")
    assert (info.rows, info.columns, info.samples, info.mct, info.lossless) == (120, 130, 3, mct, True)


@pytest.mark.parametrize("options", [{}, {"tile": (64, 32)}, {"tilepart": 1}, {"tilepart": 3, "tile": (64, 64)}])
@pytest.mark.parametrize("samples", [1, 3])
class TestInsertTlm:
    def test_equals_what_openjph_writes(self, noise, options, samples):
        encoded = imagecodecs.htj2k_encode(noise(120, 150, samples), reversible=True, tlm=True, **options)
        stripped = without(encoded, b"\xff\x55")
        assert parse(encoded, "htj2k").tlm_matches is True
        assert parse(stripped, "htj2k").tlm is False
        assert insert_tlm(stripped) == encoded

    def test_decoders_read_it(self, noise, options, samples):
        image = noise(120, 150, samples)
        patched = insert_tlm(imagecodecs.htj2k_encode(image, reversible=True, **options))
        assert find(patched, b"\xff\x55")
        np.testing.assert_array_equal(imagecodecs.htj2k_decode(patched), image)
        np.testing.assert_array_equal(openjpeg.decode(patched), image)

    def test_leaves_what_has_it(self, noise, options, samples):
        encoded = imagecodecs.htj2k_encode(noise(120, 150, samples), reversible=True, tlm=True, **options)
        assert insert_tlm(encoded) is encoded


def test_insert_tlm_into_part_1(noise):
    image = noise(70, 90, bits=12)
    patched = insert_tlm(imagecodecs.jpeg2k_encode(image, codecformat="J2K", reversible=True, bitspersample=12))
    assert parse(patched, "jpeg2000").tlm_matches is True
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(patched), image)
    np.testing.assert_array_equal(openjpeg.decode(patched), image)


def test_insert_tlm_where_the_last_tile_part_gives_no_length(noise):
    encoded = imagecodecs.htj2k_encode(noise(70, 90), reversible=True, tlm=True)
    stripped = without(encoded, b"\xff\x55")
    psot = first_sot(stripped) + 6
    open_ended = stripped[:psot] + bytes(4) + stripped[psot + 4 :]
    assert parse(open_ended, "htj2k").ends_properly is True
    patched = insert_tlm(open_ended)
    assert find(patched, b"\xff\x55") == find(encoded, b"\xff\x55")
    assert patched[slice(*find(patched, b"\xff\x55"))] == encoded[slice(*find(encoded, b"\xff\x55"))]


def test_insert_tlm_of_more_tile_parts_than_one_segment_lists(noise):
    image = noise(220, 220)
    encoded = imagecodecs.htj2k_encode(image, reversible=True, tile=(2, 2), resolutions=1)
    patched = insert_tlm(encoded)
    start, end = find(patched, b"\xff\x55")
    _, last = find(patched[:2] + patched[end:], b"\xff\x55")
    listed = patched[start + 6 : end] + patched[end + 6 : end + last - 2]
    assert (patched[start + 4], patched[end + 4]) == (0, 1)
    assert list(struct.iter_unpack(">HI", listed)) == tile_parts(encoded)
    assert parse(patched, "htj2k").tlm_matches is True
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(patched), image)


def test_insert_tlm_refuses_what_is_cut_off(noise):
    encoded = imagecodecs.htj2k_encode(noise(70, 90), reversible=True)
    with pytest.raises(WrongCodestream, match="do not lead to EOC"):
        insert_tlm(encoded[:-100])


@pytest.mark.parametrize(
    ("stlm", "pack"),
    [
        (0x00, lambda tile, length: struct.pack(">H", length)),
        (0x10, lambda tile, length: struct.pack(">BH", tile, length)),
        (0x20, lambda tile, length: struct.pack(">HH", tile, length)),
        (0x40, lambda tile, length: struct.pack(">I", length)),
        (0x50, lambda tile, length: struct.pack(">BI", tile, length)),
        (0x60, lambda tile, length: struct.pack(">HI", tile, length)),
    ],
)
class TestFormsOfTlm:
    """T.800 A.7.1: indices of 0, 1 or 2 bytes, lengths of 2 or 4."""

    def listed(self, noise, stlm, pack, change=lambda entries: entries):
        encoded = imagecodecs.htj2k_encode(noise(100, 100), reversible=True, tile=(64, 64))
        entries = change([pack(*part) for part in tile_parts(encoded)])
        return parse(with_segment(encoded, b"\xff\x55", bytes((0, stlm)) + b"".join(entries)), "htj2k")

    def test_right(self, noise, stlm, pack):
        info = self.listed(noise, stlm, pack)
        assert (info.tlm, info.tlm_matches, info.ends_properly) == (True, True, True)

    def test_one_missing(self, noise, stlm, pack):
        assert self.listed(noise, stlm, pack, lambda entries: entries[:-1]).tlm_matches is False

    def test_wrong_order(self, noise, stlm, pack):
        assert self.listed(noise, stlm, pack, lambda entries: entries[::-1]).tlm_matches is False

    def test_cut_entry(self, noise, stlm, pack):
        info = self.listed(noise, stlm, pack, lambda entries: [*entries[:-1], entries[-1][:-1]])
        assert (info.tlm, info.tlm_matches) == (True, False)


@pytest.mark.parametrize("stlm", [0x30, 0x70])
def test_tlm_of_a_form_that_stands_for_nothing(noise, stlm):
    encoded = imagecodecs.htj2k_encode(noise(100, 100), reversible=True)
    info = parse(with_segment(encoded, b"\xff\x55", bytes((0, stlm)) + bytes(3 + (4 if stlm & 0x40 else 2))), "htj2k")
    assert (info.tlm, info.tlm_matches) == (True, False)


def test_tlm_in_two_segments_in_any_order(noise):
    encoded = imagecodecs.htj2k_encode(noise(100, 100), reversible=True, tile=(64, 64))
    entries = [struct.pack(">HI", *part) for part in tile_parts(encoded)]
    second = with_segment(encoded, b"\xff\x55", b"\x01\x60" + b"".join(entries[2:]))
    both = with_segment(second, b"\xff\x55", b"\x00\x60" + b"".join(entries[:2]))
    assert parse(both, "htj2k").tlm_matches is True
    again = with_segment(encoded, b"\xff\x55", b"\x00\x60" + b"".join(entries))
    assert parse(again, "htj2k").tlm_matches is True
    assert parse(with_segment(again, b"\xff\x55", b"\x00\x60" + b"".join(entries)), "htj2k").tlm_matches is False
    twice = with_segment(second, b"\xff\x55", b"\x01\x60" + b"".join(entries[:2]))
    assert parse(twice, "htj2k").tlm_matches is False


class TestEnds:
    @pytest.fixture
    def tiled(self, noise):
        return imagecodecs.htj2k_encode(noise(100, 100), reversible=True, tile=(64, 64))

    def test_properly(self, tiled):
        info = parse(tiled, "htj2k")
        assert (info.ends_properly, info.length_bytes) == (True, len(tiled))

    @pytest.mark.parametrize("padding", [b"\0", b"\0\0\0", b"\xff", bytes(100)])
    def test_with_padding(self, tiled, padding):
        info = parse(tiled + padding, "htj2k")
        assert (info.ends_properly, info.length_bytes) == (True, len(tiled))

    def test_cut_off(self, tiled):
        assert parse(tiled[:-1], "htj2k").ends_properly is False
        assert parse(tiled[:-2], "htj2k").ends_properly is False
        assert parse(tiled[:-50] + EOC, "htj2k").ends_properly is False

    def test_with_an_empty_tile_part(self, tiled):
        """SOT and SOD and nothing else are 14 bytes."""
        empty = b"\xff\x90\x00\x0a\x00\x03" + struct.pack(">I", 14) + b"\x01\x00\xff\x93"
        assert parse(tiled[:-2] + empty + EOC, "htj2k").ends_properly is True
        assert parse(tiled[:-2] + empty[:-2] + EOC, "htj2k").ends_properly is False

    def test_with_tiles_that_begin_elsewhere(self, tiled):
        """XTOsiz and YTOsiz move with the image."""
        fields = [value + 640 * moved for value, moved in zip(
            struct.unpack(">8I", tiled[8:40]), (1, 1, 1, 1, 0, 0, 1, 1), strict=True
        )]  # fmt: skip
        info = parse(tiled[:8] + struct.pack(">8I", *fields) + tiled[40:], "htj2k")
        assert (info.ends_properly, info.rows, info.columns) == (True, 100, 100)

    def test_with_something_after_eoc(self, tiled):
        assert parse(tiled + b"\x01", "htj2k").ends_properly is False
        assert parse(tiled + b"\x01" + EOC, "htj2k").ends_properly is False

    def test_without_one_tile(self, tiled):
        length = tile_parts(tiled)[-1][1]
        assert parse(tiled[: -2 - length] + EOC, "htj2k").ends_properly is False

    def test_without_any_tile(self, tiled):
        assert parse(tiled[: first_sot(tiled)] + SOT + b"\0\x0a", "htj2k").ends_properly is False

    @pytest.mark.parametrize("length", [1, 12, 13, 0x7FFFFFFF, 0xFFFFFFFF])
    def test_with_a_wrong_psot(self, tiled, length):
        psot = first_sot(tiled) + 6
        wrong = tiled[:psot] + struct.pack(">I", length) + tiled[psot + 4 :]
        assert parse(wrong, "htj2k").ends_properly is False

    def test_with_a_tile_that_the_image_has_not(self, tiled):
        index = first_sot(tiled) + 4
        assert parse(tiled[:index] + b"\0\x04" + tiled[index + 2 :], "htj2k").ends_properly is False


def test_image_offset_and_separation_count(noise):
    encoded = imagecodecs.htj2k_encode(noise(100, 90, 3), reversible=True)
    offset = encoded[:16] + struct.pack(">II", 11, 20) + encoded[24:]
    assert (parse(offset, "htj2k").rows, parse(offset, "htj2k").columns) == (80, 79)
    halved = bytearray(offset)
    halved[43:45] = b"\x02\x03"  # XRsiz and YRsiz of the first component
    info = parse(bytes(halved), "htj2k")
    # ceil(90 / 2) - ceil(11 / 2) and ceil(100 / 3) - ceil(20 / 3) (T.800 equation B-1)
    assert (info.columns, info.rows) == (39, 27)
    assert info.subsampling == ((2, 3), (1, 1), (1, 1))


def test_components_of_different_depth(noise):
    encoded = bytearray(imagecodecs.htj2k_encode(noise(10, 10, 3), reversible=True))
    encoded[42] = 0x87
    info = parse(bytes(encoded), "htj2k")
    assert (info.precision, info.signed) == (0, None)


class TestOverrides:
    """Marker segments that change what COD and QCD said, in the main header or in that of a tile-part."""

    @pytest.fixture
    def plain(self, noise):
        return imagecodecs.htj2k_encode(noise(100, 100, 3), reversible=True)

    def test_component_with_the_other_wavelet(self, plain):
        info = parse(with_segment(plain, b"\xff\x53", b"\x01\x00\x03\x04\x04\x40\x00"), "htj2k")
        assert (info.lossless, info.levels, info.ht) == (False, 3, True)

    def test_component_that_is_quantised(self, plain):
        assert parse(with_segment(plain, b"\xff\x5d", b"\x02\x22" + bytes(32)), "htj2k").lossless is False
        assert parse(with_segment(plain, b"\xff\x5d", b"\x02\x20" + bytes(16)), "htj2k").lossless is True

    def test_component_with_ht_code_blocks_or_other_styles(self, noise):
        part_1 = imagecodecs.jpeg2k_encode(noise(100, 100, 3), codecformat="J2K", reversible=True)
        for style in (0x01, 0x3F, 0x80):
            info = parse(with_segment(part_1, b"\xff\x53", bytes((1, 0, 3, 4, 4, style, 1))), "jpeg2000")
            assert (info.ht, info.lossless) == (False, True)
        assert parse(with_segment(part_1, b"\xff\x53", b"\x01\x00\x03\x04\x04\x40\x01"), "jpeg2000").ht is True

    @pytest.mark.parametrize(("components", "index"), [(256, b"\x05"), (257, b"\x00\x05")])
    def test_component_indices_of_two_bytes(self, noise, components, index):
        gray = imagecodecs.htj2k_encode(noise(40, 40), reversible=True)
        siz = struct.pack(">H", 38 + 3 * components) + gray[6:40] + struct.pack(">H", components)
        many = gray[:4] + siz + b"\x07\x01\x01" * components + gray[45:]
        assert parse(many, "htj2k").lossless is True
        coc = with_segment(many, b"\xff\x53", index + b"\x00\x03\x04\x04\x40\x01")
        assert (parse(coc, "htj2k").levels, parse(coc, "htj2k").lossless) == (3, True)
        assert parse(with_segment(many, b"\xff\x5d", index + b"\x20" + bytes(16)), "htj2k").lossless is True
        assert parse(with_segment(many, b"\xff\x5d", index + b"\x22" + bytes(32)), "htj2k").lossless is False

    def test_progression_that_stands_for_nothing(self, plain):
        at = find(plain, b"\xff\x52")[0] + 5
        assert plain[at] == 2
        assert parse(plain[:at] + b"\x05" + plain[at + 1 :], "htj2k").progression == ""

    def test_progression_order_change(self, plain):
        info = parse(with_segment(plain, b"\xff\x5f", b"\x00\x00\x00\x01\x06\x03\x02"), "htj2k")
        assert info.progression == ""

    def in_tile_part(self, plain, code, content):
        at = first_sot(plain)
        longer = with_segment(plain, code, content, at + 12)
        psot = struct.pack(">I", tile_parts(plain)[0][1] + len(content) + 4)
        return longer[: at + 6] + psot + longer[at + 10 :]

    def test_tile_with_another_coding_style(self, plain):
        cod = b"\x00\x00\x00\x01\x00\x02\x04\x04\x40\x00"
        info = parse(self.in_tile_part(plain, b"\xff\x52", cod), "htj2k")
        assert (info.ends_properly, info.lossless, info.levels, info.progression, info.mct) == (
            True, False, 2, "", None,
        )  # fmt: skip

    @pytest.mark.parametrize("code", [b"\xff\x55", b"\xff\x50", b"\xff\x51"])
    def test_tile_with_what_only_the_main_header_may_have(self, plain, code):
        with pytest.raises(WrongCodestream, match="does not belong there"):
            parse(self.in_tile_part(plain, code, bytes(20)), "htj2k")


class TestUnboxed:
    """JP2 files (T.800 Annex I), of which only the jp2c box is a codestream."""

    @pytest.fixture
    def bare(self, noise):
        return imagecodecs.jpeg2k_encode(noise(40, 50), codecformat="J2K", reversible=True)

    def test_file_of_an_encoder(self, noise, bare):
        boxed = imagecodecs.jpeg2k_encode(noise(40, 50), codecformat="JP2", reversible=True)
        assert boxed != bare
        assert unboxed(boxed) == bare
        assert unboxed(bare) is bare

    def test_forms_of_length(self, noise, bare):
        boxed = imagecodecs.jpeg2k_encode(noise(40, 50), codecformat="JP2", reversible=True)
        front = boxed[: boxed.index(b"jp2c") - 4]
        assert unboxed(front + struct.pack(">I4s", 8 + len(bare), b"jp2c") + bare + bytes(9)) == bare
        assert unboxed(front + b"\0\0\0\0jp2c" + bare) == bare
        assert unboxed(front + b"\0\0\0\1jp2c" + struct.pack(">Q", 16 + len(bare)) + bare + b"\0") == bare
        skipped = b"\0\0\0\1free" + struct.pack(">Q", 20) + b"jp2c"
        assert unboxed(front + skipped + struct.pack(">I4s", 8 + len(bare), b"jp2c") + bare) == bare

    @pytest.mark.parametrize("rest", [b"", b"\0\0\0\x08free", b"\0\0\0\7jp2h", b"\0\0\0\1free\0\0", b"\0\0\0\0free"])
    def test_no_codestream(self, rest):
        with pytest.raises(WrongCodestream, match="without a codestream"):
            unboxed(b"\0\0\0\x0cjP  \r\n\x87\n" + rest)


class TestRefused:
    @pytest.fixture
    def plain(self, noise):
        return imagecodecs.htj2k_encode(noise(40, 50), reversible=True)

    def test_jp2(self, noise):
        with pytest.raises(WrongCodestream, match="JP2"):
            parse(imagecodecs.jpeg2k_encode(noise(40, 50)), "jpeg2000")

    @pytest.mark.parametrize(
        ("at", "patch", "match"),
        [
            (0, b"\xff\xd8", "not with ffd8ff51"),
            (8, bytes(4), "empty image"),  # Xsiz
            (12, bytes(4), "empty image"),  # Ysiz
            (16, b"\0\0\0\x32", "empty image"),  # XOsiz
            (24, bytes(4), "an empty tile"),  # XTsiz
            (28, bytes(4), "an empty tile"),  # YTsiz
            (32, b"\0\0\0\x01", "empty image"),  # XTOsiz beyond XOsiz
            (40, b"\0\0", "0 components"),
            (40, b"\0\x02", "2 components"),
            (43, b"\0", "separation of 0"),
            (44, b"\0", "separation of 0"),
            (4, b"\0\x20", "SIZ is too short"),
            (45, b"\xfe\x4f", "no marker segment at byte 45"),
            (47, b"\0\x01", "no marker segment at byte 45"),
            (47, b"\xff\xff", "no marker segment at byte 45"),
        ],
    )
    def test_header(self, plain, at, patch, match):
        with pytest.raises(WrongCodestream, match=match):
            parse(plain[:at] + patch + plain[at + len(patch) :], "htj2k")

    @pytest.mark.parametrize("code", [b"\xff\x52", b"\xff\x5c"])
    def test_missing_cod_or_qcd(self, plain, code):
        with pytest.raises(WrongCodestream, match="lacks COD or QCD"):
            parse(without(plain, code), "htj2k")

    def test_cut_off_header(self, plain):
        for length in range(first_sot(plain)):
            with pytest.raises(WrongCodestream):
                parse(plain[:length], "htj2k")
