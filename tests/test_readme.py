"""README.md shows what the code does: its table is made from the code's, its examples are run.

``python tests/test_readme.py`` writes the table into README.md after a change of `syntaxes.py` or `plugins.py`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import HTJ2KLossless

from benchmarks import readme
from gpuenc.cli.terminal import EXIT_MEANS, Exit
from gpuenc.plugins import default_plugins
from gpuenc.syntaxes import TABLE, Syntax

README = Path(__file__).resolve().parents[1] / "README.md"
SECTION = re.compile(r"(?<=<!-- syntaxes -->\n).*?(?=<!-- /syntaxes -->)", re.DOTALL)
LOSS = {"never": "lossless", "option": "lossless or lossy", "always": "lossy"}


def formats(syntax: Syntax) -> str:
    """Return which Photometric Interpretations are taken with which Bits Stored."""
    stored: dict[str, set[int]] = {}
    for row in syntax.rows:
        for name in row.photometric:
            stored.setdefault(name, set()).update(row.stored)
    names: dict[str, list[str]] = {}
    for name, bits in stored.items():
        names.setdefault(ranges(bits), []).append(name)
    text = "; ".join(f"{', '.join(group)}: {bits}" for bits, group in names.items())
    return text.replace("MONOCHROME1, MONOCHROME2", "MONOCHROME1/2")


def ranges(numbers: set[int]) -> str:
    """Return numbers as people write them: {1, 2, 3, 8} as 1–3, 8."""
    firsts = [number for number in sorted(numbers) if number - 1 not in numbers]
    lasts = [number for number in sorted(numbers) if number + 1 not in numbers]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(firsts, lasts, strict=True))


def line(syntax: Syntax) -> str:
    plugins = (
        ", ".join(plugin.label for plugin in default_plugins(syntax.uid)) if syntax.encapsulated else "none needed"
    )
    return f"| `{syntax.name}` | {syntax.uid} | {LOSS[syntax.loss]} | {formats(syntax)} | {plugins} |"


def table() -> str:
    head = ("Name", "Transfer Syntax UID", "Samples", "Photometric Interpretation: Bits Stored", "Plug-ins")
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *map(line, TABLE), ""])


def blocks(language: str) -> str:
    """Return the fenced blocks of that language, one after the other."""
    return "".join(re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a folder with a study in it, which is also the current directory, as the quick starts expect it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copy(get_testdata_file(name, download=False), tmp_path / "study" / name)
    return tmp_path


def test_table_is_the_codes_own():
    assert SECTION.search(README.read_text(encoding="utf-8"))[0] == table()


def test_exit_codes_are_those_of_the_command():
    text = README.read_text(encoding="utf-8").partition("| Exit code | Meaning |\n|---|---|\n")[2].partition("\n\n")[0]
    assert text == "\n".join(f"| {code:d} | {means} |" for code, means in EXIT_MEANS.items())
    assert set(EXIT_MEANS) == set(Exit)


def test_figures_are_those_of_committed_results():
    found = readme.SECTION.search(README.read_text(encoding="utf-8"))
    assert found
    assert found[0] == readme.section()


def test_python_shown(study):
    source = dcmread(study / "study" / "CT_small.dcm")
    names: dict = {}
    exec(compile(blocks("python"), "README.md", "exec"), names)
    assert len(names["codestreams"]) == 100
    assert names["codestream"]
    written = dcmread(study / "ct-htj2k.dcm")
    assert written.file_meta.TransferSyntaxUID == HTJ2KLossless
    assert written.SOPInstanceUID == source.SOPInstanceUID


def test_commands_shown(study):
    gpuenc = Path(sys.executable).with_name("gpuenc")
    for command in blocks("console").splitlines():
        prompt, program, *arguments = shlex.split(command, comments=True)
        assert (prompt, program) == ("$", "gpuenc")
        run = subprocess.run([gpuenc, *arguments], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    for name in ("CT_small.dcm", "MR_small.dcm"):
        assert dcmread(sorted((study / "out").rglob(name))[0]).file_meta.TransferSyntaxUID == HTJ2KLossless


if __name__ == "__main__":
    README.write_text(SECTION.sub(lambda _: table(), README.read_text(encoding="utf-8")), encoding="utf-8")
