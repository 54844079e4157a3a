"""The report page in Chromium: it loads alone and without complaint, its charts are drawn, its tables obey."""

from __future__ import annotations

import struct
import zlib

import pytest

from gpuenc.archive.page import make_page
from tests.archive.browser import Browser, demand_browser
from tests.archive.records import records, write_report

SOME = list(records(2000, failed=0.05))
FAILED = [record for record in SOME if record.status == "failed"]
ROWS = "Array.from(document.querySelectorAll('#failed-files tbody tr')).filter(r => r.offsetParent)"
HEADS = "Array.from(document.querySelectorAll('#failed-files th button'))"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    make_page(write_report(folder / "r.jsonl", SOME), folder / "p.html", {"Target": "htj2k-lossless"})
    return folder / "p.html"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Browser(demand_browser(), tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(running, page):
    running.media()
    running.size(1280, 900)
    running.open(page)
    return running


def column(browser, number):
    return browser.ask(f"{ROWS}.map(row => row.cells[{number}].textContent)")


def test_it_loads_alone_and_without_complaint(browser, page):
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.ask("document.compatMode") == "CSS1Compat"
    # That complaints would be heard, and that the page's policy holds:
    add = "document.body.append(Object.assign(document.createElement('{}'), {}))".format
    for planted in (
        "console.error('planted')",
        "Promise.reject(new Error('planted'))",
        "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">x')",
        add("img", "{src: 'other.png'}"),
        add("script", "{text: 'window.planted = 1'}"),
        "fetch('other.json').catch(() => 0)",
    ):
        before = len(browser.complaints())
        browser.ask(f"{planted}; 0")
        assert len(browser.complaints()) > before, planted
    assert browser.ask("window.planted") is None


def test_hostile_names_do_nothing(running, tmp_path):
    from gpuenc.archive.report import Record
    from tests.archive.test_page import HOSTILE

    hostile = [Record(name, "failed", reason=name, message=name, modality=name, worker=1) for name in HOSTILE]
    make_page(write_report(tmp_path / "r.jsonl", hostile), tmp_path / "p.html", {name: name for name in HOSTILE})
    running.open(tmp_path / "p.html")
    assert running.complaints() == []
    assert len(running.requests()) == 1
    assert len(column(running, 0)) == len(HOSTILE)
    assert running.ask("document.querySelectorAll('img, iframe, script:not(:last-of-type)').length") == 0


def test_charts_are_drawn(browser):
    charts = browser.ask(
        "Array.from(document.querySelectorAll('.chart > svg'), svg => { const box = svg.getBoundingClientRect();"
        " const bars = Array.from(svg.querySelectorAll('rect'), bar => { const r = bar.getBoundingClientRect();"
        " return [r.left - box.left, box.right - r.right, r.top - box.top, r.width, r.height]; });"
        " return [box.width, box.height, bars, svg.getAttribute('aria-label')]; })"
    )
    assert len(charts) == 4
    for width, height, bars, name in charts:
        assert width > 400
        assert height > 150
        assert name
        assert len(bars) > 4
        assert min(min(bar) for bar in bars) >= 0, "a bar lies outside its chart, or has no size"
        assert max(bar[4] for bar in bars) > height / 4
    colours = browser.ask(
        "['encoded', 'copied', 'skipped', 'failed'].map("
        "name => getComputedStyle(document.querySelector('rect.' + name)).fill)"
    )
    assert len(set(colours)) == 4
    squares = browser.ask("Array.from(document.querySelectorAll('.key svg'), svg => svg.getBoundingClientRect().width)")
    assert len(squares) == 4
    assert all(5 < width < 20 for width in squares)


def test_labels_do_not_touch(browser):
    for width in (1280, 700, 360):
        browser.size(width, 800)
        overlaps = browser.ask(
            "Array.from(document.querySelectorAll('.chart > svg')).flatMap(svg => {"
            " const boxes = Array.from(svg.querySelectorAll('.label'), each => each.getBoundingClientRect());"
            " return boxes.slice(1).filter((box, at) => box.left < boxes[at].right).map(() => svg.ariaLabel); })"
        )
        assert overlaps == [], width


@pytest.mark.parametrize("number", range(7))
def test_every_column_sorts_both_ways(browser, number):
    key = [
        lambda record: record.source, lambda record: record.reason, lambda record: record.message,
        lambda record: record.modality, lambda record: "", lambda record: record.bytes_in,
        lambda record: record.seconds,
    ][number]  # fmt: skip
    seen = []
    for _ in range(2):
        browser.ask(f"{HEADS}[{number}].click()")
        direction = browser.ask("document.querySelector('#failed-files th[aria-sort]').ariaSort")
        sources = column(browser, 0)
        assert sorted(sources) == sorted(record.source for record in FAILED)
        if number != 4:
            known = {record.source: key(record) for record in FAILED}
            values = [known[source] for source in sources]
            assert values == sorted(values, reverse=direction == "descending")
        else:
            syntaxes = column(browser, 4)
            assert syntaxes == sorted(syntaxes, key=str.lower, reverse=direction == "descending")
        seen.append(direction)
    assert sorted(seen) == ["ascending", "descending"]
    assert seen[0] == ("descending" if number >= 5 else "ascending")


def test_the_filter_shows_what_holds_every_word(browser):
    browser.ask("document.querySelector('#filter').focus()")
    browser.type("TRUNC ct")
    wanted = [record.source for record in FAILED if record.reason == "truncated" and record.modality == "CT"]
    assert 0 < len(wanted) < len(FAILED)
    assert column(browser, 0) == wanted
    assert browser.ask("document.querySelector('output').value") == f"{len(wanted)} of {len(FAILED)} shown"
    browser.ask(f"{HEADS}[0].click()")
    browser.ask(f"{HEADS}[0].click()")
    assert column(browser, 0) == sorted(wanted, reverse=True)
    browser.ask("document.querySelector('#filter').focus()")
    browser.press("Escape")
    assert len(column(browser, 0)) == len(FAILED)
    browser.type("<nothing has this>")
    assert column(browser, 0) == []


def test_the_keyboard_is_enough(browser):
    reached = []
    for _ in range(8):
        browser.press("Tab")
        reached.append(browser.ask("document.activeElement.textContent || document.activeElement.id"))
    assert reached[0] == "Skip to the totals"
    assert reached[1] == "filter"
    assert "reason" in reached
    assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    while browser.ask("document.activeElement.textContent") != "time":
        browser.press("Tab")
    browser.press("Enter", "\r")
    assert column(browser, 0)[0] == max(FAILED, key=lambda record: record.seconds).source


def luminance(colour):
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser, scheme):
    """WCAG 2.2, 1.4.3 and 1.4.11: contrast of 4.5 for text, of 3 for what charts are made of."""
    browser.media(scheme=scheme)
    style = "getComputedStyle(document.querySelector('{}')).{}".format
    sheet = browser.ask(style("section", "backgroundColor"))
    assert (luminance(sheet) > 0.5) == (scheme == "light")
    for element in ("td", "th", ".note", ".quiet, dl.tiles small", "summary"):
        assert contrast(browser.ask(style(element, "color")), sheet) >= 4.5, element
    verdict = browser.ask(style(".verdict", "color")), browser.ask(style(".verdict", "backgroundColor"))
    assert contrast(*verdict) >= 4.5
    assert contrast(browser.ask(style("svg .label", "fill")), sheet) >= 4.5
    for status in ("encoded", "failed"):
        assert contrast(browser.ask(style(f"rect.{status}", "fill")), sheet) >= 3, status


@pytest.mark.parametrize("width", [1920, 1024, 600, 320])
def test_no_width_makes_the_page_scroll_sideways(browser, width):
    browser.size(width, 800)
    assert browser.ask("document.documentElement.scrollWidth") <= width


def test_without_a_script_everything_is_there(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        assert len(column(browser, 0)) == len(FAILED)
        assert browser.ask("getComputedStyle(document.querySelector('.filter')).display") == "none"
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_printed(browser):
    browser.media(media="print", scheme="dark")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('.filter')).display") == "none"
    box = browser.ask("(s => [s.scrollHeight, s.clientHeight])(document.querySelector('#failed-files .scroll'))")
    assert box[0] == box[1], "a printed table cannot be scrolled"
    # Chromium repeats a table's head on each sheet only where no button stands in it.
    assert browser.ask("getComputedStyle(document.querySelector('th button')).display") == "contents"
    browser.media()
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") >= 3


def test_a_picture_of_it_is_no_blank(browser):
    png = browser.screenshot()
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == (1280, 900)
    data, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    assert len(set(zlib.decompress(data)[::97])) > 20
