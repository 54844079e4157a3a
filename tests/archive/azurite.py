"""A real server of Azure Blob Storage on loopback: Azurite, Microsoft's own emulator, which wants Node.js."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.archive.object_server import ObjectServer, forwarding, free_port, recorded, started

ACCOUNT = "gpuenctest"
SECRET = base64.b64encode(b"a key of the test, of 32 bytes..").decode()
# Where .ci/run puts it.
_INSTALLED = Path(__file__).resolve().parents[2] / ".cache/azurite/node_modules/.bin"


@dataclass
class Azurite(ObjectServer):
    page: int = 0

    def environment(self, monkeypatch, url: str = "") -> None:
        for name in [name for name in os.environ if name.startswith("AZURE_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{url or self.url}/{ACCOUNT}")
        monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")

    def wrong_credentials(self, monkeypatch) -> None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"hush" * 8).decode())

    def pages(self, monkeypatch, keys: int) -> None:
        """Ask on behalf of a client whose signature is that of a token, and not one of the whole request."""
        monkeypatch.setattr(self, "page", keys)
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", self.token())

    def token(self) -> str:
        """Return a shared access signature, for an hour."""
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        return generate_container_sas(
            ACCOUNT,
            self.bucket,
            account_key=SECRET,
            permission=ContainerSasPermissions(read=True, write=True, delete=True, list=True, create=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def put(self, key: str, data: bytes) -> None:
        self.client.upload_blob(key, data, overwrite=True)

    def get(self, key: str) -> bytes:
        return self.client.download_blob(key).readall()

    def etag(self, key: str) -> str:
        return self.client.get_blob_client(key).get_blob_properties().etag.strip('"')

    def delete(self, key: str) -> None:
        self.client.delete_blob(key)

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(self.client.list_blob_names(name_starts_with=prefix))

    def clean(self) -> None:
        """Remove everything; blocks go with the blob that is put where they were."""
        for blob in self.client.list_blobs(include=["uncommittedblobs"]):
            self.client.upload_blob(blob.name, b"", overwrite=True)
            self.client.delete_blob(blob.name)

    def uploads(self) -> int:
        """Return of how many blobs there are blocks that no list of blocks has taken."""
        found = self.client.list_blobs(include=["uncommittedblobs"])
        return len([blob.name for blob in found]) - len(self.keys())


@contextlib.contextmanager
def served(folder: Path):
    """Serve an empty container."""
    blobs = pytest.importorskip("azure.storage.blob", reason="needs azure-storage-blob")
    program = shutil.which("azurite-blob") or shutil.which("azurite-blob", path=_INSTALLED)
    if not program:
        pytest.skip("needs Azurite: npm install --prefix .cache/azurite azurite")
    port = free_port()
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    command += ["--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
    environment = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{SECRET}"}
    # Blocks cannot be given up: what no list has taken is gone after a week.
    azurite = Azurite("az", secrets=(SECRET,), lingering=1)
    azurite.lists, azurite.part, azurite.removal = "comp=list(&|$)", "comp=block&", "^POST .*comp=batch"
    forward = forwarding(port)

    def answers(environ, start_response):
        if azurite.page and re.search(azurite.lists, environ["REQUEST_URI"]):
            environ["REQUEST_URI"] += f"&maxresults={azurite.page}"
        return forward(environ, start_response)

    with started(command, port, folder / "log", env=environment, cwd=folder), recorded(azurite, answers):
        service = blobs.BlobServiceClient(f"http://127.0.0.1:{port}/{ACCOUNT}", credential=SECRET)
        azurite.client = service.create_container(azurite.bucket)
        yield azurite
        service.close()
