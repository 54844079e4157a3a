"""Which elements of two files differ, whatever their encodings."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuenc.dicom import difference
from gpuenc.dicom.difference import TRAILER, differing_tags
from gpuenc.dicom.source import DicomFile
from tests import made

NOISE = made.noise((1, 4, 6), "u2", 12)
E = made.Element
ELEMENTS = (
    made.icon(),
    E(0x00080005, "CS", "ISO_IR 100"),
    E(0x00181063, "FD", 0.5),
    E(0x00186011, "SQ", [[E(0x00186018, "UL", 7)], [E(0x00186018, "UL", 9), E(0x00186012, "US", 3)]], True),
    E(0x00280106, "US", 1),
    E(0x00281201, "OW", bytes(range(8))),
    E(0x00400555, "SQ", []),
)


def differing(tmp_path, one, other):
    for name, image in (("one", one), ("other", other)):
        image.write(tmp_path / name)
    with DicomFile(tmp_path / "one") as source, DicomFile(tmp_path / "other") as output:
        return differing_tags(source, output)


def image(syntax=made.EXPLICIT, elements=ELEMENTS, **options):
    return made.of(NOISE, stored=12, syntax=syntax, elements=elements, **{"trailer": made.PADDING, **options})


def changed(tag, **values):
    """Return ELEMENTS with one of them changed."""
    return tuple(replace(each, **values) if each.tag == tag else each for each in ELEMENTS)


SEVEN, NINE = [E(0x00186018, "UL", 7)], [E(0x00186018, "UL", 9), E(0x00186012, "US", 3)]


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG, made.DEFLATED])
@pytest.mark.parametrize(
    ("elements", "tags"),
    [
        (ELEMENTS, []),
        (changed(0x00181063, value=0.25), [0x00181063]),
        (changed(0x00281201, value=bytes(range(1, 9))), [0x00281201]),
        (changed(0x00280106, value=256), [0x00280106]),
        (changed(0x00186011, value=[SEVEN]), [0x00186011]),
        (changed(0x00186011, value=[[E(0x00186018, "UL", 8)], NINE]), [0x00186011]),
        (changed(0x00186011, value=[NINE, SEVEN]), [0x00186011]),
        (changed(0x00400555, value=[[]]), [0x00400555]),
        (ELEMENTS[1:], [0x00880200]),
        ((*ELEMENTS, E(0x00101000, "LO", "x")), [0x00101000]),
    ],
)  # fmt: skip
def test_values_are_compared_across_encodings(tmp_path, syntax, elements, tags):
    assert differing(tmp_path, image(syntax), image(elements=elements)) == tags


def test_the_same_values_encoded_otherwise_are_different_bytes(tmp_path):
    undefined = changed(0x00186011, undefined=False)
    assert differing(tmp_path, image(), image(elements=undefined)) == [0x00186011]
    assert differing(tmp_path, image(made.IMPLICIT), image(elements=undefined)) == []


def test_an_element_twice_is_not_the_same_as_once(tmp_path):
    one = image()
    path = one.write(tmp_path / "one")
    data = path.read_bytes()
    element = made.encoded(E(0x00280106, "US", 1))
    (tmp_path / "two").write_bytes(data.replace(element, element * 2))
    with DicomFile(path) as source, DicomFile(tmp_path / "two") as output:
        assert differing_tags(source, output) == [0x00280106]
        assert differing_tags(output, source) == [0x00280106]


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT])
def test_what_follows_pixel_data_is_compared(tmp_path, syntax):
    other = (replace(made.PADDING[0], value=b"other"),)
    assert differing(tmp_path, image(syntax), image(trailer=other)) == [made.PADDING[0].tag]
    assert differing(tmp_path, image(syntax), image(trailer=())) == [made.PADDING[0].tag]


def test_a_trailer_too_long_to_hold_is_compared_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(difference, "MAX_TRAILER_BYTES", 4)
    other = (replace(made.PADDING[0], value=b"other"),)
    assert differing(tmp_path, image(), image()) == []
    assert differing(tmp_path, image(), image(trailer=other)) == [TRAILER]


def test_deep_nesting_ends(tmp_path):
    nested = E(0x00400555, "SQ", [[E(0x0040A123, "PN", "deep")]])
    for _ in range(100):  # more than is followed
        nested = E(0x00400555, "SQ", [[nested]])
    elements = (nested,)
    tags = differing(tmp_path, image(made.IMPLICIT, elements), image(elements=elements))
    assert tags in ([], [0x00400555])


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60), st.booleans())
def test_bytes_that_are_no_items_are_no_crash(tmp_path_factory, one, other, implicit):
    folder = tmp_path_factory.mktemp("junk")

    def junk(value):
        return (E(0x00400555, "UN", value + b"\0" * (len(value) % 2)),)

    def padded(value):
        return value + b"\0" * (len(value) % 2)

    tags = differing(
        folder, image(made.IMPLICIT if implicit else made.EXPLICIT, junk(one)), image(elements=junk(other))
    )
    assert (tags == []) == (padded(one) == padded(other))
