"""Which native cells an encoder gets from a source, once what is compressed has been decoded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from gpuenc.cpu.decoders import cells_of
from gpuenc.syntaxes import keeps_jpeg

if TYPE_CHECKING:
    from gpuenc.frames import Frame, FrameFormat, Palette
    from gpuenc.targets import Target


class HasCells(Protocol):
    """What `encoded_format` reads of a source: `DicomFile` and `DatasetSource` have it."""

    syntax: str
    format: FrameFormat
    compressed: bool

    def frame(self, index: int) -> Frame:
        """Return frame `index`, from 0."""

    @property
    def palette(self) -> Palette:
        """The Palette Color Lookup Tables."""


def encoded_format(source: HasCells, target: Target) -> FrameFormat:
    """Return the format of the native cells that are encoded.

    Parameters
    ----------
    source : DicomFile or DatasetSource
        Where frames come from.
    target : Target
        What they become.

    Returns
    -------
    FrameFormat
        Of native sources their own; of compressed ones what their first frame decodes to, but for JPEG codestreams
        that go on as they are (PS3.5 A.4.12), which stay as the attributes describe them. With the palette where it is
        expanded.

    Raises
    ------
    InvalidPixels
        The palette is needed and cannot be read.
    """
    if keeps_jpeg(source.syntax, target.syntax):
        return replace(source.format, overlay_bits=0)  # no codestream of samples holds overlays
    cells = cells_of(source.frame(0)) if source.compressed else source.format
    if cells.photometric == "PALETTE COLOR" and not target.lossless:
        return replace(cells, palette=source.palette)
    return cells
