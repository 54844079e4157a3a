"""Results as they are written: what every document of them begins with, and what its file is called."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

from gpuenc.bench import machine

if TYPE_CHECKING:
    from pathlib import Path


def heading(form: str) -> dict[str, Any]:
    """Return the format, the time, and what the figures of a document that begins now belong to."""
    return {
        "format": form,
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }


def write(results: dict[str, Any], folder: Path, kind: str = "") -> Path:
    """Write a document into a folder, which is made; return its path, named by date, machine and kind."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{results['measured_at'][:10]}-{machine.slug(results['machine'])}{kind}.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
