"""A tunnel through an HTTP/1.1 proxy: CONNECT and its response (RFC 9110 §9.3.6). Pure."""

import re
from base64 import b64encode

import httpx

from invocation_client.origins import Origin

_MAX_HEAD_BYTES = 65_536
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")


def read_proxy(proxy: httpx.Proxy | httpx.URL | str | None) -> httpx.Proxy | None:
    """Return ``proxy`` as an `httpx.Proxy`.

    Raises `ValueError` if its scheme is not ``http``.
    """
    found = httpx.Proxy(proxy) if isinstance(proxy, str | httpx.URL) else proxy
    if found is not None and found.url.scheme != "http":
        raise ValueError(f"a proxy needs an http:// URL, not {found.url.scheme}://")
    return found


def connect_request(target: Origin, proxy: httpx.Proxy) -> bytes:
    """Return what asks ``proxy`` for a tunnel to ``target``."""
    authority = target.authority.encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: %b" % authority]
    if proxy.raw_auth is not None:
        lines.append(b"Proxy-Authorization: Basic %b" % b64encode(b":".join(proxy.raw_auth)))
    lines += [b"%b: %b" % field for field in proxy.headers.raw]
    return b"\r\n".join([*lines, b"", b""])


class TunnelReply:
    """The proxy's response. ``rest`` is what the server at the other end has sent already."""

    def __init__(self) -> None:
        self.rest = b""
        self._head = b""

    def receive(self, data: bytes) -> bool:
        """Take bytes of the proxy, b"" for its end; return whether the tunnel is open.

        Raises `httpx.ProxyError` if the proxy refuses.
        """
        if not data:
            raise httpx.ProxyError("the proxy closed the connection before it opened the tunnel")
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, _, self._head = self._head.partition(b"\r\n\r\n")
            status = _status(head + b"\r\n")
            if status >= 200:  # an interim response may come first
                self.rest, self._head = self._head, b""
                return True
        if len(self._head) > _MAX_HEAD_BYTES:
            raise httpx.ProxyError("the response of the proxy has no end")
        return False


def _status(head: bytes) -> int:
    found = _STATUS.match(head)
    if found is None:
        raise httpx.ProxyError("the proxy does not speak HTTP/1.1")
    status = int(found[1])
    if status >= 300:
        raise httpx.ProxyError(f"the proxy refused the tunnel with status {status}")
    return status
