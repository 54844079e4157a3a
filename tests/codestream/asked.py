"""What is asked for, as gpuenc's encoders would be, and what other encoders make: what the tests of the rules share."""

import imagecodecs
import pytest

from gpuenc import coding, syntaxes, targets
from gpuenc.codestream import check
from gpuenc.errors import WrongCodestream
from gpuenc.frames import FrameFormat

ROWS, COLUMNS = 70, 90
SOF = {n: bytes((0xFF, 0xC0 + n)) for n in (0, 1, 2, 3)}
NAMELESS = {"colorspace": "UNKNOWN", "outcolorspace": "UNKNOWN"}  # no JFIF or Adobe, identifiers 0, 1, 2
JFIF = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def asked(
    name, photometric="MONOCHROME2", bits=8, signed=False, rows=ROWS, columns=COLUMNS, photometric_out="", **options
):
    """Return the syntax and the coding that the encoders of gpuenc would be given."""
    samples = 1 if photometric.startswith(("MONO", "PALETTE")) else 3
    syntax = syntaxes.find(name)
    fmt = FrameFormat(rows, columns, samples, 8 if bits <= 8 else 16, bits, signed, photometric)
    if syntax.family == "jpeg":
        options.setdefault("quality", 90)
    target = targets.target(syntax, photometric=photometric_out, **options)
    return syntax, coding.coding(target, fmt)


def refused(codestream, wanted, match):
    with pytest.raises(WrongCodestream, match=match):
        check(codestream, *wanted)


def replace_once(codestream, old, new):
    assert codestream.count(old) == 1
    return codestream.replace(old, new)


def after_soi(codestream, segment):
    return codestream[:2] + segment + codestream[2:]


class Encoders:
    """What other encoders make of random samples, as `asked` means them."""

    def __init__(self, noise):
        self.noise = noise

    def htj2k(self, samples=1, bits=8, signed=False, shape=(ROWS, COLUMNS), level=None, **options):
        image = self.noise(*shape, samples, bits=bits, signed=signed)
        options = {"reversible": level is None, "tlm": True, "bitspersample": bits, "resolutions": 1} | options
        return imagecodecs.htj2k_encode(image, level, **options)

    def jpeg2000(self, samples=1, bits=8, signed=False, level=None, **options):
        image = self.noise(ROWS, COLUMNS, samples, bits=bits, signed=signed)
        options = {"reversible": level is None, "bitspersample": bits} | options
        return imagecodecs.jpeg2k_encode(image, level, codecformat="J2K", **options)

    def jpeg(self, samples=1, bits=8, **options):
        return imagecodecs.jpeg8_encode(self.noise(ROWS, COLUMNS, samples, bits=bits), bitspersample=bits, **options)

    def lossless(self, samples=1, bits=8, predictor=1, **options):
        return self.jpeg(samples, bits, lossless=True, predictor=predictor, **options)

    def jpeg_ls(self, samples=1, bits=8, near=0, **options):
        image = self.noise(ROWS, COLUMNS, samples, bits=bits)
        return imagecodecs.jpegls_encode(image, near, bitspersample=bits, **({"spiff": False} | options))

    def jpegxl(self, samples=1, bits=8, **options):
        image = self.noise(ROWS, COLUMNS, samples, bits=bits)
        return imagecodecs.jpegxl_encode(image, bitspersample=bits, **({"usecontainer": False} | options))
