"""A client that repeats a call which no process holds any more: its stored response, or none."""

from gateway.errors import GatewayError, KeyReused, OutcomeUnknown
from gateway.requests.idempotency import Decision, Found, decide
from gateway.requests.keyed import FINGERPRINT, REPLAYED
from gateway.requests.stored import StoredResponse
from gateway.requests.stored_exchange import StoredExchange
from wire.ids import process_of


class RepeatedFromStore(StoredExchange):
    """Serves one repeated call from the object store."""

    __slots__ = ("fingerprint",)

    fingerprint: str
    """That of the call; set before the first turn of the loop ends."""

    async def _absent(self) -> GatewayError:
        """Return what is to be said of a call that nobody knows. Raises as `HasLived`."""
        await self._has_lived(process_of(self._asked.request_id))
        return OutcomeUnknown(firstRequestId=self._asked.request_id)

    async def _serve_stored(self, stored: StoredResponse) -> None:
        shown = stored.shown
        first = str(shown.extra.get(FINGERPRINT, ""))
        decision = decide(Found.FINISHED, self.fingerprint, first)
        if decision is Decision.REFUSE:
            raise KeyReused
        if decision is not Decision.REPLAY:
            raise OutcomeUnknown(firstRequestId=self._asked.request_id)
        await self._send_response(stored, shown._replace(headers=[*shown.headers, REPLAYED]))
