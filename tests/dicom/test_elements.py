"""Walking over elements: the short way over ordinary ones finds what the long way finds, and filters nothing else."""

import random
from io import BytesIO

import pytest

from gpuenc.dicom import elements as module
from gpuenc.dicom.elements import UNDEFINED, Window, walk
from gpuenc.dicom.source import DESCRIBING_GROUPS
from gpuenc.errors import SourceError
from tests import made
from tests.dicom import files
from tests.dicom.mutate import fuzz_corpus, mutated


def walked(data, at, **options):
    """Return what `walk` returns or raises, from byte `at` on."""
    try:
        return walk(Window(BytesIO(data), len(data)), at, len(data), **options)
    except SourceError as error:
        return error.code, str(error)


def both_ways(monkeypatch, data, at, **options):
    """Return what is found the short way and, with every element taken for an odd one, the long way."""
    short = walked(data, at, **options)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_ordinary", lambda window, at, stop, order, last, into, count, groups: (at, count))
        return short, walked(data, at, **options)


def corpus(rng, copies):
    for data in fuzz_corpus():
        yield data
        for _ in range(copies):
            yield mutated(data, rng)


def begin(data):
    """Return where the data set begins, roughly enough for both ways to agree on what comes."""
    meta = walked(data, 132, last=lambda tag: tag >> 16 != 2, last_from=0)
    return meta[2] if len(meta) == 3 else 132


@pytest.mark.parametrize("window_bytes", [12, 61, 1 << 15])
def test_the_short_way_finds_what_the_long_way_finds(monkeypatch, window_bytes):
    monkeypatch.setattr(module, "_WINDOW_BYTES", window_bytes)
    rng = random.Random(window_bytes)
    seen = set()
    for data in corpus(rng, 12):
        for big_endian in (False, True):
            short, long = both_ways(monkeypatch, data, begin(data), big_endian=big_endian)
            assert short == long
            seen.add(short[0] if len(short) == 2 else bool(short[0]))
    assert seen == {True, False, "truncated", "corrupt-header"}


def test_the_short_way_finds_what_the_long_way_finds_in_real_files(monkeypatch):
    for path in files.every():
        data = path.read_bytes()
        short, long = both_ways(monkeypatch, data, begin(data))
        assert short == long


def test_groups_choose_among_what_is_found(monkeypatch):
    chosen = 0
    for data in corpus(random.Random(5), 6):
        everything, some = walked(data, begin(data)), walked(data, begin(data), groups=DESCRIBING_GROUPS)
        if len(everything) == 3:
            wanted = [element for element in everything[0] if element.tag >> 16 in DESCRIBING_GROUPS]
            assert some == (wanted, *everything[1:])
            chosen += len(wanted)
        else:
            assert some == everything
    assert chosen > 1000


@pytest.mark.parametrize("groups", [None, ()])
@pytest.mark.parametrize("odd", [0, 3])
def test_no_more_elements_than_allowed(monkeypatch, groups, odd):
    monkeypatch.setattr(module, "MAX_ELEMENTS", 10)
    # Elements without a VR go the long way.
    data = bytes(8) * odd + made.encoded(made.Element(0x00280010, "US", b"\1\0")) * (10 - odd)
    elements, ended, at = walked(data, 0, groups=groups)
    assert (len(elements), ended, at) == (10 if groups is None else 0, None, len(data))
    more = data + made.encoded(made.Element(0x00280011, "US", b"\1\0"))
    assert walked(more, 0, groups=groups) == ("corrupt-header", "there are more than 10 elements")


def test_an_undefined_length_is_none_however_long_the_file_is():
    data = made.tag_and_length(0x00082112, "SQ", UNDEFINED) + made.tag_and_length(0xFFFEE0DD, "", 0, implicit=True)
    data += made.encoded(made.Element(0x00280010, "US", b"\1\0"))
    found, _, _ = walk(Window(BytesIO(data), 1 << 40), 0, 1 << 40)
    assert [(element.tag, element.undefined) for element in found] == [(0x00082112, True), (0x00280010, False)]
