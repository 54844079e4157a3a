"""Codes have one home: each literal in the package is in the table, and each row is used."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import gpuenc
from gpuenc import errors

ROOT = Path(errors.__file__).parent
_CALLS = {"Failure": 1, "_record": 3, "_copied": 3}


def literals() -> set[str]:
    """Return every string that the package's code gives as a code."""
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                given = [word.value for word in node.keywords if word.arg in ("code", "reason")]
                place = _CALLS.get(name)
                given += node.args[place : place + 1] if place else []
                found |= {leaf.value for value in given for leaf in ast.walk(value) if _is_code(leaf)}
            elif isinstance(node, ast.ClassDef):
                for line in node.body:
                    if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "code":
                        found.add(ast.literal_eval(line.value))
    return found


def _is_code(node: ast.AST) -> bool:
    text = getattr(node, "value", None)
    words = r"[a-z]+(-[a-z]+)+|video|truncated"
    return isinstance(node, ast.Constant) and isinstance(text, str) and re.fullmatch(words, text) is not None


def test_every_code_is_in_the_table():
    assert len(literals()) > 25
    assert not literals() - set(errors.CODES)


def test_every_row_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py") if path.name != "errors.py")
    classes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    assert not [code for code in errors.CODES if f'"{code}"' not in text and code not in classes]


@pytest.mark.parametrize("code", errors.CODES)
def test_codes_are_words_for_scripts(code):
    assert code == code.lower()
    assert code.replace("-", "").isalpha()


def test_modules_that_the_readme_names_are_there_once_gpuenc_is_imported():
    said = subprocess.run(
        [sys.executable, "-c", "import gpuenc; print(len(gpuenc.errors.CODES))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(said.stdout) == len(errors.CODES)


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
def test_without_torch_the_extra_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gpuenc\[torch\]'"):
        gpuenc.torch  # noqa: B018
