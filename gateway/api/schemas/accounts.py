"""Accounts, and the clients that act for them (`docs/wire.md` §14.1)."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from gateway.api.schemas.fields import VISIBLE_ID, WHOLE, Body, NcaId, View
from gateway.domain.model import Account
from runtime.text_rules import text_rule

AccountName = Annotated[
    str,
    Field(min_length=4),
    text_rule(r"^[^\x00-\x1f\x7f]+$", "not have control characters", max_length=36),
]
MaxFunctions = Annotated[int, Field(ge=1, le=1_000_000), WHOLE]
MaxListed = Annotated[int, Field(ge=1, le=1_000_000), WHOLE]
KeptLimit = Annotated[int, Field(ge=0, le=1_000_000), WHOLE]
ClientId = Annotated[str, VISIBLE_ID]


class AccountLimits(Body):
    """Limits of an account; an update of them needs the scope admin:account_setup."""

    max_functions_allowed: MaxFunctions | None = None
    max_tasks_allowed: KeptLimit | None = None
    """Kept and returned; tasks do not exist here."""
    max_telemetries_allowed: MaxListed | None = None
    max_registry_credentials_allowed: MaxListed | None = None

    def apply(self, account: Account) -> Account:
        """Return ``account`` with the limits that the body names."""
        return replace(
            account,
            max_functions=_first(self.max_functions_allowed, account.max_functions),
            max_tasks=_first(self.max_tasks_allowed, account.max_tasks),
            max_telemetries=_first(self.max_telemetries_allowed, account.max_telemetries),
            max_registry_credentials=_first(
                self.max_registry_credentials_allowed, account.max_registry_credentials
            ),
        )


def _first(given: int | None, before: int) -> int:
    return before if given is None else given


class CreateAccount(AccountLimits):
    """A new account."""

    name: AccountName
    admin_client_id: ClientId | None = None
    """A client that acts for the account."""


class UpdateAccount(AccountLimits):
    """Members to update."""

    name: AccountName | None = None


class ClientBody(Body):
    """A client: the subject of JWTs."""

    client_id: ClientId


class AccountView(View):
    """An account."""

    nca_id: NcaId
    name: str
    admin_client_ids: list[str]
    """The clients that act for the account."""
    client_ids: list[str]
    """Same as adminClientIds, as NVCF calls them when it returns one account."""
    max_functions_allowed: int
    max_tasks_allowed: int
    max_telemetries_allowed: int
    max_registry_credentials_allowed: int
    created_at: str | None = None


class AccountResponse(View):
    """An account."""

    account: AccountView


class AccountsResponse(View):
    """Every account, by id."""

    cloud_accounts: list[AccountView]


class ClientView(View):
    """A client, and the account that it acts for."""

    client_id: str
    nca_id: str


class ClientResponse(View):
    """A client."""

    client: ClientView
