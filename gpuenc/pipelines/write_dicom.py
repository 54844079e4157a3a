"""`write_dicom`: an array as a DICOM object of its own, derived from another."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from gpuenc import engine
from gpuenc.coding import RAW_FAMILIES, check_format, coding
from gpuenc.dicom import template as checked
from gpuenc.dicom.arrays import ArrayFrames, DeviceFrames, frames_of_array, on_host, taken
from gpuenc.dicom.attributes import SOP_INSTANCE_UID, SOURCE_IMAGES, apply, changes, with_ratio
from gpuenc.dicom.derivation import Derivation, code_of, integer_of, pair_of, text_of, uid_of, window_of
from gpuenc.dicom.derived import derived, new_format
from gpuenc.dicom.description import DatasetAttributes
from gpuenc.dicom.header import header_of
from gpuenc.dicom.layouts import layout_of
from gpuenc.dicom.regular import regular
from gpuenc.dicom.scale import Scale, extremes, quantised
from gpuenc.dicom.writer import OutputFile
from gpuenc.encoder import error_of
from gpuenc.errors import DestinationError, InvalidOption, InvalidPixels, SourceError
from gpuenc.frames import Failure
from gpuenc.keywords import CODEC, refuse_unknown
from gpuenc.registry import chain
from gpuenc.syntaxes import find
from gpuenc.targets import from_options
from gpuenc.verification import verify_of

if TYPE_CHECKING:
    from gpuenc.dicom.attributes import Changes
    from gpuenc.dicom.description import Attributes
    from gpuenc.dicom.header import Header
    from gpuenc.dicom.layouts import Layout
    from gpuenc.frames import FrameFormat
    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target
    from gpuenc.verification import Verify

type Rescale = tuple[float, float] | Literal["template", "range"] | None

_NATIVE = "1.2.840.10008.1.2.1"
_MOST_BITS, _MOST = 32, (1 << 63) - 1
# What describes samples is said in words of its own here, and the array says the rest.
_OPTIONS = CODEC - {"whole_cells"}
_OWN = frozenset(
    {"layout", "rescale", "rescale_type", "window", "bits_stored", "photometric", "resized", "description"}
    | {"derivation_code", "series_instance_uid", "series_description", "series_number"}
    | {"verify", "device", "device_memory_bytes", "threads"}
)


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_dicom` wrote.

    Parameters
    ----------
    path : Path
        The file.
    sop_instance_uid, series_instance_uid : str
        Its new UIDs.
    number_of_frames : int
        In it.
    bytes_written : int
        Its size.
    rescale_slope, rescale_intercept : str
        What was written of what stored values mean; empty where nothing was, or the template's was kept.
    """

    path: Path
    sop_instance_uid: str
    series_instance_uid: str
    number_of_frames: int
    bytes_written: int
    rescale_slope: str = ""
    rescale_intercept: str = ""


@dataclass(slots=True)
class _Pixels:
    """What `attributes.changes` reads of a source: native cells that a new data set describes."""

    format: FrameFormat
    number_of_frames: int
    attributes: Attributes
    syntax: str = _NATIVE
    compressed: bool = False
    lossy: bool = False

    @property
    def native_bytes(self) -> int:
        """Bytes of all frames without compression."""
        return (self.number_of_frames * self.format.frame_bits + 7) // 8


def write_dicom(
    template: Dataset | str | os.PathLike[str],
    array: Any,
    target: str,
    out: str | os.PathLike[str],
    *,
    layout: str = "",
    rescale: Rescale = None,
    rescale_type: str = "",
    window: tuple[float, float] | None = None,
    bits_stored: int | None = None,
    photometric: str = "",
    resized: bool = False,
    description: str = "",
    derivation_code: tuple[str, str, str] | None = None,
    series_instance_uid: str = "",
    series_description: str = "",
    series_number: int | None = None,
    verify: bool | Verify = True,
    device: str | int = "auto",
    device_memory_bytes: int | None = None,
    threads: int | None = None,
    **options: Any,
) -> Written:
    """Write `array` as a new DICOM object that is about what `template` is about.

    Patient, study, frame of reference and acquisition stay the template's; SOP Instance and Series Instance UID are
    new, Image Type becomes DERIVED\\\\SECONDARY (of enhanced objects DERIVED\\\\PRIMARY), and the template is named as
    source. Everything that describes samples is that of the array. Private elements, signatures, icons and overlays
    that belong to the old pixels are left out. The file appears under its name when it is complete, and replaces none.

    Parameters
    ----------
    template : pydicom.dataset.Dataset or path-like
        An image object, or its file; its pixels are not read.
    array : array
        Samples, of numpy or any library with ``__cuda_array_interface__`` or DLPack, in one of the layouts
        `Encoder.encode` takes; 8, 16 or 32 bits, or floats with `rescale`. On a GPU it is encoded there.
    target : str
        Transfer Syntax UID, or its name, such as ``"htj2k-lossless"``.
    out : path-like
        The file to write, which must not exist; its folder must.
    layout : str
        The array's axes, such as ``"NCHW"``, where its shape leaves them open.
    rescale : tuple of float, 'template', 'range' or None
        What stored values mean (PS3.3 C.11.1). Of integers ``'template'``: the same as in the template;
        ``(slope, intercept)``: slope times the value plus intercept; None: nothing, which is refused where the template
        states something. Of floats ``(slope, intercept)``: they are meanings, and the nearest stored values are
        written; ``'range'``: slope and intercept are chosen so that they fill 16 bits.
    rescale_type : str
        Unit of the meanings, such as ``"HU"``; unspecified (``"US"``) by default.
    window : tuple of float, optional
        Window Center and Width. Without it only ``rescale='template'`` keeps the template's.
    bits_stored : int, optional
        By default all of the dtype, and with ``rescale='template'`` the template's where cells are as before.
    photometric : str
        Photometric Interpretation of the array: by default of one sample MONOCHROME2 or the template's MONOCHROME1, of
        three RGB. Needed where the template's is PALETTE COLOR, YBR_FULL or YBR_FULL_422.
    resized : bool
        The array shows the template's whole field of view in another number of rows and columns; spacing and position
        are corrected for that.
    description, derivation_code
        Derivation Description, and a code for it: value, scheme, meaning, as in PS3.16 CID 7203.
    series_instance_uid, series_description, series_number
        Of the new series. Give the UID to put several objects in one series; the number is left empty by default.
    verify, device, device_memory_bytes, threads, **options
        As for `gpuenc.compress`; of options those of codecs alone.

    Returns
    -------
    Written
        What was written.

    Raises
    ------
    SourceError
        The template is no image object, or cannot be read, or says what is no number where it should be one.
    InvalidPixels
        The array is not what an object like the template can hold, or only the caller can know what is true of it; the
        message says what to do.
    InvalidOption, NotImplementedError
        An option is wrong, such as a window without a width, a UID that is none, or text that its VR does not take; or
        the transfer syntax cannot be written.
    DestinationError
        ``destination-exists`` and others; nothing is left of the output.
    RuntimeError
        No plug-in is available, or each of them failed.
    """
    refuse_unknown("write_dicom", options, _OPTIONS, _OWN)
    path = _path("out", out)
    syntax = find(target)
    chosen = from_options(syntax, options)
    said: dict[str, Any] = {
        "units": text_of("rescale_type", rescale_type, "LO"),
        "window": window_of(window),
        "resized": bool(resized),
        "description": text_of("description", description, "ST"),
        "code": code_of(derivation_code),
        "series_instance_uid": uid_of("series_instance_uid", series_instance_uid),
        "series_description": text_of("series_description", series_description, "LO"),
        "series_number": integer_of("series_number", series_number, -(1 << 31), (1 << 31) - 1),
    }
    bits_stored = integer_of("bits_stored", bits_stored, 1, _MOST_BITS)
    threads = integer_of("threads", threads, 1, _MOST)
    device_memory_bytes = integer_of("device_memory_bytes", device_memory_bytes, 1, _MOST)
    rescale = _rescale(rescale)
    like = _read(template)
    samples, scale, axes = _samples(like, array, layout, rescale)
    kind, keeps = on_host(samples).dtype, rescale == "template"
    fmt = new_format(
        like,
        axes.shape,
        bits=kind.itemsize * 8,
        stored=bits_stored or _bits_stored(like, kind, keeps=keeps),
        signed=kind.kind == "i",
        photometric=photometric,
    )
    check_format(fmt)
    frames = frames_of_array(samples, fmt, axes, raw=syntax.family in RAW_FAMILIES)
    asked = Derivation(frames.format, frames.number_of_frames, scale=scale, keeps_scale=keeps, **said)
    near = frames.device if isinstance(frames, DeviceFrames) else None
    plugins = chain(syntax, "", options, device, device_memory_bytes=device_memory_bytes, near=near)
    made = derived(like, asked)
    try:
        written = _write(made, frames, chosen, path, plugins, threads, verify_of(verify))
    except DestinationError as error:
        if error.code != "destination-exists":
            raise
        raise DestinationError(f"{path.name} exists; write_dicom replaces no file", code=error.code) from None
    return replace(written, rescale_slope=scale.slope, rescale_intercept=scale.intercept) if scale else written


def _write(
    made: Dataset,
    frames: ArrayFrames | DeviceFrames,
    chosen: Target,
    path: Path,
    plugins: list[Plugin],
    threads: int | None,
    verify: Verify,
) -> Written:
    cells, number = frames.format, frames.number_of_frames
    wanted = coding(chosen, cells)
    pixels = _Pixels(cells, number, DatasetAttributes(made))
    found = _of_new_instance(changes(pixels, cells, chosen, wanted))
    encoded_bytes = 0
    with (
        OutputFile(
            path, _header(made, found, chosen.syntax.uid), chosen.syntax, number, cells=cells, coding=wanted
        ) as output,
        closing(
            engine.encode_frames(
                frames.frames(cells), chosen, plugins, threads=threads if number > 1 else 1, verify=verify
            )
        ) as results,
    ):
        for result in results:
            if isinstance(result, Failure):
                raise error_of(result)
            output.put(result.codestream)
            encoded_bytes += len(result.codestream)
        final = None
        if not wanted.lossless:
            final = _header(made, with_ratio(found, pixels, encoded_bytes), chosen.syntax.uid)
        summary = output.finish(final)
    return Written(path, str(made.SOPInstanceUID), str(made.SeriesInstanceUID), number, summary.bytes_written)


def _samples(template: Dataset, array: Any, layout: str, rescale: Rescale) -> tuple[Any, Scale | None, Layout]:
    """Return stored values, what they mean if that is new, and which axis is which."""
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidPixels("A masked array has no values where it is masked: say which, as in array.filled(0)")
    there = taken(array)
    described = on_host(there)
    if not isinstance(described, np.ndarray):
        raise InvalidPixels(f"An array is needed, not {type(array).__name__}")
    if not described.size:
        raise InvalidPixels(f"The array is empty: its shape is {described.shape}")
    axes = layout_of(described.shape, described.dtype, _stated(template, described.shape), layout)
    return *_stored(there, described.dtype, template, rescale), axes


def _path(name: str, given: Any) -> Path:
    try:
        path = Path(given)
    except TypeError:
        raise InvalidOption(f"{name} is a path, not {type(given).__name__}") from None
    if "\0" in str(path):
        raise InvalidOption(f"{name} is no path: it has a zero byte in it")
    return path


def _rescale(given: Any) -> Rescale:
    """Return what was given, numbers as a tuple of two."""
    if given is None:
        return None
    if isinstance(given, str):
        if given not in ("template", "range"):
            raise InvalidOption(f"rescale is (slope, intercept), 'template', 'range' or None, not '{given}'")
        return "template" if given == "template" else "range"
    return pair_of("rescale", "(slope, intercept)", given)


def _read(template: Any) -> Dataset:
    like = template if isinstance(template, Dataset) else _read_file(_path("template", template))
    checked.check(like)
    return like


def _read_file(path: Path) -> Dataset:
    try:
        with open(path, "rb", opener=regular) as file:
            return dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        raise SourceError("the template is not a DICOM file", code="not-dicom") from None
    except OSError as error:
        raise SourceError(f"the template cannot be read: {error.strerror or type(error).__name__}") from None
    except Exception as error:  # noqa: BLE001 - pydicom's reader raises whatever it likes, and quotes the file
        raise SourceError(f"the template cannot be read ({type(error).__name__})", code="corrupt-header") from None


def _stated(template: Dataset, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what the template tells of an array that has its rows and columns, next to each other."""
    rows, columns = template.get("Rows"), template.get("Columns")
    if not rows or not columns or (rows, columns) not in pairwise(shape):
        return {}
    frames, samples = int(template.get("NumberOfFrames") or 1), template.get("SamplesPerPixel")
    if shape == (3, rows, columns) and (frames, samples) in ((3, 1), (1, 3)):
        return {"rows": rows, "columns": columns, "number_of_frames": frames, "samples_per_pixel": samples}
    return {"rows": rows, "columns": columns}


def _stored(array: Any, dtype: np.dtype[Any], template: Dataset, rescale: Rescale) -> tuple[Any, Scale | None]:
    """Return stored values and what they mean; None where that is the template's, or nothing."""
    if dtype.kind in "ui":
        if dtype.itemsize > 4:
            raise InvalidPixels(f"The array's dtype is {dtype}: convert it to integers of 8, 16 or 32 bits")
        if rescale == "range":
            raise InvalidOption("rescale='range' quantises floats, and the array holds integers already")
        return array, Scale.of(*rescale) if isinstance(rescale, tuple) else None
    if dtype.kind != "f":
        raise InvalidPixels(f"The array's dtype is {dtype}: convert it to integers, such as uint8")
    if not isinstance(rescale, tuple) and rescale != "range":
        raise InvalidPixels(
            f"The array's dtype is {dtype}, and DICOM stores integers: rescale=(slope, intercept) writes the nearest "
            "stored values and what they mean, rescale='range' chooses both so that the values fill 16 bits; or round "
            "it yourself"
        )
    if rescale == "range":
        scale, signed = Scale.over(*extremes(array)), False
    else:
        scale, signed = Scale.of(*rescale), template.get("PixelRepresentation") == 1
    return quantised(array, scale, np.dtype("i2" if signed else "u2")), scale


def _bits_stored(template: Dataset, kind: np.dtype[Any], *, keeps: bool) -> int:
    bits = kind.itemsize * 8
    alike = (template.get("BitsAllocated"), template.get("PixelRepresentation")) == (bits, int(kind.kind == "i"))
    return int(template.get("BitsStored", bits)) if keeps and alike else bits


def _of_new_instance(found: Changes) -> Changes:
    """Return what a lossy target changes, of an instance that is new already, and derived from another already."""
    kept = {tag: element for tag, element in found.set.items() if tag != SOP_INSTANCE_UID}
    append = {tag: item for tag, item in found.append.items() if tag != SOURCE_IMAGES}
    return replace(found, set=kept, append=append, sop_instance_uid="")


def _header(made: Dataset, found: Changes, syntax: str) -> Header:
    changed = Dataset({tag: made.get_item(tag) for tag in made.keys()})  # noqa: SIM118 - iteration gives elements
    implicit, little = made.original_encoding
    changed.set_original_encoding(implicit, little, made.original_character_set)
    apply(changed, found)
    try:
        return header_of(changed, syntax)
    except Exception as error:  # noqa: BLE001 - pydicom's writers raise whatever they like, and quote the value
        raise SourceError(
            f"an element of the template cannot be written ({type(error).__name__})", code="corrupt-header"
        ) from None
