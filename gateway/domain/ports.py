"""The store, as the control plane uses it (`gateway.store.account_store`)."""

from collections.abc import Mapping
from typing import Protocol

from gateway.domain.model import (
    AccountSecrets,
    Deployment,
    Function,
    FunctionVersion,
    RecordKey,
    Secrets,
    VersionDetails,
)

Owned = Function | FunctionVersion | VersionDetails | Deployment | Secrets | AccountSecrets
"""A record that belongs to an account."""


class AccountStore(Protocol):
    """The records of one account; other accounts' records do not exist here.

    Every method may raise `gateway.errors.StoreUnavailable`, every write `gateway.errors.Conflict`.
    A write returns when the model of this process shows it.
    """

    account: str

    async def function(self, function_id: str) -> tuple[Function, int] | None:
        """Return the record that a function's versions share, and its revision."""

    async def version(
        self, function_id: str, version_id: str
    ) -> tuple[FunctionVersion, int] | None:
        """Return a version and its revision."""

    async def details(self, function_id: str, version_id: str) -> tuple[VersionDetails, int] | None:
        """Return the details of a version and their revision."""

    async def deployment(self, function_id: str, version_id: str) -> tuple[Deployment, int] | None:
        """Return the deployment of a version and its revision."""

    async def secrets(self, function_id: str, version_id: str) -> tuple[Secrets, int] | None:
        """Return the sealed secrets of a version and their revision."""

    async def account_secrets(self, topic: str) -> tuple[AccountSecrets, int] | None:
        """Return the sealed list of ``topic`` and its revision."""

    async def show_deployments(self) -> None:
        """Wait until the model of this process shows every deployment that is stored now."""

    async def show_versions(self) -> None:
        """Wait until the model of this process shows every version that is stored now."""

    async def reservations(self) -> tuple[Mapping[str, int], int]:
        """Return the functions that are being registered, by id, and the revision of this.

        The values are when each reservation ends, in Unix seconds. When this returns, the model of
        this process shows every function that was registered before.
        """

    async def put_reservations(self, until: Mapping[str, int], revision: int) -> None:
        """Write the functions that are being registered, in place of ``revision``."""

    async def put(self, record: Owned, revision: int) -> int:
        """Write a record in place of ``revision``, 0 for a new one; return its new revision."""

    async def delete(self, key: RecordKey, revision: int) -> None:
        """Delete the record whose ``revision`` was read here."""


class AccountStores(Protocol):
    """The store, accessible only through an account."""

    def of(self, account: str) -> AccountStore:
        """Return the store as ``account`` sees it."""
