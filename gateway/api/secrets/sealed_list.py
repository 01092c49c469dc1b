"""Lists of an account's objects that have secrets, each list sealed as a whole in the store.

Telemetry endpoints and registry credentials: few and small, and always needed together, to check a
name or to find the one for an image. So a list is one record, changed by compare-and-set: limits
and unique names hold whoever changes it at the same time. It is bound to account and topic: under
another key of the store it does not open.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import orjson

from gateway.auth.sealing import NONCE_BYTES, SecretBox
from gateway.domain.account import REGISTRY_CREDENTIALS, TELEMETRIES
from gateway.domain.compare_and_set import compare_and_set, delete_record
from gateway.domain.documents import Document
from gateway.domain.lifecycle import timestamp
from gateway.domain.model import AccountSecrets, VersionDetails
from gateway.domain.ports import AccountStores
from gateway.domain.registry_credential import RegistryCredential, docker_logins
from gateway.domain.telemetry_endpoint import (
    TelemetryEndpoint,
    endpoint_ids,
    exporter_environment,
)
from gateway.errors import BadRequest, Conflict, NotFound

MAX_LIST_BYTES = 524_288
"""Maximum bytes of a list as JSON: NATS's limit of a message, with a margin for base64."""


class Listed(Protocol):
    """An object of a list."""

    def document(self) -> dict[str, object]:
        """Return the object as JSON has it."""

    @classmethod
    def read(cls, document: Document) -> Self:
        """Return the object of a document. Raises `gateway.domain.documents.RecordError`."""


Item = TypeVar("Item", bound=Listed)


@dataclass(frozen=True, slots=True)
class Seal:
    """How lists are sealed and stored. ``clock`` returns Unix seconds."""

    stores: AccountStores
    box: SecretBox
    clock: Callable[[], float]
    random: Callable[[int], bytes]


class SealedList(Generic[Item]):
    """The lists of one topic, of all accounts.

    Every method may raise `gateway.errors.StoreUnavailable` and `gateway.auth.sealing.SealError`.
    """

    def __init__(self, topic: str, kind: type[Item], seal: Seal) -> None:
        self._topic = topic
        self._kind = kind
        self._seal_with = seal

    async def of(self, account: str) -> tuple[Item, ...]:
        """Return the list of an account, in the order in which it grew."""
        found = await self._seal_with.stores.of(account).account_secrets(self._topic)
        return () if found is None else self._open(found[0])

    async def change(
        self, account: str, change: Callable[[Sequence[Item]], tuple[Item, ...]]
    ) -> tuple[Item, ...]:
        """Change the list of an account; return the new one. ``change`` may be called repeatedly.

        Raises what ``change`` raises, `BadRequest` for more than `MAX_LIST_BYTES`, and `Conflict`.
        """
        store = self._seal_with.stores.of(account)
        changed: tuple[Item, ...] = ()

        async def read() -> tuple[AccountSecrets | None, int]:
            return await store.account_secrets(self._topic) or (None, 0)

        def seal(stored: AccountSecrets | None) -> AccountSecrets:
            nonlocal changed
            changed = change(() if stored is None else self._open(stored))
            return self._seal(account, changed)

        await compare_and_set(read, seal, store.put)
        return changed

    async def delete(self, account: str) -> None:
        """Delete the list of an account, if it has one."""
        store = self._seal_with.stores.of(account)
        await delete_record(store, lambda: store.account_secrets(self._topic))

    def _seal(self, account: str, listed: Sequence[Item]) -> AccountSecrets:
        text = orjson.dumps([one.document() for one in listed])
        if len(text) > MAX_LIST_BYTES:
            raise BadRequest(
                f"The {self._topic} of an account have at most {MAX_LIST_BYTES} bytes together"
            )
        seal = self._seal_with
        sealed = seal.box.seal(text, self._context(account), seal.random(NONCE_BYTES))
        return AccountSecrets(account, self._topic, sealed, timestamp(seal.clock()))

    def _open(self, stored: AccountSecrets) -> tuple[Item, ...]:
        text = self._seal_with.box.open(stored.sealed, self._context(stored.account))
        documents: list[Mapping[str, object]] = orjson.loads(text)
        return tuple(self._kind.read(Document(document)) for document in documents)

    def _context(self, account: str) -> str:
        return orjson.dumps([self._topic, account]).decode()


class TelemetryEndpoints(SealedList[TelemetryEndpoint]):
    """The telemetry endpoints of all accounts."""

    def __init__(self, seal: Seal) -> None:
        super().__init__(TELEMETRIES, TelemetryEndpoint, seal)

    async def environment_of(self, details: VersionDetails) -> Mapping[str, str]:
        """Return the variables with which an instance of a version sends.

        Implements `gateway.provision.executor.VariablesOf`. Raises `Conflict` if an endpoint was
        deleted since the version was deployed.
        """
        if not endpoint_ids(details.spec):
            return {}
        try:
            return exporter_environment(details.spec, await self.of(details.account))
        except NotFound as error:
            raise Conflict(f"a telemetry of the version was deleted: {error}") from error


class RegistryCredentials(SealedList[RegistryCredential]):
    """The registry credentials of all accounts."""

    def __init__(self, seal: Seal) -> None:
        super().__init__(REGISTRY_CREDENTIALS, RegistryCredential, seal)

    async def logins_of(self, details: VersionDetails) -> str:
        """Return the file of Docker's logins for the image of a version, empty if it needs none.

        Implements `gateway.provision.executor.LoginsOf`.
        """
        image = details.spec.get("containerImage")
        if not isinstance(image, str) or not image:
            return ""
        return docker_logins(await self.of(details.account), image)
