"""`Encoder`: pydicom's class over the batched engine, and `get_encoder`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from pydicom.pixels.encoders.base import Encoder as PydicomEncoder
from pydicom.uid import UID

from gpuenc import devices, engine, measured
from gpuenc.dicom.arrays import outside_message
from gpuenc.dicom.decoding import frame_decoder
from gpuenc.dicom.description import pixel_options
from gpuenc.dicom.layouts import check_name
from gpuenc.dicom.modules import device_of, plugin_of, why_not
from gpuenc.dicom.request import Request, request
from gpuenc.errors import (
    DecodeFailed,
    DeviceUnavailable,
    EncodeFailed,
    FormatNotAllowed,
    GpuencError,
    InvalidOption,
    InvalidPixels,
    ValuesOutsideBitsStored,
)
from gpuenc.frames import Encoded, Failure
from gpuenc.keywords import CODEC, PIXELS, refuse_unknown
from gpuenc.plugins import is_by_label
from gpuenc.syntaxes import BY_UID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from pydicom.dataset import Dataset

    from gpuenc.dicom.request import Source
    from gpuenc.frames import Frame
    from gpuenc.plugins import Plugin
    from gpuenc.verification import Verify

_KNOWN = CODEC | PIXELS | {"layout"}
_OWN = ("index", "encoding_plugin", "decoding_plugin", "validate", "verify", "device", "device_memory_bytes")
_NOT_FOREIGN = ("gpuenc.", "pydicom.")
_EXTRAS = {"pylibjpeg": "pylibjpeg", "pyjpegls": "pyjpegls", "gdcm": "gdcm"}


class Encoder(PydicomEncoder):
    """Encodes frames to one transfer syntax: pydicom's `Encoder`, with batches, lanes and checks behind it.

    ``Encoder(uid)`` has no plug-ins, as in pydicom; `get_encoder` returns encoders that have them. Instances may be
    used by several threads at once, be pickled, and cross a fork.

    Parameters
    ----------
    uid : pydicom.uid.UID
        The Transfer Syntax UID to encode to.
    """

    def __init__(self, uid: UID) -> None:
        super().__init__(UID(uid))
        self._paths: dict[str, tuple[str, str]] = {}
        self._modules: dict[str, ModuleType] = {}

    def __reduce__(self) -> tuple[Callable[..., Encoder], tuple[str, dict[str, tuple[str, str]]]]:
        return _rebuilt, (str(self.UID), self._paths)

    @property
    def name(self) -> str:
        """Name of the encoder, as pydicom 2 gave it: ``"RLELosslessEncoder"``."""
        return f"{self.UID.keyword}Encoder"

    def add_plugin(self, label: str, import_path: tuple[str, str]) -> None:
        """Add a plug-in behind those there are.

        Parameters
        ----------
        label : str
            A label that this encoder does not have yet.
        import_path : tuple of str
            Module and name of its function, such as ``("gpuenc.cpu.codecs", "encode_frame")``. A module with a
            `BatchEncoder` is given batches; see `gpuenc.plugins`.

        Raises
        ------
        ModuleNotFoundError
            The module cannot be found.
        AttributeError
            The module lacks the function, ``is_available`` or ``ENCODER_DEPENDENCIES``.
        ValueError
            The label is taken, or the plug-in does not know this transfer syntax.
        """
        super().add_plugin(label, import_path)
        self._paths[label] = import_path
        self._modules[label] = import_module(import_path[0])

    def remove_plugin(self, label: str) -> None:
        """Remove plug-in `label`.

        Raises
        ------
        ValueError
            There is no such plug-in.
        """
        super().remove_plugin(label)
        self._paths.pop(label, None)
        self._modules.pop(label, None)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the available plug-ins in the order in which they are tried, those used by label only included."""
        return tuple(self._available)

    @property
    def missing_dependencies(self) -> list[str]:
        """One sentence for each plug-in that cannot be used: what it needs and how to install that."""
        lines = []
        for line in super().missing_dependencies:
            label = line.split(" - ")[0]
            why = getattr(self._modules.get(label), "why_unavailable", None)
            if why:
                lines.append(f"{label} - {why(self.UID)}")
            else:
                extra = _EXTRAS.get(label)
                lines.append(f"{line}: pip install 'gpuenc[{extra}]'" if extra else line)
        return lines

    @staticmethod
    def kwargs_from_ds(ds: Dataset) -> dict[str, Any]:
        """Return the pixel options that `ds` states, as pydicom 2 did.

        Raises
        ------
        AttributeError
            Required elements are missing.
        ValueError
            Required elements are empty.
        """
        return pixel_options(ds)

    def encode(
        self,
        src: Source,
        idx: int | None = None,
        encoding_plugin: str = "",
        decoding_plugin: str = "",
        *,
        index: int | None = None,
        validate: bool = True,
        verify: bool | Verify = False,
        device: str | int = "auto",
        device_memory_bytes: int | None = None,
        **kwargs: Any,
    ) -> bytes:
        """Return one encoded frame.

        Parameters
        ----------
        src : bytes, bytearray, memoryview, array or pydicom.dataset.Dataset
            Native little-endian cells; samples of shape (rows, columns), (rows, columns, samples),
            (frames, rows, columns), (frames, rows, columns, samples) or (frames, samples, rows, columns), contiguous or
            not, dtype (u)int8/16/32, of numpy or, on the host or a GPU, of any library with
            ``__cuda_array_interface__`` or DLPack; or a dataset, whose pixel data may be native or compressed.
        idx, index : int, optional
            Which frame, from 0; required where there is more than one. `idx` is pydicom 2's name.
        encoding_plugin, decoding_plugin : str
            Labels of the only plug-ins to use. By default all are tried in their order.
        validate : bool
            Check the description of the samples against `src` and against the syntax's table in PS3.5 8.2. Samples
            that do not fit Bits Stored are refused either way.
        verify : bool or {'none', 'all', 'independent'}
            Decode the codestream and compare every sample (lossless targets); `gpuenc.verification` says who does it.
        device : {'auto', 'fastest', 'cpu', 'gpu'} or int
            Where to encode; see `gpuenc.devices.choice`. An array on a GPU is encoded on that GPU.
        device_memory_bytes : int, optional
            Memory of each GPU; by default that of the variable ``GPUENC_DEVICE_MEMORY``, or a quarter of what is free.
        **kwargs
            pydicom's pixel options (`rows`, `bits_stored`, …) and the codec's: `j2k_cr`, `j2k_psnr`, `jls_error`,
            `quality`, `lossless`. What shape and dtype of an array tell may be left out. ``layout``, one of ``"HW"``,
            ``"HWC"``, ``"CHW"``, ``"NHW"``, ``"NHWC"``, ``"NCHW"``, names the axes of an array whose shape leaves them
            open, such as three colours or three frames. Other names are refused, unless a plug-in that is not pydicom's
            or ours, and may know them, is chosen or could be.

        Returns
        -------
        bytes
            The codestream of one frame; of odd length where the syntax pads at the fragment.

        Raises
        ------
        ValueError, AttributeError, TypeError
            The source, its description or an option is wrong; or a dataset would not be true of its codestream, since
            colours change or overlays embedded in its cells are lost, which `gpuenc.compress` can do.
        RuntimeError
            No plug-in is available, or each of them failed; the message holds what each said.
        """
        if index is None:
            index = idx
        if index is not None and index < 0:
            raise ValueError("'index' must be greater than or equal to 0")
        if self.UID not in BY_UID:
            return super().encode(
                cast("bytes", src), index=index, validate=validate, encoding_plugin=encoding_plugin, **kwargs
            )
        asked = self._request(src, encoding_plugin, validate, kwargs)
        frames = asked.frames
        if frames.number_of_frames > 1 and index is None:
            raise ValueError("The 'index' of the frame to be encoded is required for multi-frame pixel data")
        index = index or 0
        if index >= frames.number_of_frames:
            raise EncodeFailed(f"There is no frame {index}: the pixel data has {frames.number_of_frames} frames")
        chain = self.chain(
            encoding_plugin, asked.options, device, device_memory_bytes=device_memory_bytes, near=asked.on_device
        )
        results = _results(iter([frames.frame(index)]), asked, chain, decoding_plugin, 1, verify)
        return next(_codestreams(results, asked))

    def iter_encode(
        self,
        src: Source,
        encoding_plugin: str = "",
        decoding_plugin: str = "",
        *,
        validate: bool = True,
        verify: bool | Verify = False,
        device: str | int = "auto",
        device_memory_bytes: int | None = None,
        threads: int | None = None,
        memory_bytes: int = engine.DEFAULT_MEMORY_BYTES,
        **kwargs: Any,
    ) -> Iterator[bytes]:
        """Yield each encoded frame, in order.

        Frames are taken from `src` as they are needed, encoded in batches on `threads` lanes, and let go. Closing
        the iterator, or letting go of it, stops the lanes.

        Parameters
        ----------
        src, encoding_plugin, decoding_plugin, validate, verify, device, device_memory_bytes, **kwargs
            As for `encode`.
        threads : int, optional
            Most lanes; by default one per usable core.
        memory_bytes : int
            Bound on the memory of all frames between `src` and the consumer.

        Yields
        ------
        bytes
            The codestream of one frame.

        Raises
        ------
        ValueError, AttributeError, TypeError, RuntimeError
            As `encode`, when the frame that it concerns would be yielded.
        """
        if self.UID not in BY_UID:
            yield from super().iter_encode(
                cast("bytes", src), validate=validate, encoding_plugin=encoding_plugin, **kwargs
            )
            return
        asked = self._request(src, encoding_plugin, validate, kwargs)
        chain = self.chain(
            encoding_plugin, asked.options, device, device_memory_bytes=device_memory_bytes, near=asked.on_device
        )
        results = _results(iter(asked), asked, chain, decoding_plugin, threads, verify, memory_bytes)
        yield from _codestreams(results, asked)

    def chain(
        self,
        label: str = "",
        options: Mapping[str, Any] | None = None,
        device: str | int = "auto",
        *,
        device_memory_bytes: int | None = None,
        near: int | None = None,
    ) -> list[Plugin]:
        """Return the plug-ins that are tried, in order, ready for `engine.encode_frames`.

        Parameters
        ----------
        label : str
            The only one to use; empty for all that are available, but for those that are used by label only.
        options : mapping, optional
            Keywords for plug-ins written for pydicom.
        device, device_memory_bytes
            As for `encode`.
        near : int, optional
            The GPU on which the pixels are, which is taken where `device` leaves that open.

        Raises
        ------
        RuntimeError
            None is available, or a GPU was demanded and there is none; the message says what to do.
        ValueError
            There is no plug-in of that label, no such device, or the pixels are on another GPU.
        """
        where = devices.choice(device)
        chosen = self._chosen(label)
        on_gpu = [name for name in chosen if device_of(self._modules[name]) == "gpu"]
        if isinstance(where, int):
            if near is not None and near != where:
                raise InvalidPixels(
                    f"The pixels are on GPU {near}, and the encoder is asked for on GPU {where}", code="other-device"
                )
            on_gpu = [name for name in on_gpu if not why_not(self._modules[name], self.UID, where)]
        if where not in ("auto", "fastest", "cpu") and not on_gpu:
            gpu = [name for name, module in self._modules.items() if device_of(module) == "gpu"]
            first = where if isinstance(where, int) else 0
            whys = "; ".join(
                f"{name} - {why}" for name in gpu if (why := why_not(self._modules[name], self.UID, first))
            )
            raise DeviceUnavailable(
                f"'{self.UID.name}' cannot be encoded on a GPU here: {whys or 'no plug-in for it uses one'}"
            )
        index = where if isinstance(where, int) else near
        found = [
            plugin_of(name, function, self._modules[name], options or {}, str(self.UID), index, device_memory_bytes)
            for name, function in chosen.items()
            if device_of(self._modules[name]) != "gpu" or (where != "cpu" and name in on_gpu)
        ]
        # Pixels that are on a GPU already are encoded there.
        return measured.ranked(BY_UID[self.UID].name, found) if where == "fastest" and near is None else found

    def _chosen(self, label: str) -> dict[str, Any]:
        """Return the plug-in of that label, or all that may be tried of themselves, by label."""
        chosen = self._validate_plugins(label)
        return chosen if label else {name: chosen[name] for name in chosen if not is_by_label(self._modules[name])}

    def _request(self, src: Source, label: str, validate: bool, options: Mapping[str, Any]) -> Request:
        chosen = self._chosen(label)
        if all(self._modules[name].__name__.startswith(_NOT_FOREIGN) for name in ([label] if label else self._modules)):
            refuse_unknown("the encoder", options, _KNOWN, _OWN)
        check_name(str(options.get("layout") or ""))
        try:
            return request(BY_UID[self.UID], self.UID, src, validate=validate, options=options)
        except InvalidOption as error:
            # In pydicom it is each plug-in that objects to an option.
            raise InvalidOption(_all_said("\n  ".join(f"{name}: {error}" for name in chosen))) from None


def _results(
    frames: Iterator[Frame],
    asked: Request,
    chain: list[Plugin],
    decoding_plugin: str,
    threads: int | None,
    verify: bool | Verify,
    memory_bytes: int = engine.DEFAULT_MEMORY_BYTES,
) -> Iterator[Encoded | Failure]:
    return engine.encode_frames(
        frames,
        asked.target,
        chain,
        threads=1 if asked.frames.number_of_frames == 1 else threads,
        memory_bytes=memory_bytes,
        verify=verify,
        decode=frame_decoder(decoding_plugin),
    )


def _codestreams(results: Iterator[Encoded | Failure], asked: Request) -> Iterator[bytes]:
    for result in results:
        if isinstance(result, Failure):
            if asked.is_array and result.code == ValuesOutsideBitsStored.code:
                raise ValuesOutsideBitsStored(outside_message(asked.frames.frame(result.ref.index).format))
            raise error_of(result)
        yield result.codestream


def error_of(failure: Failure) -> GpuencError:
    """Return what pydicom would raise where `failure` happened."""
    kinds = (ValuesOutsideBitsStored, FormatNotAllowed, DecodeFailed, InvalidPixels)
    kind = {kind.code: kind for kind in kinds}.get(failure.code, InvalidPixels)
    if failure.code in {*(kind.code for kind in kinds), "other-device"}:
        return kind(failure.reason, code=failure.code)
    return EncodeFailed(_all_said(failure.reason), code=failure.code)


def _all_said(reasons: str) -> str:
    return f"Unable to encode as exceptions were raised by all available plugins:\n  {reasons}"


def _rebuilt(uid: str, paths: Mapping[str, tuple[str, str]]) -> Encoder:
    encoder = Encoder(UID(uid))
    encoder.add_plugins(list(paths.items()))
    return encoder
