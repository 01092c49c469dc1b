"""URLs that carry their own permission: each reads, or writes, one object until it expires.

The local backend makes them, every gateway process serves them (`docs/wire.md` §27):

    /v2/objects/{key}?expires=…[&file-name=…]&signature=…                  GET, HEAD
    /v2/objects/{key}?expires=…&max-bytes=…[&meta=…]&signature=…           PUT

The signature is HMAC-SHA256 over all that the URL permits. That of a PUT covers the content type
and the headers ``x-amz-meta-…`` named in ``meta`` too, as an S3 presigned URL does.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

import orjson

from gateway.errors import Conflict, Forbidden, StoreUnavailable
from gateway.objects.interface import NO_META, check_key

PATH = "/v2/objects/"
_META = b"x-amz-meta-"
_KEY_BYTES = 32
_DIGEST = "sha256"
_MAX_DIGITS = 19


class SharedKey:
    """The key of all signatures: a document in the store, made by the process that needs it first.

    It is kept in memory. Nothing changes it: a URL is valid as long as it says.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[tuple[bytes, int] | None]],
        create: Callable[[bytes], Awaitable[object]],
        random: Callable[[int], bytes],
    ) -> None:
        """``create`` raises `gateway.errors.Conflict` if the document exists by now."""
        self._read = read
        self._create = create
        self._random = random
        self._key = b""

    async def get(self) -> bytes:
        """Return the key. Raises `gateway.errors.StoreUnavailable`."""
        if not self._key:
            found = await self._read()
            if found is None:
                try:
                    await self._create(self._random(_KEY_BYTES))
                except Conflict:
                    pass
                found = await self._read()
            if found is None or len(found[0]) != _KEY_BYTES:
                raise StoreUnavailable(cause="the signing key of URLs cannot be read")
            self._key = found[0]
        return self._key


class UrlExpired(Forbidden):
    """The signature is valid, and its time is over."""

    reason = "url_expired"
    summary = "The URL has expired"


class NotSigned(Forbidden):
    """The signature is missing, or is another one."""

    reason = "signature_invalid"
    summary = "The signature of the URL is not valid for this request"


class PermittedDownload(NamedTuple):
    """What a URL permits to read. ``file_name`` is empty unless it is to be saved under a name."""

    key: str
    file_name: str


class PermittedUpload(NamedTuple):
    """What a URL permits to write."""

    key: str
    content_type: str
    max_bytes: int
    meta: Mapping[str, str]


class UrlSigner:
    """Makes and checks the URLs."""

    def __init__(self, key: SharedKey, clock: Callable[[], float], base_url: str = "") -> None:
        """``base_url`` is where the gateway is reached if a caller does not say.

        ``clock`` returns Unix seconds.
        """
        self._key = key
        self._clock = clock
        self._base_url = base_url.rstrip("/")

    async def download_url(
        self, key: str, expires_at: float, base_url: str = "", file_name: str = ""
    ) -> str:
        """Return a URL that reads the object."""
        expires = int(expires_at)
        query = {"expires": str(expires)}
        if file_name:
            query["file-name"] = file_name
        signature = await self._sign("GET", key, expires, file_name)
        return self._url(base_url, key, query, signature)

    async def upload_url(
        self,
        key: str,
        expires_at: float,
        base_url: str = "",
        *,
        content_type: str,
        max_bytes: int,
        meta: Mapping[str, str] = NO_META,
    ) -> str:
        """Return a URL that writes the object."""
        expires = int(expires_at)
        query = {"expires": str(expires), "max-bytes": str(max_bytes)}
        if meta:
            query["meta"] = ",".join(sorted(meta))
        signed = (content_type, max_bytes, _normal(meta))
        signature = await self._sign("PUT", key, expires, *signed)
        return self._url(base_url, key, query, signature)

    async def check_download(self, target: bytes) -> PermittedDownload:
        """Return what the target of a GET or HEAD permits. Raises `Forbidden`."""
        key, query = _parse(target)
        file_name = query.get("file-name", "")
        await self._check(query, "GET", key, file_name)
        return PermittedDownload(key, file_name)

    async def check_upload(self, target: bytes, headers: Mapping[bytes, bytes]) -> PermittedUpload:
        """Return what the target of a PUT with ``headers`` permits. Raises `Forbidden`."""
        key, query = _parse(target)
        max_bytes = _number(query.get("max-bytes", ""))
        content_type = _text(headers.get(b"content-type", b""))
        named = query["meta"].split(",") if "meta" in query else []
        meta = {name: _text(headers.get(_header_of(name), b"")) for name in named}
        signed = {_header_of(name) for name in named}
        if any(name.startswith(_META) and name not in signed for name in headers):
            raise NotSigned("The URL does not permit a header x-amz-meta- of this name")
        await self._check(query, "PUT", key, content_type, max_bytes, _normal(meta))
        return PermittedUpload(key, content_type, max_bytes, meta)

    async def _check(
        self, query: Mapping[str, str], method: str, key: str, *permitted: object
    ) -> None:
        expires = _number(query.get("expires", ""))
        expected = await self._sign(method, key, expires, *permitted)
        if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode()):
            raise NotSigned
        if self._clock() >= expires:
            raise UrlExpired

    async def _sign(self, method: str, key: str, expires: int, *permitted: object) -> str:
        text = orjson.dumps([method, key, expires, *permitted])
        return hmac.digest(await self._key.get(), text, _DIGEST).hex()

    def _url(self, base_url: str, key: str, query: dict[str, str], signature: str) -> str:
        base = base_url.rstrip("/") or self._base_url
        return f"{base}{PATH}{key}?{urlencode({**query, 'signature': signature})}"


def _parse(target: bytes) -> tuple[str, dict[str, str]]:
    """Return key and query of a request's target. Raises `NotSigned` for what is no URL of ours."""
    path, _, query = target.decode("latin-1").partition("?")
    key = unquote(path.removeprefix(PATH))
    try:
        check_key(key)
        pairs = parse_qsl(query, strict_parsing=True, max_num_fields=8)
    except ValueError as error:
        raise NotSigned from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotSigned
    return key, found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS):
        raise NotSigned
    return int(text)


def _header_of(name: str) -> bytes:
    return _META + name.encode("utf-8", "replace")


def _text(value: bytes) -> str:
    return " ".join(value.decode("latin-1").split())


def _normal(meta: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the metadata as a header carries them: sorted, with single blanks."""
    return sorted((name, " ".join(value.split())) for name, value in meta.items())
