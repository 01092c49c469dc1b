"""Signed documents of NATS: nkeys, and JWTs of operators, accounts and users (ADR-14). Pure.

An nkey is an Ed25519 key in base32 with a role in its first letters: ``SO`` is the seed of an
operator, ``A`` the public key of an account. A document is a JWT with the algorithm
``ed25519-nkey``; the server trusts one operator, the operator signs accounts, an account its users.
"""

from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from enum import Enum
from hashlib import sha256
from typing import Any, NamedTuple

import nkeys
import orjson

NO_LIMITS: Mapping[str, object] = {"subs": -1, "data": -1, "payload": -1}


class Role(Enum):
    """The owner of a key."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


class UserCredentials(NamedTuple):
    """A client's login: a user's JWT, and the seed of the key in it."""

    jwt: str
    seed: str

    def __repr__(self) -> str:
        return "UserCredentials(***)"

    def text(self) -> str:
        """Return the content of a ``.creds`` file with both."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )


class Signer:
    """A key that signs documents."""

    __slots__ = ("_pair", "public", "seed")

    def __init__(self, seed: str) -> None:
        """Raises ValueError when ``seed`` is not a seed."""
        try:
            self._pair = nkeys.from_seed(seed.strip().encode())
            self.public: str = self._pair.public_key.decode()
        except Exception as error:
            # nkeys and libsodium raise classes of their own without a common base.
            raise ValueError("not an nkey seed") from error
        self.seed = seed.strip()

    @classmethod
    def of(cls, role: Role, random32: bytes) -> "Signer":
        """Return the key that is made of 32 random bytes."""
        return cls(nkeys.encode_seed(random32, role.value).decode())

    @classmethod
    def operator(cls, seed: str) -> "Signer":
        """Return the key of an operator. Raises ValueError when ``seed`` is not its seed."""
        found = cls(seed)
        if not found.public.startswith("O"):
            raise ValueError("not an operator's seed")
        return found

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return ``claims`` as a JWT issued by this key."""
        issued = {**claims, "iss": self.public}
        digest = sha256(orjson.dumps(issued, option=orjson.OPT_SORT_KEYS)).digest()
        issued["jti"] = b32encode(digest).rstrip(b"=").decode()
        text = f"{_HEADER}.{_base64(orjson.dumps(issued))}"
        return f"{text}.{_base64(self._pair.sign(text.encode()))}"


def operator_jwt(
    operator: Signer, name: str, system_account: str, now: int, signing_keys: Sequence[str] = ()
) -> str:
    """Return the operator's document about itself.

    ``system_account`` is a public key, and so are the ``signing_keys``, which sign in its place.
    """
    content: dict[str, object] = {
        "type": "operator",
        "version": 2,
        "system_account": system_account,
    }
    if signing_keys:
        content["signing_keys"] = list(signing_keys)
    return operator.sign({"sub": operator.public, "name": name, "iat": now, "nats": content})


def account_jwt(
    operator: Signer, account: str, name: str, now: int, content: Mapping[str, object]
) -> str:
    """Return the document of the account with that public key.

    ``content`` has its limits, imports and exports and replaces the default: no JetStream.
    """
    limits = {**NO_LIMITS, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": 0}
    content = {"limits": limits, **content}
    return operator.sign(
        {
            "sub": account,
            "name": name,
            "iat": now,
            "nats": {"type": "account", "version": 2, **content},
        }
    )


def user_credentials(
    account: Signer,
    name: str,
    random32: bytes,
    content: Mapping[str, object],
    now: int,
    expires_at: int | None = None,
) -> UserCredentials:
    """Return a new user of the account that ``account`` is the key of; times are Unix seconds.

    Without ``expires_at`` it does not expire. ``content`` has its permissions and limits; the
    default is all permissions. If ``account`` is a signing key, it has to name the account itself
    (``issuer_account``).
    """
    user = Signer.of(Role.USER, random32)
    claims = {
        "sub": user.public,
        "name": name,
        "iat": now,
        "nats": {"type": "user", "version": 2, **NO_LIMITS, **content},
    }
    if expires_at is not None:
        claims["exp"] = expires_at
    return UserCredentials(account.sign(claims), user.seed)


def account_of(jwt: str) -> str:
    """Return the public key of the account that a user's document belongs to.

    Nothing is verified: it is for our own documents. Raises ValueError for any other text.
    """
    try:
        claims = read_claims(jwt)
        account = claims["nats"].get("issuer_account") or claims["iss"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError("not a user's JWT") from error
    if not isinstance(account, str) or not account.startswith("A"):
        raise ValueError("not a user's JWT")
    return account


def read_claims(jwt: str) -> dict[str, Any]:
    """Return what a document says. Nothing is verified. Raises ValueError for any other text."""
    try:
        payload = jwt.split(".")[1]
        return dict(orjson.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError("not a JWT") from error


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


_HEADER = _base64(b'{"typ":"JWT","alg":"ed25519-nkey"}')
