"""What is said of verification: how many outputs had every sample compared, why the others had not, and what they had.

A lossy output has other samples than its source on purpose, so nothing can be equal there. Whatever is chosen, the
markers of each codestream are checked (`gpuenc/chain.py`), and each file is read back (`dicom/readback.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuenc.archive.request import Job

# What `Record.unverified` says, for people.
_WORDS = {
    "lossy": "lossy: other samples than the source's",
    "sample": "not chosen by --verify sample",
    "none": "left out by --verify none",
}
_INSTEAD = "of these, the codestreams' markers were checked and each file was read back"


def why_unverified(job: Job, *, lossless: bool) -> str:
    """Return what a record says of an output whose samples were not all compared: see `Record.unverified`."""
    if not lossless:
        return "lossy"
    return "sample" if job.verify_share < 1 else "none"


def verification_text(verified: int, encoded: int, unverified: Mapping[str, int], sample: str = "") -> str:
    """Return in words how far the outputs of a job were verified.

    Parameters
    ----------
    verified, encoded : int
        Files of which every sample was compared; files that were encoded.
    unverified : mapping of str to int
        How many of the others there are, by `Record.unverified`; empty for records of earlier versions.
    sample : str
        What `--verify` chose, such as ``"sample=1%"``, where that is known.
    """
    if not verified and not unverified:
        return "no"
    found = f"{verified:,} of {encoded:,} {'file' if encoded == 1 else 'files'}"
    parts = [f"{found}, every sample compared" if verified else found]
    for why, number in sorted(unverified.items()):
        words = f"not chosen by --verify {sample}" if why == "sample" and sample else _WORDS.get(why, "not verified")
        parts.append(f"{number:,} {words}")
    return "; ".join([*parts, _INSTEAD] if unverified else parts)
