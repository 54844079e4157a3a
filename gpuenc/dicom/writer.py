"""One output file: header, frames as they come, offset tables, trailer; under its name only when it is complete.

Everything is written to a temporary file in the destination's folder. `finish` flushes it to disk and gives it its
name; until then, and after any failure, the destination is as it was.
"""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from pydicom import encaps

from gpuenc.codestream import pad_even
from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.fragments import MAX_BASIC_OFFSET, Encapsulated, Native
from gpuenc.dicom.holes import Hole
from gpuenc.dicom.pixels import DEFLATED
from gpuenc.dicom.readback import Intended
from gpuenc.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from pydicom.dataset import Dataset

    from gpuenc.coding import Coding
    from gpuenc.dicom.atomic import Unnamed
    from gpuenc.dicom.header import Header
    from gpuenc.frames import FrameFormat
    from gpuenc.syntaxes import Syntax

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class OutputSummary:
    """What was written.

    Parameters
    ----------
    bytes_written : int
        Size of the file.
    codestream_bytes : int
        Of all frames as they were put.
    extended_offsets : bool
        It has an Extended Offset Table.
    digest : str
        XXH3-128 of the file as it was read back, 32 hexadecimal digits; empty where it was not.
    note : str
        As that of `AtomicFile`.
    """

    bytes_written: int
    codestream_bytes: int
    extended_offsets: bool
    digest: str = ""
    note: str = ""


class OutputFile:
    """A DICOM file being written; a context manager that leaves nothing behind unless `finish` was called.

    Parameters
    ----------
    destination : path-like
        Its name to be. The folder must exist.
    header : Header
        What precedes Pixel Data.
    syntax : Syntax
        Transfer syntax, which `header` already states.
    number_of_frames : int
        How often `put` will be called.
    cells : FrameFormat
        Format of the cells that are written or were encoded.
    coding : Coding, optional
        What encoded cells became, for `header` to be compared with it; see `readback.Intended`.
    extended_offsets : bool
        Write an Extended Offset Table in any case; without it, only where a Basic Offset Table cannot hold the
        offsets, which costs a copy of the file at the end.
    overwrite : bool
        Replace a file that has the destination's name.
    fsync : bool
        Have the file, and its name, on the disk before `finish` returns.
    defer, token
        As for `AtomicFile`.
    read_back : bool
        Read the file again before it gets its name, and compare it with what was put.

    Raises
    ------
    DestinationError
        ``destination-exists``, ``destination-unwritable`` or ``disk-full``; ``too-large`` for native pixel data
        that no length field can hold.
    """

    def __init__(
        self,
        destination: str | os.PathLike[str],
        header: Header,
        syntax: Syntax,
        number_of_frames: int,
        *,
        cells: FrameFormat,
        coding: Coding | None = None,
        extended_offsets: bool = False,
        overwrite: bool = False,
        fsync: bool = True,
        defer: Callable[[Unnamed], None] | None = None,
        token: str = "",
        read_back: bool = True,
    ) -> None:
        self._header = header
        self._header_bytes, self._prefix_bytes = len(header), len(header.prefix)
        self._element: Encapsulated | Native
        if syntax.encapsulated:
            self._element = Encapsulated(number_of_frames, syntax.family, extended=extended_offsets)
        else:
            self._element = Native(number_of_frames, cells.bits_allocated, cells.frame_bits)
        self._put = self._codestream_bytes = 0
        self._out = AtomicFile(destination, overwrite=overwrite, fsync=fsync, defer=defer, token=token)
        deflated = syntax.uid == DEFLATED
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS) if deflated else None
        self._intended = Intended(syntax, number_of_frames, cells=cells, coding=coding, deflated=deflated)
        self._read_back = read_back
        try:
            with self._out.errors():
                self._out.file.write(header.prefix)
                self._write(header.elements)
                self._write(self._element.begin())
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def put(self, codestream: bytes) -> None:
        """Write the next frame.

        Parameters
        ----------
        codestream : bytes
            One frame, without padding; for targets without compression, its cells, a 1-bit frame from bit 0 on.

        Raises
        ------
        DestinationError
            ``destination-unwritable``, ``disk-full`` or ``too-large``.
        ValueError
            One frame too many, or not the cells of a frame.
        """
        if self._put == self._element.number_of_frames:
            raise ValueError(f"there are only {self._put} frames")
        head, value = self._element.put(codestream)
        with self._out.errors():
            self._write(head)
            self._write(value)
        if isinstance(self._element, Encapsulated):
            self._intended.add_frame(codestream, value)
        elif not self._deflate:
            self._intended.add_native(value)
        self._put += 1
        self._codestream_bytes += len(codestream)

    def finish(
        self,
        header: Header | None = None,
        trailer: Iterable[bytes] = (),
        *,
        like: str | os.PathLike[str] | None = None,
        check: Callable[[], None] | None = None,
    ) -> OutputSummary:
        """Complete the file and give it its name.

        Parameters
        ----------
        header : Header, optional
            The header again, now that sizes or overlays are known; of the same length. Not for deflated targets.
        trailer : iterable of bytes
            What follows Pixel Data.
        like, check
            As for `AtomicFile.publish`.

        Raises
        ------
        DestinationError
            As above; ``frames-missing``: fewer frames were put than announced; ``read-back-mismatch``: what lies in
            the file is not what was put, and it does not get its name.
        ValueError
            The header has another length.
        """
        if self._put != self._element.number_of_frames:
            raise DestinationError(
                f"{self._put} of {self._element.number_of_frames} frames were written", code="frames-missing"
            )
        if header is not None and (len(header) != self._header_bytes or self._deflate):
            raise ValueError("the header has changed its length, or is deflated already")
        end = self._element.end()
        with self._out.errors():
            self._write(end)
        if isinstance(self._element, Native) and not self._deflate:
            self._intended.add_native(end)
        for piece in trailer:
            with self._out.errors():
                if isinstance(piece, Hole) and not self._deflate:
                    self._out.skip(len(piece))
                else:
                    self._write(piece)
            self._intended.add_trailer(piece)
        with self._out.errors():
            if self._deflate:
                self._end_deflated()
            else:
                self._patch(header)
            if self._element.overflows and not self._element.extended:
                self._make_extended()
        digest = self._digest(header or self._header) if self._read_back else ""
        size = self._out.publish(like=like, check=check)
        return OutputSummary(size, self._codestream_bytes, self._element.extended, digest, self._out.note)

    def abort(self) -> None:
        """Remove what was written; does nothing after `finish`."""
        self._out.abort()

    def _digest(self, header: Header) -> str:
        path = self._out.flushed()
        with self._out.errors():
            return self._intended.read_back(path, header, self._element.tables(), extended=self._element.extended)

    def _write(self, data: bytes) -> None:
        if self._deflate:
            self._intended.add_native(data)
            data = self._deflate.compress(data)
        self._out.file.write(data)

    def _end_deflated(self) -> None:
        self._out.file.write(cast("zlib._Compress", self._deflate).flush())
        if (self._out.file.tell() - self._prefix_bytes) % 2:
            self._out.file.write(b"\0")  # PS3.5 A.5

    def _patch(self, header: Header | None) -> None:
        """Fill in what was not known when it was written."""
        end = self._out.file.tell()
        if header is not None:
            self._out.file.seek(0)
            self._out.file.write(header.prefix)
            self._out.file.write(header.elements)
        if isinstance(self._element, Encapsulated) and not self._element.overflows:
            self._out.file.seek(self._header_bytes)
            self._out.file.write(self._element.tables())
        self._out.file.seek(end)

    def _make_extended(self) -> None:
        """Copy the file to one with an Extended Offset Table instead of a basic one that cannot hold its offsets."""
        element = cast("Encapsulated", self._element)
        before = self._header_bytes + len(element.begin())
        element.extended = True
        with self._out.rewritten() as old:
            new = self._out.file
            for piece in _pieces(old.fileno(), 0, self._header_bytes):
                new.write(piece)
            new.write(element.tables())
            for piece in _pieces(old.fileno(), before, os.fstat(old.fileno()).st_size):
                new.write(piece)


def encapsulate(
    dataset: Dataset, codestreams: Sequence[bytes], syntax: Syntax, *, extended_offsets: bool = False
) -> None:
    """Put frames into a dataset in memory as its encapsulated Pixel Data (PS3.5 A.4), one fragment per frame.

    Offset tables that were there are replaced.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        Gets Pixel Data and, where 32 bits do not suffice or on request, an Extended Offset Table.
    codestreams : sequence of bytes
        One per frame, without padding.
    syntax : Syntax
        What they are compressed with.
    """
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)
    padded = [pad_even(codestream, syntax.family) for codestream in codestreams]
    last_offset = sum(len(value) + 8 for value in padded[:-1])
    if extended_offsets or last_offset > MAX_BASIC_OFFSET:
        element = Encapsulated(len(codestreams), syntax.family, extended=True)
        for codestream in codestreams:
            element.put(codestream)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = element.extended_tables()
        dataset.PixelData = encaps.encapsulate(padded, has_bot=False)
    else:
        dataset.PixelData = encaps.encapsulate(padded)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def put_native(dataset: Dataset, cells: Sequence[bytes], fmt: FrameFormat) -> None:
    """Put native frames into a dataset in memory as its Pixel Data (PS3.5 8.1.1); 1-bit frames are packed.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        Gets Pixel Data.
    cells : sequence of bytes
        One per frame; 1-bit frames from bit 0 on.
    fmt : FrameFormat
        Of the cells.
    """
    element = Native(len(cells), fmt.bits_allocated, fmt.frame_bits)
    pieces = [piece for frame in cells for piece in element.put(frame)]
    dataset.PixelData = b"".join([*pieces, element.end()])
    dataset["PixelData"].VR = "OB" if fmt.bits_allocated <= 8 else "OW"
    dataset["PixelData"].is_undefined_length = False


def _pieces(file: int, at: int, stop: int) -> Iterator[bytes]:
    while at < stop:
        piece = os.pread(file, min(_COPY_BYTES, stop - at), at)
        if not piece:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        at += len(piece)
        yield piece
