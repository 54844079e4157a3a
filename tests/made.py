"""DICOM files that no package has, made byte by byte, without gpuenc and without pydicom.

Each factory returns the bytes of a file; `image` is what the others are made of. Samples are given by the caller,
so that a test knows what must come out.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from struct import pack
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE, JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50"
JPEG2000, HTJ2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
INSTANCE = "1.2.826.0.1.3680043.8.498.1"
UNDEFINED = 0xFFFFFFFF

LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT", "UV", "SV"}
NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "OV": "Q", "AT": "H"}
CELL_BYTES = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}

Value = "bytes | str | int | float | Sequence[int] | list[list[Element]]"


@dataclass(frozen=True)
class Element:
    """One element: numbers for numeric VRs, text, little-endian bytes, or a list of items, each a list of elements.

    `undefined` gives a sequence and its items undefined length.
    """

    tag: int
    vr: str
    value: object
    undefined: bool = False


def encoded(element: Element, syntax: str = EXPLICIT) -> bytes:
    """Return an element as `syntax` has it (PS3.5 7.1)."""
    implicit, order = syntax == IMPLICIT, ">" if syntax == BIG else "<"
    value = element.value
    length = None
    if element.vr == "SQ":
        value = b"".join(item(each, syntax, undefined=element.undefined) for each in value)
        if element.undefined:
            value += pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0)
            length = UNDEFINED
    elif isinstance(value, str):
        value = value.encode("latin-1")
        value += (b"\0" if element.vr == "UI" else b" ") * (len(value) % 2)
    elif isinstance(value, int | float):
        value = pack(f"{order}{NUMBERS[element.vr]}", value)
    elif not isinstance(value, bytes):
        value = b"".join(pack(f"{order}{NUMBERS[element.vr]}", each) for each in value)
    elif order == ">" and element.vr in CELL_BYTES:
        value = np.frombuffer(value, f"<u{CELL_BYTES[element.vr]}").byteswap().tobytes()
    length = len(value) if length is None else length
    return tag_and_length(element.tag, element.vr, length, implicit=implicit, order=order) + value


def tag_and_length(tag: int, vr: str, length: int, *, implicit: bool = False, order: str = "<") -> bytes:
    if implicit:
        return pack(f"{order}HHI", tag >> 16, tag & 0xFFFF, length)
    if vr in LONG:
        return pack(f"{order}HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length)
    return pack(f"{order}HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), length)


def item(elements: Iterable[Element], syntax: str = EXPLICIT, *, undefined: bool = False) -> bytes:
    order = ">" if syntax == BIG else "<"
    content = b"".join(encoded(element, syntax) for element in elements)
    if undefined:
        return pack(f"{order}HHI", 0xFFFE, 0xE000, UNDEFINED) + content + pack(f"{order}HHI", 0xFFFE, 0xE00D, 0)
    return pack(f"{order}HHI", 0xFFFE, 0xE000, len(content)) + content


@dataclass(frozen=True)
class Image:
    """What a file is made from. `elements` are added to, and win over, those that the other fields make."""

    rows: int = 4
    columns: int = 6
    samples: int = 1
    allocated: int = 16
    stored: int = 0
    high_bit: int = -1
    signed: bool = False
    photometric: str = "MONOCHROME2"
    planar: int = 0
    frames: int | None = None
    syntax: str = EXPLICIT
    elements: tuple[Element, ...] = ()
    without: frozenset[int] = frozenset()
    pixels: bytes = b""
    pixel_tag: int = 0x7FE00010
    pixel_vr: str = ""
    pixel_length: int | None = None
    trailer: tuple[Element, ...] = ()
    preamble: bytes | None = bytes(128)
    meta: bool = True
    meta_elements: tuple[Element, ...] = field(default=())

    def header(self) -> list[Element]:
        """Return the elements before Pixel Data, in order."""
        stored = self.stored or self.allocated
        made = [
            Element(0x00080008, "CS", "ORIGINAL\\PRIMARY"),
            Element(0x00080016, "UI", SECONDARY_CAPTURE),
            Element(0x00080018, "UI", INSTANCE),
            Element(0x00080060, "CS", "OT"),
            Element(0x00100010, "PN", "SECRET^PATIENT"),
            Element(0x00280002, "US", self.samples),
            Element(0x00280004, "CS", self.photometric),
            Element(0x00280010, "US", self.rows),
            Element(0x00280011, "US", self.columns),
            Element(0x00280100, "US", self.allocated),
            Element(0x00280101, "US", stored),
            Element(0x00280102, "US", stored - 1 if self.high_bit < 0 else self.high_bit),
            Element(0x00280103, "US", int(self.signed)),
        ]
        if self.samples > 1:
            made.append(Element(0x00280006, "US", self.planar))
        if self.frames is not None:
            made.append(Element(0x00280008, "IS", str(self.frames)))
        by_tag = {element.tag: element for element in (*made, *self.elements) if element.tag not in self.without}
        return [by_tag[tag] for tag in sorted(by_tag)]

    def dataset(self) -> bytes:
        """Return the encoded data set."""
        syntax = self.syntax if self.syntax in (IMPLICIT, BIG) else EXPLICIT
        order = ">" if syntax == BIG else "<"
        head = b"".join(encoded(element, syntax) for element in self.header())
        encapsulated = self.syntax not in (IMPLICIT, EXPLICIT, BIG, DEFLATED)
        vr = self.pixel_vr or ("OB" if encapsulated or self.allocated <= 8 else "OW")
        pixels = self.pixels + b"\0" * (len(self.pixels) % 2)
        length = UNDEFINED if encapsulated else len(pixels)
        length = length if self.pixel_length is None else self.pixel_length
        pixel_header = tag_and_length(self.pixel_tag, vr, length, implicit=syntax == IMPLICIT, order=order)
        return head + pixel_header + pixels + b"".join(encoded(element, syntax) for element in self.trailer)

    def prefix(self) -> bytes:
        """Return preamble and File Meta Information."""
        preamble = b"" if self.preamble is None else self.preamble + b"DICM"
        if not self.meta:
            return preamble
        elements = [
            Element(0x00020001, "OB", b"\0\1"),
            Element(0x00020002, "UI", SECONDARY_CAPTURE),
            Element(0x00020003, "UI", INSTANCE),
            Element(0x00020010, "UI", self.syntax),
            Element(0x00020012, "UI", "1.2.3.4"),
            *self.meta_elements,
        ]
        body = b"".join(encoded(element) for element in elements)
        return preamble + encoded(Element(0x00020000, "UL", len(body))) + body

    def file(self) -> bytes:
        """Return the file."""
        dataset = self.dataset()
        if self.syntax == DEFLATED:
            squeeze = zlib.compressobj(wbits=-15)
            dataset = squeeze.compress(dataset) + squeeze.flush()
            dataset += b"\0" * (len(dataset) % 2)
        return self.prefix() + dataset

    def write(self, path: Path) -> Path:
        """Write the file to `path` and return that."""
        path.write_bytes(self.file())
        return path


def of(samples: NDArray[np.generic], **options: object) -> Image:
    """Return a native image of `samples`, shaped (frames, rows, columns) or (frames, rows, columns, samples).

    The samples become the cells as they are: interleaved, little endian unless the syntax is big endian.
    """
    options.setdefault("allocated", samples.dtype.itemsize * 8)
    options.setdefault("signed", samples.dtype.kind == "i")
    if samples.ndim == 4:
        options.setdefault("samples", samples.shape[3])
        options.setdefault("photometric", "RGB")
    order = ">" if options.get("syntax") == BIG else "<"
    cells = samples.astype(samples.dtype.newbyteorder(order))
    if options.get("planar"):
        cells = np.moveaxis(cells, 3, 1)
    return Image(
        rows=samples.shape[1], columns=samples.shape[2], frames=samples.shape[0], pixels=cells.tobytes(), **options
    )


def noise(shape: tuple[int, ...], dtype: str = "u2", bits: int = 0, seed: int = 0) -> NDArray[np.generic]:
    """Return random samples of `bits` bits, all of the dtype's by default."""
    kind = np.dtype(dtype)
    bits = bits or kind.itemsize * 8
    low, high = (-(1 << bits - 1), 1 << bits - 1) if kind.kind == "i" else (0, 1 << bits)
    return np.random.default_rng(seed).integers(low, high, shape, kind)


def embedded_overlays(samples: NDArray[np.uint16], planes: dict[int, NDArray[np.uint8]], **options: object) -> Image:
    """Return 12-bit samples in 16-bit cells with overlays in upper bits: {bit: plane (frames, rows, columns)}."""
    cells = samples.astype("<u2")
    groups = []
    for number, (bit, plane) in enumerate(planes.items()):
        cells |= plane.astype("<u2") << bit
        base = 0x60000000 + number * 0x20000
        groups += [
            Element(base | 0x0010, "US", samples.shape[1]),
            Element(base | 0x0011, "US", samples.shape[2]),
            Element(base | 0x0040, "CS", "G"),
            Element(base | 0x0050, "SS", (1, 1)),
            Element(base | 0x0100, "US", 16),
            Element(base | 0x0102, "US", bit),
        ]
    return replace(of(cells, stored=12, **options), elements=tuple(groups))


def shifted(samples: NDArray[np.generic], high_bit: int, stored: int = 12, **options: object) -> Image:
    """Return samples whose High Bit is not Bits Stored - 1; the bits around them are zero."""
    mask = (1 << stored) - 1
    cells = (samples.astype("i4") & mask) << high_bit + 1 - stored
    signed = samples.dtype.kind == "i"
    return of(cells.astype("u2"), stored=stored, high_bit=high_bit, signed=signed, **options)


def segmentation(bits: NDArray[np.uint8], **options: object) -> Image:
    """Return 1-bit cells, (frames, rows, columns), frame after frame without alignment (PS3.5 8.1.1)."""
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    frames, rows, columns = bits.shape
    if options.get("syntax") == BIG and options.get("pixel_vr") == "OW":
        packed = np.frombuffer(packed + b"\0" * (len(packed) % 2), "u2").byteswap().tobytes()
    return Image(rows=rows, columns=columns, frames=frames, allocated=1, pixels=packed, **options)


def float_pixels(*, double: bool = False) -> Image:
    """Return a parametric map: Float or Double Float Pixel Data."""
    values = np.arange(4, dtype="f8" if double else "f4").tobytes()
    return Image(
        rows=2, columns=2, allocated=64 if double else 32, pixels=values,
        pixel_tag=0x7FE00009 if double else 0x7FE00008, pixel_vr="OD" if double else "OF",
    )  # fmt: skip


def fragment(value: bytes) -> bytes:
    """Return one item."""
    return pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


def encapsulated(
    frames: Sequence[Sequence[bytes]], table: str = "basic", *, delimiter: bool = True
) -> tuple[bytes, tuple[Element, ...]]:
    """Return the value of an encapsulated Pixel Data, and elements for the header.

    Parameters
    ----------
    frames : sequence of sequence of bytes
        Fragments of each frame, of even length.
    table : {'basic', 'empty', 'extended'}
        Which offset table; the extended one has the lengths of the fragments without a trailing 00.
    delimiter : bool
        End with a Sequence Delimitation Item.
    """
    offsets, at = [], 0
    for fragments in frames:
        offsets.append(at)
        at += sum(8 + len(value) for value in fragments)
    basic = b"".join(pack("<I", offset) for offset in offsets) if table == "basic" else b""
    value = fragment(basic) + b"".join(fragment(each) for fragments in frames for each in fragments)
    value += pack("<HHI", 0xFFFE, 0xE0DD, 0) if delimiter else b""
    if table != "extended":
        return value, ()
    lengths = [len(fragments[0].removesuffix(b"\0")) for fragments in frames]
    return value, (Element(0x7FE00001, "OV", offsets), Element(0x7FE00002, "OV", lengths))


def compressed(frames: Sequence[Sequence[bytes]], table: str = "basic", **options: object) -> Image:
    """Return a multi-frame object of the given fragments, in JPEG Baseline unless `syntax` says otherwise."""
    value, elements = encapsulated(frames, table)
    options = {"allocated": 8, "syntax": JPEG, **options}
    options["elements"] = (*elements, *options.get("elements", ()))
    return Image(frames=len(frames), pixels=value, **options)


def ybr_422(pairs: NDArray[np.uint8], **options: object) -> Image:
    """Return native YBR_FULL_422 of cells Y0 Y1 Cb Cr, shaped (frames, rows, columns / 2, 4)."""
    frames, rows, half, _ = pairs.shape
    return Image(
        rows=rows, columns=half * 2, samples=3, allocated=8, photometric="YBR_FULL_422", frames=frames,
        pixels=pairs.tobytes(), **options,
    )  # fmt: skip


def icon(pixels: bytes = bytes(range(16)), *, undefined: bool = True) -> Element:
    """Return an Icon Image Sequence with native Pixel Data of its own."""
    content = [
        Element(0x00280002, "US", 1),
        Element(0x00280004, "CS", "MONOCHROME2"),
        Element(0x00280010, "US", 4),
        Element(0x00280011, "US", 4),
        Element(0x00280100, "US", 8),
        Element(0x00280101, "US", 8),
        Element(0x00280102, "US", 7),
        Element(0x00280103, "US", 0),
        Element(0x7FE00010, "OW", pixels),
    ]
    return Element(0x00880200, "SQ", [content], undefined)


def odd_private() -> tuple[Element, ...]:
    """Return private elements with values that a careful reader would object to."""
    creator = Element(0x00090010, "LO", "VENDOR")
    return (
        creator,
        Element(0x00091001, "DS", "not a number"),
        Element(0x00091002, "UN", b"\x01\x02\x03\x04"),
        Element(0x00091003, "SQ", [[creator, Element(0x00091004, "DA", "yesterday")]], True),
        Element(0x00091005, "PN", "\xff\xfe^\x80"),
        Element(0x00091006, "OB", b"\xfe\xff\xdd\xe0\0\0\0\0"),
        Element(0x00291001, "LT", "no creator"),
    )


def wrong_group_lengths() -> tuple[Element, ...]:
    """Return retired group lengths, none of them right."""
    return tuple(Element(group << 16, "UL", 7) for group in (0x0008, 0x0010, 0x0028, 0x7FE0))


PADDING = (Element(0xFFFCFFFC, "OB", b"\0" * 10),)


def palette(samples: NDArray[np.generic], tables: NDArray[np.generic], first: int = 0, **options: object) -> Image:
    """Return PALETTE COLOR; `tables` is (3, entries), uint8 or uint16."""
    entries = tables.shape[1]
    vr = "SS" if samples.dtype.kind == "i" else "US"
    descriptor = (entries % 65536, first, tables.dtype.itemsize * 8)
    elements = []
    for channel in range(3):
        table = tables[channel].astype(tables.dtype.newbyteorder("<")).tobytes()
        elements += [
            Element(0x00281101 + channel, vr, descriptor),
            Element(0x00281201 + channel, "OW", table + b"\0" * (len(table) % 2)),
        ]
    return replace(of(samples, photometric="PALETTE COLOR", **options), elements=tuple(elements))


def series(folder: Path, slices: int = 108, side: int = 16) -> list[Path]:
    """Write a CT-like series of signed slices and return its files."""
    paths = []
    for number in range(slices):
        position = (
            Element(0x00080018, "UI", f"{INSTANCE}.{number + 1}"),
            Element(0x00200013, "IS", str(number + 1)),
            Element(0x00200032, "DS", f"0\\0\\{number}"),
        )
        image = replace(of(noise((1, side, side), "i2", 12, seed=number)), elements=position)
        paths.append(image.write(folder / f"{number:04}.dcm"))
    return paths


def huge(path: Path, frames: int = 8191) -> Path:
    """Write a native object of `frames` frames of 512 × 512 × 16 bits, all zero, 4 GiB in no space (sparse)."""
    size = frames * 512 * 512 * 2
    image = Image(rows=512, columns=512, frames=frames, pixel_length=size)
    path.write_bytes(image.file())
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)
    return path
