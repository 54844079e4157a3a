"""Places that are no files: objects in a store, and a DICOMweb server. Only names here; nothing is asked of anybody.

Within a job an address is a `Path` whose first part is its scheme, ``s3:/bucket/key``, as `Path` makes it of
``s3://bucket/key``: what counts files, shares them out and remembers them treats it as any other name. No path of this
machine looks like that once it is absolute. In records and messages stands the address as people write it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpuenc.errors import InvalidOption

# Objects of S3, Google Cloud Storage and Azure Blob Storage; DICOMweb servers.
STORES = ("s3", "gs", "az")
SERVERS = ("https", "http")
_STORE_BEGINNINGS = tuple(f"{scheme}:/" for scheme in STORES)
_SERVER_BEGINNINGS = tuple(f"{scheme}:/" for scheme in SERVERS)
_BEGINNINGS = _STORE_BEGINNINGS + _SERVER_BEGINNINGS
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# One that was written to a host, whatever else it is.
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address."""
    return os.fspath(path).startswith(_BEGINNINGS)


def is_object(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of an object in a store."""
    return os.fspath(path).startswith(_STORE_BEGINNINGS)


def is_server(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a DICOMweb server, or of a place that a file has there."""
    return os.fspath(path).startswith(_SERVER_BEGINNINGS)


def text_of(path: str | os.PathLike[str]) -> str:
    """Return a path as people write it."""
    text = os.fspath(path)
    return text.replace(":/", "://", 1) if text.startswith(_BEGINNINGS) else text


def place(text: str) -> Path:
    """Return what a source or an output on the command line means: a path, an address, or a ``file://`` path.

    Raises
    ------
    InvalidOption
        It cannot be an address; above all, it holds credentials. What was given is not repeated.
    """
    scheme = _SCHEME.match(text)
    if not scheme:
        # A folder of this machine with such a name stays one.
        return Path(text).absolute() if text.startswith(_BEGINNINGS) else Path(text)
    kind = scheme[1].lower()
    if kind == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise InvalidOption("file:// takes an absolute path of this machine: file:///folder")
        return Path(unquote(parts.path, errors="surrogateescape"))
    if kind not in STORES:
        raise InvalidOption(f"{kind}:// is not known: use s3://, gs://, az://, file:// or a path")
    path = Path(f"{kind}://{text[scheme.end() :]}")
    demand_plain(path)
    return path


def server(text: str) -> Path:
    """Return the address of a DICOMweb server.

    Raises
    ------
    InvalidOption
        It is none, or holds credentials. What was given is not repeated.
    """
    path = Path(text)
    if not text.lower().startswith(("https://", "http://")) or not is_server(path):
        raise InvalidOption("--stow takes the address of a DICOMweb server: https://host/dicom-web")
    demand_plain(path)
    return path


def demand_plain(path: Path) -> None:
    """Check that an address has a bucket or host, and nothing in it that must not be told.

    Raises
    ------
    InvalidOption
        It has none, or holds a user, a password, a query or a fragment.
    """
    parts = path.parts
    if len(parts) < 2 or not _HOST.fullmatch(parts[1]):
        raise InvalidOption(
            "an address is scheme://bucket/prefix or scheme://host/path, without user or password: "
            "credentials come from the environment"
        )
    if is_server(path) and re.search(r"[?#@]", os.fspath(path)):
        raise InvalidOption("the server's address holds a query: credentials come from the environment")
    if is_object(path) and re.search(r"\?\S*(sig|token|key|cred|secret)\S*=", os.fspath(path), re.IGNORECASE):
        raise InvalidOption("the address is a signed one: credentials come from the environment")
    if ".." in parts:
        raise InvalidOption("an address has no '..' in it")


def bucket_and_key(path: Path) -> tuple[str, str, str]:
    """Return scheme, bucket and key of an object's address."""
    scheme, bucket, *key = path.parts
    return scheme.removesuffix(":"), bucket, "/".join(key)


def inside(path: Path, folder: Path) -> bool:
    """Whether an address is that of a place, or of something below it."""
    return path == folder or folder in path.parents
