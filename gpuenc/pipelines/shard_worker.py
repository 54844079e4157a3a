"""What runs in the process that makes samples for `gpuenc shards`; see `pipelines/shard_process.py`."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from gpuenc.archive.processes import begun
from gpuenc.errors import GpuencError
from gpuenc.pipelines.shard_sources import SampleStream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from gpuenc.pipelines.shard_sources import Encoding, Opened


def main(file: int) -> None:
    """Make samples as asked for through the pipe `file`, until they, or the pipe, come to an end."""
    pipe = begun(file)
    sending = threading.Lock()

    def say(*message: object) -> None:
        with sending:
            try:
                pipe.send(message)
            except OSError:
                os._exit(0)  # nobody listens any more

    with contextlib.suppress(EOFError, OSError):
        asked, *about = pipe.recv()
        threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
        try:
            (_stream if asked == "stream" else _alone)(say, *about)
        except (GpuencError, RuntimeError, ValueError, OSError) as error:
            say("failed", error)
    # Not through Python's own end, which would wait for threads that hang.
    os._exit(0)


def _end_with(pipe: Connection) -> None:
    """End this process when whoever asked is gone, whatever it is busy with."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os._exit(0)


class _Told(SampleStream):
    """A stream that says which file it opens before it does."""

    say: Callable[..., None]

    def _open(self, number: int, first: int) -> Opened:
        self.say("opened", number)
        return super()._open(number, first)


def _stream(
    say: Callable[..., None],
    paths: Sequence[Path],
    encoding: Encoding,
    start: tuple[int, int],
    without: Collection[int],
) -> None:
    """Say every sample, in order; before it what gave none, up to there."""
    stream = _Told(paths, encoding, start, without=without)
    stream.say = say
    told = 0

    def tell() -> None:
        nonlocal told
        new = stream.troubles[told:]
        told += len(new)
        for trouble in new:
            say("trouble", trouble)

    for sample in stream:
        tell()
        say("sample", sample)
    tell()
    say("end", stream.lost)


def _alone(say: Callable[..., None], suspects: Sequence[tuple[int, Path]], encoding: Encoding) -> None:
    """Do files one after the other, nothing else at the same time, and keep nothing."""
    for number, path in suspects:
        say("begin", number)
        for _ in SampleStream([path], encoding):
            say("alive")
        say("fine", number)
