"""Objects in a bucket of S3, or of a server that speaks its protocol.

Imported only if it is configured: botocore takes about 40 MiB of memory.
Sources: https://docs.aws.amazon.com/AmazonS3/latest/API (ListObjectsV2, multipart upload).
"""

import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from gateway.errors import StoreUnavailable
from gateway.objects.interface import (
    DATA_BYTES,
    NO_META,
    UNAVAILABLE,
    ObjectInfo,
    ObjectNotFound,
    ObjectReader,
    ObjectStore,
    check_key,
    check_prefix,
    check_size,
)
from runtime.events import emit
from runtime.tasks import spawn

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 8 * 1024 * 1024
"""Length of a part of a long body, all of which is in memory; a body has at most 10,000 parts."""
_CONNECT_S = 5.0
_READ_S = 20.0
_ATTEMPTS = 3
_CONNECTIONS = 64
_MAX_EXPIRY_S = 7 * 86_400
"""The longest that a signature can be valid (AWS Signature Version 4)."""
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NotFound"})
_NO_SUCH_RANGE = "InvalidRange"

_log = logging.getLogger("gateway.objects")


class S3Options(NamedTuple):
    """Where the bucket is. Without keys, the AWS tools' environment and files are asked."""

    bucket: str
    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None


class S3Objects(ObjectStore):
    """The objects of one bucket."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._bucket = options.bucket
        self._stack = AsyncExitStack()
        self._opened: S3Client | None = None

    async def open(self) -> None:
        """Make the client, and look whether the bucket is there."""
        options = self._options
        with _errors():
            opening: Any = get_session().create_client(
                "s3",
                region_name=options.region,
                endpoint_url=options.endpoint_url,
                aws_access_key_id=options.access_key,
                aws_secret_access_key=options.secret_key,
                config=AioConfig(
                    connect_timeout=_CONNECT_S,
                    read_timeout=_READ_S,
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                    max_pool_connections=_CONNECTIONS,
                    signature_version="s3v4",
                    # Buckets with host names of their own can only be expected of AWS.
                    s3={"addressing_style": "path" if options.endpoint_url else "auto"},
                    # Other servers than AWS's do not know them.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
            self._opened = await self._stack.enter_async_context(opening)
            await self._client.head_bucket(Bucket=self._bucket)

    async def close(self) -> None:
        await self._stack.aclose()

    @property
    def _client(self) -> "S3Client":
        if self._opened is None:
            raise StoreUnavailable(UNAVAILABLE, cause="the client is not open")
        return self._opened

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None,
        content_type: str,
        meta: Mapping[str, str] = NO_META,
    ) -> None:
        """Write a short body at once, a long one in parts of `PART_BYTES`."""
        check_key(key)
        upload: _Multipart | None = None
        part, written = bytearray(), 0
        try:
            async for chunk in chunks:
                part += chunk
                written += len(chunk)
                while len(part) >= PART_BYTES:
                    if upload is None:
                        upload = await self._begin(key, content_type, meta)
                    data = bytes(part[:PART_BYTES])
                    del part[:PART_BYTES]
                    await upload.add(data)
            check_size(size, written)
            if upload is None:
                await self.put_bytes(key, bytes(part), content_type=content_type, meta=meta)
                return
            if part:
                await upload.add(bytes(part))
            await upload.complete()
        except BaseException:
            if upload is not None:
                # In a task of its own: this one may have been cancelled.
                spawn(upload.abort(), "objects.abort")
            raise

    async def put_bytes(
        self, key: str, data: bytes, *, content_type: str, meta: Mapping[str, str] = NO_META
    ) -> None:
        check_key(key)
        with _errors(key):
            await self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data,
                ContentType=content_type,
                Metadata=dict(meta),
            )

    async def get(self, key: str, first: int = 0, last: int | None = None) -> ObjectReader:
        check_key(key)
        part: dict[str, Any] = {}
        if first > 0 or last is not None:
            part["Range"] = f"bytes={first}-{'' if last is None else last}"
        try:
            with _errors(key):
                found: Any = await self._client.get_object(Bucket=self._bucket, Key=key, **part)
        except _NoSuchRange:
            info = await self.stat(key)
            if info is None:
                raise ObjectNotFound(key) from None
            return S3Reader(info, None)
        whole = str(found.get("ContentRange", "")).rpartition("/")[2]
        info = _info(key, found, int(whole) if whole else found["ContentLength"])
        return S3Reader(info, found["Body"])

    async def stat(self, key: str) -> ObjectInfo | None:
        check_key(key)
        try:
            with _errors(key):
                found: Any = await self._client.head_object(Bucket=self._bucket, Key=key)
        except ObjectNotFound:
            return None
        return _info(key, found, found["ContentLength"])

    async def delete(self, key: str) -> None:
        check_key(key)
        with _errors(key):
            await self._client.delete_object(Bucket=self._bucket, Key=key)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Fetch a thousand objects at a time."""
        check_prefix(prefix)
        pages: Any = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, StartAfter=after
        )
        iterator = aiter(pages)
        while True:
            with _errors(prefix):
                page = await anext(iterator, None)
            if page is None:
                return
            for found in page.get("Contents", ()):
                yield _info(found["Key"], found, found["Size"])

    async def download_url(
        self,
        key: str,
        expires_at: float,
        *,
        base_url: str = "",  # noqa: ARG002
        file_name: str = "",
    ) -> str:
        """Return a URL of the bucket's own server; ``base_url`` has no meaning here."""
        check_key(key)
        values = {"Bucket": self._bucket, "Key": key}
        if file_name:
            values["ResponseContentDisposition"] = (
                f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
            )
        return await self._presign("get_object", values, expires_at)

    async def upload_url(
        self,
        key: str,
        expires_at: float,
        *,
        content_type: str,
        max_bytes: int,  # noqa: ARG002
        meta: Mapping[str, str] = NO_META,
        base_url: str = "",  # noqa: ARG002
    ) -> str:
        """Return a URL of the bucket's own server; S3 has no bound like ``max_bytes`` for a PUT."""
        check_key(key)
        values = {
            "Bucket": self._bucket,
            "Key": key,
            "ContentType": content_type,
            "Metadata": dict(meta),
        }
        return await self._presign("put_object", values, expires_at)

    async def _presign(self, method: str, values: dict[str, Any], expires_at: float) -> str:
        seconds = min(max(1, int(expires_at - time.time())), _MAX_EXPIRY_S)
        with _errors():
            return await self._client.generate_presigned_url(
                method, Params=values, ExpiresIn=seconds
            )

    async def _begin(self, key: str, content_type: str, meta: Mapping[str, str]) -> "_Multipart":
        with _errors(key):
            begun = await self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type, Metadata=dict(meta)
            )
        return _Multipart(self._client, self._bucket, key, begun["UploadId"])


class S3Reader:
    """Reads one object: an `gateway.objects.interface.ObjectReader`."""

    __slots__ = ("_body", "info")

    def __init__(self, info: ObjectInfo, body: Any) -> None:
        """``body`` is botocore's, `None` for nothing."""
        self.info = info
        self._body = body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._body is not None:
            self._body.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._body is not None:
            with _errors(self.info.key):
                data = await self._body.read(DATA_BYTES)
            if not data:
                return
            yield data


class _Multipart:
    """One upload in parts, which is an object once it is complete."""

    def __init__(self, client: "S3Client", bucket: str, key: str, upload_id: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._upload_id = upload_id
        self._parts: list[CompletedPartTypeDef] = []

    async def add(self, data: bytes) -> None:
        number = len(self._parts) + 1
        with _errors(self._key):
            sent = await self._client.upload_part(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=data,
            )
        self._parts.append({"ETag": sent["ETag"], "PartNumber": number})

    async def complete(self) -> None:
        with _errors(self._key):
            await self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._parts},
            )

    async def abort(self) -> None:
        try:
            with _errors(self._key):
                await self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=self._key, UploadId=self._upload_id
                )
        except (StoreUnavailable, ObjectNotFound) as error:
            emit(_log, "objects.parts_left", logging.WARNING, key=self._key, error=str(error))


class _NoSuchRange(Exception):
    """The object ends before the range begins."""


@contextmanager
def _errors(key: str = "") -> Iterator[None]:
    """Raise botocore's errors as `StoreUnavailable` or `ObjectNotFound`."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _NOT_FOUND and key:
            raise ObjectNotFound(key) from error
        if code == _NO_SUCH_RANGE:
            raise _NoSuchRange from error
        raise StoreUnavailable(UNAVAILABLE, cause=str(error)) from error
    except (BotoCoreError, HTTPClientError, aiohttp.ClientError, OSError) as error:
        cause = str(error) or type(error).__name__
        raise StoreUnavailable(UNAVAILABLE, cause=cause) from error


def _info(key: str, found: Any, size: int) -> ObjectInfo:
    return ObjectInfo(
        key,
        size,
        found.get("ContentType", ""),
        found["LastModified"].timestamp(),
        found.get("Metadata", {}),
        found.get("ETag", "").strip('"'),
    )
