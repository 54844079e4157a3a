"""Every kernel has a row in kernels/README.md, a twin on the CPU, and a comparison with it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from gpuenc.cuda.kernels import SOURCES
from tests.simt.cases import COMPARISONS
from tests.simt.shim import kernel_names

KERNELS = Path(__file__).parents[2] / "kernels"


def violations(sources: dict[str, str], readme: str, compared: set[str]) -> list[str]:
    """Return what the kernels in `sources`, texts by name, lack, one line each."""
    names = [name for text in sources.values() for name in kernel_names(text)]
    bad = [f"{name} is defined twice" for name in sorted({name for name in names if names.count(name) > 1})]
    rows: dict[str, str] = {}
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 7 and cells[0].startswith("`"):
            twin = cells[-1].strip("`")
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), twin)
    bad += [f"{name} has no row in kernels/README.md" for name in names if name not in rows]
    bad += [f"kernels/README.md has a row of {name}, which is not there" for name in rows if name not in names]
    bad += [f"{name} is compared with nothing" for name in names if name not in compared]
    for name, twin in rows.items():
        module, _, function = twin.rpartition(".")
        if "/" in twin:  # a reference that only the tests have
            if not (KERNELS.parent / twin).is_file():
                bad.append(f"{name} has the twin {twin}, which is not there")
        elif not hasattr(importlib.import_module(f"gpuenc.{module}"), function):
            bad.append(f"{name} has the twin {twin}, which is not there")
    for source, text in sources.items():
        head = text[: text.index("#include")]
        wanted = ("Standard", "Twin", "Kernels", "Launch", "Bytes", "Limits")
        bad += [f"{source}.cu says nothing of its {word}" for word in wanted if f"// {word} " not in head]
        if len(re.findall("__global__", text)) != len(kernel_names(text)):
            bad.append(f"{source}.cu has a __global__ whose name is not understood")
    return bad


def ours() -> tuple[dict[str, str], str, set[str]]:
    sources = {path.stem: path.read_text(encoding="utf-8") for path in KERNELS.glob("*.cu")}
    return sources, (KERNELS / "README.md").read_text(encoding="utf-8"), set(COMPARISONS)


def test_every_kernel_has_a_row_a_twin_and_a_comparison() -> None:
    assert violations(*ours()) == []
    assert set(ours()[0]) == set(SOURCES)


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda s, r, c: (s, r.replace("`planar_16` ", ""), c), "planar_16 has no row"),
        (lambda s, r, c: (s, r.replace("`planar_16`", "`planar_17` `planar_16`"), c), "planar_17, which is not there"),
        (
            lambda s, r, c: (s, r.replace("`cpu.samples.planar`", "`cpu.samples.plain`"), c),
            "the twin cpu.samples.plain",
        ),
        (lambda s, r, c: (s, r.replace("htj2k_reference.cpp`", "gone.cpp`"), c), "the twin tests/simt/gone.cpp"),
        (lambda s, r, c: (s, r, c - {"crc32"}), "crc32 is compared with nothing"),
        (
            lambda s, r, c: ({**s, "b": s["compare"].replace("crc32(", "align_bits(")}, r, c),
            "align_bits is defined twice",
        ),
        (lambda s, r, c: ({**s, "colour": s["colour"].replace("// Bytes ", "// ")}, r, c), "nothing of its Bytes"),
        (lambda s, r, c: ({**s, "colour": s["colour"] + "__global__ int odd()"}, r, c), "not understood"),
    ],
)
def test_what_is_missing_is_found(edit: object, found: str) -> None:
    assert any(found in line for line in violations(*edit(*ours())))  # type: ignore[operator]
