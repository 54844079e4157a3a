"""One tar file of samples, the same byte for byte whoever writes it and when; under its name when it is complete."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Self

from gpuenc.dicom.atomic import AtomicFile
from gpuenc.dicom.digests import file_digest, xxh3_128
from gpuenc.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

_BLOCK = tarfile.BLOCKSIZE
# Two blocks of zeros end an archive (POSIX.1-2017, pax, ustar).
_END = bytes(2 * _BLOCK)


class TarShard:
    """A tar file being written; a context manager that leaves nothing behind unless `finish` was called.

    Parameters
    ----------
    path : Path
        Its name to be.
    overwrite : bool
        Replace what an interrupted job left under this name.
    token : str
        As for `AtomicFile`.

    Attributes
    ----------
    samples, size_bytes : int
        In it so far.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, token: str = "") -> None:
        self._out = AtomicFile(path, overwrite=overwrite, token=token)
        self._digest = xxh3_128()
        self.samples = 0
        self.size_bytes = len(_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.abort()

    @staticmethod
    def size_of(members: Mapping[str, bytes]) -> int:
        """Return how many bytes of the file a sample takes."""
        return sum(_BLOCK + (len(data) + _BLOCK - 1) // _BLOCK * _BLOCK for data in members.values())

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Write a sample: its members, named ``key.extension``, in their order.

        Raises
        ------
        DestinationError
            ``disk-full`` or ``destination-unwritable``.
        """
        for extension, data in members.items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size, info.mode = len(data), 0o644  # and nobody's, from the beginning of time
            self._write(info.tobuf(tarfile.USTAR_FORMAT))
            self._write(data)
            self._write(bytes(-len(data) % _BLOCK))
        self.samples += 1
        self.size_bytes += self.size_of(members)

    def finish(self) -> str:
        """Complete it, read it back and give it its name; return its XXH3-128.

        Raises
        ------
        DestinationError
            As above, ``destination-exists``, or ``read-back-mismatch``.
        """
        self._write(_END)
        written = self._out.flushed()
        with self._out.errors():
            found = file_digest(written)
        if found != self._digest.hexdigest():
            raise DestinationError("the shard is not what was written to it", code="read-back-mismatch")
        self._out.publish()
        return found

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        with self._out.errors():
            self._out.file.write(data)
