"""The claims of Idempotency-Keys: one call of all processes gets each.

A claim is made before its call can reach a worker, and is there until it expires, so that whoever
repeats the call finds it. Only what certainly did not run, and will not, releases its claim.
"""

import asyncio
import logging
from collections import OrderedDict

from gateway.errors import Conflict, StoreUnavailable
from gateway.requests.idempotency import ClaimPosition, KeyClaim
from gateway.store.interface import ClaimStore
from runtime.events import emit
from runtime.tasks import spawn
from runtime.timeouts import silence_limit
from wire.deadlines import MAX_INVOCATION_S

CLAIM_WITHIN_S = 5.0
"""A call waits so long for its claim, at most."""
MAX_RELEASED = 10_000
"""Calls of which a process knows that they released their claims; the oldest is forgotten."""
_RELEASE_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Pauses before a release that failed is tried again; after the last, the claim stays."""
_ATTEMPTS = 5
"""A claim may be released or expire between two looks."""

_SETTLES_S = 60.0
"""A call is over, and its response stored, so long after its longest run."""

_log = logging.getLogger("gateway.requests")


def claim_age_s(retention_s: float) -> float:
    """Return how long a claim is kept: as long as responses, and longer than any call runs."""
    return max(retention_s, MAX_INVOCATION_S + _SETTLES_S)


class KeyClaims:
    """Claims keys for the calls of one process."""

    def __init__(self, claims: ClaimStore) -> None:
        self._claims = claims
        self._revisions: dict[str, int] = {}
        self._released: OrderedDict[str, None] = OrderedDict()

    async def claim(self, position: ClaimPosition, own: KeyClaim) -> KeyClaim | None:
        """Claim a key for the call of ``own``; return the claim of an earlier call instead, if any.

        Raises `StoreUnavailable` and `TooManyKeys`: then nothing may run, and nothing has claimed
        the key for good.
        """
        document = own.encode()
        try:
            async with silence_limit(CLAIM_WITHIN_S):
                for _ in range(_ATTEMPTS):
                    try:
                        revision = await self._claims.make(*position, document)
                    except Conflict:
                        found = await self.find(position)
                        if found is None:
                            continue
                        if found.request_id != own.request_id:
                            return found
                        # Written by an attempt whose response did not come.
                        return None
                    self._revisions[own.request_id] = revision
                    return None
        except (StoreUnavailable, TimeoutError) as error:
            # It may have been written all the same, or will be.
            self.release(position, own.request_id)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(cause="no claim in time") from error
            raise
        except asyncio.CancelledError:
            self.release(position, own.request_id)
            raise
        raise StoreUnavailable(cause="the claim changes all the time")

    async def find(self, position: ClaimPosition) -> KeyClaim | None:
        """Return the claim of a key, if there is one. Raises `StoreUnavailable`."""
        found = await self._claims.read(*position)
        if found is None:
            return None
        claim = KeyClaim.decode(found[0])
        if claim is None:
            raise StoreUnavailable(cause="a claim that cannot be read")
        return claim

    async def release_of(self, position: ClaimPosition, request_id: str) -> None:
        """Release the claim of a call whose holder says that it released it.

        Its holder may not have been able to, or the claim was written after it tried. Raises
        `StoreUnavailable`.
        """
        found = await self._claims.read(*position)
        claim = KeyClaim.decode(found[0]) if found is not None else None
        if found is not None and claim is not None and claim.request_id == request_id:
            await self._claims.release(*position, found[1])

    def is_released(self, request_id: str) -> bool:
        """Return whether a call of this process certainly did not run, and never will."""
        return request_id in self._released

    def keep(self, request_id: str) -> None:
        """The call may have run: its claim stays."""
        self._revisions.pop(request_id, None)

    def release(self, position: ClaimPosition, request_id: str) -> None:
        """The call did not run, and never will: let its key be claimed anew."""
        revision = self._revisions.pop(request_id, 0)
        self._released[request_id] = None
        if len(self._released) > MAX_RELEASED:
            self._released.popitem(last=False)
        spawn(self._release(position, request_id, revision), "claim-release")

    async def _release(self, position: ClaimPosition, request_id: str, revision: int) -> None:
        for pause_s in _RELEASE_AGAIN_S:
            try:
                if revision:
                    await self._claims.release(*position, revision)
                else:
                    await self.release_of(position, request_id)
            except StoreUnavailable:
                await asyncio.sleep(pause_s)
            else:
                return
        emit(_log, "claim.not_released", logging.WARNING, request_id=request_id)
