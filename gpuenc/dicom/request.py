"""What a caller asks of an `Encoder`, in pydicom's words, as frames and a target.

The source is bytes, an array or a dataset; the keywords are pydicom's pixel options. A `Request` answers for any
frame by index without holding more than that frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import UID, ExplicitVRLittleEndian

from gpuenc.coding import RAW_FAMILIES, coding
from gpuenc.dicom.arrays import ArrayFrames, DeviceFrames, frames_of_array, on_host, taken
from gpuenc.dicom.attributes import moves_overlays
from gpuenc.dicom.cells import encoded_format
from gpuenc.dicom.layouts import layout_of
from gpuenc.dicom.memory import frames_of
from gpuenc.dicom.pixels import EXPLICIT_BIG, EXPLICIT_LITTLE
from gpuenc.dicom.validation import ValidatingRunner
from gpuenc.errors import FormatNotAllowed, InvalidOption, InvalidPixels
from gpuenc.frames import Frame, FrameFormat, FrameRef
from gpuenc.syntaxes import NATIVE_UIDS, keeps_jpeg
from gpuenc.targets import from_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from gpuenc.cuda.arrays import DeviceArray
    from gpuenc.dicom.layouts import Layout
    from gpuenc.syntaxes import Syntax
    from gpuenc.targets import Target

# Of arrays that are not numpy's, what `gpuenc.cuda.arrays` says.
Source = bytes | bytearray | memoryview | np.ndarray | Dataset | Any

# Photometric Interpretations that a codestream makes out of RGB samples (PS3.3 C.7.6.3.1.2).
_MADE_FROM_RGB = ("YBR_RCT", "YBR_ICT")
# Families whose codecs can leave colours as they are or transform them, so that what is stated about RGB decides.
_TRANSFORM_COLOURS = ("jpeg", "jpeg2000", "htj2k")
_KEYWORD_OF = {
    "rows": "Rows",
    "columns": "Columns",
    "samples_per_pixel": "SamplesPerPixel",
    "number_of_frames": "NumberOfFrames",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "planar_configuration": "PlanarConfiguration",
}
DESCRIBES_CELLS = frozenset({*_KEYWORD_OF, "byteorder"})


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

    @property
    def on_device(self) -> int | None:
        """Index of the GPU on which the source is, or None."""
        return self.frames.device if isinstance(self.frames, DeviceFrames) else None

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
    src : bytes, bytearray, memoryview, array or pydicom.dataset.Dataset
        Arrays are shaped as one of `layouts.LAYOUTS`; numpy's, or others' by ``__cuda_array_interface__`` or DLPack.
    validate : bool
        Check the description against the source, and the format against the syntax's table in PS3.5 8.2.
    options : mapping
        pydicom's pixel options and encoding options. Those that describe cells override what a native dataset says
        of itself, and must agree with what a compressed one says. ``layout`` names the axes of an array.

    Raises
    ------
    AttributeError, ValueError, TypeError
        As pydicom's `EncodeRunner` does, in its words; and where the codestreams would not be what the dataset goes
        on to say of them, which only `gpuenc.compress` can correct.
    """
    axes, options = _axes(options)
    if isinstance(src, Dataset):
        _refuse_axes(axes)
        return _of_dataset(syntax, src, validate, options)
    asked, src = options, taken(src)
    described = on_host(src)
    is_array = isinstance(described, np.ndarray)
    runner = ValidatingRunner(uid)
    if is_array:
        runner.layout = layout_of(described.shape, described.dtype, options, axes)
        options = {**_told_by(described, runner.layout, options), **options}
    else:
        _refuse_axes(axes)
    runner.set_source(described)
    runner.set_options(**options)
    if validate:
        runner.validate()
    wanted = str(runner.photometric_interpretation)
    frames: Frames
    if runner.layout:
        fmt = _format(runner, for_array=True)
        raw = syntax.family in RAW_FAMILIES
        whole_cells = bool(options.get("whole_cells"))
        frames = frames_of_array(src, fmt, runner.layout, interleaved=raw, raw=raw, whole_cells=whole_cells)
        if "photometric_interpretation" not in asked and not (wanted == "RGB" and syntax.family in _TRANSFORM_COLOURS):
            wanted = ""  # nobody asked for it
    else:
        fmt = _format(runner)
        frames = _BufferFrames(cast("bytes", runner.src), fmt, runner.number_of_frames)
    target = from_options(syntax, {**runner.options, "photometric_interpretation": wanted}, strict=validate)
    _refuse_other_colours(target, fmt)
    return Request(frames, target, runner.options, is_array)


def checked_array(
    ds: Dataset, arr: NDArray[Any] | DeviceArray, axes: str = "", *, raw: bool = False, whole_cells: bool = False
) -> ArrayFrames | DeviceFrames:
    """Return `arr` as frames of native cells as `ds` describes them, little endian, by planes where they are.

    `raw` and `whole_cells` are those of `frames_of_array`.

    Raises
    ------
    ValueError, AttributeError
        Its shape or dtype is not what `ds` describes; values are looked at with their frame.
    """
    options = as_pixel_options(ds)
    runner = ValidatingRunner(ExplicitVRLittleEndian)
    described = on_host(arr)
    runner.layout = layout_of(described.shape, described.dtype, options, axes)
    runner.set_source(described)
    runner.set_options(**options)
    runner.validate()
    return frames_of_array(arr, _format(runner, for_array=True), runner.layout, raw=raw, whole_cells=whole_cells)


def _axes(options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the layout that is named, and the options that plug-ins may know too."""
    return str(options.get("layout") or ""), {name: options[name] for name in options if name != "layout"}


def _refuse_axes(axes: str) -> None:
    if axes:
        raise InvalidOption(f"layout='{axes}' names the axes of an array, and there is none")


def _of_dataset(syntax: Syntax, ds: Dataset, validate: bool, options: Mapping[str, Any]) -> Request:
    given = {name: options[name] for name in DESCRIBES_CELLS if options.get(name) is not None}
    if given and str(_syntax_of(ds)) in NATIVE_UIDS:
        ds = _overridden(ds, given)
    source = _DatasetFrames(ds)
    if source.compressed:
        _refuse_disagreement(source, given)
    elif validate:
        runner = ValidatingRunner(source.uid)
        runner.set_source(ds)
        runner.validate()
    # pydicom's rule: the dataset says what the *encoded* pixel data is to be, since `Dataset.compress` leaves it as it
    # is. What a compressed dataset says is about the codestreams it has now, and binds only where decoding leaves it
    # true.
    stated = str(ds.get("PhotometricInterpretation", ""))
    decoded = source.cells_for(from_options(syntax, {**options, "photometric_interpretation": ""}, strict=validate))
    binds = not source.compressed or decoded.photometric == stated
    wanted = str(options.get("photometric_interpretation") or (stated if binds else ""))
    if wanted in _MADE_FROM_RGB and not source.compressed:
        source.relabel("RGB")
    target = from_options(syntax, {**options, "photometric_interpretation": wanted}, strict=validate)
    cells = source.cells_for(target)
    kept = keeps_jpeg(_syntax_of(ds), syntax)
    if not kept:
        _refuse_other_colours(target, cells)
    if cells.overlay_bits and moves_overlays(cells, coding(target, cells, keeps_jpeg=kept)):
        raise FormatNotAllowed(
            f"The overlays embedded in the dataset's pixel data (PS3.5 8.1.2) would be lost to '{syntax.keyword}', and "
            "an encoder cannot move them into Overlay Data: use gpuenc.compress"
        )
    return Request(source, target, options, is_array=False)


def _syntax_of(ds: Dataset) -> str:
    meta = getattr(ds, "file_meta", None) or {}
    return str(meta.get("TransferSyntaxUID", None) or EXPLICIT_LITTLE)


def _overridden(ds: Dataset, given: Mapping[str, Any]) -> Dataset:
    """Return a dataset like the native `ds` of which `given` is true."""
    # Elements are shared with `ds`, so they are replaced and never changed.
    like = Dataset({tag: ds.get_item(tag) for tag in ds.keys()})  # noqa: SIM118 - iteration gives elements
    for name, keyword in _KEYWORD_OF.items():
        if name in given:
            vr = "IS" if name == "number_of_frames" else "US"
            like[keyword] = DataElement(tag_for_keyword(keyword) or 0, vr, given[name])
    if "HighBit" in like and not {"bits_allocated", "bits_stored"}.isdisjoint(given):
        del like.HighBit  # it belonged to other bits
    uid = _syntax_of(ds)
    if "byteorder" in given:
        uid = EXPLICIT_BIG if given["byteorder"] == ">" else EXPLICIT_LITTLE
    like.file_meta = FileMetaDataset()
    like.file_meta.TransferSyntaxUID = UID(uid)
    return like


def _refuse_disagreement(source: _DatasetFrames, given: Mapping[str, Any]) -> None:
    """Refuse keywords that contradict a compressed dataset, whose codestreams they cannot change."""
    fmt = source.format
    says = {
        "rows": fmt.rows,
        "columns": fmt.columns,
        "samples_per_pixel": fmt.samples,
        "number_of_frames": source.number_of_frames,
        "bits_allocated": fmt.bits_allocated,
        "bits_stored": fmt.bits_stored,
        "pixel_representation": int(fmt.signed),
        "planar_configuration": fmt.planar,
        "byteorder": "<",
    }
    for name, value in given.items():
        if str(value) != str(says[name]):
            raise InvalidPixels(
                f"{name}={value!r} contradicts the compressed dataset, which says {says[name]!r}: leave it out, or "
                "correct the dataset"
            )


def _refuse_other_colours(target: Target, cells: FrameFormat) -> None:
    """Refuse codestreams of another Photometric Interpretation than is stated, and say what could be done."""
    if not target.photometric:
        return
    try:
        coding(target, cells)
    except FormatNotAllowed:
        try:
            made = coding(replace(target, photometric=""), cells).photometric
        except FormatNotAllowed:
            return  # it is not about colours; each frame says what it is about
        raise FormatNotAllowed(
            f"'{target.syntax.keyword}' cannot be written with a Photometric Interpretation of '{target.photometric}' "
            f"from {cells.photometric} samples: it would be {made}, and an encoder cannot change the dataset that says "
            f"otherwise; use gpuenc.compress, or give photometric_interpretation='{made}' and correct the dataset"
        ) from None


def _format(runner: ValidatingRunner, *, for_array: bool = False) -> FrameFormat:
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


def _told_by(arr: NDArray[Any], layout: Layout, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that shape and dtype tell, for those left out."""
    shape = layout.shape
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

    def cells_for(self, target: Target) -> FrameFormat:
        """Return the format of the native cells that `target` is encoded from."""
        if not self.compressed:
            return self.format
        return encoded_format(self._source, target)

    def relabel(self, photometric: str) -> None:
        """Take the samples for what `photometric` says."""
        self.format = replace(self.format, photometric=photometric)

    def frame(self, index: int) -> Frame:
        frame = self._source.frame(index)
        return frame if self.compressed else replace(frame, format=self.format)

    def all(self) -> Iterator[Frame]:
        for frame in self._source.frames():
            yield frame if self.compressed else replace(frame, format=self.format)
