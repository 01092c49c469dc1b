"""TLS over real sockets: which protocol and certificate a client gets, and new certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from http1.server.certificates import CertificateError, CertificateFiles, Certificates
from http1.server.limits import ServerLimits
from http1.server.listener import Listener, Secure, bind_sockets, listen
from http2.server.protocol import Http2Protocol
from runtime.settings import Address
from tests.support.certificates import Authority
from tests.support.edge_harness import Exchange, answering
from tests.support.waiting import PATIENCE_S


def _dispatch(request: object, writer: object) -> Exchange:
    exchange = Exchange(request, writer)  # type: ignore[arg-type]
    exchange.on = answering
    return exchange


@asynccontextmanager
async def serving(
    certificates: Certificates, limits: ServerLimits | None = None
) -> AsyncIterator[tuple[Listener, int]]:
    sockets = bind_sockets([Address.parse("127.0.0.1:0")])
    port = sockets[0].getsockname()[1]
    listener = await listen(
        sockets,
        _dispatch,
        limits or ServerLimits(),
        http2=Http2Protocol,
        secure=Secure(1, certificates.context),
    )
    try:
        yield listener, port
    finally:
        listener.abort_all()


def _client_context(authority: Authority, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def subject_at(port: int, authority: Authority, host: str) -> str:
    """Return whom the certificate names that a client of ``host`` gets."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=_client_context(authority), server_hostname=host
    )
    certificate = writer.get_extra_info("peercert")
    writer.close()
    return str(dict(pair for (pair,) in certificate["subject"])["commonName"])


@pytest.mark.parametrize(("offers_http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
async def test_the_client_chooses_the_protocol(
    tmp_path: Path, offers_http2: bool, version: str
) -> None:
    authority = Authority(tmp_path)
    certificates = Certificates([CertificateFiles(*authority.issue("one", "localhost"))])
    async with (
        serving(certificates) as (_, port),
        httpx.AsyncClient(
            http2=offers_http2, verify=_client_context(authority), timeout=PATIENCE_S
        ) as client,
    ):
        body = bytes(300_000)
        for _ in range(2):
            response = await client.post(f"https://localhost:{port}/p", content=body)
            assert response.http_version == version
            assert response.content == b"/p " + body


async def test_a_client_without_alpn_may_begin_with_either(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates = Certificates([CertificateFiles(*authority.issue("one", "localhost"))])
    async with serving(certificates) as (_, port):
        reader, writer = await asyncio.open_connection(
            "localhost", port, ssl=_client_context(authority)
        )
        writer.write(b"GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.read()).endswith(b"\r\n\r\n/a ")
        writer.close()


async def test_the_name_chooses_the_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates = Certificates(
        [
            CertificateFiles(*authority.issue("api", "api.example", "localhost")),
            CertificateFiles(*authority.issue("calls", "*.invocation.example")),
        ]
    )
    async with serving(certificates) as (_, port):
        assert await subject_at(port, authority, "api.example") == "api"
        assert await subject_at(port, authority, "F1.invocation.example") == "calls"
        with pytest.raises(ssl.SSLCertVerificationError):
            await subject_at(port, authority, "a.b.invocation.example")


async def test_new_certificates_are_read_and_bad_ones_are_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("old", "localhost", file="tls")
    certificates = Certificates([CertificateFiles(chain, key)])
    async with serving(certificates) as (_, port):
        assert not certificates.reload()
        chain.write_text("nonsense")
        with pytest.raises(CertificateError, match="no certificate"):
            certificates.reload()
        assert await subject_at(port, authority, "localhost") == "old"
        authority.issue("new", "localhost", file="tls")
        assert certificates.reload()
        assert await subject_at(port, authority, "localhost") == "new"
        key.unlink()
        with pytest.raises(CertificateError):
            certificates.reload()
        assert await subject_at(port, authority, "localhost") == "new"


def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = CertificateFiles(*authority.issue("one", "localhost"))
    assert Certificates([files]).context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_client_that_never_completes_its_handshake_is_dropped(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates = Certificates([CertificateFiles(*authority.issue("one", "localhost"))])
    limits = ServerLimits(head_timeout_s=0.1)
    async with serving(certificates, limits) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()


async def test_a_drain_closes_connections_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates = Certificates([CertificateFiles(*authority.issue("one", "localhost"))])
    # httpx reads nothing while it is idle, so it does not answer the end of TLS.
    limits = ServerLimits(linger_s=0.1)
    async with (
        serving(certificates, limits) as (listener, port),
        httpx.AsyncClient(http2=True, verify=_client_context(authority)) as client,
    ):
        assert (await client.get(f"https://localhost:{port}/a")).status_code == 200
        assert await listener.drain(asyncio.get_running_loop().time() + PATIENCE_S)
