"""Keys of stored records: what a record is looked up and deleted by; and the event of its removal.

A key names one record of one kind. `gateway.store.names` maps keys to buckets and names.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FunctionKey:
    """Key of a `Function`: the record that all versions of a function share."""

    function_id: str


@dataclass(frozen=True, slots=True)
class VersionKey:
    """Key of a `FunctionVersion`."""

    function_id: str
    version_id: str


@dataclass(frozen=True, slots=True)
class ApiKeyKey:
    """Key of the record of an `ApiKey`."""

    key_id: str


@dataclass(frozen=True, slots=True)
class DetailsKey:
    """Key of the `VersionDetails` of a version."""

    function_id: str
    version_id: str


@dataclass(frozen=True, slots=True)
class DeploymentKey:
    """Key of the `Deployment` of a version; a version has at most one."""

    function_id: str
    version_id: str


@dataclass(frozen=True, slots=True)
class InstanceKey:
    """Key of an `Instance`."""

    version_id: str
    instance_id: str


@dataclass(frozen=True, slots=True)
class RenewalsKey:
    """Key of a part of the `gateway.domain.renewals.Renewals` of a process."""

    process: str
    part: str


@dataclass(frozen=True, slots=True)
class AccountKey:
    """Key of an `Account`."""

    nca_id: str


@dataclass(frozen=True, slots=True)
class ClientKey:
    """Key of a `Client`."""

    client_id: str


@dataclass(frozen=True, slots=True)
class SecretsKey:
    """Key of the `Secrets` of a version."""

    function_id: str
    version_id: str


@dataclass(frozen=True, slots=True)
class AccountSecretsKey:
    """Key of the `AccountSecrets` of an account about one ``topic``."""

    nca_id: str
    topic: str


RecordKey = (
    FunctionKey
    | VersionKey
    | ApiKeyKey
    | DetailsKey
    | DeploymentKey
    | InstanceKey
    | RenewalsKey
    | AccountKey
    | ClientKey
    | SecretsKey
    | AccountSecretsKey
)


@dataclass(frozen=True, slots=True)
class Removed:
    """Change event: the store no longer holds the record of ``key``.

    For an API key also: its document can no longer be read.
    """

    key: RecordKey
