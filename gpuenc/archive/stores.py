"""Objects in S3, Google Cloud Storage and Azure Blob Storage: listed, read and written; the only importer of obstore.

Which account, which endpoint and which credentials is up to the environment (``AWS_…``, ``GOOGLE_…``, ``AZURE_…``).
Nothing of what the library says about a failure is passed on, since it quotes requests and answers: what is told is
one of our sentences, with the status and the code of the answer.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuenc.archive.addresses import bucket_and_key
from gpuenc.archive.stamp import Stamp
from gpuenc.dicom.digests import xxh3_128
from gpuenc.errors import DestinationError, JobError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

# An object of up to this size is written by one request, on the condition that nothing has its name.
SINGLE_BYTES = 16 << 20
# S3 takes 10,000 parts.
_MOST_PARTS = 9000
_PARTS_AT_ONCE = 4
_PIECE_BYTES = 4 << 20
_AT_ONCE = 16
_PAGE = 1000
_RETRIES = 5
_RETRY_S = 60.0
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
# Azure answers 409 to more than a name that is taken: a container that is being deleted, an archived blob.
_TAKEN = frozenset(("BlobAlreadyExists", "PreconditionFailed", "ConditionNotMet", "ConditionalRequestConflict"))
_NO_BUCKET = frozenset(("NoSuchBucket", "ContainerNotFound"))
_FULL = frozenset(("QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "StorageFull", "InsufficientStorage"))
# Without credentials in the environment, the library asks the machine's own metadata server for some.
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|metadata\.google\.internal|instance metadata")
_PLAIN_HTTP = re.compile(r"Generic (\w+) error.*\bBadScheme\b", re.DOTALL)
_ETAG = re.compile(r'(?:W/)?"?([\x21\x23-\x7e]{1,200})"?')


def demand_usable(paths: Sequence[Path]) -> None:
    """Check that the library is there, and that the environment says enough to open the stores of these objects.

    Raises
    ------
    JobError
        ``extra-missing``, ``store-denied``.
    """
    try:
        import obstore  # noqa: F401
    except ImportError:
        raise JobError("objects in a store need the extra: pip install 'gpuenc[cloud]'", code="extra-missing") from None
    for path in paths:
        _opened(path)


def demand_name(path: Path) -> None:
    """Check that an object which is given this name has it afterwards.

    Raises
    ------
    DestinationError
        ``store-name``: Azure takes ``\\`` for ``/``, and does not want a part of a name to end with a dot ("Naming and
        referencing containers, blobs, and metadata"), so that two names may be that of one blob.
    """
    scheme, _, key = bucket_and_key(path)
    if scheme == "az" and re.search(r"\\|\.(/|$)", key):
        raise DestinationError(
            "no blob has a name with '\\' in it, or a part of it that ends with '.'", code="store-name"
        )


@cache
def _store(scheme: str, bucket: str) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    made, prefix = {"s3": (S3Store, "AWS"), "gs": (GCSStore, "GOOGLE"), "az": (AzureStore, "AZURE")}[scheme]
    client: dict[str, Any] = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=120)}
    # Options given here take the place of those of the environment.
    if os.environ.get(f"{prefix}_ALLOW_HTTP", "").lower() in ("1", "true"):
        client["allow_http"] = True
    options: dict[str, Any] = {
        "retry_config": {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=_RETRY_S),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        },
        "client_options": client,
    }
    try:
        return made(bucket, **options)
    except Exception:  # noqa: BLE001 - it quotes the environment
        raise JobError(
            f"{scheme}:// cannot be used: what the environment says in {prefix}_… is wrong or not enough",
            code="store-denied",
        ) from None


def _opened(path: Path) -> tuple[Any, str]:
    scheme, bucket, key = bucket_and_key(path)
    return _store(scheme, bucket), key


@contextlib.contextmanager
def _told(kind: type[SourceError] | type[DestinationError]) -> Iterator[None]:
    """Turn what the library says into one of our errors, without any of its words."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.BaseError, OSError, ValueError) as error:
        if isinstance(error, SourceError | DestinationError):
            raise
        message, code = _explained(error, writing=kind is DestinationError)
        raise kind(message, code=code) from None


def _explained(error: BaseException, *, writing: bool) -> tuple[str, str]:
    """Return what a failure means, and its code."""
    from obstore import exceptions

    text = str(error)
    status, word = _STATUS.search(text), _CODE.search(text)
    if plain := _PLAIN_HTTP.match(text):
        name = {"S3": "AWS", "GCS": "GOOGLE"}.get(plain[1], "AZURE")
        return f"the store's address is http://, which is used only if {name}_ALLOW_HTTP=true is set", "store-denied"
    said = " ".join(found[1] for found in (status, word) if found)
    shown = f" ({said})" if said else ""
    number = int(status[1]) if status else 0
    if number == 507 or (word and word[1] in _FULL):
        return f"the store has no room{shown}", "store-full"
    taken = isinstance(error, exceptions.AlreadyExistsError | FileExistsError)
    if taken and (not word or word[1] in _TAKEN):
        return "an object has the output's name", "destination-exists"
    if isinstance(error, exceptions.PreconditionError):
        return "the object changed while it was read", "source-changed"
    denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError)
    if isinstance(error, denied) or number in (401, 403) or _NO_CREDENTIALS.search(text):
        return f"the store refuses it: wrong credentials, or none, or not allowed{shown}", "store-denied"
    if isinstance(error, exceptions.NotFoundError | FileNotFoundError) or number == 404:
        no_bucket = writing or (word and word[1] in _NO_BUCKET)
        return f"there is no such {'bucket' if no_bucket else 'object'}{shown}", "store-missing"
    if isinstance(error, exceptions.InvalidPathError | UnicodeError | ValueError):
        return "the name cannot be that of an object here", "store-name"
    if number >= 500 or number == 429 or "error sending request" in text or "error decoding" in text:
        return f"the store cannot be reached, or does not answer as it should{shown}", "store-unreachable"
    return f"the store has failed{shown}", "store-failed"


def _stamp(meta: Any) -> Stamp:
    # Lists give a time to the millisecond, and objects theirs to the second.
    seconds = int(meta["last_modified"].timestamp())
    return Stamp(meta["size"], max(0, seconds) * 10**9, meta["size"], etag=_plain(meta.get("e_tag")))


def _plain(etag: str | None) -> str:
    return found[1] if (found := _ETAG.fullmatch(etag or "")) else ""


def stamp_of(path: Path, *, writing: bool = False) -> Stamp | None:
    """Return size, time and ETag of an object, or None where there is none.

    Raises
    ------
    SourceError, DestinationError
        Which one `writing` decides: ``store-denied``, ``store-unreachable``, ``store-failed``.
    """
    store, key = _opened(path)
    import obstore

    if not key:
        return None
    try:
        with _told(DestinationError if writing else SourceError):
            return _stamp(obstore.head(store, key))
    except (SourceError, DestinationError) as error:
        if error.code == "store-missing":
            return None
        raise


def stamps_of(paths: Sequence[Path]) -> dict[Path, Stamp | None]:
    """Return the stamps of several objects, asked for side by side; None also for what cannot be known."""

    def one(path: Path) -> Stamp | None:
        with contextlib.suppress(SourceError, DestinationError):
            return stamp_of(path)
        return None

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="gpuenc-store") as pool:
        return dict(zip(paths, pool.map(one, paths), strict=True))


def listed(prefix: Path) -> Iterator[tuple[str, Stamp]]:
    """Yield key and stamp of every object below a prefix, in the order of the keys, a page at a time.

    Raises
    ------
    SourceError
        The store's, as for `stamp_of`; ``store-name``: a key on this page cannot be a path.
    """
    import obstore

    store, key = _opened(prefix)
    with _told(SourceError):
        for page in obstore.list(store, key or None, chunk_size=_PAGE):
            yield from ((meta["path"], _stamp(meta)) for meta in page)


def listed_here(prefix: Path) -> tuple[list[tuple[str, Stamp]], list[str]]:
    """Return the objects and the prefixes right below a prefix, all at once.

    Raises
    ------
    SourceError
        As for `listed`.
    """
    import obstore

    store, key = _opened(prefix)
    with _told(SourceError):
        found = obstore.list_with_delimiter(store, key or None)
        return [(meta["path"], _stamp(meta)) for meta in found["objects"]], list(found["common_prefixes"])


def piece_of(path: Path, stamp: Stamp, start: int, end: int) -> bytes:
    """Return the bytes of an object from `start` up to `end`.

    Raises
    ------
    SourceError
        The store's, as for `stamp_of`; ``source-changed``: it is not the one that the stamp is of.
    """
    import obstore

    store, key = _opened(path)
    with _told(SourceError):
        options: Any = {"range": (start, end)} | ({"if_match": _quoted(stamp.etag)} if stamp.etag else {})
        found = bytes(obstore.get(store, key, options=options).bytes())
    if len(found) != end - start:
        raise SourceError("the store has sent another number of bytes than it said", code="store-failed")
    return found


def fetch(path: Path, stamp: Stamp, file: BinaryIO | None, check: Callable[[], None]) -> str:
    """Read an object from its beginning to its end; return its XXH3-128.

    Parameters
    ----------
    path, stamp
        The object, and as what it must be found.
    file : binary file, optional
        What to write it to.
    check : callable
        Called after each piece; what it raises ends it.

    Raises
    ------
    SourceError
        The store's, as for `stamp_of`; ``source-changed``.
    OSError
        `file` cannot be written.
    """
    import obstore

    store, key = _opened(path)
    digest, done, tries = xxh3_128(), 0, 0
    while done < stamp.size_bytes:
        before = done
        try:
            with _told(SourceError):
                options: Any = {"range": {"offset": done}} if done else {}
                options |= {"if_match": _quoted(stamp.etag)} if stamp.etag else {}
                pieces = iter(obstore.get(store, key, options=options).stream(min_chunk_size=_PIECE_BYTES))
            while True:
                with _told(SourceError):
                    piece = next(pieces, None)
                check()
                if piece is None:
                    break
                data = memoryview(piece)
                done += len(data)
                digest.update(data)
                if file:
                    file.write(data)
        except SourceError as error:
            tries = tries + 1 if done == before else 0
            # One that breaks off goes on where it was, as long as there is some progress.
            if error.code not in ("store-unreachable", "store-failed") or tries > 1:
                raise
            continue
        if done != stamp.size_bytes:
            raise SourceError("the store has sent another number of bytes than it said", code="store-failed")
    return digest.hexdigest()


def upload(file: Path, path: Path, *, overwrite: bool) -> tuple[Stamp, bool]:
    """Give a file's bytes to the store as an object, which is seen when it is complete or never.

    Parameters
    ----------
    file : Path
        The file.
    path : Path
        The object.
    overwrite : bool
        Replace one that has the name.

    Returns
    -------
    Stamp
        Of the object, as the store tells it afterwards.
    bool
        Whether the store itself has kept the name from being taken twice. It does so for objects of up to
        `SINGLE_BYTES`, if it can; otherwise it is asked before.

    Raises
    ------
    DestinationError
        ``destination-exists``; the store's, as for `stamp_of`, and ``store-full``; ``stored-unverified``: the store has
        taken it and does not answer any more; ``read-back-mismatch``: it tells of another object than it was given.
    """
    import obstore
    from obstore import exceptions

    store, key = _opened(path)
    size = os.stat(file).st_size
    demanded = not overwrite and size <= SINGLE_BYTES
    put: Any = None
    with _told(DestinationError):
        if demanded:
            try:
                put = obstore.put(store, key, file, mode="create", use_multipart=False)
            except exceptions.NotSupportedError:
                demanded = False
    if put is None:
        if not overwrite and stamp_of(path, writing=True):
            raise DestinationError("an object has the output's name", code="destination-exists")
        with _told(DestinationError):
            part, parts = max(SINGLE_BYTES, -(-size // _MOST_PARTS)), size > SINGLE_BYTES
            put = obstore.put(store, key, file, use_multipart=parts, chunk_size=part, max_concurrency=_PARTS_AT_ONCE)
            if parts and path.parts[0] == "gs:":
                put["e_tag"] = None  # which Google does not promise to be the object's
    return _stored(path, size, put), demanded or overwrite


def _stored(path: Path, size_bytes: int, put: Any) -> Stamp:
    """Return the stamp of an object that was just written, if it is the one that the store said it had written."""
    import obstore

    store, key = _opened(path)
    try:
        with _told(DestinationError):
            meta: Any = obstore.head(store, key)
    except DestinationError as error:
        if error.code == "store-missing":
            raise DestinationError("the store has lost what it was given", code="read-back-mismatch") from None
        raise DestinationError(f"it was stored and not verified: {error}", code="stored-unverified") from None
    by = "version" if put["version"] and meta.get("version") else "e_tag"
    if meta["size"] != size_bytes or (put[by] and _plain(meta.get(by)) != _plain(put[by])):
        raise DestinationError("the store tells of another object than it was given", code="read-back-mismatch")
    return _stamp(meta)


def remove(path: Path, stamp: Stamp) -> bool:
    """Remove an object if it is still the one that is meant; return False where it may be there still."""
    import obstore

    store, key = _opened(path)
    with contextlib.suppress(Exception):
        if stamp_of(path, writing=True) == stamp:
            obstore.delete(store, key)
        return True
    return False


def _quoted(etag: str) -> str:
    return f'"{etag}"'
