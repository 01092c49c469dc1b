"""What a call to the store may fail with, and what a caller of the API is told then."""

from gateway.errors import Conflict, GatewayError, StoreUnavailable


class StoreError(GatewayError):
    """The store did not do what was asked.

    ``str(error)`` is the cause, for logs; the answer's ``detail`` is the class's own, because the
    cause names servers and streams.
    """

    def __init__(self, cause: str = "") -> None:
        super().__init__()
        self.args = (cause or self.summary,)


class StoreUnavailableError(StoreError, StoreUnavailable):
    """NATS cannot be reached, refuses the login, or gives no answer in time."""


class ConflictError(StoreError, Conflict):
    """The record was changed or made by somebody else in between: read it again."""


class BucketMissingError(StoreUnavailableError):
    """The bucket is not there (yet, or any more)."""
