"""What other people's code reads in a file: samples and elements. Imports nothing of gpuenc.

pydicom finds the pixel data and the attributes, and decoders of other code bases than gpuenc's decode where there are
any; the cells are read here, by PS3.5 8.1.1. Runs in a process of its own, since some of these decoders crash.
"""

from __future__ import annotations

import json
import sys
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import micro_reader_codecs
import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.rle import _rle_decode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pydicom import Dataset
    from pydicom.tag import BaseTag

ROOT = "1.2.840.10008.1.2"
NATIVE = {ROOT, f"{ROOT}.1", f"{ROOT}.2", f"{ROOT}.1.99"}
DCT = {f"{ROOT}.4.50", f"{ROOT}.4.51"}
JXL_JPEG = f"{ROOT}.4.111"
OPENJPEG_HT_BITS = 28
# Group lengths, and what describes the encoding of the pixels: PS3.3 C.7.6.3.1.
MAY_CHANGE = {
    0x00080001, 0x00280004, 0x00280006, 0x00280102, 0x00282110, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010,
}  # fmt: skip
# Overlays, which move where they were embedded; delimiters.
OTHER_GROUPS = {*range(0x6000, 0x6100), 0xFFFE}


class Unread(Exception):
    """The file, or its pixels, cannot be read by this code."""


class Reading:
    """What one file says.

    Attributes
    ----------
    dataset : pydicom.Dataset
    frames : int
    shape : (rows, columns, samples)
    """

    def __init__(self, path: str) -> None:
        self.dataset = ds = dcmread(path)
        self.uid = str(ds.file_meta.TransferSyntaxUID)
        if "PixelData" not in ds:
            raise Unread("no Pixel Data")
        self.frames = max(1, int(ds.get("NumberOfFrames") or 1))  # as pydicom, dcmtk and gdcm take it
        self.shape = (int(ds.Rows), int(ds.Columns), int(ds.SamplesPerPixel))
        self.allocated, self.stored = int(ds.BitsAllocated), int(ds.BitsStored)
        high = ds.get("HighBit")
        self.high = self.stored - 1 if high in (None, "") or int(high) < 0 else int(high)
        self.signed = bool(ds.PixelRepresentation)
        self.colour = str(ds.PhotometricInterpretation)
        if 0 in self.shape or self.frames < 1:
            raise Unread("no pixels")
        if self.frames * int(np.prod(self.shape)) > 1 << 26:
            raise Unread("too many pixels")

    @property
    def codestreams(self) -> list[bytes]:
        """Each frame's, without what pads it."""
        ds = self.dataset
        if not ds["PixelData"].is_undefined_length:
            raise Unread("Pixel Data of defined length")
        tables = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
        extended = tables if all(tables) and self._basic_is_empty() else None
        frames = list(generate_frames(ds.PixelData, number_of_frames=self.frames, extended_offsets=extended))
        if len(frames) != self.frames:
            raise Unread(f"{len(frames)} frames of {self.frames}")
        # Of JP2, which PS3.5 A.4.4 does not allow, the contiguous codestream.
        return [each[each.find(b"jp2c") + 4 :] if each[4:8] == b"jP  " else each for each in frames]

    def _basic_is_empty(self) -> bool:
        return self.dataset.PixelData[4:8] == b"\0\0\0\0"

    def samples(self, decode: Callable[[Reading, bytes], NDArray[np.integer]]) -> NDArray[np.int64]:
        """Return (frames, rows, columns, samples), colours as they are in the pixel data."""
        ds = self.dataset
        if self.uid in NATIVE:
            data = bytes(ds.PixelData)
            big = self.uid.endswith(".2") and self.uid != ROOT
            if big and ds["PixelData"].VR == "OW" and self.allocated <= 8:
                data = np.frombuffer(data[: len(data) // 2 * 2], "u2").byteswap().tobytes()
            return np.stack([self.native(data, index, big) for index in range(self.frames)])
        decoded = [decode(self, codestream) for codestream in self.codestreams]
        return np.stack([each.reshape(self.shape) for each in decoded])

    def native(self, data: bytes, index: int, big: bool = False) -> NDArray[np.int64]:
        """Return one frame of native cells (PS3.5 8.1.1)."""
        rows, columns, count = self.shape
        if self.allocated == 1:
            size = rows * columns * count
            bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            if bits.size < size * (index + 1):
                raise Unread("too few bits")
            return bits[size * index : size * (index + 1)].astype(np.int64).reshape(self.shape)
        if self.allocated not in (8, 16, 32, 64):
            raise Unread(f"Bits Allocated {self.allocated}")
        cells = np.frombuffer(data[: len(data) * 8 // self.allocated * self.allocated // 8], self._cell(big))
        subsampled = self.colour == "YBR_FULL_422"
        size = rows * columns * (2 if subsampled else count)
        if cells.size < size * (index + 1):
            raise Unread("too few cells")
        frame = cells[size * index : size * (index + 1)].astype(np.uint64)
        if subsampled:
            pairs = frame.reshape(rows, columns // 2, 4)
            luma = pairs[..., :2].reshape(rows, columns)
            frame = np.stack([luma, *(np.repeat(pairs[..., at], 2, axis=1) for at in (2, 3))], axis=-1)
        elif count > 1 and int(self.dataset.get("PlanarConfiguration") or 0) == 1:
            frame = np.moveaxis(frame.reshape(count, rows, columns), 0, -1)
        return self.values(frame.reshape(self.shape))

    def _cell(self, big: bool) -> str:
        return f"{'>' if big else '<'}u{self.allocated // 8}"

    def values(self, cells: NDArray[np.uint64], high: int | None = None) -> NDArray[np.int64]:
        """Return the samples in cells: Bits Stored below High Bit, two's complement where they have a sign."""
        high = self.high if high is None else high
        low = high + 1 - self.stored
        if low < 0:
            raise Unread("High Bit below Bits Stored")
        values = (cells.astype(np.uint64) >> np.uint64(low)).astype(np.int64) & ((1 << self.stored) - 1)
        if self.signed:
            values = values - ((values >> (self.stored - 1)) << self.stored)
        return values

    def coded(self, decoded: NDArray[np.integer], precision: int) -> NDArray[np.int64]:
        """Return the samples of a codestream's integers: at the bottom, unless whole cells were compressed."""
        if decoded.size != int(np.prod(self.shape)):
            raise Unread(f"decoded to {decoded.shape}")
        mask = (1 << min(63, 8 * decoded.dtype.itemsize)) - 1
        cells = (decoded.astype(np.int64) & mask).astype(np.uint64)
        whole = self.high >= self.stored and precision > self.high
        return self.values(cells.reshape(self.shape), self.high if whole else self.stored - 1)


def independent(reading: Reading, codestream: bytes) -> NDArray[np.int64]:
    """Decode by another code base than gpuenc's own, or at least by other code around it."""
    number, precision = reading.uid.removeprefix(f"{ROOT}."), _precision(codestream)
    if number == "5":
        return _rle(reading, codestream)
    if number == "8.1":
        inflater = zlib.decompressobj(-15)
        return reading.native(inflater.decompress(codestream), 0)
    if number in ("4.110", "4.112"):
        return _jxl_oxide(reading, codestream)
    if number == "4.111":
        return _jpeg(reading, bytes(imagecodecs.jpegxl_decode_jpeg(codestream)))
    if number in ("4.50", "4.51"):
        return _jpeg(reading, codestream)
    if number in ("4.80", "4.81"):
        import jpeg_ls  # of corrupt codestreams pylibjpeg-libjpeg returns invented samples

        decoded = np.asarray(jpeg_ls.decode_pixel_data(codestream)[0])
        return reading.coded(decoded.view("<u2" if precision > 8 else "u1"), precision)
    if number in ("4.57", "4.70"):
        import libjpeg

        return reading.coded(libjpeg.decode(codestream, colour_transform=0), precision)
    if number in ("4.90", "4.91", "4.201", "4.202", "4.203"):
        if number not in ("4.90", "4.91") and precision > OPENJPEG_HT_BITS:
            return _openjph(reading, codestream)
        import openjpeg

        return reading.coded(openjpeg.decode(codestream), precision)
    raise Unread(f"no decoder for {reading.uid}")


def same_code(reading: Reading, codestream: bytes) -> NDArray[np.int64]:
    """Decode with the library that gpuenc has too, but not with gpuenc's checks: what it says of damaged data."""
    number, precision = reading.uid.removeprefix(f"{ROOT}."), _precision(codestream)
    if number in ("4.50", "4.51", "4.57", "4.70"):
        colour = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"} if reading.shape[2] == 3 else {}
        return reading.coded(imagecodecs.jpeg8_decode(codestream, **colour), precision)
    if number in ("4.80", "4.81"):
        return reading.coded(imagecodecs.jpegls_decode(codestream), precision)
    if number in ("4.90", "4.91"):
        return reading.coded(imagecodecs.jpeg2k_decode(codestream), precision)
    if number in ("4.201", "4.202", "4.203"):
        return _openjph(reading, codestream)
    if number in ("4.110", "4.112"):
        decoded = imagecodecs.jpegxl_decode(codestream)
        return reading.coded(decoded, 8 * decoded.itemsize)
    return independent(reading, codestream)


def _openjph(reading: Reading, codestream: bytes) -> NDArray[np.int64]:
    interleaved = {"planar": False} if reading.shape[2] > 1 else {}
    return reading.coded(imagecodecs.htj2k_decode(codestream, **interleaved), _precision(codestream))


def _precision(codestream: bytes) -> int:
    """Return the bits per sample that SOF (T.81 B.2.2) or SIZ (T.800 A.5.1) says; 0 for what has neither."""
    if codestream[:4] == b"\xff\x4f\xff\x51":
        return (codestream[42] & 0x7F) + 1
    at = 2
    while codestream[:2] == b"\xff\xd8" and at + 5 <= len(codestream):
        if codestream[at + 1] in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
            return codestream[at + 4]
        at += 1 if codestream[at + 1] == 0xFF else 2 + int.from_bytes(codestream[at + 2 : at + 4])
    return 0


def _jpeg(reading: Reading, codestream: bytes) -> NDArray[np.int64]:
    """DCT: decoders differ by rounding and by how they upsample, so it is the same one."""
    return same_code(_As(reading, f"{ROOT}.4.50"), codestream)


class _As:
    def __init__(self, reading: Reading, uid: str) -> None:
        self.uid, self.shape, self.coded = uid, reading.shape, reading.coded


def _rle(reading: Reading, codestream: bytes) -> NDArray[np.int64]:
    rows, columns, count = reading.shape
    bits = max(8, reading.allocated)  # cells of one bit are bytes
    data = bytes(_rle_decode_frame(codestream, rows, columns, count, bits, ">"))
    cells = np.frombuffer(data, f"<u{bits // 8}").reshape(count, rows, columns)
    return reading.values(np.moveaxis(cells, 0, -1).astype(np.uint64))


def _jxl_oxide(reading: Reading, codestream: bytes) -> NDArray[np.int64]:
    """jxl-oxide renders to the full range of 8 or 16 bits, the wider for more than 8: undone without loss."""
    shape = reading.shape[:2] if reading.shape[2] == 1 else reading.shape
    out = np.zeros(shape, np.uint8)
    try:
        found = micro_reader_codecs.jxl_decode_into(codestream, out.reshape(-1))
    except ValueError as error:
        if "does not fill" not in str(error):
            raise
        out = np.zeros(shape, np.uint16)
        found = micro_reader_codecs.jxl_decode_into(codestream, out.view(np.uint8).reshape(-1))
    width, height, channels, bits = found
    if (height, width, channels) != reading.shape:
        raise Unread(f"decoded as {height}x{width}x{channels}")
    highest = np.iinfo(out.dtype).max
    samples = (out.astype(np.int64) * ((1 << bits) - 1) * 2 + highest) // (2 * highest)
    return reading.coded(samples.astype(out.dtype), bits)


# Elements.


def elements_apart(source: Dataset, output: Dataset) -> list[str]:
    """Return which elements are new, lost or changed, besides those that describe pixels and private ones of VR UN."""
    apart = []
    for tag in sorted({*source.keys(), *output.keys()}):
        if tag in MAY_CHANGE or tag.element == 0 or tag.group % 2 or tag.group in OTHER_GROUPS:
            continue
        if tag not in source or tag not in output:
            apart.append(f"{tag} is {'new' if tag not in source else 'lost'}")
        elif _values(source, output, tag):
            apart.append(f"{tag} has changed")
    return apart


def _values(source: Dataset, output: Dataset, tag: BaseTag) -> bool:
    """Whether the values of an element differ: bytes, where both files are Explicit VR Little Endian."""
    raw = source.get_item(tag), output.get_item(tag)
    bytewise = source.original_encoding == (False, True) and all(isinstance(each, RawDataElement) for each in raw)
    # Implicit data sets under another transfer syntax pass for explicit ones.
    if bytewise and not any(each.is_implicit_VR for each in raw):
        return (raw[0].value or b"") != (raw[1].value or b"")
    try:
        return _converted(source[tag], output[tag])
    except Exception:  # noqa: BLE001 - what cannot be converted
        return False


def _converted(old: DataElement, new: DataElement) -> bool:
    """Whether pydicom reads other values; what is swapped, or not, as the VR says, counts by its length."""
    if {str(old.VR), str(new.VR)} & {"OB", "OW", "UN", "OF", "OD", "OL", "OV"}:
        return len(old.value or b"") != len(new.value or b"")
    if old.VR != "SQ" or new.VR != "SQ":
        return bool(old.value != new.value)
    if len(old.value) != len(new.value):
        return True
    return any(
        a.keys() != b.keys() or any(_converted(a[tag], b[tag]) for tag in a.keys())  # noqa: SIM118 - Dataset's
        for a, b in zip(old.value, new.value, strict=True)
    )


# The verdict.


def read(path: str, decode: Callable[[Reading, bytes], NDArray[np.integer]]) -> tuple[Reading, NDArray[np.int64]]:
    reading = Reading(path)
    return reading, reading.samples(decode)


def verdict(source: str, output: str) -> dict[str, object]:
    """Compare an output with its source.

    Returns
    -------
    dict
        ``unread``: why the source cannot be read; ``output``: why the output cannot; ``same``: by whom the samples are
        the same ("independent", "same code"), or empty with ``apart``; ``elements``: which are not the same.
    """
    answer: dict[str, object] = {"unread": "", "output": "", "same": "", "apart": "", "elements": []}
    after = None
    try:
        reading = Reading(output)
        after = _jpegs(reading) if reading.uid in (JXL_JPEG,) else reading.samples(independent)
    except Exception as error:  # noqa: BLE001 - whatever it is, our output could not be read
        answer["output"] = f"{type(error).__name__}: {error}"
    try:
        before = Reading(source)
    except Exception as error:  # noqa: BLE001
        answer["unread"] = f"{type(error).__name__}: {error}"
        return answer
    if after is None:
        return answer
    answer["elements"] = elements_apart(before.dataset, reading.dataset)
    for name, decode in (("independent", independent), ("same code", same_code)):
        try:
            want = _jpegs(before) if reading.uid == JXL_JPEG else before.samples(decode)
        except Exception as error:  # noqa: BLE001
            answer["unread"] = answer["unread"] or f"{type(error).__name__}: {error}"
            continue
        if isinstance(want, list) or isinstance(after, list):
            same = want == after
            answer["apart"] = "the JPEG codestreams differ"
        else:
            same = want.shape == after.shape and bool((want == after).all())
            answer["apart"] = (
                f"shapes {want.shape} and {after.shape}"
                if want.shape != after.shape
                else (f"{int((want != after).sum())} of {want.size} samples differ")
            )
        if same:
            answer["same"], answer["apart"] = name, ""
            return answer
    return answer


def _jpegs(reading: Reading) -> list[bytes]:
    frames = reading.codestreams
    if reading.uid == JXL_JPEG:
        frames = [bytes(imagecodecs.jpegxl_decode_jpeg(each)) for each in frames]
    return [each.rstrip(b"\0\xff") for each in frames]


def main() -> None:
    """Answer questions, one line of JSON each, until there are no more."""
    import os

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        source, output = json.loads(line)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = verdict(source, output)
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    assert Path(__file__).exists()
    main()
