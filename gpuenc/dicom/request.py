"""What a caller asks of an `Encoder`, in pydicom's words, as frames and a target.

The source is bytes, an array or a dataset; the keywords are pydicom's pixel options. A `Request` answers for any
frame by index without holding more than that frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.encoders.base import EncodeRunner
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import ExplicitVRLittleEndian

from gpuenc.dicom.source import frames_of
from gpuenc.errors import InvalidPixels, ValuesOutsideBitsStored
from gpuenc.frames import Frame, FrameFormat, FrameRef
from gpuenc.targets import from_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from pydicom.uid import UID

    from gpuenc.syntaxes import Syntax
    from gpuenc.targets import Target

Source = bytes | bytearray | memoryview | np.ndarray | Dataset

# Photometric Interpretations that a codestream makes out of RGB samples (PS3.3 C.7.6.3.1.2).
_MADE_FROM_RGB = ("YBR_RCT", "YBR_ICT")
DESCRIBES_CELLS = frozenset(
    {
        "rows",
        "columns",
        "samples_per_pixel",
        "number_of_frames",
        "bits_allocated",
        "bits_stored",
        "pixel_representation",
        "planar_configuration",
        "byteorder",
    }
)


class Frames(Protocol):
    """Random access to the frames of one source."""

    number_of_frames: int

    def frame(self, index: int) -> Frame:
        """Return frame `index`, from 0."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of `Encoder.encode` or `Encoder.iter_encode`, checked.

    Parameters
    ----------
    frames : Frames
        The source.
    target : Target
        What its frames become.
    options : mapping
        All keywords, for plug-ins that know more of them than gpuenc does.
    is_array : bool
        The source is an array, for messages that say so.
    """

    frames: Frames
    target: Target
    options: Mapping[str, Any]
    is_array: bool

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame, in order, as it is asked for."""
        if isinstance(self.frames, _DatasetFrames):
            return self.frames.all()
        return (self.frames.frame(index) for index in range(self.frames.number_of_frames))


def request(syntax: Syntax, uid: UID, src: Source, *, validate: bool, options: Mapping[str, Any]) -> Request:
    """Check `src` and `options` and return the `Request`.

    Parameters
    ----------
    syntax : Syntax
        The encoder's own.
    uid : pydicom.uid.UID
        Its UID.
    src : bytes, bytearray, memoryview, numpy.ndarray or pydicom.dataset.Dataset
        Arrays are shaped (rows, columns), (rows, columns, samples), (frames, rows, columns) or
        (frames, rows, columns, samples).
    validate : bool
        Check the description against the source, and the format against the syntax's table in PS3.5 8.2.
    options : mapping
        pydicom's pixel options and encoding options.

    Raises
    ------
    AttributeError, ValueError, TypeError
        As pydicom's `EncodeRunner` does, in its words.
    """
    if isinstance(src, np.ndarray):
        options = {**_told_by(src, options), **options}
    elif isinstance(src, Dataset) and not DESCRIBES_CELLS.intersection(options):
        return _of_dataset(syntax, src, validate, options)
    runner = _Runner(uid)
    runner.set_source(src)
    runner.set_options(**options)
    if validate:
        runner.validate()
    wanted = str(runner.photometric_interpretation)
    frames: Frames
    if isinstance(src, np.ndarray):
        frames = _ArrayFrames(src, _format(runner, for_array=True), runner.number_of_frames)
    else:
        frames = _BufferFrames(cast("bytes", runner.src), _format(runner), runner.number_of_frames)
    target = from_options(syntax, {**runner.options, "photometric_interpretation": wanted}, strict=validate)
    return Request(frames, target, runner.options, isinstance(src, np.ndarray))


def checked_array(ds: Dataset, arr: NDArray[Any]) -> bytes:
    """Return `arr` as the native cells that `ds` describes, interleaved, little endian.

    Raises
    ------
    ValueError, AttributeError
        Its shape, dtype or values are not what `ds` describes.
    """
    runner = _Runner(ExplicitVRLittleEndian)
    runner.set_source(arr)
    runner.set_options(**as_pixel_options(ds))
    runner.validate()
    frames = _ArrayFrames(arr, _format(runner, for_array=True), runner.number_of_frames)
    if runner.bits_allocated == 1:
        return np.packbits(arr.reshape(-1), bitorder="little").tobytes()
    cells = (cast("NDArray[np.uint8]", frames.frame(index).pixels) for index in range(frames.number_of_frames))
    return b"".join(memoryview(frame) for frame in cells)


def _of_dataset(syntax: Syntax, ds: Dataset, validate: bool, options: Mapping[str, Any]) -> Request:
    source = _DatasetFrames(ds)
    if validate and not source.compressed:
        runner = _Runner(source.uid)
        runner.set_source(ds)
        runner.validate()
    own = source.format.photometric
    # pydicom's rule: the dataset says what the *encoded* pixel data is to be. What a compressed dataset says is
    # about the codestreams it has now, and binds only where decoding leaves it true.
    stated = str(ds.get("PhotometricInterpretation", ""))
    wanted = options.get("photometric_interpretation", stated if stated == own or not source.compressed else "")
    if wanted in _MADE_FROM_RGB and not source.compressed:
        source.relabel("RGB")
    target = from_options(syntax, {**options, "photometric_interpretation": wanted}, strict=validate)
    return Request(source, target, options, is_array=False)


def _format(runner: _Runner, *, for_array: bool = False) -> FrameFormat:
    photometric = str(runner.photometric_interpretation)
    if photometric in _MADE_FROM_RGB:
        photometric = "RGB"
    if for_array and photometric == "YBR_FULL_422":
        photometric = "YBR_FULL"  # an array has every chroma sample
    samples = runner.samples_per_pixel
    return FrameFormat(
        rows=runner.rows,
        columns=runner.columns,
        samples=samples,
        bits_allocated=runner.bits_allocated,
        bits_stored=runner.bits_stored,
        signed=runner.pixel_representation == 1,
        photometric=photometric,
        planar=0 if for_array or samples == 1 else runner.planar_configuration,
        big_endian=not for_array and runner.get_option("byteorder") == ">",
    )


def _told_by(arr: NDArray[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that shape and dtype tell, for those left out."""
    samples = options.get("samples_per_pixel")
    frames = options.get("number_of_frames")
    if arr.ndim == 4:
        shape: tuple[int, ...] = arr.shape
    elif arr.ndim == 3 and (samples == 3 or (samples is None and frames in (None, 1) and arr.shape[-1] == 3)):
        shape = (1, *arr.shape)
    elif arr.ndim == 3:
        shape = (*arr.shape, 1)
    elif arr.ndim == 2:
        shape = (1, *arr.shape, 1)
    else:
        raise ValueError(f"Unable to encode {arr.ndim}D ndarrays")
    bits = arr.dtype.itemsize * 8
    return {
        "number_of_frames": shape[0],
        "rows": shape[1],
        "columns": shape[2],
        "samples_per_pixel": shape[3],
        "bits_allocated": bits,
        "bits_stored": options.get("bits_allocated", bits),
        "pixel_representation": int(arr.dtype.kind == "i"),
        "photometric_interpretation": "MONOCHROME2" if shape[3] == 1 else "RGB",
        **({"planar_configuration": 0} if shape[3] > 1 else {}),
    }


class _Runner(EncodeRunner):
    """pydicom's runner, for its validation and its words, without reading every sample twice."""

    def _validate_array(self) -> None:
        arr = cast("NDArray[Any]", self.src)
        if arr.ndim not in (2, 3, 4):
            raise ValueError(f"Unable to encode {arr.ndim}D ndarrays")
        expected = [self.number_of_frames, self.rows, self.columns, self.samples_per_pixel]
        expected = expected[1:] if expected[0] == 1 and arr.ndim < 4 else expected
        expected = expected[:-1] if expected[-1] == 1 and len(expected) > arr.ndim else expected
        if arr.shape != tuple(expected):
            raise ValueError(
                f"Mismatch between the expected ndarray shape {tuple(expected)} and the actual shape {arr.shape}"
            )
        if arr.dtype.kind not in "ui":
            raise ValueError(
                f"The ndarray's dtype '{arr.dtype}' is not supported, must be a signed or unsigned integer type"
            )
        if (arr.dtype.kind == "i") != (self.pixel_representation == 1):
            kind = ("unsigned", "signed")[self.pixel_representation]
            raise ValueError(
                f"The ndarray's dtype '{arr.dtype}' is not consistent with a (0028,0103) 'Pixel Representation' of "
                f"'{self.pixel_representation}' ({kind} integers)"
            )
        if arr.dtype.itemsize < math.ceil(self.bits_allocated / 8):
            raise ValueError(
                f"The ndarray's dtype '{arr.dtype}' is not consistent with a (0028,0100) 'Bits Allocated' value of "
                f"'{self.bits_allocated}'"
            )

    def _validate_encoding_profile(self) -> None:
        """`coding.coding` refuses what the syntax's table does not allow, for every syntax."""


class _ArrayFrames:
    """Frames of an array; converts one frame at a time, and only where its dtype asks for it."""

    def __init__(self, arr: NDArray[Any], fmt: FrameFormat, number_of_frames: int) -> None:
        self.number_of_frames = number_of_frames
        stacked = arr.ndim == 4 or (arr.ndim == 3 and fmt.samples == 1)
        self._arr = arr if stacked else arr[np.newaxis]
        self._format = fmt
        self._cell = np.dtype(f"<{'i' if fmt.signed else 'u'}{max(1, fmt.bits_allocated // 8)}")

    def frame(self, index: int) -> Frame:
        cells = self._arr[index]
        if cells.dtype != self._cell:
            narrowed = cells.astype(self._cell)
            if cells.dtype.itemsize > self._cell.itemsize and not np.array_equal(narrowed, cells):
                raise ValuesOutsideBitsStored(outside_message(self._format))
            cells = narrowed
        if self._format.bits_allocated == 1:
            if cells.size and cells.max() > 1:
                raise ValuesOutsideBitsStored(outside_message(self._format))
            packed = np.packbits(cells.reshape(-1), bitorder="little")
            return Frame(FrameRef("array", index), self._format, packed)
        flat = np.ascontiguousarray(cells).reshape(-1).view(np.uint8)
        return Frame(FrameRef("array", index), self._format, flat)


class _BufferFrames:
    """Frames of native cells in a buffer, as views."""

    def __init__(self, src: bytes | bytearray | memoryview, fmt: FrameFormat, number_of_frames: int) -> None:
        self.number_of_frames = number_of_frames
        self._cells = np.frombuffer(src, dtype=np.uint8)
        self._format = fmt

    def frame(self, index: int) -> Frame:
        start_bit = index * self._format.frame_bits
        start, offset = divmod(start_bit, 8)
        stop = (start_bit + self._format.frame_bits + 7) // 8
        if stop > self._cells.size:
            raise InvalidPixels(
                "The length of the uncompressed pixel data doesn't match the expected length - "
                f"{self._cells.size} bytes actual vs. {stop} expected",
                code="truncated",
            )
        return Frame(FrameRef("buffer", index), self._format, self._cells[start:stop], offset)


class _DatasetFrames:
    """Frames of a dataset's Pixel Data, native or compressed."""

    def __init__(self, ds: Dataset) -> None:
        self._source = frames_of(ds)
        self.number_of_frames = self._source.number_of_frames
        self.compressed = self._source.compressed
        self.format = self._source.format
        self.uid = self._source.uid

    def relabel(self, photometric: str) -> None:
        """Take the samples for what `photometric` says."""
        self.format = replace(self.format, photometric=photometric)

    def frame(self, index: int) -> Frame:
        frame = self._source.frame(index)
        return frame if self.compressed else replace(frame, format=self.format)

    def all(self) -> Iterator[Frame]:
        for frame in self._source.frames():
            yield frame if self.compressed else replace(frame, format=self.format)


def outside_message(fmt: FrameFormat) -> str:
    """Return pydicom's words for samples that do not fit Bits Stored."""
    bits = fmt.bits_stored
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if fmt.signed else (0, 2**bits - 1)
    return (
        f"The ndarray contains values that are outside the allowable range of ({low}, {high}) for a (0028,0101) "
        f"'Bits Stored' value of '{bits}'"
    )
