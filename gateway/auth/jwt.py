"""JWTs of one configured issuer (`spec/control-plane.md` §6.1), checked with its published keys.

Everything here is synchronous: the keys are fetched by somebody else, in the background, and
replaced as a whole. A key that is not among them is asked for once, and its token refused
meanwhile.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.auth.scopes import RESERVED
from gateway.auth.signing import Claims, verified
from gateway.errors import PlatformFault, Unauthenticated

if TYPE_CHECKING:
    import jwt

ALGORITHMS = frozenset(
    {
        "ES256",
        "ES384",
        "ES512",
        "EdDSA",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
    }
)
"""Asymmetric ones. Which a token may use is its key's to say, never the token's (RFC 8725 §3.1)."""
MAX_KEYS = 64


class IssuerUnavailable(PlatformFault):
    """The issuer's keys were not read yet: its tokens can be neither taken nor refused."""

    status = 503
    kind = "issuer-unavailable"
    reason = "issuer_unavailable"
    summary = "The keys of the token's issuer cannot be read"
    always = ((b"retry-after", b"1"),)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose JWTs are taken, and for whom they must be made (``aud``, one of these)."""

    name: str
    audiences: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.audiences:
            raise ValueError("an issuer needs a name and at least one audience")


class IssuerKeys:
    """The keys of an issuer as they were fetched last; none at the start.

    ``changes`` grows with every set of keys that differs from the one before.
    """

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.changes = 0
        self._keys: dict[str, jwt.PyJWK] = {}
        self._is_read = False
        self._described: object = None
        self._missed: Callable[[], None] = _nothing

    def on_missed(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when a token names a key that is not here. It must be quick."""
        self._missed = listener

    def replace(self, jwks: object) -> int:
        """Take a JWK Set (RFC 7517 §5) in place of the one before; return how many keys count.

        Keys that are for something else, symmetric or not understood do not count. Raises
        `ValueError` when it is no set or none of its keys counts; then the one before stays.
        """
        if self._is_read and jwks == self._described:
            return len(self._keys)
        keys: dict[str, jwt.PyJWK] = {}
        for described in _listed(jwks)[:MAX_KEYS]:
            key = _usable(described)
            if key is not None:
                keys[str(key.key_id or "")] = key
        if not keys:
            raise ValueError("no JWK Set with a key for signatures that we understand")
        self._keys, self._described, self._is_read = keys, jwks, True
        self.changes += 1
        return len(keys)

    def verify(self, token: str, kid: object) -> Claims:
        """Return the claims of a token that names this issuer.

        Raises `Unauthenticated`, or `IssuerUnavailable` before the first keys were read. Whether
        the time is right is the caller's to check, at each use.
        """
        if not self._is_read:
            self._missed()
            raise IssuerUnavailable
        key = self._key(kid)
        if key is None:
            self._missed()
            raise Unauthenticated
        issuer = self.issuer
        return verified(token, key.key, [key.algorithm_name], issuer.name, issuer.audiences)

    def read(self, token: str, kid: object) -> tuple[Claims, frozenset[str]]:
        """Return the claims and the scopes of such a token. Raises as `verify` does."""
        claims = self.verify(token, kid)
        return claims, scopes_of(claims.members)

    def _key(self, kid: object) -> "jwt.PyJWK | None":
        if kid is None and len(self._keys) == 1:
            (only,) = self._keys.values()
            return only
        return self._keys.get(kid) if isinstance(kid, str) else None


def scopes_of(members: Mapping[str, Any]) -> frozenset[str]:
    """Return the claim ``scopes``, a list of texts; anything else allows nothing.

    Nor do scopes that only the gateway's own credentials can have.
    """
    scopes = members.get("scopes")
    if not isinstance(scopes, list):
        return frozenset()
    return frozenset(scope for scope in scopes if isinstance(scope, str)) - RESERVED


def _listed(jwks: object) -> list[object]:
    listed = jwks.get("keys") if isinstance(jwks, Mapping) else None
    return listed if isinstance(listed, list) else []


def _usable(described: object) -> "jwt.PyJWK | None":
    if not isinstance(described, dict) or described.get("use", "sig") != "sig":
        return None
    # Here for the same reason as in `gateway.auth.signing`.
    import jwt  # noqa: PLC0415

    try:
        key = jwt.PyJWK(described)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def _nothing() -> None:
    pass
