"""Each rule for JPEG 2000 and HTJ2K with a codestream that keeps it and one that breaks it and no other."""

import dataclasses
import struct

import pytest

from gpuenc import syntaxes
from gpuenc.codestream import check, insert_tlm, parse
from tests.codestream.asked import asked, refused, replace_once


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
