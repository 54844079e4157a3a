"""Each rule with a codestream that keeps it and one that breaks it and no other."""

import dataclasses
import struct

import imagecodecs
import jpeg_ls
import numpy as np
import pytest

from gpuenc import coding, syntaxes, targets
from gpuenc.codestream import check, insert_tlm, parse
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


@pytest.fixture(scope="module")
def encoders(noise):
    return Encoders(noise)


# One good codestream per row of the table that matters, by the name of its syntax.
GOOD = {
    "htj2k-lossless": (lambda e: e.htj2k(bits=12), {"bits": 12}),
    "htj2k-lossless signed": (lambda e: e.htj2k(bits=13, signed=True), {"bits": 13, "signed": True}),
    "htj2k-lossless colour": (lambda e: e.htj2k(3), {"photometric": "RGB"}),
    "htj2k-lossless-rpcl": (lambda e: e.htj2k(bits=12), {"bits": 12}),
    "htj2k": (lambda e: e.htj2k(level=0.01), {"ratios": (10,)}),
    "htj2k colour": (lambda e: e.htj2k(3, level=0.01), {"ratios": (10,), "photometric": "RGB"}),
    "htj2k reversible": (lambda e: e.htj2k(3), {"lossless": True, "photometric": "RGB"}),
    "jpeg2000-lossless": (lambda e: e.jpeg2000(bits=16, signed=True), {"bits": 16, "signed": True}),
    "jpeg2000-lossless colour": (lambda e: e.jpeg2000(3), {"photometric": "RGB"}),
    "jpeg2000-lossless YBR": (lambda e: e.jpeg2000(3, mct=False), {"photometric": "YBR_FULL"}),
    "jpeg2000": (lambda e: e.jpeg2000(3, level=40), {"psnrs": (40,), "photometric": "RGB"}),
    "jpeg2000 gray": (lambda e: e.jpeg2000(level=40), {"psnrs": (40,)}),
    "jpeg-baseline": (lambda e: e.jpeg(level=90), {}),
    "jpeg-baseline colour": (lambda e: e.jpeg(3, level=90, subsampling="422"), {"photometric": "RGB"}),
    "jpeg-extended": (lambda e: e.jpeg(bits=12, level=90), {"bits": 12}),
    "jpeg-extended 8 bit": (lambda e: e.jpeg(level=90), {}),
    "jpeg-extended SOF1": (lambda e: e.jpeg(level=90).replace(SOF[0], SOF[1], 1), {}),
    "jpeg-lossless": (lambda e: e.lossless(bits=16, predictor=4), {"bits": 12}),
    "jpeg-lossless colour": (lambda e: e.lossless(3, predictor=7), {"photometric": "RGB"}),
    "jpeg-lossless-sv1": (lambda e: e.lossless(bits=16), {"bits": 16, "signed": True}),
    "jpeg-lossless-sv1 colour": (lambda e: e.lossless(3), {"photometric": "RGB"}),
    "jpeg-lossless-sv1 YBR": (lambda e: e.lossless(3, **NAMELESS), {"photometric": "YBR_FULL"}),
    "jpeg-ls-lossless": (lambda e: e.jpeg_ls(bits=12), {"bits": 12}),
    "jpeg-ls-lossless colour": (lambda e: e.jpeg_ls(3), {"photometric": "RGB"}),
    "jpeg-ls": (lambda e: e.jpeg_ls(near=3), {"near": 3}),
    "jpeg-ls lossless": (lambda e: e.jpeg_ls(), {}),
    "jpegxl-lossless": (lambda e: e.jpegxl(bits=12, lossless=True), {"bits": 12}),
    "jpegxl-lossless colour": (lambda e: e.jpegxl(3, lossless=True), {"photometric": "RGB"}),
    "jpegxl": (lambda e: e.jpegxl(3, level=90), {"quality": 90, "photometric": "RGB"}),
    "jpegxl gray": (lambda e: e.jpegxl(level=90), {"quality": 90}),
    "jpegxl lossless": (lambda e: e.jpegxl(3, lossless=True), {"lossless": True, "photometric": "RGB"}),
    "jpegxl-jpeg": (
        lambda e: imagecodecs.jpegxl_encode_jpeg(e.jpeg(3, level=90, subsampling="422")),
        {"photometric": "YBR_FULL_422"},
    ),
}


@pytest.fixture(scope="module", params=GOOD)
def case(request, encoders):
    make, options = GOOD[request.param]
    return make(encoders), asked(request.param.split()[0], **options)


class TestEveryFamily:
    def test_right(self, case):
        check(case[0], *case[1])

    @pytest.mark.parametrize("field", ["rows", "columns", "samples", "precision"])
    def test_wrong_size(self, case, field):
        encoded, (syntax, wanted) = case
        other = dataclasses.replace(wanted, **{field: getattr(wanted, field) + 1})
        what = {"samples": "components", "precision": "bits per sample"}.get(field, field)
        refused(encoded, (syntax, other), f"{what}: {getattr(wanted, field)}, not {getattr(wanted, field) + 1}")

    def test_padded(self, case):
        check(case[0] + b"\0", *case[1])

    # Nothing marks the end of a bare JPEG XL codestream.
    @pytest.mark.parametrize("case", [name for name in GOOD if not name.startswith("jpegxl")], indirect=True)
    def test_cut_off(self, case):
        encoded, wanted = case
        refused(encoded[:-2], wanted, "cut off")
        refused(encoded + b"\x01\x02", wanted, "cut off")

    def test_something_else(self, case):
        refused(b"\x01\x02" * 100, case[1], "begins with")
        refused(b"", case[1], "begins with")


class TestJpeg2000:
    @pytest.mark.parametrize("name", ["htj2k-lossless", "jpeg2000-lossless"])
    def test_sign(self, encoders, name):
        make = getattr(encoders, syntaxes.find(name).family)
        refused(make(bits=12), asked(name, bits=12, signed=True), "sign: False, not True")
        refused(make(bits=12, signed=True), asked(name, bits=12), "sign: True, not False")

    def test_component_transform(self, encoders):
        without, with_it = encoders.jpeg2000(3, mct=False), encoders.jpeg2000(3, mct=True)
        refused(without, asked("jpeg2000-lossless", "RGB"), "component transform: False, not True")
        refused(with_it, asked("jpeg2000-lossless", "YBR_FULL"), "component transform: True, not False")
        refused(with_it, asked("jpeg2000-lossless", "RGB", photometric_out="RGB"), "transform: True, not False")
        check(without, *asked("jpeg2000-lossless", "RGB", photometric_out="RGB"))

    @pytest.mark.parametrize("name", ["jpeg2000-lossless", "htj2k-lossless", "htj2k-lossless-rpcl"])
    def test_irreversible_wavelet(self, encoders, name):
        make = getattr(encoders, syntaxes.find(name).family)
        refused(make(level=40 if "jpeg" in name else 0.01), asked(name), "not reversible")

    @pytest.mark.parametrize("name", ["jpeg2000", "htj2k"])
    def test_irreversible_wavelet_where_lossless_was_asked_for(self, encoders, name):
        make = getattr(encoders, syntaxes.find(name).family)
        refused(make(level=40 if "jpeg" in name else 0.01), asked(name, lossless=True), "not reversible")

    def test_quantisation(self, encoders):
        encoded = encoders.jpeg2000()
        at = encoded.index(b"\xff\x5c") + 4
        assert encoded[at] & 31 == 0
        refused(
            encoded[:at] + bytes((encoded[at] | 1,)) + encoded[at + 1 :], asked("jpeg2000-lossless"), "not reversible"
        )

    def test_lossy_without_transform_takes_either_wavelet(self, encoders):
        check(encoders.jpeg2000(), *asked("jpeg2000", psnrs=(40,)))

    def test_transform_that_does_not_go_with_the_wavelet(self, encoders):
        syntax, ict = asked("jpeg2000", "RGB", psnrs=(40,))
        assert ict.photometric == "YBR_ICT"
        rct = dataclasses.replace(ict, photometric="YBR_RCT")
        reversible, irreversible = encoders.jpeg2000(3), encoders.jpeg2000(3, level=40)
        check(reversible, syntax, rct)
        refused(reversible, (syntax, ict), "YBR_RCT, not YBR_ICT")
        refused(irreversible, (syntax, rct), "YBR_ICT, not YBR_RCT")

    def test_subsampling(self, encoders):
        encoded = bytearray(encoders.jpeg2000(3))
        encoded[46] = 2  # XRsiz of the second component
        refused(bytes(encoded), asked("jpeg2000-lossless", "RGB"), "subsampled")

    def test_high_throughput_or_not(self, encoders):
        refused(encoders.htj2k(), asked("jpeg2000-lossless"), "HT code-blocks: True, not False")
        refused(encoders.jpeg2000(), asked("htj2k-lossless"), "HT code-blocks: False, not True")
        refused(encoders.jpeg2000(), asked("htj2k-lossless-rpcl"), "HT code-blocks: False, not True")

    def test_cap(self, encoders):
        encoded = encoders.htj2k()
        cap = encoded[encoded.index(b"\xff\x50") :][:10]
        refused(replace_once(encoded, cap, b""), asked("htj2k-lossless"), "CAP marker for Part 15: False, not True")
        other_part = cap[:4] + struct.pack(">I", 0x00010000) + cap[8:]
        refused(replace_once(encoded, cap, other_part), asked("htj2k-lossless"), "Part 15: False, not True")
        part_1 = encoders.jpeg2000()
        at = part_1.index(b"\xff\x52")
        refused(part_1[:at] + cap + part_1[at:], asked("jpeg2000-lossless"), "Part 15: True, not False")

    @pytest.mark.parametrize("name", ["htj2k-lossless", "htj2k-lossless-rpcl"])
    def test_tlm_that_lies(self, encoders, name):
        encoded = bytearray(encoders.htj2k())
        encoded[encoded.index(b"\xff\x55") + 11] ^= 1
        refused(bytes(encoded), asked(name), "TLM that does not list")


class TestRpcl:
    """PS3.5 10.18.1."""

    NAME = "htj2k-lossless-rpcl"

    @pytest.mark.parametrize("order", ["LRCP", "RLCP", "PCRL", "CPRL"])
    def test_other_progression(self, encoders, order):
        encoded = encoders.htj2k(prog_order=order)
        refused(encoded, asked(self.NAME), f"progression: {order}, not RPCL")
        check(encoded, *asked("htj2k-lossless"))

    def test_progression_that_changes(self, encoders):
        encoded = encoders.htj2k()
        at = encoded.index(b"\xff\x55")
        changed = encoded[:at] + b"\xff\x5f\0\x09\0\0\0\1\2\1\2" + encoded[at:]
        refused(changed, asked(self.NAME), "progression: , not RPCL")

    def test_without_tlm(self, encoders):
        encoded = encoders.htj2k(tlm=False)
        refused(encoded, asked(self.NAME), "TLM: False, not True")
        check(insert_tlm(encoded), *asked(self.NAME))
        check(encoded, *asked("htj2k-lossless"))

    @pytest.mark.parametrize(
        ("shape", "levels", "base"),
        [((64, 64), 1, 0), ((128, 128), 1, 0), ((129, 40), 1, 65), ((40, 129), 1, 65), ((128, 257), 2, 65),
         ((256, 256), 2, 0), ((512, 512), 2, 128), ((512, 512), 3, 0), ((513, 512), 3, 65), ((513, 513), 5, 0)],
    )  # fmt: skip
    def test_base_resolution(self, encoders, shape, levels, base):
        encoded = encoders.htj2k(shape=shape, resolutions=levels)
        assert parse(encoded, "htj2k").levels == levels
        wanted = asked(self.NAME, rows=shape[0], columns=shape[1])
        if base:
            refused(encoded, wanted, f"base resolution of {base} pixels")
            check(encoded, *asked("htj2k-lossless", rows=shape[0], columns=shape[1]))
        else:
            check(encoded, *wanted)


class TestProcess:
    """The process of T.81 that each transfer syntax names."""

    @pytest.mark.parametrize(
        ("name", "sof", "bits"),
        [("jpeg-baseline", 1, 8), ("jpeg-baseline", 2, 8), ("jpeg-baseline", 3, 8), ("jpeg-extended", 2, 8),
         ("jpeg-extended", 3, 8)],
    )  # fmt: skip
    def test_dct(self, encoders, name, sof, bits):
        encoded = encoders.jpeg(bits=bits, level=90)
        check(encoded, *asked(name, bits=bits))
        refused(encoded.replace(SOF[0], SOF[sof], 1), asked(name, bits=bits), f"has SOF{sof}, not SOF0")

    def test_12_bit_is_no_baseline(self, encoders):
        encoded = encoders.jpeg(bits=12, level=90).replace(SOF[1], SOF[0], 1)
        refused(encoded, asked("jpeg-extended", bits=12), "SOF0 with 12 bits")

    @pytest.mark.parametrize("name", ["jpeg-lossless", "jpeg-lossless-sv1"])
    def test_lossless(self, encoders, name):
        refused(encoders.jpeg(level=90), asked(name), "has SOF0, not SOF3")
        refused(encoders.jpeg_ls(), asked(name), "has SOF55, not SOF3")

    @pytest.mark.parametrize("name", ["jpeg-lossless", "jpeg-lossless-sv1", "jpeg-ls-lossless", "jpeg-ls"])
    def test_precision(self, encoders, name):
        """2 to 16 bits (T.81 table B.2, T.87 C.2.2)."""
        encoded = bytearray(encoders.lossless() if name.startswith("jpeg-lossless") else encoders.jpeg_ls())
        syntax, wanted = asked(name)
        at = max(encoded.find(SOF[3]), encoded.find(b"\xff\xf7")) + 4
        for precision in (1, 2, 16, 17):
            encoded[at] = precision
            pair = syntax, dataclasses.replace(wanted, precision=precision)
            if precision in (2, 16):
                check(bytes(encoded), *pair)
            else:
                refused(bytes(encoded), pair, f"with {precision} bits")

    @pytest.mark.parametrize("name", ["jpeg-ls-lossless", "jpeg-ls"])
    def test_jpeg_ls(self, encoders, name):
        refused(encoders.lossless(), asked(name), "has SOF3, not SOF55")

    def test_predictor(self, encoders):
        for predictor in range(2, 8):
            encoded = encoders.lossless(predictor=predictor)
            refused(encoded, asked("jpeg-lossless-sv1"), f"predictor: {predictor}, not 1")
            check(encoded, *asked("jpeg-lossless"))

    @pytest.mark.parametrize("predictor", [0, 8])
    def test_predictor_that_is_none(self, encoders, predictor):
        encoded = bytearray(encoders.lossless())
        encoded[encoded.index(b"\xff\xda") + 7] = predictor
        refused(bytes(encoded), asked("jpeg-lossless"), f"has predictor {predictor}")

    @pytest.mark.parametrize("name", ["jpeg-lossless", "jpeg-lossless-sv1", "jpeg-ls-lossless", "jpeg-ls"])
    def test_point_transform(self, encoders, name):
        encoded = bytearray(
            encoders.lossless() if "lossless-sv1" in name or name == "jpeg-lossless" else encoders.jpeg_ls()
        )
        encoded[encoded.index(b"\xff\xda") + 9] = 1
        refused(bytes(encoded), asked(name), "point transform: 1, not 0")

    @pytest.mark.parametrize("near", [1, 3])
    def test_near(self, encoders, near):
        encoded = encoders.jpeg_ls(near=near)
        refused(encoded, asked("jpeg-ls-lossless"), f"NEAR: {near}, not 0")
        refused(encoded, asked("jpeg-ls"), f"NEAR: {near}, not 0")
        check(encoded, *asked("jpeg-ls", near=near))

    @pytest.mark.parametrize("near", [0, 1, 9])
    def test_another_near_than_asked_for(self, encoders, near):
        refused(encoders.jpeg_ls(near=near), asked("jpeg-ls", near=2), f"NEAR: {near}, not 2")

    def test_near_of_the_last_scan(self, noise):
        planes = np.ascontiguousarray(noise(ROWS, COLUMNS, 3).transpose(2, 0, 1))
        encoded = bytearray(jpeg_ls.encode_array(planes, interleave_mode=0))
        check(bytes(encoded), *asked("jpeg-ls-lossless", "RGB"))
        encoded[encoded.rindex(b"\xff\xda") + 7] = 1
        refused(bytes(encoded), asked("jpeg-ls-lossless", "RGB"), "NEAR: 1, not 0")

    def test_hp_colour_transform(self, encoders):
        encoded = encoders.jpeg_ls(3, transformation=1)
        refused(encoded, asked("jpeg-ls-lossless", "RGB"), "HP colour transform: 1, not 0")


class TestSubsampling:
    @pytest.mark.parametrize("subsampling", ["444", "420", "440", "411"])
    def test_422(self, encoders, subsampling):
        refused(encoders.jpeg(3, level=90, subsampling=subsampling), asked("jpeg-baseline", "RGB"), "sampling factors")

    @pytest.mark.parametrize("subsampling", ["422", "420"])
    def test_444(self, encoders, subsampling):
        wanted = asked("jpeg-baseline", "YBR_FULL", photometric_out="YBR_FULL")
        check(encoders.jpeg(3, level=90, subsampling="444"), *wanted)
        refused(encoders.jpeg(3, level=90, subsampling=subsampling), wanted, "sampling factors")

    @pytest.mark.parametrize("name", ["jpeg-lossless", "jpeg-lossless-sv1"])
    def test_lossless(self, encoders, name):
        encoded = replace_once(encoders.lossless(3), b"R\x11\0G\x11", b"R\x21\0G\x11")
        refused(encoded, asked(name, "RGB"), "is subsampled")

    def test_jpeg_ls(self, encoders):
        encoded = replace_once(encoders.jpeg_ls(3), b"\x01\x11\0\x02\x11", b"\x01\x22\0\x02\x11")
        refused(encoded, asked("jpeg-ls-lossless", "RGB"), "is subsampled")

    def test_factors_of_one_component_mean_nothing(self, encoders):
        encoded = replace_once(encoders.jpeg(level=90), b"\x01\x01\x11\x00\xff", b"\x01\x01\x22\x00\xff")
        assert parse(encoded, "jpeg").subsampling == ((2, 2),)
        check(encoded, *asked("jpeg-baseline"))


WANTS_RGB = {"photometric": "RGB", "photometric_out": "RGB"}
WANTS_YBR = {"photometric": "YBR_FULL", "photometric_out": "YBR_FULL"}


class TestKeptJpeg:
    """A JPEG that comes out of JPEG XL again is what it was, not what an encoder here would have made."""

    def kept(self, name, photometric):
        fmt = FrameFormat(ROWS, COLUMNS, 1 if photometric.startswith("MONO") else 3, 8, 8, False, photometric)
        chosen = targets.target(syntaxes.find(name), quality=90)
        return chosen.syntax, coding.coding(chosen, fmt, keeps_jpeg=True)

    @pytest.mark.parametrize("subsampling", ["444", "422", "420", "440"])
    @pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL"])
    def test_any_subsampling(self, encoders, subsampling, photometric):
        jpeg = encoders.jpeg(3, level=90, subsampling=subsampling)
        check(jpeg, *self.kept("jpeg-baseline", photometric))

    def test_rgb(self, encoders):
        check(encoders.jpeg(3, level=90, colorspace="RGB", outcolorspace="RGB"), *self.kept("jpeg-baseline", "RGB"))

    def test_gray(self, encoders):
        check(encoders.jpeg(level=90), *self.kept("jpeg-baseline", "MONOCHROME1"))

    def test_sequential_dct_of_8_bits_it_still_must_be(self, encoders):
        jpeg = encoders.jpeg(3, level=90)
        extended = jpeg.replace(SOF[0], SOF[1], 1)
        check(extended, *self.kept("jpeg-extended", "YBR_FULL_422"))
        refused(extended, self.kept("jpeg-baseline", "YBR_FULL_422"), "SOF1, not SOF0")
        for name in ("jpeg-baseline", "jpeg-extended"):
            wanted = self.kept(name, "YBR_FULL_422")
            refused(jpeg.replace(SOF[0], SOF[2], 1), wanted, "SOF2")
            refused(encoders.lossless(3), wanted, "SOF3")
        refused(encoders.jpeg(bits=12, level=90), self.kept("jpeg-extended", "MONOCHROME2"), "bits per sample: 12")

    def test_size_and_components(self, encoders):
        gray = encoders.jpeg(level=90)
        refused(gray, self.kept("jpeg-baseline", "RGB"), "components: 1, not 3")
        syntax, wanted = self.kept("jpeg-baseline", "MONOCHROME2")
        refused(gray, (syntax, dataclasses.replace(wanted, rows=ROWS + 1)), "rows")


class TestColourOfJpeg:
    """Decoders, pydicom's too, take the markers' word for what the components are."""

    @pytest.fixture
    def rgb(self, encoders):
        """RGB as the DCT codes it: Adobe APP14 with transform 0, identifiers R, G, B."""
        return encoders.jpeg(3, level=90, colorspace="RGB", outcolorspace="RGB")

    @pytest.fixture
    def nameless(self, encoders):
        return encoders.jpeg(3, level=90, **NAMELESS)

    def test_right(self, encoders, rgb, nameless):
        check(rgb, *asked("jpeg-baseline", **WANTS_RGB))
        check(nameless, *asked("jpeg-baseline", **WANTS_RGB))
        check(nameless, *asked("jpeg-baseline", **WANTS_YBR))
        check(encoders.jpeg(3, level=90, subsampling="444"), *asked("jpeg-baseline", **WANTS_YBR))

    def test_rgb_called_ycbcr_by_jfif(self, rgb):
        wrong = after_soi(rgb, JFIF)
        refused(wrong, asked("jpeg-baseline", **WANTS_RGB), "JFIF")

    @pytest.mark.parametrize("transform", [1, 2])
    def test_rgb_called_ycbcr_by_adobe(self, rgb, transform):
        adobe = b"Adobe\0\x64\0\0\0\0"
        wrong = replace_once(rgb, adobe + b"\0", adobe + bytes((transform,)))
        refused(wrong, asked("jpeg-baseline", **WANTS_RGB), "Adobe APP14 that says YCbCr")

    @pytest.mark.parametrize("transform", [0, 2])
    def test_ybr_called_something_else_by_adobe(self, nameless, transform):
        adobe = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0"
        refused(
            after_soi(nameless, adobe + bytes((transform,))),
            asked("jpeg-baseline", **WANTS_YBR),
            "Adobe APP14 that does not say YBR_FULL",
        )
        check(after_soi(nameless, adobe + b"\1"), *asked("jpeg-baseline", **WANTS_YBR))

    def test_ybr_called_rgb_by_identifiers(self, rgb):
        at = rgb.index(b"\xff\xee")
        wrong = rgb[:at] + rgb[at + 16 :]
        refused(wrong, asked("jpeg-baseline", **WANTS_YBR), "identifiers RGB")
        check(wrong, *asked("jpeg-baseline", **WANTS_RGB))

    @pytest.mark.parametrize("name", ["jpeg-lossless", "jpeg-lossless-sv1"])
    def test_lossless(self, encoders, name):
        encoded = encoders.lossless(3)
        refused(encoded, asked(name, "YBR_FULL"), "does not say YBR_FULL")
        refused(after_soi(encoded, JFIF), asked(name, "RGB"), "JFIF")
        check(encoders.lossless(3, **NAMELESS), *asked(name, "RGB"))

    def test_gray_may_have_jfif(self, encoders):
        encoded = encoders.lossless()
        assert parse(encoded, "jpeg-lossless").jfif
        check(encoded, *asked("jpeg-lossless-sv1"))


class TestJpegXl:
    def test_lossy_where_lossless_was_asked_for(self, encoders):
        for samples, photometric in ((1, "MONOCHROME2"), (3, "RGB")):
            encoded = encoders.jpegxl(samples, level=90)
            refused(encoded, asked("jpegxl-lossless", photometric), "XYB: True, not False")
            refused(encoded, asked("jpegxl", photometric, lossless=True), "XYB: True, not False")

    def test_colour_that_is_not_xyb(self, encoders):
        syntax, wanted = asked("jpegxl", "RGB", quality=90)
        assert wanted.photometric == "XYB"
        refused(encoders.jpegxl(3, lossless=True), (syntax, wanted), "XYB: False, not True")
        kept = dataclasses.replace(wanted, photometric="RGB")
        refused(encoders.jpegxl(3, level=90), (syntax, kept), "XYB: True, not False")

    def test_container(self, encoders):
        for name, options in (("jpegxl-lossless", {}), ("jpegxl", {"lossless": True})):
            refused(encoders.jpegxl(lossless=True, usecontainer=True), asked(name, **options), "a container")

    def test_recompression_needs_its_data(self, encoders):
        jpeg = encoders.jpeg(level=90)
        wanted = asked("jpegxl-jpeg")
        recompressed = imagecodecs.jpegxl_encode_jpeg(jpeg)
        check(recompressed, *wanted)
        refused(recompressed.replace(b"jbrd", b"free"), wanted, "reconstruction data: False, not True")
        refused(encoders.jpegxl(lossless=True), wanted, "a container: False, not True")
        refused(recompressed, asked("jpegxl-lossless"), "a container: True, not False")

    def test_orientation(self):
        # small, 8 x 8; extra fields: orientation 6, no size, preview or animation; 8 bits; gray; not XYB
        fields = [
            (1, 1), (0, 5), (1, 3), (0, 1), (1, 1), (5, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (0, 2),
            (0, 1), (0, 1), (0, 1), (1, 2),
        ]  # fmt: skip
        refused(_bits(fields), asked("jpegxl-lossless", rows=8, columns=8), "orientation: 6, not 1")
        fields[5] = (0, 3)
        check(_bits(fields), *asked("jpegxl-lossless", rows=8, columns=8))

    def test_float_samples(self):
        image = np.zeros((ROWS, COLUMNS), "f2")
        encoded = imagecodecs.jpegxl_encode(image, lossless=True, usecontainer=False)
        refused(encoded, asked("jpegxl-lossless", bits=16), "floating point samples: True")


def _bits(fields):
    number = position = 0
    for value, bits in fields:
        number |= value << position
        position += bits
    return b"\xff\x0a" + number.to_bytes(position // 8 + 8, "little")


class TestRle:
    def rle(self, *offsets):
        return struct.pack("<16I", len(offsets), *offsets, *[0] * (15 - len(offsets))) + bytes(40)

    @pytest.mark.parametrize(
        ("options", "segments"),
        [({"bits": 8}, 1), ({"bits": 12}, 2), ({"photometric": "RGB"}, 3), ({"photometric": "RGB", "bits": 16}, 6)],
    )
    def test_segments(self, options, segments):
        offsets = range(64, 64 + 2 * segments, 2)
        check(self.rle(*offsets), *asked("rle", **options))
        refused(
            self.rle(*offsets, offsets[-1] + 2), asked("rle", **options), f"segments: {segments + 1}, not {segments}"
        )

    def test_odd_length(self):
        refused(self.rle(64) + b"\0", asked("rle"), "cut off")

    def test_header(self):
        refused(self.rle(66), asked("rle"), "begins at byte 66")


def test_native_and_deflated_frames_have_nothing_to_check():
    refused(b"", asked("explicit-vr-little-endian"), "empty")
    check(b"\0", *asked("explicit-vr-little-endian"))
    check(b"", *asked("deflated-image-frame"))
