"""The report of a job as one page of HTML that needs nothing else: no network, no other file, no script to be read.

Charts are drawn here, as SVG. The page's script only sorts and filters tables, and its content security policy lets
nothing else run and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Protocol

from gpuenc.archive.outcomes import Outcomes, State
from gpuenc.archive.page.markup import text
from gpuenc.archive.page.sections import body
from gpuenc.archive.page.tally import Tally
from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.regular import regular
from gpuenc.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from gpuenc.archive.report import Record

# What every page begins with, so that no other file is ever replaced by one.
BEGINNING = '<!DOCTYPE html>\n<html lang="en" data-page="gpuenc report">\n'


class Writer(Protocol):
    """What text can be written to."""

    def write(self, text: str, /) -> object:
        """Write text."""


def write_page(records: Iterable[Record], about: Mapping[str, str], out: Writer, state: State | None = None) -> Tally:
    """Write one page about a job.

    Any number of records takes the memory of about ten thousand: tables are cut, and say so.

    Parameters
    ----------
    records : iterable of Record
        Outcomes, one per file; read once.
    about : mapping of str to str
        What the page says of the job at its top, in this order, such as its target and its command.
    out : text file
        In UTF-8; what is written to it can be printed, whatever the names of files hold.
    state : State, optional
        How far the job is; by default, nobody knows.

    Returns
    -------
    Tally
        What the page shows.
    """
    tally = Tally.of(records)
    _write(tally, about, out, state or State())
    return tally


def _write(tally: Tally, about: Mapping[str, str], out: Writer, state: State) -> None:
    style, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    out.write(BEGINNING)
    out.write(
        '<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}; form-action \'none\'">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="generator" content="gpuenc">\n'
        f'<link rel="icon" href="data:,">\n<title>gpuenc report: {text(_title(tally, state))}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n"
    )
    for piece in body(tally, about, state):
        out.write(piece)
    out.write(f"<script>{script}</script>\n</body>\n</html>\n")


def make_page(job: Path, output: Path, about: Mapping[str, str] | None = None) -> tuple[Tally, Outcomes]:
    """Read what a job has recorded and write its page, which appears as a whole or not at all.

    Parameters
    ----------
    job : Path
        As for `Outcomes`.
    output : Path
        Name of the page; a page of another run is replaced, anything else is not.
    about : mapping of str to str, optional
        Further lines for the page's top.

    Returns
    -------
    Tally
        What the page shows.
    Outcomes
        Whose: with the job's state, and what was left out.

    Raises
    ------
    SourceError, JobError
        As `Outcomes`.
    InvalidOption
        `output` is something else than such a page.
    DestinationError
        It cannot be written.
    """
    _demand_page(output)
    outcomes = Outcomes(job)
    tally, notes = Tally.of(outcomes), outcomes.notes
    told = {"Report": str(job), **(about or {}), **({"Left out": "; ".join(notes)} if notes else {})}
    with AtomicFile(output, overwrite=True) as new, new.errors():
        _write(tally, told, _Utf8(new.file), outcomes.state)
        new.publish()
    return tally, outcomes


class _Utf8:
    """Text into a binary file that stays open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> None:
        self._stream.write(text.encode())


def _demand_page(output: Path) -> None:
    wanted = BEGINNING.encode()
    try:
        with open(output, "rb", opener=regular) as before:
            begins = before.read(len(wanted))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidOption(f"{output} cannot be replaced: {error.strerror}") from None
    if begins not in (b"", wanted):
        raise InvalidOption(f"{output} exists and is no report page; it is left as it is")


def _title(tally: Tally, state: State) -> str:
    failed = tally.total.files["failed"]
    far = state.sentence(tally.files).partition(":")[0]
    return (f"{far}, " if far else "") + f"{tally.files:,} files" + (f", {failed:,} failed" if failed else "")


def _asset(name: str) -> str:
    return (files("gpuenc.archive.page") / name).read_text(encoding="utf-8")


def _hash(inline: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
