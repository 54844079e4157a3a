"""Other people's decoders, each behind one call: a DICOM file in, its raw samples out, colours left as they are.

Some of these end the whole process, or hang, on input they do not like, so all of them run in a child process, which
is this very file run as a script. It must not import anything of gpuenc, nor of these tests.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray
    from pydicom import Dataset

_DICOM = "1.2.840.10008.1.2"
RLE = f"{_DICOM}.5"
DCT = (f"{_DICOM}.4.50", f"{_DICOM}.4.51")
JPEG_LOSSLESS = (f"{_DICOM}.4.57", f"{_DICOM}.4.70")
JPEG_LS = (f"{_DICOM}.4.80", f"{_DICOM}.4.81")
J2K = (f"{_DICOM}.4.90", f"{_DICOM}.4.91")
HTJ2K = (f"{_DICOM}.4.201", f"{_DICOM}.4.202", f"{_DICOM}.4.203")
JPEG_XL = (f"{_DICOM}.4.110", f"{_DICOM}.4.111", f"{_DICOM}.4.112")
DEFLATED_FRAME = f"{_DICOM}.8.1"
NATIVE = f"{_DICOM}.1"
SECONDS = 60


class Undecoded(Exception):
    """The decoder refused, failed, crashed or hung."""


# Decoders. Each takes the path of a file and returns (frames, rows, columns[, samples]).


def _read(path: str) -> Dataset:
    from pydicom import dcmread

    return dcmread(path)


def _codestreams(dataset: Dataset) -> list[bytes]:
    from pydicom.encaps import generate_frames

    return list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))


def _shape(dataset: Dataset) -> tuple[int, ...]:
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)
    return shape if dataset.SamplesPerPixel == 1 else (*shape, dataset.SamplesPerPixel)


def _cell_type(dataset: Dataset) -> np.dtype[np.integer]:
    bits = max(dataset.BitsAllocated, 8)
    return np.dtype(f"<{'i' if dataset.PixelRepresentation else 'u'}{bits // 8}")


def _signed(array: NDArray[np.integer], dataset: Dataset) -> NDArray[np.integer]:
    """Samples of a codec that knows no sign, read as cells: two's complement at the width they came out."""
    return array.view(f"i{array.itemsize}") if dataset.PixelRepresentation else array


def _pydicom(plugin: str) -> Callable[[str], NDArray[np.integer]]:
    def decode(path: str) -> NDArray[np.integer]:
        from pydicom.pixels import get_decoder

        dataset = _read(path)
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        array, _ = decoder.as_array(dataset, raw=True, decoding_plugin=plugin)
        return array.reshape(_shape(dataset))

    return decode


def _gdcm(path: str) -> NDArray[np.integer]:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    if not reader.Read():
        raise Undecoded("cannot read the file")
    image = reader.GetImage()
    fmt = image.GetPixelFormat()
    buffer = image.GetBuffer()
    if not buffer:
        raise Undecoded("returned no pixels")
    raw = buffer.encode("utf-8", "surrogateescape")
    dataset = _read(path)
    dtype = np.dtype(f"<{'i' if fmt.GetPixelRepresentation() else 'u'}{(fmt.GetBitsAllocated() + 7) // 8}")
    shape = _shape(dataset)
    if fmt.GetBitsAllocated() == 1 and len(raw) * 8 < np.prod(shape) + 8:
        return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little", count=int(np.prod(shape))).reshape(shape)
    cells = np.frombuffer(raw, dtype)
    if cells.size != np.prod(shape):
        raise Undecoded(f"{len(raw)} bytes for {shape} cells of {dtype}")
    if len(shape) == 4 and image.GetPlanarConfiguration() == 1:
        return np.moveaxis(cells.reshape(shape[0], shape[3], *shape[1:3]), 1, -1)
    return cells.reshape(shape)


def _dcmtk(tool: str, *options: str) -> Callable[[str], NDArray[np.integer]]:
    def decode(path: str) -> NDArray[np.integer]:
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out.dcm")
            done = subprocess.run(
                [tool, *options, path, out], capture_output=True, text=True, timeout=SECONDS, check=False
            )
            if done.returncode:
                raise Undecoded(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else str(done.returncode))
            dataset = _read(out)
        if not hasattr(dataset, "NumberOfFrames"):
            dataset.NumberOfFrames = 1
        raw = dataset.PixelData
        if dataset.BitsAllocated == 1:
            count = int(np.prod(_shape(dataset)))
            return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little", count=count).reshape(_shape(dataset))
        frame_bytes = len(raw) // dataset.NumberOfFrames
        frames = [raw[frame_bytes * index : frame_bytes * (index + 1)] for index in range(dataset.NumberOfFrames)]
        return np.stack([_native(frame, dataset) for frame in frames])

    return decode


def _per_frame(one: Callable[[bytes, Dataset], NDArray[np.integer]]) -> Callable[[str], NDArray[np.integer]]:
    def decode(path: str) -> NDArray[np.integer]:
        dataset = _read(path)
        frames = [one(codestream, dataset) for codestream in _codestreams(dataset)]
        return np.stack(frames).reshape(_shape(dataset))

    return decode


def _jpegsof3(codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    import imagecodecs

    return _signed(imagecodecs.jpegsof3_decode(codestream), dataset)


def _rust_jpeg(codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    import micro_reader_codecs as rust

    shape = _shape(dataset)[1:]
    out = np.zeros(shape, _cell_type(dataset))
    width, height, samples, bits = rust.jpeg_decode_into(codestream, out.view(np.uint8).reshape(-1), "rgb")
    if (height, width, samples) != (*shape, 1)[:3] or (bits > 8) != (out.itemsize > 1):
        raise Undecoded(f"decoded as {height}x{width}x{samples} of {bits} bits")
    return out


def _jxl_oxide(codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    """jxl-oxide renders to the full range of 8 or 16 bits, the wider for more than 8: undone without loss."""
    import micro_reader_codecs as rust

    shape = _shape(dataset)[1:]
    try:
        out = np.zeros(shape, np.uint8)
        width, height, channels, bits = rust.jxl_decode_into(codestream, out.reshape(-1))
    except ValueError as error:
        if "does not fill" not in str(error):
            raise
        out = np.zeros(shape, np.uint16)
        width, height, channels, bits = rust.jxl_decode_into(codestream, out.view(np.uint8).reshape(-1))
    if (height, width, channels) != (*shape, 1)[:3]:
        raise Undecoded(f"decoded as {height}x{width}x{channels}")
    highest = np.iinfo(out.dtype).max
    samples = (out.astype(np.int64) * ((1 << bits) - 1) * 2 + highest) // (2 * highest)
    return _signed(samples.astype(out.dtype), dataset)


def _libjxl(codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    import imagecodecs

    return _signed(imagecodecs.jpegxl_decode(codestream), dataset)


def _native(raw: bytes, dataset: Dataset) -> NDArray[np.integer]:
    """Return the samples of one native frame (PS3.5 8.1.1), which may have padding behind it."""
    shape = _shape(dataset)[1:]
    if dataset.BitsAllocated == 1:
        return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little", count=int(np.prod(shape))).reshape(shape)
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        four = np.frombuffer(raw, np.uint8).reshape(shape[0], shape[1] // 2, 4)
        return np.stack(
            [four[..., :2].reshape(shape[:2]), *(np.repeat(four[..., plane], 2, axis=1) for plane in (2, 3))], axis=-1
        )
    cells = np.frombuffer(raw, _cell_type(dataset), count=int(np.prod(shape)))
    if len(shape) == 3 and dataset.PlanarConfiguration == 1:
        return np.moveaxis(cells.reshape(3, *shape[:2]), 0, -1)
    return cells.reshape(shape)


def _zlib(codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    inflater = zlib.decompressobj(-15)
    raw = inflater.decompress(codestream) + inflater.flush()
    if not inflater.eof or inflater.unused_data not in (b"", b"\0"):
        raise Undecoded(f"not one deflate stream: {len(inflater.unused_data)} bytes after it")
    return _native(raw, dataset)


def _ffmpeg(codec: str, codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    import av

    av.logging.set_level(av.logging.PANIC)
    context = av.CodecContext.create(codec, "r")
    context.thread_count = 1
    pictures = [*context.decode(av.Packet(codestream)), *context.decode(None)]
    if len(pictures) != 1:
        raise Undecoded("no picture came out")
    return _picture(pictures[0], dataset)


def _picture(picture: object, dataset: Dataset) -> NDArray[np.integer]:
    rows, columns = dataset.Rows, dataset.Columns
    if (picture.height, picture.width) != (rows, columns):
        raise Undecoded(f"decoded as {picture.height}x{picture.width}")
    kind = picture.format.name
    dtype = np.dtype("<u2" if any(bits in kind for bits in ("48", "64", "9", "10", "12", "14", "16")) else "u1")

    def plane(index: int, components: int) -> NDArray[np.integer]:
        source = picture.planes[index]
        lines = np.frombuffer(bytes(source), np.uint8).reshape(-1, source.line_size)[:rows]
        return lines[:, : columns * components * dtype.itemsize].copy().view(dtype)

    if kind.startswith("gray"):
        return plane(0, 1)
    if kind.startswith(("rgb24", "rgb48", "bgr24", "bgr48")):
        pixels = plane(0, 3).reshape(rows, columns, 3)
        return pixels[..., ::-1] if kind.startswith("bgr") else pixels
    if kind.startswith("gbrp"):
        return np.stack([plane(index, 1) for index in (2, 0, 1)], axis=-1)
    if kind.startswith(("yuv444p", "yuvj444p")):
        return np.stack([plane(index, 1) for index in range(3)], axis=-1)
    if kind == "yuvj422p":  # half as much chroma along the rows
        chroma = [np.repeat(plane(index, 1), 2, axis=1)[:, :columns] for index in (1, 2)]
        return np.stack([plane(0, 1), *chroma], axis=-1)
    raise Undecoded(f"pixel format {kind}")


def _ffmpeg_jpeg(codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    return _signed(_ffmpeg("mjpeg", codestream, dataset), dataset)


def _ffmpeg_jpegls(codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    """FFmpeg shifts samples up to the top of their cells; the precision is in the frame header (T.87 C.2.2)."""
    array = _ffmpeg("jpegls", codestream, dataset)
    precision = codestream[codestream.index(b"\xff\xf7") + 4]
    return _signed(array >> (array.itemsize * 8 - precision), dataset)


def _ffmpeg_jpeg2000(codestream: bytes, dataset: Dataset) -> NDArray[np.integer]:
    """FFmpeg shifts samples up and adds half the range to signed ones; both are in SIZ Ssiz (T.800 A.5.1)."""
    array = _ffmpeg("jpeg2000", codestream, dataset)
    size = codestream[codestream.index(b"\xff\x51") + 40]
    signed, precision = size >> 7, (size & 127) + 1
    array = array.astype(np.int32) >> (array.itemsize * 8 - precision)
    return array - (signed << (precision - 1))


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder: its code base, what it reads, and what must be installed."""

    name: str
    code_base: str
    syntaxes: tuple[str, ...]
    decode: Callable[[str], NDArray[np.integer]]
    needs: tuple[str, ...]

    @property
    def missing(self) -> str:
        """What is not installed here: Python modules, or commands written with a leading ``$``."""
        lacking = [
            need
            for need in self.needs
            if not (shutil.which(need[1:]) if need.startswith("$") else importlib.util.find_spec(need))
        ]
        return ", ".join(lacking)


_PYLIBJPEG = _pydicom("pylibjpeg")
_PYDICOM_GDCM = _pydicom("gdcm")
ALL = (
    Decoder("pylibjpeg-libjpeg", "libjpeg", (*DCT, *JPEG_LOSSLESS, *JPEG_LS), _PYLIBJPEG, ("libjpeg", "pylibjpeg")),
    Decoder("pylibjpeg-openjpeg", "openjpeg", (*J2K, *HTJ2K), _PYLIBJPEG, ("openjpeg", "pylibjpeg")),
    Decoder("pylibjpeg-rle", "pylibjpeg-rle", (RLE,), _PYLIBJPEG, ("rle", "pylibjpeg")),
    Decoder("pydicom-rle", "pydicom", (RLE,), _pydicom("pydicom"), ()),
    Decoder("pydicom-native", "pydicom", (NATIVE,), _pydicom(""), ()),
    Decoder("pyjpegls", "charls", JPEG_LS, _pydicom("pyjpegls"), ("jpeg_ls",)),
    Decoder("gdcm-native", "gdcm", (NATIVE,), _gdcm, ("gdcm",)),
    Decoder("gdcm-rle", "gdcm", (RLE,), _gdcm, ("gdcm",)),
    Decoder("gdcm-jpeg", "ijg", (*DCT, *JPEG_LOSSLESS), _gdcm, ("gdcm",)),
    Decoder("gdcm-jpegls", "charls", JPEG_LS, _gdcm, ("gdcm",)),
    Decoder("gdcm-jpeg2000", "openjpeg", (*J2K, *HTJ2K), _gdcm, ("gdcm",)),
    Decoder("pydicom-gdcm-jpeg", "ijg", (*DCT, *JPEG_LOSSLESS), _PYDICOM_GDCM, ("gdcm",)),
    Decoder("pydicom-gdcm-jpegls", "charls", JPEG_LS, _PYDICOM_GDCM, ("gdcm",)),
    Decoder("pydicom-gdcm-jpeg2000", "openjpeg", J2K, _PYDICOM_GDCM, ("gdcm",)),
    Decoder("dcmconv", "dcmtk", (NATIVE,), _dcmtk("dcmconv", "+ti"), ("$dcmconv",)),
    Decoder("dcmdjpeg", "ijg", (*DCT, *JPEG_LOSSLESS), _dcmtk("dcmdjpeg", "+cn"), ("$dcmdjpeg",)),
    Decoder("dcmdjpls", "charls", JPEG_LS, _dcmtk("dcmdjpls"), ("$dcmdjpls",)),
    Decoder("dcmdrle", "dcmtk", (RLE,), _dcmtk("dcmdrle"), ("$dcmdrle",)),
    Decoder("jpegsof3", "jpegsof3", JPEG_LOSSLESS, _per_frame(_jpegsof3), ("imagecodecs",)),
    Decoder("jpeg-decoder", "jpeg-decoder", (*DCT, *JPEG_LOSSLESS), _per_frame(_rust_jpeg), ("micro_reader_codecs",)),
    Decoder("ffmpeg-jpeg", "ffmpeg", (*DCT, *JPEG_LOSSLESS), _per_frame(_ffmpeg_jpeg), ("av",)),
    Decoder("ffmpeg-jpegls", "ffmpeg", JPEG_LS, _per_frame(_ffmpeg_jpegls), ("av",)),
    Decoder("ffmpeg-jpeg2000", "ffmpeg", (*J2K, *HTJ2K), _per_frame(_ffmpeg_jpeg2000), ("av",)),
    Decoder("jxl-oxide", "jxl-oxide", JPEG_XL, _per_frame(_jxl_oxide), ("micro_reader_codecs",)),
    Decoder("libjxl", "libjxl", JPEG_XL, _per_frame(_libjxl), ("imagecodecs",)),
    Decoder("zlib", "zlib", (DEFLATED_FRAME,), _per_frame(_zlib), ()),
)
BY_NAME = {decoder.name: decoder for decoder in ALL}


def for_syntax(uid: str) -> list[Decoder]:
    """Return the decoders that know transfer syntax `uid`, installed or not."""
    return [decoder for decoder in ALL if uid in decoder.syntaxes]


# The child process: requests and answers are pickles with their length before them.


def _send(stream: object, message: object) -> None:
    data = pickle.dumps(message)
    stream.write(struct.pack("<Q", len(data)) + data)
    stream.flush()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not get between the answers
    while header := sys.stdin.buffer.read(8):
        which, path = pickle.loads(sys.stdin.buffer.read(*struct.unpack("<Q", header)))
        try:
            answer: object = BY_NAME[which].decode(path)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is its answer
            answer = f"{type(error).__name__}: {error}"
        _send(answers, answer)


class Child:
    """A process in which decoders run; started when needed, again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, decoder: Decoder, path: Path) -> NDArray[np.integer]:
        """Return raw samples of shape (frames, rows, columns[, samples]).

        Raises
        ------
        Undecoded
            The decoder refused, failed, ended its process or took more than a minute.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        _send(self._process.stdin, (decoder.name, os.fspath(path)))
        answer = self._answer()
        if isinstance(answer, str):
            raise Undecoded(answer)
        return answer

    def _answer(self) -> object:
        pipe = self._process.stdout
        if not select.select([pipe], [], [], SECONDS)[0]:
            self.close()
            raise Undecoded(f"no answer after {SECONDS} s")
        header = pipe.read(8)
        if len(header) < 8:
            code = self._process.wait()
            self.close()
            raise Undecoded(f"the process ended with {code}")
        return pickle.loads(pipe.read(*struct.unpack("<Q", header)))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process = None


def installed(decoders: Iterable[Decoder]) -> list[Decoder]:
    """Return those of `decoders` that can be used here."""
    return [decoder for decoder in decoders if not decoder.missing]


if __name__ == "__main__":
    _serve()
