"""The single-use tokens by which workers reach the invocations of this process.

A token is looked up by the whole ``Authorization`` value, so the usual attach call costs one
dictionary access. Tokens are UUIDv4 text (`spec/invocation.md` §3, 122 random bits); they leave
with their invocation, so the table is bounded by the number of live invocations.
"""

from typing import Generic, TypeVar

Owner = TypeVar("Owner")

_SCHEME = b"Bearer "
_VALUE_BYTES = len(_SCHEME) + 36


class Tokens(Generic[Owner]):
    """One kind of token, each of which stands for one owner."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        self._owners: dict[bytes, Owner] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def arm(self, token: str, owner: Owner) -> None:
        """Let ``token`` be used once."""
        self._owners[_SCHEME + token.encode()] = owner

    def disarm(self, token: str) -> None:
        """``token`` stands for nothing any more. No error if it did not."""
        self._owners.pop(_SCHEME + token.encode(), None)

    def use(self, authorization: bytes) -> Owner | None:
        """Return whom the token in the header value stands for, once; None for any other value."""
        owner = self._owners.pop(authorization, None)
        if owner is None and len(authorization) == _VALUE_BYTES:
            scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
            if scheme.lower() == b"bearer ":
                return self._owners.pop(_SCHEME + token.lower(), None)
        return owner
