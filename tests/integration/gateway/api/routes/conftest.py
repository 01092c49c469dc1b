"""One nats-server and one master key per module; every test has accounts of its own."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.identity import Clock, IdentityPlane, identity_plane
from tests.support.jwks import TokenIssuer, token_issuer
from tests.support.nats_server import NatsServer


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("master") / "master.key"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer() -> AsyncIterator[TokenIssuer]:
    async with token_issuer() as issuer:
        yield issuer


@pytest.fixture
async def plane(
    shared_nats_server: NatsServer, key_file: Path, issuer: TokenIssuer, clock: Clock
) -> AsyncIterator[IdentityPlane]:
    async with identity_plane(shared_nats_server.url, key_file, issuer, clock) as plane:
        yield plane


@pytest.fixture
def account() -> str:
    return f"own-{uuid4().hex}"
