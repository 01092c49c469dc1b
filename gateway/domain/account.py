"""Records of accounts, of the clients that act for them, and of what is sealed in the store."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from sys import intern
from typing import Self

from gateway.domain.documents import SCHEMA, Document, RecordError
from gateway.domain.keys import AccountKey, AccountSecretsKey, ClientKey, SecretsKey
from gateway.domain.registry_credential import MAX_CREDENTIALS
from gateway.domain.telemetry_endpoint import MAX_ENDPOINTS
from wire.ids import FunctionId, VersionId

MAX_FUNCTIONS = 50
"""Default limit of functions per account (`docs/wire.md` §10.1)."""


@dataclass(frozen=True, slots=True)
class Account:
    """The owner of functions, API keys and deployments; ``nca_id`` is its id in every call.

    ``created_at`` is ISO 8601, UTC, with microseconds and ``Z``. Tasks do not exist here: their
    limit is only kept.
    """

    nca_id: str
    name: str
    max_functions: int = MAX_FUNCTIONS
    created_at: str = ""
    max_tasks: int = 0
    max_telemetries: int = MAX_ENDPOINTS
    max_registry_credentials: int = MAX_CREDENTIALS

    @property
    def key(self) -> AccountKey:
        return AccountKey(self.nca_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "account",
            "nca_id": self.nca_id,
            "name": self.name,
            "max_functions": self.max_functions,
            "max_tasks": self.max_tasks,
            "max_telemetries": self.max_telemetries,
            "max_registry_credentials": self.max_registry_credentials,
            "created_at": self.created_at,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            nca_id=intern(document.text("nca_id")),
            name=document.text("name"),
            max_functions=document.number("max_functions"),
            created_at=document.text("created_at"),
            max_tasks=document.number_or_none("max_tasks") or 0,
            # 0 in a document of an earlier release, which had no such limits, says nothing.
            max_telemetries=document.number_or_none("max_telemetries") or MAX_ENDPOINTS,
            max_registry_credentials=(
                document.number_or_none("max_registry_credentials") or MAX_CREDENTIALS
            ),
        )


@dataclass(frozen=True, slots=True)
class Client:
    """The subject of a JWT, and the account that it acts for."""

    client_id: str
    account: str

    @property
    def key(self) -> ClientKey:
        return ClientKey(self.client_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "client",
            "client_id": self.client_id,
            "account": self.account,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(document.text("client_id"), intern(document.text("account")))


@dataclass(frozen=True, slots=True)
class Secrets:
    """The values of a version's secrets, encrypted in ``sealed``."""

    function_id: FunctionId
    version_id: VersionId
    account: str
    sealed: bytes
    updated_at: str = ""

    @property
    def key(self) -> SecretsKey:
        return SecretsKey(self.function_id, self.version_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "secrets",
            "function_id": self.function_id,
            "version_id": self.version_id,
            "account": self.account,
            "sealed": b64encode(self.sealed).decode(),
            "updated_at": self.updated_at,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            function_id=FunctionId(document.uuid("function_id")),
            version_id=VersionId(document.uuid("version_id")),
            account=intern(document.text("account")),
            sealed=_sealed(document),
            updated_at=document.text("updated_at"),
        )


TELEMETRIES, REGISTRY_CREDENTIALS = "telemetries", "registry-credentials"
TOPICS = (TELEMETRIES, REGISTRY_CREDENTIALS)


@dataclass(frozen=True, slots=True)
class AccountSecrets:
    """A list of objects with secrets that an account has, encrypted as a whole in ``sealed``.

    ``topic`` says what they are: one of `TOPICS`.
    """

    account: str
    topic: str
    sealed: bytes
    updated_at: str = ""

    @property
    def key(self) -> AccountSecretsKey:
        return AccountSecretsKey(self.account, self.topic)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "account-secrets",
            "account": self.account,
            "topic": self.topic,
            "sealed": b64encode(self.sealed).decode(),
            "updated_at": self.updated_at,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        topic = document.text("topic")
        if topic not in TOPICS:
            raise RecordError(f"topic {topic!r} is not known")
        return cls(
            account=intern(document.text("account")),
            topic=intern(topic),
            sealed=_sealed(document),
            updated_at=document.text("updated_at"),
        )


def _sealed(document: Document) -> bytes:
    try:
        return b64decode(document.text("sealed"), validate=True)
    except (Base64Error, ValueError) as error:
        raise RecordError("sealed is not base64") from error
