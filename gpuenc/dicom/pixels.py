"""What every source of frames has in common: a format, a number of frames, and any frame by its index."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydicom.uid import UID

from gpuenc import syntaxes
from gpuenc.codestream import jpegxl
from gpuenc.dicom import encapsulation
from gpuenc.dicom.palette import palette
from gpuenc.errors import InvalidPixels, SourceError
from gpuenc.frames import Coded, Frame, FrameFormat, FrameRef

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from gpuenc.dicom.description import Attributes
    from gpuenc.dicom.elements import Element
    from gpuenc.frames import Palette

IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED = syntaxes.NATIVE_UIDS
# Compressed syntaxes whose frames can be read; video, referenced and private ones cannot.
COMPRESSED_UIDS = frozenset(uid for uid, syntax in syntaxes.BY_UID.items() if syntax.encapsulated)
# Codestreams that end with the marker FFD9 (EOI of T.81 and T.87, EOC of T.800).
_END_MARKED = frozenset(("jpeg", "jpeg-lossless", "jpeg-ls", "jpeg2000", "htj2k"))
# A codestream larger than this many times its frame, and this much more, is not one. A frame counts a byte for each
# sample at least: that is what codecs make of 1-bit cells.
_MAX_EXPANSION, _MAX_EXTRA_BYTES = 4, 1 << 20
# Bytes of a frame for each byte of its codestream, at most: two bytes of PackBits make 128 (PS3.5 G.3.1); a Huffman
# code has a bit or more for each sample (T.81 H) or for each 64 of them (T.81 F); deflate's limit is its format's.
# Frames of up to a megabyte are not worth the question.
_MAX_RATIO = {"rle": 64, "jpeg-lossless": 16, "jpeg": 4096, "deflate": 1032}
# The others code large flat images in almost nothing, but a header must not make anyone allocate gigabytes for that.
_MAX_OTHER_RATIO, _MAX_FLAT_BYTES, _SMALL_FRAME_BYTES = 1000, 256 << 20, 1 << 20


def may_be_lossy(uid: str) -> bool:
    """Return whether pixel data in this transfer syntax may have lost information.

    JPEG XL JPEG Recompression counts: it keeps a lossy JPEG without losing more.
    """
    if uid in syntaxes.NATIVE_UIDS:
        return False
    syntax = syntaxes.BY_UID.get(uid)
    return syntax is None or syntax.loss != "never" or syntax.recompresses_jpeg


class PixelSource:
    """What files and datasets have in common: a format, a number of frames, and any frame by its index."""

    name: str
    syntax: str
    format: FrameFormat
    number_of_frames: int
    compressed: bool
    notes: list[str]
    attributes: Attributes
    big_endian: bool
    # Encapsulated Pixel Data ends with its delimiter.
    _delimited = True
    _file: BinaryIO
    _size: int
    _pixels: Element
    # 8-bit cells in 16-bit words whose more significant byte comes first.
    _swapped: bool

    @property
    def uid(self) -> UID:
        """The transfer syntax, as pydicom's UID."""
        return UID(self.syntax)

    @property
    def lossy(self) -> bool:
        """Whether the transfer syntax may have lost information."""
        return may_be_lossy(self.syntax)

    @property
    def native_bytes(self) -> int:
        """Bytes of all frames without compression, for ratios."""
        return (self.format.frame_bits * self.number_of_frames + 7) // 8

    @property
    def trailer_bytes(self) -> int:
        """Bytes of what follows Pixel Data."""
        return max(0, self._size - (self._fragments.end if self.compressed else self._pixels.end))

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the Pixel Data element's value as it is stored."""
        return (self._fragments.end if self.compressed else min(self._pixels.end, self._size)) - self._pixels.value

    @property
    def pixels_at(self) -> tuple[int, int]:
        """Where the value of native Pixel Data begins, and the position behind it."""
        return self._pixels.value, self._pixels.end

    @property
    def words_swapped(self) -> bool:
        """Whether native cells of 8 bits lie in 16-bit words whose more significant byte comes first."""
        return self._swapped

    @property
    def pixel_vr(self) -> str:
        """The VR that Pixel Data has; empty where the encoding has none."""
        return self._pixels.vr.decode()

    def located(self) -> tuple[encapsulation.Fragments, list[int] | None]:
        """Return the fragments, and the codestreams' lengths in bytes where an Extended Offset Table states them.

        Raises
        ------
        SourceError
            ``truncated`` or ``wrong-length``: see `frames`; ``wrong-length`` too where a table contradicts them.
        """
        _ = self._spans
        return self._fragments, self._lengths

    def frame(self, index: int) -> Frame:
        """Return frame `index`, from 0.

        Raises
        ------
        SourceError
            ``truncated`` or ``wrong-length``: see `frames`.
        IndexError
            There is no such frame.
        """
        if not 0 <= index < self.number_of_frames:
            raise IndexError(f"There is no frame {index} of {self.number_of_frames}")
        if self.compressed:
            return Frame(FrameRef(self.name, index), self.format, Coded(self.syntax, self._codestream(index)))
        pixels, bit_offset = self._cells(index)
        return Frame(FrameRef(self.name, index), self.format, pixels, bit_offset)

    def frames(self, *, expand: bool = False) -> Iterator[Frame]:
        """Yield every frame, in order, as it is asked for.

        Parameters
        ----------
        expand : bool
            The frames' format holds the palette of PALETTE COLOR, which lossy targets need.

        Raises
        ------
        SourceError
            Before the first frame, ``truncated``: fragments are missing or longer than the file;
            ``wrong-length``: fragments, offset tables and Number of Frames contradict each other.
        InvalidPixels
            The palette cannot be read.
        """
        if self.compressed:
            _ = self._spans
        fmt = self.format
        if expand and fmt.photometric == "PALETTE COLOR":
            fmt = replace(fmt, palette=self.palette)
        for index in range(self.number_of_frames):
            frame = self.frame(index)
            yield frame if fmt is self.format else replace(frame, format=fmt)

    @property
    def dataset(self) -> Dataset:
        """The data set as pydicom has it; of a file, without its pixel element."""
        raise NotImplementedError

    @cached_property
    def palette(self) -> Palette:
        """The Palette Color Lookup Tables.

        Raises
        ------
        InvalidPixels
            There are none, or they cannot be read.
        """
        return palette(self.dataset, big_endian=self.big_endian)

    def _check_length(self, *, whole: bool = True) -> None:
        """Refuse native Pixel Data that does not hold what the attributes say; without `whole`, it may hold more."""
        fmt, have = self.format, min(self._pixels.end, self._size) - self._pixels.value
        if fmt.subsampled and fmt.columns % 2:
            # Cells are pairs of pixels (PS3.3 C.7.6.3.1.2); a codestream can leave half of the last pair out.
            raise InvalidPixels(
                f"A (0028,0011) 'Columns' value of '{fmt.columns}' is invalid, it must be even for native YBR_FULL_422"
            )
        need = self.native_bytes
        if have < need + (need & 1 if self._swapped else 0):
            raise SourceError(
                f"Pixel Data has {have} bytes where {self.number_of_frames} frames of {fmt.rows} rows, {fmt.columns} "
                f"columns, {fmt.samples} samples and {fmt.bits_allocated} bits need {need}",
                code="truncated",
            )
        if fmt.subsampled and have >= need // 2 * 3:
            raise SourceError(
                f"Pixel Data has {have} bytes, as without the subsampling that YBR_FULL_422 means", code="wrong-length"
            )
        stated = self._pixels.end - self._pixels.value
        if whole and stated - need - (need & 1) >= fmt.frame_bytes:
            raise SourceError(
                f"Pixel Data holds {stated * 8 // fmt.frame_bits} frames where Number of Frames says "
                f"{self.number_of_frames}",
                code="wrong-length",
            )
        if have > need + (need & 1):
            self.notes.append(f"{have - need} bytes of Pixel Data behind the last frame were left out")
        if self._pixels.end > self._size:
            self.notes.append(f"the file ends {self._pixels.end - self._size} bytes before Pixel Data does")

    def _cells(self, index: int) -> tuple[NDArray[np.uint8], int]:
        first_bit = index * self.format.frame_bits
        start, bit_offset = first_bit >> 3, first_bit & 7
        stop = (first_bit + self.format.frame_bits + 7) >> 3
        if not self._swapped:
            return self._read(self._pixels.value + start, stop - start), bit_offset
        even = start & ~1
        words = self._read(self._pixels.value + even, ((stop + 1) & ~1) - even)
        cells = words.view(np.uint16).byteswap().view(np.uint8)
        return cells[start - even : stop - even], bit_offset

    def _read(self, at: int, count: int) -> NDArray[np.uint8]:
        raise NotImplementedError

    def _extended_offsets(self) -> tuple[bytes, bytes] | None:
        raise NotImplementedError

    @cached_property
    def _fragments(self) -> encapsulation.Fragments:
        if not self._pixels.undefined:
            raise SourceError(f"Pixel Data of {self.syntax} is not encapsulated", code="wrong-length")
        return encapsulation.find_fragments(self._file, self._pixels.value, self._size, delimited=self._delimited)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        fragments = self._fragments
        family = syntaxes.BY_UID[self.syntax].family

        def ends_frame(index: int) -> bool:
            return encapsulation.ends_with_marker(encapsulation.tail_of(fragments, self._file, index))

        def begins_frame(index: int) -> bool:
            return encapsulation.begins_with_marker(encapsulation.head_of(fragments, self._file, index))

        if family not in _END_MARKED:
            return encapsulation.frame_spans(fragments, self.number_of_frames, ends_frame=None)
        return encapsulation.frame_spans(
            fragments, self.number_of_frames, ends_frame=ends_frame, begins_frame=begins_frame
        )

    def _begins_jpegxl(self, fragment: int) -> bool:
        head = encapsulation.head_of(self._fragments, self._file, fragment, jpegxl.HEADER_BYTES)
        return jpegxl.begins(head, self.format.rows, self.format.columns)

    @cached_property
    def _lengths(self) -> list[int] | None:
        """Lengths of the codestreams without padding, where an Extended Offset Table states them."""
        table = self._extended_offsets()
        if table is None:
            return None
        if len(self._fragments.offsets):
            # PS3.3 C.7.6.3.1.8 forbids it; pydicom leaves a stale one behind when it writes a basic table.
            self.notes.append("the Extended Offset Table beside a Basic Offset Table was not looked at")
            return None
        return list(encapsulation.extended_lengths(self._fragments, *table, self.number_of_frames))

    def codestream_at(self, index: int) -> list[tuple[int, int]]:
        """Return where the codestream of frame `index` lies in the file: position and length in bytes of each piece.

        Of a Deflated file, positions are those in what it inflates to.

        Raises
        ------
        SourceError
            ``truncated`` or ``wrong-length``: see `frames`; ``wrong-length`` too where it is far too long or too short
            for its frame.
        """
        first, stop = self._spans[index]
        fragments = self._fragments
        size = sum(fragments.lengths[first:stop])
        fmt = self.format
        unpacked = max(fmt.frame_bytes, fmt.rows * fmt.columns * fmt.samples)
        if size > _MAX_EXPANSION * unpacked + _MAX_EXTRA_BYTES:
            raise SourceError(
                f"frame {index} has {size} bytes, far more than its {unpacked} without compression",
                code="wrong-length",
            )
        ratio = _MAX_RATIO.get(syntaxes.BY_UID[self.syntax].family)
        limit = _SMALL_FRAME_BYTES if ratio else _MAX_FLAT_BYTES
        if fmt.frame_bytes > max(limit, size * (ratio or _MAX_OTHER_RATIO)):
            raise SourceError(
                f"frame {index} has {size} bytes, far too few for its {fmt.frame_bytes} without compression",
                code="wrong-length",
            )
        lengths = self._lengths
        if stop - first == 1:
            length = fragments.lengths[first] if lengths is None else lengths[index]
            return [(fragments.starts[first], length)]
        if syntaxes.BY_UID[self.syntax].family == "jpegxl" and any(
            self._begins_jpegxl(number) for number in range(first + 1, stop)
        ):
            raise SourceError(f"frame {index} has more than one codestream", code="wrong-length")
        return list(zip(fragments.starts[first:stop], fragments.lengths[first:stop], strict=True))

    def _codestream(self, index: int) -> bytes:
        return b"".join(encapsulation.read(self._file, at, count) for at, count in self.codestream_at(index))
