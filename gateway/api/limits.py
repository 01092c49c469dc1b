"""The limits of a request body of the REST API, checked on the way to the API and in it."""

from collections import Counter

from gateway.errors import BodyTooLarge, TooManyBodies

MAX_BODY_BYTES = 1_048_576
"""Maximum bytes of a body, as received and again after its content coding is undone."""

MAX_VALUES = 20_000
"""Maximum number of JSON values in a body: each costs about a microsecond, in which the event loop
serves nothing else."""


def check_body_bytes(count: int | None) -> None:
    """Raise `BodyTooLarge` if ``count`` is above `MAX_BODY_BYTES`; `None` is not known yet."""
    if count is not None and count > MAX_BODY_BYTES:
        raise BodyTooLarge(f"A body has at most {MAX_BODY_BYTES} bytes")


FREE_BYTES = 16_384
"""Bytes of each body that are not counted: a small body is never refused."""
MAX_HELD_BYTES = 67_108_864
MAX_ACCOUNT_HELD_BYTES = 16_777_216
"""Maximum bytes of incomplete bodies in a process: of all accounts, and of one."""


class HeldBodies:
    """Counts the bytes of bodies that callers have begun to send, so that they stay bounded."""

    def __init__(self) -> None:
        self._by_account: Counter[str] = Counter()

    @property
    def total_bytes(self) -> int:
        return self._by_account.total()

    def hold(self, account: str, before: int, now: int) -> None:
        """Count a body of ``account`` that grew from ``before`` to ``now`` bytes.

        Raises `TooManyBodies`; the body then counts as before.
        """
        more = max(now - FREE_BYTES, 0) - max(before - FREE_BYTES, 0)
        if not more:
            return
        is_full = (
            self._by_account[account] + more > MAX_ACCOUNT_HELD_BYTES
            or self.total_bytes + more > MAX_HELD_BYTES
        )
        if is_full:
            raise TooManyBodies
        self._by_account[account] += more

    def release(self, account: str, size: int) -> None:
        """A body that was counted with ``size`` bytes is complete or given up."""
        self._by_account[account] -= max(size - FREE_BYTES, 0)
        if not self._by_account[account]:
            del self._by_account[account]
