"""Bucket and name of every record in the store.

The full name of a bucket begins with the prefix of the installation, as in ``gateway_keys``. There
are several buckets because permissions differ: routing needs no details, details contain no key
digests, and only the owner's workers get secrets.
"""

import re
from hashlib import sha256
from typing import NamedTuple

from gateway.domain.account import TOPICS
from gateway.domain.model import (
    AccountKey,
    AccountSecretsKey,
    ApiKeyKey,
    ClientKey,
    DeploymentKey,
    DetailsKey,
    FunctionKey,
    InstanceKey,
    Record,
    RecordError,
    RecordKey,
    RenewalsKey,
    SecretsKey,
    VersionKey,
    decode,
)

FUNCTIONS = "functions"
"""``function.<functionId>`` and ``version.<functionId>.<versionId>``."""
KEYS = "keys"
"""``<keyId>``."""
DETAILS = "details"
"""``details.<functionId>.<versionId>`` and ``deployment.<functionId>.<versionId>``."""
INSTANCES = "instances"
"""``instance.<versionId>.<instanceId>`` and ``renewals.<process>.<part>``; in memory, because both
are written again: by the reconciler, or workers that register again, and by the process."""
ACCOUNTS = "accounts"
"""``account.<ncaId>`` and ``client.<clientId>``."""
SECRETS = "secrets"
"""``secrets.<functionId>.<versionId>`` and ``<topic>.<ncaId>`` of an account, encrypted."""
META = "meta"
"""Not records: the leader's lease, the bootstrap digest, public signing keys, secrets of webhooks,
reservations of functions that are being registered, and notes of processes."""
WEBHOOKS = "webhooks"
"""Not records: webhooks that are to be delivered, by request id (`gateway.webhooks.records`)."""
RESERVED = "reserved."
"""Prefix of the names of reservations in `META`."""
PROCESSES = "process."
"""Prefix of the notes in `META` that a gateway process has lived."""

BUCKETS = (FUNCTIONS, KEYS, DETAILS, INSTANCES, ACCOUNTS, SECRETS, META, WEBHOOKS)
IN_MEMORY = frozenset({INSTANCES})
ROUTING = (FUNCTIONS, KEYS, ACCOUNTS)
"""Followed by every gateway process."""
CONTROL = (*ROUTING, DETAILS, INSTANCES)
"""Followed by a process with the role ``api`` or ``provision``."""

_plain = re.compile(r"[A-Za-z0-9_-]+").fullmatch


class Location(NamedTuple):
    """Bucket, without prefix, and name of a stored document."""

    bucket: str
    name: str


def location_of(key: RecordKey) -> Location:  # noqa: C901, PLR0911 - one line per kind
    """Return where the record of ``key`` is stored."""
    match key:
        case VersionKey(function_id, version_id):
            return Location(FUNCTIONS, f"version.{function_id}.{version_id}")
        case FunctionKey(function_id):
            return Location(FUNCTIONS, f"function.{function_id}")
        case ApiKeyKey(key_id):
            return Location(KEYS, key_id)
        case DetailsKey(function_id, version_id):
            return Location(DETAILS, f"details.{function_id}.{version_id}")
        case DeploymentKey(function_id, version_id):
            return Location(DETAILS, f"deployment.{function_id}.{version_id}")
        case InstanceKey(version_id, instance_id):
            return Location(INSTANCES, f"instance.{version_id}.{_token(instance_id)}")
        case RenewalsKey(process, part):
            return Location(INSTANCES, f"renewals.{process}.{part}")
        case AccountKey(nca_id):
            return Location(ACCOUNTS, f"account.{_token(nca_id)}")
        case ClientKey(client_id):
            return Location(ACCOUNTS, f"client.{_token(client_id)}")
        case SecretsKey(function_id, version_id):
            return Location(SECRETS, f"secrets.{function_id}.{version_id}")
        case AccountSecretsKey(nca_id, topic):
            return Location(SECRETS, f"{topic}.{_token(nca_id)}")


def reserved_name(account: str) -> str:
    """Return the name in `META` of the reservations of an account."""
    return f"{RESERVED}{_token(account)}"


def account_token(account: str) -> str:
    """Return a short name without dots for an account: its id where possible, else of a digest."""
    if _plain(account):
        return account
    return f"={sha256(account.encode()).hexdigest()[:32]}"


def key_at(bucket: str, name: str) -> RecordKey:  # noqa: C901, PLR0911 - one line per kind
    """Return the key of the record at a location. Raises `RecordError` for an unknown name."""
    if bucket == KEYS:
        return ApiKeyKey(name)
    match name.split("."):
        case ["function", function_id]:
            return FunctionKey(function_id)
        case ["version", function_id, version_id]:
            return VersionKey(function_id, version_id)
        case ["details", function_id, version_id]:
            return DetailsKey(function_id, version_id)
        case ["deployment", function_id, version_id]:
            return DeploymentKey(function_id, version_id)
        case ["instance", version_id, instance_id]:
            return InstanceKey(version_id, _text(instance_id))
        case ["renewals", process, part]:
            return RenewalsKey(process, part)
        case ["account", nca_id]:
            return AccountKey(_text(nca_id))
        case ["client", client_id]:
            return ClientKey(_text(client_id))
        case ["secrets", function_id, version_id]:
            return SecretsKey(function_id, version_id)
        case [topic, nca_id] if topic in TOPICS:
            return AccountSecretsKey(_text(nca_id), topic)
        case _:
            raise RecordError("the name is not known")


def record_at(bucket: str, name: str, data: bytes) -> Record:
    """Read the document at a location. Raises `RecordError`, also if it belongs elsewhere."""
    record = decode(data)
    if location_of(record.key) != (bucket, name):
        raise RecordError("the document belongs under another name")
    return record


def _token(text: str) -> str:
    """Return ``text`` as one token of a KV name: unchanged where possible, else ``=`` and hex."""
    return text if _plain(text) else f"={text.encode().hex()}"


def _text(token: str) -> str:
    if not token.startswith("="):
        return token
    try:
        return bytes.fromhex(token[1:]).decode()
    except ValueError as error:
        raise RecordError("the name is not known") from error
