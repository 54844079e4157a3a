"""What may be asked for as a device, and lanes on several of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import gpuenc
from gpuenc import devices, registry
from gpuenc.errors import InvalidOption
from gpuenc.plugins import Limits
from gpuenc.syntaxes import find


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("auto", "auto"), ("fastest", "fastest"), ("cpu", "cpu"), ("gpu", "gpu"), (0, 0), (3, 3), ("0", 0), ("12", 12)],
)
def test_what_is_meant(asked, meant):
    assert devices.choice(asked) == meant


@pytest.mark.parametrize("asked", ["tpu", "", "-1", -1, "1.0", 1.0, True, None, "cuda:0", "²", "GPU"])
def test_what_is_no_device(asked):
    with pytest.raises(InvalidOption, match="device must be"):
        devices.choice(asked)
    with pytest.raises(ValueError, match="device must be"):
        gpuenc.get_encoder("rle").encode(np.zeros((8, 8), np.uint8), device=asked)


class Module:
    """A plug-in's module on a machine with GPUs, some of which cannot be used."""

    def __init__(self, count, broken=()):
        self.count, self.broken, self.asked = count, set(broken), []

    def device_count(self):
        return self.count

    def why_unavailable(self, uid, device=0):
        return "it is broken" if device in self.broken else ""

    def BatchEncoder(self, target, *, device, memory_bytes):
        self.asked.append((device, memory_bytes))
        return SimpleNamespace(limits=Limits(8, 100, 4, 2.0))


@pytest.fixture
def first(monkeypatch):
    """The next turn is that of the first GPU."""
    monkeypatch.setattr(devices, "_TURNS", iter(range(1000)))


def test_lanes_go_round_and_their_number_is_that_of_all(first):
    module = Module(3)
    spread = devices.Spread(module, "1.2", memory_bytes=77)
    limits = [spread(None).limits for _ in range(4)]
    assert module.asked == [(0, 77), (1, 77), (2, 77), (0, 77)]
    assert {one.lanes for one in limits} == {12}


def test_the_turns_are_those_of_the_process(first):
    module = Module(2)
    for _ in range(4):
        devices.Spread(module, "1.2")(None)
    assert [device for device, _ in module.asked] == [0, 1, 0, 1]


def test_a_device_that_cannot_be_used_is_passed_over(first):
    module = Module(3, broken=[1])
    spread = devices.Spread(module, "1.2")
    for _ in range(4):
        spread(None)
    assert [device for device, _ in module.asked] == [0, 2, 2, 0]
    assert spread.alive()
    module.broken = {0, 1, 2}
    assert not spread.alive()
    spread(None)  # says why with every frame
    assert module.asked[-1] == (1, None)


def test_one_device_alone(first):
    module = Module(4, broken=[2])
    assert devices.Spread(module, "1.2", 1)(None).limits.lanes == 4
    assert module.asked == [(1, None)]
    assert not devices.Spread(module, "1.2", 2).alive()


def test_a_module_that_does_not_count_has_one_device(first):
    made = []
    module = SimpleNamespace(
        BatchEncoder=lambda target, device, memory_bytes: (
            made.append(device) or SimpleNamespace(limits=Limits(1, 1, 2, 1.0))
        )
    )
    spread = devices.Spread(module, "1.2")
    assert spread(None).limits.lanes == 2
    assert made == [0]
    assert spread.alive()


def test_why_on_the_cpu(monkeypatch):
    from gpuenc.cuda import nvcodec

    monkeypatch.setattr(nvcodec, "is_available", lambda uid: False)
    monkeypatch.setattr(nvcodec, "why_unavailable", lambda uid, device=0: "GPU 0 was given up: it hangs")
    syntax = find("htj2k-lossless")
    assert registry.why_on_cpu(syntax) == "GPU 0 was given up: it hangs"
    assert registry.why_on_cpu(syntax, "auto", "nvimgcodec") == "GPU 0 was given up: it hangs"
    for asked in ((syntax, "cpu"), (syntax, "gpu"), (syntax, "0"), (syntax, "auto", "imagecodecs")):
        assert registry.why_on_cpu(*asked) == ""
    assert registry.why_on_cpu(find("jpeg-ls-lossless")) == ""
    assert registry.why_on_cpu(find("explicit-vr-little-endian")) == ""
    monkeypatch.setattr(nvcodec, "is_available", lambda uid: True)
    assert registry.why_on_cpu(syntax) == ""
