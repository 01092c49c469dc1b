"""Verifies JWTs of the configured issuer (`docs/wire.md` §15.1) with its published keys.

Synchronous and pure: `gateway.auth.jwks` fetches the keys in the background and replaces them as a
whole. A token that names an unknown key is refused and triggers a fetch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.auth.scopes import RESERVED
from gateway.auth.signing import Claims, verify_token
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
"""Asymmetric algorithms only. The key determines the algorithm, never the token (RFC 8725 §3.1)."""
MAX_KEYS = 64


class IssuerUnavailable(PlatformFault):
    """The issuer's keys have not been fetched yet, so that its tokens cannot be verified; 503."""

    status = 503
    kind = "issuer-unavailable"
    reason = "issuer_unavailable"
    summary = "The keys of the token's issuer cannot be read"
    always = ((b"retry-after", b"1"),)


@dataclass(frozen=True, slots=True)
class Issuer:
    """The accepted issuer (claim ``iss``) and the audiences of which ``aud`` must name one."""

    name: str
    audiences: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.audiences:
            raise ValueError("an issuer needs a name and at least one audience")


class IssuerKeys:
    """The issuer's keys as of the last fetch; empty before the first.

    ``changes`` grows with every key set that differs from the one before.
    """

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.changes = 0
        self._keys: dict[str, jwt.PyJWK] = {}
        self._is_fetched = False
        self._jwks: object = None
        self._notify_unknown_key: Callable[[], None] = _ignore

    def on_unknown_key(self, listener: Callable[[], None]) -> None:
        """Call ``listener``, which must not block, when a token names a key that is not known."""
        self._notify_unknown_key = listener

    def replace(self, jwks: object) -> int:
        """Replace the keys with those of a JWK Set (RFC 7517 §5); return the number of usable ones.

        Keys for another use than signatures, symmetric keys and unknown kinds are skipped. Raises
        `ValueError` if this is not a JWK Set or holds no usable key; then the previous keys stay.
        """
        if self._is_fetched and jwks == self._jwks:
            return len(self._keys)
        keys: dict[str, jwt.PyJWK] = {}
        for jwk in _keys_of(jwks)[:MAX_KEYS]:
            key = _parse_key(jwk)
            if key is not None:
                keys[str(key.key_id or "")] = key
        if not keys:
            raise ValueError("no JWK Set with a usable signature key")
        self._keys, self._jwks, self._is_fetched = keys, jwks, True
        self.changes += 1
        return len(keys)

    def verify(self, token: str, kid: object) -> Claims:
        """Return the claims of a token that names this issuer.

        Raises `Unauthenticated`, or `IssuerUnavailable` before the first keys were fetched. The
        caller must check ``not_before`` and ``expires_at``, at each use.
        """
        if not self._is_fetched:
            self._notify_unknown_key()
            raise IssuerUnavailable
        key = self._key(kid)
        if key is None:
            self._notify_unknown_key()
            raise Unauthenticated
        issuer = self.issuer
        return verify_token(token, key.key, [key.algorithm_name], issuer.name, issuer.audiences)

    def read(self, token: str, kid: object) -> tuple[Claims, frozenset[str]]:
        """Return the claims and the scopes of a token. Raises as `verify` does."""
        claims = self.verify(token, kid)
        return claims, scopes_of(claims.members)

    def _key(self, kid: object) -> "jwt.PyJWK | None":
        if kid is None and len(self._keys) == 1:
            (only,) = self._keys.values()
            return only
        return self._keys.get(kid) if isinstance(kid, str) else None


def scopes_of(members: Mapping[str, Any]) -> frozenset[str]:
    """Return the claim ``scopes``, a list of strings; anything else gives no scopes.

    Scopes that only the gateway's own credentials may have are dropped.
    """
    scopes = members.get("scopes")
    if not isinstance(scopes, list):
        return frozenset()
    return frozenset(scope for scope in scopes if isinstance(scope, str)) - RESERVED


def _keys_of(jwks: object) -> list[object]:
    keys = jwks.get("keys") if isinstance(jwks, Mapping) else None
    return keys if isinstance(keys, list) else []


def _parse_key(jwk: object) -> "jwt.PyJWK | None":
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    # Imported late for the reason given in `gateway.auth.signing`.
    import jwt  # noqa: PLC0415

    try:
        key = jwt.PyJWK(jwk)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def _ignore() -> None:
    pass
