"""The secrets of accounts, sealed at rest."""

import asyncio
from itertools import count

import pytest

from gateway.auth.sealing import SealError, SecretBox
from gateway.webhooks.secrets import BUCKET, NAME_PREFIX, OVERLAP_S, WebhookSecrets
from tests.support.memory_documents import MemoryDocuments


class Vault:
    """Secrets whose randomness is a count."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.store = MemoryDocuments()
        self._numbers = count(1)

    def secrets(self, key: int = 0) -> WebhookSecrets:
        return WebhookSecrets(
            self.store,
            SecretBox(bytes([key]) * 32),
            lambda: self.now,
            lambda size: next(self._numbers).to_bytes(size),
        )


async def test_a_secret_is_made_once_also_for_several_processes() -> None:
    vault = Vault()
    one, other = vault.secrets(), vault.secrets()
    first, second = await asyncio.gather(one.of("acme"), other.of("acme"))
    assert first == second
    assert first.value.startswith("whsec_")
    assert await one.of("other") != first


async def test_the_secret_before_a_rotation_signs_for_a_day() -> None:
    vault = Vault()
    secrets = vault.secrets()
    old = await secrets.of("acme")
    new = await secrets.rotate("acme")
    assert await secrets.of("acme") == new
    assert new.signing(vault.now + OVERLAP_S - 1) == [new.value, old.value]
    assert new.signing(vault.now + OVERLAP_S) == [new.value]


async def test_no_secret_is_readable_in_the_store_nor_of_use_for_another_account() -> None:
    vault = Vault()
    secrets = vault.secrets()
    secret = await secrets.of("acme")
    stored = await vault.store.get_raw(BUCKET, NAME_PREFIX + b"acme".hex())
    assert stored is not None
    assert secret.value.removeprefix("whsec_").encode() not in stored[0]
    await vault.store.put_raw(BUCKET, NAME_PREFIX + b"evil".hex(), stored[0])
    with pytest.raises(SealError):
        await secrets.of("evil")
    with pytest.raises(SealError):
        await vault.secrets(key=1).of("acme")
