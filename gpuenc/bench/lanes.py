"""A plug-in whose encoders stay open from round to round: what a job pays once is not what a frame costs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from gpuenc.plugins import BatchEncoder, Plugin
    from gpuenc.targets import Target


class Kept:
    """Opens encoders of a plug-in and keeps them; a context manager that closes them.

    Parameters
    ----------
    plugin : Plugin
        The plug-in. The one to use, `plugin`, counts as proven, since the benchmark decodes what it makes itself,
        outside of what it times.
    """

    def __init__(self, plugin: Plugin) -> None:
        self._of = plugin
        self._idle: list[BatchEncoder] = []
        self._lock = threading.Lock()
        self.plugin = replace(plugin, open=self._open, proven=True)
        self.as_it_is = replace(plugin, open=self._open)

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            self._idle.pop().close()

    def _open(self, target: Target) -> Any:
        with self._lock:
            encoder = self._idle.pop() if self._idle else None
        return _Lent(encoder or self._of.open(target), self)

    def back(self, encoder: BatchEncoder) -> None:
        """Take an encoder back."""
        with self._lock:
            self._idle.append(encoder)


class _Lent:
    """An encoder that goes back when it is closed; everything else is its own."""

    def __init__(self, encoder: BatchEncoder, owner: Kept) -> None:
        self._encoder, self._owner = encoder, owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def close(self) -> None:
        self._owner.back(self._encoder)
