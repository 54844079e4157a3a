"""Defects to put into gpuenc, and what a campaign must say of each: `test_plants` holds it to that."""

from __future__ import annotations

import ctypes
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from gpuenc.archive import transcode
from gpuenc.cpu import decoders
from gpuenc.dicom import atomic, description, encapsulation, pixels, source
from gpuenc.errors import GpuencError

if TYPE_CHECKING:
    from collections.abc import Callable


def _offset_table_misread() -> None:
    spans = encapsulation.frame_spans
    encapsulation.frame_spans = lambda *args, **options: spans(*args, **options)[::-1]


def _frames_swapped() -> None:
    frame = pixels.PixelSource.frame
    pixels.PixelSource.frame = lambda self, index: frame(
        self, index if self.number_of_frames == 1 or index > 1 else 1 - index
    )


def _formats(**changed: Any) -> None:
    read = description.frame_format

    def wrong(*args: Any, **options: Any) -> Any:
        fmt, notes = read(*args, **options)
        return dataclasses.replace(fmt, **changed), notes

    description.frame_format = wrong


def _high_bit_ignored() -> None:
    read = description.frame_format

    def wrong(*args: Any, **options: Any) -> Any:
        fmt, notes = read(*args, **options)
        whole = (1 << fmt.bits_allocated) - 1
        return dataclasses.replace(
            fmt, high_bit=fmt.bits_stored - 1, overlay_bits=whole & -(1 << fmt.bits_stored)
        ), notes

    description.frame_format = wrong


def _null_pointer() -> None:
    """A codec that reads through a null pointer where SIZ lies about the width, and nobody compares it before."""
    decode = imagecodecs.jpeg2k_decode

    def crash(codestream: bytes, **options: Any) -> Any:
        if int.from_bytes(codestream[8:12]) > 1000:
            ctypes.string_at(0)
        return decode(codestream, **options)

    imagecodecs.jpeg2k_decode = crash
    decoders._checked = lambda codestream, family, fmt: decoders._parse(codestream, family)


def _endless() -> None:
    find = encapsulation.find_fragments

    def slow(*args: Any, **options: Any) -> Any:
        found = find(*args, **options)
        while 0 in found.lengths:
            time.sleep(0.01)
        return found

    encapsulation.find_fragments = slow


def _believes_lengths() -> None:
    check = pixels.PixelSource._check_length

    def allocate(self: Any, **options: Any) -> None:
        np.ones(min(self.native_bytes, 400 << 20), np.uint8)
        check(self, **options)

    pixels.PixelSource._check_length = allocate


def _numbers_unchecked() -> None:
    description.parse_number = lambda tag, text: int(text)


def _temporary_stays() -> None:
    atomic.AtomicFile.abort = lambda self: None


def _name_in_message() -> None:
    failed = transcode._outcome

    def told(opened: Any, *args: Any) -> Any:
        try:
            return failed(opened, *args)
        except GpuencError as error:
            raise type(error)(f"{error} of {opened.attributes.text(0x00100010)}", code=error.code) from None

    transcode._outcome = told


def _unknown_code() -> None:
    encapsulation.SourceError = lambda message, code: source.SourceError(message, code=f"{code}-fragments")


def _copy_without_its_end() -> None:
    copy = transcode.copy_file

    def short(origin: Any, destination: Any, **options: Any) -> int:
        size = copy(origin, destination, **options)
        Path(destination).write_bytes(Path(origin).read_bytes().rstrip(b"\0"))
        return size

    transcode.copy_file = short


def _trailer_lost() -> None:
    transcode.trailer = lambda opened: ()


# Defect → what puts it there, the kinds of findings of which it must make one, and the seeds that can show it.
PLANTS: dict[str, tuple[Callable[[], None], tuple[str, ...], str]] = {
    "offset table misread": (_offset_table_misread, ("samples",), "fragments"),
    "frames swapped": (_frames_swapped, ("samples",), "native"),
    "planes as pixels": (lambda: _formats(planar=0), ("samples",), "planar"),
    "byte order ignored": (lambda: _formats(big_endian=False), ("samples",), "native big"),
    "High Bit ignored": (_high_bit_ignored, ("samples",), "shifted"),
    "null pointer": (_null_pointer, ("crash",), "coded .4.90"),
    "endless loop": (_endless, ("hang",), "coded"),
    "lengths believed": (_believes_lengths, ("memory",), "native"),
    "numbers unchecked": (_numbers_unchecked, ("internal error",), "native"),
    "temporary file stays": (_temporary_stays, ("files",), "coded"),
    "name in a message": (_name_in_message, ("leak",), "native"),
    "unknown code": (_unknown_code, ("outcome",), "coded"),
    "copy without its end": (_copy_without_its_end, ("copy",), ""),
    "trailer lost": (_trailer_lost, ("elements",), "trailer"),
}
