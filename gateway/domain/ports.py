"""What the control plane asks of the store."""

from collections.abc import Mapping
from typing import Protocol

from gateway.domain.model import (
    Deployment,
    Function,
    FunctionVersion,
    Removed,
    VersionDetails,
)


class AccountStore(Protocol):
    """The records of one account; those of others are not there.

    Every call may raise `gateway.errors.StoreUnavailable`, every write `gateway.errors.Conflict`.
    A write returns when this process's own model shows it.
    """

    account: str

    async def function(self, function_id: str) -> tuple[Function, int] | None:
        """Return what a function's versions have in common, and its revision."""

    async def version(
        self, function_id: str, version_id: str
    ) -> tuple[FunctionVersion, int] | None:
        """Return a version and its revision."""

    async def details(self, function_id: str, version_id: str) -> tuple[VersionDetails, int] | None:
        """Return how a version was registered, and the revision."""

    async def deployment(self, function_id: str, version_id: str) -> tuple[Deployment, int] | None:
        """Return what is deployed of a version, and the revision."""

    async def show_deployments(self) -> None:
        """Return when this process's own model shows every deployment that is in the store."""

    async def reserved(self) -> tuple[Mapping[str, int], int]:
        """Return which functions are being registered, by id, and the revision of this.

        With each comes until when its place is kept, in Unix seconds. When this returns, the model
        shows all that were registered before.
        """

    async def reserve(self, until: Mapping[str, int], revision: int) -> None:
        """Write which functions are being registered, in place of ``revision``."""

    async def put(
        self, record: Function | FunctionVersion | VersionDetails | Deployment, revision: int
    ) -> int:
        """Write a record in place of ``revision``, 0 for a new one; return its new revision."""

    async def delete(self, name: Removed, revision: int) -> None:
        """Delete the record whose ``revision`` was read here."""


class AccountStores(Protocol):
    """The store; nothing is reached but through an account."""

    def of(self, account: str) -> AccountStore:
        """Return the store as ``account`` sees it."""
