"""Whether a codestream gives its frame's samples back, and who finds out: the device that made it, or the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from gpuenc.cpu import decoders, independent, samples
from gpuenc.errors import EncodeFailed, InvalidOption
from gpuenc.frames import Coded

if TYPE_CHECKING:
    from gpuenc.coding import Coding
    from gpuenc.frames import Frame
    from gpuenc.plugins import Plugin
    from gpuenc.targets import Target

# What is asked for: nothing; every lossless frame decoded and compared; the same by a decoder that shares no code with
# the encoder.
Verify = Literal["none", "all", "independent"]
Judge = Literal["nobody", "device", "cpu", "independent"]


def verify_of(asked: bool | str) -> Verify:
    """Return what `asked` means; True and False are ``"all"`` and ``"none"``.

    Raises
    ------
    InvalidOption
        It means nothing.
    """
    if isinstance(asked, bool):
        return "all" if asked else "none"
    for known in get_args(Verify):
        if asked == known:
            found: Verify = known
            return found
    raise InvalidOption(f"verify must be True, False or one of {', '.join(get_args(Verify))}, not {asked!r}")


def judge(plugin: Plugin, wanted: Coding, verify: Verify, *, can_verify: bool) -> Judge:
    """Return who compares what `plugin` makes.

    Parameters
    ----------
    plugin : Plugin
        A GPU's is not believed before it is proven: the CPU then decodes every lossless frame, whatever is asked.
    wanted : Coding
        Lossy codestreams are compared by nobody. `Coding.must_verify` ones always are.
    verify : Verify
        What is asked for. Our CPU decoders share no code with the encoders of GPUs, so for these they are independent.
    can_verify : bool
        The plug-in can decode and compare on its device, which is for ``"all"`` alone.
    """
    on_gpu = plugin.device == "gpu"
    unproven = on_gpu and not plugin.proven
    if not wanted.lossless or not (verify != "none" or unproven or wanted.must_verify):
        return "nobody"
    if verify == "independent" and not on_gpu:
        return "independent"
    return "device" if on_gpu and plugin.proven and can_verify and verify != "independent" else "cpu"


def compare(codestream: bytes, frame: Frame, target: Target, wanted: Coding, *, independently: bool) -> int | None:
    """Decode `codestream` on the CPU and compare every sample with what the frame's own cells say.

    Returns
    -------
    int or None
        CRC-32 of the frame's samples, see `gpuenc.cpu.samples.checksum`; None for JPEG codestreams that are themselves
        re-compressed, which are compared byte by byte.

    Raises
    ------
    EncodeFailed
        With code ``verify-mismatch``, and how many samples differ.
    DecodeFailed
        The codestream cannot be decoded.
    """
    if isinstance(frame.pixels, Coded):
        packed, jpeg = frame.pixels.codestream, codestream
        if target.syntax.recompresses_jpeg:
            packed, jpeg = jpeg, packed
        if decoders.jpeg_of(packed) != jpeg:
            raise EncodeFailed("the JPEG codestream does not come back bit for bit", code="verify-mismatch")
        return None
    expected = samples.prepare(frame.host_cells(), frame.format, wanted, bit_offset=frame.bit_offset)
    decode = independent.decode_samples if independently else decoders.decode_samples
    back = decode(codestream, target.syntax, wanted)
    if back.shape != expected.shape or back.dtype != expected.dtype or not np.array_equal(back, expected):
        differ = samples.count_differing(back, expected) if back.shape == expected.shape else expected.size
        raise EncodeFailed(f"{differ} of {expected.size} samples do not come back", code="verify-mismatch")
    return samples.checksum(expected)
