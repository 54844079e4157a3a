"""`compress`: a whole dataset in memory, attributes included."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from gpuenc import engine
from gpuenc.coding import coding
from gpuenc.cpu.decoders import decoded_format
from gpuenc.dicom.attributes import apply, changes, moves_overlays, with_ratio
from gpuenc.dicom.decoding import frame_decoder
from gpuenc.dicom.overlays import EmbeddedOverlays
from gpuenc.dicom.request import DESCRIBES_CELLS, checked_array
from gpuenc.dicom.source import frames_of
from gpuenc.dicom.writer import encapsulate, put_native
from gpuenc.encoder import error_of
from gpuenc.frames import Failure
from gpuenc.registry import chain
from gpuenc.syntaxes import find
from gpuenc.targets import from_options

if TYPE_CHECKING:
    import numpy as np

    from gpuenc.dicom.memory import DatasetSource
    from gpuenc.frames import FrameFormat
    from gpuenc.syntaxes import Syntax


def compress(
    ds: Dataset,
    transfer_syntax_uid: str,
    arr: np.ndarray | None = None,
    encoding_plugin: str = "",
    decoding_plugin: str = "",
    encapsulate_ext: bool = False,
    *,
    generate_instance_uid: bool | None = None,
    verify: bool = True,
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
    arr : numpy.ndarray, optional
        Samples to encode instead of the dataset's own; its shape, dtype and values must be what `ds` describes.
    encoding_plugin, decoding_plugin : str
        Labels of the only plug-ins to use.
    encapsulate_ext : bool
        Write an Extended Offset Table, even where 32 bits suffice.
    generate_instance_uid : bool, optional
        Make a new SOP Instance UID. By default a lossy result gets one and a lossless result keeps the old
        (PS3.3 C.7.6.1.1.5).
    verify : bool
        Decode a lossless result again and compare every sample.
    threads : int, optional
        Most lanes; by default one per usable core.
    **options
        ``j2k_cr``, ``j2k_psnr``, ``jls_error``, ``quality``, ``lossless``, ``whole_cells``. The description of the
        samples is the dataset's and cannot be overridden.

    Returns
    -------
    pydicom.dataset.Dataset
        `ds`.

    Raises
    ------
    NotImplementedError
        The transfer syntax cannot be written, or that of `ds` not be read.
    ValueError, AttributeError
        The dataset contradicts itself, its format is not allowed, samples do not fit Bits Stored, or an option is
        wrong.
    RuntimeError
        No plug-in is available, or each of them failed.
    """
    syntax = find(transfer_syntax_uid)
    options = {name: value for name, value in options.items() if name not in DESCRIBES_CELLS}
    options.pop("photometric_interpretation", None)
    chosen = from_options(syntax, options)
    source = frames_of(ds if arr is None else _with_array(ds, arr))
    cells = _cells(source, chosen.lossless)
    wanted = coding(chosen, cells)
    decode = frame_decoder(decoding_plugin)
    overlays = EmbeddedOverlays(source.attributes, cells.overlay_bits) if moves_overlays(cells, wanted) else None
    frames = source.frames(expand=wanted.expand)
    if overlays:
        frames = overlays.watch(frames, decode)
    codestreams = []
    for result in engine.encode_frames(
        frames,
        chosen,
        chain(syntax, encoding_plugin, options),
        threads=threads if source.number_of_frames > 1 else 1,
        verify=verify,
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
    apply(ds, found)
    _store(ds, codestreams, syntax, cells, extended_offsets=encapsulate_ext)
    if generate_instance_uid and wanted.lossless:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return ds


def _cells(source: DatasetSource, lossless: bool) -> FrameFormat:
    cells = decoded_format(source.syntax, source.format) if source.compressed else source.format
    if cells.photometric == "PALETTE COLOR" and not lossless:
        return replace(cells, palette=source.palette)
    return cells


def _with_array(ds: Dataset, arr: np.ndarray) -> Dataset:
    """Return a dataset like `ds` whose native pixel data is `arr`."""
    # Dataset(ds) would share what it holds, and change it.
    like = Dataset({tag: ds.get_item(tag) for tag in ds.keys()})  # noqa: SIM118 - iteration gives elements
    like.file_meta = FileMetaDataset()
    like.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if int(ds.get("SamplesPerPixel", 1)) > 1:
        like.PlanarConfiguration = 0
    if str(ds.get("PhotometricInterpretation", "")) in ("YBR_RCT", "YBR_ICT"):
        like.PhotometricInterpretation = "RGB"
    like.PixelData = checked_array(like, arr)
    like["PixelData"].VR = "OW"
    return like


def _store(
    ds: Dataset, codestreams: list[bytes], syntax: Syntax, cells: FrameFormat, *, extended_offsets: bool
) -> None:
    if syntax.encapsulated:
        encapsulate(ds, codestreams, syntax, extended_offsets=extended_offsets)
    else:
        put_native(ds, codestreams, cells)
    # What pydicom decoded from the old pixel data is no longer true.
    ds._pixel_array, ds._pixel_id = None, {}
    if not hasattr(ds, "file_meta"):
        ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax.uid)
