"""Whether a file holds what was meant to be in it: read again under its temporary name, before it gets its own.

The lane that encoded a frame decoded that very codestream and compared it, so nothing is decoded here. What can still
go wrong lies between memory and file: a length, an offset table, the order of frames, a patched header, a short write.
So the file is opened by our own reader, and digests of what was handed over are compared with those of what is found
where that reader looks. It follows every element up to Pixel Data and keeps those that describe the pixels; that the
others are what was meant, and that nothing else is there, the comparison of bytes shows. Every byte of the file is read
once for this; a file of a few megabytes in one piece, in which reader and comparison then look. It comes from the
system's cache: what a disk does to it later is for `gpuenc verify` to find.
"""

from __future__ import annotations

import os
import zlib
from array import array
from dataclasses import replace
from functools import partial
from struct import pack
from typing import TYPE_CHECKING

from gpuenc.dicom.digests import PIECE_BYTES, xxh3_64_intdigest, xxh3_128
from gpuenc.dicom.elements import name
from gpuenc.dicom.fragments import ITEM_TAG, SEQUENCE_END
from gpuenc.dicom.source import DESCRIBING_GROUPS, DicomFile
from gpuenc.errors import DestinationError, GpuencError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpuenc.coding import Coding
    from gpuenc.dicom.header import Header
    from gpuenc.frames import FrameFormat
    from gpuenc.syntaxes import Syntax

# Bytes of a file: so many, from there.
type _Read = Callable[[int, int], bytes | memoryview]

# Up to this size a file is read back in one piece.
_HELD_BYTES = 4 << 20
_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002


class Intended:
    """What a file is meant to hold, noted while it is handed over.

    Parameters
    ----------
    syntax : Syntax
        Its transfer syntax.
    number_of_frames : int
        Frames to come.
    cells : FrameFormat
        Of the native cells that are written or were encoded.
    coding : Coding, optional
        What the cells became; without it, only Rows, Columns and Number of Frames of an encapsulated file are compared.
    deflated : bool
        The data set is deflated as a whole (PS3.5 A.5).
    """

    def __init__(
        self, syntax: Syntax, number_of_frames: int, *, cells: FrameFormat, coding: Coding | None, deflated: bool
    ) -> None:
        self._syntax, self._number_of_frames = syntax, number_of_frames
        self._cells, self._coding, self._deflated = cells, coding, deflated
        # Of encapsulated files, for each fragment; of others for Pixel Data; of deflated ones for the data set.
        self._digests, self._lengths = array("Q"), array("Q")
        self._native, self._trailer = xxh3_128(), xxh3_128()

    def add_frame(self, codestream: bytes, value: bytes) -> None:
        """Note one fragment: what it holds, and how it is padded."""
        self._digests.append(xxh3_64_intdigest(value))
        # The fill byte of JPEG-LS comes before its end, so it belongs to the codestream (T.81 B.1.1.2).
        self._lengths.append(len(value) if self._syntax.family == "jpeg-ls" else len(codestream))

    def add_native(self, data: bytes) -> None:
        """Note bytes of native Pixel Data; of a deflated file, bytes of the data set."""
        self._native.update(data)

    def add_trailer(self, data: bytes) -> None:
        """Note bytes behind Pixel Data."""
        self._trailer.update(data)

    def read_back(self, path: str, header: Header, begin: bytes, *, extended: bool) -> str:
        """Compare the file with what was noted; return its XXH3-128, 32 hexadecimal digits.

        Parameters
        ----------
        path : str
            The file, complete and flushed to the system.
        header : Header
            What it has to begin with.
        begin : bytes
            What is between that and the first frame: tags, lengths and offset tables.
        extended : bool
            It has to have an Extended Offset Table, or must not.

        Raises
        ------
        DestinationError
            ``read-back-mismatch``, and what differs.
        OSError
            The file cannot be read.
        """
        try:
            with DicomFile(path, hold_bytes=_HELD_BYTES, groups=DESCRIBING_GROUPS) as file:
                self._check_header(file, header, extended)
                if self._deflated:
                    return self._check_deflated(path, header.prefix)
                if self._syntax.encapsulated:
                    regions, end = self._fragments(file, extended)
                else:
                    start, end = file.pixels_at
                    regions = [(start, end)]
        except DestinationError:
            raise
        except GpuencError as error:
            raise _mismatch(f"the reader refuses it: {error}") from None
        begin = header.prefix + header.elements + begin
        if file.held is not None:
            view = memoryview(file.held)
            return self._check_bytes(lambda count, at: view[at : at + count], len(view), begin, regions, end)
        with open(path, "rb", buffering=0) as raw:
            read, size = partial(os.pread, raw.fileno()), os.fstat(raw.fileno()).st_size
            return self._check_bytes(read, size, begin, regions, end)

    def _check_header(self, file: DicomFile, header: Header, extended: bool) -> None:
        if file.syntax != self._syntax.uid:
            raise _mismatch(f"its transfer syntax is {file.syntax}, not {self._syntax.uid}")
        if file.prefix != header.prefix:
            raise _mismatch("preamble or File Meta Information differ")
        size = len(header.elements)
        if file.head[:size] != header.elements:
            raise _mismatch("the elements before Pixel Data differ")
        # For a message that says what is wrong; that nothing else is there, the comparison of bytes shows.
        tables = [element.tag for element in file.elements if element.start - file.origin >= size]
        if tables != ([_OFFSETS, _LENGTHS] if extended else []):
            found = ", ".join(map(name, tables)) or "nothing"
            raise _mismatch(f"between the header and Pixel Data there is {found}")
        if file.number_of_frames != self._number_of_frames:
            raise _mismatch(f"it states {file.number_of_frames} frames, and {self._number_of_frames} were written")
        self._check_format(file.format)

    def _check_format(self, found: FrameFormat) -> None:
        """Compare what the header says of the pixels with what was written."""
        cells, coding = self._cells, self._coding
        compared: tuple[str, ...] = ("rows", "columns")
        wanted = cells
        if not self._syntax.encapsulated:
            compared += ("samples", "photometric", "planar", "signed", "bits_allocated", "bits_stored", "high_bit")
        elif coding is not None:
            compared += ("samples", "photometric", "signed", "bits_allocated")
            wanted = replace(
                cells,
                samples=coding.samples,
                photometric=cells.photometric if coding.raw else coding.photometric,
                signed=coding.signed,
                bits_allocated=8 if coding.expand else cells.bits_allocated,
            )
        for field in compared:
            have, want = getattr(found, field), getattr(wanted, field)
            if have != want:
                raise _mismatch(f"its header says {field.replace('_', ' ')} {have}, and the frames have {want}")

    def _fragments(self, file: DicomFile, extended: bool) -> tuple[list[tuple[int, int]], int]:
        """Return where the fragments are, once offset tables and lengths agree with what was put."""
        fragments, lengths = file.located()
        if len(fragments.starts) != self._number_of_frames:
            raise _mismatch(f"it has {len(fragments.starts)} fragments for {self._number_of_frames} frames")
        if extended:
            if lengths is None or lengths != list(self._lengths):
                raise _mismatch("the Extended Offset Table has other lengths than the codestreams")
        elif len(fragments.offsets) != self._number_of_frames:
            raise _mismatch(f"its Basic Offset Table has {len(fragments.offsets)} entries")
        regions = [(start, start + length) for start, length in zip(fragments.starts, fragments.lengths, strict=True)]
        return regions, fragments.end

    def _check_bytes(self, read: _Read, size: int, begin: bytes, regions: list[tuple[int, int]], end: int) -> str:
        """Compare every byte: what precedes the frames, each frame, what is between them, and what follows."""
        whole, at, expected = xxh3_128(), 0, begin
        for index, (start, stop) in enumerate(regions):
            if self._syntax.encapsulated:
                expected += ITEM_TAG + pack("<I", stop - start)
            _check_exactly(read, at, start, expected, whole)
            if self._syntax.encapsulated:
                value = b"".join(_pieces(read, start, stop, stop - start))
                whole.update(value)
                if xxh3_64_intdigest(value) != self._digests[index]:
                    raise _mismatch(f"frame {index} is not the codestream that was written")
            elif _digested(read, start, stop, whole) != self._native.digest():
                raise _mismatch("Pixel Data is not what was written")
            at, expected = stop, b""
        _check_exactly(read, at, end, SEQUENCE_END if self._syntax.encapsulated else b"", whole)
        if _digested(read, end, size, whole) != self._trailer.digest():
            raise _mismatch("what follows Pixel Data differs")
        return whole.hexdigest()

    def _check_deflated(self, path: str, prefix: bytes) -> str:
        whole, found = xxh3_128(), xxh3_128()
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        with open(path, "rb", buffering=0) as file:
            read, size = partial(os.pread, file.fileno()), os.fstat(file.fileno()).st_size
            _check_exactly(read, 0, len(prefix), prefix, whole)
            for piece in _pieces(read, len(prefix), size):
                whole.update(piece)
                for data in _inflated(inflate, piece):
                    found.update(data)
        # PS3.5 A.5: one zero pads the data set to even length, and only that.
        padding = b"\0" * ((size - len(prefix) - len(inflate.unused_data)) % 2)
        if found.digest() != self._native.digest() or not inflate.eof or inflate.unused_data != padding:
            raise _mismatch("the deflated data set is not what was written")
        return whole.hexdigest()


def _check_exactly(read: _Read, start: int, stop: int, expected: bytes, whole: xxh3_128) -> None:
    found = b"".join(_pieces(read, start, stop)) if stop - start == len(expected) else b""
    if found != expected:
        raise _mismatch(f"the bytes before position {stop} differ")
    whole.update(found)


def _digested(read: _Read, start: int, stop: int, whole: xxh3_128) -> bytes:
    digest = xxh3_128()
    for piece in _pieces(read, start, stop):
        whole.update(piece)
        digest.update(piece)
    return digest.digest()


def _pieces(read: _Read, at: int, stop: int, most: int = PIECE_BYTES) -> Iterator[bytes | memoryview]:
    while at < stop:
        piece = read(min(most, stop - at), at)
        if not piece:
            raise _mismatch("it ends too early")
        at += len(piece)
        yield piece


def _inflated(inflate: zlib._Decompress, piece: bytes | memoryview) -> Iterator[bytes]:
    """Yield what one more piece of a deflated stream holds; what follows its end becomes ``inflate.unused_data``."""
    data = inflate.decompress(piece, PIECE_BYTES)
    # A full answer may be followed by more, although all of the piece has been taken.
    while data:
        yield data
        # At the end, what is left over stays in the tail too, and would be counted twice.
        data = b"" if inflate.eof else inflate.decompress(inflate.unconsumed_tail, PIECE_BYTES)


def _mismatch(what: str) -> DestinationError:
    return DestinationError(f"the file that was written is not what was meant: {what}", code="read-back-mismatch")
