"""What the gateway knows of functions, versions and keys, and how each is written down.

Records are values: made from a stored document, replaced whole, never changed. A document is JSON
with ``"schema": 1``; a document of another schema is refused, because a key or a state that is
half understood is worse than one that is missing. Unknown members are ignored, so that a later
release may add some without a new schema.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from sys import intern
from typing import NamedTuple, cast

import orjson

from wire.ids import FunctionId, VersionId, parse_uuid

SCHEMA = 1


class RecordError(ValueError):
    """A stored document that this program cannot read, or must not guess at."""


class State(Enum):
    """State of a function version (`spec/control-plane.md` §3.1)."""

    INACTIVE = "INACTIVE"
    DEPLOYING = "DEPLOYING"
    ACTIVE = "ACTIVE"
    DEGRADING = "DEGRADING"
    DEGRADED = "DEGRADED"
    ERROR = "ERROR"


INVOCABLE = frozenset({State.ACTIVE, State.DEGRADING})
"""States in which an invocation is taken (`spec/control-plane.md` §3.4)."""

NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Function:
    """What all versions of one function have in common.

    ``shared_with`` are other accounts that may use every version; ``is_public`` lets all of them.
    """

    function_id: FunctionId
    account: str
    shared_with: frozenset[str] = NOBODY
    is_public: bool = False


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """One immutable build of a function, and the state it is in.

    ``account`` is the owner's NCA id. ``inference_path`` and ``inference_port`` are where the
    inference server answers. ``shared_with`` and ``is_public`` add to those of the `Function`.
    """

    function_id: FunctionId
    version_id: VersionId
    account: str
    name: str
    state: State
    inference_path: str = "/"
    inference_port: int = 8000
    shared_with: frozenset[str] = NOBODY
    is_public: bool = False


class Reach(NamedTuple):
    """Which functions a credential is good for (`spec/control-plane.md` §6.2).

    ``own`` is every function of its account, ``shared`` every function shared with that account.
    ``functions`` are single functions with all their versions; ``versions`` are single versions,
    as ``functionId/versionId``, which do not allow calls that name the function alone.
    """

    own: bool = False
    shared: bool = False
    functions: frozenset[str] = NOBODY
    versions: frozenset[str] = NOBODY


EVERYTHING = Reach(own=True, shared=True)
"""No limit beyond the account."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, as it is stored: never the key itself, only its SHA-256.

    ``subject`` is who the key's calls are made for, as the worker is told. ``created_at`` and
    ``expires_at`` are Unix seconds; a key without ``expires_at`` does not expire.
    """

    key_id: str
    digest: bytes
    account: str
    subject: str
    scopes: frozenset[str]
    reach: Reach = EVERYTHING
    created_at: int = 0
    expires_at: int | None = None
    is_revoked: bool = False
    description: str = ""


Record = Function | FunctionVersion | ApiKey


class FunctionRemoved(NamedTuple):
    """The record common to a function's versions is gone; the versions are not."""

    function_id: str


class VersionRemoved(NamedTuple):
    """A version is gone."""

    function_id: str
    version_id: str


class KeyRemoved(NamedTuple):
    """A key is gone, or can no longer be read."""

    key_id: str


Removed = FunctionRemoved | VersionRemoved | KeyRemoved
Change = Record | Removed


def encode(record: Record) -> bytes:
    """Return the document of ``record``."""
    match record:
        case Function():
            return orjson.dumps(_function_document(record))
        case FunctionVersion():
            return orjson.dumps(_version_document(record))
        case ApiKey():
            return orjson.dumps(_key_document(record))


def decode(data: bytes) -> Record:
    """Read a document. Raises `RecordError` that names the member that is wrong."""
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RecordError("not a JSON document") from error
    if not isinstance(parsed, dict):
        raise RecordError("not a JSON object")
    document = _Document(parsed)
    schema = document.number("schema")
    if schema != SCHEMA:
        raise RecordError(f"schema is {schema}, this program reads {SCHEMA}")
    match document.text("kind"):
        case "function":
            return _function(document)
        case "version":
            return _version(document)
        case "key":
            return _key(document)
        case other:
            raise RecordError(f"kind {other!r} is not known")


def resources_of(reach: Reach) -> list[dict[str, str]]:
    """Return ``reach`` in NVCF's form, a list of ``{type, id}``."""
    resources = []
    if reach.own:
        resources.append({"type": "account-functions", "id": "*"})
    if reach.shared:
        resources.append({"type": "authorized-functions", "id": "*"})
    resources += [{"type": "function", "id": f"{id_}/*"} for id_ in sorted(reach.functions)]
    resources += [{"type": "function", "id": id_} for id_ in sorted(reach.versions)]
    return resources


def reach_of(resources: Iterable[Mapping[str, object]]) -> Reach:
    """Read NVCF's form; what is malformed grants nothing (`spec/control-plane.md` §6.2)."""
    own = shared = False
    functions, versions = set(), set()
    for resource in resources:
        kind, id_ = resource.get("type"), str(resource.get("id"))
        if kind == "account-functions":
            own = own or id_ == "*"
        elif kind == "authorized-functions":
            shared = shared or id_ == "*"
        elif kind == "function":
            function, _, version = id_.partition("/")
            function_id, version_id = parse_uuid(function.encode()), parse_uuid(version.encode())
            if function_id is not None and version == "*":
                functions.add(function_id)
            elif function_id is not None and version_id is not None:
                versions.add(f"{function_id}/{version_id}")
    return Reach(own, shared, frozenset(functions), frozenset(versions))


def _function_document(function: Function) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "kind": "function",
        "function_id": function.function_id,
        "account": function.account,
        "shared_with": sorted(function.shared_with),
        "is_public": function.is_public,
    }


def _version_document(version: FunctionVersion) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "kind": "version",
        "function_id": version.function_id,
        "version_id": version.version_id,
        "account": version.account,
        "name": version.name,
        "state": version.state.value,
        "inference_path": version.inference_path,
        "inference_port": version.inference_port,
        "shared_with": sorted(version.shared_with),
        "is_public": version.is_public,
    }


def _key_document(key: ApiKey) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "kind": "key",
        "key_id": key.key_id,
        "digest": key.digest.hex(),
        "account": key.account,
        "subject": key.subject,
        "scopes": sorted(key.scopes),
        "resources": resources_of(key.reach),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "is_revoked": key.is_revoked,
        "description": key.description,
    }


def _function(document: "_Document") -> Function:
    return Function(
        function_id=FunctionId(document.uuid("function_id")),
        account=intern(document.text("account")),
        shared_with=document.texts("shared_with"),
        is_public=document.flag("is_public"),
    )


def _version(document: "_Document") -> FunctionVersion:
    state = document.text("state")
    if state not in State.__members__:
        raise RecordError(f"state {state!r} is not known")
    return FunctionVersion(
        function_id=FunctionId(document.uuid("function_id")),
        version_id=VersionId(document.uuid("version_id")),
        account=intern(document.text("account")),
        name=document.text("name"),
        state=State[state],
        inference_path=intern(document.text("inference_path")),
        inference_port=document.number("inference_port"),
        shared_with=document.texts("shared_with"),
        is_public=document.flag("is_public"),
    )


def _key(document: "_Document") -> ApiKey:
    try:
        digest = bytes.fromhex(document.text("digest"))
    except ValueError as error:
        raise RecordError("digest is not hexadecimal") from error
    if len(digest) != 32:
        raise RecordError("digest is not a SHA-256")
    return ApiKey(
        key_id=document.text("key_id"),
        digest=digest,
        account=intern(document.text("account")),
        subject=document.text("subject"),
        scopes=document.texts("scopes"),
        reach=reach_of(document.objects("resources")),
        created_at=document.number("created_at"),
        expires_at=document.number("expires_at") if document.has("expires_at") else None,
        is_revoked=document.flag("is_revoked"),
        description=document.text("description"),
    )


class _Document:
    """Typed access to the members of one document; each method raises `RecordError`."""

    __slots__ = ("_members",)

    def __init__(self, members: dict[str, object]) -> None:
        self._members = members

    def has(self, name: str) -> bool:
        return self._members.get(name) is not None

    def text(self, name: str) -> str:
        value = self._members.get(name)
        if not isinstance(value, str):
            raise RecordError(f"{name} is not a text")
        return value

    def uuid(self, name: str) -> str:
        value = parse_uuid(self.text(name).encode())
        if value is None:
            raise RecordError(f"{name} is not a UUID")
        return value

    def number(self, name: str) -> int:
        value = self._members.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RecordError(f"{name} is not an integer")
        return value

    def flag(self, name: str) -> bool:
        value = self._members.get(name)
        if not isinstance(value, bool):
            raise RecordError(f"{name} is not true or false")
        return value

    def texts(self, name: str) -> frozenset[str]:
        value = self._members.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise RecordError(f"{name} is not a list of texts")
        return frozenset(value) if value else NOBODY

    def objects(self, name: str) -> list[Mapping[str, object]]:
        value = self._members.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise RecordError(f"{name} is not a list of objects")
        return cast(list[Mapping[str, object]], value)
