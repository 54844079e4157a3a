"""What the HTJ2K kernels are told: tables, sizes and launches of a geometry. Pure; the layouts are kernels/htj2k.cuh's.

All sizes are bounds that follow from the geometry, so that nothing has to be asked of a device between launches.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuenc.coding import Coding

FAULT_VALUES, FAULT_MAGNITUDE, FAULT_ROOM = 1, 2, 4
BLOCK_PX = 64
MEL_BYTES, VLC_BYTES = 256, 2176
ROW_ALIGN, BAND_ALIGN = 2, 32  # coefficients
PLACE_ALIGN = 16  # bytes

# Offsets of coefficients and samples in a frame are 32-bit numbers, and so is Psot (T.800 A.4.2).
MOST_COEFFICIENTS = 1 << 30
MOST_CODESTREAM_BYTES = (1 << 32) - 16
_MOST_WARPS = 1 << 31

LAYOUT = np.dtype(
    [
        ("frame_samples", "u8"),
        ("frame_coefficients", "u8"),
        ("component_coefficients", "u4"),
        ("components", "u4"),
        ("transformed", "u4"),
        ("precision", "u4"),
        ("is_signed", "u4"),
        ("blocks", "u4"),
        ("packets", "u4"),
        ("nodes", "u4"),
        ("header_bytes", "u4"),
        ("slot_bytes", "u4"),
        ("magsgn_bytes", "u4"),
        ("main_header_bytes", "u4"),
        ("tlm_at", "u4"),
        ("sot_at", "u4"),
        ("frame_output_bytes", "u4"),
        ("unused", "u4"),
    ]
)
_LEVEL_FIELDS = ("columns", "rows", "source", "source_stride", "ll", "hl", "lh", "hh", "low_stride", "high_stride")
LEVEL = np.dtype([(name, "u4") for name in _LEVEL_FIELDS])
CODE_BLOCK = np.dtype(
    [("offset", "u4"), ("stride", "u4"), ("columns", "u2"), ("rows", "u2"), ("kmax", "u2"), ("packet", "u2")]
)
PACKET = np.dtype([(name, "u4") for name in ("first_block", "blocks", "first_node", "header", "first_band", "bands")])
BAND = np.dtype([("across", "u4"), ("down", "u4"), ("kmax", "u4")])
BLOCK_BYTES = np.dtype([("magsgn", "u4"), ("mel", "u4"), ("vlc", "u4"), ("total", "u4")])
PACKET_BYTES = np.dtype([("header", "u4"), ("body", "u4"), ("offset", "u4")])
FRAME_PLACE = np.dtype([("offset", "u8"), ("bytes", "u4"), ("fault", "u4")])

_SOC, _SIZ, _CAP, _COD, _QCD, _TLM, _SOT, _SOD = 0xFF4F, 0xFF51, 0xFF50, 0xFF52, 0xFF5C, 0xFF55, 0xFF90, 0xFF93


@dataclass(frozen=True, slots=True)
class SubBand:
    """One sub-band of one component: where its coefficients are, its size, its bit-planes (T.800 equation E-2)."""

    offset: int
    stride: int
    columns: int
    rows: int
    kmax: int

    @property
    def grid(self) -> tuple[int, int]:
        """Code blocks across and down; none in an empty band."""
        if not self.columns or not self.rows:
            return 0, 0
        return -(-self.columns // BLOCK_PX), -(-self.rows // BLOCK_PX)


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch; `arguments` name arrays, ``"frames"`` their number."""

    source: str
    kernel: str
    grid: tuple[int, int]
    block: int
    arguments: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """All that follows from a geometry.

    Parameters
    ----------
    layout : numpy.ndarray
        dtype `LAYOUT`, shape (1,).
    levels : numpy.ndarray
        dtype `LEVEL`; one entry also without decompositions.
    blocks, packets, bands : numpy.ndarray
        dtype `CODE_BLOCK`, `PACKET`, `BAND`: those of a frame, in the order of the codestream.
    main_header : numpy.ndarray
        uint8: SOC to SOD, with zeros for Ptlm and Psot.
    decompositions : int
        Decomposition levels.
    cell_bytes : int
        Bytes of a sample as the kernels take it.
    """

    layout: NDArray[np.void]
    levels: NDArray[np.void]
    blocks: NDArray[np.void]
    packets: NDArray[np.void]
    bands: NDArray[np.void]
    main_header: NDArray[np.uint8]
    decompositions: int
    cell_bytes: int

    def tables(self) -> dict[str, NDArray[Any]]:
        """Return what a device needs once, by the names that launches use."""
        levels = {f"level {number}": self.levels[number : number + 1] for number in range(len(self.levels))}
        return {
            "layout": self.layout, "blocks": self.blocks, "packets": self.packets, "bands": self.bands,
            "main header": self.main_header, **levels,
        }  # fmt: skip

    def scratch(self, frames: int) -> dict[str, tuple[int, str]]:
        """Return the arrays of a launch set: elements and dtype, which has the alignment that kernels need."""
        one = self._elements()
        return {name: (count * frames, dtype) for name, (count, dtype) in one.items()}

    @property
    def frame_bytes(self) -> int:
        """Bytes of a device that one frame of a launch set takes beside its samples."""
        return sum(count * np.dtype(dtype).itemsize for count, dtype in self._elements().values())

    @property
    def most_frames(self) -> int:
        """The most frames of a launch set, whose warps are counted in 32 bits."""
        return max(1, _MOST_WARPS // (self._of("blocks") + self._of("packets") + 1))

    def launches(self, frames: int) -> tuple[Launch, ...]:
        """Return the launches that encode `frames` frames, in order."""
        across, down = self._of("components"), min(frames, 65535)
        bits = 8 * self.cell_bytes
        result = []
        for number, level in enumerate(self.levels):
            tiles = -(-int(level["columns"]) // 124) * -(-int(level["rows"]) // 64)
            kernel = "dwt53_next"
            arguments: tuple[str, ...] = ("layout", f"level {number}", "frames", "coefficients")
            if number == 0:
                kernel = f"dwt53_first_{bits}" if self.decompositions else f"level_shift_{bits}"
                arguments = ("layout", "level 0", "samples", "frames", "coefficients", "faults")
            if not self.decompositions:
                tiles = -(-int(level["columns"]) * int(level["rows"]) // 256)
            result.append(Launch("dwt53", kernel, (tiles * across, down), 128, arguments))
        warps = frames * self._of("blocks"), frames * self._of("packets")
        pieces = sum(warps) + frames
        result += [
            Launch(
                "ht_block", "ht_encode_blocks", (-(-warps[0] // 4), 1), 128,
                ("layout", "blocks", "coefficients", "frames", "slots", "block bytes", "faults"),
            ),
            Launch(
                "packet_headers", "packet_headers", (-(-warps[1] // 4), 1), 128,
                ("layout", "packets", "bands", "block bytes", "frames", "nodes", "headers", "block offsets",
                 "packet bytes"),
            ),
            Launch(
                "packet_headers", "place_frames", (1, 1), 32, ("layout", "frames", "faults", "packet bytes", "places")
            ),
            Launch(
                "gather", "gather", (-(-pieces // 4), 1), 128,
                ("layout", "blocks", "packets", "main header", "block bytes", "block offsets", "packet bytes", "slots",
                 "headers", "places", "frames", "output"),
            ),
        ]  # fmt: skip
        return tuple(result)

    def _of(self, name: str) -> int:
        return int(self.layout[name][0])

    def _elements(self) -> dict[str, tuple[int, str]]:
        blocks, packets = self._of("blocks"), self._of("packets")
        return {
            "coefficients": (self._of("frame_coefficients") // 2, "u8"),  # two at a time are read
            "slots": (blocks * self._of("slot_bytes") // 4, "u4"),
            "block bytes": (blocks * BLOCK_BYTES.itemsize // 4, "u4"),
            "block offsets": (blocks, "u4"),
            "nodes": (self._of("nodes"), "u4"),
            "headers": (self._of("header_bytes") // 4, "u4"),
            "packet bytes": (packets * PACKET_BYTES.itemsize // 4, "u4"),
            "places": (FRAME_PLACE.itemsize // 8, "u8"),
            "output": (self._of("frame_output_bytes") // 4, "u4"),
        }


def refusal(coding: Coding) -> str:
    """Return why `coding` is not for these kernels, or nothing."""
    if not coding.lossless:
        return "the HTJ2K kernels are lossless"
    if not 1 <= coding.precision <= 16 or coding.cell_bits not in (8, 16) or coding.samples not in (1, 3):
        return (
            f"the HTJ2K kernels take 1 or 3 samples of at most 16 bits, not {coding.samples} of {coding.precision} "
            f"in {coding.cell_bits}"
        )
    if 2 * coding.rows * coding.columns * coding.samples >= MOST_COEFFICIENTS:
        return f"the image of {coding.rows} x {coding.columns} is too large for the HTJ2K kernels"
    return ""


@lru_cache(maxsize=64)
def plan(coding: Coding) -> Plan:
    """Return the plan of frames that become `coding`, which `refusal` has nothing against."""
    component, levels, resolutions = _sub_bands(coding)
    rows_of_blocks: list[NDArray[np.void]] = []
    packets: list[tuple[int, ...]] = []
    bands: list[tuple[int, ...]] = []
    first_node = header = first_block = 0
    for sub_bands in resolutions:  # RPCL with one precinct: resolution, component (T.800 B.12.1.3)
        for number in range(coding.samples):
            made = [_blocks(band, number * component, len(packets)) for band in sub_bands]
            count, nodes = sum(map(len, made)), max(_tree_nodes(*band.grid) for band in sub_bands)
            packets.append((first_block, count, first_node, header, len(bands), len(sub_bands)))
            bands += [(*band.grid, band.kmax) for band in sub_bands]
            rows_of_blocks += made
            first_block, first_node = first_block + count, first_node + nodes
            header += _aligned(40 + 10 * count, PLACE_ALIGN)
    blocks = np.concatenate(rows_of_blocks)
    main_header, tlm_at, sot_at = _main_header(coding)
    quads = (blocks["columns"].astype(np.int64) + 1) // 2 * ((blocks["rows"].astype(np.int64) + 1) // 2)
    magsgn = _magsgn_bytes(quads, blocks["kmax"].astype(np.int64))
    magsgn_bytes = _aligned(int(magsgn.max()), 128)
    most = int((magsgn + _mel_and_vlc_bytes(quads)).sum()) + header + len(main_header) + 2
    layout = np.zeros(1, LAYOUT)
    values = {
        "frame_samples": coding.rows * coding.columns * coding.samples,
        "frame_coefficients": component * coding.samples, "component_coefficients": component,
        "components": coding.samples, "transformed": coding.mct, "precision": coding.precision,
        "is_signed": coding.signed, "blocks": len(blocks), "packets": len(packets), "nodes": max(1, first_node),
        "header_bytes": header, "slot_bytes": magsgn_bytes + MEL_BYTES + VLC_BYTES, "magsgn_bytes": magsgn_bytes,
        "main_header_bytes": len(main_header), "tlm_at": tlm_at, "sot_at": sot_at,
        "frame_output_bytes": min(_aligned(most, PLACE_ALIGN), MOST_CODESTREAM_BYTES),
    }  # fmt: skip
    for name, value in values.items():
        layout[name] = value
    return Plan(
        layout, levels, blocks, np.array(packets, PACKET), np.array(bands, BAND),
        np.frombuffer(main_header, np.uint8), coding.levels, coding.cell_bits // 8,
    )  # fmt: skip


def guard_bits(exponent: int) -> int:
    """Return the guard bits (T.800 E.1.1) for samples of `exponent` bits after the component transform.

    Three for up to 3 bits: there, rounding takes coefficients past two from four decompositions on.
    """
    return 3 if exponent <= 3 else 2


def _sub_bands(coding: Coding) -> tuple[int, NDArray[np.void], list[list[SubBand]]]:
    """Return the coefficients of a component, the levels, and the sub-bands of each resolution, lowest first."""
    bits = coding.precision + coding.mct
    kmax = bits + guard_bits(bits) - 1  # of LL; HL and LH have one bit-plane more, HH two (T.800 table E.1)
    columns, rows, used, source, source_stride = coding.columns, coding.rows, 0, 0, 0
    levels: list[tuple[int, ...]] = []
    resolutions: list[list[SubBand]] = []
    for _ in range(coding.levels):
        widths, heights = (-(-columns // 2), columns // 2), (-(-rows // 2), rows // 2)
        strides = [_aligned(width, ROW_ALIGN) for width in widths]
        starts = []
        for height in heights:
            for stride in strides:
                starts.append(used)
                used += _aligned(stride * height, BAND_ALIGN)
        ll, hl, lh, hh = starts
        levels.append((columns, rows, source, source_stride, ll, hl, lh, hh, *strides))
        resolutions.append(
            [
                SubBand(hl, strides[1], widths[1], heights[0], kmax + 1),
                SubBand(lh, strides[0], widths[0], heights[1], kmax + 1),
                SubBand(hh, strides[1], widths[1], heights[1], kmax + 2),
            ]
        )
        columns, rows, source, source_stride = widths[0], heights[0], ll, strides[0]
    if not coding.levels:
        source_stride = _aligned(columns, ROW_ALIGN)
        used = _aligned(source_stride * rows, BAND_ALIGN)
        levels.append((columns, rows, 0, 0, 0, 0, 0, 0, source_stride, 0))
    resolutions.append([SubBand(source, source_stride, columns, rows, kmax)])
    return used, np.array(levels, LEVEL), resolutions[::-1]


def _blocks(band: SubBand, component_offset: int, packet: int) -> NDArray[np.void]:
    across, down = band.grid
    blocks = np.zeros((down, across), CODE_BLOCK)
    x, y = np.arange(across) * BLOCK_PX, np.arange(down)[:, None] * BLOCK_PX
    blocks["offset"] = component_offset + band.offset + y * band.stride + x
    blocks["stride"], blocks["kmax"], blocks["packet"] = band.stride, band.kmax, packet
    blocks["columns"] = np.minimum(BLOCK_PX, band.columns - x)
    blocks["rows"] = np.minimum(BLOCK_PX, band.rows - y)
    return blocks.reshape(-1)


def _tree_nodes(across: int, down: int) -> int:
    """Return the nodes of a tag tree over so many leaves (T.800 B.10.2)."""
    nodes = across * down
    while across * down > 1:
        across, down = -(-across // 2), -(-down // 2)
        nodes += across * down
    return nodes


def _magsgn_bytes(quads: NDArray[np.int64], kmax: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most bytes of MagSgn: kmax + 1 bits a sample; a bit in 15 is stuffing; a word is stored behind."""
    return 4 * quads * (kmax + 1) * 16 // (8 * 15) + 8


def _mel_and_vlc_bytes(quads: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most bytes of MEL (3/2 bits an event) and VLC (15 bits a quad), a bit in 15 being stuffing."""
    return np.minimum(11 * quads // 5 + 64, MEL_BYTES + VLC_BYTES)


def _main_header(coding: Coding) -> tuple[bytes, int, int]:
    """Return SOC to SOD, and where Ptlm and SOT are (T.800 Annex A, T.814 Annex A)."""
    levels, count, mct = coding.levels, coding.samples, int(coding.mct)
    bits = coding.precision + mct
    guard = guard_bits(bits)
    size = (coding.columns, coding.rows, 0, 0) * 2
    depth = coding.precision - 1 | 0x80 * coding.signed
    # MAGB: bit-planes of the deepest sub-band, in the code of T.814 A.3.
    planes = bits + guard - 1 + (2 if levels else 0)
    magb = 0 if planes <= 8 else planes - 8 if planes < 28 else 13 + (planes >> 2)
    exponents = [bits] + [bits + 1, bits + 1, bits + 2] * levels
    header = struct.pack(">HHHH8IH", _SOC, _SIZ, 38 + 3 * count, 0x4000, *size, count) + bytes((depth, 1, 1)) * count
    header += struct.pack(">HHIH", _CAP, 8, 1 << 17, magb)
    # No precincts or SOP or EPH; RPCL, one layer; blocks of 2^(4 + 2); HT blocks; reversible 5/3.
    header += struct.pack(">HHBBHBBBBBB", _COD, 12, 0, 2, 1, mct, levels, 4, 4, 0x40, 1)
    header += struct.pack(">HHB", _QCD, 4 + 3 * levels, guard << 5) + bytes(exponent << 3 for exponent in exponents)
    header += struct.pack(">HHBBH", _TLM, 10, 0, 0x60, 0)
    tlm_at = len(header)
    header += bytes(4)
    sot_at = len(header)
    header += struct.pack(">HHHIBB", _SOT, 10, 0, 0, 0, 1) + struct.pack(">H", _SOD)
    return header, tlm_at, sot_at


def _aligned(size: int, align: int) -> int:
    return -(-size // align) * align
