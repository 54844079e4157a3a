"""Records of an archive that never was, and a reader of report pages that shares nothing with their writer."""

from __future__ import annotations

import random
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from gpuenc.archive.report import Record, ReportFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

IMPLICIT, EXPLICIT, SV1, HTJ2K = (f"1.2.840.10008.1.2{tail}" for tail in ("", ".1", ".4.70", ".4.201"))
# Modality: bytes of a file, ratio, frames, how common.
_KINDS = {"MG": (50e6, 3.9, 1, 3), "CT": (527e3, 2.3, 1, 60), "US": (30e6, 4.6, 80, 4), "OT": (1e6, 1.2, 1, 2)}
_NOT_ENCODED = (
    ("copied", "lossy-source", "its pixels are lossy already"),
    ("copied", "already-encoded", "it has the target's transfer syntax"),
    ("skipped", "not-dicom", "not a DICOM file"),
    ("failed", "truncated", "the source ends within frame 3 of 12"),
    ("failed", "corrupt-header", "(7FE0,0010) is longer than the file"),
)


def records(count: int, seed: int = 1, begin_s: float = 1_795_300_000.0, failed: float = 0.02) -> Iterator[Record]:
    """Yield records as six workers would leave them, a few of each outcome."""
    some = random.Random(seed)
    now_s = begin_s
    for number in range(count):
        modality = some.choices(list(_KINDS), [kind[3] for kind in _KINDS.values()])[0]
        size, ratio, frames, _ = _KINDS[modality]
        bytes_in = int(size * some.lognormvariate(0, 0.25))
        seconds = bytes_in / 40e6 * some.lognormvariate(0, 0.4) + 0.001
        now_s += seconds / 6
        about = {
            "source_syntax": some.choice([IMPLICIT, EXPLICIT, EXPLICIT, SV1]),
            "target_syntax": HTJ2K,
            "bytes_in": bytes_in,
            "seconds": seconds,
            "modality": modality,
            "finished_s": now_s,
            "worker": 1 + number % 6,
        }
        source = f"archive/{number // 500:04}/{number:08}.dcm"
        chance = some.random()
        if chance > failed + 0.05:
            refused = {"nvimgcodec: device-refused": 1} if chance > 0.97 else {}
            yield Record(
                source,
                "encoded",
                destination=f"out/{source}",
                plugins={"imagecodecs" if refused or chance < 0.3 else "nvimgcodec": frames},
                fallbacks=refused,
                frames=frames,
                bytes_out=max(1, int(bytes_in / max(0.8, some.gauss(ratio, 0.4)))),
                pixel_bytes=bytes_in - 1000,
                verified=chance > 0.1,
                stage_seconds={"read": seconds / 8, "encode": seconds / 2, "verify": seconds / 4, "write": seconds / 8},
                **about,
            )
        else:
            status, reason, message = _NOT_ENCODED[some.randrange(3, 5) if chance < failed else some.randrange(3)]
            out = bytes_in if status == "copied" else 0
            yield Record(source, status, reason=reason, message=message, bytes_out=out, **about)  # type: ignore[arg-type]


def write_report(path: Path, of: Iterable[Record]) -> Path:
    """Write a report, as a job does."""
    with path.open("wb", buffering=0) as stream:
        report = ReportFile(stream)
        for record in of:
            report.add(record)
    return path


_VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """What a page holds: tables by their captions, tiles by their names, addresses, ids; and what is wrong with it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[str]]] = {}
        self.tiles: dict[str, str] = {}
        self.wrong: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self.texts: list[str] = []
        self.bars = 0
        self._open: list[str] = []
        self._caption = self._name = ""
        self._value: str | None = None
        self._text = ""
        self.feed(html)
        self.close()
        self.wrong += [f"<{name}> is not closed" for name in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        if len(about) != len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice")
        self.wrong += [f"<{tag}> has {name}" for name in about if name.startswith("on") or name == "style"]
        self.addresses += [about[name] or "" for name in ("src", "href", "action", "data", "srcset") if name in about]
        if "id" in about:
            self.ids.append(about["id"] or "")
        self.references += [about[name] or "" for name in ("aria-labelledby", "for", "data-table") if name in about]
        if about.get("http-equiv") == "Content-Security-Policy":
            self.policy = about["content"] or ""
        if tag == "rect" and self._open[-2:] == ["svg", "g"]:
            self.bars += 1
        if tag == "tr" and "tbody" in self._open:
            self.tables[self._caption].append([])
        if tag in ("td", "dt", "dd", "caption", "script"):
            self._text, self._value = "", None
        if tag == "data":
            self._value = about["value"]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")
        if tag == "caption":
            self._caption = self._text
            self.tables[self._caption] = []
        elif tag == "td":
            self.tables[self._caption][-1].append(self._text if self._value is None else self._value)
        elif tag == "dt":
            self._name = self._text
        elif tag == "dd":
            self.tiles[self._name] = self._text if self._value is None else self._value
        elif tag == "script":
            self.scripts.append(self._text)

    def handle_data(self, data: str) -> None:
        self._text += data
        if self._open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)
