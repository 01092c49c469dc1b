"""Where in the store a record stands: one bucket for functions, one for keys.

The buckets' names are these with the deployment's prefix, as in ``gateway_keys``.
"""

from gateway.functions.model import (
    ApiKey,
    Change,
    Function,
    FunctionRemoved,
    FunctionVersion,
    KeyRemoved,
    Record,
    RecordError,
    Removed,
    VersionRemoved,
    decode,
)

FUNCTIONS = "functions"
"""``function.<functionId>`` and ``version.<functionId>.<versionId>``."""
KEYS = "keys"
"""``<keyId>``. A bucket of its own: who may read functions need not read key digests."""

BUCKETS = (FUNCTIONS, KEYS)


def place_of(change: Change) -> tuple[str, str]:
    """Return bucket and name of a record, or of one that is gone."""
    match change:
        case Function() | FunctionRemoved():
            return FUNCTIONS, f"function.{change.function_id}"
        case FunctionVersion() | VersionRemoved():
            return FUNCTIONS, f"version.{change.function_id}.{change.version_id}"
        case ApiKey() | KeyRemoved():
            return KEYS, change.key_id


def removed_at(bucket: str, name: str) -> Removed:
    """Return what is gone when ``name`` is. Raises `RecordError` for a name we never write."""
    if bucket == KEYS:
        return KeyRemoved(name)
    match name.split("."):
        case ["function", function_id]:
            return FunctionRemoved(function_id)
        case ["version", function_id, version_id]:
            return VersionRemoved(function_id, version_id)
        case _:
            raise RecordError("the name is none of ours")


def record_at(bucket: str, name: str, data: bytes) -> Record:
    """Read a document. Raises `RecordError`, also when it belongs under another name."""
    record = decode(data)
    if place_of(record) != (bucket, name):
        raise RecordError("the document belongs under another name")
    return record
