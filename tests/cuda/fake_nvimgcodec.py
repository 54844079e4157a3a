"""A stand-in for ``nvidia.nvimgcodec`` 0.9 that encodes for real, on the CPU, and fails as it is told to.

What it does beside the script is what the real one was seen to do (tests/cuda/test_real_nvimgcodec.py) or documents:
a list is a batch and anything else one image; None for an image that fails; output streams that show new bytes through
old views; plain RuntimeErrors; an encoder that must not be shared by threads; a CPU codec that steps in and writes JP2
where no backends are named. imagecodecs makes the codestreams, so that they can be verified.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from typing import Any

import imagecodecs
import numpy as np

CPU_ONLY, GPU_ONLY, HYBRID_CPU_GPU = "cpu", "gpu", "hybrid"

QualityType = enum.Enum("QualityType", "DEFAULT LOSSLESS QUALITY QUANTIZATION_STEP PSNR SIZE_RATIO")
ColorSpec = enum.Enum("ColorSpec", "UNCHANGED SRGB GRAY SYCC")
ChromaSubsampling = enum.Enum("ChromaSubsampling", "CSS_444 CSS_422 CSS_420 CSS_GRAY")
Jpeg2kBitstreamType = enum.Enum("Jpeg2kBitstreamType", "J2K JP2")
Jpeg2kProgOrder = enum.Enum("Jpeg2kProgOrder", "LRCP RLCP RPCL PCRL CPRL")
SampleFormat = enum.Enum("SampleFormat", "I_RGB I_Y I_UNCHANGED P_RGB P_YUV")


@dataclass
class Backend:
    kind: str


@dataclass
class Jpeg2kEncodeParams:
    code_block_size: tuple[int, int] = (64, 64)
    num_resolutions: int = 6
    bitstream_type: Any = Jpeg2kBitstreamType.JP2
    prog_order: Any = Jpeg2kProgOrder.RPCL
    mct_mode: int = 0
    ht: bool = False


@dataclass
class JpegEncodeParams:
    progressive: bool = False
    optimized_huffman: bool = False


@dataclass
class DecodeParams:
    apply_exif_orientation: bool = True
    color_spec: Any = ColorSpec.SRGB
    allow_any_depth: bool = False
    sample_format: Any = None


@dataclass
class EncodeParams:
    quality_type: Any = QualityType.DEFAULT
    quality_value: float = 0
    color_spec: Any = ColorSpec.UNCHANGED
    chroma_subsampling: Any = None
    jpeg_encode_params: JpegEncodeParams | None = None
    jpeg2k_encode_params: Jpeg2kEncodeParams | None = None
    tile_width: int | None = None
    tile_height: int | None = None


class CodeStream:
    """An output stream: its memory stays, its length changes."""

    def __init__(self, pre_allocated_size: int | bytes = 0, pin_memory: bool = True) -> None:
        if isinstance(pre_allocated_size, bytes):  # a codestream to be decoded
            data, pre_allocated_size = pre_allocated_size, len(pre_allocated_size)
            self.__init__(pre_allocated_size, False)  # type: ignore[misc]
            return self.write(data)
        self.pin_memory, self.capacity, self.size = pin_memory, pre_allocated_size, pre_allocated_size
        self._bytes = np.zeros(pre_allocated_size, np.uint8)

        return None

    def write(self, data: bytes) -> None:
        if len(data) > self.capacity:
            self._bytes, self.capacity = np.zeros(len(data), np.uint8), len(data)
        self._bytes[: len(data)] = np.frombuffer(data, np.uint8)
        self.size = len(data)

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self._bytes[: self.size])


@dataclass
class Image:
    samples: np.ndarray
    precision: int
    color_spec: Any
    sample_format: Any
    on_device: bool
    stream: int


def as_image(
    source: Any,
    cuda_stream: int = 0,
    *,
    sample_format: Any = None,
    color_spec: Any = None,
    precision: int | None = None,
) -> Image:
    interface = getattr(source, "__cuda_array_interface__", None)
    stream = cuda_stream
    if interface is not None:
        if interface.get("stream", 1) == 0:
            raise RuntimeError("Invalid for stream to be 0")
        stream = interface.get("stream", cuda_stream)
        dtype, shape = np.dtype(interface["typestr"]), interface["shape"]
        size = int(np.prod(shape)) * dtype.itemsize
        samples = np.frombuffer((ctypes.c_uint8 * size).from_address(interface["data"][0]), dtype).reshape(shape)
    else:
        # As the real one: the byte order is not looked at.
        samples = source.view(source.dtype.newbyteorder("="))
    bits = 8 * samples.dtype.itemsize
    if precision is not None and precision > bits:
        raise ValueError(f"Precision {precision} exceeds the bitdepth of the sample type ({bits} bits).")
    return Image(samples, precision or bits, color_spec, sample_format, interface is not None, stream)


@dataclass
class Script:
    """What goes wrong.

    `fault` is given the number in an image's first sample and returns the name of a misbehaviour, or nothing;
    `batch` is given the images of a call and may raise.
    """

    fault: Callable[[int], str] = lambda number: ""
    batch: Callable[[list[Image]], None] = lambda images: None
    dead: str = ""  # "raises" or "none": what every call does from now on
    hang: threading.Event = field(default_factory=threading.Event)
    create: Callable[[], None] = lambda: None
    calls: list[list[Image]] = field(default_factory=list)
    encoders: list[Encoder] = field(default_factory=list)
    params: list[EncodeParams] = field(default_factory=list)
    # Of decoding: what goes wrong with the frame of a number, before a call, and where decoded samples are put.
    decode_fault: Callable[[int], str] = lambda number: ""
    decode_batch: Callable[[list[CodeStream]], None] = lambda streams: None
    put: Callable[[np.ndarray], Any] | None = None
    decoders: list[Decoder] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)
    streams: set[int] = field(default_factory=set)


class Encoder:
    """One encoder of the module whose script this is."""

    script: Script

    def __init__(
        self,
        device_id: int = -1,
        max_num_cpu_threads: int = 0,
        backends: list[Backend] | None = None,
        options: str = "",
    ) -> None:
        self.script.create()
        self.device_id, self.threads, self.backends = device_id, max_num_cpu_threads, backends
        self.busy = threading.Lock()
        self.closed = False
        self.script.encoders.append(self)

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def encode(
        self,
        image_s: Any,
        codec: str,
        *,
        code_stream_s: list[CodeStream] | None = None,
        params: EncodeParams | None = None,
        cuda_stream: int = 0,
    ) -> Any:
        if not isinstance(image_s, list):
            return self.encode([image_s], codec, params=params)[0] if isinstance(image_s, Image) else None
        if code_stream_s is not None and len(code_stream_s) != len(image_s):
            raise ValueError(
                "if multiple images are provided, code_stream_s must be a list of CodeStreams the same size"
            )
        if not self.busy.acquire(blocking=False):
            raise RuntimeError("nvImageCodec failure: '#8'")
        try:
            return self._batch(image_s, codec, code_stream_s, params or EncodeParams())
        finally:
            self.busy.release()

    def _batch(self, images: list[Any], codec: str, slots: list[CodeStream] | None, params: EncodeParams) -> list[Any]:
        script = self.script
        if not is_probe(images):
            script.calls.append(images)
            script.params.append(params)
        if script.dead == "raises":
            raise RuntimeError("CUDA Runtime failure: '#700' at device.cpp:1")
        if script.dead == "none":
            return [None] * len(images)
        if not is_probe(images):
            script.batch(images)
        slots = slots or [CodeStream(0, True) for _ in images]
        return [self._one(image, codec, slot, params) for image, slot in zip(images, slots, strict=True)]

    def _one(self, image: Any, codec: str, slot: CodeStream, params: EncodeParams) -> CodeStream | None:
        if not isinstance(image, Image):
            return None
        kinds = {backend.kind for backend in self.backends or [Backend(CPU_ONLY), Backend(GPU_ONLY)]}
        wanted_kind = GPU_ONLY if codec == "jpeg2k" else HYBRID_CPU_GPU
        fault = "" if is_probe([image]) else self.script.fault(int(image.samples.reshape(-1)[0]))
        if fault == "hang":
            self.script.hang.wait(30)
            return None
        if fault == "none" or (wanted_kind not in kinds and CPU_ONLY not in kinds):
            return None
        if CPU_ONLY in kinds and fault == "none":
            fault = "jp2"
        if fault == "unwritten":
            return slot
        data = jpeg(image, params) if codec == "jpeg" else jpeg2000(image, params, fault)
        if data is None:
            return None
        slot.write(damaged(data, fault))
        return slot


class Decoder:
    """One decoder of the module whose script this is: JPEG 2000 alone, to arrays of shape (rows, columns, samples)."""

    script: Script

    def __init__(
        self,
        device_id: int = -1,
        max_num_cpu_threads: int = 0,
        backends: list[Backend] | None = None,
        options: str = "",
    ) -> None:
        self.device_id, self.backends, self.closed = device_id, backends, False
        self.script.decoders.append(self)

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def decode(self, srcs: list[CodeStream], *, params: DecodeParams | None = None, cuda_stream: int = 0) -> list[Any]:
        self.script.decoded.append(len(srcs))
        self.script.decode_batch(srcs)
        return [self._one(bytes(memoryview(stream)), params or DecodeParams()) for stream in srcs]

    def _one(self, data: bytes, params: DecodeParams) -> Any:
        header = data[: data.find(b"\xff\x93")]
        colour = {"planar": False} if data[40:42] == b"\0\3" else {}
        try:
            ht = b"\xff\x50" in header[4:]
            samples = imagecodecs.htj2k_decode(data, **colour) if ht else imagecodecs.jpeg2k_decode(data)
        except Exception:  # noqa: BLE001 - as the real one: None, whatever is wrong
            return None
        if samples.ndim == 3 and params.sample_format is not SampleFormat.I_UNCHANGED:
            samples = samples[..., ::-1]
        if not params.allow_any_depth and samples.dtype.itemsize > 1:
            samples = (samples >> 8).astype(np.uint8)
        fault = self.script.decode_fault(int(samples.reshape(-1)[0]))
        if fault == "none":
            return None
        if fault == "zeros":
            samples = np.zeros_like(samples)
        if fault == "cut":
            samples = samples[:-1]
        if fault == "hang":
            self.script.hang.wait(30)
            return None
        assert self.script.put is not None, "nothing is decoded without a place for it"
        samples = np.ascontiguousarray(samples if samples.ndim == 3 else samples[..., None])
        put = self.script.put(samples)
        # As the real one: strides are told, also where there is nothing between rows.
        interface = put.__cuda_array_interface__ | {"strides": samples.strides}
        return types.SimpleNamespace(__cuda_array_interface__=interface, kept=put)


def is_probe(images: list[Any]) -> bool:
    """Return whether this is the image by which a device is probed."""
    return len(images) == 1 and isinstance(images[0], Image) and images[0].samples.shape == (64, 64)


def damaged(data: bytes, fault: str) -> bytes:
    if fault == "cut":
        return data[: len(data) // 2]
    if fault == "noise":
        return np.random.default_rng(len(data)).integers(0, 256, len(data), np.uint8).tobytes()
    if fault == "empty":
        return b""
    return data


def jpeg2000(image: Image, params: EncodeParams, fault: str) -> bytes | None:
    samples, j2k = image.samples, params.jpeg2k_encode_params
    assert j2k is not None
    if samples.dtype not in (np.uint8, np.uint16, np.int16):
        return None
    colour = samples.ndim == 3
    if j2k.mct_mode and not (image.color_spec is params.color_spec is ColorSpec.SRGB):
        return None
    if params.chroma_subsampling is not (ChromaSubsampling.CSS_444 if colour else ChromaSubsampling.CSS_GRAY):
        return None
    if params.quality_type not in (QualityType.LOSSLESS, QualityType.PSNR) or (
        j2k.ht and params.quality_type is QualityType.PSNR
    ):
        return None
    levels = min(j2k.num_resolutions, min(samples.shape[:2]).bit_length()) - 1
    precision = 8 * samples.dtype.itemsize if fault == "whole precision" else image.precision
    if fault == "wrong sample":
        samples = samples.copy()
        samples.reshape(-1)[-1] ^= 1
    if fault == "other size":
        samples = np.ascontiguousarray(samples[:-1])
    if fault == "no mct":
        j2k = Jpeg2kEncodeParams(**{**vars(j2k), "mct_mode": 0})
    if j2k.ht and fault not in ("not ht", "jp2"):
        return imagecodecs.htj2k_encode(
            np.ascontiguousarray(samples),
            reversible=True,
            tlm=fault == "own tlm",
            prog_order=j2k.prog_order.name,
            bitspersample=precision,
            resolutions=max(1, levels),
            **({"rgb": bool(j2k.mct_mode), "planar": False} if colour else {}),
        )
    lossless = params.quality_type is QualityType.LOSSLESS and fault != "lossy"
    # OpenJPEG falls short of what it is asked for in images as small as these.
    psnr = 40 if fault == "lossy" else params.quality_value + (-10 if fault == "poor" else 2)
    return imagecodecs.jpeg2k_encode(
        samples,
        None if lossless else psnr,
        codecformat="JP2" if fault == "jp2" or j2k.bitstream_type is Jpeg2kBitstreamType.JP2 else "J2K",
        bitspersample=precision,
        reversible=lossless,
        mct=bool(j2k.mct_mode),
        resolutions=levels + 1,
        numthreads=1,
    )


def jpeg(image: Image, params: EncodeParams) -> bytes | None:
    colour = image.samples.ndim == 3
    if image.samples.dtype != np.uint8 or params.quality_type is not QualityType.QUALITY:
        return None
    css = params.chroma_subsampling or ChromaSubsampling.CSS_420
    more = {"colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": css.name[4:]} if colour else {}
    return imagecodecs.jpeg8_encode(image.samples, int(params.quality_value), **more)


def module(script: Script) -> types.ModuleType:
    """Return a module to be put into ``sys.modules``."""
    made = types.ModuleType("nvidia.nvimgcodec")
    made.__spec__ = ModuleSpec("nvidia.nvimgcodec", None)
    own = type("Encoder", (Encoder,), {"script": script})
    made.Decoder = type("Decoder", (Decoder,), {"script": script})
    here = sys.modules[__name__]
    for name in (
        "CPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU", "QualityType", "ColorSpec", "ChromaSubsampling", "SampleFormat",
        "Jpeg2kBitstreamType", "Jpeg2kProgOrder", "Backend", "Jpeg2kEncodeParams", "JpegEncodeParams", "EncodeParams",
        "CodeStream", "as_image", "DecodeParams",
    ):  # fmt: skip
        setattr(made, name, getattr(here, name))
    made.Encoder = own
    return made
