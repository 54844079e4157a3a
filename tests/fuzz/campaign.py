"""The campaign: mutants through gpuenc in one process, the judgement of the outputs in another.

``python -m tests.fuzz --count 20000 --seed 1`` runs mutants 0 to 19999 of campaign 1; ``--only N`` is one of them. What
is checked of each, whatever the file holds:

- the process lives, answers in time and within its memory, and nothing is raised;
- there is one outcome, and its code is in `gpuenc.errors.CODES` and no ``internal-error``;
- the source is as it was; nothing but the output is in the destination; what failed or was skipped has no output; a
  copy is identical, byte for byte;
- what was encoded without loss decodes to the source's samples, and its other elements are the source's, as
  `tests.fuzz.referee` reads both files; what `tolerated` lists is no finding;
- no patient's name is in a record, a warning or a log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuenc.errors import CODES
from gpuenc.syntaxes import TABLE
from tests.fuzz.mutations import Mutant, mutant
from tests.fuzz.tolerated import tolerated
from tests.fuzz.worker import BUDGET_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 40
CPU_S = 20
# What the allocators and codecs keep besides the frames that a budget counts.
MEMORY_BYTES = BUDGET_BYTES + (96 << 20)
LOSSLESS = tuple(syntax.name for syntax in TABLE if syntax.loss != "always")
LOSSY: tuple[dict[str, Any], ...] = (
    {"to": "jpeg", "quality": 80},
    {"to": "jpeg2000", "ratios": (10,)},
    {"to": "htj2k", "psnrs": (50,)},
    {"to": "jpeg-ls", "near": 2},
    {"to": "jpegxl", "quality": 90},
)


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    index: int
    kind: str
    detail: str
    mutant: Mutant
    options: dict[str, Any]
    record: dict[str, Any] | None

    def __str__(self) -> str:
        outcome = f"{self.record['status']} {self.record['reason']}".strip() if self.record else "no outcome"
        steps = ", ".join(self.mutant.steps)
        return f"{self.index} {self.kind}: {self.detail} [{self.mutant.source}: {steps}; {self.options}; {outcome}]"


@dataclass
class Tally:
    """What a campaign found."""

    findings: list[Finding] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    mutants: int = 0
    seconds: float = 0.0


def options_of(seed: int, index: int) -> dict[str, Any]:
    """Return what is asked of `gpuenc transcode` for this mutant; targets take turns."""
    rng = random.Random(f"{seed}:{index}:options")
    options = dict(rng.choice(LOSSY)) if rng.random() < 0.12 else {"to": LOSSLESS[index % len(LOSSLESS)]}
    if rng.random() < 0.4:
        options["keep_lossy"] = False
    if rng.random() < 0.2:
        options["whole_cells"] = True
    if rng.random() < 0.2:
        options["extended_offsets"] = True
    return options


class Dead(Exception):
    """A process ended, or gave no answer in time; with what it wrote to its standard error."""


class Process:
    """A process that answers lines of JSON; started when needed, again after its end."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()

    def ask(self, question: object, seconds: float) -> Any:
        """Return the answer; raise `Dead` if there is none."""
        if self._process is None:
            self._errors.truncate(0)
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
        pipe = self._process.stdout
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            begun = time.monotonic()
            line = b""
            while not line.endswith(b"\n"):
                left = seconds - (time.monotonic() - begun)
                if left <= 0 or not select.select([pipe], [], [], left)[0]:
                    raise Dead(f"no answer after {seconds} s: {self._end()}")
                piece = os.read(pipe.fileno(), 1 << 16)
                if not piece:
                    raise Dead(self._end())
                line += piece
        except BrokenPipeError:
            raise Dead(self._end()) from None
        return json.loads(line)

    def _end(self) -> str:
        process, self._process = self._process, None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
        code = process.wait()
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        self._errors.seek(0)
        text = self._errors.read().decode("utf-8", "replace")
        self._errors.seek(0)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"ended with {code}: {' | '.join(lines[:14])}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._end()
        self._errors.close()


class Lane:
    """One pair of processes, and the folder of their files."""

    def __init__(self, folder: Path, planted: Iterable[str] = (), limit_s: int = LIMIT_S) -> None:
        self.folder, self._limit_s = folder, limit_s
        self._worker = Process("tests.fuzz.worker", *planted)
        self._referee = Process("tests.fuzz.referee")
        (folder / "out").mkdir(parents=True)

    def close(self) -> None:
        self._worker.close()
        self._referee.close()

    def run(self, made: Mutant, options: dict[str, Any], tally: Tally, lock: threading.Lock) -> list[tuple[str, str]]:
        """Run one mutant; return (kind, detail) of what must not be, and the record in `self.record`."""
        source, output = self.folder / "in.dcm", self.folder / "out" / "out.dcm"
        source.write_bytes(made.data)
        found: list[tuple[str, str]] = []
        self.record: dict[str, Any] | None = None
        judged = ""
        try:
            answer = self._worker.ask([str(source), str(output), options, self._limit_s - 2], self._limit_s)
        except Dead as dead:
            # The traceback of what takes too long can itself end the process.
            late = "no answer" in str(dead) or "Timeout (" in str(dead)
            found.append(("hang" if late else "crash", str(dead)))
        else:
            self.record = record = answer["record"]
            found += list(_of_process(answer))
            if record is not None:
                found += list(_of_record(record))
                found += list(self._of_files(record, made, source, output))
                if record["status"] == "encoded":
                    judged = self._judge(made, options, record, source, output, found)
        with lock:
            tally.mutants += 1
            tally.outcomes[f"{self.record['status']} {self.record['reason']}".strip() if self.record else "none"] += 1
            if judged:
                tally.judged[judged] += 1
        for path in (self.folder / "out").iterdir():
            path.unlink()
        return found

    def _of_files(self, record: dict[str, Any], made: Mutant, source: Path, output: Path) -> Iterable[tuple[str, str]]:
        if source.read_bytes() != made.data:
            yield "source changed", ""
        there = {path.name for path in (self.folder / "out").iterdir()}
        expected = {output.name} if record["status"] in ("encoded", "copied") else set()
        if there != expected:
            yield "files", f"{sorted(there)} instead of {sorted(expected)}"
        elif record["status"] == "copied" and output.read_bytes() != made.data:
            yield "copy", "the copy is another file"

    def _judge(
        self,
        made: Mutant,
        options: dict[str, Any],
        record: dict[str, Any],
        source: Path,
        output: Path,
        found: list[tuple[str, str]],
    ) -> str:
        """Ask the referee; return the kind of its verdict."""
        try:
            verdict = self._referee.ask([str(source), str(output)], LIMIT_S)
        except Dead as dead:
            # One of its decoders: which of the two files, the other one tells.
            with contextlib.suppress(Dead):
                verdict = self._referee.ask([str(output), str(output)], LIMIT_S)
                return "no verdict: a decoder crashed on the source"
            found.append(("output kills a decoder", str(dead)))
            return "output kills a decoder"
        lossless = not {"quality", "ratios", "psnrs", "near"} & options.keys()
        problems = list(_of_verdict(verdict, lossless=lossless, verified=record["verified"]))
        kinds = []
        for kind, detail in problems:
            reason = tolerated(kind, detail, made, options, record, verdict)
            if reason:
                kinds.append(f"tolerated: {reason}")
            else:
                found.append((kind, detail))
                kinds.append(f"finding: {kind}")
        if kinds:
            return kinds[0]
        if verdict["unread"] and not verdict["same"]:
            return f"no verdict: {verdict['unread'][:50]}"
        return f"same samples, {verdict['same']}" if lossless else "readable"


def _of_process(answer: dict[str, Any]) -> Iterable[tuple[str, str]]:
    if answer["raised"]:
        yield "raised", answer["raised"]
    if answer["trace"]:
        yield "internal error", answer["trace"]
    if answer["peak_bytes"] > MEMORY_BYTES:
        yield "memory", f"{answer['peak_bytes'] >> 20} MiB"
    if answer["cpu_s"] > CPU_S:
        yield "slow", f"{answer['cpu_s']:.1f} s of processor time"
    if any("SECRET" in text for text in answer["said"]):
        yield "leak", f"a warning or log: {answer['said']}"


def _of_record(record: dict[str, Any]) -> Iterable[tuple[str, str]]:
    reason = record["reason"]
    if record["status"] not in ("encoded", "copied", "failed", "skipped"):
        yield "outcome", f"status {record['status']}"
    if (reason and reason not in CODES) or reason in ("internal-error", "error"):
        yield "outcome", f"{reason}: {record['message']}"
    if (record["status"] == "encoded") != (not reason):
        yield "outcome", f"{record['status']} with the reason {reason!r}"
    if "SECRET" in json.dumps(record) or "\n" in record["message"]:
        yield "leak", record["message"]


def _of_verdict(verdict: dict[str, Any], *, lossless: bool, verified: bool) -> Iterable[tuple[str, str]]:
    if verdict["output"]:
        yield "output unread", verdict["output"]
        return
    if not lossless:
        return
    if not verified:
        yield "not verified", ""
    if verdict["apart"]:
        yield "samples", verdict["apart"]
    elif verdict["same"] == "same code":
        yield "another decoder", verdict["unread"] or "reads other samples in the source"
    if verdict["elements"]:
        yield "elements", "; ".join(verdict["elements"][:4])


def run(
    seed: int,
    indices: Iterable[int],
    *,
    jobs: int = 1,
    planted: Iterable[str] = (),
    keep: Path | None = None,
    seconds: float = float("inf"),
    until_found: bool = False,
    limit_s: int = LIMIT_S,
    where: str = "",
    tell: Callable[[Finding], None] | None = None,
) -> Tally:
    """Run mutants `indices` of the campaign `seed`.

    Parameters
    ----------
    planted : iterable of str
        Defects to put into gpuenc, see `tests.fuzz.plants`.
    keep : Path, optional
        Folder for the mutants that led to findings.
    seconds, until_found : float, bool
        When to stop early.
    limit_s : int
        Seconds a file may take.
    where : str
        Leave out mutants whose seed's name does not have this in it.
    """
    tally, lock, begun = Tally(), threading.Lock(), time.monotonic()
    todo = iter(indices)
    errors: list[BaseException] = []

    def work(lane: Lane) -> None:
        try:
            while time.monotonic() - begun < seconds and not (until_found and tally.findings) and not errors:
                with lock:
                    index = next(todo, None)
                if index is None:
                    return
                made, options = mutant(seed, index), options_of(seed, index)
                if where not in made.source:
                    continue
                for kind, detail in lane.run(made, options, tally, lock):
                    finding = Finding(index, kind, detail, made, options, lane.record)
                    with lock:
                        tally.findings.append(finding)
                        if tell:
                            tell(finding)
                        if keep:
                            keep.mkdir(parents=True, exist_ok=True)
                            name = hashlib.sha256(made.data).hexdigest()[:8]
                            (keep / f"{index}-{kind.replace(' ', '-')}-{name}.dcm").write_bytes(made.data)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    with tempfile.TemporaryDirectory() as folder:
        lanes = [Lane(Path(folder) / str(number), planted, limit_s) for number in range(jobs)]
        try:
            threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for lane in lanes:
                lane.close()
    if errors:
        raise errors[0]
    tally.seconds = time.monotonic() - begun
    tally.findings.sort(key=lambda finding: finding.index)
    return tally
