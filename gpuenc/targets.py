"""A transfer syntax with the options of its codec, validated once, at the door."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuenc.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuenc.syntaxes import Syntax


@dataclass(frozen=True, slots=True)
class Target:
    """A transfer syntax with the options of its codec, validated once by `target`.

    Parameters
    ----------
    syntax : Syntax
        What is written.
    quality : float or None
        JPEG quality 1 to 100 (.50, .51); JPEG XL quality (.112).
    psnrs, ratios : tuple of float
        Peak signal-to-noise ratio in dB, or compression ratio relative to Bits Stored, of each quality layer
        (.91, .203).
    near : int
        JPEG-LS NEAR, the largest error of a sample (.81).
    lossless : bool
        No sample may change.
    photometric : str
        Photometric Interpretation to write instead of the row's own choice: ``"RGB"`` leaves out the component
        transform of JPEG 2000. Empty for the default.
    whole_cells : bool
        Encode all bits of each cell, not only Bits Stored: for samples that do not fit Bits Stored.
    strict : bool
        Refuse what the syntax's table does not allow, although the codec could do it.
    """

    syntax: Syntax
    quality: float | None = None
    psnrs: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    near: int = 0
    lossless: bool = True
    photometric: str = ""
    whole_cells: bool = False
    strict: bool = True


def target(
    syntax: Syntax,
    *,
    quality: float | None = None,
    psnrs: tuple[float, ...] = (),
    ratios: tuple[float, ...] = (),
    near: int = 0,
    lossless: bool | None = None,
    photometric: str = "",
    whole_cells: bool = False,
    strict: bool = True,
) -> Target:
    """Return a validated `Target`.

    `lossless=None` decides by the options given: a syntax that can be both needs either a lossy option or
    ``lossless=True`` for JPEG 2000, HTJ2K and JPEG XL; JPEG-LS near-lossless with ``near=0`` is lossless.

    Raises
    ------
    InvalidOption
        An option does not belong to this syntax, is out of range, or contradicts another.
    """
    asked = [
        name
        for name, given in (
            ("quality", quality is not None),
            ("psnr", bool(psnrs)),
            ("ratio", bool(ratios)),
            ("near", near != 0),
        )
        if given
    ]
    allowed = {
        "jpeg": ("quality",),
        "jpegxl": ("quality",),
        "jpeg-ls": ("near",),
        "jpeg2000": ("psnr", "ratio"),
        "htj2k": ("psnr", "ratio"),
    }.get(syntax.family, ())
    if syntax.loss == "never":
        allowed = ()
    for name in asked:
        if name not in allowed:
            can = f"takes only: {', '.join(allowed)}" if allowed else "is lossless and takes no lossy option"
            raise InvalidOption(f"'{name}' does not belong to {syntax.name}, which {can}")
    if len(asked) > 1:
        raise InvalidOption(f"Multiple lossy options for {syntax.name}: choose one of {', '.join(asked)}")
    if lossless and (asked or syntax.loss == "always"):
        why = f"{syntax.name} is always lossy" if syntax.loss == "always" else f"'{asked[0]}' is lossy"
        raise InvalidOption(f"lossless was asked for, but {why}")
    if quality is not None and not 1 <= quality <= 100:
        raise InvalidOption(f"quality must be from 1 to 100, not {quality}")
    if not 0 <= near <= 255:
        raise InvalidOption(f"near must be from 0 to 255, not {near}")
    if any(not ratio >= 1 for ratio in ratios):
        raise InvalidOption("ratio must be at least 1")
    if any(not 0 < psnr <= 200 for psnr in psnrs):
        raise InvalidOption("psnr must be above 0 and at most 200 dB")
    if syntax.loss == "option" and lossless is None and not asked and syntax.family != "jpeg-ls":
        raise InvalidOption(f"{syntax.name} can be lossless or lossy: give {' or '.join(allowed)}, or ask for lossless")
    if lossless is None:
        lossless = syntax.loss == "never" or (syntax.loss == "option" and not asked)
    return Target(syntax, quality, tuple(psnrs), tuple(ratios), near, lossless, photometric, whole_cells, strict)


def from_options(syntax: Syntax, options: Mapping[str, Any], *, strict: bool = True) -> Target:
    """Return the `Target` that pydicom-style encoding options ask for.

    Parameters
    ----------
    syntax : Syntax
        The encoder's transfer syntax.
    options : mapping
        pydicom's ``j2k_cr``, ``j2k_psnr`` (numbers or lists), ``jls_error`` and ``photometric_interpretation``;
        gpuenc's ``ratio``, ``psnr``, ``near``, ``quality``, ``lossless`` and ``whole_cells``. Others belong to other
        plug-ins and are not looked at.
    strict : bool
        See `Target`.

    Raises
    ------
    InvalidOption
        As `target` does, in the words of pydicom's plug-ins where they have some.
    """
    ratios = _layers(options, "j2k_cr", "compression_ratios", "ratio")
    psnrs = _layers(options, "j2k_psnr", "signal_noise_ratios", "psnr")
    near = options.get("jls_error") or options.get("lossy_error") or options.get("near") or 0
    lossless = options.get("lossless")
    if syntax.uid.endswith(".4.90") and (ratios or psnrs):
        raise InvalidOption(
            "A lossy configuration option is being used with a transfer syntax of 'JPEG 2000 Lossless' - did you "
            "mean to use 'JPEG 2000' instead?"
        )
    if syntax.uid.endswith(".4.80") and near:
        raise InvalidOption(
            f"A 'jls_error' value of '{near}' is being used with a transfer syntax of 'JPEG-LS Lossless' - did you "
            "mean to use 'JPEG-LS Near Lossless' instead?"
        )
    if syntax.uid.endswith(".4.91") and not (ratios or psnrs or lossless):
        raise InvalidOption(
            "The 'JPEG 2000' transfer syntax requires a lossy configuration option such as 'j2k_cr' or 'j2k_psnr', "
            "or 'lossless=True'"
        )
    if syntax.uid.endswith(".4.91") and ratios and psnrs:
        raise InvalidOption(
            "Multiple lossy configuration options are being used with the 'JPEG 2000' transfer syntax, please "
            "specify only one"
        )
    return target(
        syntax,
        quality=options.get("quality"),
        psnrs=psnrs if syntax.jpeg2000 else (),
        ratios=ratios if syntax.jpeg2000 else (),
        near=near if syntax.family == "jpeg-ls" else 0,
        lossless=lossless,
        photometric=str(options.get("photometric_interpretation") or ""),
        whole_cells=bool(options.get("whole_cells", False)),
        strict=strict,
    )


def _layers(options: Mapping[str, Any], *names: str) -> tuple[float, ...]:
    value = next((options[name] for name in names if options.get(name)), ())
    return tuple(float(item) for item in value) if isinstance(value, Iterable) else (float(value),)
