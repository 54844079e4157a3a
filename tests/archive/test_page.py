"""The report page without a browser: its numbers, its shape, what it makes of hostile names, its memory."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tracemalloc
from bisect import bisect_right
from collections import Counter

import pytest

from gpuenc.archive.page import BEGINNING, make_page, tally, write_page
from gpuenc.archive.page.charts import nice_top, times
from gpuenc.archive.page.markup import duration_text, percent_text
from gpuenc.archive.progress import size_text
from gpuenc.archive.report import Record
from gpuenc.errors import DestinationError, InvalidOption, SourceError
from tests.archive.records import HTJ2K, Page, records, write_report

SOME = list(records(3000))


def page_of(what, about=None):
    out = io.StringIO()
    write_page(what, about or {}, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def page():
    return Page(page_of(SOME, {"Target": "htj2k-lossless"}))


def test_totals_are_those_of_the_records(page):
    encoded = [record for record in SOME if record.status == "encoded"]
    for status in ("encoded", "copied", "skipped", "failed"):
        assert int(page.tiles[status.capitalize()]) == sum(record.status == status for record in SOME) > 0
    bytes_in, bytes_out = (sum(getattr(record, name) for record in encoded) for name in ("bytes_in", "bytes_out"))
    assert int(page.tiles["Files"]) == 3000
    assert float(page.tiles["Ratio"]) == bytes_in / bytes_out
    assert int(page.tiles["Saved"]) == bytes_in - bytes_out
    assert int(page.tiles["Frames"]) == sum(record.frames for record in encoded)
    assert int(page.tiles["Verified"]) == sum(record.verified for record in encoded) < len(encoded)
    begin = min(record.finished_s - record.seconds for record in SOME)
    wall = max(record.finished_s for record in SOME) - begin
    assert float(page.tiles["Time"]) == pytest.approx(wall)
    read = sum(record.bytes_in for record in SOME)
    assert page.tiles["Rate"].startswith(f"{read / wall / 1e6:,.1f} MB/s")


def test_modalities_and_syntaxes(page):
    encoded = [record for record in SOME if record.status == "encoded"]
    shown = {row[0]: row for row in page.tables["Ratio by modality"]}
    assert set(shown) == {record.modality for record in encoded}
    for modality, row in shown.items():
        those = [record for record in encoded if record.modality == modality]
        before, after = sum(record.bytes_in for record in those), sum(record.bytes_out for record in those)
        assert [float(row[at]) for at in (1, 3)] == pytest.approx([before / after, 1 - after / before])
        assert list(map(int, row[4:])) == [before, after, len(those), sum(record.frames for record in those)]
    pairs = Counter(record.source_syntax for record in encoded)
    shown = {row[0]: int(row[6]) for row in page.tables["Ratio by transfer syntaxes"]}
    assert shown == {
        "Implicit VR Little Endian → htj2k-lossless": pairs["1.2.840.10008.1.2"],
        "Explicit VR Little Endian → htj2k-lossless": pairs["1.2.840.10008.1.2.1"],
        "jpeg-lossless-sv1 → htj2k-lossless": pairs["1.2.840.10008.1.2.4.70"],
    }


def test_histograms_count_every_file_once(page):
    for caption, values in (
        ("Compression ratio", [r.bytes_in / r.bytes_out for r in SOME if r.status == "encoded"]),
        ("Time per file", [r.seconds for r in SOME]),
    ):
        rows = page.tables[caption]
        assert sum(int(count) for _, count in rows) == len(values)
        for name, count in rows:
            low, high = (limit.strip() for limit in re.split("to below", name))
            low, high = (float(each.split()[0]) / (1000 if each.endswith(" ms") else 1) for each in (low, high))
            assert int(count) == sum(low <= value < high for value in values), name


def test_values_on_an_edge_belong_to_the_class_that_it_begins():
    edges = [Record("a", "encoded", bytes_in=size, bytes_out=100, seconds=s) for size, s in ((100, 0.0), (125, 0.01))]
    edges.append(Record("a", "encoded", bytes_in=1_000_000, bytes_out=1, seconds=1e6))
    shown = Page(page_of(edges)).tables
    counts = [row for row in shown["Compression ratio"] if row[1] != "0"]
    assert counts == [["1 to below 1.25", "1"], ["1.25 to below 1.5", "1"], ["100 or more", "1"]]
    counts = [row for row in shown["Time per file"] if row[1] != "0"]
    assert counts == [["0 s to below 1 ms", "1"], ["10 ms to below 20 ms", "1"], ["5000 s or more", "1"]]


def test_reasons_failures_slowest(page):
    counts = Counter((record.status, record.reason) for record in SOME if record.reason)
    assert {(row[0], row[1]): int(row[2]) for row in page.tables["Outcomes by reason"]} == counts
    assert page.tables["Outcomes by reason"][0][0] == "failed"
    failed = [record for record in SOME if record.status == "failed"]
    got = [row[:4] + row[5:] for row in page.tables["Failed files"]]
    assert got == [[r.source, r.reason, r.message, r.modality, str(r.bytes_in), repr(r.seconds)] for r in failed]
    slowest = sorted(SOME, key=lambda record: -record.seconds)[:25]
    assert [row[0] for row in page.tables["Slowest files"]] == [record.source for record in slowest]


def test_who_did_the_work(page):
    plugins, fallbacks, stages = Counter(), Counter(), Counter()
    for record in SOME:
        plugins.update(record.plugins)
        fallbacks.update(record.fallbacks)
        stages.update(record.stage_seconds)
    assert {row[0]: int(row[1]) for row in page.tables["Plug-ins"]} == plugins
    assert {f"{row[0]}: {row[1]}": int(row[3]) for row in page.tables["Fallbacks"]} == fallbacks
    shown = {row[0]: float(row[1]) for row in page.tables["Stages, over all threads"]}
    assert shown == pytest.approx(dict(stages))
    total = sum(record.bytes_in for record in SOME)
    for row, worker in zip(page.tables["Workers"], range(1, 7), strict=True):
        those = [record for record in SOME if record.worker == worker]
        assert row[:2] == [str(worker), str(len(those))]
        assert int(row[2]) == sum(record.status == "failed" for record in those)
        assert float(row[5]) == pytest.approx(sum(record.bytes_in for record in those) / total)


def test_throughput_over_time(page):
    rows = page.tables["Over time"]
    assert 20 < len(rows) <= 144
    for at, status in enumerate(("encoded", "copied", "skipped", "failed"), 1):
        assert sum(int(row[at]) for row in rows) == sum(record.status == status for record in SOME)
    note = next(text for text in page.texts if "each bar is" in text)
    width = {"1 s.": 1, "5 s.": 5, "10 s.": 10, "30 s.": 30}[note.split("each bar is ")[1]]
    speed = Counter()
    for record in SOME:
        speed[record.finished_s // width] += record.bytes_in / width / 1e6
    assert [float(row[5]) for row in rows] == pytest.approx([speed[number] for number in sorted(speed)])


@pytest.mark.parametrize("seed", range(5))
def test_order_and_shards_do_not_change_the_timeline(seed):
    ahead, shuffled = tally.Timeline(), tally.Timeline()
    several = [*records(300, seed), *records(300, seed + 1, begin_s=1_795_400_000.0)]
    for record in several:
        ahead.add(record)
    for record in sorted(several, key=lambda record: hashlib.sha256(record.source.encode()).digest()):
        shuffled.add(record)
    assert ahead.width_s == shuffled.width_s > 100
    expected = Counter((int(record.finished_s // ahead.width_s), record.status) for record in several)
    assert {(at, status): n for at, share in ahead.bins.items() for status, n in share.files.items()} == expected
    assert {at: share.files for at, share in ahead.bins.items()} == {at: s.files for at, s in shuffled.bins.items()}
    assert sum(share.read_bytes for share in ahead.bins.values()) == sum(record.bytes_in for record in several)
    assert max(ahead.bins) - min(ahead.bins) < 144


def test_times_that_are_none_are_left_out():
    line = tally.Timeline()
    for finished_s in (0.0, 5e11, 3.0, 9e10):
        line.add(Record("a", "encoded", finished_s=finished_s))
    assert (line.untimed, len(line.bins)) == (2, 2)
    html = page_of([Record("a", "encoded", seconds=2.0), *(Record("b", "encoded", finished_s=at) for at in (1e9, 2e9))])
    assert "1 file without a time" in html
    assert "Over time" not in page_of([Record("a", "encoded", seconds=2.0)])


HOSTILE = (
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "\"quotes' & ampersands;&lt;", "--><!--",
    "nul\0bell\x07esc\x1b[31m", "line\r\nbreak\u2028", "\udcff\ud800", "\u202egnp.exe", "]]>", "{{x}} ${x} %s",
    "</title></style></textarea>", "größe 東京 \U0001f600", "javascript:alert(1)",
)  # fmt: skip


def test_hostile_names_are_only_text():
    everywhere = [
        Record(
            name, status, reason=name, message=name, source_syntax=name, target_syntax=name, modality=name,
            plugins={name: 1}, fallbacks={name: 1}, stage_seconds={name: 1.0}, frames=1, bytes_in=9, bytes_out=3,
            seconds=1.0, finished_s=1e9, worker=1,
        )
        for name in HOSTILE
        for status in ("encoded", "failed")
    ]  # fmt: skip
    html = page_of(everywhere, {name: name for name in HOSTILE})
    html.encode()  # no lone surrogates
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028\u202e]", html)
    page = Page(html)
    assert page.wrong == []
    assert len(page.scripts) == 1
    assert set(page.addresses) == {"#totals", "data:,"}
    shown = [row[0] for row in page.tables["Failed files"]]
    for name, said in zip(HOSTILE, shown, strict=True):
        assert said == "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


@pytest.mark.parametrize("count", [0, 1, 40])
def test_pages_are_well_formed_and_need_nothing_else(count):
    html = page_of(records(count))
    page = Page(html)
    assert html.startswith(BEGINNING)
    assert page.wrong == []
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert {address for address in page.addresses if not address.startswith("#")} == {"data:,"}
    assert not re.search(r"https?:|@import|url\(", html)
    assert ("Files", str(count)) in page.tiles.items()
    assert (page.bars > 0) == (count > 0)


def test_only_the_page_s_own_script_and_style_are_allowed(page):
    html = page_of(SOME[:10])
    for kind, directive in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in page.policy
    assert page.policy.startswith("default-src 'none';")


def test_outcomes_in_words():
    assert any("No failures among 1 file." in text for text in Page(page_of([Record("a", "copied")])).texts)
    two = page_of([Record("a", "failed", reason="truncated"), Record("b", "copied"), Record("c", "skipped")])
    assert any("1 file failed; the other 2 files have an output" in text for text in Page(two).texts)
    larger = Page(page_of([Record("a", "encoded", bytes_in=10, bytes_out=20)]))
    assert larger.tiles["Saved"] == "-10"
    assert any("the outputs are larger" in text for text in larger.texts)


def test_a_dry_run_does_not_look_like_a_run():
    dry = Page(page_of([Record("a", "encoded", bytes_in=10, frames=1, pixel_bytes=10)]))
    assert "would be: nothing was written" in dry.texts
    assert not {"Ratio", "Saved"} & set(dry.tiles)
    assert "Ratio by modality" not in dry.tables


def test_many_records_take_the_memory_of_few(monkeypatch):
    monkeypatch.setattr(tally, "FAILED", 50)

    def many(count):
        for number, record in enumerate(records(count, failed=0.5)):
            yield Record(**{**{name: getattr(record, name) for name in Record.__slots__}, "modality": f"M{number}"})

    peaks = []
    for count in (6000, 12_000):
        tracemalloc.start()
        found = tally.Tally.of(many(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.files, len(found.failed)) == (count, 50)
    # Not one reference per record.
    assert peaks[1] - peaks[0] < 8 * (12_000 - 6000)
    names = dict(found.modalities.ordered())
    assert len(names) == tally.NAMES + 1
    assert sum(share.files.total() for share in names.values()) == sum(
        record.status == "encoded" or bool(record.modality) for record in records(12_000, failed=0.5)
    )
    html = page_of(many(2000))
    assert len(Page(html).tables["Failed files"]) == 50
    assert re.search(r"The first 50 of [\d,]+; the report", html)


def test_long_names_are_cut():
    html = page_of([Record("x" * 100_000, "failed", reason="y" * 100_000, message="z" * 100_000)])
    assert len(html) < 40_000


def test_page_from_a_report(tmp_path):
    report = write_report(tmp_path / "r.jsonl", SOME[:100])
    report.write_bytes(report.read_bytes() + b'{"source": "cut')
    found, outcomes = make_page(report, tmp_path / "p.html", {"Target": HTJ2K})
    html = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert (found.files, len(outcomes.notes)) == (100, 1)
    assert int(Page(html).tiles["Files"]) == 100
    assert "line 101 is cut off" in html
    before = html
    make_page(write_report(tmp_path / "r.jsonl", SOME[:7]), tmp_path / "p.html")
    assert (tmp_path / "p.html").read_text(encoding="utf-8") != before
    assert {path.name for path in tmp_path.iterdir()} == {"r.jsonl", "p.html"}


def test_nothing_else_is_replaced(tmp_path):
    report = write_report(tmp_path / "r.jsonl", SOME[:5])
    for data in (b"precious", b"<!DOCTYPE html>\n<html lang='en'>", report.read_bytes()):
        (tmp_path / "p.html").write_bytes(data)
        with pytest.raises(InvalidOption, match="left as it is"):
            make_page(report, tmp_path / "p.html")
        assert (tmp_path / "p.html").read_bytes() == data
    with pytest.raises(InvalidOption, match="cannot be replaced"):
        make_page(report, tmp_path)
    with pytest.raises(DestinationError):
        make_page(report, tmp_path / "absent" / "p.html")
    with pytest.raises(SourceError):
        make_page(tmp_path / "absent", tmp_path / "new.html")
    (tmp_path / "bad.jsonl").write_bytes(report.read_bytes() + b"garbage\n")
    with pytest.raises(SourceError, match="line 6"):
        make_page(tmp_path / "bad.jsonl", tmp_path / "new.html")
    assert not (tmp_path / "new.html").exists()


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9994, "9.99 kB"), (9995, "10.0 kB"), (99_949, "99.9 kB"),
     (999_499, "999 kB"), (999_500, "1.00 MB"), (12_345_678, "12.3 MB"), (10**18, "1000 PB")],
)  # fmt: skip
def test_sizes(number, said):
    assert size_text(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 ms"), (1e-5, "under 1 ms"), (0.0123, "12 ms"), (1, "1.00 s"), (12.34, "12.3 s"), (59.96, "1 min"),
     (61, "1 min 1 s"), (3600, "1 h"), (7325, "2 h 2 min"), (86400 * 3 + 3600 * 4, "3 d 4 h"), (86400 + 59, "1 d")],
)  # fmt: skip
def test_durations(seconds, said):
    assert duration_text(seconds) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (1, "100 %"), (0.5, "50.0 %"), (1e-6, "under 0.1 %"), (0.99999, "over 99.9 %"), (-0.25, "-25.0 %")],
)
def test_shares(share, said):
    assert percent_text(share) == said


def test_axes_end_at_round_numbers_above_the_largest():
    steps = [1, 2, 2.5, 4, 5, 8]
    nice = sorted(step * 10.0**power for power in range(-6, 9) for step in steps)
    for value in (1e-5, 0.3, 1.0, 1.01, 7.9, 8.1, 99, 100, 123456):
        assert nice_top(value) == pytest.approx(nice[bisect_right(nice, value * (1 - 1e-9))])
    assert nice_top(0) == nice_top(float("inf")) == 1.0


def test_bins_are_called_as_briefly_as_they_can():
    assert times([0, 5], 5) == ["00:00:00", "00:00:05"]
    assert times([86100, 86400], 300) == ["01-01 23:55", "01-02 00:00"]
    assert times([0, 86400], 86400) == ["1970-01-01", "1970-01-02"]
