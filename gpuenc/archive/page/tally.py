"""What a report page shows, gathered from any number of records in bounded memory."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gpuenc.archive.report import STATUSES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gpuenc.archive.report import Record, Status

# Where the classes of the histograms begin; the first also takes what is smaller.
RATIO_EDGES = (0.0, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
SECONDS_EDGES = (0.0, *(digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)))

SLOWEST = 25
FAILED = 10_000
# Of what a report names: more different modalities, syntaxes or workers than this are counted as `OTHERS`.
NAMES = 200
OTHERS = "others"
_NAME_CHARS = 200
_PATH_CHARS = 4096
_MESSAGE_CHARS = 500

# Widths of the bins of the timeline; each divides the next, so that bins can be joined.
_WIDTHS_S = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 43200, 86400, 604800, 2419200)
_BINS = 144
# Later times are no times: they are beyond the year 5000.
_LAST_S = 1e11


@dataclass(slots=True)
class Share:
    """Sums over the files that have something in common; sizes and frames of those encoded."""

    files: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    read_bytes: int = 0
    pixel_bytes: int = 0
    seconds: float = 0.0

    def add(self, record: Record) -> None:
        """Count one file."""
        self.files[record.status] += 1
        self.read_bytes += record.bytes_in
        self.seconds += record.seconds
        if record.status == "encoded":
            self.frames += record.frames
            self.pixel_bytes += record.pixel_bytes
            self.bytes_in += record.bytes_in
            self.bytes_out += record.bytes_out

    @property
    def ratio(self) -> float:
        """Bytes of the sources encoded, divided by bytes of their outputs; 0 where nothing was encoded."""
        return self.bytes_in / self.bytes_out if self.bytes_out else 0.0


class Shares:
    """A `Share` for each of at most `NAMES` names."""

    def __init__(self) -> None:
        self._shares: dict[str, Share] = {}

    def add(self, name: str, record: Record) -> None:
        """Count one file under a name."""
        name = _bounded(name, self._shares)
        share = self._shares.get(name)
        if share is None:
            share = self._shares[name] = Share()
        share.add(record)

    def ordered(self) -> list[tuple[str, Share]]:
        """Return names and shares, those of most bytes first."""
        return sorted(self._shares.items(), key=lambda item: (-item[1].read_bytes, item[0]))


class Row(NamedTuple):
    """What a table keeps of one file."""

    source: str
    status: Status
    reason: str
    message: str
    modality: str
    source_syntax: str
    frames: int
    bytes_in: int
    bytes_out: int
    seconds: float


class Timeline:
    """Files and bytes by the time at which they were done, in at most `_BINS` bins, whatever their order."""

    def __init__(self) -> None:
        self._level = 0
        self.bins: dict[int, Share] = {}
        self.untimed = 0
        self.first_s = float("inf")
        self.last_s = 0.0

    @property
    def width_s(self) -> int:
        """Seconds in a bin."""
        beyond = self._level - len(_WIDTHS_S) + 1
        return _WIDTHS_S[self._level] if beyond <= 0 else _WIDTHS_S[-1] << beyond

    def add(self, record: Record) -> None:
        """Count one file, unless its record has no time."""
        end = record.finished_s
        if not 0 < end < _LAST_S:
            self.untimed += 1
            return
        self.first_s = min(self.first_s, max(0.0, end - record.seconds))
        self.last_s = max(self.last_s, end)
        number = int(end // self.width_s)
        if number in self.bins:
            self.bins[number].add(record)
            return
        self.bins[number] = Share()
        self.bins[number].add(record)
        while max(self.bins) - min(self.bins) >= _BINS:
            self._widen()

    @property
    def seconds(self) -> float:
        """From when the first file was begun until the last was done; 0 where no record has a time."""
        return max(0.0, self.last_s - self.first_s) if self.bins else 0.0

    def _widen(self) -> None:
        before, self._level = self.width_s, self._level + 1
        joined: dict[int, Share] = {}
        for number, share in self.bins.items():
            into = joined.setdefault(number * before // self.width_s, Share())
            into.files.update(share.files)
            for name in ("frames", "bytes_in", "bytes_out", "read_bytes", "pixel_bytes", "seconds"):
                setattr(into, name, getattr(into, name) + getattr(share, name))
        self.bins = joined


class Tally:
    """Everything that a page shows of a job."""

    def __init__(self) -> None:
        self.total = Share()
        self.statuses: dict[Status, Share] = {status: Share() for status in STATUSES}
        self.verified_files = 0
        self.unverified: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.plugins: Counter[str] = Counter()
        self.fallbacks: Counter[str] = Counter()
        self.stage_seconds: dict[str, float] = {}
        self.modalities, self.syntaxes, self.workers = Shares(), Shares(), Shares()
        self.timeline = Timeline()
        self.ratios = [0] * len(RATIO_EDGES)
        self.seconds = [0] * len(SECONDS_EDGES)
        self.failed: list[Row] = []
        self._slowest: list[tuple[float, int, Row]] = []

    @classmethod
    def of(cls, records: Iterable[Record]) -> Tally:
        """Return the tally of records."""
        tally = cls()
        for record in records:
            tally.add(record)
        return tally

    @property
    def files(self) -> int:
        """Files with an outcome."""
        return self.total.files.total()

    def slowest(self) -> list[Row]:
        """Return the files that took longest, the longest first."""
        return [row for _, _, row in sorted(self._slowest, key=lambda each: (-each[0], -each[1]))]

    def add(self, record: Record) -> None:
        """Count one file."""
        self.total.add(record)
        self.statuses[record.status].add(record)
        self.timeline.add(record)
        self.verified_files += record.verified and record.status == "encoded"
        if record.unverified:
            self.unverified[_bounded(record.unverified, self.unverified)] += 1
        self.seconds[max(0, bisect_right(SECONDS_EDGES, record.seconds) - 1)] += 1
        if record.reason:
            reasons = (record.status, _bounded(record.reason, {code for _, code in self.reasons}))
            self.reasons[reasons] += 1
        for names, counted in ((self.plugins, record.plugins), (self.fallbacks, record.fallbacks)):
            for name, number in counted.items():
                names[_bounded(name, names)] += number
        for stage, seconds in record.stage_seconds.items():
            stage = _bounded(stage, self.stage_seconds)
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        if record.modality or record.status == "encoded":
            self.modalities.add(record.modality, record)
        if record.status == "encoded":
            self._add_encoded(record)
        if record.worker:
            self.workers.add(str(record.worker), record)
        self._list(record)

    def _add_encoded(self, record: Record) -> None:
        self.syntaxes.add(f"{record.source_syntax} → {record.target_syntax}", record)
        if record.bytes_out:
            self.ratios[bisect_right(RATIO_EDGES, record.bytes_in / record.bytes_out) - 1] += 1

    def _list(self, record: Record) -> None:
        failed = record.status == "failed" and len(self.failed) < FAILED
        place = (record.seconds, -self.files)
        slow = len(self._slowest) < SLOWEST or place > self._slowest[0][:2]
        if not failed and not slow:
            return
        row = Row(
            _shortened(record.source, _PATH_CHARS),
            record.status,
            _shortened(record.reason, _NAME_CHARS),
            _shortened(record.message, _MESSAGE_CHARS),
            _shortened(record.modality, _NAME_CHARS),
            _shortened(record.source_syntax, _NAME_CHARS),
            record.frames,
            record.bytes_in,
            record.bytes_out,
            record.seconds,
        )
        if failed:
            self.failed.append(row)
        if slow:
            push = heapq.heappush if len(self._slowest) < SLOWEST else heapq.heapreplace
            push(self._slowest, (*place, row))


def _bounded(name: str, names: Collection[str]) -> str:
    name = _shortened(name, _NAME_CHARS)
    return name if name in names or len(names) < NAMES else OTHERS


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
