"""What is encoded: formats of frames, their contents, and minimal DICOM files around codestreams."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from gpuenc.frames import Frame, FrameFormat, FrameRef

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from gpuenc.coding import Coding

SIZES = ((1, 1), (1, 7), (7, 1), (3, 5), (17, 33), (64, 64), (130, 67))
CONTENTS = ("noise", "lowest", "highest", "gradient", "sparse", "blocks", "ct")


def name(fmt: FrameFormat) -> str:
    """Return a short, readable name of `fmt` for a test's identifier or a table."""
    sign = "s" if fmt.signed else "u"
    plane = "-planar" if fmt.planar else ""
    return f"{fmt.photometric}-{sign}{fmt.bits_stored}in{fmt.bits_allocated}{plane}-{fmt.rows}x{fmt.columns}"


def sample_type(fmt: FrameFormat) -> np.dtype[np.integer]:
    """Return the smallest of numpy's types that holds a cell of `fmt`; 1-bit samples lie in bytes."""
    return np.dtype(f"{'i' if fmt.signed else 'u'}{max(fmt.bits_allocated // 8, 1)}")


def limits(fmt: FrameFormat) -> tuple[int, int]:
    """Return the lowest and highest sample that Bits Stored can hold."""
    if fmt.signed:
        return -(1 << (fmt.bits_stored - 1)), (1 << (fmt.bits_stored - 1)) - 1
    return 0, (1 << fmt.bits_stored) - 1


def _ct() -> NDArray[np.int64]:
    path = get_testdata_file("CT_small.dcm", download=False)
    return dcmread(path).pixel_array.astype(np.int64)


def _wavelet_line(length: int, level: int, high: bool) -> NDArray[np.float64]:
    """Return the signs of the 5-3 analysis filter (T.800 F.3.8) that gives one coefficient near the middle."""
    low_pass, high_pass = np.array([-1, 2, 6, 2, -1]) / 8, np.array([-1, 2, -1]) / 2
    response = np.ones(1)
    for step in range(level):
        taps = high_pass if high and step == level - 1 else low_pass
        spread = np.zeros((taps.size - 1) * 2**step + 1)
        spread[:: 2**step] = taps
        response = np.convolve(response, spread)
    stride = 2 ** (level - 1)
    centre = (length // 2) // (2 * stride) * 2 * stride + (stride if high else 0)
    if centre >= length:
        centre = max(centre - 2 * stride, 0)
    taps = np.arange(length) - centre + response.size // 2
    inside = (taps >= 0) & (taps < response.size)
    signs = np.ones(length)
    signs[inside] = np.where(response[taps[inside]] < 0, -1, 1)
    return signs


def _wavelet_signs(fmt: FrameFormat, level: int, orientation: int) -> NDArray[np.float64]:
    """Return the signs of an image that drives one coefficient of LL, HL, LH or HH as far as samples can.

    The second plane is turned over, which does the same to the differences of the reversible component transform.
    """
    rows = _wavelet_line(fmt.rows, level, bool(orientation & 2))
    columns = _wavelet_line(fmt.columns, level, bool(orientation & 1))
    signs = np.outer(rows, columns)
    return np.stack([signs, -signs, signs], axis=-1) if fmt.samples == 3 else signs


def samples(fmt: FrameFormat, content: str, seed: int = 0) -> NDArray[np.integer]:
    """Return samples of shape `fmt.shape`, all of which fit Bits Stored.

    YBR_FULL_422 gets chroma that is the same in both pixels of a pair, as its native cells can hold no other.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{name(fmt)} {content}".encode())])
    lowest, highest = limits(fmt)
    shape = fmt.shape
    if content == "noise":
        values = rng.integers(lowest, highest, shape, dtype=np.int64, endpoint=True)
        # Both ends of the range in every image: a precision one bit short shows itself.
        values.flat[0], values.flat[-1] = highest, lowest
    elif content == "lowest":
        values = np.full(shape, lowest, np.int64)
    elif content == "highest":
        values = np.full(shape, highest, np.int64)
    elif content == "gradient":
        y, x = np.mgrid[0 : fmt.rows, 0 : fmt.columns]
        ramp = (x + 2 * y) / max(fmt.columns + 2 * fmt.rows - 3, 1)
        planes = [np.roll(ramp, plane, axis=1) for plane in range(fmt.samples)]
        smooth = np.stack(planes, axis=-1).reshape(shape) * (highest - lowest) + lowest
        values = np.rint(smooth + rng.normal(0, max((highest - lowest) / 256, 0.5), shape)).astype(np.int64)
    elif content == "sparse":
        values = np.full(shape, 0 if fmt.signed else lowest, np.int64)
        hits = rng.random(shape) < 0.03
        values[hits] = rng.integers(lowest, highest, int(hits.sum()), dtype=np.int64, endpoint=True)
    elif content == "blocks":
        side = int(rng.integers(11, 17))
        small = rng.integers(0, 1, (fmt.rows // side + 1, fmt.columns // side + 1, fmt.samples), endpoint=True)
        blocks = np.kron(small, np.ones((side, side, 1), np.int64))[: fmt.rows, : fmt.columns]
        values = np.where(blocks.reshape(shape), highest, lowest)
    elif content.startswith("wavelet"):
        level, orientation = int(content[7]), int(content[8])
        values = np.where(_wavelet_signs(fmt, level, orientation) > 0, highest, lowest)
    elif content == "ct":
        image = np.resize(_ct(), (fmt.rows, fmt.columns))
        scaled = image if fmt.bits_stored >= 12 else image >> (12 - fmt.bits_stored)
        values = np.stack([np.roll(scaled, 3 * plane, axis=0) for plane in range(fmt.samples)], axis=-1).reshape(shape)
    else:
        raise ValueError(content)
    values = np.clip(values, lowest, highest)
    if fmt.subsampled:
        values[:, 1::2, 1:] = values[:, 0::2, 1:]
    return values.astype(sample_type(fmt))


def cells(fmt: FrameFormat, values: NDArray[np.integer]) -> bytes:
    """Return the native cells (PS3.5 8.1.1) of samples of shape `fmt.shape`, bits above Bits Stored as sign or 0."""
    if fmt.subsampled:
        pairs = values.reshape(fmt.rows, fmt.columns // 2, 2, 3)
        return np.concatenate([pairs[..., 0], pairs[:, :, 0, 1:]], axis=-1).tobytes()
    if fmt.planar:
        values = np.moveaxis(values, -1, 0)
    if fmt.bits_allocated == 1:
        return np.packbits(values.reshape(-1), bitorder="little").tobytes()
    return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()


def frames(fmt: FrameFormat, many: Sequence[NDArray[np.integer]]) -> list[Frame]:
    """Return the `Frame`s that hold these samples as native cells."""
    return [
        Frame(FrameRef("conformance", index), fmt, np.frombuffer(cells(fmt, values), np.uint8))
        for index, values in enumerate(many)
    ]


def plain(fmt: FrameFormat, coded: Coding) -> FrameFormat:
    """Return the format that a file's attributes describe after `coded` has taken place."""
    if not coded.expand:
        return fmt
    return FrameFormat(fmt.rows, fmt.columns, coded.samples, coded.cell_bits, coded.precision, False, coded.photometric)


def write_file(
    path: Path,
    fmt: FrameFormat,
    syntax_uid: str,
    codestreams: Sequence[bytes],
    *,
    photometric: str = "",
    raw: bool = False,
) -> Path:
    """Write a minimal Secondary Capture around `codestreams`, one fragment per frame, already of even length.

    `photometric` is what the codestreams hold, where it is not that of `fmt`; `raw` ones hold native cells.
    """
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    dataset.Modality = "OT"
    dataset.PatientID = dataset.PatientName = dataset.StudyID = ""
    dataset.SamplesPerPixel = fmt.samples
    dataset.PhotometricInterpretation = photometric or fmt.photometric
    if fmt.samples > 1:
        dataset.PlanarConfiguration = fmt.planar if raw else 0
    dataset.NumberOfFrames = len(codestreams)
    dataset.Rows, dataset.Columns = fmt.rows, fmt.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = fmt.bits_allocated, fmt.bits_stored, fmt.high_bit
    dataset.PixelRepresentation = int(fmt.signed)
    if fmt.photometric == "PALETTE COLOR":
        for colour in ("Red", "Green", "Blue"):
            lut = f"{colour}PaletteColorLookupTable"
            setattr(dataset, f"{lut}Descriptor", [256, 0, 16])
            setattr(dataset, f"{lut}Data", bytes(512))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax_uid
    if syntax_uid == ExplicitVRLittleEndian:
        native = b"".join(codestreams)
        dataset.PixelData = native + b"\0" * (len(native) % 2)
        dataset["PixelData"].VR = "OB" if fmt.bits_allocated <= 8 else "OW"
    else:
        dataset.PixelData = encapsulate(list(codestreams))
        dataset["PixelData"].VR = "OB"
    if UID(syntax_uid).is_transfer_syntax:
        dataset.save_as(path, enforce_file_format=True)
    else:  # one that pydicom 3.0 does not know yet
        dataset.preamble = bytes(128)
        dataset.save_as(path, implicit_vr=False, little_endian=True, force_encoding=True)
    return path
