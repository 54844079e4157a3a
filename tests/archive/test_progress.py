"""What is shown while a job runs, and at its end; the clock is ours, so nothing is timed."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from gpuenc.archive.job import run
from gpuenc.archive.progress import Display, clock_time, summary_table
from gpuenc.archive.report import Record, Summary
from gpuenc.archive.request import Job
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Shown:
    """A display on consoles that keep what they are told."""

    def __init__(self, *, terminal=False, width=200, **options):
        self.clock = Clock()
        self.out, self.err = io.StringIO(), io.StringIO()
        console = Console(file=self.out, force_terminal=terminal, width=width, height=60, color_system=None)
        self.display = Display(console, Console(file=self.err, width=width), None, clock=self.clock, **options)

    @property
    def lines(self):
        return [line.rstrip() for line in self.out.getvalue().splitlines()]


def encoded(size, **more):
    return Record("a", "encoded", bytes_in=size, bytes_out=size // 4, frames=2, **more)


def table(summary, **options):
    out = io.StringIO()
    Console(file=out, width=300).print(summary_table(summary, **options))
    return re.findall(r"│ (\S[^│]*?) +│ ([^│]*?) +│", out.getvalue())


def test_a_line_every_ten_seconds_without_a_terminal():
    shown = Shown()
    shown.display.start(100, 400_000_000)
    assert shown.lines == ["100 files, 400 MB"]
    shown.clock.now += 9.9
    shown.display.done(encoded(1_000_000))
    assert len(shown.lines) == 1
    shown.clock.now += 10.1  # 20 s in
    shown.display.done(encoded(79_000_000))
    # 80 of 400 MB in 20 s leave 80 s, however many files that is.
    assert shown.lines[1:] == ["2/100 files, 4 frames, 4.0 MB/s, ratio 4.00, ETA 0:01:20"]
    shown.display.done(Record("b", "failed", reason="truncated", message="it ends", bytes_in=20_000_000))
    assert len(shown.lines) == 2
    assert shown.err.getvalue() == "failed: b: it ends [truncated]\n"
    shown.clock.now += 30
    shown.display.done(Record("c", "failed", reason="truncated", message="it ends"))
    assert shown.lines[2:] == ["4/100 files, 4 frames, 2.0 MB/s, ratio 4.00, 2 failed, ETA 0:02:30"]


def test_time_left_by_files_where_bytes_are_unknown_or_wrong():
    for total, size in ((0, 0), (10, 1000)):
        shown = Shown()
        shown.display.start(4, total)
        shown.clock.now += 30
        shown.display.done(Record("a", "copied", bytes_in=size))
        assert shown.lines[-1].endswith("ETA 0:01:30")


def test_no_estimate_from_nothing():
    shown = Shown()
    shown.display.start(4, 1000)
    shown.clock.now += 100
    shown.display.workers(["worker 1: 0 files"])  # a line is due, and nothing is done yet
    assert shown.lines[-1] == "0/4 files, 0 frames, 0.0 MB/s, ETA -:--:--"
    for _ in range(4):
        shown.clock.now += 100
        shown.display.done(Record("a", "skipped"))
    assert shown.lines[-1].endswith("ETA 0:00:00")


def test_workers_have_a_line_each_on_a_terminal():
    shown = Shown(terminal=True, width=100)
    shown.display.start(9, 1000)
    shown.display.workers([f"worker {number}: {number} files, CT \x1b[31m" for number in range(1, 20)])
    shown.clock.now += 60
    shown.display.done(encoded(500))
    shown.display._bar[0].refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.out.getvalue())
    for number in range(1, 17):
        assert f"worker {number}: {number} files, CT \\x1b[31m" in text
    assert "worker 17:" not in text
    assert "and 3 workers more" in text
    assert "ETA 0:01:00" in text
    before = len(shown.out.getvalue())
    shown.display.finish(Summary())
    after = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.out.getvalue()[before:])
    assert "worker 1:" not in after.partition("Summary")[2]


def test_long_states_do_not_break_lines():
    shown = Shown(terminal=True, width=40)
    shown.display.start(9, 1000)
    shown.display.workers(["worker 1: " + "x" * 200])
    shown.display._bar[0].refresh()
    shown.display.finish(Summary())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.out.getvalue())
    assert "worker 1: xxx" in text
    assert "…" in text
    assert max(len(line) for line in re.split(r"[\r\n]", text)) <= 40


def test_a_job_tells_the_display(tmp_path):
    (tmp_path / "in").mkdir()
    made.of(made.noise((1, 8, 8), "u2")).write(tmp_path / "in" / "1.dcm")
    shown = Shown()
    run(Job((tmp_path / "in",), tmp_path / "out", target(find("rle"))), shown.display)
    assert shown.lines[0].startswith("1 file, ")
    assert any("1: 1 encoded, 0 copied, 0 skipped, 0 failed" in line for line in shown.lines)


def test_a_reader_that_is_gone_stops_nothing():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    class Patient(Console):
        def on_broken_pipe(self):
            self.quiet = True

    for terminal in (False, True):
        consoles = [Patient(file=Gone(), force_terminal=terminal) for _ in range(2)]
        display = Display(*consoles, None, clock=Clock())
        display.start(2, 10)
        display.workers(["worker 1"])
        display.done(Record("a", "failed"))
        display.finish(Summary())


def summary_of(*records, planned=0):
    summary = Summary(planned=planned or len(records))
    for record in records:
        summary.add(record)
    return summary


def test_summary_says_what_was_saved_and_what_verification_cost():
    stages = {"read": 1.0, "encode": 5.0, "verify": 3.0, "write": 1.0}
    rows = dict(table(summary_of(encoded(100_000_000, verified=True, stage_seconds=stages), Record("b", "copied"))))
    assert rows["saved"] == "75.0 MB, 75 % of the files encoded"
    assert rows["verification"] == "30 % of the time spent on files, over all threads"
    assert rows["verified"] == "1 of 1 file, every sample compared"
    rows = dict(table(summary_of(Record("a", "encoded", bytes_in=10**7, bytes_out=3 * 10**7, stage_seconds=stages))))
    assert rows["saved"] == "nothing: the outputs are 20.0 MB larger"
    assert "verification" not in rows
    assert "saved" not in dict(table(summary_of(Record("b", "copied"))))


def test_small_sizes_are_not_nothing():
    rows = dict(table(summary_of(encoded(39_200, pixel_bytes=32_768, verified=True))))
    assert rows["encoded files"].startswith("39.2 kB → 9.80 kB")
    assert rows["saved"].startswith("29.4 kB, 75 %")
    assert rows["frames"] == "2 (32.8 kB of pixels)"


INSTEAD = "; of these, the codestreams' markers were checked and each file was read back"


def test_summary_says_why_nothing_was_verified(tmp_path):
    sources = made.of(made.noise((1, 16, 16), "u1")).write(tmp_path / "x.dcm")
    for number, (to, share, said) in enumerate(
        [
            (
                target(find("jpegxl"), quality=90),
                1.0,
                f"0 of 1 file; 1 lossy: other samples than the source's{INSTEAD}",
            ),
            (target(find("rle")), 1e-9, f"0 of 1 file; 1 not chosen by --verify sample=1e-07%{INSTEAD}"),
            (target(find("rle")), 1.0, "1 of 1 file, every sample compared"),
        ]
    ):
        job = Job((sources,), tmp_path / str(number), to, verify_share=share)
        assert dict(table(run(job, Shown().display)))["verified"] == said


def test_summary_says_why_the_gpu_was_not_used():
    refused = {"nvimgcodec: device-lost": 3, "nvimgcodec: device-refused": 1, "imagecodecs: encode-failed": 5}
    summary = summary_of(encoded(8, fallbacks=refused))
    summary.gpu_unused = "No NVIDIA driver\x1b[31m"
    rows = table(summary)
    assert [row[1] for row in rows if row[0] == "GPU not used"] == [
        r"No NVIDIA driver\x1b[31m",
        "the GPU cannot be used any more in this process: 3 frames",
        "the GPU's codec does not take such frames: 1 frame",
    ]
    assert "GPU not used" not in dict(table(summary_of(encoded(8))))


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (360_000, "100:00:00")]
)
def test_clock_times(seconds, said):
    assert clock_time(seconds) == said
