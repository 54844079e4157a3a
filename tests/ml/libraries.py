"""Libraries of several GB, which `make test-ml` installs; elsewhere what needs them is skipped.

GPUENC_REQUIRE_ML=1    what is missing is a failure and not a skip
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import Any

import pytest


def needed(name: str) -> Any:
    """Return a library, or skip the module that asks."""
    if os.environ.get("GPUENC_REQUIRE_ML") == "1":
        return _imported(name)
    try:
        return _imported(name)
    except ImportError:
        pytest.skip(f"{name} is not installed: make test-ml", allow_module_level=True)


def _imported(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say of each other while they are imported
        return import_module(name)
