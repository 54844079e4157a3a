"""A case's frames as DICOM files, for jobs over files."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gpuenc.bench.cases import Case
    from gpuenc.frames import Frame

# Enhanced MR, multi-frame true colour, and whole-slide images; everything else is written as Secondary Capture.
_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "US": "1.2.840.10008.5.1.4.1.1.3.1",
    "SM": "1.2.840.10008.5.1.4.1.1.77.1.6",
}
# Files with more pixels than this are written frame by frame.
_LARGE_BYTES = 256 << 20
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def write(case: Case, folder: Path, most: int | None = None) -> list[Path]:
    """Write a case's frames as native files, one for each frame of a series, else one of all; return their paths.

    Parameters
    ----------
    case : Case
        Whose frames; at most the first `most` of them.
    folder : Path
        An empty folder that exists.
    """
    frames = case.frames[:most]
    parts = [[frame] for frame in frames] if case.series else [list(frames)]
    paths = []
    for number, part in enumerate(parts):
        path = folder / f"{number:04}.dcm"
        ds = _dataset(case, part, number)
        vr = "OW" if case.format.bits_allocated > 8 else "OB"
        if len(part) * case.format.frame_bytes < _LARGE_BYTES:
            cells = b"".join(frame.host_cells().tobytes() for frame in part)
            ds.add_new("PixelData", vr, cells + b"\0" * (len(cells) % 2))
            ds.save_as(path, enforce_file_format=True)
            paths.append(path)
            continue
        # Not all cells of a slide in memory: they pass through a file.
        with tempfile.TemporaryFile(dir=folder) as through:
            for frame in part:
                through.write(frame.host_cells())
            through.write(b"\0" * (through.tell() % 2))
            through.seek(0)
            ds.PixelData = through
            ds["PixelData"].VR = vr
            ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _dataset(case: Case, frames: Sequence[Frame], number: int) -> Dataset:
    fmt, ds = case.format, Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = _CLASSES.get(case.modality, _SECONDARY_CAPTURE)
    ds.SOPInstanceUID = generate_uid(None, [case.name, str(number)])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = (generate_uid(None, [case.name, part]) for part in ("study", "series"))
    ds.Modality, ds.InstanceNumber = case.modality, number + 1
    ds.PatientName, ds.PatientID = "", ""
    ds.Rows, ds.Columns, ds.SamplesPerPixel = fmt.rows, fmt.columns, fmt.samples
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = fmt.bits_allocated, fmt.bits_stored, fmt.high_bit
    ds.PixelRepresentation, ds.PhotometricInterpretation = int(fmt.signed), fmt.photometric
    if fmt.samples > 1:
        ds.PlanarConfiguration = fmt.planar
    if len(frames) > 1:
        ds.NumberOfFrames = len(frames)
    return ds
