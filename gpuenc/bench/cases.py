"""What is measured: built-in pictures, pydicom's real ones, or the user's own files, in cases of one format each."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.data import get_testdata_file

from gpuenc.archive.scan import scan
from gpuenc.bench import phantoms
from gpuenc.cpu import decoders
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import GpuencError
from gpuenc.frames import Coded, Frame, FrameFormat, FrameRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

# So many native bytes of the user's files make a case, at most.
_MOST_BYTES = 256 << 20
# Of the packages pydicom and pydicom-data: what each file is, and its name.
REAL = {
    "CR 1955×1841, real": "RG1_UNCR.dcm",
    "CT 512², real": "693_UNCR.dcm",
    "MR 1024², real": "MR2_UNCR.dcm",
    "enhanced MR 64², 10 frames, real": "emri_small.dcm",
    "US 480×640 RGB, real": "US1_UNCR.dcm",
    "US 120 frames YBR, real": "color3d_jpeg_baseline.dcm",
}


@dataclass(frozen=True, slots=True)
class Case:
    """Frames of one format.

    Parameters
    ----------
    name : str
        What they are.
    source : {'synthetic', 'demo', 'files'}
        Where they come from.
    frames : tuple of Frame
        With native cells on the host.
    modality : str
        Of the files that are made of synthetic frames.
    series : bool
        Each frame is a file of its own.
    files : tuple of Path
        Where frames of files come from; empty for synthetic ones.
    """

    name: str
    source: str
    frames: tuple[Frame, ...]
    modality: str = "OT"
    series: bool = False
    files: tuple[Path, ...] = ()

    @property
    def format(self) -> FrameFormat:
        """Format of every frame."""
        return self.frames[0].format

    def as_json(self) -> dict[str, Any]:
        """Return what results say of it: no path, since paths may name people."""
        fmt = self.format
        return {
            "name": self.name,
            "source": self.source,
            "frames": len(self.frames),
            "rows": fmt.rows,
            "columns": fmt.columns,
            "samples": fmt.samples,
            "bits_allocated": fmt.bits_allocated,
            "bits_stored": fmt.bits_stored,
            "signed": fmt.signed,
            "photometric": fmt.photometric,
            "bytes": sum(frame.format.frame_bytes for frame in self.frames),
        }


@dataclass(frozen=True, slots=True)
class Absent:
    """Something that cannot be measured: what, and why."""

    name: str
    why: str


def frames_of(pixels: NDArray[Any], bits_stored: int, name: str) -> tuple[Frame, ...]:
    """Return frames of samples of shape (frames, rows, columns[, 3]) and their own dtype, as cells fill it."""
    colour = pixels.ndim == 4
    fmt = FrameFormat(
        pixels.shape[1],
        pixels.shape[2],
        3 if colour else 1,
        8 * pixels.itemsize,
        bits_stored,
        pixels.dtype.kind == "i",
        "RGB" if colour else "MONOCHROME2",
    )
    return tuple(
        Frame(FrameRef(name, number), fmt, np.ascontiguousarray(one).reshape(-1).view(np.uint8))
        for number, one in enumerate(pixels)
    )


def synthetic(*, quick: bool, tiles: int = 0) -> Iterator[Case]:
    """Yield the built-in cases, each made when it is asked for; see `phantoms`.

    Parameters
    ----------
    quick : bool
        Fewer and smaller pictures.
    tiles : int
        How many tiles the slide has; by default as many as are different, 64 or 16.
    """
    makers: list[tuple[str, str, bool, int, Callable[[], NDArray[Any]]]] = [
        ("CT series 512², 200 slices", "CT", True, 12, partial(phantoms.ct, 200)),
        (
            "DX 2048×1536" if quick else "DX 3072×2560",
            "DX",
            True,
            12,
            partial(phantoms.dx, 2, 2048, 1536) if quick else partial(phantoms.dx, 8),
        ),
        ("US cine 600×800 RGB", "US", False, 8, partial(phantoms.cine, 12 if quick else 60)),
        ("slide tiles 512² RGB", "SM", False, 8, partial(phantoms.tiles, 16 if quick else 64)),
        ("enhanced MR 256²", "MR", False, 12, partial(phantoms.mr, 40 if quick else 100)),
    ]
    for name, modality, series, bits, make in makers:
        frames = frames_of(make(), bits, name)
        if modality == "SM" and tiles:
            name = f"{tiles} slide tiles 512² RGB"
            frames = tuple(replace(frames[number % len(frames)], ref=FrameRef(name, number)) for number in range(tiles))
        yield Case(name, "synthetic", frames, modality, series)


def real() -> Iterator[Case | Absent]:
    """Yield the real images of pydicom's packages; one that is not installed says so."""
    for name, file in REAL.items():
        path = get_testdata_file(file, download=False)
        if path is None:
            yield Absent(name, f"{file} is not there: pip install 'gpuenc[demo]'")
        else:
            yield from of_files([Path(str(path))], "demo", name)


def of_folder(folder: Path) -> Iterator[Case | Absent]:
    """Yield the images below a folder, or of one file, in cases of one format; what cannot be read says why."""
    if not folder.exists():
        yield Absent("files", "there is no such folder")
        return
    items = list(scan([folder], folder / ".gpuenc-bench"))
    if not items:
        yield Absent("files", "the folder holds no files")
    yield from of_files([item.source for item in items], "files")


def of_files(paths: Sequence[Path], source: str, name: str = "") -> Iterator[Case | Absent]:
    """Yield cases of the frames of files, decoded where they are compressed, and one `Absent` for each reason."""
    formats: dict[FrameFormat, list[Frame]] = defaultdict(list)
    files: dict[FrameFormat, list[Path]] = defaultdict(list)
    refused: dict[str, int] = defaultdict(int)
    taken_bytes = 0
    for path in paths:
        try:
            with DicomFile(path, name=os.path.basename(path)) as file:
                for frame in file.frames():
                    native = decoders.decode_frame(frame) if isinstance(frame.pixels, Coded) else frame
                    if taken_bytes >= _MOST_BYTES:
                        break
                    taken_bytes += native.format.frame_bytes
                    formats[native.format].append(native)
                    if path not in files[native.format][-1:]:
                        files[native.format].append(path)
        except (GpuencError, OSError) as error:
            code = error.code if isinstance(error, GpuencError) else "unreadable-source"
            refused[code] += 1
        if taken_bytes >= _MOST_BYTES:
            break
    for fmt, frames in formats.items():
        yield Case(name or _named(fmt), source, tuple(frames), files=tuple(files[fmt]))
    for code, count in refused.items():
        yield Absent(name or "files", f"{count} of {len(paths)} files cannot be measured: {code}")


def _named(fmt: FrameFormat) -> str:
    return f"{fmt.rows}×{fmt.columns} {fmt.photometric} {fmt.bits_stored} bits"
