"""Use an installed gpuenc as someone who has only the wheel: import, the command, one frame there and back."""

import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom.uid import HTJ2KLossless

import gpuenc

installed = Path(gpuenc.__file__).resolve()
if not installed.is_relative_to(Path(sys.prefix).resolve()):
    sys.exit(f"smoke: gpuenc was imported from {installed}, not from this environment")

command = Path(sys.executable).parent / "gpuenc"
for arguments in (["--help"], ["syntaxes"]):
    run = subprocess.run([command, *arguments], capture_output=True, text=True)
    if run.returncode or not run.stdout.strip():
        sys.exit(f"smoke: gpuenc {arguments[0]} ended with {run.returncode}: {run.stderr.strip()}")

frame = np.random.default_rng(0).integers(0, 4096, (61, 47), dtype=np.uint16)
codestream = gpuenc.get_encoder(HTJ2KLossless).encode(frame, bits_stored=12)
if not np.array_equal(imagecodecs.htj2k_decode(codestream), frame):
    sys.exit("smoke: the HTJ2K frame came back changed")
with tempfile.TemporaryDirectory() as folder:
    report, page = Path(folder) / "r.jsonl", Path(folder) / "p.html"
    report.write_text('{"source": "a", "status": "copied"}\n', encoding="utf-8")
    run = subprocess.run([command, "report", report, "-o", page], capture_output=True, text=True)
    if run.returncode or "<script>//" not in page.read_text(encoding="utf-8"):
        sys.exit(f"smoke: no report page: {run.stderr.strip()}")
print(f"smoke: gpuenc {gpuenc.__version__} from its wheel: command, syntaxes, HTJ2K there and back, report page")
