"""A book of detached calls, and its routes, without a disk or a store."""

from gateway.domain.principal import Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import Unauthenticated
from gateway.requests.book import RequestBook
from gateway.requests.detached import Limits
from gateway.requests.endpoint import RequestsEndpoint
from gateway.routing.admission import Authenticate
from gateway.routing.cross_origin import CrossOrigin
from tests.support.recorder import RecordedSpool, Script


def make_book(
    spool: RecordedSpool | None = None, limits: Limits | None = None, max_calls: int = 100
) -> RequestBook:
    """Return a book whose clock stands still."""
    spool = spool or RecordedSpool(Script())
    return RequestBook(spool.open, lambda: 100.0, limits or Limits(), max_calls)


def make_endpoint(
    cross_origin: CrossOrigin,
    book: RequestBook | None = None,
    authenticate: Authenticate | None = None,
    model: ReadModel | None = None,
) -> RequestsEndpoint:
    """Return the routes of ``book``, by default of an empty one that nobody may ask."""
    return RequestsEndpoint(
        book or make_book(),
        authenticate or _nobody,
        model or ReadModel(),
        cross_origin,
        lambda request, status: None,
    )


def _nobody(authorization: bytes | None, now: float) -> Principal:
    raise Unauthenticated
