"""Modality and VOI LUT Sequences against pydicom's, and against PS3.3 C.11.1.1.1 and C.11.2.1.1 value by value.

pydicom 3.0 is no reference, where the standard is, for entries of 8 bits behind the 256th (it counts in the type of
entries), entries of 8 bits that share words (it takes each for a word), rescaled values between two entries (it cuts
them), and descriptors of VR US whose first value is negative (it takes the VR's word).
"""

from __future__ import annotations

import base64
import json
import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut

import gpuenc
from gpuenc.dicom.tables import Table, table_in
from gpuenc.errors import IndexMismatch, InvalidPixels
from gpuenc.pipelines.display import looked_up
from tests import made
from tests.dicom.files import named
from tests.pipelines.test_display import ct, ds, formula, near, only

MODALITY, VOI = 0x00283000, 0x00283010


def sequence(
    tag, first, bits, entries, *, vr="OW", descriptor="US", packed=False, syntax=made.EXPLICIT, undefined=False
):
    """A sequence of one table; what is signed or unsigned is a matter of VRs, and not of what is written."""
    order = ">" if syntax == made.BIG else "<"
    words = np.array([len(entries) & 0xFFFF, first & 0xFFFF, bits]).astype(f"{order}u2").tobytes()
    data = np.asarray(entries)
    if packed:
        data = data.astype("u1").tobytes() + b"\0" * (len(entries) % 2)
        data = np.frombuffer(data, "<u2")
    value = data.astype("<u2" if vr == "OW" else f"{order}u2").tobytes()
    explanation = made.Element(0x00283003, "LO", "SECRET")
    item = [made.Element(0x00283002, descriptor, words), explanation, made.Element(0x00283006, vr, value)]
    return made.Element(tag, "SQ", [item], undefined)


def entry(values, first, entries):
    """The standard's words, value by value."""
    found = [
        entries[0] if x < first else entries[-1] if x >= first + len(entries) else entries[int(x) - first]
        for x in values.ravel()
    ]
    return np.array(found, np.float64).reshape(values.shape)


def noise(count, bits):
    found = made.noise((count,), "u2", bits)
    found[0], found[-1] = 3, (1 << bits) - 1
    return found


def failure(path, **options):
    with pytest.raises(InvalidPixels) as caught:
        only(path, **options)
    return caught.value.code


def test_real_tables_are_applied_as_by_pydicom():
    ot = dcmread(named("mlut_18.dcm"))
    expected = apply_modality_lut(ot.pixel_array, ot)
    assert expected.max() > 4096
    assert np.array_equal(only(named("mlut_18.dcm"), rescale=True), expected)
    ot = dcmread(named("vlut_04.dcm"))
    expected = apply_voi_lut(ot.pixel_array, ot)
    for window in ("file", "lut"):
        assert near(only(named("vlut_04.dcm"), window=window), expected / 65535)


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT, made.BIG, made.DEFLATED])
@pytest.mark.parametrize(
    ("first", "bits", "count", "form"),
    [
        (0, 16, 1000, {}),
        (-2048, 16, 4096, {"descriptor": "SS"}),
        (-2048, 16, 4096, {"vr": "US", "undefined": True}),
        (-100, 8, 301, {"packed": True}),
        (-100, 8, 301, {}),
        (7, 8, 300, {"vr": "US"}),
        (-32768, 16, 65536, {}),
        (1900, 12, 1, {"descriptor": "SS"}),
    ],
)
def test_a_modality_table_is_that_of_the_standard(tmp_path, syntax, first, bits, count, form):
    entries = noise(count, bits)
    image, values = ct(sequence(MODALITY, first, bits, entries, syntax=syntax, **form), syntax=syntax)
    path = image.write(tmp_path / "a")
    expected = entry(values[0], first, entries)
    assert np.array_equal(only(path, rescale=True), expected)
    assert near(only(path, window=(1000, 3000)), formula(expected, 1000, 3000, "LINEAR"))
    assert only(path).dtype == np.int16


@pytest.mark.parametrize("descriptor", ["US", "SS"])
@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT])
@pytest.mark.parametrize(
    ("kind", "slope", "intercept", "signed"),
    [
        ("u2", None, None, False),
        ("i2", None, None, True),
        ("u2", "1", "-1024", True),
        ("u2", "1", "0", False),
        ("u2", "-1", "0", True),
        ("i2", "1", "32768", False),
    ],
)
def test_the_first_value_of_a_voi_table_has_the_sign_of_its_input(
    tmp_path, descriptor, syntax, kind, slope, intercept, signed
):
    entries = noise(2000, 16)
    elements = [ds(0x00281053, slope), ds(0x00281052, intercept)] if slope else []
    values = np.array([[[0, 1, 40, 900, 30000, 32767]]], kind)
    image = made.of(
        values, elements=(*elements, sequence(VOI, -500, 16, entries, descriptor=descriptor)), syntax=syntax
    )
    shown = values[0].astype(float) * float(slope or 1) + float(intercept or 0)
    # Without an explicit VR, and with one that says US for three numbers of which two are unsigned, the rule counts.
    negative = signed or (descriptor == "SS" and syntax == made.EXPLICIT)
    expected = entry(shown, -500 if negative else 65536 - 500, entries) / 65535
    assert near(only(image.write(tmp_path / "a"), window="lut"), expected)


def test_values_between_entries_take_the_nearest(tmp_path):
    entries = np.arange(0, 60000, 100)
    values = np.arange(24, dtype="u2").reshape(1, 4, 6) * 7
    image = made.of(values, elements=(ds(0x00281053, "0.3"), ds(0x00281052, "0"), sequence(VOI, 3, 16, entries)))
    expected = entry(np.rint(values[0] * 0.3), 3, entries) / 65535
    assert near(only(image.write(tmp_path / "a"), window="file"), expected)


@pytest.mark.parametrize("start", [20000, 40000])
def test_a_voi_table_follows_a_modality_table(tmp_path, start):
    first, second = noise(4096, 16), noise(20000, 12)
    image, values = ct(
        sequence(MODALITY, -2048, 16, first, descriptor="SS"),
        sequence(VOI, start, 12, second),
        photometric="MONOCHROME1",
    )
    path = image.write(tmp_path / "a")
    expected = entry(entry(values[0], -2048, first), start, second) / 4095
    assert near(only(path, window="file"), expected)
    assert near(only(path, window="file", invert=True), 1 - expected)
    assert only(path, window="lut", size=(3, 3)).shape == (3, 3)


def test_a_window_and_a_table_are_alternatives(tmp_path):
    entries = noise(4096, 16)
    window = ds(0x00281050, "40"), ds(0x00281051, "400")
    table = sequence(VOI, -2048, 16, entries)
    _, values = ct(*window)
    either = {
        "window": formula(values[0], 40, 400, "LINEAR"),
        "table": entry(values[0], -2048, entries) / 65535,
    }
    for elements, file, lut in (
        ((*window, table), "window", "table"), (window, "window", "window"), ((table,), "table", "table")
    ):  # fmt: skip
        path = ct(*elements, samples=values)[0].write(tmp_path / "a")
        assert near(only(path, window="file"), either[file])
        assert near(only(path, window="lut"), either[lut])
        assert near(only(path, window=(40, 400)), either["window"])


@pytest.mark.parametrize("syntax", [made.EXPLICIT, made.IMPLICIT])
def test_each_frame_has_its_own_table(tmp_path, syntax):
    tables = [noise(count, 12) for count in (4096, 500, 4000)]

    def group(*elements):
        return [made.Element(0x00289132, "SQ", [list(elements)])]

    shared = made.Element(0x52009229, "SQ", [group(sequence(VOI, -2048, 12, tables[0]))])
    each = made.Element(
        0x52009230, "SQ",
        [group(sequence(VOI, -7, 12, tables[1])), group(ds(0x00281050, "5"), ds(0x00281051, "50"))], True,
    )  # fmt: skip
    whole = sequence(VOI, 0, 12, tables[2])
    for elements, expected in (
        ((whole,), lambda x: [entry(x[0], 0, tables[2]) / 4095, entry(x[1], 0, tables[2]) / 4095]),
        ((whole, shared), lambda x: [entry(one, -2048, tables[0]) / 4095 for one in x]),
        ((shared, each), lambda x: [entry(x[0], -7, tables[1]) / 4095, formula(x[1], 5, 50, "LINEAR")]),
    ):
        image, values = ct(*elements, syntax=syntax)
        image.write(tmp_path / "a")
        for index in (None, tmp_path.with_suffix(".index")):
            with gpuenc.FrameDataset(tmp_path, index=index, window="file", on_stale="rebuild") as frames:
                for number, wanted in enumerate(expected(values)):
                    assert near(frames[number]["image"], wanted)
    image, values = ct(shared, each, syntax=syntax)
    with gpuenc.FrameDataset(image.write(tmp_path / "c"), window="lut") as frames:
        assert near(frames[1]["image"], formula(values[1], 5, 50, "LINEAR"))
    shown = made.Element(0x52009229, "SQ", [group(ds(0x00281050, "5"), ds(0x00281051, "50"))])
    each = made.Element(0x52009230, "SQ", [group(sequence(VOI, -7, 12, tables[1]))] * 2)
    image, values = ct(shown, each, syntax=syntax)
    assert near(only(image.write(tmp_path / "d"), window="file"), entry(values[0], -7, tables[1]) / 4095)
    only_one = made.Element(0x52009230, "SQ", [group(sequence(VOI, -7, 12, tables[1]))])
    assert failure(ct(only_one)[0].write(tmp_path / "b"), window="lut") == "no-window"


ODD = {
    "no descriptor": [made.Element(0x00283006, "US", (1, 2))],
    "no data": [made.Element(0x00283002, "US", (2, 0, 16))],
    "two values": [made.Element(0x00283002, "US", (2, 0)), made.Element(0x00283006, "US", (1, 2))],
    "seven bits": [made.Element(0x00283002, "US", (2, 0, 7)), made.Element(0x00283006, "US", (1, 2))],
    "too short": [made.Element(0x00283002, "US", (0, 0, 16)), made.Element(0x00283006, "OW", bytes(131070))],
    "too large": [made.Element(0x00283002, "US", (2, 0, 12)), made.Element(0x00283006, "US", (1, 4096))],
    "no numbers": [made.Element(0x00283002, "LO", "2\\0\\16"), made.Element(0x00283006, "US", (1, 2))],
    "nothing": [],
}


@pytest.mark.parametrize("odd", ODD)
def test_a_table_that_cannot_be_used_has_a_name(tmp_path, odd):
    image, values = ct(made.Element(MODALITY, "SQ", [ODD[odd]]))
    path = image.write(tmp_path / "a")
    assert failure(path, rescale=True) == failure(path, window=(0, 100)) == "no-modality"
    assert np.array_equal(only(path), values[0])
    path = ct(made.Element(VOI, "SQ", [ODD[odd]]))[0].write(tmp_path / "b")
    assert failure(path, window="file") == failure(path, window="lut") == "no-window"
    assert only(path, window=(0, 100)).dtype == np.float32


def test_an_empty_sequence_is_no_table(tmp_path):
    image, values = ct(made.Element(MODALITY, "SQ", []), made.Element(VOI, "SQ", []), ds(0x00281053, "2"))
    path = image.write(tmp_path / "a")
    assert near(only(path, rescale=True), values[0] * 2)
    assert failure(path, window="lut") == "no-window"


@pytest.mark.parametrize("count", [1, 2, 4096, 65536])
def test_a_table_is_kept_small_and_comes_back(count):
    smooth = np.rint(65535 / (1 + np.exp(-np.linspace(-6, 6, count)))).astype("u2")
    rough = made.noise((count,), "u2", 16)
    for entries in (smooth, rough, smooth[::-1]):
        assert np.array_equal(Table.of(0, 16, entries).entries(), entries)
    assert count < 4096 or len(Table.of(0, 16, smooth).packed) < count / 2


def test_tables_are_read_before_anything_converts_them():
    item = dcmread(named("mlut_18.dcm")).ModalityLUTSequence[0]
    assert not table_in(item, signed=True).wrong
    str(item)
    assert table_in(item, signed=True).wrong


def test_an_index_of_an_earlier_version_says_so(tmp_path):
    path, index = ct()[0].write(tmp_path / "a"), tmp_path / "index"
    gpuenc.FrameDataset(path, index=index).close()
    with sqlite3.connect(index) as sqlite:
        sqlite.execute("UPDATE about SET value = '1' WHERE key = 'version'")
    with pytest.raises(IndexMismatch, match=r"another version of gpuenc.*remove it") as caught:
        gpuenc.FrameDataset(path, index=index)
    assert caught.value.code == "index-unusable"


def test_a_damaged_table_in_an_index_is_found(tmp_path):
    path, index = ct(sequence(VOI, 0, 12, noise(4096, 12)))[0].write(tmp_path / "a"), tmp_path / "index"
    gpuenc.FrameDataset(path, index=index).close()
    with sqlite3.connect(index) as sqlite:
        told = json.loads(sqlite.execute("SELECT transforms FROM files").fetchone()[0])
        packed = bytearray(base64.b64decode(told["tables"][0][2]))
        packed[len(packed) // 2] ^= 1
        told["tables"][0][2] = base64.b64encode(packed).decode()
        sqlite.execute("UPDATE files SET transforms = ?", (json.dumps(told),))
    with gpuenc.FrameDataset(path, index=index, window="lut") as frames, pytest.raises(IndexMismatch) as caught:
        frames[0]
    assert caught.value.code == "index-unusable"


def test_the_array_module_looks_up():
    used = []

    class Module(SimpleNamespace):
        def __getattr__(self, name):
            used.append(name)
            return getattr(np, name)

    table = Table.of(-5, 8, np.arange(20, dtype="u2"))
    for kind in ("u2", "i1", "i4", "f4", "f8"):
        assert looked_up(np.array([0, 100], kind), table, Module(), whole=True).tolist() == pytest.approx(
            [5 / 255, 19 / 255]
        )
    assert {"clip", "take", "asarray", "rint"} <= set(used)
