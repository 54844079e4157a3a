"""What the real nvImageCodec does on a machine without a GPU: the ground that the fake one stands on.

All of it is found out in one process of its own, since importing it writes to standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FINDINGS = """
import ctypes, json, os, sys
import numpy as np

os.environ.pop("PYNVIMGCODEC_VERBOSITY", None)
from gpuenc.cuda import health, memory, nvrules, probe

with health.silenced() as said:
    nv = probe.load()
found = {"verbosity left behind": "PYNVIMGCODEC_VERBOSITY" in os.environ}
try:
    ctypes.CDLL("libcuda.so.1")
    found["driver"] = True
except OSError:
    found["driver"] = False


def result(function):
    try:
        made = function()
    except Exception as error:
        return [type(error).__name__, str(error), health.classify(error).kind]
    return made


CPU = nv.NVIMGCODEC_DEVICE_CPU_ONLY
frame = (np.arange(4096, dtype=np.uint16) % 4096).reshape(64, 64)
other = np.zeros_like(frame)
J2K = nv.EncodeParams(
    quality_type=nv.QualityType.LOSSLESS,
    jpeg2k_encode_params=nv.Jpeg2kEncodeParams(bitstream_type=nv.Jpeg2kBitstreamType.J2K),
)
HT = nv.EncodeParams(
    quality_type=nv.QualityType.LOSSLESS,
    jpeg2k_encode_params=nv.Jpeg2kEncodeParams(bitstream_type=nv.Jpeg2kBitstreamType.J2K, ht=True),
)
encoder = nv.Encoder(device_id=CPU)
image = nv.as_image(frame, precision=12)


def encode(images, params=J2K, **more):
    return encoder.encode(images, "jpeg2k", params=params, **more)


def kinds(made):
    return made if made is None else [None if one is None else "stream" for one in made]


with health.silenced() as said:
    found["list"] = kinds(encode([image, image]))
    found["tuple"] = encode((image, image))
    found["generator"] = encode(one for one in (image,))
    found["mixed"] = kinds(encode([image, "x", None, frame[:, ::-1], np.zeros((2, 2, 2, 2), "u1"), frame]))
    found["ht"] = kinds(encode([image], HT))
    gpu_only = nv.Encoder(device_id=CPU, backends=probe.backends(nv, "jpeg2k"))
    found["gpu only"] = kinds(gpu_only.encode([image], "jpeg2k", params=J2K))
found["messages of failures"] = said.text

[stream] = encode([image])
data = bytes(stream)
found["fallback"] = [data[:12].hex(), stream.precision, nv.CodeStream(data).precision]

slot = nv.CodeStream(1000, False)
found["fresh"] = [slot.size, slot.capacity, memoryview(slot).nbytes, memoryview(slot).readonly, slot.pin_memory]
found["same object"] = encode([image], code_stream_s=[slot])[0] is slot
view, first = memoryview(slot), bytes(slot)
encode([nv.as_image(other, precision=12)], code_stream_s=[slot])
found["old view"] = [view.nbytes == len(first), bytes(view) != first, slot.capacity]
second = bytes(slot)
slots = memory.Slots(nv, 1 << 20)
[mine] = slots.take(1, 500)
encode([image], code_stream_s=[mine])
kept = memory.copied(mine)
found["copied"] = kept == first
[again] = slots.take(1, 400)
found["spoiled"] = [again is mine, bytes(again)[:4].hex(), mine.pin_memory]
with health.silenced():
    found["failed"] = [kinds(encode([image], HT, code_stream_s=[again])), bytes(again)[:4].hex()]
found["kept"] = kept == first
[again] = slots.take(1, 4000)
found["grown"] = [again is not mine, again.capacity]
found["too few streams"] = result(lambda: encode([image, image], code_stream_s=[slot]))[:2]

found["precision"] = result(lambda: nv.as_image(frame, precision=17))[:2]
found["big-endian"] = str(nv.as_image(frame.astype(">u2")).dtype)
found["other types"] = [str(nv.as_image(np.zeros((4, 4), kind)).dtype) for kind in ("i1", "u4")]


class Device:
    def __init__(self, stream):
        view = memory.View(frame.ctypes.data, frame.shape, "<u2", stream, frame)
        self.__cuda_array_interface__ = view.__cuda_array_interface__ | {"stream": stream}


found["stream 0"] = result(lambda: nv.as_image(Device(0)))[:2]
with health.silenced():
    found["no device memory"] = result(lambda: str(nv.as_image(Device(1))))[:2]
    found["device -1"] = result(lambda: nv.Encoder())
    found["device 0"] = result(lambda: nv.Encoder(device_id=0))
    found["pinned"] = result(lambda: nv.CodeStream(100, True))
    found["gpu only constructs"] = result(lambda: bool(nv.Encoder(device_id=CPU, backends=[nv.Backend(nv.GPU_ONLY)])))
    found["probe"] = probe.works(nv, encoder, "jpeg2k")

from gpuenc.coding import coding
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import BY_UID
from gpuenc.targets import target

asked = {}
gray, rgb = (64, 48, 1, 16, 12, False, "MONOCHROME2"), (64, 48, 3, 8, 8, False, "RGB")
for uid in nvrules.UIDS:
    syntax = BY_UID[uid]
    for fmt in (FrameFormat(*gray), FrameFormat(*rgb), FrameFormat(64, 48, 1, 16, 12, True, "MONOCHROME2")):
        if syntax.family == "jpeg" and fmt.samples == 1:
            fmt = FrameFormat(64, 48, 1, 8, 8, False, "MONOCHROME2")
        chosen = target(syntax) if syntax.loss == "always" else target(syntax, lossless=True)
        wanted = coding(chosen, fmt)
        params = nvrules.settings(nv, chosen, wanted)
        samples = np.zeros(wanted.shape, f"{'i' if wanted.signed else 'u'}{wanted.cell_bits // 8}")
        made = nvrules.image(nv, samples, chosen, wanted)
        j2k = params.jpeg2k_params
        asked[f"{uid} {fmt.photometric} {fmt.signed}"] = [
            str(made.dtype), made.precision, made.sample_format.name, made.color_spec.name, params.color_spec.name,
            params.chroma_subsampling.name, params.quality_type.name, j2k.ht, j2k.mct_mode, j2k.num_resolutions,
            j2k.bitstream_type.name, j2k.prog_order.name,
        ]
lossy = target(BY_UID["1.2.840.10008.1.2.4.91"], psnrs=(50,))
params = nvrules.settings(nv, lossy, coding(lossy, FrameFormat(*gray)))
asked["psnr"] = [params.quality_type.name, params.quality_value]
found["asked"] = asked

params = nvrules.decode_settings(nv)
found["decoding"] = [params.apply_exif_orientation, params.allow_any_depth, params.color_spec == nv.ColorSpec.UNCHANGED]
with health.silenced():
    decoder = nv.Decoder(device_id=CPU)
    found["decoded"] = kinds(decoder.decode([nv.CodeStream(data)] * 2, params=params, cuda_stream=0))
    garbage = [nv.CodeStream(bad) for bad in (b"garbage", data[:30])]
    found["garbage"] = kinds(decoder.decode(garbage, params=params, cuda_stream=0))
    decoder.__exit__(None, None, None)

probe._ANSWERS[0, "jpeg2k"] = probe.Answer()
from gpuenc.cuda import nvcodec
from gpuenc.frames import Frame, FrameRef

lane = nvcodec.BatchEncoder(target(BY_UID["1.2.840.10008.1.2.4.201"]))
pixels = np.zeros(64 * 48 * 2, np.uint8)
frames = [Frame(FrameRef("x", n), FrameFormat(*gray), pixels) for n in range(2)]
with health.silenced():
    found["opened without a device"] = [[r.code for r in lane.encode(frames)], [r.code for r in lane.encode(frames)]]
    lane.close()
print(json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def found():
    if find_spec("nvidia") is None or find_spec("nvidia.nvimgcodec") is None:
        if os.environ.get("GPUENC_NO_SKIPS") == "1":
            pytest.fail("the wheel of nvImageCodec is missing, and GPUENC_NO_SKIPS=1 forbids to skip")
        pytest.skip("needs the nvidia-nvimgcodec-cu13 wheel, which needs no GPU: pip install 'gpuenc[test]'")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FINDINGS)],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def without_driver(found):
    if found["driver"]:
        pytest.skip("there is a driver on this machine: `make gpu-test` asks the device itself")
    return found


def test_only_a_list_is_a_batch(found):
    assert found["list"] == ["stream", "stream"]
    assert found["tuple"] is None
    assert found["generator"] is None


def test_an_item_that_fails_is_none_and_leaves_the_others_alone(found):
    assert found["mixed"] == ["stream", None, None, None, None, "stream"]


def test_failures_are_silent_when_loaded_by_the_probe(found):
    assert found["messages of failures"] == ""
    assert found["verbosity left behind"] is False


def test_without_backends_a_cpu_codec_steps_in_and_writes_something_else(found):
    start, echoed, written = found["fallback"]
    assert start == "0000000c6a5020200d0a870a"  # JP2, though J2K was asked for
    assert (echoed, written) == (12, 16)  # what it says of its own stream is the input's precision
    assert found["ht"] == [None]


def test_gpu_only_forbids_that(found):
    assert found["gpu only"] == [None]


def test_an_encoder_that_can_be_made_proves_nothing(without_driver):
    assert without_driver["gpu only constructs"] is True
    assert without_driver["probe"] == "it encodes nothing"


def test_output_streams_are_used_again(found):
    assert found["fresh"] == [1000, 1000, 1000, False, False]
    assert found["same object"] is True
    same_length, other_bytes, capacity = found["old view"]
    assert same_length
    assert other_bytes
    assert capacity == 1000


def test_a_copy_stays_and_a_spoiled_stream_stays_spoiled_where_encoding_fails(found):
    assert found["copied"]
    assert found["kept"]
    assert found["spoiled"][:2] == [True, "00000000"]
    assert found["failed"] == [[None], "00000000"]
    assert found["grown"] == [True, 4000]


def test_streams_must_be_as_many_as_images(found):
    assert found["too few streams"][0] == "ValueError"


def test_images(found):
    assert found["precision"][0] == "ValueError"
    assert found["big-endian"] == "uint16"  # taken, and misread: cells must be in native order
    assert found["other types"] == ["int8", "uint32"]  # taken here, and refused when encoding
    assert found["stream 0"] == ["RuntimeError", "Invalid for stream to be 0"]


def test_what_constructors_raise_without_a_driver_and_what_becomes_of_it(without_driver):
    assert without_driver["device -1"][0] == "RuntimeError"
    assert "'#35'" in without_driver["device -1"][1]
    assert without_driver["device -1"][2] == "lost"
    assert without_driver["device 0"][1:] == ["Internal error - Could not create encoder. Code: 8", "error"]
    assert without_driver["pinned"][:2] == ["RuntimeError", "Unable to get device count"]
    assert without_driver["spoiled"][2] is False  # ordinary memory instead
    assert without_driver["no device memory"] == ["RuntimeError", "Buffer is not CUDA-accessible"]


def test_decoding_is_asked_for_as_it_lies_and_takes_lists(found):
    assert found["decoding"] == [False, True, True]
    assert len(found["decoded"]) == 2  # without a device, None
    assert found["garbage"] == [None, None]  # and no exception


def test_a_lane_on_a_device_that_is_gone_returns_failures(without_driver):
    assert without_driver["opened without a device"] == [["device-error"] * 2, ["device-lost"] * 2]


def test_what_is_asked_for_is_what_the_real_types_hold(found):
    asked = found["asked"]
    j2k = ["CSS_GRAY", "LOSSLESS"]
    assert asked["1.2.840.10008.1.2.4.90 MONOCHROME2 False"][:9] == [
        "uint16",
        12,
        "I_Y",
        "GRAY",
        "UNKNOWN",
        *j2k,
        False,
        0,
    ]
    assert asked["1.2.840.10008.1.2.4.201 MONOCHROME2 True"][:9] == [
        "int16",
        12,
        "I_Y",
        "GRAY",
        "UNKNOWN",
        *j2k,
        True,
        0,
    ]
    assert asked["1.2.840.10008.1.2.4.202 RGB False"] == [
        "uint8", 8, "I_RGB", "SRGB", "SRGB", "CSS_444", "LOSSLESS", True, 1, 1, "J2K", "RPCL",
    ]  # fmt: skip
    assert asked["1.2.840.10008.1.2.4.201 RGB False"][9] == 6
    assert asked["1.2.840.10008.1.2.4.50 RGB False"][:7] == [
        "uint8", 8, "I_RGB", "SRGB", "UNKNOWN", "CSS_422", "QUALITY",
    ]  # fmt: skip
    assert asked["1.2.840.10008.1.2.4.50 MONOCHROME2 False"][5] == "CSS_GRAY"
    assert asked["psnr"] == ["PSNR", 50.5]
