"""Overlays that older files keep in unused bits of their pixel cells, collected while the frames go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuenc.cpu.bits import BitPacker
from gpuenc.cpu.samples import extract_overlay
from gpuenc.dicom.description import overlay_positions
from gpuenc.frames import Coded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gpuenc.dicom.description import Attributes
    from gpuenc.frames import Frame


class EmbeddedOverlays:
    """Gathers (60xx,3000) Overlay Data from native frames (PS3.5 8.1.2).

    One bit per overlay and pixel is kept until the last frame, since Overlay Data comes before Pixel Data.

    Parameters
    ----------
    attributes : Attributes
        Of the source.
    overlay_bits : int
        `FrameFormat.overlay_bits` of its cells.
    """

    def __init__(self, attributes: Attributes, overlay_bits: int) -> None:
        positions = overlay_positions(attributes)
        self._bits = {group: bit for group, bit in positions.items() if overlay_bits >> bit & 1}
        self._packers = {group: BitPacker() for group in self._bits}
        self._bytes = {group: bytearray() for group in self._bits}

    def add(self, frame: Frame) -> None:
        """Take the overlays of the next frame, whose pixels must be native cells.

        Raises
        ------
        InvalidPixels
            Cells that cannot hold overlays.
        """
        pixels = frame.host_cells()
        for group, bit in self._bits.items():
            plane = extract_overlay(pixels, frame.format, bit)
            count = frame.format.rows * frame.format.columns
            self._bytes[group] += self._packers[group].add_packed(plane, count).tobytes()

    def data(self) -> dict[int, bytes]:
        """Return Overlay Data by group, of all frames taken; ask once."""
        return {group: bytes(data) + self._packers[group].finish().tobytes() for group, data in self._bytes.items()}

    def watch(self, frames: Iterable[Frame], decode: Callable[[Frame], Frame]) -> Iterator[Frame]:
        """Yield `frames` with native cells, having taken the overlays of each.

        Parameters
        ----------
        frames : iterable of Frame
            Native or `Coded`.
        decode : callable
            Turns a `Coded` frame into a native one.
        """
        for frame in frames:
            native = decode(frame) if isinstance(frame.pixels, Coded) else frame
            self.add(native)
            yield native
