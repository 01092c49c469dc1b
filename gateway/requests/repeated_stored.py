"""A client that repeats a call which no process holds any more: its stored response, or none."""

from collections.abc import Callable

from gateway.errors import KeyReused, OutcomeUnknown
from gateway.requests.idempotency import Decision, Found, decide
from gateway.requests.keyed import FINGERPRINT, REPLAYED
from gateway.requests.stored import StoredResponse
from gateway.requests.stored_exchange import StoredExchange


class RepeatedFromStore(StoredExchange):
    """Serves one repeated call from the object store."""

    __slots__ = ("count", "fingerprint")

    fingerprint: str
    """That of the call; set before the first turn of the loop ends, like ``count``."""
    count: Callable[[Decision], object]
    """Called with what becomes of the call."""

    async def _serve_stored(self, stored: StoredResponse) -> None:
        shown = stored.shown
        first = str(shown.extra.get(FINGERPRINT, ""))
        decision = decide(Found.FINISHED, self.fingerprint, first)
        self.count(decision)
        if decision is Decision.REFUSE:
            raise KeyReused
        if decision is not Decision.REPLAY:
            raise OutcomeUnknown(firstRequestId=self._asked.request_id)
        await self._send_response(stored, shown._replace(headers=[*shown.headers, *REPLAYED]))

    def _size_of(self, stored: StoredResponse, begin: int) -> int | None:  # noqa: ARG002
        """Return the length that the first client was told: the method is the same."""
        return stored.shown.body_bytes
