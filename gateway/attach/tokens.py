"""The tokens by which workers reach the invocations of this process.

A token is looked up by the whole ``Authorization`` value, so the usual attach call costs one
dictionary access. Tokens are UUIDv4 text (`docs/wire.md` §3.3, 122 random bits). They are
revoked when their invocation ends, so the table is bounded by the number of live invocations.

A *response token* admits one POST at a time. `Tokens.redeem` removes it from the table. It is
issued again only if its POST broke before the response head, for the next delivery of the request.
A *request token* stays valid until its invocation ends (`Tokens.owner_of`), because a second GET
shows that the first worker is lost. The rest of the body is nevertheless sent only once.
"""

from typing import Generic, TypeVar

Owner = TypeVar("Owner")

_SCHEME = b"Bearer "
_VALUE_BYTES = len(_SCHEME) + 36


class Tokens(Generic[Owner]):
    """One kind of token; each token belongs to one owner."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        self._owners: dict[bytes, Owner] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def issue(self, token: str, owner: Owner) -> None:
        """Make ``token`` valid for ``owner``."""
        self._owners[_SCHEME + token.encode()] = owner

    def revoke(self, token: str) -> None:
        """Make ``token`` invalid; no error if it is not valid."""
        self._owners.pop(_SCHEME + token.encode(), None)

    def redeem(self, authorization: bytes) -> Owner | None:
        """Revoke the token in an ``Authorization`` value and return its owner.

        Return None if the value holds no valid token.
        """
        owner = self._owners.pop(authorization, None)
        return self._owners.pop(_normalize(authorization), None) if owner is None else owner

    def owner_of(self, authorization: bytes) -> Owner | None:
        """Return the owner of the token in an ``Authorization`` value; the token stays valid.

        Return None if the value holds no valid token.
        """
        owner = self._owners.get(authorization)
        return self._owners.get(_normalize(authorization)) if owner is None else owner


def is_authorized(authorization: bytes, token: str) -> bool:
    """Return whether an ``Authorization`` value holds ``token``."""
    expected = _SCHEME + token.encode()
    return authorization == expected or _normalize(authorization) == expected


def _normalize(authorization: bytes) -> bytes:
    """Return the value as `Tokens` keeps it: scheme and UUID may come in any case."""
    scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
    if len(authorization) != _VALUE_BYTES or scheme.lower() != b"bearer ":
        return b""
    return _SCHEME + token.lower()
