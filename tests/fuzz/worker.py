"""The process in which gpuenc runs: one file after the other, each with a limit of time and of memory."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import resource
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

from gpuenc.archive.budget import ByteBudget
from gpuenc.archive.scan import Item
from gpuenc.archive.transcode import Job, transcode_file
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests.fuzz import plants

BUDGET_BYTES = 256 << 20
ADDRESS_BYTES = 6 << 30


class _Log(logging.Handler):
    """Keeps what gpuenc and pydicom log, and the traceback of a defect."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self.trace = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.trace = "".join(traceback.format_exception(*record.exc_info)[-6:])
        elif record.levelno >= logging.WARNING:
            self.texts.append(record.getMessage())


def _job(options: dict[str, Any], folder: Path) -> Job:
    options = dict(options)
    to = find(options.pop("to"))
    lossy = {name: options.pop(name) for name in ("quality", "ratios", "psnrs", "near") if name in options}
    chosen = target(to, lossless=True if to.loss == "option" and not lossy else None, **lossy)
    return Job((folder,), folder, chosen, budget=ByteBudget(BUDGET_BYTES), **options)


def _status(name: str) -> int:
    """Return a size of /proc/self/status in bytes, 0 where there is none."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(name)), 0)


def _one(source: Path, output: Path, options: dict[str, Any], log: _Log) -> dict[str, Any]:
    """Run one file; return its record, and whatever came out besides."""
    log.texts, log.trace = [], ""
    before = _status("VmRSS")
    if before:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    answer: dict[str, Any] = {"record": None, "raised": "", "said": []}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        cpu = resource.getrusage(resource.RUSAGE_SELF)
        try:
            record = transcode_file(Item(source, output), _job(options, output.parent), threading.Event())
            answer["record"] = json.loads(record.as_json())
        except BaseException:  # noqa: BLE001 - nothing may come out
            answer["raised"] = traceback.format_exc(-4)
        after = resource.getrusage(resource.RUSAGE_SELF)
    answer["cpu_s"] = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    answer["said"] = [*log.texts, *(str(each.message) for each in warned)]
    answer["trace"] = log.trace
    answer["peak_bytes"] = max(0, _status("VmHWM") - before)
    return answer


def main() -> None:
    """Answer requests, one line of JSON each: source, output, options, seconds."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log = _Log()
    for name in ("gpuenc", "pydicom"):
        logger = logging.getLogger(name)
        logger.addHandler(log)
        logger.propagate = False
        logger.setLevel(logging.DEBUG if name == "gpuenc" else logging.WARNING)
    for name in sys.argv[1:]:
        plants.PLANTS[name][0]()
    for line in sys.stdin:
        source, output, options, seconds = json.loads(line)
        faulthandler.dump_traceback_later(seconds)
        answer = _one(Path(source), Path(output), options, log)
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
