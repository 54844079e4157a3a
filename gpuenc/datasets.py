"""`compress`: a whole dataset in memory, attributes included."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from gpuenc import engine
from gpuenc.coding import RAW_FAMILIES, coding
from gpuenc.dicom.arrays import ArrayFrames, DeviceFrames, taken
from gpuenc.dicom.attributes import apply, changes, moves_overlays, with_ratio
from gpuenc.dicom.cells import encoded_format
from gpuenc.dicom.decoding import frame_decoder
from gpuenc.dicom.description import DatasetAttributes, overlay_positions
from gpuenc.dicom.overlays import EmbeddedOverlays
from gpuenc.dicom.request import DESCRIBES_CELLS, checked_array
from gpuenc.dicom.source import frames_of
from gpuenc.dicom.writer import encapsulate, put_native
from gpuenc.encoder import error_of
from gpuenc.errors import FormatNotAllowed, InvalidOption, SourceError
from gpuenc.frames import Failure
from gpuenc.keywords import CODEC, PIXELS, refuse_unknown
from gpuenc.registry import chain
from gpuenc.syntaxes import BY_UID, find, keeps_jpeg
from gpuenc.targets import from_options
from gpuenc.verification import verify_of

if TYPE_CHECKING:
    from gpuenc.dicom.attributes import Changes
    from gpuenc.frames import FrameFormat
    from gpuenc.syntaxes import Syntax
    from gpuenc.targets import Target
    from gpuenc.verification import Verify

_OWN = frozenset(
    {"arr", "encoding_plugin", "decoding_plugin", "encapsulate_ext", "generate_instance_uid", "layout"}
    | {"verify", "device", "device_memory_bytes", "threads"}
)
_PHOTOMETRIC, _PLANAR, _HIGH_BIT = 0x00280004, 0x00280006, 0x00280102
# Values that pydicom keeps as bytes, in the order in which they were read (PS3.5 7.3).
_WORD_BYTES = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}


def compress(
    ds: Dataset,
    transfer_syntax_uid: str,
    arr: Any = None,
    encoding_plugin: str = "",
    decoding_plugin: str = "",
    encapsulate_ext: bool = False,
    *,
    generate_instance_uid: bool | None = None,
    layout: str = "",
    verify: bool | Verify = True,
    device: str | int = "auto",
    device_memory_bytes: int | None = None,
    threads: int | None = None,
    **options: Any,
) -> Dataset:
    """Re-encode the pixel data of `ds` in place, and correct the attributes that describe it.

    Works for every transfer syntax, and from native as well as compressed pixel data. Where it raises, `ds` is as
    it was.

    Parameters
    ----------
    ds : pydicom.dataset.Dataset
        With its Image Pixel module (PS3.3 C.7.6.3).
    transfer_syntax_uid : str
        Transfer Syntax UID to encode to, or its name, such as ``"htj2k-lossless"``.
    arr : array, optional
        Samples to encode instead of the dataset's own; its shape, dtype and values must be what `ds` describes. Of
        numpy, or of any library with ``__cuda_array_interface__`` or DLPack; on a GPU it is encoded there.
    layout : str
        The array's axes, such as ``"NCHW"``, where its shape leaves them open; see `gpuenc.dicom.layouts`.
    encoding_plugin, decoding_plugin : str
        Labels of the only plug-ins to use.
    encapsulate_ext : bool
        Write an Extended Offset Table, even where 32 bits suffice.
    generate_instance_uid : bool, optional
        Make a new SOP Instance UID. By default a lossy result gets one and a lossless result keeps the old
        (PS3.3 C.7.6.1.1.5).
    verify : bool or {'none', 'all', 'independent'}
        Decode a lossless result again and compare every sample, as for `Encoder.encode`.
    device, device_memory_bytes
        As for `Encoder.encode`.
    threads : int, optional
        Most lanes; by default one per usable core.
    **options
        ``j2k_cr``, ``j2k_psnr``, ``jls_error``, ``quality``, ``lossless``, ``whole_cells``. The description of the
        samples is the dataset's and cannot be overridden. Names that nobody knows are refused.

    Returns
    -------
    pydicom.dataset.Dataset
        `ds`.

    Raises
    ------
    NotImplementedError
        The transfer syntax cannot be written, or that of `ds` not be read.
    ValueError, AttributeError
        `ds` is no dataset or contradicts itself, its format is not allowed, samples do not fit Bits Stored, or an
        option is wrong.
    RuntimeError
        No plug-in is available, or each of them failed.
    """
    if not isinstance(ds, Dataset):
        raise InvalidOption(f"compress takes a dataset, as pydicom.dcmread returns one, not {type(ds).__name__}")
    refuse_unknown("compress", options, CODEC | PIXELS, _OWN)
    syntax = find(transfer_syntax_uid)
    options = {name: value for name, value in options.items() if name not in DESCRIBES_CELLS}
    options.pop("photometric_interpretation", None)
    chosen = from_options(syntax, options)
    if layout and arr is None:
        raise InvalidOption(f"layout='{layout}' names the axes of an array, and there is none")
    like, array = (ds, None) if arr is None else _with_array(ds, arr, layout, chosen)
    source = frames_of(like)
    cells = encoded_format(source, chosen)
    wanted = coding(chosen, cells, keeps_jpeg=keeps_jpeg(source.syntax, chosen.syntax))
    decode = frame_decoder(decoding_plugin)
    overlays = EmbeddedOverlays(source.attributes, cells.overlay_bits) if moves_overlays(cells, wanted) else None
    frames = source.frames(expand=wanted.expand) if array is None else array.frames(cells)
    if overlays:
        frames = overlays.watch(frames, decode)
    codestreams = []
    for result in engine.encode_frames(
        frames,
        chosen,
        chain(
            syntax,
            encoding_plugin,
            options,
            device,
            device_memory_bytes=device_memory_bytes,
            near=array.device if isinstance(array, DeviceFrames) else None,
        ),
        threads=threads if source.number_of_frames > 1 else 1,
        verify=verify_of(verify),
        decode=decode,
    ):
        if isinstance(result, Failure):
            raise error_of(result)
        codestreams.append(result.codestream)
    found = changes(source, cells, chosen, wanted, overlays=overlays.data() if overlays else None)
    found = with_ratio(found, source, sum(map(len, codestreams)))
    if generate_instance_uid is False:
        kept = {tag: element for tag, element in found.set.items() if tag != 0x00080018}
        found = replace(found, set=kept, sop_instance_uid="")
    if like is not ds:
        found = _as_stated(like, ds, found)
    words = _bytes_of_words(ds) if ds.original_encoding[1] is False else []
    # All that can fail is done before anything in `ds` changes.
    pixels = _pixel_elements(codestreams, syntax, cells, extended_offsets=encapsulate_ext)
    apply(ds, found)
    _store(ds, pixels, syntax)
    if ds.original_encoding[1] is False:
        for element in words:
            element.value = np.frombuffer(element.value, f">u{_WORD_BYTES[element.VR]}").byteswap().tobytes()
        # Nothing in it is as it was read: pydicom may save it in its new encoding.
        ds.set_original_encoding(False, True)
    if generate_instance_uid and wanted.lossless:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return ds


def _with_array(ds: Dataset, arr: Any, layout: str, chosen: Target) -> tuple[Dataset, ArrayFrames | DeviceFrames]:
    """Return a dataset that describes `arr` as if it were its native pixel data, and the frames of `arr`.

    Nothing in it that differs is shared with `ds`, and of the pixel data it has the size alone.

    Raises
    ------
    FormatNotAllowed
        Overlays embedded in the pixel data that `arr` replaces would be lost.
    """
    embedded = _embedded_overlays(ds)
    like = Dataset({tag: ds.get_item(tag) for tag in ds.keys() if tag != 0x7FE00010})  # noqa: SIM118
    like.file_meta = FileMetaDataset()
    like.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if int(ds.get("SamplesPerPixel", 1)) > 1:
        like[_PLANAR] = DataElement(_PLANAR, "US", 0)
    if str(ds.get("PhotometricInterpretation", "")) in ("YBR_RCT", "YBR_ICT"):
        like[_PHOTOMETRIC] = DataElement(_PHOTOMETRIC, "CS", "RGB")
    if str(ds.get("PhotometricInterpretation", "")) == "YBR_FULL_422":
        like[_PHOTOMETRIC] = DataElement(_PHOTOMETRIC, "CS", "YBR_FULL")  # an array has every chroma sample
    raw = chosen.syntax.family in RAW_FAMILIES
    array = checked_array(like, taken(arr), layout, raw=raw, whole_cells=chosen.whole_cells)
    if array.format.planar:
        like[_PLANAR] = DataElement(_PLANAR, "US", 1)
    # An array holds samples, and neither bits below them nor overlays above them.
    like[_HIGH_BIT] = DataElement(_HIGH_BIT, "US", int(ds.BitsStored) - 1)
    for group in embedded:
        del like[group << 16 | 0x0102]
    # Zeros that nobody reads are pages that nobody allocates.
    like.PixelData = bytes((array.number_of_frames * array.format.frame_bits + 7) // 8)
    like["PixelData"].VR = "OW"
    return like, array


def _embedded_overlays(ds: Dataset) -> list[int]:
    """Return the groups of overlays that `ds` says are in its cells, where its codestreams no longer hold them.

    Raises
    ------
    FormatNotAllowed
        They are there.
    """
    groups = list(overlay_positions(DatasetAttributes(ds)))
    uid = str((getattr(ds, "file_meta", None) or {}).get("TransferSyntaxUID", "") or ExplicitVRLittleEndian)
    holds = uid not in BY_UID or BY_UID[uid].family in ("native", "rle", "deflate")
    if groups and holds and "PixelData" in ds:
        raise FormatNotAllowed(
            "The overlays embedded in the pixel data that the array replaces (PS3.5 8.1.2) would be lost: compress the "
            f"dataset without an array first, which moves them into Overlay Data, or delete group {groups[0]:04X}"
        )
    return groups


def _as_stated(like: Dataset, ds: Dataset, found: Changes) -> Changes:
    """Return `found`, which is to be made to `like`, as what is to be made to `ds`."""
    own = {tag: like[tag] for tag in (_PLANAR, _PHOTOMETRIC, _HIGH_BIT) if tag in like and like[tag] != ds.get(tag)}
    return replace(found, set={**own, **found.set})


def _bytes_of_words(ds: Dataset) -> list[DataElement]:
    """Read every element of a big-endian dataset, and return those whose values pydicom leaves in their byte order.

    Raises
    ------
    SourceError
        An element cannot be read, and so not be written the other way round.
    """
    pixels = ds[0x7FE00010]
    try:
        elements = [element for element in ds.iterall() if element.VR in _WORD_BYTES and element is not pixels]
    except Exception as error:  # noqa: BLE001 - pydicom's converters raise whatever they like, and quote the value
        raise SourceError(
            f"an element cannot be read ({type(error).__name__}), which little endian needs", code="corrupt-header"
        ) from None
    return [element for element in elements if isinstance(element.value, bytes)]


def _pixel_elements(codestreams: list[bytes], syntax: Syntax, cells: FrameFormat, *, extended_offsets: bool) -> Dataset:
    """Return Pixel Data and its offset tables, in a dataset of their own."""
    pixels = Dataset()
    if syntax.encapsulated:
        encapsulate(pixels, codestreams, syntax, extended_offsets=extended_offsets)
    else:
        put_native(pixels, codestreams, cells)
    return pixels


def _store(ds: Dataset, pixels: Dataset, syntax: Syntax) -> None:
    for element in pixels:
        ds[element.tag] = element
    # What pydicom decoded from the old pixel data is no longer true.
    ds._pixel_array, ds._pixel_id = None, {}
    if not hasattr(ds, "file_meta"):
        ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax.uid)
    if not ds.file_meta.TransferSyntaxUID.is_transfer_syntax:
        ds.file_meta["TransferSyntaxUID"]._value = _NewerUID(syntax.uid)


class _NewerUID(UID):
    """A transfer syntax that this pydicom does not know yet, and so would not write."""

    @property
    def is_transfer_syntax(self) -> bool:
        return True
