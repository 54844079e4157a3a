"""A real S3 server on loopback: moto's, in a thread of this process."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.archive.object_server import ObjectServer, recorded

KEY, SECRET = "AKIAGPUENCTEST", "sEcReT/of+the+test"
_ELSEWHERE = ("PROFILE", "SESSION_TOKEN", "ENDPOINT", "ENDPOINT_URL_S3", "DEFAULT_REGION")


@dataclass
class S3(ObjectServer):
    def environment(self, monkeypatch, url: str = "") -> None:
        for name in _ELSEWHERE:
            monkeypatch.delenv(f"AWS_{name}", raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url or self.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")

    def wrong_credentials(self, monkeypatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush" * 8)

    def pages(self, monkeypatch, keys: int) -> None:
        monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(keys))

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def etag(self, key: str) -> str:
        return self.client.head_object(Bucket=self.bucket, Key=key)["ETag"].strip('"')

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def uploads(self) -> int:
        return len(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))


@contextlib.contextmanager
def served(folder: Path):
    """Serve an empty bucket."""
    moto = pytest.importorskip("moto.server")
    import boto3

    s3 = S3("s3", secrets=(KEY, SECRET), removal=r"POST .*\?delete")
    with recorded(s3, moto.DomainDispatcherApplication(moto.create_backend_app)):
        s3.client = boto3.client(
            "s3",
            endpoint_url=s3.url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        s3.client.create_bucket(Bucket=s3.bucket)
        yield s3
