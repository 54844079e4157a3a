"""Batches that span files: many threads call, and few encoders, which live as long as the job, are called.

A GPU wants hundreds of frames at once, and an encoder on it takes long to open. A file of one frame, encoded by a
thread of its own, offers neither. So a plug-in on a GPU is put behind a `Gathered`, whose `BatchEncoder`s cost nothing:
they wait until a lane, a thread with a real encoder of its own, has taken their frames among those of other callers.

A lane that is idle takes at once what waits, all of one format, and while it encodes the next batch gathers. The format
whose oldest call has waited longest comes first, so none is forgotten. A call is never divided, its results come back
in its order, and what goes wrong with a batch is told to those who have frames in it, and to nobody else.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from gpuenc.gathering.calls import Call
from gpuenc.gathering.pool import Pool, closed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from gpuenc.frames import Encoded, Failure, Frame
    from gpuenc.plugins import BatchEncoder, Limits, Plugin, Verdict
    from gpuenc.targets import Target

# How long an idle lane waits for callers that have opened an encoder and have not called it yet: what reading a slice
# takes, and little against a batch.
LINGER_S = 0.002


class Gathering:
    """The plug-ins of one job in one process: those on a GPU gathered over all files, the others as they are.

    Opening an encoder of a CPU plug-in takes microseconds, and its batches gain nothing from being large, so each file
    opens its own.

    Parameters
    ----------
    plugins : sequence of Plugin
        In the order in which they are tried; see `gpuenc.registry.chain`.
    linger_s : float
        As for `Gathered`.

    Attributes
    ----------
    plugins : tuple of Plugin
        In the same order, for `gpuenc.engine.encode_frames` in any number of threads until `close`.
    """

    def __init__(self, plugins: Sequence[Plugin], *, linger_s: float = LINGER_S) -> None:
        self._gathered: list[Gathered] = []
        chosen = []
        for plugin in plugins:
            if plugin.device == "gpu":
                self._gathered.append(Gathered(plugin, linger_s=linger_s))
                plugin = self._gathered[-1].plugin
            chosen.append(plugin)
        self.plugins = tuple(chosen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all real encoders; see `Gathered.close`."""
        for gathered in self._gathered:
            gathered.close()


class Gathered:
    """One plug-in whose encoders many threads share.

    The encoders that `plugin` opens have the limits of the real ones, and that holds the engine's account of memory:
    a file pays for the frames it hands over, and the peak of a batch is no more than what its files have paid together.
    A file on one thread fills one lane whatever the limits say; a large one may fill several.

    Parameters
    ----------
    plugin : Plugin
        Opened at most `Limits.lanes` times for each target; each real encoder is opened, used and closed by one thread.
    linger_s : float
        Longest that an idle lane waits for callers that are known to be on their way; 0 for never.

    Attributes
    ----------
    plugin : Plugin
        Of the same label and device. Opening it raises what opening the real one raised, encoding what the real one
        raised. Its encoders are used by one thread at a time each, as all are.
    """

    def __init__(self, plugin: Plugin, *, linger_s: float = LINGER_S) -> None:
        self.plugin = replace(plugin, open=self._open)
        self._real, self._linger_s = plugin, linger_s
        self._pools: dict[Target, Pool] = {}
        self._closed = False
        # Reentrant, as that of a pool: the collector may close a proxy in a thread that holds it.
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the real encoders, each after the batch that it is encoding; callers that still wait get an error.

        May be called again, as after a Ctrl-C that ended the first call: from then on no lane takes anything new.
        """
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for pool in pools:
            pool.stop()
        for pool in pools:
            pool.join()

    def _open(self, target: Target) -> BatchEncoder:
        with self._lock:
            if self._closed:
                raise closed(self._real)
            if target not in self._pools:
                self._pools[target] = Pool(self._real, target, self._linger_s)
            pool = self._pools[target]
        limits = pool.limits()
        return _VerifyingProxy(pool, limits) if pool.verifies else _Proxy(pool, limits)


class _Proxy:
    """What a caller holds for a `BatchEncoder`; closing it leaves the real ones open."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self.limits = limits
        self._pool = pool
        self._expected = True
        pool.expect(1)

    def encode(self, frames: Sequence[Frame]) -> list[Encoded | Failure]:
        """Return what the real encoder returned for these frames, or raise what it raised."""
        return cast("list[Encoded | Failure]", self._called(frames)) if frames else []

    def _called(self, frames: Sequence[Frame], codestreams: Sequence[bytes] = ()) -> list[Encoded | Failure | Verdict]:
        call = Call(frames, codestreams)
        expected, self._expected = self._expected, False
        try:
            self._pool.put(call, expected=expected)
            return call.outcome.result()
        finally:
            if not call.outcome.known:  # this thread was interrupted, and nobody wants the results
                self._pool.withdraw(call)
            del call, frames, codestreams  # the traceback of an error that other callers share must not keep them

    def close(self) -> None:
        """Leave; the real encoders stay open."""
        if self._expected:
            self._expected = False
            self._pool.expect(-1)


class _VerifyingProxy(_Proxy):
    """What a caller holds for a `BatchEncoder` that can decode and compare where its samples are."""

    def verify(self, frames: Sequence[Frame], codestreams: Sequence[bytes]) -> list[Verdict | Failure]:
        """Return what a real encoder said of these codestreams, gathered with those of others, or raise what it raised.

        It need not be the encoder, nor the device, that made them.
        """
        return cast("list[Verdict | Failure]", self._called(frames, codestreams)) if frames else []
