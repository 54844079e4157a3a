"""Whether a device can be used: asked once per process, device and codec, by doing something and looking at it.

Nothing is asked at import. A forked child asks again; where its parent had used CUDA, the answer is no, since a context
does not survive a fork. Without a driver the answer costs a millisecond, and nothing of CUDA is loaded.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpuenc.codestream import check
from gpuenc.coding import coding
from gpuenc.cpu import decoders
from gpuenc.cpu import samples as cpu_samples
from gpuenc.cuda import health
from gpuenc.cuda import samples as device_samples
from gpuenc.cuda.kernels import CupyDevice
from gpuenc.errors import GpuencError
from gpuenc.frames import FrameFormat
from gpuenc.syntaxes import find
from gpuenc.targets import target

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gpuenc.cuda.kernels import Device

Codec = Literal["jpeg2k", "jpeg"]

_DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_WHEELS = {12: "nvidia-nvimgcodec-cu12", 13: "nvidia-nvimgcodec-cu13"}
_CUPY_WHEELS = {12: "cupy-cuda12x", 13: "cupy-cuda13x"}
_VERBOSITY = "PYNVIMGCODEC_VERBOSITY"
_TIMEOUT_S = 60.0
_SIDE, _BITS, _LEVELS, _QUALITY = 64, 12, 5, 90
_JPEG_ERROR = 4.0  # of 255, on a ramp at quality 90: far above what any table of quantisers gives
_NO_DEVICE, _NOT_INITIALISED, _DRIVER_OUT_OF_MEMORY, _BUSY = 100, 3, 2, 46


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a device can be used for a codec.

    Parameters
    ----------
    reason : str
        Why not, in a sentence, with what to do about it; empty if it can.
    detail : str
        What was found: versions, or the error's own words.
    """

    reason: str = ""
    detail: str = ""

    @property
    def usable(self) -> bool:
        """Whether it can."""
        return not self.reason


_ANSWERS: dict[tuple[int, str], Answer] = {}
_counted: int | None = None
_ASKING = threading.Lock()
_cuda_was_used = False  # by this process, through this module
_forked_from_cuda = False


def probe(device: int = 0, codec: Codec = "jpeg2k") -> Answer:
    """Return whether `device` encodes `codec` here; never raises, never prints.

    Parameters
    ----------
    device : int
        Which of the visible GPUs.
    codec : {'jpeg2k', 'jpeg'}
        JPEG 2000 and HTJ2K, or JPEG.
    """
    needs = _Needs(
        "nvImageCodec", "nvidia.nvimgcodec", _WHEELS, "nvJPEG2000 does" if codec == "jpeg2k" else "nvJPEG does"
    )
    return _answer(device, codec, needs, partial(_encode, device, codec))


def kernels(device: int = 0, name: str = "kernels", check: Callable[[Device], str] | None = None) -> Answer:
    """Return whether our own kernels run on `device` here; never raises, never prints. nvImageCodec is not needed.

    CuPy has to be there, a kernel to be compiled, and what it computes to be right.

    Parameters
    ----------
    device : int
        Which of the visible GPUs.
    name : str
        Under which the answer is kept: one for each `check`.
    check : callable, optional
        What has to work besides, such as a small image that has to come back: is given the device, on its own stream,
        and returns what is wrong with it, or nothing. It may raise anything.
    """
    needs = _Needs("CuPy", "cupy", _CUPY_WHEELS, "Our kernels do")
    return _answer(device, name, needs, partial(_run_kernels, device, check))


def some(usable: Callable[[int], bool]) -> bool:
    """Whether `usable` says yes of some visible GPU, by its index; with none it is asked of the first."""
    return any(usable(device) for device in range(max(1, device_count())))


def device_count() -> int:
    """Return how many GPUs are visible, as ``CUDA_VISIBLE_DEVICES`` leaves them; asked once per process."""
    global _counted
    with _ASKING:
        if _counted is None:
            _counted = _count()
        return _counted


@dataclass(frozen=True, slots=True)
class _Needs:
    """The package without which there is no answer: its name, module and wheels by CUDA, and what does not work."""

    package: str
    module: str
    wheels: dict[int, str]
    subject: str


def _answer(device: int, name: str, needs: _Needs, work: Callable[[], str]) -> Answer:
    given_up = health.lost(device)
    if given_up:
        return Answer(f"GPU {device} was given up: {given_up}")
    with _ASKING:
        if (device, name) not in _ANSWERS:
            _ANSWERS[device, name] = _ask(device, needs, work)
        return _ANSWERS[device, name]


def load() -> Any:
    """Import nvImageCodec without its messages, on a thread of the caller's choice.

    On a machine with a GPU the import itself creates a CUDA context, so it is never done before a fork.
    """
    global _cuda_was_used
    _cuda_was_used = True
    before = os.environ.get(_VERBOSITY)
    os.environ.setdefault(_VERBOSITY, "0")  # read once, at import
    try:
        return import_module("nvidia.nvimgcodec")
    finally:
        if before is None:
            os.environ.pop(_VERBOSITY, None)


def backends(nv: Any, codec: Codec) -> list[Any]:
    """Return the only backends that may encode: without this list, a CPU codec steps in silently, and writes JP2."""
    return [nv.Backend(nv.GPU_ONLY if codec == "jpeg2k" else nv.HYBRID_CPU_GPU)]


def works(nv: Any, encoder: Any, codec: Codec) -> str:
    """Return what is wrong with `encoder`, or nothing: it encodes a small image, which has to come back.

    JPEG 2000 is asked for as HTJ2K of 12 bits, the most demanding.

    Raises
    ------
    Exception
        Whatever nvImageCodec raises.
    """
    image = _image(codec)
    gray = nv.ChromaSubsampling.CSS_GRAY
    if codec == "jpeg2k":
        j2k = nv.Jpeg2kEncodeParams(ht=True, bitstream_type=nv.Jpeg2kBitstreamType.J2K, num_resolutions=_LEVELS + 1)
        settings = nv.EncodeParams(
            quality_type=nv.QualityType.LOSSLESS, chroma_subsampling=gray, jpeg2k_encode_params=j2k
        )
        source = nv.as_image(image, precision=_BITS)
    else:
        settings = nv.EncodeParams(quality_type=nv.QualityType.QUALITY, quality_value=_QUALITY, chroma_subsampling=gray)
        source = nv.as_image(image)
    made = encoder.encode([source], codec, params=settings)[0]
    return "it encodes nothing" if made is None else _wrong(bytes(memoryview(made)), image, codec)


def _image(codec: Codec) -> NDArray[Any]:
    """Return a ramp of 8 bits for JPEG, and one of 12 bits with noise for JPEG 2000."""
    ramp = np.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE)
    if codec == "jpeg":
        return (ramp // 16).astype(np.uint8)
    return (ramp ^ np.random.default_rng(1).integers(0, 64, ramp.shape)).astype(np.uint16)


def _wrong(codestream: bytes, image: NDArray[Any], codec: Codec) -> str:
    if codec == "jpeg2k":
        chosen = target(find("htj2k-lossless"))
        wanted = coding(chosen, FrameFormat(_SIDE, _SIDE, 1, 16, _BITS, False, "MONOCHROME2"))
    else:
        chosen = target(find("jpeg-baseline"), quality=_QUALITY)
        wanted = coding(chosen, FrameFormat(_SIDE, _SIDE, 1, 8, 8, False, "MONOCHROME2"))
    try:
        check(codestream, chosen.syntax, wanted)
        back = decoders.decode_samples(codestream, chosen.syntax, wanted)
    except GpuencError as error:
        return f"what it writes is not what was asked for: {error}"
    errors = np.abs(back.astype(np.int64) - image)
    if wanted.lossless and errors.any():
        return f"{np.count_nonzero(errors)} of {image.size} samples do not come back"
    return f"samples come back with a mean error of {errors.mean():.1f}" if errors.mean() > _JPEG_ERROR else ""


def _ask(device: int, needs: _Needs, work: Callable[[], str]) -> Answer:
    if _forked_from_cuda:
        return Answer(
            "This process was forked from one that had used CUDA, which does not survive a fork: start workers with "
            "'spawn' or 'forkserver'"
        )
    driver = _driver_version()
    if not driver:
        return Answer(f"No NVIDIA driver: there is no {_DRIVER_LIBRARY} on this machine")
    missing = _wheel_missing(driver, needs)
    if missing:
        return Answer(missing, f"driver for CUDA {_dotted(driver)}")
    worker = health.Worker("gpuenc-probe")
    try:
        with health.silenced() as said:
            refused = worker.call(partial(_initialise, device), _TIMEOUT_S)
            wrong = "" if refused else worker.call(work, _TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - any error is a no, and the reason is told
        return _refused(device, error, said.text, needs)
    finally:
        worker.close()
    if refused:
        return Answer(refused)
    found = f"driver for CUDA {_dotted(driver)}, {', '.join(_installed_wheels(needs))}"
    if wrong:
        hint = f": install 'gpuenc[{_extra(driver)}]'" if "Failed to load" in said.text else ""
        return Answer(f"{needs.subject} not work on GPU {device}: {wrong}{hint}", found)
    return Answer("", found)


def _refused(device: int, error: Exception, said: str, needs: _Needs) -> Answer:
    fault = health.classify(error)
    if isinstance(error, health.Hung):
        health.give_up(device, f"the probe got {error}")
        return Answer(f"GPU {device} does not answer: {error}")
    if isinstance(error, ImportError | OSError):
        return Answer(f"{needs.package} cannot be loaded: {fault.reason}", said.strip())
    if fault.kind == "memory":
        return Answer(f"GPU {device} is busy: out of memory ({fault.reason})")
    return Answer(f"GPU {device} cannot be used: {fault.reason}", said.strip())


def driver_library() -> ctypes.CDLL | None:
    """Return the driver's library; loading it does not initialise CUDA."""
    try:
        return ctypes.CDLL(_DRIVER_LIBRARY)
    except OSError:
        return None


def _driver_version() -> int:
    """Return the newest CUDA the driver supports, such as 13000, or 0 without a driver. Needs no initialisation."""
    driver = driver_library()
    number = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)):
        return 0
    return number.value


def _wheel_missing(driver: int, needs: _Needs) -> str:
    """Return what to install where the package is missing, or built for a newer CUDA than the driver's."""
    major = driver // 1000
    if not _is_installed(needs.module):
        return f"{needs.package} is not installed: pip install 'gpuenc[{_extra(driver)}]'"
    built = [cuda for cuda, name in needs.wheels.items() if _version(name)]
    if built and min(built) > major:
        return (
            f"The NVIDIA driver is too old: it supports CUDA {_dotted(driver)}, and {needs.wheels[min(built)]} needs "
            f"{min(built)}.0: update the driver, or install 'gpuenc[{_extra(driver)}]'"
        )
    return ""


def _is_installed(module: str) -> bool:
    """Whether `module`, of at most two names, can be found: the first of them is imported, and nothing else."""
    parent, _, name = module.partition(".")
    if module in sys.modules:
        return True
    return find_spec(parent) is not None and (not name or find_spec(module) is not None)


def _count() -> int:
    if _forked_from_cuda or not _driver_version():
        return 0
    worker = health.Worker("gpuenc-probe")
    try:
        worker.call(partial(_initialise, 0), _TIMEOUT_S)
        driver, count = driver_library(), ctypes.c_int(0)
        return 0 if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) else count.value
    except health.Hung:
        return 0
    finally:
        worker.close()


def _initialise(device: int) -> str:
    """Return why the driver does not offer `device`, or nothing."""
    global _cuda_was_used
    driver = driver_library()
    if driver is None:
        return "No NVIDIA driver"
    _cuda_was_used = True
    status = driver.cuInit(0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hint = f" (CUDA_VISIBLE_DEVICES is '{visible}')" if visible is not None else ""
    if status == _NO_DEVICE:
        return f"No CUDA device is visible{hint}"
    if status == _NOT_INITIALISED:
        return "CUDA cannot be initialised: this process may have been forked from one that had used CUDA"
    if status in (_DRIVER_OUT_OF_MEMORY, _BUSY):
        return "The GPU is busy or out of memory"
    if status:
        return f"The NVIDIA driver does not start: CUDA error {status}"
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not 0 <= device < count.value:
        return f"There is no GPU {device}: {count.value} visible{hint}"
    return ""


def _encode(device: int, codec: Codec) -> str:
    nv = load()
    encoder = nv.Encoder(device_id=device, max_num_cpu_threads=1, backends=backends(nv, codec))
    return works(nv, encoder, codec)


def _run_kernels(device: int, check: Callable[[Device], str] | None) -> str:
    """Return what is wrong with samples that a kernel prepared, or with what `check` does, or nothing."""
    on = CupyDevice(device)
    fmt = FrameFormat(_SIDE, _SIDE, 1, 16, _BITS, False, "MONOCHROME2", big_endian=True)
    wanted = coding(target(find("htj2k-lossless")), fmt)
    cells = _image("jpeg2k").astype(">u2").reshape(-1).view(np.uint8)
    with on.current():
        prepared = device_samples.prepare(on, [on.upload(cells)], fmt, wanted)
        found, samples = prepared.found(), on.download(prepared.samples)
        if found != [None] or not np.array_equal(samples[0], cpu_samples.prepare(cells, fmt, wanted)):
            return "samples are prepared wrongly"
        return check(on) if check else ""


def _extra(driver: int) -> str:
    return "cuda13" if driver >= 13000 else "cuda12"


def _installed_wheels(needs: _Needs) -> list[str]:
    return [f"{name} {_version(name)}" for name in needs.wheels.values() if _version(name)] or [needs.package]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _dotted(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _after_fork() -> None:
    global _ASKING, _forked_from_cuda, _cuda_was_used, _counted
    _ASKING = threading.Lock()
    _counted = None
    _ANSWERS.clear()
    _forked_from_cuda, _cuda_was_used = _forked_from_cuda or _cuda_was_used, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
