"""What the routes about accounts, keys, tokens and secrets stand on, beside the `Api`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.api.secrets.secret_store import Vault
from gateway.auth.signing import TokenSigner
from gateway.domain.model import Account, AccountRemoved, ApiKey, Client, ClientRemoved

SERVICE_ID = "nvidia-cloud-functions-ncp-service-id-aketm"
"""What NVCF's CLI calls this service when it asks for a key."""


class Credentials(Protocol):
    """Keys, accounts and clients in the store.

    Every call may raise `gateway.errors.StoreUnavailable`, every write `gateway.errors.Conflict`.
    A write returns when this process's own model shows it.
    """

    async def keys(self, account: str) -> list[ApiKey]:
        """Return the keys of ``account``, oldest first."""

    async def key(self, account: str, key_id: str) -> tuple[ApiKey, int] | None:
        """Return a key of ``account`` and its revision."""

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

    async def delete(self, name: AccountRemoved | ClientRemoved, revision: int) -> None:
        """Delete a record at the ``revision`` that was read."""


@dataclass(frozen=True, slots=True)
class Identity:
    """``random`` returns so many random bytes; ``default_account`` is whose admin tokens are.

    Lifetimes are in seconds.
    """

    credentials: Credentials
    vault: Vault
    signer: TokenSigner
    random: Callable[[int], bytes]
    default_account: str = "nvcf-default"
    service_id: str = SERVICE_ID
    admin_token_s: float = 43_200.0
    invocation_token_s: float = 900.0
