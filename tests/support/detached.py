"""A book of detached calls, and its routes, without a disk, a store or other processes."""

from pathlib import Path

from gateway.dispatch.keyed_calls import KeyedCalls
from gateway.domain.principal import Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import Unauthenticated
from gateway.objects.interface import ObjectStore
from gateway.requests.book import RequestBook
from gateway.requests.detached import Limits
from gateway.requests.endpoint import Access, RequestsEndpoint
from gateway.requests.events import WatchedPositions
from gateway.requests.forwarding import Forwarder
from gateway.requests.holders import Holders
from gateway.requests.key_claims import KeyClaims
from gateway.requests.regions import Regions
from gateway.requests.stored import StoredResponses
from gateway.routing.admission import Authenticate
from gateway.routing.cross_origin import CrossOrigin
from queueing.interface import NoResponder
from tests.support.objects import local_objects
from tests.support.recorder import RecordedSpool, Script
from tests.support.stored_claims import StoredClaims

NOW = 100.0


def make_book(
    spool: RecordedSpool | None = None,
    limits: Limits | None = None,
    max_calls: int = 100,
    objects: ObjectStore | None = None,
) -> RequestBook:
    """Return a book whose clock stands still, by default with a store that is never used."""
    spool = spool or RecordedSpool(Script())
    return RequestBook(
        spool.open,
        lambda: NOW,
        limits or Limits(),
        max_calls,
        StoredResponses(objects or local_objects(Path("/nonexistent")), 86_400.0),
    )


def make_endpoint(
    cross_origin: CrossOrigin,
    book: RequestBook | None = None,
    authenticate: Authenticate | None = None,
    model: ReadModel | None = None,
    holders: Holders | None = None,
) -> RequestsEndpoint:
    """Return the routes of ``book``, by default of an empty one that nobody may ask."""
    book = book or make_book()

    async def position(version_id: str, request_id: str) -> int:
        return 1

    async def has_lived(process: int) -> bool:
        return False

    return RequestsEndpoint(
        book,
        Access(authenticate or _nobody, model or ReadModel(), cross_origin),
        WatchedPositions(position, lambda request_id: True, lambda version_id, position: None),
        Forwarder(holders or Holders(NoBus(), None, Regions(NoBus(), "eu", ()), 7), book),
        has_lived,
        lambda request, status: None,
    )


def make_keyed_calls(book: RequestBook, claims: StoredClaims | None = None) -> KeyedCalls:
    """Return the calls with keys of a process that no other one can be reached from."""
    forwarder = Forwarder(Holders(NoBus(), None, Regions(NoBus(), "eu", ()), 7), book)
    return KeyedCalls(KeyClaims(claims or StoredClaims()), book, forwarder)


class NoBus:
    """A `queueing.interface.Bus` on which nobody responds."""

    def subscribe(self, subject: bytes, handler: object) -> None: ...

    def publish(self, subject: bytes, payload: bytes) -> bool:
        return False

    async def request(self, subject: bytes, payload: bytes, timeout_s: float = 2.0) -> bytes:
        raise NoResponder


def _nobody(authorization: bytes | None, now: float) -> Principal:
    raise Unauthenticated
