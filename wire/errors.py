"""The base class of this package's errors."""


class WireError(ValueError):
    """Bytes or names that violate the contract between gateway, worker and client.

    ``status`` is the HTTP status of a response to the peer that sent them.
    """

    status = 400
