"""Samples made in a process of its own: a codec that crashes or hangs costs the file that made it, and no other.

This process writes shards; the other one opens files and encodes. When it dies, or says nothing for too long, the files
that it had opened and not brought to an end are suspects: a fresh process does each of them alone, and one that ends
that process too is left out. Then another goes on behind the last sample that came, so shards have the same bytes as
if the file had been left out from the beginning.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter, deque
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from gpuenc.archive.processes import how_it_ended, started
from gpuenc.errors import JobError
from gpuenc.pipelines.shard_sources import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence
    from pathlib import Path

    from gpuenc.pipelines.shard_sources import Encoding, Sample

# Far more than one frame takes, or the start of a process with a GPU.
_SILENT_S, _BYTES_PER_S = 300.0, 128 << 10
# How often this process looks whether it is to stop. Silence is counted in looks, so that a process that was itself
# stopped for an hour does not take the other for hung.
_LOOK_S = 0.25
_CLOSE_S = 10.0
# How often a file may end a process that does nothing else before it is left out.
_TRIES_ALONE = 2
# Ends of processes without a sample, and without a file that explains them, one after the other.
_MOST_UNEXPLAINED = 3
_MODULE = "gpuenc.pipelines.shard_worker"


class WorkerStream:
    """`SampleStream`, with all that opens and encodes in another process.

    Parameters
    ----------
    paths, encoding, start, without, stopped
        As for `SampleStream`; `stopped` also ends it between samples.
    silent_s : float
        For how long the process may say nothing, besides the time that the size of its files needs.

    Attributes
    ----------
    troubles, lost
        As for `SampleStream`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        encoding: Encoding,
        start: tuple[int, int] = (0, 0),
        *,
        without: Collection[int] = (),
        stopped: Callable[[], bool] = lambda: False,
        silent_s: float = _SILENT_S,
    ) -> None:
        self._paths, self._encoding, self._next = paths, encoding, start
        self._without, self._stopped, self._silent_s = set(without), stopped, silent_s
        self._opened: set[int] = set()
        self._unexplained = 0
        self.troubles: list[Trouble] = []
        self.lost: Trouble | None = None

    def __iter__(self) -> Generator[Sample]:
        """Yield every sample."""
        ended = False
        while not ended and self.lost is None and not self._stopped():
            with closing(_Process(self._stopped)) as process:
                self._opened.clear()
                process.send("stream", list(self._paths), self._encoding, self._next, frozenset(self._without))
                ended = yield from self._samples(process)

    def _samples(self, process: _Process) -> Generator[Sample, None, bool]:
        """Yield what a process makes; return whether that is all there is."""
        while True:
            kind, *rest = process.next(self._patience_s(self._opened))
            if kind == "opened":
                self._opened.add(rest[0])
            elif kind == "trouble":
                self.troubles.append(rest[0])
            elif kind == "sample":
                sample = rest[0]
                self._next, self._unexplained = (sample.file, sample.frame + 1), 0
                yield sample
            elif kind == "end":
                self.lost = rest[0]
                return True
            elif kind == "stopped":
                return True
            elif kind == "failed":
                raise rest[0]
            else:
                self._after_an_end(*rest)
                return False

    def _after_an_end(self, how: str) -> None:
        """Find out which files end processes, and leave them out; what is behind the last sample is found again."""
        file, frame = self._next
        self.troubles = [
            each for each in self.troubles if each.file in self._without or (each.file, each.frame or 0) < self._next
        ]
        suspects = sorted(number for number in self._opened if number >= file)
        guilty = self._alone(suspects)
        for trouble in guilty:
            self._without.add(trouble.file)
            if trouble.file == file and frame:
                self.lost = trouble  # samples of it have been yielded, which are of no use then
            else:
                self.troubles.append(trouble)
        self._unexplained = 0 if guilty else self._unexplained + 1
        self._demand_life(how)

    def _alone(self, suspects: Sequence[int]) -> list[Trouble]:
        guilty: list[Trouble] = []
        waiting, tries = deque(suspects), Counter[int]()
        while waiting and not self._stopped():
            begun: int | None = None
            with closing(_Process(self._stopped)) as process:
                process.send("alone", [(number, self._paths[number]) for number in waiting], self._encoding)
                while waiting:
                    kind, *rest = process.next(self._patience_s([waiting[0]]))
                    if kind == "begin":
                        begun = rest[0]
                    elif kind == "fine":
                        waiting.popleft()
                        begun = None
                    elif kind == "failed":
                        raise rest[0]
                    elif kind in ("died", "hung"):
                        break
                    elif kind == "stopped":
                        return guilty
                else:
                    return guilty
            if begun is None:
                self._unexplained += 1
                self._demand_life(rest[0])
                continue
            tries[begun] += 1
            if kind == "hung" or tries[begun] >= _TRIES_ALONE:
                guilty.append(_trouble(begun, kind, rest[0]))
                waiting.popleft()
        return guilty

    def _demand_life(self, how: str) -> None:
        if self._unexplained >= _MOST_UNEXPLAINED:
            raise JobError(
                f"{self._unexplained} processes in a row made no sample; the last one {how}", code="workers-failed"
            )

    def _patience_s(self, numbers: Collection[int]) -> float:
        return self._silent_s + max((_size(self._paths[number]) for number in numbers), default=0) / _BYTES_PER_S


class _Process:
    """A process that makes samples.

    Raises
    ------
    JobError
        ``workers-failed``: it cannot be started.
    """

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped, self._heard = stopped, False
        try:
            self._process, self._pipe = started(_MODULE, {"GPUENC_WORKER": "1", "GPUENC_WORKERS": "1"})
        except OSError as error:
            raise JobError(f"a worker cannot be started: {error.strerror}", code="workers-failed") from None

    def send(self, *message: Any) -> None:
        """Ask for something; if nobody is there, `next` tells."""
        try:
            self._pipe.send(message)
        except OSError:
            self._process.kill()

    def next(self, patience_s: float) -> tuple[Any, ...]:
        """Return what it says next; ``("died", how)``, ``("hung", how)`` or ``("stopped",)`` where it does not."""
        # It may take a minute to start.
        patience_s = patience_s if self._heard else max(patience_s, _SILENT_S)
        silent_s = 0.0
        try:
            while not self._pipe.poll(_LOOK_S):
                if self._stopped():
                    return ("stopped",)
                silent_s += _LOOK_S
                if silent_s > patience_s:
                    return ("hung", "said nothing for too long")
            message: tuple[Any, ...] = self._pipe.recv()
        except (EOFError, OSError):
            return ("died", how_it_ended(self._process.wait()))
        self._heard = True
        return message

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel; it has no more to say
            self._process.wait(_CLOSE_S)


def _trouble(number: int, kind: str, how: str) -> Trouble:
    if kind == "hung":
        return Trouble(number, "worker-hung", "it kept the process that worked on it busy for too long")
    return Trouble(number, "worker-crashed", f"it ended each process that worked on it; the last one {how}")


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
