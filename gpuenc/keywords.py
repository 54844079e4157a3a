"""Names of options that somebody knows, so that a misspelt one is refused and not ignored."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from gpuenc.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# What `targets.from_options` reads, and what pydicom's plug-ins hand on to pylibjpeg-openjpeg.
CODEC = frozenset(
    {"quality", "lossless", "whole_cells", "near", "jls_error", "lossy_error", "ratio", "j2k_cr", "compression_ratios"}
    | {"psnr", "j2k_psnr", "signal_noise_ratios", "use_mct", "codec_format"}
)
# pydicom 3's `EncodeOptions`, without those of codecs; what `as_pixel_options` returns is among them.
PIXELS = frozenset(
    {"bits_allocated", "bits_stored", "columns", "number_of_frames", "photometric_interpretation", "pixel_keyword"}
    | {"pixel_representation", "rows", "samples_per_pixel", "transfer_syntax_uid", "planar_configuration"}
    | {"extended_offsets", "byteorder", "pixel_vr"}
)
# How unlike a name may be to one that was meant.
_ALIKE = 0.5


def refuse_unknown(asked: str, given: Iterable[str], known: Collection[str], own: Collection[str] = ()) -> None:
    """Refuse options that nobody knows.

    Parameters
    ----------
    asked : str
        The function, for the message.
    given : iterable of str
        Names of options that it did not name itself.
    known : collection of str
        Those among them that it takes.
    own : collection of str
        Those that it names itself, which may have been meant.

    Raises
    ------
    InvalidOption
        The message names the nearest that there is, or all.
    """
    for name in given:
        if name in known:
            continue
        can = sorted({*known, *own})
        near = get_close_matches(name, can, 1, _ALIKE)
        said = f"did you mean '{near[0]}'?" if near else f"its options are {', '.join(can)}"
        raise InvalidOption(f"{asked} has no option '{name}': {said}")
