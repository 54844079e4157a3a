"""Two images compared frame by frame, as samples: whatever the two transfer syntaxes, what a reader sees must be equal.

A sample is what lies in bits High Bit - Bits Stored + 1 to High Bit of its cell (PS3.5 8.1.1), or what the decoder
makes of a codestream. Planes are interleaved and chroma that is stored once for two pixels is repeated; no colour is
converted, except to tell how far lossy samples are off.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpuenc.codestream import parse
from gpuenc.codestream.jpeg2000 import unboxed
from gpuenc.coding import Coding
from gpuenc.cpu import decoders, samples
from gpuenc.errors import DecodeFailed, GpuencError, InvalidPixels
from gpuenc.frames import Coded, Frame
from gpuenc.syntaxes import BY_UID, keeps_jpeg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from gpuenc.dicom.source import DicomFile
    from gpuenc.frames import FrameFormat

    Decode = Callable[[Frame], Frame]

# More frames than these are counted and not listed.
MAX_LISTED = 20


@dataclass(slots=True)
class Compared:
    """What the comparison of two images found.

    Parameters
    ----------
    frames : int
        Frames compared.
    differing : dict of int to int
        Frame, counted from 0, to how many of its samples differ; only the first `MAX_LISTED`.
    differing_frames, differing_samples : int
        Of all frames.
    photometric : tuple of str
        What the samples of source and output are, where the two do not agree.
    squared_error : float
        Sum over all samples; NaN where they cannot be set against each other.
    samples : int
        Samples compared.
    """

    frames: int = 0
    differing: dict[int, int] = field(default_factory=dict)
    differing_frames: int = 0
    differing_samples: int = 0
    photometric: tuple[str, ...] = ()
    squared_error: float = 0.0
    samples: int = 0

    def add(self, index: int, result: FrameResult) -> None:
        """Count one frame."""
        self.frames += 1
        self.samples += result.samples
        self.squared_error += result.squared_error
        self.photometric = self.photometric or result.photometric
        if result.differing:
            self.differing_frames += 1
            self.differing_samples += result.differing
            if len(self.differing) < MAX_LISTED:
                self.differing[index] = result.differing

    def psnr_db(self, bits: int) -> float | None:
        """Return the peak signal-to-noise ratio in dB of samples of so many bits; None where it cannot be told."""
        if math.isnan(self.squared_error) or not self.samples or not self.squared_error:
            return None
        mean = self.squared_error / self.samples
        return float(20 * math.log10((1 << bits) - 1) - 10 * math.log10(mean))


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What the comparison of two frames found; see `Compared`."""

    differing: int
    samples: int
    squared_error: float = 0.0
    photometric: tuple[str, ...] = ()


def compare_images(
    source: DicomFile,
    output: DicomFile,
    decode: Decode,
    *,
    lossy: bool = False,
    kept_overlays: int = 0,
    threads: int = 1,
    check: Callable[[], None] = lambda: None,
    watch: Callable[[Frame], None] | None = None,
) -> Compared:
    """Compare all frames of two images that have the same number of them.

    Parameters
    ----------
    source, output : DicomFile
        Open.
    decode : callable
        Turns a frame of the output with `Coded` pixels into one with native cells.
    lossy : bool
        Say how far the samples are off, where they are.
    kept_overlays : int
        Mask of the cells' bits that hold embedded overlays and have to be in the output's cells too.
    threads : int
        Frames in work at once; each takes several times its native size.
    check : callable
        Called before each frame; what it raises ends the comparison.
    watch : callable, optional
        Gets every frame of the source, native, in order; for overlays embedded in it.

    Raises
    ------
    DecodeFailed, InvalidPixels, SourceError
        A frame cannot be read. Its message says of which file.
    """
    compared = Compared()
    keeps = keeps_jpeg(source.syntax, BY_UID[output.syntax]) if output.compressed else False

    def work(pair: tuple[Frame, Frame]) -> tuple[Frame, FrameResult]:
        return _compared(*pair, decode, lossy, kept_overlays, keeps)

    for index, (native, result) in enumerate(_in_order(_pairs(source, output, check), work, threads)):
        if watch:
            watch(native)
        compared.add(index, result)
    return compared


def _pairs(source: DicomFile, output: DicomFile, check: Callable[[], None]) -> Iterator[tuple[Frame, Frame]]:
    for index in range(source.number_of_frames):
        check()
        yield _read(source, index, "the source"), _read(output, index, "the output")


def _read(file: DicomFile, index: int, which: str) -> Frame:
    try:
        return file.frame(index)
    except GpuencError as error:
        raise _named(error, which, index) from None


def _named(error: GpuencError, which: str, index: int) -> GpuencError:
    return type(error)(f"frame {index} of {which}: {error}", code=error.code)


def _in_order[Given, Got](given: Iterator[Given], work: Callable[[Given], Got], threads: int) -> Iterator[Got]:
    """Yield the results in order, with so many in work at once."""
    if threads == 1:
        yield from map(work, given)
        return
    waiting: deque[Future[Got]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="gpuenc-verify-frame")
    try:
        for each in given:
            waiting.append(pool.submit(work, each))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _compared(
    source: Frame, output: Frame, decode: Decode, lossy: bool, kept_overlays: int, keeps: bool
) -> tuple[Frame, FrameResult]:
    index = source.ref.index
    ours = _native(source, decoders.decode_frame, "the source", index)
    theirs = _native(output, decode, "the output", index)
    try:
        result = compare_frames(ours, theirs, lossy=lossy, kept_overlays=kept_overlays)
    except InvalidPixels as error:
        raise _named(error, "the two", index) from None
    if keeps and not result.differing and jpeg_of(source) != jpeg_of(output):
        # The same samples of other codestreams: the promise was every bit (PS3.5 A.4.12).
        result = replace(result, differing=result.samples)
    return ours, result


def _native(frame: Frame, decode: Decode, which: str, index: int) -> Frame:
    if not isinstance(frame.pixels, Coded):
        return frame
    try:
        return decode(frame)
    except GpuencError as error:
        raise _named(error, which, index) from None


def compare_frames(source: Frame, output: Frame, *, lossy: bool = False, kept_overlays: int = 0) -> FrameResult:
    """Compare two frames of native cells, every sample; and what lies around the samples, unless `lossy`.

    Bits outside the samples may differ only where they mean nothing: as sign extension, and as overlays that are said
    to have moved elsewhere. A cell with other bits set, or that lost them, counts as a sample that differs.

    Parameters
    ----------
    source, output : Frame
        With native cells.
    lossy, kept_overlays
        As for `compare_images`.
    """
    ours, theirs = _cells(source), _cells(output)
    photometrics = _seen(source.format), _seen(output.format)
    other_colours = photometrics if photometrics[0] != photometrics[1] else ()
    one, other = source.format, output.format
    same_place = (one.high_bit, one.bits_stored, one.signed) == (other.high_bit, other.bits_stored, other.signed)
    if same_place and not other_colours and ours.dtype == theirs.dtype and np.array_equal(ours, theirs):
        return FrameResult(0, ours.size)
    left, right = samples.extract_samples(ours, one), samples.extract_samples(theirs, other)
    differing = left.size if left.shape != right.shape else samples.count_differing(left, right)
    if lossy:
        error = _squared_error(left, right, source, output)
        return FrameResult(differing, left.size, error, other_colours)
    if not differing:
        differing = max(
            samples.outside_bits(ours.reshape(-1), one).cells, samples.outside_bits(theirs.reshape(-1), other).cells
        )
    if not differing and kept_overlays:
        differing = int(np.count_nonzero((ours ^ theirs) & kept_overlays))
    return FrameResult(differing, left.size, photometric=other_colours)


def _cells(frame: Frame) -> NDArray[Any]:
    """Return unsigned cells, interleaved, one for each sample of each pixel."""
    fmt = frame.format
    cells = samples.native_cells(cast("NDArray[np.uint8]", frame.pixels), fmt, bit_offset=frame.bit_offset)
    if fmt.subsampled:
        return samples.upsample_422(cells, fmt.rows, fmt.columns).reshape(fmt.shape)
    if fmt.samples > 1 and fmt.planar:
        return samples.interleave(cells.reshape(fmt.samples, fmt.rows, fmt.columns))
    return cells.reshape(fmt.shape)


def _seen(fmt: FrameFormat) -> str:
    """Return what the samples of `_cells` are."""
    return "YBR_FULL" if fmt.subsampled else fmt.photometric


def _squared_error(left: NDArray[Any], right: NDArray[Any], source: Frame, output: Frame) -> float:
    """Return the sum of squared differences, in the colours of the source; NaN where there is no way to them."""
    had, has = _seen(source.format), _seen(output.format)
    if had == "PALETTE COLOR" and source.format.palette is not None:
        left, had = samples.expand_palette(left, source.format.palette), "RGB"
    eight = left.dtype == right.dtype == np.uint8
    if had == "RGB" and has == "YBR_FULL" and eight:
        right, has = samples.ybr_to_rgb(right), "RGB"
    elif had == "YBR_FULL" and has == "RGB" and eight:
        left, had = samples.ybr_to_rgb(left), "RGB"
    if had != has or left.shape != right.shape:
        return math.nan
    return sum(
        float(np.square(one.astype(np.float64) - other.astype(np.float64)).sum())
        for one, other in zip(left, right, strict=True)
    )


def jpeg_of(frame: Frame) -> bytes:
    """Return the JPEG codestream in a frame of JPEG or of JPEG XL JPEG Recompression, without padding."""
    coded = cast("Coded", frame.pixels)
    jpeg = coded.codestream
    if BY_UID[coded.syntax].recompresses_jpeg:
        jpeg = decoders.jpeg_of(jpeg)
    return jpeg[: parse(jpeg, "jpeg").length_bytes]


def coding_of(frame: Frame) -> Coding:
    """Return what a `Coded` frame's codestream was made for, as it and the attributes tell.

    Raises
    ------
    DecodeFailed
        The codestream's header cannot be read.
    """
    coded = cast("Coded", frame.pixels)
    syntax, fmt = BY_UID[coded.syntax], frame.format
    whole = syntax.family in ("rle", "deflate")
    precision, lossless, near = fmt.bits_allocated, syntax.loss == "never", 0
    if not whole and not syntax.recompresses_jpeg:
        try:
            stream = unboxed(coded.codestream) if syntax.jpeg2000 else coded.codestream
            info = parse(stream, syntax.family)
            precision, near = info.precision, info.near or 0
            lossless = lossless or bool(info.lossless and syntax.loss == "option")
        except GpuencError as error:
            raise DecodeFailed(str(error)) from None
    if not 1 <= precision <= 32:
        raise DecodeFailed(f"the codestream has {precision} bits per sample")
    raw = syntax.family == "deflate"
    return Coding(
        rows=fmt.rows,
        columns=fmt.columns,
        samples=fmt.samples,
        precision=precision,
        signed=fmt.signed,
        cell_bits=next(bits for bits in (8, 16, 32) if precision <= bits),
        photometric=fmt.photometric,
        mct=fmt.photometric in ("YBR_RCT", "YBR_ICT"),
        lossless=lossless,
        near=near,
        raw=raw,
        whole_cells=precision > fmt.bits_stored,
    )


class IndependentDecoder:
    """Decodes `Coded` frames with other people's code than made them, as far as there is such code.

    Attributes
    ----------
    reasons : collections.Counter
        Why frames went to gpuenc's own decoders all the same, and how many.
    """

    def __init__(self) -> None:
        self._decode_samples = import_module("gpuenc.cpu.independent").decode_samples
        self.reasons: Counter[str] = Counter()

    def __call__(self, frame: Frame) -> Frame:
        """Return the frame with native cells."""
        coded = cast("Coded", frame.pixels)
        fmt = decoders.cells_of(frame)
        wanted = coding_of(frame)
        try:
            decoded = self._decode_samples(coded.codestream, BY_UID[coded.syntax], wanted)
        except DecodeFailed as error:
            if error.code != "no-independent-decoder":
                raise
            self.reasons[str(error)] += 1
            return decoders.decode_frame(frame)
        if wanted.raw:
            return Frame(frame.ref, fmt, decoded)
        return Frame(frame.ref, fmt, samples.to_cells(decoded.reshape(fmt.shape), fmt))
