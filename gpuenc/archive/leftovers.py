"""What files in work leave behind when their process is killed: temporary files that nobody will finish."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from gpuenc.archive.addresses import is_remote
from gpuenc.archive.inplace import backup_of
from gpuenc.dicom.atomic import TEMPORARY_SUFFIX, temporaries_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuenc.archive.request import Job
    from gpuenc.archive.scan import Item


# Of a run on a cluster the workers, of which nobody knows how many there will be, have tokens that begin like its own.
_RUN_DIGITS, _OF_RUN = 8, "0000"


def new_token(*, cluster: bool) -> str:
    """Return a token for a run: twelve hexadecimal digits, of which a cluster's workers have the last four."""
    token = os.urandom(6).hex()
    return token[:_RUN_DIGITS] + _OF_RUN if cluster else token


def token_of_worker(token: str, number: int) -> str:
    """Return the token of a cluster's worker, counted from 1: two of them never write to the same temporary file."""
    return f"{token[:_RUN_DIGITS]}{number % 0xFFFF + 1:04x}"


def remove_leftovers(items: Iterable[Item], job: Job, token: str) -> None:
    """Remove temporary files that the run with this token made of these outputs, and of their backups.

    Their names are known, so no folder is looked into: what others do there, such as other shards, is not even seen.
    But for a run on a cluster, of which only the beginning of the workers' tokens is known.
    """
    items = (item for item in items if not is_remote(item.place))  # a store shows no output that is not complete
    if token.endswith(_OF_RUN):
        _remove_of_cluster(items, job, token)
        return
    for item in items:
        backup = backup_of(item, job)
        for path in (item.place, os.fspath(backup)) if backup else (item.place,):
            for temporary in temporaries_of(path, token):
                with contextlib.suppress(OSError):
                    os.unlink(temporary)


def _remove_of_cluster(items: Iterable[Item], job: Job, token: str) -> None:
    names: dict[str, list[str]] = {}
    for item in items:
        backup = backup_of(item, job)
        for path in (item.place, os.fspath(backup)) if backup else (item.place,):
            folder, temporary = os.path.split(temporaries_of(path, token[:_RUN_DIGITS])[0])
            if folder not in names:
                with contextlib.suppress(OSError):
                    names[folder] = [name for name in os.listdir(folder) if name.endswith(TEMPORARY_SUFFIX)]
            beginning = temporary.removesuffix(TEMPORARY_SUFFIX)
            for name in names.get(folder, ()):
                if name.startswith(beginning):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(folder, name))
