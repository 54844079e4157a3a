"""Frames out of DICOM files, native or compressed, one at a time.

A header costs positions only (`elements`); pixel data is read frame by frame. Whatever a file says about itself is
checked against its size before anything is allocated.
"""

from __future__ import annotations

import os
import re
import tempfile
import zlib
from functools import cached_property
from io import BytesIO, UnsupportedOperation
from typing import TYPE_CHECKING, Self, cast

import numpy as np
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from gpuenc import syntaxes
from gpuenc.dicom import description
from gpuenc.dicom.elements import ITEM, ITEM_END, PIXEL_DATA, SEQUENCE_END, Element, Window, name, walk
from gpuenc.dicom.holes import pieces
from gpuenc.dicom.memory import DatasetSource, frames_of
from gpuenc.dicom.pixels import (
    COMPRESSED_UIDS,
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PixelSource,
    may_be_lossy,
)
from gpuenc.dicom.raw import raw_dataset, raw_element
from gpuenc.dicom.regular import regular
from gpuenc.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from types import TracebackType
    from typing import BinaryIO

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

__all__ = ["DatasetSource", "DicomFile", "frames_of", "may_be_lossy"]

# Of the attributes that say what the pixels are: Image Pixel, overlays, offset tables; and of those that must not be
# in a data set.
DESCRIBING_GROUPS = frozenset((0x0002, 0x0028, *range(0x6000, 0x6100), 0x7FE0))
# What a plan tells of a file: with these, Modality and UIDs.
TOLD_GROUPS = DESCRIBING_GROUPS | {0x0008}
# A header longer than this is not read into memory.
MAX_HEADER_BYTES = 256 << 20
# What a Deflated file may inflate to: 4 GiB of Pixel Data, which is the most a length field can say, and its header.
MAX_INFLATED_BYTES = (4 << 30) + MAX_HEADER_BYTES
_COPY_BYTES = 1 << 20
_MOST_DELIMITERS = 64
# Those that PS3.5 8.2 allows, and that of writers who do not know the element.
_PIXEL_VRS = frozenset((b"OB", b"OW", b"UN"))
# MPEG-2, MPEG-4 AVC/H.264 and HEVC/H.265, with their fragmentable twins (PS3.5 8.2.5 to 8.2.13).
_VIDEO = re.compile(r"1\.2\.840\.10008\.1\.2\.4\.10[0-8](\.1)?")


class DicomFile(PixelSource):
    """One DICOM file, open for reading; a context manager.

    Opening reads the header alone. Not for several threads at once.

    Parameters
    ----------
    path : path-like
        The file.
    name : str, optional
        What `FrameRef.source` is; by default the path.
    hold_bytes : int
        A file of at most so many bytes is read at once and held in memory, and its frames are read-only views of that.
        Larger ones are read as they are asked for.
    groups : container of int, optional
        Only elements of these groups are wanted in `elements`, which then is no base for `header`. What describes the
        pixels has to be among them; see `DESCRIBING_GROUPS`.
    file : binary file, optional
        What to read instead of the file of that name, unbuffered; it is closed with this.

    Attributes
    ----------
    syntax : str
        Transfer Syntax UID.
    format : FrameFormat
        Of the native cells; for compressed sources, what the attributes say of the codestreams.
    number_of_frames : int
        Of the image.
    compressed : bool
        Frames come with `Coded` pixels.
    notes : list of str
        What was odd and put up with, in words without patient data.
    prefix, head : bytes
        Preamble and File Meta Information; the data set up to Pixel Data.
    origin : int
        What positions in `elements` count from, so that ``head[position - origin]``.
    meta, elements : list of Element
        Of `prefix` and `head`.
    implicit, big_endian : bool
        Encoding of the data set.

    Raises
    ------
    SourceError
        ``not-dicom``, ``no-pixel-data``, ``float-pixel-data``, ``video``, ``unknown-syntax``, ``truncated``,
        ``wrong-length``, ``corrupt-header`` or ``too-large``; for Deflated files also ``corrupt-deflate``.
    InvalidPixels
        An attribute is missing or absurd.
    OSError
        The file cannot be read.
    """

    attributes: description.RawAttributes

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        hold_bytes: int = 0,
        groups: Container[int] | None = None,
        file: BinaryIO | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.name = self.path if name is None else name
        self.notes = []
        self._held: bytes | None = None
        self._raw = file or cast("BinaryIO", open(self.path, "rb", buffering=0, opener=regular))  # noqa: SIM115
        self._file = self._raw
        try:
            self._open(hold_bytes, groups)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
        self._file.close()

    @property
    def held(self) -> bytes | None:
        """The whole file as it was read when it was opened, if it was."""
        return self._held

    @property
    def file_meta(self) -> FileMetaDataset:
        """The File Meta Information, as pydicom has it."""
        return FileMetaDataset(
            {BaseTag(element.tag): raw_element(element, self.prefix, 0, True) for element in self.meta}
        )

    @cached_property
    def dataset(self) -> Dataset:
        """The data set without its pixel element, as pydicom has it; nothing in it is converted yet."""
        dataset = raw_dataset(self.elements, self.head, self.origin, self.implicit, self.big_endian)
        dataset.file_meta = self.file_meta
        return dataset

    def trailer(self) -> Iterator[bytes]:
        """Yield what follows Pixel Data, in pieces; zeros of a file that has holes as `Hole`."""
        return pieces(self._file, self._fragments.end if self.compressed else self._pixels.end, self._size)

    def demand_described_once(self) -> None:
        """Check that nothing behind Pixel Data says again what the pixels are, or has others.

        Raises
        ------
        SourceError
            ``corrupt-header``: readers that take the last of two would see other pixels.
        """
        again = self.described_again()
        if again is not None:
            raise SourceError(f"{name(again)} comes behind Pixel Data (PS3.5 7.1)", code="corrupt-header")

    def described_again(self) -> int | None:
        """Return the first tag behind Pixel Data that has to precede it (PS3.5 7.1), private ones apart.

        What is no element there, such as the zeros that files are filled up with, is not looked at.
        """
        at = self._fragments.end if self.compressed else self._pixels.end
        window, big_endian = Window(self._file, self._size), self.big_endian
        for _ in range(_MOST_DELIMITERS):
            try:
                _, found, _ = walk(
                    window,
                    at,
                    self._size,
                    implicit=self.implicit,
                    big_endian=big_endian,
                    last=_ends_trailer,
                    last_from=0,
                )
            except SourceError:
                return None
            if found is None or not found.tag:
                return None
            if found.tag not in (ITEM, ITEM_END, SEQUENCE_END):
                return found.tag
            at = found.value  # delimiters too many, which other readers pass over here
        return ITEM

    def _open(self, hold_bytes: int, groups: Container[int] | None) -> None:
        self._size = _size_of(self._raw)
        window = Window(self._raw, self._size)
        if self._size <= hold_bytes:
            self._held = window.load_all()
            self._file = BytesIO(self._held)
            window = Window(self._file, self._size)
            window.load_all()
        else:
            window.load(0)
        at, bare = self._read_meta(window)
        if self.syntax == DEFLATED:
            self._file = _inflated(self._raw, at)
            self._size = self._file.seek(0, os.SEEK_END)
            window, at = Window(self._file, self._size), 0
            window.load(0)
        self.origin = at
        self._detect_encoding(window, at)
        try:
            self.elements, pixels, end = walk(
                window, at, self._size, implicit=self.implicit, big_endian=self.big_endian,
                groups=None if bare else groups,  # whether it is a data set at all, all of its tags tell
            )  # fmt: skip
        except SourceError:
            if bare:
                raise SourceError("not a DICOM file", code="not-dicom") from None
            raise
        if bare and not _plausible(self.elements):
            raise SourceError("not a DICOM file", code="not-dicom")
        if pixels is None and any(window.read(end, self._size - end)):
            raise SourceError("the file ends inside an element", code="truncated")
        self._check_pixel_element(pixels)
        if any(element.tag >> 16 == 2 for element in self.elements):
            raise SourceError("the data set has elements of the File Meta Information", code="corrupt-header")
        if end - at > MAX_HEADER_BYTES:
            raise SourceError(f"the header has {end - at} bytes", code="too-large")
        self.head = window.read(at, end - at)
        if len(self.head) != end - at:
            raise SourceError("the file ends inside its header", code="truncated")
        self._describe(cast("Element", pixels))

    def _read_meta(self, window: Window) -> tuple[int, bool]:
        """Read the File Meta Information; return where the data set begins, and whether there was no prefix."""
        bare = window.bytes[128:132] != b"DICM"
        at = 0 if bare else 132
        if bare and window.bytes[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
            raise SourceError("not a DICOM file", code="not-dicom")
        try:
            self.meta, _, at = walk(window, at, self._size, last=_not_meta, last_from=0)
        except SourceError:
            if bare:
                raise SourceError("not a DICOM file", code="not-dicom") from None
            raise
        self.prefix = window.read(0, at)
        stated = {self.prefix[e.value : e.end].decode("latin-1").strip(" \0") for e in self.meta if e.tag == 0x00020010}
        if len(stated) > 1:
            raise SourceError("there is more than one Transfer Syntax UID", code="corrupt-header")
        self.syntax = "".join(stated)
        known = self.syntax in COMPRESSED_UIDS or self.syntax in syntaxes.NATIVE_UIDS
        if _VIDEO.fullmatch(self.syntax):
            raise SourceError("it holds video, which is not re-encoded", code="video")
        if self.syntax and not known:
            shown = self.syntax if re.fullmatch(r"[0-9.]{1,64}", self.syntax) else "in the header, which is no UID,"
            raise SourceError(f"transfer syntax {shown} cannot be read", code="unknown-syntax")
        return at, bare

    def _detect_encoding(self, window: Window, at: int) -> None:
        """Decide between the encodings of PS3.5 annex A, by what the first element looks like."""
        first = window.read(at, 6)
        has_vr = len(first) == 6 and first[4:].isalpha() and first[4:].isupper()
        if not self.syntax:
            # Groups of the first elements are small; 0008 in the wrong byte order is 0800.
            big = has_vr and int.from_bytes(first[:2], "little") >= 0x0400
            self.syntax = EXPLICIT_BIG if big else EXPLICIT_LITTLE if has_vr else IMPLICIT_LITTLE
            self.notes.append(f"no Transfer Syntax UID; read as {UID(self.syntax).name}")
        self.big_endian = self.syntax == EXPLICIT_BIG
        self.implicit = self.syntax == IMPLICIT_LITTLE
        if self.implicit == has_vr and first:
            self.implicit = not has_vr
            self.notes.append(
                f"the data set is encoded with {'explicit' if has_vr else 'implicit'} VRs, against its transfer syntax"
            )
        self.compressed = self.syntax in COMPRESSED_UIDS

    def _check_pixel_element(self, pixels: Element | None) -> None:
        if pixels is None:
            raise SourceError("there is no Pixel Data", code="no-pixel-data")
        if pixels.tag != PIXEL_DATA:
            raise SourceError(
                f"{name(pixels.tag)} holds floating-point pixels, for which there is no compression (PS3.5 A.4)",
                code="float-pixel-data",
            )
        if not self.implicit and pixels.vr not in _PIXEL_VRS:
            # Where its value begins depends on the VR.
            raise SourceError("Pixel Data has another VR than OB or OW", code="corrupt-header")
        if pixels.undefined != self.compressed:
            how = "without a length" if pixels.undefined else "with a length"
            raise SourceError(f"Pixel Data of transfer syntax {self.syntax} {how}", code="wrong-length")
        self._pixels = pixels

    def _describe(self, pixels: Element) -> None:
        by_tag = {element.tag: element for element in self.elements}
        self.attributes = attributes = description.RawAttributes(self.head, self.origin, by_tag, self.big_endian)
        self.format, notes = description.frame_format(
            attributes, big_endian=self.big_endian, compressed=self.compressed
        )
        self.notes += notes
        self.number_of_frames, notes = description.number_of_frames(attributes)
        self.notes += notes
        self._swapped = self.big_endian and self.format.bits_allocated <= 8 and pixels.vr == b"OW"
        if not self.compressed:
            self._check_length()

    def _read(self, at: int, count: int) -> NDArray[np.uint8]:
        if self._held is not None and self.syntax != DEFLATED:
            if at + count > len(self._held):
                raise SourceError("the file ends inside Pixel Data", code="truncated")
            return np.frombuffer(self._held, np.uint8, count, at)
        pixels = np.empty(count, np.uint8)
        view = memoryview(pixels)
        self._file.seek(at)
        done = 0
        while done < count:
            read = self._file.readinto(view[done:])  # type: ignore[attr-defined]
            if not read:
                raise SourceError("the file ends inside Pixel Data", code="truncated")
            done += read
        return pixels

    def _extended_offsets(self) -> tuple[bytes, bytes] | None:
        offsets, lengths = self.attributes.value(0x7FE00001), self.attributes.value(0x7FE00002)
        return None if not offsets or lengths is None else (offsets, lengths)


def _not_meta(tag: int) -> bool:
    return tag >> 16 != 2


def _ends_trailer(tag: int) -> bool:
    """Whether a tag has to precede Pixel Data, delimits something, or is that of zeros."""
    return tag in (0, ITEM, ITEM_END, SEQUENCE_END) or (tag <= PIXEL_DATA and not tag >> 16 & 1 and tag & 0xFFFF != 0)


def _plausible(elements: list[Element]) -> bool:
    """Return whether elements read without a preamble are a data set: some, and in ascending order."""
    tags = [element.tag for element in elements]
    return len(tags) > 2 and tags == sorted(tags)


def _inflated(file: BinaryIO, at: int) -> BinaryIO:
    """Return what follows `at`, inflated (PS3.5 A.5) into a file that has no name."""
    file.seek(at)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    out = cast("BinaryIO", tempfile.TemporaryFile(prefix="gpuenc-", buffering=0))  # noqa: SIM115 - the caller's
    try:
        size, waiting = 0, b""
        while not inflate.eof:
            waiting = waiting or file.read(_COPY_BYTES)
            if not waiting:
                raise SourceError("the file ends inside its deflated data set", code="truncated")
            piece = inflate.decompress(waiting, _COPY_BYTES)
            waiting = inflate.unconsumed_tail
            size += len(piece)
            if size > MAX_INFLATED_BYTES:
                raise SourceError(f"the data set inflates to more than {MAX_INFLATED_BYTES} bytes", code="too-large")
            out.write(piece)
    except zlib.error:
        out.close()
        raise SourceError("the deflated data set is corrupt", code="corrupt-deflate") from None
    except BaseException:
        out.close()
        raise
    return out


def _size_of(file: BinaryIO) -> int:
    try:
        return os.fstat(file.fileno()).st_size
    except UnsupportedOperation:  # what was given is no file of this machine
        return file.seek(0, os.SEEK_END)
