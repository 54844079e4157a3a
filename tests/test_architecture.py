"""The rules of ARCHITECTURE.md, read off the source with `ast`; each rule is shown to catch a planted violation."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Which rooms a room may use. A room is a module or a package directly under gpuenc/; inside itself it may use all.
DATA = {"errors", "frames", "syntaxes", "targets", "coding", "codestream"}
PLUGINS = DATA | {"plugins"}
ENGINE = PLUGINS | {"batching", "chain", "cpu", "verification"}
ENCODER = ENGINE | {"devices", "engine", "dicom", "keywords", "measured"}
FRONT = ENCODER | {"encoder", "registry"}
MAY_USE = {
    "errors": set(),
    "keywords": {"errors"},
    "_version": set(),
    "frames": set(),
    "syntaxes": {"errors"},
    "targets": {"errors", "syntaxes"},
    "coding": DATA - {"codestream"},
    "codestream": DATA,
    "batching": DATA,
    "plugins": DATA,
    "devices": PLUGINS,
    "measured": PLUGINS | {"cuda"},  # which GPUs there are
    "cpu": PLUGINS,
    "cuda": PLUGINS | {"cpu"},  # what the device refuses is prepared, and what it made is decoded, on the CPU
    "gathering": PLUGINS,
    "verification": PLUGINS | {"cpu"},
    "chain": PLUGINS | {"cpu", "verification"},
    "engine": ENGINE,
    "dicom": PLUGINS | {"cpu", "cuda", "devices"},  # arrays on a device are frames too
    "encoder": ENCODER,
    "registry": ENCODER | {"encoder"},
    "datasets": FRONT,
    "drop_in": FRONT,
    "doctor": FRONT | {"cuda", "measured"},
    "pipelines": FRONT | {"archive", "cuda"},
    "torch": {"errors", "pipelines"},
    "archive": FRONT | {"gathering"},
    "bench": FRONT | {"archive", "cuda"},
    "cli": FRONT | {"archive", "bench", "doctor", "pipelines"},
    "__main__": {"cli"},
    "__init__": {"datasets", "drop_in", "encoder", "errors", "pipelines", "registry"},
}

# Modules that only compute: no files, no threads, no devices.
PURE = ("syntaxes", "targets", "keywords", "coding", "codestream", "frames", "batching", "errors", "dicom.attributes")
IMPURE = {
    "asyncio", "concurrent", "cupy", "io", "mmap", "multiprocessing", "os", "pathlib", "queue", "shutil", "socket",
    "sqlite3", "subprocess", "tempfile", "threading",
}  # fmt: skip

# Packages that only some rooms, or modules, may import, so that the others stay free of them.
ONLY_IN = {
    "pydicom": (
        "dicom",
        "encoder",
        "registry",
        "datasets",
        "drop_in",
        "cpu.independent",
        "bench.files",
        "bench.cases",
        "pipelines.write_dicom",
    ),
    "av": ("cpu.independent",),
    "dask": ("archive.cluster",),
    "distributed": ("archive.cluster",),
    "micro_reader_codecs": ("cpu.independent",),
    "imagecodecs": ("cpu",),
    "cupy": ("cuda",),
    "nvidia": ("cuda",),
    "obstore": ("archive.stores",),
    "httpx": ("archive.dicomweb",),
    "torch": ("torch",),
    "typer": ("cli",),
    "matplotlib": ("bench.charts",),
    "rich": ("cli", "archive"),
}

MAX_LINES = 400
# File → why it may be longer.
LONGER: dict[str, str] = {}

TOP_LEVEL = ("gpuenc", "kernels", "tests", "benchmarks", "examples", ".ci")
TEXT_SUFFIXES = {"", ".cfg", ".cu", ".cuh", ".csv", ".html", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yml"}
FORBIDDEN_TEXT = {
    "a path of one machine": re.compile(r"(?<![\w.~-])/(?:work|root|home|Users|workspace|opt)/\w"),
    "a package index": re.compile(r"https?://[^\s\"'`)]*(?:/simple\b|/packages/|registry)|index-url\s*[= ]\s*\S"),
}


def modules(root: Path) -> dict[str, Path]:
    """Return every module under ``root/gpuenc`` by its dotted name without ``gpuenc.``."""
    package = root / "gpuenc"
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Return the absolute names a file imports, wherever in the file, `import_module("name")` included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names.add("relative import")
            else:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names.add(str(node.args[0].value))
    return names


def import_violations(root: Path) -> list[str]:
    """Return what breaks the rules on imports, one line each."""
    bad = []
    for module, path in modules(root).items():
        room = module.split(".")[0]
        names = imports(path)
        if room not in MAY_USE:
            bad.append(f"{module}: no such room in MAY_USE")
            continue
        for name in sorted(names):
            package, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if name == "relative import":
                bad.append(f"{module}: a relative import")
            elif package == "gpuenc" and other not in MAY_USE[room] | {room, "_version", "__version__"}:
                bad.append(f"{module} must not import {name}")
            elif package in ONLY_IN and not {room, module} & set(ONLY_IN[package]):
                bad.append(f"{module} must not import {package}")
            if package in IMPURE and any(module == pure or module.startswith(f"{pure}.") for pure in PURE):
                bad.append(f"{module} is pure and must not import {package}")
    return bad


def length_violations(root: Path) -> list[str]:
    """Return the modules that are too long without a reason."""
    lengths = {
        path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules(root).values()
    }
    return [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > MAX_LINES and name not in LONGER]


def text_violations(root: Path) -> list[str]:
    """Return the lines that belong to one machine and not to a repository."""
    files = [path for path in root.iterdir() if path.is_file()]
    files += [path for top in TOP_LEVEL for path in (root / top).rglob("*") if path.is_file()]
    bad = []
    for path in sorted(files):
        if path.suffix not in TEXT_SUFFIXES:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for what, pattern in FORBIDDEN_TEXT.items():
                if pattern.search(line):
                    bad.append(f"{path.relative_to(root).as_posix()}:{number} names {what}")
    return bad


def missing_paths(root: Path) -> list[str]:
    """Return what ARCHITECTURE.md names as a path, from the root or from gpuenc/, and is not there."""
    named = re.findall(r"`([\w./-]+)`", (root / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    paths = [name for name in named if "/" in name or re.search(r"\.(?:py|md|toml|cuh?)$", name)]
    return [name for name in paths if not ((root / name).exists() or (root / "gpuenc" / name).exists())]


CHECKS = (import_violations, length_violations, text_violations, missing_paths)


@pytest.mark.parametrize("check", CHECKS)
def test_repository_keeps_the_rule(check):
    assert check(ROOT) == []


def test_every_room_of_the_table_below_the_gpu_is_there():
    later = {"cuda", "pipelines"}
    assert set(MAY_USE) - later <= {module.split(".")[0] for module in modules(ROOT)}


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"ARCHITECTURE.md": "", "gpuenc/__init__.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("check", "files", "found"),
    [
        (import_violations, {"gpuenc/engine.py": "from gpuenc.dicom import source"}, "must not import gpuenc.dicom"),
        (import_violations, {"gpuenc/engine.py": "from gpuenc import dicom"}, "must not import gpuenc.dicom"),
        (import_violations, {"gpuenc/engine.py": "from gpuenc import compress"}, "must not import gpuenc.compress"),
        (import_violations, {"gpuenc/cpu/rle.py": "import gpuenc.engine"}, "must not import gpuenc.engine"),
        (import_violations, {"gpuenc/engine.py": "def f():\n    import pydicom.uid"}, "must not import pydicom"),
        (import_violations, {"gpuenc/cpu/decoders.py": "from pydicom import uid"}, "must not import pydicom"),
        (import_violations, {"gpuenc/engine.py": "import_module('cupy.cuda')"}, "must not import cupy"),
        (import_violations, {"gpuenc/archive/job.py": "from typer import run"}, "must not import typer"),
        (import_violations, {"gpuenc/encoder.py": "from . import engine"}, "a relative import"),
        (import_violations, {"gpuenc/utils.py": ""}, "no such room"),
        (import_violations, {"gpuenc/batching.py": "import threading"}, "is pure and must not import threading"),
        (import_violations, {"gpuenc/codestream/jpeg.py": "from io import BytesIO"}, "must not import io"),
        (import_violations, {"gpuenc/dicom/attributes.py": "import os.path"}, "must not import os"),
        (length_violations, {"gpuenc/engine.py": "pass\n" * 401}, "gpuenc/engine.py: 401 lines"),
        (text_violations, {"README.md": "cd " + "/".join(("", "home", "me", "x"))}, "README.md:1 names a path"),
        (text_violations, {".ci/run": "\npip --index-" + "url=x"}, ".ci/run:2 names a package index"),
        (text_violations, {"Makefile": "https" + "://host/api/simple"}, "Makefile:1 names a package index"),
        (missing_paths, {"ARCHITECTURE.md": "see `cpu/gone.py`"}, "cpu/gone.py"),
        (missing_paths, {"ARCHITECTURE.md": "see `tests/`"}, "tests/"),
    ],
)
def test_planted_violation_is_found(tmp_path, check, files, found):
    violations = check(plant(tmp_path, files))
    assert len(violations) == 1
    assert found in violations[0]


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_allowed_passes(tmp_path, check):
    files = {
        "gpuenc/engine.py": "import threading\nfrom gpuenc.cpu import samples\n",
        "gpuenc/dicom/attributes.py": "import pydicom\nfrom gpuenc.dicom import source\n",
        "gpuenc/cpu/samples.py": "import numpy\n" * 400,
        "README.md": "gpuenc transcode studies/home/x -o ~/opt/out  # https://example.org/packages\n",
        "ARCHITECTURE.md": "`engine.py`, `gpuenc/cpu/samples.py`, `cpu/`, `numpy`, `Encoder.encode`",
    }
    assert check(plant(tmp_path, files)) == []


def test_import_loads_nothing_heavy():
    heavy = ("numpy", "pydicom", "imagecodecs", "typer", "rich")
    code = f"import sys, gpuenc; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"


def test_the_files_that_take_longest_are_there():
    from tests.conftest import HERE, LONGEST

    assert [name for name in LONGEST if not Path(HERE, name).exists()] == []
