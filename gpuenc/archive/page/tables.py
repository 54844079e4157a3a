"""Lists of files on a report page, and who did the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuenc.archive.page import charts
from gpuenc.archive.page.markup import (
    Cell,
    Column,
    duration,
    percent,
    section,
    size,
    syntax_name,
    table,
    text,
    whole,
    words,
)
from gpuenc.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gpuenc.archive.page.tally import Row, Share, Tally


def failed(tally: Tally) -> Iterator[str]:
    """Write every failed file, up to a limit, with what happened to it."""
    number = tally.total.files["failed"]
    if not number:
        return
    yield section("failed", "Failed files")
    if number > len(tally.failed):
        cut = f"The first {len(tally.failed):,} of {number:,}; the report's lines hold them all."
        yield f'<p class="note">{text(cut)}</p>'
    yield (
        '<div class="filter" data-table="failed-files"><label for="filter">Filter</label>'
        '<input id="filter" type="search" autocomplete="off" spellcheck="false" '
        'placeholder="part of a path, a reason, a modality"><output for="filter" aria-live="polite"></output></div>'
        '<div id="failed-files" class="long">'
    )
    columns = [
        Column("file", "path"),
        Column("reason", "code"),
        Column("what happened", "message"),
        Column("modality"),
        Column("transfer syntax"),
        Column("size", "number"),
        Column("time", "number"),
    ]
    rows = (
        [
            words(row.source),
            words(row.reason),
            words(row.message),
            words(row.modality),
            words(syntax_name(row.source_syntax)),
            size(row.bytes_in),
            duration(row.seconds),
        ]
        for row in tally.failed
    )
    yield from table(columns, rows, name="Failed files", sortable=True)
    yield "</div></section>\n"


def slowest(tally: Tally) -> Iterator[str]:
    """Write the files that took longest."""
    rows = [row for row in tally.slowest() if row.seconds > 0]
    if not rows:
        return
    yield section("slowest", "Slowest files")
    columns = [
        Column("file", "path"),
        Column("outcome"),
        Column("modality"),
        Column("frames", "number"),
        Column("before", "number"),
        Column("after", "number"),
        Column("time", "number"),
    ]
    yield from table(columns, map(_slow_row, rows), name="Slowest files", sortable=True)
    yield "</section>\n"


def _slow_row(row: Row) -> list[Cell]:
    return [
        words(row.source),
        words(row.reason or row.status),
        words(row.modality),
        whole(row.frames),
        size(row.bytes_in),
        size(row.bytes_out) if row.bytes_out else Cell("–", 0),
        duration(row.seconds),
    ]


def work(tally: Tally) -> Iterator[str]:
    """Write who did the work: plug-ins, what they refused, stages, workers."""
    workers = tally.workers.ordered()
    if not (tally.plugins or tally.fallbacks or tally.stage_seconds or workers):
        return
    yield section("work", "Who did the work")
    yield '<div class="two">'
    if tally.plugins:
        yield from _shares("Plug-ins", "plug-in", "frames", tally.plugins)
    if tally.stage_seconds:
        yield from _shares("Stages, over all threads", "stage", "time", tally.stage_seconds)
    if workers:
        yield from _workers(workers)
    yield "</div>"
    if tally.fallbacks:
        yield from _fallbacks(tally)
    yield "</section>\n"


def _shares(title: str, what: str, unit: str, amounts: Mapping[str, float]) -> Iterator[str]:
    """Write a table of amounts, whole numbers or seconds, with their shares of the sum."""
    total = sum(amounts.values()) or 1
    yield f"<div><h3>{text(title)}</h3>"
    columns = [Column(what), Column(unit, "number"), Column("share", "number"), Column("", "meter")]
    rows = (
        [
            words(name),
            whole(amount) if isinstance(amount, int) else duration(amount),
            percent(amount / total),
            Cell(charts.meter(amount / total)),
        ]
        for name, amount in sorted(amounts.items(), key=lambda item: (-item[1], item[0]))
    )
    yield from table(columns, rows, name=title, sortable=True)
    yield "</div>"


def _workers(workers: Sequence[tuple[str, Share]]) -> Iterator[str]:
    total = sum(share.read_bytes for _, share in workers) or 1
    yield "<div><h3>Workers</h3>"
    columns = [
        Column("worker", "number"),
        *(Column(name, "number") for name in ("files", "failed", "read", "busy", "share")),
        Column("", "meter"),
    ]
    rows = (
        [
            Cell(text(name), int(name)) if name.isdecimal() else words(name),
            whole(share.files.total()),
            whole(share.files["failed"]),
            size(share.read_bytes),
            duration(share.seconds),
            percent(share.read_bytes / total),
            Cell(charts.meter(share.read_bytes / total)),
        ]
        for name, share in sorted(workers, key=lambda worker: (len(worker[0]), worker[0]))
    )
    yield from table(columns, rows, name="Workers", sortable=True)
    yield "</div>"


def _fallbacks(tally: Tally) -> Iterator[str]:
    yield '<h3>Fallbacks</h3><p class="note">Frames that one plug-in refused and another encoded.</p>'
    columns = [Column("refused by"), Column("reason", "code"), Column("meaning"), Column("frames", "number")]
    rows = []
    for what, frames in tally.fallbacks.most_common():
        plugin, _, code = what.rpartition(": ")
        rows.append([words(plugin), words(code), words(CODES.get(code, "")), whole(frames)])
    yield from table(columns, rows, name="Fallbacks", sortable=True)
