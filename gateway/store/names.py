"""Where in the store a record stands.

The buckets' names are these with the deployment's prefix, as in ``gateway_keys``. Who may read one
need not read another, which is why there are several: routing needs no details, details hold no
key digests, and secrets are read by nobody but their owner's workers.
"""

import re

from gateway.domain.model import (
    Account,
    AccountRemoved,
    ApiKey,
    Change,
    Client,
    ClientRemoved,
    Deployment,
    DeploymentRemoved,
    DetailsRemoved,
    Function,
    FunctionRemoved,
    FunctionVersion,
    Instance,
    InstanceRemoved,
    KeyRemoved,
    Record,
    RecordError,
    Removed,
    Secrets,
    SecretsRemoved,
    VersionDetails,
    VersionRemoved,
    decode,
)

FUNCTIONS = "functions"
"""``function.<functionId>`` and ``version.<functionId>.<versionId>``."""
KEYS = "keys"
"""``<keyId>``."""
DETAILS = "details"
"""``details.<functionId>.<versionId>`` and ``deployment.<functionId>.<versionId>``."""
INSTANCES = "instances"
"""``instance.<versionId>.<instanceId>``; in memory: what runs is told again by what runs."""
ACCOUNTS = "accounts"
"""``account.<ncaId>`` and ``client.<clientId>``."""
SECRETS = "secrets"
"""``secrets.<functionId>.<versionId>``, encrypted."""
META = "meta"
"""No records: the leader's lease, the bootstrap digest, public halves of signing keys, and which
functions are being registered."""
RESERVED = "reserved."
"""How the names of reservations in `META` begin."""

BUCKETS = (FUNCTIONS, KEYS, DETAILS, INSTANCES, ACCOUNTS, SECRETS, META)
IN_MEMORY = frozenset({INSTANCES})
ROUTING = (FUNCTIONS, KEYS, ACCOUNTS)
"""What every gateway process follows."""
CONTROL = (*ROUTING, DETAILS, INSTANCES)
"""What a process follows that serves the API or keeps instances."""

_plain = re.compile(r"[A-Za-z0-9_-]+").fullmatch


def place_of(change: Change) -> tuple[str, str]:  # noqa: PLR0911 - one line per kind
    """Return bucket and name of a record, or of one that is gone."""
    match change:
        case FunctionVersion() | VersionRemoved():
            return FUNCTIONS, f"version.{change.function_id}.{change.version_id}"
        case Function() | FunctionRemoved():
            return FUNCTIONS, f"function.{change.function_id}"
        case ApiKey() | KeyRemoved():
            return KEYS, change.key_id
        case VersionDetails() | DetailsRemoved():
            return DETAILS, f"details.{change.function_id}.{change.version_id}"
        case Deployment() | DeploymentRemoved():
            return DETAILS, f"deployment.{change.function_id}.{change.version_id}"
        case Instance() | InstanceRemoved():
            return INSTANCES, f"instance.{change.version_id}.{_token(change.instance_id)}"
        case Account() | AccountRemoved():
            return ACCOUNTS, f"account.{_token(change.nca_id)}"
        case Client() | ClientRemoved():
            return ACCOUNTS, f"client.{_token(change.client_id)}"
        case Secrets() | SecretsRemoved():
            return SECRETS, f"secrets.{change.function_id}.{change.version_id}"


def reserved_name(account: str) -> str:
    """Return where in `META` stands which functions of an account are being registered."""
    return f"{RESERVED}{_token(account)}"


def removed_at(bucket: str, name: str) -> Removed:  # noqa: PLR0911 - one line per kind
    """Return what is gone when ``name`` is. Raises `RecordError` for a name we never write."""
    if bucket == KEYS:
        return KeyRemoved(name)
    match name.split("."):
        case ["function", function_id]:
            return FunctionRemoved(function_id)
        case ["version", function_id, version_id]:
            return VersionRemoved(function_id, version_id)
        case ["details", function_id, version_id]:
            return DetailsRemoved(function_id, version_id)
        case ["deployment", function_id, version_id]:
            return DeploymentRemoved(function_id, version_id)
        case ["instance", version_id, instance_id]:
            return InstanceRemoved(version_id, _text(instance_id))
        case ["account", nca_id]:
            return AccountRemoved(_text(nca_id))
        case ["client", client_id]:
            return ClientRemoved(_text(client_id))
        case ["secrets", function_id, version_id]:
            return SecretsRemoved(function_id, version_id)
        case _:
            raise RecordError("the name is none of ours")


def record_at(bucket: str, name: str, data: bytes) -> Record:
    """Read a document. Raises `RecordError`, also when it belongs under another name."""
    record = decode(data)
    if place_of(record) != (bucket, name):
        raise RecordError("the document belongs under another name")
    return record


def _token(text: str) -> str:
    """Return ``text`` as one token of a KV name: as it is where that can be, else in hex."""
    return text if _plain(text) else f"={text.encode().hex()}"


def _text(token: str) -> str:
    if not token.startswith("="):
        return token
    try:
        return bytes.fromhex(token[1:]).decode()
    except ValueError as error:
        raise RecordError("the name is none of ours") from error
