"""From a target and a frame's format to the one `Coding` that encoders follow and codestreams are checked against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from gpuenc.errors import FormatNotAllowed, InvalidPixels
from gpuenc.syntaxes import TABLE

if TYPE_CHECKING:
    from gpuenc.frames import FrameFormat
    from gpuenc.syntaxes import Row, Syntax
    from gpuenc.targets import Target

# Of syntaxes whose cells go out as they are.
RAW_FAMILIES = ("native", "deflate")


@dataclass(frozen=True, slots=True)
class Coding:
    """What samples an encoder must be given and what its codestream must then say.

    Parameters
    ----------
    rows, columns, samples : int
        Size of the image in the codestream.
    precision : int
        Bits per sample in the codestream.
    signed : bool
        Sign of the samples in the codestream (SIZ Ssiz bit 7, T.800 A.5.1). For codecs without signs, whether the
        samples are two's complement.
    cell_bits : int
        8, 16 or 32: container of the prepared samples.
    photometric : str
        Photometric Interpretation of the output.
    mct : bool
        Multiple component transform on (COD SGcod, T.800 A.6.1).
    levels : int
        Decomposition levels, for JPEG 2000 and HTJ2K.
    lossless : bool
        Every sample must come back.
    upsample, expand, to_rgb : bool
        Steps before encoding: YBR_FULL_422 → YBR_FULL; palette → RGB; YBR_FULL → RGB.
    raw : bool
        The cells themselves are encoded, bit for bit; only byte order and the alignment of 1-bit frames change.
    whole_cells : bool
        A sample is all bits of its cell, whatever Bits Stored and High Bit say (`Target.whole_cells`).
    must_verify : bool
        An encoder is known to be wrong for some such images, so each one has to be decoded and compared.
    near : int
        NEAR of the JPEG-LS codestream (T.87 4.2.1), which must be what was asked for.
    keeps_jpeg : bool
        The frame is a JPEG codestream that goes on as it is, into JPEG XL or out of it again (PS3.5 A.4.12).
    """

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool
    cell_bits: int
    photometric: str
    mct: bool = False
    levels: int = 0
    lossless: bool = True
    upsample: bool = False
    expand: bool = False
    to_rgb: bool = False
    raw: bool = False
    whole_cells: bool = False
    must_verify: bool = False
    near: int = 0
    keeps_jpeg: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the prepared samples: (rows, columns) or (rows, columns, samples). Not for `raw`."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)


def check_format(fmt: FrameFormat) -> None:
    """Refuse a description of samples that contradicts itself (PS3.3 C.7.6.3.1).

    Raises
    ------
    InvalidPixels
        The message names the attribute, its value and the values allowed.
    """
    for name, tag, value in (("Rows", "0028,0010", fmt.rows), ("Columns", "0028,0011", fmt.columns)):
        if not 0 < value <= 65535:
            raise InvalidPixels(f"A ({tag}) '{name}' value of '{value}' is invalid, it must be in the range (1, 65535)")
    if fmt.bits_allocated not in (1, 8, 16, 32):
        raise InvalidPixels(
            f"A (0028,0100) 'Bits Allocated' value of '{fmt.bits_allocated}' cannot be encoded, "
            "it must be 1, 8, 16 or 32"
        )
    if not 1 <= fmt.bits_stored <= fmt.bits_allocated:
        raise InvalidPixels(
            f"A (0028,0101) 'Bits Stored' value of '{fmt.bits_stored}' is invalid, it must be from 1 to the "
            f"(0028,0100) 'Bits Allocated' value of '{fmt.bits_allocated}'"
        )
    if not fmt.bits_stored - 1 <= fmt.high_bit < fmt.bits_allocated:
        raise InvalidPixels(
            f"A (0028,0102) 'High Bit' value of '{fmt.high_bit}' is invalid, it must be from "
            f"{fmt.bits_stored - 1} to {fmt.bits_allocated - 1}"
        )
    if fmt.samples not in (1, 3):
        raise InvalidPixels(f"A (0028,0002) 'Samples per Pixel' value of '{fmt.samples}' is invalid, it must be 1 or 3")
    if fmt.samples == 3 and fmt.planar not in (0, 1):
        raise InvalidPixels(
            f"A (0028,0006) 'Planar Configuration' value of '{fmt.planar}' is invalid, it must be 0 or 1"
        )
    if fmt.subsampled and fmt.samples != 3:
        raise InvalidPixels("YBR_FULL_422 needs 3 samples per pixel")


def rpcl_levels(rows: int, columns: int) -> int:
    """Return the fewest decomposition levels whose base resolution is at most 64 in both dimensions.

    PS3.5 10.18.1 says "width or height"; the strict reading satisfies both.
    """
    levels, side = 0, max(rows, columns)
    while side > 64:
        side, levels = (side + 1) // 2, levels + 1
    return levels


def _levels(syntax: Syntax, rows: int, columns: int, precision: int) -> int:
    if syntax.uid.endswith(".202"):
        return rpcl_levels(rows, columns)
    # OpenJPH's own streams of 1 to 3 bits can decode wrongly from four levels on (facts measured on 1-bit noise).
    most = 3 if syntax.family == "htj2k" and precision <= 3 else 5
    return min(most, max(0, min(rows, columns).bit_length() - 1))


def _without_transform(chosen: Target, fmt: FrameFormat, photometric: str, mct: bool) -> str:
    """Return the source's own Photometric Interpretation, where the codec can leave colours as they are."""
    wanted = chosen.photometric
    transforms = mct or chosen.syntax.family == "jpeg"
    if transforms and wanted == fmt.photometric and wanted in ("RGB", "YBR_FULL"):
        return wanted
    raise FormatNotAllowed(
        f"'{chosen.syntax.keyword}' cannot be written with a Photometric Interpretation of '{wanted}' from "
        f"{fmt.photometric} samples: it would be {photometric}"
    )


def _whole_precision(syntax: Syntax, fmt: FrameFormat) -> bool:
    """Whether the codestream's precision is Bits Allocated: what every decoder tried reads right.

    The evidence is in tests/conformance/README.md. JPEG-LS and JPEG XL know no sign, so signed samples go as whole
    cells; and gdcm and dcmdjpls misread JPEG-LS of up to 8 bits that does not fill its cells.
    """
    if syntax.precision == "allocated":
        return True
    if syntax.family == "jpeg-ls":
        return fmt.signed or fmt.bits_stored <= 8
    return syntax.family == "jpegxl" and fmt.signed


def _row(chosen: Target, fmt: FrameFormat) -> Row:
    same_colour = _rows_of_colour(chosen.syntax, fmt, lossless=chosen.lossless)
    for row in same_colour:
        if _fits(row, fmt) or not chosen.strict:
            return row
    raise FormatNotAllowed(_why_refused(chosen, fmt, same_colour))


def _rows_of_colour(syntax: Syntax, fmt: FrameFormat, *, lossless: bool) -> list[Row]:
    """Return the rows of a syntax's table that are for the colours of `fmt`, whatever its bits."""
    return [
        row
        for row in syntax.rows
        if fmt.photometric in row.photometric
        and fmt.samples == row.samples
        and not (row.lossless_only and not lossless)
        and not (row.lossy_only and lossless)
    ]


def _fits(row: Row, fmt: FrameFormat) -> bool:
    return fmt.bits_allocated in row.allocated and fmt.bits_stored in row.stored and fmt.signed in row.signed


def _why_refused(chosen: Target, fmt: FrameFormat, same_colour: list[Row]) -> str:
    """Return what was asked for, what is possible, and which other transfer syntaxes take it."""
    syntax = chosen.syntax
    have = (
        f"{fmt.photometric} of {fmt.samples} {'sample' if fmt.samples == 1 else 'samples'} per pixel, Bits Allocated "
        f"{fmt.bits_allocated}, Bits Stored {fmt.bits_stored}, Pixel Representation {int(fmt.signed)}"
    )
    if not same_colour:
        names = sorted({name for row in syntax.rows for name in row.photometric})
        can = f"it takes Photometric Interpretation {', '.join(names)}"
    else:
        can = "; or ".join(
            f"with {fmt.photometric} it takes Bits Allocated {', '.join(map(str, row.allocated))}, Bits Stored "
            f"{row.stored[0]} to {row.stored[-1]}, Pixel Representation "
            f"{' or '.join(str(int(sign)) for sign in row.signed)}"
            for row in same_colour
        )
    never = "always" if chosen.lossless else "never"
    others = [
        other.name
        for other in TABLE
        if other.loss != never
        and not other.recompresses_jpeg
        and any(_fits(row, fmt) for row in _rows_of_colour(other, fmt, lossless=chosen.lossless))
    ]
    advice = f"these take such frames: {', '.join(others)}" if others else "no transfer syntax here takes such frames"
    kind = "lossless" if chosen.lossless else "lossy"
    return f"{kind} {syntax.name} ({syntax.clause}) cannot hold {have}: {can}; {advice}"


def _kept_jpeg(chosen: Target, fmt: FrameFormat) -> Coding:
    """Return the `Coding` of a JPEG codestream that stays what it is: its label, and every bit of it."""
    if fmt.bits_allocated != 8 or fmt.bits_stored != 8:
        raise FormatNotAllowed(
            f"'{chosen.syntax.keyword}' ({chosen.syntax.clause}) keeps JPEG codestreams of 8 bits per sample; Bits "
            f"Allocated is {fmt.bits_allocated} and Bits Stored {fmt.bits_stored}"
        )
    return Coding(
        rows=fmt.rows,
        columns=fmt.columns,
        samples=fmt.samples,
        precision=8,
        signed=fmt.signed,
        cell_bits=8,
        photometric=fmt.photometric,
        keeps_jpeg=True,
    )


@lru_cache(maxsize=4096)
def coding(chosen: Target, fmt: FrameFormat, *, keeps_jpeg: bool = False) -> Coding:
    """Return what frames of `fmt` become under `chosen`.

    Parameters
    ----------
    chosen : Target
        Transfer syntax and options.
    fmt : FrameFormat
        Format of the native cells; for JPEG codestreams that stay what they are, of what they decode to.
    keeps_jpeg : bool
        The frames are JPEG codestreams that stay what they are (`gpuenc.syntaxes.keeps_jpeg`). Always so where the
        target is JPEG XL JPEG Recompression.

    Raises
    ------
    InvalidPixels
        `fmt` contradicts itself.
    FormatNotAllowed
        No row of the syntax's table allows it; the message names what the row would allow.
    """
    check_format(fmt)
    if keeps_jpeg or chosen.syntax.recompresses_jpeg:
        return _kept_jpeg(chosen, fmt)
    if fmt.subsampled and fmt.columns % 2:  # here they are cells of Y0 Y1 Cb Cr, and compressed chroma is upsampled
        raise InvalidPixels("Native YBR_FULL_422 needs an even number of columns (PS3.3 C.7.6.3.1.2)")
    whole_cells = chosen.whole_cells and fmt.bits_allocated > 1
    if whole_cells:
        fmt = replace(fmt, bits_stored=fmt.bits_allocated, high_bit=fmt.bits_allocated - 1)
    row = _row(chosen, fmt)
    syntax = chosen.syntax
    expand = fmt.photometric == "PALETTE COLOR" and not chosen.lossless
    photometric, mct = row.encoded or fmt.photometric, row.mct
    if chosen.photometric and chosen.photometric != photometric:
        photometric, mct = _without_transform(chosen, fmt, photometric, mct), False
    raw = syntax.family in RAW_FAMILIES
    if expand:
        precision, cell_bits, signed, samples = 8, 8, False, 3
    else:
        samples, signed = fmt.samples, fmt.signed
        precision = fmt.bits_allocated if _whole_precision(syntax, fmt) else fmt.bits_stored
        cell_bits = next(bits for bits in (8, 16, 32) if precision <= bits)
    levels = _levels(syntax, fmt.rows, fmt.columns, precision) if syntax.jpeg2000 else 0
    return Coding(
        rows=fmt.rows,
        columns=fmt.columns,
        samples=samples,
        precision=precision,
        signed=signed,
        cell_bits=cell_bits,
        photometric=photometric,
        mct=mct,
        levels=levels,
        lossless=chosen.lossless,
        upsample=fmt.subsampled and not raw,
        expand=expand,
        to_rgb=photometric == "XYB" and fmt.photometric.startswith("YBR"),
        raw=raw,
        whole_cells=whole_cells,
        must_verify=syntax.family == "htj2k" and precision <= 3,
        near=chosen.near,
    )
