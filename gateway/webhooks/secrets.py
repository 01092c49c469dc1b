"""The secrets with which an account's webhooks are signed.

One document for each account in the bucket ``meta``, sealed with a key of the master key and bound
to the account. It is made when it is first used: at the first webhook, or when someone asks for it.
After a rotation the secret before it signs too, for `OVERLAP_S`.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from gateway.auth.sealing import NONCE_BYTES, SealError, SecretBox
from gateway.domain.documents import SCHEMA, RecordError, read
from gateway.errors import Conflict
from gateway.webhooks.records import Documents
from gateway.webhooks.signing import SECRET_BYTES, secret_of

OVERLAP_S = 86_400.0
"""For so long after a rotation the secret before it signs too."""
BUCKET = "meta"
NAME_PREFIX = "webhook-secret."
"""Followed by the account's name in hex."""
_KIND = "webhook-secret"
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class WebhookSecret:
    """The secret of an account, and the one before it, empty if that signs nothing any more.

    ``previous_until`` is when that ends, ``created_at`` when ``value`` was made, in Unix seconds.
    """

    value: str
    created_at: float
    previous: str = ""
    previous_until: float = 0.0

    def signing(self, now: float) -> list[str]:
        """Return the secrets that sign at ``now``, the newest first."""
        return [self.value, *([self.previous] if self.is_previous_valid(now) else [])]

    def is_previous_valid(self, now: float) -> bool:
        """Return whether the secret before signs too."""
        return bool(self.previous) and now < self.previous_until


class WebhookSecrets:
    """Makes, opens and rotates the secrets of accounts. Implements `gateway.api.route`'s port.

    Every method may raise `gateway.errors.StoreUnavailable` and `SealError`.
    """

    def __init__(
        self,
        store: Documents,
        sealer: SecretBox,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        """``clock`` returns Unix seconds, ``random`` the given number of random bytes."""
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._random = random

    async def of(self, account: str) -> WebhookSecret:
        """Return the secret of an account, which is made if there is none."""
        return await self._change(account, lambda stored: stored)

    async def rotate(self, account: str) -> WebhookSecret:
        """Make a new secret; the one that it replaces signs too for `OVERLAP_S`.

        One that cannot be opened, because the master key is another one now, is just replaced.
        """

        def rotated(stored: WebhookSecret) -> WebhookSecret:
            now = self._clock()
            return WebhookSecret(self._new(), now, stored.value, now + OVERLAP_S)

        return await self._change(account, rotated, replaces_unreadable=True)

    async def _change(
        self,
        account: str,
        change: Callable[[WebhookSecret], WebhookSecret],
        *,
        replaces_unreadable: bool = False,
    ) -> WebhookSecret:
        name = NAME_PREFIX + account.encode().hex()
        for _ in range(_ATTEMPTS):
            found = await self._store.get_raw(BUCKET, name)
            stored, revision = None, 0
            if found is not None:
                revision = found[1]
                try:
                    stored = self._open(account, found[0])
                except SealError:
                    if not replaces_unreadable:
                        raise
            if stored is None:
                changed = WebhookSecret(self._new(), self._clock())
            else:
                changed = change(stored)
            if changed == stored:
                return changed
            try:
                await self._store.put_raw(BUCKET, name, self._seal(account, changed), revision)
            except Conflict:
                continue
            return changed
        raise Conflict

    def _new(self) -> str:
        return secret_of(self._random(SECRET_BYTES))

    def _seal(self, account: str, secret: WebhookSecret) -> bytes:
        text = orjson.dumps(
            [secret.value, secret.created_at, secret.previous, secret.previous_until]
        )
        sealed = self._sealer.seal(text, _context(account), self._random(NONCE_BYTES))
        return orjson.dumps({"schema": SCHEMA, "kind": _KIND, "sealed": b64encode(sealed).decode()})

    def _open(self, account: str, data: bytes) -> WebhookSecret:
        try:
            sealed = b64decode(read(data).text("sealed"), validate=True)
        except (RecordError, ValueError):
            raise SealError("the secret of webhooks cannot be read") from None
        return WebhookSecret(*orjson.loads(self._sealer.open(sealed, _context(account))))


def _context(account: str) -> str:
    return f"webhook secret of {account}"
