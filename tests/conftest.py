"""How the suite is spread over processes: see `make test`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HERE = os.path.dirname(__file__)
# What takes longest, longest first: begun first, or a process would be alone with it at the end. pytest-xdist takes
# files in the order of their number of tests otherwise, and these have few.
LONGEST = (
    "cuda/test_compiles.py",
    "archive/test_every_file.py",
    "fuzz/test_plants.py",
    "fuzz/test_slice.py",
    "archive/test_workers.py",
    "archive/test_cluster.py",
    "test_cli.py",
    "archive/test_memory.py",
    "cpu/test_encoders.py",
    "faults",
    "conformance",
    "simt",
    "cpu",
)


def rank(path: Path) -> int:
    """Return the place of a file among those that take long, or behind them."""
    name = os.path.relpath(path, HERE).replace(os.sep, "/")
    return next((at for at, longest in enumerate(LONGEST) if name == longest or name.startswith(f"{longest}/")), 99)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: tests also wait, for disks and for processes that they have started."""
    return (os.cpu_count() or 1) + 1
