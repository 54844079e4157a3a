"""What a report page says, section by section, from a job's tally."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuenc.archive.page import charts, tables
from gpuenc.archive.page.markup import (
    Cell,
    Column,
    decimal,
    duration,
    duration_text,
    percent,
    percent_text,
    section,
    size,
    syntax_name,
    table,
    text,
    whole,
    words,
)
from gpuenc.archive.page.tally import RATIO_EDGES, SECONDS_EDGES
from gpuenc.archive.progress import counted, size_text
from gpuenc.archive.report import STATUSES
from gpuenc.archive.unverified import verification_text
from gpuenc.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gpuenc.archive.outcomes import State
    from gpuenc.archive.page.tally import Share, Tally

_STATUS_MEANS = {
    "encoded": "compressed anew",
    "copied": "byte for byte, on purpose",
    "skipped": "left out on purpose",
    "failed": "no new output; reasons below",
}
# Fewer bars than this are blocks, not a histogram.
_CLASSES = 6
_ORDER: dict[str, int] = {status: number for number, status in enumerate(STATUSES)}


def body(tally: Tally, about: Mapping[str, str], state: State) -> Iterator[str]:
    """Yield the page's body in pieces."""
    yield from _header(tally, about, state)
    yield "<main>\n"
    yield from _totals(tally)
    if not tally.files:
        yield "</main>\n"
        return
    yield from tables.failed(tally)
    yield from _over_time(tally)
    yield from _ratios(tally)
    yield from _outcomes(tally)
    yield from _histograms(tally)
    yield from tables.slowest(tally)
    yield from tables.work(tally)
    yield "</main>\n<footer><p>Made by gpuenc. Holds paths, UIDs and sizes, and nothing that files say of "
    yield "patients. MB are 10⁶ bytes; "
    yield "times of day are UTC. This page loads nothing and sends nothing.</p></footer>\n"


def _header(tally: Tally, about: Mapping[str, str], state: State) -> Iterator[str]:
    failed = tally.total.files["failed"]
    yield '<a class="skip" href="#totals">Skip to the totals</a>\n<header><h1>Compression report</h1>\n'
    far = state.sentence(tally.files)
    if far:
        yield f'<p class="verdict open" id="state">{text(f"… {far[0].upper()}{far[1:]}.")}</p>\n'
    if not tally.files:
        yield '<p class="verdict bad">The report holds no file.</p>\n'
    elif failed:
        rest = f"the other {_counted(tally.files - failed, 'file')} have an output or were left out on purpose"
        yield f'<p class="verdict bad">✗ {text(_counted(failed, "file"))} failed; {text(rest)}.</p>\n'
    else:
        so_far = " so far" if far else ""
        yield f'<p class="verdict good">✓ No failures{so_far} among {text(_counted(tally.files, "file"))}.</p>\n'
    lines = dict(about)
    if state.condition == "unknown":
        lines["State"] = "not known here: the job's journal is not beside its outputs, or is that of a later job"
    elif not far:
        lines["State"] = "finished: every file found has its outcome"
    if tally.timeline.bins:
        first, last = tally.timeline.first_s, tally.timeline.last_s
        lines["Time"] = f"{charts.moment(first)} to {charts.moment(last)} UTC"
    pairs = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in lines.items())
    yield f'<dl class="about">{pairs}</dl></header>\n'


def _counted(count: int, what: str) -> str:
    return f"{count:,} {counted(count, what).partition(' ')[2]}"


def _totals(tally: Tally) -> Iterator[str]:
    yield section("totals", "Totals")
    total, encoded = tally.total, tally.statuses["encoded"]
    yield '<dl class="tiles">'
    yield _tile("Files", whole(tally.files), f"{size_text(total.read_bytes)} read")
    dry = encoded.files["encoded"] > 0 and not encoded.bytes_out
    for status in STATUSES:
        told = "would be: nothing was written" if dry and status == "encoded" else _STATUS_MEANS[status]
        yield _tile(status.capitalize(), whole(total.files[status]), told, status)
    saved = encoded.bytes_in - encoded.bytes_out
    if encoded.bytes_out:
        yield _tile("Ratio", decimal(encoded.ratio), "bytes in per byte out")
        told = (
            f"{percent_text(saved / encoded.bytes_in)} of what was encoded" if saved > 0 else "the outputs are larger"
        )
        yield _tile("Saved", size(saved) if saved > 0 else Cell(f'<data value="{saved}">nothing</data>'), told)
    yield _tile("Frames", whole(total.frames), f"{size_text(total.pixel_bytes)} of pixels")
    files = encoded.files["encoded"]
    if files:
        told = verification_text(tally.verified_files, files, tally.unverified)
        yield _tile("Verified", whole(tally.verified_files), "none" if told == "no" else told)
    seconds = tally.timeline.seconds
    if seconds:
        yield _tile("Time", duration(seconds), f"{duration_text(total.seconds)} of work on files")
        rate = f"{tally.files / seconds:,.1f} files per second"
        yield _tile("Rate", Cell(f"{total.read_bytes / seconds / 1e6:,.1f} MB/s"), rate)
    else:
        yield _tile("Time", duration(total.seconds), "of work on files")
    yield "</dl>\n"
    if encoded.bytes_out:
        most = max(encoded.bytes_in, encoded.bytes_out)
        yield '<div class="sizes" aria-hidden="true">'
        for name, number, colour in (("before", encoded.bytes_in, "skipped"), ("after", encoded.bytes_out, "encoded")):
            yield f"<span>{name}</span>{charts.meter(number / most, colour)}<span>{size_text(number)}</span>"
        yield "</div>"
    yield "</section>\n"


def _tile(name: str, cell: Cell, told: str, colour: str = "") -> str:
    kind = f' class="{colour}"' if colour else ""
    return f"<div{kind}><dt>{text(name)}</dt><dd>{cell.html}<small>{text(told)}</small></dd></div>"


def _over_time(tally: Tally) -> Iterator[str]:
    line = tally.timeline
    if len(line.bins) < 2:  # a single bar says nothing that the totals do not say
        return
    yield section("time", "Over time")
    numbers = range(min(line.bins), max(line.bins) + 1)
    starts = [number * line.width_s for number in numbers]
    labels = charts.times(starts, line.width_s)
    bins = [line.bins.get(number) for number in numbers]
    speed = [share.read_bytes / line.width_s / 1e6 if share else 0.0 for share in bins]
    done = [
        charts.Series(status, status, [share.files[status] / line.width_s if share else 0.0 for share in bins])
        for status in STATUSES
        if tally.total.files[status]
    ]
    yield '<div class="two"><div class="chart"><h3>MB read per second</h3>'
    read = [charts.Series("read", "encoded", speed)]
    yield charts.bars("MB of source files read per second, over time", read, labels, charts.plain)
    yield '</div><div class="chart"><h3>Files per second</h3>'
    yield charts.bars("Files done per second, over time, by outcome", done, labels, charts.plain)
    yield f"{charts.key([(each.name, each.colour) for each in done])}</div></div>"
    yield f'<p class="note">By the time at which files were done; each bar is {_span(line.width_s)}.'
    if line.untimed:
        yield f" {text(_counted(line.untimed, 'file'))} without a time are left out."
    yield '</p><details class="long"><summary>Numbers</summary>'
    columns = [Column("from (UTC)"), *(Column(status, "number") for status in STATUSES), Column("MB/s", "number")]
    yield from table(
        columns,
        (
            [words(label), *(whole(share.files[status]) for status in STATUSES), decimal(mb_per_s, 1)]
            for label, share, mb_per_s in zip(labels, bins, speed, strict=True)
            if share
        ),
        name="Over time",
    )
    yield "</details></section>\n"


def _span(seconds: int) -> str:
    return f"{seconds} s" if seconds < 60 else duration_text(seconds)


def _ratios(tally: Tally) -> Iterator[str]:
    if not tally.statuses["encoded"].bytes_out:
        return
    yield section("ratios", "Compression")
    yield "<h3>By modality</h3>"
    modalities = [(name or "not recorded", share) for name, share in tally.modalities.ordered()]
    yield from _share_table("modality", "Ratio by modality", modalities)
    yield "<h3>By transfer syntax</h3>"
    pairs = []
    for name, share in tally.syntaxes.ordered():
        pairs.append((" → ".join(map(syntax_name, name.split(" → "))), share))
    yield from _share_table("source → target", "Ratio by transfer syntaxes", pairs)
    yield "</section>\n"


def _share_table(what: str, name: str, shares: Sequence[tuple[str, Share]]) -> Iterator[str]:
    shares = [(each, share) for each, share in shares if share.bytes_out]
    best = max((share.ratio for _, share in shares), default=1.0)
    names = ("saved", "before", "after", "encoded", "frames")
    columns = [
        Column(what),
        Column("ratio", "number"),
        Column("", "meter"),
        *(Column(each, "number") for each in names),
    ]
    rows = (
        [
            words(each),
            decimal(share.ratio),
            Cell(charts.meter(share.ratio / best)),
            percent(1 - share.bytes_out / share.bytes_in) if share.bytes_in else Cell("–"),
            size(share.bytes_in),
            size(share.bytes_out),
            whole(share.files["encoded"]),
            whole(share.frames),
        ]
        for each, share in shares
    )
    yield from table(columns, rows, name=name, sortable=True)


def _outcomes(tally: Tally) -> Iterator[str]:
    if not tally.reasons:
        return
    yield section("outcomes", "Reasons")
    columns = [Column("outcome"), Column("reason", "code"), Column("files", "number"), Column("meaning")]
    ordered = sorted(tally.reasons.items(), key=lambda item: (-_ORDER[item[0][0]], -item[1], item[0]))
    rows = (
        [words(status), words(code), whole(number), words(CODES.get(code, ""))] for (status, code), number in ordered
    )
    yield from table(columns, rows, name="Outcomes by reason", sortable=True)
    yield "</section>\n"


def _histograms(tally: Tally) -> Iterator[str]:
    yield section("spread", "Spread")
    yield '<div class="two">'
    if any(tally.ratios):
        yield from _histogram("Compression ratio", "files encoded", RATIO_EDGES, tally.ratios, lambda edge: f"{edge:g}")
    yield from _histogram("Time per file", "files", SECONDS_EDGES, tally.seconds, _seconds_edge)
    yield "</div></section>\n"


def _histogram(
    title: str, unit: str, edges: Sequence[float], counts: Sequence[int], says: Callable[[float], str]
) -> Iterator[str]:
    shown = _shown(counts)
    numbers = [counts[at] for at in shown]
    yield f'<div class="chart"><h3>{text(title)}</h3>'
    series = [charts.Series(unit, "encoded", numbers)]
    labels = [_class(edges, at, says) for at in shown]
    ends = [*(edges[at] for at in shown), *edges[shown.stop : shown.stop + 1]]
    yield charts.bars(f"{title}: {unit}", series, labels, charts.plain, edges=list(map(says, ends)))
    yield "<details><summary>Numbers</summary>"
    rows = ([words(label), whole(number)] for label, number in zip(labels, numbers, strict=True))
    yield from table([Column(title.lower()), Column(unit, "number")], rows, name=title)
    yield "</details></div>"


def _shown(counts: Sequence[int]) -> range:
    """Return the classes from the first to the last that holds something, and some beside them where these are few."""
    held = [at for at, number in enumerate(counts) if number]
    first, last = held[0], held[-1]
    while last - first + 1 < _CLASSES:
        first, last = max(0, first - 1), min(len(counts) - 1, last + 1)
    return range(first, last + 1)


def _class(edges: Sequence[float], at: int, says: Callable[[float], str]) -> str:
    if at + 1 == len(edges):
        return f"{says(edges[at])} or more"
    return f"{says(edges[at])} to below {says(edges[at + 1])}"


def _seconds_edge(edge: float) -> str:
    return f"{edge * 1000:g} ms" if 0 < edge < 1 else f"{edge:g} s"
