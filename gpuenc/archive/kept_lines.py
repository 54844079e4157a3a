"""How a journal keeps the line of an outcome: deflated, with what such lines have in common known beforehand.

A journal of 10⁸ files is as long as its lines. Zlib's format (RFC 1950) says which dictionary was used, and has a
checksum of the text.
"""

from __future__ import annotations

import zlib

# What deflate need not spell out. Part of a journal's format: it must never change, whatever records come to hold.
_DICTIONARY = (
    b'imagecodecs openjpeg cuda-htj2k 1.2.840.10008.1.2.4.90 1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.5 "skipped" '
    b'"failed" "copied" "reason": "already-encoded" "not-dicom" "no-pixel-data" "unreadable-source" "MR" "CR" "DX" '
    b'{"source": "/", "status": "encoded", "destination": "/.dcm", "reason": "", "message": "", '
    b'"source_syntax": "1.2.840.10008.1.2.1", "target_syntax": "1.2.840.10008.1.2.4.201", '
    b'"plugins": {"nvimgcodec": 1}, "fallbacks": {}, "frames": 1, "bytes_in": 52, "bytes_out": 20, '
    b'"pixel_bytes": 524288, "seconds": 0.00, "verified": true, "modality": "CT", "finished_s": 1795, "worker": 1, '
    b'"stage_seconds": {"read": 0.000, "encode": 0.000, "verify": 0.000, "write": 0.000}, "crc32": ["01234567"], '
    b'"source_digest": "89abcdef", "output_digest": "", "source_mtime_ns": 17, "output_mtime_ns": 18, '
    b'"run": "-1", "source_etag": "", "output_etag": ""}'
)
# A window no wider than the dictionary and a usual line, and little memory: beginning is what costs time.
_WINDOW_BITS, _MEMORY_LEVEL = 11, 3
_BEGUN = zlib.compressobj(6, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
# Longer than any line; what says that it is longer is none.
_MOST_BYTES = 1 << 26


def kept(line: str) -> bytes:
    """Return what stands for a line."""
    deflate = _BEGUN.copy()
    return deflate.compress(line.encode()) + deflate.flush()


def line_of(found: object) -> str:
    """Return the line that a journal's column holds, empty where there is none; earlier versions kept it as it is."""
    if isinstance(found, str):
        return found
    if not isinstance(found, bytes):
        return ""
    inflate = zlib.decompressobj(_WINDOW_BITS, _DICTIONARY)
    try:
        line = inflate.decompress(found, _MOST_BYTES)
        return line.decode() if inflate.eof else ""
    except (zlib.error, UnicodeDecodeError):
        return ""
