"""Idempotency-Key: which call a key belongs to, and what becomes of a further one. Pure.

draft-ietf-httpapi-idempotency-key-header-07: the header is an Item of Structured Fields whose value
is a String (RFC 9651 §3.3.3), with which a client repeats a request without running it twice. Two
things differ from the draft (`docs/wire.md`): a bare value is accepted, because most clients send
one, and a call that repeats one which still runs is not refused with 409: it gets its response.

A key belongs to an account and a function, not to a version: a repeated call may have been routed
to another one. The first call with a key *claims* it, in the store, before any worker can get it.
Who finds the claim finds the holder of that call in the request id that the claim contains.
"""

import re
from enum import Enum
from hashlib import sha256
from typing import NamedTuple

import orjson

from gateway.errors import BadRequest
from http1.stream import Request
from wire.headers import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    IDEMPOTENCY_KEY,
    NVCF_INPUT_ASSET_REFERENCES,
    NVCF_WEBHOOK_URL,
)
from wire.ids import parse_uuid

MAX_KEY_CHARACTERS = 255
_PARAMETER = rb'(?: *; *[a-z*][a-z0-9_.*-]*(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*"|[!#-+\--:<-~]*))?)*'
_quoted = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"' + _PARAMETER).fullmatch
_bare = re.compile(rb"[!#-+\--:<-~]+").fullmatch
"""Visible ASCII without quotation mark, comma and semicolon, which make it something else."""
_escaped = re.compile(rb"\\(.)")
_FINGERPRINTED = (CONTENT_TYPE, CONTENT_ENCODING)
"""Headers that belong to the request as such, as the references of input assets do; the others may
differ when it is sent again."""


def parse_key(value: bytes) -> bytes:
    """Return the key of a header value; ``"k"`` and ``k`` are the same. Raises `BadRequest`."""
    quoted = _quoted(value)
    if quoted is not None:
        key = _escaped.sub(rb"\1", quoted[1])
    elif _bare(value) is not None:
        key = value
    else:
        raise BadRequest(
            "Idempotency-Key is neither a string in quotation marks (RFC 9651) nor a word of "
            "visible ASCII"
        )
    if not 0 < len(key) <= MAX_KEY_CHARACTERS:
        raise BadRequest(f"Idempotency-Key has not 1 to {MAX_KEY_CHARACTERS} characters")
    return key


def key_of(request: Request) -> bytes:
    """Return the key of a request that has the header. Raises `BadRequest`, also for several."""
    if sum(name == IDEMPOTENCY_KEY for name, _ in request.headers) > 1:
        raise BadRequest("The header idempotency-key appears more than once")
    return parse_key(request.values[IDEMPOTENCY_KEY])


def claim_name(account: str, function_id: str, key: bytes) -> str:
    """Return the name of a key's claim, from which nobody learns the key."""
    return sha256(_joined([account.encode(), function_id.encode(), key])).hexdigest()


class ClaimPosition(NamedTuple):
    """Where the claim of a key is: its account, and its name there."""

    account: str
    name: str


class Fingerprint:
    """Computes the digest of one request while its body arrives.

    Of its head: method, target as the client sent it, the version that it names, if any, and the
    headers of `_FINGERPRINTED`; input assets and the webhook.
    """

    __slots__ = ("_body", "_head")

    def __init__(
        self,
        request: Request,
        target: bytes,
        version_id: str | None,
        references: bytes = b"",
    ) -> None:
        """``references`` are those of input assets, if they are no header of the request."""
        get = request.values.get
        parts = [request.method, target, (version_id or "").encode()]
        parts += [get(name, b"").strip() for name in _FINGERPRINTED]
        parts.append(references or get(NVCF_INPUT_ASSET_REFERENCES, b""))
        if NVCF_WEBHOOK_URL in request.values:
            # What the second of two requests asks for must not be ignored.
            parts.append(get(NVCF_WEBHOOK_URL, b""))
        self._head = sha256(_joined(parts)).digest()
        self._body = sha256()

    def add(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._body.update(data)

    def digest(self) -> str:
        """Return the fingerprint of the request, whose body is complete, as hex digits."""
        return sha256(self._head + self._body.digest()).hexdigest()


class KeyClaim(NamedTuple):
    """The document of a claim.

    ``fingerprint`` is empty if the body was not complete when the key was claimed.
    """

    request_id: str
    fingerprint: str

    def encode(self) -> bytes:
        """Return the document."""
        return orjson.dumps({"requestId": self.request_id, "fingerprint": self.fingerprint})

    @classmethod
    def decode(cls, document: bytes) -> "KeyClaim | None":
        """Return the claim of a document, ``None`` if it is not one."""
        try:
            members = orjson.loads(document)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(members, dict):
            return None
        request_id = parse_uuid(str(members.get("requestId")).encode())
        if request_id is None:
            return None
        return cls(request_id, str(members.get("fingerprint", "")))


class Found(Enum):
    """What is known of the call that has claimed a key."""

    ABSENT = "absent"
    """There is no claim."""
    RELEASED = "released"
    """The call was refused before any worker could get it, and its claim is about to vanish."""
    RUNNING = "running"
    """Its holder has it. It may still be receiving the body."""
    FINISHED = "finished"
    """Its response is stored."""
    LOST = "lost"
    """Neither its holder nor the object store knows its response."""


class Decision(Enum):
    """What becomes of a call with a key."""

    RUN = "run"
    """It claims the key, and runs."""
    AGAIN = "again"
    """Look for the claim again."""
    WAIT = "wait"
    """Until the body of the first call is complete."""
    JOIN = "join"
    """It gets the response of the first call as that comes."""
    REPLAY = "replay"
    """It gets the stored response."""
    REFUSE = "refuse"
    """422: the key belongs to another request."""
    UNKNOWN = "unknown"
    """502: the first call may have run, and nobody knows its response."""


DECISIONS: dict[tuple[Found, bool | None], Decision] = {
    (Found.ABSENT, None): Decision.RUN,
    (Found.RELEASED, None): Decision.AGAIN,
    (Found.RELEASED, True): Decision.AGAIN,
    (Found.RELEASED, False): Decision.AGAIN,
    (Found.RUNNING, None): Decision.WAIT,
    (Found.RUNNING, True): Decision.JOIN,
    (Found.RUNNING, False): Decision.REFUSE,
    (Found.FINISHED, None): Decision.UNKNOWN,
    (Found.FINISHED, True): Decision.REPLAY,
    (Found.FINISHED, False): Decision.REFUSE,
    (Found.LOST, None): Decision.UNKNOWN,
    (Found.LOST, True): Decision.UNKNOWN,
    (Found.LOST, False): Decision.REFUSE,
}
"""By what was found, and whether it is the same request; ``None``: that is not known."""


def decide(found: Found, fingerprint: str, first: str) -> Decision:
    """Return what becomes of a call, from its fingerprint and that of the first; may be empty."""
    return DECISIONS[found, is_same(fingerprint, first)]


def is_same(fingerprint: str, first: str) -> bool | None:
    """Return whether two requests are the same; ``None`` without that of the first."""
    return fingerprint == first if first else None


def _joined(parts: list[bytes]) -> bytes:
    """Return the parts with their lengths: other parts never give the same bytes."""
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)
