"""A file through reader, attributes, header and writer, with no codec: native targets, or deflate by zlib."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from gpuenc.coding import coding
from gpuenc.cpu.samples import prepare
from gpuenc.dicom.attributes import changes
from gpuenc.dicom.header import header, trailer
from gpuenc.dicom.source import DicomFile
from gpuenc.dicom.writer import OutputFile
from gpuenc.syntaxes import find
from gpuenc.targets import target

if TYPE_CHECKING:
    from pathlib import Path

    from gpuenc.dicom.writer import OutputSummary


def deflated(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


def rewrite(source_path: Path, output: Path, name: str, **options: Any) -> OutputSummary:
    """Write a native file in another syntax: ``explicit-vr-little-endian``, ``deflated`` or ``deflated-frame``."""
    chosen = target(find(name))
    with DicomFile(source_path) as source:
        made = coding(chosen, source.format)
        head = header(source, changes(source, source.format, chosen, made), chosen.syntax.uid)
        with OutputFile(
            output, head, chosen.syntax, source.number_of_frames, cells=source.format, fsync=False, **options
        ) as file:
            for frame in source.frames():
                cells = prepare(frame.pixels, frame.format, made, bit_offset=frame.bit_offset).tobytes()
                file.put(deflated(cells) if chosen.syntax.encapsulated else cells)
            return file.finish(trailer=trailer(source))
