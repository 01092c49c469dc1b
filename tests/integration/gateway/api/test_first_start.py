"""What the first start makes, and what others find."""

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.api import bootstrap
from gateway.api.secrets.master_key import MasterKeyError
from gateway.app.credentials import CredentialChecker
from gateway.app.identity import Master, given_secret, master_of
from gateway.auth.tokens import WorkerIdentity, admin_of, mint
from gateway.domain.model import Account
from gateway.domain.readmodel import ReadModel
from gateway.errors import Unauthenticated
from gateway.settings import ControlSettings
from gateway.store.records import Store
from runtime.setting_rules import SecretText
from tests.support.followed_store import opened
from tests.support.nats_server import NatsServer
from tests.support.waiting import PATIENCE_S, until

GIVEN = f"nvboot-{'a' * 43}"
OTHER = f"nvboot-{'b' * 43}"
NOW = 1_800_000_000.0


def bearer(credential: str) -> bytes:
    return f"Bearer {credential}".encode()


@pytest.fixture
async def store(nats_server: NatsServer) -> AsyncIterator[Store]:
    async with opened(nats_server.url) as store:
        await store.prepare()
        yield store


@asynccontextmanager
async def following(store: Store, master: Master | None = None) -> AsyncIterator[CredentialChecker]:
    """Run a process's credentials, once they have read the store, for the length of the block."""
    model = ReadModel()
    model.apply(Account("acme", "Acme"))
    credentials = CredentialChecker(store, model, None, None if master is None else master.signer)
    credentials.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await credentials.meta.loaded.wait()
        yield credentials
    finally:
        await credentials.stop()


async def heard(credentials: CredentialChecker, token: str) -> None:
    """Wait until the token is accepted."""

    def is_accepted() -> bool:
        try:
            credentials.authenticate(bearer(token), NOW)
        except Unauthenticated:
            return False
        return True

    await until(is_accepted)


async def test_of_processes_that_start_at_once_one_shows_the_secret(
    store: Store, tmp_path: Path
) -> None:
    masters = [Master(tmp_path / "state" / "master.key") for _ in range(4)]
    assert len({master.key for master in masters}) == 1
    secrets = await asyncio.gather(*(master.begin(store) for master in masters))
    (secret,) = [one for one in secrets if one is not None]
    assert await masters[0].begin(store) is None
    async with following(store) as credentials:
        assert credentials.authenticate(bearer(secret), NOW).kind == "bootstrap"


async def test_gateways_that_start_at_once_agree_on_the_secret_that_they_are_given(
    store: Store, tmp_path: Path
) -> None:
    key = b64encode(bytes(range(32))).decode()
    masters = [Master(tmp_path / str(machine), key) for machine in range(4)]
    shown = await asyncio.gather(*(master.begin(store, GIVEN) for master in masters))
    assert shown == [None] * 4
    assert os.listdir(tmp_path) == []
    async with following(store) as credentials:
        assert credentials.authenticate(bearer(GIVEN), NOW).kind == "bootstrap"


async def test_another_given_secret_replaces_the_last_one_for_good(
    store: Store, tmp_path: Path
) -> None:
    master = Master(tmp_path / "master.key")
    made = await master.begin(store)
    assert made is not None
    async with following(store, master) as credentials:
        await master.begin(store, GIVEN)
        await heard(credentials, GIVEN)
        await master.begin(store, OTHER)
        await heard(credentials, OTHER)
        await master.begin(store, GIVEN)  # A process that still has the settings of before.
        await master.begin(store, OTHER)
        last = await bootstrap.reset(store, os.urandom(32), "2026-01-01T00:00:00Z")
        await heard(credentials, last)
        await master.begin(store, OTHER)
        assert credentials.authenticate(bearer(last), NOW).kind == "bootstrap"
        for secret in (made, GIVEN, OTHER):
            with pytest.raises(Unauthenticated):
                credentials.authenticate(bearer(secret), NOW)
        found = await store.get_raw("meta", "bootstrap")
        assert found is not None
        assert GIVEN.encode() not in found[0]


def control(**members: object) -> ControlSettings:
    return ControlSettings(**members)  # type: ignore[arg-type]


def test_the_secret_comes_from_the_environment_or_a_file_and_is_checked(tmp_path: Path) -> None:
    assert given_secret(control()) == ""
    assert given_secret(control(bootstrap_secret=SecretText(f"{GIVEN}\n"))) == GIVEN
    file = tmp_path / "bootstrap"
    file.write_text(f"{GIVEN}\n")
    file.chmod(0o600)
    assert given_secret(control(bootstrap_secret_file=file)) == GIVEN
    file.chmod(0o644)
    with pytest.raises(MasterKeyError, match="chmod 600"):
        given_secret(control(bootstrap_secret_file=file))
    with pytest.raises(MasterKeyError, match="bootstrap_secret does not hold") as failure:
        given_secret(control(bootstrap_secret=SecretText("nvboot-hunter2")))
    assert "hunter2" not in str(failure.value)
    with pytest.raises(MasterKeyError, match="nowhere"):
        given_secret(control(bootstrap_secret_file=tmp_path / "nowhere"))
    with pytest.raises(MasterKeyError, match="secrets_key does not hold") as failure:
        master_of(control(secrets_key=SecretText("hunter2")))
    assert "hunter2" not in str(failure.value)


async def test_a_process_without_the_key_file_checks_tokens_and_makes_none(
    store: Store, tmp_path: Path
) -> None:
    async with following(store) as edge:
        master = Master(tmp_path / "master.key")
        token = mint(master.signer, admin_of("acme"), now=NOW, lifetime_s=60, token_id="1")
        with pytest.raises(Unauthenticated):
            edge.authenticate(bearer(token), NOW)
        await master.begin(store)
        await heard(edge, token)
        worker = WorkerIdentity("acme", "f", "v", "i")
        shown = edge.authenticate(bearer(master.worker_token(worker, NOW, 60)), NOW)
        assert shown.kind == "worker"


async def test_another_key_file_is_told_before_it_does_harm(store: Store, tmp_path: Path) -> None:
    await Master(tmp_path / "first.key").begin(store)
    with pytest.raises(MasterKeyError, match="another master key"):
        await Master(tmp_path / "second.key").begin(store)


async def test_a_lost_bootstrap_secret_is_replaced_also_in_running_processes(
    store: Store, tmp_path: Path
) -> None:
    master = Master(tmp_path / "master.key")
    first = await master.begin(store)
    assert first is not None
    async with following(store, master) as credentials:
        second = await bootstrap.reset(store, os.urandom(32), "2026-01-01T00:00:00Z")
        await heard(credentials, second)
        with pytest.raises(Unauthenticated):
            credentials.authenticate(bearer(first), NOW)


async def test_what_was_known_holds_while_nats_is_away_and_is_read_again_after(
    store: Store, nats_server: NatsServer, tmp_path: Path
) -> None:
    first = await Master(tmp_path / "master.key").begin(store)
    assert first is not None
    async with following(store) as credentials:
        await nats_server.kill()
        assert credentials.authenticate(bearer(first), NOW).kind == "bootstrap"
        await nats_server.start()
        async with opened(nats_server.url) as again:
            second = await bootstrap.reset(again, os.urandom(32), "2026-01-01T00:00:00Z")
        await heard(credentials, second)
