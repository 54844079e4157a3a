"""Each rule for JPEG and JPEG-LS with a codestream that keeps it and one that breaks it and no other."""

import dataclasses

import jpeg_ls
import numpy as np
import pytest

from gpuenc import coding, syntaxes, targets
from gpuenc.codestream import check, parse
from gpuenc.frames import FrameFormat
from tests.codestream.asked import COLUMNS, JFIF, NAMELESS, ROWS, SOF, after_soi, asked, refused, replace_once


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
