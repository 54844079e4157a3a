"""Defects to put into gpuenc, each of which a campaign must find."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PLANTS: dict[str, Callable[[], None]] = {}
