"""What `gpuenc bench` found on this machine: from which frame size on a GPU beats its cores.

The last finding for each transfer syntax is kept in the user's cache folder (``$XDG_CACHE_HOME``, or ``~/.cache``), one
file for each kind of machine: processor, cores, GPUs. `device="fastest"` and `gpuenc doctor` read it. A file that is
missing, damaged or of another machine means that nothing was measured; it is never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuenc.cuda.identity import device_names
from gpuenc.plugins import usable_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuenc.plugins import Plugin

_FORMAT = "gpuenc-measured/1"
# More pixels than any frame has: a plug-in that never pays.
NEVER = sys.maxsize


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a GPU's plug-in beats the cores, for one transfer syntax and the largest batch that was measured.

    Parameters
    ----------
    syntax : str
        Name of the transfer syntax.
    plugin : str
        Label of the plug-in.
    from_side : int or None
        Side in pixels of the smallest square frame from which on it is faster; None where no size measured is enough.
    smallest, largest : int
        Sides in pixels of the frames that were measured.
    batch : int
        Frames in a call.
    noisy : bool
        Rounds differed by more than 20 % somewhere.
    measured_at : str
        When, in ISO 8601.
    """

    syntax: str
    plugin: str
    from_side: int | None
    smallest: int
    largest: int
    batch: int
    noisy: bool
    measured_at: str

    @property
    def from_pixels(self) -> int:
        """Pixels of the smallest frame from which on it is faster; `NEVER` where none is."""
        if self.from_side is None:
            return NEVER
        # Smaller frames than those that were measured, where all of these pay, are taken to pay too.
        return 0 if self.from_side <= self.smallest else self.from_side**2

    def __str__(self) -> str:
        noisy = ", noisy" if self.noisy else ""
        about = f"{self.syntax}, batches of {self.batch}, {self.measured_at[:10]}{noisy}"
        if self.from_side is None:
            return f"{about}: the cores are faster than {self.plugin} for frames of {self.smallest}² to {self.largest}²"
        if self.from_side <= self.smallest:
            return f"{about}: {self.plugin} is faster than the cores for frames of {self.smallest}² to {self.largest}²"
        return f"{about}: the cores are faster than {self.plugin} for frames below {self.from_side}²"


def findings() -> tuple[Finding, ...]:
    """Return what was measured on this machine."""
    return _read(_path())


def from_pixels(syntax: str, plugin: str) -> int:
    """Return how many pixels a frame must have for a GPU's plug-in to be the faster one; 0 where nothing is known."""
    return next((one.from_pixels for one in _known() if (one.syntax, one.plugin) == (syntax, plugin)), 0)


def ranked(syntax: str, plugins: Sequence[Plugin]) -> list[Plugin]:
    """Return plug-ins, those of GPUs knowing from which frame size on they are the faster ones."""
    return [
        replace(plugin, from_pixels=from_pixels(syntax, plugin.label)) if plugin.device == "gpu" else plugin
        for plugin in plugins
    ]


def keep(results: dict[str, Any]) -> Path | None:
    """Keep what results of `gpuenc bench` say of this machine's GPUs; return where, or None where there is nothing.

    Raises
    ------
    OSError
        The cache folder cannot be written.
    """
    new = _findings_of(results)
    if not new:
        return None
    path = _path()
    replaced = {(one.syntax, one.plugin) for one in new}
    both = [one for one in _read(path) if (one.syntax, one.plugin) not in replaced] + new
    text = json.dumps({"format": _FORMAT, "machine": _machine(), "findings": [asdict(one) for one in both]}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".measured-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _known.cache_clear()
    return path


@cache
def _known() -> tuple[Finding, ...]:
    # Once for each process: plug-ins are chosen for every file.
    return findings()


def _findings_of(results: dict[str, Any]) -> list[Finding]:
    measured = [point for point in results["sweep"] if point["status"] == "measured" and point["device"] == "gpu"]
    found: dict[tuple[str, str], Finding] = {}
    for one in sorted(results["crossovers"], key=lambda one: int(one["batch"])):  # the largest batch stays
        key = one["syntax"], one["plugin"]
        points = [
            point for point in measured if (point["syntax"], point["plugin"], point["batch"]) == (*key, one["batch"])
        ]
        sides = [point["side"] for point in points]
        if sides:
            noisy = any(point["over_cores"]["noisy"] for point in points if "over_cores" in point)
            found[key] = Finding(
                *key, one["from_side"], min(sides), max(sides), one["batch"], noisy, results["measured_at"]
            )
    return list(found.values())


def _read(path: Path) -> tuple[Finding, ...]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT or document["machine"] != _machine():
            return ()
        return tuple(Finding(**one) for one in document["findings"] if _is_sound(one))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ()


def _is_sound(one: dict[str, Any]) -> bool:
    sides: Sequence[object] = (one["smallest"], one["largest"], one["batch"])
    return all(type(side) is int and side > 0 for side in sides) and type(one["from_side"]) in (int, type(None))


def _path() -> Path:
    asked = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path is to be ignored (XDG Base Directory Specification).
    root = Path(asked) if os.path.isabs(asked) else Path("~/.cache").expanduser()
    name = hashlib.sha256(json.dumps(_machine()).encode()).hexdigest()[:16]
    return root / "gpuenc" / f"measured-{name}.json"


def _machine() -> dict[str, Any]:
    """Return what makes figures comparable: no name of the machine, which a shared home would not need either."""
    return {"cpu": _processor(), "cores": usable_cores(), "gpus": list(device_names())}


@cache
def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
