"""HTML of a report page's parts: text made harmless, numbers with units, tables."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from gpuenc.archive.progress import size_text, visible
from gpuenc.syntaxes import BY_UID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Those that a source can have; of the compressed ones `gpuenc.syntaxes` knows the names.
_NATIVE = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
}


class Column(NamedTuple):
    """A column of a table: its heading, and what its cells hold.

    Parameters
    ----------
    name : str
        Heading.
    kind : {'text', 'path', 'number', 'meter'}
        Numbers stand at the right and are sorted by value; paths may be broken anywhere; meters are not sorted.
    """

    name: str
    kind: str = "text"


class Cell(NamedTuple):
    """A cell: HTML that is safe, and what it is sorted by where that is not its text."""

    html: str
    value: float | None = None


def text(what: str) -> str:
    """Return text as HTML; what cannot be printed, or would change the direction of writing, as Python's escapes."""
    return escape(visible(what))


def section(name: str, heading: str) -> str:
    """Return the beginning of a section."""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{text(heading)}</h2>\n'


def syntax_name(uid: str) -> str:
    """Return a transfer syntax's name, or its UID where it has none here."""
    if uid in _NATIVE:
        return _NATIVE[uid]
    return BY_UID[uid].name if uid in BY_UID else uid or "not recorded"


def words(what: str) -> Cell:
    """Return a cell with text."""
    return Cell(text(what))


def whole(number: int) -> Cell:
    """Return a cell with a whole number, its thousands apart."""
    return Cell(f'<data value="{number}">{number:,}</data>', number)


def size(count: int) -> Cell:
    """Return a cell with a number of bytes."""
    return Cell(f'<data value="{count}">{size_text(count)}</data>', count)


def decimal(number: float, places: int = 2) -> Cell:
    """Return a cell with a number of so many decimal places; a dash for none."""
    return Cell(f'<data value="{number!r}">{number:,.{places}f}</data>' if number else "–", number)


def duration(seconds: float) -> Cell:
    """Return a cell with a time span."""
    return Cell(f'<data value="{seconds!r}">{duration_text(seconds)}</data>', seconds)


def percent(share: float) -> Cell:
    """Return a cell with a share of one as per cent."""
    return Cell(f'<data value="{share!r}">{percent_text(share)}</data>', share)


def duration_text(seconds: float) -> str:
    """Return a time span: ``"0.25 s"``, ``"12 min 3 s"``, ``"3 d 4 h"``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 or seconds == 0 else "under 1 ms"
    if seconds < 59.95:
        return f"{seconds:.{2 if seconds < 10 else 1}f} s"
    left = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= length or parts:
            parts.append(f"{left // length} {unit}")
            left %= length
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def percent_text(share: float) -> str:
    """Return a share of one as per cent; never 100 % for less than all, nor 0 % for more than nothing."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    return f"{share * 100:.{0 if share in (0, 1) else 1}f} %"


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, name: str, sortable: bool = False
) -> Iterator[str]:
    """Yield a table in pieces.

    Parameters
    ----------
    columns : sequence of Column
        Headings.
    rows : iterable of sequence of Cell
        As many cells as columns each.
    name : str
        What it is a table of, for who cannot see it.
    sortable : bool
        Let the page's script sort and filter it.
    """
    kind = ' class="sortable"' if sortable else ""
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{text(name)}"><table{kind}>'
    heads = (f'<th scope="col" class="{column.kind}">{text(column.name)}</th>' for column in columns)
    yield f"<caption>{text(name)}</caption><thead><tr>{''.join(heads)}</tr></thead><tbody>\n"
    for row in rows:
        yield f"<tr>{''.join(_cell(column, cell) for column, cell in zip(columns, row, strict=True))}</tr>\n"
    yield "</tbody></table></div>"


def _cell(column: Column, cell: Cell) -> str:
    value = "" if cell.value is None else f' data-v="{cell.value!r}"'
    return f'<td class="{column.kind}"{value}>{cell.html}</td>'
