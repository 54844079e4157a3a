"""What is damaged: small files of every transfer syntax, pydicom's and made ones."""

from __future__ import annotations

import zlib
from functools import cache
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from tests import made
from tests.dicom import files
from tests.fuzz.tree import File, Unparsed, parsed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROOT = "1.2.840.10008.1.2"
MAX_FILE_BYTES, MAX_PIXELS = 60_000, 300_000
_SIGNED = (made.Element(0x00280103, "US", 1),)
ALIKE = ("SC_rgb_dcmtk_ebc", "chr", "IM0000")  # of these one is enough


def _j2k(samples: NDArray[np.generic], **options: object) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(samples, level=0, codecformat="j2k", reversible=True, **options))


def _htj2k(samples: NDArray[np.generic], **options: object) -> bytes:
    return bytes(imagecodecs.htj2k_encode(samples, reversible=True, **options))


def _jls(samples: NDArray[np.generic], **options: object) -> bytes:
    return bytes(imagecodecs.jpegls_encode(samples, **options))


def _sof3(samples: NDArray[np.generic], predictor: int = 1, **_: object) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(samples, lossless=True, predictor=predictor, bitspersample=samples.dtype.itemsize * 8)
    )


def _dct(samples: NDArray[np.generic], **_: object) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(samples, 90))


def _jxl(samples: NDArray[np.generic], **_: object) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(samples, lossless=True, effort=3))


def _jxl_jpeg(samples: NDArray[np.generic], **_: object) -> bytes:
    return bytes(imagecodecs.jpegxl_encode_jpeg(_dct(samples), usecontainer=True))


def _deflate(samples: NDArray[np.generic], **_: object) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(samples.tobytes()) + squeeze.flush()


def _rle(samples: NDArray[np.generic], **_: object) -> bytes:
    """PackBits of literals and runs, row by row (PS3.5 G.3.1)."""
    cells = samples.reshape(*samples.shape[:2], -1)
    size = samples.dtype.itemsize
    segments = []
    for channel in range(cells.shape[2]):
        for byte in reversed(range(size)):
            plane = cells[:, :, channel].astype(f"u{size}") >> (8 * byte) & 0xFF
            rows = []
            for row in plane.astype(np.uint8):
                half = len(row) // 2
                rows.append(bytes((half - 1,)) + row[:half].tobytes() if half else b"")
                rows += [bytes((0, value)) for value in row[half:]]
            segment = b"".join(rows)
            segments.append(segment + b"\0" * (len(segment) % 2))
    starts = np.cumsum([64, *(len(segment) for segment in segments)])[:-1].tolist()
    header = np.array([len(segments), *starts, *[0] * (15 - len(starts))], "<u4")
    return header.tobytes() + b"".join(segments)


CODECS: dict[str, Callable[..., bytes]] = {
    ".5": _rle, ".4.50": _dct, ".4.57": lambda s, **o: _sof3(s, 4), ".4.70": _sof3, ".4.80": _jls, ".4.81": _jls,
    ".4.90": _j2k, ".4.91": _j2k, ".4.201": _htj2k, ".4.202": _htj2k, ".4.203": _htj2k, ".4.110": _jxl,
    ".4.111": _jxl_jpeg, ".8.1": _deflate,
}  # fmt: skip
_UNSIGNED_ONLY = {".4.50", ".4.111"}


def even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


def smooth(shape: tuple[int, ...], dtype: str, bits: int) -> NDArray[np.generic]:
    """Return samples that differ from frame to frame, with some noise in them."""
    ramps = np.indices(shape).astype(np.int64)
    values = sum(axis * (3 + 5 * number) for number, axis in enumerate(ramps))
    values = values + made.noise(shape, "u2", min(4, bits)).astype(np.int64)
    low = -(1 << bits - 1) if dtype[0] == "i" else 0
    return (values % (1 << bits) + low).astype(dtype)


def _coded(syntax: str, samples: NDArray[np.generic], bits: int, table: str, split: int, **options: object) -> bytes:
    make = CODECS[syntax]
    coded = [even(make(frame, bitspersample=bits)) for frame in samples]
    step = [max(2, len(each) // split // 2 * 2) for each in coded]
    frames = [
        [each[at : at + size] for at in range(0, len(each), size)] if split > 1 else [each]
        for each, size in zip(coded, step, strict=True)
    ]
    colour = samples.ndim == 4
    options = {"samples": samples.shape[3], "photometric": "RGB", **options} if colour else options
    return made.compressed(
        frames, table, rows=samples.shape[1], columns=samples.shape[2], allocated=samples.dtype.itemsize * 8,
        stored=bits, signed=samples.dtype.kind == "i", syntax=ROOT + syntax, **options,
    ).file()  # fmt: skip


def _compressed() -> dict[str, bytes]:
    found = {}
    whole = {".5", ".8.1", ".4.111"}  # one fragment per frame
    for syntax in CODECS:
        eight = smooth((3, 11, 14), "u1", 8)
        colour = smooth((2, 9, 10, 3), "u1", 8)
        ycc = {".4.50": "YBR_FULL", ".4.111": "YBR_FULL_422", ".4.90": "YBR_RCT", ".4.91": "YBR_RCT"}
        label = ycc.get(syntax, "YBR_RCT" if ".4.20" in syntax else "RGB")
        found[f"coded {syntax} grey"] = _coded(syntax, eight, 8, "basic", 1)
        found[f"coded {syntax} colour"] = _coded(syntax, colour, 8, "empty", 1, photometric=label)
        found[f"coded {syntax} extended"] = _coded(syntax, eight[:2], 8, "extended", 1)
        if syntax not in whole:
            found[f"coded {syntax} fragments"] = _coded(syntax, eight, 8, "basic", 3)
            found[f"coded {syntax} bare fragments"] = _coded(syntax, eight[:1], 8, "empty", 3)
        if syntax not in _UNSIGNED_ONLY:
            deep = smooth((2, 12, 9), "u2", 16 if syntax in (".4.57", ".4.70", ".4.110") else 12)
            found[f"coded {syntax} deep"] = _coded(syntax, deep, 12 if deep.max() < 4096 else 16, "basic", 1)
        if syntax not in (*_UNSIGNED_ONLY, ".4.57", ".4.70", ".4.80", ".4.81", ".4.110"):
            signed = smooth((2, 7, 9), "i2", 16)
            found[f"coded {syntax} signed"] = _coded(syntax, signed, 16, "empty", 1)
    # CharLS knows no sign: two's complement in as many bits as are stored.
    signed = smooth((2, 7, 9), "i2", 12)
    image = _coded(".4.80", signed.view("u2") & 0xFFF, 12, "empty", 1, elements=_SIGNED)
    found["coded .4.80 signed"] = image
    return found


def _native() -> dict[str, bytes]:
    grey, colour = smooth((3, 5, 7), "u2", 12), smooth((2, 6, 8, 3), "u1", 8)
    signed, bits = smooth((2, 5, 6), "i2", 16), made.noise((3, 5, 7), "u1", 1)
    tables = made.noise((3, 256), "u2")
    pairs = smooth((2, 4, 4, 4), "u1", 8)
    found = {
        "explicit": made.of(grey, stored=12),
        "implicit": made.of(grey, stored=12, syntax=made.IMPLICIT, elements=(made.icon(),)),
        "big": made.of(grey, stored=12, syntax=made.BIG, elements=(made.icon(),)),
        "deflated": made.of(grey, stored=12, syntax=made.DEFLATED),
        "signed": made.of(signed),
        "wide": made.of(smooth((2, 4, 5), "u4", 24), stored=24),
        "big signed": made.of(signed, syntax=made.BIG),
        "big bytes": made.of(smooth((3, 5, 7), "u1", 8), syntax=made.BIG),
        "colour": made.of(colour),
        "planar": made.of(colour, planar=1),
        "planar big": made.of(smooth((2, 5, 5, 3), "u2", 16), planar=1, syntax=made.BIG),
        "full": made.of(colour, photometric="YBR_FULL"),
        "422": made.ybr_422(pairs),
        "palette": made.palette(smooth((2, 5, 6), "u1", 8), tables),
        "palette deep": made.palette(smooth((2, 5, 6), "u2", 16), made.noise((3, 16), "u1"), first=3),
        "overlays": made.embedded_overlays(grey, {12: made.noise((3, 5, 7), "u1", 1), 15: bits}),
        "overlays big": made.embedded_overlays(grey, {13: bits}, syntax=made.BIG),
        "shifted": made.shifted(grey, 15),
        "shifted signed": made.shifted(smooth((2, 5, 6), "i2", 12), 13),
        "bits": made.segmentation(bits),
        "bits big": made.segmentation(bits, syntax=made.BIG, pixel_vr="OW"),
        "odd": made.of(grey, elements=(made.icon(), *made.odd_private(), *made.wrong_group_lengths())),
        "trailer": made.of(grey, trailer=made.PADDING),
        "implicit trailer": made.of(grey, syntax=made.IMPLICIT, trailer=made.PADDING),
        "float": made.float_pixels(),
        "outside": made.of(made.noise((1, 5, 6), "u2"), stored=12),
    }
    return {f"native {name}": image.file() for name, image in found.items()}


def _pydicoms() -> dict[str, bytes]:
    from pydicom import dcmread

    found: dict[str, bytes] = {}
    seen: set[str] = set()
    for path in files.every():
        data = path.read_bytes()
        alike = next((each for each in ALIKE if path.name.startswith(each)), "")
        if len(data) > MAX_FILE_BYTES or (alike and alike in seen) or "dicomdir" in str(path.parent).lower():
            continue
        seen.add(alike)
        try:
            ds = dcmread(path, force=True)
            pixels = ds.Rows * ds.Columns * ds.SamplesPerPixel * int(ds.get("NumberOfFrames") or 1)
        except Exception:  # noqa: BLE001 - whatever is wrong with it: a seed for changes of bytes
            pixels = 0
        if pixels <= MAX_PIXELS:
            found[f"{path.parent.name}/{path.name}"] = data
    return found


@cache
def every() -> dict[str, bytes]:
    """Return all seeds by name, in a fixed order."""
    return {**_native(), **_compressed(), **_pydicoms()}


@cache
def trees() -> dict[str, File | None]:
    """Return each seed as a tree, None where it is too odd for one."""
    found: dict[str, File | None] = {}
    for name, data in every().items():
        try:
            found[name] = parsed(data)
        except Unparsed:
            found[name] = None
    return found
