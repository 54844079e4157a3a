"""What other people's code says of a file: its samples as pydicom decodes them, and its elements as bytes."""

from __future__ import annotations

import zlib
from struct import unpack_from
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import UID

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ROOT = "1.2.840.10008.1.2"
JPEG_XL = (f"{ROOT}.4.110", f"{ROOT}.4.112")
HTJ2K = tuple(f"{ROOT}.4.{number}" for number in (201, 202, 203))
OPENJPEG_HT_BITS = 28  # of more, OpenJPH is the only decoder there is
DEFLATED_FRAME = f"{ROOT}.8.1"
EXPLICIT, DEFLATED = f"{ROOT}.1", f"{ROOT}.1.99"
DCT = (f"{ROOT}.4.50", f"{ROOT}.4.51")
# Lossy, or lossless as nobody can tell.
LOSSY = (*DCT, *(f"{ROOT}.4.{number}" for number in ("81", "91", "203", "111", "112")))
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


def read(path: Path, syntax: str = "") -> Dataset:
    """Return the dataset; `syntax` for files that do not tell theirs."""
    ds = dcmread(path, force=bool(syntax))
    if syntax:
        ds.file_meta.TransferSyntaxUID = UID(syntax)
    return ds


def samples(ds: Dataset) -> NDArray[np.integer]:
    """Return samples (frames, rows, columns, samples), colours and bits as they are in the pixel data."""
    frames = int(ds.get("NumberOfFrames") or 1)
    shape = (frames, ds.Rows, ds.Columns, ds.SamplesPerPixel)
    uid = ds.file_meta.TransferSyntaxUID
    if uid in JPEG_XL:
        decoded = np.stack([imagecodecs.jpegxl_decode(each) for each in fragments(ds)])
        return decoded.view(f"i{decoded.itemsize}") if ds.PixelRepresentation else decoded.reshape(shape)
    if uid == DEFLATED_FRAME:
        return samples(_inflated(ds))
    if uid in HTJ2K and ds.BitsStored > OPENJPEG_HT_BITS:
        return np.stack([imagecodecs.htj2k_decode(each) for each in fragments(ds)]).reshape(shape)
    plugin = "pylibjpeg" if uid.is_encapsulated else ""
    return pixel_array(ds, raw=True, decoding_plugin=plugin).reshape(shape)


def cells(ds: Dataset) -> bytes:
    """Return native pixel data, deflated or not."""
    return (_inflated(ds) if ds.file_meta.TransferSyntaxUID == DEFLATED_FRAME else ds).PixelData


def _inflated(ds: Dataset) -> Dataset:
    """Return a native dataset of deflated frames (PS3.5 A.4.13), each of which begins on a byte."""
    frames = [np.frombuffer(zlib.decompress(each, -15), np.uint8) for each in fragments(ds)]
    if ds.BitsAllocated == 1:
        bits = [np.unpackbits(each, bitorder="little", count=ds.Rows * ds.Columns) for each in frames]
        frames = [np.packbits(np.concatenate(bits), bitorder="little")]
    # Dataset(ds) would share what it holds.
    native = Dataset({tag: ds.get_item(tag) for tag in ds.keys() if tag != 0x7FE00010})  # noqa: SIM118
    native.file_meta = FileMetaDataset()
    native.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    native.PixelData = b"".join(each.tobytes() for each in frames)
    native["PixelData"].VR = "OB" if ds.BitsAllocated <= 8 else "OW"
    return native


def fragments(ds: Dataset) -> list[bytes]:
    return list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)))


def elements(data: bytes, at: int = 0, stop: int | None = None) -> list[tuple[int, bytes]]:
    """Return the top-level elements of an Explicit VR Little Endian data set: tag and all bytes (PS3.5 7.1.2)."""
    found = []
    while at < (len(data) if stop is None else stop):
        end = _end(data, at)
        group, number = unpack_from("<HH", data, at)
        found.append((group << 16 | number, data[at:end]))
        at = end
    return found


def split(path: Path) -> tuple[bytes, list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Return the preamble, the File Meta Information and the data set of a file; the latter must be explicit."""
    data = path.read_bytes()
    assert data[128:132] == b"DICM"
    (length,) = unpack_from("<I", data, 140)
    meta = elements(data, 132, 144 + length)
    body = data[144 + length :]
    if any(value.rstrip(b"\0").endswith(DEFLATED.encode()) for tag, value in meta if tag == 0x00020010):
        body = zlib.decompressobj(-15).decompress(body)
    return data[:132], meta, elements(body)


def _end(data: bytes, at: int) -> int:
    vr = data[at + 4 : at + 6]
    if vr in LONG:
        value, (length,) = at + 12, unpack_from("<I", data, at + 8)
    else:
        value, (length,) = at + 8, unpack_from("<H", data, at + 6)
    if length != 0xFFFFFFFF:
        return value + length
    return _items_end(data, value)


def _items_end(data: bytes, at: int) -> int:
    while True:
        group, number, length = unpack_from("<HHI", data, at)
        at += 8
        if (group, number) == (0xFFFE, 0xE0DD):
            return at
        assert (group, number) == (0xFFFE, 0xE000), f"no item at {at - 8}"
        if length != 0xFFFFFFFF:
            at += length
            continue
        while data[at : at + 4] != b"\xfe\xff\x0d\xe0":
            at = _end(data, at)
        at += 8
