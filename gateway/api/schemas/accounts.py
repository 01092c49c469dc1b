"""Accounts and the clients that act for them (§2)."""

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
    """A client that acts for it from the start."""
    max_functions_allowed: MaxFunctions | None = None


class UpdateAccount(Body):
    """What changes."""

    name: AccountName | None = None
    max_functions_allowed: MaxFunctions | None = None
    """For administrators of all accounts alone."""


class ClientBody(Body):
    """The subject of JWTs."""

    client_id: ClientId


class AccountView(View):
    """An account."""

    nca_id: NcaId
    name: str
    admin_client_ids: list[str]
    """The clients that act for it."""
    max_functions_allowed: int
    max_tasks_allowed: int = 0
    max_telemetries_allowed: int = 0
    max_registry_credentials_allowed: int = 0
    created_at: str | None = None


class AccountAnswer(View):
    """One account."""

    account: AccountView


class AccountsAnswer(View):
    """Every account, by name."""

    cloud_accounts: list[AccountView]


class ClientView(View):
    """A client, and the account it acts for."""

    client_id: str
    nca_id: str


class ClientAnswer(View):
    """One client."""

    client: ClientView
