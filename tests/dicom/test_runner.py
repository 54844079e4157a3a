"""Plug-ins written for pydicom are asked for what the target says, whatever the user's option was called."""

import numpy as np
import pytest
from pydicom.pixels.encoders import pyjpegls, pylibjpeg

from gpuenc.codestream import check, parse
from gpuenc.coding import coding
from gpuenc.cpu import decoders, encoders, lossy, samples
from gpuenc.dicom.runner import FrameByFrame
from gpuenc.frames import Encoded, Failure, Frame, FrameFormat, FrameRef
from gpuenc.plugins import usable_cores
from gpuenc.syntaxes import find
from gpuenc.targets import from_options

FORMAT = FrameFormat(128, 96, 1, 16, 12, False, "MONOCHROME2")
FUNCTIONS = {"jpeg-ls": (pyjpegls, pyjpegls._encode_frame), "jpeg2000": (pylibjpeg, pylibjpeg._encode_frame)}


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :96]
    return (2000 + 1000 * np.sin(x / 9) * np.cos(y / 7) + rng.normal(0, 30, x.shape)).astype("u2")


def encode(name, image, options):
    """Return the target and what pydicom's plug-in makes of one frame."""
    syntax = find(name)
    target = from_options(syntax, options)
    module, function = FUNCTIONS[syntax.name]
    plugin = FrameByFrame("test", function, module, options, target)
    [result] = plugin.encode([Frame(FrameRef("test", 0), FORMAT, samples.to_cells(image, FORMAT))])
    return target, result


@pytest.mark.parametrize("name", ["near", "jls_error", "lossy_error"])
def test_near(image, name):
    target, result = encode("jpeg-ls", image, {name: 9})
    assert isinstance(result, Encoded), result
    assert parse(result.codestream, "jpeg-ls").near == 9
    check(result.codestream, target.syntax, coding(target, FORMAT))


def test_no_near(image):
    _, result = encode("jpeg-ls", image, {})
    assert isinstance(result, Encoded), result
    assert parse(result.codestream, "jpeg-ls").near == 0


@pytest.mark.parametrize("name", ["ratio", "j2k_cr", "compression_ratios"])
@pytest.mark.parametrize("value", [10, [20, 10]])
def test_ratio(image, name, value):
    target, result = encode("jpeg2000", image, {name: value})
    assert isinstance(result, Encoded), result
    check(result.codestream, target.syntax, coding(target, FORMAT))
    assert image.size * 12 / 8 / len(result.codestream) == pytest.approx(10, rel=0.5)


@pytest.mark.parametrize("name", ["psnr", "j2k_psnr", "signal_noise_ratios"])
@pytest.mark.parametrize("value", [45, [30, 45]])
def test_psnr(image, name, value):
    target, result = encode("jpeg2000", image, {name: value})
    assert isinstance(result, Encoded), result
    decoded = decoders.decode_samples(result.codestream, target.syntax, coding(target, FORMAT))
    assert lossy.psnr_db(image, decoded, 12) == pytest.approx(45, abs=5)


def test_lossless_where_the_plugin_knows_none(image):
    _, result = encode("jpeg2000", image, {"lossless": True})
    assert isinstance(result, Failure)
    assert "requires a lossy configuration option" in result.reason


def test_options_without_a_target_are_handed_on(image):
    seen = {}

    def function(src, **options):
        seen.update(options)
        return b""

    syntax = find("jpeg-ls")
    options = {"near": 2, "anything": "else"}
    plugin = FrameByFrame("test", function, pyjpegls, options, from_options(syntax, options))
    plugin.encode([Frame(FrameRef("test", 0), FORMAT, samples.to_cells(image, FORMAT))])
    assert (seen["anything"], seen["jls_error"]) == ("else", 2)
    assert "near" not in seen


def test_lanes(monkeypatch):
    class Module:
        THREAD_SAFE = True

    target = from_options(find("jpeg-ls"), {})
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(3)), raising=False)
    assert usable_cores() == 3
    assert FrameByFrame("test", pyjpegls._encode_frame, Module, {}, target).limits.lanes == 3
    assert FrameByFrame("test", pyjpegls._encode_frame, pyjpegls, {}, target).limits.lanes == 1


@pytest.mark.parametrize(
    ("fmt", "wrong"),
    [
        (FORMAT, False),
        (FrameFormat(8, 8, 3, 8, 8, False, "RGB"), True),
        (FrameFormat(8, 8, 1, 32, 23, False, "MONOCHROME2"), True),
    ],
)
def test_frames_that_openjpeg_may_lose_are_compared(monkeypatch, fmt, wrong):
    """The rule is the one that gpuenc's own OpenJPEG goes by."""
    compared = []
    monkeypatch.setattr(decoders, "decode_samples", lambda *asked: compared.append(asked))
    target = from_options(find("jpeg2000-lossless"), {})
    plugin = FrameByFrame("test", lambda src, runner: b"", pylibjpeg, {}, target)
    plugin.encode([Frame(FrameRef("test", 0), fmt, np.zeros(fmt.frame_bytes, np.uint8))])
    assert bool(compared) == encoders.openjpeg_may_be_wrong(coding(target, fmt)) == wrong
