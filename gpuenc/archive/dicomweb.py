"""Results stored in a DICOMweb server by STOW-RS, and read back by WADO-RS (PS3.18 10.4, 10.5); the only importer of
httpx.

Each object is a request of its own, streamed from its file: so each has a status of its own, whatever the others are.
Credentials come from the environment (``GPUENC_DICOMWEB_TOKEN``, or ``GPUENC_DICOMWEB_USER`` with
``GPUENC_DICOMWEB_PASSWORD``) or from netrc. Nothing a server says is passed on but numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpuenc.archive.addresses import text_of
from gpuenc.archive.received import first_part, reads_the_same
from gpuenc.dicom.identity import Identity, identity
from gpuenc.errors import DestinationError, JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

# PS3.18 10.5.3 and table I.2-2, PS3.4 B.2.3: what a server may say of an object that it did not take.
_FAILED_SOP, _REFERENCED_SOP = "00081198", "00081199"
_FAILURE_REASON, _WARNING_REASON, _REFERENCED_UID = "00081197", "00081196", "00081155"
_TRANSIENT = frozenset((429, 502, 503, 504))
_TRIES = 5
_PIECE_BYTES = 1 << 20
# Far more than an answer about one object takes.
_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of an object: where it can be retrieved, or why it was not stored; and what else there is to say."""

    address: str = ""
    status: Literal["", "skipped", "failed"] = ""
    code: str = ""
    message: str = ""


def demand_library() -> None:
    """Check that the library is there.

    Raises
    ------
    JobError
        ``extra-missing``.
    """
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise JobError("--stow needs the extra: pip install 'gpuenc[dicomweb]'", code="extra-missing") from None


def demand_answer(service: Path) -> None:
    """Check that a server answers to who asks here; whether it can be searched is not the question.

    Raises
    ------
    DestinationError
        ``store-denied``, ``store-unreachable``.
    """
    url = f"{text_of(service).rstrip('/')}/studies"
    status, _ = _asked(
        _client(), "GET", url, lambda: None, params={"StudyInstanceUID": _NO_STUDY}, headers=_ACCEPT_JSON
    )
    if status in (401, 403) or status in _TRANSIENT:
        raise _refused(status)


def store(
    file: Path,
    service: Path,
    *,
    replaces: bool,
    perhaps_stored: bool,
    back: Path,
    verify: bool,
    check: Callable[[], None],
) -> Stored:
    """Have a server store the instance in a file.

    Parameters
    ----------
    file : Path
        In the DICOM File Format, complete.
    service : Path
        Address of the server, up to what stands before ``/studies``.
    replaces : bool
        Send it also where the server says that it has such an instance. Whether it is replaced is up to the server.
    perhaps_stored : bool
        An interrupted run may have stored it. Where the server has such an instance, it has to be this one.
    back : Path
        A file to be made: what the server gives back when it is asked for the instance, which must be the same image.
    verify : bool
        Ask it for what it has just been sent.
    check : callable
        Called now and then; what it raises ends it.

    Raises
    ------
    SourceError
        ``not-storable``.
    DestinationError
        ``store-denied``, ``store-unreachable``, ``store-failed``, ``store-full``, ``store-missing``;
        ``syntax-refused``, ``object-refused``; ``read-back-mismatch``; ``stored-unverified``: the server has taken it,
        and it could not be read back; ``destination-exists``: the server has another one, if `perhaps_stored`.
    """
    found = identity(file)
    client, base = _client(), text_of(service).rstrip("/")
    address = f"{base}/studies/{found.study}/series/{found.series}/instances/{found.instance}"
    most_bytes = 2 * os.stat(file).st_size + _ANSWER_BYTES

    def changed() -> str:
        _retrieve(client, address, back, most_bytes, check)
        return reads_the_same(file, back)

    if not replaces and _has(client, base, found, check):
        if perhaps_stored:
            return Stored(address, message=_found_again(changed))
        return Stored(status="skipped", code="destination-exists", message="the server has this instance")
    message = _sent(client, base, file, found, check)
    if verify:
        try:
            message = "; ".join(filter(None, (message, changed())))
        except DestinationError as error:
            if error.code == "read-back-mismatch":
                raise
            raise DestinationError(f"it was stored and not verified: {error}", code="stored-unverified") from None
    return Stored(address, message=message)


def _found_again(changed: Callable[[], str]) -> str:
    """Return what a server has changed of the instance that it has, where that is the one it would have been sent."""
    try:
        return changed()
    except DestinationError as error:
        if error.code != "read-back-mismatch":
            raise
        raise DestinationError(
            "what the server has of this instance is not what it would be sent", code="destination-exists"
        ) from None


@cache
def _client() -> httpx.Client:
    import httpx

    token, user = os.environ.get("GPUENC_DICOMWEB_TOKEN"), os.environ.get("GPUENC_DICOMWEB_USER")
    headers: dict[str, str] = {}
    auth: httpx.Auth | None = None
    netrc = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    elif user:
        auth = httpx.BasicAuth(user, os.environ.get("GPUENC_DICOMWEB_PASSWORD", ""))
    elif netrc.is_file():
        with contextlib.suppress(Exception):  # one that cannot be read holds nothing; its errors quote it
            auth = httpx.NetRCAuth(os.fspath(netrc))
    # Where a redirection leads, credentials do not follow; nor does anything else.
    return httpx.Client(timeout=httpx.Timeout(120, connect=10), headers=headers, auth=auth, follow_redirects=False)


def _has(client: httpx.Client, base: str, found: Identity, check: Callable[[], None]) -> bool:
    """Whether the server says that it has the instance (QIDO-RS, PS3.18 10.6); one that cannot be asked does not."""
    url = f"{base}/studies/{found.study}/series/{found.series}/instances"
    asked = {"SOPInstanceUID": found.instance}
    status, answer = _asked(client, "GET", url, check, params=asked, headers=_ACCEPT_JSON)
    if status in (401, 403):
        raise _refused(status)
    if status != 200:
        return False
    return any(_value(each, "00080018") == found.instance for each in _items(answer))


_NO_STUDY = "2.25.0"
_ACCEPT_JSON = {"Accept": "application/dicom+json"}
# Servers, by address, that pass over parts whose type has a parameter.
_PLAIN_PARTS: set[str] = set()


def _sent(client: httpx.Client, base: str, file: Path, found: Identity, check: Callable[[], None]) -> str:
    """Send the instance; return what the server warns of."""
    if base not in _PLAIN_PARTS:
        status, answer = _posted(client, base, file, f"application/dicom; transfer-syntax={found.syntax}", check)
        # Orthanc's plug-in up to 1.7 answers 200 and drops the part without a word; others refuse the type.
        if not (status == 415 or (status == 200 and not _mentioned(answer))):
            return _judged(status, answer, found)
    status, answer = _posted(client, base, file, "application/dicom", check)
    if status == 200 and _mentioned(answer):
        _PLAIN_PARTS.add(base)
    return _judged(status, answer, found)


def _mentioned(answer: Any) -> bool:
    return bool(_sequence(answer, _REFERENCED_SOP) or _sequence(answer, _FAILED_SOP))


def _posted(client: httpx.Client, base: str, file: Path, part_type: str, check: Callable[[], None]) -> tuple[int, Any]:
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: {part_type}\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        with open(file, "rb", buffering=0) as stream:
            while piece := stream.read(_PIECE_BYTES):
                check()
                yield piece
        yield tail

    headers = _ACCEPT_JSON | {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(len(head) + os.stat(file).st_size + len(tail)),
    }
    return _asked(client, "POST", f"{base}/studies", check, headers=headers, body=body)


def _judged(status: int, answer: Any, found: Identity) -> str:
    """Return what a server warns of that has taken the instance (PS3.18 10.5.3).

    Raises
    ------
    DestinationError
        It has not.
    """
    for item in _sequence(answer, _FAILED_SOP):
        if _value(item, _REFERENCED_UID) in (found.instance, None):
            raise _failure(_value(item, _FAILURE_REASON), found)
    if status not in (200, 202):
        raise _refused(status, found.syntax)
    for item in _sequence(answer, _REFERENCED_SOP):
        if _value(item, _REFERENCED_UID) == found.instance:
            reason = _value(item, _WARNING_REASON)
            return f"the server warns of {_hex(reason)}" if isinstance(reason, int) and reason else ""
    raise DestinationError(
        f"the server has answered {status} and does not say what became of the object", code="store-failed"
    )


def _failure(reason: Any, found: Identity) -> DestinationError:
    """Return what a Failure Reason (0008,1197) means."""
    number = reason if isinstance(reason, int) else 0
    shown = _hex(number)
    if number == 0xC122:
        return DestinationError(f"the server takes no transfer syntax {found.syntax} ({shown})", code="syntax-refused")
    if number == 0x0122:
        return DestinationError(f"the server takes no SOP Class {found.sop_class} ({shown})", code="object-refused")
    if number == 0x0124:
        return DestinationError(f"the server refuses it: not allowed ({shown})", code="store-denied")
    if number >> 8 == 0xA7:
        return DestinationError(f"the server has no room ({shown})", code="store-full")
    what = {0xA9: "it does not match its SOP Class", 0x01: "it could not be processed"}.get(
        number >> 8, "it is not understood"
    )
    return DestinationError(f"the server did not take the object: {what} ({shown})", code="object-refused")


def _refused(status: int, syntax: str = "") -> DestinationError:
    """Return what an HTTP status means."""
    said = f"(HTTP {status})"
    if status in (401, 403):
        return DestinationError(
            f"the server refuses it: wrong credentials, or none, or not allowed {said}", code="store-denied"
        )
    if status == 415:
        return DestinationError(f"the server takes no transfer syntax {syntax} {said}", code="syntax-refused")
    if status == 507:
        return DestinationError(f"the server has no room {said}", code="store-full")
    if status == 404:
        return DestinationError(f"there is no such service {said}", code="store-missing")
    if status in (400, 409, 413):
        return DestinationError(f"the server did not take the object {said}", code="object-refused")
    if status in _TRANSIENT:
        return DestinationError(f"the server does not answer as it should {said}", code="store-unreachable")
    return DestinationError(f"the server has failed {said}", code="store-failed")


def _asked(
    client: httpx.Client,
    method: str,
    url: str,
    check: Callable[[], None],
    *,
    headers: dict[str, str],
    params: dict[str, str] | None = None,
    body: Callable[[], Iterator[bytes]] | None = None,
) -> tuple[int, Any]:
    """Ask until there is an answer; return its status, and the JSON in it or None."""
    with _answered(client, method, url, check, headers=headers, params=params, body=body) as response:
        held = bytearray()
        for piece in response.iter_bytes(_PIECE_BYTES):
            held += piece
            if len(held) > _ANSWER_BYTES:
                return response.status_code, None
        try:
            return response.status_code, json.loads(bytes(held))
        except (ValueError, RecursionError):
            return response.status_code, None


@contextlib.contextmanager
def _answered(
    client: httpx.Client,
    method: str,
    url: str,
    check: Callable[[], None],
    *,
    headers: dict[str, str],
    params: dict[str, str] | None = None,
    body: Callable[[], Iterator[bytes]] | None = None,
) -> Iterator[httpx.Response]:
    """Ask, again and again while nobody answers or only for the moment; each time after twice as long.

    Sending an instance again is no other instance: it is known by its UID.
    """
    import httpx

    try:
        for number in range(1, _TRIES + 1):
            check()
            try:
                request = client.build_request(
                    method, url, headers=headers, params=params, content=body() if body else None
                )
                response = client.send(request, stream=True)
            except httpx.TransportError:
                if number == _TRIES:
                    raise
            else:
                if response.status_code not in _TRANSIENT or number == _TRIES:
                    try:
                        yield response
                    finally:
                        response.close()
                    return
                response.close()
            time.sleep(0.1 * 2**number * random.uniform(0.5, 1.0))
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
        raise DestinationError(
            "the server cannot be reached, or does not answer as it should", code="store-unreachable"
        ) from None


def _retrieve(client: httpx.Client, address: str, target: Path, most_bytes: int, check: Callable[[], None]) -> None:
    """Write the instance that the server gives back into a file, in the transfer syntax in which it has it."""
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    with _answered(client, "GET", address, check, headers=headers) as response:
        if response.status_code in (401, 403) or response.status_code >= 500 or response.status_code in _TRANSIENT:
            raise _refused(response.status_code)
        if response.status_code != 200:
            raise DestinationError(
                f"the server does not give back what it has taken (HTTP {response.status_code})",
                code="read-back-mismatch",
            )
        kind = response.headers.get("Content-Type", "")
        first_part(response.iter_bytes(_PIECE_BYTES), kind, target, most_bytes, check)


def _items(answer: Any) -> list[Any]:
    return [each for each in answer if isinstance(each, dict)] if isinstance(answer, list) else []


def _sequence(answer: Any, tag: str) -> list[Any]:
    # Some servers wrap the data set in a list.
    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    found = answer.get(tag) if isinstance(answer, dict) else None
    return _items(found.get("Value")) if isinstance(found, dict) else []


def _value(item: Any, tag: str) -> Any:
    found = item.get(tag) if isinstance(item, dict) else None
    values = found.get("Value") if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _hex(reason: Any) -> str:
    return f"{reason & 0xFFFF:04X}H" if isinstance(reason, int) else "no reason given"
