"""What the routes about accounts, API keys and tokens depend on, in addition to the `Api`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.auth.signing import TokenSigner
from gateway.domain.model import Account, AccountKey, ApiKey, Client, ClientKey

SERVICE_ID = "nvidia-cloud-functions-ncp-service-id-aketm"
"""The id of this service in NVCF's CLI, when it asks for a key."""


class CredentialRecords(Protocol):
    """API keys, accounts and clients in the store (`gateway.store.credential_store`).

    Every method may raise `gateway.errors.StoreUnavailable`, every write `gateway.errors.Conflict`.
    A write returns when the model of this process shows it.
    """

    async def keys(self, account: str) -> list[ApiKey]:
        """Return the API keys of ``account``, oldest first."""

    async def key(self, account: str, key_id: str) -> tuple[ApiKey, int] | None:
        """Return an API key of ``account`` and its revision."""

    async def account(self, nca_id: str) -> tuple[Account, int] | None:
        """Return an account and its revision."""

    async def client(self, client_id: str) -> tuple[Client, int] | None:
        """Return a client and its revision."""

    async def accounts(self) -> list[Account]:
        """Return every account, by name."""

    async def clients(self) -> list[Client]:
        """Return every client, by name."""

    async def put(self, record: ApiKey | Account | Client, revision: int) -> int:
        """Write a record in place of ``revision``, 0 for a new one; return its new revision."""

    async def delete(self, key: AccountKey | ClientKey, revision: int) -> None:
        """Delete a record at the ``revision`` that was read."""


@dataclass(frozen=True, slots=True)
class Identity:
    """``random`` returns the given number of random bytes. Lifetimes are in seconds.

    Admin tokens are for ``default_account`` unless the call names another account.
    """

    credentials: CredentialRecords
    signer: TokenSigner
    random: Callable[[int], bytes]
    default_account: str = "nvcf-default"
    service_id: str = SERVICE_ID
    admin_token_s: float = 43_200.0
    invocation_token_s: float = 900.0
