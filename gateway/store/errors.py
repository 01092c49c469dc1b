"""What a call to the store may fail with."""


class StoreError(Exception):
    """The store did not do what was asked."""


class StoreUnavailableError(StoreError):
    """NATS cannot be reached, refuses the login, or gives no answer in time."""


class ConflictError(StoreError):
    """The record was changed or made by somebody else in between: read it again."""


class BucketMissingError(StoreUnavailableError):
    """The bucket is not there (yet, or any more)."""
