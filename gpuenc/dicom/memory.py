"""The frames of a pydicom dataset in memory."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, cast

import numpy as np

from gpuenc import syntaxes
from gpuenc.dicom import description
from gpuenc.dicom.elements import PIXEL_DATA, PIXEL_TAGS, Element
from gpuenc.dicom.pixels import COMPRESSED_UIDS, EXPLICIT_BIG, EXPLICIT_LITTLE, PixelSource
from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from typing import BinaryIO

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset


class DatasetSource(PixelSource):
    """The frames of a pydicom dataset in memory; native ones are views of its Pixel Data. See `frames_of`."""

    _delimited = False

    def __init__(self, dataset: Dataset, number: int | None, name: str) -> None:
        self._dataset = dataset
        self.name = name
        self.notes = []
        if PIXEL_DATA not in dataset:
            if any(tag in dataset for tag in PIXEL_TAGS):
                raise SourceError("the dataset holds floating-point pixels", code="float-pixel-data")
            raise SourceError("the dataset has no Pixel Data", code="no-pixel-data")
        element = dataset[PIXEL_DATA]
        meta = getattr(dataset, "file_meta", None) or {}
        self.syntax = str(meta.get("TransferSyntaxUID", None) or EXPLICIT_LITTLE)
        self.compressed = self.syntax in COMPRESSED_UIDS
        if not self.compressed and self.syntax not in syntaxes.NATIVE_UIDS:
            raise SourceError(f"transfer syntax {self.syntax} cannot be read", code="unknown-syntax")
        self.big_endian = self.syntax == EXPLICIT_BIG
        self.attributes = attributes = description.DatasetAttributes(dataset)
        self.format, self.notes = description.frame_format(
            attributes, big_endian=self.big_endian, compressed=self.compressed
        )
        if number is None:
            self.number_of_frames, notes = description.number_of_frames(attributes)
            self.notes += notes
        else:
            self.number_of_frames = number
        value = element.value
        self._buffer = None if hasattr(value, "read") else memoryview(value or b"").cast("B")
        self._file = value if self._buffer is None else cast("BinaryIO", io.BytesIO(value or b""))
        self._size = self._file.seek(0, os.SEEK_END)
        # The value alone, as if the file began there; in memory it is delimited by its end.
        self._pixels = Element(PIXEL_DATA, str(element.VR).encode(), 0, 0, self._size, self.compressed)
        self._swapped = self.big_endian and self.format.bits_allocated <= 8 and element.VR == "OW"
        if not self.compressed:
            # A number that the caller gives may be of some frames only.
            self._check_length(whole=number is None)

    @property
    def dataset(self) -> Dataset:
        """The dataset itself."""
        return self._dataset

    def _read(self, at: int, count: int) -> NDArray[np.uint8]:
        if self._buffer is not None:
            return np.frombuffer(self._buffer[at : at + count], np.uint8)
        self._file.seek(at)
        return np.frombuffer(self._file.read(count), np.uint8)

    def _extended_offsets(self) -> tuple[bytes, bytes] | None:
        offsets, lengths = (self._dataset.get(tag) for tag in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"))
        return None if not offsets or lengths is None else (offsets, lengths)


def frames_of(dataset: Dataset, number: int | None = None, *, name: str = "dataset") -> DatasetSource:
    """Return the frames of a dataset in memory.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        With Pixel Data, native or encapsulated as its ``file_meta`` says; without it, native little endian.
    number : int, optional
        Number of frames, instead of (0028,0008); Pixel Data may hold more.
    name : str
        What `FrameRef.source` is.

    Raises
    ------
    SourceError, InvalidPixels
        As `DicomFile`.
    """
    return DatasetSource(dataset, number, name)
