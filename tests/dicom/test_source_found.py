"""What other readers read otherwise, or not at all, found by `tests.fuzz`."""

from __future__ import annotations

from dataclasses import replace

import imagecodecs
import pytest

from gpuenc.errors import GpuencError
from tests import made
from tests.dicom.opening import FRAMES, cells


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


@pytest.mark.parametrize("boxed", [False, True])
def test_a_frame_of_two_jpeg_xl_codestreams_is_none(opened, boxed):
    """libjxl decodes the first and leaves out the other."""
    syntax = "1.2.840.10008.1.2.4.110"
    a, b, c = (imagecodecs.jpegxl_encode(image, lossless=True, usecontainer=boxed) for image in made.noise((3, 5, 7)))
    shape = {"syntax": syntax, "rows": 5, "columns": 7}
    assert code_of(opened, made.compressed([[a, b], [c]], **shape)) == "wrong-length"
    one = opened(made.compressed([[a[:9], a[9:]], [c]], **shape))
    assert [frame.pixels.codestream.rstrip(b"\0") for frame in one.frames()] == [
        stream.rstrip(b"\0") for stream in (a, c)
    ]


def test_an_extended_offset_table_of_one_frame_is_looked_at(opened):
    """With one frame there is no need of it, but other readers go by it: to the first fragment alone."""
    value, table = made.encapsulated([[b"\xff\xd8ab"], [b"cd\xff\xd9"]], "extended")
    image = replace(made.compressed([[b"ab"]]), pixels=value)
    assert opened(image).frame(0).pixels.codestream == b"\xff\xd8abcd\xff\xd9"
    data = replace(image, elements=table).file()
    assert code_of(opened, None, data) == "wrong-length"
