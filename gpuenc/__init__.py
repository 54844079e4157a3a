"""gpuenc: DICOM pixel data compression in bulk.

The public names are imported when they are first used, so that ``import gpuenc`` itself costs nothing::

    encoder = gpuenc.get_encoder("1.2.840.10008.1.2.4.201")
    codestreams = list(encoder.iter_encode(dataset))

    gpuenc.compress(dataset, "htj2k-lossless")   # a whole dataset, attributes included
    gpuenc.install()                             # pydicom's own Dataset.compress uses these encoders
"""

from importlib import import_module

from gpuenc._version import __version__

# Type checkers know the name. To load `typing` takes longer than all else here, and Ctrl-C meanwhile is not ours yet.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuenc.datasets import compress
    from gpuenc.drop_in import install, uninstall
    from gpuenc.encoder import Encoder
    from gpuenc.errors import GpuencError
    from gpuenc.pipelines.dataset import FrameDataset
    from gpuenc.pipelines.write_dicom import write_dicom
    from gpuenc.registry import get_encoder

__all__ = [
    "Encoder",
    "FrameDataset",
    "GpuencError",
    "__version__",
    "compress",
    "get_encoder",
    "install",
    "uninstall",
    "write_dicom",
]

_HOMES = {
    "Encoder": "gpuenc.encoder",
    "FrameDataset": "gpuenc.pipelines.dataset",
    "GpuencError": "gpuenc.errors",
    "compress": "gpuenc.datasets",
    "get_encoder": "gpuenc.registry",
    "install": "gpuenc.drop_in",
    "uninstall": "gpuenc.drop_in",
    "write_dicom": "gpuenc.pipelines.write_dicom",
}


# Modules that are named in full, as in `gpuenc.errors.CODES`.
_MODULES = ("errors", "torch")


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"gpuenc.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gpuenc' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
