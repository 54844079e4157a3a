"""The messages passed between stages: frozen, slotted, without behaviour beyond their own sizes.

A frame travels as the *cells* its source holds (PS3.5 section 8.1.1), described by a `FrameFormat`; each
encoder prepares samples from them (`cpu/samples.py`, or the kernels). For every frame that goes in, exactly one
`Encoded` or `Failure` comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Palette:
    """The Palette Color Lookup Tables (PS3.3 C.7.6.3.1.5), 8 bits per entry.

    Parameters
    ----------
    first : int
        Sample value that maps to entry 0; lower values map to it too, higher than the last entry to the last.
    red, green, blue : bytes
        One byte per entry, all of the same length.
    """

    first: int
    red: bytes
    green: bytes
    blue: bytes


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """One frame as the Image Pixel attributes describe its cells (PS3.3 C.7.6.3.1).

    Parameters
    ----------
    rows, columns : int
        1 to 65535.
    samples : int
        Samples per Pixel.
    bits_allocated, bits_stored : int
        Bits of a cell and of a sample in it.
    signed : bool
        Pixel Representation is 1 (two's complement).
    photometric : str
        Photometric Interpretation of the samples, such as ``"MONOCHROME2"`` or ``"YBR_FULL_422"``.
    planar : int
        Planar Configuration: 0 interleaved, 1 plane by plane. 0 for one sample.
    high_bit : int
        Most significant bit of the sample in its cell; ``-1`` stands for Bits Stored - 1.
    big_endian : bool
        Cells of more than one byte are stored most significant byte first.
    overlay_bits : int
        Mask of the cell's bits that hold embedded overlays (PS3.5 8.1.2), which are no part of the samples.
    palette : Palette or None
        Needed only where PALETTE COLOR samples have to be expanded for a lossy target.
    """

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    planar: int = 0
    high_bit: int = -1
    big_endian: bool = False
    overlay_bits: int = 0
    palette: Palette | None = None

    def __post_init__(self) -> None:
        if self.high_bit == -1:
            object.__setattr__(self, "high_bit", self.bits_stored - 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the interleaved samples: (rows, columns) or (rows, columns, samples)."""
        if self.samples == 1:
            return (self.rows, self.columns)
        return (self.rows, self.columns, self.samples)

    @property
    def subsampled(self) -> bool:
        """Whether native cells are Y0 Y1 Cb Cr for two pixels (PS3.3 C.7.6.3.1.2, YBR_FULL_422)."""
        return self.photometric == "YBR_FULL_422"

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame; not a multiple of 8 for some 1-bit frames (PS3.5 8.1.1)."""
        samples = 2 if self.subsampled else self.samples
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def frame_bytes(self) -> int:
        """Bytes that hold one native frame that begins on a byte."""
        return (self.frame_bits + 7) // 8


@dataclass(frozen=True, slots=True)
class FrameRef:
    """Which frame of which source: `index` counts from 0."""

    source: str
    index: int


@dataclass(frozen=True, slots=True)
class Coded:
    """A frame that is still compressed: its codestream and the transfer syntax UID it is compressed with."""

    syntax: str
    codestream: bytes


class Event(Protocol):
    """A point in a stream of a GPU."""

    @property
    def ptr(self) -> int:
        """The handle, a ``cudaEvent_t``."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceCells:
    """Native cells of one frame in the memory of a GPU, C-contiguous.

    Parameters
    ----------
    address, size : int
        Where they begin, and how many bytes they are.
    device : int
        Which of the visible GPUs.
    stream : int
        On which they are written, as ``__cuda_array_interface__`` names streams; 0 where nobody needs to wait.
    ready : Event or None
        An event of that stream, after which they are written. None where nobody needs to wait.
    owner : object
        What keeps the memory alive.
    fetch : callable
        Returns a copy on the host, once they are written; raises `GpuencError`.
    """

    address: int
    size: int
    device: int
    stream: int
    ready: Event | None
    owner: object
    fetch: Callable[[DeviceCells], NDArray[np.uint8]]
    _copies: list[NDArray[np.uint8]] = field(default_factory=list, repr=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        stream = {"stream": self.stream} if self.stream else {}  # 0 is forbidden
        return {
            "data": (self.address, True),
            "shape": (self.size,),
            "typestr": "|u1",
            "strides": None,
            "version": 3,
        } | stream

    def host(self) -> NDArray[np.uint8]:
        """Return a copy on the host, made when it is first asked for and kept for as long as these cells.

        Raises
        ------
        GpuencError
            The device does not give them.
        """
        if not self._copies:
            self._copies.append(self.fetch(self))
        return self._copies[0]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame on its way in.

    Parameters
    ----------
    ref : FrameRef
        Which frame this is.
    format : FrameFormat
        Format of the native cells; for `Coded` pixels, of what they decode to.
    pixels : numpy.ndarray, DeviceCells or Coded
        Native cells, uint8, shape (frame_bytes,), a view where possible, on the host or on a GPU; or the codestream.
    bit_offset : int
        For 1-bit cells: the bit of ``pixels[0]`` at which the frame begins, 0 to 7, counted from the least
        significant (PS3.5 8.1.1). `pixels` then has as many bytes as the frame touches.
    """

    ref: FrameRef
    format: FrameFormat
    pixels: NDArray[np.uint8] | DeviceCells | Coded
    bit_offset: int = 0

    def host_cells(self) -> NDArray[np.uint8]:
        """Return native cells on the host, copied there if need be; `Coded` frames have none.

        Raises
        ------
        GpuencError
            The device does not give them.
        """
        if isinstance(self.pixels, DeviceCells):
            return self.pixels.host()
        return cast("NDArray[np.uint8]", self.pixels)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one plug-in did not encode one frame: a stable `code`, and `reason` in one line for people."""

    ref: FrameRef
    code: str
    plugin: str
    reason: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """One frame on its way out.

    Parameters
    ----------
    ref : FrameRef
        Which frame this is.
    codestream : bytes
        What goes into one fragment, before padding to even length; for native targets, the cells.
    plugin : str
        Label of the plug-in that made it.
    verified : bool
        The codestream was decoded again and every sample compared.
    refused : tuple of Failure
        What the plug-ins before this one said.
    crc32 : int or None
        Of a verified frame: CRC-32 of its samples, interleaved, little endian; see `gpuenc.cpu.samples.checksum`. None
        for JPEG codestreams that are themselves re-compressed (PS3.5 A.4.12).
    """

    ref: FrameRef
    codestream: bytes
    plugin: str
    verified: bool = False
    refused: tuple[Failure, ...] = ()
    crc32: int | None = None
