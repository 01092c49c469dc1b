"""Accounts, and the clients that act for them (`docs/wire.md` §14.1)."""

from typing import Annotated

from pydantic import Field

from gateway.api.schemas.fields import WHOLE, Body, NcaId, View

AccountName = Annotated[str, Field(min_length=4, max_length=36, pattern=r"^[^\x00-\x1f\x7f]+$")]
MaxFunctions = Annotated[int, Field(ge=1, le=1_000_000), WHOLE]
ClientId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]


class CreateAccount(Body):
    """A new account."""

    name: AccountName
    admin_client_id: ClientId | None = None
    """A client that acts for the account."""
    max_functions_allowed: MaxFunctions | None = None


class UpdateAccount(Body):
    """Members to update."""

    name: AccountName | None = None
    max_functions_allowed: MaxFunctions | None = None
    """Only with the scope admin:account_setup."""


class ClientBody(Body):
    """A client: the subject of JWTs."""

    client_id: ClientId


class AccountView(View):
    """An account."""

    nca_id: NcaId
    name: str
    admin_client_ids: list[str]
    """The clients that act for the account."""
    max_functions_allowed: int
    max_tasks_allowed: int = 0
    max_telemetries_allowed: int = 0
    max_registry_credentials_allowed: int = 0
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
