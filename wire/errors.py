"""What every module of this package raises when bytes or names break the contract."""


class WireError(ValueError):
    """Bytes from a peer that are not what gateway and worker agreed on.

    ``status`` is the HTTP status that says so to the peer, if it is to be told.
    """

    status = 400
