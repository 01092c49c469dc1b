"""JwksFetcher against a real HTTP server."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.auth import jwks
from gateway.auth.jwks import JwksFetcher
from gateway.auth.jwt import Issuer, IssuerKeys, IssuerUnavailable
from gateway.errors import Unauthenticated
from tests.support.jwks import AUDIENCE, NAME, TokenIssuer, token_issuer
from tests.support.waiting import PATIENCE_S, Signal, until


@pytest.fixture
async def issuer() -> AsyncIterator[TokenIssuer]:
    async with token_issuer() as issuer:
        yield issuer


class WatchedKeys(IssuerKeys):
    """Keys that count their replacements."""

    def __init__(self) -> None:
        super().__init__(Issuer(NAME, (AUDIENCE,)))
        self.replaced = Signal()

    def replace(self, jwks: object) -> int:
        try:
            return super().replace(jwks)
        finally:
            self.replaced.notify()


@pytest.fixture
def keys() -> WatchedKeys:
    return WatchedKeys()


@pytest.fixture
async def fetcher(issuer: TokenIssuer, keys: WatchedKeys) -> AsyncIterator[JwksFetcher]:
    fetcher = JwksFetcher(keys, issuer.url, refresh_s=3600, again_s=0.01)
    yield fetcher
    await fetcher.stop()


async def fetched(fetcher: JwksFetcher) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await fetcher.fetched.wait()


async def believed(keys: WatchedKeys, issuer: TokenIssuer) -> None:
    """Return when a new token is taken."""

    def is_believed() -> bool:
        try:
            keys.verify(issuer.token(), issuer.kid)
        except (Unauthenticated, IssuerUnavailable):
            return False
        return True

    await until(is_believed, changed=keys.replaced)


async def test_keys_are_fetched_at_the_start(
    issuer: TokenIssuer, keys: WatchedKeys, fetcher: JwksFetcher
) -> None:
    with pytest.raises(IssuerUnavailable):
        keys.verify(issuer.token(), issuer.kid)
    fetcher.start()
    await fetched(fetcher)
    keys.verify(issuer.token(), issuer.kid)


async def test_a_new_key_is_fetched_when_the_first_token_names_it(
    issuer: TokenIssuer, keys: WatchedKeys, fetcher: JwksFetcher
) -> None:
    fetcher.start()
    await fetched(fetcher)
    issuer.rotate()
    await believed(keys, issuer)
    assert issuer.fetches >= 2


async def test_keys_are_fetched_again_after_a_while(issuer: TokenIssuer, keys: WatchedKeys) -> None:
    fetcher = JwksFetcher(keys, issuer.url, refresh_s=0.01, again_s=0.01)
    fetcher.start()
    try:
        await fetched(fetcher)
        issuer.asked.clear()
        async with asyncio.timeout(PATIENCE_S):
            await issuer.asked.wait()
    finally:
        await fetcher.stop()


async def test_made_up_tokens_do_not_make_us_call_the_issuer_for_each(
    issuer: TokenIssuer, keys: WatchedKeys
) -> None:
    fetcher = JwksFetcher(keys, issuer.url, refresh_s=3600, again_s=3600)
    fetcher.start()
    try:
        await fetched(fetcher)
        issuer.rotate(publish=False)
        for _ in range(100):
            with pytest.raises(Unauthenticated):
                keys.verify(issuer.token(), issuer.kid)
        async with aiohttp.ClientSession() as session, session.get(issuer.url):
            pass  # As long as a fetch would take.
        assert issuer.fetches == 2
    finally:
        await fetcher.stop()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, None),
        (302, None),
        (200, b"<html>"),
        (200, b'{"keys":[]}'),
        (200, b"[" + b" " * (1 << 20) + b"]"),
    ],
)
async def test_an_issuer_that_answers_nonsense_is_asked_again(
    issuer: TokenIssuer,
    keys: WatchedKeys,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes | None,
) -> None:
    monkeypatch.setattr(jwks, "RETRY_S", 0.01)
    patient = JwksFetcher(keys, issuer.url, refresh_s=0.01, again_s=0.01)
    issuer.status, issuer.body = status, body
    patient.start()
    try:
        await until(lambda: issuer.fetches, lambda count: count >= 2, what="a second fetch")
        assert not patient.fetched.is_set()
        issuer.status, issuer.body = 200, None
        await fetched(patient)
        keys.verify(issuer.token(), issuer.kid)
    finally:
        await patient.stop()


async def test_keys_stay_when_the_issuer_goes(issuer: TokenIssuer, keys: WatchedKeys) -> None:
    fetcher = JwksFetcher(keys, issuer.url, refresh_s=0.01, again_s=0.01)
    fetcher.start()
    try:
        await fetched(fetcher)
        issuer.status = 503
        issuer.asked.clear()
        async with asyncio.timeout(PATIENCE_S):
            await issuer.asked.wait()
        keys.verify(issuer.token(), issuer.kid)
    finally:
        await fetcher.stop()
