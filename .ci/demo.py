"""Re-encode a real study to HTJ2K with `gpuenc transcode`, and show what became of each file.

The images come with the package pydicom-data and are read where they lie: radiographs, CT, MR, nuclear medicine and
ultrasound, single frames and multi-frame objects, native and already compressed.
"""

import json
import subprocess
import sys
from pathlib import Path

from pydicom.data import get_testdata_file
from pydicom.uid import UID
from rich.console import Console
from rich.table import Table

STUDY = (
    "RG1_UNCR.dcm",  # CR, 1955 × 1841, 15 bits
    "RG3_UNCR.dcm",  # CR, 1760 × 1760, 10 bits
    "693_UNCR.dcm",  # CT, 14 bits, signed
    "eCT_Supplemental.dcm",  # Enhanced CT, 2 frames
    "MR2_UNCR.dcm",  # MR, 12 bits
    "MR2_J2KR.dcm",  # the same, stored as JPEG 2000
    "emri_small_RLE.dcm",  # Enhanced MR, 10 frames, stored as RLE
    "JPEG-LL.dcm",  # NM, stored as JPEG Lossless
    "US1_UNCR.dcm",  # US, RGB
    "OBXXXX1A_2frame.dcm",  # US, palette colour, 2 frames
    "liver.dcm",  # Segmentation, 1 bit
    "color3d_jpeg_baseline.dcm",  # US, 120 frames, already lossy: kept as it is
)


def study() -> list[str]:
    """Return the paths of the study's files."""
    paths = [get_testdata_file(name, download=False) for name in STUDY]
    if None in paths:
        missing = ", ".join(name for name, path in zip(STUDY, paths, strict=True) if path is None)
        sys.exit(f"demo: pydicom-data lacks {missing}")
    return [str(path) for path in paths]


def table(records: list[dict]) -> Table:
    """Return what happened, a row per file."""
    shown = Table("File", "Stored as", "Outcome", title="What happened")
    for name in ("Frames", "MB in", "MB out", "Ratio"):
        shown.add_column(name, justify="right")
    shown.add_column("Verified")
    for record in records:
        ratio = record["bytes_in"] / record["bytes_out"] if record["bytes_out"] else 0
        shown.add_row(
            Path(record["source"]).name,
            UID(record["source_syntax"]).keyword,
            f"{record['status']} ({record['reason']})" if record["reason"] else record["status"],
            str(record["frames"]) if record["status"] == "encoded" else "–",
            f"{record['bytes_in'] / 1e6:.2f}",
            f"{record['bytes_out'] / 1e6:.2f}",
            f"{ratio:.2f}",
            "yes" if record["verified"] else "–",
        )
    return shown


def main(out: Path) -> int:
    """Fill `out` and return the exit code of `gpuenc transcode`."""
    report = out / "report.jsonl"
    command = [Path(sys.executable).with_name("gpuenc"), "transcode", *study(), "-o", out, "--to", "htj2k-lossless"]
    code = subprocess.run([*command, "--report", report, "--overwrite"], check=False).returncode
    if code in (0, 1) and report.exists():
        records = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(table(records))
        console.print(f"Outputs: {out}/    one line of JSON per file: {report}")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
