"""Bytes of single frames out of files that an index knows: no header is read, and no other frame."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from gpuenc.dicom.regular import regular
from gpuenc.dicom.source import DicomFile
from gpuenc.errors import GpuencError, IndexMismatch, SourceError
from gpuenc.frames import Coded, Frame, FrameRef

if TYPE_CHECKING:
    from gpuenc.pipelines.records import Record

_MOST_OPEN = 32


class Files:
    """The files that were read last, open; for any number of threads of one process."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _File] = OrderedDict()
        self._lock = threading.Lock()

    def frame(self, record: Record, index: int) -> Frame:
        """Return frame `index`, from 0, of a file: its codestream, or its native cells.

        Raises
        ------
        IndexMismatch
            ``index-stale``: the file is not as it was when the index was built, is gone, or is none any more.
        SourceError
            ``truncated``: it ends inside the frame all the same.
        """
        file = self._file(record)
        try:
            frame = _read(file, record, index)
        except GpuencError:
            file.check(record)  # what a changed file lacks is not what is wrong with it
            raise
        file.check(record)
        return frame

    def close(self) -> None:
        """Close them, each once nobody reads from it any more."""
        with self._lock:
            self._open.clear()

    def _file(self, record: Record) -> _File:
        path = record.seen.path
        with self._lock:
            file = self._open.get(path)
            if file is not None:
                self._open.move_to_end(path)
        # A file that was deleted, or renamed over, can be read for as long as it is open, and is not the archive's.
        if file is not None and file.has_its_name():
            return file
        file = _File(path)
        file.check(record)
        with self._lock:
            self._open[path] = file
            if len(self._open) > _MOST_OPEN:
                # Not closed here: another thread may be reading from it.
                self._open.popitem(last=False)
        return file


def _read(file: _File, record: Record, index: int) -> Frame:
    ref, fmt = FrameRef(record.seen.path, index), record.format
    if record.through:
        frame = file.through(index)
        return Frame(ref, frame.format, frame.pixels, frame.bit_offset)
    if record.native_at < 0:
        codestream = b"".join(file.read(at, count) for at, count in record.pieces_of(index))
        return Frame(ref, fmt, Coded(record.syntax, codestream))
    first_bit = index * fmt.frame_bits
    at, bit_offset = record.native_at + (first_bit >> 3), first_bit & 7
    # Of its own memory, which who gets the frame may write to.
    cells = np.frombuffer(bytearray(file.read(at, (bit_offset + fmt.frame_bits + 7) >> 3)), np.uint8)
    return Frame(ref, fmt, cells, bit_offset)


class _File:
    """One open file, closed when nobody has it any more."""

    def __init__(self, path: str) -> None:
        self._number = -1
        try:
            # A pipe that has the file's name by now would keep everybody waiting.
            self._number = regular(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
            self._opened = os.fstat(self._number)
        except (FileNotFoundError, NotADirectoryError):
            raise IndexMismatch("the file is gone since the index was built") from None
        except OSError as error:
            if _is_no_file(path):
                raise IndexMismatch("something that is no file has the file's name since the index was built") from None
            raise SourceError(f"the file cannot be read: {os.strerror(error.errno or 0)}") from None
        self._path = path
        self._source: DicomFile | None = None
        self._lock = threading.Lock()

    def __del__(self) -> None:
        if self._number >= 0:
            os.close(self._number)
        if getattr(self, "_source", None) is not None:
            self._source.close()  # type: ignore[union-attr]

    def has_its_name(self) -> bool:
        """Whether its path still leads to it."""
        try:
            return os.path.samestat(os.stat(self._path), self._opened)
        except OSError:
            return False  # opening it again says why

    def read(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at`."""
        try:
            found = self._some(at, count)
            while len(found) < count:  # one read returns at most 2 GiB on Linux
                more = self._some(at + len(found), count - len(found))
                if not more:
                    raise SourceError("the file ends inside the frame", code="truncated")
                found += more
        except OSError as error:
            raise SourceError(f"the file cannot be read: {os.strerror(error.errno or 0)}") from None
        return found

    def check(self, record: Record) -> None:
        """Refuse a file that is not as the index has it."""
        now = os.fstat(self._number)
        if (now.st_size, now.st_mtime_ns) != (record.seen.size, record.seen.mtime_ns):
            raise IndexMismatch("the file changed since the index was built: on_stale='rebuild' reads it again")

    def through(self, index: int) -> Frame:
        """Return frame `index` of a file whose frames have no place of their own."""
        with self._lock:
            if self._source is None:
                # Not opened anew: another file may have the name by now, which `check` would not see.
                again = os.fdopen(os.dup(self._number), "rb", buffering=0)
                self._source = DicomFile(self._path, file=again)
            return self._source.frame(index)

    def _some(self, at: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._number, count, at)
        with self._lock:
            os.lseek(self._number, at, os.SEEK_SET)
            return os.read(self._number, count)


def _is_no_file(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
