"""One source and its output: what they are, what may differ between them, and what does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpuenc.archive.comparison import IndependentDecoder, compare_images
from gpuenc.archive.dicomdir import is_dicomdir, rebuilt, wrong_records
from gpuenc.archive.dicomdir_outcome import NAME as DICOMDIR
from gpuenc.archive.findings import Finding, Stopped, line
from gpuenc.cpu import decoders
from gpuenc.dicom.attributes import (
    BITS_ALLOCATED,
    BITS_STORED,
    DERIVATION_CODES,
    DERIVATION_DESCRIPTION,
    HIGH_BIT,
    IMAGE_TYPE,
    LOSSY,
    LOSSY_METHOD,
    LOSSY_RATIO,
    PHOTOMETRIC,
    PIXEL_REPRESENTATION,
    PLANAR,
    SAMPLES,
    SOP_INSTANCE_UID,
    SOURCE_IMAGES,
)
from gpuenc.dicom.description import overlay_positions
from gpuenc.dicom.difference import TRAILER, differing_tags
from gpuenc.dicom.digests import PIECE_BYTES, file_digest, xxh3_128
from gpuenc.dicom.elements import PIXEL_DATA, name
from gpuenc.dicom.header import MEDIA_SOP_INSTANCE
from gpuenc.dicom.overlays import EmbeddedOverlays
from gpuenc.dicom.regular import regular
from gpuenc.dicom.source import DicomFile, may_be_lossy
from gpuenc.errors import GpuencError, SourceError
from gpuenc.plugins import usable_cores

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from gpuenc.archive.budget import ByteBudget
    from gpuenc.archive.comparison import Compared
    from gpuenc.archive.findings import Verdict
    from gpuenc.archive.scan import Item
    from gpuenc.frames import FrameFormat

LOGGER = logging.getLogger(__name__)

# Describe the encoding, and are judged by the samples: length to end, the group length and offset tables of Pixel Data.
_OF_ENCODING = frozenset((0x00080001, 0x7FE00000, 0x7FE00001, 0x7FE00002, 0x7FE00003))
# What a lossy output says of itself (PS3.3 C.7.6.1.1.2, C.7.6.1.1.5), and what is not true of it any more.
_OF_LOSS = frozenset(
    (
        IMAGE_TYPE, SOP_INSTANCE_UID, MEDIA_SOP_INSTANCE, DERIVATION_DESCRIPTION, SOURCE_IMAGES, DERIVATION_CODES,
        SAMPLES, PHOTOMETRIC, PLANAR, BITS_ALLOCATED, BITS_STORED, HIGH_BIT, PIXEL_REPRESENTATION,
        LOSSY, LOSSY_RATIO, LOSSY_METHOD, 0x00280106, 0x00280107, 0x00280120, 0x00280121,
        *range(0x00281101, 0x00281105), 0x00281199, *range(0x00281201, 0x00281205), *range(0x00281221, 0x00281225),
    )
)  # fmt: skip
_VRS = {PHOTOMETRIC: b"CS", LOSSY: b"CS", PLANAR: b"US", HIGH_BIT: b"US"}
_OVERLAY_ELEMENTS = (0x0015, 0x0100, 0x0102, 0x3000)
# Peak memory of two frames that are decoded and compared, as a multiple of one's samples.
_PEAK_FACTOR = 16
# From this on, the frames of one file are spread over threads.
_SPREAD_BYTES = 32 << 20
# Where there is no output of these, none was meant to be.
_LEFT_OUT_CODES = frozenset(("not-dicom",))


def compare_pair(item: Item, budget: ByteBudget, *, independent: bool, stop: threading.Event) -> Finding:
    """Return what is to be said of one source and its place in the output.

    Parameters
    ----------
    item : Item
        The two.
    budget : ByteBudget
        Memory that all files in work share.
    independent : bool
        As for `verify`.
    stop : threading.Event
        Once it is set, `Stopped` is raised.
    """
    source, output = os.fspath(item.source), os.fspath(item.destination)

    def check() -> None:
        if stop.is_set():
            raise Stopped

    try:
        if item.left_out:
            left = item.left_out
            verdict: Verdict = "unreadable" if left.status == "failed" else "left-out"
            return Finding(source, "", verdict, left.code, left.message)
        if not os.path.lexists(output):
            return _missing(item.source)
        if not os.path.isfile(output):  # a pipe would have us wait forever
            return Finding(source, output, "differs", message="what is in its place in the output is no file")
        if _identical(source, output, check):
            if stale := _stale_dicomdir(item):
                return Finding(source, output, "differs", "dicomdir-stale", stale)
            return Finding(source, output, "equal", identical=True, message="byte for byte")
        return _compared(item, budget, independent, check)
    except GpuencError as error:
        return Finding(source, output, "unreadable", error.code, line(error))
    except OSError as error:
        return Finding(source, output, "unreadable", "unreadable-source", f"a file cannot be read: {line(error)}")
    except MemoryError:
        return Finding(
            source, output, "unreadable", "out-of-memory", "there is not enough memory for one of its frames"
        )
    except Stopped:
        raise
    except Exception as error:
        # A defect of ours must not cost the other files their verdicts, and is none.
        LOGGER.debug("internal error", exc_info=True)
        return Finding(source, output, "unreadable", "internal-error", line(error))


def _stale_dicomdir(item: Item) -> str:
    """Return how a DICOMDIR that was copied byte for byte is wrong about the output's files; empty where it is not."""
    if item.source.name.upper() != DICOMDIR or not is_dicomdir(item.destination):
        return ""
    wrong = wrong_records(item.destination)
    if not wrong or wrong == wrong_records(item.source):  # no more so than the source's
        return ""
    return f"the DICOMDIR is stale: {len(wrong)} of its records name another transfer syntax or instance than the files"


def _missing(source: Path) -> Finding:
    try:
        DicomFile(source).close()
    except GpuencError as error:
        if error.code in _LEFT_OUT_CODES:
            return Finding(os.fspath(source), "", "left-out", error.code, line(error))
    return Finding(os.fspath(source), "", "missing", message="there is no such file in the output")


def _identical(one: str, other: str, check: Callable[[], None]) -> bool:
    with (
        open(one, "rb", buffering=0, opener=regular) as ours,
        open(other, "rb", buffering=0, opener=regular) as theirs,
    ):
        if os.fstat(ours.fileno()).st_size != os.fstat(theirs.fileno()).st_size:
            return False
        while True:
            check()
            piece = ours.read(PIECE_BYTES)
            # What a file system reads in smaller pieces is no difference.
            other_piece = theirs.read(len(piece)) if piece else theirs.read(1)
            while len(other_piece) < len(piece) and (more := theirs.read(len(piece) - len(other_piece))):
                other_piece += more
            if piece != other_piece:
                return False
            if not piece:
                return True


def _compared(item: Item, budget: ByteBudget, independent: bool, check: Callable[[], None]) -> Finding:
    """Compare two files whose bytes differ."""
    finding = Finding(os.fspath(item.source), os.fspath(item.destination), "differs")
    with ExitStack() as files:
        try:
            source = files.enter_context(DicomFile(item.source))
        except SourceError as error:
            return _not_an_image(item, finding, error)
        try:
            output = files.enter_context(DicomFile(item.destination))
        except GpuencError as error:
            message = f"the output: {line(error)}"
            return replace(finding, verdict="unreadable", reason=error.code, message=message)
        finding = replace(finding, source_syntax=source.syntax, output_syntax=output.syntax)
        if wrong := _other_image(source, output):
            return replace(finding, message=wrong)
        return _images(source, output, finding, budget, independent, check)


def _not_an_image(item: Item, finding: Finding, error: SourceError) -> Finding:
    """Say what it means that a file without an image that can be read has other bytes than its output."""
    if is_dicomdir(item.source):
        wanted = rebuilt(item.source, item.destination.parent)[0]
        if xxh3_128(wanted).hexdigest() == file_digest(item.destination):
            return replace(finding, verdict="equal", message="the DICOMDIR describes the files of the output")
        return replace(
            finding, message="the DICOMDIR is neither the source's nor one that describes the output's files"
        )
    if error.code in ("no-pixel-data", "float-pixel-data", "video", "not-dicom"):
        return replace(finding, message=f"{line(error)}; it has to be copied, and bytes differ")
    return replace(finding, verdict="unreadable", reason=error.code, message=f"the source: {line(error)}")


def _other_image(source: DicomFile, output: DicomFile) -> str:
    one, other = source.format, output.format
    have = (one.rows, one.columns, source.number_of_frames), (other.rows, other.columns, output.number_of_frames)
    if have[0] == have[1]:
        return ""
    sizes = [f"{rows} rows, {columns} columns and {frames} frames" for rows, columns, frames in have]
    return f"the source has {sizes[0]}, the output {sizes[1]}"


def _images(
    source: DicomFile,
    output: DicomFile,
    finding: Finding,
    budget: ByteBudget,
    independent: bool,
    check: Callable[[], None],
) -> Finding:
    lossy = _says_lossy(source, output)
    if lossy and source.format.photometric == "PALETTE COLOR":
        source.format = replace(source.format, palette=source.palette)
    moved = {
        group: bit
        for group, bit in overlay_positions(source.attributes).items()
        if source.format.overlay_bits >> bit & 1 and group not in overlay_positions(output.attributes)
    }
    moved_bits = sum(1 << bit for bit in set(moved.values()))
    overlays = EmbeddedOverlays(source.attributes, moved_bits) if moved else None
    decode = IndependentDecoder() if independent else decoders.decode_frame
    frame_bytes = source.format.rows * source.format.columns * source.format.samples * 4
    spread = usable_cores() if source.number_of_frames > 1 and source.native_bytes >= _SPREAD_BYTES else 1
    with budget.share(frame_bytes * _PEAK_FACTOR * spread) as granted:
        compared = compare_images(
            source,
            output,
            decode,
            lossy=lossy,
            kept_overlays=source.format.overlay_bits & ~moved_bits if not lossy else 0,
            threads=max(1, min(spread, granted // (frame_bytes * _PEAK_FACTOR))),
            check=check,
            watch=overlays.add if overlays else None,
        )
    elements = _elements(source, output, moved, overlays.data() if overlays else {}, lossy)
    finding = replace(finding, **_numbers(compared), elements=elements)
    if isinstance(decode, IndependentDecoder) and decode.reasons:
        why, number = decode.reasons.most_common(1)[0]
        finding = replace(finding, message=f"{number} frames decoded by the encoder's own code base: {why}")
    return _judged(finding, compared, lossy, output.format)


def _says_lossy(source: DicomFile, output: DicomFile) -> bool:
    """Whether the output is of a lossy syntax and says that it is another, lossy instance."""
    return (
        may_be_lossy(output.syntax)
        and output.attributes.text(LOSSY) == "01"
        and output.attributes.text(SOP_INSTANCE_UID) != source.attributes.text(SOP_INSTANCE_UID)
    )


def _numbers(compared: Compared) -> dict[str, Any]:
    return {
        "frames": compared.frames,
        "differing": compared.differing,
        "differing_frames": compared.differing_frames,
        "differing_samples": compared.differing_samples,
    }


def _judged(finding: Finding, compared: Compared, lossy: bool, fmt: FrameFormat) -> Finding:
    problems = []
    if compared.photometric and not lossy:
        problems.append(f"samples are {compared.photometric[1]} where they were {compared.photometric[0]}")
    if compared.differing_samples and not lossy:
        problems.append(
            f"{compared.differing_samples} of {compared.samples} samples differ, in {compared.differing_frames} of "
            f"{compared.frames} frames"
        )
    if finding.elements:
        problems.append(
            f"elements differ: {', '.join(finding.elements[:8])}{' …' if len(finding.elements) > 8 else ''}"
        )
    if problems:
        return replace(finding, message="; ".join(problems))
    if not lossy:
        return replace(finding, verdict="equal")
    psnr = compared.psnr_db(fmt.bits_stored)
    if psnr is not None:
        message = f"lossy, as it says: PSNR {psnr:.1f} dB"
    else:
        message = "lossy, as it says; " + (
            "how far it is off cannot be told" if compared.differing_samples else "but every sample is the same"
        )
    return replace(finding, verdict="lossy", message=message, psnr_db=psnr)


def _elements(
    source: DicomFile, output: DicomFile, moved: dict[int, int], overlays: dict[int, bytes], lossy: bool
) -> tuple[str, ...]:
    """Return the names of elements that differ and must not."""
    found = []
    # PS3.5 A.4 and A.2.
    if output.pixel_vr not in (("OB",) if output.compressed else ("OB", "OW", "")):
        found.append(PIXEL_DATA)
    for tag in differing_tags(source, output):
        if tag in _OF_ENCODING or _may_change(tag, source, output, lossy):
            continue
        if tag >> 16 in moved and tag & 0xFFFF in _OVERLAY_ELEMENTS:
            continue
        found.append(tag)
    for group, data in overlays.items():
        base = group << 16
        there = output.dataset.get_item(base | 0x3000) if (base | 0x3000) in output.dataset else None
        value = b"" if there is None else bytes(there.value or b"")
        if value.rstrip(b"\0") != data.rstrip(b"\0") or output.attributes.number(base | 0x0100) != 1:
            found.append(base | 0x3000)
    return tuple("behind Pixel Data" if tag == TRAILER else name(tag) for tag in found)


def _may_change(tag: int, source: DicomFile, output: DicomFile, lossy: bool) -> bool:
    """Whether it is right that an element differs; what describes samples is judged by these."""
    if tag & 0xFFFF == 0:
        # Retired group lengths: of no use to anyone, and only in groups that change something else.
        return tag >> 16 in (0x0008, 0x0028) or 0x6000 <= tag >> 16 <= 0x60FF
    if lossy and tag in _OF_LOSS:
        return True
    old, new, element = source.attributes, output.attributes, output.attributes.elements.get(tag)
    if element is None or element.vr != _VRS.get(tag):
        return False
    # Only other values are a change that was meant: not another VR or other padding of the same one.
    if tag == PHOTOMETRIC:
        return new.text(tag) not in (None, old.text(tag))
    if tag == PLANAR:
        return output.format.samples > 1 and new.number(tag) in (0, 1) and new.number(tag) != old.number(tag)
    if tag == HIGH_BIT:
        return new.number(tag) == output.format.bits_stored - 1 != old.number(tag)
    # A source whose syntax is lossy did not say so, and its output, whose syntax is not, has to.
    return tag == LOSSY and source.lossy and new.text(tag) == "01" != old.text(tag)
