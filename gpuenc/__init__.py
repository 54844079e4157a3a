"""gpuenc: DICOM pixel data compression in bulk.

>>> import gpuenc
>>> encoder = gpuenc.get_encoder("1.2.840.10008.1.2.4.201")
>>> codestreams = list(encoder.iter_encode(dataset))
"""

from gpuenc._version import __version__

__all__ = ["__version__"]
