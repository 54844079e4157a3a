"""Where an output may differ from what other people's code reads in its damaged source, with the reason of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.mutations import Mutant


def tolerated(
    kind: str, detail: str, made: Mutant, options: dict[str, Any], record: dict[str, Any], verdict: dict[str, Any]
) -> str:
    """Return why this is no finding; empty if it is one."""
    return ""
