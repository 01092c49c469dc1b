"""The documents of NATS's auth callout (ADR-26). Pure.

A worker of NVCF logs in with a token alone. The servers' ``default_sentinel`` gives such a client
a user of the callout's account, which permits nothing. This account delegates: for each of its
clients the server sends a request with the client's CONNECT to the gateways, and uses the user
that they return. The key of the account and the gateways' own user are derived from the operator's
key, so that each gateway process makes the same and nothing has to be stored.

A worker's token is base64url, with or without padding, of ``{"account": "Worker", "pluginName":
"webhook", "payload": "<worker token>"}`` (`docs/wire.md` §4.5).
"""

import hmac
from base64 import urlsafe_b64decode
from typing import Any, NamedTuple

import orjson

from queueing.nats.accounts.jwt import (
    Role,
    Signer,
    UserCredentials,
    account_jwt,
    user_credentials,
)
from queueing.nats.accounts.users import derived_account

CALLOUT_SUBJECT = b"$SYS.REQ.USER.AUTH"
_TEMPLATE_AT = 1_796_000_000
"""Unix time of the last change to these documents: the same in each process."""
_NAME = "auth callout"
_PLUGIN = "webhook"
_NOTHING = {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}}


class CalloutRequest(NamedTuple):
    """A client that wants to log in; ``token`` is its ``auth_token``, empty if it has none.

    ``public_key`` is what its user's document must be about; ``name`` and ``host`` are its own.
    """

    server: str
    public_key: str
    token: str
    name: str
    host: str


class CalloutAccount:
    """The callout's account, derived from ``operator_seed`` (or that of a signing key)."""

    def __init__(self, operator_seed: str) -> None:
        """Raises ValueError when ``operator_seed`` is not an operator's seed."""
        self._operator = Signer.operator(operator_seed)
        self._account = derived_account(self._operator, _NAME)

    def document(self) -> str:
        """Return the account's document, to be published before `login` is used."""
        own = Signer.of(Role.USER, self._random("gateway"))
        callout = {"auth_users": [own.public], "allowed_accounts": ["*"]}
        content = {"authorization": callout}
        return account_jwt(self._operator, self._account.public, _NAME, _TEMPLATE_AT, content)

    def login(self) -> UserCredentials:
        """Return the login with which gateway processes take requests."""
        random = self._random("gateway")
        return user_credentials(self._account, "gateway", random, {}, _TEMPLATE_AT)

    def server_config(self) -> str:
        """Return the line of the servers' configuration that sends clients here. No secret."""
        content = {"bearer_token": True, **_NOTHING}
        random = self._random("sentinel")
        sentinel = user_credentials(self._account, "sentinel", random, content, _TEMPLATE_AT)
        return f"default_sentinel: {sentinel.jwt}\n"

    def admit(self, request: CalloutRequest, user: str, now: int) -> bytes:
        """Return the response that lets the client in as ``user``, a user's document."""
        return self._respond(request, {"jwt": user}, now)

    def refuse(self, request: CalloutRequest, now: int) -> bytes:
        """Return the response that refuses the client. It is told no reason."""
        return self._respond(request, {"error": "refused"}, now)

    def _respond(self, request: CalloutRequest, content: dict[str, str], now: int) -> bytes:
        claims = {
            "sub": request.public_key,
            "aud": request.server,
            "iat": now,
            "nats": {"type": "authorization_response", "version": 2, **content},
        }
        return self._account.sign(claims).encode()

    def _random(self, name: str) -> bytes:
        seed = self._account.seed.encode()
        return hmac.digest(seed, f"user {name}".encode(), "sha256")


def read_callout(payload: bytes) -> CalloutRequest:
    """Return the server's request. Raises ValueError for anything else.

    Its signature says nothing: nobody but a server can publish to `CALLOUT_SUBJECT`.
    """
    try:
        claims: Any = orjson.loads(_decoded(payload.split(b".")[1]))["nats"]
        options, client = claims["connect_opts"], claims["client_info"]
        return CalloutRequest(
            _text(claims["server_id"]["id"]),
            _text(claims["user_nkey"]),
            _text(options.get("auth_token", "")),
            _text(options.get("name", "")),
            _text(client.get("host", "")),
        )
    except (IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError("no authorization request") from error


def worker_token(auth_token: str) -> str:
    """Return the worker token in the login of a worker of NVCF. Raises ValueError."""
    try:
        members: Any = orjson.loads(_decoded(auth_token.encode()))
        plugin, payload = members["pluginName"], members["payload"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("not the login of a worker") from error
    if plugin != _PLUGIN or not isinstance(payload, str):
        raise ValueError("not the login of a worker")
    return payload


def _decoded(text: bytes) -> bytes:
    text = text.rstrip(b"=")
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
