"""The files of pydicom and pydicom-data, by path."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import data_store
import pydicom
from pydicom.data import get_testdata_file

from gpuenc.dicom.source import DicomFile
from gpuenc.errors import GpuencError

SUFFIXES_OF_OTHERS = {".py", ".pyc", ".json", ".txt", ".md", ".gz", ".icc", ".dump"}


def named(name: str) -> str:
    """Return the path of one of pydicom's files, which must be installed."""
    path = get_testdata_file(name, download=False)
    assert path is not None, f"{name} is not installed"
    return str(path)


@cache
def every() -> tuple[Path, ...]:
    """Return every file of both packages, odd ones included."""
    roots = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent)
    found = (path for root in roots for path in sorted(root.rglob("*")))
    return tuple(path for path in found if path.is_file() and path.suffix not in SUFFIXES_OF_OTHERS)


@cache
def readable() -> tuple[Path, ...]:
    """Return those that `DicomFile` opens and whose Pixel Data is complete."""
    found = []
    for path in every():
        try:
            with DicomFile(path) as source:
                assert source.pixel_bytes > 0
            found.append(path)
        except GpuencError:
            continue
    return tuple(found)
