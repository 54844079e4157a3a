"""What files in work leave behind when their process is killed: temporary files that nobody will finish."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from typing import TYPE_CHECKING

from gpuenc.archive.inplace import backup_of
from gpuenc.dicom.atomic import temporaries_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item


def remove_leftovers(items: Iterable[Item], job: Job) -> None:
    """Remove temporary files of these outputs, and of their backups; those of others, who may be at work, stay."""
    folders: dict[str, list[str]] = defaultdict(list)
    for item in items:
        backup = backup_of(item, job)
        for path in (item.destination, backup) if backup else (item.destination,):
            folder, _ = os.path.split(path)
            folders[folder].append(os.fspath(path))
    for folder, paths in folders.items():
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(folder) if name.startswith(".")]
            for output in paths:
                for name in temporaries_of(output, names):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(folder, name))
